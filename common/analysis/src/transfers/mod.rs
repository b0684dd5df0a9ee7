//! Files that go through a channel: SFTP, scp's own protocol, rsync.

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

/// Follows the files of one channel.
pub enum Transfer {}

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
        let _ = command;
        None
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
