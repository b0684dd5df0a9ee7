//! Checks every segment: its place in the chain, its lines, its events and its bulk.
//!
//! A segment is read once, line by line, and digested on the way: what is judged is what has the digest.

use std::collections::BTreeSet;

use weir_common::{
    digest::Sha256,
    frame::MAX_BODY,
    recording::{
        Content, Count, Event, FORMAT_VERSION, Manifest, Opened, SegmentEntry, SegmentHeader, bulk_name,
        segment_name,
    },
    session::SessionId,
};

use super::{
    body::body_len,
    chain::Chain,
    objects::Objects,
    report::{Check, Log, Place},
    streams::Streams,
    withheld::{FileContent, Withheld},
};
use crate::{
    bulk::BulkReader,
    segment::{Line, SegmentError, SegmentReader},
    store::{SessionDir, StoreError},
};

/// A segment as it should be.
struct Expected<'a> {
    index: u32,
    name: String,
    bulk: Option<String>,
    session: Option<SessionId>,
    previous: Option<Sha256>,
    entry: Option<&'a SegmentEntry>,
}

/// What the segments say.
pub(super) struct Checked {
    /// What their events amount to.
    pub(super) streams: Streams,
    /// Whose session it is, by the first one.
    pub(super) opened: Option<Box<Opened>>,
    /// What is left out of the events.
    pub(super) withheld: FileContent,
}

/// Checks all segments, of a session without an end those that are signed.
pub(super) fn check(
    session: &SessionDir,
    objects: &Objects,
    manifest: Option<&Manifest>,
    chain: &Chain,
    log: &mut Log,
) -> Result<Checked, StoreError> {
    let mut opened = None;
    let mut streams = Streams::new(
        manifest.map(|manifest| manifest.channels.iter().map(|c| c.channel).collect()),
        manifest.map(|manifest| manifest.session.capture_policy),
    );
    let mut withheld = Withheld::new(manifest.map(|manifest| manifest.session.record_file_content));
    let mut events = Count::default();
    let mut previous = None;
    let expected = match manifest {
        Some(manifest) => from_manifest(manifest),
        None => from_names(session, objects, chain),
    };
    let segments = expected.len();
    for mut expected in expected {
        expected.previous = previous;
        // Of a segment that is not there, the manifest still says which one the next has to continue.
        previous = (objects.stored.get(&expected.name).map(|stored| stored.sha256))
            .or_else(|| expected.entry.map(|entry| entry.segment.sha256));
        if !objects.has(&expected.name) {
            log.finding(Check::Segments, Place::object(&expected.name), "is missing");
            streams.lose_track();
            continue;
        }
        let mut segment = Segment {
            session,
            objects,
            manifest,
            expected: &expected,
            log,
            streams: &mut streams,
            withheld: &mut withheld,
            opened: &mut opened,
        };
        events = events + segment.check()?;
    }
    let gaps = streams.gaps();
    let frames = events.records - gaps.gaps;
    let held = match gaps.gaps {
        0 => format!("{frames} frames, all in sequence"),
        _ => format!("{frames} frames in sequence but for {gaps}"),
    };
    log.detail(Check::Segments, format!("{segments} segments are one chain and hold {held}"));
    Ok(Checked { streams, opened, withheld: withheld.sum() })
}

fn from_manifest(manifest: &Manifest) -> Vec<Expected<'_>> {
    (manifest.segments.iter())
        .map(|entry| Expected {
            index: entry.index,
            name: entry.segment.name.clone(),
            bulk: entry.bulk.as_ref().map(|bulk| bulk.name.clone()),
            session: Some(manifest.session.session_id),
            previous: None,
            entry: Some(entry),
        })
        .collect()
}

/// What there is to check where no manifest says it.
fn from_names<'a>(session: &SessionDir, objects: &Objects, chain: &Chain) -> Vec<Expected<'a>> {
    let expected = |index| Expected {
        index,
        name: segment_name(index),
        bulk: [false, true]
            .map(|compressed| bulk_name(index, compressed))
            .into_iter()
            .find(|name| objects.has(name)),
        session: session.name().parse().ok(),
        previous: None,
        entry: None,
    };
    let mut indices: BTreeSet<u32> =
        if objects.is_unfinished() { chain.signed.clone() } else { objects.segments().collect() };
    // The first one that is missing breaks the chain; which others are is not worth a finding each.
    let gap = (1..).zip(&indices).find(|(place, index)| place != *index).map(|(place, _)| place);
    indices.extend(gap);
    indices.into_iter().map(expected).collect()
}

