//! A bucket, for a program that waits for each answer.
//!
//! Objects are read in pieces, small ones first: the header of a segment costs one small request, and a whole object a
//! request each [`PIECE_MAX`]. Between two pieces nothing is open.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};

use bytes::{Buf, Bytes};
use tokio::runtime::Runtime;
use weir_store::{S3Store, s3::Below};

use super::{Entry, EntryKind, StoreError};

/// The bytes of an object that are asked for first.
const PIECE_FIRST: u32 = 64 << 10;
/// The most bytes that are asked for at once, and so what an open object has in memory.
const PIECE_MAX: u32 = 4 << 20;

/// A bucket and who waits for it.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) store: S3Store,
    pub(super) runtime: Arc<Runtime>,
}

impl Bucket {
    /// The address of what lies there, for people.
    pub(super) fn location(&self, path: &str) -> PathBuf {
        PathBuf::from(self.store.location(path).trim_end_matches('/'))
    }

    pub(super) fn below(&self, path: &str, max: usize) -> Result<Below, StoreError> {
        Ok(self.runtime.block_on(self.store.list_below(path, max))?)
    }

    /// What lies below a path; `None` if that is more than `max`.
    pub(super) fn list(&self, path: &str, max: usize) -> Result<Option<Vec<Entry>>, StoreError> {
        let Below { dirs, objects, is_cut } = self.below(path, max)?;
        let entry = |kind| move |name| Entry { name, kind };
        let dirs = dirs.into_iter().map(entry(EntryKind::Directory));
        let objects = objects.into_iter().map(entry(EntryKind::File));
        Ok((!is_cut).then(|| dirs.chain(objects).collect()))
    }
}

/// An object that is being read.
pub struct BucketObject {
    bucket: Arc<Bucket>,
    path: String,
    etag: Option<String>,
    total: Option<u64>,
    piece: Bytes,
    /// Where the next piece begins.
    position: u64,
    /// Bytes of the next piece.
    next: u32,
    is_over: bool,
}

impl BucketObject {
    /// Reads the first piece, so that what is not there is known.
    pub(super) fn open(bucket: Arc<Bucket>, path: String) -> Result<Self, StoreError> {
        let mut object = Self {
            bucket,
            path,
            etag: None,
            total: None,
            piece: Bytes::new(),
            position: 0,
            next: PIECE_FIRST,
            is_over: false,
        };
        object.advance()?;
        Ok(object)
    }

    fn advance(&mut self) -> Result<(), weir_store::StoreError> {
        let Bucket { store, runtime } = &*self.bucket;
        let piece = store.read_piece(&self.path, self.position, self.next, self.etag.as_deref());
        let piece = runtime.block_on(piece)?;
        // Not every server knows If-Match.
        if differ(self.total.as_ref(), piece.total.as_ref())
            || differ(self.etag.as_ref(), piece.etag.as_ref())
        {
            return Err(weir_store::StoreError::Refused {
                op: "read",
                path: self.path.clone(),
                details: "it was replaced while it was read".to_owned(),
            });
        }
        self.position += piece.bytes.len() as u64;
        self.is_over = match piece.total {
            Some(total) if piece.bytes.is_empty() && self.position < total => {
                return Err(weir_store::StoreError::Unavailable {
                    op: "read",
                    path: self.path.clone(),
                    details: format!("nothing came of byte {} of {total}", self.position),
                });
            }
            Some(total) => self.position >= total,
            None => true,
        };
        self.total = self.total.or(piece.total);
        self.etag = self.etag.take().or(piece.etag);
        self.piece = piece.bytes;
        self.next = self.next.saturating_mul(4).min(PIECE_MAX);
        Ok(())
    }
}

impl Read for BucketObject {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && !self.is_over {
            self.advance().map_err(io::Error::other)?;
        }
        let taken = buffer.len().min(self.piece.len());
        buffer[..taken].copy_from_slice(&self.piece[..taken]);
        self.piece.advance(taken);
        Ok(taken)
    }
}

/// Whether both are known and not the same.
fn differ<T: PartialEq>(known: Option<&T>, now: Option<&T>) -> bool {
    known.zip(now).is_some_and(|(known, now)| known != now)
}
