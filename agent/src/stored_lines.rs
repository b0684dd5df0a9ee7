//! The lines of a stored segment, one at a time.
//!
//! Bounded by what a segment may be, whatever the object is that lies in its place.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use bytes::Bytes;
use weir_common::{frame::MAX_BODY, recording::SEGMENT_NDJSON_MAX};

use crate::adopting::WINDOW_LOG_MAX;

/// A body of which JSON escapes every byte into six, or of which a digest is in the place of every few bytes, and the fields
/// around it.
pub(crate) const LINE_MAX: u64 = 16 * MAX_BODY as u64 + 4096;

/// The lines of a segment. A line that is longer than any that is written comes in pieces.
pub(crate) struct Lines {
    unpacked: BufReader<io::Take<zstd::Decoder<'static, BufReader<Cursor<Bytes>>>>>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    pub(crate) fn new(segment: Bytes) -> io::Result<Self> {
        let mut unpacked = zstd::Decoder::new(Cursor::new(segment))?;
        unpacked.window_log_max(WINDOW_LOG_MAX)?;
        let unpacked = BufReader::new(unpacked.take(SEGMENT_NDJSON_MAX));
        Ok(Self { unpacked, line: Vec::new(), number: 0 })
    }

    /// The next line and its number, from 1; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        self.line.clear();
        let read = (&mut self.unpacked).take(LINE_MAX).read_until(b'\n', &mut self.line)?;
        self.number += u64::from(read > 0);
        Ok((read > 0).then_some((self.number, &*self.line)))
    }
}
