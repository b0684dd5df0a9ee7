//! Bringing segments and manifests into the store, beside the drain.
//!
//! Owns *never give up*: a job is tried again, after a growing pause, until it is done or the agent stops;
//! the next agent finds it in the spool again. Bounded: so many jobs at a time are on their way into the store with encoded
//! bytes, and fewer of these are being encoded; one that waits for its next try holds neither. Whoever waits to encode
//! has its place on the way already, and nobody who encodes waits for one. Findings are made before a session's end gets
//! its place, and take none of either from segments. Where the store as a whole does not answer, one job at a time tries
//! (`breaker`); one whose directory it does not take while it takes others' tries by itself, after pauses of its own. Also owns the order in which a session's objects appear: bulk, segment, signature; at the end manifest,
//! digests, signature (`ending`). What is in the store already, with the same content in other bytes or signed by another key, is
//! taken as it is there. Not here: which jobs there are (`core`).

mod ending;
mod there;

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::{AcquireError, Semaphore, SemaphorePermit, mpsc, watch},
    task::{JoinError, JoinSet},
};
use tracing::{debug, error, info, warn};
use weir_common::{
    digest::Sha256,
    recording::{SegmentEntry, StoredObject, signature_name},
    session::SessionId,
};

pub use self::ending::Ending;
use self::ending::{Making, Prepared};
use crate::{
    adopting,
    breaker::{Breaker, Failures, Outage, Pauses, Turn, Whose},
    findings::{AtHand, FindingsOptions},
    ledger::StateEntry,
    metrics::metrics,
    report::{QueueError, Reports},
    segment::{self, EncodedSegment, SegmentError, SegmentSource},
    session::Session,
    signing::{self, SIGNATURE_MAX, SigningError, SigningKey},
    store::{Object, Store, StoreError},
    withholding::Carried,
};

/// The pauses after failures, be they a job's or the store's.
pub(crate) const PAUSES: Pauses =
    Pauses { first: Duration::from_millis(250), longest: Duration::from_secs(30) };

/// While the store does not answer, a lane has so many jobs here, and one more for each try that has failed, so that everybody
/// gets a turn; the others stand in the core's line, where they take next to nothing.
const WAITING_MAX: u64 = 256;

/// How many jobs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parallelism {
    /// Encode or compare: processor time, and memory for what is being encoded.
    pub encoding: usize,
    /// Are on their way into the store, with their encoded bytes. A put that hangs holds up no more than its own place.
    pub uploading: usize,
}

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
    /// The findings, the manifest, the digests and their signature.
    Manifest(Box<Ending>),
}

