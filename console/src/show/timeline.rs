//! Puts events into words.

use weir_analysis::masking::MASK;
use weir_common::{
    frame::{ChannelType, Direction, Env, ExitSignal, OpenFailure, Originator, Pty, TcpAddress, WindowSize},
    recording::{Event, Gap, GapCause, What},
};

use crate::{findings::masked, recording::content_bytes, table::grouped};

/// The most characters of a description.
const WORDS_MAX: usize = 4096;

/// Who sends in this direction.
pub(super) fn sender(direction: Direction) -> &'static str {
    match direction {
        Direction::ClientToTarget => "client",
        Direction::TargetToClient => "target",
    }
}

/// An event in words, not escaped; `None` for data. Secrets in a command line or a variable are masked as in findings.
#[must_use]
pub fn describe(what: &What, bulk: Option<&[u8]>) -> Option<String> {
    let words = match what {
        What::Stdin(_) | What::Stdout(_) | What::Stderr(_) => return None,
        What::Open { channel } => format!("open {}", purpose(channel)),
        What::OpenConfirm => "channel is open".to_owned(),
        What::OpenFailure(OpenFailure { code, description }) => {
            format!("channel refused: {description} (reason {code})")
        }
        What::Eof => "end of data".to_owned(),
        What::Close => "close the channel".to_owned(),
        What::Pty(pty) => format!("pty {}", terminal(pty)),
        What::Shell => "shell".to_owned(),
        What::Exec(command) => {
            format!("exec {}", masked(content_bytes(command, bulk)))
        }
        What::Subsystem { name } => format!("subsystem {name}"),
        What::Env(variable) => format!("env {}", assignment(variable)),
        What::WindowChange(size) => format!("window is now {}", window(*size)),
        What::Signal { signal } => format!("signal {signal}"),
        What::AgentForward => "forward the agent".to_owned(),
        What::X11(_) => "forward X11".to_owned(),
        What::TcpipForward(to) => format!("listen on {}", address(to)),
        What::CancelTcpipForward(to) => format!("listen no more on {}", address(to)),
        What::StreamlocalForward { path } => format!("listen on {path}"),
        What::CancelStreamlocalForward { path } => format!("listen no more on {path}"),
        What::PortBound { port } => format!("success, port {port}"),
        What::Success => "success".to_owned(),
        What::Failure => "failure".to_owned(),
        What::ExitStatus { status } => format!("exit status {status}"),
        What::ExitSignal(ExitSignal { signal, core_dumped, message }) => {
            let dumped = if *core_dumped { ", core dumped" } else { "" };
            let message = if message.is_empty() { String::new() } else { format!(": {message}") };
            format!("exit by signal {signal}{dumped}{message}")
        }
        What::Gap(gap) => self::gap(gap),
    };
    Some(match words.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    })
}

/// A gap in words, without its times.
#[must_use]
pub fn gap(gap: &Gap) -> String {
    let Gap { records, bytes, since: _, cause } = *gap;
    let why = match cause {
        GapCause::RingFull => "the ring was full",
        GapCause::SpoolFull => "the spool was full",
        GapCause::SpoolUnwritable => "the spool could not be written",
        GapCause::SessionQuota => "the session had used up its share of the spool",
        GapCause::AgentDown => "no agent was running",
    };
    format!("GAP: {} messages of {} bytes passed unrecorded, {why}", grouped(records), grouped(bytes))
}

/// How long a gap was, if the event is one.
#[must_use]
pub fn gap_length(event: &Event) -> Option<String> {
    let What::Gap(Gap { since, .. }) = event.what else { return None };
    let ms = event.t.saturating_sub(since) / 1_000_000;
    Some(format!("{}.{:03} s", ms / 1000, ms % 1000))
}

/// What a channel is for.
pub(super) fn purpose(channel: &ChannelType) -> String {
    match channel {
        ChannelType::Session => "a session channel".to_owned(),
        ChannelType::DirectTcpip { to, originator } => {
            format!("a forwarding to {} from {}:{}", address(to), originator.address, originator.port)
        }
        ChannelType::DirectStreamlocal { path } => format!("a forwarding to {path}"),
        ChannelType::ForwardedTcpip { listening, originator } => {
            let Originator { address: host, port } = originator;
            format!("a connection to {} from {host}:{port}", address(listening))
        }
        ChannelType::ForwardedStreamlocal { path } => format!("a connection to {path}"),
        ChannelType::Agent => "a connection to the client's agent".to_owned(),
        ChannelType::X11 { originator } => {
            format!("an X11 connection from {}:{}", originator.address, originator.port)
        }
        ChannelType::Connection => "the connection's own requests".to_owned(),
    }
}

fn address(address: &TcpAddress) -> String {
    format!("{}:{}", address.host, address.port)
}

/// A variable and what it is set to.
pub(super) fn assignment(Env { name, value }: &Env) -> String {
    // Where the name says that the value is secret all of it is, whatever stands in it.
    let is_secret = !value.is_empty() && masked(format!("{name}=anything").as_bytes()).ends_with(MASK);
    if is_secret { format!("{name}={MASK}") } else { masked(format!("{name}={value}").as_bytes()) }
}

/// A terminal in short.
pub(super) fn terminal(pty: &Pty) -> String {
    format!("{} {}", pty.term, window(pty.size))
}

fn window(size: WindowSize) -> String {
    format!("{}x{}", size.cols, size.rows)
}

#[cfg(test)]
mod tests {
    use weir_common::{recording::Content, session::ChannelNo};

    use super::*;

    #[test]
    fn a_gap_says_how_much_for_how_long_and_why() {
        let what = What::Gap(Gap { records: 1234, bytes: 5, since: 1_000_000, cause: GapCause::SpoolFull });
        let event = Event {
            t: 2_501_000_000,
            dir: Direction::ClientToTarget,
            ch: ChannelNo(0),
            seq: 0,
            len: 0,
            what,
        };
        assert_eq!(
            describe(&event.what, None).as_deref(),
            Some("GAP: 1,234 messages of 5 bytes passed unrecorded, the spool was full")
        );
        assert_eq!(gap_length(&event).as_deref(), Some("2.500 s"));
    }

    #[test]
    fn requests_are_described_and_data_is_not() {
        let exec = What::Exec(Content::Text("uname -a".into()));
        assert_eq!(describe(&exec, None).as_deref(), Some("exec uname -a"));
        let secret = What::Exec(Content::Text("mysql -phunter2 db".into()));
        assert_eq!(describe(&secret, None).as_deref(), Some("exec mysql -p‹masked› db"));
        let secret = What::Env(Env { name: "DB_PASSWORD".into(), value: "two words".into() });
        assert_eq!(describe(&secret, None).as_deref(), Some("env DB_PASSWORD=‹masked›"));
        assert_eq!(describe(&What::Stdout(Content::Text("x".into())), None), None);
        let killed = ExitSignal { signal: "KILL".into(), core_dumped: true, message: "bye".into() };
        assert_eq!(
            describe(&What::ExitSignal(killed), None).as_deref(),
            Some("exit by signal KILL, core dumped: bye")
        );
        let long = describe(&What::Subsystem { name: "x".repeat(30_000) }, None).expect("no data");
        assert_eq!(long.chars().count(), WORDS_MAX + 1);
    }
}
