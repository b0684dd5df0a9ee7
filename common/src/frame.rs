//! Frames: what the proxy's two legs exchange over a tap, and what the kernel records.
//!
//! One frame is one message on the tap's socket: a 16-byte header and a body of at most 32 KiB. Frames are
//! numbered per direction from 0. [`Inbound`] is the acceptance rule: the leg that receives and the agent that
//! records run it over the same frames, and so end up with the same stream (invariant I2).
//!
//! Header, integers little endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | [`Kind`] |
//! | 2 | 2 | reserved, 0 |
//! | 4 | 4 | bytes of the body |
//! | 8 | 8 | sequence number |
//!
//! Data bodies are the bytes themselves; the others are the [`Message`]'s fields in postcard's encoding.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::abi;

/// Bytes of a frame header.
pub const HEADER_LEN: usize = abi::FRAME_HEADER_LEN;
/// The most bytes a frame carries behind its header.
pub const MAX_BODY: usize = abi::MAX_FRAME_BODY;
/// The most frames of one direction that may be in flight: sent and not yet taken by the receiving leg.
///
/// It bounds what a leg keeps for sending again. Between two ends of a socket pair the kernel does not apply
/// `net.unix.max_dgram_qlen`; the sending socket's buffer is the limit, and has to hold a window of full frames.
pub const WINDOW: usize = 8;

const VERSION: u8 = 1;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// From the user's client to the target.
    #[serde(rename = "c2t")]
    ClientToTarget,
    /// From the target to the user's client.
    #[serde(rename = "t2c")]
    TargetToClient,
}

impl Direction {
    /// The short form that recordings use: `c2t` or `t2c`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientToTarget => "c2t",
            Self::TargetToClient => "t2c",
        }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $($direction:ident)|+;)*) => {
        /// What a frame is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $value,)* }

        impl Kind {
            /// Every kind, for tests that go through all of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            fn from_wire(value: u8) -> Option<Self> {
                match value { $($value => Some(Self::$name),)* _ => None }
            }

            /// Whether a frame of this kind may go this way.
            #[must_use]
            pub fn goes(self, direction: Direction) -> bool {
                match self { $(Self::$name => [$(Direction::$direction),+].contains(&direction),)* }
            }
        }
    };
}

kinds! {
    /// This side asks for the channel.
    Open = 0x01, ClientToTarget | TargetToClient;
    /// The other side confirmed the channel.
    OpenConfirm = 0x02, ClientToTarget | TargetToClient;
    /// The other side, or the connection to it, refused the channel.
    OpenFailure = 0x03, ClientToTarget | TargetToClient;
    /// Bytes for the program's standard input, or what the client's end of a forwarding sent.
    Stdin = 0x10, ClientToTarget;
    /// Bytes of the program's standard output, or what the target's end of a forwarding sent.
    Stdout = 0x11, TargetToClient;
    /// Bytes of the program's standard error.
    Stderr = 0x12, TargetToClient;
    /// No more data from this side.
    Eof = 0x20, ClientToTarget | TargetToClient;
    /// This side is done with the channel.
    Close = 0x21, ClientToTarget | TargetToClient;
    /// `pty-req`.
    Pty = 0x30, ClientToTarget;
    /// `shell`.
    Shell = 0x31, ClientToTarget;
    /// `exec`.
    Exec = 0x32, ClientToTarget;
    /// `subsystem`.
    Subsystem = 0x33, ClientToTarget;
    /// `env`.
    Env = 0x34, ClientToTarget;
    /// `window-change`.
    WindowChange = 0x35, ClientToTarget;
    /// `signal`.
    Signal = 0x36, ClientToTarget;
    /// `auth-agent-req@openssh.com`.
    AgentForward = 0x37, ClientToTarget;
    /// `x11-req`.
    X11 = 0x38, ClientToTarget;
    /// `tcpip-forward`.
    TcpipForward = 0x39, ClientToTarget;
    /// `cancel-tcpip-forward`.
    CancelTcpipForward = 0x3a, ClientToTarget;
    /// `streamlocal-forward@openssh.com`.
    StreamlocalForward = 0x3b, ClientToTarget;
    /// `cancel-streamlocal-forward@openssh.com`.
    CancelStreamlocalForward = 0x3c, ClientToTarget;
    /// The target said yes to the oldest unanswered request.
    Success = 0x40, TargetToClient;
    /// The target said no to the oldest unanswered request.
    Failure = 0x41, TargetToClient;
    /// The target said yes to a `tcpip-forward` that left the port open, and this is the port.
    PortBound = 0x42, TargetToClient;
    /// `exit-status`.
    ExitStatus = 0x50, TargetToClient;
    /// `exit-signal`.
    ExitSignal = 0x51, TargetToClient;
}

