//! Many sessions on one agent: all of them survive it, and none starves beside one that floods.

mod support;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{
    Node,
    proxy::{Control, Tap, frame, meta, stdin, stdout},
    stored::verify,
    wait_until,
};
use weir_agent::tap::RingPlace;
use weir_common::{
    control::Reply,
    digest::Sha256,
    frame::{ChannelType, Direction, Message, WINDOW},
    recording::{Count, MANIFEST, Manifest, SIGNATURE, SegmentEntry, StoredObject},
    session::{ChannelNo, Outcome, SessionId, SessionMeta},
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;

/// So many at once.
const SESSIONS: usize = 1_000;

struct Running {
    meta: SessionMeta,
    control: Control,
    tap: Tap,
}

impl Running {
    fn begin(node: &Node) -> Self {
        let (meta, control) = (meta(), Control::connect(&node.socket()));
        assert_eq!(control.open(&meta, false), Some(Reply::Opened));
        let mut tap = control.arm(0);
        tap.pass(C2T, &Message::Open(ChannelType::Session));
        tap.pass(T2C, &Message::OpenConfirm);
        Self { meta, control, tap }
    }

    fn talk(&mut self, round: usize) {
        let id = self.meta.session_id;
        self.tap.pass(C2T, &stdin(&format!("{round}\r")));
        self.tap.pass(T2C, &stdout(&format!("{id} says {round}\r\n").repeat(1 + round % 7)));
    }

    fn resume(&mut self, node: &Node) {
        self.control = Control::connect(&node.socket());
        assert_eq!(self.control.open(&self.meta, true), Some(Reply::Opened));
    }

    fn close(&self) {
        assert_eq!(self.control.close(Outcome::Completed), Some(Reply::Closed));
    }

    fn is_recorded_byte_for_byte(&self, node: &Node) {
        let recording = verify(node, self.meta.session_id);
        for way in [C2T, T2C] {
            assert!(recording.frames[&(ChannelNo(0), way)] == self.tap.sent(way), "{way}");
        }
    }
}

/// Three descriptors a session here; the agent inherits the limit.
fn raise_descriptor_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("has one");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard one");
}

/// The manifests of the sessions that are stored to the end.
fn manifests(node: &Node) -> HashMap<SessionId, PathBuf> {
    let days = fs::read_dir(node.path("store/v1")).into_iter().flatten();
    let days = days.map(|day| day.expect("readable").path());
    let dirs = days.flat_map(|day| fs::read_dir(day).expect("a directory"));
    let dirs = dirs.map(|dir| dir.expect("readable").path()).filter(|dir| dir.join(SIGNATURE).exists());
    let id = |dir: &Path| dir.file_name().and_then(|name| name.to_str()?.parse().ok());
    dirs.filter_map(|dir| Some((id(&dir)?, dir.join(MANIFEST)))).collect()
}

#[test]
fn a_thousand_sessions_outlive_an_agent_that_is_killed_and_each_is_stored_with_what_it_passed() {
    raise_descriptor_limit();
    let node = Node::new("ring_bytes = 16777216\nmax_taps = 4096\nsegment_max_age_ms = 3600000\n");
    let agent = node.start();
    let mut sessions: Vec<_> = (0..SESSIONS).map(|_| Running::begin(&node)).collect();
    for (number, session) in sessions.iter_mut().enumerate() {
        (0..=number % 3).for_each(|round| session.talk(round));
    }
    agent.kill();
    for session in sessions.iter_mut().step_by(3) {
        session.talk(3);
    }
    let _agent = node.start();
    for (number, session) in sessions.iter_mut().enumerate() {
        session.resume(&node);
        (4..=4 + number % 2).for_each(|round| session.talk(round));
    }
    sessions.iter().for_each(Running::close);
    let mut stored = HashMap::new();
    wait_until("every session is stored", || {
        stored = manifests(&node);
        stored.len() == sessions.len()
    });
    for session in &sessions {
        let manifest = fs::read(&stored[&session.meta.session_id]).expect("is there");
        let manifest: Manifest = serde_json::from_slice(&manifest).expect("a manifest");
        assert_eq!(manifest.outcome, Outcome::Completed);
        let [channel] = manifest.channels[..] else { panic!("one channel: {:?}", manifest.channels) };
        for (way, totals) in [(C2T, channel.c2t), (T2C, channel.t2c)] {
            let sent = session.tap.sent(way);
            let bytes: usize = sent.iter().map(Vec::len).sum();
            assert_eq!((totals.accepted.records, totals.accepted.bytes), (sent.len() as u64, bytes as u64));
            let kernel = totals.kernel.expect("the kernel counted");
            assert_eq!(kernel.captured, totals.drained(), "nothing twice, nothing missing");
        }
    }
    for session in sessions.iter().step_by(SESSIONS / 10) {
        session.is_recorded_byte_for_byte(&node);
    }
    assert_eq!(node.spool_files().len(), 1, "what is stored is not kept");
}

