//! What proxies ask: open, arm, close; and what follows when one goes away.

use std::os::fd::{AsFd, OwnedFd};

use tokio::sync::oneshot;
use tracing::{info, warn};
use weir_common::{
    control::Reply,
    session::{ChannelNo, Outcome, SessionId, SessionMeta},
};

use super::{Ask, ConnectionId, Core};
use crate::{
    clock,
    journal::JournalError,
    ledger::StateEntry,
    session::TapCookies,
    tap::{TapError, Taps},
};

/// Without room for this many bytes of records nothing new begins.
const ROOM_FOR_MORE_BYTES: u64 = 64 * 1024;

/// Why a request is not carried out, in words for the user.
type Refusal = String;

impl Core {
    pub(super) fn answer(&mut self, connection: ConnectionId, ask: Ask, reply: oneshot::Sender<Reply>) {
        let answer = match ask {
            Ask::Open { resume: false, meta } => self.open(connection, meta).map(|()| Reply::Opened),
            Ask::Open { resume: true, meta } => self.resume(connection, &meta).map(|()| Reply::Opened),
            Ask::Arm { channel, client, target } => {
                self.arm(connection, channel, client, target).map(|()| Reply::Armed { channel })
            }
            Ask::Close { outcome } => match self.session_of(connection) {
                Ok(session) => return self.close(session, outcome, Some(reply)),
                Err(refusal) => Err(refusal),
            },
        };
        let answer = answer.unwrap_or_else(|reason| {
            warn!(?connection, session = ?self.connections.get(&connection), %reason, "refused a request");
            Reply::Refused { reason }
        });
        // If the connection is gone meanwhile, its end says so too.
        let _ = reply.send(answer);
    }

