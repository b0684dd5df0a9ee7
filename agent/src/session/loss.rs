//! Going on where records of the session may have been lost with a part of the spool.
//!
//! Owns the question which of its streams lost any, and how many. The damage doesn't say it, but
//! what comes behind it does, since each stream's frames have numbers and are taken in their order:
//!
//! - *The next number comes*: nothing of the stream was lost.
//! - *A number further on comes* that is not sent before the next one was taken (it is [`WINDOW`] away): the ones in between were
//!   taken and are missing. They are counted as accepted and as gone.
//! - *Any other number further on* tells neither: a frame before it may have been tossed, and come again. It is held until one of
//!   the others comes, or the kernel's counters say at the end of the channel whether anything was lost. Where these are not
//!   known, what looks like a loss is told as one.
//!
//! A segment may have been begun with lost records in it, before they were. Then the session has fewer than the segment takes:
//! the difference counts as gone, and is not counted again when the numbers tell it.

use serde::{Deserialize, Serialize};
use weir_common::{
    frame::{Direction, Header, WINDOW},
    recording::Count,
    session::{CapturePolicy, ChannelNo},
};

use super::{Captured, ChannelKernel, Session, channels::Way, pending::Pending};
use crate::spool::{FileNo, Place};

/// That records of a session may have been lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Loss {
    /// So many are counted as gone, because a segment took them, and no stream has missed them yet.
    ahead: u64,
}

/// A stream of which frames may have been lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unsure {
    /// Frames further on, in the order in which they came. Fewer than twice [`WINDOW`].
    held: Vec<Held>,
    /// How many came in sequence: one of them may be a copy of one that was lost, a whole window is not.
    taken: usize,
}

/// A record that counts as out of sequence, and may turn out not to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    seq: u64,
    file: FileNo,
    offset: u64,
    entry_len: u32,
    message_len: u32,
    boot_ns: u64,
}

impl Session {
    /// Records behind the ones that are known may have been lost, of any stream.
    pub fn lose(&mut self) {
        // Behind the end there is none.
        if self.end.is_some() {
            return;
        }
        for channel in &mut self.channels {
            for way in [&mut channel.c2t, &mut channel.t2c] {
                way.unsure.get_or_insert_default().taken = 0;
            }
        }
        self.loss.get_or_insert_default();
        self.pending.mark_loss();
    }

    /// Looks what a frame out of sequence tells of a loss.
    pub(super) fn hold(
        &mut self,
        channel: ChannelNo,
        direction: Direction,
        record: &Captured<'_>,
        place: Place,
    ) {
        let is_never_tossed = self.meta.capture_policy == CapturePolicy::BestEffort;
        let lens = (u32::try_from(record.entry_len), u32::try_from(record.message.len()));
        let (Ok((Header { seq, .. }, _)), (Ok(entry_len), Ok(message_len))) =
            (Header::split(record.message), lens)
        else {
            return;
        };
        let Some((way, pending, loss)) = self.unsure_way(channel, direction) else { return };
        let Some(unsure) = &mut way.unsure else { return };
        if unsure.held.len() < 2 * WINDOW && unsure.held.iter().all(|held| held.seq != seq) {
            let Place { file, offset } = place;
            unsure.held.push(Held { seq, file, offset, entry_len, message_len, boot_ns: record.boot_ns });
        }
        settle(way, pending, loss, is_never_tossed);
    }

    /// A gap begins with this frame, so that everything before it was recorded.
    pub(super) fn miss_before(&mut self, channel: ChannelNo, direction: Direction, seq: u64) {
        if let Some((way, pending, loss)) = self.unsure_way(channel, direction) {
            miss(way, pending, loss, seq);
        }
    }

    fn unsure_way(
        &mut self,
        channel: ChannelNo,
        direction: Direction,
    ) -> Option<(&mut Way, &mut Pending, &mut Loss)> {
        let Self { channels, pending, loss: Some(loss), end: None, .. } = self else { return None };
        let channel = channels.iter_mut().rev().find(|other| other.no == channel)?;
        let way = match direction {
            Direction::ClientToTarget => &mut channel.c2t,
            Direction::TargetToClient => &mut channel.t2c,
        };
        way.unsure.is_some().then_some((way, pending, loss))
    }

    /// What the kernel counted says whether anything was lost.
    pub(super) fn settle_by(&mut self, kernel: ChannelKernel) {
        let Self { channels, pending, loss: Some(loss), .. } = self else { return };
        for channel in channels.iter_mut().filter(|channel| channel.no == kernel.channel) {
            for (way, counted) in [(&mut channel.c2t, kernel.c2t), (&mut channel.t2c, kernel.t2c)] {
                let drained = way.totals.drained().records;
                if counted.is_none_or(|counted| counted.captured.records > drained) {
                    settle(way, pending, loss, true);
                }
            }
        }
    }

