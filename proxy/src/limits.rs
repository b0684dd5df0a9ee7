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

/// Bytes of a file of revoked keys.
pub const REVOKED_FILE_BYTES: u64 = 16 << 20;

/// How often the files of grants that sessions go by are looked at. Something that must be seen twice is seen within
/// twice this, well within a second.
pub const GRANT_POLL: Duration = Duration::from_millis(250);

/// One-time secrets checked at a time: each takes up to 64 MiB, and a processor for some tens of milliseconds.
pub const SECRET_CHECKS: usize = 2;

/// Bytes of a one-time secret; what is longer is cut off, and wrong.
pub const SECRET_BYTES: usize = 1024;

/// Source addresses whose failed logins are remembered, some 200 bytes each.
pub const SOURCES: usize = 16_384;

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
