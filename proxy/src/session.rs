//! What the two legs share besides taps: that the session exists, and that it is over.
//!
//! A [`Session`] begins with the agent's word that it is recorded, before anything is sent to the target. Its
//! end has one owner: the first reason given to [`End::because`] counts, everything else winds down from there.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_common::session::{CapturePolicy, ChannelNo, Outcome, SessionId, SessionMeta, TargetPeer};

use crate::{
    agent::{self, AgentError, AgentOptions, Registration},
    limits,
    metrics::metrics,
    tap::{self, Activity},
};

/// What kind of end a session came to, for the metrics; the reason says it to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// User and target were done.
    Completed,
    /// The grant's time was over.
    GrantExpired,
    /// The grant was revoked, or is another one now.
    GrantChanged,
    /// Nothing was sent for too long.
    Idle,
    /// The proxy was told to stop.
    ShuttingDown,
    /// No agent recorded it, at its beginning or any more.
    NotRecorded,
    /// The recording stood still for too long.
    Stalled,
    /// There was no connection to the target.
    TargetUnreachable,
    /// The connection to the target was lost.
    TargetLost,
    /// The connection to the client was lost: it did not answer any more.
    ClientLost,
    /// One side sent faster than the other took, past every bound.
    HeldTooMuch,
    /// Anything else.
    Other,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 12] = [
        Self::Completed,
        Self::GrantExpired,
        Self::GrantChanged,
        Self::Idle,
        Self::ShuttingDown,
        Self::NotRecorded,
        Self::Stalled,
        Self::TargetUnreachable,
        Self::TargetLost,
        Self::ClientLost,
        Self::HeldTooMuch,
        Self::Other,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::GrantExpired => "grant_expired",
            Self::GrantChanged => "grant_changed",
            Self::Idle => "idle",
            Self::ShuttingDown => "shutting_down",
            Self::NotRecorded => "not_recorded",
            Self::Stalled => "stalled",
            Self::TargetUnreachable => "target_unreachable",
            Self::TargetLost => "target_lost",
            Self::ClientLost => "client_lost",
            Self::HeldTooMuch => "held_too_much",
            Self::Other => "other",
        }
    }
}

/// Says that a session is over, and hears it.
#[derive(Clone, Debug, Default)]
pub struct End(Arc<EndInner>);

#[derive(Debug, Default)]
struct EndInner {
    reason: OnceLock<(Cause, String)>,
    over: CancellationToken,
}

impl End {
    /// Ends the session; the first reason counts and is what the user is told.
    pub fn because(&self, reason: impl Into<String>) {
        self.because_of(Cause::Other, reason);
    }

    /// [`Self::because`], with a cause for the metrics.
    pub fn because_of(&self, cause: Cause, reason: impl Into<String>) {
        let _ = self.0.reason.set((cause, reason.into()));
        self.0.over.cancel();
    }

    /// Ends the session without a reason: user and target are done with it.
    pub fn done(&self) {
        self.0.over.cancel();
    }

    /// Resolves when the session is over.
    pub async fn over(&self) {
        self.0.over.cancelled().await;
    }

    /// Why the connector ended the session, if it did.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.get().map(|(_, reason)| reason.as_str())
    }

    /// What kind of reason that is.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.0.reason.get().map_or(Cause::Completed, |&(cause, _)| cause)
    }

    fn outcome(&self) -> Outcome {
        match self.reason() {
            Some(reason) => Outcome::Ended { reason: reason.to_owned() },
            None => Outcome::Completed,
        }
    }
}

/// Keeps a tap armed. When both sides of the channel have dropped it, their ends first, the agent may forget it.
#[derive(Debug)]
pub struct Lease {
    channel: ChannelNo,
    registration: Registration,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.registration.disarm(self.channel);
    }
}

/// First and longest pause before the agent is asked again.
const ASK_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How long an agent that is away or busy is asked again.
struct Patience {
    end: End,
    deadline: Instant,
    pause: Duration,
}

impl Patience {
    fn new(stall_timeout: Duration, end: &End) -> Self {
        Self { end: end.clone(), deadline: Instant::now() + stall_timeout, pause: ASK_PAUSE.0 }
    }

    /// Waits a while, or returns the error if it is final or time is up.
    async fn pause_after(&mut self, error: AgentError) -> Result<(), AgentError> {
        if !matches!(error, AgentError::Lost(_) | AgentError::Busy(_))
            || Instant::now() + self.pause >= self.deadline
        {
            return Err(error);
        }
        tracing::debug!(%error, "the agent is asked again");
        tokio::select! {
            () = sleep(self.pause) => {}
            () = self.end.over() => return Err(error),
        }
        self.pause = (self.pause * 2).min(ASK_PAUSE.1);
        Ok(())
    }
}

/// What one leg hands the other: its end of an armed tap.
#[derive(Debug)]
pub struct Offer {
    /// The end.
    pub end: tap::End,
    /// To be dropped behind it.
    pub lease: Arc<Lease>,
}

/// Channels that the target asks for, on their way to the client leg.
pub type Offers = mpsc::Receiver<Offer>;

/// Offers that wait for the client leg, which takes them at once.
const OFFERS: usize = 16;

