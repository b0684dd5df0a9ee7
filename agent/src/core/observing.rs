//! What the core shows of itself: it adds what is new to its lane's metrics, and publishes the rest at every tick.
//!
//! The kernel's counters of armed taps are read a few at a time, so that a tick stays short however many there are. What the
//! agent before has counted is not counted again: what passed unrecorded goes by the spool, so that what passed while no agent
//! ran counts; messages that were tossed meanwhile are in no spool, and are the proxy's to tell.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use weir_common::{
    abi::RecordHeader,
    recording::{ChannelTotals, DirectionTotals, KernelCount},
    session::{CapturePolicy, SessionId, SocketCookie},
};

use super::{Core, LaneNo};
use crate::{
    clock,
    journal::RingRecord,
    metrics::{Lane, LaneState, SessionCounts, Taking, Tosses, metrics},
    session::{ChannelKernel, Session},
    spool::disk_free,
};

/// The most channels whose kernel counters are read at a tick, but for those of one session.
const TICK_CHANNELS: usize = 128;
/// How long the spool counts as unwritable after the last attempt.
const UNWRITABLE_FOR: Duration = Duration::from_secs(5);

/// What has been added to the metrics.
pub(super) struct Watch {
    ring: LaneNo,
    pub(super) lane: Lane,
    /// The most bytes of the ring that were taken at once since the last tick.
    ring_used: u64,
    seen: HashMap<SocketCookie, Tosses>,
    /// The session that was looked at last.
    last: Option<SessionId>,
    /// What was appended when, and is not known to be on the disk.
    unflushed: (u64, Instant),
}

impl Watch {
    /// The watch over this ring and its core.
    pub(super) fn new(ring: LaneNo) -> Self {
        Self {
            ring,
            lane: metrics().lane(ring.0),
            ring_used: 0,
            seen: HashMap::new(),
            last: None,
            unflushed: (0, Instant::now()),
        }
    }

    /// A pass begins, with so many bytes of the ring taken.
    pub(super) fn pass(&mut self, ring_used: u64) {
        self.ring_used = self.ring_used.max(ring_used);
    }

    /// The core ends, since everything of its lane is stored.
    pub(super) fn ended(&self) {
        metrics().lane_ended(self.ring.0);
    }

    /// Counts what is new of a channel.
    pub(super) fn channel(&mut self, totals: &ChannelTotals, kernel: &ChannelKernel) {
        for (totals, kernel) in directions(totals, kernel) {
            let seen = self.seen.entry(totals.cookie).or_default();
            let now = tosses(totals, kernel).unwrap_or(*seen);
            self.lane.tosses(&now.since(seen), Instant::now());
            *seen = now;
        }
    }

    /// Counts what is new of a channel that is over.
    pub(super) fn channel_over(&mut self, totals: &ChannelTotals, kernel: &ChannelKernel) {
        self.channel(totals, kernel);
        for (totals, _) in directions(totals, kernel) {
            self.seen.remove(&totals.cookie);
        }
    }

    /// Notes the age of the oldest record of a pass.
    pub(super) fn lag(&self, records: &[RingRecord<'_>]) {
        let oldest = records.first().and_then(|record| RecordHeader::split(record.bytes));
        if let Some((header, _)) = oldest {
            self.lane.lag(Duration::from_nanos(clock::boot_ns().saturating_sub(header.boot_ns)));
        }
    }
}

impl Core {
    /// What was counted up to now was counted by the agent before, but for what passed unrecorded and is not in the spool.
    pub(super) fn begin_watch(&mut self) {
        let live = self.journal.ledger().sessions().filter(|session| session.end().is_none());
        for totals in live.flat_map(Session::armed) {
            let kernel = self.kernel_counts(&totals);
            for (totals, kernel) in directions(&totals, &kernel) {
                let known = [totals.passed.records, totals.passed.bytes];
                let seen = Tosses { unrecorded: known, ..tosses(totals, kernel).unwrap_or_default() };
                self.watch.seen.insert(totals.cookie, seen);
            }
        }
    }

