//! What proxies ask: open, arm, disarm, freeze, close; and what follows when one goes away.
//!
//! Owns the difference between *not now* and *never*: while the agent is stopping or the spool takes nothing,
//! a proxy is told to try again; what it is refused, no later try will bring.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use tokio::sync::oneshot;
use tracing::{debug, info, warn};
use weir_common::{
    control::Reply,
    session::{CapturePolicy, ChannelNo, Outcome, SessionId, SessionMeta, TargetPeer},
};

use super::{Ask, ConnectionId, Core, FULL, UNWRITABLE, command};
use crate::{
    clock,
    journal::JournalError,
    ledger::StateEntry,
    metrics::metrics,
    session::{Session, StepError, TapCookies},
    tap::{TapError, Taps},
};

/// Without room for this many bytes of records nothing new begins.
const ROOM_FOR_MORE_BYTES: u64 = 64 * 1024;

/// Why a request is not carried out, in words for the user.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It may be later.
    NotNow(String),
    /// It will not be.
    Never(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Never(reason)
    }
}

/// Answers whoever waits.
pub(super) fn say(reply: Option<oneshot::Sender<Reply>>, answer: Reply) {
    if let Some(reply) = reply {
        // If the connection is gone meanwhile, nobody waits for it, and its end says so too.
        let _ = reply.send(answer);
    }
}

impl Core {
    pub(super) fn answer(&mut self, connection: ConnectionId, ask: Ask, reply: oneshot::Sender<Reply>) {
        if self.stopping {
            return say(Some(reply), command::stopping());
        }
        let answer = match ask {
            Ask::Open { resume: false, meta } => self.open(connection, meta).map(|()| Reply::Opened),
            Ask::Open { resume: true, meta } => self.resume(connection, &meta).map(|()| Reply::Opened),
            Ask::Connected { target } => self.connected(connection, target).map(|()| Reply::Connected),
            Ask::Arm { channel, client, target } => {
                self.arm(connection, channel, client, target).map(|()| Reply::Armed { channel })
            }
            Ask::Disarm { channel } => {
                let session = self.session_of(connection);
                match session.and_then(|id| Ok((id, self.to_disarm(id, channel)?))) {
                    Ok((session, Some(tap))) => return self.disarm(session, channel, tap, reply),
                    Ok((_, None)) => Ok(Reply::Disarmed { channel }),
                    Err(refusal) => Err(refusal),
                }
            }
            Ask::Freeze => self.freeze_taps(connection).map(|()| Reply::Frozen),
            Ask::Close { outcome } => match self.session_of(connection) {
                Ok(session) => return self.close(session, outcome, Some(reply)),
                Err(refusal) => Err(refusal),
            },
        };
        let session = self.connections.get(&connection).map(tracing::field::display);
        let answer = answer.unwrap_or_else(|refusal| match refusal {
            Refusal::NotNow(reason) => {
                debug!(?connection, session, %reason, "put a request off");
                metrics().request_refused("try_again");
                Reply::TryAgain { reason }
            }
            Refusal::Never(reason) => {
                warn!(?connection, session, %reason, "refused a request");
                metrics().request_refused("refused");
                Reply::Refused { reason }
            }
        });
        say(Some(reply), answer);
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
        self.spacious()?;
        self.writable()?;
        let session = meta.session_id;
        self.options.roster.take(session, self.options.lane).map_err(|why| why.to_string())?;
        let clock = clock::now();
        let (user, resource) = (meta.user.clone(), meta.resource.name.clone());
        let recorder = self.options.recorder.clone();
        let opened = self.append(StateEntry::Opened { meta, clock, recorder, opened_at: clock.at });
        opened.inspect_err(|_| self.options.roster.leave(session))?;
        self.attach(connection, session);
        info!(%session, user, resource, "session opened");
        metrics().session_opened();
        self.report_opened(session);
        Ok(())
    }

