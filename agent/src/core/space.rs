//! Space that runs out: new sessions are refused before running ones have to stall.

use tracing::{info, warn};

use super::{Core, requests::Refusal};
use crate::spool::Shortage;

const SHORT: &str = "the connector's recorder is nearly out of space, so no new session can begin; running sessions \
                     go on. Please tell whoever operates the connector, and try again later";

impl Core {
    /// Whether a session may begin, as far as space goes.
    pub(super) fn spacious(&mut self) -> Result<(), Refusal> {
        let shortage = self.journal.space().shortage(self.journal.spool_dir());
        match shortage {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Refusal::Never(SHORT.to_owned())),
            Err(error) => {
                Err(Refusal::NotNow(format!("the agent cannot tell how much space it has: {error}")))
            }
        }
    }

    /// Leaves room on the disk for what storing will note in the spool: only behind these notes can space be given back.
    pub(super) fn reserve_for_notes(&mut self) {
        let segment_max_bytes = self.options.seal.max_bytes;
        let sessions = self.journal.ledger().sessions();
        let bytes =
            sessions.map(|session| session.notes_bytes_max(segment_max_bytes)).fold(0, u64::saturating_add);
        self.journal.reserve_for_states(bytes);
    }

    /// Says when space becomes short, and when it is there again.
    pub(super) fn watch_space(&mut self) {
        // A file system that does not answer is told about by whoever needs an answer.
        let Ok(shortage) = self.journal.space().shortage(self.journal.spool_dir()) else { return };
        match (shortage, self.short) {
            (Some(Shortage::Spool { used }), false) => {
                warn!(spool_bytes = used, "the spool is past spool_refuse_bytes; new sessions are refused");
            }
            (Some(Shortage::Disk { free }), false) => {
                warn!(
                    free,
                    "the spool's disk has less than disk_refuse_bytes free; new sessions are refused"
                );
            }
            (None, true) => info!("the spool has enough space again; new sessions are taken"),
            (Some(_), true) | (None, false) => {}
        }
        self.short = shortage.is_some();
    }
}
