//! A reader that computes the digest of what goes through it, so that what is judged is what was digested.

use std::io::{self, Read};

use sha2::Digest;
use weir_common::digest::Sha256;

/// Bytes that are read at once where a whole object is gone through.
pub const READ_BYTES: usize = 64 * 1024;

/// Digest and length of an object as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its digest.
    pub sha256: Sha256,
    /// Its bytes.
    pub bytes: u64,
}

/// Passes bytes on and digests them.
pub struct Hashed<R> {
    inner: R,
    hasher: sha2::Sha256,
    bytes: u64,
}

impl<R: Read> Hashed<R> {
    /// Starts at this reader's position.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: sha2::Sha256::new(), bytes: 0 }
    }

    /// Reads whatever is left and says what the whole was.
    ///
    /// # Errors
    /// If it can't be read to its end.
    pub fn finish(mut self) -> io::Result<Stored> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(Stored { sha256: self.hasher.into(), bytes: self.bytes }),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_the_whole_however_much_of_it_was_read_before() {
        let bytes = vec![7; 300_000];
        let mut hashed = Hashed::new(&bytes[..]);
        hashed.read_exact(&mut [0; 1000]).expect("in memory");
        assert_eq!(
            hashed.finish().expect("in memory"),
            Stored { sha256: Sha256::of(&bytes), bytes: 300_000 }
        );
    }
}
