//! Flushing the spool to the disk, in groups and beside the drain.
//!
//! Owns the promise of how much a lost node can lose: [`Flusher::marker`] of an append is flushed once the
//! append, and the directory entry of the file it went to, survive a power cut. What was found in the files at the start
//! is no better than an append: the process that wrote it may have been killed before it flushed.
//!
//! Linux tells of a page that could not be written once, then takes it for written
//! (<https://wiki.postgresql.org/wiki/Fsync_Errors>). So a flush that failed is not tried again as it was: what it was to
//! bring to the disk is written once more (`rewriting`). Metadata needs no such care: a file system whose journal
//! cannot be written takes nothing more.
//!
//! Not here: what is appended, and what waits for a marker (`journal`).

use std::{
    fs::File,
    io,
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::eventfd::EventFd;
use tracing::{error, info};

use super::{
    SpoolError, failed,
    rewriting::{RewriteError, rewrite},
};
use crate::metrics::metrics;

/// Brings what was written to a file to the disk.
type SyncFile = dyn Fn(&File) -> io::Result<()> + Send + Sync;

/// A thread that flushes what was appended every interval.
#[derive(Debug)]
pub(super) struct Flusher {
    shared: Arc<Shared>,
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    dir: File,
    sync: Box<SyncFile>,
    /// One flush at a time: whoever finds nothing to do must not say that somebody else has done it.
    flushing: Mutex<()>,
    /// Files with appends that are not on the disk. At most the files of the spool.
    unflushed: Mutex<Vec<Unflushed>>,
    appended: AtomicU64,
    flushed: AtomicU64,
    /// Whom to wake when something was flushed.
    wake: OnceLock<Arc<EventFd>>,
}

/// What of a file is not on the disk, as far as is known.
#[derive(Debug)]
struct Unflushed {
    file: Arc<File>,
    /// Whole entries.
    bytes: Range<u64>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// The kernel has it, and will write it.
    Written,
    /// The kernel may not write it any more.
    Failed,
    /// Some of it can't be read back either. Nothing makes up for that but a file that begins later.
    Lost,
}

impl Flusher {
    pub(super) fn start(dir: &Path, interval: Duration) -> Result<Self, SpoolError> {
        Self::start_by(dir, interval, Box::new(File::sync_data))
    }

    fn start_by(dir: &Path, interval: Duration, sync: Box<SyncFile>) -> Result<Self, SpoolError> {
        let handle = File::open(dir).map_err(failed("open", dir))?;
        let shared = Arc::new(Shared {
            dir: handle,
            sync,
            flushing: Mutex::default(),
            unflushed: Mutex::default(),
            appended: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            wake: OnceLock::new(),
        });
        let (stop, stopped) = mpsc::sync_channel(1);
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("weir-flush".to_owned())
            .spawn(move || {
                while matches!(stopped.recv_timeout(interval), Err(mpsc::RecvTimeoutError::Timeout)) {
                    of_thread.flush_or_report();
                }
                of_thread.flush_or_report();
            })
            .map_err(failed("start the flush thread for", dir))?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Notes that these bytes of `file`, whole entries, were written and may not be on the disk.
    pub(super) fn appended(&self, file: &Arc<File>, bytes: Range<u64>) {
        let appended = Unflushed { file: Arc::clone(file), bytes, state: State::Written };
        merge(&mut self.shared.unflushed(), appended);
        self.shared.appended.fetch_add(1, Ordering::Release);
    }

    /// What [`Self::flushed`] comes to once everything appended so far is on the disk.
    pub(super) fn marker(&self) -> u64 {
        self.shared.appended.load(Ordering::Acquire)
    }

    /// Flushes now.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.shared.flush()
    }

    /// The newest marker up to which everything is on the disk.
    pub(super) fn flushed(&self) -> u64 {
        self.shared.flushed.load(Ordering::Acquire)
    }

    /// Has this one woken whenever something was flushed. There is one for good.
    pub(super) fn wake(&self, wake: Arc<EventFd>) {
        // A second one would be a bug, and polling finds out as well, only later.
        let _ = self.shared.wake.set(wake);
    }

    /// Whether something that was appended is neither on the disk nor anywhere else. Nothing is flushed until
    /// [`Self::make_up_for_lost`].
    pub(super) fn has_lost(&self) -> bool {
        self.shared.unflushed().iter().any(|unflushed| unflushed.state == State::Lost)
    }

    /// A file was begun with a checkpoint, which says what entries that were lost had said.
    pub(super) fn make_up_for_lost(&self) {
        self.shared.unflushed().retain(|unflushed| unflushed.state != State::Lost);
    }
}

impl Drop for Flusher {
    /// Flushes what is left and waits for it.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the spool's flush thread panicked");
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("appended", &self.appended).field("flushed", &self.flushed).finish()
    }
}

