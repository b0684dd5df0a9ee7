//! What fuzzers feed with bytes, and seeds for them: see `docs/fuzzing.md`.
//!
//! Each body takes any bytes. It must not panic, take little memory, and what it makes of the bytes has to be what
//! somebody could have written. The property tests of the normal run drive the same bodies with changed seeds.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    abi::{ABI_VERSION, GAP_RECORD_LEN, GapRecord, RECORD_GAP, RECORD_MESSAGE, RecordHeader},
    control::{self, Reply, Request},
    digest::Sha256,
    frame::{ChannelType, Direction, Env, Header, Inbound, Message, Pty, Verdict},
    recording::{
        Clock, Count, FORMAT_VERSION, Manifest, Opened, Recorder, SegmentEntry, SegmentHeader, StoredObject,
        segment_name, signature_name, sums_text,
    },
    report::{Location, MAX_REPORT, REPORT_VERSION, SessionReport, Status},
    session::{
        CapturePolicy, ChannelNo, Integration, Outcome, Permission, Proof, Resource, SessionId, SessionMeta,
    },
};

/// A frame, as one leg sends it and the other and the agent take it.
pub fn frame(bytes: &[u8]) {
    for direction in [Direction::ClientToTarget, Direction::TargetToClient] {
        let mut inbound = Inbound::new(direction);
        let taken = matches!(inbound.accept(bytes), Verdict::Take(_));
        assert!(!matches!(inbound.accept(bytes), Verdict::Take(_)), "a frame is taken once");
        assert_eq!(inbound.next_seq(), u64::from(taken));
    }
    let Ok((header, body)) = Header::split(bytes) else { return };
    assert_eq!(header.to_bytes(), bytes[..bytes.len() - body.len()]);
    let Ok(message) = Message::decode(header.kind, Bytes::copy_from_slice(body)) else { return };
    assert_eq!(message.kind(), header.kind);
    let again = message.clone().into_body().expect("it came from a body of legal length");
    let back = Message::decode(header.kind, again).expect("just encoded");
    assert_eq!(back.into_body().ok(), message.into_body().ok());
}

/// A message of the control socket, from either side.
pub fn control(bytes: &[u8]) {
    if let Ok(request) = control::decode::<Request>(bytes) {
        comes_back(&request);
    }
    if let Ok(reply) = control::decode::<Reply>(bytes) {
        comes_back(&reply);
    }
}

/// A record of the ring, and a gap in it.
pub fn record(bytes: &[u8]) {
    if let Some((header, message)) = RecordHeader::split(bytes) {
        let written = [&header.to_bytes()[..], message].concat();
        assert_eq!(bytes[..written.len()], written);
        if let Some(gap) = GapRecord::from_bytes(message) {
            assert_eq!(gap.to_bytes(), message);
        }
    }
    assert_eq!(GapRecord::from_bytes(bytes).is_some(), bytes.len() == GAP_RECORD_LEN);
}

/// A session report, as the console receives it.
pub fn report(bytes: &[u8]) {
    if bytes.len() <= MAX_REPORT
        && let Ok(report) = serde_json::from_slice::<SessionReport>(bytes)
    {
        comes_back(&report);
    }
}

/// What was read can be written, and reads as the same again.
fn comes_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_vec(value).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&text).expect("just written"), *value);
}

/// A valid input of each body here, by the body's name.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let frames = [
        Message::Open(ChannelType::Session),
        Message::Stdin(Bytes::from_static(b"ls\r")),
        Message::Exec(b"cat".to_vec()),
        Message::Pty(Pty { term: "xterm".into(), size: Default::default(), modes: vec![(53, 1)] }),
        Message::Env(Env { name: "LANG".into(), value: "C".into() }),
        Message::ExitStatus(3),
        Message::Close,
    ]
    .map(frame_bytes);
    let gap = GapRecord { records: 3, bytes: 90, since_ns: 1, cause: 0, reserved: 0 }.to_bytes();
    let record = |kind, message: &[u8]| {
        let len = u32::try_from(message.len()).unwrap_or_default();
        let header = RecordHeader { cookie: 7, boot_ns: 9, len, abi: ABI_VERSION, kind };
        [&header.to_bytes()[..], message].concat()
    };
    let requests = [
        Request::Open { abi: ABI_VERSION, resume: false, meta: Box::new(meta()) },
        Request::Arm { channel: ChannelNo(1) },
        Request::Close { outcome: Outcome::ConnectorLost },
    ];
    let mut seeds: Vec<_> = frames.iter().map(|frame| ("frame", frame.clone())).collect();
    seeds.extend(requests.iter().map(|request| ("control", json(request))));
    seeds.push(("control", json(&Reply::TryAgain { reason: "full".into() })));
    seeds.push(("record", record(RECORD_MESSAGE, &frames[1])));
    seeds.push(("record", record(RECORD_GAP, &gap)));
    seeds.push(("report", json(&sample_report())));
    seeds
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("samples serialize")
}

