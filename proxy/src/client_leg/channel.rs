//! One channel of the user's client: opened through its tap, then frames in, SSH out. The client asks for most
//! channels; those of a forwarding the target asks for.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Sig,
    server::{ChannelOpenHandle, Handle, Msg},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use weir_common::frame::{ChannelType, FrameError, Message, OpenFailure, TcpAddress};

use super::login::Established;
use crate::{
    gate::Gate,
    limits::{self, EnvironmentBudget},
    session::{Cause, Lease, Offer, Offers, Session},
    tap::{self, QueueReader, Receiver, Routes, TapError, queue},
};

/// What happens when the target has answered a request.
pub(super) enum Reply {
    /// The callback that asked is waiting.
    Wait(oneshot::Sender<bool>),
    /// The answer is passed on, if the client wanted one.
    Relay,
}

/// The requests of a channel that the target has not answered yet, oldest first (RFC 4254 section 5.4: answers
/// come in the order of the requests).
#[derive(Clone)]
pub(super) struct Replies(Arc<Mutex<Option<VecDeque<Reply>>>>);

impl Replies {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(VecDeque::new()))))
    }

    /// Notes a request. If nobody will answer any more it is dropped, and who waits for it hears so.
    pub(super) fn expect(&self, reply: Reply) {
        if let Some(replies) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            replies.push_back(reply);
        }
    }

    fn next(&self) -> Option<Reply> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.pop_front()
    }

    /// Nobody will answer any more.
    fn abandon(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What the handler keeps of a channel.
#[derive(Clone)]
pub(super) struct ClientChannel {
    pub(super) replies: Replies,
    /// What it has set in its environment.
    pub(super) environment: Arc<EnvironmentBudget>,
    /// Whether the client has said that it sends no more data.
    pub(super) client_eof: Arc<AtomicBool>,
    /// Whether the client was told that the target sends no more data.
    pub(super) target_eof: Arc<AtomicBool>,
    /// Cancelled when the client was told how the program ended, or that the channel is closed.
    pub(super) finished: CancellationToken,
    /// Cancelled when the client has closed the channel, or is gone.
    pub(super) closed: CancellationToken,
}

impl ClientChannel {
    pub(super) fn new(closed: CancellationToken) -> Self {
        Self {
            replies: Replies::new(),
            environment: Arc::default(),
            client_eof: Arc::default(),
            target_eof: Arc::default(),
            finished: CancellationToken::new(),
            closed,
        }
    }
}

/// What the channels of a connection share.
#[derive(Clone)]
pub(super) struct Leg {
    pub(super) routes: Arc<Routes<ChannelId>>,
    pub(super) gate: Arc<Gate>,
    pub(super) handle: Handle,
}

/// A channel that the client asks for.
pub(super) struct Asked {
    pub(super) channel: Channel<Msg>,
    pub(super) reply: ChannelOpenHandle,
    /// What the client says, its request first.
    pub(super) reader: QueueReader,
    pub(super) state: ClientChannel,
    /// Whether it is a session channel, which ends with an exit status.
    pub(super) is_session: bool,
}

impl Leg {
    /// Gives a channel that the client asks for its tap, has the target open it, and starts both of its sides.
    pub(super) async fn open(self, established: &Arc<Established>, asked: Asked) {
        let Asked { channel, reply, reader, state, is_session } = asked;
        let session = established.session.clone();
        let (client_end, target_end, lease) = match session.open_tap().await {
            Ok(ends) => ends,
            Err(error) => {
                tracing::error!(session = %session.id(), %error, "channel refused: it would not be recorded");
                self.routes.remove(&channel.id());
                let reason = "the recording agent on this connector does not arm it".to_owned();
                reply.reject(ChannelOpenFailure::Other { code: RESOURCE_SHORTAGE, reason }).await;
                return;
            }
        };
        serve_target(established, target_end, lease.clone());
        let id = channel.id();
        // Dropping the read half keeps russh from waiting on a queue that nobody empties; the handler has it all.
        let (_, write) = channel.split();
        let side = Side { session: session.clone(), id, leg: self, write, state, is_session };
        session.spawn(async move {
            // Declared first, dropped last: behind the tap's end.
            let _lease = lease;
            let tap::End { socket: _, sender, receiver } = client_end;
            side.run(sender, reader, receiver, Some(reply)).await;
        });
    }

    /// Serves the channels that the target asks for.
    pub(super) async fn take_offers(self, session: Arc<Session>, mut offers: Offers) {
        while let Some(offer) = offers.recv().await {
            session.spawn(self.clone().take(session.clone(), offer));
        }
    }

    /// Has the client open a channel that the target asks for, and serves it.
    async fn take(self, session: Arc<Session>, offer: Offer) {
        let Offer { end, lease: _lease } = offer;
        let tap::End { socket: _, sender, mut receiver } = end;
        let channel_type = match receiver.next().await {
            Ok(Some(Message::Open(channel_type))) => channel_type,
            Ok(Some(other)) => return failed(&session, &FrameError::Body { kind: other.kind() }.into()),
            Ok(None) => return,
            Err(error) => return failed(&session, &error),
        };
        let asked = tokio::select! {
            asked = self.ask(channel_type) => asked,
            // The client's answer may lie behind data that waits.
            never = self.gate.seek() => match never {},
        };
        let (channel, (reader, closed)) = match asked {
            Ok(channel) => match self.routes.confirmed(&channel.id()).await {
                Some(confirmed) => (channel, confirmed),
                None => return,
            },
            Err(error) => {
                let (to_target, reader) = queue(&self.gate);
                let _ = to_target.push(Message::OpenFailure(refusal(error)), 0);
                drop(to_target);
                if let Err(error) = sender.run(reader, session.stall_timeout()).await {
                    tracing::debug!(session = %session.id(), %error, "the target did not hear that a channel was refused");
                }
                return;
            }
        };
        let id = channel.id();
        let (_, write) = channel.split();
        let side =
            Side { session, id, leg: self, write, state: ClientChannel::new(closed), is_session: false };
        side.run(sender, reader, receiver, None).await;
    }

    /// Asks the client for a channel.
    async fn ask(&self, channel_type: ChannelType) -> Result<Channel<Msg>, russh::Error> {
        let handle = &self.handle;
        match channel_type {
            ChannelType::ForwardedTcpip { listening: TcpAddress { host, port }, originator } => {
                handle.channel_open_forwarded_tcpip(host, port, originator.address, originator.port).await
            }
            ChannelType::ForwardedStreamlocal { path } => {
                handle.channel_open_forwarded_streamlocal(path).await
            }
            ChannelType::Agent => handle.channel_open_agent().await,
            ChannelType::X11 { originator } => {
                handle.channel_open_x11(originator.address, originator.port).await
            }
            ChannelType::Session
            | ChannelType::DirectTcpip { .. }
            | ChannelType::DirectStreamlocal { .. }
            | ChannelType::Connection => {
                Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited))
            }
        }
    }
}

