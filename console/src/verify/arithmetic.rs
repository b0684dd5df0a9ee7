//! Checks that what the kernel counted is what the recording holds, to the record and to the byte.
//!
//! Two sums per channel and direction: the events add up to what the manifest says was accepted, and what was
//! accepted, repeated or passed over adds up to what the kernel captured. And two for gaps: they add up to what the manifest
//! says passed unrecorded, and that is what the kernel counted.

use std::collections::BTreeSet;

use weir_common::{
    frame::Direction,
    recording::{Count, DirectionTotals, MANIFEST, Manifest},
    session::ChannelNo,
};

use super::{
    report::{Check, Log, Place},
    streams::Streams,
};

/// A count that can't overflow, whatever a manifest says.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    records: u128,
    bytes: u128,
}

impl Sum {
    fn of(counts: impl IntoIterator<Item = Count>) -> Self {
        counts.into_iter().fold(Self::default(), |sum, count| Self {
            records: sum.records + u128::from(count.records),
            bytes: sum.bytes + u128::from(count.bytes),
        })
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} records of {} bytes", self.records, self.bytes)
    }
}

pub(super) fn check(manifest: Option<&Manifest>, streams: &Streams, log: &mut Log) {
    let Some(manifest) = manifest else {
        log.incomplete(Check::Arithmetic, "not checked: it needs the manifest");
        return;
    };
    let mut seen = BTreeSet::new();
    let mut captured = Vec::new();
    for channel in &manifest.channels {
        if !seen.insert(channel.channel) {
            let place = Place { channel: Some(channel.channel), ..Place::object(MANIFEST) };
            log.finding(Check::Arithmetic, place, "counts this channel twice");
        }
        let directions =
            [(Direction::ClientToTarget, &channel.c2t), (Direction::TargetToClient, &channel.t2c)];
        for (direction, totals) in directions {
            check_stream(channel.channel, direction, totals, streams, log);
            captured.extend(totals.kernel.map(|kernel| kernel.captured));
        }
    }
    let (directions, known) = (2 * manifest.channels.len(), captured.len());
    let captured = Sum::of(captured);
    if known < directions {
        log.incomplete(
            Check::Arithmetic,
            "not everything could be compared with the kernel's counters: the node restarted before they were read",
        );
    } else if streams.is_complete() {
        log.detail(Check::Arithmetic, format!("the kernel captured {captured}, and all are accounted for"));
    } else {
        log.incomplete(
            Check::Arithmetic,
            "not every event could be read, so the events were not compared with the manifest's totals",
        );
    }
}

fn check_stream(
    channel: ChannelNo,
    direction: Direction,
    totals: &DirectionTotals,
    streams: &Streams,
    log: &mut Log,
) {
    let DirectionTotals { cookie: _, accepted, duplicate, out_of_sequence, malformed, passed, kernel } =
        totals;
    let place = || Place { channel: Some(channel), direction: Some(direction), ..Place::object(MANIFEST) };
    let events = streams.accepted((channel, direction));
    if streams.is_complete() && events != *accepted {
        let (events, accepted) = (Sum::of([events]), Sum::of([*accepted]));
        log.finding(
            Check::Arithmetic,
            place(),
            format!("the events add up to {events}, and the manifest says {accepted} were accepted"),
        );
    }
    let gaps = streams.passed((channel, direction));
    if streams.is_complete() && gaps != *passed {
        let (gaps, passed) = (Sum::of([gaps]), Sum::of([*passed]));
        log.finding(
            Check::Arithmetic,
            place(),
            format!("the gaps add up to {gaps}, and the manifest says {passed} passed unrecorded"),
        );
    }
    if let Some(kernel) = kernel.filter(|kernel| kernel.passed != *passed) {
        let (counted, passed) = (Sum::of([kernel.passed]), Sum::of([*passed]));
        log.finding(
            Check::Arithmetic,
            place(),
            format!("the kernel let {counted} pass unrecorded, and {passed} are accounted for"),
        );
    }
    let drained = Sum::of([*accepted, *duplicate, *out_of_sequence, *malformed]);
    match kernel {
        Some(kernel) if Sum::of([kernel.captured]) != drained => {
            let captured = Sum::of([kernel.captured]);
            log.finding(
                Check::Arithmetic,
                place(),
                format!("the kernel captured {captured}, and {drained} are accounted for"),
            );
        }
        Some(_) => {}
        None => log.note(format!(
            "channel {channel} {direction}: the kernel's counters were not read before the node restarted, so nothing \
             vouches for the end of this stream"
        )),
    }
    if malformed.records > 0 {
        log.note(format!(
            "channel {channel} {direction}: {} messages were not frames; the receiving leg took nothing from there on, \
             and neither does the recording",
            malformed.records
        ));
    }
}
