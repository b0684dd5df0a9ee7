//! Flushing the spool to the disk, in groups and beside the drain.
//!
//! Owns the promise of how much a lost node can lose: [`Flusher::marker`] of an append is reached once the
//! append, and the directory entry of the file it went to, survive a power cut. Not here: what is appended.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tracing::error;

use super::{SpoolError, failed};
use crate::metrics::metrics;

/// A thread that flushes what was appended every interval.
#[derive(Debug)]
pub(super) struct Flusher {
    shared: Arc<Shared>,
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    dir: File,
    /// Files with appends that are not on the disk. At most the files of the spool.
    dirty: Mutex<Vec<Arc<File>>>,
    appended: AtomicU64,
    flushed: AtomicU64,
}

impl Flusher {
    pub(super) fn start(dir: &Path, interval: Duration) -> Result<Self, SpoolError> {
        let handle = File::open(dir).map_err(failed("open", dir))?;
        let shared = Arc::new(Shared {
            dir: handle,
            dirty: Mutex::new(Vec::new()),
            appended: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
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

    /// Notes an append to `file`.
    pub(super) fn appended(&self, file: &Arc<File>) {
        let mut dirty = self.shared.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        if !dirty.iter().any(|other| Arc::ptr_eq(other, file)) {
            dirty.push(Arc::clone(file));
        }
        self.shared.appended.fetch_add(1, Ordering::Release);
    }

    /// What [`Self::reached`] must be asked for everything appended so far.
    pub(super) fn marker(&self) -> u64 {
        self.shared.appended.load(Ordering::Acquire)
    }

    /// Flushes now.
    pub(super) fn flush(&self) -> std::io::Result<()> {
        self.shared.flush()
    }

    /// Whether everything up to this marker is on the disk.
    pub(super) fn reached(&self, marker: u64) -> bool {
        self.shared.flushed.load(Ordering::Acquire) >= marker
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

impl Shared {
    fn flush_or_report(&self) {
        if let Err(source) = self.flush() {
            error!(error = %source, "cannot flush the spool; a power cut would lose what is not flushed");
            metrics().flush_failed();
        }
    }

    fn flush(&self) -> std::io::Result<()> {
        let marker = self.appended.load(Ordering::Acquire);
        if self.flushed.load(Ordering::Acquire) >= marker {
            return Ok(());
        }
        let begun = Instant::now();
        let files = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        let outcome = files.iter().try_for_each(|file| file.sync_data()).and_then(|()| self.dir.sync_data());
        if outcome.is_err() {
            self.dirty.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
            return outcome;
        }
        self.flushed.store(marker, Ordering::Release);
        metrics().flushed(begun.elapsed());
        Ok(())
    }
}
