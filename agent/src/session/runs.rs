//! Where neighbouring records lie in the spool, packed.
//!
//! Small records of many sessions in turn make a run per record, and all runs of a full spool are in memory: 20
//! bytes for a record that takes some 130 in the spool. What a chunk's runs have in common is said once, and a chunk
//! has a bound, so that no list is ever copied whole to grow and what was taken out of it is given back. Runs are
//! not merged across other sessions' entries: among these may be records of the session's own that it did not
//! accept, which only the acceptance rule tells apart.

use weir_common::recording::Count;

use crate::spool::{FileNo, Place, entry};

/// The most bytes of neighbouring entries that are read as one extent.
pub const EXTENT_MAX_BYTES: u64 = 256 * 1024;

/// The most runs of a chunk.
const CHUNK_MAX_RUNS: usize = 1024;

/// Records of one session that lie next to each other in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where the first entry begins.
    pub place: Place,
    /// Bytes of the entries, headers included.
    pub len: u64,
    /// How many entries at the beginning belong to the segment before.
    pub skip: u64,
    /// How many behind those belong here.
    pub records: u64,
}

/// A record's entry in the spool.
#[derive(Clone, Copy)]
pub(super) struct Spooled {
    pub(super) place: Place,
    len: u32,
    message_len: u32,
    boot_ns: u64,
}

/// Runs in one file, one at least, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    file: FileNo,
    /// What the runs' offsets and times are counted from.
    offset: u64,
    boot_ns: u64,
    runs: Vec<Run>,
}

/// Neighbouring entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// Behind the chunk's offset.
    offset: u32,
    /// Of the entries, those to be skipped included.
    len: u32,
    /// Bytes of the messages.
    message_bytes: u32,
    /// When the first record was made, behind the chunk's time.
    after_us: u32,
    skip: u16,
    records: u16,
}

const _: () = assert!(size_of::<Run>() == 20);
const _: () = assert!(entry::PAYLOAD_MAX + entry::HEADER_LEN < u32::MAX as usize);

impl Spooled {
    /// An entry of `len` bytes with a message of `message_len`.
    pub(super) fn new(place: Place, len: u64, message_len: u64, boot_ns: u64) -> Self {
        let short = |bytes| u32::try_from(bytes).expect("no entry is larger than PAYLOAD_MAX and its header");
        Self { place, len: short(len), message_len: short(message_len), boot_ns }
    }
}

impl Chunk {
    pub(super) fn new(first: Spooled) -> Self {
        let Spooled { place: Place { file, offset }, boot_ns, .. } = first;
        Self { file, offset, boot_ns, runs: vec![Run::new(first, 0, 0)] }
    }

    /// Adds a newer entry; false, and nothing is changed, if it needs a chunk of its own.
    pub(super) fn push(&mut self, entry: Spooled) -> bool {
        let place = entry.place;
        let offset = place.offset.checked_sub(self.offset).and_then(|offset| u32::try_from(offset).ok());
        let Some(offset) = offset.filter(|_| place.file == self.file) else { return false };
        if self.runs.last_mut().is_some_and(|last| last.extend(entry, offset)) {
            return true;
        }
        // Records of several processors may be a little out of order.
        let after_us = entry.boot_ns.checked_sub(self.boot_ns).and_then(|ns| u32::try_from(ns / 1000).ok());
        let Some(after_us) = after_us.filter(|_| self.runs.len() < CHUNK_MAX_RUNS) else { return false };
        if self.runs.len() == self.runs.capacity() {
            // By a quarter: doubling would leave half of what many sessions hold unused.
            let more = (self.runs.len() / 4).max(3);
            self.runs.reserve_exact(more.min(CHUNK_MAX_RUNS - self.runs.len()));
        }
        self.runs.push(Run::new(entry, offset, after_us));
        true
    }

    pub(super) fn file(&self) -> FileNo {
        self.file
    }

    /// Kernel time of the first record, to the microsecond.
    pub(super) fn first_boot_ns(&self) -> u64 {
        self.boot_ns + self.runs.first().map_or(0, |run| u64::from(run.after_us) * 1000)
    }

    pub(super) fn count(&self) -> Count {
        self.counts().fold(Count::default(), |sum, count| sum + count)
    }

