//! Builds recordings for tests, independently of the agent: frames in, a session's directory out.
//!
//! Every step can be taken apart: a test changes a [`Draft`] before it is sealed, or the objects of a [`Sealed`]
//! afterwards, and decides how much of what depends on the change (manifest, digests, signature) is made to fit.

pub(crate) mod case;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use jiff::Timestamp;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey};
use weir_common::{
    digest::Sha256,
    frame::{ChannelType, Direction, Env, Message, Pty, WindowSize},
    recording::{
        ChannelTotals, Clock, Count, DirectionTotals, Event, FORMAT_VERSION, Gap, GapCause, KernelCount,
        MANIFEST, Manifest, Opened, Recorder, SIGNATURE, SIGNATURE_NAMESPACE, SUMS, SegmentEntry,
        SegmentHeader, StoredObject, What, bulk_name, segment_name, session_path, signature_name, sums_text,
    },
    session::{
        CapturePolicy, ChannelNo, HostKeyTrust, Integration, Outcome, Permission, Proof, Resource, SessionId,
        SessionMeta, SocketCookie, TargetCredential, TargetPeer,
    },
};

pub(crate) const C2T: Direction = Direction::ClientToTarget;
pub(crate) const T2C: Direction = Direction::TargetToClient;

pub(crate) const SHELL: ChannelNo = ChannelNo(0);
pub(crate) const COPY: ChannelNo = ChannelNo(1);

const OPENED_AT: &str = "2026-01-02T03:04:05.250Z";

/// A segment before it is packed.
#[derive(Clone)]
pub(crate) struct DraftSegment {
    pub(crate) index: u32,
    pub(crate) events: Vec<Event>,
    pub(crate) bulk: Vec<u8>,
    pub(crate) bulk_packed: bool,
}

/// A recording before it is sealed.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) meta: SessionMeta,
    pub(crate) outcome: Outcome,
    pub(crate) segments: Vec<DraftSegment>,
    now_ns: u64,
    seqs: BTreeMap<(u32, &'static str), u64>,
}

impl Draft {
    pub(crate) fn new() -> Self {
        Self {
            meta: meta(),
            outcome: Outcome::Completed,
            segments: Vec::new(),
            now_ns: 5_000_000_000,
            seqs: BTreeMap::new(),
        }
    }

    /// Starts the next segment.
    pub(crate) fn segment(&mut self, bulk_packed: bool) {
        let index = u32::try_from(self.segments.len()).expect("few segments") + 1;
        self.segments.push(DraftSegment { index, events: Vec::new(), bulk: Vec::new(), bulk_packed });
    }

    /// Records a frame, so many milliseconds after the one before.
    pub(crate) fn frame(&mut self, after_ms: u64, ch: ChannelNo, dir: Direction, message: Message) {
        self.now_ns += after_ms * 1_000_000;
        let next = self.seqs.entry((ch.0, dir.as_str())).or_default();
        let seq = *next;
        *next += 1;
        let len = message.clone().into_body().expect("a short body").len();
        let segment = self.segments.last_mut().expect("a segment was started");
        let what = What::of(message, &mut segment.bulk);
        let len = u32::try_from(len).expect("a short body");
        segment.events.push(Event { t: self.now_ns, dir, ch, seq, len, what });
    }

    /// Records that so many frames of so many bytes passed unrecorded for a while before now.
    pub(crate) fn gap(&mut self, after_ms: u64, ch: ChannelNo, dir: Direction, records: u64, bytes: u64) {
        let since = self.now_ns + 1_000_000;
        self.now_ns += after_ms * 1_000_000;
        let next = self.seqs.entry((ch.0, dir.as_str())).or_default();
        let seq = *next;
        *next += records;
        let segment = self.segments.last_mut().expect("a segment was started");
        let what = What::Gap(Gap { records, bytes, since, cause: GapCause::AgentDown });
        segment.events.push(Event { t: self.now_ns, dir, ch, seq, len: 0, what });
    }

