//! Reads a segment: zstd, then lines, then the header and the events, one at a time.
//!
//! Bounded whatever the segment holds: one line of at most [`LINE_MAX`] bytes is in memory, at most
//! [`SEGMENT_NDJSON_MAX`] bytes are unpacked and the decompressor's window is limited. Whether the events make
//! sense is not judged here.

use std::io::{self, BufRead, BufReader, Read};

use weir_common::{
    frame::MAX_BODY,
    recording::{Event, SEGMENT_NDJSON_MAX, SegmentHeader},
};

use crate::{
    hashed::{Hashed, READ_BYTES, Stored},
    store::Object,
};

/// The most bytes of a line: a body of files of one byte each, whose content is withheld (14 bytes of JSON for each of the
/// body's; where none is, JSON escapes a byte into six at the worst), and the fields around it.
pub const LINE_MAX: usize = 16 * MAX_BODY + 4096;
/// The largest window of a zstd frame that is unpacked, as a power of two: 32 MiB.
pub const WINDOW_LOG_MAX: u32 = 25;

/// Why a segment can't be read, or not any further.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The decompressor gave up.
    #[error("can't be unpacked after {after} lines: {source}")]
    Unpack {
        /// Whole lines before that.
        after: u64,
        /// What it said.
        source: io::Error,
    },
    /// Over [`SEGMENT_NDJSON_MAX`].
    #[error("unpacks to more than {SEGMENT_NDJSON_MAX} bytes")]
    TooLong,
    /// Over [`LINE_MAX`].
    #[error("line {line} has more than {LINE_MAX} bytes")]
    LineTooLong {
        /// Its number, from 1.
        line: u64,
    },
    /// Not even a first line.
    #[error("is empty: not even its header line is there")]
    Empty,
    /// The first line is something else.
    #[error("line 1 is not a segment's header: {source}")]
    Header {
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The object itself can't be read.
    #[error("can't be read: {source}")]
    Read {
        /// What the operating system says.
        source: io::Error,
    },
}

/// A line behind the header.
#[derive(Debug)]
pub enum Line {
    /// An event.
    Event(Event),
    /// Something else, and why.
    Malformed(serde_json::Error),
}

/// A segment that is being read.
pub struct SegmentReader<R: Read = Object> {
    lines: Lines<R>,
    header: SegmentHeader,
}

impl<R: Read> SegmentReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If it can't be.
    pub fn new(object: R) -> Result<Self, SegmentError> {
        let mut lines = Lines::new(object).map_err(|source| SegmentError::Read { source })?;
        if !lines.advance()? {
            return Err(SegmentError::Empty);
        }
        let header = serde_json::from_slice(&lines.line).map_err(|source| SegmentError::Header { source })?;
        Ok(Self { lines, header })
    }

    /// The first line.
    #[must_use]
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The next line and its number, from 2; `None` at the end. After an error nothing more can be read.
    ///
    /// # Errors
    /// If the segment can't be read any further.
    pub fn next_line(&mut self) -> Result<Option<(u64, Line)>, SegmentError> {
        if !self.lines.advance()? {
            return Ok(None);
        }
        let line = match serde_json::from_slice(&self.lines.line) {
            Ok(event) => Line::Event(event),
            Err(source) => Line::Malformed(source),
        };
        Ok(Some((self.lines.number, line)))
    }

    /// Reads what is left of the object and says what it was as stored.
    ///
    /// # Errors
    /// If the object can't be read.
    pub fn finish(self) -> io::Result<Stored> {
        // What the buffers still hold has been digested on its way into them.
        self.lines.unpacked.into_inner().finish().into_inner().finish()
    }
}

/// The lines of a packed text, one at a time.
struct Lines<R: Read> {
    unpacked: BufReader<zstd::Decoder<'static, BufReader<Hashed<R>>>>,
    line: Vec<u8>,
    number: u64,
    left: u64,
}

impl<R: Read> Lines<R> {
    fn new(object: R) -> io::Result<Self> {
        let mut decoder = zstd::Decoder::new(Hashed::new(object))?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        let unpacked = BufReader::with_capacity(READ_BYTES, decoder);
        Ok(Self { unpacked, line: Vec::new(), number: 0, left: SEGMENT_NDJSON_MAX })
    }

    fn advance(&mut self) -> Result<bool, SegmentError> {
        self.line.clear();
        let after = self.number;
        loop {
            let buffer = match self.unpacked.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(SegmentError::Unpack { after, source }),
            };
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(buffer.len(), |end| end + 1);
            if taken == 0 {
                let found = !self.line.is_empty();
                self.number += u64::from(found);
                return Ok(found);
            }
            self.left = self.left.checked_sub(taken as u64).ok_or(SegmentError::TooLong)?;
            if self.line.len() + taken > LINE_MAX {
                return Err(SegmentError::LineTooLong { line: after + 1 });
            }
            self.line.extend_from_slice(&buffer[..end.unwrap_or(taken)]);
            self.unpacked.consume(taken);
            if end.is_some() {
                self.number += 1;
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::{digest::Sha256, session::SessionId};

    use super::*;

    fn pack(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 1).expect("in memory")
    }

    fn header_line() -> String {
        let header = SegmentHeader {
            weir: 1,
            session: SessionId::generate(),
            index: 1,
            previous: None,
            bulk: None,
            opened: None,
        };
        serde_json::to_string(&header).expect("headers serialize")
    }

    fn error(object: &[u8]) -> String {
        let read = || {
            let mut reader = SegmentReader::new(object)?;
            while reader.next_line()?.is_some() {}
            Ok::<_, SegmentError>(())
        };
        read().expect_err("it should not read").to_string()
    }

    #[test]
    fn events_and_malformed_lines_come_with_their_line_numbers() {
        let eof = r#"{"t":5,"dir":"t2c","ch":0,"seq":3,"len":0,"kind":"eof"}"#;
        let object = pack(format!("{}\n{eof}\nno event\n{eof}", header_line()).as_bytes());
        let mut reader = SegmentReader::new(&object[..]).expect("a header");
        assert_eq!(reader.header().index, 1);
        let mut seen = Vec::new();
        while let Some((number, line)) = reader.next_line().expect("readable") {
            seen.push((number, matches!(line, Line::Event(_))));
        }
        assert_eq!(seen, [(2, true), (3, false), (4, true)]);
        let stored = reader.finish().expect("in memory");
        assert_eq!(stored, Stored { sha256: Sha256::of(&object), bytes: object.len() as u64 });
    }

    #[test]
    fn each_way_a_segment_can_be_unreadable_has_its_words() {
        assert!(error(b"").contains("can't be unpacked"));
        assert!(error(&pack(b"")).contains("is empty"));
        assert!(error(b"no zstd at all").contains("can't be unpacked"));
        assert!(error(&pack(b"{}\n")).contains("line 1 is not a segment's header"));
        let whole = pack(format!("{}\n", header_line()).as_bytes());
        assert!(error(&whole[..whole.len() - 1]).contains("can't be unpacked"));
        assert!(error(&[&whole[..], b"more"].concat()).contains("can't be unpacked"));
        let long = format!("{}\n{}", header_line(), "x".repeat(LINE_MAX + 1));
        assert!(error(&pack(long.as_bytes())).contains("line 2 has more than"));
    }

    #[test]
    fn a_segment_that_asks_for_a_huge_window_is_not_unpacked() {
        // Magic, a frame header descriptor without content size, and a window of 2^(10 + 31).
        assert!(error(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 31 << 3, 0x01, 0, 0]).contains("can't be unpacked"));
    }
}
