//! The recording format, version 1: what lies in a session's directory in the store.
//!
//! `<prefix>/v1/dt=YYYY-MM-DD/<session id>/` holds
//!
//! | object | what |
//! |---|---|
//! | `000001.ndjson.zst` … | a segment: zstd-compressed NDJSON, the first line a [`SegmentHeader`], then an [`Event`] a line |
//! | `000001.bin` or `000001.bin.zst` | the segment's bulk, where it has any: bytes that are no text, in the order of the events that point into it |
//! | `000001.sig` | the segment's signature, as `ssh-keygen -Y verify -n weir` reads it; each segment names the digests of its bulk and of the segment before it, so that it vouches for everything so far |
//! | `manifest.json` | the [`Manifest`] |
//! | `SHA256SUMS` | the digest of every object above, as `sha256sum -c` reads it |
//! | `SHA256SUMS.sig` | its signature, as `ssh-keygen -Y verify -n weir` reads it |
//!
//! Compression and JSON are the store's form only. The evidence is the sequence of frames: every event says
//! which frame it was and carries its exact bytes, so a reader can rebuild and count each byte the kernel captured.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256,
    frame::{
        self, ChannelType, Direction, Env, ExitSignal, FrameError, HEADER_LEN, Message, OpenFailure, Pty,
        TcpAddress, WindowSize, X11Request,
    },
    session::{ChannelNo, Outcome, SessionId, SessionMeta, SocketCookie, TargetPeer},
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

/// One frame that the receiving leg took, or the gap where some went unrecorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Kernel time since boot in nanoseconds; [`Clock`] relates it to the calendar. Of a gap: when it was over.
    pub t: u64,
    /// Which way it went.
    pub dir: Direction,
    /// The channel.
    pub ch: ChannelNo,
    /// The frame's sequence number in its direction and channel. Of a gap: that of the first frame in it.
    pub seq: u64,
    /// Bytes of the frame's body. The message the kernel captured is 16 bytes longer. Of a gap: 0.
    pub len: u32,
    /// What it said.
    #[serde(flatten)]
    pub what: What,
}

impl Event {
    /// Bytes of the message that the kernel captured for this event; nothing that makes sense for a gap.
    #[must_use]
    pub fn message_bytes(&self) -> u64 {
        u64::from(self.len) + HEADER_LEN as u64
    }
}

/// What a frame said, in the words of RFC 4254.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "one variant per frame kind, documented there")]
pub enum What {
    Open {
        channel: ChannelType,
    },
    OpenConfirm,
    OpenFailure(OpenFailure),
    Stdin(Content),
    Stdout(Content),
    Stderr(Content),
    Eof,
    Close,
    Pty(Pty),
    Shell,
    /// The command line.
    Exec(Content),
    Subsystem {
        name: String,
    },
    Env(Env),
    WindowChange(WindowSize),
    Signal {
        signal: String,
    },
    AgentForward,
    X11(X11Request),
    TcpipForward(TcpAddress),
    CancelTcpipForward(TcpAddress),
    StreamlocalForward {
        path: String,
    },
    CancelStreamlocalForward {
        path: String,
    },
    PortBound {
        port: u32,
    },
    Success,
    Failure,
    ExitStatus {
        status: u32,
    },
    ExitSignal(ExitSignal),
    /// No frame: frames that passed unrecorded, which the grant permitted.
    Gap(Gap),
}

/// Frames that passed unrecorded, because there was no room and the session's capture policy is `best_effort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// How many, by the kernel's count.
    pub records: u64,
    /// Their bytes, frame headers included.
    pub bytes: u64,
    /// Kernel time since boot in nanoseconds of the first of them.
    pub since: u64,
    /// Why there was no room.
    pub cause: GapCause,
}

/// Why there was no room to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// The ring filled faster than the agent drained it.
    RingFull,
    /// The spool or its disk was full.
    SpoolFull,
    /// The spool could not be written.
    SpoolUnwritable,
    /// The session had used up its share of the spool.
    SessionQuota,
    /// No agent was running.
    AgentDown,
}