    /// Packs the segments one after the other and makes the manifest for them.
    pub(crate) fn seal(&self) -> Sealed {
        let mut objects = BTreeMap::new();
        let mut entries = Vec::new();
        let mut previous = None;
        for segment in &self.segments {
            let name = segment_name(segment.index);
            let bulk = (!segment.bulk.is_empty()).then(|| {
                let stored = segment.stored_bulk();
                StoredObject {
                    name: bulk_name(segment.index, segment.bulk_packed),
                    sha256: Sha256::of(&stored),
                    bytes: stored.len() as u64,
                }
            });
            let header = SegmentHeader {
                weir: FORMAT_VERSION,
                session: self.meta.session_id,
                index: segment.index,
                previous,
                bulk: bulk.clone(),
                opened: (segment.index == 1).then(|| Box::new(self.opened())),
            };
            let lines = std::iter::once(serde_json::to_string(&header).expect("headers serialize")).chain(
                segment.events.iter().map(|event| serde_json::to_string(event).expect("events serialize")),
            );
            let packed = pack(&lines.map(|line| line + "\n").collect::<String>().into_bytes());
            previous = Some(Sha256::of(&packed));
            let mut events = Count::default();
            segment.events.iter().for_each(|event| events.add(captured(event).bytes));
            entries.push(SegmentEntry {
                index: segment.index,
                events,
                segment: stored(&name, &packed),
                bulk: bulk.clone(),
                signature: None,
            });
            objects.insert(name, packed);
            if let Some(bulk) = bulk {
                objects.insert(bulk.name, segment.stored_bulk());
            }
        }
        let manifest = self.manifest(entries);
        let mut sealed = Sealed { manifest, objects };
        sealed.write_manifest();
        sealed.write_sums();
        sealed
    }

    fn opened(&self) -> Opened {
        let Manifest { session, recorder, opened_at, clock, .. } = self.manifest(Vec::new());
        Opened { session, target: None, recorder, opened_at, clock }
    }

    fn manifest(&self, segments: Vec<SegmentEntry>) -> Manifest {
        let opened_at: Timestamp = OPENED_AT.parse().expect("a time");
        let after =
            |ns: u64| Timestamp::from_nanosecond(opened_at.as_nanosecond() + i128::from(ns)).expect("a time");
        Manifest {
            weir: FORMAT_VERSION,
            session: self.meta.clone(),
            recorder: Recorder {
                agent: "0.1.0".into(),
                abi: weir_common::abi::ABI_VERSION,
                node: "node-1".into(),
                kernel: "6.1.0-18-amd64".into(),
            },
            target: Some(TargetPeer {
                address: ([10, 0, 3, 7], 22).into(),
                host_key: "SHA256:2V2lxnGpwcrAo0hI2vE6fNFe6Lq0Yq6aM0Fz6wB3C5o".into(),
                host_key_trust: HostKeyTrust::Pinned,
                credential: TargetCredential::PrivateKey,
            }),
            opened_at,
            closed_at: after(self.now_ns - 5_000_000_000 + 40_000_000),
            clock: Clock { boot_ns: 5_000_000_000, at: opened_at },
            outcome: self.outcome.clone(),
            channels: self.totals(),
            segments,
            findings: None,
        }
    }

    fn totals(&self) -> Vec<ChannelTotals> {
        let mut counts: BTreeMap<u32, [(Count, Count); 2]> = BTreeMap::new();
        for event in self.segments.iter().flat_map(|segment| &segment.events) {
            let (accepted, passed) =
                &mut counts.entry(event.ch.0).or_default()[usize::from(event.dir == T2C)];
            *accepted = *accepted + captured(event);
            if let What::Gap(Gap { records, bytes, .. }) = event.what {
                *passed = *passed + Count { records, bytes };
            }
        }
        let totals = |cookie, (accepted, passed): (Count, Count)| {
            let (duplicate, out_of_sequence) =
                (Count { records: 1, bytes: 60 }, Count { records: 2, bytes: 90 });
            DirectionTotals {
                cookie: SocketCookie(cookie),
                accepted,
                duplicate,
                out_of_sequence,
                malformed: Count::default(),
                passed,
                kernel: Some(KernelCount {
                    captured: accepted + duplicate + out_of_sequence,
                    passed,
                    tossed_full: 3,
                    tossed_frozen: 0,
                    tossed_size: 0,
                }),
            }
        };
        let channel = |(channel, [c2t, t2c]): (u32, [(Count, Count); 2])| ChannelTotals {
            channel: ChannelNo(channel),
            c2t: totals(100 + 2 * u64::from(channel), c2t),
            t2c: totals(101 + 2 * u64::from(channel), t2c),
        };
        counts.into_iter().map(channel).collect()
    }
}