/// A segment that is being checked.
struct Segment<'a> {
    session: &'a SessionDir,
    objects: &'a Objects,
    manifest: Option<&'a Manifest>,
    expected: &'a Expected<'a>,
    log: &'a mut Log,
    streams: &'a mut Streams,
    withheld: &'a mut Withheld,
    opened: &'a mut Option<Box<Opened>>,
}

impl Segment<'_> {
    fn check(&mut self) -> Result<Count, StoreError> {
        let name = &self.expected.name;
        let mut reader = match SegmentReader::new(self.session.object(name)?) {
            Ok(reader) => reader,
            Err(error) => {
                self.unreadable(&error);
                return Ok(Count::default());
            }
        };
        self.check_header(reader.header());
        if let Some(opened) = &reader.header().opened {
            self.streams.learn_policy(opened.session.capture_policy);
            self.withheld.learn(opened.session.record_file_content);
        }
        let mut whole = true;
        let mut counted = Count::default();
        let mut bulk_end = Some(0);
        loop {
            match reader.next_line() {
                Ok(None) => break,
                Ok(Some((line, Line::Event(event)))) => {
                    counted.add(if event.what.kind().is_some() { event.message_bytes() } else { 0 });
                    self.check_event(line, event, &mut bulk_end);
                }
                Ok(Some((line, Line::Malformed(error)))) => {
                    self.finding(Place::line(name, line), format!("is not an event: {error}"));
                    self.streams.lose_track();
                    whole = false;
                }
                Err(error) => {
                    self.unreadable(&error);
                    whole = false;
                    break;
                }
            }
        }
        self.check_digest(name, reader.finish());
        if whole {
            self.check_count(counted);
            self.check_bulk(bulk_end)?;
        }
        Ok(counted)
    }

    fn check_header(&mut self, header: &SegmentHeader) {
        let SegmentHeader { weir, session, index, previous, bulk: named, opened } = header;
        let bulk = named.as_ref().map(|bulk| bulk.name.clone());
        let expected = self.expected;
        let mut problems = Vec::new();
        if *weir != FORMAT_VERSION {
            problems
                .push(format!("is in version {weir} of the format, and this program knows {FORMAT_VERSION}"));
        }
        if expected.session.is_some_and(|expected| expected != *session) {
            problems.push(format!("belongs to session {session}"));
        }
        if *index != expected.index {
            problems.push(format!("says it is segment {index}, and is listed as {}", expected.index));
        }
        if *previous != expected.previous {
            let text =
                |digest: &Option<Sha256>| digest.map_or("none".to_owned(), |digest| digest.to_string());
            problems.push(format!(
                "gives the segment before it the SHA-256 {}, and that is {}",
                text(previous),
                text(&expected.previous)
            ));
        }
        if bulk != expected.bulk {
            let text = |bulk: &Option<String>| bulk.clone().unwrap_or("none".to_owned());
            problems.push(format!("says its bulk is {}, and it is {}", text(&bulk), text(&expected.bulk)));
        } else if let Some(named) = named
            && let Some(stored) = self.objects.stored.get(&named.name)
            && (stored.sha256, stored.bytes) != (named.sha256, named.bytes)
        {
            problems.push(format!(
                "gives {} the SHA-256 {} and {} bytes, and it has {} and {}",
                named.name, named.sha256, named.bytes, stored.sha256, stored.bytes
            ));
        }
        problems.extend(self.check_opened(*session, opened.as_deref()));
        if self.opened.is_none() {
            self.opened.clone_from(opened);
        }
        for problem in problems {
            self.finding(Place::line(&expected.name, 1), problem);
        }
    }

    /// What the first segment says of whose session it is, against what else is known of that.
    fn check_opened(&self, session: SessionId, opened: Option<&Opened>) -> Option<String> {
        let Some(opened) = opened else {
            return (self.expected.index == 1).then(|| "does not say whose session it is".to_owned());
        };
        if self.expected.index != 1 {
            return Some("says whose session it is, which is for the first segment to say".to_owned());
        }
        let Opened { session: meta, target, recorder, opened_at, clock } = opened;
        if meta.session_id != session {
            return Some(format!("belongs to session {session} and says it is {}", meta.session_id));
        }
        let Some(manifest) = self.manifest else {
            let date = opened_at.strftime("%Y-%m-%d").to_string();
            let elsewhere = self.session.partition().filter(|partition| *partition != date)?;
            return Some(format!("says the session was opened on {date} UTC, and it lies in dt={elsewhere}"));
        };
        let differs = [
            ("the access context", *meta != manifest.session),
            ("the target", target.is_some() && *target != manifest.target),
            ("the recorder", *recorder != manifest.recorder),
            ("when the session was opened", *opened_at != manifest.opened_at),
            ("the clock", *clock != manifest.clock),
        ];
        let differs: Vec<_> = differs.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect();
        let differs = Some(differs.join(", ")).filter(|differs| !differs.is_empty())?;
        Some(format!("says something else than the manifest about {differs}"))
    }

    /// `bulk_end` is where the bulk of the events so far ends; `None` once that is not known any more.
    fn check_event(&mut self, line: u64, event: Event, bulk_end: &mut Option<u64>) {
        let mut problems: Vec<_> = self.streams.take(&event).into_iter().collect();
        problems.extend(self.withheld.take(&event, self.streams.is_complete()));
        let place = Place {
            channel: Some(event.ch),
            direction: Some(event.dir),
            seq: Some(event.seq),
            ..Place::line(&self.expected.name, line)
        };
        if let Some(kind) = event.what.kind()
            && !kind.goes(event.dir)
        {
            problems.push(format!("is a frame of the kind {kind:?}, which can't go {}", event.dir));
        }
        if let Some(Content::Bulk { at, bytes }) = event.what.content() {
            if bulk_end.is_some_and(|end| end != *at) {
                problems
                    .push(format!("points to byte {at} of the bulk, and the bytes before it end elsewhere"));
            }
            *bulk_end = at.checked_add(u64::from(*bytes));
        }
        match body_len(event.what) {
            Some(len) if len == u64::from(event.len) => {}
            Some(len) => problems.push(format!("says its body had {} bytes, and it has {len}", event.len)),
            None => problems.push(format!("has a longer body than the {MAX_BODY} bytes of a frame")),
        }
        for problem in problems {
            self.finding(place.clone(), problem);
        }
    }

    fn check_count(&mut self, counted: Count) {
        let Some(entry) = self.expected.entry else { return };
        if entry.events != counted {
            let said = entry.events;
            self.finding(
                Place::object(&self.expected.name),
                format!(
                    "has {} events of {} captured bytes, and the manifest says {} of {}",
                    counted.records, counted.bytes, said.records, said.bytes
                ),
            );
        }
    }

    fn check_bulk(&mut self, end: Option<u64>) -> Result<(), StoreError> {
        let Some(name) = &self.expected.bulk else {
            if end != Some(0) {
                self.finding(Place::object(&self.expected.name), "points into bulk, and has none");
            }
            return Ok(());
        };
        if !self.objects.has(name) {
            self.finding(Place::object(name), "is missing");
            return Ok(());
        }
        let measured = BulkReader::new(name, self.session.object(name)?)
            .and_then(|mut bulk| Ok((bulk.skip_to_end()?, bulk)));
        let (length, bulk) = match measured {
            Ok(measured) => measured,
            Err(error) => {
                self.finding(Place::object(name), error.to_string());
                return Ok(());
            }
        };
        self.check_digest(name, bulk.finish());
        if let Some(end) = end.filter(|end| *end != length) {
            self.finding(
                Place::object(name),
                format!("has {length} bytes, and the events of {} account for {end}", self.expected.name),
            );
        }
        Ok(())
    }

    fn check_digest(&mut self, name: &str, read: std::io::Result<crate::hashed::Stored>) {
        let problem = match read {
            Ok(stored) if self.objects.stored.get(name).is_none_or(|before| *before == stored) => return,
            Ok(_) => "changed while it was being verified".to_owned(),
            Err(error) => format!("can't be read to its end: {error}"),
        };
        self.finding(Place::object(name), problem);
    }

    fn unreadable(&mut self, error: &SegmentError) {
        self.finding(Place::object(&self.expected.name), error.to_string());
        self.streams.lose_track();
    }

    fn finding(&mut self, place: Place, problem: impl Into<String>) {
        self.log.finding(Check::Segments, place, problem);
    }
}
