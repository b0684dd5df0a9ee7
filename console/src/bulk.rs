//! Reads a segment's bulk from front to back, as the events point into it.
//!
//! Nothing but the bytes of one event is in memory. At most [`SEGMENT_BULK_MAX`] bytes are unpacked.

use std::io::{self, BufReader, Read};

use weir_common::{frame::MAX_BODY, recording::SEGMENT_BULK_MAX};

use crate::{
    hashed::{Hashed, READ_BYTES, Stored},
    segment::WINDOW_LOG_MAX,
    store::Object,
};

/// Why bulk can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// The object can't be read or unpacked.
    #[error("can't be read after {after} unpacked bytes: {source}")]
    Read {
        /// Bytes before that.
        after: u64,
        /// What came back.
        source: io::Error,
    },
    /// It ends too early.
    #[error("ends at byte {end}, before the {bytes} bytes at {at} that an event points to")]
    Short {
        /// Its length.
        end: u64,
        /// Where the event's bytes should be.
        at: u64,
        /// How many.
        bytes: u32,
    },
    /// The event before this one had these bytes.
    #[error("an event points to byte {at}, but everything before {position} belongs to earlier events")]
    Backwards {
        /// Where the event points.
        at: u64,
        /// Where its bytes can be at the earliest.
        position: u64,
    },
    /// No frame has so many bytes.
    #[error("an event points to {bytes} bytes, and a frame has at most {MAX_BODY}")]
    TooMany {
        /// How many.
        bytes: u32,
    },
    /// Over [`SEGMENT_BULK_MAX`].
    #[error("unpacks to more than {SEGMENT_BULK_MAX} bytes")]
    TooLong,
}

enum Source<R: Read> {
    Plain(BufReader<Hashed<R>>),
    Packed(Box<zstd::Decoder<'static, BufReader<Hashed<R>>>>),
}

/// Bulk that is being read.
pub struct BulkReader<R: Read = Object> {
    source: Source<R>,
    position: u64,
}

impl<R: Read> BulkReader<R> {
    /// Takes the object of this name, whose form the name says.
    ///
    /// # Errors
    /// If the decompressor can't be set up.
    pub fn new(name: &str, object: R) -> Result<Self, BulkError> {
        let read = |source| BulkError::Read { after: 0, source };
        let object = Hashed::new(object);
        let source = if name.ends_with(".zst") {
            let mut decoder = zstd::Decoder::new(object).map_err(read)?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(read)?;
            Source::Packed(Box::new(decoder))
        } else {
            Source::Plain(BufReader::with_capacity(READ_BYTES, object))
        };
        Ok(Self { source, position: 0 })
    }

    /// The bytes of an event. Bytes between the last event's and these are passed over.
    ///
    /// # Errors
    /// If they are not there.
    pub fn bytes(&mut self, at: u64, bytes: u32) -> Result<Vec<u8>, BulkError> {
        if bytes as usize > MAX_BODY {
            return Err(BulkError::TooMany { bytes });
        }
        let skip =
            at.checked_sub(self.position).ok_or(BulkError::Backwards { at, position: self.position })?;
        if self.pass(skip)? < skip {
            return Err(BulkError::Short { end: self.position, at, bytes });
        }
        let mut buffer = Vec::with_capacity(bytes as usize);
        let read = self.stream().take(u64::from(bytes)).read_to_end(&mut buffer);
        let read = read.map_err(|source| BulkError::Read { after: at, source })?;
        self.advance(read as u64)?;
        if read < bytes as usize {
            return Err(BulkError::Short { end: self.position, at, bytes });
        }
        Ok(buffer)
    }

    /// Goes to the end; the bulk's unpacked length.
    ///
    /// # Errors
    /// If it can't be read to its end, or the end is too far.
    pub fn skip_to_end(&mut self) -> Result<u64, BulkError> {
        self.pass(u64::MAX)?;
        Ok(self.position)
    }

    /// Reads what is left of the object and says what it was as stored.
    ///
    /// # Errors
    /// If the object can't be read.
    pub fn finish(self) -> io::Result<Stored> {
        match self.source {
            Source::Plain(reader) => reader.into_inner().finish(),
            Source::Packed(decoder) => decoder.finish().into_inner().finish(),
        }
    }

    fn stream(&mut self) -> &mut dyn Read {
        match &mut self.source {
            Source::Plain(reader) => reader,
            Source::Packed(decoder) => decoder,
        }
    }

    fn pass(&mut self, bytes: u64) -> Result<u64, BulkError> {
        if bytes == 0 {
            return Ok(0);
        }
        let mut buffer = vec![0; READ_BYTES];
        let mut passed = 0;
        while passed < bytes {
            let most = usize::try_from(bytes - passed).unwrap_or(usize::MAX).min(buffer.len());
            let after = self.position;
            match self.stream().read(&mut buffer[..most]) {
                Ok(0) => break,
                Ok(n) => {
                    passed += n as u64;
                    self.advance(n as u64)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(BulkError::Read { after, source }),
            }
        }
        Ok(passed)
    }

    fn advance(&mut self, bytes: u64) -> Result<(), BulkError> {
        self.position += bytes;
        if self.position > SEGMENT_BULK_MAX { Err(BulkError::TooLong) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readers(bytes: &[u8]) -> [BulkReader<io::Cursor<Vec<u8>>>; 2] {
        let packed = zstd::encode_all(bytes, 1).expect("in memory");
        [("000001.bin", bytes.to_vec()), ("000001.bin.zst", packed)]
            .map(|(name, object)| BulkReader::new(name, io::Cursor::new(object)).expect("set up"))
    }

    #[test]
    fn events_get_their_bytes_whether_packed_or_not() {
        for mut bulk in readers(b"onetwothree") {
            assert_eq!(bulk.bytes(0, 3).expect("there"), b"one");
            assert_eq!(bulk.bytes(6, 5).expect("there"), b"three");
            assert_eq!(bulk.skip_to_end().expect("readable"), 11);
        }
    }

    #[test]
    fn pointing_anywhere_else_is_an_error() {
        for mut bulk in readers(b"onetwothree") {
            assert!(matches!(bulk.bytes(0, 40_000), Err(BulkError::TooMany { bytes: 40_000 })));
            bulk.bytes(3, 3).expect("there");
            assert!(matches!(bulk.bytes(0, 3), Err(BulkError::Backwards { at: 0, position: 6 })));
            assert!(matches!(bulk.bytes(6, 6), Err(BulkError::Short { end: 11, .. })));
            assert!(matches!(bulk.bytes(u64::MAX, 1), Err(BulkError::Short { end: 11, .. })));
        }
    }
}