    fn resume(&mut self, connection: ConnectionId, meta: &SessionMeta) -> Result<(), Refusal> {
        self.unbound(connection)?;
        let id = meta.session_id;
        let Some(session) = self.journal.ledger().session(id) else {
            return Err(format!("session {id} is not known here, so it cannot be resumed").into());
        };
        if session.meta() != meta {
            return Err(format!("session {id} was registered with another access context").into());
        }
        if session.end().is_some() {
            return Err(format!("session {id} has ended").into());
        }
        if self.closing.contains_key(&id) {
            return Err(format!("session {id} is ending").into());
        }
        if let Some(channel) = self.untapped(session)? {
            return Err(format!("the kernel has lost the tap of channel {channel} of session {id}").into());
        }
        self.awaited.remove(&id);
        if let Some(before) = self.attached.remove(&id) {
            warn!(session = %id, "another connection takes the session over");
            self.connections.remove(&before);
        }
        self.attach(connection, id);
        info!(session = %id, "session resumed");
        metrics().session_resumed();
        Ok(())
    }

    /// The first channel whose tap the kernel does not have, so that nobody could freeze or count it.
    ///
    /// It need not be armed: an agent that was killed while it ended a channel or the session leaves frozen
    /// ones. Nor need one be there that nothing was captured of: an agent that was killed while it armed it
    /// leaves none, and told nobody that it was armed.
    fn untapped(&self, session: &Session) -> Result<Option<ChannelNo>, Refusal> {
        for totals in session.armed() {
            let drained = [totals.c2t, totals.t2c].map(|way| way.drained() + way.passed);
            let drained = (drained[0] + drained[1]).records;
            for cookie in [totals.c2t.cookie, totals.t2c.cookie] {
                if !self.taps.has(cookie).map_err(|error| tap_refusal(&error))? && drained > 0 {
                    return Ok(Some(totals.channel));
                }
            }
        }
        Ok(None)
    }

    /// Notes the session's target. A proxy that lost the agent before it heard the answer says it again.
    fn connected(&mut self, connection: ConnectionId, target: TargetPeer) -> Result<(), Refusal> {
        let session = self.session_of(connection)?;
        if self.journal.ledger().session(session).and_then(Session::target) == Some(&target) {
            return Ok(());
        }
        info!(%session, address = %target.address, host_key = target.host_key, trust = ?target.host_key_trust, "target connected");
        self.append(StateEntry::Connected { session, target })
    }

    fn arm(
        &mut self,
        connection: ConnectionId,
        channel: ChannelNo,
        client: OwnedFd,
        target: OwnedFd,
    ) -> Result<(), Refusal> {
        let session = self.session_of(connection)?;
        let known = self.journal.ledger().session(session);
        let policy = known.map(|session| session.meta().capture_policy).unwrap_or_default();
        match policy {
            CapturePolicy::FailClosed => self.writable()?,
            // It goes on while there is no room for records; the entries about it still find some.
            CapturePolicy::BestEffort => self.untroubled()?,
        }
        if self.frozen.contains(&session) {
            return Err(format!("session {session} is frozen: its grant is over").into());
        }
        if self.closing.contains_key(&session) {
            return Err(format!("session {session} is ending").into());
        }
        if self.disarming.contains_key(&(session, channel)) {
            return Err(used(channel));
        }
        let cookie = |end: &OwnedFd| Taps::cookie(end.as_fd()).map_err(|error| tap_refusal(&error));
        let cookies = TapCookies { c2t: cookie(&target)?, t2c: cookie(&client)? };
        let known = self.journal.ledger().session(session);
        let before = known.and_then(|session| session.tap(channel));
        before.map_or(Ok(()), |before| self.retire(channel, before))?;
        self.append(StateEntry::Armed { session, channel, c2t: cookies.c2t, t2c: cookies.t2c })?;
        if let Some(before) = before {
            self.forget(before);
        }
        // Each end's copy here is closed with it, before anybody is told that the tap is armed.
        let state = self.tap_state(session);
        let armed =
            [client, target].into_iter().try_for_each(|end| self.taps.arm(end.as_fd(), state).map(drop));
        if let Err(error) = armed {
            self.forget(cookies);
            let taken_back = self.append(StateEntry::ArmFailed { session, channel });
            if let Err(reason) = taken_back {
                warn!(%session, %channel, ?reason, "a channel that was not armed stays recorded, empty");
            }
            return Err(tap_refusal(&error));
        }
        info!(%session, %channel, "tap armed");
        Ok(())
    }

