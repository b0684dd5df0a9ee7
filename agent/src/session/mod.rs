//! One session's state: a pure function of the spool's entries about it.
//!
//! Owns the acceptance of records (the same rule the receiving leg runs), the counts that must add up to the
//! kernel's, and the order open → sealing and sealed, again and again → closed → finished. A step out of that
//! order is an error value. No clock, no files and no sockets: kernel time is an argument, records are bytes.

mod channels;
mod loss;
pub mod pending;
mod reconcile;
mod runs;
mod view;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use weir_common::{
    frame::{Direction, FrameError, Verdict},
    recording::{ChannelTotals, Clock, Count, KernelCount, Recorder, SegmentEntry},
    session::{CapturePolicy, ChannelNo, Outcome, SessionMeta, SocketCookie, TargetPeer},
};

pub use self::channels::{ARMED_MAX, CHANNELS_MAX};
use self::{
    channels::{Channel, Way},
    loss::Loss,
    pending::Pending,
};
use crate::{spool::Place, withholding::Carried};

/// When pending records become a segment.
#[derive(Clone, Copy, Debug)]
pub struct SealLimits {
    /// At this many bytes of messages.
    pub max_bytes: u64,
    /// At this many records, which bounds the segment's uncompressed size.
    pub max_records: u64,
    /// When the oldest one is this old.
    pub max_age_ns: u64,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    meta: Box<SessionMeta>,
    clock: Clock,
    recorder: Recorder,
    opened_at: Timestamp,
    target: Option<TargetPeer>,
    /// The ones that are armed, or were at the end.
    channels: Vec<Channel>,
    /// The ones that were disarmed before the end.
    #[serde(default)]
    disarmed: BTreeMap<ChannelNo, ChannelTotals>,
    /// How many gaps the events have.
    gaps: u64,
    pending: Pending,
    sealing: Option<Sealing>,
    segments: Vec<SegmentEntry>,
    /// What the segment after these goes on from, where file content is left out.
    #[serde(default, skip_serializing_if = "Carried::is_empty")]
    carried: Carried,
    end: Option<End>,
    /// Whether its grant is over: nothing passes its taps any more, and none is armed. Left out where it is not, so that
    /// the version before reads every checkpoint but one that it would get wrong.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    frozen: bool,
    /// Whether records may have been lost with a part of the spool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss: Option<Loss>,
    /// Kernel time of the newest record.
    #[serde(default)]
    last_boot_ns: u64,
}

/// How and when it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// How.
    pub outcome: Outcome,
    /// When the agent saw it.
    pub closed_at: Timestamp,
}

/// A segment on its way into the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealing {
    /// Its number, from 1.
    pub index: u32,
    /// Its records.
    pub records: Pending,
    /// The target as it was known when the segment was begun: however often the segment is encoded, and whatever has
    /// become known since, its bytes are the same.
    #[serde(default)]
    pub target: Option<TargetPeer>,
}

/// What the kernel counted for a channel; none where it could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelKernel {
    /// The channel.
    pub channel: ChannelNo,
    /// From the client.
    pub c2t: Option<KernelCount>,
    /// From the target.
    pub t2c: Option<KernelCount>,
}

/// The receiving sockets of a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapCookies {
    /// What comes from the client is received at the target end.
    pub c2t: SocketCookie,
    /// What comes from the target is received at the client end.
    pub t2c: SocketCookie,
}

/// A step that the session's state does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Everything but sealing comes before the end.
    #[error("the session has ended")]
    Ended,
    /// There is one target a session.
    #[error("the session's target is connected already")]
    Connected,
    /// A channel that is in use.
    #[error("channel {channel} has been used already")]
    ChannelUsed {
        /// The channel.
        channel: ChannelNo,
    },
    /// A socket that records of another channel may be of.
    #[error("channel {channel} has had this socket")]
    SocketUsed {
        /// The other channel.
        channel: ChannelNo,
    },
    /// Nothing passes it any more.
    #[error("the session is frozen: its grant is over")]
    Frozen,
    /// Past [`ARMED_MAX`].
    #[error("a session has at most {ARMED_MAX} channels at a time")]
    TooManyArmed,
    /// Past [`CHANNELS_MAX`].
    #[error("a session has at most {CHANNELS_MAX} channels in all")]
    TooManyChannels,
    /// Not a channel of this session.
    #[error("there is no channel {channel}")]
    NoChannel {
        /// The channel.
        channel: ChannelNo,
    },
    /// One segment at a time, in order.
    #[error("segment {index} is not the next step of sealing")]
    Sealing {
        /// The segment's number.
        index: u32,
    },
    /// More records than are pending.
    #[error("a segment of {records} records, and not as many are pending")]
    Records {
        /// How many.
        records: u64,
    },
    /// Not everything is stored.
    #[error("the session has not ended or is not stored yet")]
    Unfinished,
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Its channel is over, or the session is.
    #[error("the record's tap is not armed")]
    NoTap,
    /// The stream ends here, which it does once.
    #[error(transparent)]
    NoFrame(#[from] FrameError),
    /// The kernel says that messages passed unrecorded, which the session's policy does not permit.
    #[error("messages passed unrecorded, and the capture policy is fail_closed")]
    Gap,
}