/// A session that the agent records.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    registration: Registration,
    end: End,
    channels: AtomicU32,
    tasks: TaskTracker,
    stall_timeout: Duration,
    capture_policy: CapturePolicy,
    offers: mpsc::Sender<Offer>,
    activity: Arc<Activity>,
}

impl Session {
    /// Registers a session with the agent. What comes with it are the channels that the target will ask for.
    ///
    /// # Errors
    /// [`AgentError`]: then there is no recording, and so no session.
    pub async fn begin(
        options: AgentOptions,
        meta: SessionMeta,
        end: End,
    ) -> Result<(Arc<Self>, Offers), AgentError> {
        let (id, stall_timeout) = (meta.session_id, options.stall_timeout);
        let capture_policy = meta.capture_policy;
        let (registration, lost) = agent::register(options, meta).await?;
        metrics().session_opened();
        let (offers, offered) = mpsc::channel(OFFERS);
        let session = Self {
            id,
            registration,
            end,
            channels: AtomicU32::new(0),
            tasks: TaskTracker::new(),
            stall_timeout,
            capture_policy,
            activity: Arc::default(),
            offers,
        };
        let end = session.end.clone();
        session.watch(async move {
            if let Ok(error) = lost.await {
                tracing::error!(session = %id, %error, "no agent records this session any more");
                end.because_of(
                    Cause::NotRecorded,
                    "the recording agent on this connector is lost; the session was closed",
                );
            }
        });
        Ok((Arc::new(session), offered))
    }

    /// The session.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Its end.
    #[must_use]
    pub fn end(&self) -> &End {
        &self.end
    }

    /// How long frames may be tossed before the session is closed.
    #[must_use]
    pub fn stall_timeout(&self) -> Duration {
        self.stall_timeout
    }

    /// Has the agent note the target; before the first tap.
    ///
    /// # Errors
    /// [`AgentError`] if it did not within the time that a session may stall.
    pub async fn connected(&self, target: TargetPeer) -> Result<(), AgentError> {
        let mut patience = Patience::new(self.stall_timeout, &self.end);
        while let Err(error) = self.registration.connected(target.clone()).await {
            patience.pause_after(error).await?;
        }
        Ok(())
    }

    /// A new tap, armed: the client leg's end and the target leg's end, and the lease that both sides keep.
    ///
    /// An agent that is away or busy is waited for as long as a session may stall.
    ///
    /// # Errors
    /// [`AgentError`] if it could not be armed; nothing would pass it.
    pub async fn open_tap(&self) -> Result<(tap::End, tap::End, Arc<Lease>), AgentError> {
        let channel = ChannelNo(self.channels.fetch_add(1, Ordering::Relaxed));
        let mut patience = Patience::new(self.stall_timeout, &self.end);
        loop {
            // A fresh pair each time: an agent that was lost in the middle may have locked the one before.
            let (client, target) = tap::pair_of(&self.activity, self.capture_policy)?;
            match self.registration.arm(channel, client.socket.clone(), target.socket.clone()).await {
                Ok(()) => {
                    let lease = Lease { channel, registration: self.registration.clone() };
                    return Ok((client, target, Arc::new(lease)));
                }
                Err(error) => patience.pause_after(error).await?,
            }
        }
    }

    /// Has the kernel stop the session: its grant is over. If there is no agent to do it, the session ends all the same.
    pub async fn freeze(&self) {
        match timeout(limits::FREEZE_PATIENCE, self.registration.freeze()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(session = %self.id, %error, "the taps are not frozen"),
            Err(_) => tracing::warn!(session = %self.id, "the agent did not freeze the taps in time"),
        }
    }

    /// Hands the client leg its end of a tap whose channel the target asks for.
    ///
    /// # Errors
    /// The offer comes back if the client leg is gone.
    pub async fn offer(&self, offer: Offer) -> Result<(), Offer> {
        self.offers.send(offer).await.map_err(|refused| refused.0)
    }

    /// Runs one side of a channel until it is done or the session is over.
    pub fn spawn(&self, side: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.until_over(side));
    }

    /// Runs something that may end the session, for as long as it lasts.
    pub fn watch(&self, watcher: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.until_over(watcher));
    }

    fn until_over<F: Future<Output = ()> + Send + 'static>(
        &self,
        task: F,
    ) -> impl Future<Output = ()> + use<F> + Send {
        let end = self.end.clone();
        async move {
            tokio::select! {
                () = task => {}
                () = end.over() => {}
            }
        }
    }

    /// Ends the session once no data has gone either way on any channel for this long.
    pub fn watch_idle(&self, limit: Duration) {
        let (activity, end) = (self.activity.clone(), self.end.clone());
        self.watch(async move {
            activity.ceased(limit).await;
            let seconds = limit.as_secs_f32();
            end.because_of(
                Cause::Idle,
                format!("nothing was sent or received for {seconds} s; the session was closed"),
            );
        });
    }

    /// Lets the channels finish what is under way, ends the session and tells the agent how it ended.
    pub async fn finish(&self) {
        self.tasks.close();
        if self.end.reason().is_none() {
            // What the user had sent when the connection ended still goes to the target: it was accepted.
            let _ = timeout(limits::WIND_DOWN, self.tasks.wait()).await;
        }
        self.end.done();
        self.tasks.wait().await;
        self.registration.close(self.end.outcome()).await;
        metrics().session_ended(self.end.cause());
    }
}
