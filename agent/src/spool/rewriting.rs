//! Writing what is in a spool file once more, where the kernel may have given up writing it.
//!
//! Owns that nothing is written but what was appended: what is read back is usually the kernel's copy of it in memory, but
//! where memory ran short it is what the disk has there, and only the entries' checksums tell.

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    os::unix::fs::FileExt,
};

use super::{
    entry::{Entry, HEADER_LEN},
    reader::Reader,
};

/// Why bytes were not written once more.
#[derive(Debug, thiserror::Error)]
pub(super) enum RewriteError {
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// These bytes can't be read back.
    #[error("the disk did not take bytes {} to {} of a spool file, and memory has them no more", .0.start, .0.end)]
    Lost(Range<u64>),
}

/// Reads the entries in these bytes of the file and writes them in place.
///
/// # Errors
/// [`RewriteError`]; what lies before the trouble was written.
pub(super) fn rewrite(file: &File, bytes: Range<u64>) -> Result<(), RewriteError> {
    let mut entries = Reader::new(Part { file, bytes: bytes.clone() });
    while let Some((offset, entry)) = entries.next()? {
        let header = entry.header().map_err(io::Error::other)?;
        let Entry { payload, .. } = entry;
        let at = bytes.start + offset;
        file.write_all_at(&header, at)?;
        file.write_all_at(payload, at + HEADER_LEN as u64)?;
    }
    let good = bytes.start + entries.offset();
    if good < bytes.end { Err(RewriteError::Lost(good..bytes.end)) } else { Ok(()) }
}

/// A part of a file, read without its cursor.
struct Part<'a> {
    file: &'a File,
    bytes: Range<u64>,
}

impl Read for Part<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.bytes.end.saturating_sub(self.bytes.start)).unwrap_or(usize::MAX);
        let most = left.min(into.len());
        let read = self.file.read_at(&mut into[..most], self.bytes.start)?;
        self.bytes.start += read as u64;
        Ok(read)
    }
}
