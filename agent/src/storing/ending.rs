//! What completes a session in the store: findings, manifest, digests, signature.
//!
//! Owns that evidence waits for findings only as long as the store does not answer, and a few tries then; that making them
//! keeps no segment from the store, and that no more of them are in memory than are put at a time, but for those that are
//! being made, as many as one session's may be, or of one that is at hand; and that a session
//! whose completion was begun before — by an agent that was killed, maybe of another version — is completed with what
//! is there: a manifest that says the same of the evidence is kept with the findings that it lists, and findings that no
//! manifest lists are superseded, never replaced and never trusted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tracing::{error, info, warn};
use weir_analysis::lines::{Bounds, Made};
use weir_common::{
    digest::Sha256,
    recording::{
        MANIFEST, Manifest, SIGNATURE, SUMS, StoredFindings, StoredObject,
        findings::{FindingCounts, KINDS, OBJECTS_MAX, kind_of, object_name},
        sums_text,
    },
};

use super::{StoringError, Worker, described, session_of, to_store};
use crate::{
    findings::{self, FindingsError, FindingsOptions, Kept, OBJECT_MAX_BYTES, PassError, Step},
    metrics::metrics,
    report,
    store::{Object, StoreError},
};

/// The most bytes of a manifest that is read back: enough for some 60,000 segments.
const MANIFEST_MAX: u64 = 32 << 20;
/// How many sessions' findings are made at a time, while the store gives back what they are made of. One that may have more
/// findings than this part of what one session may have takes several places.
pub(super) const PLACES: u32 = 16;
/// The most bytes of findings to be reckoned with for a byte that was recorded: short lines, each with its time.
const FINDINGS_PER_BYTE: u64 = 32;
/// How often a store that takes objects and does not give any back is asked for a session's.
const READ_TRIES: u32 = 8;

/// The end of a session, ready for the store.
#[derive(Debug)]
pub struct Ending {
    /// Its manifest, but for the findings.
    pub manifest: Manifest,
    /// How often it was tried.
    tries: AtomicU32,
    /// How often the store did not give back what it may have.
    unread: AtomicU32,
}

/// What completes a session.
struct Complete {
    manifest: Manifest,
    /// The manifest's bytes.
    text: Bytes,
    /// Objects that go before.
    first: Vec<Object>,
}

/// The end of a session that is ready to be put.
pub(super) struct Prepared {
    plan: Plan,
    /// Keeps others from making findings until there is a place on the way into the store for these.
    making: Option<Result<OwnedSemaphorePermit, AcquireError>>,
}

/// How a session is to be completed.
enum Plan {
    /// With this.
    Ready(Box<Complete>),
    /// With these findings, or without for this reason. A new session's are put without a look at what may be there.
    Findings { found: Option<Found>, failure: Option<FindingsError>, is_new: bool },
}

