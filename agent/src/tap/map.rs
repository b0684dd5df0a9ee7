//! The hash maps, with our error for theirs.

use std::io;

use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};
use weir_common::{
    abi::{COUNTS_MAP, GAPS_MAP, TAPS_MAP, TapCounts, TapGap},
    recording::{Count, KernelCount},
    session::SocketCookie,
};

use super::{TapError, layout};

/// The maps of a ring besides the ring.
pub(super) struct Maps {
    pub(super) states: CookieMap<u32>,
    pub(super) counts: CookieMap<Counts>,
    /// None where the version has no gaps.
    pub(super) gaps: Option<CookieMap<Gap>>,
}

impl Maps {
    /// Opens what `map` has under these names.
    pub(super) fn open(
        abi: u16,
        map: &mut impl FnMut(&'static str) -> Result<aya::maps::Map, TapError>,
    ) -> Result<Self, TapError> {
        let has_gaps = layout::maps(abi).any(|map| map.name == GAPS_MAP);
        Ok(Self {
            states: CookieMap::new(TAPS_MAP, map(TAPS_MAP)?)?,
            counts: CookieMap::new(COUNTS_MAP, map(COUNTS_MAP)?)?,
            gaps: has_gaps.then(|| CookieMap::new(GAPS_MAP, map(GAPS_MAP)?)).transpose()?,
        })
    }
}

/// A counters entry as a map value.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Counts(pub(super) TapCounts);

// SAFETY: five integers without padding (asserted next to `TapCounts`), for which every bit pattern is valid.
unsafe impl Pod for Counts {}

/// A gap entry as a map value.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Gap(pub(super) TapGap);

// SAFETY: five integers without padding (asserted next to `TapGap`), for which every bit pattern is valid.
unsafe impl Pod for Gap {}

impl Counts {
    /// As recordings tell them; `gap` is the tap's entry in the map of gaps, if it has one.
    pub(super) fn told_with(self, gap: Option<Gap>) -> KernelCount {
        let TapCounts { captured_records, captured_bytes, tossed_full, tossed_frozen, tossed_size } = self.0;
        let passed = gap.map_or(Count::default(), |Gap(gap)| Count {
            records: gap.passed_records,
            bytes: gap.passed_bytes,
        });
        let captured = Count { records: captured_records, bytes: captured_bytes };
        KernelCount { captured, passed, tossed_full, tossed_frozen, tossed_size }
    }
}

/// Whether an insertion may find an entry: BPF_NOEXIST and BPF_EXIST of `linux/bpf.h`.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(super) enum Insert {
    New = 1,
    Existing = 2,
}

/// A hash map by socket cookie.
pub(super) struct CookieMap<V: Pod> {
    name: &'static str,
    inner: HashMap<MapData, u64, V>,
    max_entries: u32,
}

impl<V: Pod> CookieMap<V> {
    pub(super) fn new(name: &'static str, map: aya::maps::Map) -> Result<Self, TapError> {
        let error = |source: MapError| TapError::Map { op: "opening", map: name, source: source.into() };
        let aya::maps::Map::HashMap(data) = map else { return Err(TapError::Missing { name }) };
        let max_entries = data.info().map_err(error)?.max_entries();
        let inner = aya::maps::Map::HashMap(data).try_into().map_err(error)?;
        Ok(Self { name, inner, max_entries })
    }

    pub(super) fn insert(&mut self, cookie: SocketCookie, value: V, how: Insert) -> Result<(), TapError> {
        self.inner.insert(cookie.0, value, how as u64).map_err(|source| match errno(&source) {
            Some(libc::E2BIG) => TapError::TapsFull { max_taps: self.max_entries },
            Some(libc::ENOENT) => TapError::UnknownTap { cookie },
            _ => self.error("inserting a tap", source),
        })
    }

    pub(super) fn get(&self, cookie: SocketCookie) -> Result<Option<V>, TapError> {
        match self.inner.get(&cookie.0, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(self.error("reading a tap", source)),
        }
    }

    /// Removes an entry; it may be gone already.
    pub(super) fn remove(&mut self, cookie: SocketCookie) -> Result<(), TapError> {
        match self.inner.remove(&cookie.0) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) if errno(&source) == Some(libc::ENOENT) => Ok(()),
            Err(source) => Err(self.error("removing a tap", source)),
        }
    }

    pub(super) fn cookies(&self) -> Result<Vec<SocketCookie>, TapError> {
        let keys = self.inner.keys().map(|key| key.map(SocketCookie));
        keys.collect::<Result<_, _>>().map_err(|source| self.error("listing the taps", source))
    }

    fn error(&self, op: &'static str, source: MapError) -> TapError {
        TapError::Map { op, map: self.name, source: source.into() }
    }
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        MapError::IoError(error) => io::Error::raw_os_error(error),
        _ => None,
    }
}
