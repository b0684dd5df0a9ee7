//! A session's recording as `show`, `play` and `search` read it: the manifest where there is one, and the events in
//! order, each with its bytes.
//!
//! Reads sessions that are still under way, too: then there is no manifest, and the segments are taken as they lie
//! there; [`Recording::refresh`] sees what has come since. Nothing is kept in memory but the event at hand. What does not fit together is a warning, not an error:
//! a reviewer wants to see a damaged recording most of all. Proof is the business of [`crate::verify`].

mod events;
mod listed;
mod objects;

use std::{collections::BTreeMap, ops::Range, sync::OnceLock};

use weir_common::{
    digest::Sha256,
    recording::{Clock, Content, Manifest, Opened, bulk_name, segment_name},
    session::SessionMeta,
};

use self::objects::{check_digests, first_t, read_manifest, read_sums};
pub use self::{
    events::{Events, Item},
    listed::Listed,
};
use crate::{
    manifest::segment_index,
    segment::SegmentReader,
    store::{EntryKind, SessionDir, StoreError},
};

/// The most warnings that are kept; that something is wrong is clear long before.
const WARNINGS_MAX: usize = 20;

/// A segment and its bulk.
#[derive(Clone, Debug)]
struct SegmentNames {
    index: u32,
    name: String,
    bulk: Option<String>,
    first_t: OnceLock<Option<u64>>,
}

impl SegmentNames {
    fn new(index: u32, name: String, bulk: Option<String>) -> Self {
        Self { index, name, bulk, first_t: OnceLock::new() }
    }
}

/// A session's recording.
pub struct Recording {
    /// Where it lies.
    pub session: SessionDir,
    /// Its manifest; `None` if it has none that can be read.
    pub manifest: Option<Manifest>,
    /// Whose session it is, by the first segment, where there is no manifest.
    pub opened: Option<Box<Opened>>,
    /// What does not fit together.
    pub warnings: Vec<String>,
    segments: Vec<SegmentNames>,
    /// The digests that are listed.
    sums: BTreeMap<String, Sha256>,
    /// Whether they have been compared already.
    is_checked: bool,
}

/// What has come to a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// The segments that were not there before; [`Recording::events_from`] the first of them goes on.
    pub segments: Range<usize>,
    /// Whether the session is over, and this is all that will come.
    pub is_finished: bool,
}