/// Findings, as they are to be put.
struct Found {
    counts: FindingCounts,
    objects: Vec<(&'static str, Bytes)>,
}

/// Who may make findings: a place for as long as they are in memory, from before a segment is fetched until what was made
/// has its place on the way into the store; a turn for each computation.
#[derive(Clone)]
pub(super) struct Making {
    places: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

/// Bytes of an object that were stored before.
struct Fetched<'a> {
    object: &'a StoredObject,
    body: Bytes,
    /// It came from the store, and is to be compared with what was put there.
    unchecked: bool,
}

impl Making {
    pub(super) fn new(places: u32) -> Self {
        Self { places: Arc::new(Semaphore::new(places as usize)), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Ending {
    /// With nothing tried yet.
    #[must_use]
    pub fn new(manifest: Manifest) -> Self {
        Self { manifest, tries: AtomicU32::new(0), unread: AtomicU32::new(0) }
    }

    /// Whether the session waits for the store to answer later: if it may, and not for ever.
    fn waits_for(&self, error: &StoreError) -> bool {
        let may_answer_later = error.is_store_wide() && !matches!(error, StoreError::Denied { .. });
        may_answer_later && self.unread.fetch_add(1, Ordering::Relaxed) < READ_TRIES
    }
}

impl Worker {
    /// Gets ready what completes a session: everything that takes long.
    pub(super) async fn prepare(&self, dir: &str, ending: &Ending) -> Result<Prepared, StoringError> {
        if ending.manifest.segments.is_empty() {
            let complete = Complete::new(ending.manifest.clone())?;
            return Ok(Prepared { plan: Plan::Ready(Box::new(complete)), making: None });
        }
        let making = self.may_make(dir, ending).await;
        Ok(Prepared { plan: self.plan(dir, ending).await?, making: Some(making) })
    }

    /// Waits until findings may be made.
    async fn may_make(&self, dir: &str, ending: &Ending) -> Result<OwnedSemaphorePermit, AcquireError> {
        if self.at_hand.has_all(dir, &ending.manifest) {
            return Arc::clone(&self.making_at_hand.places).acquire_owned().await;
        }
        let places = self.findings.as_ref().map_or(1, |options| places(&ending.manifest, &options.bounds));
        let making = Arc::clone(&self.making.places).acquire_many_owned(places).await;
        // A store that takes nothing gives nothing back either, and is asked no more often than others ask it. The
        // turn itself is for who puts something.
        drop(self.breaker.turn().await);
        making
    }

    async fn plan(&self, dir: &str, ending: &Ending) -> Result<Plan, StoringError> {
        let kept = self.at_hand.take(dir);
        let first_try = ending.tries.fetch_add(1, Ordering::Relaxed) == 0;
        let is_new = first_try && kept.is_all(&ending.manifest);
        if !is_new && let Some(there) = self.manifest_there(dir, ending).await? {
            return Ok(Plan::Ready(Box::new(there)));
        }
        let (found, failure) = match self.findings(dir, ending, &kept).await? {
            None => (None, None),
            Some(Ok(found)) => (Some(found), None),
            Some(Err(failure)) => (None, Some(failure)),
        };
        Ok(Plan::Findings { found, failure, is_new })
    }

    /// Stores what completes a session.
    pub(super) async fn ending(
        &self,
        dir: &str,
        ending: &Ending,
        prepared: Prepared,
    ) -> Result<(), StoringError> {
        let Prepared { plan, making } = prepared;
        drop(making);
        match plan {
            Plan::Ready(complete) => self.complete(dir, &complete).await,
            Plan::Findings { found, failure, is_new } => {
                self.complete_with(dir, ending, found, is_new).await?;
                if let Some(error) = failure {
                    metrics().findings.failed(error.class());
                    warn!(session = session_of(dir), dir, %error, "the session is stored without findings");
                }
                Ok(())
            }
        }
    }

    /// Completes a session with these findings. A new one's are put without a look at what may be there.
    async fn complete_with(
        &self,
        dir: &str,
        ending: &Ending,
        found: Option<Found>,
        is_new: bool,
    ) -> Result<(), StoringError> {
        if is_new {
            match self.complete(dir, &Complete::with(ending.manifest.clone(), dir, found.as_ref())?).await {
                Err(StoringError::Store(StoreError::Conflict { path, .. })) if is_recovered_twice(&path) => {}
                outcome => return outcome,
            }
            if let Some(there) = self.manifest_there(dir, ending).await? {
                return self.complete(dir, &there).await;
            }
        }
        let findings = Some(self.place(dir, found, ending).await?);
        let findings = findings.filter(|findings| *findings != StoredFindings::default());
        let manifest = Manifest { findings, ..ending.manifest.clone() };
        self.complete(dir, &Complete::new(manifest)?).await
    }

    /// Puts the objects and what vouches for them.
    async fn complete(&self, dir: &str, complete: &Complete) -> Result<(), StoringError> {
        let Complete { manifest, text, first } = complete;
        let named = manifest.objects().map(|object| (object.name.as_str(), object.sha256));
        let sums = Bytes::from(sums_text(named.chain([(MANIFEST, Sha256::of(text))])));
        let signature = self.key.sign(&sums)?.into();
        let last = [(MANIFEST, text.clone()), (SUMS, sums.clone()), (SIGNATURE, signature)];
        let totals = report::totals(manifest, &last, &self.key.fingerprint());
        let last = last.map(|(name, body)| to_store(dir, &described(name.to_owned(), &body), body));
        match self.put_all(first.iter().cloned().chain(last).collect()).await {
            Err(StoreError::Conflict { path, .. }) if path.ends_with(SIGNATURE) => {
                self.put_signature(dir, SIGNATURE, sums).await?;
            }
            outcome => outcome?,
        }
        match &self.reports {
            Some(reports) => Ok(reports.stored(manifest, dir, totals).await?),
            None => Ok(()),
        }
    }

    /// The manifest that is in the store already, if it differs from this one in the findings at most.
    ///
    /// Nobody but an agent with the session's spool can have written it: kernel counts and times are nowhere else.
    async fn manifest_there(&self, dir: &str, ending: &Ending) -> Result<Option<Complete>, StoringError> {
        let Ok(Some(text)) = self.look(dir, MANIFEST, MANIFEST_MAX, ending).await? else {
            return Ok(None);
        };
        let ours = &ending.manifest;
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else { return Ok(None) };
        let same = Manifest { findings: ours.findings.clone(), ..manifest.clone() } == *ours;
        if !same {
            return Ok(None);
        }
        info!(session = session_of(dir), dir, "the store has the manifest already, and keeps it");
        Ok(Some(Complete { manifest, text, first: Vec::new() }))
    }

    /// The session's findings, or why there are none; `None` where there are not to be any.
    ///
    /// # Errors
    /// The store's, where it may give the segments back later.
    async fn findings(
        &self,
        dir: &str,
        ending: &Ending,
        kept: &Kept,
    ) -> Result<Option<Result<Found, FindingsError>>, StoringError> {
        let Some(options) = &self.findings else { return Ok(None) };
        let begun = Instant::now();
        let made = self.make(dir, &ending.manifest, kept, options).await;
        match made {
            Ok(_) => metrics().findings.made(begun.elapsed()),
            Err(FindingsError::Store(error)) if ending.waits_for(&error) => {
                return Err(StoringError::ReadBack(error));
            }
            Err(_) => {}
        }
        Ok(Some(made.map(Found::from)))
    }

    async fn make(
        &self,
        dir: &str,
        manifest: &Manifest,
        kept: &Kept,
        options: &FindingsOptions,
    ) -> Result<Made, FindingsError> {
        let mut making = Box::new(findings::Making::new(manifest, options));
        let turn = if kept.has_all(manifest) { &self.making_at_hand.turn } else { &self.making.turn };
        let unread = |name: &str, source| FindingsError::Read { name: name.to_owned(), source };
        for (left, entry) in (0..manifest.segments.len()).rev().zip(&manifest.segments) {
            let segment = self.fetch(dir, &entry.segment, kept).await?;
            let mut outcome =
                step(turn, making, segment, |making, _, body| making.begin(body), left == 0).await?;
            if let Step::NeedsBulk(waiting) = outcome {
                let bulk = entry.bulk.as_ref();
                let bulk = bulk.ok_or_else(|| unread(&entry.segment.name, PassError::Bulk))?;
                let bulk = self.fetch(dir, bulk, kept).await?;
                outcome = step(turn, waiting, bulk, findings::Making::give_bulk, left == 0).await?;
            }
            match outcome {
                Step::Next(next) => making = next,
                Step::Done(made) => return Ok(made),
                Step::NeedsBulk(_) => return Err(unread(&entry.segment.name, PassError::Bulk)),
            }
        }
        Err(FindingsError::Panicked)
    }

    /// An object that was stored before.
    async fn fetch<'a>(
        &self,
        dir: &str,
        object: &'a StoredObject,
        kept: &Kept,
    ) -> Result<Fetched<'a>, FindingsError> {
        if let Some(body) = kept.object(&object.name) {
            return Ok(Fetched { object, body: body.clone(), unchecked: false });
        }
        let body = match self.store.get(&format!("{dir}/{}", object.name), object.bytes).await {
            Ok(body) => body,
            Err(StoreError::TooLarge { .. }) => {
                return Err(FindingsError::Damaged { name: object.name.clone() });
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Fetched { object, body, unchecked: true })
    }

    /// Stores findings where there may be some already, and says what is there then. Without counts where not all of them
    /// could be stored.
    async fn place(
        &self,
        dir: &str,
        found: Option<Found>,
        ending: &Ending,
    ) -> Result<StoredFindings, StoringError> {
        let (counts, mut bodies) =
            found.map_or((None, Vec::new()), |found| (Some(found.counts), found.objects));
        let mut there = StoredFindings { counts, ..StoredFindings::default() };
        let mut unseen = None;
        for kind in KINDS {
            let at = bodies.iter().position(|(other, _)| *other == kind);
            let mut body = at.map(|at| bodies.swap_remove(at).1);
            for number in 1..=OBJECTS_MAX {
                let name = object_name(kind, number);
                let seen = self.look(dir, &name, OBJECT_MAX_BYTES, ending).await?;
                let seen = seen.unwrap_or_else(|error| {
                    unseen.get_or_insert((name.clone(), error));
                    None
                });
                let Some(seen) = seen else {
                    let Some(body) = body.take() else { break };
                    let object = described(name, &body);
                    match self.put(dir, &object, body).await {
                        Ok(()) => there.objects.push(object),
                        Err(error) if error.is_store_wide() => return Err(error.into()),
                        Err(error) => {
                            there.counts = None;
                            warn!(session = session_of(dir), dir, %error, "findings are not stored");
                        }
                    }
                    break;
                };
                let same = body.as_ref() == Some(&seen);
                let into = if same { &mut there.objects } else { &mut there.superseded };
                into.push(described(name, &seen));
                body = body.filter(|_| !same);
            }
            if body.is_some() {
                there.counts = None;
                warn!(session = session_of(dir), dir, kind, "no name is left for these findings");
            }
        }
        if let Some((name, error)) = unseen {
            error!(
                session = session_of(dir),
                dir,
                name,
                %error,
                "the store does not let an object of findings be looked at; should an agent that was stopped have left it \
                 there, the manifest does not list it, and the session is not intact until it is moved away"
            );
        }
        Ok(there)
    }

    /// What the store has under this name, if anything; or why that is not known, and will not be.
    ///
    /// # Errors
    /// The store's, where it may say so later.
    async fn look(
        &self,
        dir: &str,
        name: &str,
        max_bytes: u64,
        ending: &Ending,
    ) -> Result<Result<Option<Bytes>, StoreError>, StoringError> {
        match self.store.get(&format!("{dir}/{name}"), max_bytes).await {
            Ok(body) => Ok(Ok(Some(body))),
            Err(StoreError::Missing { .. }) => Ok(Ok(None)),
            Err(error) if ending.waits_for(&error) => Err(StoringError::ReadBack(error)),
            Err(error) => Ok(Err(error)),
        }
    }
}

/// How many places a session takes: by what its findings may come to, of what one session may have.
fn places(manifest: &Manifest, bounds: &Bounds) -> u32 {
    let Bounds { commands, files, forwards, transcript } = *bounds;
    let most = [commands, files, forwards, transcript]
        .into_iter()
        .fold(1, |sum: u64, bytes| sum.saturating_add(bytes as u64));
    let recorded = manifest.segments.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.events.bytes));
    let found = recorded.saturating_mul(FINDINGS_PER_BYTE).min(most);
    let places = found.saturating_mul(PLACES.into()).div_ceil(most);
    u32::try_from(places).unwrap_or(PLACES).clamp(1, PLACES)
}

/// One computation, when it is its turn. It takes no slot from segments: who makes findings is alone in it.
async fn step(
    turn: &Arc<Semaphore>,
    mut making: Box<findings::Making>,
    fetched: Fetched<'_>,
    give: fn(&mut findings::Making, &str, Bytes) -> Result<(), PassError>,
    last: bool,
) -> Result<Step, FindingsError> {
    let Fetched { object, body, unchecked } = fetched;
    let object = object.clone();
    let turn = Arc::clone(turn).acquire_owned().await;
    let step = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let StoredObject { name, sha256, .. } = object;
        if unchecked && Sha256::of(&body) != sha256 {
            return Err(FindingsError::Damaged { name });
        }
        match give(&mut making, &name, body) {
            Ok(()) => making.run(&name, last),
            Err(source) => Err(FindingsError::Read { name, source }),
        }
    });
    // Nobody cancels it.
    step.await.unwrap_or(Err(FindingsError::Panicked))
}

