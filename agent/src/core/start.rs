//! Taking up where the agent before left off.

use std::{collections::HashSet, time::Instant};

use tracing::{info, warn};
use weir_common::session::{Outcome, SessionId};

use super::{Core, CoreError};
use crate::{
    ledger::StateEntry,
    metrics::metrics,
    session::{ChannelKernel, End, Session},
};

impl Core {
    pub(super) fn take_up(&mut self) -> Result<(), CoreError> {
        if self.journal.ledger().ring() == Some(self.ring.id()) {
            self.skip_spooled()?;
        } else {
            self.adopt_ring()?;
        }
        self.forget_strangers()?;
        for session in self.journal.ledger().sessions() {
            self.options.roster.found(session.id(), self.options.lane);
            if session.end().is_some() {
                self.options.roster.ended(session.id());
            }
        }
        let live = self.live();
        self.take_up_pauses(&live);
        self.take_up_freezes(&live);
        let deadline = Instant::now() + self.options.reattach_timeout;
        self.awaited = live.into_iter().map(|id| (id, deadline)).collect();
        if !self.awaited.is_empty() {
            info!(sessions = self.awaited.len(), "sessions are under way; waiting for their proxies");
        }
        Ok(())
    }

    /// Records that a killed agent had put into the spool are not put there twice.
    fn skip_spooled(&mut self) -> Result<(), CoreError> {
        let (consumed, produced) = (self.ring.consumer_position(), self.ring.producer_position());
        let spooled = self.journal.position();
        if spooled > produced {
            return Err(CoreError::RingBehind { spooled, produced });
        }
        if spooled < consumed {
            warn!(
                bytes = consumed - spooled,
                "the spool lost records that were drained; what is missing will not add up"
            );
            self.journal.note_loss(consumed)?;
        } else {
            self.ring.release(spooled);
        }
        Ok(())
    }

    /// Another ring than before: the node has restarted, and with it went the sessions and their counters.
    ///
    /// The ring comes last: where there is no room for all of it, the next agent still sees which sessions are of before.
    fn adopt_ring(&mut self) -> Result<(), CoreError> {
        for id in self.live() {
            let Some(session) = self.journal.ledger().session(id) else { continue };
            let unknown = |(channel, _)| ChannelKernel { channel, c2t: None, t2c: None };
            let kernel = session.taps().map(unknown).collect();
            let end = End { outcome: Outcome::ConnectorLost, closed_at: session.last_heard_of() };
            info!(session = %id, "the node restarted during the session; ending it");
            metrics().session_closed(&end.outcome);
            self.journal.append(StateEntry::Closed { session: id, end, kernel })?;
        }
        let position = self.ring.consumer_position();
        self.journal.adopt_ring(self.ring.id().clone(), position)?;
        Ok(())
    }

    /// Taps of no session: left by an agent that was killed while it armed, disarmed or closed.
    fn forget_strangers(&mut self) -> Result<(), CoreError> {
        let ledger = self.journal.ledger();
        let ours: HashSet<_> = ledger
            .sessions()
            .filter(|session| session.end().is_none())
            .flat_map(Session::armed_sockets)
            .map(|(cookie, _, _)| cookie)
            .collect();
        for cookie in self.taps.cookies()? {
            if !ours.contains(&cookie) {
                self.taps.remove(cookie)?;
            }
        }
        Ok(())
    }

    /// Sessions whose grant is over stay frozen. Whichever taps of theirs the agent before left open are shut.
    fn take_up_freezes(&mut self, live: &[SessionId]) {
        let is_frozen = |id: &&SessionId| self.journal.ledger().session(**id).is_some_and(Session::is_frozen);
        self.frozen = live.iter().filter(is_frozen).copied().collect();
        let frozen = self.frozen.iter().filter_map(|&id| self.journal.ledger().session(id));
        let sockets =
            frozen.flat_map(|session| session.armed_sockets().map(|(cookie, ..)| (session.id(), cookie)));
        for (session, cookie) in sockets.collect::<Vec<_>>() {
            self.freeze(session, cookie);
        }
    }

    fn live(&self) -> Vec<SessionId> {
        let open = self.journal.ledger().sessions().filter(|session| session.end().is_none());
        open.map(Session::id).collect()
    }
}
