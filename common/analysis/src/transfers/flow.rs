//! Content that goes one way: how much, in which order, and its digest under way.

use serde::{Deserialize, Serialize};
use weir_common::{digest::Sha256, recording::findings::Transferred};

use super::{Chunk, hash::Hash, lost::Lost};

/// One file's content in one direction, as far as it went.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Flow {
    bytes: u64,
    /// The offset behind the last byte.
    next: u64,
    in_order: bool,
    recorded: bool,
    digest: Digest,
}

/// What is known of the digest.
#[derive(Clone, Serialize, Deserialize)]
enum Digest {
    Hashing(Hash),
    /// Told by a recording that does not hold the bytes.
    Told(Sha256),
}

impl Flow {
    /// Before the first byte. Not in order: the digest is not that of a file from its first byte on, whatever goes.
    pub(super) fn new(in_order: bool) -> Self {
        Self { bytes: 0, next: 0, in_order, recorded: true, digest: Digest::Hashing(Hash::default()) }
    }

    /// What comes next is said to belong at this offset.
    pub(super) fn at(&mut self, offset: u64) {
        self.in_order &= offset == self.next;
        self.next = offset;
    }

    /// The next bytes.
    pub(super) fn take(&mut self, chunk: Chunk<'_>) -> Result<(), Lost> {
        match (&mut self.digest, chunk) {
            (Digest::Hashing(hash), Chunk::Bytes(bytes)) => hash.update(bytes),
            (Digest::Told(_), Chunk::Bytes([])) => {}
            (Digest::Told(_), Chunk::Bytes(_)) => return Err(Lost::Withheld),
            (digest, Chunk::Withheld { sha256, .. }) => {
                *digest = Digest::Told(sha256);
                self.recorded = false;
            }
        }
        let count = chunk.len() as u64;
        self.bytes = self.bytes.saturating_add(count);
        self.next = self.next.saturating_add(count);
        Ok(())
    }

    /// The digest of what went so far.
    pub(super) fn sha256(&self) -> Sha256 {
        match &self.digest {
            Digest::Hashing(hash) => hash.finish(),
            Digest::Told(sha256) => *sha256,
        }
    }

    pub(super) fn transferred(&self) -> Transferred {
        let Self { bytes, in_order, recorded, .. } = *self;
        Transferred { bytes, sha256: self.sha256(), in_order, recorded }
    }
}
