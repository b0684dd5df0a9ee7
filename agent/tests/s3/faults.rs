//! The fault list, against two servers: whatever the store does, every byte that was sent is in the bucket in the end, nothing goes from
//! the spool before the store has acknowledged it, and one session's trouble is not another's.

use std::{
    fmt::Debug,
    fs,
    path::Path,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use support::{
    Agent, Node,
    proxy::{Control, Tap, meta, stdin, stdout},
    stored::{places_to_be, verify},
    wait_until,
};
use weir_common::{
    control::Reply,
    frame::{ChannelType, Direction, Message},
    recording::SIGNATURE,
    session::{ChannelNo, Outcome, SessionId, SessionMeta},
};

use crate::{
    moto::Moto,
    server::{ENVIRONMENT, Fault, Server},
    support,
};

pub(crate) const C2T: Direction = Direction::ClientToTarget;
pub(crate) const T2C: Direction = Direction::TargetToClient;
/// What every session says once, and nothing else on the node does.
const MARK: &str = "the only one who knows it";
/// Requests that fail before a fault is over.
const FAILURES: usize = 3;
/// Rows that run at the same time.
const AT_A_TIME: usize = 4;

/// What the store does for a while.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Nobody listens, from before the agent starts.
    DownAtStart,
    /// Connections are refused, and those that there were are cut.
    Refusing,
    /// Requests fail like this.
    Failing(Fault),
}

/// The list.
const TROUBLES: [Trouble; 13] = [
    Trouble::DownAtStart,
    Trouble::Refusing,
    Trouble::Failing(Fault::Status(503, "SlowDown")),
    Trouble::Failing(Fault::Status(403, "AccessDenied")),
    Trouble::Failing(Fault::Status(500, "InternalError")),
    Trouble::Failing(Fault::BrokenError),
    Trouble::Failing(Fault::CutRequest),
    Trouble::Failing(Fault::CutAnswer),
    Trouble::Failing(Fault::LostAnswer),
    Trouble::Failing(Fault::NoChecksum),
    Trouble::Failing(Fault::Forgetting),
    Trouble::Failing(Fault::Slow(Duration::from_millis(300))),
    Trouble::Failing(Fault::Hanging),
];

/// What one session's directory does for a while.
const POISONS: [Fault; 4] = [
    Fault::Status(500, "InternalError"),
    Fault::Status(403, "AccessDenied"),
    Fault::CutRequest,
    Fault::Hanging,
];

impl Trouble {
    /// Whether sessions are completed all the same.
    fn is_survived(self) -> bool {
        matches!(self, Self::Failing(Fault::LostAnswer | Fault::NoChecksum | Fault::Slow(_)))
    }
}

/// A node whose store is a bucket of a server that fails when told to.
struct Place {
    node: Node,
    server: Server,
}

impl Place {
    fn new() -> Self {
        Self::with(Server::start)
    }

    /// With another bucket of moto's for each of these.
    fn before(moto: &Moto) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let bucket = format!("recordings-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self::with(|root| Server::start_before(moto.address(), &bucket, root))
    }

    fn with(start: impl FnOnce(&Path) -> Server) -> Self {
        let mut node =
            Node::new("segment_max_bytes = 60000\nsegment_max_age_ms = 50\nspool_file_bytes = 65536\n");
        let server = start(&node.path("s3"));
        node.configure(&server.settings());
        node.environment(&ENVIRONMENT);
        // The server keeps objects as files, or copies of them: what reads a store in a directory reads these.
        std::os::unix::fs::symlink(server.objects(), node.path("store")).expect("not there yet");
        Self { node, server }
    }