    /// A later checkpoint says how many were accepted.
    pub(super) fn settle_with(&mut self, checkpoint: &Self) {
        let totals = checkpoint.totals();
        let Self { channels, pending, loss: Some(loss), .. } = self else { return };
        for channel in channels {
            let Some(known) = totals.iter().find(|totals| totals.channel == channel.no) else { continue };
            for (way, known) in [(&mut channel.c2t, known.c2t), (&mut channel.t2c, known.t2c)] {
                if known.accepted.records > way.totals.accepted.records {
                    settle(way, pending, loss, true);
                }
            }
        }
    }

    /// A segment takes so many records: those of them that are lost count as gone.
    pub(super) fn cover(&mut self, records: u64) {
        if records > self.pending.total().records {
            self.settle_held();
        }
        let short = records.saturating_sub(self.pending.total().records);
        if let Some(loss) = self.loss.as_mut().filter(|_| short > 0) {
            loss.ahead = loss.ahead.saturating_add(short);
            self.pending.fill_loss(short);
        }
    }

    /// Whoever began a segment knew what came in sequence, so what is held from before that is in it, or missing.
    fn settle_held(&mut self) {
        let Self { channels, pending, loss: Some(loss), .. } = self else { return };
        for way in channels.iter_mut().flat_map(|channel| [&mut channel.c2t, &mut channel.t2c]) {
            settle(way, pending, loss, true);
        }
    }

    /// How many are gone that no stream has missed.
    pub(super) fn ahead(&self) -> u64 {
        self.loss.as_ref().map_or(0, |loss| loss.ahead)
    }

    /// The spool files that held records lie in.
    pub(super) fn held_files(&self) -> impl Iterator<Item = FileNo> {
        let ways = self.channels.iter().flat_map(|channel| [&channel.c2t, &channel.t2c]);
        ways.filter_map(|way| way.unsure.as_ref()).flat_map(|unsure| unsure.held.iter().map(|held| held.file))
    }
}

impl Way {
    /// A frame came in sequence.
    pub(super) fn in_sequence(&mut self) {
        let next = self.inbound.next_seq();
        let Some(unsure) = &mut self.unsure else { return };
        unsure.taken += 1;
        if unsure.taken >= WINDOW {
            self.unsure = None;
        } else {
            unsure.held.retain(|held| held.seq >= next);
        }
    }
}

/// Accepts what is held as far as it is certain that what is missing before it was lost, or in any case.
fn settle(way: &mut Way, pending: &mut Pending, loss: &mut Loss, in_any_case: bool) {
    let Some(Unsure { mut held, taken }) = way.unsure.take() else { return };
    loop {
        let next = way.inbound.next_seq();
        let (Some(least), Some(most)) =
            (held.iter().map(|held| held.seq).min(), held.iter().map(|held| held.seq).max())
        else {
            break;
        };
        if !in_any_case && most.saturating_sub(next) < WINDOW as u64 {
            break;
        }
        // A frame less than a window before the furthest may have been tossed, and come again.
        let certain = (most + 1).saturating_sub(WINDOW as u64);
        miss(way, pending, loss, if in_any_case { least } else { least.min(certain) });
        held.retain(|held| {
            if held.seq == way.inbound.next_seq() {
                accept(way, pending, held);
            }
            held.seq >= way.inbound.next_seq()
        });
        if way.inbound.next_seq() <= next {
            // At the end of the numbers.
            held.clear();
        }
    }
    way.unsure = Some(Unsure { held, taken });
}

fn miss(way: &mut Way, pending: &mut Pending, loss: &mut Loss, until: u64) {
    let frames = until.saturating_sub(way.inbound.next_seq());
    way.inbound.skip(frames);
    let accepted = &mut way.totals.accepted;
    accepted.records = accepted.records.saturating_add(frames);
    let known = loss.ahead.min(frames);
    loss.ahead -= known;
    pending.fill_loss(frames - known);
}

fn accept(way: &mut Way, pending: &mut Pending, held: &Held) {
    let Held { seq: _, file, offset, entry_len, message_len, boot_ns } = *held;
    way.inbound.skip(1);
    let Count { records, bytes } = &mut way.totals.out_of_sequence;
    (*records, *bytes) = (records.saturating_sub(1), bytes.saturating_sub(message_len.into()));
    way.totals.accepted.add(message_len.into());
    pending.push(Place { file, offset }, entry_len.into(), message_len.into(), boot_ns);
}
