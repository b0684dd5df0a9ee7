//! Reading a spool file entry by entry, in bounded memory, and going on behind damage.
//!
//! A piece of the file at a time; no more than the largest entry is held. What a file ends with, and what of
//! it is no entry, is told as [`Entries`](super::entry::Entries) tells it. Behind damage the next entry is looked for by the
//! file's mark, which nobody can put into a record; the work of that is linear in what is passed, whatever lies there.

use std::io::{self, ErrorKind, Read};

use super::entry::{BadEntry, Entry, HEADER_LEN, Mark, PAYLOAD_MAX, Stamp};

/// How much is read at a time: little enough to stay in the processor's cache until it is looked at.
const PIECE_BYTES: usize = 256 * 1024;
/// How many bytes may be checked for a checksum while an entry is looked for: these, and [`CHECKED_PER_BYTE`] for each that is passed.
const CHECKED_BYTES: u64 = 8 * 1024 * 1024;
/// Entries lie one behind the other, so that each byte is checked about once where nothing but damage is.
const CHECKED_PER_BYTE: u64 = 4;
/// From so many bytes on the count in the entries may have come round: no change of state is shorter than a header.
const STRETCH_MAX: u64 = (1 << 16) * HEADER_LEN as u64;

/// The entries of a file with their offsets, up to its end or to the first bad one.
pub struct Reader<R> {
    source: R,
    buffer: Vec<u8>,
    /// What of the buffer was read and not handed out yet.
    unread: std::ops::Range<usize>,
    /// Where in the file that begins.
    offset: u64,
    /// What the next entry's header should say.
    stamp: Option<Stamp>,
    damage: Option<BadEntry>,
    checked: u64,
}

/// What lies behind damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// An entry of this file, which is the next.
    Entry {
        /// Where it begins.
        offset: u64,
        /// Whether changes of state may be among what was passed.
        states_missing: bool,
    },
    /// Nothing up to the end of the file.
    Nothing,
    /// Something that would take too much work to be sure of.
    Unsure,
}

impl<R: Read> Reader<R> {
    /// Reads from here, at the beginning of a file.
    pub fn new(source: R) -> Self {
        let buffer = vec![0; PIECE_BYTES];
        Self { source, buffer, unread: 0..0, offset: 0, stamp: None, damage: None, checked: 0 }
    }

    /// The next entry and where it begins; `None` at the end of what is good.
    ///
    /// # Errors
    /// Whatever reading fails with.
    #[expect(clippy::should_implement_trait, reason = "the entry borrows the buffer, as an iterator's can't")]
    pub fn next(&mut self) -> io::Result<Option<(u64, Entry<'_>)>> {
        if self.damage.is_some() {
            return Ok(None);
        }
        self.have(HEADER_LEN)?;
        // One that says it is longer than any is cannot be read, and decoding says so without its payload.
        let extent = Entry::extent(&self.buffer[self.unread.clone()]);
        if extent <= HEADER_LEN + PAYLOAD_MAX {
            self.have(extent)?;
        }
        if self.unread.is_empty() {
            return Ok(None);
        }
        let (at, begin) = (self.offset, self.unread.start);
        match Entry::decode(&self.buffer[self.unread.clone()], at) {
            Ok((entry, stamp)) if self.stamp.is_none_or(|known| known.mark == stamp.mark) => {
                self.unread.start = begin + HEADER_LEN + entry.payload.len();
                self.offset += entry.len();
                self.stamp = Some(stamp.behind(entry.kind));
                Ok(Some((at, entry)))
            }
            Ok(_) => {
                self.damage = Some(BadEntry::Checksum);
                Ok(None)
            }
            Err(bad) => {
                self.damage = Some(bad);
                Ok(None)
            }
        }
    }

    /// Looks for the next entry behind the damage that the reading ended with, and goes on there if there is one.
    ///
    /// Where no entry was read before it, and so the file's mark is not known, whatever looks like an entry in its place is
    /// found; what that says must not be believed.
    ///
    /// # Errors
    /// Whatever reading fails with.
    pub fn resume(&mut self) -> io::Result<Behind> {
        let (from, mut unsure) = (self.offset, false);
        let mark = self.stamp.map(|stamp| stamp.mark);
        self.pass(1);
        loop {
            self.have(HEADER_LEN)?;
            let unread = &self.buffer[self.unread.clone()];
            if unread.len() < HEADER_LEN {
                return Ok(if unsure { Behind::Unsure } else { Behind::Nothing });
            }
            let Some(at) = find(unread, mark) else {
                self.pass(unread.len() - (HEADER_LEN - 1));
                continue;
            };
            self.pass(at);
            let extent = Entry::extent(&self.buffer[self.unread.clone()]);
            let allowed = CHECKED_BYTES + CHECKED_PER_BYTE * (self.offset - from);
            if extent <= HEADER_LEN + PAYLOAD_MAX && self.checked + extent as u64 > allowed {
                unsure = true;
            } else if extent <= HEADER_LEN + PAYLOAD_MAX {
                self.have(extent)?;
                self.checked += extent.min(self.unread.len()) as u64;
                match Entry::decode(&self.buffer[self.unread.clone()], self.offset) {
                    Ok((_, Stamp { mark, states })) => {
                        let expected = self.stamp.replace(Stamp { mark, states });
                        self.damage = None;
                        let states_missing = expected.is_none_or(|expected| expected.states != states)
                            || self.offset - from >= STRETCH_MAX;
                        return Ok(Behind::Entry { offset: self.offset, states_missing });
                    }
                    // Not for this version to pass over.
                    Err(unknown @ BadEntry::UnknownKind { .. }) => {
                        self.damage = Some(unknown);
                        return Ok(Behind::Unsure);
                    }
                    Err(_) => {}
                }
            }
            self.pass(1);
        }
    }