/// Exact bytes, in the readable form that fits them. `Debug` shows their length only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Bytes that are UTF-8.
    Text(String),
    /// A few bytes that are not.
    #[serde(with = "base64_bytes")]
    B64(Vec<u8>),
    /// More bytes that are not: where they lie in the segment's uncompressed bulk.
    Bulk {
        /// Offset of the first byte.
        at: u64,
        /// How many.
        bytes: u32,
    },
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} bytes)", self.len())
    }
}

impl Content {
    /// Puts bytes into the form that fits them; what belongs into the bulk is appended to it.
    pub fn of(bytes: &[u8], bulk: &mut Vec<u8>) -> Self {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Self::Text(text.to_owned());
        }
        match u32::try_from(bytes.len()) {
            Ok(len) if bytes.len() > INLINE_BINARY_MAX => {
                let at = bulk.len() as u64;
                bulk.extend_from_slice(bytes);
                Self::Bulk { at, bytes: len }
            }
            _ => Self::B64(bytes.to_vec()),
        }
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::B64(bytes) => bytes.len() as u64,
            Self::Bulk { bytes, .. } => u64::from(*bytes),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes; `None` if they should lie in the bulk and do not.
    #[must_use]
    pub fn bytes<'a>(&'a self, bulk: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => Some(text.as_bytes()),
            Self::B64(bytes) => Some(bytes),
            Self::Bulk { at, bytes } => {
                let at = usize::try_from(*at).ok()?;
                bulk.get(at..at.checked_add(*bytes as usize)?)
            }
        }
    }
}

impl What {
    /// The event form of a message; bytes that are neither text nor few are appended to `bulk`.
    pub fn of(message: Message, bulk: &mut Vec<u8>) -> Self {
        match message {
            Message::Open(channel) => Self::Open { channel },
            Message::OpenConfirm => Self::OpenConfirm,
            Message::OpenFailure(fields) => Self::OpenFailure(fields),
            Message::Stdin(data) => Self::Stdin(Content::of(&data, bulk)),
            Message::Stdout(data) => Self::Stdout(Content::of(&data, bulk)),
            Message::Stderr(data) => Self::Stderr(Content::of(&data, bulk)),
            Message::Eof => Self::Eof,
            Message::Close => Self::Close,
            Message::Pty(fields) => Self::Pty(fields),
            Message::Shell => Self::Shell,
            Message::Exec(command) => Self::Exec(Content::of(&command, bulk)),
            Message::Subsystem(name) => Self::Subsystem { name },
            Message::Env(fields) => Self::Env(fields),
            Message::WindowChange(size) => Self::WindowChange(size),
            Message::Signal(signal) => Self::Signal { signal },
            Message::AgentForward => Self::AgentForward,
            Message::X11(fields) => Self::X11(fields),
            Message::TcpipForward(address) => Self::TcpipForward(address),
            Message::CancelTcpipForward(address) => Self::CancelTcpipForward(address),
            Message::StreamlocalForward(path) => Self::StreamlocalForward { path },
            Message::CancelStreamlocalForward(path) => Self::CancelStreamlocalForward { path },
            Message::PortBound(port) => Self::PortBound { port },
            Message::Success => Self::Success,
            Message::Failure => Self::Failure,
            Message::ExitStatus(status) => Self::ExitStatus { status },
            Message::ExitSignal(fields) => Self::ExitSignal(fields),
        }
    }

    /// The event form of a frame; bytes that are neither text nor few are appended to `bulk`, without another
    /// copy on the way.
    ///
    /// # Errors
    /// [`FrameError::Body`] if the body is not what the kind calls for.
    pub fn read(kind: frame::Kind, body: &[u8], bulk: &mut Vec<u8>) -> Result<Self, FrameError> {
        use frame::Kind;
        Ok(match kind {
            Kind::Stdin => Self::Stdin(Content::of(body, bulk)),
            Kind::Stdout => Self::Stdout(Content::of(body, bulk)),
            Kind::Stderr => Self::Stderr(Content::of(body, bulk)),
            _ => Self::of(Message::decode(kind, Bytes::copy_from_slice(body))?, bulk),
        })
    }

