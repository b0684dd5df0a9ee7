//! The core: the one thread that owns ring, taps, spool and every session's state.
//!
//! Owns the order of things: a record is in the spool before its room in the ring is given back; a tap is in
//! the spool before it is armed; a session's end is in the spool before its proxy is told. Nothing here waits
//! for the store or for a peer. Not here: what records mean (`session`), bytes on the disk (`spool`), sockets
//! (`control`).

mod closing;
mod command;
mod disarming;
mod drain;
mod observing;
mod requests;
mod sealing;
mod settling;
mod start;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::sync::mpsc;
use tracing::{debug, error, info};
use weir_common::{
    recording::Recorder,
    session::{ChannelNo, SessionId},
};

pub use self::command::{Ask, COMMANDS_MAX, ConnectionId, CoreHandle};
use self::{
    closing::Closing,
    command::{Command, Inbox},
    disarming::Disarming,
    drain::Drained,
    observing::Watch,
    settling::Positions,
};
use crate::{
    journal::{Journal, JournalError},
    report::Reports,
    session::{SealLimits, Session},
    storing::{Done, Job},
    tap::{Ring, TapError, Taps},
};

/// How long records gather before they are drained together, while there is traffic.
const COALESCE: Duration = Duration::from_millis(1);
/// How often sessions are looked at for what is due by age.
const TICK: Duration = Duration::from_millis(100);
/// The most commands between two passes of the drain.
const PASS_COMMANDS: usize = 64;
/// The first pause after the spool could not be written; it doubles up to [`TICK`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const UNWRITABLE: &str = "the agent cannot record at the moment: its spool cannot be written";
const FULL: &str = "the agent cannot record at the moment: its spool is full";

/// What the core needs to know.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// The most sessions that are open or not stored yet.
    pub max_sessions: usize,
    /// When records become a segment.
    pub seal: SealLimits,
    /// How long a session waits for its proxy after the agent started.
    pub reattach_timeout: Duration,
    /// Who records.
    pub recorder: Recorder,
    /// Who is told of sessions, if anybody.
    pub reports: Option<Reports>,
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
    /// Sessions that a job is under way for.
    storing: HashSet<SessionId>,
    /// Jobs that are done and not in the spool yet.
    done: VecDeque<Done>,
    trouble: Option<Trouble>,
    /// Since when there has been no room for what is in the ring.
    stalled_since: Option<Instant>,
    next_tick: Instant,
    stopping: bool,
    watch: Watch,
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
            storing: HashSet::new(),
            done: VecDeque::new(),
            trouble: None,
            stalled_since: None,
            next_tick: Instant::now(),
            stopping: false,
            watch: Watch::new(0),
        };
        core.take_up()?;
        core.begin_watch();
        Ok((core, handle))
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// [`CoreError`] if it cannot go on.
    pub fn run(mut self) -> Result<(), CoreError> {
        loop {
            let more = self.take_commands();
            if self.stopping {
                self.drain_rest();
                return Ok(());
            }
            let drained = self.drain();
            let now = Instant::now();
            self.watch.lane.alive(now);
            self.go_on_ending(now);
            if now >= self.next_tick {
                self.next_tick = now + TICK;
                self.tick(now);
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
        left == 0
    }

    /// What is due by time.
    fn tick(&mut self, now: Instant) {
        self.take_done();
        let missing = self.awaited.extract_if(|_, deadline| *deadline <= now).map(|(id, _)| id);
        for id in missing.collect::<Vec<_>>() {
            info!(session = %id, "the session's proxy has not come back; ending the session");
            self.lose(id);
        }
        let sessions: Vec<_> = self.journal.ledger().sessions().map(Session::id).collect();
        for id in sessions {
            self.schedule(id);
        }
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
                self.trouble = None;
            }
            (Err(JournalError::Spool(error)), None) => {
                error!(%error, "the spool cannot be written; sessions stall until it can");
                self.trouble = Some(Trouble::new(Instant::now(), FIRST_PAUSE));
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
