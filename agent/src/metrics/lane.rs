//! A ring and the core that drains it: what the core adds to and what it publishes.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{Seconds, Taking, as_gauge};

type Label = [(&'static str, String); 1];
type Labels = [(&'static str, String); 2];

/// The metrics of one ring and its core. Clones are the same.
#[derive(Clone, Debug)]
pub struct Lane(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    begun: Instant,
    /// Milliseconds from `begun` to the core's last pass.
    passed: AtomicU64,
    /// [`Taking`] as a number.
    taking: AtomicU64,
    pressure: Mutex<Pressure>,
    records: Counter,
    bytes: Counter,
    orphans: Counter,
    foreign: Counter,
    lag: Seconds,
    pass: Histogram,
    ring_capacity: Gauge,
    ring_used: Gauge,
    tossed: [Counter; 3],
    not_recorded: [Counter; 3],
    unrecorded: [Counter; 2],
    sessions: [Gauge; SESSION_STATES.len()],
    spool_state: [Gauge; Taking::ALL.len()],
    spool: Gauge,
    spool_limit: Gauge,
    disk_free: Gauge,
    oldest: Seconds,
    flushed_at: Seconds,
}

/// What a core publishes at a tick.
#[derive(Clone, Copy, Debug)]
pub struct LaneState {
    /// Bytes the ring has room for.
    pub ring_capacity: u64,
    /// The most bytes of it that were taken at once since the tick before.
    pub ring_used: u64,
    /// Bytes of the spool.
    pub spool: u64,
    /// The most bytes that records may take there.
    pub spool_limit: u64,
    /// Bytes that are free on the spool's disk, if the file system says so.
    pub disk_free: Option<u64>,
    /// Age of the oldest record that is in the spool and not in the store.
    pub oldest_unstored: Duration,
    /// The sessions.
    pub sessions: SessionCounts,
    /// What the spool takes.
    pub taking: Taking,
}

/// Sessions by state. A session is in one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Under way.
    pub open: u64,
    /// Under way, and nothing can pass at the moment, or nobody has come back to it.
    pub paused: u64,
    /// Under way, and what finds no room in the ring passes unrecorded, as its grant permits.
    pub unrecorded: u64,
    /// Its grant is over: nothing passes any more, and its proxy has not ended it yet.
    pub frozen: u64,
    /// Ending, and not all drained.
    pub closing: u64,
    /// Over, and not all in the store.
    pub storing: u64,
}

impl SessionCounts {
    /// In the order of [`SESSION_STATES`].
    fn by_state(self) -> [u64; SESSION_STATES.len()] {
        let Self { open, paused, unrecorded, frozen, closing, storing } = self;
        [open, paused, unrecorded, frozen, closing, storing]
    }
}

const SESSION_STATES: [&str; 6] = ["open", "paused", "unrecorded", "frozen", "closing", "storing"];

/// What was counted for a tap's direction and is no event of a recording. Always growing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tosses {
    /// Messages tossed: for want of room, frozen, of a size that taps do not pass.
    pub tossed: [u64; 3],
    /// Messages drained and not recorded: duplicates, out of sequence, no frames.
    pub not_recorded: [u64; 3],
    /// Messages and bytes that passed unrecorded.
    pub unrecorded: [u64; 2],
}

impl Tosses {
    /// What came since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        fn minus<const N: usize>(now: [u64; N], before: [u64; N]) -> [u64; N] {
            std::array::from_fn(|i| now[i].saturating_sub(before[i]))
        }
        let Self { tossed, not_recorded, unrecorded } = *self;
        Self {
            tossed: minus(tossed, before.tossed),
            not_recorded: minus(not_recorded, before.not_recorded),
            unrecorded: minus(unrecorded, before.unrecorded),
        }
    }
}

/// Whether a ring has been too full for what comes, and since when.
#[derive(Clone, Copy, Debug, Default)]
struct Pressure {
    /// Since when it has been nearly full again and again, and when it last was.
    full: Option<(Instant, Instant)>,
    /// When the last message was seen that found no room.
    no_room_at: Option<Instant>,
}

