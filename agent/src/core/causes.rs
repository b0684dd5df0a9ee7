//! Why there was no room to record, at every moment since this agent started.
//!
//! The kernel knows that a message found no room and not why. The core knows what it was doing. Of the causes that held at
//! any time of a gap, the first of this list is told, since it makes the others likely:
//!
//! 1. no agent was running: the gap began before this one did;
//! 2. the spool or its disk was full;
//! 3. the spool could not be written;
//! 4. the session had used up its share;
//! 5. otherwise the ring was full, because the agent was too slow, or was stopped by somebody.
//!
//! Bounded: of causes that are over, the latest [`PAST_MAX`] are known.

use std::collections::VecDeque;

use weir_common::{recording::GapCause, session::SessionId};

/// The most causes that are over and still known. A gap is told when the room is back, so the latest ones are asked for.
const PAST_MAX: usize = 1024;
/// What wins where several held, behind that no agent was running.
const ORDER: [GapCause; 3] = [GapCause::SpoolFull, GapCause::SpoolUnwritable, GapCause::SessionQuota];

/// What the core was doing.
#[derive(Debug)]
pub(super) struct Causes {
    started_ns: u64,
    now: Vec<Held>,
    past: VecDeque<(Held, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    cause: GapCause,
    /// None if it is all sessions'.
    session: Option<SessionId>,
    since_ns: u64,
}

impl Causes {
    /// The agent starts. Times are kernel times since boot in nanoseconds.
    pub(super) fn new(started_ns: u64) -> Self {
        Self { started_ns, now: Vec::new(), past: VecDeque::new() }
    }

    /// From now on there is no room, for one session or for all. Nothing changes if that is known.
    pub(super) fn begin(&mut self, cause: GapCause, session: Option<SessionId>, since_ns: u64) {
        if !self.now.iter().any(|held| (held.cause, held.session) == (cause, session)) {
            self.now.push(Held { cause, session, since_ns });
        }
    }

    /// There is room again. Nothing changes if there was.
    pub(super) fn end(&mut self, cause: GapCause, session: Option<SessionId>, until_ns: u64) {
        let over = self.now.extract_if(.., |held| (held.cause, held.session) == (cause, session));
        self.past.extend(over.map(|held| (held, until_ns)));
        while self.past.len() > PAST_MAX {
            self.past.pop_front();
        }
    }

    /// Why there was no room for a session between these times.
    pub(super) fn of(&self, session: SessionId, since_ns: u64, until_ns: u64) -> GapCause {
        if since_ns < self.started_ns {
            return GapCause::AgentDown;
        }
        let past = self.past.iter().map(|&(held, until)| (held, until));
        let held: Vec<_> = past
            .chain(self.now.iter().map(|&held| (held, u64::MAX)))
            .filter(|(held, until)| held.since_ns <= until_ns && *until >= since_ns)
            .filter(|(held, _)| held.session.is_none_or(|other| other == session))
            .map(|(held, _)| held.cause)
            .collect();
        ORDER.into_iter().find(|cause| held.contains(cause)).unwrap_or(GapCause::RingFull)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::session_id;

    #[test]
    fn the_first_cause_of_the_order_that_held_during_the_gap_is_told() {
        let (one, other) = (session_id(1), session_id(2));
        let mut causes = Causes::new(100);
        causes.begin(GapCause::SpoolUnwritable, None, 200);
        causes.end(GapCause::SpoolUnwritable, None, 300);
        causes.begin(GapCause::SessionQuota, Some(one), 250);
        causes.begin(GapCause::SpoolFull, None, 400);
        causes.begin(GapCause::SpoolFull, None, 450);
        for (session, since, until, expected) in [
            (one, 50, 500, GapCause::AgentDown),
            (one, 150, 160, GapCause::RingFull),
            (one, 150, 220, GapCause::SpoolUnwritable),
            (one, 260, 270, GapCause::SpoolUnwritable),
            (one, 310, 320, GapCause::SessionQuota),
            (other, 310, 320, GapCause::RingFull),
            (one, 390, 410, GapCause::SpoolFull),
            (other, 900, 910, GapCause::SpoolFull),
        ] {
            assert_eq!(causes.of(session, since, until), expected, "{since}..{until}");
        }
        causes.end(GapCause::SpoolFull, None, 950);
        assert_eq!(causes.of(other, 960, 970), GapCause::RingFull);
    }

    #[test]
    fn what_is_over_is_forgotten_at_last() {
        let mut causes = Causes::new(0);
        for time in 0..2 * PAST_MAX as u64 {
            causes.begin(GapCause::SpoolFull, None, 2 * time);
            causes.end(GapCause::SpoolFull, None, 2 * time + 1);
        }
        assert_eq!(causes.past.len(), PAST_MAX);
    }
}
