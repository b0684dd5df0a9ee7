//! The core: the one thread that owns ring, taps, spool and every session's state.
//!
//! Owns the order of things: a record is in the spool before its room in the ring is given back; a tap is in
//! the spool before it is armed; a session's end is in the spool before its proxy is told. Nothing here waits
//! for the store or for a peer. Not here: what records mean (`session`), bytes on the disk (`spool`), sockets
//! (`control`).

mod causes;
mod closing;
mod command;
mod disarming;
mod drain;
mod gaps;
mod observing;
mod quota;
mod requests;
mod roster;
mod sealing;
mod settling;
mod space;
mod start;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info};
use weir_common::{
    recording::{GapCause, Recorder},
    session::{ChannelNo, SessionId},
};

pub(crate) use self::command::stopping;
use self::{
    causes::Causes,
    closing::Closing,
    command::{Command, Inbox},
    disarming::Disarming,
    drain::Drained,
    observing::Watch,
    quota::Away,
    sealing::Line,
    settling::Positions,
};
pub use self::{
    command::{Ask, COMMANDS_MAX, ConnectionId, CoreHandle},
    roster::{LaneNo, NotTaken, Roster, SessionLimits},
};
use crate::{
    breaker::Outage,
    clock,
    journal::{Journal, JournalError},
    report::Reports,
    session::SealLimits,
    spool::FileNo,
    storing::{Done, Job},
    tap::{Ring, TapError, Taps},
};

/// How long records gather before they are drained together, while there is traffic.
const COALESCE: Duration = Duration::from_millis(1);
/// How often sessions are looked at for what is due by age.
const TICK: Duration = Duration::from_millis(100);
/// A look at all sessions that takes long is followed by so many times as long without one: the drain comes first.
const TICK_REST_TIMES: u32 = 10;
/// The most commands between two passes of the drain.
const PASS_COMMANDS: usize = 64;
/// The first pause after the spool could not be written; it doubles up to [`TICK`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const UNWRITABLE: &str = "the agent cannot record at the moment: its spool cannot be written";
const FULL: &str = "the agent cannot record at the moment: its spool is full";

/// What the core needs to know.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// The lane that it is the core of.
    pub lane: LaneNo,
    /// Whether it goes on when its last session is stored; else its ring and its spool are needed no more then.
    pub stays: bool,
    /// The sessions of all lanes.
    pub roster: Arc<Roster>,
    /// Past this many bytes that are not stored a session is paused.
    pub session_max_bytes: u64,
    /// When records become a segment.
    pub seal: SealLimits,
    /// How long a session waits for its proxy after the agent started.
    pub reattach_timeout: Duration,
    /// Who records.
    pub recorder: Recorder,
    /// Who is told of sessions, if anybody.
    pub reports: Option<Reports>,
    /// Whether the store answers.
    pub outage: watch::Receiver<Option<Outage>>,
}

/// Why the core cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The spool cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel side cannot be used.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Waiting for records failed.
    #[error("cannot wait for records: {source}")]
    Wait {
        /// Why not.
        source: io::Error,
    },
    /// The spool is not this ring's.
    #[error("the spool says that the ring was drained to {spooled}, and the ring has only got to {produced}")]
    RingBehind {
        /// The spool's position.
        spooled: u64,
        /// The ring's.
        produced: u64,
    },
}

