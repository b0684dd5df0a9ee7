//! Objects that the store has already, with the same content in other bytes.
//!
//! The same records compress to other bytes where another version of the compressor did it: an agent stored
//! a segment, was killed before it noted that, and was replaced by the next version. What is in the store is
//! never overwritten, so it has to be taken as it is, if its content is that of the segment.
//!
//! Owns the bounds against what may lie there: no more is read than the content could be compressed to, and
//! no more decompressed than it has. Not here: reading it (`store`).

use std::io::{self, Read};

use weir_common::recording::{SEGMENT_BULK_MAX, SEGMENT_NDJSON_MAX};
use zstd::zstd_safe::compress_bound;

/// The largest window of a zstd frame, as a power of two: readers of recordings refuse larger ones.
pub(crate) const WINDOW_LOG_MAX: u32 = 25;
/// How much is compared at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// The end of the names of compressed objects.
const COMPRESSED: &str = ".zst";

/// Whether an object of this name can have the same content in other bytes.
#[must_use]
pub fn is_adoptable(name: &str) -> bool {
    name.ends_with(COMPRESSED)
}

/// The most bytes that an object with the content of `ours`, a zstd frame, may have.
///
/// # Errors
/// The decompressor's.
pub fn most_bytes(ours: &[u8]) -> io::Result<u64> {
    let content = io::copy(&mut zstd::Decoder::new(ours)?, &mut io::sink())?;
    let bound = usize::try_from(content).map_or(u64::MAX, |content| compress_bound(content) as u64);
    Ok(bound.min(SEGMENT_NDJSON_MAX.max(SEGMENT_BULK_MAX)))
}

/// Whether `theirs` is zstd with the content of `ours`.
///
/// # Errors
/// The decompressor's on `ours`.
pub fn same_content(ours: &[u8], theirs: &[u8]) -> io::Result<bool> {
    let mut ours = zstd::Decoder::new(ours)?;
    let Ok(mut theirs) = zstd::Decoder::new(theirs) else { return Ok(false) };
    theirs.window_log_max(WINDOW_LOG_MAX)?;
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    loop {
        chunk(&mut ours, &mut expected)?;
        if chunk(&mut theirs, &mut found).is_err() || found != expected {
            return Ok(false);
        }
        if expected.is_empty() {
            return Ok(true);
        }
    }
}

/// The next bytes; less than a chunk, or none, only at the end.
fn chunk(from: &mut impl Read, into: &mut Vec<u8>) -> io::Result<()> {
    into.clear();
    from.take(CHUNK_BYTES as u64).read_to_end(into).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from(at * at % 251).expect("small")).collect()
    }

    fn compressed(content: &[u8], level: i32) -> Vec<u8> {
        zstd::encode_all(content, level).expect("compresses")
    }

    #[test]
    fn the_same_content_is_recognised_whatever_compressed_it_and_no_other() {
        for len in [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 7] {
            let plain = content(len);
            let ours = compressed(&plain, 3);
            for level in [1, 3, 19] {
                let theirs = compressed(&plain, level);
                assert!(same_content(&ours, &theirs).expect("readable"), "{len} at {level}");
                assert!(theirs.len() as u64 <= most_bytes(&ours).expect("readable"));
            }
            let mut longer = plain.clone();
            longer.push(0);
            assert!(!same_content(&ours, &compressed(&longer, 3)).expect("readable"), "{len}");
            assert!(!same_content(&compressed(&longer, 3), &ours).expect("readable"), "{len}");
            longer[len / 2] ^= 1;
            assert!(!same_content(&ours, &compressed(&longer[..len.max(1)], 3)).expect("readable"), "{len}");
            assert!(!same_content(&ours, &ours[..ours.len() - 1]).expect("readable"), "{len}");
        }
        assert!(!same_content(&compressed(b"said", 3), b"said").expect("readable"), "not even zstd");
    }

    #[test]
    fn a_bomb_is_given_up_where_it_differs() {
        let ours = compressed(b"said", 3);
        let bomb = compressed(&vec![0; 64 * 1024 * 1024], 19);
        assert!(!same_content(&ours, &bomb).expect("readable"));
        assert!(most_bytes(&ours).expect("readable") < 1000);
    }
}
