//! What is pinned on this node and who uses it, as anybody can see it: nothing is opened, locked or made.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::stat::{major, minor},
    unistd::{AccessFlags, eaccess},
};
use weir_common::abi::{ABI_VERSION, OLDEST_ABI_VERSION, RING_MAP};

use super::{RingPlace, TapError, layout, load::file_error};

/// What is pinned below a BPF file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// The rings that this agent reads, the oldest version's first.
    pub places: Vec<RingPlace>,
    /// Versions that it does not know.
    pub unknown: Vec<u16>,
    /// What this user may not use of them: directories, or pins.
    pub foreign: Vec<PathBuf>,
}

/// The directory of everything that is pinned.
pub(super) fn rings_dir(bpf_dir: &Path) -> PathBuf {
    bpf_dir.join("weir")
}

/// What is pinned below this BPF file system.
///
/// # Errors
/// [`TapError::File`].
pub fn pins(bpf_dir: &Path) -> Result<Pins, TapError> {
    let dir = rings_dir(bpf_dir);
    let (mut places, mut unknown, mut foreign) = (BTreeSet::new(), Vec::new(), Vec::new());
    if is_closed(&dir) {
        return Ok(Pins { foreign: vec![dir], ..Pins::default() });
    }
    for abi in numbers(&dir)? {
        if !(OLDEST_ABI_VERSION..=ABI_VERSION).contains(&abi) {
            unknown.push(abi);
            continue;
        }
        let version = dir.join(abi.to_string());
        if is_closed(&version) {
            foreign.push(version);
            continue;
        }
        let candidates: BTreeSet<_> = numbers(&version)?.into_iter().chain([0]).collect();
        for place in candidates.into_iter().map(|ring| RingPlace { abi, ring }) {
            let of_place = place.dir_in(&dir);
            if is_closed(&of_place) {
                foreign.push(of_place);
            } else if of_place.join(RING_MAP).exists() {
                places.insert(place);
            }
        }
    }
    let of_place = |place: &RingPlace| {
        let dir = place.dir_in(&dir);
        layout::maps(place.abi).map(move |map| dir.join(map.name)).filter(|path| path.exists())
    };
    let usable = AccessFlags::R_OK | AccessFlags::W_OK;
    foreign.extend(places.iter().flat_map(of_place).filter(|path| is_refused(path, usable)));
    Ok(Pins { foreign, places: places.into_iter().collect(), unknown })
}

/// Whether this user may not list and change a directory that can be seen.
fn is_closed(dir: &Path) -> bool {
    dir.is_dir() && is_refused(dir, AccessFlags::all())
}

/// Whether owner and mode are against it: a file system that is read-only is so to everybody.
fn is_refused(path: &Path, access: AccessFlags) -> bool {
    eaccess(path, access) == Err(Errno::EACCES)
}

/// The process that holds the node's pins, if one does and can be seen from this PID namespace.
///
/// The kernel's list of locks tells. Trying the lock would keep an agent out that starts just then.
///
/// # Errors
/// If that list cannot be read.
pub fn holder(bpf_dir: &Path) -> io::Result<Option<u32>> {
    let Ok(dir) = fs::metadata(rings_dir(bpf_dir)) else { return Ok(None) };
    let file = format!("{:02x}:{:02x}:{}", major(dir.dev()), minor(dir.dev()), dir.ino());
    Ok(holder_of(&fs::read_to_string("/proc/locks")?, &file))
}

/// Finds in `/proc/locks` who has this file locked with flock(2) (proc_locks(5)).
fn holder_of(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (kind, pid, of) = (words.next()?, words.nth(2)?, words.next()?);
        (kind == "FLOCK" && of == file).then(|| pid.parse().ok())?
    })
}

/// The directories in this one whose names are numbers; none if it is not there.
fn numbers(dir: &Path) -> Result<Vec<u16>, TapError> {
    let items = match fs::read_dir(dir) {
        Ok(items) => items,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(file_error("reading", dir)(error)),
    };
    let mut found = Vec::new();
    for item in items {
        let name = item.map_err(file_error("reading", dir))?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<u16>().ok()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 11 00:1f:42 0 EOF\n\
                         2: FLOCK  ADVISORY  READ 22 fe:00:4242 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 33 fe:00:42 0 EOF\n\
                         3: FLOCK  ADVISORY  WRITE 44 00:1f:42 0 EOF\n";

    #[test]
    fn the_one_who_has_the_lock_is_found_and_nobody_who_waits_or_has_another() {
        assert_eq!(holder_of(LOCKS, "00:1f:42"), Some(44));
        assert_eq!(holder_of(LOCKS, "fe:00:4242"), Some(22));
        assert_eq!(holder_of(LOCKS, "fe:00:42"), None);
        assert_eq!(holder_of("", "fe:00:42"), None);
    }
}
