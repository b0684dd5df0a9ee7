//! A session's recording as `show` and `play` read it: the manifest where there is one, and the events in order,
//! each with its bytes.
//!
//! Reads sessions that are still under way, too: then there is no manifest, and the segments are taken as they lie
//! there. Nothing is kept in memory but the event at hand. What does not fit together is a warning, not an error:
//! a reviewer wants to see a damaged recording most of all. Proof is the business of [`crate::verify`].

use std::collections::{BTreeMap, VecDeque};

use weir_common::{
    digest::Sha256,
    recording::{
        Content, Event, MANIFEST, Manifest, Opened, Part, SUMS, bulk_name, parse_sums, segment_name,
    },
    session::SessionId,
};

use crate::{
    bulk::BulkReader,
    hashed::Hashed,
    manifest::{MANIFEST_MAX, SUMS_MAX, parse_manifest, segment_index},
    segment::{Line, SegmentReader},
    store::{EntryKind, SessionDir, StoreError},
    table::grouped,
};

/// The most warnings that are kept; that something is wrong is clear long before.
const WARNINGS_MAX: usize = 20;

/// A segment and its bulk.
#[derive(Clone, Debug)]
struct SegmentNames {
    name: String,
    bulk: Option<String>,
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
}

impl Recording {
    /// Finds out what there is and compares it with the digests.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn open(session: SessionDir) -> Result<Self, StoreError> {
        let mut files: Vec<_> =
            session.list()?.into_iter().filter(|e| e.kind == EntryKind::File).map(|e| e.name).collect();
        files.sort_unstable();
        let has = |name: &str| files.binary_search_by(|file| file.as_str().cmp(name)).is_ok();
        let mut warnings = Warnings::default();
        let manifest = read_manifest(&session, has(MANIFEST), &mut warnings)?;
        let mut indices: Vec<u32> = files.iter().filter_map(|name| segment_index(name)).collect();
        indices.sort_unstable();
        let segments: Vec<_> = match &manifest {
            Some(manifest) => (manifest.segments.iter())
                .map(|entry| SegmentNames {
                    name: entry.segment.name.clone(),
                    bulk: entry.bulk.as_ref().map(|bulk| bulk.name.clone()),
                })
                .collect(),
            None => (indices.into_iter())
                .map(|index| SegmentNames {
                    name: segment_name(index),
                    bulk: [false, true]
                        .map(|packed| bulk_name(index, packed))
                        .into_iter()
                        .find(|name| has(name)),
                })
                .collect(),
        };
        check_digests(&session, manifest.is_some(), has(SUMS), &mut warnings)?;
        let first = segments.first().filter(|_| manifest.is_none());
        // What is wrong with it will be a warning when its events are read.
        let opened = first.and_then(|first| {
            let reader = SegmentReader::new(session.object(&first.name).ok()?).ok()?;
            reader.header().opened.clone()
        });
        Ok(Self { session, manifest, opened, warnings: warnings.0, segments })
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

    /// The events from the start.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        Events {
            session: &self.session,
            id: self.manifest.as_ref().map(|manifest| manifest.session.session_id),
            left: self.segments.iter().cloned().collect(),
            current: None,
            previous: None,
            pending: VecDeque::new(),
        }
    }
}

/// What a recording holds at one point.
pub enum Item {
    /// An event, and its bytes if they lie in the bulk. Where some are withheld, words that say how many stand for them.
    Event(Event, Option<Vec<u8>>),
    /// Something does not fit together here.
    Warning(String),
}

/// The bytes of an event: those from the bulk, or those in its content.
#[must_use]
pub fn content_bytes<'a>(content: &'a Content, bulk: Option<&'a [u8]>) -> &'a [u8] {
    match bulk {
        Some(bytes) => bytes,
        None => content.bytes(&[]).unwrap_or_default(),
    }
}

/// Data that is not recorded as a whole, as a reviewer reads it: `‹1,234 bytes withheld›` where bytes are missing.
fn readable(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Part::Kept(kept) => bytes.extend_from_slice(kept),
            Part::Withheld { bytes: withheld, .. } => {
                let words = format!("‹{} bytes withheld›", grouped(u64::from(*withheld)));
                bytes.extend_from_slice(words.as_bytes());
            }
        }
    }
    bytes
}

struct OpenSegment {
    name: String,
    reader: SegmentReader,
    bulk: Option<BulkReader>,
}

/// Goes through the events of a recording.
pub struct Events<'a> {
    session: &'a SessionDir,
    id: Option<SessionId>,
    left: VecDeque<SegmentNames>,
    current: Option<OpenSegment>,
    previous: Option<Sha256>,
    pending: VecDeque<String>,
}

