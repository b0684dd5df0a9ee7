//! The spool: an append-only log of numbered files on the local disk.
//!
//! Owns three invariants. An append is in the file whole or not at all, as far as anybody reads it. Bytes of
//! records never take the last of the disk, so that the state changes by which space is given back always
//! find room. A file is deleted only after everything appended before the deletion is on the disk.
//!
//! `<state_dir>/spool/00000001.log` and so on; see [`entry`] for the bytes. Not here: what entries mean, and
//! when a file is not needed any more (`journal`).

pub mod entry;
mod flush;
pub mod reader;
mod reserve;
mod rewriting;
mod space;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    fs::File,
    io::{self, IoSlice},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{eventfd::EventFd, uio::pwritev},
};
use serde::{Deserialize, Serialize};

use self::{
    entry::{Entry, PayloadTooLong, Stamp},
    flush::Flusher,
    space::Share,
};
pub use self::{
    reserve::RESERVE,
    space::{PASS_BYTES, Shortage, Space, SpaceLimits, disk_free},
};

/// Bytes of the disk that records leave free for state changes, where nothing else is configured.
pub const DISK_RESERVE_BYTES: u64 = 4 * 1024 * 1024;

/// The most slices of one write (`IOV_MAX`, see `limits.h`).
const SLICES_MAX: usize = 1024;
const SUFFIX: &str = ".log";
/// What was said in sessions lies here in the clear.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A spool file's number, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileNo(pub u32);

impl fmt::Display for FileNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.0)
    }
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: FileNo,
    /// Offset of the entry's header.
    pub offset: u64,
}

/// The spool's bounds.
#[derive(Clone, Copy, Debug)]
pub struct SpoolOptions {
    /// A file that has reached this is full.
    pub file_bytes: u64,
    /// Records find room up to this many bytes in all files together, if there is no other [`Space`].
    pub max_bytes: u64,
    /// How often appends are flushed to the disk.
    pub flush_interval: Duration,
}

impl SpoolOptions {
    /// Space for one spool alone.
    #[must_use]
    pub fn space(&self) -> Arc<Space> {
        Space::new(SpaceLimits {
            max_bytes: self.max_bytes,
            refuse_bytes: self.max_bytes,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            disk_refuse_bytes: 0,
        })
    }
}

/// What went wrong with the spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system said no.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An entry would be larger than any reader accepts.
    #[error(transparent)]
    TooLong(#[from] PayloadTooLong),
    /// Somebody else has it open.
    #[error("the spool in {} is in use by another agent, or is being recovered", dir.display())]
    InUse {
        /// The spool's directory.
        dir: PathBuf,
    },
    /// There is no file to append to yet.
    #[error("the spool in {} has no file to append to", dir.display())]
    NoFile {
        /// The spool's directory.
        dir: PathBuf,
    },
}

impl SpoolError {
    /// Whether the disk has no room for it.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

/// The spool, open for appending.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    options: SpoolOptions,
    /// Every file and its good bytes.
    files: BTreeMap<FileNo, u64>,
    active: Option<Active>,
    flusher: Flusher,
    share: Share,
}

#[derive(Debug)]
struct Active {
    no: FileNo,
    file: Arc<File>,
    /// Good bytes: where the next entry goes.
    len: u64,
    /// What the next entry's header says of the file.
    stamp: Stamp,
    /// A failed append may have left bytes behind the good ones.
    torn: bool,
}

