//! The rings of this node: what is pinned, and making, adopting and removing it.
//!
//! A ring is a full set of its own: program, maps, ring buffer. It lies in `<bpf_dir>/weir/<ABI version>/<number>/`;
//! version 1 had one ring, right in its directory.
//!
//! Owns that one agent uses the pins of a node at a time.

use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::{SysconfVar, sysconf},
};
use weir_common::abi::{ABI_VERSION, OLDEST_ABI_VERSION};

use super::{
    MIN_RING_BYTES, Pins, Ring, TapError, TapOptions, Taps, layout,
    load::{self, file_error},
    pins,
    pins::rings_dir,
};

/// A ring's place on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingPlace {
    /// The ABI version of what is pinned there.
    pub abi: u16,
    /// The ring's number, from 0.
    pub ring: u16,
}

impl RingPlace {
    /// The ring of this number that this agent's own program writes.
    #[must_use]
    pub fn current(ring: u16) -> Self {
        Self { abi: ABI_VERSION, ring }
    }

    /// Where it is pinned below the directory of all rings.
    pub(super) fn dir_in(self, rings: &Path) -> PathBuf {
        let Self { abi, ring } = self;
        let version = rings.join(abi.to_string());
        if abi == 1 && ring == 0 { version } else { version.join(ring.to_string()) }
    }
}

/// As it stands in paths and logs: `2-0`.
impl fmt::Display for RingPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.abi, self.ring)
    }
}

/// Held as long as this process uses anything that is pinned.
pub(super) type PinLock = Vec<Flock<File>>;

/// The rings of this node, for this process alone.
pub struct Rings {
    dir: PathBuf,
    options: TapOptions,
    page: usize,
    lock: Arc<PinLock>,
}

impl Rings {
    /// Takes the pins of the node, which no other agent may use until this, every [`Taps`] and every [`Ring`] is gone.
    ///
    /// # Errors
    /// [`TapError`]: a size that a ring can't have, no BPF filesystem, another agent at work.
    pub fn open(options: &TapOptions) -> Result<Self, TapError> {
        let page = page_size();
        let min = u64::from(MIN_RING_BYTES).max(page as u64);
        if !options.ring_bytes.is_power_of_two() || u64::from(options.ring_bytes) < min {
            return Err(TapError::RingSize { ring_bytes: options.ring_bytes, min });
        }
        match statfs(&options.bpf_dir) {
            Ok(stat) if stat.filesystem_type() == BPF_FS_MAGIC => {}
            _ => return Err(TapError::NoBpffs { path: options.bpf_dir.clone() }),
        }
        let dir = rings_dir(&options.bpf_dir);
        make_dir(&dir)?;
        // An agent that knows no rings locks its version's directory.
        let before = dir.join(OLDEST_ABI_VERSION.to_string());
        let mut locks = vec![lock(&dir)?];
        if before.is_dir() {
            locks.push(lock(&before)?);
        }
        Ok(Self { dir, options: options.clone(), page, lock: Arc::new(locks) })
    }

    /// The rings that are pinned and can be opened, the oldest version's first.
    ///
    /// # Errors
    /// [`TapError::File`].
    pub fn pinned(&self) -> Result<Vec<RingPlace>, TapError> {
        let Pins { places, unknown, .. } = pins(&self.options.bpf_dir)?;
        for abi in unknown {
            tracing::warn!(abi, "taps of another version of the agent are pinned; they are left alone");
        }
        Ok(places)
    }

    /// Makes a ring, or adopts it where it is pinned.
    ///
    /// Of an older version only the maps are opened: its taps go on with the program that they have, and none is armed
    /// any more.
    ///
    /// # Errors
    /// [`TapError`]: nothing of an older version in that place, a foreign map in our place, or the kernel's refusal.
    pub fn open_ring(&self, place: RingPlace) -> Result<(Taps, Ring), TapError> {
        let dir = self.dir_of(place);
        match place.abi {
            ABI_VERSION => make_dir(&dir)?,
            OLDEST_ABI_VERSION..ABI_VERSION => {}
            abi => return Err(TapError::UnknownAbi { abi }),
        }
        load::raise_memlock();
        for map in layout::maps(place.abi) {
            map.check(&dir.join(map.name), map.max_entries(&self.options))?;
        }
        match place.abi {
            ABI_VERSION => load::load_ring(&dir, &self.options, self.page, &self.lock),
            abi => load::adopt_ring(&dir, abi, self.page, &self.lock),
        }
    }

    /// Unpins a ring that nobody needs any more. It is fine if it was not there.
    ///
    /// What is open of it stays usable until it is dropped.
    ///
    /// # Errors
    /// [`TapError::File`].
    pub fn remove(&self, place: RingPlace) -> Result<(), TapError> {
        let dir = self.dir_of(place);
        for name in layout::pins() {
            let path = dir.join(name);
            gone(fs::remove_file(&path)).map_err(file_error("removing", &path))?;
        }
        gone(fs::remove_dir(&dir)).map_err(file_error("removing", &dir))?;
        let version = self.dir.join(place.abi.to_string());
        match gone(fs::remove_dir(&version)) {
            // It has more rings.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed.map_err(file_error("removing", &version)),
        }
    }

    /// Where a ring is pinned.
    #[must_use]
    pub fn dir_of(&self, place: RingPlace) -> PathBuf {
        place.dir_in(&self.dir)
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn make_dir(dir: &Path) -> Result<(), TapError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(file_error("creating", dir))
}

fn lock(dir: &Path) -> Result<Flock<File>, TapError> {
    let file = File::open(dir).map_err(file_error("opening", dir))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => TapError::InUse { path: dir.to_owned() },
        errno => file_error("locking", dir)(errno.into()),
    })
}

pub(super) fn page_size() -> usize {
    sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| size.try_into().ok()).unwrap_or(4096)
}
