//! The end of a session: freeze, drain, count, and only then the closed entry.
//!
//! Owns the arithmetic's right moment: the kernel's counters are read when nothing can add to them any more
//! and everything that they count is in the spool.

use std::time::Instant;

use tokio::sync::oneshot;
use tracing::{error, info, warn};
use weir_common::{
    control::Reply,
    recording::{ChannelTotals, KernelCount},
    session::{Outcome, SessionId, SocketCookie},
};

use super::{
    Core,
    requests::say,
    settling::{Positions, Settled, Settling, adds_up},
};
use crate::{
    clock,
    ledger::StateEntry,
    metrics::metrics,
    session::{ChannelKernel, End},
};

/// A session whose taps are frozen.
#[derive(Debug)]
pub(super) struct Closing {
    outcome: Outcome,
    settling: Settling,
    reply: Option<oneshot::Sender<Reply>>,
}

impl Core {
    /// Begins to end a session. The reply is sent when its end is in the spool, or when that takes nothing:
    /// the session goes on ending then, and whoever asks again is told.
    pub(super) fn close(&mut self, id: SessionId, outcome: Outcome, reply: Option<oneshot::Sender<Reply>>) {
        let Some(session) = self.journal.ledger().session(id).filter(|session| session.end().is_none())
        else {
            // Ended before: nobody was told, because the spool took nothing when it was asked.
            return say(reply, Reply::Closed);
        };
        if let Some(closing) = self.closing.get_mut(&id) {
            closing.reply = reply.or(closing.reply.take());
            return;
        }
        let sockets: Vec<_> = session.armed_sockets().map(|(cookie, _, _)| cookie).collect();
        self.awaited.remove(&id);
        self.disarm_with_the_session(id);
        for cookie in sockets {
            self.freeze(id, cookie);
        }
        self.closing.insert(id, Closing { outcome, settling: Settling::begin(), reply });
    }

    /// Lets nothing into this socket any more.
    pub(super) fn freeze(&mut self, session: SessionId, cookie: SocketCookie) {
        if let Err(error) = self.taps.freeze(cookie) {
            warn!(%session, error = &error as &dyn std::error::Error, "cannot freeze a tap");
        }
    }

    /// Ends the sessions whose records are all drained.
    pub(super) fn go_on_closing(&mut self, now: Instant, ring: Positions) {
        let look = |(&id, closing): (_, &mut Closing)| Some((id, closing.settling.look(now, ring)?));
        let settled: Vec<_> = self.closing.iter_mut().filter_map(look).collect();
        for (id, Settled { impatient }) in settled {
            self.finish_closing(id, impatient);
        }
    }

    /// Tells those who wait for the end of a session that it takes longer.
    pub(super) fn put_closing_off(&mut self, reason: &str) {
        for closing in self.closing.values_mut() {
            say(closing.reply.take(), Reply::TryAgain { reason: reason.to_owned() });
        }
    }

    fn finish_closing(&mut self, id: SessionId, impatient: bool) {
        let Some(session) = self.journal.ledger().session(id) else { return };
        let totals: Vec<_> = session.armed().collect();
        if self.record_open_gaps(&totals).is_err() {
            return;
        }
        let Some(session) = self.journal.ledger().session(id) else { return };
        let totals: Vec<_> = session.armed().collect();
        let taps: Vec<_> = session.taps().map(|(_, cookies)| cookies).collect();
        let kernel: Vec<_> = totals.iter().map(|channel| self.kernel_counts(channel)).collect();
        let adds_up = totals.iter().zip(&kernel).all(|(totals, kernel)| adds_up(totals, kernel));
        if !adds_up && !impatient {
            return;
        }
        if !adds_up {
            error!(session = %id, "what was drained is not what the kernel counted; it will not verify");
        }
        let Some(closing) = self.closing.get(&id) else { return };
        let end = End { outcome: closing.outcome.clone(), closed_at: session.calendar(clock::boot_ns()) };
        let outcome = end.outcome.clone();
        let closed = self.journal.append(StateEntry::Closed { session: id, end, kernel: kernel.clone() });
        if self.noted(closed).is_err() {
            return;
        }
        taps.into_iter().for_each(|cookies| self.forget(cookies));
        self.frozen.remove(&id);
        self.options.roster.ended(id);
        totals.iter().zip(&kernel).for_each(|(totals, kernel)| self.watch.channel_over(totals, kernel));
        info!(session = %id, %outcome, "session closed");
        metrics().session_closed(&outcome);
        say(self.closing.remove(&id).and_then(|closing| closing.reply), Reply::Closed);
        self.schedule(id);
    }

    /// The kernel's counters of a channel.
    pub(super) fn kernel_counts(&self, totals: &ChannelTotals) -> ChannelKernel {
        ChannelKernel {
            channel: totals.channel,
            c2t: self.counts(totals.c2t.cookie),
            t2c: self.counts(totals.t2c.cookie),
        }
    }

    fn counts(&self, cookie: SocketCookie) -> Option<KernelCount> {
        self.taps.counts(cookie).unwrap_or_else(|error| {
            warn!(
                cookie = cookie.0,
                error = &error as &dyn std::error::Error,
                "cannot read the kernel's counters"
            );
            None
        })
    }
}
