//! Events: what the frames of a session said, with their exact bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::INLINE_BINARY_MAX;
use crate::{
    digest::Sha256,
    frame::{
        self, ChannelType, Direction, Env, ExitSignal, FrameError, HEADER_LEN, Message, OpenFailure, Pty,
        TcpAddress, WindowSize, X11Request,
    },
    session::ChannelNo,
};

/// One frame that the receiving leg took, or the gap where some went unrecorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Kernel time since boot in nanoseconds; [`super::Clock`] relates it to the calendar. Of a gap: when it was over.
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
    /// File content that the grant keeps out of the recording, and what stands around it, in order.
    Withheld(Vec<Part>),
}

/// A part of data that is not in the recording as a whole. `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Bytes that are: the protocol around the content.
    #[serde(with = "base64_bytes")]
    Kept(Vec<u8>),
    /// File content that is not.
    Withheld {
        /// How many bytes.
        bytes: u32,
        /// Digest of what went of this file's content up to here, these bytes included.
        sha256: Sha256,
    },
}

impl Part {
    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Kept(bytes) => bytes.len() as u64,
            Self::Withheld { bytes, .. } => u64::from(*bytes),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Part({} bytes)", self.len())
    }
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
            Self::Withheld(parts) => parts.iter().map(Part::len).fold(0, u64::saturating_add),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes; `None` if they should lie in the bulk and do not, or are not recorded.
    #[must_use]
    pub fn bytes<'a>(&'a self, bulk: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => Some(text.as_bytes()),
            Self::B64(bytes) => Some(bytes),
            Self::Bulk { at, bytes } => {
                let at = usize::try_from(*at).ok()?;
                bulk.get(at..at.checked_add(*bytes as usize)?)
            }
            Self::Withheld(_) => None,
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
    fn debug_output_of_content_shows_no_content() {
        assert_eq!(format!("{:?}", Content::Text("hunter2".into())), "Content(7 bytes)");
    }
}
