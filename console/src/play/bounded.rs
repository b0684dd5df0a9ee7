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
}

/// What is done with what a parser finds.
pub(super) trait Heard: Perform {
    /// Whether there was anything since this was last asked.
    fn heard(&mut self) -> bool;
}

impl Bounded {
    pub(super) fn advance(&mut self, perform: &mut impl Heard, bytes: &[u8]) {
        for chunk in bytes.chunks(1024) {
            self.parser.advance(perform, chunk);
            self.silent_bytes = if perform.heard() { 0 } else { self.silent_bytes + chunk.len() };
            if self.silent_bytes > STRING_MAX {
                *self = Self::default();
            }
        }
    }
}
