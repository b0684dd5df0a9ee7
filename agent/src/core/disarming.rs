//! The end of a channel while its session goes on: freeze, drain, count, the disarmed entry, and only then
//! the kernel forgets the sockets.
//!
//! An agent that is killed in between leaves a frozen tap, which its proxy asks to be disarmed again, or
//! sockets in the kernel's maps that are no armed channel's, which the next agent removes when it starts.

use std::time::Instant;

use tokio::sync::oneshot;
use tracing::{error, info};
use weir_common::{
    control::Reply,
    session::{ChannelNo, SessionId},
};

use super::{
    Core,
    requests::{Refusal, say},
    settling::{Positions, Settled, Settling, adds_up},
};
use crate::{
    journal::JournalError,
    ledger::StateEntry,
    session::{StepError, TapCookies},
};

/// A channel whose tap is frozen.
#[derive(Debug)]
pub(super) struct Disarming {
    settling: Settling,
    reply: Option<oneshot::Sender<Reply>>,
}

impl Core {
    /// The tap that is to be disarmed; `None` if that was done before.
    pub(super) fn to_disarm(&self, id: SessionId, channel: ChannelNo) -> Result<Option<TapCookies>, Refusal> {
        let session = self.journal.ledger().session(id).filter(|session| session.end().is_none());
        let session = session.filter(|_| !self.closing.contains_key(&id));
        let Some(session) = session else {
            return Err(Refusal::Never(format!("session {id} is ending")));
        };
        match session.tap(channel) {
            None if session.is_disarmed(channel) => Ok(None),
            None => Err(Refusal::Never(StepError::NoChannel { channel }.to_string())),
            tap => Ok(tap),
        }
    }

    /// Begins to disarm a channel. The reply is sent when its end is in the spool, or when that takes nothing:
    /// it goes on then, and whoever asks again is told.
    pub(super) fn disarm(
        &mut self,
        session: SessionId,
        channel: ChannelNo,
        tap: TapCookies,
        reply: oneshot::Sender<Reply>,
    ) {
        if let Some(disarming) = self.disarming.get_mut(&(session, channel)) {
            disarming.reply = Some(reply);
            return;
        }
        for cookie in [tap.c2t, tap.t2c] {
            self.freeze(session, cookie);
        }
        let disarming = Disarming { settling: Settling::begin(), reply: Some(reply) };
        self.disarming.insert((session, channel), disarming);
    }

    /// The channels' ends become part of their session's.
    pub(super) fn disarm_with_the_session(&mut self, id: SessionId) {
        let reply = || Reply::TryAgain { reason: format!("session {id} is ending") };
        for (_, disarming) in self.disarming.extract_if(|&(session, _), _| session == id) {
            say(disarming.reply, reply());
        }
    }

    /// Disarms the channels whose records are all drained.
    pub(super) fn go_on_disarming(&mut self, now: Instant, ring: Positions) {
        let look = |(&key, disarming): (_, &mut Disarming)| Some((key, disarming.settling.look(now, ring)?));
        let settled: Vec<_> = self.disarming.iter_mut().filter_map(look).collect();
        for ((id, channel), Settled { impatient }) in settled {
            self.finish_disarming(id, channel, impatient);
        }
    }

    /// Tells those who wait for the end of a channel that it takes longer.
    pub(super) fn put_disarming_off(&mut self, reason: &str) {
        for disarming in self.disarming.values_mut() {
            say(disarming.reply.take(), Reply::TryAgain { reason: reason.to_owned() });
        }
    }

    fn finish_disarming(&mut self, id: SessionId, channel: ChannelNo, impatient: bool) {
        let found = |core: &Self| {
            let session = core.journal.ledger().session(id)?;
            let totals = session.armed().find(|totals| totals.channel == channel)?;
            Some((totals, session.tap(channel)?))
        };
        let Some((totals, tap)) = found(self) else {
            self.disarming.remove(&(id, channel));
            return;
        };
        if self.record_open_gaps(&[totals]).is_err() {
            return;
        }
        let totals = found(self).map_or(totals, |(totals, _)| totals);
        let kernel = self.kernel_counts(&totals);
        let adds_up = adds_up(&totals, &kernel);
        if !adds_up && !impatient {
            return;
        }
        if !adds_up {
            error!(session = %id, %channel, "what was drained is not what the kernel counted; it will not verify");
        }
        let disarmed = self.journal.append(StateEntry::Disarmed { session: id, kernel });
        let answer = match self.noted(disarmed) {
            Ok(()) => {
                self.forget(tap);
                self.watch.channel_over(&totals, &kernel);
                info!(session = %id, %channel, "tap disarmed");
                Reply::Disarmed { channel }
            }
            Err(JournalError::Spool(_)) => return,
            Err(error) => Reply::Refused { reason: error.to_string() },
        };
        say(self.disarming.remove(&(id, channel)).and_then(|disarming| disarming.reply), answer);
    }
}
