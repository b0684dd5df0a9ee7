//! What has to be written, somewhere else: a spool that is read-only, or on a full disk, is recovered in a directory of
//! one's own.
//!
//! Owns *the spool is left as it is*. The directory has links to the spool's files, and a copy of the last one, which a
//! journal goes on with; what it writes and deletes it writes and deletes there. It appears whole, by a rename, with the copy
//! on the disk: half a copy would look like a torn tail. So it is taken up where an interrupted recovery left off, which its name
//! tells: that of the very same files at the very same place.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, symlink},
    },
    path::{Path, PathBuf},
};

use weir_common::digest::Sha256;

use super::RecoverError;
use crate::spool::{self, FileNo};

/// What was said in sessions lies here in the clear.
const DIR_MODE: u32 = 0o700;
/// Of the first file so much tells it from others: the ring and the first sessions that it knows of.
const HEAD_BYTES: u64 = 4096;
/// Digits of a digest that tell the spool.
const DIGITS: usize = 16;

/// The directory in `work` that stands for the spool in `dir`; made, unless it is there.
pub(super) fn directory(dir: &Path, work: &Path) -> Result<PathBuf, RecoverError> {
    let failed = |source| RecoverError::Work { spool: dir.to_owned(), work: work.to_owned(), source };
    let dir = dir.canonicalize().map_err(failed)?;
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(work).map_err(failed)?;
    let work = work.canonicalize().map_err(failed)?;
    if work.starts_with(&dir) {
        return Err(failed(io::Error::other("it lies in the spool itself")));
    }
    let files = spool::list(&dir)
        .map_err(|source| RecoverError::Journal { path: dir.clone(), source: source.into() })?;
    let own = work.join(name(&dir, &files).map_err(failed)?);
    if !own.exists() {
        make(&dir, &files, &own).map_err(failed)?;
    }
    Ok(own)
}

fn make(dir: &Path, files: &[FileNo], own: &Path) -> io::Result<()> {
    let mut unfinished = own.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(DIR_MODE).create(&unfinished)?;
    let last = files.last();
    for &no in files {
        let (from, to) = (spool::path(dir, no), spool::path(&unfinished, no));
        if Some(&no) == last {
            fs::copy(&from, &to)?;
            File::open(&to)?.sync_all()?;
        } else {
            symlink(&from, &to)?;
        }
    }
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, own)
}

fn name(dir: &Path, files: &[FileNo]) -> io::Result<String> {
    let mut told = dir.as_os_str().as_bytes().to_vec();
    for &no in files {
        let path = spool::path(dir, no);
        let file = File::open(&path)?;
        told.extend(format!("\0{no} {}", file.metadata()?.len()).into_bytes());
        if Some(&no) == files.first() {
            file.take(HEAD_BYTES).read_to_end(&mut told)?;
        }
    }
    let mut digits = Sha256::of(&told).to_string();
    digits.truncate(DIGITS);
    let spool = dir.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{spool}-{digits}"))
}
