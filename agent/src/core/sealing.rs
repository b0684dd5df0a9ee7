//! What is to be stored, and what has been.

use tracing::{debug, info};
use weir_common::session::SessionId;

use super::Core;
use crate::{
    clock,
    journal::JournalError,
    ledger::StateEntry,
    metrics::metrics,
    storing::{Done, Job, Stored},
};

impl Core {
    /// Gives the session's next job to the worker, if there is one and none is under way.
    pub(super) fn schedule(&mut self, id: SessionId) {
        if self.storing.contains(&id) || self.jobs.capacity() == 0 {
            return;
        }
        let Some(session) = self.journal.ledger().session(id) else { return };
        if let Some(records) = session.due_records(self.options.seal, clock::boot_ns()) {
            let index = session.next_index();
            let started = self.journal.append(StateEntry::SealStarted { session: id, index, records });
            if self.noted(started).is_err() {
                return;
            }
            metrics().segment_sealed();
        }
        let session = self.journal.ledger().session(id);
        let Some(job) = session.and_then(|session| Job::next(session, self.journal.spool_dir())) else {
            return;
        };
        if self.jobs.try_send(job).is_ok() {
            self.storing.insert(id);
        }
    }

    /// Notes what has been stored; what cannot be noted now is noted later.
    pub(super) fn take_done(&mut self) {
        while let Some(done) = self.done.pop_front() {
            let noted = self.journal.append(done.change());
            if let Err(JournalError::Spool(_)) = self.noted(noted) {
                self.done.push_front(done);
                return;
            }
            let Done { session, stored } = done;
            self.storing.remove(&session);
            match stored {
                Stored::Segment(entry) => {
                    debug!(%session, index = entry.index, "segment stored");
                    metrics().segment_uploaded();
                }
                Stored::Manifest => {
                    info!(%session, "session stored");
                    metrics().session_stored();
                    // The connection stays its session's: a proxy that was put off asks once more.
                    self.attached.remove(&session);
                }
            }
            self.schedule(session);
        }
    }
}
