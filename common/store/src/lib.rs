//! Where recordings are stored, for the agent that writes and the console that reads: a directory or a bucket.
//!
//! Owns *create only*: an object that is there is never replaced. Putting the same bytes again succeeds,
//! which makes every put repeatable; other bytes under the same name are a conflict. `s3` is the only module of Weir that
//! knows S3's SDK. Not here: what is stored, and configuration files.

#![forbid(unsafe_code)]

mod file;
pub mod options;
pub mod s3;

use std::{future::Future, io, path::PathBuf, pin::Pin};

use bytes::Bytes;
use weir_common::digest::Sha256;

pub use self::{
    file::FileStore,
    options::{Encryption, LockMode, ObjectLock, OptionsError, S3Options},
    s3::S3Store,
};

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

/// Puts of several objects under way.
pub type PutAllFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<Put>, StoreError>> + Send + 'a>>;

/// An object that is to be stored.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its path.
    pub path: String,
    /// Its bytes.
    pub body: Bytes,
    /// Their digest.
    pub sha256: Sha256,
}

/// A get under way.
pub type GetFuture<'a> = Pin<Box<dyn Future<Output = Result<Bytes, StoreError>> + Send + 'a>>;

/// A place for recordings.
pub trait Store: Send + Sync {
    /// Stores an object under a path with `/` between its parts, if there is none yet. When this succeeds the
    /// object survives whatever happens to the node.
    fn put<'a>(&'a self, path: &'a str, body: Bytes, sha256: Sha256) -> PutFuture<'a>;

    /// Stores objects one after the other, up to the first that fails; as [`Self::put`] does, and cheaper where a store
    /// can do more in one go. What each put did comes back in their order.
    fn put_all(&self, objects: Vec<Object>) -> PutAllFuture<'_> {
        Box::pin(async move {
            let mut puts = Vec::with_capacity(objects.len());
            for Object { path, body, sha256 } in objects {
                puts.push(self.put(&path, body, sha256).await?);
            }
            Ok(puts)
        })
    }

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
    /// There is no such object.
    #[error("{path} is not in the store")]
    Missing {
        /// The object's path.
        path: String,
    },
    /// Nobody answered, not in time, or with a word to come again later.
    #[error("the store cannot {op} {path} now: {details}")]
    Unavailable {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: String,
        /// What came back.
        details: String,
    },
    /// Whoever asks may not do this.
    #[error(
        "the store does not allow {action} on {resource}: {details}; allow it to the role that is used (docs/store.md)"
    )]
    Denied {
        /// The action, as IAM policies name it.
        action: &'static str,
        /// The ARN, as IAM policies name it.
        resource: String,
        /// What the store says.
        details: String,
    },
    /// Nothing can be stored before somebody changes something.
    #[error("the store cannot be used: {problem}; {advice}")]
    Setup {
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// The store does not take this object, or not this request.
    #[error("the store refuses to {op} {path}: {details}")]
    Refused {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: String,
        /// What the store says.
        details: String,
    },
    /// The store acknowledged an object, and what it has is another one than ours.
    #[error("{path} was acknowledged, but is in the store with the checksum {found}, not {expected}")]
    Altered {
        /// The object's path.
        path: String,
        /// Our checksum, in base64.
        expected: String,
        /// The store's.
        found: String,
    },
    /// The store's task was cancelled.
    #[error("the store was interrupted at {path}")]
    Interrupted {
        /// The object's path.
        path: String,
    },
}

impl StoreError {
    /// Whether other objects would probably fail alike: the store is away, or may not be used. It is a guess:
    /// a store that fails for one object alone may say the same.
    #[must_use]
    pub fn is_store_wide(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Denied { .. } | Self::Setup { .. } => true,
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::StaleNetworkFileHandle
            ),
            Self::Conflict { .. }
            | Self::TooLarge { .. }
            | Self::Missing { .. }
            | Self::Refused { .. }
            | Self::Altered { .. }
            | Self::Interrupted { .. } => false,
        }
    }
}
