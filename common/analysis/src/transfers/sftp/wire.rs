//! Packets of SFTP (draft-ietf-secsh-filexfer-02, 3), as they come: what is wanted of each, without holding its content.

use serde::{Deserialize, Serialize};
use weir_common::frame::Direction;

use crate::transfers::{bytes_text, input::Input, lost::Lost};

/// The longest file handle (draft, 6.2).
pub(in crate::transfers) const HANDLE_BYTES_MAX: usize = 256;
/// How much of a request is looked at: two paths of 4 KiB, twice that for those that no server takes.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// How much of a status is looked at.
const STATUS_BYTES_MAX: usize = 1 << 10;
/// Length, type, request id.
const FIXED: usize = 4 + 1 + 4;

pub(super) const VERSION: u8 = 2;
pub(super) const INIT: u8 = 1;
pub(super) const OPEN: u8 = 3;
pub(super) const CLOSE: u8 = 4;
pub(super) const READ: u8 = 5;
pub(super) const WRITE: u8 = 6;
pub(super) const SETSTAT: u8 = 9;
pub(super) const FSETSTAT: u8 = 10;
pub(super) const OPENDIR: u8 = 11;
pub(super) const READDIR: u8 = 12;
pub(super) const REMOVE: u8 = 13;
pub(super) const MKDIR: u8 = 14;
pub(super) const RMDIR: u8 = 15;
pub(super) const RENAME: u8 = 18;
pub(super) const SYMLINK: u8 = 20;
/// Of version 6: a hard or symbolic link.
pub(super) const LINK: u8 = 21;
pub(super) const STATUS: u8 = 101;
pub(super) const HANDLE: u8 = 102;
pub(super) const DATA: u8 = 103;
pub(super) const EXTENDED: u8 = 200;

/// The packets of one direction.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Packets {
    /// What there is of the beginning, from the length on.
    Head(#[serde(with = "bytes_text")] Vec<u8>),
    /// In its content.
    Content { left: u32, behind: u32 },
    /// In what nobody wants.
    Rest { left: u32 },
}

/// The beginning of a packet, without the length; cut off where it is longer than wanted.
pub(super) struct Packet {
    pub(super) kind: u8,
    body: Vec<u8>,
    /// Whether this is all of it.
    whole: bool,
    /// Bytes of content behind.
    pub(super) content: u32,
}

impl Default for Packets {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Packets {
    /// The next beginning of a packet; none if the bytes do not hold one to its end. Not while in content.
    pub(super) fn next(
        &mut self,
        direction: Direction,
        input: &mut Input<'_>,
    ) -> Result<Option<Packet>, Lost> {
        loop {
            match self {
                Self::Content { .. } => return Ok(None),
                Self::Rest { left: 0 } => *self = Self::default(),
                Self::Rest { left } => {
                    let skipped = input.protocol(*left as usize)?.len();
                    if skipped == 0 {
                        return Ok(None);
                    }
                    *left = left.saturating_sub(u32::try_from(skipped).unwrap_or(u32::MAX));
                }
                Self::Head(head) => {
                    let wanted = wanted(direction, head)?;
                    if let Some(more @ 1..) = wanted.checked_sub(head.len()) {
                        let bytes = input.protocol(more)?;
                        if bytes.is_empty() {
                            return Ok(None);
                        }
                        head.extend_from_slice(bytes);
                        continue;
                    }
                    let head = std::mem::take(head);
                    return self.begun(direction, &head).map(Some);
                }
            }
        }
    }

    /// A packet has begun: what is behind its beginning?
    fn begun(&mut self, direction: Direction, head: &[u8]) -> Result<Packet, Lost> {
        let (length, body) = head.split_first_chunk::<4>().ok_or(Lost::Malformed)?;
        let (kind, body) = body.split_first().ok_or(Lost::Malformed)?;
        let left = u32::from_be_bytes(*length)
            .checked_sub(u32::try_from(1 + body.len()).unwrap_or(u32::MAX))
            .ok_or(Lost::Malformed)?;
        let mut packet = Packet { kind: *kind, body: body.to_vec(), whole: left == 0, content: 0 };
        if has_content(direction, *kind) {
            packet.content = u32_at(head, head.len().saturating_sub(4)).ok_or(Lost::Malformed)?;
            // Both sides of OpenSSH end the connection over a string that is longer than its packet.
            let behind = left.checked_sub(packet.content).ok_or(Lost::Malformed)?;
            *self = Self::Content { left: packet.content, behind };
        } else {
            *self = Self::Rest { left };
        }
        Ok(packet)
    }