    /// Has a session that has begun reported, if anybody wants to know.
    pub(super) fn report_opened(&self, id: SessionId) {
        if let (Some(reports), Some(session)) = (&self.options.reports, self.journal.ledger().session(id)) {
            reports.opened(session);
        }
    }

    /// Publishes what is to be seen at a tick.
    pub(super) fn publish(&mut self, now: Instant) {
        self.look_at_some();
        let (marker, then) = self.watch.unflushed;
        if self.journal.is_flushed(marker) {
            self.watch.lane.flushed_until(then);
            self.watch.unflushed = (self.journal.flush_marker(), now);
        }
        let ledger = self.journal.ledger();
        let sessions = self.session_counts();
        let oldest = ledger.sessions().filter_map(Session::oldest_unstored_boot_ns).min();
        let age = oldest.map_or(0, |oldest| clock::boot_ns().saturating_sub(oldest));
        let state = LaneState {
            ring_capacity: self.ring.capacity(),
            ring_used: self.watch.ring_used,
            spool: self.journal.spool_bytes(),
            spool_limit: self.journal.space().limits().max_bytes,
            disk_free: disk_free(self.journal.spool_dir()).ok(),
            oldest_unstored: Duration::from_nanos(age),
            sessions,
            taking: self.taking(now),
        };
        self.watch.lane.publish(&state, now);
        self.watch.ring_used = 0;
    }

    /// The sessions by state.
    fn session_counts(&self) -> SessionCounts {
        let stalled = self.takes_nothing().is_some();
        let mut sessions = SessionCounts::default();
        for session in self.journal.ledger().sessions() {
            let id = session.id();
            let has_no_room = stalled || self.paused.contains(&id);
            let state = if session.end().is_some() {
                &mut sessions.storing
            } else if self.closing.contains_key(&id) {
                &mut sessions.closing
            } else if self.frozen.contains(&id) {
                &mut sessions.frozen
            } else if has_no_room && session.meta().capture_policy == CapturePolicy::BestEffort {
                &mut sessions.unrecorded
            } else if has_no_room || self.awaited.contains_key(&id) {
                &mut sessions.paused
            } else {
                &mut sessions.open
            };
            *state += 1;
        }
        sessions
    }

    fn taking(&self, now: Instant) -> Taking {
        match self.trouble {
            Some(trouble) if now < trouble.until + UNWRITABLE_FOR => Taking::Unwritable,
            _ if self.stalled_since.is_some() => Taking::Full,
            _ if self.short || self.writable().is_err() => Taking::NothingNew,
            _ => Taking::Everything,
        }
    }

    /// Counts what is new of a bounded number of armed channels, in turn.
    fn look_at_some(&mut self) {
        let last = self.watch.last;
        let mut channels = Vec::new();
        self.watch.last = None;
        for session in self.journal.ledger().sessions().filter(|session| session.end().is_none()) {
            if last.is_some_and(|last| session.id() <= last) {
                continue;
            }
            channels.extend(session.armed());
            if channels.len() >= TICK_CHANNELS {
                self.watch.last = Some(session.id());
                break;
            }
        }
        for totals in channels {
            let kernel = self.kernel_counts(&totals);
            self.watch.channel(&totals, &kernel);
        }
    }
}

fn directions<'a>(
    totals: &'a ChannelTotals,
    kernel: &ChannelKernel,
) -> [(&'a DirectionTotals, Option<KernelCount>); 2] {
    [(&totals.c2t, kernel.c2t), (&totals.t2c, kernel.t2c)]
}

fn tosses(totals: &DirectionTotals, kernel: Option<KernelCount>) -> Option<Tosses> {
    let kernel = kernel?;
    Some(Tosses {
        tossed: [kernel.tossed_full, kernel.tossed_frozen, kernel.tossed_size],
        not_recorded: [totals.duplicate, totals.out_of_sequence, totals.malformed].map(|count| count.records),
        unrecorded: [kernel.passed.records, kernel.passed.bytes],
    })
}
