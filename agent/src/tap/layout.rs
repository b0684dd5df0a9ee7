//! What is pinned for a ring, by ABI version.
//!
//! Owns the layouts: whatever is opened from a pin has been compared with this table. aya reuses pinned maps without a
//! look, and would misread others.

use std::path::Path;

use aya::maps::{MapInfo, MapType};
use weir_common::abi::{
    ABI_VERSION, COUNTS_MAP, GAPS_MAP, OLDEST_ABI_VERSION, PROGRAM, RING_MAP, TAPS_MAP, TapCounts, TapGap,
};

use super::{
    LOG_MAP, TapError, TapOptions,
    error::Source,
    load::{FRESH_PROGRAM, file_error},
};

/// A pinned map.
pub(super) struct Layout {
    pub(super) name: &'static str,
    kind: MapType,
    key_bytes: u32,
    value_bytes: u32,
    size: Size,
    /// The first version that has it.
    since: u16,
}

/// Which option says how large a map is.
#[derive(Clone, Copy)]
enum Size {
    Taps,
    Ring,
}

/// The ring of the program's diagnostics, as aya-log-ebpf makes it.
const LOG_BYTES: u64 = 128 * 1024;
const COOKIE_BYTES: u32 = 8;
const STATE_BYTES: u32 = 4;
#[expect(clippy::cast_possible_truncation, reason = "a few integers")]
const COUNTS_BYTES: u32 = size_of::<TapCounts>() as u32;
#[expect(clippy::cast_possible_truncation, reason = "a few integers")]
const GAP_BYTES: u32 = size_of::<TapGap>() as u32;

/// Every map of every version; none has changed its layout so far.
const MAPS: [Layout; 4] = [
    Layout::hash(TAPS_MAP, STATE_BYTES, 1),
    Layout::hash(COUNTS_MAP, COUNTS_BYTES, 1),
    Layout::hash(GAPS_MAP, GAP_BYTES, 2),
    Layout {
        name: RING_MAP,
        kind: MapType::RingBuf,
        key_bytes: 0,
        value_bytes: 0,
        size: Size::Ring,
        since: 1,
    },
];

// A version that changes a map needs a table of its own.
const _: () = assert!(OLDEST_ABI_VERSION == 1 && ABI_VERSION == 2);

/// Roughly what the kernel's memory has to hold for a ring of this agent's version, for where it cannot be asked.
pub(super) fn estimated_bytes(options: &TapOptions) -> u64 {
    // `struct htab_elem` and a bucket of `kernel/bpf/hashtab.c`; hash maps are allocated in full when they are made.
    const ELEMENT_BYTES: u64 = 48;
    const BUCKET_BYTES: u64 = 16;
    let bytes = |map: &Layout| match map.size {
        Size::Ring => u64::from(options.ring_bytes),
        Size::Taps => {
            let element = ELEMENT_BYTES + u64::from(map.key_bytes + map.value_bytes.next_multiple_of(8));
            let taps = u64::from(options.max_taps);
            taps * element + taps.next_power_of_two() * BUCKET_BYTES
        }
    };
    LOG_BYTES + maps(ABI_VERSION).map(bytes).sum::<u64>()
}

/// The maps of a version.
pub(super) fn maps(abi: u16) -> impl Iterator<Item = &'static Layout> {
    MAPS.iter().filter(move |map| map.since <= abi)
}

/// Everything that is pinned for a ring, in the order in which it is removed: a set without a ring is none.
pub(super) fn pins() -> impl Iterator<Item = &'static str> {
    MAPS.iter().rev().map(|map| map.name).chain([LOG_MAP, PROGRAM, FRESH_PROGRAM])
}

impl Layout {
    const fn hash(name: &'static str, value_bytes: u32, since: u16) -> Self {
        Self { name, kind: MapType::Hash, key_bytes: COOKIE_BYTES, value_bytes, size: Size::Taps, since }
    }

    /// The size that a new map gets.
    pub(super) fn max_entries(&self, options: &TapOptions) -> u32 {
        match self.size {
            Size::Taps => options.max_taps,
            Size::Ring => options.ring_bytes,
        }
    }

    /// Refuses what is pinned in this map's place, if it is something else.
    pub(super) fn check(&self, path: &Path, configured: u32) -> Result<(), TapError> {
        let map_error = |source: Source| TapError::Map { op: "reading the layout", map: self.name, source };
        if !path.try_exists().map_err(file_error("looking at", path))? {
            return Ok(());
        }
        let info = MapInfo::from_pin(path).map_err(|source| map_error(source.into()))?;
        let same = |field, expected: String, found: String| {
            if expected == found {
                return Ok(());
            }
            Err(TapError::PinnedLayout { path: path.to_owned(), field, expected, found })
        };
        let found = info.map_type().map_err(|source| map_error(source.into()))?;
        same("type", format!("{:?}", self.kind), format!("{found:?}"))?;
        same("key size", self.key_bytes.to_string(), info.key_size().to_string())?;
        same("value size", self.value_bytes.to_string(), info.value_size().to_string())?;
        let pinned = info.max_entries();
        if pinned != configured {
            tracing::info!(map = self.name, pinned, configured, "a pinned map keeps its size");
        }
        Ok(())
    }
}
