//! What reaches the core from outside, and the handle by which it does.
//!
//! The queue is bounded; a full one makes the sender wait. Every request has a reply, a core that is gone
//! included.

use std::{os::fd::OwnedFd, sync::Arc};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::{mpsc, oneshot};
use tracing::error;
use weir_common::{
    control::Reply,
    session::{ChannelNo, Outcome, SessionMeta, TargetPeer},
};

use super::CoreError;
use crate::storing::Done;

/// The most commands that wait for the core.
pub const COMMANDS_MAX: usize = 1024;

/// A control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The connection of this number, which no other has.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }
}

/// What a proxy asks of the core.
#[derive(Debug)]
pub enum Ask {
    /// Register a session, or take it up again.
    Open {
        /// It is under way.
        resume: bool,
        /// The access context.
        meta: Box<SessionMeta>,
    },
    /// Note the session's target.
    Connected {
        /// The target.
        target: TargetPeer,
    },
    /// Arm a channel's tap.
    Arm {
        /// The channel.
        channel: ChannelNo,
        /// The tap's client end.
        client: OwnedFd,
        /// The tap's target end.
        target: OwnedFd,
    },
    /// A channel is closed: count its tap and forget it.
    Disarm {
        /// The channel.
        channel: ChannelNo,
    },
    /// Let nothing more pass the session's taps.
    Freeze,
    /// End the session.
    Close {
        /// How it ended.
        outcome: Outcome,
    },
}

/// What the core is told.
#[derive(Debug)]
pub(super) enum Command {
    Ask { connection: ConnectionId, ask: Ask, reply: oneshot::Sender<Reply> },
    Disconnected { connection: ConnectionId },
    Done(Done),
    Stop,
}

/// A way to the core.
#[derive(Clone, Debug)]
pub struct CoreHandle {
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
}

/// The core's end of the queue.
pub(super) struct Inbox {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) wake: Arc<EventFd>,
}

/// What everybody is told from the stop on: the next agent carries it out.
pub(crate) fn stopping() -> Reply {
    Reply::TryAgain { reason: "the agent is stopping; try again".to_owned() }
}

/// A handle and the inbox that it leads to.
pub(super) fn queue() -> Result<(CoreHandle, Inbox), CoreError> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let wake = EventFd::from_flags(flags).map_err(|errno| CoreError::Wait { source: errno.into() })?;
    let wake = Arc::new(wake);
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let handle = CoreHandle { commands: sender, wake: Arc::clone(&wake) };
    Ok((handle, Inbox { commands, wake }))
}

impl CoreHandle {
    /// Asks for something and waits for the answer.
    pub async fn ask(&self, connection: ConnectionId, ask: Ask) -> Reply {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Ask { connection, ask, reply }).await;
        answer.await.unwrap_or_else(|_| stopping())
    }

    /// Says that a connection is gone. Once the core is stopping, that ends no session.
    pub async fn disconnected(&self, connection: ConnectionId) {
        self.send(Command::Disconnected { connection }).await;
    }

    /// Says that something is stored.
    pub async fn done(&self, done: Done) {
        self.send(Command::Done(done)).await;
    }

    /// Makes the core end; sessions go on with the next agent.
    pub async fn stop(&self) {
        self.send(Command::Stop).await;
    }

    /// A core that is gone needs no commands.
    async fn send(&self, command: Command) {
        if self.commands.send(command).await.is_ok()
            && let Err(errno) = self.wake.write(1)
        {
            // Only a counter at its end refuses, and then the core is awake anyway.
            error!(%errno, "cannot wake the core");
        }
    }
}