impl Pressure {
    /// Looks at the most that was taken at once since it was looked at before.
    fn see(&mut self, now: Instant, used: u64, capacity: u64) {
        let is_full = used.saturating_mul(RING_FULL_OF) > capacity.saturating_mul(RING_FULL_PARTS);
        match self.full {
            _ if is_full => self.full = Some((self.full.map_or(now, |(since, _)| since), now)),
            Some((_, last)) if now.saturating_duration_since(last) >= RING_RELIEF => self.full = None,
            _ => {}
        }
    }

    /// How long it has been nearly full while messages found no room.
    fn for_how_long(&self, now: Instant) -> Option<Duration> {
        let (since, _) = self.full?;
        self.no_room_at.filter(|&at| at >= since)?;
        Some(now.saturating_duration_since(since))
    }
}

impl Lane {
    /// The core makes a pass.
    pub fn alive(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.0.begun).as_millis();
        self.0.passed.store(u64::try_from(passed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long ago the core made its last pass.
    #[must_use]
    pub fn silent_for(&self, now: Instant) -> Duration {
        let passed = Duration::from_millis(self.0.passed.load(Ordering::Relaxed));
        now.saturating_duration_since(self.0.begun).saturating_sub(passed)
    }

    /// A pass brought this many records into the spool; it took so long.
    pub fn drained(&self, records: usize, bytes: u64, took: Duration) {
        self.0.records.inc_by(records as u64);
        self.0.bytes.inc_by(bytes);
        self.0.pass.observe(took.as_secs_f64());
    }

    /// Age of the oldest record that a pass found in the ring.
    pub fn lag(&self, age: Duration) {
        self.0.lag.set(age.as_secs_f64());
    }

    /// The ring had records of sockets that are no session's.
    pub fn orphans(&self, records: u64) {
        self.0.orphans.inc_by(records);
    }

    /// The ring had records that the agent's program did not write.
    pub fn foreign(&self, records: u64) {
        self.0.foreign.inc_by(records);
    }

    /// This came since it was looked at before.
    pub fn tosses(&self, news: &Tosses, now: Instant) {
        let Tosses { tossed, not_recorded, unrecorded } = news;
        let [full, ..] = tossed;
        if full + unrecorded[0] > 0 {
            self.pressure().no_room_at = Some(now);
        }
        let add = |counters: &[Counter], news: &[u64]| {
            for (counter, &news) in counters.iter().zip(news) {
                counter.inc_by(news);
            }
        };
        add(&self.0.tossed, tossed);
        add(&self.0.not_recorded, not_recorded);
        add(&self.0.unrecorded, unrecorded);
    }

    /// What the core sees at a tick.
    pub fn publish(&self, state: &LaneState, now: Instant) {
        let LaneState {
            ring_capacity,
            ring_used,
            spool,
            spool_limit,
            disk_free,
            oldest_unstored,
            sessions,
            taking,
        } = *state;
        let inner = &*self.0;
        inner.ring_capacity.set(as_gauge(ring_capacity));
        inner.ring_used.set(as_gauge(ring_used));
        if ring_used == 0 {
            inner.lag.set(0.0);
        }
        self.pressure().see(now, ring_used, ring_capacity);
        inner.spool.set(as_gauge(spool));
        inner.spool_limit.set(as_gauge(spool_limit));
        if let Some(free) = disk_free {
            inner.disk_free.set(as_gauge(free));
        }
        inner.oldest.set(oldest_unstored.as_secs_f64());
        for (gauge, count) in inner.sessions.iter().zip(sessions.by_state()) {
            gauge.set(as_gauge(count));
        }
        for (gauge, state) in inner.spool_state.iter().zip(Taking::ALL) {
            gauge.set(i64::from(state == taking));
        }
        inner.taking.store(taking as u64, Ordering::Relaxed);
    }

    /// Everything that had been appended to its spool by then is on the disk.
    pub fn flushed_until(&self, then: Instant) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.0.flushed_at.set(now.saturating_sub(then.elapsed()).as_secs_f64());
    }

    /// What its spool took at the last tick.
    #[must_use]
    pub fn taking(&self) -> Taking {
        Taking::from_number(self.0.taking.load(Ordering::Relaxed))
    }

    /// How long its ring has been nearly full, again and again, while messages found no room.
    #[must_use]
    pub fn overrun_for(&self, now: Instant) -> Duration {
        self.pressure().for_how_long(now).unwrap_or_default()
    }

    fn pressure(&self) -> MutexGuard<'_, Pressure> {
        self.0.pressure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All rings.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Mutex<Vec<(usize, Lane)>>,
    records: Family<Label, Counter>,
    bytes: Family<Label, Counter>,
    orphans: Family<Label, Counter>,
    foreign: Family<Label, Counter>,
    lag: Family<Label, Seconds>,
    pass: Family<Label, Histogram, fn() -> Histogram>,
    ring_capacity: Family<Label, Gauge>,
    ring_used: Family<Label, Gauge>,
    tossed: Family<Labels, Counter>,
    not_recorded: Family<Labels, Counter>,
    unrecorded: Family<Label, Counter>,
    unrecorded_bytes: Family<Label, Counter>,
    sessions: Family<Labels, Gauge>,
    spool_state: Family<Labels, Gauge>,
    spool: Family<Label, Gauge>,
    spool_limit: Family<Label, Gauge>,
    disk_free: Family<Label, Gauge>,
    oldest: Family<Label, Seconds>,
    flushed_at: Family<Label, Seconds>,
}

impl Lanes {
    pub(super) fn register(agent: &mut Registry) -> Self {
        let lanes = Self {
            lanes: Mutex::default(),
            records: Family::default(),
            bytes: Family::default(),
            orphans: Family::default(),
            foreign: Family::default(),
            lag: Family::default(),
            pass: Family::new_with_constructor(|| Histogram::new(PASS_SECONDS)),
            ring_capacity: Family::default(),
            ring_used: Family::default(),
            tossed: Family::default(),
            not_recorded: Family::default(),
            unrecorded: Family::default(),
            unrecorded_bytes: Family::default(),
            sessions: Family::default(),
            spool_state: Family::default(),
            spool: Family::default(),
            spool_limit: Family::default(),
            disk_free: Family::default(),
            oldest: Family::default(),
            flushed_at: Family::default(),
        };
        agent.register(
            "records_drained",
            "Records brought from the ring into the spool",
            lanes.records.clone(),
        );
        agent.register_with_unit(
            "drained",
            "Bytes of them, headers included",
            Unit::Bytes,
            lanes.bytes.clone(),
        );
        agent.register("orphans", "Records of sockets that belong to no session", lanes.orphans.clone());
        agent.register(
            "foreign_records",
            "Records that the agent's program did not write",
            lanes.foreign.clone(),
        );
        agent.register_with_unit(
            "drain_lag",
            "Age of the oldest record that the last pass found in the ring",
            Unit::Seconds,
            lanes.lag.clone(),
        );
        agent.register_with_unit(
            "drain_pass",
            "Time a pass of the drain took",
            Unit::Seconds,
            lanes.pass.clone(),
        );
        agent.register_with_unit(
            "ring_capacity",
            "Bytes the ring has room for",
            Unit::Bytes,
            lanes.ring_capacity.clone(),
        );
        agent.register_with_unit(
            "ring_used",
            "The most bytes of the ring that were taken at once since the tick before",
            Unit::Bytes,
            lanes.ring_used.clone(),
        );
        agent.register(
            "messages_tossed",
            "Messages that the kernel did not pass, by cause",
            lanes.tossed.clone(),
        );
        agent.register(
            "messages_not_recorded",
            "Messages that were drained and are no event, by cause",
            lanes.not_recorded.clone(),
        );
        agent.register(
            "messages_passed_unrecorded",
            "Messages that passed unrecorded, as a grant permits",
            lanes.unrecorded.clone(),
        );
        agent.register_with_unit(
            "passed_unrecorded",
            "Bytes of them",
            Unit::Bytes,
            lanes.unrecorded_bytes.clone(),
        );
        agent.register("sessions", "Sessions now, by state", lanes.sessions.clone());
        agent.register(
            "spool_state",
            "1 for the state of the ring's spool, 0 for the others",
            lanes.spool_state.clone(),
        );
        agent.register_with_unit(
            "spool_disk_free",
            "Bytes free on the spool's disk",
            Unit::Bytes,
            lanes.disk_free.clone(),
        );
        agent.register_with_unit("spool", "Bytes of the spool", Unit::Bytes, lanes.spool.clone());
        agent.register_with_unit(
            "spool_limit",
            "The most bytes that records may take in the spool",
            Unit::Bytes,
            lanes.spool_limit.clone(),
        );
        agent.register_with_unit(
            "oldest_unstored",
            "Age of the oldest record that is not in the store",
            Unit::Seconds,
            lanes.oldest.clone(),
        );
        agent.register_with_unit(
            "last_flush_timestamp",
            "Everything appended to the spool by then is on the disk, Unix time",
            Unit::Seconds,
            lanes.flushed_at.clone(),
        );
        lanes
    }

