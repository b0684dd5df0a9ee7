//! What a session says of itself, at the least cost.

use jiff::Timestamp;
use weir_common::{
    recording::{Clock, MANIFEST, Manifest, Opened, segment_name},
    session::{Outcome, SessionMeta},
};

use crate::{
    manifest::{MANIFEST_MAX, ManifestError, parse_manifest},
    segment::{SegmentError, SegmentReader},
    store::{SessionDir, StoreError},
};

/// Whose session it is, and from when to when it was.
#[derive(Clone, Debug)]
pub struct About {
    /// The access context.
    pub meta: SessionMeta,
    /// When it began.
    pub opened_at: Timestamp,
    /// When it ended and how; `None` while it is under way, or if its end never came.
    pub closed: Option<(Timestamp, Outcome)>,
    /// How to read its events' times.
    pub clock: Clock,
    /// How many commands the agent found, where it has looked.
    pub commands: Option<u64>,
}

/// Why that is not known.
#[derive(Debug, thiserror::Error)]
pub enum AboutError {
    /// It can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The manifest is none.
    #[error("{}: {MANIFEST} {source}", .path)]
    Manifest {
        /// The session.
        path: String,
        /// What is wrong.
        source: ManifestError,
    },
    /// The first segment can't be read.
    #[error("{}: the first segment {source}", .path)]
    Segment {
        /// The session.
        path: String,
        /// What is wrong.
        source: SegmentError,
    },
    /// The first segment does not say it.
    #[error("{}: neither a manifest nor the first segment says whose session it is", .path)]
    Unsaid {
        /// The session.
        path: String,
    },
    /// It is another session's.
    #[error("{}: what lies there belongs to session {found}", .path)]
    Other {
        /// The session.
        path: String,
        /// Whose it is.
        found: String,
    },
}

impl About {
    /// Reads the manifest, or the header of the first segment where there is none.
    ///
    /// # Errors
    /// An [`AboutError`].
    pub fn of(session: &SessionDir) -> Result<Self, AboutError> {
        let path = || session.path().display().to_string();
        let about = match session.read(MANIFEST, MANIFEST_MAX) {
            Ok(bytes) => {
                let manifest = parse_manifest(&bytes);
                Self::finished(manifest.map_err(|source| AboutError::Manifest { path: path(), source })?)
            }
            Err(error) if error.is_missing() => {
                let object = match session.object(&segment_name(1)) {
                    Err(error) if error.is_missing() => return Err(AboutError::Unsaid { path: path() }),
                    object => object?,
                };
                let reader = SegmentReader::new(object)
                    .map_err(|source| AboutError::Segment { path: path(), source })?;
                let opened =
                    reader.header().opened.clone().ok_or_else(|| AboutError::Unsaid { path: path() })?;
                Self::running(*opened)
            }
            Err(error) => return Err(error.into()),
        };
        let found = about.meta.session_id.to_string();
        if found != session.name() {
            return Err(AboutError::Other { path: path(), found });
        }
        Ok(about)
    }

    fn finished(manifest: Manifest) -> Self {
        let Manifest { session, opened_at, closed_at, outcome, clock, findings, .. } = manifest;
        let commands = findings.and_then(|findings| findings.counts).map(|counts| counts.commands);
        Self { meta: session, opened_at, closed: Some((closed_at, outcome)), clock, commands }
    }

    fn running(opened: Opened) -> Self {
        let Opened { session, opened_at, clock, .. } = opened;
        Self { meta: session, opened_at, closed: None, clock, commands: None }
    }
}
