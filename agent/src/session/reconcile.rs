//! Going on behind an unreadable stretch of the spool.
//!
//! The file behind the stretch begins with a checkpoint that says what the session's state is there. The
//! records that were found before the stretch can still be read; those in it are gone. Whether that is a loss
//! shows later: a gone record that turns out to have been sealed is in the store. Where only a stretch of a file was passed over
//! (`loss`), the checkpoint says how many of its records are gone, if that is not known yet.

use super::{Session, pending::Pending};

impl Session {
    /// Makes this state, from a replay that broke off, the one that a later checkpoint says.
    pub fn reconcile(&mut self, checkpoint: Self) {
        self.settle_with(&checkpoint);
        let mut found = self.sealing.take().map_or_else(Pending::default, |sealing| sealing.records);
        found.append(std::mem::take(&mut self.pending));
        let (sealed, accepted) =
            (self.sealed_records(), self.accepted_records().saturating_add(self.ahead()));
        *self = checkpoint;
        if found.take(self.sealed_records().saturating_sub(sealed)).is_none() {
            // More was sealed meanwhile than was ever found.
            found = Pending::default();
        }
        let behind = accepted.max(self.sealed_records());
        let missing = self.accepted_records().saturating_sub(behind);
        found.fill_loss(missing);
        self.adopt(found);
    }

    /// Replaces the unsealed records by the ones found, if they are as many; else they stay gone.
    fn adopt(&mut self, mut found: Pending) {
        let sealing = self.sealing.as_ref().map_or(0, |sealing| sealing.records.total().records);
        if found.total().records != sealing.saturating_add(self.pending.total().records) {
            return;
        }
        if let (Some(sealing), Some(records)) = (&mut self.sealing, found.take(sealing)) {
            sealing.records = records;
        }
        self.pending = found;
    }
}
