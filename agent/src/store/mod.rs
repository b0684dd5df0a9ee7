//! Where recordings are stored.
//!
//! Owns *create only*: an object that is there is never replaced. Putting the same bytes again succeeds,
//! which makes every put repeatable; other bytes under the same name are a conflict.

mod file;

use std::{future::Future, io, path::PathBuf, pin::Pin};

use bytes::Bytes;
use weir_common::digest::Sha256;

pub use self::file::FileStore;

/// What a put did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object was not there and is now.
    Stored,
    /// The same bytes were there already.
    AlreadyThere,
}

/// A put under way.
pub type PutFuture<'a> = Pin<Box<dyn Future<Output = Result<Put, StoreError>> + Send + 'a>>;

/// A get under way.
pub type GetFuture<'a> = Pin<Box<dyn Future<Output = Result<Bytes, StoreError>> + Send + 'a>>;

/// A place for recordings.
pub trait Store: Send + Sync {
    /// Stores an object under a path with `/` between its parts, if there is none yet. When this succeeds the
    /// object survives whatever happens to the node.
    fn put<'a>(&'a self, path: &'a str, body: Bytes, sha256: Sha256) -> PutFuture<'a>;

    /// Reads an object of at most `max_bytes` bytes; no more than that is read of a larger one.
    fn get<'a>(&'a self, path: &'a str, max_bytes: u64) -> GetFuture<'a>;
}

/// Why an object could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another object has the name.
    #[error(
        "{path} is in the store with other content (SHA-256 {found}, not {expected}); it was not touched"
    )]
    Conflict {
        /// The object's path.
        path: String,
        /// The digest of what should be stored.
        expected: Sha256,
        /// The digest of what is there.
        found: Sha256,
    },
    /// Larger than asked for.
    #[error("{path} is in the store with more than {max_bytes} bytes")]
    TooLarge {
        /// The object's path.
        path: String,
        /// The bound.
        max_bytes: u64,
    },
    /// The store's task was cancelled.
    #[error("the store was interrupted at {path}")]
    Interrupted {
        /// The object's path.
        path: String,
    },
}
