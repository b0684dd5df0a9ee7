//! The proxy's side of the control socket: one connection per session.
//!
//! A task owns the connection. It registers the session, has taps armed, and says how the session ended. When
//! the agent goes away it keeps trying to reach the next one: the kernel goes on recording into the pinned
//! ring meanwhile, and stops the session by itself when the ring is full. Past `stall_timeout` without an
//! agent the session is over.

mod commands;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_seqpacket::{UnixSeqpacket, ancillary::AncillaryMessageWriter};
use weir_common::{
    abi::ABI_VERSION,
    control::{self, ControlError, MAX_MESSAGE, Reply, Request},
    session::{CapturePolicy, ChannelNo, Outcome, SessionId, SessionMeta, TargetPeer},
};

use self::commands::{Command, Commands};
use crate::{limits, metrics::metrics};

/// Where the agent is and how long it is waited for.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The control socket.
    pub socket: PathBuf,
    /// How long a new session waits for an agent that does not answer.
    pub connect_timeout: Duration,
    /// How long a running session goes on without an agent.
    pub stall_timeout: Duration,
}

/// Why the agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No agent answers on the control socket.
    #[error("no agent answers on {path}: {source}; is weir-agent running on this node?")]
    Unreachable {
        /// The control socket.
        path: PathBuf,
        /// What the last attempt failed with.
        source: io::Error,
    },
    /// The agent went away, or said nothing for too long.
    #[error("the agent went away: {0}")]
    Lost(#[from] io::Error),
    /// The agent said: not now.
    #[error("the agent can't at the moment: {0}")]
    Busy(String),
    /// The agent said no.
    #[error("the agent refused: {0}")]
    Refused(String),
    /// The agent's answer makes no sense.
    #[error("the agent's answer is not understood: {0}")]
    Protocol(#[from] ControlError),
    /// The agent answered something else than what was asked.
    #[error("the agent's answer does not fit the request")]
    Unexpected,
}

/// A session's registration at the agent.
#[derive(Debug, Clone)]
pub struct Registration {
    commands: mpsc::Sender<Command>,
}

/// Resolves with the reason when the session can't go on because the agent is lost.
pub type Lost = oneshot::Receiver<AgentError>;

/// Registers a session.
///
/// # Errors
/// [`AgentError`] if no agent answers in time or it refuses; the session must not begin then.
pub async fn register(options: AgentOptions, meta: SessionMeta) -> Result<(Registration, Lost), AgentError> {
    let mut connection = Connection::open(&options, &meta, false, options.connect_timeout).await?;
    let (sender, mut commands) = commands::queue();
    let (lost, lost_receiver) = oneshot::channel();
    tokio::spawn(async move {
        let result = serve(&options, &meta, &mut connection, &mut commands).await;
        if let Err(error) = result {
            // The session may be over already, and nobody waits any more.
            let _ = lost.send(error);
        }
    });
    Ok((Registration { commands: sender }, lost_receiver))
}

impl Registration {
    /// Has the session's target noted.
    ///
    /// # Errors
    /// [`AgentError`]; it may not be noted then.
    pub async fn connected(&self, target: TargetPeer) -> Result<(), AgentError> {
        let (done, answer) = oneshot::channel();
        self.commands.send(Command::Connected { target, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Has a tap's two sockets armed.
    ///
    /// # Errors
    /// [`AgentError`]; nothing passes the tap then.
    pub async fn arm(
        &self,
        channel: ChannelNo,
        client: Arc<UnixSeqpacket>,
        target: Arc<UnixSeqpacket>,
    ) -> Result<(), AgentError> {
        let (done, answer) = oneshot::channel();
        let command = Command::Arm { channel, sockets: [client, target], done };
        self.commands.send(command).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Has the kernel let nothing more pass the session's taps.
    ///
    /// # Errors
    /// [`AgentError`]; they may be open still.
    pub async fn freeze(&self) -> Result<(), AgentError> {
        let (done, answer) = oneshot::channel();
        self.commands.send(Command::Freeze { done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Says that a channel is over and both ends of its tap are closed.
    ///
    /// Does not wait. What no agent hears of, because too much waits to be said, it forgets with the session.
    pub fn disarm(&self, channel: ChannelNo) {
        let _ = self.commands.try_send(Command::Disarm { channel });
    }

    /// Says how the session ended; returns when the agent has it, or when there is no agent to tell.
    pub async fn close(&self, outcome: Outcome) {
        let (done, answer) = oneshot::channel();
        if self.commands.send(Command::Close { outcome, done }).await.is_ok() {
            let _ = answer.await;
        }
    }
}

fn gone() -> AgentError {
    AgentError::Lost(io::ErrorKind::NotConnected.into())
}

async fn serve(
    options: &AgentOptions,
    meta: &SessionMeta,
    connection: &mut Connection,
    commands: &mut Commands,
) -> Result<(), AgentError> {
    loop {
        let command = tokio::select! {
            command = commands.next() => command,
            error = connection.broken() => {
                tracing::warn!(session = %meta.session_id, %error, "lost the agent; looking for the next");
                *connection = reopen(options, meta, commands).await?;
                metrics().agent_reconnected();
                continue;
            }
        };
        match command {
            // The proxy gave the session up without a word; the agent sees the connection end.
            None => return Ok(()),
            Some(Command::Arm { channel, sockets, done }) => {
                let answer = connection.arm(channel, &sockets).await;
                let in_step = is_in_step(&answer);
                let _ = done.send(answer);
                connection.again_unless(in_step, options, meta, commands).await?;
            }
            Some(Command::Connected { target, done }) => {
                let answer = connection.ask(&Request::Connected { target }, Reply::Connected).await;
                let in_step = is_in_step(&answer);
                let _ = done.send(answer);
                connection.again_unless(in_step, options, meta, commands).await?;
            }
            Some(Command::Freeze { done }) => {
                let answer = connection.ask(&Request::Freeze, Reply::Frozen).await;
                let in_step = is_in_step(&answer);
                let _ = done.send(answer);
                connection.again_unless(in_step, options, meta, commands).await?;
            }
            Some(Command::Disarm { channel }) => {
                let asked = connection.ask(&Request::Disarm { channel }, Reply::Disarmed { channel }).await;
                match &asked {
                    Err(AgentError::Lost(error)) if error.kind() != io::ErrorKind::TimedOut => {
                        commands.once_more(channel);
                    }
                    Err(error) => {
                        let session = meta.session_id;
                        tracing::debug!(%session, %channel, %error, "the tap stays until the session ends");
                    }
                    Ok(()) => {}
                }
                connection.again_unless(is_in_step(&asked), options, meta, commands).await?;
            }
            Some(Command::Close { outcome, done }) => {
                let request = Request::Close { outcome };
                while let Err(error) = connection.ask(&request, Reply::Closed).await {
                    match error {
                        AgentError::Lost(_) => {}
                        AgentError::Busy(_) => sleep(RECONNECT_PAUSE.1).await,
                        error => return Err(error),
                    }
                    *connection = Connection::open(options, meta, true, options.stall_timeout).await?;
                }
                let _ = done.send(());
                return Ok(());
            }
        }
    }
}

/// A connection to the next agent. Traffic under best effort goes on without one, so it is waited for until the session is to
/// end, and whoever asks anything of it meanwhile is told that there is none; else it is waited for the stall timeout.
async fn reopen(
    options: &AgentOptions,
    meta: &SessionMeta,
    commands: &mut Commands,
) -> Result<Connection, AgentError> {
    loop {
        let opened = Connection::open(options, meta, true, options.stall_timeout).await;
        let goes_on = meta.capture_policy == CapturePolicy::BestEffort;
        match opened {
            Err(error @ AgentError::Unreachable { .. }) if goes_on && commands.put_off() => {
                tracing::warn!(session = %meta.session_id, %error, "the session goes on, as its grant permits");
            }
            opened => return opened,
        }
    }
}

/// Whether the next reply on the connection is the one to the next request.
fn is_in_step(answer: &Result<(), AgentError>) -> bool {
    matches!(answer, Ok(()) | Err(AgentError::Busy(_) | AgentError::Refused(_)))
}

struct Connection {
    socket: UnixSeqpacket,
    session: SessionId,
}

impl Connection {
    async fn open(
        options: &AgentOptions,
        meta: &SessionMeta,
        resume: bool,
        patience: Duration,
    ) -> Result<Self, AgentError> {
        let deadline = Instant::now() + patience;
        let request = Request::Open { abi: ABI_VERSION, resume, meta: Box::new(meta.clone()) };
        let mut pause = RECONNECT_PAUSE.0;
        loop {
            let failure = match UnixSeqpacket::connect(&options.socket).await {
                Ok(socket) => {
                    let connection = Self { socket, session: meta.session_id };
                    // An agent that is slow takes the session up by this connection when it gets to it, and would take its
                    // end for the session's.
                    let left = deadline.saturating_duration_since(Instant::now());
                    let within =
                        if resume { left.max(limits::CONTROL_TIMEOUT) } else { limits::CONTROL_TIMEOUT };
                    match connection.ask_within(&request, Reply::Opened, within).await {
                        Ok(()) => return Ok(connection),
                        Err(AgentError::Lost(error)) => error,
                        Err(AgentError::Busy(reason)) => io::Error::other(reason),
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => error,
            };
            if Instant::now() + pause > deadline {
                return Err(AgentError::Unreachable { path: options.socket.clone(), source: failure });
            }
            sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_PAUSE.1);
        }
    }

    /// Opens a connection anew where a reply may still come on this one: taken for the answer to a later request, it
    /// would say that a tap is armed of which the agent knows nothing.
    async fn again_unless(
        &mut self,
        in_step: bool,
        options: &AgentOptions,
        meta: &SessionMeta,
        commands: &mut Commands,
    ) -> Result<(), AgentError> {
        if !in_step {
            tracing::warn!(session = %meta.session_id, "the agent did not answer in time; asking it on another connection");
            *self = reopen(options, meta, commands).await?;
        }
        Ok(())
    }

    async fn arm(&self, channel: ChannelNo, sockets: &[Arc<UnixSeqpacket>; 2]) -> Result<(), AgentError> {
        let request = control::encode(&Request::Arm { channel })?;
        let mut buffer = [0; 64];
        let mut descriptors = AncillaryMessageWriter::new(&mut buffer);
        descriptors
            .add_fds(sockets.iter().map(|socket| socket.as_async_fd().get_ref()))
            .expect("the buffer holds two descriptors");
        self.socket.send_with_ancillary(&request, &mut descriptors).await?;
        self.expect(Reply::Armed { channel }, limits::CONTROL_TIMEOUT).await
    }

    async fn ask(&self, request: &Request, expected: Reply) -> Result<(), AgentError> {
        self.ask_within(request, expected, limits::CONTROL_TIMEOUT).await
    }

    async fn ask_within(
        &self,
        request: &Request,
        expected: Reply,
        within: Duration,
    ) -> Result<(), AgentError> {
        if let Err(error) = self.socket.send(&control::encode(request)?).await
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error.into());
        }
        // An agent that hangs up at once has said why before.
        self.expect(expected, within).await
    }

    async fn expect(&self, expected: Reply, within: Duration) -> Result<(), AgentError> {
        match self.reply(within).await? {
            Reply::Refused { reason } => {
                tracing::warn!(session = %self.session, reason, "the agent refused");
                Err(AgentError::Refused(reason))
            }
            Reply::TryAgain { reason } => Err(AgentError::Busy(reason)),
            reply if reply == expected => Ok(()),
            _ => Err(AgentError::Unexpected),
        }
    }

    async fn reply(&self, within: Duration) -> Result<Reply, AgentError> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let received = timeout(within, self.socket.recv(&mut buffer));
        let info = received.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match info.bytes_read() {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            len => Ok(control::decode(&buffer[..len])?),
        }
    }

    /// Resolves when the agent closes the connection; it never speaks unasked.
    async fn broken(&self) -> io::Error {
        let mut byte = [0];
        match self.socket.recv(&mut byte).await {
            Ok(info) if info.bytes_read() == 0 => io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => io::Error::new(io::ErrorKind::InvalidData, "the agent spoke without being asked"),
            Err(error) => error,
        }
    }
}

const RECONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