impl Kind {
    /// Whether the body is the session's bytes themselves.
    #[must_use]
    pub fn is_data(self) -> bool {
        matches!(self, Self::Stdin | Self::Stdout | Self::Stderr)
    }
}

/// Where a connection that is forwarded came from, as the side that accepted it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Originator {
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u32,
}

/// A TCP address that is listened on or connected to (RFC 4254 section 7), as the side that named it wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u32,
}

/// What a channel is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelType {
    /// `session` (RFC 4254 section 6.1).
    Session,
    /// `direct-tcpip` (RFC 4254 section 7.2): the target is to connect there.
    DirectTcpip {
        /// Where to.
        to: TcpAddress,
        /// Where from.
        originator: Originator,
    },
    /// `direct-streamlocal@openssh.com`: the target is to connect to a Unix socket.
    DirectStreamlocal {
        /// The socket's path.
        path: String,
    },
    /// `forwarded-tcpip` (RFC 4254 section 7.2): somebody connected to a port that the target listens on.
    ForwardedTcpip {
        /// The address listened on.
        listening: TcpAddress,
        /// Where from.
        originator: Originator,
    },
    /// `forwarded-streamlocal@openssh.com`: somebody connected to a Unix socket that the target listens on.
    ForwardedStreamlocal {
        /// The socket's path.
        path: String,
    },
    /// `auth-agent@openssh.com`: somebody on the target wants to use the client's agent.
    Agent,
    /// `x11` (RFC 4254 section 6.3.2): a program on the target wants to show something.
    X11 {
        /// Where from.
        originator: Originator,
    },
    /// No channel of SSH's: the connection's global requests (RFC 4254 section 4), which need a tap as well.
    Connection,
}

impl ChannelType {
    /// Its name on the wire, without the domain that OpenSSH adds to its own.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::DirectTcpip { .. } => "direct-tcpip",
            Self::DirectStreamlocal { .. } => "direct-streamlocal",
            Self::ForwardedTcpip { .. } => "forwarded-tcpip",
            Self::ForwardedStreamlocal { .. } => "forwarded-streamlocal",
            Self::Agent => "auth-agent",
            Self::X11 { .. } => "x11",
            Self::Connection => "connection",
        }
    }

    /// Which side may ask for it: what it asks goes this way.
    #[must_use]
    pub fn direction(&self) -> Direction {
        match self {
            Self::Session | Self::DirectTcpip { .. } | Self::DirectStreamlocal { .. } | Self::Connection => {
                Direction::ClientToTarget
            }
            Self::ForwardedTcpip { .. }
            | Self::ForwardedStreamlocal { .. }
            | Self::Agent
            | Self::X11 { .. } => Direction::TargetToClient,
        }
    }
}

/// `x11-req` (RFC 4254 section 6.3.1).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct X11Request {
    /// Whether only one connection is to be forwarded.
    pub single_connection: bool,
    /// The X11 authentication protocol.
    pub auth_protocol: String,
    /// The cookie that stands for the client's own one, in hexadecimal.
    pub auth_cookie: String,
    /// The X11 screen.
    pub screen: u32,
}

