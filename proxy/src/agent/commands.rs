//! What the session asks of the agent, in order, and what becomes of it while there is none.
//!
//! Owns that under best effort nothing that a channel asks ends the session: a channel that is over is told of later, one
//! that is to be opened is told that it cannot be now.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::{mpsc, oneshot};
use tokio_seqpacket::UnixSeqpacket;
use weir_common::session::{ChannelNo, Outcome, TargetPeer};

use super::AgentError;

/// Commands that wait for the agent's answer to the one before.
pub(super) const COMMANDS: usize = 64;

pub(super) enum Command {
    Arm {
        channel: ChannelNo,
        sockets: [Arc<UnixSeqpacket>; 2],
        done: oneshot::Sender<Result<(), AgentError>>,
    },
    Disarm {
        channel: ChannelNo,
    },
    Connected {
        target: TargetPeer,
        done: oneshot::Sender<Result<(), AgentError>>,
    },
    Freeze {
        done: oneshot::Sender<Result<(), AgentError>>,
    },
    Close {
        outcome: Outcome,
        done: oneshot::Sender<()>,
    },
}

/// The commands of a session.
pub(super) struct Commands {
    receiver: mpsc::Receiver<Command>,
    /// These are carried out by the next agent.
    put_off: VecDeque<Command>,
}

/// A queue of commands.
pub(super) fn queue() -> (mpsc::Sender<Command>, Commands) {
    let (sender, receiver) = mpsc::channel(COMMANDS);
    (sender, Commands { receiver, put_off: VecDeque::new() })
}

impl Commands {
    /// The next one; `None` if there will be no more. Nothing is lost if it is not awaited to its end.
    pub(super) async fn next(&mut self) -> Option<Command> {
        match self.put_off.pop_front() {
            Some(command) => Some(command),
            None => self.receiver.recv().await,
        }
    }

    /// The agent was lost before it said that this channel's tap is disarmed: the next one is asked.
    pub(super) fn once_more(&mut self, channel: ChannelNo) {
        self.put_off.push_front(Command::Disarm { channel });
    }

    /// There is no agent: tells those who wait for an answer so, and says whether it is to be waited for once more. A session
    /// that is to end waits once from then on, so that its recording says how it ended if an agent comes in time.
    pub(super) fn put_off(&mut self) -> bool {
        if self.put_off.iter().any(|command| matches!(command, Command::Close { .. })) {
            return false;
        }
        let busy = || AgentError::Busy("no agent answers".to_owned());
        while let Ok(command) = self.receiver.try_recv() {
            // Whoever has given up waiting is not there to be told.
            match command {
                Command::Arm { done, .. } => drop(done.send(Err(busy()))),
                Command::Connected { done, .. } => drop(done.send(Err(busy()))),
                Command::Freeze { done } => drop(done.send(Err(busy()))),
                // Past the bound the tap stays until the session ends.
                Command::Disarm { .. } if self.put_off.len() >= COMMANDS => {}
                Command::Disarm { .. } => self.put_off.push_back(command),
                Command::Close { .. } => {
                    self.put_off.push_back(command);
                    return true;
                }
            }
        }
        !self.receiver.is_closed()
    }
}
