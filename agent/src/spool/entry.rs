//! The spool's entries: their bytes, and reading them back from bytes that may be torn or altered.
//!
//! An entry is a 24-byte header, integers little endian, and its payload:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32C of everything behind this field, combined (xor) with the entry's offset in the file |
//! | 4 | 4 | bytes of the payload |
//! | 8 | 1 | [`Kind`] |
//! | 9 | 5 | the file's [`Mark`] |
//! | 14 | 2 | how many changes of state the file has before this entry (modulo 2¹⁶) |
//! | 16 | 8 | ring position up to which everything is in the spool, this entry included |
//!
//! Offset and mark bind an entry to its place. Users choose what records hold, so whoever looks for an entry behind damage
//! may come across bytes that were made to look like one: the mark is random and nobody outside the spool knows it, and a
//! copy of a whole entry lies somewhere else. The count tells whether a change of state is among what was damaged.
//!
//! The version before had zeros for mark and count and left the offset out: it refuses the kind with which a file begins
//! now, as this one refuses its files.
//!
//! Pure: no files here, and nothing about what a payload means.

use std::fmt;

/// Bytes of an entry's header.
pub const HEADER_LEN: usize = 24;
/// The most bytes of a payload: a session's state with tens of thousands of segments stays well below.
pub const PAYLOAD_MAX: usize = 64 * 1024 * 1024;

/// What an entry's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A record of the ring: its header and message, without the padding of its size class.
    Record = 1,
    /// A change of state, as JSON.
    State = 2,
    /// The state of one session where a file begins, as JSON.
    CheckpointSession = 4,
    /// The head of a file, as JSON: how many [`Kind::CheckpointSession`] entries follow. (3 in the version before.)
    Checkpoint = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Record, Self::State, Self::CheckpointSession, Self::Checkpoint]
            .into_iter()
            .find(|&kind| kind as u8 == byte)
    }
}

/// What the entries of one file have in common, and nothing else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark([u8; 5]);

impl Mark {
    /// Where it is in an entry.
    pub const OFFSET: usize = 9;

    /// One that nobody knows.
    #[must_use]
    pub fn random() -> Self {
        loop {
            let bytes: [u8; 5] = rand::random();
            if bytes != [0; 5] {
                return Self(bytes);
            }
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 5] {
        &self.0
    }
}

/// What an entry's header says of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The file's mark.
    pub mark: Mark,
    /// How many changes of state the file has before this entry, modulo 2¹⁶.
    pub states: u16,
}

impl Stamp {
    /// That of a new file's first entry.
    #[must_use]
    pub fn of_new_file() -> Self {
        Self { mark: Mark::random(), states: 0 }
    }

    /// That of the entry behind one of this kind.
    #[must_use]
    pub fn behind(self, kind: Kind) -> Self {
        Self { states: self.states.wrapping_add(u16::from(kind == Kind::State)), ..self }
    }
}

/// One entry. `Debug` shows no payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What the payload is.
    pub kind: Kind,
    /// Ring position up to which everything is in the spool, this entry included.
    pub position: u64,
    /// The payload.
    pub payload: &'a [u8],
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, position, payload } = self;
        write!(f, "Entry({kind:?} to {position}, {} bytes)", payload.len())
    }
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// They end before the entry does.
    #[error("the entry is cut off")]
    Short,
    /// They are not what was written.
    #[error("the entry's checksum does not match")]
    Checksum,
    /// Checksum right, and no mark.
    #[error("the entry is of the version before, which did not mark its files")]
    Unmarked,
    /// Checksum right, and still nothing this version knows.
    #[error("the entry is of an unknown kind ({found})")]
    UnknownKind {
        /// The kind byte.
        found: u8,
    },
}