/// Without the cookie.
impl std::fmt::Debug for X11Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { single_connection, auth_protocol, auth_cookie: _, screen } = self;
        f.debug_struct("X11Request")
            .field("single_connection", single_connection)
            .field("auth_protocol", auth_protocol)
            .field("screen", screen)
            .finish_non_exhaustive()
    }
}

/// A terminal's size (RFC 4254 section 6.2): characters, and pixels where the client knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Columns in characters.
    pub cols: u32,
    /// Rows in characters.
    pub rows: u32,
    /// Width in pixels, 0 if unknown.
    pub width_px: u32,
    /// Height in pixels, 0 if unknown.
    pub height_px: u32,
}

/// `pty-req` (RFC 4254 section 6.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pty {
    /// The `TERM` value.
    pub term: String,
    /// The terminal's size.
    pub size: WindowSize,
    /// Terminal modes as opcode and value (RFC 4254 section 8), `TTY_OP_END` left out.
    pub modes: Vec<(u8, u32)>,
}

/// `env` (RFC 4254 section 6.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Env {
    /// The variable's name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// `exit-signal` (RFC 4254 section 6.10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitSignal {
    /// The signal's name without `SIG`.
    pub signal: String,
    /// Whether a core was dumped.
    pub core_dumped: bool,
    /// The target's explanation.
    pub message: String,
}

/// Why a channel could not be opened (RFC 4254 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFailure {
    /// The reason code.
    pub code: u32,
    /// A sentence for the user.
    pub description: String,
}

/// What a frame says.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "one variant per Kind, which says what each is")]
pub enum Message {
    Open(ChannelType),
    OpenConfirm,
    OpenFailure(OpenFailure),
    Stdin(Bytes),
    Stdout(Bytes),
    Stderr(Bytes),
    Eof,
    Close,
    Pty(Pty),
    Shell,
    /// The command line as the client sent it; SSH does not say that it is text.
    Exec(Vec<u8>),
    Subsystem(String),
    Env(Env),
    WindowChange(WindowSize),
    /// The signal's name without `SIG`.
    Signal(String),
    AgentForward,
    X11(X11Request),
    TcpipForward(TcpAddress),
    CancelTcpipForward(TcpAddress),
    /// The path of the Unix socket to listen on.
    StreamlocalForward(String),
    CancelStreamlocalForward(String),
    Success,
    Failure,
    PortBound(u32),
    ExitStatus(u32),
    ExitSignal(ExitSignal),
}

/// Names the kind only: what a session says reaches no log.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message::{:?}", self.kind())
    }
}

