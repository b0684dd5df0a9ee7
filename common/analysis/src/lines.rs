//! Objects of findings: NDJSON and the transcript, in memory, each with a bound.

use serde::Serialize;
use weir_common::recording::{
    Clock,
    findings::{
        COMMANDS, Command, Cut, FILES, FORWARDS, FileAccess, FindingCounts, Forward, Line, TRANSCRIPT,
    },
};

use crate::{Findings, TranscriptLine, transcript};

/// Room for the line that says that there are more.
const CUT_BYTES: usize = 96;

/// The most bytes of each object; less than a line that says so is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of the commands.
    pub commands: usize,
    /// Of what was done to files.
    pub files: usize,
    /// Of the forwards.
    pub forwards: usize,
    /// Of the transcript.
    pub transcript: usize,
}

/// Takes findings and makes objects of them.
pub struct Objects {
    counts: FindingCounts,
    commands: Bounded,
    files: Bounded,
    forwards: Bounded,
    text: Bounded,
    transcript: transcript::Transcript,
    /// One line's text.
    line: String,
}

/// Objects of findings.
#[derive(Clone, PartialEq, Eq)]
pub struct Made {
    /// How many findings there are, those that found no room included.
    pub counts: FindingCounts,
    /// Kind and content of each object that has something to say, in the order of the kinds.
    pub objects: Vec<(&'static str, Vec<u8>)>,
}

impl Objects {
    /// Empty ones.
    #[must_use]
    pub fn new(clock: Option<Clock>, bounds: Bounds) -> Self {
        Self {
            counts: FindingCounts::default(),
            commands: Bounded::new(bounds.commands),
            files: Bounded::new(bounds.files),
            forwards: Bounded::new(bounds.forwards),
            text: Bounded::new(bounds.transcript),
            transcript: transcript::Transcript::new(clock),
            line: String::new(),
        }
    }

    /// They are complete.
    #[must_use]
    pub fn finish(self) -> Made {
        let Self { counts, commands, files, forwards, text, transcript: _, line: _ } = self;
        let cut = |left_out| ndjson(&Line::<()>::Cut(Cut { left_out })).unwrap_or_default();
        let objects = [
            (COMMANDS, commands.finish(cut)),
            (FILES, files.finish(cut)),
            (FORWARDS, forwards.finish(cut)),
            (TRANSCRIPT, text.finish(|left_out| transcript::cut_line(left_out).into_bytes())),
        ];
        Made { counts, objects: objects.into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect() }
    }
}

impl Findings for Objects {
    fn command(&mut self, command: Command) {
        self.counts.commands += 1;
        self.commands.push_json(&command);
    }

    fn file(&mut self, file: FileAccess) {
        self.counts.files += 1;
        self.files.push_json(&file);
    }

    fn forward(&mut self, forward: Forward) {
        self.counts.forwards += 1;
        self.forwards.push_json(&forward);
    }

    fn line(&mut self, line: TranscriptLine) {
        self.line.clear();
        self.transcript.line(&line, &mut self.line);
        self.text.push(self.line.as_bytes());
    }
}

/// A finding's line.
///
/// # Errors
/// If it can't be JSON, which no finding can't.
pub fn ndjson(finding: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(finding)?;
    line.push(b'\n');
    Ok(line)
}

/// Lines up to a bound, and how many there were behind it.
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
    left_out: u64,
}

impl Bounded {
    fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max, left_out: 0 }
    }

    fn push(&mut self, line: &[u8]) {
        // What comes behind one that is left out is left out, too: there are no holes.
        if self.left_out > 0 || self.bytes.len() + line.len() + CUT_BYTES > self.max {
            self.left_out += 1;
        } else {
            self.bytes.extend_from_slice(line);
        }
    }

    fn push_json(&mut self, finding: &impl Serialize) {
        match ndjson(finding) {
            Ok(line) if self.left_out == 0 => self.push(&line),
            _ => self.left_out += 1,
        }
    }

    fn finish(mut self, cut: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
        if self.left_out > 0 {
            self.bytes.extend_from_slice(&cut(self.left_out));
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use weir_common::{
        recording::findings::{ForwardKind, Span},
        session::ChannelNo,
    };

    use super::*;

    fn forward(n: u32) -> Forward {
        Forward {
            n,
            ch: ChannelNo(0),
            span: Span { t: 5, t_end: None, started_at: None, ended_at: None },
            kind: ForwardKind::Local,
            from: None,
            to: "db:5432".to_owned(),
            refused: None,
            sent: 1,
            received: 2,
        }
    }

    fn text(n: u32) -> TranscriptLine {
        TranscriptLine { ch: ChannelNo(0), t: 0, pane: None, text: format!("line {n}"), is_command: false }
    }

    #[test]
    fn what_finds_no_room_is_counted_in_the_last_line_and_no_object_is_larger_than_its_bound() {
        for max in [CUT_BYTES, 300, 1000] {
            let bounds = Bounds { commands: max, files: max, forwards: max, transcript: max };
            let mut objects = Objects::new(None, bounds);
            for n in 1..=100 {
                objects.forward(forward(n));
                objects.line(text(n));
            }
            let Made { counts, objects } = objects.finish();
            assert_eq!(counts, FindingCounts { commands: 0, files: 0, forwards: 100 });
            assert_eq!(objects.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [FORWARDS, TRANSCRIPT]);
            assert!(objects.iter().all(|(_, bytes)| bytes.len() <= max));
            let lines = objects[0].1.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            let lines = lines.map(|line| serde_json::from_slice(line).expect("a line"));
            let lines: Vec<Line<Forward>> = lines.collect();
            let (last, found) = lines.split_last().expect("the last line");
            let Line::Cut(Cut { left_out }) = last else { panic!("the last line does not say it") };
            assert_eq!(*left_out, 100 - found.len() as u64);
            for (n, line) in (1..).zip(found) {
                assert!(matches!(line, Line::Finding(found) if *found == forward(n)));
            }
            let text = String::from_utf8(objects[1].1.clone()).expect("UTF-8");
            let kept = text.lines().filter(|line| line.contains("    line ")).count();
            assert!(text.ends_with(&transcript::cut_line(100 - kept as u64)), "{text}");
        }
    }

    #[test]
    fn where_there_is_nothing_to_say_there_is_no_object() {
        let bounds = Bounds { commands: 1000, files: 1000, forwards: 1000, transcript: 1000 };
        assert!(Objects::new(None, bounds).finish().objects.is_empty());
    }
}
