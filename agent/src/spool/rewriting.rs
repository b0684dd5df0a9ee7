//! Writing what is in a spool file once more, where the kernel may have given up writing it.
//!
//! Owns that nothing is written but what was appended: what is read back is usually the kernel's copy of it in memory, but
//! where memory ran short it is what the disk has there, and only the entries' checksums tell.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

use super::entry::{Entry, HEADER_LEN};

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
    let mut at = bytes.start;
    let mut entry = Vec::new();
    while at < bytes.end {
        if !read(file, at..bytes.end, &mut entry)? {
            return Err(RewriteError::Lost(at..bytes.end));
        }
        file.write_all_at(&entry, at)?;
        at += entry.len() as u64;
    }
    Ok(())
}

/// Reads the entry that these bytes begin with; says whether it is one.
fn read(file: &File, bytes: Range<u64>, entry: &mut Vec<u8>) -> io::Result<bool> {
    let have = |len: usize, entry: &mut Vec<u8>| {
        entry.resize(len, 0);
        match file.read_exact_at(entry, bytes.start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            other => other.map(|()| true),
        }
    };
    if !have(HEADER_LEN, entry)? {
        return Ok(false);
    }
    let extent = Entry::extent(entry);
    if extent as u64 > bytes.end - bytes.start || !have(extent, entry)? {
        return Ok(false);
    }
    Ok(Entry::decode(entry, bytes.start).is_ok())
}