fn refusal(error: russh::Error) -> OpenFailure {
    match error {
        russh::Error::ChannelOpenFailure(failure) => {
            OpenFailure { code: failure.code(), description: "the client refused the channel".to_owned() }
        }
        _ => OpenFailure { code: CONNECT_FAILED, description: "the client is gone".to_owned() },
    }
}

/// Has the target leg serve its end of a tap.
pub(super) fn serve_target(established: &Arc<Established>, end: tap::End, lease: Arc<Lease>) {
    let serving = established.target.clone().serve(end, established.session.clone());
    established.session.spawn(async move {
        // Declared first, dropped last: behind the tap's end.
        let _lease = lease;
        serving.await;
    });
}

/// Ends the session because one of its taps failed.
pub(super) fn failed(session: &Session, error: &TapError) {
    tracing::error!(session = %session.id(), %error, "client leg: channel ended");
    let (cause, reason) = match error {
        TapError::Stalled { .. } => (Cause::Stalled, format!("{error}; the session was closed")),
        _ => (Cause::Other, "the connector failed; the session was closed".to_owned()),
    };
    session.end().because_of(cause, reason);
}

/// Says what is in the queue; a tap whose other end is gone is the receiving side's to judge.
pub(super) async fn send(
    sender: tap::Sender,
    reader: QueueReader,
    session: &Session,
) -> Result<(), TapError> {
    match sender.run(reader, session.stall_timeout()).await {
        // The receiving side knows whether that is the target's loss or the channel's proper end.
        Err(TapError::Closed) => Ok(()),
        result => result,
    }
}

struct Side {
    session: Arc<Session>,
    id: ChannelId,
    leg: Leg,
    write: ChannelWriteHalf<Msg>,
    state: ClientChannel,
    is_session: bool,
}

/// The client's connection is gone; its owner notices by itself.
struct Gone;

impl Side {
    /// Serves both directions. `reply` is the answer that the client waits for, if it asked for the channel.
    async fn run(
        self,
        sender: tap::Sender,
        reader: QueueReader,
        mut frames: Receiver,
        reply: Option<ChannelOpenHandle>,
    ) {
        let to_client = async {
            let result = self.serve(&mut frames, reply).await;
            self.state.replies.abandon();
            self.state.finished.cancel();
            // Without its route the channel's queue closes, and the sending side ends when all of it was taken.
            let client_closed_first = !self.leg.routes.remove(&self.id);
            if !result? && !client_closed_first {
                self.session.end().because_of(Cause::TargetLost, "the connection to the server was lost");
            }
            Ok(())
        };
        if let Err(error) = tokio::try_join!(send(sender, reader, &self.session), to_client) {
            failed(&self.session, &error);
        }
    }

