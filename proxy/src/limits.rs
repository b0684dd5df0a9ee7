//! Every bound of the proxy that is not configurable, with its reason. The configurable ones are in `config`;
//! `docs/limits.md` lists both, with what a user sees.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use weir_common::frame::Message;

/// Bytes held per direction of a connection before its socket is no longer read.
///
/// Above what the first channel's client can have sent before it is granted little ([`HELD_BYTES_SOFT`]): its first window,
/// the half of it that is granted again on the way, and some. So almost nothing of it lies behind a gate that shuts.
pub const HELD_BYTES: usize = 7 << 20;

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
///
/// What is decided here takes effect a grant later: half a window may have come in by then, and a whole one be on its way.
pub const HELD_BYTES_SOFT: usize = 1 << 20;

/// See [`HELD_BYTES_SOFT`].
pub const PROBE_WINDOW_BYTES: u32 = 32 << 10;

/// How often a gate that is shut is looked at for news while somebody waits for some.
pub const NEWS_TICK: Duration = Duration::from_millis(10);

/// Bytes that arrive at a time and are taken for news: a few packets without data.
pub const NEWS_BYTES: usize = 1 << 10;

/// Bytes behind which news is not looked for: what a peer that is granted [`PROBE_WINDOW_BYTES`] at a time can have
/// sent, and then some. Every bit of news may bring as much.
pub const NEWS_BEHIND_BYTES: usize = 256 << 10;

/// First and longest pause between such probes. The first is kept until a whole window was let through.
pub const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(2));

/// How often a gate that is shut is looked after.
pub const GATE_TICK: Duration = Duration::from_secs(1);

/// Every so many of these ticks a gate that stays shut is probed: keepalives get through, and
/// [`HELD_BYTES_MAX`] is reached after hours only.
pub const GATE_PROBE_TICKS: u32 = 5;

/// How many times in vain a client that says nothing is asked whether it is there (`client_keepalive_ms`).
pub const CLIENT_KEEPALIVES: usize = 4;

/// The same for a target (`target_keepalive_ms`). Patient, because while its gate is shut the answer may lie behind
/// a window of data.
pub const TARGET_KEEPALIVES: usize = 10;

/// First and longest pause before frames that were tossed are sent again.
///
/// Much shorter than the pause a person notices, long enough not to hammer a ring that is full.
pub const RESEND_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// SSH's receive window per channel, once it was used up for the first time. OpenSSH's own default; larger ones made
/// transfers slower.
pub const WINDOW_BYTES: u32 = 2 << 20;

/// SSH's receive window of a new channel, and of a target's channels always (russh grants it anew).
///
/// More than [`WINDOW_BYTES`], because russh ends a connection on which twice as much arrives between its own KEXINIT and
/// the peer's (`Error::Pending`). Until the peer has seen ours, it may send what all its windows and both sockets' buffers
/// hold: Linux gives a TCP connection at most some 6 + 4 MiB of these, bookkeeping included, unless it is told otherwise.
pub const FIRST_WINDOW_BYTES: u32 = 4 << 20;

/// What a client's channels may have in their windows together, as far as it was granted anew: below what may arrive during
/// an exchange of keys (see [`FIRST_WINDOW_BYTES`]), with room for a new channel.
pub const WINDOWS_BYTES: u32 = 6 << 20;

/// Bytes of data in one packet, as in OpenSSH; a packet as a whole may have 256 KiB, which is fixed in russh.
pub const PACKET_BYTES: u32 = 32 << 10;

/// Environment variables that may be set on a channel: every locale variable several times over.
pub const ENV_VARIABLES: usize = 128;

/// Bytes of their names and values together, per channel.
pub const ENV_BYTES: usize = 16 << 10;

/// Bytes of a signal's name. RFC 4254 section 6.10 knows none of more than 4, and lets others have a domain.
pub const SIGNAL_BYTES: usize = 64;

/// Bytes of a terminal's name (`TERM`): terminfo's longest has 30.
pub const TERM_BYTES: usize = 128;

/// Terminal modes of a pty: RFC 4254 and RFC 8160 know fewer than 60.
pub const PTY_MODES: usize = 256;

/// Channels open at once on one connection.
pub const CHANNELS: usize = 64;

/// Ports and sockets that a target listens on for one connection.
pub const LISTENING: usize = 256;

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

/// Keys that a client may offer, and times it may ask for a prompt, before each counts as an attempt: an agent full of
/// keys, each with its certificate.
pub const LOGIN_QUESTIONS: u32 = 64;

/// Login attempts on one connection, as OpenSSH's `MaxAuthTries`.
pub const LOGIN_ATTEMPTS: usize = 6;

/// How long a session's channels may take to wind down once the session is over.
pub const WIND_DOWN: Duration = Duration::from_secs(2);

/// How long the ends of all sessions may take when the proxy stops, behind the grace period: two [`WIND_DOWN`]s, and
/// time for the agent. With the default grace it stays below the 30 s after which Kubernetes and ECS kill.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(8);

/// How often the log says how many sessions are left while the proxy stops.
pub const SHUTDOWN_REPORT: Duration = Duration::from_secs(5);

/// How long an eof, after which the client may close the channel, waits for the exit status that normally
/// follows at once.
pub const EOF_GRACE: Duration = Duration::from_millis(200);

/// How long a target may take to answer a channel request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the agent may take to answer a control message.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of a session whose grant is over waits for its taps to be frozen.
pub const FREEZE_PATIENCE: Duration = Duration::from_millis(500);

/// Whether a request's fields have a sensible size. The rest of them is bounded by the frame they have to fit in.
#[must_use]
pub fn admit(message: &Message) -> bool {
    match message {
        Message::Signal(name) => name.len() <= SIGNAL_BYTES,
        Message::Pty(pty) => pty.term.len() <= TERM_BYTES && pty.modes.len() <= PTY_MODES,
        _ => true,
    }
}

/// What a channel may still set in its environment: [`ENV_VARIABLES`], [`ENV_BYTES`].
#[derive(Debug, Default)]
pub struct EnvironmentBudget {
    variables: AtomicUsize,
    bytes: AtomicUsize,
}

impl EnvironmentBudget {
    /// Counts a variable of this many bytes, and says whether it is still within the bounds.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let variables = self.variables.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        variables <= ENV_VARIABLES && bytes <= ENV_BYTES
    }
}

#[cfg(test)]
mod tests {
    use weir_common::frame::{Pty, WindowSize};

    use super::*;

    #[test]
    fn an_environment_is_bounded_in_variables_and_in_bytes() {
        let environment = EnvironmentBudget::default();
        assert_eq!((0..1000).filter(|_| environment.has_room_for(1)).count(), ENV_VARIABLES);
        let environment = EnvironmentBudget::default();
        assert!(environment.has_room_for(ENV_BYTES));
        assert!(!environment.has_room_for(1));
    }

    #[test]
    fn a_pty_with_an_absurd_terminal_name_or_absurdly_many_modes_is_refused() {
        let pty = |term: usize, modes: usize| {
            let size = WindowSize { cols: 80, rows: 24, width_px: 0, height_px: 0 };
            Message::Pty(Pty { term: "x".repeat(term), size, modes: vec![(1, 0); modes] })
        };
        assert!(admit(&pty(TERM_BYTES, PTY_MODES)));
        assert!(!admit(&pty(TERM_BYTES + 1, 0)));
        assert!(!admit(&pty(0, PTY_MODES + 1)));
    }
}