impl Shared {
    fn unflushed(&self) -> MutexGuard<'_, Vec<Unflushed>> {
        self.unflushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush_or_report(&self) {
        if let Err(source) = self.flush() {
            error!(error = %source, "cannot flush the spool; a power cut would lose what is not flushed");
            metrics().flush_failed();
        }
    }

    fn flush(&self) -> io::Result<()> {
        let _one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let marker = self.appended.load(Ordering::Acquire);
        if self.flushed.load(Ordering::Acquire) >= marker {
            return Ok(());
        }
        let begun = Instant::now();
        let files = std::mem::take(&mut *self.unflushed());
        let mut outcome = Ok(());
        // A file that can't be written keeps none of the others from the disk.
        for mut file in files {
            if let Err(error) = self.bring(&mut file) {
                merge(&mut self.unflushed(), file);
                outcome = Err(error);
            }
        }
        outcome.and_then(|()| self.dir.sync_data())?;
        self.flushed.store(marker, Ordering::Release);
        metrics().flushed(begun.elapsed());
        if let Some(wake) = self.wake.get() {
            // Only a counter at its end refuses, and then whoever reads it is awake anyway.
            let _ = wake.write(1);
        }
        Ok(())
    }

    /// Brings a file to the disk.
    fn bring(&self, unflushed: &mut Unflushed) -> io::Result<()> {
        let Unflushed { file, bytes, state } = unflushed;
        let again = match state {
            State::Written => Ok(()),
            State::Failed => rewrite(file, bytes.clone()),
            State::Lost => Err(RewriteError::Lost(bytes.clone())),
        };
        if let Err(RewriteError::Io(error)) = again {
            return Err(error);
        }
        if let Err(error) = (self.sync)(file) {
            *state = (*state).max(State::Failed);
            return Err(error);
        }
        if let Err(RewriteError::Lost(lost)) = again {
            (*bytes, *state) = (lost.clone(), State::Lost);
            return Err(io::Error::other(RewriteError::Lost(lost)));
        }
        if *state == State::Failed {
            info!(
                bytes = bytes.end - bytes.start,
                "what could not be flushed was written again and is on the disk"
            );
        }
        Ok(())
    }
}

