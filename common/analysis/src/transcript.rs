//! The transcript: what stood on a session's terminals, as text for people.
//!
//! ```text
//! [2026-11-23 08:15:04Z #0] deploy@web1:~$ for i in 1 2
//! > do echo $i; done
//!     1
//!     2
//! [2026-11-23 08:15:20Z #1 %3]
//!     what another terminal shows, pane 3 of its tmux
//! ```
//!
//! A command's line is a heading: when, on which channel and in which pane. Its further lines begin with `> `. All else is
//! indented by four blanks, so nothing that a target prints can look like a heading. Where what follows stood on another
//! terminal than the line before, and is no command, a heading without text says so. Control characters and those that
//! change the direction of text are escaped. Not here: what stood there (`terminal`), and bounds on how much is kept.

use std::fmt::{self, Write};

use weir_common::{recording::Clock, session::ChannelNo};

use crate::TranscriptLine;

const INDENT: &str = "    ";
const CONTINUED: &str = "> ";
const NS_PER_S: u64 = 1_000_000_000;

/// Writes a transcript.
#[derive(Clone, Default)]
pub struct Transcript {
    clock: Option<Clock>,
    /// The terminal whose line was the last.
    current: Option<(ChannelNo, Option<String>)>,
}

impl Transcript {
    /// At its beginning. Without a clock times are those since the node's start.
    #[must_use]
    pub fn new(clock: Option<Clock>) -> Self {
        Self { clock, current: None }
    }

    /// Appends what this line adds to the transcript; it ends with a line feed.
    pub fn line(&mut self, line: &TranscriptLine, out: &mut String) {
        let TranscriptLine { ch, t: _, pane, text, is_command } = line;
        let same = self.current.as_ref().is_some_and(|(at, in_pane)| at == ch && in_pane == pane);
        if *is_command || !same {
            // Writing to a string can't fail.
            let _ = self.heading(line, out);
            self.current = Some((*ch, pane.clone()));
        }
        let mut lines = text.split('\n');
        if *is_command {
            out.push(' ');
            escape_into(lines.next().unwrap_or_default(), out);
            out.push('\n');
        } else if !same {
            out.push('\n');
        }
        for text in lines {
            if *is_command {
                out.push_str(CONTINUED);
            } else if !text.is_empty() {
                out.push_str(INDENT);
            }
            escape_into(text, out);
            out.push('\n');
        }
    }

    fn heading(&self, line: &TranscriptLine, out: &mut String) -> fmt::Result {
        match self.clock.and_then(|clock| clock.at(line.t)) {
            Some(at) => write!(out, "[{}", at.strftime("%Y-%m-%d %H:%M:%SZ"))?,
            None => write!(out, "[+{}.{:03}s", line.t / NS_PER_S, line.t % NS_PER_S / 1_000_000)?,
        }
        write!(out, " #{}", line.ch)?;
        if let Some(pane) = &line.pane {
            out.push(' ');
            escape_into(pane, out);
        }
        out.push(']');
        Ok(())
    }
}

/// The line that ends a transcript that found no room.
#[must_use]
pub fn cut_line(left_out: u64) -> String {
    format!("[cut here: {left_out} more lines; the evidence has all of them]\n")
}

/// Appends the text, on one line, with nothing in it that can make a terminal do anything or mislead a reader's eye.
pub fn escape_into(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\t' => out.push(c),
            c if is_unsafe(c) => {
                let _ = match u32::from(c) {
                    code @ ..=0x7f => write!(out, "\\x{code:02x}"),
                    code => write!(out, "\\u{{{code:x}}}"),
                };
            }
            c => out.push(c),
        }
    }
}

/// Control characters, line and paragraph separators, and what changes the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn line(ch: u32, t_s: u64, pane: Option<&str>, is_command: bool, text: &str) -> TranscriptLine {
        let pane = pane.map(str::to_owned);
        TranscriptLine { ch: ChannelNo(ch), t: t_s * NS_PER_S, pane, text: text.to_owned(), is_command }
    }

    fn write(clock: Option<Clock>, lines: &[TranscriptLine]) -> String {
        let (mut transcript, mut out) = (Transcript::new(clock), String::new());
        lines.iter().for_each(|line| transcript.line(line, &mut out));
        out
    }

    #[test]
    fn a_transcript_reads_as_the_module_says() {
        let at: Timestamp = "2026-11-23T08:15:00Z".parse().expect("a time");
        let lines = [
            line(0, 4, None, true, "deploy@web1:~$ for i in 1 2\ndo echo $i; done"),
            line(0, 5, None, false, "1"),
            line(0, 5, None, false, ""),
            line(0, 6, None, false, "[2026-11-23 08:15:06Z #0] no heading\x1b[2J\u{202e}"),
            line(0, 8, None, true, "deploy@web1:~$ "),
            line(1, 20, Some("%3"), false, "elsewhere\tgrüße"),
            line(1, 21, Some("%3"), false, "still there"),
            line(0, 22, None, false, "back"),
        ];
        let expected = "\
[2026-11-23 08:15:04Z #0] deploy@web1:~$ for i in 1 2
> do echo $i; done
    1

    [2026-11-23 08:15:06Z #0] no heading\\x1b[2J\\u{202e}
[2026-11-23 08:15:08Z #0] deploy@web1:~$ 
[2026-11-23 08:15:20Z #1 %3]
    elsewhere\tgrüße
    still there
[2026-11-23 08:15:22Z #0]
    back
";
        assert_eq!(write(Some(Clock { boot_ns: 0, at }), &lines), expected);
        assert!(write(None, &lines[..1]).starts_with("[+4.000s #0] deploy@web1"));
    }

    proptest! {
        #[test]
        fn nothing_that_a_target_prints_looks_like_a_heading(text in any::<String>(), pane in any::<Option<String>>()) {
            let (mut transcript, mut out) = (Transcript::new(None), String::new());
            transcript.line(&line(0, 1, pane.as_deref(), false, "first"), &mut out);
            out.clear();
            transcript.line(&line(0, 1, pane.as_deref(), false, &text), &mut out);
            prop_assert!(out.ends_with('\n'));
            for line in out.lines() {
                prop_assert!(line.is_empty() || line.starts_with(INDENT), "{line:?}");
                prop_assert!(!line.chars().any(|c| c != '\t' && is_unsafe(c)));
            }
        }
    }
}
