//! Finding the spools below a directory, and making sure that nobody uses them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::RecoverError;
use crate::{report, spool};

/// The agent's lock in its state directory.
const STATE_LOCK: &str = "lock";
/// The directory of the spools in the state directory.
const SPOOLS: &str = "spool";
/// How far above a spool the state directory may be: `<state>/spool/<ring>`.
const LEVELS_MAX: usize = 3;

/// The spools in a directory: itself, if it has files of one, and each directory in it that has.
pub(super) fn spools(root: &Path) -> Result<Vec<PathBuf>, RecoverError> {
    let failed = |source| RecoverError::Io { op: "read", path: root.to_owned(), source };
    // Listing makes a directory that is missing, and a typing error should not.
    let mut dirs = vec![root.canonicalize().map_err(failed)?];
    for item in fs::read_dir(root).map_err(failed)? {
        let item = item.map_err(failed)?;
        if item.file_type().map_err(failed)?.is_dir() {
            dirs.push(dirs[0].join(item.file_name()));
        }
    }
    let mut spools = Vec::new();
    for dir in dirs {
        let files = spool::list(&dir);
        let files =
            files.map_err(|error| RecoverError::Journal { path: dir.clone(), source: error.into() })?;
        if !files.is_empty() {
            spools.push(dir);
        }
    }
    spools.sort_unstable();
    if spools.is_empty() {
        return Err(RecoverError::NoSpool { path: root.to_owned() });
    }
    Ok(spools)
}

/// The session reports beside the spools in a directory, or beside the one that it is: `<state>/reports`.
pub(super) fn reports(root: &Path) -> Option<PathBuf> {
    let root = root.canonicalize().ok()?;
    let spools = root.ancestors().take(2).find(|dir| dir.file_name().is_some_and(|name| name == SPOOLS))?;
    Some(spools.with_file_name(report::DIRECTORY)).filter(|dir| dir.is_dir())
}

/// The locks of the state directory around a spool, where it lies in one.
pub(super) fn lock_around(spool: &Path) -> Result<Vec<fs::File>, RecoverError> {
    let mut locks = Vec::new();
    for dir in spool.ancestors().take(LEVELS_MAX) {
        let path = dir.join(STATE_LOCK);
        if !path.is_file() {
            continue;
        }
        let failed = |op| {
            let path = path.clone();
            move |source| RecoverError::Io { op, path, source }
        };
        let file = fs::File::open(&path).map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => locks.push(file),
            Err(fs::TryLockError::WouldBlock) => return Err(RecoverError::InUse { path: dir.to_owned() }),
            Err(fs::TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
    }
    Ok(locks)
}

/// This node's boot; none if it can't be read, and then no spool is of it.
pub(super) fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}
