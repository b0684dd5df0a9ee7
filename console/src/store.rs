//! Where recordings are read from: one session's directory in a file system.
//!
//! The one place that knows how objects are stored; another store takes the place of [`SessionDir`]. Objects
//! are regular files right in the directory. Links are not followed and nothing else is opened, so that a
//! directory of unknown origin can't point the reader anywhere else or make it wait.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The most entries of a session's directory that are listed.
pub const ENTRIES_MAX: usize = 200_000;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system says no.
    #[error("can't {op} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// Not a session's directory.
    #[error("{} is not a directory; pass the directory of one session, named after its id", .path.display())]
    NotADirectory {
        /// What was passed.
        path: PathBuf,
    },
    /// Over [`ENTRIES_MAX`].
    #[error("{} has more than {ENTRIES_MAX} entries and can't be a session's directory", .path.display())]
    TooManyEntries {
        /// The directory.
        path: PathBuf,
    },
    /// A directory, link, socket or the like.
    #[error("{} is not a regular file", .path.display())]
    NotAFile {
        /// The object.
        path: PathBuf,
    },
    /// Over the limit of what is read into memory.
    #[error("{} has more than {limit} bytes, the most that is read of it", .path.display())]
    TooLong {
        /// The object.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
}

/// Something in a session's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name; bytes that are no UTF-8 are replaced, and no object has such a name.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A symbolic link, wherever it points.
    Link,
    /// A directory.
    Directory,
    /// A socket, a device, a pipe.
    Other,
}

/// One session's directory.
#[derive(Clone, Debug)]
pub struct SessionDir {
    path: PathBuf,
    resolved: PathBuf,
}

impl SessionDir {
    /// Takes a directory; nothing in it is read yet.
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let resolved = path.canonicalize().map_err(|source| io_error("open", path, source))?;
        if !resolved.is_dir() {
            return Err(StoreError::NotADirectory { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), resolved })
    }

    /// The directory as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory's own name, which is the session's id.
    #[must_use]
    pub fn name(&self) -> String {
        self.resolved.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The date in the name of the directory above, if that has the form `dt=…`.
    #[must_use]
    pub fn partition(&self) -> Option<String> {
        let parent = self.resolved.parent()?.file_name()?.to_str()?;
        parent.strip_prefix("dt=").map(str::to_owned)
    }

    /// Everything in the directory, by name.
    ///
    /// # Errors
    /// If it can't be listed.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let failed = |source| io_error("list", &self.path, source);
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.resolved).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entries.len() == ENTRIES_MAX {
                return Err(StoreError::TooManyEntries { path: self.path.clone() });
            }
            let kind = match entry.file_type().map_err(failed)? {
                t if t.is_symlink() => EntryKind::Link,
                t if t.is_dir() => EntryKind::Directory,
                t if t.is_file() => EntryKind::File,
                _ => EntryKind::Other,
            };
            entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Opens an object.
    ///
    /// # Errors
    /// If there is none of that name, or it is no regular file.
    pub fn object(&self, name: &str) -> Result<File, StoreError> {
        let path = self.resolved.join(name);
        if path.parent() != Some(&self.resolved) {
            return Err(StoreError::NotAFile { path });
        }
        // A pipe would otherwise make `open` wait for a writer.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(|source| match source.raw_os_error() {
                Some(libc::ELOOP) => StoreError::NotAFile { path: path.clone() },
                _ => io_error("open", &path, source),
            })?;
        let metadata = file.metadata().map_err(|source| io_error("open", &path, source))?;
        if !metadata.is_file() {
            return Err(StoreError::NotAFile { path });
        }
        Ok(file)
    }

    /// Reads a small object into memory.
    ///
    /// # Errors
    /// As [`SessionDir::object`], and [`StoreError::TooLong`] past `limit` bytes.
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.resolved.join(name);
        read_limited(self.object(name)?, &path, limit)
    }
}

/// Reads a small file that is not part of a recording.
///
/// # Errors
/// If it can't be read or has more than `limit` bytes.
pub fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
    let file = File::open(path).map_err(|source| io_error("open", path, source))?;
    read_limited(file, path, limit)
}

fn read_limited(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|source| io_error("read", path, source))?;
    if bytes.len() as u64 > limit {
        return Err(StoreError::TooLong { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

fn io_error(op: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { op, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_right_in_the_directory_are_objects() {
        let root = tempfile::tempdir().expect("temporary directory");
        let dir = root.path().join("dt=2026-01-02").join("session");
        fs::create_dir_all(dir.join("sub")).expect("writable");
        fs::write(root.path().join("outside"), b"secret").expect("writable");
        fs::write(dir.join("inside"), b"four").expect("writable");
        symlink("../../outside", dir.join("link")).expect("writable");
        let session = SessionDir::open(&dir).expect("a directory");
        assert_eq!(
            (session.name().as_str(), session.partition().as_deref()),
            ("session", Some("2026-01-02"))
        );
        let kinds: Vec<_> = session.list().expect("listable").into_iter().map(|e| e.kind).collect();
        assert_eq!(kinds, [EntryKind::File, EntryKind::Link, EntryKind::Directory]);
        assert_eq!(session.read("inside", 4).expect("four bytes"), b"four");
        assert!(matches!(session.read("inside", 3), Err(StoreError::TooLong { limit: 3, .. })));
        for name in ["link", "sub", "../../outside", "..", "/etc/passwd"] {
            assert!(matches!(session.object(name), Err(StoreError::NotAFile { .. })), "{name}");
        }
        assert!(matches!(session.object("absent"), Err(StoreError::Io { .. })));
        assert!(matches!(SessionDir::open(&dir.join("inside")), Err(StoreError::NotADirectory { .. })));
    }
}
