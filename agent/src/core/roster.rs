//! Which session is in which lane: the one thing that lanes know of each other, besides their space.
//!
//! Owns that a session is in one lane for life, and the bound of all sessions together.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use weir_common::session::SessionId;

/// A lane's number, in the order in which they were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneNo(pub usize);

/// The sessions of all lanes.
#[derive(Debug)]
pub struct Roster {
    max_sessions: usize,
    sessions: Mutex<HashMap<SessionId, LaneNo>>,
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
    pub fn new(max_sessions: usize) -> Self {
        Self { max_sessions, sessions: Mutex::default() }
    }

    /// A new session begins in this lane.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn take(&self, session: SessionId, lane: LaneNo) -> Result<(), NotTaken> {
        let mut sessions = self.sessions();
        if sessions.contains_key(&session) {
            return Err(NotTaken::Known { session });
        }
        if sessions.len() >= self.max_sessions {
            return Err(NotTaken::Full { max: self.max_sessions });
        }
        sessions.insert(session, lane);
        Ok(())
    }

    /// A session of an agent before is in this lane, however many there are.
    pub fn found(&self, session: SessionId, lane: LaneNo) {
        self.sessions().insert(session, lane);
    }

    /// A session is stored, or did not begin after all.
    pub fn leave(&self, session: SessionId) {
        self.sessions().remove(&session);
    }

    /// The lane that has it.
    #[must_use]
    pub fn lane_of(&self, session: SessionId) -> Option<LaneNo> {
        self.sessions().get(&session).copied()
    }

    /// Of these lanes the one with the fewest sessions, the first of several.
    pub fn fewest(&self, among: impl Iterator<Item = LaneNo>) -> Option<LaneNo> {
        let mut counts: Vec<_> = among.map(|lane| (lane, 0_usize)).collect();
        for lane in self.sessions().values() {
            if let Some((_, count)) = counts.iter_mut().find(|(other, _)| other == lane) {
                *count += 1;
            }
        }
        counts.into_iter().min_by_key(|&(_, count)| count).map(|(lane, _)| lane)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, LaneNo>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::session_id;

    #[test]
    fn a_session_is_in_one_lane_and_all_lanes_have_one_bound() {
        let roster = Roster::new(2);
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
    fn a_new_session_goes_where_the_fewest_are() {
        let roster = Roster::new(10);
        let lanes = || [LaneNo(0), LaneNo(2)].into_iter();
        assert_eq!(roster.fewest(lanes()), Some(LaneNo(0)));
        roster.found(session_id(1), LaneNo(0));
        roster.found(session_id(2), LaneNo(1));
        assert_eq!(roster.fewest(lanes()), Some(LaneNo(2)));
        roster.found(session_id(3), LaneNo(2));
        assert_eq!(roster.fewest(lanes()), Some(LaneNo(0)));
        assert_eq!(roster.fewest(std::iter::empty()), None);
    }
}
