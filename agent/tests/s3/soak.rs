//! Many sessions at once while everything fails at random: the agent is killed and stopped, the store is away, slow,
//! answers with errors or forgets what it took, one session's directory fails for long, the disk fills up, and is full
//! while the agent is killed. Whatever came through a tap is in the bucket afterwards, byte for byte.
//!
//! The short form is part of every test run; `WEIR_SOAK=long` makes it several minutes of 200 sessions. What goes wrong
//! follows from a seed that is printed, and that `WEIR_SOAK_SEED` sets: `docs/fuzzing.md`.

use std::{
    collections::HashMap,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use weir_common::{
    control::{Reply, Request},
    frame::{ChannelType, Direction, Message},
    session::{ChannelNo, Outcome, SessionId, SessionMeta},
};

use crate::{
    chaos::Chaos,
    server::{ENVIRONMENT, Server},
    support::{
        Node,
        proxy::{Control, Tap, frame, meta},
        stored::verify,
    },
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;

/// How long a session may stall before the soak has failed: longer than any fault of it lasts, with all that follows.
const PATIENCE: Duration = Duration::from_secs(90);

struct Scale {
    sessions: u64,
    time: Duration,
    disk_bytes: u64,
}

impl Scale {
    fn of_environment() -> Self {
        match std::env::var("WEIR_SOAK").as_deref() {
            Ok("long") => Self { sessions: 200, time: Duration::from_secs(240), disk_bytes: 256 << 20 },
            _ => Self { sessions: 24, time: Duration::from_secs(12), disk_bytes: 48 << 20 },
        }
    }
}

/// The seed that is to be played again, or a new one.
fn seed() -> u64 {
    match std::env::var("WEIR_SOAK_SEED") {
        Ok(text) => text.parse().expect("WEIR_SOAK_SEED is a number that a soak has printed"),
        Err(_) => rand::random(),
    }
}

/// Small, so that everything that can be interrupted happens all the time.
const SETTINGS: &str = "segment_max_bytes = 200000\nsegment_max_age_ms = 200\nspool_file_bytes = 262144\n\
                        flush_interval_ms = 20\nring_bytes = 4194304\nmax_taps = 4096\n";

#[test]
fn whatever_fails_while_many_sessions_run_each_of_them_is_in_the_bucket_byte_for_byte() {
    let scale = Scale::of_environment();
    let seed = seed();
    println!("WEIR_SOAK_SEED={seed}");
    let mut node = Node::new(SETTINGS);
    node.small_disk(scale.disk_bytes);
    let mut server = Server::start(&node.path("s3"));
    server.forgets_what_is_asked();
    symlink(server.objects(), node.path("store")).expect("a fresh directory");
    node.configure(&server.settings());
    node.environment(&ENVIRONMENT);
    let agent = node.start();

    let (stop, frames, newest) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(None));
    let driver = |number| Driver {
        random: StdRng::seed_from_u64(seed ^ (number + 1)),
        socket: node.socket(),
        stop: &stop,
        frames: &frames,
        newest: &newest,
    };
    let over: Vec<Said> = thread::scope(|scope| {
        let drivers: Vec<_> = (0..scale.sessions)
            .map(|number| {
                let driver = driver(number);
                scope.spawn(move || driver.run())
            })
            .collect();
        let _stop = Stop(&stop);
        let random = StdRng::seed_from_u64(seed);
        let agent =
            Chaos { random, node: &node, server: &mut server, newest: &newest }.rage(agent, scale.time);
        stop.store(true, Ordering::Relaxed);
        let over = drivers.into_iter().flat_map(|driver| driver.join().expect("no driver fails")).collect();
        drop(agent);
        over
    });
    // The one that is stopped may leave work to the next.
    let _agent = node.start();
    let frames = frames.into_inner();
    println!("{} sessions, {frames} frames", over.len());
    for said in &over {
        let recording = verify(&node, said.meta.session_id);
        assert_eq!(recording.manifest.outcome, Outcome::Completed);
        for (way, passed) in &said.channels {
            let recorded = Passed::of(recording.frames.get(way).map_or(&[][..], Vec::as_slice));
            assert!(
                recorded == *passed,
                "session {}, {way:?}: {} frames passed, {} are recorded, or others",
                said.meta.session_id,
                passed.frames,
                recorded.frames
            );
        }
    }
    assert_eq!(
        over.iter().flat_map(|said| said.channels.values()).map(|passed| passed.frames).sum::<u64>(),
        frames
    );
    assert!(server.not_allowed().is_empty(), "{:?}", server.not_allowed());
}

/// Ends the drivers, also when something has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What came through one direction of one channel.
#[derive(Clone, Default)]
struct Passed {
    frames: u64,
    digest: sha2::Sha256,
}

impl Passed {
    fn add(&mut self, frame: &[u8]) {
        self.frames += 1;
        sha2::Digest::update(&mut self.digest, frame);
    }

    fn of(frames: &[Vec<u8>]) -> Self {
        let mut passed = Self::default();
        frames.iter().for_each(|frame| passed.add(frame));
        passed
    }
}

impl PartialEq for Passed {
    fn eq(&self, other: &Self) -> bool {
        let digest = |passed: &Self| sha2::Digest::finalize(passed.digest.clone());
        self.frames == other.frames && digest(self) == digest(other)
    }
}

struct Channel {
    no: ChannelNo,
    tap: Tap,
    passed: [Passed; 2],
}

/// A session, and what came through its channels.
struct Said {
    meta: SessionMeta,
    channels: HashMap<(ChannelNo, Direction), Passed>,
}

/// A proxy that has one session after the other.
struct Driver<'a> {
    random: StdRng,
    socket: PathBuf,
    stop: &'a AtomicBool,
    frames: &'a AtomicU64,
    /// The session that was opened last, whoever's it is.
    newest: &'a Mutex<Option<SessionId>>,
}