    /// Has the kernel let nothing more pass the taps of a session whose grant is over.
    fn freeze_taps(&mut self, connection: ConnectionId) -> Result<(), Refusal> {
        let session = self.session_of(connection)?;
        // Whatever becomes of the rest, this agent arms none; the spool tells the next one.
        self.frozen.insert(session);
        let taps: Vec<_> =
            self.journal.ledger().session(session).into_iter().flat_map(Session::taps).collect();
        let mut frozen = Ok(());
        for cookie in taps.into_iter().flat_map(|(_, TapCookies { c2t, t2c })| [c2t, t2c]) {
            match self.taps.freeze(cookie) {
                // An agent was killed while it armed it; nothing passes it.
                Ok(()) | Err(TapError::UnknownTap { .. }) => {}
                Err(error) => frozen = Err(tap_refusal(&error)),
            }
        }
        // The kernel first: nothing may wait for a disk. But noted it is, though a tap may be open still.
        let unnoted = |session: &Session| session.end().is_none() && !session.is_frozen();
        if self.journal.ledger().session(session).is_some_and(unnoted) {
            self.append(StateEntry::Frozen { session })?;
        }
        frozen?;
        info!(%session, "session frozen");
        Ok(())
    }

    /// Makes sure that nothing has passed a tap, nor ever will: an agent was killed while it armed it, and
    /// the proxy tries again with other sockets.
    fn retire(&mut self, channel: ChannelNo, cookies: TapCookies) -> Result<(), Refusal> {
        for cookie in [cookies.c2t, cookies.t2c] {
            // What the ledger knows may be behind: records wait in the ring.
            let captured = |taps: &Taps| match taps.counts(cookie) {
                Ok(counts) => Ok(counts.map(|counts| (counts.captured + counts.passed).records)),
                Err(error) => Err(tap_refusal(&error)),
            };
            match captured(&self.taps)? {
                None => continue,
                Some(0) => self.taps.freeze(cookie).map_err(|error| tap_refusal(&error))?,
                Some(_) => return Err(used(channel)),
            }
            if captured(&self.taps)? != Some(0) {
                return Err(used(channel));
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
        let none = "this connection has no session, or another one has taken it over";
        session.ok_or_else(|| Refusal::Never(none.to_owned()))
    }

    fn unbound(&self, connection: ConnectionId) -> Result<(), Refusal> {
        match self.connections.get(&connection) {
            Some(session) => Err(format!("this connection is about session {session} already").into()),
            None => Ok(()),
        }
    }

    fn attach(&mut self, connection: ConnectionId, session: SessionId) {
        self.connections.insert(connection, session);
        self.attached.insert(session, connection);
    }

    /// Nothing new begins while sessions stall.
    pub(super) fn writable(&self) -> Result<(), Refusal> {
        let full = self.stalled_since.is_some() || !self.journal.space().has_room(ROOM_FOR_MORE_BYTES);
        self.untroubled()?;
        if full { Err(Refusal::NotNow(FULL.to_owned())) } else { Ok(()) }
    }

    /// Nothing is asked of a spool that could not be written a moment ago.
    fn untroubled(&self) -> Result<(), Refusal> {
        // After the pause this very request may find out that the trouble has passed.
        let trouble = self.trouble.is_some_and(|trouble| Instant::now() < trouble.until);
        if trouble { Err(Refusal::NotNow(UNWRITABLE.to_owned())) } else { Ok(()) }
    }

    fn append(&mut self, change: StateEntry) -> Result<(), Refusal> {
        let appended = self.journal.append(change);
        self.noted(appended).map_err(|error| match error {
            JournalError::Spool(error) => {
                Refusal::NotNow(format!("the agent cannot record at the moment: {error}"))
            }
            error => Refusal::Never(error.to_string()),
        })
    }
}

fn tap_refusal(error: &TapError) -> Refusal {
    Refusal::Never(match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

fn used(channel: ChannelNo) -> Refusal {
    StepError::ChannelUsed { channel }.to_string().into()
}