impl<'a> Entry<'a> {
    /// The header that goes before the payload, where the entry begins at this offset of a file.
    ///
    /// # Errors
    /// [`PayloadTooLong`] past [`PAYLOAD_MAX`] bytes.
    pub fn header(&self, stamp: Stamp, offset: u64) -> Result<[u8; HEADER_LEN], PayloadTooLong> {
        let Self { kind, position, payload } = *self;
        let Stamp { mark, states } = stamp;
        let len = u32::try_from(payload.len()).ok().filter(|&len| len as usize <= PAYLOAD_MAX);
        let len = len.ok_or(PayloadTooLong { len: payload.len() })?;
        let mut bytes = [0; HEADER_LEN];
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        bytes[8] = kind as u8;
        bytes[Mark::OFFSET..14].copy_from_slice(mark.bytes());
        bytes[14..16].copy_from_slice(&states.to_le_bytes());
        bytes[16..].copy_from_slice(&position.to_le_bytes());
        let checksum = checksum(&bytes, payload, offset);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    /// Bytes of the whole entry.
    #[must_use]
    pub fn len(&self) -> u64 {
        (HEADER_LEN + self.payload.len()) as u64
    }

    /// Never: an entry has a header at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// How many bytes the entry at the beginning of `bytes` has, as far as they tell: its header's, if not even
    /// that is there.
    #[must_use]
    pub fn extent(bytes: &[u8]) -> usize {
        let Some(&[_, _, _, _, l0, l1, l2, l3, ..]) = bytes.first_chunk::<HEADER_LEN>() else {
            return HEADER_LEN;
        };
        HEADER_LEN + u32::from_le_bytes([l0, l1, l2, l3]) as usize
    }

    /// Whether an entry of this file may begin here, at a glance; of any file, if none is said.
    #[must_use]
    pub fn may_begin(bytes: &[u8], mark: Option<Mark>) -> bool {
        bytes.first_chunk::<HEADER_LEN>().is_some_and(|header| {
            let found = &header[Mark::OFFSET..14];
            let is_marked = mark.map_or(found != [0; 5], |mark| found == mark.bytes());
            is_marked && Kind::from_byte(header[8]).is_some()
        })
    }

    /// Reads the entry at the beginning of `bytes`, which lie at this offset of a file.
    ///
    /// # Errors
    /// [`BadEntry`] if they are not exactly what [`Self::header`] wrote for this place.
    pub fn decode(bytes: &'a [u8], offset: u64) -> Result<(Self, Stamp), BadEntry> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(BadEntry::Short)?;
        let [c0, c1, c2, c3, l0, l1, l2, l3, kind, m0, m1, m2, m3, m4, s0, s1, position @ ..] = *header;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if len > PAYLOAD_MAX {
            return Err(BadEntry::Checksum);
        }
        let payload = rest.get(..len).ok_or(BadEntry::Short)?;
        if checksum(header, payload, offset) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(BadEntry::Checksum);
        }
        let mark = Mark([m0, m1, m2, m3, m4]);
        if mark.bytes() == &[0; 5] {
            return Err(BadEntry::Unmarked);
        }
        let kind = Kind::from_byte(kind).ok_or(BadEntry::UnknownKind { found: kind })?;
        let stamp = Stamp { mark, states: u16::from_le_bytes([s0, s1]) };
        Ok((Self { kind, position: u64::from_le_bytes(position), payload }, stamp))
    }
}

/// At offset 0 what the version before had there, so that it can tell that it does not know the kind.
fn checksum(header: &[u8; HEADER_LEN], payload: &[u8], offset: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "what is 4 GiB away has another count or position")]
    let offset = offset as u32;
    crc32c::crc32c_append(crc32c::crc32c(&header[4..]), payload) ^ offset
}

/// A payload over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {len} bytes is over the spool's limit of {PAYLOAD_MAX}")]
pub struct PayloadTooLong {
    /// Its bytes.
    pub len: usize,
}

/// The entries of a file's bytes with their offsets, up to the end or to the first bad one.
#[derive(Clone)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    offset: usize,
    mark: Option<Mark>,
}

