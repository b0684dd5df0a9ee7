//! Where recordings are read from: a session's objects, in a directory or in a bucket.
//!
//! The one place that knows how objects are stored. In a directory, objects are regular files right in it: links are
//! not followed and nothing else is opened, so that a directory of unknown origin can't point the reader anywhere else
//! or make it wait. In a bucket, objects are read in pieces of bounded size, and nothing is asked but GetObject and
//! ListObjectsV2.

mod bucket;
mod local;
mod root;
mod stores;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use self::bucket::{Bucket, BucketObject};
pub use self::{
    root::Store,
    stores::{Access, Stores},
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
    /// The bucket says no, or nothing.
    #[error(transparent)]
    Bucket(#[from] weir_store::StoreError),
    /// No address of a store or a session.
    #[error("{address} is no address of recordings: {problem}; write a path or s3://bucket/prefix")]
    Address {
        /// What was passed.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No session lies there.
    #[error("{} has no objects; pass the address of one session: …/v1/dt=YYYY-MM-DD/<session id>", .path.display())]
    NoSession {
        /// What was passed.
        path: PathBuf,
    },
    /// No recordings lie there.
    #[error("{} is not a store of recordings: there is no v1 in it", .path.display())]
    NoStore {
        /// What was passed.
        path: PathBuf,
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
    /// Over what is listed of a store.
    #[error("{} has more than {max} entries, the most that are listed", .path.display())]
    TooManySessions {
        /// The directory.
        path: PathBuf,
        /// The limit.
        max: usize,
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

impl StoreError {
    /// Whether it says that there is no such object.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Bucket(weir_store::StoreError::Missing { .. }) | Self::NoSession { .. } => true,
            _ => false,
        }
    }
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

/// One session's objects.
#[derive(Clone, Debug)]
pub struct SessionDir {
    path: PathBuf,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// The directory without links in its path.
    Local(PathBuf),
    /// The path below the bucket's prefix.
    Bucket(Arc<Bucket>, String),
}

/// An object that is being read.
pub enum Object {
    /// A file.
    Local(File),
    /// An object in a bucket.
    Bucket(BucketObject),
}

impl Read for Object {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Local(file) => file.read(buffer),
            Self::Bucket(object) => object.read(buffer),
        }
    }
}

impl SessionDir {
    /// Takes a directory; nothing in it is read yet. [`Stores::session`] takes any address.
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { path: path.to_owned(), place: Place::Local(local::resolve(path)?) })
    }

    fn in_bucket(bucket: Arc<Bucket>, path: String) -> Self {
        Self { path: bucket.location(&path), place: Place::Bucket(bucket, path) }
    }

    /// Where it lies, as it was given: a path, or an address in a bucket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory's own name, which is the session's id.
    #[must_use]
    pub fn name(&self) -> String {
        self.resolved().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The date in the name of the directory above, if that has the form `dt=…`.
    #[must_use]
    pub fn partition(&self) -> Option<String> {
        let parent = self.resolved().parent()?.file_name()?.to_str()?;
        parent.strip_prefix("dt=").map(str::to_owned)
    }

    /// Everything in the directory, by name.
    ///
    /// # Errors
    /// If it can't be listed.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let entries = match &self.place {
            Place::Local(dir) => local::list(dir, ENTRIES_MAX)?,
            Place::Bucket(bucket, path) => bucket.list(path, ENTRIES_MAX)?,
        };
        let mut entries = entries.ok_or_else(|| StoreError::TooManyEntries { path: self.path.clone() })?;
        if entries.is_empty() && matches!(self.place, Place::Bucket(..)) {
            return Err(StoreError::NoSession { path: self.path.clone() });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Opens an object.
    ///
    /// # Errors
    /// If there is none of that name, or it is no regular file.
    pub fn object(&self, name: &str) -> Result<Object, StoreError> {
        match &self.place {
            Place::Local(dir) => local::open(dir, name).map(Object::Local),
            Place::Bucket(..) if name.is_empty() || name.contains('/') || name == "." || name == ".." => {
                Err(StoreError::NotAFile { path: self.path.join(name) })
            }
            Place::Bucket(bucket, path) => {
                Ok(Object::Bucket(BucketObject::open(Arc::clone(bucket), format!("{path}/{name}"))?))
            }
        }
    }

    /// Reads a small object into memory.
    ///
    /// # Errors
    /// As [`SessionDir::object`], and [`StoreError::TooLong`] past `limit` bytes.
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, StoreError> {
        read_limited(self.object(name)?, &self.path.join(name), limit)
    }

    fn resolved(&self) -> &Path {
        match &self.place {
            Place::Local(dir) => dir,
            Place::Bucket(_, path) => Path::new(path),
        }
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

fn read_limited(object: impl Read, path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    object.take(limit + 1).read_to_end(&mut bytes).map_err(|source| io_error("read", path, source))?;
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
    use std::{fs, os::unix::fs::symlink};

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
