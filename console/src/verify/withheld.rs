//! What a recording leaves out: the content of files, where the grant says that it is not to be kept.
//!
//! Left out may be what went to and from a program that transfers files and nothing else by what the client asked for, without a
//! terminal, once the target accepted it and both sides have spoken; and nothing at all if the grant does not say so. Where the
//! recording does not show that, for a gap for instance, the agent has to keep everything. How much is left out stands in
//! the event and is part of every sum.

mod channel;

use std::collections::BTreeMap;

use serde::Serialize;
use weir_common::{
    frame::{ChannelType, Direction},
    recording::{Content, Event, Part, What},
    session::ChannelNo,
};

use self::channel::Channel;
use super::streams::CHANNELS_MAX;
use crate::table::grouped;

/// What is left out, over all channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileContent {
    /// From how many events.
    pub events: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl std::fmt::Display for FileContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of file content", grouped(self.bytes))
    }
}

/// Follows what is left out.
pub(super) struct Withheld {
    /// Whether the grant says that content is kept; `None` as long as nothing says it.
    recorded: Option<bool>,
    /// Channels on which a program can be asked for.
    channels: BTreeMap<ChannelNo, Channel>,
    sum: FileContent,
}

impl Withheld {
    /// Nothing seen yet.
    pub(super) fn new(recorded: Option<bool>) -> Self {
        Self { recorded, channels: BTreeMap::new(), sum: FileContent::default() }
    }

    /// Takes what the grant says from where it is told, unless it is known.
    pub(super) fn learn(&mut self, recorded: bool) {
        self.recorded.get_or_insert(recorded);
    }

    /// Takes the next event and says what is wrong with what it leaves out. Whether its channel's beginning was read is told
    /// along.
    pub(super) fn take(&mut self, event: &Event, complete: bool) -> Option<String> {
        if matches!(event.what, What::Open { channel: ChannelType::Session })
            && event.dir == Direction::ClientToTarget
            && self.channels.len() < CHANNELS_MAX
        {
            self.channels.insert(event.ch, Channel::default());
        }
        if let Some(channel) = self.channels.get_mut(&event.ch) {
            channel.take(event);
        }
        let Some(Content::Withheld(parts)) = event.what.content() else { return None };
        let bytes = parts.iter().map(withheld_bytes).fold(0, u64::saturating_add);
        self.sum.events += 1;
        self.sum.bytes = self.sum.bytes.saturating_add(bytes);
        let of_channel = self.channels.get(&event.ch).map_or(Some(channel::NO_TRANSFER), Channel::problem);
        let problem = if self.recorded == Some(true) {
            "and the grant says that it is kept (record_file_content = true)"
        } else if !matches!(event.what, What::Stdin(_) | What::Stdout(_)) {
            "and is not what goes through a file transfer"
        } else if let Some(problem) = of_channel.filter(|_| complete) {
            problem
        } else if bytes == 0 || parts.iter().any(Part::is_empty) {
            return Some("leaves out nothing, and says that it does".to_owned());
        } else {
            return None;
        };
        Some(format!("leaves out {} bytes, {problem}", grouped(bytes)))
    }

    /// What is left out in all.
    pub(super) fn sum(&self) -> FileContent {
        self.sum
    }
}

fn withheld_bytes(part: &Part) -> u64 {
    match part {
        Part::Kept(_) => 0,
        Part::Withheld { .. } => part.len(),
    }
}

#[cfg(test)]
mod tests {
    use weir_common::{
        digest::Sha256,
        frame::{Env, Pty},
    };

    use super::*;

    /// An event that is not numbered yet.
    fn event(ch: u32, what: What) -> Event {
        let dir = match what {
            What::Success | What::Failure | What::Stdout(_) | What::Stderr(_) => Direction::TargetToClient,
            _ => Direction::ClientToTarget,
        };
        let len = what.content().map_or(0, |content| u32::try_from(content.len()).expect("short"));
        Event { t: 1, dir, ch: ChannelNo(ch), seq: 0, len, what }
    }

    /// Takes events, numbered as they come.
    struct Taken {
        withheld: Withheld,
        next: BTreeMap<(ChannelNo, &'static str), u64>,
    }

    impl Taken {
        fn new(recorded: Option<bool>) -> Self {
            Self { withheld: Withheld::new(recorded), next: BTreeMap::new() }
        }

        fn take(&mut self, event: Event, complete: bool) -> Option<String> {
            let next = self.next.entry((event.ch, event.dir.as_str())).or_default();
            let seq = *next;
            *next += 1;
            self.withheld.take(&Event { seq, ..event }, complete)
        }

        /// Takes what is not to be found anything wrong with.
        fn all(&mut self, ch: u32, events: impl IntoIterator<Item = What>) {
            for what in events {
                assert_eq!(self.take(event(ch, what), true), None);
            }
        }
    }

    fn open() -> What {
        What::Open { channel: ChannelType::Session }
    }

    fn text(text: &str) -> Content {
        Content::Text(text.to_owned())
    }

    /// What begins a transfer by this request.
    fn accepted(request: What) -> [What; 5] {
        [open(), request, What::Success, What::Stdin(text("hello")), What::Stdout(text("hello"))]
    }