impl Iterator for Events<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(warning) = self.pending.pop_front() {
                return Some(Item::Warning(warning));
            }
            let Some(segment) = &mut self.current else {
                let names = self.left.pop_front()?;
                self.open(&names);
                continue;
            };
            match segment.reader.next_line() {
                Ok(Some((line, Line::Event(event)))) => {
                    let (at, bytes) = match event.what.content() {
                        Some(Content::Bulk { at, bytes }) => (at, bytes),
                        Some(Content::Withheld(parts)) => {
                            let readable = readable(parts);
                            return Some(Item::Event(event, Some(readable)));
                        }
                        _ => return Some(Item::Event(event, None)),
                    };
                    let found = segment.bulk.as_mut().map(|bulk| bulk.bytes(*at, *bytes));
                    let problem = match found {
                        Some(Ok(found)) => return Some(Item::Event(event, Some(found))),
                        Some(Err(error)) => error.to_string(),
                        None => "its bulk is missing".to_owned(),
                    };
                    self.pending.push_back(format!("{} line {line}: {problem}", segment.name));
                    return Some(Item::Event(event, None));
                }
                Ok(Some((line, Line::Malformed(error)))) => {
                    self.pending.push_back(format!("{} line {line} is not an event: {error}", segment.name));
                }
                Ok(None) => self.close(),
                Err(error) => {
                    self.pending.push_back(format!("{} {error}", segment.name));
                    self.close();
                }
            }
        }
    }
}

impl Events<'_> {
    fn open(&mut self, names: &SegmentNames) {
        let SegmentNames { name, bulk } = names;
        let reader = match self.session.object(name).map(SegmentReader::new) {
            Ok(Ok(reader)) => reader,
            Ok(Err(error)) => return self.pending.push_back(format!("{name} {error}")),
            Err(error) => return self.pending.push_back(error.to_string()),
        };
        let header = reader.header();
        if self.id.is_some_and(|id| id != header.session) {
            self.pending.push_back(format!("{name} belongs to session {}", header.session));
        }
        if header.previous != self.previous {
            self.pending.push_back(format!("{name} does not continue the segment before it"));
        }
        let bulk = bulk.as_ref().and_then(|bulk| match self.session.object(bulk) {
            Ok(object) => BulkReader::new(bulk, object).ok(),
            Err(error) => {
                self.pending.push_back(error.to_string());
                None
            }
        });
        self.current = Some(OpenSegment { name: name.clone(), reader, bulk });
    }

    fn close(&mut self) {
        let Some(segment) = self.current.take() else { return };
        match segment.reader.finish() {
            Ok(stored) => self.previous = Some(stored.sha256),
            Err(error) => self.pending.push_back(format!("{} can't be read: {error}", segment.name)),
        }
    }
}

#[derive(Default)]
struct Warnings(Vec<String>);

impl Warnings {
    fn push(&mut self, text: String) {
        if self.0.len() < WARNINGS_MAX {
            self.0.push(text);
        }
    }
}

fn read_manifest(
    session: &SessionDir,
    there: bool,
    warnings: &mut Warnings,
) -> Result<Option<Manifest>, StoreError> {
    if !there {
        return Ok(None);
    }
    let bytes = match session.read(MANIFEST, MANIFEST_MAX) {
        Ok(bytes) => bytes,
        Err(error @ StoreError::TooLong { .. }) => {
            warnings.push(error.to_string());
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match parse_manifest(&bytes) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) => {
            warnings.push(format!("{MANIFEST} {error}"));
            Ok(None)
        }
    }
}

fn check_digests(
    session: &SessionDir,
    finished: bool,
    there: bool,
    warnings: &mut Warnings,
) -> Result<(), StoreError> {
    if !there {
        if finished {
            warnings.push(format!("{SUMS} is missing"));
        }
        return Ok(());
    }
    let bytes = match session.read(SUMS, SUMS_MAX) {
        Ok(bytes) => bytes,
        Err(error @ StoreError::TooLong { .. }) => {
            warnings.push(error.to_string());
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let Some(sums) = std::str::from_utf8(&bytes).ok().and_then(parse_sums) else {
        warnings.push(format!("{SUMS} can't be read as a list of digests"));
        return Ok(());
    };
    let sums: BTreeMap<_, _> = sums.into_iter().collect();
    for (name, expected) in sums {
        let object = match session.object(name) {
            Ok(object) => object,
            Err(error) => {
                warnings.push(error.to_string());
                continue;
            }
        };
        match Hashed::new(object).finish() {
            Ok(stored) if stored.sha256 == expected => {}
            Ok(_) => warnings.push(format!("{name} does not have the digest that {SUMS} lists")),
            Err(error) => warnings.push(format!("{name} can't be read: {error}")),
        }
    }
    Ok(())
}