    /// A connection is gone. If it was the one of a session, the session's proxy is.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) {
        let Some(session) = self.connections.remove(&connection) else { return };
        self.attached.remove(&session);
        if self.journal.ledger().session(session).is_some_and(|session| session.end().is_none())
            && !self.closing.contains_key(&session)
        {
            info!(%session, "the session's control connection ended without a close; ending the session");
            self.lose(session);
        }
    }

    /// Ends a session whose proxy is gone.
    pub(super) fn lose(&mut self, session: SessionId) {
        self.close(session, Outcome::ConnectorLost, None);
    }

    fn open(&mut self, connection: ConnectionId, meta: Box<SessionMeta>) -> Result<(), Refusal> {
        self.unbound(connection)?;
        self.writable()?;
        if self.journal.ledger().sessions().len() >= self.options.max_sessions {
            return Err(format!("the agent records {} sessions already", self.options.max_sessions));
        }
        let session = meta.session_id;
        if self.journal.ledger().session(session).is_some() {
            return Err(format!("session {session} is registered already"));
        }
        let clock = clock::now();
        let (user, resource) = (meta.user.clone(), meta.resource.name.clone());
        let recorder = self.options.recorder.clone();
        self.append(StateEntry::Opened { meta, clock, recorder, opened_at: clock.at })?;
        self.attach(connection, session);
        info!(%session, user, resource, "session opened");
        Ok(())
    }

    fn resume(&mut self, connection: ConnectionId, meta: &SessionMeta) -> Result<(), Refusal> {
        self.unbound(connection)?;
        let id = meta.session_id;
        let Some(session) = self.journal.ledger().session(id) else {
            return Err(format!("session {id} is not known here, so it cannot be resumed"));
        };
        if session.meta() != meta {
            return Err(format!("session {id} was registered with another access context"));
        }
        self.awaited.remove(&id);
        if let Some(before) = self.attached.remove(&id) {
            warn!(session = %id, "another connection takes the session over");
            self.connections.remove(&before);
        }
        self.attach(connection, id);
        info!(session = %id, "session resumed");
        Ok(())
    }

    fn arm(
        &mut self,
        connection: ConnectionId,
        channel: ChannelNo,
        client: OwnedFd,
        target: OwnedFd,
    ) -> Result<(), Refusal> {
        let session = self.session_of(connection)?;
        self.writable()?;
        if self.closing.contains_key(&session) {
            return Err(format!("session {session} is ending"));
        }
        let cookie = |end: &OwnedFd| Taps::cookie(end.as_fd()).map_err(|error| tap_refusal(&error));
        let cookies = TapCookies { c2t: cookie(&target)?, t2c: cookie(&client)? };
        let before = self.journal.ledger().session(session).and_then(|session| session.tap(channel));
        before.map_or(Ok(()), |before| self.retire(channel, before))?;
        self.append(StateEntry::Armed { session, channel, c2t: cookies.c2t, t2c: cookies.t2c })?;
        if let Some(before) = before {
            self.forget(before);
        }
        // Each end's copy here is closed with it, before anybody is told that the tap is armed.
        let armed = [client, target].into_iter().try_for_each(|end| self.taps.arm(end.as_fd()).map(drop));
        if let Err(error) = armed {
            self.forget(cookies);
            let taken_back = self.append(StateEntry::Disarmed { session, channel });
            if let Err(reason) = taken_back {
                warn!(%session, %channel, reason, "a channel that was not armed stays recorded, empty");
            }
            return Err(tap_refusal(&error));
        }
        info!(%session, %channel, "tap armed");
        Ok(())
    }

    /// Makes sure that nothing has passed a tap, nor ever will: an agent was killed while it armed it, and
    /// the proxy tries again with other sockets.
    fn retire(&mut self, channel: ChannelNo, cookies: TapCookies) -> Result<(), Refusal> {
        let used = || format!("channel {channel} has been used already");
        for cookie in [cookies.c2t, cookies.t2c] {
            // What the ledger knows may be behind: records wait in the ring.
            let captured = |taps: &Taps| match taps.counts(cookie) {
                Ok(counts) => Ok(counts.map(|counts| counts.captured.records)),
                Err(error) => Err(tap_refusal(&error)),
            };
            match captured(&self.taps)? {
                None => continue,
                Some(0) => self.taps.freeze(cookie).map_err(|error| tap_refusal(&error))?,
                Some(_) => return Err(used()),
            }
            if captured(&self.taps)? != Some(0) {
                return Err(used());
            }
        }
        Ok(())
    }

    /// Removes a tap's sockets from the kernel's map: they pass nothing more.
    pub(super) fn forget(&mut self, cookies: TapCookies) {
        for cookie in [cookies.c2t, cookies.t2c] {
            if let Err(error) = self.taps.remove(cookie) {
                warn!(cookie = cookie.0, error = &error as &dyn std::error::Error, "cannot remove a tap");
            }
        }
    }

    pub(super) fn session_of(&self, connection: ConnectionId) -> Result<SessionId, Refusal> {
        let session = self.connections.get(&connection).copied();
        session.ok_or_else(|| "this connection has no session, or another one has taken it over".to_owned())
    }

    fn unbound(&self, connection: ConnectionId) -> Result<(), Refusal> {
        match self.connections.get(&connection) {
            Some(session) => Err(format!("this connection is about session {session} already")),
            None => Ok(()),
        }
    }

    fn attach(&mut self, connection: ConnectionId, session: SessionId) {
        self.connections.insert(connection, session);
        self.attached.insert(session, connection);
    }

    /// Nothing new begins while sessions stall.
    fn writable(&self) -> Result<(), Refusal> {
        let full = self.stalled_since.is_some() || !self.journal.has_room(ROOM_FOR_MORE_BYTES);
        match (self.trouble, full) {
            (Some(_), _) => {
                Err("the agent cannot record at the moment: its spool cannot be written".to_owned())
            }
            (None, true) => Err("the agent cannot record at the moment: its spool is full".to_owned()),
            (None, false) => Ok(()),
        }
    }

    fn append(&mut self, change: StateEntry) -> Result<(), Refusal> {
        let appended = self.journal.append(change);
        self.noted(appended).map_err(|error| match error {
            JournalError::Ledger(error) => error.to_string(),
            error => format!("the agent cannot record at the moment: {error}"),
        })
    }
}

fn tap_refusal(error: &TapError) -> Refusal {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
