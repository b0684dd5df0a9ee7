//! Who tries the store while it does not answer, and when.
//!
//! Owns *one probe at a time*: from the first failure that is the store's until the next success, one job at a time
//! tries, after a growing, jittered pause; the others wait. Whoever has tried goes to the end of the line, so that a job
//! which only looks like an outage holds up nobody for long. A job that fails, and again after the store has answered
//! somebody else, has a trouble of its own, whatever it looks like: it begins no outage any more, unless nobody was answered
//! for a good while. The log hears of the beginning and of the end. Not here: which failures look like the store's, and what
//! a job does about its own (`storing`).

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tracing::{debug, info, warn};

/// So many times the longest pause nobody must have been answered for a job's own trouble to count as the store's again.
const SILENCE_PAUSES: u32 = 2;

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
    /// How often the store has answered, and when it did last.
    answers: u64,
    answered: Instant,
}

/// What one job's failures say about whose they are.
#[derive(Debug, Default)]
pub struct Failures {
    /// How often the store had answered at the last one.
    answers: Option<u64>,
    /// It has answered others in between.
    are_own: bool,
}

/// Whose a failure is, as far as one can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Others would fail alike.
    Store,
    /// Others are answered.
    Job,
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
            next: Mutex::new(Next { began: now, pause: pauses.first, at: now, answers: 0, answered: now }),
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
        let began = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            (next.answers, next.answered) = (next.answers.wrapping_add(1), Instant::now());
            next.began
        };
        let ended = self.outage.send_if_modified(|outage| outage.take().is_some());
        if ended {
            info!(outage = ?began.elapsed(), "the store answers again");
        }
    }

    fn failed(&self, error: &str, is_probe: bool, failures: &mut Failures) -> Whose {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let silence = self.pauses.longest * SILENCE_PAUSES;
        let whose = failures.one_more(next.answers, next.answered.elapsed() >= silence);
        if whose == Whose::Job && self.outage.borrow().is_none() {
            return whose;
        }
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
            *next = Next { began: now, pause: self.pauses.first, at: now, ..*next };
        } else if is_probe {
            next.pause = (next.pause * 2).min(self.pauses.longest);
        } else {
            // It was under way already when another one failed.
            return whose;
        }
        // Many nodes may have lost the same store at the same time.
        next.at = now + next.pause.mul_f64(rand::random_range(0.5..1.0));
        debug!(error, pause = ?next.pause, "the next probe of the store comes after a pause");
        whose
    }
}

impl Failures {
    /// It has failed once more, and the store had answered so often by then.
    fn one_more(&mut self, answers: u64, is_silent: bool) -> Whose {
        let before = self.answers.replace(answers);
        self.are_own |= before.is_some_and(|before| before != answers);
        if self.are_own && !is_silent { Whose::Job } else { Whose::Store }
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

    /// It did not, and this is what is known of the job's failures before.
    pub fn failed(self, error: &str, failures: &mut Failures) -> Whose {
        self.breaker.failed(error, self.probe.is_some(), failures)
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
        breaker.turn().await.failed("down", &mut Failures::default());
        let job = || {
            let (breaker, up, tries, at_once) =
                (Arc::clone(&breaker), Arc::clone(&up), Arc::clone(&tries), Arc::clone(&at_once));
            tokio::spawn(async move {
                let (mut own, mut failures) = (0_u32, Failures::default());
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
                    assert_eq!(turn.failed("down", &mut failures), Whose::Store);
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
        first.failed("refused", &mut Failures::default());
        let before = *breaker.next.lock().expect("no panic");
        assert!(second.is_stale());
        second.failed("timed out", &mut Failures::default());
        let after = *breaker.next.lock().expect("no panic");
        assert_eq!((before.pause, before.at), (after.pause, after.at));
        let outage = breaker.outage().borrow().clone().expect("it fails");
        assert_eq!((outage.error.as_str(), outage.failures), ("timed out", 2));
        let probe = breaker.turn().await;
        assert!(!probe.is_stale());
        probe.failed("refused", &mut Failures::default());
        assert_eq!(breaker.next.lock().expect("no panic").pause, SHORT.first * 2);
        breaker.turn().await.answered();
        assert_eq!(*breaker.outage().borrow(), None);
    }

    #[tokio::test]
    async fn a_probe_that_is_given_up_leaves_its_place_to_another() {
        let breaker = Breaker::new(SHORT);
        breaker.turn().await.failed("down", &mut Failures::default());
        drop(breaker.turn().await);
        breaker.turn().await.answered();
    }

    #[tokio::test]
    async fn who_fails_while_others_are_answered_begins_one_outage_and_no_other() {
        let breaker =
            Breaker::new(Pauses { first: Duration::from_millis(1), longest: Duration::from_secs(60) });
        let (mut poisoned, mut outages) = (Failures::default(), 0);
        for round in 0..100 {
            let whose = breaker.turn().await.failed("denied", &mut poisoned);
            assert_eq!(whose, if round == 0 { Whose::Store } else { Whose::Job });
            outages += u32::from(breaker.outage().borrow().is_some());
            breaker.turn().await.answered();
        }
        assert_eq!(outages, 1);
        // What others meet is an outage, and then it counts as one try of many.
        breaker.turn().await.failed("down", &mut Failures::default());
        assert_eq!(breaker.turn().await.failed("denied", &mut poisoned), Whose::Job);
        assert_eq!(breaker.outage().borrow().as_ref().map(|outage| outage.failures), Some(2));
    }

    #[tokio::test]
    async fn when_nobody_is_answered_any_more_a_jobs_own_trouble_is_the_stores() {
        let breaker = Breaker::new(SHORT);
        let mut failures = Failures { answers: Some(0), are_own: true };
        breaker.turn().await.answered();
        let silent = SHORT.longest * SILENCE_PAUSES;
        let whose = loop {
            let began = Instant::now();
            let whose = breaker.turn().await.failed("down", &mut failures);
            if whose == Whose::Store {
                break whose;
            }
            assert!(began.elapsed() < silent * 1000, "it never is");
            tokio::task::yield_now().await;
        };
        assert_eq!(whose, Whose::Store);
        assert!(breaker.outage().borrow().is_some());
    }
}
