//! Files that go through a channel: SFTP, scp's own protocol, rsync.
//!
//! A channel that cannot be followed to its end is followed no more, and the findings say so once
//! ([`FileResult::Unfollowed`]): guessing would attribute content to the wrong file. What it carries then is in the
//! recording as it is, file content too; unless the grant has `record_file_content = false`, and it was shown to be a transfer
//! before: then nothing of it is (the agent's `withholding`).

mod bytes_text;
mod command;
mod flow;
mod hash;
mod input;
mod lost;
mod rsync;
mod scp;
mod sftp;

use std::{fmt, ops::Range};

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use weir_common::{
    digest::Sha256,
    frame::Direction,
    recording::findings::{FileAccess, FileOperation, FileProtocol, FileResult},
    session::ChannelNo,
};

use self::{
    command::{Carrier, Program},
    input::{Input, Out},
    lost::Lost,
    rsync::Rsync,
    scp::{Names, Scp},
    sftp::Sftp,
};
use crate::{At, Findings};

/// The most bytes of a server's words about a failure.
const WORDS_BYTES_MAX: usize = 512;
/// The most bytes of paths that are kept of one channel: of what is open and of requests under way.
const HELD_BYTES_MAX: usize = 128 << 10;

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

/// Bytes that are file content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// Which of the bytes at hand; never empty.
    pub range: Range<usize>,
    /// Digest of what went of this file's content in this direction up to here, these included.
    pub sha256: Sha256,
}

/// Follows the files of one channel.
///
/// It can be stored at any byte and carried on: some hundred bytes plus as much for each file that is open, bounded
/// by what a hostile client keeps under way (paths of 128 KiB, 1024 requests). What is read back has been checked.
#[derive(Clone, Serialize)]
pub struct Transfer {
    /// What it was begun for.
    protocol: FileProtocol,
    /// Whether it may say of bytes that they are content: not of a program that may be anything.
    has_content: bool,
    /// None once it is followed no more.
    follower: Option<Follower>,
    /// Something is missing since the last data.
    gap: bool,
}

#[derive(Clone, Serialize, Deserialize)]
enum Follower {
    Sftp(Box<Sftp>),
    Scp(Box<Scp>),
    Rsync(Box<Rsync>),
}

impl Transfer {
    /// For a subsystem; `None` for one that carries no files.
    #[must_use]
    pub fn for_subsystem(name: &str) -> Option<Self> {
        (name == "sftp").then(|| Self::new(FileProtocol::Sftp, Follower::Sftp(Box::default())))
    }

    /// For a command; `None` for one that is not known to carry files.
    #[must_use]
    pub fn for_command(command: &[u8]) -> Option<Self> {
        let Carrier { program, is_installed } = command::read(command)?;
        let (protocol, follower) = match program {
            Program::Sftp => (FileProtocol::Sftp, Follower::Sftp(Box::default())),
            Program::ScpTo { path, is_folder } => {
                (FileProtocol::Scp, Follower::Scp(Box::new(Scp::new(false, Names::to(path, is_folder)))))
            }
            Program::ScpFrom { paths } => {
                (FileProtocol::Scp, Follower::Scp(Box::new(Scp::new(true, Names::from(paths)))))
            }
            Program::Rsync { path, is_secluded } => {
                (FileProtocol::Rsync, Follower::Rsync(Box::new(Rsync::new(path, is_secluded))))
            }
        };
        Some(Self { has_content: is_installed, ..Self::new(protocol, follower) })
    }

    fn new(protocol: FileProtocol, follower: Follower) -> Self {
        Self { protocol, has_content: true, follower: Some(follower), gap: false }
    }

    /// Whether [`Self::content`] may say of anything that it is content.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.has_content
    }

    /// Whether it is still followed: what does not speak its protocol, or goes beyond bounds, is not.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.follower.is_some()
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
        self.feed(direction, chunk, &mut Out::findings(ch, Some(at), out));
    }

    /// The next bytes in one direction: which of them are file content, in order. `ranges` is emptied first.
    ///
    /// It reads as [`Self::data`] does, but tells no findings. What is not attributed to a file for certain is no
    /// content: it stays in the recording. So does all that goes through a program in a folder of the user's own.
    pub fn content(&mut self, direction: Direction, bytes: &[u8], ranges: &mut Vec<ContentRange>) {
        ranges.clear();
        if !self.has_content {
            return;
        }
        self.feed(direction, Chunk::Bytes(bytes), &mut Out::ranges(ranges));
    }

    fn feed(&mut self, direction: Direction, chunk: Chunk<'_>, out: &mut Out<'_>) {
        let Some(follower) = &mut self.follower else { return };
        let followed = if self.gap {
            Err(Lost::Gap)
        } else {
            let mut input = Input::new(chunk);
            match follower {
                Follower::Sftp(sftp) => sftp.feed(direction, &mut input, out),
                Follower::Scp(scp) => scp.feed(direction, &mut input, out),
                Follower::Rsync(rsync) => rsync.feed(direction, &mut input, out),
            }
        };
        if let Err(lost) = followed {
            self.lose(lost, out, None);
        }
    }

    /// Follows no more: says what was under way, and why.
    fn lose(&mut self, lost: Lost, out: &mut Out<'_>, t_end: Option<u64>) {
        let Some(mut follower) = self.follower.take() else { return };
        follower.end(out, t_end);
        let protocol = self.protocol;
        out.file(out.now().unwrap_or(0), t_end, |ch, span| FileAccess {
            n: 0,
            ch,
            span,
            protocol,
            operation: FileOperation::Transfer,
            path: String::new(),
            other_path: None,
            result: FileResult::Unfollowed(lost.to_string()),
            mode: None,
            read: None,
            written: None,
        });
    }

    /// Something is missing here. What follows could be anything: it is followed no more.
    pub fn gap(&mut self, direction: Direction) {
        let _ = direction;
        self.gap = true;
    }

    /// The channel is closed, or the recording ends (`at` is none then).
    pub fn end(mut self, ch: ChannelNo, at: Option<At>, out: &mut dyn Findings) {
        let mut out = Out::findings(ch, at, out);
        let t_end = out.now();
        if self.gap {
            self.lose(Lost::Gap, &mut out, t_end);
        } else if let Some(follower) = &mut self.follower {
            follower.end(&mut out, t_end);
        }
    }
}

impl Follower {
    fn end(&mut self, out: &mut Out<'_>, t_end: Option<u64>) {
        match self {
            Self::Sftp(sftp) => sftp.end(out, t_end),
            Self::Scp(scp) => scp.end(out, t_end),
            Self::Rsync(rsync) => rsync.end(out, t_end),
        }
    }

    /// Whether this keeps the bounds.
    fn is_sound(&self) -> bool {
        match self {
            Self::Sftp(sftp) => sftp.is_sound(),
            Self::Scp(scp) => scp.is_sound(),
            Self::Rsync(rsync) => rsync.is_sound(),
        }
    }
}

impl<'de> Deserialize<'de> for Transfer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Stored {
            protocol: FileProtocol,
            has_content: bool,
            follower: Option<Follower>,
            gap: bool,
        }
        let Stored { protocol, has_content, follower, gap } = Stored::deserialize(deserializer)?;
        if follower.as_ref().is_some_and(|follower| !follower.is_sound()) {
            return Err(D::Error::custom("more under way than a channel may have"));
        }
        Ok(Self { protocol, has_content, follower, gap })
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transfer(by {:?})", self.protocol)
    }
}
