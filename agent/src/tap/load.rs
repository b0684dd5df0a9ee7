//! Loading the program, and finding the maps that agents before this one left pinned.
//!
//! The maps are the continuity: every agent loads its own program against the pinned ones. Sockets that are
//! armed keep the program they have, which goes on writing into the same maps, and new ones get the new program.
//! The program is pinned too, though nobody needs the pin: it shows administrators what is in use.
//!
//! Whoever removes the pins under a running session stops it: its program keeps the old ring, which nobody
//! drains any more.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapInfo, MapType},
    programs::SocketFilter,
};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::{
        resource::{RLIM_INFINITY, Resource, setrlimit},
        statfs::{BPF_FS_MAGIC, statfs},
    },
    unistd::{SysconfVar, sysconf},
};
use weir_common::abi::{ABI_VERSION, COUNTS_MAP, MAX_MESSAGE, PROGRAM, RING_MAP, TAPS_MAP, TapCounts};

use super::{LOG_MAP, Ring, RingId, TapError, Taps, error::Source};

/// Where the taps live and how large they may grow.
#[derive(Clone, Debug)]
pub struct TapOptions {
    /// A mounted BPF filesystem, `/sys/fs/bpf` as a rule.
    pub bpf_dir: PathBuf,
    /// Size of the ring: a power of two, at least [`MIN_RING_BYTES`]. A ring that is already pinned keeps its
    /// size.
    pub ring_bytes: u32,
    /// The most sockets that can be armed at a time, two per channel. Pinned maps keep theirs.
    pub max_taps: u32,
}

/// The smallest ring: one that always has room for the largest message once it is drained.
pub const MIN_RING_BYTES: u32 = 64 * 1024;

const _: () = assert!(MIN_RING_BYTES as usize > MAX_MESSAGE + 4096 && MIN_RING_BYTES.is_power_of_two());

/// Held as long as this process uses the pin directory.
pub(super) type PinLock = Flock<File>;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-tap"));

/// Loads the program and creates its maps, or adopts those pinned below `<bpf_dir>/weir/<ABI version>/`.
///
/// # Errors
/// See [`TapError`]: a size the ring can't have, no BPF filesystem, another agent at work, a foreign map in our
/// place, or the kernel's refusal.
pub fn open(options: &TapOptions) -> Result<(Taps, Ring), TapError> {
    let page = page_size();
    let min = u64::from(MIN_RING_BYTES).max(page as u64);
    if !options.ring_bytes.is_power_of_two() || u64::from(options.ring_bytes) < min {
        return Err(TapError::RingSize { ring_bytes: options.ring_bytes, min });
    }
    let dir = pin_dir(&options.bpf_dir)?;
    let lock = Arc::new(lock(&dir)?);
    raise_memlock();
    check_pinned(&dir, options)?;

    let mut object = load(&dir, options)?;
    pin_program(&mut object, &dir)?;

    let (map, map_id, capacity) = take_ring(&mut object)?;
    let id = RingId { boot_id: boot_id()?, map_id };
    let ring = Ring::new(map, id, capacity, page, Arc::clone(&lock))?;
    Ok((Taps::new(object, lock)?, ring))
}

fn pin_dir(bpf_dir: &Path) -> Result<PathBuf, TapError> {
    match statfs(bpf_dir) {
        Ok(stat) if stat.filesystem_type() == BPF_FS_MAGIC => {}
        _ => return Err(TapError::NoBpffs { path: bpf_dir.to_owned() }),
    }
    let dir = bpf_dir.join("weir").join(ABI_VERSION.to_string());
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(file_error("creating", &dir))?;
    Ok(dir)
}

fn lock(dir: &Path) -> Result<PinLock, TapError> {
    let file = File::open(dir).map_err(file_error("opening", dir))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => TapError::InUse { path: dir.to_owned() },
        errno => file_error("locking", dir)(errno.into()),
    })
}

/// Before 5.11 the kernel counts BPF memory against this limit; later it is none of its business.
fn raise_memlock() {
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        tracing::debug!(%error, "RLIMIT_MEMLOCK stays as it is; kernels before 5.11 may refuse the maps");
    }
}

