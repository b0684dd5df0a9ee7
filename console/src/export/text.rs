//! Writes the transcript: what stood on the terminals, with the commands as headings.
//!
//! The stored transcript is copied if there is one that is as listed, else it is made from the events. Controls are
//! spelled out either way.

use std::{
    fmt,
    io::{self, BufRead, Read, Write},
};

use weir_analysis::{Findings, TranscriptLine, transcript::Transcript};
use weir_common::recording::findings::{Command, FileAccess, Forward, TRANSCRIPT};

use crate::{
    escape,
    findings::{self, Origin},
    recording::Recording,
};

/// The most bytes of a stored line that are put out as one.
const LINE_MAX: u64 = 1 << 20;

/// Writes the transcript and says where it is from.
///
/// # Errors
/// If it can't be written.
pub fn write(recording: &Recording, warnings: &mut Vec<String>, out: &mut dyn Write) -> io::Result<Origin> {
    if let Some(stored) = findings::transcript(recording) {
        copy(stored, warnings, out)?;
        return Ok(Origin::Stored);
    }
    let transcript = Transcript::new(recording.clock());
    let mut lines = Lines { transcript, out, text: String::new(), failed: None };
    findings::made(recording, &mut lines, warnings);
    lines.failed.map_or(Ok(Origin::Made), Err)
}

fn copy(mut stored: impl BufRead, warnings: &mut Vec<String>, out: &mut dyn Write) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        match stored.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => {
                warnings.push(format!("{TRANSCRIPT} can't be read: {error}"));
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&line);
        writeln!(out, "{}", Safe(text.strip_suffix('\n').unwrap_or(&text)))?;
    }
}

/// Text without what a terminal would act on, of any length, its tabs left.
struct Safe<'a>(&'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.split_inclusive(|c| c != '\t' && escape::is_unsafe(c)) {
            let end = piece.char_indices().next_back().map_or(0, |(at, _)| at);
            match &piece[end..] {
                "\t" => f.write_str(piece)?,
                last => write!(f, "{}{}", &piece[..end], escape::text(last))?,
            }
        }
        Ok(())
    }
}

struct Lines<'a> {
    transcript: Transcript,
    out: &'a mut dyn Write,
    text: String,
    failed: Option<io::Error>,
}

impl Findings for Lines<'_> {
    fn line(&mut self, line: TranscriptLine) {
        if self.failed.is_none() {
            self.text.clear();
            self.transcript.line(&line, &mut self.text);
            self.failed = self.out.write_all(self.text.as_bytes()).err();
        }
    }

    fn command(&mut self, _: Command) {}

    fn file(&mut self, _: FileAccess) {}

    fn forward(&mut self, _: Forward) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn safe_text_is_all_there_and_has_no_controls(text in ".*") {
            let safe = Safe(&text).to_string();
            prop_assert!(!safe.chars().any(|c| c != '\t' && escape::is_unsafe(c)));
            prop_assert!(safe.chars().count() >= text.chars().count());
        }
    }

    #[test]
    fn a_stored_transcript_is_copied_without_what_a_terminal_would_act_on() {
        let mut out = Vec::new();
        copy(&b"[now #0] ls\n    a\tb\x1b]52;c;x\x07\n"[..], &mut Vec::new(), &mut out).expect("in memory");
        assert_eq!(out, b"[now #0] ls\n    a\tb\\x1b]52;c;x\\x07\n");
    }
}
