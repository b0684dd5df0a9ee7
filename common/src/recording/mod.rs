//! The recording format, version 1: what lies in a session's directory in the store.
//!
//! `<prefix>/v1/dt=YYYY-MM-DD/<session id>/` holds
//!
//! | object | what |
//! |---|---|
//! | `000001.ndjson.zst` … | a segment: zstd-compressed NDJSON, the first line a [`SegmentHeader`], then an [`Event`] a line |
//! | `000001.bin` or `000001.bin.zst` | the segment's bulk, where it has any: bytes that are no text, in the order of the events that point into it |
//! | `000001.sig` | the segment's signature, as `ssh-keygen -Y verify -n weir` reads it; each segment names the digests of its bulk and of the segment before it, so that it vouches for everything so far |
//! | `commands.ndjson`, `files.ndjson`, `forwards.ndjson`, `transcript.txt` | what the session amounts to ([`findings`]), where there is something to say |
//! | `manifest.json` | the [`Manifest`] |
//! | `SHA256SUMS` | the digest of every object above, as `sha256sum -c` reads it |
//! | `SHA256SUMS.sig` | its signature, as `ssh-keygen -Y verify -n weir` reads it |
//!
//! Compression and JSON are the store's form only. The evidence is the sequence of frames: every event says
//! which frame it was and carries its exact bytes, so a reader can rebuild and count each byte the kernel captured.

mod event;
pub mod findings;
mod manifest;
mod sums;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    event::{Content, Event, Gap, GapCause, Part, What},
    manifest::{
        ChannelTotals, Count, DirectionTotals, KernelCount, Manifest, Recorder, SegmentEntry, StoredFindings,
        StoredObject,
    },
    sums::{parse_sums, sums_text},
};
use crate::{
    digest::Sha256,
    session::{SessionId, SessionMeta, TargetPeer},
};

/// Version of the format in this module.
pub const FORMAT_VERSION: u32 = 1;
/// The namespace of signatures (`ssh-keygen -Y verify -n`).
pub const SIGNATURE_NAMESPACE: &str = "weir";
/// The identity the agent's key has in an `allowed_signers` file.
pub const SIGNER_IDENTITY: &str = "weir-agent";

/// Object name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// Object name of the digests.
pub const SUMS: &str = "SHA256SUMS";
/// Object name of the signature of [`SUMS`].
pub const SIGNATURE: &str = "SHA256SUMS.sig";

/// Bodies that are no text go into the event as base64 up to this many bytes, above into the bulk object.
pub const INLINE_BINARY_MAX: usize = 256;
/// The most uncompressed bytes of a segment's NDJSON that a reader accepts, against decompression bombs.
///
/// A segment is sealed at 8 MiB of frames by default and JSON escapes a byte into six at the worst.
pub const SEGMENT_NDJSON_MAX: u64 = 1 << 30;
/// The most uncompressed bytes of a segment's bulk that a reader accepts.
pub const SEGMENT_BULK_MAX: u64 = 1 << 30;

/// Where a session lies below the store's prefix: `v1/dt=YYYY-MM-DD/<session id>`, the date in UTC.
#[must_use]
pub fn session_path(opened_at: Timestamp, session: SessionId) -> String {
    format!("v1/dt={}/{session}", opened_at.strftime("%Y-%m-%d"))
}

/// Object name of a segment.
#[must_use]
pub fn segment_name(index: u32) -> String {
    format!("{index:06}.ndjson.zst")
}

/// Object name of a segment's bulk.
#[must_use]
pub fn bulk_name(index: u32, compressed: bool) -> String {
    if compressed { format!("{index:06}.bin.zst") } else { format!("{index:06}.bin") }
}

/// Object name of a segment's signature.
#[must_use]
pub fn signature_name(index: u32) -> String {
    format!("{index:06}.sig")
}

/// The first line of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentHeader {
    /// [`FORMAT_VERSION`].
    pub weir: u32,
    /// The session.
    pub session: SessionId,
    /// The segment's number, from 1.
    pub index: u32,
    /// Digest of the segment before this one as stored; none for the first.
    pub previous: Option<Sha256>,
    /// The segment's bulk as stored, if it has any.
    pub bulk: Option<StoredObject>,
    /// Whose session it is; in the first segment only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Box<Opened>>,
}

/// What is known of a session when its first segment is sealed, so that the segments of one that is under way, or whose
/// node never came back, say whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    /// The access context.
    pub session: SessionMeta,
    /// The target as the connector found it.
    pub target: Option<TargetPeer>,
    /// Who records it.
    pub recorder: Recorder,
    /// When the agent registered it.
    pub opened_at: Timestamp,
    /// How to read the events' times.
    pub clock: Clock,
}

/// A kernel time and the calendar time at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Kernel time since boot in nanoseconds.
    pub boot_ns: u64,
    /// Calendar time.
    pub at: Timestamp,
}

impl Clock {
    /// The calendar time of a kernel time; `None` outside the calendar.
    #[must_use]
    pub fn at(&self, boot_ns: u64) -> Option<Timestamp> {
        let delta = i128::from(boot_ns) - i128::from(self.boot_ns);
        Timestamp::from_nanosecond(self.at.as_nanosecond() + delta).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_time_before_or_after_the_clock_reading_has_its_calendar_time() {
        let clock = Clock { boot_ns: 1_000, at: Timestamp::UNIX_EPOCH };
        assert_eq!(clock.at(3_000).map(Timestamp::as_nanosecond), Some(2_000));
        assert_eq!(clock.at(0).map(Timestamp::as_nanosecond), Some(-1_000));
    }
}
