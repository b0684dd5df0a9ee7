//! When which report is tried: no clock and no I/O, `now` is an argument.
//!
//! A report that failed waits, longer each time. While nothing succeeds there is a short pause for all as well, so that
//! a receiver that is down is not run over by a long queue; one report that always fails holds up no other, because
//! any success ends that pause. A receiver that says when to come back is taken at its word.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use super::queue::Key;

/// The pause of a report after its first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pause for all after the first failure in a row; it doubles with each.
const FIRST_PAUSE_OF_ALL: Duration = Duration::from_millis(50);
/// The longest.
const LONGEST_PAUSE_OF_ALL: Duration = Duration::from_secs(5);
/// The longest that a receiver may ask for (`Retry-After`).
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Which reports wait until when.
#[derive(Debug)]
pub(super) struct Schedule {
    due: BTreeSet<(Instant, Key)>,
    /// What is due or under way.
    known: HashSet<Key>,
    /// How often in a row each has failed.
    failures: HashMap<Key, u32>,
    /// How often in a row anything has.
    in_a_row: u32,
    not_before: Instant,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: BTreeSet::new(),
            known: HashSet::new(),
            failures: HashMap::new(),
            in_a_row: 0,
            not_before: now,
        }
    }

    /// A report is there, perhaps once more.
    pub(super) fn add(&mut self, key: Key, now: Instant) {
        if self.known.insert(key) {
            self.due.insert((now, key));
        }
    }

    /// The report to try now; it is under way then.
    pub(super) fn next(&mut self, now: Instant) -> Option<Key> {
        let due = self.due.first().filter(|(at, _)| *at <= now && self.not_before <= now);
        let due = due.copied()?;
        self.due.remove(&due);
        Some(due.1)
    }

    /// When there is something to try.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| (*at).max(self.not_before))
    }

    /// A report that was under way is delivered.
    pub(super) fn delivered(&mut self, key: Key, now: Instant) {
        self.in_a_row = 0;
        self.not_before = now;
        self.gone(key);
    }

    /// A report that was under way is not to be delivered any more.
    pub(super) fn gone(&mut self, key: Key) {
        self.known.remove(&key);
        self.failures.remove(&key);
    }

    /// A report that was under way was not delivered, and says how often in a row that was. `retry_after` is what the
    /// receiver asked for.
    pub(super) fn failed(&mut self, key: Key, now: Instant, retry_after: Option<Duration>) -> u32 {
        let retry_after = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        let failures = self.failures.entry(key).or_default();
        *failures = failures.saturating_add(1);
        let pause = growing(FIRST_PAUSE, *failures, LONGEST_PAUSE).max(retry_after);
        self.due.insert((now + pause, key));
        self.in_a_row = self.in_a_row.saturating_add(1);
        let pause = growing(FIRST_PAUSE_OF_ALL, self.in_a_row, LONGEST_PAUSE_OF_ALL).max(retry_after);
        self.not_before = self.not_before.max(now + pause);
        *failures
    }
}

/// `first` times two for every one of `times` but the first.
fn growing(first: Duration, times: u32, longest: Duration) -> Duration {
    let doubled = 2_u32.checked_pow(times.saturating_sub(1)).and_then(|by| first.checked_mul(by));
    doubled.unwrap_or(longest).min(longest)
}

#[cfg(test)]
mod tests {
    use weir_common::session::SessionId;

    use super::{super::queue::Kind, *};

    fn key() -> Key {
        Key { session: SessionId::generate(), kind: Kind::Stored }
    }

    #[test]
    fn a_report_that_fails_waits_longer_each_time_and_is_never_given_up() {
        let (mut now, bad) = (Instant::now(), key());
        let mut schedule = Schedule::new(now);
        schedule.add(bad, now);
        let mut before = Duration::ZERO;
        for times in 1..200 {
            assert_eq!(schedule.next(now), Some(bad));
            assert_eq!(schedule.next(now), None, "it is under way");
            assert_eq!(schedule.failed(bad, now, None), times);
            let wake = schedule.wake_at().expect("it is tried again");
            let pause = wake - now;
            assert!(pause >= before && pause <= LONGEST_PAUSE, "{pause:?} after {before:?}");
            (now, before) = (wake, pause);
        }
        assert_eq!(before, LONGEST_PAUSE);
    }

    #[test]
    fn a_bad_report_holds_no_other_up_for_longer_than_a_moment_and_not_at_all_once_one_is_delivered() {
        let (mut now, bad) = (Instant::now(), key());
        let mut schedule = Schedule::new(now);
        schedule.add(bad, now);
        for _ in 0..50 {
            now = now.max(schedule.wake_at().expect("due"));
            assert_eq!(schedule.next(now), Some(bad));
            schedule.failed(bad, now, None);
        }
        let (good, next) = (key(), key());
        schedule.add(good, now);
        schedule.add(next, now);
        assert_eq!(schedule.next(now), None, "a moment");
        now += LONGEST_PAUSE_OF_ALL;
        let first = schedule.next(now).expect("one of the two");
        assert!(first != bad);
        schedule.delivered(first, now);
        assert!(schedule.next(now).is_some_and(|second| second != bad && second != first));
    }

    #[test]
    fn a_receiver_that_says_when_to_come_back_is_taken_at_its_word_within_bounds() {
        let (now, [one, other]) = (Instant::now(), [key(), key()]);
        let mut schedule = Schedule::new(now);
        schedule.add(one, now);
        assert_eq!(schedule.next(now), Some(one));
        schedule.failed(one, now, Some(Duration::from_secs(120)));
        schedule.add(other, now);
        assert_eq!(schedule.next(now + Duration::from_secs(119)), None);
        assert_eq!(schedule.next(now + Duration::from_secs(120)), Some(other));
        schedule.failed(other, now, Some(Duration::MAX));
        assert!(schedule.wake_at().expect("due") <= now + RETRY_AFTER_MAX);
    }

    #[test]
    fn a_report_that_comes_again_while_it_is_under_way_is_not_tried_twice_at_a_time() {
        let (now, key) = (Instant::now(), key());
        let mut schedule = Schedule::new(now);
        schedule.add(key, now);
        schedule.add(key, now);
        assert_eq!((schedule.next(now), schedule.next(now)), (Some(key), None));
        schedule.add(key, now);
        assert_eq!(schedule.next(now), None);
        schedule.delivered(key, now);
        schedule.add(key, now);
        assert_eq!(schedule.next(now), Some(key));
    }
}