    /// The message that the frame carried, its bytes as `bytes` finds them; none of a gap.
    pub fn into_message(self, bytes: impl FnOnce(Content) -> Bytes) -> Option<Message> {
        Some(match self {
            Self::Open { channel } => Message::Open(channel),
            Self::OpenConfirm => Message::OpenConfirm,
            Self::OpenFailure(fields) => Message::OpenFailure(fields),
            Self::Stdin(content) => Message::Stdin(bytes(content)),
            Self::Stdout(content) => Message::Stdout(bytes(content)),
            Self::Stderr(content) => Message::Stderr(bytes(content)),
            Self::Eof => Message::Eof,
            Self::Close => Message::Close,
            Self::Pty(fields) => Message::Pty(fields),
            Self::Shell => Message::Shell,
            Self::Exec(content) => Message::Exec(bytes(content).into()),
            Self::Subsystem { name } => Message::Subsystem(name),
            Self::Env(fields) => Message::Env(fields),
            Self::WindowChange(size) => Message::WindowChange(size),
            Self::Signal { signal } => Message::Signal(signal),
            Self::AgentForward => Message::AgentForward,
            Self::X11(fields) => Message::X11(fields),
            Self::TcpipForward(address) => Message::TcpipForward(address),
            Self::CancelTcpipForward(address) => Message::CancelTcpipForward(address),
            Self::StreamlocalForward { path } => Message::StreamlocalForward(path),
            Self::CancelStreamlocalForward { path } => Message::CancelStreamlocalForward(path),
            Self::PortBound { port } => Message::PortBound(port),
            Self::Success => Message::Success,
            Self::Failure => Message::Failure,
            Self::ExitStatus { status } => Message::ExitStatus(status),
            Self::ExitSignal(fields) => Message::ExitSignal(fields),
            Self::Gap(_) => return None,
        })
    }

    /// The session's bytes in this event, if it is about such.
    #[must_use]
    pub fn content(&self) -> Option<&Content> {
        match self {
            Self::Stdin(content) | Self::Stdout(content) | Self::Stderr(content) | Self::Exec(content) => {
                Some(content)
            }
            _ => None,
        }
    }

    /// The kind of the frame; none of a gap.
    #[must_use]
    pub fn kind(&self) -> Option<frame::Kind> {
        use frame::Kind;
        Some(match self {
            Self::Open { .. } => Kind::Open,
            Self::OpenConfirm => Kind::OpenConfirm,
            Self::OpenFailure(_) => Kind::OpenFailure,
            Self::Stdin(_) => Kind::Stdin,
            Self::Stdout(_) => Kind::Stdout,
            Self::Stderr(_) => Kind::Stderr,
            Self::Eof => Kind::Eof,
            Self::Close => Kind::Close,
            Self::Pty(_) => Kind::Pty,
            Self::Shell => Kind::Shell,
            Self::Exec(_) => Kind::Exec,
            Self::Subsystem { .. } => Kind::Subsystem,
            Self::Env(_) => Kind::Env,
            Self::WindowChange(_) => Kind::WindowChange,
            Self::Signal { .. } => Kind::Signal,
            Self::AgentForward => Kind::AgentForward,
            Self::X11(_) => Kind::X11,
            Self::TcpipForward(_) => Kind::TcpipForward,
            Self::CancelTcpipForward(_) => Kind::CancelTcpipForward,
            Self::StreamlocalForward { .. } => Kind::StreamlocalForward,
            Self::CancelStreamlocalForward { .. } => Kind::CancelStreamlocalForward,
            Self::PortBound { .. } => Kind::PortBound,
            Self::Success => Kind::Success,
            Self::Failure => Kind::Failure,
            Self::ExitStatus { .. } => Kind::ExitStatus,
            Self::ExitSignal(_) => Kind::ExitSignal,
            Self::Gap(_) => return None,
        })
    }
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

/// A number of messages and their bytes, frame headers included.
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
        self.records += 1;
        self.bytes += bytes;
    }
}

impl std::ops::Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { records: self.records + other.records, bytes: self.bytes + other.bytes }
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
    /// [`FORMAT_VERSION`].
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
}

impl Manifest {
    /// Every stored object that the manifest names.
    pub fn objects(&self) -> impl Iterator<Item = &StoredObject> {
        self.segments.iter().flat_map(SegmentEntry::objects)
    }
}

