//! A recording as something to wind: forward by its events, back by keyframes.
//!
//! Keyframes are states of the emulator, kept on the way. Their number and bytes are bounded: when there are too many
//! every other one goes, so that they stay spread over all that was played.

use std::collections::VecDeque;

use weir_common::{frame::Direction, recording::Event, session::ChannelNo};

use crate::{
    emulator::{Emulator, Picture, State},
    recording::{Item, Recording},
    track::{Beat, Track, beat},
};

/// After so much output there is a keyframe.
const KEYFRAME_BYTES: usize = 256 << 10;
/// And after so many events.
const KEYFRAME_EVENTS: u32 = 2000;
/// The most keyframes.
const KEYFRAMES_MAX: usize = 512;
/// The most bytes of them.
const KEYFRAME_BYTES_MAX: usize = 64 << 20;
/// The most warnings that are kept.
const WARNINGS_MAX: usize = 50;
/// The most characters of what was typed last that are kept.
const TYPED_CHARS_MAX: usize = 40;

/// Which event something follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    t: u64,
    ch: ChannelNo,
    dir: Direction,
    seq: u64,
}

impl Place {
    fn of(event: &Event) -> Self {
        Self { t: event.t, ch: event.ch, dir: event.dir, seq: event.seq }
    }
}

struct Keyframe {
    /// Nanoseconds since the start.
    t: u64,
    place: Option<Place>,
    state: State,
}

/// An event of the track that has not been shown.
struct Next {
    t: u64,
    event: Event,
    bulk: Option<Vec<u8>>,
}

/// Where the events come from at the moment.
pub struct Reel<'a> {
    items: Box<dyn Iterator<Item = Item> + 'a>,
    /// The event up to which everything was shown before.
    skip_to: Option<Place>,
}

/// What is being watched.
pub struct Tape {
    track: Track,
    emulator: Emulator,
    keyframes: Vec<Keyframe>,
    /// Behind which event the emulator is.
    place: Option<Place>,
    /// The time of that event.
    t: u64,
    next: Option<Next>,
    /// Bytes of the event before that a search has not come to.
    rest: VecDeque<u8>,
    since_keyframe: (usize, u32),
    typed: String,
    /// What is missing at this place, in words.
    gap: Option<String>,
    /// What does not fit together.
    pub warnings: Vec<String>,
}

impl Tape {
    /// At the start of a track.
    #[must_use]
    pub fn new(track: Track) -> Self {
        let emulator = Emulator::new(track.size, track.term.is_some());
        let mut tape = Self {
            track,
            emulator,
            keyframes: Vec::new(),
            place: None,
            t: 0,
            next: None,
            rest: VecDeque::new(),
            since_keyframe: (0, 0),
            typed: String::new(),
            gap: None,
            warnings: Vec::new(),
        };
        tape.keep_keyframe();
        tape
    }

