//! Bringing segments and manifests into the store, beside the drain.
//!
//! Owns *never give up*: a job is tried again, after a growing pause, until it is done or the agent stops;
//! the next agent finds it in the spool again. Bounded: so many jobs at a time hold encoded bytes, and one
//! that waits for its next try holds none. A segment that is in the store already, with the same content in
//! other bytes, is taken as it is there. Not here: which jobs there are (`core`).

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tracing::{debug, error, info, warn};
use weir_common::{
    digest::Sha256,
    recording::{MANIFEST, Manifest, SIGNATURE, SUMS, SegmentEntry, StoredObject, sums_text},
    session::SessionId,
};

use crate::{
    adopting,
    ledger::StateEntry,
    metrics::metrics,
    report::{self, QueueError, Reports},
    segment::{self, SegmentError, SegmentSource},
    session::Session,
    signing::{SigningError, SigningKey},
    store::{Store, StoreError},
};

/// The pause after the first failure of a job; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Something to store.
#[derive(Debug)]
pub struct Job {
    /// The session.
    pub session: SessionId,
    /// Its directory in the store.
    pub dir: String,
    /// What.
    pub work: Work,
}

/// What is to be stored.
#[derive(Debug)]
pub enum Work {
    /// A segment and its bulk.
    Segment(Box<SegmentSource>),
    /// The manifest, the digests and their signature.
    Manifest(Box<Manifest>),
}

impl Job {
    /// What is to be stored of a session now, if anything.
    #[must_use]
    pub fn next(session: &Session, spool: &Path) -> Option<Self> {
        let work = if let Some(sealing) = session.sealing() {
            Work::Segment(Box::new(SegmentSource {
                spool: spool.to_owned(),
                header: session.segment_header(),
                extents: sealing.records.extents().collect(),
                sockets: session.sockets().map(|(cookie, channel, way)| (cookie, (channel, way))).collect(),
            }))
        } else {
            session.may_finish().ok()?;
            Work::Manifest(Box::new(session.manifest()?))
        };
        Some(Self { session: session.id(), dir: session.path(), work })
    }
}

/// A job that is done.
#[derive(Debug)]
pub struct Done {
    /// The session.
    pub session: SessionId,
    /// What is in the store now.
    pub stored: Stored,
}