    fn begin(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::DownAtStart => {}
            Trouble::Refusing => self.server.refuse_connections(),
            Trouble::Failing(fault) => self.server.fail(Some(fault), None),
        }
    }

    fn end(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::DownAtStart | Trouble::Refusing => self.server.listen(),
            Trouble::Failing(_) => self.server.fail(None, None),
        }
    }

    /// Waits until the agent has met the trouble with this session, and not with its own object only, which it
    /// puts as it starts.
    fn is_felt(&self, trouble: Trouble, agent: &Agent, session: &Session) {
        let session = session.meta.session_id.to_string();
        let count = match trouble {
            Trouble::DownAtStart | Trouble::Refusing => {
                agent.wait_for_log("the store does not answer");
                return;
            }
            // Requests are done all the same, and so not many.
            Trouble::Failing(Fault::Slow(_) | Fault::LostAnswer | Fault::NoChecksum) => 1,
            Trouble::Failing(_) => FAILURES,
        };
        wait_until("requests failed", || self.server.failed("") >= count && self.server.failed(&session) > 0);
    }

    /// Whether the store has all of a session.
    fn is_complete(&self, session: SessionId) -> bool {
        self.server.fetch();
        let Ok(days) = fs::read_dir(self.server.objects().join("v1")) else { return false };
        let session = session.to_string();
        days.filter_map(Result::ok).any(|day| day.path().join(&session).join(SIGNATURE).exists())
    }

    fn is_in_spool(&self, mark: &str) -> bool {
        let holds = |file| {
            fs::read(file).is_ok_and(|bytes| bytes.windows(mark.len()).any(|part| part == mark.as_bytes()))
        };
        self.node.spool_files().into_iter().any(holds)
    }

    /// What was said is in the spool or in the bucket, at every moment since it left the ring.
    fn is_kept(&self, session: &Session) {
        if !self.is_in_spool(&session.mark) {
            assert!(self.is_stored(session), "nothing goes from the spool before the store has it");
        }
    }

    /// Whether a segment in the bucket has what the session said.
    fn is_stored(&self, session: &Session) -> bool {
        self.server.fetch();
        let Ok(days) = fs::read_dir(self.server.objects().join("v1")) else { return false };
        let id = session.meta.session_id.to_string();
        days.filter_map(Result::ok)
            .filter_map(|day| fs::read_dir(day.path().join(&id)).ok())
            .flatten()
            .filter_map(|object| fs::read(object.ok()?.path()).ok())
            .any(|bytes| {
                let bytes = zstd::decode_all(&*bytes).unwrap_or(bytes);
                bytes.windows(session.mark.len()).any(|part| part == session.mark.as_bytes())
            })
    }

    fn completes(&self, session: &Session) {
        wait_until("the session is complete", || {
            self.is_kept(session);
            self.is_complete(session.meta.session_id)
        });
        self.server.fetch_anew();
        let recording = verify(&self.node, session.meta.session_id);
        assert_eq!(recording.manifest.outcome, Outcome::Completed);
        for direction in [C2T, T2C] {
            assert_eq!(
                recording.frames[&(ChannelNo(0), direction)],
                session.tap.sent(direction),
                "{direction}"
            );
        }
    }
}

/// A session and what it said.
pub(crate) struct Session {
    pub(crate) meta: SessionMeta,
    control: Control,
    pub(crate) tap: Tap,
    mark: String,
}

impl Session {
    pub(crate) fn begin(node: &Node) -> Self {
        Self::begin_as(node, meta())
    }

    fn begin_as(node: &Node, meta: SessionMeta) -> Self {
        let mut session = Self::begin_without_words(node, meta);
        session.tap.pass(C2T, &Message::Open(ChannelType::Session));
        session.tap.pass(C2T, &stdin(&session.mark));
        session
    }

    /// With a channel that is armed, and nothing said on it.
    pub(crate) fn begin_without_words(node: &Node, meta: SessionMeta) -> Self {
        let control = Control::connect(&node.socket());
        assert_eq!(control.open(&meta, false), Some(Reply::Opened));
        let tap = control.arm(0);
        let mark = format!("{MARK}: {}", meta.session_id);
        Self { meta, control, tap, mark }
    }

    pub(crate) fn talk(&mut self, rounds: usize) {
        for round in 0..rounds {
            self.tap.pass(T2C, &stdout(&format!("round {round} ").repeat(1 + round * 37 % 400)));
            self.tap.pass(C2T, &stdin(&format!("{round}")));
        }
    }

    pub(crate) fn close(&self) {
        assert_eq!(self.control.close(Outcome::Completed), Some(Reply::Closed));
    }

    /// The next agent takes it up.
    pub(crate) fn resume(&mut self, node: &Node) {
        self.control = Control::connect(&node.socket());
        assert_eq!(self.control.open(&self.meta, true), Some(Reply::Opened));
    }
}

/// A session meets the trouble in its middle and ends while it lasts.
fn comes_through(mut place: Place, trouble: Trouble, is_killed: bool) {
    if matches!(trouble, Trouble::DownAtStart) {
        place.server.refuse_connections();
    }
    let mut agent = place.node.start();
    let mut session = Session::begin(&place.node);
    session.talk(40);
    wait_until("the agent has read what was said", || {
        place.is_in_spool(&session.mark) || place.is_stored(&session)
    });
    place.begin(trouble);
    // Once more: what was said before may be stored by now and gone from the spool.
    session.tap.pass(C2T, &stdin(&session.mark));
    session.talk(40);
    place.is_felt(trouble, &agent, &session);
    place.is_kept(&session);
    if is_killed {
        agent.kill();
        agent = place.node.start();
        session.resume(&place.node);
        session.talk(10);
    }
    session.close();
    if is_killed {
        // Once more, with nothing left but what is in the spool.
        agent.kill();
        agent = place.node.start();
    }
    place.server.count_anew();
    if trouble.is_survived() {
        place.completes(&session);
    } else {
        place.is_felt(trouble, &agent, &session);
        assert!(!place.is_complete(session.meta.session_id), "{trouble:?}: not while it lasts");
        assert!(place.is_in_spool(&session.mark), "{trouble:?}: nothing acknowledged, nothing deleted");
    }
    place.end(trouble);
    place.completes(&session);
    let mut next = Session::begin(&place.node);
    wait_until("the spool gives its room back as files are rotated", || {
        next.talk(20);
        !place.is_in_spool(&session.mark)
    });
    next.close();
    place.completes(&next);
    assert_eq!(place.server.not_allowed(), [""; 0], "{trouble:?}");
    let log = agent.log();
    for secret in [MARK, crate::server::SECRET_KEY, "Signature="] {
        assert!(!log.contains(secret), "{trouble:?}: {secret:?} is in the log");
    }
    agent.stop();
}

