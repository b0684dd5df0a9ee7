//! A stored session, checked with the tools that anyone has, and read back.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use bytes::Bytes;
use weir_common::{
    digest::Sha256,
    frame::{Direction, Header},
    recording::{
        Content, Count, Event, Gap, GapCause, MANIFEST, Manifest, SIGNATURE, SUMS, SegmentHeader, What,
        parse_sums,
    },
    session::{ChannelNo, SessionId},
};

use super::{Node, names, proxy::Tap, wait_until};

/// Where a session is stored, once it is complete.
pub(crate) fn directory(node: &Node, session: SessionId) -> PathBuf {
    let find = || {
        let days = fs::read_dir(node.path("store/v1")).ok()?;
        let dirs = days.filter_map(Result::ok).map(|day| day.path().join(session.to_string()));
        dirs.into_iter().find(|dir| dir.join(SIGNATURE).exists())
    };
    wait_until("the session is stored", || find().is_some());
    find().expect("just found")
}

/// Where a session that is opened about now is going to be stored: below its day, which may be just ending.
pub(crate) fn places_to_be(node: &Node, session: SessionId) -> Vec<PathBuf> {
    let (now, minute) = (jiff::Timestamp::now(), jiff::SignedDuration::from_mins(1));
    let mut days: Vec<_> =
        [now - minute, now, now + minute].map(|time| time.strftime("dt=%Y-%m-%d").to_string()).into();
    days.dedup();
    days.into_iter().map(|day| node.path("store/v1").join(day).join(session.to_string())).collect()
}

/// Has nothing of a session stored until it is lifted.
pub(crate) struct Poison(Vec<PathBuf>);

impl Poison {
    pub(crate) fn put(node: &Node, session: SessionId) -> Self {
        let places = places_to_be(node, session);
        for place in &places {
            fs::create_dir_all(place.parent().expect("a directory")).expect("writable");
            fs::write(place, b"").expect("writable");
        }
        Self(places)
    }

    pub(crate) fn lift(self) {
        self.0.into_iter().for_each(|place| fs::remove_file(place).expect("removable"));
    }
}

/// A session that was read back. The frames are the exact messages, by channel and direction.
pub(crate) struct Recording {
    pub(crate) manifest: Manifest,
    pub(crate) frames: HashMap<(ChannelNo, Direction), Vec<Vec<u8>>>,
    /// The sequence number of the first frame that is missing, and the gap.
    pub(crate) gaps: HashMap<(ChannelNo, Direction), Vec<(u64, Gap)>>,
}

/// Checks signature, digests, chain and arithmetic, and reads the frames.
pub(crate) fn verify(node: &Node, session: SessionId) -> Recording {
    let dir = directory(node, session);
    let signers = node.path("state/allowed_signers");
    run_verifiers(&dir, &signers);
    for segment in names(&dir).iter().filter(|name| name.ends_with(".ndjson.zst")) {
        verify_signature(&dir, &signers, segment, &segment.replace(".ndjson.zst", ".sig"));
    }
    let sums = fs::read_to_string(dir.join(SUMS)).expect("is there");
    let sums: HashMap<_, _> = parse_sums(&sums).expect("well-formed").into_iter().collect();
    let mut stored = names(&dir);
    stored.retain(|name| name != SUMS && name != SIGNATURE);
    let mut named: Vec<_> = sums.keys().map(|name| (*name).to_owned()).collect();
    named.sort();
    assert_eq!(stored, named, "every object is in the digests");
    let manifest: Manifest =
        serde_json::from_slice(&fs::read(dir.join(MANIFEST)).expect("is there")).expect("a manifest");
    for object in manifest.objects() {
        assert_eq!(sums.get(object.name.as_str()), Some(&object.sha256));
        assert_eq!(fs::metadata(dir.join(&object.name)).expect("is there").len(), object.bytes);
    }
    let (frames, gaps) = read_frames(&dir, &manifest);
    for channel in &manifest.channels {
        for (direction, totals) in
            [(Direction::ClientToTarget, channel.c2t), (Direction::TargetToClient, channel.t2c)]
        {
            let frames = frames.get(&(channel.channel, direction)).map_or(&[][..], Vec::as_slice);
            let bytes: usize = frames.iter().map(Vec::len).sum();
            assert_eq!((totals.accepted.records, totals.accepted.bytes), (frames.len() as u64, bytes as u64));
            let gaps = gaps.get(&(channel.channel, direction)).into_iter().flatten();
            let passed = gaps.fold(Count::default(), |sum, (_, gap)| {
                sum + Count { records: gap.records, bytes: gap.bytes }
            });
            assert_eq!(totals.passed, passed, "{direction}: the gaps are what passed");
            if let Some(kernel) = totals.kernel {
                assert_eq!(kernel.passed, passed, "{direction}: the kernel counted what passed");
                assert_eq!(
                    kernel.captured,
                    totals.drained(),
                    "{direction}: the kernel counted what was drained"
                );
            }
        }
    }
    Recording { manifest, frames, gaps }
}

