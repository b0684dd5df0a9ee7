//! A store in a directory: the embedded default, `file:///…`.
//!
//! An object is written beside the others under a temporary name in `.tmp`, flushed, and then renamed to its
//! name unless there is one of that name; so a reader sees an object whole or not at all. Directories are
//! 0750, files 0640.

use std::{
    collections::BTreeSet,
    fs, io,
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tempfile::NamedTempFile;
use weir_common::digest::Sha256;

use super::{GetFuture, Object, Put, PutAllFuture, PutFuture, Store, StoreError};

const DIR_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;
const TEMPORARY: &str = ".tmp";

/// A store in a directory.
#[derive(Clone, Debug)]
pub struct FileStore {
    root: PathBuf,
}

impl FileStore {
    /// Opens the store, and makes the directory if it is missing. What an interrupted put left is removed.
    ///
    /// A store that is full or read-only is opened, as a bucket that is away is: it may take something later.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let temporary = root.join(TEMPORARY);
        match clear(&temporary) {
            Err(source) if !takes_nothing(&source) => return Err(failed("clear", &temporary)(source)),
            _ => {}
        }
        Self::join(root)
    }

    /// Opens the store beside an agent that may be using it, and makes the directory if it is missing.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn join(root: &Path) -> Result<Self, StoreError> {
        let store = Self { root: root.to_owned() };
        match store.make_temporary() {
            Err(source) if !takes_nothing(&source) => Err(failed("make", &root.join(TEMPORARY))(source)),
            _ => Ok(store),
        }
    }

    fn make_temporary(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(self.root.join(TEMPORARY))
    }

    fn put_blocking(&self, path: &str, body: &[u8], sha256: Sha256) -> Result<Put, StoreError> {
        let target = self.root.join(path);
        let dir = target.parent().unwrap_or(&self.root);
        self.make_dirs(dir)?;
        let put = place(self.write(&target, body)?, path, &target, sha256)?;
        sync_dir(dir)?;
        Ok(put)
    }

    /// One flush of each directory at the end, instead of one an object.
    fn put_all_blocking(&self, objects: &[Object]) -> Result<Vec<Put>, StoreError> {
        let mut written = Vec::with_capacity(objects.len());
        for object in objects {
            let target = self.root.join(&object.path);
            self.make_dirs(target.parent().unwrap_or(&self.root))?;
            let file = self.write(&target, &object.body)?;
            written.push((file, object, target));
        }
        let mut dirs = BTreeSet::new();
        let mut place = |(file, object, target): (_, &Object, PathBuf)| {
            dirs.insert(target.parent().unwrap_or(&self.root).to_owned());
            place(file, &object.path, &target, object.sha256)
        };
        let placed = written.into_iter().map(&mut place).collect();
        // Also where one failed: those before it are there.
        dirs.iter().try_for_each(|dir| sync_dir(dir))?;
        placed
    }

    /// The bytes on the disk, under a temporary name.
    fn write(&self, target: &Path, body: &[u8]) -> Result<NamedTempFile, StoreError> {
        let temporary = self.root.join(TEMPORARY);
        let file = match NamedTempFile::new_in(&temporary) {
            // There was no room for it when the store was opened.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_temporary().and_then(|()| NamedTempFile::new_in(&temporary))
            }
            file => file,
        };
        let mut file = file.map_err(failed("make a file in", &temporary))?;
        file.write_all(body)
            .and_then(|()| file.as_file().set_permissions(fs::Permissions::from_mode(FILE_MODE)))
            .and_then(|()| file.as_file().sync_all())
            .map_err(failed("write", target))?;
        forget(file.as_file());
        Ok(file)
    }

    fn get_blocking(&self, path: &str, max_bytes: u64) -> Result<Bytes, StoreError> {
        let target = self.root.join(path);
        let file = fs::File::open(&target).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { path: path.to_owned() },
            _ => failed("open", &target)(source),
        })?;
        let mut bytes = Vec::new();
        file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed("read", &target))?;
        if bytes.len() as u64 > max_bytes {
            return Err(StoreError::TooLarge { path: path.to_owned(), max_bytes });
        }
        Ok(bytes.into())
    }

    /// Makes the directories below the root, and makes sure that they last.
    fn make_dirs(&self, dir: &Path) -> Result<(), StoreError> {
        if dir.is_dir() || dir == self.root {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(&self.root);
        self.make_dirs(parent)?;
        match fs::DirBuilder::new().mode(DIR_MODE).create(dir) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(failed("make", dir)(source)),
            _ => sync_dir(parent),
        }
    }
}

impl Store for FileStore {
    fn put<'a>(&'a self, path: &'a str, body: Bytes, sha256: Sha256) -> PutFuture<'a> {
        let (store, name) = (self.clone(), path.to_owned());
        Box::pin(async move {
            let put = tokio::task::spawn_blocking(move || store.put_blocking(&name, &body, sha256));
            put.await.map_err(|_| StoreError::Interrupted { path: path.to_owned() })?
        })
    }

    fn put_all(&self, objects: Vec<Object>) -> PutAllFuture<'_> {
        let store = self.clone();
        Box::pin(async move {
            let path = objects.first().map(|object| object.path.clone()).unwrap_or_default();
            let put = tokio::task::spawn_blocking(move || store.put_all_blocking(&objects));
            put.await.map_err(|_| StoreError::Interrupted { path })?
        })
    }

    fn get<'a>(&'a self, path: &'a str, max_bytes: u64) -> GetFuture<'a> {
        let (store, name) = (self.clone(), path.to_owned());
        Box::pin(async move {
            let get = tokio::task::spawn_blocking(move || store.get_blocking(&name, max_bytes));
            get.await.map_err(|_| StoreError::Interrupted { path: path.to_owned() })?
        })
    }
}

