//! The connection's global requests (RFC 4254 section 4): a tap of their own, opened with the first of them.
//!
//! russh holds the connection's loop until a request is answered, so there is one at a time, and the next answer
//! from the target is the one to it.

use std::sync::Arc;

use tokio::{sync::mpsc, time::timeout};
use weir_common::frame::{ChannelType, Message};

use super::{
    channel::{failed, send, serve_target},
    login::{Established, Login},
};
use crate::{
    gate::Gate,
    limits,
    session::{End, Session},
    tap::{self, Queue, QueueReader, Receiver, TapError, queue},
};

/// The way to the target for global requests.
pub(super) struct Global {
    to_target: Queue,
    answers: mpsc::Receiver<Message>,
    /// A request had no answer: what came later would be taken for the answer to the next.
    dead: bool,
}

impl Drop for Global {
    fn drop(&mut self) {
        // A queue without room is the session's end anyway.
        let _ = self.to_target.push(Message::Close, 0);
    }
}

impl Global {
    /// Gives the connection's global requests a tap, as soon as the session is there.
    pub(super) fn open(gate: &Arc<Gate>, login: Login) -> Self {
        let (to_target, reader) = queue(gate);
        let (answered, answers) = mpsc::channel(1);
        // The first message of an empty queue.
        let _ = to_target.push(Message::Open(ChannelType::Connection), 0);
        tokio::spawn(async move {
            if let Some(established) = login.settled().await {
                serve(&established, reader, answered).await;
            }
        });
        Self { to_target, answers, dead: false }
    }

    /// Asks the target; `None` if it gives no answer.
    pub(super) async fn ask(&mut self, request: Message, end: &End) -> Option<Message> {
        if self.dead {
            return None;
        }
        self.to_target.push(request, 0).ok()?;
        let answer = tokio::select! {
            answer = timeout(limits::REQUEST_TIMEOUT, self.answers.recv()) => answer.ok().flatten(),
            () = end.over() => None,
        };
        self.dead = answer.is_none();
        answer
    }
}

async fn serve(established: &Arc<Established>, reader: QueueReader, answers: mpsc::Sender<Message>) {
    let session = established.session.clone();
    match session.open_tap().await {
        Ok((client_end, target_end, lease)) => {
            serve_target(established, target_end, lease.clone());
            let served = session.clone();
            session.spawn(async move {
                // Declared first, dropped last: behind the tap's end.
                let _lease = lease;
                run(&served, client_end, reader, answers).await;
            });
        }
        Err(error) => {
            tracing::error!(session = %session.id(), %error, "request refused: it would not be recorded");
        }
    }
}

async fn run(session: &Session, end: tap::End, reader: QueueReader, answers: mpsc::Sender<Message>) {
    let tap::End { socket: _, sender, receiver } = end;
    if let Err(error) = tokio::try_join!(send(sender, reader, session), pass_on(receiver, answers)) {
        failed(session, &error);
    }
}

async fn pass_on(mut receiver: Receiver, answers: mpsc::Sender<Message>) -> Result<(), TapError> {
    while let Some(message) = receiver.next().await? {
        // Whoever asked may have given up; the confirmation is nobody's answer.
        if !matches!(message, Message::OpenConfirm) && answers.send(message).await.is_err() {
            break;
        }
    }
    Ok(())
}
