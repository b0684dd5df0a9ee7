//! Gathers who did what and when: the manifest, a summary of every channel, what the session
//! amounts to, and the timeline of everything that is
//! not data.
//!
//! What is kept is bounded, whatever a recording holds; what does not fit is counted. Nothing is escaped here, that
//! is [`print`]'s.

mod channels;
mod found;
pub mod print;
mod timeline;

use jiff::Timestamp;
use serde::Serialize;
use weir_common::recording::{Clock, Event, Manifest, Opened};

use crate::{
    findings::{self, Analyst, Kept, Origin},
    recording::{Item, Recording},
};
use channels::Channels;
pub use channels::{Channel, ENVS_MAX, PROGRAMS_MAX};
pub use timeline::{describe, gap, gap_length};

/// The most entries of the timeline that are shown.
pub const TIMELINE_MAX: usize = 10_000;
/// The most warnings that are shown.
const WARNINGS_MAX: usize = 50;

/// Something that happened and was not data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When, if the manifest or the first segment relates kernel time to the calendar.
    pub at: Option<Timestamp>,
    /// Nanoseconds since the recording's first event.
    pub after_ns: u64,
    /// On which channel.
    pub channel: u32,
    /// Who said it.
    pub from: &'static str,
    /// What.
    pub what: String,
}

/// What there is to show.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The directory's name, which is the session's id.
    pub directory: String,
    /// Whether there is a manifest that can be read.
    pub finished: bool,
    /// The manifest.
    pub manifest: Option<Manifest>,
    /// Whose session it is, where there is no manifest yet.
    pub opened: Option<Box<Opened>>,
    /// How many segments there are.
    pub segments: usize,
    /// Every channel that said anything.
    pub channels: Vec<Channel>,
    /// Events on channels over the limit.
    pub events_of_other_channels: u64,
    /// Everything but data.
    pub timeline: Vec<Entry>,
    /// Entries over the limit.
    pub timeline_left_out: u64,
    /// Commands, files and forwards.
    #[serde(flatten)]
    pub findings: Kept,
    /// What does not fit together.
    pub warnings: Vec<String>,
}

/// Reads a recording from front to back.
#[must_use]
pub fn gather(recording: &Recording) -> Shown {
    let mut shown = Shown {
        directory: recording.session.name(),
        finished: recording.is_finished(),
        manifest: recording.manifest.clone(),
        opened: recording.opened.clone(),
        segments: recording.segment_count(),
        channels: Vec::new(),
        events_of_other_channels: 0,
        timeline: Vec::new(),
        timeline_left_out: 0,
        findings: Kept::default(),
        warnings: recording.warnings.clone(),
    };
    let mut channels = Channels::default();
    let mut analyst = None;
    if findings::stored(recording, &mut shown.findings, &mut shown.warnings) {
        shown.findings.findings_from = Origin::Stored;
    } else {
        analyst = Some(Analyst::new(recording.clock()));
    }
    let mut first_t = None;
    for item in recording.events() {
        match item {
            Item::Warning(warning) if shown.warnings.len() < WARNINGS_MAX => shown.warnings.push(warning),
            Item::Warning(_) => {}
            Item::Event(event, bulk) => {
                if let Some(analyst) = &mut analyst {
                    analyst.event(&event, bulk.as_deref(), &mut shown.findings);
                }
                let first_t = *first_t.get_or_insert(event.t);
                let what = describe(&event.what, bulk.as_deref());
                let what = match gap_length(&event) {
                    Some(length) => what.map(|what| format!("{what}, for {length}")),
                    None => what,
                };
                channels.add(&event, what.as_deref());
                shown.add(&event, first_t, what);
            }
        }
    }
    if let Some(analyst) = analyst {
        analyst.finish(&mut shown.findings);
    }
    (shown.channels, shown.events_of_other_channels) = channels.finish();
    shown
}

impl Shown {
    fn clock(&self) -> Option<Clock> {
        let manifest = self.manifest.as_ref().map(|manifest| manifest.clock);
        manifest.or_else(|| self.opened.as_ref().map(|opened| opened.clock))
    }

    fn add(&mut self, event: &Event, first_t: u64, what: Option<String>) {
        let Some(what) = what else { return };
        if self.timeline.len() == TIMELINE_MAX {
            self.timeline_left_out += 1;
            return;
        }
        self.timeline.push(Entry {
            at: self.clock().and_then(|clock| clock.at(event.t)),
            after_ns: event.t.saturating_sub(first_t),
            channel: event.ch.0,
            from: timeline::sender(event.dir),
            what,
        });
    }
}