/// The text of [`SUMS`]: a line for each object, in the form of `sha256sum`.
#[must_use]
pub fn sums_text<'a>(objects: impl IntoIterator<Item = (&'a str, Sha256)>) -> String {
    objects.into_iter().map(|(name, sha256)| format!("{sha256}  {name}\n")).collect()
}

/// Reads the text of [`SUMS`]; `None` if a line is not in exactly the form of [`sums_text`] or a name is not
/// a plain file name.
#[must_use]
pub fn parse_sums(text: &str) -> Option<Vec<(&str, Sha256)>> {
    let lines = text.strip_suffix('\n')?.split('\n');
    lines
        .map(|line| {
            let (digest, name) = line.split_once("  ")?;
            let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
            plain.then_some((name, digest.parse().ok()?))
        })
        .collect()
}

mod base64_bytes {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn event(what: What, len: usize) -> Event {
        Event {
            t: 5,
            dir: Direction::TargetToClient,
            ch: ChannelNo(0),
            seq: 3,
            len: u32::try_from(len).expect("short"),
            what,
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_come_back_exactly_from_an_event_line(
            data in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..2000),
                ".*".prop_map(String::into_bytes),
            ],
        ) {
            let mut bulk = b"bytes of an earlier event".to_vec();
            let what = What::of(Message::Stdout(Bytes::from(data.clone())), &mut bulk);
            let line = serde_json::to_string(&event(what, data.len())).expect("events serialize");
            prop_assert!(!line.contains('\n'));
            let back: Event = serde_json::from_str(&line).expect("just written");
            prop_assert_eq!(back.what.content().and_then(|c| c.bytes(&bulk)), Some(&data[..]));
        }

        #[test]
        fn arbitrary_text_is_no_digest_list_or_parses_into_plain_names(text in ".*") {
            if let Some(sums) = parse_sums(&text) {
                prop_assert_eq!(sums_text(sums), text);
            }
        }
    }

    #[test]
    fn event_lines_read_as_the_format_document_says() {
        let line = |what, len| serde_json::to_string(&event(what, len)).expect("events serialize");
        let head = r#"{"t":5,"dir":"t2c","ch":0,"seq":3,"len":"#;
        assert_eq!(
            line(What::Stdout(Content::Text("hi\n".into())), 3),
            format!(r#"{head}3,"kind":"stdout","text":"hi\n"}}"#)
        );
        assert_eq!(
            line(What::Stderr(Content::B64(vec![0xff])), 1),
            format!(r#"{head}1,"kind":"stderr","b64":"/w=="}}"#)
        );
        assert_eq!(
            line(What::Stdout(Content::Bulk { at: 7, bytes: 900 }), 900),
            format!(r#"{head}900,"kind":"stdout","bulk":{{"at":7,"bytes":900}}}}"#)
        );
        assert_eq!(line(What::Eof, 0), format!(r#"{head}0,"kind":"eof"}}"#));
        assert_eq!(
            line(What::ExitStatus { status: 3 }, 1),
            format!(r#"{head}1,"kind":"exit_status","status":3}}"#)
        );
    }

    #[test]
    fn digest_lists_with_paths_hidden_names_or_odd_lines_are_refused() {
        let digest = Sha256::of(b"");
        let good = sums_text([("a", digest), ("b", digest)]);
        assert_eq!(parse_sums(&good), Some(vec![("a", digest), ("b", digest)]));
        for bad in [
            String::new(),
            good.trim_end().to_owned(),
            format!("{digest}  ../a\n"),
            format!("{digest}  .a\n"),
            format!("{digest} *a\n"),
            format!("{good}\n"),
        ] {
            assert_eq!(parse_sums(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_kernel_time_before_or_after_the_clock_reading_has_its_calendar_time() {
        let clock = Clock { boot_ns: 1_000, at: Timestamp::UNIX_EPOCH };
        assert_eq!(clock.at(3_000).map(Timestamp::as_nanosecond), Some(2_000));
        assert_eq!(clock.at(0).map(Timestamp::as_nanosecond), Some(-1_000));
    }

    #[test]
    fn debug_output_of_content_shows_no_content() {
        assert_eq!(format!("{:?}", Content::Text("hunter2".into())), "Content(7 bytes)");
    }
}
