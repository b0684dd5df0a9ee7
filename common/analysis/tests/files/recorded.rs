//! A channel as it was recorded, and what findings and agent make of it.

use weir_analysis::{
    Analysis, Found,
    masking::Masking,
    transfers::{ContentRange, Transfer},
};
use weir_common::{
    frame::{ChannelType, Direction},
    recording::{Content, Event, Part, What, findings::FileAccess},
    session::ChannelNo,
};

pub(crate) const C2T: Direction = Direction::ClientToTarget;
pub(crate) const T2C: Direction = Direction::TargetToClient;

/// What the client asked a channel for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Subsystem(String),
    Command(Vec<u8>),
}

/// What went through a channel, in order.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) wanted: Wanted,
    pub(crate) data: Vec<(Direction, Vec<u8>)>,
}

impl Recorded {
    /// As a transfer follows it.
    pub(crate) fn transfer(&self) -> Option<Transfer> {
        match &self.wanted {
            Wanted::Subsystem(name) => Transfer::for_subsystem(name),
            Wanted::Command(command) => Transfer::for_command(command),
        }
    }

    /// Its events, each with the bytes that go with it.
    fn events(&self, content: impl Fn(usize, Direction, &[u8]) -> Content) -> Vec<(Event, Vec<u8>)> {
        let event = |t: usize, dir, len: usize, what| Event {
            t: t as u64,
            dir,
            ch: ChannelNo(0),
            seq: t as u64,
            len: u32::try_from(len).expect("short"),
            what,
        };
        let mut events = vec![(event(0, C2T, 0, What::Open { channel: ChannelType::Session }), Vec::new())];
        events.push(match &self.wanted {
            Wanted::Subsystem(name) => (event(0, C2T, 0, What::Subsystem { name: name.clone() }), Vec::new()),
            Wanted::Command(command) => {
                let what = What::Exec(Content::of(command, &mut Vec::new()));
                (event(0, C2T, command.len(), what), command.clone())
            }
        });
        for (at, (dir, bytes)) in self.data.iter().enumerate() {
            let content = content(at, *dir, bytes);
            let kept = if matches!(content, Content::Withheld(_)) { Vec::new() } else { bytes.clone() };
            let what = if *dir == C2T { What::Stdin(content) } else { What::Stdout(content) };
            events.push((event(at + 1, *dir, bytes.len(), what), kept));
        }
        for dir in [C2T, T2C] {
            events.push((event(self.data.len() + 1, dir, 0, What::Close), Vec::new()));
        }
        events
    }

    /// What its events amount to.
    pub(crate) fn files(&self) -> Vec<FileAccess> {
        found(&self.events(|_, _, bytes| Content::of(bytes, &mut Vec::new())))
    }

    /// The same of a recording that withholds the content of files.
    pub(crate) fn files_without_content(&self) -> Vec<FileAccess> {
        let ranges = self.ranges(|_, _| {});
        found(&self.events(|at, _, bytes| match &ranges[at][..] {
            [] => Content::of(bytes, &mut Vec::new()),
            ranges => Content::Withheld(parts(bytes, ranges)),
        }))
    }

    /// Which parts of which data are content. `between` may change the transfer behind each.
    pub(crate) fn ranges(&self, between: impl Fn(usize, &mut Transfer)) -> Vec<Vec<ContentRange>> {
        let mut transfer = self.transfer().expect("it carries files");
        let next = |(at, (direction, bytes)): (usize, &(Direction, Vec<u8>))| {
            let mut ranges = Vec::new();
            transfer.content(*direction, bytes, &mut ranges);
            between(at, &mut transfer);
            ranges
        };
        self.data.iter().enumerate().map(next).collect()
    }

    /// All content in one direction.
    pub(crate) fn content(&self, wanted: Direction) -> Vec<u8> {
        let ranges = self.ranges(|_, _| {});
        let data = self.data.iter().zip(ranges).filter(|((direction, _), _)| *direction == wanted);
        data.flat_map(|((_, bytes), ranges)| {
            ranges.into_iter().flat_map(|range| bytes[range.range].to_vec()).collect::<Vec<_>>()
        })
        .collect()
    }
}

fn found(events: &[(Event, Vec<u8>)]) -> Vec<FileAccess> {
    let mut found = Found::default();
    let mut analysis = Analysis::new(None, Masking::default());
    for (event, content) in events {
        analysis.event(event, content, &mut found);
    }
    analysis.finish(&mut found);
    found.files
}

fn parts(bytes: &[u8], ranges: &[ContentRange]) -> Vec<Part> {
    let (mut parts, mut at) = (Vec::new(), 0);
    for ContentRange { range, sha256 } in ranges {
        assert!(range.start >= at && range.end > range.start, "in order, and not empty");
        if range.start > at {
            parts.push(Part::Kept(bytes[at..range.start].to_vec()));
        }
        let bytes = u32::try_from(range.len()).expect("short");
        parts.push(Part::Withheld { bytes, sha256: *sha256 });
        at = range.end;
    }
    if at < bytes.len() {
        parts.push(Part::Kept(bytes[at..].to_vec()));
    }
    parts
}