fn frame_bytes(message: Message) -> Vec<u8> {
    let kind = message.kind();
    let body = message.into_body().expect("short");
    let len = u32::try_from(body.len()).expect("short");
    [&Header { kind, len, seq: 0 }.to_bytes()[..], &body].concat()
}

/// The session of the samples.
#[must_use]
pub fn session_id() -> SessionId {
    "01890a5d-ac96-774b-bcce-000000000001".parse().expect("an id")
}

/// An access context.
#[must_use]
pub fn meta() -> SessionMeta {
    SessionMeta {
        session_id: session_id(),
        user: "ada".into(),
        grant_id: "g-1".into(),
        request_id: "REQ-1".into(),
        approvers: vec!["grace".into()],
        access_flow: "on-call".into(),
        resource: Resource {
            name: "web-1".into(),
            integration: Integration::Ssh,
            host: "h".into(),
            port: 22,
        },
        target_login: "deploy".into(),
        permissions: vec![Permission::Shell],
        proof: Proof::PublicKey { fingerprint: "SHA256:u".into() },
        client_address: ([192, 0, 2, 1], 4000).into(),
        client_version: "SSH-2.0-x".into(),
        expires_at: Timestamp::UNIX_EPOCH,
        capture_policy: CapturePolicy::FailClosed,
        record_file_content: true,
    }
}

/// Who records.
#[must_use]
pub fn recorder() -> Recorder {
    Recorder { agent: "0".into(), abi: ABI_VERSION, node: "n".into(), kernel: "k".into() }
}

/// The first line of a first segment.
#[must_use]
pub fn segment_header() -> SegmentHeader {
    let opened = Opened {
        session: meta(),
        target: None,
        recorder: recorder(),
        opened_at: Timestamp::UNIX_EPOCH,
        clock: Clock { boot_ns: 0, at: Timestamp::UNIX_EPOCH },
    };
    SegmentHeader {
        weir: FORMAT_VERSION,
        session: session_id(),
        index: 1,
        previous: None,
        bulk: None,
        opened: Some(Box::new(opened)),
    }
}

/// A manifest, and the digests that go with it.
#[must_use]
pub fn manifest() -> (Manifest, String) {
    let object = |name: String| StoredObject { name, sha256: Sha256::of(b"x"), bytes: 1 };
    let manifest = Manifest {
        weir: FORMAT_VERSION,
        session: meta(),
        target: None,
        recorder: recorder(),
        opened_at: Timestamp::UNIX_EPOCH,
        closed_at: Timestamp::UNIX_EPOCH,
        clock: Clock { boot_ns: 0, at: Timestamp::UNIX_EPOCH },
        outcome: Outcome::Completed,
        channels: Vec::new(),
        segments: vec![SegmentEntry {
            index: 1,
            events: Count { records: 1, bytes: 17 },
            segment: object(segment_name(1)),
            bulk: None,
            signature: Some(object(signature_name(1))),
        }],
        findings: None,
    };
    let sums = sums_text(manifest.objects().map(|object| (object.name.as_str(), object.sha256)));
    (manifest, sums)
}

fn sample_report() -> SessionReport {
    SessionReport {
        weir: REPORT_VERSION,
        session: meta(),
        target: None,
        recorder: recorder(),
        opened_at: Timestamp::UNIX_EPOCH,
        location: Location { store: "s3://b/p".into(), path: "v1/dt=1970-01-01/x".into() },
        status: Status::Open,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(name: &str) -> fn(&[u8]) {
        match name {
            "frame" => frame,
            "control" => control,
            "record" => record,
            "report" => report,
            other => unreachable!("{other} has no body"),
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused_or_read_as_what_could_have_been_written(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            for body in [frame, control, record, report] {
                body(&bytes);
            }
        }

        #[test]
        fn valid_input_that_was_changed_is_refused_or_read_as_what_could_have_been_written(
            seed: prop::sample::Index, at: prop::sample::Index, with: Vec<u8>, cut in 0_usize..8,
        ) {
            let seeds = seeds();
            let (name, seed) = seed.get(&seeds);
            let at = at.index(seed.len());
            let mut bytes = seed[..at].to_vec();
            bytes.extend_from_slice(&with);
            bytes.extend_from_slice(&seed[(at + cut).min(seed.len())..]);
            body(name)(&bytes);
        }
    }

    #[test]
    fn every_seed_is_valid() {
        for (name, seed) in seeds() {
            body(name)(&seed);
        }
        assert!(Header::split(&seeds()[0].1).is_ok());
    }
}