impl From<Made> for Found {
    fn from(made: Made) -> Self {
        let Made { counts, objects } = made;
        Self { counts, objects: objects.into_iter().map(|(kind, body)| (kind, body.into())).collect() }
    }
}

impl Complete {
    fn new(manifest: Manifest) -> Result<Self, StoringError> {
        let mut text = serde_json::to_string_pretty(&manifest)?;
        text.push('\n');
        Ok(Self { manifest, text: text.into(), first: Vec::new() })
    }

    /// With findings under their first names.
    fn with(mut manifest: Manifest, dir: &str, found: Option<&Found>) -> Result<Self, StoringError> {
        let Some(Found { counts, objects }) = found else { return Self::new(manifest) };
        let described = |(kind, body): &(&str, Bytes)| described((*kind).to_owned(), body);
        let listed: Vec<_> = objects.iter().map(described).collect();
        let first = listed.iter().zip(objects).map(|(object, (_, body))| to_store(dir, object, body.clone()));
        let first = first.collect();
        manifest.findings =
            Some(StoredFindings { counts: Some(*counts), objects: listed, superseded: Vec::new() });
        Ok(Self { first, ..Self::new(manifest)? })
    }
}

/// Whether a conflict at this path can only be with what another agent stored of the session's end, from a copy of the
/// spool.
fn is_recovered_twice(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name == MANIFEST || kind_of(name).is_some()
}

#[cfg(test)]
mod tests;
