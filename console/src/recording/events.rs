//! The events of a recording, in order, from one segment after the other.

use std::collections::VecDeque;

use weir_common::{
    digest::Sha256,
    recording::{Content, Event, Part, SUMS, bulk_name},
};

use super::{Recording, SegmentNames};
use crate::{
    bulk::BulkReader,
    segment::{Line, SegmentReader},
    table::grouped,
};

/// What a recording holds at one point.
pub enum Item {
    /// An event, and its bytes if they lie in the bulk. Where some are withheld, words that say how many stand for them.
    Event(Event, Option<Vec<u8>>),
    /// Something does not fit together here.
    Warning(String),
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

/// What the last segment was that was read to its end.
#[derive(Clone, Copy)]
enum Previous {
    /// There should be none.
    None,
    /// It had this digest.
    Read(Sha256),
    /// It was not read.
    Unknown,
}

/// Goes through the events of a recording.
pub struct Events<'a> {
    recording: &'a Recording,
    left: std::slice::Iter<'a, SegmentNames>,
    current: Option<OpenSegment>,
    previous: Previous,
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
                let names = self.left.next()?;
                self.open(names);
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

impl<'a> Events<'a> {
    pub(super) fn new(recording: &'a Recording, segment: usize) -> Self {
        Self {
            recording,
            left: recording.segments.get(segment..).unwrap_or_default().iter(),
            current: None,
            previous: if segment == 0 { Previous::None } else { Previous::Unknown },
            pending: VecDeque::new(),
        }
    }

    fn open(&mut self, names: &SegmentNames) {
        let SegmentNames { index, name, bulk, first_t: _ } = names;
        let session = &self.recording.session;
        let reader = match session.object(name).map(SegmentReader::new) {
            Ok(Ok(reader)) => reader,
            Ok(Err(error)) => return self.pending.push_back(format!("{name} {error}")),
            Err(error) => return self.pending.push_back(error.to_string()),
        };
        let header = reader.header();
        let id = self.recording.manifest.as_ref().map(|manifest| manifest.session.session_id);
        if id.is_some_and(|id| id != header.session) {
            self.pending.push_back(format!("{name} belongs to session {}", header.session));
        }
        let continues = match self.previous {
            Previous::None => header.previous.is_none(),
            Previous::Read(digest) => header.previous == Some(digest),
            Previous::Unknown => true,
        };
        if !continues {
            self.pending.push_back(format!("{name} does not continue the segment before it"));
        }
        // Of a running session the bulk may have come after the directory was listed.
        let announced = header.bulk.as_ref().map(|bulk| &bulk.name);
        let announced =
            announced.filter(|name| [false, true].iter().any(|p| bulk_name(*index, *p) == **name));
        let bulk = bulk.as_ref().or(announced).and_then(|bulk| match session.object(bulk) {
            Ok(object) => BulkReader::new(bulk, object).ok(),
            Err(error) => {
                self.pending.push_back(error.to_string());
                None
            }
        });
        self.current = Some(OpenSegment { name: name.clone(), reader, bulk });
    }

    fn close(&mut self) {
        let Some(OpenSegment { name, reader, bulk: _ }) = self.current.take() else { return };
        let stored = match reader.finish() {
            Ok(stored) => stored,
            Err(error) => return self.pending.push_back(format!("{name} can't be read: {error}")),
        };
        self.previous = Previous::Read(stored.sha256);
        let expected = self.recording.sums.get(&name).filter(|_| !self.recording.is_checked);
        if expected.is_some_and(|expected| *expected != stored.sha256) {
            self.pending.push_back(format!("{name} does not have the digest that {SUMS} lists"));
        }
    }
}