impl Message {
    /// The kind of the frame that carries this message.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Open(_) => Kind::Open,
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
            Self::Subsystem(_) => Kind::Subsystem,
            Self::Env(_) => Kind::Env,
            Self::WindowChange(_) => Kind::WindowChange,
            Self::Signal(_) => Kind::Signal,
            Self::AgentForward => Kind::AgentForward,
            Self::X11(_) => Kind::X11,
            Self::TcpipForward(_) => Kind::TcpipForward,
            Self::CancelTcpipForward(_) => Kind::CancelTcpipForward,
            Self::StreamlocalForward(_) => Kind::StreamlocalForward,
            Self::CancelStreamlocalForward(_) => Kind::CancelStreamlocalForward,
            Self::PortBound(_) => Kind::PortBound,
            Self::Success => Kind::Success,
            Self::Failure => Kind::Failure,
            Self::ExitStatus(_) => Kind::ExitStatus,
            Self::ExitSignal(_) => Kind::ExitSignal,
        }
    }

    /// The body of the frame that carries this message; data is passed on without a copy.
    ///
    /// # Errors
    /// [`FrameError::BodyTooLong`] past [`MAX_BODY`] bytes.
    pub fn into_body(self) -> Result<Bytes, FrameError> {
        let body = match self {
            Self::Stdin(data) | Self::Stdout(data) | Self::Stderr(data) => data,
            Self::OpenConfirm
            | Self::Eof
            | Self::Close
            | Self::Shell
            | Self::AgentForward
            | Self::Success
            | Self::Failure => Bytes::new(),
            Self::Exec(command) => command.into(),
            Self::Open(channel) => pack(&channel),
            Self::OpenFailure(fields) => pack(&fields),
            Self::Pty(fields) => pack(&fields),
            Self::X11(fields) => pack(&fields),
            Self::TcpipForward(address) | Self::CancelTcpipForward(address) => pack(&address),
            Self::Subsystem(text)
            | Self::Signal(text)
            | Self::StreamlocalForward(text)
            | Self::CancelStreamlocalForward(text) => pack(&text),
            Self::Env(fields) => pack(&fields),
            Self::WindowChange(fields) => pack(&fields),
            Self::ExitStatus(number) | Self::PortBound(number) => pack(&number),
            Self::ExitSignal(fields) => pack(&fields),
        };
        if body.len() > MAX_BODY {
            return Err(FrameError::BodyTooLong { len: body.len() });
        }
        Ok(body)
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`FrameError::Body`] if it is not what the kind calls for.
    pub fn decode(kind: Kind, body: Bytes) -> Result<Self, FrameError> {
        match kind {
            Kind::Stdin => Ok(Self::Stdin(body)),
            Kind::Stdout => Ok(Self::Stdout(body)),
            Kind::Stderr => Ok(Self::Stderr(body)),
            _ => Self::decode_fields(kind, &body),
        }
    }

    fn decode_fields(kind: Kind, body: &[u8]) -> Result<Self, FrameError> {
        let nothing = |message: Self| match body {
            [] => Ok(message),
            _ => Err(FrameError::Body { kind }),
        };
        match kind {
            Kind::Stdin => Ok(Self::Stdin(Bytes::copy_from_slice(body))),
            Kind::Stdout => Ok(Self::Stdout(Bytes::copy_from_slice(body))),
            Kind::Stderr => Ok(Self::Stderr(Bytes::copy_from_slice(body))),
            Kind::AgentForward => nothing(Self::AgentForward),
            Kind::OpenConfirm => nothing(Self::OpenConfirm),
            Kind::Eof => nothing(Self::Eof),
            Kind::Close => nothing(Self::Close),
            Kind::Shell => nothing(Self::Shell),
            Kind::Success => nothing(Self::Success),
            Kind::Failure => nothing(Self::Failure),
            Kind::Exec => Ok(Self::Exec(body.to_vec())),
            Kind::Open => unpack(kind, body).map(Self::Open),
            Kind::OpenFailure => unpack(kind, body).map(Self::OpenFailure),
            Kind::X11 => unpack(kind, body).map(Self::X11),
            Kind::TcpipForward => unpack(kind, body).map(Self::TcpipForward),
            Kind::CancelTcpipForward => unpack(kind, body).map(Self::CancelTcpipForward),
            Kind::StreamlocalForward => unpack(kind, body).map(Self::StreamlocalForward),
            Kind::CancelStreamlocalForward => unpack(kind, body).map(Self::CancelStreamlocalForward),
            Kind::PortBound => unpack(kind, body).map(Self::PortBound),
            Kind::Pty => unpack(kind, body).map(Self::Pty),
            Kind::Subsystem => unpack(kind, body).map(Self::Subsystem),
            Kind::Env => unpack(kind, body).map(Self::Env),
            Kind::WindowChange => unpack(kind, body).map(Self::WindowChange),
            Kind::Signal => unpack(kind, body).map(Self::Signal),
            Kind::ExitStatus => unpack(kind, body).map(Self::ExitStatus),
            Kind::ExitSignal => unpack(kind, body).map(Self::ExitSignal),
        }
    }
}

fn pack(fields: &impl Serialize) -> Bytes {
    // Serialization into a growing vector fails for maps and sequences of unknown length only; no message has one.
    postcard::to_allocvec(fields).expect("message fields have known lengths").into()
}

fn unpack<T: DeserializeOwned>(kind: Kind, body: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((fields, [])) => Ok(fields),
        _ => Err(FrameError::Body { kind }),
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// Bytes of the body.
    pub len: u32,
    /// Sequence number in its direction, from 0.
    pub seq: u64,
}

