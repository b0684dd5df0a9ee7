//! Reading a spool file entry by entry, in bounded memory.
//!
//! A piece of the file at a time; no more than the largest entry is held. What a file ends with, and what of
//! it is no entry, is told as [`Entries`](super::entry::Entries) tells it.

use std::io::{self, ErrorKind, Read};

use super::entry::{BadEntry, Entry, HEADER_LEN, PAYLOAD_MAX};

/// How much is read at a time: little enough to stay in the processor's cache until it is looked at.
const PIECE_BYTES: usize = 256 * 1024;

/// The entries of a file with their offsets, up to its end or to the first bad one.
pub struct Reader<R> {
    source: R,
    buffer: Vec<u8>,
    /// What of the buffer was read and not handed out yet.
    unread: std::ops::Range<usize>,
    /// Where in the file that begins.
    offset: u64,
    damage: Option<BadEntry>,
}

impl<R: Read> Reader<R> {
    /// Reads from here, at the beginning of a file.
    pub fn new(source: R) -> Self {
        Self { source, buffer: vec![0; PIECE_BYTES], unread: 0..0, offset: 0, damage: None }
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
        match Entry::decode(&self.buffer[self.unread.clone()]) {
            Ok(entry) => {
                self.unread.start = begin + HEADER_LEN + entry.payload.len();
                self.offset += entry.len();
                Ok(Some((at, entry)))
            }
            Err(bad) => {
                self.damage = Some(bad);
                Ok(None)
            }
        }
    }

    /// Where the next entry begins; at the end, how many bytes were good.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Why the reading ended before the end of the file; `None` if it did not.
    pub fn damage(&self) -> Option<BadEntry> {
        self.damage
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

    fn append(bytes: &mut Vec<u8>, payload: &[u8]) {
        let entry = Entry { kind: Kind::Record, position: bytes.len() as u64, payload };
        bytes.extend_from_slice(&entry.header().expect("short"));
        bytes.extend_from_slice(payload);
    }

    proptest! {
        #[test]
        fn whole_cut_or_damaged_a_file_reads_as_its_bytes_do(
            lens in prop::collection::vec(0_usize..200, 0..8),
            cut in any::<prop::sample::Index>(),
            flip in prop::option::of(any::<prop::sample::Index>()),
            step in 1_usize..300,
        ) {
            let mut bytes = Vec::new();
            lens.iter().for_each(|&len| append(&mut bytes, &vec![7; len]));
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Some(flip) = flip.filter(|_| !bytes.is_empty()) {
                let at = flip.index(bytes.len());
                bytes[at] ^= 0x41;
            }
            prop_assert_eq!(read(Trickle(&bytes, step)), expected(&bytes));
        }
    }

    #[test]
    fn entries_larger_than_a_piece_are_read_among_small_ones() {
        let mut bytes = Vec::new();
        for len in [1, PIECE_BYTES, 3 * PIECE_BYTES + 5, 0, 9] {
            append(&mut bytes, &vec![len.to_le_bytes()[0]; len]);
        }
        assert_eq!(read(&bytes[..]), expected(&bytes));
        assert_eq!(expected(&bytes).0.len(), 5);
    }
}