/// What the kernel captured for an event.
fn captured(event: &Event) -> Count {
    match event.what {
        What::Gap(_) => Count::default(),
        _ => Count { records: 1, bytes: event.message_bytes() },
    }
}

impl DraftSegment {
    fn stored_bulk(&self) -> Vec<u8> {
        if self.bulk_packed { pack(&self.bulk) } else { self.bulk.clone() }
    }
}

/// A recording's objects.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) manifest: Manifest,
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
}

impl Sealed {
    pub(crate) fn id(&self) -> SessionId {
        self.manifest.session.session_id
    }

    /// Writes the manifest as it is now.
    pub(crate) fn write_manifest(&mut self) {
        let bytes = serde_json::to_vec(&self.manifest).expect("manifests serialize");
        self.objects.insert(MANIFEST.to_owned(), bytes);
    }

    /// Changes an object and makes the manifest say so.
    pub(crate) fn replace(&mut self, name: &str, bytes: Vec<u8>) {
        for entry in &mut self.manifest.segments {
            for object in
                std::iter::once(&mut entry.segment).chain(&mut entry.bulk).chain(&mut entry.signature)
            {
                if object.name == name {
                    *object = stored(name, &bytes);
                }
            }
        }
        self.objects.insert(name.to_owned(), bytes);
        self.write_manifest();
    }

    /// Digests every object as it is now.
    pub(crate) fn write_sums(&mut self) {
        let listed = self.objects.iter().filter(|(name, _)| ![SUMS, SIGNATURE].contains(&name.as_str()));
        let sums = sums_text(listed.map(|(name, bytes)| (name.as_str(), Sha256::of(bytes))));
        self.objects.insert(SUMS.to_owned(), sums.into_bytes());
    }

    /// Signs the digests as they are now.
    pub(crate) fn sign(&mut self, key: &PrivateKey) {
        let signature =
            key.sign(SIGNATURE_NAMESPACE, HashAlg::Sha512, &self.objects[SUMS]).expect("an ed25519 key");
        let armored = signature.to_pem(LineEnding::LF).expect("a short signature");
        self.objects.insert(SIGNATURE.to_owned(), armored.into_bytes());
    }

    /// Signs the segments as they are now.
    pub(crate) fn sign_segments(&mut self, key: &PrivateKey) {
        for entry in &mut self.manifest.segments {
            let Some(segment) = self.objects.get(&entry.segment.name) else { continue };
            let signature = key.sign(SIGNATURE_NAMESPACE, HashAlg::Sha512, segment).expect("an ed25519 key");
            let armored = signature.to_pem(LineEnding::LF).expect("a short signature").into_bytes();
            let name = signature_name(entry.index);
            entry.signature = Some(stored(&name, &armored));
            self.objects.insert(name, armored);
        }
    }

    /// Makes manifest, digests and signatures fit whatever was changed.
    pub(crate) fn reseal(&mut self, key: &PrivateKey) {
        self.sign_segments(key);
        self.write_manifest();
        self.write_sums();
        self.sign(key);
    }

    /// Writes the session's directory below a store's root.
    pub(crate) fn write(&self, root: &Path) -> PathBuf {
        let dir = root.join(session_path(self.manifest.opened_at, self.id()));
        fs::create_dir_all(&dir).expect("a writable directory");
        for (name, bytes) in &self.objects {
            fs::write(dir.join(name), bytes).expect("a writable directory");
        }
        dir
    }
}

pub(crate) fn new_key() -> PrivateKey {
    PrivateKey::random(&mut ssh_key::rand_core::UnwrapErr(ssh_key::getrandom::SysRng), Algorithm::Ed25519)
        .expect("the machine has randomness")
}

/// The text of an `allowed_signers` file for this key.
pub(crate) fn allowed_signers(key: &PrivateKey) -> String {
    format!("weir-agent namespaces=\"weir\" {}\n", key.public_key().to_openssh().expect("a key"))
}

pub(crate) fn pack(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("in memory")
}

pub(crate) fn unpack(bytes: &[u8]) -> Vec<u8> {
    zstd::decode_all(bytes).expect("packed by this module")
}

pub(crate) fn stored(name: &str, bytes: &[u8]) -> StoredObject {
    StoredObject { name: name.to_owned(), sha256: Sha256::of(bytes), bytes: bytes.len() as u64 }
}

