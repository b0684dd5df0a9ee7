//! The manifest: what a session was, and the arithmetic by which its recording is complete.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Clock, findings::FindingCounts};
use crate::{
    digest::Sha256,
    session::{ChannelNo, Outcome, SessionMeta, SocketCookie, TargetPeer},
};

/// A number of messages and their bytes, frame headers included. Sums stop at what fits: counts are read from disks, too,
/// and no true ones come near it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// How many.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Count {
    /// Counts one message.
    pub fn add(&mut self, bytes: u64) {
        *self = *self + Self { records: 1, bytes };
    }
}

impl std::ops::Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_add(other.records),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// The kernel's own counters of a tap, read when nothing could add to them any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelCount {
    /// Captured and passed.
    pub captured: Count,
    /// Passed unrecorded (`capture_policy = "best_effort"`).
    pub passed: Count,
    /// Tossed because there was no room: in the ring, or in the session's share of the spool.
    pub tossed_full: u64,
    /// Tossed because the tap was frozen.
    pub tossed_frozen: u64,
    /// Tossed for their size.
    pub tossed_size: u64,
}

/// One direction of one channel, counted.
///
/// `kernel.captured = accepted + duplicate + out_of_sequence + malformed` and `kernel.passed = passed`, in records and
/// in bytes: every message that the kernel captured or passed is accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectionTotals {
    /// Cookie of the receiving socket.
    pub cookie: SocketCookie,
    /// Taken: these are the events of the recording.
    pub accepted: Count,
    /// Sent again after they had been taken.
    pub duplicate: Count,
    /// Passed over because a frame before them was tossed; they came again.
    pub out_of_sequence: Count,
    /// Not a frame, or behind one that was not.
    pub malformed: Count,
    /// Passed unrecorded, as the gaps in the recording say.
    pub passed: Count,
    /// What the kernel counted. None where the node restarted before its counters were read.
    pub kernel: Option<KernelCount>,
}

impl DirectionTotals {
    /// Everything the agent drained for this tap.
    #[must_use]
    pub fn drained(&self) -> Count {
        self.accepted + self.duplicate + self.out_of_sequence + self.malformed
    }
}

/// One channel, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelTotals {
    /// The channel.
    pub channel: ChannelNo,
    /// From the client.
    pub c2t: DirectionTotals,
    /// From the target.
    pub t2c: DirectionTotals,
}

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredObject {
    /// Its name in the session's directory.
    pub name: String,
    /// Its digest.
    pub sha256: Sha256,
    /// Its bytes.
    pub bytes: u64,
}

/// A segment in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentEntry {
    /// Its number, from 1.
    pub index: u32,
    /// Its events, and the bytes the kernel captured for them.
    pub events: Count,
    /// The segment itself.
    pub segment: StoredObject,
    /// Its bulk, if it has any.
    pub bulk: Option<StoredObject>,
    /// Its signature. None only before it is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<StoredObject>,
}

impl SegmentEntry {
    /// The objects that belong to the segment.
    pub fn objects(&self) -> impl Iterator<Item = &StoredObject> {
        std::iter::once(&self.segment).chain(&self.bulk).chain(&self.signature)
    }
}

/// Which program recorded the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorder {
    /// Its version.
    pub agent: String,
    /// The kernel ABI.
    pub abi: u16,
    /// The node's name.
    pub node: String,
    /// The node's kernel release.
    pub kernel: String,
}

/// What a session was, and the arithmetic by which its recording is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`super::FORMAT_VERSION`].
    pub weir: u32,
    /// The access context.
    pub session: SessionMeta,
    /// The target as the connector found it; none if the session ended before it was connected.
    pub target: Option<TargetPeer>,
    /// Who recorded it.
    pub recorder: Recorder,
    /// When the agent registered the session.
    pub opened_at: Timestamp,
    /// When the agent saw its end.
    pub closed_at: Timestamp,
    /// How to read the events' times.
    pub clock: Clock,
    /// How it ended.
    pub outcome: Outcome,
    /// Every channel.
    pub channels: Vec<ChannelTotals>,
    /// Every segment, in order.
    pub segments: Vec<SegmentEntry>,
    /// What is stored of what the session amounts to. None where it was not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<StoredFindings>,
}

/// Findings in the store. An index into the evidence: a recording is complete without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFindings {
    /// How many there are. None where they could not be made, or not all of them be stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<FindingCounts>,
    /// The objects that hold them, at most one of each kind ([`super::findings::kind_of`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<StoredObject>,
    /// Objects that were in the store under names of findings already and do not count: an agent of another version
    /// was killed after it had put them there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<StoredObject>,
}

impl StoredFindings {
    /// The object of this kind (one of [`super::findings::KINDS`]), if there is something to say.
    #[must_use]
    pub fn object(&self, kind: &str) -> Option<&StoredObject> {
        self.objects.iter().find(|object| super::findings::kind_of(&object.name) == Some(kind))
    }
}

impl Manifest {
    /// Every stored object that the manifest names.
    pub fn objects(&self) -> impl Iterator<Item = &StoredObject> {
        let Self { segments, findings, .. } = self;
        let findings =
            findings.iter().flat_map(|findings| findings.objects.iter().chain(&findings.superseded));
        segments.iter().flat_map(SegmentEntry::objects).chain(findings)
    }
}
