//! A session's share of the spool: one that has used it up is paused, alone, until enough of it is stored.
//!
//! Owns which sessions are paused. What is paused follows from the spool's content, so an agent that starts anew
//! comes to the same. A freeze wins: a tap that is frozen stays so whatever is set here. How far a session can pass
//! its share is bounded: by what of it is in the ring when it is paused.
//!
//! What counts is what a session takes of the space, which may be more than it has said: a session that cannot be stored and
//! says a word now and then keeps whole files, with everything of others in them. One that keeps half its share like that
//! is stored at once, so that a pause meets those only that cannot be. While the store does not answer, and shortly after, that
//! would be everybody: then what a session has said counts, and no more.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::{info, warn};
use weir_common::{recording::GapCause, session::SessionId};

use super::Core;
use crate::{
    clock,
    session::Session,
    tap::{TapError, TapState},
};

/// A paused session goes on when it is below this part of its share, in quarters.
const RESUME_QUARTERS: u64 = 3;

/// A store that is back has so many times as long as it was away for what has gathered meanwhile.
const SETTLING_TIMES: u32 = 2;
/// And no longer than this.
const SETTLING_MAX: Duration = Duration::from_secs(120);

/// When the store was seen not to answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Away {
    /// Of the outage that was seen last.
    since: Timestamp,
    began: Instant,
    last: Instant,
}

impl Away {
    /// It does not answer now. An outage soon after another goes on where that was.
    fn seen(before: Option<Self>, since: Timestamp, now: Instant) -> Self {
        let goes_on = before.filter(|before| before.since == since || !before.is_settled(now));
        Self { since, began: goes_on.map_or(now, |before| before.began), last: now }
    }

    /// Whether whoever is not stored could have been since.
    fn is_settled(self, now: Instant) -> bool {
        let away = self.last.saturating_duration_since(self.began);
        now.saturating_duration_since(self.last) > (away * SETTLING_TIMES).min(SETTLING_MAX)
    }
}

impl Core {
    /// Pauses those of these sessions that have used up their share.
    pub(super) fn pause_greedy(&mut self, touched: &[SessionId]) {
        // With each file there is more that may be kept.
        if self.journal.active_file() != self.weighed {
            self.weigh();
        }
        for &id in touched {
            let unsealed = self.taken_bytes(id);
            if unsealed > self.options.session_max_bytes && self.paused.insert(id) {
                warn!(session = %id, unsealed, "the session has used up its share of the spool; it is paused");
                self.causes.begin(GapCause::SessionQuota, Some(id), clock::boot_ns());
                self.set_taps(id);
            }
        }
    }

    /// Lets those go on of which enough is stored.
    pub(super) fn resume_paused(&mut self) {
        let below = self.options.session_max_bytes / 4 * RESUME_QUARTERS;
        let resumed: Vec<_> =
            self.paused.iter().copied().filter(|&id| self.taken_bytes(id) < below).collect();
        for id in resumed {
            self.paused.remove(&id);
            self.causes.end(GapCause::SessionQuota, Some(id), clock::boot_ns());
            if self.journal.ledger().session(id).is_some_and(|session| session.end().is_none()) {
                info!(session = %id, "enough of the session is stored; it goes on");
                self.set_taps(id);
            }
        }
    }

    /// Looks at what of the space each session keeps. Nobody can keep too much of a spool that has little.
    pub(super) fn weigh(&mut self) {
        let may_be_much = self.journal.spool_bytes() > self.options.session_max_bytes / 2;
        self.weighed = self.journal.active_file();
        if let Some(outage) = &*self.options.outage.borrow() {
            self.away = Some(Away::seen(self.away, outage.since, Instant::now()));
        }
        self.kept = if may_be_much { self.journal.kept_bytes() } else { HashMap::new() };
    }

    /// Whether it keeps so much, for what it has said, that it is to be stored whatever its age.
    pub(super) fn keeps_much(&self, id: SessionId) -> bool {
        self.kept.get(&id).is_some_and(|&kept| kept > self.options.session_max_bytes / 2)
    }

    /// What the session takes of the space: its unsealed records, or what it keeps, as it was looked at last.
    fn taken_bytes(&self, id: SessionId) -> u64 {
        let Some(session) = self.journal.ledger().session(id) else { return 0 };
        let kept = self.kept.get(&id).filter(|_| self.is_store_settled());
        session.unsealed_bytes().max(kept.copied().unwrap_or(0))
    }

    /// Whether the store has answered for long enough that whoever is not stored could have been.
    fn is_store_settled(&self) -> bool {
        self.away.is_none_or(|away| away.is_settled(Instant::now())) && self.options.outage.borrow().is_none()
    }

    /// Has the kernel do with every session's taps what is due: the agent before may have been killed in between.
    pub(super) fn take_up_pauses(&mut self, live: &[SessionId]) {
        self.weigh();
        self.pause_greedy(live);
        for &id in live.iter().filter(|&id| !self.paused.contains(id)).collect::<Vec<_>>() {
            self.set_taps(id);
        }
    }

    /// What the kernel is to do with a tap of this session.
    pub(super) fn tap_state(&self, id: SessionId) -> TapState {
        let policy = self.journal.ledger().session(id).map(|session| session.meta().capture_policy);
        let policy = policy.unwrap_or_default();
        if self.paused.contains(&id) { TapState::over_quota(policy) } else { TapState::recording(policy) }
    }

    fn set_taps(&mut self, id: SessionId) {
        let state = self.tap_state(id);
        let session = self.journal.ledger().session(id);
        let sockets: Vec<_> = session.into_iter().flat_map(Session::armed_sockets).collect();
        for (cookie, channel, _) in sockets {
            match self.taps.set_state(cookie, state) {
                // The agent before was killed while it armed or disarmed it; nothing passes it.
                Ok(()) | Err(TapError::UnknownTap { .. }) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(session = %id, %channel, error, "cannot change a tap's state");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_back_has_twice_as_long_as_it_was_away_and_two_minutes_at_most() {
        let (began, since) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let at = |ms| began + Duration::from_millis(ms);
        let seen = |times: &[u64]| {
            times.iter().fold(None, |before, &ms| Some(Away::seen(before, since, at(ms)))).expect("some")
        };
        let short = seen(&[0, 100, 200, 300]);
        assert!(!short.is_settled(at(900)) && short.is_settled(at(901)));
        let long = seen(&[0, 3_600_000]);
        assert!(!long.is_settled(at(3_720_000)) && long.is_settled(at(3_720_001)));
    }

    #[test]
    fn an_outage_soon_after_another_goes_on_and_a_later_one_is_another() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let first = Away { since: Timestamp::UNIX_EPOCH, began, last: at(100) };
        for (ms, expected) in [(250, began), (301, at(301))] {
            assert_eq!(Away::seen(Some(first), Timestamp::MAX, at(ms)).began, expected);
        }
    }
}
