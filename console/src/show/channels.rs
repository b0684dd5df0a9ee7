//! Sums up each channel: what ran on it, on which terminal, how it ended and how many bytes it carried.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_common::{
    frame::ChannelType,
    recording::{Content, Event, What},
    session::ChannelNo,
};

use super::timeline;

/// The most channels that are summed up.
const CHANNELS_MAX: usize = 1000;
/// The most environment variables of a channel that are kept.
pub const ENVS_MAX: usize = 64;
/// The most programs of a channel that are kept; a server starts one.
pub const PROGRAMS_MAX: usize = 4;

/// One channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Channel {
    /// Its number.
    pub channel: u32,
    /// What the client asked for: shell, command, subsystem; or where a forwarding leads.
    pub programs: Vec<String>,
    /// The terminal it asked for.
    pub terminal: Option<String>,
    /// The environment it asked for.
    pub env: Vec<String>,
    /// How the program ended, or why the channel was refused.
    pub exit: Option<String>,
    /// Bytes of standard input.
    pub stdin_bytes: u64,
    /// Bytes of standard output.
    pub stdout_bytes: u64,
    /// Bytes of standard error.
    pub stderr_bytes: u64,
}

#[derive(Default)]
pub(super) struct Channels {
    channels: BTreeMap<ChannelNo, Channel>,
    others: u64,
}

impl Channels {
    /// Takes an event and its description.
    pub(super) fn add(&mut self, event: &Event, words: Option<&str>) {
        if self.channels.len() == CHANNELS_MAX && !self.channels.contains_key(&event.ch) {
            self.others += 1;
            return;
        }
        let fresh = || Channel { channel: event.ch.0, ..Channel::default() };
        let channel = self.channels.entry(event.ch).or_insert_with(fresh);
        let words = || words.unwrap_or_default().to_owned();
        let count = |total: &mut u64, content: &Content| *total = total.saturating_add(content.len());
        match &event.what {
            What::Stdin(content) => count(&mut channel.stdin_bytes, content),
            What::Stdout(content) => count(&mut channel.stdout_bytes, content),
            What::Stderr(content) => count(&mut channel.stderr_bytes, content),
            What::Shell | What::Exec(_) | What::Subsystem { .. } if channel.programs.len() < PROGRAMS_MAX => {
                channel.programs.push(words());
            }
            What::Open { channel: ChannelType::Session } => {}
            What::Open { channel: purpose } if channel.programs.len() < PROGRAMS_MAX => {
                channel.programs.push(timeline::purpose(purpose));
            }
            What::Pty(pty) => channel.terminal = Some(timeline::terminal(pty)),
            What::Env(env) if channel.env.len() < ENVS_MAX => {
                channel.env.push(timeline::assignment(env));
            }
            What::ExitStatus { status } => channel.exit = Some(format!("status {status}")),
            What::ExitSignal(exit) => channel.exit = Some(format!("signal {}", exit.signal)),
            What::OpenFailure(_) => channel.exit = Some("refused".to_owned()),
            _ => {}
        }
    }

    pub(super) fn finish(self) -> (Vec<Channel>, u64) {
        (self.channels.into_values().collect(), self.others)
    }
}

#[cfg(test)]
mod tests {
    use weir_common::frame::{Direction, Originator, TcpAddress};

    use super::*;

    #[test]
    fn a_forwarding_says_where_it_leads_and_a_session_channel_what_ran() {
        let mut channels = Channels::default();
        let mut event = |ch, what| {
            let dir = Direction::ClientToTarget;
            channels.add(&Event { t: 0, dir, ch: ChannelNo(ch), seq: 0, len: 0, what }, Some("shell"));
        };
        event(0, What::Open { channel: ChannelType::Session });
        event(0, What::Shell);
        let originator = Originator { address: "127.0.0.1".into(), port: 4000 };
        let to = TcpAddress { host: "db".into(), port: 5432 };
        event(1, What::Open { channel: ChannelType::DirectTcpip { to, originator } });
        let (channels, _) = channels.finish();
        assert_eq!(channels[0].programs, ["shell"]);
        assert_eq!(channels[1].programs, ["a forwarding to db:5432 from 127.0.0.1:4000"]);
    }
}
