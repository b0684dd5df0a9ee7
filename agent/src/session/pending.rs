//! Records that are in the spool and not yet in a stored segment.
//!
//! Owns their order and their number: whatever is taken out for a segment are the oldest ones, exactly as
//! many as asked for. Where the spool file they were in is gone or unreadable they are *gone*: counted, with
//! no place to read them from. A checkpoint keeps the count only, so that all it holds are gone records; the
//! log behind it says which of them were sealed, and what is left over then was lost.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use weir_common::recording::Count;

use crate::spool::{FileNo, Place};

/// The most bytes of neighbouring entries that are read as one extent.
pub const EXTENT_MAX_BYTES: u64 = 256 * 1024;

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

/// Records waiting for a segment, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Count", into = "Count")]
pub struct Pending {
    runs: VecDeque<Run>,
    total: Count,
    /// The files of the runs, and how many runs each has: the runs of a session that flooded are too many to
    /// be looked through all the time.
    files: VecDeque<(FileNo, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// None for records that are gone.
    extent: Option<Extent>,
    count: Count,
    /// Kernel time of the first record; 0 where it is not known.
    first_boot_ns: u64,
}

impl Pending {
    /// Records that cannot be read any more.
    #[must_use]
    pub fn gone(count: Count) -> Self {
        let mut pending = Self::default();
        pending.push_gone(count);
        pending
    }

    /// How many, and the bytes of their messages.
    #[must_use]
    pub fn total(&self) -> Count {
        self.total
    }

    /// How many of them cannot be read any more.
    #[must_use]
    pub fn gone_records(&self) -> u64 {
        let gone = self.runs.iter().filter(|run| run.extent.is_none());
        gone.fold(0, |sum, run| sum.saturating_add(run.count.records))
    }

    /// Kernel time of the oldest one, as far as it is known.
    #[must_use]
    pub fn oldest_boot_ns(&self) -> Option<u64> {
        self.runs.front().map(|run| run.first_boot_ns)
    }

    /// The spool files that are needed for them, in order.
    pub fn files(&self) -> impl Iterator<Item = FileNo> {
        self.files.iter().map(|&(file, _)| file)
    }

    /// The extents to read, in order.
    pub fn extents(&self) -> impl Iterator<Item = Extent> {
        self.runs.iter().filter_map(|run| run.extent)
    }

    /// Adds the newest record: an entry of `entry_len` bytes at `place` with a message of `message_len`
    /// bytes.
    pub fn push(&mut self, place: Place, entry_len: u64, message_len: u64, boot_ns: u64) {
        self.total.add(message_len);
        if let Some(Run { extent: Some(extent), count, .. }) = self.runs.back_mut()
            && extent.place.file == place.file
            && extent.place.offset + extent.len == place.offset
            && extent.len + entry_len <= EXTENT_MAX_BYTES
        {
            extent.len += entry_len;
            extent.records += 1;
            count.add(message_len);
            return;
        }
        self.runs.push_back(Run {
            extent: Some(Extent { place, len: entry_len, skip: 0, records: 1 }),
            count: Count { records: 1, bytes: message_len },
            first_boot_ns: boot_ns,
        });
        self.count_runs(place.file, 1);
    }

    /// Counts runs of a file that is the last one's or comes after it.
    fn count_runs(&mut self, file: FileNo, runs: u64) {
        match self.files.back_mut() {
            Some((last, count)) if *last == file => *count += runs,
            _ => self.files.push_back((file, runs)),
        }
    }

    /// A run of the oldest file is gone.
    fn uncount_run(&mut self) {
        if let Some((_, runs)) = self.files.front_mut() {
            *runs -= 1;
            if *runs == 0 {
                self.files.pop_front();
            }
        }
    }

    /// Adds records that cannot be read.
    pub fn push_gone(&mut self, count: Count) {
        if count.records > 0 {
            self.total = self.total + count;
            self.runs.push_back(Run { extent: None, count, first_boot_ns: 0 });
        }
    }

    /// Adds records that are all newer.
    pub fn append(&mut self, newer: Self) {
        self.total = self.total + newer.total;
        self.runs.extend(newer.runs);
        for (file, runs) in newer.files {
            self.count_runs(file, runs);
        }
    }

    /// How many of the oldest records make a segment: whole extents up to the first that reaches a limit.
    #[must_use]
    pub fn segment_records(&self, max_bytes: u64, max_records: u64) -> u64 {
        let mut sum = Count::default();
        for run in &self.runs {
            sum = sum + run.count;
            if sum.bytes >= max_bytes || sum.records >= max_records {
                break;
            }
        }
        sum.records
    }

