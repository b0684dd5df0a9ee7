//! What completes a session in the store: findings, manifest, digests, signature.
//!
//! Owns that evidence waits for findings only as long as the store does not answer, and a few tries then; and that a session
//! whose completion was begun before — by an agent that was killed, maybe of another version — is completed with what
//! is there: a manifest that says the same of the evidence is kept with the findings that it lists, and findings that no
//! manifest lists are superseded, never replaced and never trusted.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use bytes::Bytes;
use tracing::{info, warn};
use weir_analysis::lines::Made;
use weir_common::{
    digest::Sha256,
    recording::{
        MANIFEST, Manifest, SIGNATURE, SUMS, StoredFindings, StoredObject,
        findings::{KINDS, OBJECTS_MAX, kind_of, object_name},
        sums_text,
    },
};

use super::{StoringError, Worker, described, session_of, to_store};
use crate::{
    findings::{FindingsError, FindingsOptions, Kept, Making, PassError, Step},
    metrics::metrics,
    report,
    store::{Object, StoreError},
};

/// The most bytes of a manifest that is read back: enough for some 60,000 segments.
const MANIFEST_MAX: u64 = 32 << 20;
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

/// Bytes of an object that were stored before.
struct Fetched<'a> {
    object: &'a StoredObject,
    body: Bytes,
    /// It came from the store, and is to be compared with what was put there.
    unchecked: bool,
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
    /// Stores what completes a session.
    pub(super) async fn ending(&self, dir: &str, ending: &Ending) -> Result<(), StoringError> {
        let kept = self.at_hand.take(dir);
        let first_try = ending.tries.fetch_add(1, Ordering::Relaxed) == 0;
        let is_new = first_try && kept.is_all(&ending.manifest);
        if ending.manifest.segments.is_empty() {
            return self.complete(dir, &Complete::new(ending.manifest.clone())?).await;
        }
        if !is_new && let Some(there) = self.manifest_there(dir, ending).await? {
            return self.complete(dir, &there).await;
        }
        let (made, failure) = match self.findings(dir, ending, &kept).await? {
            None => (None, None),
            Some(Ok(made)) => (Some(made), None),
            Some(Err(failure)) => (None, Some(failure)),
        };
        self.complete_with(dir, ending, made, is_new).await?;
        if let Some(error) = failure {
            metrics().findings.failed(error.class());
            warn!(session = session_of(dir), dir, %error, "the session is stored without findings");
        }
        Ok(())
    }

    /// Completes a session with these findings. A new one's are put without a look at what may be there.
    async fn complete_with(
        &self,
        dir: &str,
        ending: &Ending,
        made: Option<Made>,
        is_new: bool,
    ) -> Result<(), StoringError> {
        if is_new {
            match self.complete(dir, &Complete::with(ending.manifest.clone(), dir, made.as_ref())?).await {
                Err(StoringError::Store(StoreError::Conflict { path, .. })) if is_recovered_twice(&path) => {}
                outcome => return outcome,
            }
            if let Some(there) = self.manifest_there(dir, ending).await? {
                return self.complete(dir, &there).await;
            }
        }
        let findings = Some(self.place(dir, made, ending).await?);
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
        let Some(text) = self.look(dir, MANIFEST, MANIFEST_MAX, ending).await? else { return Ok(None) };
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
    ) -> Result<Option<Result<Made, FindingsError>>, StoringError> {
        let Some(options) = &self.findings else { return Ok(None) };
        let begun = Instant::now();
        let made = self.make(dir, &ending.manifest, kept, options).await;
        match made {
            Ok(_) => metrics().findings.made(begun.elapsed()),
            Err(FindingsError::Store(error)) if ending.waits_for(&error) => return Err(error.into()),
            Err(_) => {}
        }
        Ok(Some(made))
    }

    async fn make(
        &self,
        dir: &str,
        manifest: &Manifest,
        kept: &Kept,
        options: &FindingsOptions,
    ) -> Result<Made, FindingsError> {
        let mut making = Box::new(Making::new(manifest, options));
        let unread = |name: &str, source| FindingsError::Read { name: name.to_owned(), source };
        for (left, entry) in (0..manifest.segments.len()).rev().zip(&manifest.segments) {
            let segment = self.fetch(dir, &entry.segment, kept).await?;
            let mut step =
                self.step(making, segment, |making, _, body| making.begin(body), left == 0).await?;
            if let Step::NeedsBulk(waiting) = step {
                let bulk = entry.bulk.as_ref();
                let bulk = bulk.ok_or_else(|| unread(&entry.segment.name, PassError::Bulk))?;
                let bulk = self.fetch(dir, bulk, kept).await?;
                step = self.step(waiting, bulk, Making::give_bulk, left == 0).await?;
            }
            match step {
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

    /// One computation.
    async fn step(
        &self,
        mut making: Box<Making>,
        fetched: Fetched<'_>,
        give: fn(&mut Making, &str, Bytes) -> Result<(), PassError>,
        last: bool,
    ) -> Result<Step, FindingsError> {
        let Fetched { object, body, unchecked } = fetched;
        let object = object.clone();
        let step = self.compute(move || {
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

    /// Stores findings where there may be some already, and says what is there then.
    async fn place(
        &self,
        dir: &str,
        made: Option<Made>,
        ending: &Ending,
    ) -> Result<StoredFindings, StoringError> {
        let options = self.findings.clone().unwrap_or_default();
        let (counts, objects) = made.map_or((None, Vec::new()), |made| (Some(made.counts), made.objects));
        let mut found = StoredFindings { counts, ..StoredFindings::default() };
        let mut bodies: Vec<_> = objects.into_iter().map(|(kind, body)| (kind, Bytes::from(body))).collect();
        for kind in KINDS {
            let at = bodies.iter().position(|(other, _)| *other == kind);
            let mut body = at.map(|at| bodies.swap_remove(at).1);
            for number in 1..=OBJECTS_MAX {
                let name = object_name(kind, number);
                let there = self.look(dir, &name, options.bound(kind), ending).await?;
                let Some(there) = there else {
                    let Some(body) = body.take() else { break };
                    let object = described(name, &body);
                    match self.put(dir, &object, body).await {
                        Ok(()) => found.objects.push(object),
                        Err(error) if error.is_store_wide() => return Err(error.into()),
                        Err(error) => {
                            warn!(session = session_of(dir), dir, %error, "findings are not stored")
                        }
                    }
                    break;
                };
                let same = body.as_ref() == Some(&there);
                let into = if same { &mut found.objects } else { &mut found.superseded };
                into.push(described(name, &there));
                body = body.filter(|_| !same);
            }
            if body.is_some() {
                warn!(session = session_of(dir), dir, kind, "no name is left for these findings");
            }
        }
        Ok(found)
    }

    /// What the store has under this name; `None` also where it may not be looked at, or is more than we would have put.
    async fn look(
        &self,
        dir: &str,
        name: &str,
        max_bytes: u64,
        ending: &Ending,
    ) -> Result<Option<Bytes>, StoringError> {
        match self.store.get(&format!("{dir}/{name}"), max_bytes).await {
            Ok(body) => Ok(Some(body)),
            Err(error) if ending.waits_for(&error) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }
}

impl Complete {
    fn new(manifest: Manifest) -> Result<Self, StoringError> {
        let mut text = serde_json::to_string_pretty(&manifest)?;
        text.push('\n');
        Ok(Self { manifest, text: text.into(), first: Vec::new() })
    }

    /// With findings under their first names.
    fn with(mut manifest: Manifest, dir: &str, made: Option<&Made>) -> Result<Self, StoringError> {
        let Some(Made { counts, objects }) = made else { return Self::new(manifest) };
        let bodies = objects.iter().map(|(kind, body)| {
            let body = Bytes::copy_from_slice(body);
            (described((*kind).to_owned(), &body), body)
        });
        let (objects, bodies): (Vec<_>, Vec<_>) = bodies.unzip();
        let first = objects.iter().zip(bodies).map(|(object, body)| to_store(dir, object, body)).collect();
        let counts = Some(*counts);
        manifest.findings = Some(StoredFindings { counts, objects, superseded: Vec::new() });
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
