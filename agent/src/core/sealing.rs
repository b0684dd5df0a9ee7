//! What is to be stored, and what has been.
//!
//! Owns fairness between sessions: those with something to store stand in one line, each once, in the order in
//! which it became due. Whoever was served stands at its end again. A session that cannot be stored holds its own
//! job and nobody else's place; nor does one whose segment was begun, or which was closed, and that is not flushed yet: it
//! stands in line again when it is.

use std::collections::{HashSet, VecDeque};

use tracing::{debug, info};
use weir_common::session::SessionId;

use super::Core;
use crate::{
    clock,
    journal::JournalError,
    ledger::StateEntry,
    metrics::metrics,
    session::{SealLimits, Session},
    storing::{Done, Job, Stored},
};

/// Sessions that have something to store, in the order in which they are served.
#[derive(Debug, Default)]
pub(super) struct Line {
    order: VecDeque<SessionId>,
    standing: HashSet<SessionId>,
}

impl Line {
    /// Puts it at the end, unless it stands in the line already.
    fn join(&mut self, id: SessionId) {
        if self.standing.insert(id) {
            self.order.push_back(id);
        }
    }

    /// Whether it stands in the line.
    fn has(&self, id: SessionId) -> bool {
        self.standing.contains(&id)
    }

    fn next(&mut self) -> Option<SessionId> {
        let id = self.order.pop_front()?;
        self.standing.remove(&id);
        Some(id)
    }

    /// It could not be served, and is the next again.
    fn put_back(&mut self, id: SessionId) {
        if self.standing.insert(id) {
            self.order.push_front(id);
        }
    }
}

impl Core {
    /// Has the session stand in line if it has something to store, and serves the line.
    pub(super) fn schedule(&mut self, id: SessionId) {
        self.line_up(id);
        self.serve_line();
    }

    /// Has every session stand in line that has something to store, those with the oldest records first.
    pub(super) fn schedule_all(&mut self) {
        let mut due: Vec<_> = self
            .journal
            .ledger()
            .sessions()
            .filter(|session| !self.storing.contains(&session.id()) && !self.line.has(session.id()))
            .filter(|session| self.has_something_to_store(session))
            .map(|session| (session.oldest_pending_boot_ns(), session.id()))
            .collect();
        due.sort_unstable();
        for (_, id) in due {
            self.line.join(id);
        }
        self.serve_line();
    }

    fn line_up(&mut self, id: SessionId) {
        let session = self.journal.ledger().session(id).filter(|_| !self.storing.contains(&id));
        if session.is_some_and(|session| self.has_something_to_store(session)) {
            self.line.join(id);
        }
    }

    /// Has those stand in line that were waiting for the spool to be flushed.
    pub(super) fn take_flushed(&mut self) {
        let flushed = self.journal.flushed();
        if std::mem::replace(&mut self.flushed, flushed) != flushed {
            self.schedule_all();
        }
    }

    fn has_something_to_store(&self, session: &Session) -> bool {
        if session.sealing().is_some() || session.may_finish().is_ok() {
            return self.journal.may_leave(session.id());
        }
        session.due_records(self.seal_limits(session.id()), clock::boot_ns()).is_some()
    }

    /// A session that stands still is waiting for what it has to be stored, so that is due whatever its age; and so it is where
    /// it keeps much.
    fn seal_limits(&self, id: SessionId) -> SealLimits {
        let is_due = self.stalled_since.is_some() || self.paused.contains(&id) || self.keeps_much(id);
        let limits = self.options.seal;
        SealLimits { max_age_ns: if is_due { 0 } else { limits.max_age_ns }, ..limits }
    }

    /// Gives jobs to the worker as long as it takes some.
    fn serve_line(&mut self) {
        let jobs = self.jobs.clone();
        while let Ok(place) = jobs.try_reserve() {
            let Some(id) = self.line.next() else { return };
            match self.next_job(id) {
                Ok(Some(job)) => {
                    self.storing.insert(id);
                    place.send(job);
                }
                Ok(None) => {}
                Err(JournalError::Spool(_)) => return self.line.put_back(id),
                // It has been said, and a tick will try again.
                Err(_) => {}
            }
        }
    }

    /// The session's next job, if it has one that may leave. A segment that is due is begun.
    fn next_job(&mut self, id: SessionId) -> Result<Option<Job>, JournalError> {
        let Some(session) = self.journal.ledger().session(id) else { return Ok(None) };
        if let Some(records) = session.due_records(self.seal_limits(session.id()), clock::boot_ns()) {
            let index = session.next_index();
            let started = self.journal.append(StateEntry::SealStarted { session: id, index, records });
            self.noted(started)?;
            metrics().segment_sealed();
        }
        let session = self.journal.ledger().session(id).filter(|_| self.journal.may_leave(id));
        Ok(session.and_then(|session| Job::next(session, self.journal.spool_dir())))
    }

    /// Notes what has been stored; what cannot be noted now is noted later.
    pub(super) fn take_done(&mut self) {
        while let Some(done) = self.done.pop_front() {
            let noted = self.journal.append(done.change());
            if let Err(JournalError::Spool(_)) = self.noted(noted) {
                self.done.push_front(done);
                break;
            }
            let Done { session, stored } = done;
            self.storing.remove(&session);
            match stored {
                Stored::Segment { entry, carried: _ } => {
                    debug!(%session, index = entry.index, "segment stored");
                    metrics().segment_uploaded();
                }
                Stored::Manifest => {
                    info!(%session, "session stored");
                    metrics().session_stored();
                    // The connection stays its session's: a proxy that was put off asks once more.
                    self.attached.remove(&session);
                    self.options.roster.leave(session);
                }
            }
            self.line_up(session);
        }
        self.serve_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::session_id;

    #[test]
    fn whoever_was_served_stands_behind_those_that_were_not() {
        let mut line = Line::default();
        let [noisy, quiet, late] = [1, 2, 3].map(session_id);
        line.join(noisy);
        line.join(quiet);
        line.join(noisy);
        assert_eq!(line.next(), Some(noisy));
        line.join(noisy);
        line.join(late);
        assert_eq!(std::iter::from_fn(|| line.next()).collect::<Vec<_>>(), [quiet, noisy, late]);
    }

    #[test]
    fn whoever_could_not_be_served_is_the_next_again() {
        let mut line = Line::default();
        let [first, second] = [1, 2].map(session_id);
        line.join(first);
        line.join(second);
        let id = line.next().expect("two stand there");
        line.put_back(id);
        assert_eq!(std::iter::from_fn(|| line.next()).collect::<Vec<_>>(), [first, second]);
    }
}
