//! Shows what was typed, so that it can't be taken for output: ‹like this›.

use std::fmt;

use crate::escape;

/// Bytes of standard input.
pub(super) struct Typed<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) coloured: bool,
}

impl fmt::Display for Typed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, coloured } = self;
        // Inverse, and nothing else of the rendition that the output is in at the moment is touched.
        let (on, off) = if *coloured { ("\x1b[7m", "\x1b[27m") } else { ("", "") };
        write!(f, "{on}‹{}›{off}", escape::bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spelled_out_and_nothing_typed_reaches_the_terminal_raw() {
        let typed = |bytes: &[u8], coloured| Typed { bytes, coloured }.to_string();
        assert_eq!(typed(b"ls\r", false), "‹ls\\r›");
        assert_eq!(typed(b"\x1b[A\x03", true), "\x1b[7m‹\\x1b[A\\x03›\x1b[27m");
    }
}
