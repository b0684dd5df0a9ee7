//! Takes everything but text, line breaks and tabs out of a stream of output.
//!
//! Nothing of the text is lost: a carriage return that starts no line break becomes one, so that what it would
//! overwrite on a terminal stays readable. Where it would overwrite nothing it is left out.

use vte::{Params, Perform};

use super::bounded::{Bounded, Heard};
use crate::escape;

/// One stream of output on its way to somewhere that is no terminal.
#[derive(Default)]
pub struct PlainText {
    parser: Bounded,
    strip: Strip,
}

impl PlainText {
    /// The text in these bytes. Sequences may be split between calls anywhere.
    pub fn filter(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.parser.advance(&mut self.strip, bytes);
        std::mem::take(&mut self.strip.out).into_bytes()
    }
}

#[derive(Default)]
struct Strip {
    out: String,
    heard: bool,
    carriage_return: bool,
    line_has_text: bool,
}

impl Strip {
    fn push(&mut self, c: char) {
        if std::mem::take(&mut self.carriage_return) {
            match c {
                '\n' => self.out.push('\r'),
                _ if self.line_has_text => self.out.push('\n'),
                _ => {}
            }
        }
        self.line_has_text = c != '\n';
        self.out.push(c);
    }
}

impl Heard for Strip {
    fn heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }
}

impl Perform for Strip {
    fn print(&mut self, c: char) {
        self.heard = true;
        if !escape::is_unsafe(c) {
            self.push(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        self.heard = true;
        match byte {
            b'\n' | b'\t' => self.push(char::from(byte)),
            // In text these are line breaks as well.
            0x0b | 0x0c => self.push('\n'),
            b'\r' => self.carriage_return = true,
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, _: &Params, _: &[u8], _: bool, _: char) {
        self.heard = true;
    }

    fn esc_dispatch(&mut self, _: &[u8], _: bool, _: u8) {
        self.heard = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::bounded::STRING_MAX, *};

    fn filter(bytes: &str) -> String {
        String::from_utf8(PlainText::default().filter(bytes.as_bytes())).expect("text")
    }

    proptest! {
        #[test]
        fn text_comes_out_as_it_went_in(text in "([ -~äß語]|\n|\r\n|\t){0,200}") {
            prop_assert_eq!(filter(&text), text);
        }

        #[test]
        fn no_control_comes_out_but_line_breaks_and_tabs(bytes: Vec<u8>) {
            let left = String::from_utf8(PlainText::default().filter(&bytes)).expect("text");
            prop_assert!(!left.chars().any(|c| escape::is_unsafe(c) && !"\r\n\t".contains(c)));
        }
    }

    #[test]
    fn sequences_are_left_out_and_overwritten_text_stays() {
        assert_eq!(filter("\x1b[31mred\x1b[0m \x1b]0;title\x07\x1bP$qm\x1b\\end"), "red end");
        assert_eq!(filter("rm -rf /\r\x1b[Kls\r\n"), "rm -rf /\nls\r\n");
        assert_eq!(filter("a\r\r\nb\x08c\x07"), "a\r\nbc");
        // What readline sends between a command and its output.
        assert_eq!(filter("$ ls\r\n\x1b[?2004l\rfile\r\n"), "$ ls\r\nfile\r\n");
    }

    #[test]
    fn a_control_string_that_never_ends_does_not_hide_the_rest() {
        for start in ["\x1b]0;", "\x1bP", "\x1bX", "\x1b_"] {
            let mut text = PlainText::default();
            text.filter(start.as_bytes());
            text.filter(&vec![b'x'; STRING_MAX + 2048]);
            assert_eq!(text.filter(b"evidence"), b"evidence", "{start:?}");
        }
    }
}
