//! The protocol of rcp, which `scp -O` and older clients speak.
//!
//! One side sends: a line for each file (`C`), directory (`D`, `E`) and time (`T`), then the file's bytes. The other
//! answers each with a zero, or with a line that says what went wrong. OpenSSH waits for every answer; senders that do
//! not are followed too, unless something goes wrong: then it depends on the answer what the bytes mean.

mod names;
mod sender;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use weir_common::{
    frame::Direction,
    recording::findings::{FileAccess, FileOperation, FileProtocol, FileResult},
};

pub(super) use self::names::{FOLDERS_MAX, Names};
use self::{
    names::{NAMED_BYTES_MAX, Named},
    sender::Stage,
};
use super::{
    WORDS_BYTES_MAX, bytes_text,
    flow::Flow,
    input::{Input, Out},
    lost::Lost,
};
use crate::text::lossy;

/// The longest line, name included.
pub(super) const LINE_BYTES_MAX: usize = 8 << 10;
/// The most lines and files that are not answered yet.
pub(super) const UNANSWERED_MAX: usize = 32;

/// Follows both directions of one channel.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Scp {
    from_target: bool,
    names: Names,
    stage: Stage,
    /// The file that is being sent.
    sent: Option<Sent>,
    unanswered: VecDeque<Said>,
    /// What there is of an answer that says what went wrong.
    #[serde(with = "bytes_text")]
    answer: Vec<u8>,
}

/// What waits for an answer.
#[derive(Clone, Serialize, Deserialize)]
enum Said {
    /// Nothing yet: the receiver begins.
    Nothing,
    /// A time, or the end of a folder.
    Line,
    Folder {
        t: u64,
        named: Named,
        mode: u32,
    },
    /// The line before a file.
    Header,
    /// A whole file.
    File(Sent),
}

/// A file that is being sent.
#[derive(Clone, Serialize, Deserialize)]
struct Sent {
    t: u64,
    named: Named,
    mode: u32,
    flow: Flow,
    /// Whether anything came behind its line.
    is_begun: bool,
    /// What went wrong, in the words of the side that said it.
    failure: Option<String>,
}

impl Scp {
    pub(super) fn new(from_target: bool, names: Names) -> Self {
        let (sent, answer) = (None, Vec::new());
        let unanswered = VecDeque::from([Said::Nothing]);
        Self { from_target, names, stage: Stage::default(), sent, unanswered, answer }
    }

    pub(super) fn feed(
        &mut self,
        direction: Direction,
        input: &mut Input<'_>,
        out: &mut Out<'_>,
    ) -> Result<(), Lost> {
        let sends = self.from_target == (direction == Direction::TargetToClient);
        while !input.is_empty() {
            if sends {
                self.sent(input, out)?;
            } else {
                self.answered(input, out)?;
            }
        }
        Ok(())
    }

    /// The next byte of an answer.
    fn answered(&mut self, input: &mut Input<'_>, out: &mut Out<'_>) -> Result<(), Lost> {
        let [byte] = input.protocol(1)? else { return Err(Lost::Malformed) };
        match (self.answer.is_empty(), byte) {
            (true, 0) => self.accepted(out),
            (true, 1 | 2) => {
                self.answer.push(*byte);
                Ok(())
            }
            (true, _) => Err(Lost::Malformed),
            (false, b'\n') => {
                let answer = std::mem::take(&mut self.answer);
                self.refused(lossy(&answer[1..], WORDS_BYTES_MAX), out)
            }
            (false, _) if self.answer.len() >= LINE_BYTES_MAX => Err(Lost::Malformed),
            (false, _) => {
                self.answer.push(*byte);
                Ok(())
            }
        }
    }

    fn accepted(&mut self, out: &mut Out<'_>) -> Result<(), Lost> {
        match self.unanswered.pop_front().ok_or(Lost::Unasked)? {
            Said::Nothing | Said::Line | Said::Header => {}
            Said::Folder { t, named, mode } => self.say_folder(t, named, mode, FileResult::Ok, out),
            Said::File(sent) => self.say(sent, FileResult::Ok, out.now(), out),
        }
        Ok(())
    }