/// A session's taps, and threads that send frames into them as fast as it goes, with a proxy's pauses.
struct Flood {
    session: Running,
    taps: Vec<Tap>,
    passed: AtomicU64,
    tossed: AtomicU64,
    enough: AtomicBool,
}

impl Flood {
    const CHANNELS: u32 = 32;
    const THREADS: usize = 2;

    fn begin(node: &Node) -> Self {
        let session = Running::begin(node);
        let taps = (1..Self::CHANNELS).map(|no| session.control.arm(no)).collect();
        let (passed, tossed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { session, taps, passed, tossed, enough: AtomicBool::new(false) }
    }

    /// Sends into each tap in turn, up to a window of frames; a tap of which one is tossed pauses as a proxy does.
    fn run(&self, taps: &[Tap], bodies: &[Message]) {
        let mut ways: Vec<_> = taps.iter().map(|tap| (tap, 0_usize, Patience::default())).collect();
        while !self.enough.load(Ordering::Relaxed) {
            for (tap, next, patience) in ways.iter_mut().filter(|(_, _, patience)| patience.is_over()) {
                for _ in 0..WINDOW {
                    tap.send_raw(T2C, &frame(bodies[*next % bodies.len()].clone(), *next as u64));
                    if tap.receive_raw(T2C).is_none() {
                        self.tossed.fetch_add(1, Ordering::Relaxed);
                        patience.tossed();
                        break;
                    }
                    *next += 1;
                    self.passed.fetch_add(1, Ordering::Relaxed);
                    *patience = Patience::default();
                }
            }
        }
    }
}

/// Ends the flood, also when something has failed.
struct Enough<'a>(&'a Flood);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.enough.store(true, Ordering::Relaxed);
    }
}

/// A proxy's pauses before it sends again what was tossed: from 2 ms, doubling, to 100 ms.
struct Patience {
    until: Instant,
    pause: Duration,
    tossed: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { until: Instant::now(), pause: Duration::from_millis(2), tossed: 0 }
    }
}

