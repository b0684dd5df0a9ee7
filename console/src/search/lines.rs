//! Cuts a stream of bytes into lines, of which no more is kept than [`LINE_MAX`] bytes.

/// The most bytes that are searched at once; a longer line is searched in parts.
pub(super) const LINE_MAX: usize = 64 << 10;
/// How many bytes a part has of the one before it, so that what lies across the border is found.
const OVERLAP: usize = 1 << 10;

/// A line, or a part of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// Kernel time at which the line began.
    pub(super) t: u64,
    /// Without its end.
    pub(super) bytes: &'a [u8],
    /// How many of the bytes at its beginning were in the part before.
    pub(super) seen: usize,
}

/// The lines of one stream.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Whether a carriage return ends a line, as the key of a terminal does.
    typed: bool,
    buffer: Vec<u8>,
    t: u64,
    seen: usize,
}

impl Lines {
    /// Of a stream that was typed at a terminal, or not.
    pub(super) fn new(typed: bool) -> Self {
        Self { typed, ..Self::default() }
    }

    /// Takes the next bytes, and gives the lines that they end.
    pub(super) fn push(&mut self, t: u64, mut bytes: &[u8], mut give: impl FnMut(Part<'_>)) {
        while !bytes.is_empty() {
            let end = match self.typed {
                true => memchr::memchr2(b'\r', b'\n', bytes),
                false => memchr::memchr(b'\n', bytes),
            };
            let Some(end) = end else { return self.keep(t, bytes, &mut give) };
            let line = &bytes[..end];
            bytes = &bytes[end + 1..];
            if self.buffer.is_empty() && line.len() <= LINE_MAX {
                give(Part { t, bytes: without_return(line), seen: 0 });
            } else {
                self.keep(t, line, &mut give);
                self.end(&mut give);
            }
        }
    }

    /// Gives what there is of a line that never ended.
    pub(super) fn end(&mut self, mut give: impl FnMut(Part<'_>)) {
        let Self { typed: _, buffer, t, seen } = self;
        if buffer.len() > *seen {
            give(Part { t: *t, bytes: without_return(buffer), seen: *seen });
        }
        buffer.clear();
        *seen = 0;
    }

    fn keep(&mut self, t: u64, mut bytes: &[u8], give: &mut impl FnMut(Part<'_>)) {
        if self.buffer.is_empty() {
            self.t = t;
        }
        loop {
            let room = (LINE_MAX - self.buffer.len()).min(bytes.len());
            self.buffer.extend_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
            if bytes.is_empty() {
                return;
            }
            give(Part { t: self.t, bytes: &self.buffer, seen: self.seen });
            self.buffer.drain(..LINE_MAX - OVERLAP);
            self.seen = OVERLAP;
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(typed: bool, chunks: &[Vec<u8>]) -> Vec<(u64, Vec<u8>, usize)> {
        let (mut lines, mut found) = (Lines::new(typed), Vec::new());
        for (t, chunk) in (0..).zip(chunks) {
            lines.push(t, chunk, |part| found.push((part.t, part.bytes.to_vec(), part.seen)));
        }
        lines.end(|part| found.push((part.t, part.bytes.to_vec(), part.seen)));
        found
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_bytes_come(
            text in "([a-c\n]|\r\n){0,60}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let text = text.into_bytes();
            let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let chunks: Vec<_> = at.windows(2).map(|cut| text[cut[0]..cut[1]].to_vec()).collect();
            let found: Vec<_> = lines(false, &chunks).into_iter().map(|(_, line, _)| line).collect();
            let whole = String::from_utf8(text).expect("ASCII");
            let expected: Vec<_> = whole.lines().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn every_byte_of_a_long_line_is_in_a_part_of_bounded_length(length in 0..4 * LINE_MAX, chunk in 1..LINE_MAX) {
            let line: Vec<u8> = (0..length).map(|n| b'a' + u8::try_from(n % 23).expect("small")).collect();
            let chunks: Vec<_> = line.chunks(chunk).map(<[u8]>::to_vec).collect();
            let mut rebuilt = Vec::new();
            for (t, part, seen) in lines(false, &chunks) {
                prop_assert!(t == 0 && part.len() <= LINE_MAX && rebuilt.ends_with(&part[..seen]));
                rebuilt.extend_from_slice(&part[seen..]);
            }
            prop_assert!(rebuilt == line);
        }
    }

    #[test]
    fn a_line_has_the_time_at_which_it_began() {
        let chunks = [b"a".to_vec(), b"b\nc\r".to_vec(), b"\rd".to_vec()];
        let line = |t, text: &str| (t, text.as_bytes().to_vec(), 0);
        assert_eq!(lines(false, &chunks), [line(0, "ab"), line(1, "c\r\rd")]);
        assert_eq!(lines(true, &chunks), [line(0, "ab"), line(1, "c"), line(2, ""), line(2, "d")]);
    }
}
