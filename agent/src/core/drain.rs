//! From the ring to the spool.
//!
//! A pass walks a bounded number of records, writes them to the spool straight from the ring's memory, and
//! only then gives their room back. While the spool takes nothing the records stay where they are: the ring
//! fills, the kernel tosses what comes, and the sessions stall (invariant I1).

use std::time::{Duration, Instant};

use tracing::{error, info, warn};
use weir_common::{
    abi::{GapRecord, RECORD_GAP, RECORD_HEADER_LEN, RECORD_MESSAGE, RecordHeader},
    recording::{Gap, GapCause},
    session::{SessionId, SocketCookie},
};

use super::{Core, TICK};
use crate::{
    clock,
    journal::{Journal, JournalError, RingRecord, entry_bytes},
    ledger::Accounted,
    metrics::Lane,
    spool::PASS_BYTES,
};

/// The most records of a pass.
const PASS_RECORDS: usize = 4096;
/// How many passes a spool has room for at least.
const SPOOL_PASSES: u64 = 8;
/// How soon to look again for room that the store gives back.
const STALLED_PAUSE: Duration = Duration::from_millis(25);

/// What a pass found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Drained {
    /// The ring is empty.
    Nothing,
    /// It was emptied.
    Some,
    /// The pass reached its bound.
    More,
    /// There is no room for what is in the ring.
    Blocked {
        /// When to try again.
        pause: Duration,
    },
}

impl Core {
    /// Makes a pass.
    pub(super) fn drain(&mut self) -> Drained {
        let begun = Instant::now();
        // Also a small spool has room for a pass.
        let pass_bytes = PASS_BYTES.min(self.journal.space().limits().max_bytes / SPOOL_PASSES);
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut foreign = 0_u64;
        let gap;
        let mut walk = self.ring.records();
        let mut end = walk.position();
        let more = loop {
            if bytes >= pass_bytes || records.len() >= PASS_RECORDS {
                break true;
            }
            let Some(record) = walk.next() else {
                end = walk.position();
                break false;
            };
            match read(record.bytes) {
                // A pass of its own: where it is in its stream is known when everything before it is accounted for.
                Some(Told::Gap(..)) if !records.is_empty() => break true,
                Some(Told::Gap(cookie, told, ended_ns)) => {
                    end = walk.position();
                    gap = self.spooled_gap(cookie, told, ended_ns);
                    match &gap {
                        Some(gap) => {
                            bytes += entry_bytes(gap.len());
                            records.push(RingRecord { bytes: gap, end: record.end });
                        }
                        None => foreign += 1,
                    }
                    break true;
                }
                Some(Told::Message(trimmed)) => {
                    bytes += entry_bytes(trimmed.len());
                    records.push(RingRecord { bytes: trimmed, end: record.end });
                }
                None => foreign += 1,
            }
            end = walk.position();
        };
        if records.is_empty() && end == self.ring.consumer_position() {
            return Drained::Nothing;
        }
        if foreign > 0 {
            error!(records = foreign, "the ring has records that this agent's program did not write");
            self.watch.lane.foreign(foreign);
        }
        self.watch.lag(&records);
        let count = records.len();
        // Sessions that stalled go on when there is clearly room, lest they do so one record at a time.
        let margin = if self.stalled_since.is_some() { self.journal.space().margin() } else { 0 };
        match room(&self.journal, bytes + margin)
            .and_then(|()| append(&mut self.journal, &records, &self.watch.lane))
        {
            Ok(Appended { touched, passed }) => {
                self.ring.release(end);
                self.watch.lane.drained(count, bytes, begun.elapsed());
                self.flows();
                self.pause_greedy(&touched);
                if let Some((session, gap)) = passed {
                    self.tell_gap(session, &gap);
                }
                if more { Drained::More } else { Drained::Some }
            }
            Err(Refusal::NoRoom(why)) => {
                if self.stalled_since.is_none() {
                    error!(
                        why,
                        spool_bytes = self.journal.spool_bytes(),
                        "sessions stall until the spool has room"
                    );
                    self.stalled_since = Some(Instant::now());
                    self.causes.begin(GapCause::SpoolFull, None, clock::boot_ns());
                }
                Drained::Blocked { pause: STALLED_PAUSE }
            }
            Err(Refusal::Journal(error)) => {
                let _ = self.noted::<()>(Err(error));
                Drained::Blocked { pause: self.trouble.map_or(TICK, |trouble| trouble.pause) }
            }
        }
    }

