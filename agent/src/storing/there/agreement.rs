//! Whether two segments, of which different parts are left out, are the same evidence.
//!
//! Owns what that is: the same events, of which all that is kept is what was recorded, and all that is left out is as long as
//! what was. A digest of what is left out must be that of those bytes, or the one that this version has up to the same byte;
//! where another version counts a file's content from elsewhere, neither can be told.
//!
//! Pure. Bounded by what was recorded: no more is unpacked of the other segment's bulk than that.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use bytes::Bytes;
use weir_common::{
    digest::Sha256,
    recording::{Content, Event, Part, What},
};

use crate::{adopting::WINDOW_LOG_MAX, segment::EncodedSegment, stored_lines::Lines};

/// How far they are the same evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    /// They are not.
    None,
    /// But for digests of what neither keeps.
    ButDigests,
    /// They are.
    Whole,
}

/// What is compared. The headers have been.
pub(super) struct Compared {
    /// The segment as this version stores it.
    pub(super) ours: Bytes,
    /// The same with nothing left out.
    pub(super) whole: EncodedSegment,
    /// What the store has.
    pub(super) theirs: Bytes,
    /// The bulk of that, and its name.
    pub(super) their_bulk: Option<(String, Bytes)>,
}

/// The other segment's bulk, and how much of it was pointed to.
struct Pointed {
    bulk: Vec<u8>,
    to: u64,
}

impl Compared {
    /// How far they agree.
    ///
    /// # Errors
    /// Those of reading what this version has encoded.
    pub(super) fn agreement(self) -> io::Result<Agreement> {
        let Self { ours, whole, theirs, their_bulk } = self;
        let EncodedSegment { entry, segment, bulk, carried: _ } = whole;
        let name = entry.bulk.map(|object| object.name);
        let recorded = unpack(name.zip(bulk), u64::MAX)?;
        let Ok(bulk) = unpack(their_bulk, entry.events.bytes) else { return Ok(Agreement::None) };
        let mut pointed = Pointed { bulk, to: 0 };
        let (mut ours, mut whole) = (Lines::new(ours)?, Lines::new(segment)?);
        let Ok(mut theirs) = Lines::new(theirs) else { return Ok(Agreement::None) };
        for lines in [&mut ours, &mut whole, &mut theirs] {
            // The header.
            lines.next()?;
        }
        let mut agreement = Agreement::Whole;
        while let Some(whole) = event(&mut whole)? {
            let our = event(&mut ours)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let Ok(Some(their)) = event(&mut theirs) else { return Ok(Agreement::None) };
            match of_event(&whole, &recorded, &our, &their, &mut pointed) {
                Agreement::None => return Ok(Agreement::None),
                Agreement::ButDigests => agreement = Agreement::ButDigests,
                Agreement::Whole => {}
            }
        }
        let at_end = matches!(theirs.next(), Ok(None)) && pointed.to == pointed.bulk.len() as u64;
        Ok(if at_end { agreement } else { Agreement::None })
    }
}

fn of_event(
    whole: &Event,
    recorded: &[u8],
    ours: &Event,
    theirs: &Event,
    pointed: &mut Pointed,
) -> Agreement {
    let Event { t, dir, ch, seq, len, what } = theirs;
    if (*t, *dir, *ch, *seq, *len) != (whole.t, whole.dir, whole.ch, whole.seq, whole.len) {
        return Agreement::None;
    }
    let (Some(said), Some(content)) = (whole.what.content(), what.content()) else {
        return told(*what == whole.what);
    };
    let Some(said) = said.bytes(recorded).filter(|_| what.kind() == whole.what.kind()) else {
        return Agreement::None;
    };
    match content {
        Content::Withheld(parts) if matches!(what, What::Stdin(_) | What::Stdout(_)) => {
            of_parts(said, ours.what.content(), parts)
        }
        Content::Withheld(_) => Agreement::None,
        // One after the other, as every version writes them.
        Content::Bulk { at, .. } if *at != pointed.to => Agreement::None,
        Content::Bulk { bytes, .. } => {
            pointed.to += u64::from(*bytes);
            told(content.bytes(&pointed.bulk) == Some(said))
        }
        Content::Text(_) | Content::B64(_) => told(content.bytes(&[]) == Some(said)),
    }
}

fn of_parts(said: &[u8], ours: Option<&Content>, theirs: &[Part]) -> Agreement {
    let ours = digests(ours);
    let (mut rest, mut agreement) = (said, Agreement::Whole);
    for part in theirs {
        let len = usize::try_from(part.len()).ok().filter(|&len| len <= rest.len());
        let Some((bytes, behind)) = len.map(|len| rest.split_at(len)) else { return Agreement::None };
        rest = behind;
        match part {
            Part::Kept(kept) if kept != bytes => return Agreement::None,
            Part::Withheld { sha256, .. }
                if ours.get(&(said.len() - rest.len())) != Some(sha256) && *sha256 != Sha256::of(bytes) =>
            {
                agreement = Agreement::ButDigests;
            }
            Part::Kept(_) | Part::Withheld { .. } => {}
        }
    }
    if rest.is_empty() { agreement } else { Agreement::None }
}

/// The digests of what is left out, by where it ends.
fn digests(content: Option<&Content>) -> HashMap<usize, Sha256> {
    let Some(Content::Withheld(parts)) = content else { return HashMap::new() };
    let mut end = 0;
    let mut digests = HashMap::new();
    for part in parts {
        end += usize::try_from(part.len()).unwrap_or(usize::MAX - end);
        if let Part::Withheld { sha256, .. } = part {
            digests.insert(end, *sha256);
        }
    }
    digests
}

fn told(same: bool) -> Agreement {
    if same { Agreement::Whole } else { Agreement::None }
}

/// The next event. One that is none is an error, and what is wrong is not said: it quotes the line.
fn event(lines: &mut Lines) -> io::Result<Option<Event>> {
    let Some((_, line)) = lines.next()? else { return Ok(None) };
    serde_json::from_slice(line).map(Some).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A bulk's bytes, at most so many and one.
fn unpack(bulk: Option<(String, Bytes)>, most: u64) -> io::Result<Vec<u8>> {
    let Some((name, packed)) = bulk else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    let most = most.saturating_add(1);
    if name.ends_with(".zst") {
        let mut unpacked = zstd::Decoder::new(&packed[..])?;
        unpacked.window_log_max(WINDOW_LOG_MAX)?;
        unpacked.take(most).read_to_end(&mut bytes)?;
    } else {
        packed.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
