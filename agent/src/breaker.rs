//! Who tries the store while it does not answer, and when.
//!
//! Owns *one probe at a time*: from the first failure that is the store's until the next success, one job at a time
//! tries, after a growing, jittered pause; the others wait. Whoever has tried goes to the end of the line, so that a job
//! which only looks like an outage holds up nobody for long. The log hears of the beginning and of the end. Not here:
//! which failures are the store's (`storing`).

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tracing::{debug, info, warn};

/// Pauses between two tries.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// After the first failure; it doubles with each.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

/// The store does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When that was first noticed.
    pub since: Timestamp,
    /// What the last try said.
    pub error: String,
    /// How many tries have failed.
    pub failures: u64,
}

/// Says whose turn it is.
#[derive(Debug)]
pub struct Breaker {
    pauses: Pauses,
    outage: watch::Sender<Option<Outage>>,
    /// Whoever has it may probe. Tokio's semaphore is fair, which makes the waiting a line.
    probe: Semaphore,
    next: Mutex<Next>,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    began: Instant,
    pause: Duration,
    at: Instant,
}

/// A turn to try.
#[derive(Debug)]
pub struct Turn<'a> {
    breaker: &'a Breaker,
    probe: Option<SemaphorePermit<'a>>,
}

impl Breaker {
    /// A breaker of a store that answers, as far as is known.
    #[must_use]
    pub fn new(pauses: Pauses) -> Self {
        let now = Instant::now();
        Self {
            pauses,
            outage: watch::Sender::new(None),
            probe: Semaphore::new(1),
            next: Mutex::new(Next { began: now, pause: pauses.first, at: now }),
        }
    }

    /// Where to see whether the store answers, and since when it has not.
    #[must_use]
    pub fn outage(&self) -> watch::Receiver<Option<Outage>> {
        self.outage.subscribe()
    }

    /// Waits for a turn: at once while the store answers, else until it does or it is time for a probe.
    pub async fn turn(&self) -> Turn<'_> {
        let mut outage = self.outage.subscribe();
        if outage.borrow_and_update().is_none() {
            return Turn { breaker: self, probe: None };
        }
        tokio::select! {
            // The sender is `self`'s, so it is there.
            _ = outage.wait_for(Option::is_none) => Turn { breaker: self, probe: None },
            probe = self.wait_to_probe() => Turn { breaker: self, probe },
        }
    }

    async fn wait_to_probe(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.probe.acquire().await.ok();
        let at = self.next.lock().unwrap_or_else(PoisonError::into_inner).at;
        tokio::time::sleep_until(at.into()).await;
        permit
    }

    fn answered(&self) {
        let ended = self.outage.send_if_modified(|outage| outage.take().is_some());
        if ended {
            let began = self.next.lock().unwrap_or_else(PoisonError::into_inner).began;
            info!(outage = ?began.elapsed(), "the store answers again");
        }
    }

    fn failed(&self, error: &str, is_probe: bool) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut begins = false;
        self.outage.send_modify(|outage| {
            begins = outage.is_none();
            let known = outage.get_or_insert_with(|| Outage {
                since: Timestamp::now(),
                error: String::new(),
                failures: 0,
            });
            error.clone_into(&mut known.error);
            known.failures = known.failures.saturating_add(1);
        });
        let now = Instant::now();
        if begins {
            warn!(error, "the store does not answer; what is to be stored waits in the spool until it does");
            *next = Next { began: now, pause: self.pauses.first, at: now };
        } else if is_probe {
            next.pause = (next.pause * 2).min(self.pauses.longest);
        } else {
            // It was under way already when another one failed.
            return;
        }
        // Many nodes may have lost the same store at the same time.
        next.at = now + next.pause.mul_f64(rand::random_range(0.5..1.0));
        debug!(error, pause = ?next.pause, "the next probe of the store comes after a pause");
    }
}

impl Turn<'_> {
    /// Whether the store has begun not to answer since this turn was given. Then another one should be waited for.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.probe.is_none() && self.breaker.outage.borrow().is_some()
    }

    /// The store answered, whatever it said.
    pub fn answered(self) {
        self.breaker.answered();
    }

    /// It did not.
    pub fn failed(self, error: &str) {
        self.breaker.failed(error, self.probe.is_some());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    };

    use super::*;

    const SHORT: Pauses = Pauses { first: Duration::from_millis(2), longest: Duration::from_millis(8) };

    #[tokio::test]
    async fn while_the_store_fails_one_at_a_time_tries_and_everybody_gets_a_turn() {
        let breaker = Arc::new(Breaker::new(SHORT));
        let (up, tries, at_once) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        breaker.turn().await.failed("down");
        let job = || {
            let (breaker, up, tries, at_once) =
                (Arc::clone(&breaker), Arc::clone(&up), Arc::clone(&tries), Arc::clone(&at_once));
            tokio::spawn(async move {
                let mut own = 0_u32;
                loop {
                    let turn = breaker.turn().await;
                    if up.load(Ordering::SeqCst) {
                        turn.answered();
                        return own;
                    }
                    assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                    tokio::task::yield_now().await;
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    own += 1;
                    tries.fetch_add(1, Ordering::SeqCst);
                    turn.failed("down");
                }
            })
        };
        let jobs: Vec<_> = (0..5).map(|_| job()).collect();
        let mut outage = breaker.outage();
        outage
            .wait_for(|outage| outage.as_ref().is_some_and(|known| known.failures > 15))
            .await
            .expect("open");
        up.store(true, Ordering::SeqCst);
        for job in jobs {
            let own = job.await.expect("no panic");
            assert!((2..=5).contains(&own), "everybody has had a turn, and nobody many: {own}");
        }
        assert_eq!(*outage.borrow(), None);
    }

    #[tokio::test]
    async fn what_was_under_way_when_the_store_failed_does_not_lengthen_the_pause() {
        let breaker = Breaker::new(SHORT);
        let (first, second) = (breaker.turn().await, breaker.turn().await);
        first.failed("refused");
        let before = *breaker.next.lock().expect("no panic");
        assert!(second.is_stale());
        second.failed("timed out");
        let after = *breaker.next.lock().expect("no panic");
        assert_eq!((before.pause, before.at), (after.pause, after.at));
        let outage = breaker.outage().borrow().clone().expect("it fails");
        assert_eq!((outage.error.as_str(), outage.failures), ("timed out", 2));
        let probe = breaker.turn().await;
        assert!(!probe.is_stale());
        probe.failed("refused");
        assert_eq!(breaker.next.lock().expect("no panic").pause, SHORT.first * 2);
        breaker.turn().await.answered();
        assert_eq!(*breaker.outage().borrow(), None);
    }

    #[tokio::test]
    async fn a_probe_that_is_given_up_leaves_its_place_to_another() {
        let breaker = Breaker::new(SHORT);
        breaker.turn().await.failed("down");
        drop(breaker.turn().await);
        breaker.turn().await.answered();
    }
}
