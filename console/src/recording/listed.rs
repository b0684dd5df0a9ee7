//! An object that the list of digests names, read so that what is passed on is what was compared.
//!
//! A store may answer the second time with something else. So what is short is read once and kept, and of what is long a
//! digest of each piece is: by these the second reading is held to the first, and memory is bounded for both.

use std::{
    io::{self, Read},
    path::Path,
    vec,
};

use weir_common::digest::Sha256;

use crate::{
    hashed::Hashed,
    store::{Object, StoreError},
};

/// Bytes that are kept at once. Most findings are shorter.
const PIECE_BYTES: usize = 256 << 10;
/// The most pieces: 256 MiB, the most that an agent can be told to store of findings.
const PIECES_MAX: usize = 1024;

/// Passes on an object that had the digest that is listed.
pub struct Listed<R = Object> {
    piece: Vec<u8>,
    at: usize,
    /// What is read a second time, and the digests that its further pieces had the first time.
    rest: Option<(R, vec::IntoIter<Sha256>)>,
}

impl<R: Read> Listed<R> {
    /// Reads an object and compares it; `None` if it does not have this digest, or is too long.
    pub(super) fn open(
        open: impl Fn() -> Result<R, StoreError>,
        expected: Sha256,
        path: &Path,
    ) -> Result<Option<Self>, StoreError> {
        let failed = |source| StoreError::Io { op: "read", path: path.to_owned(), source };
        let mut first = Hashed::new(open()?);
        let mut piece = Vec::new();
        let mut digests = Vec::new();
        while read_piece(&mut first, &mut piece).map_err(failed)? {
            if digests.len() == PIECES_MAX {
                return Ok(None);
            }
            digests.push(Sha256::of(&piece));
            if piece.len() < PIECE_BYTES {
                break;
            }
        }
        if first.finish().map_err(failed)?.sha256 != expected {
            return Ok(None);
        }
        let is_whole = digests.is_empty() || (digests.len() == 1 && !piece.is_empty());
        if is_whole {
            return Ok(Some(Self { piece, at: 0, rest: None }));
        }
        Ok(Some(Self { piece: Vec::new(), at: 0, rest: Some((open()?, digests.into_iter())) }))
    }

    fn next_piece(&mut self) -> io::Result<()> {
        let Some((source, digests)) = &mut self.rest else { return Ok(()) };
        self.at = 0;
        self.piece.clear();
        let Some(expected) = digests.next() else { return Ok(()) };
        read_piece(source, &mut self.piece)?;
        if Sha256::of(&self.piece) == expected {
            return Ok(());
        }
        (self.piece, self.rest) = (Vec::new(), None);
        Err(io::Error::new(io::ErrorKind::InvalidData, "it is not what it was when its digest was compared"))
    }
}

impl<R: Read> Read for Listed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            self.next_piece()?;
        }
        let read = (&self.piece[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

/// Whether there is one.
fn read_piece(source: &mut impl Read, piece: &mut Vec<u8>) -> io::Result<bool> {
    piece.clear();
    source.take(PIECE_BYTES as u64).read_to_end(piece)?;
    Ok(!piece.is_empty())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Opens `first` the first time, and then `second`, and counts how often.
    fn listed(first: &[u8], second: &[u8], expected: Sha256) -> (Option<Vec<u8>>, io::Result<()>, u32) {
        let opened = Cell::new(0);
        let open = || {
            opened.set(opened.get() + 1);
            Ok(if opened.get() == 1 { first } else { second })
        };
        let found = Listed::open(open, expected, Path::new("commands.ndjson")).expect("in memory");
        let Some(mut found) = found else { return (None, Ok(()), opened.get()) };
        let mut bytes = Vec::new();
        let read = found.read_to_end(&mut bytes).map(drop);
        (Some(bytes), read, opened.get())
    }

    fn object(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|n| u8::try_from(n % 251).expect("small")).collect()
    }

    #[test]
    fn what_is_short_is_read_once() {
        for bytes in [0, 1, PIECE_BYTES - 1] {
            let good = object(bytes);
            let (found, read, opened) = listed(&good, b"other", Sha256::of(&good));
            read.expect("it is in memory");
            assert_eq!((found, opened), (Some(good), 1));
        }
        assert_eq!(listed(b"other", b"good", Sha256::of(b"good")).0, None);
    }

    #[test]
    fn of_what_is_long_nothing_is_passed_on_that_was_not_compared() {
        let good = object(3 * PIECE_BYTES + 100);
        let sum = Sha256::of(&good);
        for at in [0, PIECE_BYTES, 3 * PIECE_BYTES + 99] {
            let mut other = good.clone();
            other[at] ^= 1;
            let (found, read, _) = listed(&good, &other, sum);
            let found = found.expect("it is listed");
            assert!(read.is_err() && good.starts_with(&found) && found.len() <= at);
            assert_eq!(listed(&other, &good, sum).0, None);
        }
        let piece = &good[..PIECE_BYTES];
        assert_eq!(listed(piece, piece, Sha256::of(piece)).0.as_deref(), Some(piece));
        let shorter = &good[..2 * PIECE_BYTES];
        assert!(listed(&good, shorter, sum).1.is_err());
        assert!(listed(&good, &[&good[..], b"more"].concat(), sum).1.is_err());
        let (found, read, opened) = listed(&good, &good, sum);
        read.expect("it is the same");
        assert_eq!((found, opened), (Some(good), 2));
    }

    #[test]
    fn what_is_longer_than_any_findings_is_not_taken() {
        struct Endless;
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                Ok(buffer.len())
            }
        }
        let found = Listed::open(|| Ok(Endless), Sha256::of(b""), Path::new("x")).expect("in memory");
        assert!(found.is_none());
    }
}