impl Header {
    /// The header as it goes over the tap.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let Self { kind, len, seq } = self;
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = VERSION;
        bytes[1] = kind as u8;
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        bytes[8..].copy_from_slice(&seq.to_le_bytes());
        bytes
    }

    /// Splits one message of the tap into header and body.
    ///
    /// # Errors
    /// A [`FrameError`] that names what is wrong; the body's own fields are not read here.
    pub fn split(message: &[u8]) -> Result<(Self, &[u8]), FrameError> {
        let Some((header, body)) = message.split_first_chunk::<HEADER_LEN>() else {
            return Err(FrameError::Short { len: message.len() });
        };
        let [version, kind, r0, r1, l0, l1, l2, l3, seq @ ..] = *header;
        if version != VERSION {
            return Err(FrameError::Version { found: version });
        }
        if [r0, r1] != [0, 0] {
            return Err(FrameError::Reserved);
        }
        let kind = Kind::from_wire(kind).ok_or(FrameError::UnknownKind { found: kind })?;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if len as usize > MAX_BODY {
            return Err(FrameError::BodyTooLong { len: len as usize });
        }
        if len as usize != body.len() {
            return Err(FrameError::Length { said: len as usize, found: body.len() });
        }
        Ok((Self { kind, len, seq: u64::from_le_bytes(seq) }, body))
    }
}

/// Why a message on a tap is not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not even a header.
    #[error("frame of {len} bytes is shorter than its header")]
    Short {
        /// Bytes of the message.
        len: usize,
    },
    /// Written by another version of Weir.
    #[error("frame version {found} is not the one this side speaks ({VERSION})")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// Reserved bytes are set.
    #[error("frame has reserved bytes set")]
    Reserved,
    /// No such kind.
    #[error("unknown frame kind {found:#04x}")]
    UnknownKind {
        /// The kind byte.
        found: u8,
    },
    /// The body is over the limit.
    #[error("frame body of {len} bytes is over the limit of {MAX_BODY}")]
    BodyTooLong {
        /// Bytes of the body.
        len: usize,
    },
    /// Header and message disagree.
    #[error("frame says {said} bytes of body and has {found}")]
    Length {
        /// What the header says.
        said: usize,
        /// What follows it.
        found: usize,
    },
    /// A kind that only the other side may send.
    #[error("{kind:?} frame may not go {direction}")]
    Direction {
        /// The frame's kind.
        kind: Kind,
        /// The way it went.
        direction: Direction,
    },
    /// The body's fields can't be read.
    #[error("{kind:?} frame has a malformed body")]
    Body {
        /// The frame's kind.
        kind: Kind,
    },
}

/// What [`Inbound::accept`] decided about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next frame of the stream.
    Take(Header),
    /// Taken before: a frame that was sent again.
    Duplicate,
    /// A frame before this one was tossed; this one will come again.
    OutOfSequence,
    /// Not a frame. The stream ends here: nothing after it is ever taken.
    Malformed(FrameError),
    /// Ignored, because the stream ended at a malformed message.
    Ended,
}

/// The acceptance rule of one direction of a tap: frames are taken strictly in sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    direction: Direction,
    next_seq: u64,
    ended: bool,
}

impl Inbound {
    /// The rule at the start of a stream.
    #[must_use]
    pub fn new(direction: Direction) -> Self {
        Self { direction, next_seq: 0, ended: false }
    }

    /// The sequence number of the frame that would be taken next; equally the number of frames taken, or skipped.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Takes note of so many frames that the receiving leg took and the kernel did not record: the next frame is in
    /// sequence behind them. Only taps that never toss for want of room have such gaps, so none of them is sent twice.
    pub fn skip(&mut self, frames: u64) {
        self.next_seq = self.next_seq.saturating_add(frames);
    }

