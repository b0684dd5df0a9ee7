//! Directories and files. No link is followed below the directory that was named, and nothing but regular files is
//! opened.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{Entry, EntryKind, StoreError, io_error};

/// The directory without links in its path.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let resolved = path.canonicalize().map_err(|source| io_error("open", path, source))?;
    if !resolved.is_dir() {
        return Err(StoreError::NotADirectory { path: path.to_owned() });
    }
    Ok(resolved)
}

/// What is in a directory, in no order; `None` if that is more than `max`.
pub(super) fn list(dir: &Path, max: usize) -> Result<Option<Vec<Entry>>, StoreError> {
    let failed = |source| io_error("list", dir, source);
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entries.len() == max {
            return Ok(None);
        }
        let kind = match entry.file_type().map_err(failed)? {
            t if t.is_symlink() => EntryKind::Link,
            t if t.is_dir() => EntryKind::Directory,
            t if t.is_file() => EntryKind::File,
            _ => EntryKind::Other,
        };
        entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), kind });
    }
    Ok(Some(entries))
}

/// Opens a regular file right in the directory.
pub(super) fn open(dir: &Path, name: &str) -> Result<File, StoreError> {
    let path = dir.join(name);
    if path.parent() != Some(dir) {
        return Err(StoreError::NotAFile { path });
    }
    // A pipe would otherwise make `open` wait for a writer.
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path).map_err(
            |source| match source.raw_os_error() {
                Some(libc::ELOOP) => StoreError::NotAFile { path: path.clone() },
                _ => io_error("open", &path, source),
            },
        )?;
    let metadata = file.metadata().map_err(|source| io_error("open", &path, source))?;
    if !metadata.is_file() {
        return Err(StoreError::NotAFile { path });
    }
    Ok(file)
}