impl Patience {
    fn tossed(&mut self) {
        self.until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(Duration::from_millis(100));
        self.tossed += 1;
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// Passes a frame as a proxy does, and says how often it was tossed.
fn pass_patiently(tap: &mut Tap, message: &Message) -> u32 {
    let mut patience = Patience::default();
    while !tap.try_pass(C2T, message.clone()) {
        patience.tossed();
        wait_until("the pause is over", || patience.is_over());
    }
    patience.tossed
}

#[test]
fn quiet_sessions_get_through_beside_one_that_keeps_the_ring_full() {
    let node = Node::new("");
    let _agent = node.start();
    let mut quiet: Vec<_> = (0..10).map(|_| Running::begin(&node)).collect();
    let flood = Flood::begin(&node);
    let bodies = [stdout(&"x".repeat(32_000)), stdout("x")];
    let (key, bulk) = (stdin("k"), stdin(&"k".repeat(30_000)));
    let mut tossed = Vec::new();
    thread::scope(|scope| {
        let _enough = Enough(&flood);
        for taps in flood.taps.chunks(flood.taps.len().div_ceil(Flood::THREADS)) {
            scope.spawn(|| flood.run(taps, &bodies));
        }
        for _ in 0..5 {
            // Somebody was tossed since the last round, and somebody was not.
            let (passed, full) = (flood.passed.load(Ordering::Relaxed), flood.tossed.load(Ordering::Relaxed));
            wait_until("the flood goes on, and the ring is full", || {
                flood.passed.load(Ordering::Relaxed) > passed && flood.tossed.load(Ordering::Relaxed) > full
            });
            for session in &mut quiet {
                tossed.extend([&key, &bulk].map(|message| pass_patiently(&mut session.tap, message)));
            }
        }
    });
    tossed.sort_unstable();
    // A second and a half of pauses, thrice what was measured for the half of them.
    assert!(tossed[tossed.len() / 2] < 20, "{tossed:?}");
    quiet.iter().for_each(Running::close);
    for session in quiet.iter().step_by(4) {
        session.is_recorded_byte_for_byte(&node);
    }
    flood.session.close();
    let recording = verify(&node, flood.session.meta.session_id);
    let channels = recording.manifest.channels.iter().filter(|channel| channel.channel != ChannelNo(0));
    let records: u64 = channels.map(|channel| channel.t2c.accepted.records).sum();
    assert_eq!(records, flood.passed.into_inner(), "of the flood, too, what passed is recorded");
}

/// What a line of a thread's status says, see proc(5).
fn status(dir: &Path, name: &str) -> String {
    let status = fs::read_to_string(dir.join("status")).expect("the thread runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect("the kernel tells it").trim().to_owned()
}

#[test]
fn each_rings_core_runs_on_the_cpus_of_its_group_and_nothing_else_is_pinned() {
    let own = status(Path::new("/proc/self"), "Cpus_allowed_list");
    let first_two = own.split(',').flat_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<usize>().expect("a number");
        number(first)..=number(last)
    });
    let cpus: Vec<_> = first_two.take(2).map(|cpu| cpu.to_string()).collect();
    let node = Node::new(&format!("cpu_groups = {cpus:?}\n"));
    let agent = node.start();
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("the agent runs");
        tasks
            .map(|task| task.expect("readable").path())
            .map(|task| (status(&task, "Name"), status(&task, "Cpus_allowed_list")))
    };
    let pinned = |ring: usize| format!("weir-core-{}", RingPlace::current(ring.try_into().expect("few")));
    // It pins itself, when it has been started.
    wait_until("every core is where it is to be", || {
        cpus.iter().enumerate().all(|(ring, cpu)| {
            let core =
                threads().filter(|(name, _)| pinned(ring).starts_with(name.as_str())).collect::<Vec<_>>();
            matches!(&core[..], [(_, on)] if on == cpu)
        })
    });
    for (name, on) in threads().filter(|(name, _)| !name.starts_with("weir-core-")) {
        assert_eq!(on, own, "{name}");
    }
}

/// `docs/limits.md` says what the segments of a session that runs cost; this is where the numbers are from.
#[test]
fn what_is_kept_of_a_stored_segment_is_as_large_as_the_limits_say() {
    let object = |name: &str, bytes| StoredObject { name: name.into(), sha256: Sha256::of(b""), bytes };
    let text = SegmentEntry {
        index: 1440,
        events: Count { records: 1234, bytes: 45_678 },
        segment: object("001440.ndjson.zst", 12_345),
        bulk: None,
        signature: Some(object("001440.sig", 307)),
    };
    let bulk = SegmentEntry { bulk: Some(object("001440.bin.zst", 1_234_567)), ..text.clone() };
    let json = |entry| serde_json::to_vec(entry).expect("JSON").len() + ",".len();
    assert_eq!((size_of::<SegmentEntry>(), json(&text), json(&bulk)), (216, 318, 431));
}