/// The core.
pub struct Core {
    ring: Ring,
    taps: Taps,
    journal: Journal,
    options: CoreOptions,
    inbox: Inbox,
    jobs: mpsc::Sender<Job>,
    /// Which session a connection is about, be it in the store by now, and the other way round.
    connections: HashMap<ConnectionId, SessionId>,
    attached: HashMap<SessionId, ConnectionId>,
    /// Sessions whose proxy has not come back since the agent started.
    awaited: HashMap<SessionId, Instant>,
    closing: HashMap<SessionId, Closing>,
    disarming: HashMap<(SessionId, ChannelNo), Disarming>,
    /// Sessions that have used up their share of the spool.
    paused: HashSet<SessionId>,
    /// What sessions keep of the space, as it was when this file was begun, or at a tick since.
    kept: HashMap<SessionId, u64>,
    weighed: Option<FileNo>,
    /// When the store was last seen not to answer.
    away: Option<Away>,
    /// Sessions that wait for a job of theirs.
    line: Line,
    /// Sessions that a job is under way for.
    storing: HashSet<SessionId>,
    /// Up to where the spool was flushed when the line was last looked at.
    flushed: u64,
    /// Jobs that are done and not in the spool yet.
    done: VecDeque<Done>,
    /// Sessions whose grant is over: nothing passes their taps, and none is armed for them. The spool says so too, but
    /// for one that could not be noted yet.
    frozen: HashSet<SessionId>,
    causes: Causes,
    /// When the log may say again that messages passed unrecorded.
    next_gap_told: Option<Instant>,
    trouble: Option<Trouble>,
    /// Since when there has been no room for what is in the ring.
    stalled_since: Option<Instant>,
    /// Whether new sessions are refused for want of space.
    short: bool,
    next_tick: Instant,
    stopping: bool,
    watch: Watch,
}

/// Why a core ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop; the next agent goes on.
    Stopped,
    /// Everything of its lane is stored, and nothing will come after it.
    Done,
}

/// The spool cannot be written at the moment.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Instant,
    pause: Duration,
    /// Until then nothing else is tried.
    until: Instant,
}

impl Trouble {
    fn new(since: Instant, pause: Duration) -> Self {
        Self { since, pause, until: Instant::now() + pause }
    }
}

impl Core {
    /// Takes up where the agent before left off.
    ///
    /// # Errors
    /// [`CoreError`].
    pub fn new(
        ring: Ring,
        taps: Taps,
        journal: Journal,
        jobs: mpsc::Sender<Job>,
        options: CoreOptions,
    ) -> Result<(Self, CoreHandle), CoreError> {
        let (handle, inbox) = command::queue()?;
        journal.wake_when_flushed(Arc::clone(&inbox.wake));
        let lane = options.lane;
        let mut core = Self {
            ring,
            taps,
            journal,
            options,
            inbox,
            jobs,
            connections: HashMap::new(),
            attached: HashMap::new(),
            awaited: HashMap::new(),
            closing: HashMap::new(),
            disarming: HashMap::new(),
            paused: HashSet::new(),
            kept: HashMap::new(),
            weighed: None,
            away: None,
            line: Line::default(),
            storing: HashSet::new(),
            flushed: 0,
            done: VecDeque::new(),
            frozen: HashSet::new(),
            causes: Causes::new(clock::boot_ns()),
            next_gap_told: None,
            trouble: None,
            stalled_since: None,
            short: false,
            next_tick: Instant::now(),
            stopping: false,
            watch: Watch::new(lane),
        };
        core.take_up()?;
        core.begin_watch();
        Ok((core, handle))
    }

    /// Runs until it is told to stop, or is not needed any more.
    ///
    /// # Errors
    /// [`CoreError`] if it cannot go on.
    pub fn run(mut self) -> Result<Ended, CoreError> {
        loop {
            let more = self.take_commands();
            if self.stopping {
                self.drain_rest();
                return Ok(Ended::Stopped);
            }
            self.watch.pass(self.ring.producer_position().saturating_sub(self.ring.consumer_position()));
            let drained = self.drain();
            let now = Instant::now();
            self.watch.lane.alive(now);
            self.go_on_ending(now);
            if now >= self.next_tick {
                self.tick(now);
                self.next_tick = now + TICK.max(now.elapsed() * TICK_REST_TIMES);
                if self.is_done() {
                    self.watch.ended();
                    return Ok(Ended::Done);
                }
            }
            if !more {
                self.wait(drained, now)?;
            }
        }
    }

    /// Carries out a bounded number of commands and says whether there may be more.
    fn take_commands(&mut self) -> bool {
        // Reading resets the counter; an empty one says EAGAIN.
        let _ = self.inbox.wake.read();
        let mut left = PASS_COMMANDS;
        while left > 0
            && let Ok(command) = self.inbox.commands.try_recv()
        {
            left -= 1;
            match command {
                Command::Ask { connection, ask, reply } => self.answer(connection, ask, reply),
                Command::Disconnected { connection } if self.stopping => debug!(?connection, "gone"),
                Command::Disconnected { connection } => self.disconnected(connection),
                Command::Done(done) => self.done.push_back(done),
                Command::Stop => self.stopping = true,
            }
        }
        self.take_done();
        self.take_flushed();
        left == 0
    }