    fn refused(&mut self, words: String, out: &mut Out<'_>) -> Result<(), Lost> {
        // Behind something refused comes what the receiver reads as the next line. Who has gone on without waiting has
        // sent something else.
        let went_on = self.unanswered.len() > 1 || !self.stage.is_between() || self.sent.is_some();
        match self.unanswered.pop_front() {
            // A warning: nothing waits for it.
            None => self.say_words(words, out),
            Some(Said::Nothing | Said::Line) => {
                self.say_words(words, out);
                if went_on {
                    return Err(Lost::Malformed);
                }
            }
            Some(Said::Folder { t, named, mode }) => {
                self.say_folder(t, named, mode, FileResult::Failed(words), out);
                if went_on {
                    return Err(Lost::Malformed);
                }
                self.names.leave()?;
            }
            Some(Said::Header) => {
                if !self.unanswered.is_empty() {
                    return Err(Lost::Malformed);
                }
                let sent = self.sent.take_if(|sent| !sent.is_begun).ok_or(Lost::Malformed)?;
                self.stage = Stage::default();
                self.say(Sent { failure: Some(words), ..sent }, FileResult::Ok, out.now(), out);
            }
            Some(Said::File(sent)) => self.say(sent, FileResult::Failed(words), out.now(), out),
        }
        Ok(())
    }

    /// Nothing comes any more: says what is under way.
    pub(super) fn end(&mut self, out: &mut Out<'_>, t_end: Option<u64>) {
        for said in std::mem::take(&mut self.unanswered) {
            if let Said::File(sent) = said {
                self.say(sent, FileResult::Unknown, t_end, out);
            }
        }
        if let Some(sent) = self.sent.take() {
            self.say(sent, FileResult::Unknown, t_end, out);
        }
    }

    fn say(&self, sent: Sent, result: FileResult, t_end: Option<u64>, out: &mut Out<'_>) {
        let Sent { t, named, mode, flow, is_begun, failure } = sent;
        let result = match failure {
            Some(words) => FileResult::Failed(words),
            None => result,
        };
        let went = (is_begun || result == FileResult::Ok).then(|| flow.transferred());
        let (read, written) = if self.from_target { (went, None) } else { (None, went) };
        out.file(t, t_end, |ch, span| FileAccess {
            read,
            written,
            ..access(ch, span, FileOperation::Open, named, Some(mode), result)
        });
    }

    fn say_folder(&self, t: u64, named: Named, mode: u32, result: FileResult, out: &mut Out<'_>) {
        let operation = if self.from_target { FileOperation::List } else { FileOperation::Mkdir };
        out.file(t, out.now(), |ch, span| access(ch, span, operation, named, Some(mode), result));
    }

    /// Something went wrong that is not about a file that was named.
    fn say_words(&self, words: String, out: &mut Out<'_>) {
        let t = out.now().unwrap_or(0);
        let named = Named { path: self.names.all(), other_path: None };
        let result = FileResult::Failed(words);
        out.file(t, out.now(), |ch, span| access(ch, span, FileOperation::Open, named, None, result));
    }

    pub(super) fn is_sound(&self) -> bool {
        let held = self.unanswered.iter().map(|said| match said {
            Said::Folder { named, .. } | Said::File(Sent { named, .. }) => named.held(),
            _ => 0,
        });
        self.unanswered.len() <= UNANSWERED_MAX
            && held.sum::<usize>() <= UNANSWERED_MAX * NAMED_BYTES_MAX
            && self.answer.len() <= LINE_BYTES_MAX
            && self.stage.is_sound()
            && self.names.is_sound()
    }
}

fn access(
    ch: weir_common::session::ChannelNo,
    span: weir_common::recording::findings::Span,
    operation: FileOperation,
    named: Named,
    mode: Option<u32>,
    result: FileResult,
) -> FileAccess {
    let Named { path, other_path } = named;
    let protocol = FileProtocol::Scp;
    FileAccess {
        n: 0,
        ch,
        span,
        protocol,
        operation,
        path,
        other_path,
        result,
        mode,
        read: None,
        written: None,
    }
}