impl Recording {
    /// Finds out what there is and compares all of it with the digests, which reads it once.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn open(session: SessionDir) -> Result<Self, StoreError> {
        let mut recording = Self::open_unchecked(session)?;
        let Self { session, sums, warnings, .. } = &mut recording;
        check_digests(session, sums, warnings);
        recording.is_checked = true;
        Ok(recording)
    }

    /// Finds out what there is. Segments are compared with the digests when their events are read: what does not have
    /// the digest that it should have is a warning behind its events. The bulk is not compared.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn open_unchecked(session: SessionDir) -> Result<Self, StoreError> {
        let names = object_names(&session)?;
        let mut warnings = Vec::new();
        let manifest = read_manifest(&session, &names, &mut warnings)?;
        let sums = read_sums(&session, &names, manifest.is_some(), &mut warnings)?;
        let segments = segments(&names, manifest.as_ref());
        let mut recording =
            Self { session, manifest, opened: None, warnings, segments, sums, is_checked: false };
        recording.opened = recording.read_opened();
        Ok(recording)
    }

    /// Looks what has come since. Segments keep their numbers.
    ///
    /// # Errors
    /// If it can't be read; then it is as it was.
    pub fn refresh(&mut self) -> Result<Refreshed, StoreError> {
        let known = self.segments.len();
        if self.is_finished() {
            return Ok(Refreshed { segments: known..known, is_finished: true });
        }
        let names = object_names(&self.session)?;
        let mut warnings = Vec::new();
        let manifest = read_manifest(&self.session, &names, &mut warnings)?;
        let sums = read_sums(&self.session, &names, manifest.is_some(), &mut warnings)?;
        // What was read before has been shown; only what follows it can be added.
        let last = self.segments.last().map_or(0, |last| last.index);
        let new = segments(&names, manifest.as_ref()).into_iter().filter(|segment| segment.index > last);
        self.segments.extend(new);
        warnings.into_iter().for_each(|warning| warn(&mut self.warnings, warning));
        (self.manifest, self.sums) = (manifest, sums);
        if self.opened.is_none() {
            self.opened = self.read_opened();
        }
        Ok(Refreshed { segments: known..self.segments.len(), is_finished: self.is_finished() })
    }

    /// Whether the session is over and its recording complete, as far as the directory says.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.manifest.is_some()
    }

    /// How many segments there are.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// How to read the events' times, as the manifest or the first segment says.
    #[must_use]
    pub fn clock(&self) -> Option<Clock> {
        let manifest = self.manifest.as_ref().map(|manifest| manifest.clock);
        manifest.or_else(|| self.opened.as_ref().map(|opened| opened.clock))
    }

    /// The access context, as the manifest or the first segment says.
    #[must_use]
    pub fn access(&self) -> Option<&SessionMeta> {
        let manifest = self.manifest.as_ref().map(|manifest| &manifest.session);
        manifest.or_else(|| self.opened.as_ref().map(|opened| &opened.session))
    }

    /// The events from the start.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        self.events_from(0)
    }

    /// The events from a segment on, counted from 0; none if there is no such segment.
    #[must_use]
    pub fn events_from(&self, segment: usize) -> Events<'_> {
        Events::new(self, segment)
    }

    /// Kernel time of the first event of a segment, counted from 0; `None` if it has none that can be read. Costs the
    /// beginning of the segment, once.
    #[must_use]
    pub fn segment_start(&self, segment: usize) -> Option<u64> {
        let names = self.segments.get(segment)?;
        *names.first_t.get_or_init(|| first_t(&self.session, &names.name))
    }

    /// Opens an object that the list of digests names, after comparing it; `None` if it is not there, not listed, not
    /// what the list says, or longer than findings can be. What is read of it is what was compared, or an error.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn listed_object(&self, name: &str) -> Result<Option<Listed>, StoreError> {
        let Some(expected) = self.sums.get(name) else { return Ok(None) };
        let path = self.session.path().join(name);
        match Listed::open(|| self.session.object(name), *expected, &path) {
            Err(error) if error.is_missing() => Ok(None),
            listed => listed,
        }
    }

    /// What the first segment says of the session.
    fn read_opened(&self) -> Option<Box<Opened>> {
        let first = self.segments.first().filter(|_| self.manifest.is_none())?;
        // What is wrong with it will be a warning when its events are read.
        let reader = SegmentReader::new(self.session.object(&first.name).ok()?).ok()?;
        reader.header().opened.clone()
    }
}

/// The regular objects, by name.
fn object_names(session: &SessionDir) -> Result<Vec<String>, StoreError> {
    let files = session.list()?.into_iter().filter(|e| e.kind == EntryKind::File).map(|e| e.name);
    let mut names: Vec<_> = files.collect();
    names.sort_unstable();
    Ok(names)
}

fn has(names: &[String], name: &str) -> bool {
    names.binary_search_by(|found| found.as_str().cmp(name)).is_ok()
}

/// The segments as the manifest lists them, or as they lie there.
fn segments(names: &[String], manifest: Option<&Manifest>) -> Vec<SegmentNames> {
    if let Some(manifest) = manifest {
        let listed = manifest.segments.iter().map(|entry| {
            let bulk = entry.bulk.as_ref().map(|bulk| bulk.name.clone());
            SegmentNames::new(entry.index, entry.segment.name.clone(), bulk)
        });
        return listed.collect();
    }
    let mut indices: Vec<u32> = names.iter().filter_map(|name| segment_index(name)).collect();
    indices.sort_unstable();
    let found = indices.into_iter().map(|index| {
        let bulk = [false, true].map(|packed| bulk_name(index, packed));
        SegmentNames::new(index, segment_name(index), bulk.into_iter().find(|name| has(names, name)))
    });
    found.collect()
}

fn warn(warnings: &mut Vec<String>, warning: String) {
    if warnings.len() < WARNINGS_MAX {
        warnings.push(warning);
    }
}

/// The bytes of an event: those from the bulk, or those in its content.
#[must_use]
pub fn content_bytes<'a>(content: &'a Content, bulk: Option<&'a [u8]>) -> &'a [u8] {
    match bulk {
        Some(bytes) => bytes,
        None => content.bytes(&[]).unwrap_or_default(),
    }
}
