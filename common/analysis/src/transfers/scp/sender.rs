//! What the sender says.

use serde::{Deserialize, Serialize};

use super::{LINE_BYTES_MAX, Said, Scp, Sent, UNANSWERED_MAX};
use crate::{
    text::lossy,
    transfers::{
        WORDS_BYTES_MAX, bytes_text,
        flow::Flow,
        input::{Input, Out},
        lost::Lost,
    },
};

/// Where in it the sender is.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Stage {
    /// In a line.
    Line(#[serde(with = "bytes_text")] Vec<u8>),
    /// In a file's content.
    Content { left: u64 },
    /// Behind it: in a line that says how it went, if that is more than a zero.
    Status(#[serde(with = "bytes_text")] Vec<u8>),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Line(Vec::new())
    }
}

impl Stage {
    /// Whether nothing of the next line has come.
    pub(super) fn is_between(&self) -> bool {
        matches!(self, Self::Line(line) if line.is_empty())
    }

    pub(super) fn is_sound(&self) -> bool {
        match self {
            Self::Line(line) | Self::Status(line) => line.len() <= LINE_BYTES_MAX,
            Self::Content { .. } => true,
        }
    }
}

impl Scp {
    /// Some of what the sender says.
    pub(super) fn sent(&mut self, input: &mut Input<'_>, out: &mut Out<'_>) -> Result<(), Lost> {
        match &mut self.stage {
            Stage::Content { left: 0 } => self.stage = Stage::Status(Vec::new()),
            Stage::Content { left } => {
                let sent = self.sent.as_mut().ok_or(Lost::Malformed)?;
                sent.is_begun = true;
                *left = left.saturating_sub(input.content(*left, &mut sent.flow, out)?);
            }
            Stage::Line(line) => {
                line.extend_from_slice(input.protocol(1)?);
                if line.ends_with(b"\n") {
                    let line = std::mem::take(line);
                    self.line(&line[..line.len() - 1], out)?;
                } else if line.len() >= LINE_BYTES_MAX {
                    return Err(Lost::Malformed);
                }
            }
            Stage::Status(line) => {
                line.extend_from_slice(input.protocol(1)?);
                let mut sent = self.sent.take().ok_or(Lost::Malformed)?;
                sent.is_begun = true;
                match &line[..] {
                    [0] => self.sent_whole(sent)?,
                    [1 | 2, words @ .., b'\n'] => {
                        sent.failure = Some(lossy(words, WORDS_BYTES_MAX));
                        self.sent_whole(sent)?;
                    }
                    [1 | 2, ..] if line.len() < LINE_BYTES_MAX => self.sent = Some(sent),
                    _ => return Err(Lost::Malformed),
                }
            }
        }
        Ok(())
    }

    fn sent_whole(&mut self, sent: Sent) -> Result<(), Lost> {
        self.stage = Stage::default();
        self.said(Said::File(sent))
    }

    fn said(&mut self, said: Said) -> Result<(), Lost> {
        if self.unanswered.len() >= UNANSWERED_MAX {
            return Err(Lost::Unanswered);
        }
        self.unanswered.push_back(said);
        Ok(())
    }

    fn line(&mut self, line: &[u8], out: &mut Out<'_>) -> Result<(), Lost> {
        let (kind, rest) = line.split_first().ok_or(Lost::Malformed)?;
        let t = out.now().unwrap_or(0);
        match kind {
            1 | 2 => {
                self.say_words(lossy(rest, WORDS_BYTES_MAX), out);
                Ok(())
            }
            b'T' => self.said(Said::Line),
            b'E' => {
                self.names.leave()?;
                self.said(Said::Line)
            }
            b'D' => {
                let (mode, _, name) = fields(rest)?;
                let named = self.names.of(&name);
                self.names.enter(name)?;
                self.said(Said::Folder { t, named, mode })
            }
            b'C' => {
                let (mode, size, name) = fields(rest)?;
                let named = self.names.of(&name);
                let flow = Flow::new(true);
                self.sent = Some(Sent { t, named, mode, flow, is_begun: false, failure: None });
                self.stage = Stage::Content { left: size };
                self.said(Said::Header)
            }
            _ => Err(Lost::Malformed),
        }
    }
}

/// Mode, size and name.
fn fields(line: &[u8]) -> Result<(u32, u64, String), Lost> {
    let mut fields = line.splitn(3, |byte| *byte == b' ');
    let mut next = || fields.next().ok_or(Lost::Malformed);
    let (mode, size, name) = (next()?, next()?, next()?);
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Lost::Malformed);
    let mode = text(mode)?;
    if mode.len() != 4 || name.is_empty() {
        return Err(Lost::Malformed);
    }
    let mode = u32::from_str_radix(mode, 8).map_err(|_| Lost::Malformed)?;
    let size = text(size)?.parse().map_err(|_| Lost::Malformed)?;
    Ok((mode, size, lossy(name, LINE_BYTES_MAX)))
}
