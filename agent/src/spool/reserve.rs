//! Room on the spool's disk that is taken beforehand, to be given up when others have filled the disk to the last byte.
//!
//! What records leave free of the disk is free for everybody on it. Without room of its own the agent could not even note
//! what it begins to store, and only behind such notes can space be given back. So a part of the reserve is a file: it
//! goes when a note finds no room, and comes back when there is enough.
//!
//! Best effort: a file system that takes no room beforehand (ZFS) has none.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::fcntl::{FallocateFlags, fallocate};
use tracing::{debug, info, warn};

use super::FILE_MODE;

/// The file's name, in the directory of the spools.
pub const RESERVE: &str = "weir.reserve";
/// The most that is held: notes of many sessions, and the checkpoint of a file.
const HELD_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Of what records leave free a half is held; the other is for notes that nothing is held for.
const HELD_PART: u64 = 2;
/// As `stat` counts.
const BLOCK_BYTES: u64 = 512;

/// The file, and what it takes.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    wanted: u64,
    held: Mutex<u64>,
    /// The file system takes no room beforehand.
    unsupported: AtomicBool,
}

impl Reserve {
    /// In this directory, of a disk of which records leave so much free. What is there already counts.
    pub(super) fn new(dir: &Path, disk_reserve_bytes: u64) -> Self {
        let path = dir.join(RESERVE);
        let wanted = (disk_reserve_bytes / HELD_PART).min(HELD_MAX_BYTES);
        if taken(&path) > wanted {
            // An agent before was to leave more free. If it stays, what is too much of it only counts as free.
            let _ = File::options().write(true).open(&path).and_then(|file| file.set_len(wanted));
        }
        let held = taken(&path);
        Self { path, wanted, held: Mutex::new(held), unsupported: AtomicBool::new(false) }
    }

    /// Bytes that it takes.
    pub(super) fn held(&self) -> u64 {
        *self.state()
    }

    /// Takes the room, if the disk has enough.
    pub(super) fn keep(&self, has_enough: impl FnOnce() -> bool) {
        let mut held = self.state();
        if *held >= self.wanted || self.unsupported.load(Ordering::Relaxed) || !has_enough() {
            return;
        }
        let kept = take(&self.path, self.wanted);
        if let Err(error) = &kept {
            self.unsupported.store(error.kind() == io::ErrorKind::Unsupported, Ordering::Relaxed);
            debug!(path = %self.path.display(), %error, "no room on the disk is held for notes");
            // What it got of it is nobody's.
            let _ = fs::remove_file(&self.path);
        }
        *held = taken(&self.path);
    }

    /// Gives the room up, if there is any.
    pub(super) fn give_up(&self) -> bool {
        let mut held = self.state();
        if *held == 0 {
            return false;
        }
        match fs::remove_file(&self.path) {
            Ok(()) => {
                info!(
                    bytes = *held,
                    "the disk is full; what is held for notes of what is stored is used now"
                );
                *held = 0;
                true
            }
            Err(error) => {
                warn!(path = %self.path.display(), %error, "cannot give up the room that is held for notes");
                *held = taken(&self.path);
                false
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, u64> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::options().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    let len = i64::try_from(bytes).map_err(io::Error::other)?;
    fallocate(&file, FallocateFlags::empty(), 0, len)?;
    Ok(())
}

/// The room that a file takes; none if it is not there.
fn taken(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.blocks().saturating_mul(BLOCK_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_where_there_is_enough_known_to_the_next_agent_and_given_up_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let reserve = Reserve::new(dir.path(), 2 * 1024 * 1024);
        reserve.keep(|| false);
        assert_eq!((reserve.held(), reserve.give_up()), (0, false));
        reserve.keep(|| true);
        assert!(reserve.held() >= 1024 * 1024);
        let next = Reserve::new(dir.path(), 2 * 1024 * 1024);
        assert_eq!(next.held(), reserve.held());
        next.keep(|| unreachable!("it is there"));
        assert!(next.give_up());
        assert_eq!((next.held(), next.give_up()), (0, false));
        assert!(!dir.path().join(RESERVE).exists());
    }

    #[test]
    fn where_none_can_be_taken_nothing_is_left() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let reserve = Reserve::new(&dir.path().join("missing"), u64::MAX);
        reserve.keep(|| true);
        assert_eq!((reserve.held(), reserve.give_up()), (0, false));
    }
}
