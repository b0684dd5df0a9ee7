//! Loading the program, and finding the maps that agents before this one left pinned.
//!
//! The maps are the continuity: every agent loads its own program against the pinned ones. Sockets that are
//! armed keep the program they have, which goes on writing into the same maps, and new ones get the new program.
//! The program is pinned too, though nobody needs the pin: it shows administrators what is in use.
//!
//! Whoever removes the pins under a running session stops it: its program keeps the old ring, which nobody
//! drains any more.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData},
    programs::SocketFilter,
};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use weir_common::abi::{ABI_VERSION, MAX_MESSAGE, PROGRAM, RING_MAP};

use super::{LOG_MAP, Ring, RingId, TapError, Taps, error::Source, layout, map::Maps, rings::PinLock};

/// Where the taps live and how large they may grow.
#[derive(Clone, Debug)]
pub struct TapOptions {
    /// A mounted BPF filesystem, `/sys/fs/bpf` as a rule.
    pub bpf_dir: PathBuf,
    /// Size of each ring: a power of two, at least [`MIN_RING_BYTES`]. A ring that is already pinned keeps its
    /// size.
    pub ring_bytes: u32,
    /// The most sockets that can be armed on a ring at a time, two per channel. Pinned maps keep theirs.
    pub max_taps: u32,
}

impl TapOptions {
    /// Roughly what a ring of this size takes of the kernel's memory, with its maps.
    #[must_use]
    pub fn estimated_bytes(&self) -> u64 {
        layout::estimated_bytes(self)
    }
}

/// The smallest ring: one that always has room for the largest message once it is drained.
pub const MIN_RING_BYTES: u32 = 64 * 1024;

const _: () = assert!(MIN_RING_BYTES as usize > MAX_MESSAGE + 4096 && MIN_RING_BYTES.is_power_of_two());

/// The program's pin before it takes the place of the one before it. No dot in it: bpffs keeps those names to itself.
pub(super) const FRESH_PROGRAM: &str = "weir_tap_new";

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-tap"));

/// Loads the program against the maps in `dir`, which are made where they are missing.
pub(super) fn load_ring(
    dir: &Path,
    options: &TapOptions,
    page: usize,
    lock: &Arc<PinLock>,
) -> Result<(Taps, Ring), TapError> {
    let mut object = make_maps(Some(dir), options)?;
    verify(&mut object)?;
    pin_program(&mut object, dir)?;
    halves(object, page, lock)
}

/// A loaded object's two halves.
pub(super) fn halves(mut object: Ebpf, page: usize, lock: &Arc<PinLock>) -> Result<(Taps, Ring), TapError> {
    let mut take = |name| object.take_map(name).ok_or(TapError::Missing { name });
    let ring = ring(take(RING_MAP)?, page, lock)?;
    let maps = Maps::open(ABI_VERSION, &mut take)?;
    Ok((Taps::new(Some(object), maps, lock), ring))
}

/// Opens the maps of an older version in `dir`.
pub(super) fn adopt_ring(
    dir: &Path,
    abi: u16,
    page: usize,
    lock: &Arc<PinLock>,
) -> Result<(Taps, Ring), TapError> {
    let mut open = |name| {
        let map = MapData::from_pin(dir.join(name)).and_then(Map::from_map_data);
        map.map_err(|source| TapError::Map { op: "opening the pin of", map: name, source: source.into() })
    };
    let ring = ring(open(RING_MAP)?, page, lock)?;
    Ok((Taps::new(None, Maps::open(abi, &mut open)?, lock), ring))
}

/// Before 5.11 the kernel counts BPF memory against this limit; later it is none of its business.
pub(super) fn raise_memlock() {
    let raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).or_else(|_| {
        // Without a privilege it can be raised up to the hard limit.
        let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
        setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard)
    });
    if let Err(error) = raised {
        tracing::debug!(%error, "RLIMIT_MEMLOCK stays as it is; kernels before 5.11 may refuse the maps");
    }
}

/// The object with its maps: those that are pinned in `pins`, or new ones, pinned there; without `pins` nobody else
/// sees them.
pub(super) fn make_maps(pins: Option<&Path>, options: &TapOptions) -> Result<Ebpf, TapError> {
    let mut loader = EbpfLoader::new();
    // The program uses no kernel type, so it needs no BTF of the kernel.
    loader.btf(None);
    for map in layout::maps(ABI_VERSION) {
        loader.map_max_entries(map.name, map.max_entries(options));
    }
    if let Some(dir) = pins {
        for name in layout::maps(ABI_VERSION).map(|map| map.name).chain([LOG_MAP]) {
            loader.map_pin_path(name, dir.join(name));
        }
    }
    loader.load(OBJECT).map_err(|source| load_error("creating the maps", source))
}

/// Has the kernel verify the object's program.
pub(super) fn verify(object: &mut Ebpf) -> Result<(), TapError> {
    program(object)?.load().map_err(|source| load_error("verifying the program", source))
}

/// Puts the program's pin in the place of the one before it, in one step.
fn pin_program(object: &mut Ebpf, dir: &Path) -> Result<(), TapError> {
    let fresh = dir.join(FRESH_PROGRAM);
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

fn ring(map: Map, page: usize, lock: &Arc<PinLock>) -> Result<Ring, TapError> {
    let Map::RingBuf(map) = map else { return Err(TapError::Missing { name: RING_MAP }) };
    let info = map.info().map_err(|source| load_error("asking for the ring's id", source))?;
    // The kernel's word on the size: a pinned ring has the one it was created with.
    let (id, capacity) = (RingId { boot_id: boot_id()?, map_id: info.id() }, info.max_entries());
    Ring::new(map, id, capacity, page, Arc::clone(lock))
}

fn boot_id() -> Result<String, TapError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let id = fs::read_to_string(path).map_err(file_error("reading", path))?;
    Ok(id.trim().to_owned())
}

pub(super) fn file_error(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TapError {
    move |source| TapError::File { op, path: path.to_owned(), source }
}

fn load_error(op: &'static str, source: impl Into<Source>) -> TapError {
    TapError::Load { op, source: source.into() }
}
