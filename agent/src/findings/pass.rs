//! Reading a stored segment once more: its events, one at a time, with their data.
//!
//! Bounded by what a segment may be, though it is known to be the one that was put there. Bulk is asked for only when an
//! event's data lies in it that somebody looks at.

use std::{
    io::{self, Cursor, Read},
    time::Instant,
};

use bytes::Bytes;
use weir_analysis::{Analysis, lines::Objects};
use weir_common::{
    frame::MAX_BODY,
    recording::{Content, Event, SEGMENT_BULK_MAX},
};

use crate::stored_lines::Lines;

/// How many events go by between two looks at the clock.
const EVENTS_PER_LOOK: u32 = 64;

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The decompressor gave up.
    #[error("cannot be unpacked: {0}")]
    Unpack(#[from] io::Error),
    /// No event. What is wrong is not said: it quotes the line.
    #[error("line {line} is no event")]
    NoEvent {
        /// Its number, from 1.
        line: u64,
    },
    /// An event's data is not in the bulk.
    #[error("an event points to data that the bulk does not have")]
    Bulk,
}

/// Why a pass stopped.
pub(super) enum Stop {
    End,
    NeedsBulk,
    TooLong,
}

/// A segment that is being read.
pub(super) struct Pass {
    lines: Lines,
    /// Waits for the bulk.
    pending: Option<Event>,
    bulk: Option<Bulk>,
    /// One event's data out of the bulk.
    data: Vec<u8>,
}

impl Pass {
    pub(super) fn new(segment: Bytes) -> Result<Self, PassError> {
        let mut lines = Lines::new(segment)?;
        // The header.
        lines.next()?;
        Ok(Self { lines, pending: None, bulk: None, data: Vec::new() })
    }

    pub(super) fn give_bulk(&mut self, name: &str, bulk: Bytes) -> Result<(), PassError> {
        self.bulk = Some(Bulk::new(name, bulk)?);
        Ok(())
    }

    pub(super) fn run(
        &mut self,
        analysis: &mut Analysis,
        objects: &mut Objects,
        until: Instant,
    ) -> Result<Stop, PassError> {
        let mut events = 0_u32;
        loop {
            let event = match self.pending.take() {
                Some(event) => event,
                None => match self.lines.next()? {
                    None => return Ok(Stop::End),
                    Some((line, text)) => {
                        serde_json::from_slice(text).map_err(|_| PassError::NoEvent { line })?
                    }
                },
            };
            let data = match event.what.content() {
                None | Some(Content::Withheld(_)) => &[][..],
                Some(Content::Bulk { at, bytes }) if analysis.wants(&event) => {
                    let Some(bulk) = &mut self.bulk else {
                        self.pending = Some(event);
                        return Ok(Stop::NeedsBulk);
                    };
                    bulk.read(*at, *bytes, &mut self.data)?;
                    &self.data
                }
                Some(content) => content.bytes(&[]).unwrap_or_default(),
            };
            analysis.event(&event, data, objects);
            events = events.wrapping_add(1);
            if events.is_multiple_of(EVENTS_PER_LOOK) && Instant::now() > until {
                return Ok(Stop::TooLong);
            }
        }
    }
}

/// A segment's bulk, read from front to back.
struct Bulk {
    bytes: Box<dyn Read + Send>,
    position: u64,
}

impl Bulk {
    fn new(name: &str, bulk: Bytes) -> Result<Self, PassError> {
        let bulk = Cursor::new(bulk);
        let bytes: Box<dyn Read + Send> =
            if name.ends_with(".zst") { Box::new(zstd::Decoder::new(bulk)?) } else { Box::new(bulk) };
        Ok(Self { bytes: Box::new(bytes.take(SEGMENT_BULK_MAX)), position: 0 })
    }

    /// These bytes. Those between the last ones and these are passed over.
    fn read(&mut self, at: u64, bytes: u32, into: &mut Vec<u8>) -> Result<(), PassError> {
        let skip = at.checked_sub(self.position).filter(|_| bytes as usize <= MAX_BODY);
        let skip = skip.ok_or(PassError::Bulk)?;
        let passed = io::copy(&mut (&mut self.bytes).take(skip), &mut io::sink())?;
        into.clear();
        let read = (&mut self.bytes).take(bytes.into()).read_to_end(into)?;
        if passed != skip || read != bytes as usize {
            return Err(PassError::Bulk);
        }
        self.position = at + u64::from(bytes);
        Ok(())
    }
}