/// Refuses pinned maps that aya would take without a look and misread.
fn check_pinned(dir: &Path, options: &TapOptions) -> Result<(), TapError> {
    let counts_len = size_of::<TapCounts>();
    for (name, kind, key, value, configured) in [
        (TAPS_MAP, MapType::Hash, size_of::<u64>(), size_of::<u32>(), options.max_taps),
        (COUNTS_MAP, MapType::Hash, size_of::<u64>(), counts_len, options.max_taps),
        (RING_MAP, MapType::RingBuf, 0, 0, options.ring_bytes),
    ] {
        let path = dir.join(name);
        if !path.try_exists().map_err(file_error("looking at", &path))? {
            continue;
        }
        let map_error = |source: Source| TapError::Map { op: "reading the layout", map: name, source };
        let info = MapInfo::from_pin(&path).map_err(|source| map_error(source.into()))?;
        let same = |field, expected: String, found: String| {
            if expected == found {
                return Ok(());
            }
            Err(TapError::PinnedLayout { path: path.clone(), field, expected, found })
        };
        let found = info.map_type().map_err(|source| map_error(source.into()))?;
        same("type", format!("{kind:?}"), format!("{found:?}"))?;
        same("key size", key.to_string(), info.key_size().to_string())?;
        same("value size", value.to_string(), info.value_size().to_string())?;
        if info.max_entries() != configured {
            tracing::info!(
                map = name,
                pinned = info.max_entries(),
                configured,
                "a pinned map keeps its size"
            );
        }
    }
    Ok(())
}

fn load(dir: &Path, options: &TapOptions) -> Result<Ebpf, TapError> {
    let mut loader = EbpfLoader::new();
    // The program uses no kernel type, so it needs no BTF of the kernel.
    loader.btf(None);
    for name in [TAPS_MAP, COUNTS_MAP, RING_MAP, LOG_MAP] {
        loader.map_pin_path(name, dir.join(name));
    }
    loader.map_max_entries(TAPS_MAP, options.max_taps);
    loader.map_max_entries(COUNTS_MAP, options.max_taps);
    loader.map_max_entries(RING_MAP, options.ring_bytes);
    let mut object = loader.load(OBJECT).map_err(|source| load_error("creating the maps", source))?;
    program(&mut object)?.load().map_err(|source| load_error("verifying the program", source))?;
    Ok(object)
}

/// Puts the program's pin in the place of the one before it, in one step.
fn pin_program(object: &mut Ebpf, dir: &Path) -> Result<(), TapError> {
    // No dot in it: bpffs keeps those names to itself.
    let fresh = dir.join(format!("{PROGRAM}_new"));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file_error("removing", &fresh)(error));
        }
        _ => {}
    }
    program(object)?.pin(&fresh).map_err(|source| load_error("pinning the program", source))?;
    let path = dir.join(PROGRAM);
    fs::rename(&fresh, &path).map_err(file_error("replacing", &path))
}

fn program(object: &mut Ebpf) -> Result<&mut SocketFilter, TapError> {
    let program = object.program_mut(PROGRAM).ok_or(TapError::Missing { name: PROGRAM })?;
    program.try_into().map_err(|source| load_error("finding the program", source))
}

fn take_ring(object: &mut Ebpf) -> Result<(aya::maps::MapData, u32, u32), TapError> {
    let Some(Map::RingBuf(map)) = object.take_map(RING_MAP) else {
        return Err(TapError::Missing { name: RING_MAP });
    };
    let info = map.info().map_err(|source| load_error("asking for the ring's id", source))?;
    // The kernel's word on the size: a pinned ring has the one it was created with.
    let (id, capacity) = (info.id(), info.max_entries());
    Ok((map, id, capacity))
}

fn boot_id() -> Result<String, TapError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let id = fs::read_to_string(path).map_err(file_error("reading", path))?;
    Ok(id.trim().to_owned())
}

fn page_size() -> usize {
    sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| size.try_into().ok()).unwrap_or(4096)
}

fn file_error(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TapError {
    move |source| TapError::File { op, path: path.to_owned(), source }
}

fn load_error(op: &'static str, source: impl Into<Source>) -> TapError {
    TapError::Load { op, source: source.into() }
}