    fn sftp() -> What {
        What::Subsystem { name: "sftp".into() }
    }

    fn content(bytes: u32) -> Content {
        let sha256 = Sha256::of(b"");
        Content::Withheld(vec![Part::Kept(b"head".to_vec()), Part::Withheld { bytes, sha256 }])
    }

    #[test]
    fn what_is_left_out_is_summed_up_and_has_to_be_permitted_and_of_a_program() {
        let mut withheld = Taken::new(Some(false));
        withheld.all(1, accepted(sftp()));
        withheld.all(1, [What::Stdin(content(1200)), What::Stdout(content(34))]);
        assert_eq!(withheld.withheld.sum(), FileContent { events: 2, bytes: 1234 });
        assert_eq!(withheld.withheld.sum().to_string(), "1,234 bytes of file content");
        for (what, complete, problem) in [
            (event(2, What::Stdin(content(5))), true, Some("no command or subsystem")),
            // Its request may be in what could not be read.
            (event(2, What::Stdin(content(5))), false, None),
            (event(1, What::Stderr(content(5))), true, Some("not what goes through")),
            (event(1, What::Exec(content(5))), true, Some("not what goes through")),
            (event(1, What::Stdin(content(0))), true, Some("leaves out nothing")),
            (event(1, What::Stdin(Content::Withheld(Vec::new()))), true, Some("leaves out nothing")),
        ] {
            let found = withheld.take(what, complete);
            assert_eq!(found.is_some(), problem.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(problem.unwrap_or_default()));
        }
        let mut withheld = Taken::new(None);
        withheld.withheld.learn(true);
        withheld.withheld.learn(false);
        withheld.all(1, accepted(sftp()));
        let found = withheld.take(event(1, What::Stdin(content(1200))), true).expect("a problem");
        assert!(found.contains("1,200 bytes") && found.contains("record_file_content = true"), "{found}");
    }

    #[test]
    fn only_a_transfer_that_was_accepted_and_of_which_both_sides_have_spoken_may_leave_something_out() {
        let pty = || What::Pty(Pty { term: "xterm".into(), size: Default::default(), modes: Vec::new() });
        let env = || What::Env(Env { name: "LANG".into(), value: "C".into() });
        let exec = |command: &str| What::Exec(text(command));
        let rsync = || exec("rsync --server . x");
        let [hello, answer] = [|| What::Stdin(text("hello")), || What::Stdout(text("hello"))];
        let (no_transfer, not_accepted, not_spoken) =
            (Some("no command or subsystem was asked for"), Some("has not accepted"), Some("both sides"));
        for (events, problem) in [
            (accepted(rsync()).to_vec(), None),
            (accepted(exec("/usr/bin/scp -t x")).to_vec(), None),
            (accepted(exec("bash")).to_vec(), no_transfer),
            (accepted(exec("scp -t x; bash")).to_vec(), no_transfer),
            (accepted(exec("/tmp/scp -t x")).to_vec(), no_transfer),
            (accepted(What::Subsystem { name: "netconf".into() }).to_vec(), no_transfer),
            (accepted(What::Shell).to_vec(), no_transfer),
            (vec![open(), rsync(), What::Failure, hello(), answer()], no_transfer),
            (vec![open(), rsync(), hello(), answer()], not_accepted),
            (vec![open(), rsync(), What::Success, hello()], not_spoken),
            (vec![open(), rsync(), What::Success, answer()], None),
            (vec![open(), pty(), What::Success, rsync(), What::Success, hello(), answer()], no_transfer),
            (vec![open(), env(), rsync(), What::Failure, What::Success, hello(), answer()], None),
            (vec![open(), env(), rsync(), What::Success, What::Failure, hello(), answer()], no_transfer),
            (vec![open(), What::Shell, rsync(), What::Success, hello(), answer()], no_transfer),
            (
                vec![open(), rsync(), What::Shell, What::Failure, What::Success, hello(), answer()],
                no_transfer,
            ),
            (accepted(rsync())[1..].to_vec(), no_transfer),
        ] {
            let mut withheld = Taken::new(Some(false));
            let words = format!("{events:?}");
            withheld.all(1, events);
            let found = withheld.take(event(1, What::Stdin(content(5))), true);
            assert_eq!(found.is_some(), problem.is_some(), "{found:?} {words}");
            assert!(found.unwrap_or_default().contains(problem.unwrap_or_default()), "{words}");
        }
    }

    #[test]
    fn behind_a_gap_only_what_was_shown_to_be_a_transfer_before_may_leave_something_out() {
        for (before, permitted) in [(1, false), (2, false), (3, false), (4, false), (5, true)] {
            let mut withheld = Taken::new(Some(false));
            let events = accepted(sftp());
            withheld.all(1, events[..before].to_vec());
            for next in withheld.next.values_mut() {
                *next += 1;
            }
            withheld.all(1, events[before..].to_vec());
            let stdin = event(1, What::Stdin(content(5)));
            assert_eq!(withheld.take(stdin, true).is_none(), permitted, "behind {before} events");
        }
    }
}
