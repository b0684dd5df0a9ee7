//! Which session is in which lane: the one thing that lanes know of each other, besides their space.
//!
//! Owns that a session is in one lane for life, and the bounds of all sessions together: of those that are open, and of those
//! that have ended and wait for the store. These take memory and space, and nothing of what an open one needs; while the
//! store is away they are many, and no reason to refuse a new one for as long as there is space.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use weir_common::session::SessionId;

/// A lane's number, in the order in which they were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneNo(pub usize);

/// How many sessions there may be, in all lanes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Open ones.
    pub open: usize,
    /// That have ended and are not stored yet. A session may end past it, and none begins.
    pub unstored: usize,
}

/// The sessions of all lanes.
#[derive(Debug)]
pub struct Roster {
    limits: SessionLimits,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    open: HashMap<SessionId, LaneNo>,
    ended: HashMap<SessionId, LaneNo>,
}

/// Why a session is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// There are as many as there may be.
    #[error("the agent records {max} sessions already")]
    Full {
        /// How many.
        max: usize,
    },
    /// As many as may have ended and are not stored.
    #[error(
        "{max} sessions that have ended are not stored yet, and none may begin before the store has taken some"
    )]
    Unstored {
        /// How many.
        max: usize,
    },
    /// A lane has it.
    #[error("session {session} is registered already")]
    Known {
        /// The session.
        session: SessionId,
    },
}

impl Roster {
    /// An empty one for at most so many sessions.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self { limits, sessions: Mutex::default() }
    }

    /// A new session begins in this lane.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn take(&self, session: SessionId, lane: LaneNo) -> Result<(), NotTaken> {
        let mut sessions = self.sessions();
        if sessions.lane_of(session).is_some() {
            return Err(NotTaken::Known { session });
        }
        let SessionLimits { open, unstored } = self.limits;
        if sessions.open.len() >= open {
            return Err(NotTaken::Full { max: open });
        }
        if sessions.ended.len() >= unstored {
            return Err(NotTaken::Unstored { max: unstored });
        }
        sessions.open.insert(session, lane);
        Ok(())
    }

    /// A session of an agent before is in this lane, however many there are.
    pub fn found(&self, session: SessionId, lane: LaneNo) {
        self.sessions().open.insert(session, lane);
    }

    /// A session has ended. It stays until it is stored.
    pub fn ended(&self, session: SessionId) {
        let mut sessions = self.sessions();
        if let Some(lane) = sessions.open.remove(&session) {
            sessions.ended.insert(session, lane);
        }
    }

    /// A session is stored, or did not begin after all.
    pub fn leave(&self, session: SessionId) {
        let mut sessions = self.sessions();
        sessions.open.remove(&session);
        sessions.ended.remove(&session);
    }

    /// The lane that has it.
    #[must_use]
    pub fn lane_of(&self, session: SessionId) -> Option<LaneNo> {
        self.sessions().lane_of(session)
    }

    /// Of these lanes the one with the fewest open sessions, the first of several.
    pub fn fewest(&self, among: impl Iterator<Item = LaneNo>) -> Option<LaneNo> {
        let mut counts: Vec<_> = among.map(|lane| (lane, 0_usize)).collect();
        for lane in self.sessions().open.values() {
            if let Some((_, count)) = counts.iter_mut().find(|(other, _)| other == lane) {
                *count += 1;
            }
        }
        counts.into_iter().min_by_key(|&(_, count)| count).map(|(lane, _)| lane)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    fn lane_of(&self, session: SessionId) -> Option<LaneNo> {
        self.open.get(&session).or_else(|| self.ended.get(&session)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::session_id;

    fn roster(open: usize, unstored: usize) -> Roster {
        Roster::new(SessionLimits { open, unstored })
    }

    #[test]
    fn a_session_is_in_one_lane_and_all_lanes_have_one_bound() {
        let roster = roster(2, 2);
        let [one, two, three] = [1, 2, 3].map(session_id);
        assert_eq!(roster.take(one, LaneNo(0)), Ok(()));
        assert_eq!(roster.take(one, LaneNo(1)), Err(NotTaken::Known { session: one }));
        assert_eq!(roster.take(two, LaneNo(1)), Ok(()));
        assert_eq!(roster.take(three, LaneNo(1)), Err(NotTaken::Full { max: 2 }));
        roster.leave(one);
        assert_eq!((roster.take(three, LaneNo(1)), roster.lane_of(three)), (Ok(()), Some(LaneNo(1))));
        assert_eq!(roster.lane_of(one), None);
    }

    #[test]
    fn who_has_ended_takes_no_open_sessions_place_and_those_have_a_bound_of_their_own() {
        let roster = roster(1, 2);
        for number in 1..=2 {
            assert_eq!(roster.take(session_id(number), LaneNo(0)), Ok(()));
            roster.ended(session_id(number));
        }
        let [one, three] = [1, 3].map(session_id);
        assert_eq!(
            (roster.lane_of(one), roster.fewest([LaneNo(0)].into_iter())),
            (Some(LaneNo(0)), Some(LaneNo(0)))
        );
        assert_eq!(roster.take(one, LaneNo(1)), Err(NotTaken::Known { session: one }));
        assert_eq!(roster.take(three, LaneNo(0)), Err(NotTaken::Unstored { max: 2 }));
        roster.leave(one);
        assert_eq!((roster.take(three, LaneNo(0)), roster.lane_of(one)), (Ok(()), None));
    }

    #[test]
    fn a_new_session_goes_where_the_fewest_are_open() {
        let roster = roster(10, 10);
        let lanes = || [LaneNo(0), LaneNo(2)].into_iter();
        assert_eq!(roster.fewest(lanes()), Some(LaneNo(0)));
        roster.found(session_id(1), LaneNo(0));
        roster.found(session_id(2), LaneNo(1));
        assert_eq!(roster.fewest(lanes()), Some(LaneNo(2)));
        roster.found(session_id(3), LaneNo(2));
        assert_eq!(roster.fewest(lanes()), Some(LaneNo(0)));
        roster.ended(session_id(3));
        assert_eq!(roster.fewest(lanes()), Some(LaneNo(2)));
        assert_eq!(roster.fewest(std::iter::empty()), None);
    }
}
