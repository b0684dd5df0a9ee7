//! Which sessions may be stored: those of which a power cut takes nothing back that stored objects follow from.
//!
//! A segment follows from the entries before its `seal_started`, that one included; a manifest from its session's `closed`
//! as well. If one of them were lost after an object had gone, the next agent would make another object for the same place,
//! and could never store it. So both wait for the flush that comes anyway. `sealed` needs no such care: who does not find
//! it makes the same segment again.
//!
//! A disk that takes nothing for [`PATIENCE`] is no place to wait in: then the store is the safer one.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use weir_common::session::SessionId;

use crate::ledger::StateEntry;

/// How long evidence waits for a spool that is not flushed when it is due to be.
const PATIENCE: Duration = Duration::from_secs(60);

/// What each session's next objects rest on.
#[derive(Debug)]
pub(super) struct Leaving {
    /// Everything that was in the spool when it was opened.
    found: Rest,
    /// The sessions of which more has been appended since.
    sessions: HashMap<SessionId, Rest>,
    patience: Duration,
}

/// The end of something in the spool.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// It is on the disk when this is flushed.
    marker: u64,
    since: Instant,
}

impl Leaving {
    /// With everything in the spool so far up to this marker.
    pub(super) fn new(marker: u64, flush_interval: Duration) -> Self {
        let found = Rest { marker, since: Instant::now() };
        Self { found, sessions: HashMap::new(), patience: PATIENCE + flush_interval }
    }

    /// A change was appended; the marker lies behind it.
    pub(super) fn appended(&mut self, change: &StateEntry, marker: u64) {
        match change {
            StateEntry::SealStarted { session, .. } | StateEntry::Closed { session, .. } => {
                self.sessions.insert(*session, Rest { marker, since: Instant::now() });
            }
            StateEntry::Finished { session } => drop(self.sessions.remove(session)),
            StateEntry::RingAdopted { .. }
            | StateEntry::RecordsLost
            | StateEntry::Opened { .. }
            | StateEntry::Connected { .. }
            | StateEntry::Armed { .. }
            | StateEntry::ArmFailed { .. }
            | StateEntry::Disarmed { .. }
            | StateEntry::Sealed { .. }
            | StateEntry::Frozen { .. } => {}
        }
    }

    /// Whether what is begun of the session may be stored, when everything up to `flushed` is on the disk.
    pub(super) fn may_leave(&self, session: SessionId, flushed: u64, now: Instant) -> bool {
        let Rest { marker, since } = *self.sessions.get(&session).unwrap_or(&self.found);
        flushed >= marker || now.saturating_duration_since(since) >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{closed, session_id};

    #[test]
    fn what_is_not_flushed_stays_until_it_is_or_the_disk_has_taken_nothing_for_too_long() {
        let interval = Duration::from_secs(2);
        let mut leaving = Leaving::new(5, interval);
        leaving.appended(&closed(1), 8);
        let (one, other, now) = (session_id(1), session_id(2), Instant::now());
        let may = |flushed, now| [one, other].map(|id| leaving.may_leave(id, flushed, now));
        assert_eq!(may(4, now), [false, false], "what was found may not be on the disk either");
        assert_eq!(may(5, now), [false, true]);
        assert_eq!(may(8, now), [true, true]);
        let patient = now + PATIENCE;
        assert_eq!(may(4, patient), [false, false]);
        assert_eq!(may(4, patient + interval), [true, true]);
    }
}
