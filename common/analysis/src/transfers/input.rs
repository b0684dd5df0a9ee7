//! What the parsers read from and write to.

use std::ops::Range;

use weir_common::{
    recording::findings::{FileAccess, Span},
    session::ChannelNo,
};

use super::{Chunk, ContentRange, flow::Flow, lost::Lost};
use crate::{At, Findings};

/// The bytes at hand, read from the front.
pub(super) struct Input<'a> {
    chunk: Chunk<'a>,
    taken: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(chunk: Chunk<'a>) -> Self {
        Self { chunk, taken: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.chunk.len()
    }

    /// The next bytes of the protocol, at most as many.
    pub(super) fn protocol(&mut self, most: usize) -> Result<&'a [u8], Lost> {
        match self.chunk {
            Chunk::Bytes(bytes) => {
                let rest = &bytes[self.taken..];
                let bytes = &rest[..rest.len().min(most)];
                self.taken += bytes.len();
                Ok(bytes)
            }
            Chunk::Withheld { .. } if self.is_empty() || most == 0 => Ok(&[]),
            Chunk::Withheld { .. } => Err(Lost::Withheld),
        }
    }

    /// The next bytes of content, of which `left` remain, into `flow`. Says how many there were.
    pub(super) fn content(&mut self, left: u64, flow: &mut Flow, out: &mut Out<'_>) -> Result<u64, Lost> {
        let start = self.taken;
        let piece = match self.chunk {
            Chunk::Bytes(_) => Chunk::Bytes(self.protocol(usize::try_from(left).unwrap_or(usize::MAX))?),
            Chunk::Withheld { .. } if self.is_empty() => return Ok(0),
            Chunk::Withheld { bytes, .. } if u64::from(bytes) > left => return Err(Lost::Withheld),
            Chunk::Withheld { .. } => {
                self.taken = self.chunk.len();
                self.chunk
            }
        };
        if self.taken == start {
            return Ok(0);
        }
        flow.take(piece)?;
        out.content(start..self.taken, flow);
        Ok((self.taken - start) as u64)
    }
}

/// Where it goes: findings, or which ranges are content.
pub(super) struct Out<'a> {
    ch: ChannelNo,
    at: Option<At>,
    to: To<'a>,
}

enum To<'a> {
    Findings(&'a mut dyn Findings),
    Ranges(&'a mut Vec<ContentRange>),
}

impl<'a> Out<'a> {
    pub(super) fn findings(ch: ChannelNo, at: Option<At>, findings: &'a mut dyn Findings) -> Self {
        Self { ch, at, to: To::Findings(findings) }
    }

    pub(super) fn ranges(ranges: &'a mut Vec<ContentRange>) -> Self {
        Self { ch: ChannelNo(0), at: None, to: To::Ranges(ranges) }
    }

    /// Kernel time, as far as known.
    pub(super) fn now(&self) -> Option<u64> {
        self.at.map(|at| at.t)
    }

    /// Says what was done to a file, from then to `t_end`.
    pub(super) fn file(
        &mut self,
        t: u64,
        t_end: Option<u64>,
        access: impl FnOnce(ChannelNo, Span) -> FileAccess,
    ) {
        if let To::Findings(findings) = &mut self.to {
            findings.file(access(self.ch, Span { t, t_end, started_at: None, ended_at: None }));
        }
    }

    fn content(&mut self, range: Range<usize>, flow: &Flow) {
        if let To::Ranges(ranges) = &mut self.to {
            ranges.push(ContentRange { range, sha256: flow.sha256() });
        }
    }
}

impl Chunk<'_> {
    /// How many bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Withheld { bytes, .. } => *bytes as usize,
        }
    }
}