impl Session {
    /// A session that begins.
    #[must_use]
    pub fn new(meta: Box<SessionMeta>, clock: Clock, recorder: Recorder, opened_at: Timestamp) -> Self {
        Self {
            meta,
            clock,
            recorder,
            opened_at,
            target: None,
            channels: Vec::new(),
            disarmed: BTreeMap::new(),
            gaps: 0,
            pending: Pending::default(),
            sealing: None,
            segments: Vec::new(),
            carried: Carried::default(),
            end: None,
            frozen: false,
            loss: None,
            last_boot_ns: 0,
        }
    }

    /// The target is connected.
    ///
    /// # Errors
    /// [`StepError::Ended`], [`StepError::Connected`].
    pub fn connect(&mut self, target: TargetPeer) -> Result<(), StepError> {
        self.may_connect()?;
        self.target = Some(target);
        Ok(())
    }

    /// Whether [`Self::connect`] would succeed.
    ///
    /// # Errors
    /// The [`StepError`] that it would return.
    pub fn may_connect(&self) -> Result<(), StepError> {
        self.may_close()?;
        if self.target.is_some() { Err(StepError::Connected) } else { Ok(()) }
    }

    /// Accounts for a record of this session that lies in the spool at `place`, in an entry of `entry_len`
    /// bytes.
    ///
    /// # Errors
    /// [`RecordError::NoTap`], and the record is not counted here; [`RecordError::NoFrame`], and it is.
    pub fn record(
        &mut self,
        channel: ChannelNo,
        direction: Direction,
        record: Captured<'_>,
        place: Place,
    ) -> Result<(), RecordError> {
        let way = self.way(channel, direction).ok_or(RecordError::NoTap)?;
        let bytes = record.message.len() as u64;
        let (mut taken, mut is_ahead) = (false, false);
        let (count, outcome) = match way.inbound.accept(record.message) {
            Verdict::Take(_) => {
                taken = true;
                way.in_sequence();
                (&mut way.totals.accepted, Ok(()))
            }
            Verdict::Duplicate => (&mut way.totals.duplicate, Ok(())),
            Verdict::OutOfSequence => {
                is_ahead = way.unsure.is_some();
                (&mut way.totals.out_of_sequence, Ok(()))
            }
            Verdict::Malformed(error) => (&mut way.totals.malformed, Err(error.into())),
            Verdict::Ended => (&mut way.totals.malformed, Ok(())),
        };
        count.add(bytes);
        self.last_boot_ns = self.last_boot_ns.max(record.boot_ns);
        if taken {
            self.pending.push(place, record.entry_len, bytes, record.boot_ns);
        }
        if is_ahead {
            self.hold(channel, direction, &record, place);
        }
        outcome
    }

    /// Accounts for a gap whose record lies in the spool at `place`: so many frames passed unrecorded, and the receiving
    /// leg took them. It becomes an event in any case; whether it may be one is told, and verification asks.
    ///
    /// # Errors
    /// [`RecordError::NoTap`], and the gap is not counted here; [`RecordError::Gap`], and it is.
    pub fn gap(
        &mut self,
        channel: ChannelNo,
        direction: Direction,
        gap: Unrecorded,
        place: Place,
    ) -> Result<(), RecordError> {
        let Unrecorded { seq, count, boot_ns, entry_len } = gap;
        self.miss_before(channel, direction, seq);
        let way = self.way(channel, direction).ok_or(RecordError::NoTap)?;
        way.inbound.skip(count.records);
        let passed = &mut way.totals.passed;
        passed.records = passed.records.saturating_add(count.records);
        passed.bytes = passed.bytes.saturating_add(count.bytes);
        self.gaps = self.gaps.saturating_add(1);
        self.last_boot_ns = self.last_boot_ns.max(boot_ns);
        self.pending.push(place, entry_len, 0, boot_ns);
        match self.meta.capture_policy {
            CapturePolicy::BestEffort => Ok(()),
            CapturePolicy::FailClosed => Err(RecordError::Gap),
        }
    }

    /// An armed channel's direction; `None` behind the end too, where what became pending would never be stored.
    fn way(&mut self, channel: ChannelNo, direction: Direction) -> Option<&mut Way> {
        let armed = self.channels.iter_mut().rev().find(|other| other.no == channel);
        let channel = armed.filter(|_| self.end.is_none())?;
        Some(match direction {
            Direction::ClientToTarget => &mut channel.c2t,
            Direction::TargetToClient => &mut channel.t2c,
        })
    }