/// One session's directory fails, and nothing else does.
fn holds_up_no_other(place: &Place, fault: Fault) {
    let agent = place.node.start();
    let mut poisoned = Session::begin(&place.node);
    place.server.fail(Some(fault), Some(&poisoned.meta.session_id.to_string()));
    poisoned.talk(20);
    poisoned.close();
    place.is_felt(Trouble::Failing(fault), &agent, &poisoned);
    for _ in 0..5 {
        let mut other = Session::begin(&place.node);
        other.talk(20);
        other.close();
        place.completes(&other);
    }
    assert!(!place.is_complete(poisoned.meta.session_id), "{fault:?}");
    place.server.fail(None, None);
    place.completes(&poisoned);
}

/// Runs rows, a few at a time: most of it is waiting for pauses to end.
fn each<T: Copy + Debug + Send + Sync>(rows: &[T], run: impl Fn(T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    eprintln!("{row:?}");
                    run(*row);
                }
            });
        }
    });
}

#[test]
fn whatever_the_store_does_every_byte_is_in_the_bucket_in_the_end() {
    each(&TROUBLES, |trouble| comes_through(Place::new(), trouble, false));
}

#[test]
fn whatever_the_store_does_an_agent_that_is_killed_meanwhile_loses_nothing() {
    each(&TROUBLES, |trouble| comes_through(Place::new(), trouble, true));
}

#[test]
fn a_session_whose_directory_always_fails_holds_up_no_other() {
    each(&POISONS, |fault| holds_up_no_other(&Place::new(), fault));
}

#[test]
fn whatever_happens_before_moto_every_byte_is_in_its_bucket_in_the_end() {
    let moto = Moto::start();
    each(&TROUBLES, |trouble| comes_through(Place::before(&moto), trouble, false));
    each(&POISONS, |fault| holds_up_no_other(&Place::before(&moto), fault));
}

#[test]
fn whatever_happens_before_moto_an_agent_that_is_killed_meanwhile_loses_nothing() {
    let moto = Moto::start();
    each(&TROUBLES, |trouble| comes_through(Place::before(&moto), trouble, true));
}

#[test]
fn evidence_in_conflict_stays_in_the_spool_and_holds_up_no_other_session() {
    let place = Place::new();
    let agent = place.node.start();
    let meta = meta();
    let dirs = places_to_be(&place.node, meta.session_id);
    let objects: Vec<_> = dirs.into_iter().map(|dir| dir.join("000001.ndjson.zst")).collect();
    for object in &objects {
        fs::create_dir_all(object.parent().expect("a directory")).expect("writable");
        fs::write(object, b"somebody else's").expect("writable");
    }
    let mut session = Session::begin_as(&place.node, meta);
    session.talk(20);
    session.close();
    let line = agent.wait_for_log("evidence conflicts");
    assert!(line.contains(&session.meta.session_id.to_string()), "{line}");
    let mut other = Session::begin(&place.node);
    other.talk(20);
    other.close();
    place.completes(&other);
    for object in &objects {
        assert_eq!(fs::read(object).expect("is there"), b"somebody else's");
    }
    assert!(place.is_in_spool(&session.mark));
    // Once somebody has looked at it and moved it away, the session is completed.
    objects.iter().for_each(|object| fs::remove_file(object).expect("removable"));
    place.completes(&session);
}

#[test]
fn not_even_a_log_of_everything_holds_what_was_said_or_signed() {
    let mut place = Place::new();
    place.node.environment(&[("WEIR_LOG", "trace")]);
    let agent = place.node.start();
    let mut session = Session::begin(&place.node);
    session.talk(3);
    session.close();
    place.completes(&session);
    let log = agent.log();
    assert!(log.contains("aws_"), "what is below the store logs, too");
    for secret in [MARK, crate::server::SECRET_KEY, "Signature=", "x-amz-content-sha256:"] {
        assert!(!log.contains(secret), "{secret:?} is in the log");
    }
}