    /// Whether nothing of its lane is left, and nothing will come. Whoever has still a connection may ask once more.
    fn is_done(&self) -> bool {
        let stored = self.journal.ledger().sessions().len() == 0 && self.done.is_empty();
        !self.options.stays && stored && self.connections.is_empty()
    }

    /// What is due by time.
    fn tick(&mut self, now: Instant) {
        self.take_done();
        let missing = self.awaited.extract_if(|_, deadline| *deadline <= now).map(|(id, _)| id);
        for id in missing.collect::<Vec<_>>() {
            info!(session = %id, "the session's proxy has not come back; ending the session");
            self.lose(id);
        }
        self.weigh();
        self.schedule_all();
        self.resume_paused();
        self.reserve_for_notes();
        self.watch_space();
        let given_back = self.journal.give_back();
        if let Err(JournalError::Spool(error)) = given_back {
            error!(%error, "cannot give spool space back");
        }
        self.publish(now);
    }

    /// Disarms channels and ends sessions whose records are all drained.
    fn go_on_ending(&mut self, now: Instant) {
        let ring =
            Positions { consumed: self.ring.consumer_position(), produced: self.ring.producer_position() };
        if self.trouble.is_none_or(|trouble| now >= trouble.until) {
            self.go_on_disarming(now, ring);
            self.go_on_closing(now, ring);
        }
        if let Some(reason) = self.takes_nothing() {
            self.put_disarming_off(reason);
            self.put_closing_off(reason);
        }
    }

    /// Why the spool takes nothing, in words for the user, if it does not.
    fn takes_nothing(&self) -> Option<&'static str> {
        match (self.trouble, self.stalled_since) {
            (Some(_), _) => Some(UNWRITABLE),
            (None, Some(_)) => Some(FULL),
            (None, None) => None,
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, drained: Drained, now: Instant) -> Result<(), CoreError> {
        let tick = self.next_tick.saturating_duration_since(now);
        let (with_ring, longest) = match drained {
            Drained::More => return Ok(()),
            Drained::Some => (false, COALESCE),
            Drained::Nothing if self.closing.is_empty() && self.disarming.is_empty() => (true, tick),
            Drained::Nothing => (true, COALESCE),
            Drained::Blocked { pause } => (false, pause.min(tick)),
        };
        let mut fds = vec![PollFd::new(self.inbox.wake.as_fd(), PollFlags::POLLIN)];
        if with_ring {
            fds.push(PollFd::new(self.ring.as_fd(), PollFlags::POLLIN));
        }
        // Rounded up: poll counts in milliseconds, and 0 would spin.
        let millis = u16::try_from(longest.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(CoreError::Wait { source: errno.into() }),
        }
    }

    /// Notes whether a write to the spool went well, says so where that changed, and passes it on.
    fn noted<T>(&mut self, outcome: Result<T, JournalError>) -> Result<T, JournalError> {
        match (&outcome, self.trouble) {
            (Ok(_), Some(trouble)) => {
                let stalled = trouble.since.elapsed();
                info!(?stalled, "the spool can be written again");
                self.causes.end(GapCause::SpoolUnwritable, None, clock::boot_ns());
                self.trouble = None;
            }
            (Err(JournalError::Spool(error)), None) => {
                error!(%error, "the spool cannot be written; sessions stall until it can");
                self.trouble = Some(Trouble::new(Instant::now(), FIRST_PAUSE));
                self.causes.begin(GapCause::SpoolUnwritable, None, clock::boot_ns());
            }
            (Err(JournalError::Spool(_)), Some(trouble)) => {
                self.trouble = Some(Trouble::new(trouble.since, (trouble.pause * 2).min(TICK)));
            }
            (Err(error), _) => error!(%error, "a state change was refused"),
            (Ok(_), None) => {}
        }
        outcome
    }
}