impl<'a> Entries<'a> {
    /// The entries of these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0, mark: None }
    }

    /// Where the next entry begins; after the iteration, how many bytes were good.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset as u64
    }

    /// Why the iteration ended before the end of the bytes; `None` if it did not.
    #[must_use]
    pub fn damage(&self) -> Option<BadEntry> {
        if self.offset == self.bytes.len() { None } else { self.decode().err() }
    }

    fn decode(&self) -> Result<(Entry<'a>, Mark), BadEntry> {
        let (entry, Stamp { mark, .. }) = Entry::decode(&self.bytes[self.offset..], self.offset as u64)?;
        match self.mark {
            Some(known) if known != mark => Err(BadEntry::Checksum),
            _ => Ok((entry, mark)),
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (u64, Entry<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (entry, mark) = self.decode().ok()?;
        let at = self.offset as u64;
        self.mark = Some(mark);
        self.offset += HEADER_LEN + entry.payload.len();
        Some((at, entry))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(entries: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let (mut bytes, stamp) = (Vec::new(), Stamp { mark: Mark(*b"12345"), states: 7 });
        for (position, payload) in entries {
            let entry = Entry { kind: Kind::Record, position: *position, payload };
            bytes.extend_from_slice(&entry.header(stamp, bytes.len() as u64).expect("short"));
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        Entries::new(bytes).map(|(_, entry)| (entry.position, entry.payload.to_vec())).collect()
    }

    fn some_entries() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
        prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..60)), 0..8)
    }

    proptest! {
        #[test]
        fn entries_read_back_as_they_were_written(entries in some_entries()) {
            let bytes = bytes_of(&entries);
            let mut reader = Entries::new(&bytes);
            prop_assert_eq!(reader.by_ref().count(), entries.len());
            prop_assert_eq!(reader.offset(), bytes.len() as u64);
            prop_assert_eq!(reader.damage(), None);
            prop_assert_eq!(read(&bytes), entries);
        }

        #[test]
        fn cut_at_any_byte_exactly_the_whole_entries_before_the_cut_are_read(entries in some_entries()) {
            let bytes = bytes_of(&entries);
            let mut ends = vec![0];
            for (_, payload) in &entries {
                ends.push(ends[ends.len() - 1] + HEADER_LEN + payload.len());
            }
            for cut in 0..=bytes.len() {
                let whole = ends.iter().filter(|&&end| end <= cut).count() - 1;
                let mut reader = Entries::new(&bytes[..cut]);
                prop_assert_eq!(reader.by_ref().count(), whole);
                prop_assert_eq!(reader.offset(), ends[whole] as u64);
                prop_assert_eq!(reader.damage().is_some(), ends[whole] != cut);
            }
        }

        #[test]
        fn a_flipped_bit_ends_the_reading_before_the_entry_it_is_in(
            entries in some_entries(), byte: prop::sample::Index, bit in 0_u8..8,
        ) {
            let mut bytes = bytes_of(&entries);
            prop_assume!(!bytes.is_empty());
            let byte = byte.index(bytes.len());
            bytes[byte] ^= 1 << bit;
            let mut end = 0;
            let untouched = entries.iter().take_while(|(_, payload)| {
                end += HEADER_LEN + payload.len();
                end <= byte
            });
            prop_assert_eq!(read(&bytes), untouched.cloned().collect::<Vec<_>>());
            prop_assert!(Entries::new(&bytes).damage().is_some() || byte >= HEADER_LEN);
        }
    }

    #[test]
    fn zeros_where_a_crash_left_the_file_longer_than_its_data_are_no_entry() {
        assert_eq!(Entry::decode(&[0; 100], 0), Err(BadEntry::Checksum));
    }

    #[test]
    fn an_entry_is_one_only_where_it_was_written_and_in_its_own_file() {
        let entry = Entry { kind: Kind::State, position: 9, payload: b"{}" };
        let stamp = Stamp::of_new_file();
        let bytes = [&entry.header(stamp, 50).expect("short")[..], b"{}"].concat();
        assert_eq!(Entry::decode(&bytes, 50), Ok((entry, stamp)));
        assert_eq!(Entry::decode(&bytes, 51), Err(BadEntry::Checksum));
        assert_eq!(stamp.behind(Kind::State), Stamp { states: 1, ..stamp });
        let mut two = bytes_of(&[(1, vec![1; 9])]);
        let at = two.len() as u64;
        two.extend_from_slice(&entry.header(stamp, at).expect("short"));
        two.extend_from_slice(b"{}");
        let mut entries = Entries::new(&two);
        assert_eq!(entries.by_ref().count(), 1, "the other has another mark");
        assert_eq!((entries.offset(), entries.damage()), (at, Some(BadEntry::Checksum)));
    }

    #[test]
    fn this_version_and_the_one_before_refuse_each_others_files_plainly() {
        let head = |kind: u8, mark: &[u8; 5]| {
            let mut header = [0; HEADER_LEN];
            header[8] = kind;
            header[Mark::OFFSET..14].copy_from_slice(mark);
            let checksum = crc32c::crc32c(&header[4..]);
            header[..4].copy_from_slice(&checksum.to_le_bytes());
            header
        };
        assert_eq!(Entry::decode(&head(3, &[0; 5]), 0), Err(BadEntry::Unmarked));
        // The one before looks at the checksum and then at the kind, of which it knows 1 to 4.
        let ours = Entry { kind: Kind::Checkpoint, position: 0, payload: &[] };
        let stamp = Stamp { mark: Mark(*b"12345"), states: 0 };
        assert_eq!(ours.header(stamp, 0), Ok(head(5, b"12345")));
    }
}