    /// The events behind where the tape is.
    #[must_use]
    pub fn reel<'a>(&mut self, recording: &'a Recording) -> Reel<'a> {
        self.next = None;
        Reel { items: events_near(recording, self.place.map(|place| place.t)), skip_to: self.place }
    }

    /// Nanoseconds from the start to the last event that was shown.
    #[must_use]
    pub fn t(&self) -> u64 {
        self.t
    }

    /// Lets time pass in which nothing happens.
    pub fn settle(&mut self, t: u64) {
        self.t = self.t.max(t);
    }

    /// What stands on the screen.
    #[must_use]
    pub fn picture(&self) -> Picture {
        self.emulator.picture()
    }

    /// What was typed last, escaped.
    #[must_use]
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// What is missing at this place, in words.
    #[must_use]
    pub fn gap(&self) -> Option<&str> {
        self.gap.as_deref()
    }

    /// What is followed.
    #[must_use]
    pub fn track(&self) -> &Track {
        &self.track
    }

    /// The time of the next event; `None` at the end of what there is.
    pub fn next_t(&mut self, reel: &mut Reel<'_>) -> Option<u64> {
        if !self.rest.is_empty() {
            return Some(self.t);
        }
        while self.next.is_none() {
            let (event, bulk) = match reel.items.next()? {
                Item::Event(event, bulk) => (event, bulk),
                Item::Warning(warning) => {
                    if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&warning) {
                        self.warnings.push(warning);
                    }
                    continue;
                }
            };
            if let Some(place) = reel.skip_to {
                if place == Place::of(&event) {
                    reel.skip_to = None;
                }
                continue;
            }
            if event.ch == self.track.channel {
                let t = event.t.saturating_sub(self.track.start).max(self.t);
                self.next = Some(Next { t, event, bulk });
                break;
            }
        }
        self.next.as_ref().map(|next| next.t)
    }

    /// Shows the next event; `false` at the end of what there is.
    pub fn advance(&mut self, reel: &mut Reel<'_>) -> bool {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.emulator.feed(&Vec::from(rest));
            return true;
        }
        if self.next_t(reel).is_none() {
            return false;
        }
        let Some(output) = self.take() else { return true };
        self.emulator.feed(&output);
        self.consider_keyframe(output.len());
        true
    }

    /// Shows at most so many lines more of the next event.
    pub fn advance_lines(&mut self, reel: &mut Reel<'_>, lines: usize) -> bool {
        if self.rest.is_empty() {
            if self.next_t(reel).is_none() {
                return false;
            }
            let Some(output) = self.take() else { return true };
            self.rest = output.into();
        }
        let feeds = self.rest.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let end = feeds.map(|(at, _)| at + 1).nth(lines.max(1) - 1).unwrap_or(self.rest.len());
        // A line may be as long as a screen is large, or longer.
        let end = end.min(lines.max(1) * 100);
        let fed: Vec<_> = self.rest.drain(..end.min(self.rest.len())).collect();
        self.emulator.feed(&fed);
        if self.rest.is_empty() {
            self.consider_keyframe(fed.len());
        }
        true
    }

    /// Takes the next event; its output, if it is any.
    fn take(&mut self) -> Option<Vec<u8>> {
        let Next { t, event, bulk } = self.next.take()?;
        (self.t, self.place) = (t, Some(Place::of(&event)));
        self.gap = None;
        match beat(&event, bulk.as_deref())? {
            Beat::Output(bytes) => return Some(bytes.to_vec()),
            Beat::Resize(size) => self.emulator.resize(size),
            Beat::Typed(bytes) => {
                self.typed.push_str(&crate::escape::bytes(bytes));
                let over = self.typed.chars().count().saturating_sub(TYPED_CHARS_MAX);
                self.typed = self.typed.chars().skip(over).collect();
            }
            Beat::Gap(words) => self.gap = Some(words),
            Beat::Command(_) | Beat::Exit(_) => {}
        }
        None
    }

    /// Goes back to the last keyframe at or before this time. `true` if the events have to be read anew from there.
    pub fn rewind(&mut self, t: u64) -> bool {
        if t >= self.t && self.rest.is_empty() {
            return false;
        }
        let behind = self.keyframes.partition_point(|keyframe| keyframe.t <= t);
        // The first is at the start, and never goes.
        let Some(keyframe) = self.keyframes.get(behind.saturating_sub(1)) else { return false };
        self.emulator = Emulator::at(&keyframe.state);
        (self.t, self.place) = (keyframe.t, keyframe.place);
        self.rest.clear();
        self.typed.clear();
        self.since_keyframe = (0, 0);
        true
    }

    fn consider_keyframe(&mut self, bytes: usize) {
        let (sum, events) = self.since_keyframe;
        self.since_keyframe = (sum + bytes, events + 1);
        if sum + bytes >= KEYFRAME_BYTES || events >= KEYFRAME_EVENTS {
            self.keep_keyframe();
        }
    }

    fn keep_keyframe(&mut self) {
        let Some(state) = self.emulator.state() else { return };
        self.since_keyframe = (0, 0);
        if self.keyframes.last().is_some_and(|last| last.t >= self.t) {
            return;
        }
        self.keyframes.push(Keyframe { t: self.t, place: self.place, state });
        let bytes =
            |keyframes: &[Keyframe]| keyframes.iter().map(|keyframe| keyframe.state.bytes()).sum::<usize>();
        while self.keyframes.len() > KEYFRAMES_MAX
            || (bytes(&self.keyframes) > KEYFRAME_BYTES_MAX && self.keyframes.len() > 1)
        {
            let mut number = 0;
            self.keyframes.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
    }
}

/// The events from some place before this kernel time.
fn events_near(recording: &Recording, t: Option<u64>) -> Box<dyn Iterator<Item = Item> + '_> {
    let _ = t;
    Box::new(recording.events())
}