    /// True if the target closed the channel, false if it went away without.
    async fn serve(&self, frames: &mut Receiver, reply: Option<ChannelOpenHandle>) -> Result<bool, TapError> {
        if let Some(reply) = reply {
            match frames.next().await? {
                Some(Message::OpenConfirm) => reply.accept().await,
                Some(Message::OpenFailure(failure)) => {
                    let reason =
                        ChannelOpenFailure::Other { code: failure.code, reason: failure.description };
                    reply.reject(reason).await;
                    return Ok(true);
                }
                Some(_) | None => return Ok(false),
            }
        }
        let mut held_eof = None;
        loop {
            let message = tokio::select! {
                biased;
                message = frames.next() => message?,
                () = self.eof_grace(held_eof), if held_eof.is_some() => Some(Message::Eof),
            };
            let ended = matches!(message, Some(Message::ExitStatus(_) | Message::ExitSignal(_)));
            let delivered = match message {
                None => return Ok(false),
                Some(Message::Eof) if self.is_session && held_eof.is_none() => {
                    held_eof = Some(Instant::now() + limits::EOF_GRACE);
                    Ok(())
                }
                Some(Message::Close) => {
                    let _ = self.leg.routes.push(&self.id, Message::Close);
                    // The client may be gone.
                    let _ = self.close(held_eof.is_some()).await;
                    return Ok(true);
                }
                Some(message) => {
                    if matches!(message, Message::Eof) {
                        held_eof = None;
                    }
                    self.deliver(message).await
                }
            };
            if delivered.is_err() {
                return Ok(true);
            }
            if ended {
                self.state.finished.cancel();
            }
        }
    }

    /// Resolves when an eof that was held should wait no longer.
    ///
    /// OpenSSH closes a channel as soon as both sides have sent eof, and russh answers a close at once: an exit
    /// status that comes after it could not be delivered any more. So the target's eof waits for the exit status
    /// or the close, which follow within moments when the program has ended. A program that goes on behind its
    /// eof has it delivered after the grace; unless the client has sent its own, because then it would close.
    async fn eof_grace(&self, until: Option<Instant>) {
        if let Some(until) = until {
            sleep_until(until).await;
        }
        if self.state.client_eof.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    }

    async fn close(&self, eof_first: bool) -> Result<(), ()> {
        if eof_first {
            self.leg.handle.eof(self.id).await?;
        }
        self.leg.handle.close(self.id).await
    }

    async fn deliver(&self, message: Message) -> Result<(), Gone> {
        match message {
            Message::Stdout(data) => self.data(data, None).await,
            Message::Stderr(data) => self.data(data, Some(SSH_EXTENDED_DATA_STDERR)).await,
            Message::Eof => {
                self.state.target_eof.store(true, Ordering::Release);
                self.leg.handle.eof(self.id).await.map_err(|()| Gone)
            }
            Message::Success => {
                self.answer(true);
                Ok(())
            }
            Message::Failure => {
                self.answer(false);
                Ok(())
            }
            Message::ExitStatus(status) => {
                self.leg.handle.exit_status_request(self.id, status).await.map_err(|()| Gone)
            }
            Message::ExitSignal(fields) => {
                let signal = Sig::Custom(fields.signal);
                let request = self.leg.handle.exit_signal_request(
                    self.id,
                    signal,
                    fields.core_dumped,
                    fields.message,
                    String::new(),
                );
                request.await.map_err(|()| Gone)
            }
            // Inbound lets only what a target may say through; the rest was handled before.
            _ => Ok(()),
        }
    }

    /// Passes the target's answer to whoever asked.
    fn answer(&self, success: bool) {
        match self.state.replies.next() {
            Some(Reply::Wait(asker)) => {
                // The callback may have given up waiting.
                let _ = asker.send(success);
            }
            Some(Reply::Relay) => {
                let (handle, id) = (self.leg.handle.clone(), self.id);
                // Not waited for: russh's loop may be held by a request whose answer comes right behind this one.
                tokio::spawn(async move {
                    if success { handle.channel_success(id).await } else { handle.channel_failure(id).await }
                });
            }
            None => {}
        }
    }

    /// Sends data as the client's window allows. While there is no window, the gate is probed for the message
    /// that brings some.
    async fn data(&self, data: Bytes, extended: Option<u32>) -> Result<(), Gone> {
        let send = async {
            match extended {
                None => self.write.data_bytes(data).await,
                Some(code) => self.write.extended_data_bytes(code, data).await,
            }
        };
        tokio::select! {
            biased;
            sent = send => sent.map_err(|_| Gone),
            () = self.state.closed.cancelled() => Err(Gone),
            never = self.leg.gate.seek() => match never {},
        }
    }
}

/// RFC 4254 section 5.1.
const CONNECT_FAILED: u32 = 2;
/// RFC 4254 section 5.1.
const RESOURCE_SHORTAGE: u32 = 4;
/// RFC 4254 section 5.2.
const SSH_EXTENDED_DATA_STDERR: u32 = 1;