/// Gives the bytes their name, unless there is an object of that name.
fn place(file: NamedTempFile, path: &str, target: &Path, sha256: Sha256) -> Result<Put, StoreError> {
    match file.persist_noclobber(target) {
        Ok(_) => Ok(Put::Stored),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            already_there(path, target, sha256)
        }
        Err(error) => Err(failed("write", target)(error.error)),
    }
}

/// Removes what is in a directory. The directory stays: on a full disk it could not be made again.
fn clear(dir: &Path) -> io::Result<()> {
    let items = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        items => items?,
    };
    for item in items {
        let item = item?;
        match item.file_type()?.is_dir() {
            true => fs::remove_dir_all(item.path())?,
            false => fs::remove_file(item.path())?,
        }
    }
    Ok(())
}

/// Whether nothing can be written at the moment, whatever it is.
fn takes_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

fn already_there(path: &str, target: &Path, expected: Sha256) -> Result<Put, StoreError> {
    let found = Sha256::of(&fs::read(target).map_err(failed("read", target))?);
    if found == expected {
        return Ok(Put::AlreadyThere);
    }
    Err(StoreError::Conflict { path: path.to_owned(), expected, found })
}

/// Gives the file's pages back to the kernel. Nobody is about to read a recording; kept, they would push out what
/// other programs on the node have cached, and every new one costs a page that was never touched before.
fn forget(file: &fs::File) {
    // A hint; without it the pages stay until something else needs them.
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("flush", dir))
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { op, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &FileStore, path: &str, body: &[u8]) -> Result<Put, StoreError> {
        store.put_blocking(path, body, Sha256::of(body))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("is there").permissions().mode() & 0o777
    }

    #[test]
    fn an_object_is_stored_whole_and_for_its_owner_and_group() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = FileStore::open(&dir.path().join("store")).expect("open");
        assert_eq!(put(&store, "v1/a/b.json", b"{}").expect("stored"), Put::Stored);
        let object = dir.path().join("store/v1/a/b.json");
        assert_eq!(fs::read(&object).expect("is there"), b"{}");
        assert_eq!((mode(&object), mode(&dir.path().join("store/v1/a"))), (0o640, 0o750));
        assert_eq!(fs::read_dir(dir.path().join("store/.tmp")).expect("is there").count(), 0);
    }

    #[test]
    fn the_same_bytes_again_are_done_and_other_bytes_are_a_conflict_that_touches_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = FileStore::open(dir.path()).expect("open");
        put(&store, "a/b", b"evidence").expect("stored");
        assert_eq!(put(&store, "a/b", b"evidence").expect("the same"), Put::AlreadyThere);
        let conflict = put(&store, "a/b", b"forgery").expect_err("another object");
        assert!(matches!(conflict, StoreError::Conflict { .. }), "{conflict}");
        assert_eq!(fs::read(dir.path().join("a/b")).expect("is there"), b"evidence");
        assert_eq!(fs::read_dir(dir.path().join(".tmp")).expect("is there").count(), 0);
    }

    #[test]
    fn several_objects_are_stored_in_order_up_to_the_first_conflict() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = FileStore::open(dir.path()).expect("open");
        let object = |path: &str, body: &'static [u8]| Object {
            path: path.to_owned(),
            body: Bytes::from_static(body),
            sha256: Sha256::of(body),
        };
        let objects = [object("s/a", b"1"), object("s/b", b"2"), object("t/c", b"3")];
        assert_eq!(store.put_all_blocking(&objects).expect("stored"), [Put::Stored; 3]);
        assert_eq!(store.put_all_blocking(&objects).expect("the same again"), [Put::AlreadyThere; 3]);
        let more = [object("s/0", b"0"), object("s/b", b"other"), object("s/z", b"9")];
        let conflict = store.put_all_blocking(&more).expect_err("another object");
        assert!(matches!(conflict, StoreError::Conflict { path, .. } if path == "s/b"));
        let there = |path: &str| dir.path().join(path).exists();
        assert!(there("s/0") && !there("s/z"));
        assert_eq!(fs::read(dir.path().join("s/b")).expect("is there"), b"2");
        assert_eq!(fs::read(dir.path().join("t/c")).expect("is there"), b"3");
        assert_eq!(fs::read_dir(dir.path().join(".tmp")).expect("is there").count(), 0);
    }

    #[test]
    fn an_object_is_read_back_unless_it_is_larger_than_asked_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = FileStore::open(dir.path()).expect("open");
        put(&store, "a/b", b"evidence").expect("stored");
        assert_eq!(store.get_blocking("a/b", 8).expect("is there"), &b"evidence"[..]);
        assert!(matches!(store.get_blocking("a/b", 7), Err(StoreError::TooLarge { max_bytes: 7, .. })));
        assert!(matches!(store.get_blocking("a/c", 7), Err(StoreError::Missing { .. })));
    }

    #[test]
    fn what_an_interrupted_put_left_is_removed_when_the_store_is_opened() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        FileStore::open(dir.path()).expect("open");
        fs::write(dir.path().join(".tmp/left"), b"half").expect("writable");
        FileStore::open(dir.path()).expect("open again");
        assert_eq!(fs::read_dir(dir.path().join(".tmp")).expect("is there").count(), 0);
    }

    #[test]
    fn a_store_that_cannot_be_written_says_where() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = FileStore::open(dir.path()).expect("open");
        fs::write(dir.path().join("v1"), b"a file where a directory should be").expect("writable");
        let error = put(&store, "v1/a/b", b"x").expect_err("not a directory");
        assert!(error.to_string().contains("v1"), "{error}");
    }
}