/// Bytes that are no text and don't repeat.
pub(crate) fn binary(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(next).collect()
}

/// A short administration session: a shell on a terminal and a file copied beside it, in three segments.
pub(crate) fn sample() -> Draft {
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let mut draft = Draft::new();
    draft.segment(false);
    let size = WindowSize { cols: 80, rows: 24, width_px: 0, height_px: 0 };
    let pty = Pty { term: "xterm-256color".into(), size, modes: vec![(53, 1), (128, 38400)] };
    draft.frame(0, SHELL, C2T, Message::Open(ChannelType::Session));
    draft.frame(20, SHELL, T2C, Message::OpenConfirm);
    draft.frame(5, SHELL, C2T, Message::Pty(pty));
    draft.frame(1, SHELL, C2T, Message::Env(Env { name: "LANG".into(), value: "C.UTF-8".into() }));
    draft.frame(1, SHELL, C2T, Message::Shell);
    draft.frame(9, SHELL, T2C, Message::Success);
    draft.frame(1, SHELL, T2C, Message::Success);
    draft.frame(300, SHELL, T2C, Message::Stdout(text("\x1b[1;32mroot@db-1\x1b[0m:~# ")));
    for key in ["l", "s", "\r"] {
        draft.frame(140, SHELL, C2T, Message::Stdin(text(key)));
        draft.frame(2, SHELL, T2C, Message::Stdout(text(key)));
    }
    draft.frame(3, SHELL, T2C, Message::Stdout(text("\nbackup.tar  notes.txt\r\n")));
    draft.segment(false);
    draft.frame(4000, COPY, C2T, Message::Open(ChannelType::Session));
    draft.frame(10, COPY, T2C, Message::OpenConfirm);
    draft.frame(1, COPY, C2T, Message::Exec(b"cat backup.tar".to_vec()));
    draft.frame(8, COPY, T2C, Message::Success);
    draft.frame(5, COPY, T2C, Message::Stdout(binary(300).into()));
    draft.frame(1, COPY, T2C, Message::Stdout(binary(20).into()));
    draft.frame(2, SHELL, T2C, Message::Stdout(text("\x1b]0;root@db-1\x07\x1b[1;32mroot@db-1\x1b[0m:~# ")));
    draft.frame(1, COPY, T2C, Message::Stderr(text("cat: done\n")));
    draft.frame(2, COPY, T2C, Message::Stdout(binary(270).into()));
    draft.segment(true);
    draft.frame(1, COPY, T2C, Message::Stdout(vec![0xff; 400].into()));
    draft.frame(1, COPY, T2C, Message::ExitStatus(0));
    draft.frame(1, COPY, T2C, Message::Eof);
    draft.frame(1, COPY, T2C, Message::Close);
    draft.frame(1, COPY, C2T, Message::Close);
    let size = WindowSize { cols: 120, ..size };
    draft.frame(900, SHELL, C2T, Message::WindowChange(size));
    draft.frame(700, SHELL, C2T, Message::Stdin(text("\x04")));
    draft.frame(5, SHELL, T2C, Message::Stdout(text("logout\r\n")));
    draft.frame(1, SHELL, T2C, Message::ExitStatus(0));
    draft.frame(1, SHELL, T2C, Message::Close);
    draft.frame(1, SHELL, C2T, Message::Close);
    draft
}

fn meta() -> SessionMeta {
    SessionMeta {
        session_id: SessionId::generate(),
        user: "alice@example.com".into(),
        grant_id: "g-77".into(),
        request_id: "REQ-1042".into(),
        approvers: vec!["bob@example.com".into(), "carol@example.com".into()],
        access_flow: "production-databases".into(),
        resource: Resource {
            name: "db-1".into(),
            integration: Integration::Ssh,
            host: "10.20.0.5".into(),
            port: 22,
        },
        target_login: "root".into(),
        permissions: vec![Permission::Shell, Permission::Exec],
        proof: Proof::PublicKey { fingerprint: "SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8".into() },
        client_address: "203.0.113.7:51234".parse().expect("an address"),
        client_version: "SSH-2.0-OpenSSH_9.9".into(),
        expires_at: "2026-01-02T05:00:00Z".parse().expect("a time"),
        capture_policy: CapturePolicy::FailClosed,
        record_file_content: true,
    }
}