impl Job {
    /// What is to be stored of a session now, if anything.
    #[must_use]
    pub fn next(session: &Session, spool: &Path) -> Option<Self> {
        let work = if let Some(sealing) = session.sealing() {
            Work::Segment(Box::new(SegmentSource {
                spool: spool.to_owned(),
                header: session.segment_header(),
                records: sealing.records.clone(),
                sockets: session.sockets().map(|(cookie, channel, way)| (cookie, (channel, way))).collect(),
                withhold: session.withhold(),
            }))
        } else {
            session.may_finish().ok()?;
            Work::Manifest(Box::new(Ending::new(session.manifest()?)))
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
    Segment {
        /// What the manifest says about it.
        entry: Box<SegmentEntry>,
        /// What the next segment goes on from.
        carried: Carried,
    },
    /// The manifest, the digests and their signature: the session is complete.
    Manifest,
}

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
pub enum StoringError {
    /// The store's answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store does not give back what the session's end is made of. It may take objects all the same.
    #[error("cannot read back what was stored: {0}")]
    ReadBack(#[source] StoreError),
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
    /// What encodes or stores was cancelled or panicked.
    #[error("it was interrupted: {0}")]
    Interrupted(#[from] JoinError),
}

/// Does jobs.
#[derive(Clone)]
pub struct Worker {
    store: Arc<dyn Store>,
    key: Arc<SigningKey>,
    /// For encoding. Taken for one computation at a time, and only by who has a place in `uploads`.
    slots: Arc<Semaphore>,
    /// For the way into the store, from before a job is encoded.
    uploads: Arc<Semaphore>,
    /// For making findings.
    making: Making,
    /// The same for sessions that are at hand, so that these do not wait for long ones.
    making_at_hand: Making,
    breaker: Arc<Breaker>,
    pauses: Pauses,
    reports: Option<Reports>,
    findings: Option<Arc<FindingsOptions>>,
    at_hand: Arc<AtHand>,
}

impl Done {
    /// The change that it makes to the session.
    #[must_use]
    pub fn change(&self) -> StateEntry {
        let session = self.session;
        match &self.stored {
            Stored::Segment { entry, carried } => {
                StateEntry::Sealed { session, segment: (**entry).clone(), carried: carried.clone() }
            }
            Stored::Manifest => StateEntry::Finished { session },
        }
    }
}

impl Worker {
    /// A worker that does so many jobs at a time.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, key: Arc<SigningKey>, parallel: Parallelism) -> Self {
        let Parallelism { encoding, uploading } = parallel;
        let [slots, uploads] = [encoding, uploading].map(|places| Arc::new(Semaphore::new(places)));
        Self {
            store,
            key,
            slots,
            uploads,
            making: Making::new(ending::PLACES),
            making_at_hand: Making::new(1),
            breaker: Arc::new(Breaker::new(PAUSES)),
            pauses: PAUSES,
            reports: None,
            findings: Some(Arc::default()),
            at_hand: Arc::default(),
        }
    }

    /// The same one, which makes these findings of each session before it is finished, or none.
    #[must_use]
    pub fn finding(mut self, findings: Option<FindingsOptions>) -> Self {
        self.findings = findings.map(Arc::new);
        self
    }

    /// The same one, which reports each session before it is finished.
    #[must_use]
    pub fn reporting(mut self, reports: Option<Reports>) -> Self {
        self.reports = reports;
        self
    }

    /// Where to see whether the store answers, and since when it has not.
    #[must_use]
    pub fn outage(&self) -> watch::Receiver<Option<Outage>> {
        self.breaker.outage()
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
        let mut outage = self.outage();
        loop {
            let most =
                outage.borrow_and_update().as_ref().map(|outage| WAITING_MAX.saturating_add(outage.failures));
            tokio::select! {
                job = jobs.recv(), if most.is_none_or(|most| (tasks.len() as u64) < most) => match job {
                    Some(job) => {
                        let (worker, report) = (self.clone(), report.clone());
                        tasks.spawn(async move { report(worker.until_done(job).await).await });
                    }
                    None => return,
                },
                // The sender is the worker's, so it is there.
                _ = outage.changed() => {}
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        error!(%error, "nobody could be told what was stored; the next agent will find it there");
                    }
                }
            }
        }
    }

    async fn until_done(&self, job: Job) -> Done {
        let (session, job) = (job.session, Arc::new(job));
        let mut pause = self.pauses.first;
        loop {
            match self.in_turn_apart(&job).await {
                Ok(stored) => return Done { session, stored },
                Err(error @ StoringError::Store(StoreError::Conflict { .. })) => {
                    error!(%session, %error, "evidence conflicts with the store; it stays in the spool");
                }
                Err(error @ StoringError::Interrupted(_)) => {
                    error!(%session, %error, ?pause, "storing was interrupted; trying again");
                }
                Err(error) => warn!(%session, %error, ?pause, "storing failed; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.pauses.longest);
        }
    }

    /// [`Self::in_turn`] in a task of its own, so that a panic is the end of that try and not of the session's storing.
    async fn in_turn_apart(&self, job: &Arc<Job>) -> Result<Stored, StoringError> {
        let (worker, job) = (self.clone(), Arc::clone(job));
        // Ends with this future, unlike a task that is not in a set.
        let mut task = JoinSet::new();
        task.spawn(async move { worker.in_turn(&job).await });
        match task.join_next().await {
            Some(ended) => ended?,
            // There is one in it.
            None => std::future::pending().await,
        }
    }

    /// Tries when it is this job's turn, and again for as long as it is the store that does not answer: this job, or
    /// anybody. Where others are answered, the pauses are this job's.
    ///
    /// # Errors
    /// What is wrong with this very job.
    pub async fn in_turn(&self, job: &Job) -> Result<Stored, StoringError> {
        let (mut failures, mut pause) = (Failures::default(), self.pauses.first);
        loop {
            let ready = self.ready(job).await.inspect_err(|error| metrics().uploads.failed(error))?;
            let (turn, place) = self.way().await;
            let outcome = self.store(job, ready).await.inspect_err(|error| metrics().uploads.failed(error));
            drop(place);
            match outcome {
                Err(StoringError::Store(error)) if error.is_store_wide() => {
                    if turn.failed(&error.to_string(), &mut failures) == Whose::Job {
                        warn!(session = %job.session, %error, ?pause, "the store takes others' objects; trying again");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(self.pauses.longest);
                    }
                }
                // A report comes behind what was put, and what is compared was there.
                Ok(_)
                | Err(StoringError::Store(_) | StoringError::Report(_) | StoringError::Compare { .. }) => {
                    turn.answered();
                    return outcome;
                }
                // Nobody put anything into the store.
                Err(_) => return outcome,
            }
        }
    }

    /// A turn, and a place on the way into the store.
    async fn way(&self) -> (Turn<'_>, Result<SemaphorePermit<'_>, AcquireError>) {
        loop {
            let turn = self.breaker.turn().await;
            let place = self.uploads.acquire().await;
            if !turn.is_stale() {
                return (turn, place);
            }
        }
    }

    /// One try.
    ///
    /// # Errors
    /// [`StoringError`]; whatever was stored before it is found again by the next try.
    pub async fn once(&self, job: &Job) -> Result<Stored, StoringError> {
        self.store(job, self.ready(job).await?).await
    }

    /// What comes before a place on the way into the store is taken.
    async fn ready<'a>(&self, job: &'a Job) -> Result<Ready<'a>, StoringError> {
        match &job.work {
            Work::Segment(source) => Ok(Ready::Segment(source)),
            Work::Manifest(ending) => {
                Ok(Ready::Ending(ending, Box::new(self.prepare(&job.dir, ending).await?)))
            }
        }
    }

    async fn store(&self, job: &Job, ready: Ready<'_>) -> Result<Stored, StoringError> {
        match ready {
            Ready::Segment(source) => {
                let (entry, carried) = self.segment(&job.dir, source.clone()).await?;
                Ok(Stored::Segment { entry: Box::new(entry), carried })
            }
            Ready::Ending(ending, prepared) => {
                self.ending(&job.dir, ending, *prepared).await?;
                Ok(Stored::Manifest)
            }
        }
    }

    /// Stores a segment: bulk, events, and the signature over these.
    async fn segment(
        &self,
        dir: &str,
        mut source: SegmentSource,
    ) -> Result<(SegmentEntry, Carried), StoringError> {
        // Who did not store the segment before may go on behind an agent of another version, which left other parts out.
        if source.withhold.is_some() && !self.at_hand.goes_on(dir, source.header.index) {
            match self.segment_there(dir, &source).await {
                Ok(Some(there)) => return Ok(there),
                Err(error @ StoringError::Store(StoreError::Conflict { .. })) => return Err(error),
                // Evidence does not wait for a store that gives nothing back: a conflict shows what is there.
                Ok(None) | Err(_) => {}
            }
        }
        let Signed { encoded, signature } = self.encode(source.clone()).await?;
        let EncodedSegment { entry, segment, bulk, carried } = encoded;
        let signed = described(signature_name(entry.index), &signature);
        let objects = entry.bulk.iter().zip(&bulk).chain([(&entry.segment, &segment), (&signed, &signature)]);
        let objects = objects.map(|(object, body)| to_store(dir, object, body.clone())).collect();
        match self.put_all(objects).await {
            Ok(()) => {
                self.at_hand.keep(dir, &entry, &segment, bulk.as_ref());
                return Ok((SegmentEntry { signature: Some(signed), ..entry }, carried));
            }
            // Some of it is there in other bytes.
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if source.withhold.is_some()
            && let Some(there) = self.segment_there(dir, &source).await?
        {
            return Ok(there);
        }
        let stored = match entry.bulk.clone().zip(bulk) {
            Some((object, body)) => Some(self.put_or_adopt(dir, object, body).await?.0),
            None => None,
        };
        let (entry, segment) = if stored == entry.bulk {
            (entry, segment)
        } else {
            // The segment names its bulk as it is in the store.
            source.header.bulk.clone_from(&stored);
            let encoded = self.encode(source).await?.encoded;
            (SegmentEntry { bulk: stored, ..encoded.entry }, encoded.segment)
        };
        let (segment, body) = self.put_or_adopt(dir, entry.segment, segment).await?;
        let signature = self.put_signature(dir, &signature_name(entry.index), body.clone()).await?;
        let entry = SegmentEntry { segment, signature: Some(signature), ..entry };
        self.at_hand.keep(dir, &entry, &body, None);
        Ok((entry, carried))
    }

    async fn encode(&self, source: SegmentSource) -> Result<Signed, StoringError> {
        let key = Arc::clone(&self.key);
        self.compute(move || {
            let encoded = segment::encode(&source)?;
            let signature = key.sign(&encoded.segment)?.into();
            Ok(Signed { encoded, signature })
        })
        .await?
    }

    /// Does what takes processor time and memory, with a slot of its own for just as long, even where nobody waits for it
    /// any more.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        tokio::task::spawn_blocking(move || {
            let _slot = slot;
            work()
        })
        .await
    }

    /// Stores the object, and says what is there then: it, or another one of the same content.
    async fn put_or_adopt(
        &self,
        dir: &str,
        object: StoredObject,
        body: Bytes,
    ) -> Result<(StoredObject, Bytes), StoringError> {
        let conflict = match self.put(dir, &object, body.clone()).await {
            Ok(()) => return Ok((object, body)),
            Err(error @ StoreError::Conflict { .. }) if adopting::is_adoptable(&object.name) => error,
            Err(error) => return Err(error.into()),
        };
        let compare = |source| StoringError::Compare { name: object.name.clone(), source };
        let ours = body.clone();
        let most = self.compute(move || adopting::most_bytes(&ours)).await?;
        let theirs = match self.store.get(&format!("{dir}/{}", object.name), most.map_err(compare)?).await {
            Ok(theirs) => theirs,
            Err(StoreError::TooLarge { .. }) => return Err(conflict.into()),
            Err(error) => return Err(error.into()),
        };
        let found = theirs.clone();
        let same = self.compute(move || adopting::same_content(&body, &found)).await?;
        if !same.map_err(compare)? {
            return Err(conflict.into());
        }
        info!(
            session = session_of(dir),
            dir,
            name = object.name,
            "the store has it already, compressed by another version"
        );
        Ok((described(object.name, &theirs), theirs))
    }

    /// Signs, stores the signature, and says what is there then: it, or another key's signature of the same bytes, made
    /// before the key was changed.
    async fn put_signature(
        &self,
        dir: &str,
        name: &str,
        message: Bytes,
    ) -> Result<StoredObject, StoringError> {
        let (key, signed) = (Arc::clone(&self.key), message.clone());
        let signature = tokio::task::spawn_blocking(move || key.sign(&signed)).await??;
        let body = Bytes::from(signature);
        let object = described(name.to_owned(), &body);
        let conflict = match self.put(dir, &object, body).await {
            Ok(()) => return Ok(object),
            Err(error @ StoreError::Conflict { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        let theirs = match self.store.get(&format!("{dir}/{name}"), SIGNATURE_MAX).await {
            Ok(theirs) => theirs,
            Err(StoreError::TooLarge { .. }) => return Err(conflict.into()),
            Err(error) => return Err(error.into()),
        };
        let found = theirs.clone();
        let key = tokio::task::spawn_blocking(move || signing::signed_by(&found, &message)).await?;
        let Some(key) = key else { return Err(conflict.into()) };
        warn!(
            session = session_of(dir),
            dir, name, key, "the store has it signed by another key already, and keeps that signature"
        );
        Ok(described(name.to_owned(), &theirs))
    }

    async fn put(&self, dir: &str, object: &StoredObject, body: Bytes) -> Result<(), StoreError> {
        let (begun, path) = (Instant::now(), format!("{dir}/{}", object.name));
        let put = self.store.put(&path, body, object.sha256).await;
        metrics().uploads.put(object.bytes, begun, &put);
        let put = put?;
        debug!(session = session_of(dir), dir, name = object.name, ?put, "stored");
        Ok(())
    }

    async fn put_all(&self, objects: Vec<Object>) -> Result<(), StoreError> {
        let begun = Instant::now();
        let bytes: Vec<_> = objects.iter().map(|object| object.body.len() as u64).collect();
        let puts = self.store.put_all(objects).await;
        metrics().uploads.put_all(&bytes, begun, &puts);
        puts.map(drop)
    }
}

/// The session whose directory this is, for the log.
fn session_of(dir: &str) -> &str {
    dir.rsplit('/').next().unwrap_or(dir)
}

/// A job that may go on its way into the store.
enum Ready<'a> {
    Segment(&'a SegmentSource),
    Ending(&'a Ending, Box<Prepared>),
}

/// A segment and its signature.
struct Signed {
    encoded: EncodedSegment,
    signature: Bytes,
}

fn described(name: String, body: &Bytes) -> StoredObject {
    StoredObject { name, sha256: Sha256::of(body), bytes: body.len() as u64 }
}

fn to_store(dir: &str, object: &StoredObject, body: Bytes) -> Object {
    Object { path: format!("{dir}/{}", object.name), body, sha256: object.sha256 }
}

#[cfg(test)]
mod tests;
