//! Records that are in the spool and not yet in a stored segment.
//!
//! Owns their order and their number: whatever is taken out for a segment are the oldest ones, exactly as
//! many as asked for. Where the spool file they were in is gone or unreadable they are *gone*: counted, with
//! no place to read them from. A checkpoint keeps the count only, so that all it holds are gone records; the
//! log behind it says which of them were sealed, and what is left over then was lost.

use std::{collections::VecDeque, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};
use weir_common::recording::Count;

use super::runs::{Chunk, Spooled};
pub use super::runs::{EXTENT_MAX_BYTES, Extent};
use crate::spool::{FileNo, Place};

/// Records waiting for a segment, oldest first.
///
/// A clone shares what says where they lie, for as long as neither is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Count")]
pub struct Pending {
    stretches: VecDeque<Stretch>,
    total: Count,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stretch {
    Gone(Count),
    Spooled(Arc<Chunk>),
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
        let gone = |stretch: &Stretch| match stretch {
            Stretch::Gone(count) => count.records,
            Stretch::Spooled(_) => 0,
        };
        self.stretches.iter().map(gone).fold(0, u64::saturating_add)
    }

    /// Kernel time of the oldest one, as far as it is known; 0 for one that is gone.
    #[must_use]
    pub fn oldest_boot_ns(&self) -> Option<u64> {
        self.stretches.iter().find_map(|stretch| match stretch {
            Stretch::Gone(count) => (count.records > 0).then_some(0),
            Stretch::Spooled(chunk) => Some(chunk.first_boot_ns()),
        })
    }

    /// The spool files that are needed for them, in order.
    pub fn files(&self) -> impl Iterator<Item = FileNo> {
        let mut last = None;
        self.chunks().map(Chunk::file).filter(move |&file| last.replace(file) != Some(file))
    }

    /// The extents to read, in order.
    pub fn extents(&self) -> impl Iterator<Item = Extent> {
        self.chunks().flat_map(Chunk::extents)
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.stretches.iter().filter_map(|stretch| match stretch {
            Stretch::Gone(_) => None,
            Stretch::Spooled(chunk) => Some(&**chunk),
        })
    }

    /// Adds the newest record: an entry of `entry_len` bytes at `place` with a message of `message_len`
    /// bytes.
    pub fn push(&mut self, place: Place, entry_len: u64, message_len: u64, boot_ns: u64) {
        self.total.add(message_len);
        let entry = Spooled::new(place, entry_len, message_len, boot_ns);
        if let Some(Stretch::Spooled(chunk)) = self.stretches.back_mut()
            && Arc::make_mut(chunk).push(entry)
        {
            return;
        }
        self.stretches.push_back(Stretch::Spooled(Arc::new(Chunk::new(entry))));
    }

    /// Adds records that cannot be read.
    pub fn push_gone(&mut self, count: Count) {
        if count.records > 0 {
            self.total = self.total + count;
            self.stretches.push_back(Stretch::Gone(count));
        }
    }

    /// From here on some may be missing; how many becomes known later.
    pub fn mark_loss(&mut self) {
        if !matches!(self.stretches.back(), Some(Stretch::Gone(_))) {
            self.stretches.push_back(Stretch::Gone(Count::default()));
        }
    }

    /// Adds records that cannot be read, where that was marked last; else they are the oldest.
    pub fn fill_loss(&mut self, records: u64) {
        let count = Count { records, bytes: 0 };
        let marked = self.stretches.iter_mut().rev().find_map(|stretch| match stretch {
            Stretch::Gone(count) => Some(count),
            Stretch::Spooled(_) => None,
        });
        match marked {
            Some(gone) => *gone = *gone + count,
            None if records > 0 => self.stretches.push_front(Stretch::Gone(count)),
            None => {}
        }
        self.total = self.total + count;
    }

    /// Adds records that are all newer.
    pub fn append(&mut self, newer: Self) {
        self.total = self.total + newer.total;
        self.stretches.extend(newer.stretches);
    }

    /// How many of the oldest records make a segment: whole extents up to the first that reaches a limit.
    #[must_use]
    pub fn segment_records(&self, max_bytes: u64, max_records: u64) -> u64 {
        let mut sum = Count::default();
        for stretch in &self.stretches {
            let (gone, spooled) = match stretch {
                Stretch::Gone(count) => (Some(*count), None),
                Stretch::Spooled(chunk) => (None, Some(chunk.counts())),
            };
            for count in gone.into_iter().chain(spooled.into_iter().flatten()) {
                sum = sum + count;
                if sum.bytes >= max_bytes || sum.records >= max_records {
                    return sum.records;
                }
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
            let mut stretch = self.stretches.pop_front()?;
            if let Some(rest) = stretch.split_off(records - taken.total.records) {
                self.stretches.push_front(rest);
            }
            taken.total = taken.total + stretch.count();
            taken.stretches.push_back(stretch);
        }
        // A checkpoint says how many there are without a place, and may say more than can be added up.
        self.total.records = self.total.records.saturating_sub(taken.total.records);
        self.total.bytes = self.total.bytes.saturating_sub(taken.total.bytes);
        Some(taken)
    }
}

impl Stretch {
    fn count(&self) -> Count {
        match self {
            Self::Gone(count) => *count,
            Self::Spooled(chunk) => chunk.count(),
        }
    }

    /// Keeps the first `records`, which are one at least, and returns the rest, if any is left.
    fn split_off(&mut self, records: u64) -> Option<Self> {
        match self {
            Self::Gone(count) if count.records <= records => None,
            Self::Gone(count) => {
                let bytes = count.bytes / count.records * records;
                let rest = Count { records: count.records - records, bytes: count.bytes - bytes };
                *count = Count { records, bytes };
                Some(Self::Gone(rest))
            }
            Self::Spooled(chunk) => {
                Arc::make_mut(chunk).split_off(records).map(|rest| Self::Spooled(Arc::new(rest)))
            }
        }
    }
}

impl From<Count> for Pending {
    fn from(count: Count) -> Self {
        Self::gone(count)
    }
}

impl Serialize for Pending {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.total.serialize(serializer)
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
    fn the_oldest_ones_time_is_known_to_the_microsecond_wherever_they_are_cut() {
        let mut pending = Pending::default();
        // Apart in the spool and over an hour in time, now and then a little out of order.
        let time = |number: u64| 5_000_000_000 + number * 1_234_567_891 - number % 7 * 1_000_000;
        for number in 0..4_000 {
            pending.push(Place { file: FileNo(1), offset: number * 8_000_000 }, 60, 20, time(number));
        }
        for number in (0..4_000).step_by(37) {
            let oldest = pending.oldest_boot_ns().expect("some are left");
            assert!((0..1_000).contains(&(time(number) - oldest)), "record {number}");
            let offset = pending.extents().next().map(|extent| extent.place.offset);
            assert_eq!(offset, Some(number * 8_000_000));
            let _taken = pending.take(37);
        }
    }

    #[test]
    fn what_was_taken_stays_as_it_is_when_what_is_left_or_a_clone_goes_on() {
        let (mut pending, offsets) = pending_of(&[false; 9]);
        let clone = pending.clone();
        let taken = pending.take(4).expect("there are nine");
        pending.push(Place { file: FileNo(1), offset: 540 }, 60, 20, 0);
        assert_eq!(offsets_read(&clone), offsets);
        assert_eq!(offsets_read(&taken), offsets[..4]);
        assert_eq!(offsets_read(&pending), [&offsets[4..], &[540]].concat());
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