/// What is in the store now.
#[derive(Debug)]
pub enum Stored {
    /// A segment.
    Segment(Box<SegmentEntry>),
    /// The manifest, the digests and their signature: the session is complete.
    Manifest,
}

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
pub enum StoringError {
    /// The store's answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The segment cannot be encoded.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The digests cannot be signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// What the store has of it cannot be compared.
    #[error("cannot compare {name} with what is in the store: {source}")]
    Compare {
        /// The object.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The manifest cannot be written.
    #[error("cannot write the manifest: {0}")]
    Manifest(#[from] serde_json::Error),
    /// The session's report does not find room.
    #[error(transparent)]
    Report(#[from] QueueError),
    /// The encoder was cancelled or panicked.
    #[error("encoding was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Does jobs.
#[derive(Clone)]
pub struct Worker {
    store: Arc<dyn Store>,
    key: Arc<SigningKey>,
    slots: Arc<Semaphore>,
    reports: Option<Reports>,
}

impl Done {
    /// The change that it makes to the session.
    #[must_use]
    pub fn change(&self) -> StateEntry {
        let session = self.session;
        match &self.stored {
            Stored::Segment(entry) => StateEntry::Sealed { session, segment: (**entry).clone() },
            Stored::Manifest => StateEntry::Finished { session },
        }
    }
}

impl Worker {
    /// A worker that does at most `parallel` jobs at a time.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, key: Arc<SigningKey>, parallel: usize) -> Self {
        Self { store, key, slots: Arc::new(Semaphore::new(parallel)), reports: None }
    }

    /// The same one, which reports each session before it is finished.
    #[must_use]
    pub fn reporting(mut self, reports: Option<Reports>) -> Self {
        self.reports = reports;
        self
    }

    /// Does the jobs that come in until there will be no more; `report` gets each one that is done.
    ///
    /// There are never more than one per session.
    pub async fn run<R, F>(self, mut jobs: mpsc::Receiver<Job>, report: R)
    where
        R: Fn(Done) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send,
    {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                job = jobs.recv() => match job {
                    Some(job) => {
                        let (worker, report) = (self.clone(), report.clone());
                        tasks.spawn(async move { report(worker.until_done(job).await).await });
                    }
                    None => return,
                },
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        error!(%error, "a storing task failed; the next agent will store its session");
                    }
                }
            }
        }
    }

    async fn until_done(&self, job: Job) -> Done {
        let session = job.session;
        let mut pause = FIRST_PAUSE;
        loop {
            let tried = self.once(&job).await.inspect_err(|error| metrics().uploads.failed(error));
            match tried {
                Ok(stored) => return Done { session, stored },
                Err(error @ StoringError::Store(StoreError::Conflict { .. })) => {
                    error!(%session, %error, "evidence conflicts with the store; it stays in the spool");
                }
                Err(error) => warn!(%session, %error, ?pause, "storing failed; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One try.
    ///
    /// # Errors
    /// [`StoringError`]; whatever was stored before it is found again by the next try.
    pub async fn once(&self, job: &Job) -> Result<Stored, StoringError> {
        let _slot = self.slots.acquire().await;
        match &job.work {
            Work::Segment(source) => {
                let source = source.clone();
                let encoded = tokio::task::spawn_blocking(move || segment::encode(&source)).await??;
                let SegmentEntry { index, events, segment, bulk } = encoded.entry;
                let bulk = match bulk.zip(encoded.bulk) {
                    Some((object, body)) => Some(self.put_or_adopt(&job.dir, object, body).await?),
                    None => None,
                };
                let segment = self.put_or_adopt(&job.dir, segment, encoded.segment).await?;
                Ok(Stored::Segment(Box::new(SegmentEntry { index, events, segment, bulk })))
            }
            Work::Manifest(manifest) => {
                let objects = closing_objects(manifest, &self.key)?;
                let totals = report::totals(manifest, &objects, &self.key.fingerprint());
                for (name, body) in objects {
                    let sha256 = Sha256::of(&body);
                    self.put(&job.dir, name, body, sha256).await?;
                }
                if let Some(reports) = &self.reports {
                    reports.stored(manifest, &job.dir, totals).await?;
                }
                Ok(Stored::Manifest)
            }
        }
    }

    /// Stores the object, and says what is there then: it, or another one of the same content.
    async fn put_or_adopt(
        &self,
        dir: &str,
        object: StoredObject,
        body: Bytes,
    ) -> Result<StoredObject, StoringError> {
        let conflict = match self.put(dir, &object.name, body.clone(), object.sha256).await {
            Ok(()) => return Ok(object),
            Err(error @ StoreError::Conflict { .. }) if adopting::is_adoptable(&object.name) => error,
            Err(error) => return Err(error.into()),
        };
        let compare = |source| StoringError::Compare { name: object.name.clone(), source };
        let ours = body.clone();
        let most = tokio::task::spawn_blocking(move || adopting::most_bytes(&ours)).await?;
        let theirs = match self.store.get(&format!("{dir}/{}", object.name), most.map_err(compare)?).await {
            Ok(theirs) => theirs,
            Err(StoreError::TooLarge { .. }) => return Err(conflict.into()),
            Err(error) => return Err(error.into()),
        };
        let found = theirs.clone();
        let same = tokio::task::spawn_blocking(move || adopting::same_content(&body, &found)).await?;
        if !same.map_err(compare)? {
            return Err(conflict.into());
        }
        info!(
            session = session_of(dir),
            dir,
            name = object.name,
            "the store has it already, compressed by another version"
        );
        Ok(StoredObject { sha256: Sha256::of(&theirs), bytes: theirs.len() as u64, ..object })
    }

    async fn put(&self, dir: &str, name: &str, body: Bytes, sha256: Sha256) -> Result<(), StoreError> {
        let (begun, bytes) = (Instant::now(), body.len());
        let put = self.store.put(&format!("{dir}/{name}"), body, sha256).await;
        metrics().uploads.put(bytes, begun, &put);
        let put = put?;
        debug!(session = session_of(dir), dir, name, ?put, "stored");
        Ok(())
    }
}

/// The session whose directory this is, for the log.
fn session_of(dir: &str) -> &str {
    dir.rsplit('/').next().unwrap_or(dir)
}

/// The objects that complete a session, in the order in which they are stored.
fn closing_objects(
    manifest: &Manifest,
    key: &SigningKey,
) -> Result<[(&'static str, Bytes); 3], StoringError> {
    let mut text = serde_json::to_string_pretty(manifest)?;
    text.push('\n');
    let segments = manifest.objects().map(|object| (object.name.as_str(), object.sha256));
    let sums = sums_text(segments.chain([(MANIFEST, Sha256::of(text.as_bytes()))]));
    let signature = key.sign(sums.as_bytes())?;
    Ok([(MANIFEST, text.into()), (SUMS, sums.into()), (SIGNATURE, signature.into())])
}