fn merge(all: &mut Vec<Unflushed>, more: Unflushed) {
    match all.iter_mut().find(|unflushed| Arc::ptr_eq(&unflushed.file, &more.file)) {
        Some(Unflushed { file: _, bytes, state }) => {
            *bytes = bytes.start.min(more.bytes.start)..bytes.end.max(more.bytes.end);
            *state = (*state).max(more.state);
        }
        None => all.push(more),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        time::{Duration, SystemTime},
    };

    use super::{
        super::entry::{Entries, Entry, Kind, Stamp},
        *,
    };

    /// A disk that fails the first flushes of files, each time after this was done to the file.
    struct Failing {
        _dir: tempfile::TempDir,
        path: std::path::PathBuf,
        file: Arc<File>,
        flusher: Flusher,
        stamp: Stamp,
    }

    const LONG_AGO: SystemTime = SystemTime::UNIX_EPOCH;

    impl Failing {
        fn new(mut tries: impl FnMut(&File) -> io::Result<()> + Send + 'static) -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let path = dir.path().join("00000001.log");
            let file = File::options().read(true).write(true).create_new(true).open(&path);
            let sync = Mutex::new(move |file: &File| tries(file));
            let sync = move |file: &File| (sync.lock().expect("no panic in between"))(file);
            let flusher = Flusher::start_by(dir.path(), Duration::from_secs(3600), Box::new(sync));
            let (file, flusher) = (Arc::new(file.expect("a fresh file")), flusher.expect("starts"));
            Self { _dir: dir, path, file, flusher, stamp: Stamp::of_new_file() }
        }

        fn append(&self, payload: &[u8]) {
            use std::os::unix::fs::FileExt;
            let entry = Entry { kind: Kind::Record, position: 1, payload };
            let at = self.file.metadata().expect("open").len();
            let bytes = [&entry.header(self.stamp, at).expect("short")[..], payload].concat();
            self.file.write_all_at(&bytes, at).expect("room");
            self.flusher.appended(&self.file, at..at + entry.len());
        }

        fn payloads(&self) -> Vec<Vec<u8>> {
            let bytes = fs::read(&self.path).expect("readable");
            Entries::new(&bytes).map(|(_, entry)| entry.payload.to_vec()).collect()
        }
    }

    fn broken() -> io::Error {
        nix::errno::Errno::EIO.into()
    }

    fn age(file: &File) {
        file.set_times(fs::FileTimes::new().set_modified(LONG_AGO)).expect("ours");
    }

    fn is_written_since(file: &File) -> bool {
        file.metadata().and_then(|data| data.modified()).expect("known") > LONG_AGO
    }

    #[test]
    fn what_a_failed_flush_was_to_bring_to_the_disk_is_written_again_before_it_counts_as_flushed() {
        let mut tries = 0;
        let disk = Failing::new(move |file| {
            tries += 1;
            // From the second try on the kernel has nothing to write any more, and no error to tell.
            match tries {
                1 => {
                    age(file);
                    Err(broken())
                }
                2 => is_written_since(file).then_some(()).ok_or_else(broken),
                _ => {
                    age(file);
                    Ok(())
                }
            }
        });
        disk.append(b"one");
        let marker = disk.flusher.marker();
        assert!(disk.flusher.flush().is_err());
        assert!(disk.flusher.flushed() < marker);
        disk.append(&[7; 300_000]);
        disk.flusher.flush().expect("the disk takes it now");
        assert_eq!(disk.flusher.flushed(), disk.flusher.marker());
        assert_eq!(disk.payloads(), [b"one".to_vec(), vec![7; 300_000]]);
        disk.append(b"three");
        disk.flusher.flush().expect("no trouble");
        disk.flusher.flush().expect("nothing to do");
        assert!(!is_written_since(&disk.file), "what is flushed is not written again");
    }

    #[test]
    fn what_is_neither_on_the_disk_nor_in_memory_is_not_flushed_until_a_file_begins_that_makes_up_for_it() {
        use std::os::unix::fs::FileExt;
        let mut tries = 0;
        let disk = Failing::new(move |file| {
            tries += 1;
            if tries != 2 {
                return Ok(());
            }
            // The page was given up, and then taken out of memory.
            file.write_all_at(&[0; 10], 30).expect("room");
            Err(broken())
        });
        disk.append(b"whole");
        disk.flusher.flush().expect("no trouble");
        disk.append(b"lost");
        disk.append(b"behind it");
        let before = disk.flusher.flushed();
        for _ in 0..3 {
            assert!(disk.flusher.flush().is_err());
            assert_eq!(disk.flusher.flushed(), before);
        }
        assert!(disk.flusher.has_lost());
        assert_eq!(disk.payloads(), [b"whole"]);
        disk.flusher.make_up_for_lost();
        disk.flusher.flush().expect("nothing is missing that nobody knows");
        assert_eq!(disk.flusher.flushed(), disk.flusher.marker());
        assert!(!disk.flusher.has_lost());
    }

    #[test]
    fn whoever_finds_nothing_to_flush_waits_for_who_is_flushing_it() {
        let (begun, may_end) = (mpsc::sync_channel(1), mpsc::sync_channel::<()>(0));
        let (tell, go) = (begun.0, may_end.1);
        let disk = Failing::new(move |_| {
            let _ = tell.try_send(());
            go.recv().map_err(|_| broken())
        });
        disk.append(b"one");
        thread::scope(|scope| {
            let first = scope.spawn(|| disk.flusher.flush().is_ok());
            begun.1.recv().expect("it flushes");
            let second = scope.spawn(|| disk.flusher.flush().is_ok());
            assert!(disk.flusher.flushed() < disk.flusher.marker() && !second.is_finished());
            drop(may_end.0);
            assert!(!first.join().expect("no panic"));
            assert!(!second.join().expect("no panic"), "the second tries itself, and fails too");
            assert!(disk.flusher.flushed() < disk.flusher.marker());
        });
    }
}
