//! The end of a session: freeze, drain, count, and only then the closed entry.
//!
//! Owns the arithmetic's right moment: the kernel's counters are read when nothing can add to them any more
//! and everything that they count is in the spool.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;
use tracing::{error, info, warn};
use weir_common::{
    control::Reply,
    recording::{ChannelTotals, DirectionTotals, KernelCount},
    session::{Outcome, SessionId, SocketCookie},
};

use super::Core;
use crate::{
    ledger::StateEntry,
    session::{ChannelKernel, End, TapCookies},
};

/// How long a message that the kernel is just passing may take to be in the ring after the freeze.
const SETTLE: Duration = Duration::from_millis(2);
/// How long the kernel's counters may disagree with what was drained before the session is closed as it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// A session whose taps are frozen.
#[derive(Debug)]
pub(super) struct Closing {
    outcome: Outcome,
    frozen_at: Instant,
    /// Ring position up to which there may be records of it.
    until: Option<u64>,
    /// When everything up to there was drained.
    drained_at: Option<Instant>,
    reply: Option<oneshot::Sender<Reply>>,
}

impl Core {
    /// Begins to end a session. The reply is sent when its end is in the spool.
    pub(super) fn close(&mut self, id: SessionId, outcome: Outcome, reply: Option<oneshot::Sender<Reply>>) {
        let Some(session) = self.journal.ledger().session(id).filter(|session| session.end().is_none())
        else {
            // Ended before: by an agent that was killed before it could say so.
            return answer_closed(reply);
        };
        if let Some(closing) = self.closing.get_mut(&id) {
            closing.reply = reply.or(closing.reply.take());
            return;
        }
        self.awaited.remove(&id);
        let sockets: Vec<_> = session.sockets().map(|(cookie, _, _)| cookie).collect();
        for cookie in sockets {
            if let Err(error) = self.taps.freeze(cookie) {
                warn!(session = %id, error = &error as &dyn std::error::Error, "cannot freeze a tap");
            }
        }
        let frozen_at = Instant::now();
        self.closing.insert(id, Closing { outcome, frozen_at, until: None, drained_at: None, reply });
    }

    /// Ends the sessions whose records are all drained.
    pub(super) fn go_on_closing(&mut self, now: Instant) {
        if self.closing.is_empty() {
            return;
        }
        let (consumed, produced) = (self.ring.consumer_position(), self.ring.producer_position());
        let mut drained = Vec::new();
        for (&id, closing) in &mut self.closing {
            if closing.until.is_none() && now >= closing.frozen_at + SETTLE {
                closing.until = Some(produced);
            }
            if closing.until.is_some_and(|until| consumed >= until) {
                drained.push((id, now >= *closing.drained_at.get_or_insert(now) + PATIENCE));
            }
        }
        for (id, impatient) in drained {
            self.finish_closing(id, impatient);
        }
    }

    fn finish_closing(&mut self, id: SessionId, impatient: bool) {
        let Some(session) = self.journal.ledger().session(id) else { return };
        let totals = session.totals();
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
        let end = End { outcome: closing.outcome.clone(), closed_at: Timestamp::now() };
        let outcome = end.outcome.clone();
        let closed = self.journal.append(StateEntry::Closed { session: id, end, kernel });
        if self.noted(closed).is_err() {
            return;
        }
        taps.into_iter().for_each(|cookies| self.forget(cookies));
        info!(session = %id, %outcome, "session closed");
        answer_closed(self.closing.remove(&id).and_then(|closing| closing.reply));
        self.schedule(id);
    }

    fn kernel_counts(&self, totals: &ChannelTotals) -> ChannelKernel {
        let cookies = TapCookies { c2t: totals.c2t.cookie, t2c: totals.t2c.cookie };
        ChannelKernel {
            channel: totals.channel,
            c2t: self.counts(cookies.c2t),
            t2c: self.counts(cookies.t2c),
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

fn adds_up(totals: &ChannelTotals, kernel: &ChannelKernel) -> bool {
    let agrees = |drained: &DirectionTotals, counted: Option<KernelCount>| {
        counted.is_none_or(|counted| counted.captured == drained.drained())
    };
    agrees(&totals.c2t, kernel.c2t) && agrees(&totals.t2c, kernel.t2c)
}

fn answer_closed(reply: Option<oneshot::Sender<Reply>>) {
    if let Some(reply) = reply {
        // If the connection is gone meanwhile, nobody waits for it.
        let _ = reply.send(Reply::Closed);
    }
}