    /// Decides about one message, in the order in which the kernel captured them.
    pub fn accept(&mut self, message: &[u8]) -> Verdict {
        if self.ended {
            return Verdict::Ended;
        }
        match self.check(message) {
            Ok(header) if header.seq == self.next_seq => {
                // Only a stream that a damaged or hostile spool has told of is at the end of the numbers.
                self.next_seq = self.next_seq.saturating_add(1);
                Verdict::Take(header)
            }
            Ok(header) if header.seq < self.next_seq => Verdict::Duplicate,
            Ok(_) => Verdict::OutOfSequence,
            Err(error) => {
                self.ended = true;
                Verdict::Malformed(error)
            }
        }
    }

    fn check(&self, message: &[u8]) -> Result<Header, FrameError> {
        let (header, body) = Header::split(message)?;
        if !header.kind.goes(self.direction) {
            return Err(FrameError::Direction { kind: header.kind, direction: self.direction });
        }
        if !header.kind.is_data() {
            Message::decode_fields(header.kind, body)?;
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = TcpAddress> {
        (".*", any::<u32>()).prop_map(|(host, port)| TcpAddress { host, port })
    }

    fn channel_type() -> impl Strategy<Value = ChannelType> {
        let originator = || (".*", any::<u32>()).prop_map(|(address, port)| Originator { address, port });
        prop_oneof![
            prop::sample::select(vec![ChannelType::Session, ChannelType::Agent, ChannelType::Connection]),
            (address(), originator())
                .prop_map(|(to, originator)| ChannelType::DirectTcpip { to, originator }),
            (address(), originator())
                .prop_map(|(listening, originator)| ChannelType::ForwardedTcpip { listening, originator }),
            ".*".prop_map(|path| ChannelType::DirectStreamlocal { path }),
            ".*".prop_map(|path| ChannelType::ForwardedStreamlocal { path }),
            originator().prop_map(|originator| ChannelType::X11 { originator }),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        let data = || proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        let size = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>())
            .prop_map(|(cols, rows, width_px, height_px)| WindowSize { cols, rows, width_px, height_px });
        prop_oneof![
            prop::sample::select(vec![
                Message::AgentForward,
                Message::OpenConfirm,
                Message::Eof,
                Message::Close,
                Message::Shell,
                Message::Success,
                Message::Failure,
            ]),
            data().prop_map(Message::Stdin),
            data().prop_map(Message::Stdout),
            data().prop_map(Message::Stderr),
            data().prop_map(|b| Message::Exec(b.to_vec())),
            (".*", size.clone(), prop::collection::vec(any::<(u8, u32)>(), 0..130))
                .prop_map(|(term, size, modes)| Message::Pty(Pty { term, size, modes })),
            ".*".prop_map(Message::Subsystem),
            (".*", ".*").prop_map(|(name, value)| Message::Env(Env { name, value })),
            size.prop_map(Message::WindowChange),
            ".*".prop_map(Message::Signal),
            any::<u32>().prop_map(Message::ExitStatus),
            any::<u32>().prop_map(Message::PortBound),
            channel_type().prop_map(Message::Open),
            address().prop_map(Message::TcpipForward),
            address().prop_map(Message::CancelTcpipForward),
            ".*".prop_map(Message::StreamlocalForward),
            ".*".prop_map(Message::CancelStreamlocalForward),
            (any::<bool>(), ".*", ".*", any::<u32>()).prop_map(
                |(single_connection, auth_protocol, auth_cookie, screen)| {
                    Message::X11(X11Request { single_connection, auth_protocol, auth_cookie, screen })
                }
            ),
            (".*", any::<bool>(), ".*").prop_map(|(signal, core_dumped, message)| {
                Message::ExitSignal(ExitSignal { signal, core_dumped, message })
            }),
            (any::<u32>(), ".*")
                .prop_map(|(code, description)| Message::OpenFailure(OpenFailure { code, description })),
        ]
    }

    fn frame(message: Message, seq: u64) -> Vec<u8> {
        let kind = message.kind();
        let body = message.into_body().expect("generated bodies are short");
        let len = u32::try_from(body.len()).expect("checked by into_body");
        [&Header { kind, len, seq }.to_bytes()[..], &body].concat()
    }

    fn any_direction(kind: Kind) -> Direction {
        if kind.goes(Direction::ClientToTarget) {
            Direction::ClientToTarget
        } else {
            Direction::TargetToClient
        }
    }

    proptest! {
        #[test]
        fn a_message_comes_out_of_its_frame_as_it_went_in(message in message(), seq: u64) {
            let bytes = frame(message.clone(), seq);
            let (header, body) = Header::split(&bytes).expect("a whole frame");
            prop_assert_eq!(header.seq, seq);
            let back = Message::decode(header.kind, Bytes::copy_from_slice(body)).expect("a good body");
            prop_assert!(back == message);
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_panic_and_end_the_stream(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut inbound = Inbound::new(Direction::ClientToTarget);
            if let Verdict::Malformed(_) = inbound.accept(&bytes) {
                let good = frame(Message::Open(ChannelType::Session), 0);
                prop_assert_eq!(inbound.accept(&good), Verdict::Ended);
            }
        }

        #[test]
        fn a_frame_with_any_byte_cut_off_is_malformed(message in message(), cut in 0_usize..1000) {
            let bytes = frame(message.clone(), 0);
            let cut = cut % bytes.len();
            let mut inbound = Inbound::new(any_direction(message.kind()));
            prop_assert!(matches!(inbound.accept(&bytes[..cut]), Verdict::Malformed(_)));
        }

        #[test]
        fn however_frames_are_tossed_and_sent_again_the_taken_stream_is_the_sent_one(
            tossed in prop::collection::vec(any::<bool>(), 0..400), total in 1_u64..60,
        ) {
            let mut inbound = Inbound::new(Direction::TargetToClient);
            let mut fate = tossed.into_iter();
            let mut taken = Vec::new();
            while inbound.next_seq() < total {
                let first = inbound.next_seq();
                for seq in first..total.min(first + WINDOW as u64) {
                    if fate.next().unwrap_or(false) {
                        continue;
                    }
                    let message = frame(Message::ExitStatus(u32::try_from(seq).expect("small")), seq);
                    if let Verdict::Take(header) = inbound.accept(&message) {
                        taken.push(header.seq);
                    }
                }
            }
            prop_assert_eq!(taken, (0..total).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_kind_that_only_the_other_side_may_send_is_malformed() {
        for &kind in Kind::ALL {
            for direction in [Direction::ClientToTarget, Direction::TargetToClient] {
                if kind.goes(direction) {
                    continue;
                }
                let bytes = Header { kind, len: 0, seq: 0 }.to_bytes();
                assert_eq!(
                    Inbound::new(direction).accept(&bytes),
                    Verdict::Malformed(FrameError::Direction { kind, direction })
                );
            }
        }
    }

    #[test]
    fn each_way_a_frame_can_be_wrong_has_its_error() {
        let good = frame(Message::Stdin(Bytes::from_static(b"x")), 0);
        let with = |index: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[index] = value;
            Header::split(&bytes).expect_err("one byte is wrong")
        };
        assert_eq!(with(0, 9), FrameError::Version { found: 9 });
        assert_eq!(with(1, 0xff), FrameError::UnknownKind { found: 0xff });
        assert_eq!(with(2, 1), FrameError::Reserved);
        assert_eq!(with(4, 2), FrameError::Length { said: 2, found: 1 });
        assert_eq!(with(7, 1), FrameError::BodyTooLong { len: (1 << 24) + 1 });
        assert_eq!(Header::split(&good[..5]), Err(FrameError::Short { len: 5 }));
        let long = Message::Exec(vec![b'x'; MAX_BODY + 1]).into_body();
        assert_eq!(long, Err(FrameError::BodyTooLong { len: MAX_BODY + 1 }));
    }

    #[test]
    fn debug_output_names_the_kind_and_never_the_content() {
        let message = Message::Stdin(Bytes::from_static(b"hunter2"));
        assert_eq!(format!("{message:?}"), "Message::Stdin");
    }
}
