//! What a recording leaves out: the content of files, where the grant says that it is not to be kept.
//!
//! Left out may be what went to and from a program that the client asked for by name, and nothing else; and nothing at all if
//! the grant does not say so. How much it was stands in the event and is part of every sum.

use std::collections::BTreeSet;

use serde::Serialize;
use weir_common::{
    recording::{Content, Event, Part, What},
    session::ChannelNo,
};

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
    /// Channels on which a command or a subsystem was asked for.
    programs: BTreeSet<ChannelNo>,
    sum: FileContent,
}

impl Withheld {
    /// Nothing seen yet.
    pub(super) fn new(recorded: Option<bool>) -> Self {
        Self { recorded, programs: BTreeSet::new(), sum: FileContent::default() }
    }

    /// Takes what the grant says from where it is told, unless it is known.
    pub(super) fn learn(&mut self, recorded: bool) {
        self.recorded.get_or_insert(recorded);
    }

    /// Takes the next event and says what is wrong with what it leaves out. Whether its channel's beginning was read is told
    /// along.
    pub(super) fn take(&mut self, event: &Event, complete: bool) -> Option<String> {
        if matches!(event.what, What::Exec(_) | What::Subsystem { .. }) && self.programs.len() < CHANNELS_MAX
        {
            self.programs.insert(event.ch);
        }
        let Some(Content::Withheld(parts)) = event.what.content() else { return None };
        let bytes = parts.iter().map(withheld_bytes).fold(0, u64::saturating_add);
        self.sum.events += 1;
        self.sum.bytes = self.sum.bytes.saturating_add(bytes);
        let problem = if self.recorded == Some(true) {
            "and the grant says that it is kept (record_file_content = true)"
        } else if !matches!(event.what, What::Stdin(_) | What::Stdout(_)) {
            "and is not what goes through a file transfer"
        } else if complete && !self.programs.contains(&event.ch) {
            "and no command or subsystem was asked for on this channel that could transfer files"
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
    use weir_common::{digest::Sha256, frame::Direction};

    use super::*;

    fn event(ch: u32, what: What) -> Event {
        Event { t: 1, dir: Direction::ClientToTarget, ch: ChannelNo(ch), seq: 0, len: 0, what }
    }

    fn content(bytes: u32) -> Content {
        let sha256 = Sha256::of(b"");
        Content::Withheld(vec![Part::Kept(b"head".to_vec()), Part::Withheld { bytes, sha256 }])
    }

    #[test]
    fn what_is_left_out_is_summed_up_and_has_to_be_permitted_and_of_a_program() {
        let subsystem = event(1, What::Subsystem { name: "sftp".into() });
        let mut withheld = Withheld::new(Some(false));
        assert_eq!(withheld.take(&subsystem, true), None);
        assert_eq!(withheld.take(&event(1, What::Stdin(content(1200))), true), None);
        assert_eq!(withheld.take(&event(1, What::Stdout(content(34))), true), None);
        assert_eq!(withheld.sum(), FileContent { events: 2, bytes: 1234 });
        assert_eq!(withheld.sum().to_string(), "1,234 bytes of file content");
        for (what, complete, problem) in [
            (event(2, What::Stdin(content(5))), true, Some("no command or subsystem")),
            // Its request may be in what could not be read.
            (event(2, What::Stdin(content(5))), false, None),
            (event(1, What::Stderr(content(5))), true, Some("not what goes through")),
            (event(1, What::Exec(content(5))), true, Some("not what goes through")),
            (event(1, What::Stdin(content(0))), true, Some("leaves out nothing")),
            (event(1, What::Stdin(Content::Withheld(Vec::new()))), true, Some("leaves out nothing")),
        ] {
            let found = withheld.take(&what, complete);
            assert_eq!(found.is_some(), problem.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(problem.unwrap_or_default()));
        }
        let mut withheld = Withheld::new(None);
        withheld.learn(true);
        withheld.learn(false);
        let _ = withheld.take(&subsystem, true);
        let found = withheld.take(&event(1, What::Stdin(content(1200))), true).expect("a problem");
        assert!(found.contains("1,200 bytes") && found.contains("record_file_content = true"), "{found}");
    }
}