    /// How many records the next segment should take, if it is time for one.
    #[must_use]
    pub fn due_records(&self, limits: SealLimits, now_boot_ns: u64) -> Option<u64> {
        let total = self.pending.total();
        let is_free = self.sealing.is_none() && total.records > 0;
        let oldest = self.pending.oldest_boot_ns().filter(|_| is_free)?;
        let due = self.end.is_some()
            || total.bytes >= limits.max_bytes
            || total.records >= limits.max_records
            || now_boot_ns.saturating_sub(oldest) >= limits.max_age_ns;
        due.then(|| self.pending.segment_records(limits.max_bytes, limits.max_records))
    }

    /// Begins the next segment with the oldest pending records.
    ///
    /// # Errors
    /// [`StepError::Sealing`], [`StepError::Records`].
    pub fn begin_seal(&mut self, index: u32, records: u64) -> Result<(), StepError> {
        self.may_begin_seal(index, records)?;
        self.cover(records);
        let records = self.pending.take(records).ok_or(StepError::Records { records })?;
        self.sealing = Some(Sealing { index, records, target: self.target.clone() });
        Ok(())
    }

    /// Whether [`Self::begin_seal`] would succeed.
    ///
    /// # Errors
    /// The [`StepError`] that it would return.
    pub fn may_begin_seal(&self, index: u32, records: u64) -> Result<(), StepError> {
        if self.sealing.is_some() || index != self.next_index() {
            return Err(StepError::Sealing { index });
        }
        // Of those that were lost it is not known yet that there were so many.
        let enough = records > 0 && (self.loss.is_some() || records <= self.pending.total().records);
        enough.then_some(()).ok_or(StepError::Records { records })
    }

    /// The segment that was begun is in the store; the next one goes on from what is carried.
    ///
    /// # Errors
    /// [`StepError::Sealing`].
    pub fn sealed(&mut self, entry: SegmentEntry, carried: Carried) -> Result<(), StepError> {
        self.may_be_sealed(entry.index)?;
        self.sealing = None;
        self.carried = carried;
        self.segments.push(entry);
        Ok(())
    }

    /// Whether [`Self::sealed`] would succeed.
    ///
    /// # Errors
    /// The [`StepError`] that it would return.
    pub fn may_be_sealed(&self, index: u32) -> Result<(), StepError> {
        let begun = self.sealing.as_ref().is_some_and(|sealing| sealing.index == index);
        begun.then_some(()).ok_or(StepError::Sealing { index })
    }

    /// The session's grant is over. It may be so more than once.
    ///
    /// # Errors
    /// [`StepError::Ended`].
    pub fn freeze(&mut self) -> Result<(), StepError> {
        self.may_close()?;
        self.frozen = true;
        Ok(())
    }

    /// The session is over.
    ///
    /// # Errors
    /// [`StepError::Ended`].
    pub fn close(&mut self, end: End, kernel: &[ChannelKernel]) -> Result<(), StepError> {
        self.may_close()?;
        for &counts in kernel {
            self.settle_by(counts);
            if let Some(channel) = self.channels.iter_mut().find(|channel| channel.no == counts.channel) {
                channel.count(counts);
            }
        }
        self.end = Some(end);
        Ok(())
    }

    /// Whether [`Self::close`] would succeed.
    ///
    /// # Errors
    /// The [`StepError`] that it would return.
    pub fn may_close(&self) -> Result<(), StepError> {
        if self.end.is_some() { Err(StepError::Ended) } else { Ok(()) }
    }

    /// Whether a note that everything of it is in the store may be true: where records were lost, more than this state has.
    ///
    /// # Errors
    /// [`StepError::Unfinished`] if not.
    pub fn may_be_finished(&self) -> Result<(), StepError> {
        if self.end.is_some() && self.loss.is_some() { Ok(()) } else { self.may_finish() }
    }

    /// Whether it has ended and all its records are in the store.
    ///
    /// # Errors
    /// [`StepError::Unfinished`] if not.
    pub fn may_finish(&self) -> Result<(), StepError> {
        let stored = self.end.is_some() && self.sealing.is_none() && self.pending.total().records == 0;
        stored.then_some(()).ok_or(StepError::Unfinished)
    }
}

/// A record as it lies in the spool.
#[derive(Clone, Copy)]
pub struct Captured<'a> {
    /// Kernel time.
    pub boot_ns: u64,
    /// The message.
    pub message: &'a [u8],
    /// Bytes of the spool entry around it.
    pub entry_len: u64,
}

/// A gap, as its record in the spool tells it.
#[derive(Clone, Copy, Debug)]
pub struct Unrecorded {
    /// The sequence number of the first frame in it.
    pub seq: u64,
    /// What passed.
    pub count: Count,
    /// Kernel time when it was over.
    pub boot_ns: u64,
    /// Bytes of the spool entry around it.
    pub entry_len: u64,
}

#[cfg(test)]
mod tests;
