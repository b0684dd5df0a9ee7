//! Files that go through a channel: SFTP, scp's own protocol, rsync.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use weir_common::{digest::Sha256, frame::Direction, session::ChannelNo};

use crate::{At, Findings};

/// Data of a channel.
#[derive(Clone, Copy)]
pub enum Chunk<'a> {
    /// The bytes.
    Bytes(&'a [u8]),
    /// File content that is not in the recording.
    Withheld {
        /// How many bytes.
        bytes: u32,
        /// Digest of what went of this content up to here, these included.
        sha256: Sha256,
    },
}

/// A part of data that is file content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// Which bytes of the data.
    pub range: Range<usize>,
    /// Digest of what went of this file's content up to here, these bytes included.
    pub sha256: Sha256,
}

/// Follows the files of one channel.
#[derive(Clone, Serialize, Deserialize)]
pub struct Transfer {
    seen: [Vec<u8>; 2],
}

impl Transfer {
    /// For a subsystem; `None` for one that carries no files.
    #[must_use]
    pub fn for_subsystem(name: &str) -> Option<Self> {
        let _ = name;
        None
    }

    /// For a command; `None` for one that is not known to carry files.
    #[must_use]
    pub fn for_command(command: &[u8]) -> Option<Self> {
        command.starts_with(b"rsync --server").then(|| Self { seen: [Vec::new(), Vec::new()] })
    }

    /// Whether it is still followed: what does not speak its protocol, or goes beyond bounds, is not.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        !self.seen.iter().any(|seen| seen.first().is_some_and(|&first| first != 31))
    }

    /// Which of these bytes are file content.
    pub fn content(&mut self, direction: Direction, bytes: &[u8], ranges: &mut Vec<ContentRange>) {
        ranges.clear();
        let seen = &mut self.seen[usize::from(direction == Direction::TargetToClient)];
        let from = 4_usize.saturating_sub(seen.len()).min(bytes.len());
        seen.extend_from_slice(bytes);
        if from < bytes.len() && self.is_followed() {
            let seen = &self.seen[usize::from(direction == Direction::TargetToClient)];
            ranges.push(ContentRange { range: from..bytes.len(), sha256: Sha256::of(&seen[4..]) });
        }
    }

    /// The next data in one direction.
    pub fn data(
        &mut self,
        ch: ChannelNo,
        direction: Direction,
        at: At,
        chunk: Chunk<'_>,
        out: &mut dyn Findings,
    ) {
        let _ = (ch, direction, at, chunk, out);
    }

    /// Something is missing here.
    pub fn gap(&mut self, direction: Direction) {
        let _ = direction;
    }

    /// The channel is closed, or the recording ends (`at` is none then).
    pub fn end(self, ch: ChannelNo, at: Option<At>, out: &mut dyn Findings) {
        let _ = (ch, at, out);
    }
}