    /// The lane of this ring; its series are there from now on.
    pub(super) fn lane(&self, ring: usize) -> Lane {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, lane)) = lanes.iter().find(|(number, _)| *number == ring) {
            return lane.clone();
        }
        let one = label(ring);
        let two = |name, value| labels(ring, name, value);
        let lane = Lane(Arc::new(Inner {
            begun: Instant::now(),
            passed: AtomicU64::new(0),
            taking: AtomicU64::new(Taking::Everything as u64),
            pressure: Mutex::default(),
            records: self.records.get_or_create_owned(&one),
            bytes: self.bytes.get_or_create_owned(&one),
            orphans: self.orphans.get_or_create_owned(&one),
            foreign: self.foreign.get_or_create_owned(&one),
            lag: self.lag.get_or_create_owned(&one),
            pass: self.pass.get_or_create_owned(&one),
            ring_capacity: self.ring_capacity.get_or_create_owned(&one),
            ring_used: self.ring_used.get_or_create_owned(&one),
            tossed: ["full", "frozen", "size"]
                .map(|cause| self.tossed.get_or_create_owned(&two("cause", cause))),
            not_recorded: ["duplicate", "out_of_sequence", "malformed"]
                .map(|cause| self.not_recorded.get_or_create_owned(&two("cause", cause))),
            unrecorded: [
                self.unrecorded.get_or_create_owned(&one),
                self.unrecorded_bytes.get_or_create_owned(&one),
            ],
            sessions: SESSION_STATES.map(|state| self.sessions.get_or_create_owned(&two("state", state))),
            spool_state: Taking::ALL
                .map(|taking| self.spool_state.get_or_create_owned(&two("state", taking.name()))),
            spool: self.spool.get_or_create_owned(&one),
            spool_limit: self.spool_limit.get_or_create_owned(&one),
            disk_free: self.disk_free.get_or_create_owned(&one),
            oldest: self.oldest.get_or_create_owned(&one),
            flushed_at: self.flushed_at.get_or_create_owned(&one),
        }));
        lanes.push((ring, lane.clone()));
        lane
    }

    /// The core of this ring has ended, since everything of its lane is stored. What was counted stays; there is nothing any
    /// more that a gauge could tell, and what it told last would be taken for the present.
    pub(super) fn ended(&self, ring: usize) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|(number, _)| *number != ring);
        let one = label(ring);
        for gauges in [&self.ring_capacity, &self.ring_used, &self.spool, &self.spool_limit, &self.disk_free]
        {
            gauges.remove(&one);
        }
        for gauges in [&self.lag, &self.oldest, &self.flushed_at] {
            gauges.remove(&one);
        }
        for state in SESSION_STATES {
            self.sessions.remove(&labels(ring, "state", state));
        }
        for taking in Taking::ALL {
            self.spool_state.remove(&labels(ring, "state", taking.name()));
        }
    }

    /// Those whose core runs.
    pub(super) fn all(&self) -> Vec<Lane> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.iter().map(|(_, lane)| lane.clone()).collect()
    }
}

fn label(ring: usize) -> Label {
    [("ring", ring.to_string())]
}

fn labels(ring: usize, name: &'static str, value: &str) -> Labels {
    [("ring", ring.to_string()), (name, value.to_owned())]
}

/// A ring counts as nearly full with more than nine tenths taken.
const RING_FULL_PARTS: u64 = 9;
const RING_FULL_OF: u64 = 10;
/// How long it must not have been nearly full to count as relieved.
const RING_RELIEF: Duration = Duration::from_secs(1);

/// A pass takes microseconds with a few records and some milliseconds at its bound; more is the disk.
const PASS_SECONDS: [f64; 10] = [0.000_05, 0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];
