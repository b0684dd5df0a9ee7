//! `weir-agent recover`: finishing the sessions in the spool of a node that never comes back.
//!
//! Owns *nothing goes before the store has it*: a spool is emptied as a whole, and only once everything in it is stored. Or it
//! is left as it is, and what has to be written goes elsewhere ([`work`]).
//! Killed at any moment, it is run again. Also owns what it refuses: a spool that a running agent holds, and one whose
//! sessions may be under way on this very node. A copy has no lock that tells whether the original is in use: see
//! `docs/operations.md`.
//!
//! [`spool`](mod@spool) does one spool; [`command`] is the command around it.

mod command;
mod owner;
mod place;
mod report;
mod spool;
mod work;

#[cfg(test)]
mod tests;

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use weir_common::recording::Manifest;

pub use self::{
    command::{RecoverArguments, run},
    report::{Recovery, SessionReport, SpoolReport, State},
};
use crate::{
    config::{Config, StoreLocation},
    journal::JournalError,
    session::SealLimits,
    signing::{SigningError, SigningKey},
    spool::SpoolOptions,
    store::{FileStore, S3Store, Store, StoreError},
    storing::Worker,
};

/// Why a recovery did not begin.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
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
    /// Nothing to recover there.
    #[error(
        "there is no spool in {}: pass a directory with files like 00000001.log, or one with such directories in it",
        path.display()
    )]
    NoSpool {
        /// The directory.
        path: PathBuf,
    },
    /// Its agent runs.
    #[error(
        "{} is in use by a running agent, which stores what is in it; stop it, or leave the spool to it",
        path.display()
    )]
    InUse {
        /// What is locked.
        path: PathBuf,
    },
    /// The sessions may be under way.
    #[error(
        "{sessions} sessions in {} are of this node since its start and may be under way: start the agent, which loses \
         nothing of them. To end them here, without what the kernel may still hold, pass --give-up-ring",
        path.display()
    )]
    UnderWay {
        /// The spool.
        path: PathBuf,
        /// How many.
        sessions: usize,
    },
    /// What root makes the agent of this node could not use.
    #[error(
        "{} is {user}'s, who could not use what root makes there. Run it as that user: {command}",
        path.display()
    )]
    AnotherUser {
        /// The state directory.
        path: PathBuf,
        /// Whose it is.
        user: String,
        /// The command that does it.
        command: String,
    },
    /// The spool cannot be read or written.
    #[error("{}: {source}", path.display())]
    Journal {
        /// The spool.
        path: PathBuf,
        /// Why not.
        source: JournalError,
    },
    /// It is read-only, or its disk is full.
    #[error(
        "{source} ({}): pass --work DIR, a directory on a disk with room. What has to be written goes there, and the \
         spool is left as it is",
        path.display()
    )]
    Unwritable {
        /// The spool.
        path: PathBuf,
        /// What could not be written.
        source: JournalError,
    },
    /// The directory to write to instead.
    #[error("cannot use {} to recover {} (--work): {source}", work.display(), spool.display())]
    Work {
        /// The spool.
        spool: PathBuf,
        /// The directory.
        work: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The signing key cannot be used.
    #[error(transparent)]
    Signing(#[from] SigningError),
}

/// Is told of each session that is complete in the store, before the spool forgets it; says why it must not, if so.
pub type OnStored = Box<dyn FnMut(&Manifest) -> Result<(), String> + Send>;

/// What to recover with.
pub struct Tools {
    /// Stores and signs.
    pub worker: Worker,
    /// The spool's bounds; what is written is little.
    pub spool: SpoolOptions,
    /// When records become a segment.
    pub seal: SealLimits,
    /// How many sessions at a time.
    pub parallel: usize,
    /// How long the store may fail before what is left is given up.
    pub patience: Duration,
    /// Sessions of this very boot are ended, too.
    pub give_up_ring: bool,
    /// Where to write what would be written to the spool, if that is to be left as it is.
    pub work: Option<PathBuf>,
    /// What else has to be done for each session.
    pub on_stored: OnStored,
}

impl Tools {
    /// What the configuration says.
    ///
    /// # Errors
    /// [`RecoverError::Store`], [`RecoverError::Signing`], [`RecoverError::Io`].
    pub fn new(config: &Config, patience: Duration) -> Result<Self, RecoverError> {
        let key = SigningKey::load_or_make(&config.signing_key)?;
        let failed = |source| RecoverError::Io { op: "make", path: config.state_dir.clone(), source };
        fs::create_dir_all(&config.state_dir).map_err(failed)?;
        // Whoever verifies what is recovered needs it.
        key.write_allowed_signers(&config.state_dir)?;
        let store: Arc<dyn Store> = match &config.store {
            // An agent of this node may be using it.
            StoreLocation::Directory(root) => Arc::new(FileStore::join(root)?),
            StoreLocation::S3(options) => Arc::new(S3Store::new((**options).clone())),
        };
        Ok(Self {
            worker: Worker::new(store, Arc::new(key), config.parallel).finding(config.findings.clone()),
            spool: config.spool,
            seal: config.seal,
            parallel: config.parallel.uploading,
            patience,
            give_up_ring: false,
            work: None,
            on_stored: Box::new(|_| Ok(())),
        })
    }
}
