//! What unit tests share: a session whose every value is fixed, and records as the kernel writes them.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use weir_common::{
    abi::{ABI_VERSION, RECORD_MESSAGE, RecordHeader},
    frame::{ChannelType, Direction, Header, Message},
    recording::{Clock, Count, KernelCount, Recorder},
    session::{
        ChannelNo, HostKeyTrust, Outcome, SessionId, SessionMeta, SocketCookie, TargetCredential, TargetPeer,
    },
};

use crate::{
    ledger::StateEntry,
    session::{ChannelKernel, End},
    spool::SpoolOptions,
};

/// A spool of some files.
pub(crate) fn spool_options() -> SpoolOptions {
    SpoolOptions { file_bytes: 1 << 20, max_bytes: 1 << 30, flush_interval: Duration::from_millis(1) }
}

/// The session with this number; the same one every time.
pub(crate) fn session_id(number: u8) -> SessionId {
    format!("01890a5d-ac96-774b-bcce-0000000000{number:02x}").parse().expect("an id")
}

pub(crate) fn meta(number: u8) -> SessionMeta {
    SessionMeta { session_id: session_id(number), ..weir_common::fuzz::meta() }
}

pub(crate) fn target() -> TargetPeer {
    TargetPeer {
        address: ([192, 0, 2, 9], 22).into(),
        host_key: "SHA256:h".into(),
        host_key_trust: HostKeyTrust::Pinned,
        credential: TargetCredential::PrivateKey,
    }
}

pub(crate) fn opened(number: u8) -> StateEntry {
    StateEntry::Opened {
        meta: Box::new(meta(number)),
        clock: Clock { boot_ns: 1000, at: Timestamp::UNIX_EPOCH },
        recorder: Recorder { agent: "0".into(), abi: ABI_VERSION, node: "n".into(), kernel: "k".into() },
        opened_at: Timestamp::UNIX_EPOCH,
    }
}

/// The cookies of a session's only channel: c2t, then t2c.
pub(crate) fn cookies(number: u8) -> [SocketCookie; 2] {
    [SocketCookie(u64::from(number) * 2), SocketCookie(u64::from(number) * 2 + 1)]
}

pub(crate) fn armed(number: u8) -> StateEntry {
    let [c2t, t2c] = cookies(number);
    StateEntry::Armed { session: session_id(number), channel: ChannelNo(0), c2t, t2c }
}

/// The session's only channel is over.
pub(crate) fn disarmed(number: u8) -> StateEntry {
    let kernel = ChannelKernel { channel: ChannelNo(0), c2t: None, t2c: Some(KernelCount::default()) };
    StateEntry::Disarmed { session: session_id(number), kernel }
}

pub(crate) fn closed(number: u8) -> StateEntry {
    let kernel = KernelCount { captured: Count { records: 1, bytes: 2 }, ..KernelCount::default() };
    StateEntry::Closed {
        session: session_id(number),
        end: End { outcome: Outcome::Completed, closed_at: Timestamp::UNIX_EPOCH },
        kernel: vec![ChannelKernel { channel: ChannelNo(0), c2t: Some(kernel), t2c: None }],
    }
}

/// A record of the target's output.
pub(crate) fn stdout_record(number: u8, seq: u64, data: &[u8]) -> Vec<u8> {
    let frame = frame(Message::Stdout(Bytes::copy_from_slice(data)), seq);
    record(cookies(number)[1], &frame)
}

pub(crate) fn record(cookie: SocketCookie, message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).expect("short");
    let header =
        RecordHeader { cookie: cookie.0, boot_ns: 2000, len, abi: ABI_VERSION, kind: RECORD_MESSAGE };
    [&header.to_bytes()[..], message].concat()
}

pub(crate) fn frame(message: Message, seq: u64) -> Vec<u8> {
    let kind = message.kind();
    let body = message.into_body().expect("short");
    let len = u32::try_from(body.len()).expect("short");
    [&Header { kind, len, seq }.to_bytes()[..], &body].concat()
}

/// What opens a session channel.
pub(crate) fn opening() -> Vec<(Direction, Message)> {
    vec![
        (Direction::ClientToTarget, Message::Open(ChannelType::Session)),
        (Direction::TargetToClient, Message::OpenConfirm),
    ]
}

/// What asks for the subsystem, and is granted it.
pub(crate) fn sftp() -> Vec<(Direction, Message)> {
    vec![
        (Direction::ClientToTarget, Message::Subsystem("sftp".into())),
        (Direction::TargetToClient, Message::Success),
    ]
}

/// The data of an upload up to where so many bytes of content follow, all of one WRITE (draft-ietf-secsh-filexfer-02).
pub(crate) fn upload_of(bytes: u32) -> Vec<(Direction, Message)> {
    const FLAGS_AND_ATTRIBUTES: &[u8] = &[0, 0, 0, 0x1a, 0, 0, 0, 0];
    let packet = |kind: u8, fields: &[&[u8]], content: u32| {
        let fields = fields.concat();
        let len = u32::try_from(fields.len()).expect("short") + 1 + content;
        Bytes::from([&len.to_be_bytes()[..], &[kind], &fields].concat())
    };
    let (id, string) = (7_u32.to_be_bytes(), |text: &[u8]| {
        [&[0, 0, 0, u8::try_from(text.len()).expect("short")], text].concat()
    });
    let (handle, offset) = (string(b"h1"), 0_u64.to_be_bytes());
    let stdin = |packet| (Direction::ClientToTarget, Message::Stdin(packet));
    let stdout = |packet| (Direction::TargetToClient, Message::Stdout(packet));
    vec![
        stdin(packet(1, &[&3_u32.to_be_bytes()], 0)),
        stdout(packet(2, &[&3_u32.to_be_bytes()], 0)),
        stdin(packet(3, &[&id, &string(b"/srv/file"), FLAGS_AND_ATTRIBUTES], 0)),
        stdout(packet(102, &[&id, &handle], 0)),
        stdin(packet(6, &[&id, &handle, &offset, &bytes.to_be_bytes()], bytes)),
    ]
}