/// What was sent is what is recorded and what its gaps say, frame by frame; gives the gaps' causes.
pub(crate) fn assert_all_told(recording: &Recording, channel: u32, tap: &Tap) -> Vec<GapCause> {
    let stream = (ChannelNo(channel), Direction::TargetToClient);
    let mut recorded = recording.frames.get(&stream).into_iter().flatten();
    let gaps = recording.gaps.get(&stream).map_or(&[][..], Vec::as_slice);
    let mut missing = 0;
    for (seq, sent) in (0..).zip(tap.sent(Direction::TargetToClient)) {
        if gaps.iter().any(|(first, gap)| (*first..first + gap.records).contains(&seq)) {
            missing += 1;
        } else {
            assert!(recorded.next() == Some(sent), "frame {seq} is recorded in its place");
        }
    }
    assert!(recorded.next().is_none());
    assert_eq!(missing, gaps.iter().map(|(_, gap)| gap.records).sum::<u64>());
    gaps.iter().map(|(_, gap)| gap.cause).collect()
}

/// Reads a session back of which something may be missing.
pub(crate) fn read(node: &Node, session: SessionId) -> Recording {
    let dir = directory(node, session);
    let manifest: Manifest =
        serde_json::from_slice(&fs::read(dir.join(MANIFEST)).expect("is there")).expect("a manifest");
    let (frames, gaps) = read_frames(&dir, &manifest);
    Recording { manifest, frames, gaps }
}

fn run_verifiers(dir: &Path, signers: &Path) {
    let sums =
        Command::new("sha256sum").args(["-c", "--strict", SUMS]).current_dir(dir).output().expect("runs");
    assert!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stderr));
    verify_signature(dir, signers, SUMS, SIGNATURE);
}

fn verify_signature(dir: &Path, signers: &Path, object: &str, signature: &str) {
    let verified = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-I", "weir-agent", "-n", "weir", "-f"])
        .arg(signers)
        .args(["-s", signature])
        .current_dir(dir)
        .stdin(fs::File::open(dir.join(object)).expect("is there"))
        .output()
        .expect("runs");
    assert!(verified.status.success(), "{object}: {}", String::from_utf8_lossy(&verified.stderr));
}

type ByStream<T> = HashMap<(ChannelNo, Direction), Vec<T>>;

fn read_frames(dir: &Path, manifest: &Manifest) -> (ByStream<Vec<u8>>, ByStream<(u64, Gap)>) {
    let (mut frames, mut gaps): (ByStream<_>, ByStream<_>) = (HashMap::new(), HashMap::new());
    let mut previous = None;
    for (number, entry) in manifest.segments.iter().enumerate() {
        assert_eq!(entry.index as usize, number + 1);
        let stored = fs::read(dir.join(&entry.segment.name)).expect("is there");
        let text = String::from_utf8(zstd::decode_all(&stored[..]).expect("zstd")).expect("text");
        let bulk = entry.bulk.as_ref().map_or_else(Vec::new, |object| {
            let bytes = fs::read(dir.join(&object.name)).expect("is there");
            if object.name.ends_with(".zst") { zstd::decode_all(&bytes[..]).expect("zstd") } else { bytes }
        });
        let mut lines = text.lines();
        let header: SegmentHeader =
            serde_json::from_str(lines.next().expect("a first line")).expect("a header");
        assert_eq!((header.session, header.index), (manifest.session.session_id, entry.index));
        assert_eq!(header.previous, previous);
        assert_eq!(header.bulk, entry.bulk);
        previous = Some(Sha256::of(&stored));
        let mut events = 0;
        for line in lines {
            let event: Event = serde_json::from_str(line).expect("an event");
            events += 1;
            match event.what {
                What::Gap(gap) => gaps.entry((event.ch, event.dir)).or_default().push((event.seq, gap)),
                _ => frames.entry((event.ch, event.dir)).or_default().push(message(&event, &bulk)),
            }
        }
        assert_eq!(entry.events.records, events);
    }
    (frames, gaps)
}

/// The message that the kernel captured for an event.
fn message(event: &Event, bulk: &[u8]) -> Vec<u8> {
    let bytes = |content: Content| Bytes::copy_from_slice(content.bytes(bulk).expect("within the bulk"));
    let said = event.what.clone().into_message(bytes).expect("no gap");
    let kind = said.kind();
    let body = said.into_body().expect("as long as it was");
    assert_eq!(body.len(), event.len as usize);
    [&Header { kind, len: event.len, seq: event.seq }.to_bytes()[..], &body].concat()
}