    /// How much content is left of the packet that this is in.
    pub(super) fn content_left(&self) -> Option<u32> {
        match self {
            Self::Content { left, .. } => Some(*left),
            _ => None,
        }
    }

    /// So much content went by.
    pub(super) fn content_went(&mut self, bytes: u64) {
        if let Self::Content { left, behind } = self {
            *left = u32::try_from(u64::from(*left).saturating_sub(bytes)).unwrap_or(0);
            if *left == 0 {
                *self = Self::Rest { left: *behind };
            }
        }
    }

    /// Whether this is a state that can be.
    pub(super) fn is_sound(&self) -> bool {
        !matches!(self, Self::Head(head) if head.len() > REQUEST_BYTES_MAX)
    }
}

fn has_content(direction: Direction, kind: u8) -> bool {
    match direction {
        Direction::ClientToTarget => kind == WRITE,
        Direction::TargetToClient => kind == DATA,
    }
}

/// How many bytes of the packet are wanted, its length included, as far as `head` tells.
fn wanted(direction: Direction, head: &[u8]) -> Result<usize, Lost> {
    let Some(length) = u32_at(head, 0) else { return Ok(4) };
    let whole = 4 + length as usize;
    let Some(&kind) = head.get(4) else { return if length == 0 { Err(Lost::Malformed) } else { Ok(5) } };
    let least_and_most = match (direction, kind) {
        // The version stands where others have the request's id.
        (_, INIT | VERSION) => (FIXED, FIXED),
        (Direction::ClientToTarget, WRITE) => match u32_at(head, FIXED) {
            None => (FIXED + 4, FIXED + 4),
            Some(handle) if handle as usize > HANDLE_BYTES_MAX => return Err(Lost::Handle),
            Some(handle) => {
                let header = FIXED + 4 + handle as usize + 8 + 4;
                (header, header)
            }
        },
        (Direction::ClientToTarget, _) => (FIXED, REQUEST_BYTES_MAX),
        (Direction::TargetToClient, DATA) => (FIXED + 4, FIXED + 4),
        (Direction::TargetToClient, STATUS) => (FIXED + 4, STATUS_BYTES_MAX),
        (Direction::TargetToClient, HANDLE) => (FIXED + 4, FIXED + 4 + HANDLE_BYTES_MAX),
        (Direction::TargetToClient, _) => (FIXED, FIXED),
    };
    let (least, most) = least_and_most;
    if whole < least { Err(Lost::Malformed) } else { Ok(whole.min(most)) }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

impl Packet {
    /// Its fields in order.
    pub(super) fn fields(&self) -> Fields<'_> {
        Fields { rest: &self.body, whole: self.whole }
    }
}

/// The fields of a packet, read from the front.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    /// Whether the packet ends where this does.
    whole: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn u32(&mut self) -> Result<u32, Lost> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Lost> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string; of one that is longer than what is looked at, what there is.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Lost> {
        if self.rest.is_empty() && !self.whole {
            return Ok(&[]);
        }
        let length = self.u32()? as usize;
        if length > self.rest.len() && self.whole {
            return Err(Lost::Malformed);
        }
        let (string, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        Ok(string)
    }

    /// A handle.
    pub(super) fn handle(&mut self) -> Result<&'a [u8], Lost> {
        let handle = self.string()?;
        if handle.len() > HANDLE_BYTES_MAX { Err(Lost::Handle) } else { Ok(handle) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Lost> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Lost::Malformed)?;
        self.rest = rest;
        Ok(*bytes)
    }
}