    /// Drains what is in the ring, as far as there is room: a node that shuts down in order loses nothing.
    pub(super) fn drain_rest(&mut self) {
        let until = self.ring.producer_position();
        while self.ring.consumer_position() < until {
            match self.drain() {
                Drained::Some | Drained::More => {}
                Drained::Nothing | Drained::Blocked { .. } => return,
            }
        }
    }

    /// Notes that records go into the spool.
    fn flows(&mut self) {
        let _ = self.noted(Ok(()));
        if let Some(since) = self.stalled_since.take() {
            info!(stalled = ?since.elapsed(), "the spool has room again");
            self.causes.end(GapCause::SpoolFull, None, clock::boot_ns());
        }
    }
}

/// Why a pass wrote nothing.
enum Refusal {
    NoRoom(&'static str),
    Journal(JournalError),
}

fn room(journal: &Journal, bytes: u64) -> Result<(), Refusal> {
    if !journal.space().has_room(bytes) {
        return Err(Refusal::NoRoom("the spool has reached spool_max_bytes"));
    }
    match journal.space().disk_has_room(journal.spool_dir(), bytes) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::NoRoom("the spool's disk is full")),
        Err(error) => Err(Refusal::Journal(error.into())),
    }
}

/// Whose records went into the spool, and the gap if that is what they are.
struct Appended {
    touched: Vec<SessionId>,
    passed: Option<(SessionId, Gap)>,
}

/// Puts records into the spool.
fn append(journal: &mut Journal, records: &[RingRecord<'_>], lane: &Lane) -> Result<Appended, Refusal> {
    let mut orphans = 0_u64;
    let (mut touched, mut passed) = (Vec::new(), None);
    let appended = journal.append_records(records, |accounted| match accounted {
        // Those of one session mostly come one after the other.
        Accounted::To(id) if touched.last() != Some(&id) => touched.push(id),
        Accounted::To(_) => {}
        Accounted::Ended(session, channel, direction, error) => {
            warn!(%session, %channel, %direction, %error, "a message is no frame; its stream ends here");
        }
        Accounted::Gap { session, gap, permitted: true } => passed = Some((session, gap)),
        Accounted::Gap { session, gap, permitted: false } => {
            error!(%session, records = gap.records, "messages passed unrecorded that must not; it will not verify");
        }
        Accounted::Orphan => orphans += 1,
    });
    if orphans > 0 {
        error!(records = orphans, "the ring had records of sockets that belong to no session");
        lane.orphans(orphans);
    }
    appended.map_err(Refusal::Journal)?;
    touched.sort_unstable();
    touched.dedup();
    Ok(Appended { touched, passed })
}

/// What a record of the ring tells.
enum Told<'a> {
    /// A message: the record without the padding of its size class.
    Message(&'a [u8]),
    /// A gap, and the kernel time when it was over.
    Gap(SocketCookie, GapRecord, u64),
}

/// Reads a record; `None` if this agent's program did not write it.
fn read(record: &[u8]) -> Option<Told<'_>> {
    let (header, message) = RecordHeader::split(record)?;
    match header.kind {
        RECORD_MESSAGE => record.get(..RECORD_HEADER_LEN + message.len()).map(Told::Message),
        RECORD_GAP => {
            let gap = GapRecord::from_bytes(message)?;
            Some(Told::Gap(SocketCookie(header.cookie), gap, header.boot_ns))
        }
        _ => None,
    }
}