    /// Of each run.
    pub(super) fn counts(&self) -> impl Iterator<Item = Count> {
        self.runs.iter().map(Run::count)
    }

    pub(super) fn extents(&self) -> impl Iterator<Item = Extent> {
        self.runs.iter().map(|run| Extent {
            place: Place { file: self.file, offset: self.offset + u64::from(run.offset) },
            len: run.len.into(),
            skip: run.skip.into(),
            records: run.records.into(),
        })
    }

    /// Keeps the first `records`, which are one at least, and returns the rest, if any is left.
    pub(super) fn split_off(&mut self, records: u64) -> Option<Self> {
        let (mut whole, mut left) = (0, records);
        while let Some(run) = self.runs.get(whole).filter(|run| u64::from(run.records) <= left) {
            left -= u64::from(run.records);
            whole += 1;
        }
        let mut rest = Self { runs: self.runs.split_off(whole), ..*self };
        let cut = rest.runs.first_mut()?;
        if let Some(left) = u16::try_from(left).ok().filter(|&left| left > 0) {
            self.runs.push(cut.take(left));
        }
        self.runs.shrink_to_fit();
        Some(rest)
    }
}

impl Run {
    fn new(entry: Spooled, offset: u32, after_us: u32) -> Self {
        let Spooled { place: _, len, message_len: message_bytes, boot_ns: _ } = entry;
        Self { offset, len, message_bytes, after_us, skip: 0, records: 1 }
    }

    /// Adds the entry if it is the next one and finds room.
    fn extend(&mut self, entry: Spooled, offset: u32) -> bool {
        let len = u64::from(self.len) + u64::from(entry.len);
        let next = u64::from(self.offset) + u64::from(self.len) == u64::from(offset);
        if !next || len > EXTENT_MAX_BYTES || self.records >= u16::MAX - self.skip {
            return false;
        }
        let Some(message_bytes) = self.message_bytes.checked_add(entry.message_len) else { return false };
        (self.len, self.message_bytes) = (self.len + entry.len, message_bytes);
        self.records += 1;
        true
    }

    fn count(&self) -> Count {
        Count { records: self.records.into(), bytes: self.message_bytes.into() }
    }

    /// Takes the first records out, fewer than there are; they are said to have their share of the bytes.
    fn take(&mut self, records: u16) -> Self {
        let message_bytes = self.message_bytes / u32::from(self.records) * u32::from(records);
        let first = Self { records, message_bytes, ..*self };
        self.skip += records;
        self.records -= records;
        self.message_bytes -= message_bytes;
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Spooled {
        Spooled::new(Place { file: FileNo(1), offset: number * 200 }, 128, 80, number)
    }

    #[test]
    fn a_chunk_has_a_bound_and_little_room_that_it_does_not_use() {
        let mut chunk = Chunk::new(entry(0));
        for number in 1..CHUNK_MAX_RUNS as u64 {
            assert!(chunk.push(entry(number)));
            let (used, room) = (chunk.runs.len(), chunk.runs.capacity());
            assert!(room <= used + (used / 4).max(3), "{room} for {used}");
        }
        assert!(!chunk.push(entry(CHUNK_MAX_RUNS as u64)));
        assert_eq!(chunk.count(), Count { records: 1024, bytes: 1024 * 80 });
    }

    #[test]
    fn what_cannot_be_told_from_a_chunks_beginning_needs_another() {
        let first = Spooled::new(Place { file: FileNo(2), offset: 1000 }, 128, 80, 5_000_000);
        let far = u64::from(u32::MAX);
        for (file, offset, boot_ns) in [
            (3, 2000, 5_000_000),
            (2, 999, 5_000_000),
            (2, 1001 + far, 5_000_000),
            (2, 2000, 4_999_999),
            (2, 2000, 5_001_000 + far * 1000),
        ] {
            let mut chunk = Chunk::new(first);
            let before = chunk.clone();
            let place = Place { file: FileNo(file), offset };
            assert!(!chunk.push(Spooled::new(place, 128, 80, boot_ns)), "{file}, {offset}, {boot_ns}");
            assert_eq!(chunk, before);
        }
    }
}
