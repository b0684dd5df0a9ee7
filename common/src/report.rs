//! The session report: what the console is told about a session. Metadata only; what was said in it never leaves the
//! customer's bucket.
//!
//! `POST <url>` with `Authorization: Bearer <token>` and `Content-Type: application/json`, the body one
//! [`SessionReport`] of at most [`MAX_REPORT`] bytes. The agent sends one when the session begins and one when its
//! recording is in the store, each until the receiver has answered with a 2xx status: at least once, in any order. The
//! receiver keeps, by session id, the one whose [`Status`] is the furthest; a report it has is taken again and changes
//! nothing. A body that it will never take is answered with 400, 409, 413 or 422; the agent sets such a report aside,
//! and goes on with the next.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256,
    recording::{Count, Recorder, findings::FindingCounts},
    session::{Outcome, SessionMeta, TargetPeer},
};

/// Version of the layout in this module.
pub const REPORT_VERSION: u32 = 1;
/// The most bytes of a report.
pub const MAX_REPORT: usize = 128 * 1024;

/// A session's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionReport {
    /// [`REPORT_VERSION`].
    pub weir: u32,
    /// The access context, the session's id among it.
    pub session: SessionMeta,
    /// The target as the connector found it; none if it was not connected (yet).
    pub target: Option<TargetPeer>,
    /// Who records it.
    pub recorder: Recorder,
    /// When the agent registered it.
    pub opened_at: Timestamp,
    /// Where the recording is.
    pub location: Location,
    /// How far it is.
    pub status: Status,
}

/// Where a recording is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// The store, as the agent's configuration names it: `s3://bucket/prefix` or `file:///path`.
    pub store: String,
    /// The session's directory below that.
    pub path: String,
}

/// How far a session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case", deny_unknown_fields)]
pub enum Status {
    /// It has begun.
    Open,
    /// It is over, and everything about it is in the store.
    Stored(Box<Totals>),
}

/// What a session came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// When the agent saw its end.
    pub closed_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// How many channels it had.
    pub channels: u64,
    /// How many segments.
    pub segments: u64,
    /// Messages from the client that are in the recording.
    pub c2t: Count,
    /// Messages from the target that are in the recording.
    pub t2c: Count,
    /// Messages that passed unrecorded, as `capture_policy = "best_effort"` permits.
    pub passed: Count,
    /// Bytes of the recording in the store.
    pub stored_bytes: u64,
    /// Whether what was drained is what the kernel counted, in every channel; none where the kernel's counters were lost
    /// with a restart of the node.
    pub adds_up: Option<bool>,
    /// How many findings there are; none where they were not made. A number of commands is not what they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<FindingCounts>,
    /// Digest of the object `SHA256SUMS`, which lists the digests of all others.
    pub sums: Sha256,
    /// Fingerprint of the key that signed it (`SHA256:…`).
    pub signer: String,
}
