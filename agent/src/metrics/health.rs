//! Whether the agent is alive, and whether new sessions should come to it: plain words for both.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Lane, Metrics};

/// How long a core may go without a pass before the agent counts as hanging. It makes one at least every 100 ms,
/// unless the disk holds it up.
pub const CORE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a ring may be nearly full and messages find no room before no new session should come. A burst is over sooner.
pub const RING_PATIENCE: Duration = Duration::from_secs(3);

/// What a core's spool takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Taking {
    /// There is room.
    Everything,
    /// What is under way goes on; nothing new begins.
    NothingNew,
    /// It is full: sessions stall.
    Full,
    /// It cannot be written: sessions stall.
    Unwritable,
}

/// What the agent knows of itself besides what its cores publish.
#[derive(Debug, Default)]
pub struct Health {
    started: AtomicBool,
    stopping: AtomicBool,
    store: Mutex<StoreHealth>,
}

/// Since when the store fails, by who says so.
#[derive(Debug, Default)]
struct StoreHealth {
    /// What was to be stored: the breaker's outage.
    outage: Option<Instant>,
    /// What was to be stored, in a way that may be an object's own: nothing was taken since.
    refused: Option<Instant>,
    /// A look at it.
    look: Option<Instant>,
    /// When it took what a look put there. That outdoes an outage that began before: what fails is a job of its own trouble,
    /// and nobody else has anything to store.
    taken: Option<Instant>,
    /// When it last took or gave something.
    worked: Option<Instant>,
}

impl StoreHealth {
    fn failing_since(&self) -> Option<Instant> {
        let Self { outage, refused, look, taken, worked: _ } = *self;
        let is_true = |since: &Instant| taken.is_none_or(|taken| taken < *since);
        outage.into_iter().chain(refused).filter(is_true).chain(look).min()
    }
}

impl Taking {
    pub(super) const ALL: [Self; 4] = [Self::Everything, Self::NothingNew, Self::Full, Self::Unwritable];

    pub(super) fn from_number(number: u64) -> Self {
        Self::ALL.into_iter().find(|taking| *taking as u64 == number).unwrap_or(Self::Unwritable)
    }

    /// The state of such a spool, as metrics have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Everything => "roomy",
            Self::NothingNew => "short",
            Self::Full => "full",
            Self::Unwritable => "unwritable",
        }
    }
}

impl Health {
    /// The control socket accepts.
    pub fn start(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The store does not answer those who have something to store, or does again.
    pub fn store_outage(&self, is_away: bool, now: Instant) {
        let mut store = self.store();
        store.outage = if is_away { store.outage.or(Some(now)) } else { None };
    }

    /// The store took something, or had it already.
    pub fn store_works(&self, now: Instant) {
        let mut store = self.store();
        (store.look, store.refused, store.worked) = (None, None, Some(now));
    }

    /// The store did not take something, for a reason that may be its own and not the object's.
    pub fn store_refuses(&self, now: Instant) {
        self.store().refused.get_or_insert(now);
    }

    /// A look at the store was in vain.
    pub fn store_look_fails(&self, now: Instant) {
        let mut store = self.store();
        store.look.get_or_insert(now);
        if let Some(taken) = store.taken.take() {
            // What began before it took something is forgotten: the patience begins anew.
            let anew = |since: Instant| if since <= taken { now } else { since };
            (store.outage, store.refused) = (store.outage.map(anew), store.refused.map(anew));
        }
    }

    /// A look at the store showed nothing that speaks against it. Unless it took something those who have something to store
    /// know better.
    pub fn store_looked_well(&self, has_taken: bool, now: Instant) {
        let mut store = self.store();
        store.look = None;
        if has_taken {
            store.taken = Some(now);
        }
    }

    /// Whether the store is not known to fail.
    pub(super) fn store_answers(&self) -> bool {
        self.store().failing_since().is_none()
    }

    /// How long ago the store last took something, if it ever did.
    #[must_use]
    pub fn store_idle_for(&self, now: Instant) -> Option<Duration> {
        self.store().worked.map(|worked| now.saturating_duration_since(worked))
    }

    /// Whether those who have something to store wait for the store.
    #[must_use]
    pub fn store_is_away(&self) -> bool {
        let store = self.store();
        store.outage.is_some() || store.refused.is_some()
    }

    fn store_failing_for(&self, now: Instant) -> Duration {
        let since = self.store().failing_since();
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn store(&self) -> MutexGuard<'_, StoreHealth> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metrics {
    /// Why the agent should be restarted, if it should.
    #[must_use]
    pub fn not_alive(&self, now: Instant) -> Option<String> {
        // While it starts there is nothing to pass yet, and a large spool takes its time.
        if !self.health.started.load(Ordering::Relaxed) || self.health.stopping.load(Ordering::Relaxed) {
            return None;
        }
        let longest = self.lanes.all().iter().map(|lane| lane.silent_for(now)).max()?;
        (longest > CORE_PATIENCE).then(|| format!("the core has made no pass for {} s", longest.as_secs()))
    }

    /// Why no new session should come here, if it should not. A store that fails is a reason after
    /// `store_patience`: until then the spool bridges it.
    #[must_use]
    pub fn not_ready(&self, now: Instant, store_patience: Duration) -> Option<String> {
        let health = &self.health;
        if health.stopping.load(Ordering::Relaxed) {
            return Some("stopping".to_owned());
        }
        if !health.started.load(Ordering::Relaxed) {
            return Some("starting: the spool is being read".to_owned());
        }
        if let Some(reason) = self.not_alive(now) {
            return Some(reason);
        }
        let worst = self.lanes.all().iter().map(Lane::taking).max_by_key(|taking| *taking as u64);
        match worst {
            Some(Taking::Unwritable) => {
                return Some("the spool cannot be written; sessions stall until it can".to_owned());
            }
            Some(Taking::Full) => {
                return Some("the spool is full; sessions stall until it has room".to_owned());
            }
            Some(Taking::NothingNew) => {
                return Some("the spool is nearly full; no new sessions begin".to_owned());
            }
            Some(Taking::Everything) | None => {}
        }
        let overrun = self.lanes.all().iter().map(|lane| lane.overrun_for(now)).max().unwrap_or_default();
        if overrun >= RING_PATIENCE {
            return Some(format!(
                "a ring has been full for {} s; sessions stall again and again",
                overrun.as_secs()
            ));
        }
        let failing = health.store_failing_for(now);
        (failing >= store_patience && !failing.is_zero()).then(|| {
            format!("the store has taken nothing for {} s; recordings wait in the spool", failing.as_secs())
        })
    }
}