/// The numbers of the files in `dir`, in order; `dir` is made if it is missing.
///
/// # Errors
/// [`SpoolError::Io`] if the directory cannot be made or read.
pub fn list(dir: &Path) -> Result<Vec<FileNo>, SpoolError> {
    let made = fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
    made.map_err(failed("make", dir))?;
    let mut files = Vec::new();
    for item in fs::read_dir(dir).map_err(failed("read", dir))? {
        let name = item.map_err(failed("read", dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse().ok());
        files.extend(number.map(FileNo));
    }
    files.sort_unstable();
    Ok(files)
}

/// Nobody else has the spool as long as this lives.
#[derive(Debug)]
pub struct SpoolLock(File);

impl Drop for SpoolLock {
    /// A process that is being started at this moment has a duplicate of the handle, which would keep the lock.
    fn drop(&mut self) {
        // Closing the handle, which comes next, does it otherwise.
        let _ = self.0.unlock();
    }
}

/// Locks the spool in `dir`, which is made if it is missing.
///
/// The lock is on the directory itself: it does not travel with a copy, and there is no file to be left behind.
///
/// # Errors
/// [`SpoolError::InUse`], [`SpoolError::Io`].
pub fn lock(dir: &Path) -> Result<SpoolLock, SpoolError> {
    let made = fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
    made.map_err(failed("make", dir))?;
    let handle = File::open(dir).map_err(failed("open", dir))?;
    match handle.try_lock() {
        Ok(()) => Ok(SpoolLock(handle)),
        Err(fs::TryLockError::WouldBlock) => Err(SpoolError::InUse { dir: dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(failed("lock", dir)(source)),
    }
}

/// The path of a spool file.
#[must_use]
pub fn path(dir: &Path, no: FileNo) -> PathBuf {
    dir.join(format!("{no}{SUFFIX}"))
}

impl Spool {
    /// Opens the spool for appending, given the files a replay found good and how many bytes of each.
    ///
    /// The last file is cut to its good bytes and goes on with this stamp; without one nothing is changed, and nothing is
    /// appended before the next file is begun. Of the others nothing is changed. None of it counts as flushed yet: whoever
    /// wrote it may have been killed before that.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn open(
        dir: &Path,
        options: SpoolOptions,
        space: Arc<Space>,
        files: BTreeMap<FileNo, u64>,
        stamp: Option<Stamp>,
    ) -> Result<Self, SpoolError> {
        let flusher = Flusher::start(dir, options.flush_interval)?;
        let mut last = None;
        for (&no, &len) in &files {
            let path = path(dir, no);
            let is_active = stamp.is_some() && files.keys().next_back() == Some(&no);
            // Only one that is appended to has to be writable: the others may be links to those of a node that is gone, which
            // stay as they are, on a disk that takes nothing.
            let nofollow = OFlag::O_NOFOLLOW.bits();
            match File::options().read(true).write(true).custom_flags(nofollow).open(&path) {
                // Nobody here writes it, nor has to flush it.
                Err(_) if !is_active => {}
                opened => {
                    let file = Arc::new(opened.map_err(failed("open", &path))?);
                    flusher.appended(&file, 0..len);
                    last = Some((no, file, len));
                }
            }
        }
        let go_on = |((no, file, len), stamp): ((FileNo, Arc<File>, u64), Stamp)| {
            file.set_len(len).map_err(failed("cut", &path(dir, no)))?;
            Ok::<_, SpoolError>(Active { no, file, len, stamp, torn: false })
        };
        let active = last.zip(stamp).map(go_on).transpose()?;
        let mut share = Share::new(space);
        share.set(files.values().sum());
        Ok(Self { dir: dir.to_owned(), options, files, active, flusher, share })
    }

    /// The directory the files are in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file that is appended to.
    #[must_use]
    pub fn active_file(&self) -> Option<FileNo> {
        self.active.as_ref().map(|active| active.no)
    }

    /// Bytes of the file that is appended to.
    #[must_use]
    pub fn active_bytes(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| active.len)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files.values().sum()
    }

    /// Whether the file that is appended to has reached its size; true if there is none.
    #[must_use]
    pub fn is_file_full(&self) -> bool {
        self.active.as_ref().is_none_or(|active| active.len >= self.options.file_bytes)
    }

    /// The space that it has with the other spools.
    #[must_use]
    pub fn space(&self) -> &Space {
        self.share.space()
    }

    /// Has records leave this much more of the disk free: its changes of state may take so many bytes besides the reserve.
    pub fn reserve_for_states(&mut self, bytes: u64) {
        self.share.set_states(bytes);
    }

    /// Appends entries in one go and says where the first one lies; the others follow without a gap.
    ///
    /// # Errors
    /// [`SpoolError`]; then none of them is in the spool.
    pub fn append(&mut self, entries: &[Entry<'_>]) -> Result<Place, SpoolError> {
        let Some(active) = &mut self.active else {
            return Err(SpoolError::NoFile { dir: self.dir.clone() });
        };
        let (mut stamp, mut offset) = (active.stamp, active.len);
        let header = |entry: &Entry<'_>| {
            let header = entry.header(stamp, offset);
            (stamp, offset) = (stamp.behind(entry.kind), offset + entry.len());
            header
        };
        let headers = entries.iter().map(header).collect::<Result<Vec<_>, _>>()?;
        let mut slices: Vec<_> = headers
            .iter()
            .zip(entries)
            .flat_map(|(header, entry)| [IoSlice::new(header), IoSlice::new(entry.payload)])
            .collect();
        let path = path(&self.dir, active.no);
        if active.torn {
            active.file.set_len(active.len).map_err(failed("cut a failed append off", &path))?;
            active.torn = false;
        }
        if let Err(source) = write_all_at(&active.file, &mut slices, active.len) {
            active.torn = active.file.set_len(active.len).is_err();
            return Err(failed("append to", &path)(source));
        }
        let place = Place { file: active.no, offset: active.len };
        (active.stamp, active.len) = (stamp, offset);
        self.files.insert(active.no, active.len);
        self.flusher.appended(&active.file, place.offset..active.len);
        self.share.set(self.files.values().sum());
        Ok(place)
    }

    /// Begins the next file with these entries, which say all that is not to be read in the files before.
    ///
    /// # Errors
    /// [`SpoolError`]; then there is no new file and appends still go to the one before.
    pub fn start_file(&mut self, head: &[Entry<'_>]) -> Result<(), SpoolError> {
        let no = FileNo(self.files.last_key_value().map_or(1, |(no, _)| no.0 + 1));
        if let Some(active) = self.active.as_mut().filter(|active| active.torn) {
            // A replay would take what a failed append has left for appended.
            let path = path(&self.dir, active.no);
            active.file.set_len(active.len).map_err(failed("cut a failed append off", &path))?;
            active.torn = false;
        }
        let path = path(&self.dir, no);
        let mut file = File::options();
        file.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        let file = file.open(&path);
        let file = Arc::new(file.map_err(failed("make", &path))?);
        let before =
            self.active.replace(Active { no, file, len: 0, stamp: Stamp::of_new_file(), torn: false });
        let appended = self.append(head);
        if appended.is_err() {
            self.active = before;
            self.files.remove(&no);
            self.share.set(self.total_bytes());
            // If it stays it is empty or torn: the next attempt and any replay begin it anew.
            let _ = fs::remove_file(&path);
        }
        appended.map(|_| self.flusher.make_up_for_lost())
    }

    /// Deletes every file, oldest first, after everything appended is on the disk; says how many bytes that gave back.
    ///
    /// # Errors
    /// [`SpoolError::Io`]; what could not be deleted is still there.
    pub fn delete_all(self) -> Result<u64, SpoolError> {
        self.flush()?;
        for &no in self.files.keys() {
            let path = path(&self.dir, no);
            fs::remove_file(&path).map_err(failed("delete", &path))?;
        }
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed("flush", &self.dir))?;
        Ok(self.total_bytes())
    }

    /// What [`Self::is_flushed`] must be asked for everything appended so far.
    #[must_use]
    pub fn flush_marker(&self) -> u64 {
        self.flusher.marker()
    }

    /// The newest marker up to which everything is on the disk.
    #[must_use]
    pub fn flushed(&self) -> u64 {
        self.flusher.flushed()
    }

    /// Whether everything up to this marker is on the disk.
    #[must_use]
    pub fn is_flushed(&self, marker: u64) -> bool {
        self.flushed() >= marker
    }

    /// Flushes now, whatever the interval.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn flush(&self) -> Result<(), SpoolError> {
        self.flusher.flush().map_err(failed("flush", &self.dir))
    }

    /// How often it is flushed.
    #[must_use]
    pub fn flush_interval(&self) -> Duration {
        self.options.flush_interval
    }

    /// Has this one woken whenever something was flushed.
    pub fn wake_when_flushed(&self, wake: Arc<EventFd>) {
        self.flusher.wake(wake);
    }

    /// Whether the disk has failed to take something that can't be read back: then nothing is flushed any more until a
    /// new file begins.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.flusher.has_lost()
    }

    /// Its files.
    pub fn files(&self) -> impl Iterator<Item = FileNo> {
        self.files.keys().copied()
    }

    /// Bytes of a file; none if there is no such.
    #[must_use]
    pub fn bytes_of(&self, no: FileNo) -> u64 {
        self.files.get(&no).copied().unwrap_or(0)
    }

    /// Deletes these files and says how many bytes that gave back. The caller has made sure that what makes
    /// them superfluous is flushed.
    ///
    /// # Errors
    /// [`SpoolError::Io`]; what could not be deleted is still counted.
    pub fn delete(&mut self, files: &BTreeSet<FileNo>) -> Result<u64, SpoolError> {
        let mut freed = 0;
        for no in files {
            let Some(&len) = self.files.get(no) else { continue };
            let path = path(&self.dir, *no);
            fs::remove_file(&path).map_err(failed("delete", &path))?;
            self.files.remove(no);
            self.share.set(self.total_bytes());
            freed += len;
        }
        Ok(freed)
    }
}