/// The session that a driver is in.
struct Live {
    said: Said,
    control: Control,
    channels: Vec<Channel>,
    next: u32,
}

impl Driver<'_> {
    fn run(mut self) -> Vec<Said> {
        let mut over = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let mut live = self.open();
            let bursts = self.random.random_range(3..40);
            for _ in 0..bursts {
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                match self.random.random_range(0..12) {
                    0 if live.channels.len() < 4 => self.arm(&mut live),
                    1 if live.channels.len() > 1 => self.disarm(&mut live),
                    _ => self.talk(&mut live),
                }
                self.pause(60);
            }
            over.push(self.close(live));
        }
        over
    }

    fn open(&mut self) -> Live {
        let meta = meta();
        let deadline = Instant::now() + PATIENCE;
        let control = self.attach(&meta, false, deadline).expect("the session is opened");
        *self.newest.lock().expect("no panic in between") = Some(meta.session_id);
        let said = Said { meta, channels: HashMap::new() };
        let mut live = Live { said, control, channels: Vec::new(), next: 0 };
        self.arm(&mut live);
        live
    }

    /// Connects until an agent takes the session; an error if it says that it never will.
    fn attach(&mut self, meta: &SessionMeta, mut resume: bool, deadline: Instant) -> Result<Control, String> {
        loop {
            assert!(Instant::now() < deadline, "no agent took session {} in time", meta.session_id);
            let asked = Control::try_connect(&self.socket).and_then(|control| {
                let reply = control.open(meta, resume)?;
                Some((control, reply))
            });
            match asked {
                Some((control, Reply::Opened)) => return Ok(control),
                // The agent was killed between noting it and saying so.
                Some((_, Reply::Refused { reason })) if reason.contains("registered already") => {
                    resume = true;
                }
                Some((_, Reply::Refused { reason })) if is_for_now(&reason) => {}
                Some((_, Reply::Refused { reason })) => return Err(reason),
                Some((_, reply)) if !matches!(reply, Reply::TryAgain { .. }) => {
                    panic!("{reply:?} to an open")
                }
                Some(_) | None => {}
            }
            self.pause(20);
        }
    }

    /// Asks until there is an answer; `None` if the session is over.
    fn ask(&mut self, live: &mut Live, request: &Request, tap: Option<&Tap>) -> Option<Asked> {
        let deadline = Instant::now() + PATIENCE;
        let descriptors = tap.map(|tap| tap.descriptors().to_vec()).unwrap_or_default();
        loop {
            assert!(Instant::now() < deadline, "no answer to {request:?} in time");
            match live.control.ask(request, &descriptors) {
                Some(Reply::TryAgain { .. }) => self.pause(20),
                Some(reply) => return Some(Asked::Reply(reply)),
                None => {
                    let meta = live.said.meta.clone();
                    live.control = self.attach(&meta, true, deadline).ok()?;
                    // A tap that may or may not have been armed is given up.
                    if tap.is_some() {
                        return Some(Asked::Lost);
                    }
                }
            }
        }
    }

    fn arm(&mut self, live: &mut Live) {
        let no = ChannelNo(live.next);
        live.next += 1;
        loop {
            let tap = Tap::pair();
            match self.ask(live, &Request::Arm { channel: no }, Some(&tap)) {
                Some(Asked::Reply(Reply::Armed { .. })) => {
                    let mut channel = Channel { no, tap, passed: Default::default() };
                    self.pass(&mut channel, C2T, Message::Open(ChannelType::Session));
                    self.pass(&mut channel, T2C, Message::OpenConfirm);
                    return live.channels.push(channel);
                }
                Some(Asked::Lost) => {}
                Some(Asked::Reply(other)) => panic!("{other:?} to an arm"),
                None => panic!("the session ended by itself"),
            }
        }
    }

    fn disarm(&mut self, live: &mut Live) {
        let channel = live.channels.swap_remove(self.random.random_range(0..live.channels.len()));
        let reply = self.ask(live, &Request::Disarm { channel: channel.no }, None);
        assert!(matches!(reply, Some(Asked::Reply(Reply::Disarmed { .. }))), "to a disarm");
        live.said.keep(channel);
    }

    fn close(&mut self, mut live: Live) -> Said {
        let reply = self.ask(&mut live, &Request::Close { outcome: Outcome::Completed }, None);
        // None: it was closed, and the agent killed before it could say so.
        assert!(matches!(reply, None | Some(Asked::Reply(Reply::Closed))), "to a close");
        for channel in std::mem::take(&mut live.channels) {
            live.said.keep(channel);
        }
        live.said
    }

    fn talk(&mut self, live: &mut Live) {
        let at = self.random.random_range(0..live.channels.len());
        for _ in 0..self.random.random_range(1..12) {
            let (direction, message) = self.message();
            self.pass(&mut live.channels[at], direction, message);
        }
    }

    fn message(&mut self) -> (Direction, Message) {
        let len = match self.random.random_range(0..20) {
            0 => self.random.random_range(0..32_768),
            1..5 => self.random.random_range(0..4_096),
            _ => self.random.random_range(0..120),
        };
        let mut data = vec![0; len];
        match self.random.random_range(0..3) {
            0 => self.random.fill(&mut data[..]),
            _ => data.iter_mut().for_each(|byte| *byte = self.random.random_range(b' '..b'~')),
        }
        match self.random.random_range(0..4) {
            0 => (C2T, Message::Stdin(data.into())),
            1 => (T2C, Message::Stderr(data.into())),
            _ => (T2C, Message::Stdout(data.into())),
        }
    }

    /// Sends a frame until it comes through.
    fn pass(&mut self, channel: &mut Channel, direction: Direction, message: Message) {
        let passed = &mut channel.passed[direction as usize];
        let bytes = frame(message, passed.frames);
        let deadline = Instant::now() + PATIENCE;
        loop {
            channel.tap.send_raw(direction, &bytes);
            if let Some(received) = channel.tap.receive_raw(direction) {
                assert!(received == bytes, "another frame came out than went in");
                passed.add(&bytes);
                self.frames.fetch_add(1, Ordering::Relaxed);
                return;
            }
            assert!(Instant::now() < deadline, "a session stalled for {PATIENCE:?}");
            pause(self.random.random_range(1..20));
        }
    }

    fn pause(&mut self, most_ms: u64) {
        pause(self.random.random_range(0..most_ms));
    }
}

enum Asked {
    Reply(Reply),
    /// The agent went away before it answered.
    Lost,
}

impl Said {
    fn keep(&mut self, channel: Channel) {
        let [c2t, t2c] = channel.passed;
        self.channels.insert((channel.no, C2T), c2t);
        self.channels.insert((channel.no, T2C), t2c);
    }
}

/// A refusal that a user would answer by trying again later.
fn is_for_now(reason: &str) -> bool {
    ["out of space", "records", "is ending"].iter().any(|words| reason.contains(words))
}

#[expect(clippy::disallowed_methods, reason = "the soak's own pace, on which no outcome depends")]
pub(crate) fn pause(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}
