//! Whether the agent is alive, and whether new sessions should come to it: plain words for both.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Lane, Metrics};

/// How long a core may go without a pass before the agent counts as hanging. It makes one at least every 100 ms,
/// unless the disk holds it up.
pub const CORE_PATIENCE: Duration = Duration::from_secs(5);

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
    store_failing_since: Mutex<Option<Instant>>,
}

impl Taking {
    pub(super) fn from_number(number: u64) -> Self {
        let all = [Self::Everything, Self::NothingNew, Self::Full];
        all.into_iter().find(|taking| *taking as u64 == number).unwrap_or(Self::Unwritable)
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

    /// The store took something.
    pub fn store_works(&self) {
        *self.store_failing_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The store did not take something, and not for what it was.
    pub fn store_fails(&self, now: Instant) {
        let mut since = self.store_failing_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert(now);
    }

    fn store_failing_for(&self, now: Instant) -> Duration {
        let since = self.store_failing_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
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
        let failing = health.store_failing_for(now);
        (failing >= store_patience && !failing.is_zero()).then(|| {
            format!("the store has taken nothing for {} s; recordings wait in the spool", failing.as_secs())
        })
    }
}