    /// Takes the oldest records out; `None`, and nothing is changed, if there are not as many.
    ///
    /// Where that cuts through an extent, the bytes that its two parts are said to have are an estimate.
    #[must_use]
    pub fn take(&mut self, records: u64) -> Option<Self> {
        if records > self.total.records {
            return None;
        }
        let mut taken = Self::default();
        while taken.total.records < records {
            let mut run = self.runs.pop_front()?;
            let wanted = records - taken.total.records;
            if run.count.records > wanted {
                self.runs.push_front(run.split_off(wanted));
            } else if run.extent.is_some() {
                self.uncount_run();
            }
            if let Some(extent) = run.extent {
                taken.count_runs(extent.place.file, 1);
            }
            taken.total = taken.total + run.count;
            taken.runs.push_back(run);
        }
        // A checkpoint says how many there are without a place, and may say more than can be added up.
        self.total.records = self.total.records.saturating_sub(taken.total.records);
        self.total.bytes = self.total.bytes.saturating_sub(taken.total.bytes);
        Some(taken)
    }
}

impl Run {
    /// Keeps the first `records` and returns the rest.
    fn split_off(&mut self, records: u64) -> Self {
        let bytes = self.count.bytes / self.count.records * records;
        let mut rest = *self;
        rest.count = Count { records: self.count.records - records, bytes: self.count.bytes - bytes };
        self.count = Count { records, bytes };
        if let (Some(first), Some(second)) = (&mut self.extent, &mut rest.extent) {
            first.records = records;
            second.skip += records;
            second.records -= records;
        }
        rest
    }
}

impl From<Count> for Pending {
    fn from(count: Count) -> Self {
        Self::gone(count)
    }
}

impl From<Pending> for Count {
    fn from(pending: Pending) -> Self {
        pending.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Records one after the other, `true` with an entry of another session in between.
    fn pending_of(gaps: &[bool]) -> (Pending, Vec<u64>) {
        let mut pending = Pending::default();
        let mut offset = 0;
        let mut offsets = Vec::new();
        for &gap in gaps {
            offset += if gap { 100 } else { 0 };
            pending.push(Place { file: FileNo(1), offset }, 60, 20, offset);
            offsets.push(offset);
            offset += 60;
        }
        (pending, offsets)
    }

    /// The offsets of the entries that a reader of these extents ends up with.
    fn offsets_read(pending: &Pending) -> Vec<u64> {
        let entries = |extent: Extent| {
            let all = (0..extent.len / 60).map(move |i| extent.place.offset + i * 60);
            all.skip(usize::try_from(extent.skip).expect("small"))
                .take(usize::try_from(extent.records).expect("small"))
        };
        pending.extents().flat_map(entries).collect()
    }

    proptest! {
        #[test]
        fn however_they_are_taken_out_every_record_comes_once_and_in_order(
            gaps in prop::collection::vec(any::<bool>(), 0..60),
            cuts in prop::collection::vec(0_u64..9, 0..60),
        ) {
            let (mut pending, offsets) = pending_of(&gaps);
            let mut read = Vec::new();
            for cut in cuts {
                let before = pending.total();
                match pending.take(cut) {
                    Some(taken) => {
                        prop_assert_eq!(taken.total() + pending.total(), before);
                        prop_assert_eq!(taken.total().records, cut);
                        read.extend(offsets_read(&taken));
                    }
                    None => prop_assert!(cut > before.records),
                }
            }
            let files = |pending: &Pending| {
                let mut files: Vec<_> = pending.extents().map(|extent| extent.place.file).collect();
                files.dedup();
                files
            };
            prop_assert_eq!(pending.files().collect::<Vec<_>>(), files(&pending));
            read.extend(offsets_read(&pending));
            prop_assert_eq!(read, offsets);
        }
    }

    #[test]
    fn a_segment_ends_with_the_extent_that_reaches_a_limit() {
        let (pending, _) = pending_of(&[false, false, true, false, true]);
        assert_eq!(pending.segment_records(1, 100), 2);
        assert_eq!(pending.segment_records(41, 100), 4);
        assert_eq!(pending.segment_records(1000, 3), 4);
        assert_eq!(pending.segment_records(1000, 100), 5);
    }

    #[test]
    fn an_extent_grows_to_its_limit_and_not_into_another_file() {
        let mut pending = Pending::default();
        for (file, offset) in
            [(1, 0), (1, EXTENT_MAX_BYTES - 60), (1, EXTENT_MAX_BYTES), (2, EXTENT_MAX_BYTES + 60)]
        {
            let len = if offset == 0 { EXTENT_MAX_BYTES - 60 } else { 60 };
            pending.push(Place { file: FileNo(file), offset }, len, 1, 0);
        }
        let lens: Vec<_> = pending.extents().map(|extent| (extent.place.file.0, extent.len)).collect();
        assert_eq!(lens, [(1, EXTENT_MAX_BYTES), (1, 60), (2, 60)]);
    }

    #[test]
    fn a_checkpoint_keeps_the_count_of_records_and_no_place() {
        let (pending, _) = pending_of(&[false, true, true]);
        let text = serde_json::to_string(&pending).expect("serializes");
        assert_eq!(text, r#"{"records":3,"bytes":60}"#);
        let mut back: Pending = serde_json::from_str(&text).expect("just written");
        assert_eq!((back.total(), back.gone_records(), back.files().next()), (pending.total(), 3, None));
        let taken = back.take(2).expect("there are three");
        assert_eq!((taken.gone_records(), back.gone_records()), (2, 1));
    }
}
