//! Every bound of the proxy that is not configurable, with its reason. The configurable ones are in `config`.

use std::time::Duration;

/// Bytes held per direction of a connection before its socket is no longer read.
///
/// Above SSH's window of 2 MiB, so that an ordinary transfer never reaches it.
pub const HELD_BYTES: usize = 4 << 20;

/// Bytes held per direction past which the session ends.
///
/// Reading can't always stop at [`HELD_BYTES`]: see `gate`.
pub const HELD_BYTES_MAX: usize = 64 << 20;

/// What a held message counts besides its body: the memory of its bookkeeping, so that a flood of empty
/// messages is bounded too.
pub const MESSAGE_OVERHEAD: usize = 128;

/// Messages held per direction of a channel. [`HELD_BYTES_MAX`] is reached first.
pub const QUEUE_MESSAGES: usize = HELD_BYTES_MAX / MESSAGE_OVERHEAD + 1;

/// Bytes a closed gate lets through when the other direction waits for news from the same peer.
pub const PROBE_BYTES: usize = 32 << 10;

/// Bytes held from which a client is granted [`PROBE_WINDOW_BYTES`] only, so that little lies behind its gate
/// by the time it shuts, and a probe soon reaches what it looks for.
pub const HELD_BYTES_SOFT: usize = HELD_BYTES / 2;

/// See [`HELD_BYTES_SOFT`].
pub const PROBE_WINDOW_BYTES: u32 = 32 << 10;

/// First and longest pause between such probes. The first is kept until a whole window was let through.
pub const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(2));

/// How often a gate that is shut is looked after.
pub const GATE_TICK: Duration = Duration::from_secs(1);

/// Every so many of these ticks a gate that stays shut is probed: keepalives get through, and
/// [`HELD_BYTES_MAX`] is reached after hours only.
pub const GATE_PROBE_TICKS: u32 = 5;

/// How often a client that says nothing is asked whether it is there, and how many times in vain.
pub const CLIENT_KEEPALIVE: (Duration, usize) = (Duration::from_secs(30), 4);

/// The same for a target. Patient, because while its gate is shut the answer may lie behind a window of data.
pub const TARGET_KEEPALIVE: (Duration, usize) = (Duration::from_secs(60), 10);

/// First and longest pause before frames that were tossed are sent again.
///
/// Much shorter than the pause a person notices, long enough not to hammer a ring that is full.
pub const RESEND_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// SSH's receive window per channel. OpenSSH's own default; larger ones made transfers slower.
pub const WINDOW_BYTES: u32 = 2 << 20;

/// Channels open at once on one connection.
pub const CHANNELS: usize = 64;

/// Bytes of a grant file.
pub const GRANT_FILE_BYTES: u64 = 64 << 10;

/// Bytes of a file that holds a secret; RSA keys of 16384 bits have 13 KiB.
pub const SECRET_FILE_BYTES: usize = 64 << 10;

/// Bytes of a `known_hosts` file: some 40,000 hosts. It is read anew for every session.
pub const KNOWN_HOSTS_BYTES: u64 = 8 << 20;

/// Addresses of a target that are tried.
pub const TARGET_ADDRESSES: usize = 16;

/// How long the name of a target may take to resolve: one server that does not answer, as resolvers ask them.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(6);

/// How long one address of a target may take to answer: SYNs are sent at 0, 1, 3 and 7 s.
pub const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one address is waited for before the next is tried beside it (RFC 8305 section 5).
pub const ADDRESS_STAGGER: Duration = Duration::from_millis(250);

/// How long one attempt of a call to AWS may take, the whole call, and how many attempts it has.
pub const AWS_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// See [`AWS_ATTEMPT_TIMEOUT`]. Two calls fit into the default time for connecting to a target.
pub const AWS_TIMEOUT: Duration = Duration::from_secs(6);

/// See [`AWS_ATTEMPT_TIMEOUT`].
pub const AWS_ATTEMPTS: u32 = 2;

/// Keys that an authentication agent may list before it is said to list too many.
pub const AGENT_KEYS: usize = 1_000;

/// How long a certificate for a target is valid before now and past the time that connecting may take: clocks
/// differ.
pub const CERTIFICATE_SKEW: Duration = Duration::from_secs(60);

/// Login attempts on one connection, as OpenSSH's `MaxAuthTries`.
pub const LOGIN_ATTEMPTS: usize = 6;

/// How long a session's channels may take to wind down once the session is over.
pub const WIND_DOWN: Duration = Duration::from_secs(2);

/// How long an eof, after which the client may close the channel, waits for the exit status that normally
/// follows at once.
pub const EOF_GRACE: Duration = Duration::from_millis(200);

/// How long a target may take to answer a channel request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the agent may take to answer a control message.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);