    /// Where the next entry begins; at the end, how many bytes were good.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What the header of an entry behind the last good one would say; `None` if there is no good one.
    pub fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// Why the reading ended before the end of the file; `None` if it did not.
    pub fn damage(&self) -> Option<BadEntry> {
        self.damage
    }

    /// How many bytes were checked for a checksum while entries were looked for behind damage.
    pub fn checked_bytes(&self) -> u64 {
        self.checked
    }

    fn pass(&mut self, bytes: usize) {
        let bytes = bytes.min(self.unread.len());
        self.unread.start += bytes;
        self.offset += bytes as u64;
    }

    /// Reads until so many bytes are there, or the file ends.
    fn have(&mut self, bytes: usize) -> io::Result<()> {
        if self.unread.len() >= bytes {
            return Ok(());
        }
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        while self.unread.end < bytes {
            match self.source.read(&mut self.buffer[self.unread.end..]) {
                Ok(0) => break,
                Ok(read) => self.unread.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Where in these bytes an entry may begin, at a glance.
fn find(bytes: &[u8], mark: Option<Mark>) -> Option<usize> {
    (0..=bytes.len() - HEADER_LEN).find(|&at| Entry::may_begin(&bytes[at..], mark))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::entry::{Entries, Kind},
        *,
    };

    /// A source that gives a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let most = self.1.min(into.len());
            self.0.read(&mut into[..most])
        }
    }

    /// Positions, lengths and offsets of what is read, how far that went, and why no further.
    type Read_ = (Vec<(u64, u64, usize)>, u64, Option<BadEntry>);

    fn read(source: impl Read) -> Read_ {
        let mut reader = Reader::new(source);
        let mut entries = Vec::new();
        while let Some((at, entry)) = reader.next().expect("readable") {
            entries.push((at, entry.position, entry.payload.len()));
        }
        (entries, reader.offset(), reader.damage())
    }

    fn expected(bytes: &[u8]) -> Read_ {
        let mut reader = Entries::new(bytes);
        let entries = reader.by_ref().map(|(at, entry)| (at, entry.position, entry.payload.len())).collect();
        (entries, reader.offset(), reader.damage())
    }

    fn append(bytes: &mut Vec<u8>, stamp: &mut Stamp, kind: Kind, payload: &[u8]) {
        let entry = Entry { kind, position: bytes.len() as u64, payload };
        bytes.extend_from_slice(&entry.header(*stamp, bytes.len() as u64).expect("short"));
        bytes.extend_from_slice(payload);
        *stamp = stamp.behind(kind);
    }

    /// Records with payloads of these lengths.
    fn records(lens: &[usize]) -> Vec<u8> {
        let (mut bytes, mut stamp) = (Vec::new(), Stamp::of_new_file());
        lens.iter().for_each(|&len| append(&mut bytes, &mut stamp, Kind::Record, &vec![7; len]));
        bytes
    }

    proptest! {
        #[test]
        fn whole_cut_or_damaged_a_file_reads_as_its_bytes_do(
            lens in prop::collection::vec(0_usize..200, 0..8),
            cut in any::<prop::sample::Index>(),
            flip in prop::option::of(any::<prop::sample::Index>()),
            step in 1_usize..300,
        ) {
            let mut bytes = records(&lens);
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Some(flip) = flip.filter(|_| !bytes.is_empty()) {
                let at = flip.index(bytes.len());
                bytes[at] ^= 0x41;
            }
            prop_assert_eq!(read(Trickle(&bytes, step)), expected(&bytes));
        }

        #[test]
        fn behind_damage_every_whole_entry_is_found_and_whether_a_change_of_state_was_hit_is_told(
            kinds in prop::collection::vec((any::<bool>(), 0_usize..90), 2..9),
            begin in any::<prop::sample::Index>(), len in 1_usize..120, step in 1_usize..300,
        ) {
            let (mut bytes, mut stamp, mut ends) = (Vec::new(), Stamp::of_new_file(), Vec::new());
            for &(is_state, len) in &kinds {
                let kind = if is_state { Kind::State } else { Kind::Record };
                append(&mut bytes, &mut stamp, kind, &vec![7; len]);
                ends.push(bytes.len());
            }
            // The first entry stays whole: it says the mark.
            let begin = ends[0] + begin.index(bytes.len() - ends[0]);
            let end = bytes.len().min(begin + len);
            bytes[begin..end].iter_mut().for_each(|byte| *byte ^= 0x55);
            let begins: Vec<_> = std::iter::once(0).chain(ends.iter().copied()).collect();
            let whole = |number: &usize| ends[*number] <= begin || begins[*number] >= end;
            let hit: Vec<_> = (0..kinds.len()).filter(|number| !whole(number)).collect();
            let mut reader = Reader::new(Trickle(&bytes, step));
            let (mut found, mut behind) = (Vec::new(), None);
            loop {
                while let Some((at, _)) = reader.next().expect("readable") {
                    found.push(usize::try_from(at).expect("small"));
                }
                if reader.damage().is_none() {
                    break;
                }
                behind = Some(reader.resume().expect("readable"));
                if behind == Some(Behind::Nothing) {
                    break;
                }
            }
            let expected: Vec<_> = (0..kinds.len()).filter(whole).map(|number| begins[number]).collect();
            prop_assert_eq!(found, expected);
            let last = *hit.last().expect("one is hit");
            let expected = if last + 1 == kinds.len() { Behind::Nothing } else {
                let states_missing = hit.iter().any(|&number| kinds[number].0);
                Behind::Entry { offset: begins[last + 1] as u64, states_missing }
            };
            prop_assert_eq!(behind, Some(expected));
        }
    }

    #[test]
    fn entries_larger_than_a_piece_are_read_among_small_ones() {
        let bytes = records(&[1, PIECE_BYTES, 3 * PIECE_BYTES + 5, 0, 9]);
        assert_eq!(read(&bytes[..]), expected(&bytes));
        assert_eq!(expected(&bytes).0.len(), 5);
    }

    #[test]
    fn what_a_record_holds_is_no_entry_however_much_it_looks_like_one() {
        let (mut bytes, mut stamp) = (Vec::new(), Stamp::of_new_file());
        append(&mut bytes, &mut stamp, Kind::Record, b"whole");
        let at = bytes.len();
        // Made without the file's mark, for exactly the place where it will lie; and a copy of a whole entry.
        let forged = Entry { kind: Kind::State, position: 0, payload: b"{}" };
        let place = (at + HEADER_LEN) as u64;
        let mut payload = forged.header(Stamp::of_new_file(), place).expect("short").to_vec();
        payload.extend_from_slice(b"{}");
        payload.extend_from_slice(&bytes);
        append(&mut bytes, &mut stamp, Kind::Record, &payload);
        let behind = bytes.len() as u64;
        append(&mut bytes, &mut stamp, Kind::Record, b"behind");
        bytes[at] ^= 1;
        let mut reader = Reader::new(&bytes[..]);
        while reader.next().expect("readable").is_some() {}
        let found = reader.resume().expect("readable");
        assert_eq!(found, Behind::Entry { offset: behind, states_missing: false });
    }

    #[test]
    fn looking_for_an_entry_takes_work_that_is_linear_in_what_is_passed_whatever_lies_there() {
        const BYTES: u64 = 4 << 20;
        let (mut bytes, mut stamp) = (Vec::new(), Stamp::of_new_file());
        append(&mut bytes, &mut stamp, Kind::Record, b"whole");
        // Headers of this very file, one behind the other, each with half of the file for its payload.
        let header = Entry { kind: Kind::Record, position: 0, payload: &vec![0; 2 << 20] };
        let header = header.header(stamp, 0).expect("short");
        while (bytes.len() as u64) < BYTES {
            bytes.extend_from_slice(&header);
        }
        for behind in [&b""[..], b"found"] {
            let mut bytes = bytes.clone();
            if !behind.is_empty() {
                append(&mut bytes, &mut stamp, Kind::Record, behind);
            }
            let mut reader = Reader::new(&bytes[..]);
            while reader.next().expect("readable").is_some() {}
            let found = reader.resume().expect("readable");
            // It may lie behind so much of the like that it is not looked at, but then that is told.
            assert!(matches!(found, Behind::Unsure | Behind::Entry { .. }), "{found:?}");
            let bound = CHECKED_BYTES + CHECKED_PER_BYTE * BYTES;
            assert!(reader.checked_bytes() <= bound, "{} bytes", reader.checked_bytes());
        }
    }
}
