//! A parser of control sequences that does not wait forever.
//!
//! A control string that never ends would keep everything after it from the reviewer. Behind [`STRING_MAX`] bytes
//! it is taken for text. The parser itself is `vte`'s, which keeps a fixed number of bytes.

use vte::{Parser, Perform};

/// The most bytes of a control string.
pub(super) const STRING_MAX: usize = 64 * 1024;

/// A parser that does not wait forever for the end of a control string.
#[derive(Default)]
pub(super) struct Bounded {
    parser: Parser,
    silent_bytes: usize,
    amid_sequence: bool,
}

/// What is done with what a parser finds.
pub(super) trait Heard: Perform {
    /// Whether there was anything since this was last asked.
    fn heard(&mut self) -> bool;
}

impl Bounded {
    pub(super) fn advance(&mut self, perform: &mut impl Heard, bytes: &[u8]) {
        // A control is carried out amid a sequence as well as outside, and says nothing about where the parser is.
        let is_control = |byte: &u8| *byte < 0x20 && !matches!(byte, 0x18 | 0x1a | 0x1b);
        let end = bytes.len() - bytes.iter().rev().take_while(|byte| is_control(byte)).count();
        let (telling, controls) = bytes.split_at(end);
        if let Some((last, before)) = telling.split_last() {
            self.feed(perform, before);
            // The first byte of a character says so of the one before, where that was cut.
            self.amid_sequence = !self.feed(perform, std::slice::from_ref(last)) || *last >= 0xc0;
        }
        self.feed(perform, controls);
    }

    fn feed(&mut self, perform: &mut impl Heard, bytes: &[u8]) -> bool {
        let mut heard = false;
        for chunk in bytes.chunks(1024) {
            self.parser.advance(perform, chunk);
            heard = perform.heard();
            self.silent_bytes = if heard { 0 } else { self.silent_bytes + chunk.len() };
            if self.silent_bytes > STRING_MAX {
                *self = Self::default();
            }
        }
        heard
    }

    /// Whether the last byte ended something, so that a new parser would go on just the same.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.amid_sequence
    }
}