pub(crate) fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    move |source| SpoolError::Io { op, path: path.to_owned(), source }
}

fn write_all_at(file: &File, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    while !slices.is_empty() {
        let at = i64::try_from(offset).map_err(io::Error::other)?;
        match pwritev(file, &slices[..slices.len().min(SLICES_MAX)], at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut slices, written);
                offset += written as u64;
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        entry::{Entries, Kind},
        *,
    };

    fn options() -> SpoolOptions {
        SpoolOptions { file_bytes: 200, max_bytes: 1000, flush_interval: Duration::from_millis(1) }
    }

    fn record(position: u64, payload: &[u8]) -> Entry<'_> {
        Entry { kind: Kind::Record, position, payload }
    }

    fn payloads(dir: &Path, no: FileNo) -> Vec<Vec<u8>> {
        let bytes = fs::read(path(dir, no)).expect("the file is there");
        Entries::new(&bytes).map(|(_, entry)| entry.payload.to_vec()).collect()
    }

    #[test]
    fn many_entries_with_empty_and_large_payloads_are_appended_in_one_go() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut spool =
            Spool::open(dir.path(), options(), options().space(), BTreeMap::new(), None).expect("open");
        spool.start_file(&[]).expect("a first file");
        let contents: Vec<_> = (0..3000_usize).map(|i| vec![b'x'; (i % 7) * (i % 311)]).collect();
        let entries: Vec<_> = contents.iter().map(|payload| record(1, payload)).collect();
        let first = spool.append(&entries).expect("room");
        assert_eq!(first, Place { file: FileNo(1), offset: 0 });
        assert_eq!(payloads(dir.path(), FileNo(1)), contents);
        assert_eq!(spool.total_bytes(), entries.iter().map(Entry::len).sum::<u64>());
    }

    #[test]
    fn an_append_goes_on_where_the_good_bytes_end() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let whole = record(1, b"whole");
        {
            let mut spool =
                Spool::open(dir.path(), options(), options().space(), BTreeMap::new(), None).expect("open");
            spool.start_file(&[whole, record(2, b"torn")]).expect("a first file");
        }
        let good = BTreeMap::from([(FileNo(1), whole.len())]);
        let bytes = fs::read(path(dir.path(), FileNo(1))).expect("readable");
        let (_, stamp) = Entry::decode(&bytes, 0).expect("whole");
        let mut spool =
            Spool::open(dir.path(), options(), options().space(), good, Some(stamp)).expect("open");
        spool.append(&[record(3, b"next")]).expect("room");
        assert_eq!(payloads(dir.path(), FileNo(1)), [b"whole".to_vec(), b"next".to_vec()]);
    }

    #[test]
    fn files_are_deleted_in_any_order_and_counted_out() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let space = options().space();
        let mut spool =
            Spool::open(dir.path(), options(), Arc::clone(&space), BTreeMap::new(), None).expect("open");
        for _ in 0..3 {
            spool.start_file(&[record(1, &[7; 300])]).expect("a file");
        }
        assert!(spool.is_file_full() && space.has_room(20) && !space.has_room(1000));
        let freed = spool.delete(&BTreeSet::from([FileNo(2), FileNo(7)])).expect("deletable");
        assert_eq!(freed, 324);
        assert_eq!(list(dir.path()).expect("readable"), [FileNo(1), FileNo(3)]);
        assert_eq!((spool.files().collect::<Vec<_>>(), space.used()), (vec![FileNo(1), FileNo(3)], 2 * 324));
        drop(spool);
        assert_eq!(space.used(), 0);
    }

    #[test]
    fn what_was_appended_is_soon_flushed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut spool =
            Spool::open(dir.path(), options(), options().space(), BTreeMap::new(), None).expect("open");
        spool.start_file(&[record(1, b"x")]).expect("a first file");
        let marker = spool.flush_marker();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !spool.is_flushed(marker) {
            assert!(std::time::Instant::now() < deadline, "not flushed in time");
            std::thread::yield_now();
        }
        assert!(!spool.is_flushed(marker + 1));
    }
}
