//! One channel on the target: frames in, SSH out.

use std::{sync::Arc, time::Duration};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Pty as PtyMode, Sig,
    client::{ChannelOpenHandle, Msg},
};
use tokio_util::sync::CancellationToken;
use weir_common::frame::{ChannelType, Direction, Message, OpenFailure, Originator, Pty, X11Request};

use super::{Connection, forwarding::Forwardings, global};
use crate::{
    session::{Cause, Offer, Session},
    tap::{self, Confirmed, QueueReader, Receiver, Routes, TapError, queue},
};

/// Why a channel ended other than by being closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error(transparent)]
    Tap(#[from] TapError),
    #[error("the target's connection failed: {0}")]
    Ssh(#[from] russh::Error),
    #[error("a frame on the tap means nothing where it came")]
    NotOpened,
}

impl ChannelError {
    /// The client leg is gone: the channel's end, and no failure.
    pub(super) fn is_hangup(&self) -> bool {
        matches!(self, Self::Tap(TapError::Closed))
    }

    /// What kind of end that is for the session.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Tap(TapError::Stalled { .. }) => Cause::Stalled,
            Self::Tap(_) | Self::NotOpened => Cause::Other,
            Self::Ssh(_) => Cause::TargetLost,
        }
    }

    /// What the user is told.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Tap(error @ TapError::Stalled { .. }) => format!("{error}; the session was closed"),
            Self::Tap(_) | Self::NotOpened => "the connector failed; the session was closed".to_owned(),
            Self::Ssh(_) => "the connection to the server was lost".to_owned(),
        }
    }
}

/// What a channel on the target is made of besides its russh half and its end of the tap.
pub(super) struct Parts {
    /// What the target says.
    pub(super) reader: QueueReader,
    /// Cancelled when the target has closed the channel.
    pub(super) closed: CancellationToken,
    pub(super) routes: Arc<Routes<ChannelId>>,
    /// Cancelled when the target is gone.
    pub(super) lost: CancellationToken,
    pub(super) session: Arc<Session>,
}

/// Serves a tap whose channel the client asks for.
pub(super) async fn serve(
    connection: &Connection,
    end: tap::End,
    stall_timeout: Duration,
) -> Result<(), ChannelError> {
    let tap::End { socket: _, sender, mut receiver } = end;
    let channel_type = match receiver.next().await? {
        Some(Message::Open(ChannelType::Connection)) => {
            return global::serve(connection, receiver, sender, stall_timeout).await;
        }
        Some(Message::Open(channel_type)) if channel_type.direction() == Direction::ClientToTarget => {
            channel_type
        }
        Some(_) => return Err(ChannelError::NotOpened),
        None => return Ok(()),
    };
    let (channel, (reader, closed)) = match open(connection, channel_type).await {
        Ok(opened) => opened,
        Err(failure) => {
            let (replies, reader) = queue(&connection.gate);
            let _ = replies.push(Message::OpenFailure(failure), 0);
            drop(replies);
            return Ok(sender.run(reader, stall_timeout).await?);
        }
    };
    let id = channel.id();
    let (routes, lost) = (connection.routes.clone(), connection.lost.clone());
    // Dropping the read half keeps russh from waiting on a queue that nobody empties; the handler has it all.
    let (_, write) = channel.split();
    let to_target = obey(receiver, write, closed, Some(connection.forwardings.clone()));
    run(Side { id, routes, lost, reader, sender, stall_timeout }, to_target).await
}

/// Both directions of a channel.
struct Side {
    id: ChannelId,
    routes: Arc<Routes<ChannelId>>,
    lost: CancellationToken,
    reader: QueueReader,
    sender: tap::Sender,
    stall_timeout: Duration,
}

async fn run(
    side: Side,
    to_target: impl Future<Output = Result<(), ChannelError>>,
) -> Result<(), ChannelError> {
    let Side { id, routes, lost, reader, sender, stall_timeout } = side;
    let to_target = async {
        let result = to_target.await;
        routes.remove(&id);
        result
    };
    let to_client = sender.run(reader, stall_timeout);
    tokio::pin!(to_target, to_client);
    tokio::select! {
        result = &mut to_target => { result?; to_client.await?; }
        result = &mut to_client => {
            result?;
            // The target closed the channel: the client's Close follows, unless the connection is gone as a whole.
            tokio::select! {
                result = to_target => result?,
                () = lost.cancelled() => {}
            }
        }
    }
    Ok(())
}

/// Opens a channel on the target.
async fn open(
    connection: &Connection,
    channel_type: ChannelType,
) -> Result<(Channel<Msg>, Confirmed), OpenFailure> {
    let lost = || OpenFailure {
        code: CONNECT_FAILED,
        description: "the connection to the server was lost".to_owned(),
    };
    let handle = &connection.handle;
    let opened = match channel_type {
        ChannelType::DirectTcpip { to, originator } => {
            let Originator { address, port } = originator;
            handle.channel_open_direct_tcpip(to.host, to.port, address, port).await
        }
        ChannelType::DirectStreamlocal { path } => handle.channel_open_direct_streamlocal(path).await,
        _ => handle.channel_open_session().await,
    };
    match opened {
        Ok(channel) => {
            let confirmed = connection.routes.confirmed(&channel.id()).await.ok_or_else(lost)?;
            Ok((channel, confirmed))
        }
        Err(russh::Error::ChannelOpenFailure(failure)) => Err(OpenFailure {
            code: failure.code(),
            description: "the server refused the channel".to_owned(),
        }),
        Err(_) => Err(lost()),
    }
}

/// Serves a channel that the target asks for: has the client leg open it, then goes on as with any other.
pub(super) async fn take_up(parts: Parts, channel: Channel<Msg>, reply: ChannelOpenHandle) {
    let (session, routes, id) = (parts.session.clone(), parts.routes.clone(), channel.id());
    let (client_end, target_end, lease) = match session.open_tap().await {
        Ok(ends) => ends,
        Err(error) => {
            tracing::error!(session = %session.id(), %error, "channel refused: it would not be recorded");
            routes.remove(&id);
            return reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
    };
    if session.offer(Offer { end: client_end, lease: lease.clone() }).await.is_err() {
        routes.remove(&id);
        return reply.reject(ChannelOpenFailure::ConnectFailed).await;
    }
    let Parts { reader, closed, routes, lost, session: _ } = parts;
    let tap::End { socket: _, sender, receiver } = target_end;
    let side = Side { id, routes, lost, reader, sender, stall_timeout: session.stall_timeout() };
    let served = session.clone();
    session.spawn(async move {
        let _lease = lease;
        report(&served, run(side, confirm_and_obey(receiver, channel, reply, closed)).await);
    });
}

/// Answers the target as the client did, then does what the frames say.
async fn confirm_and_obey(
    mut receiver: Receiver,
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
    closed: CancellationToken,
) -> Result<(), ChannelError> {
    match receiver.next().await {
        Ok(Some(Message::OpenConfirm)) => {
            let (_, write) = channel.split();
            reply.accept().await;
            obey(receiver, write, closed, None).await
        }
        Ok(Some(Message::OpenFailure(failure))) => {
            let OpenFailure { code, description: reason } = failure;
            reply.reject(ChannelOpenFailure::Other { code, reason }).await;
            Ok(())
        }
        other => {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            match other {
                Ok(Some(_)) => Err(ChannelError::NotOpened),
                Ok(None) => Err(TapError::Closed.into()),
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// Ends the session if a channel of it failed.
pub(super) fn report(session: &Session, result: Result<(), ChannelError>) {
    if let Err(error) = result
        && !error.is_hangup()
    {
        tracing::warn!(session = %session.id(), %error, "target leg: channel ended");
        session.end().because_of(error.cause(), error.reason());
    }
}

/// RFC 4254 section 5.1.
const CONNECT_FAILED: u32 = 2;

/// Does what the frames say until they say `Close`, or the client leg or the target's channel is gone.
async fn obey(
    mut receiver: Receiver,
    channel: ChannelWriteHalf<Msg>,
    closed: CancellationToken,
    forwardings: Option<Arc<Forwardings>>,
) -> Result<(), ChannelError> {
    while let Some(message) = receiver.next().await? {
        match message {
            Message::Stdin(data) => tokio::select! {
                biased;
                () = closed.cancelled() => break,
                sent = channel.data_bytes(data) => sent?,
            },
            Message::Eof => channel.eof().await?,
            Message::Close => break,
            request => ask(&channel, request, forwardings.as_deref()).await?,
        }
    }
    // The target may have closed it, or be gone.
    let _ = channel.close().await;
    Ok(())
}

/// Asks the target for something. Requests are those of a session channel that the client opened.
async fn ask(
    channel: &ChannelWriteHalf<Msg>,
    request: Message,
    forwardings: Option<&Forwardings>,
) -> Result<(), ChannelError> {
    let Some(forwardings) = forwardings else { return Err(ChannelError::NotOpened) };
    match request {
        Message::Pty(fields) => request_pty(channel, fields).await?,
        Message::Shell => channel.request_shell(true).await?,
        Message::Exec(command) => channel.exec(true, command).await?,
        Message::Subsystem(name) => channel.request_subsystem(true, name).await?,
        Message::Env(fields) => channel.set_env(true, fields.name, fields.value).await?,
        Message::WindowChange(size) => {
            channel.window_change(size.cols, size.rows, size.width_px, size.height_px).await?;
        }
        Message::Signal(name) => channel.signal(Sig::Custom(name)).await?,
        Message::AgentForward => {
            forwardings.expect_agent();
            channel.agent_forward(true).await?;
        }
        Message::X11(fields) => {
            forwardings.expect_x11();
            let X11Request { single_connection, auth_protocol, auth_cookie, screen } = fields;
            channel.request_x11(true, single_connection, auth_protocol, auth_cookie, screen).await?;
        }
        // Inbound refuses frames that may not go this way, and the rest means nothing on an open channel.
        _ => return Err(ChannelError::NotOpened),
    }
    Ok(())
}

async fn request_pty(channel: &ChannelWriteHalf<Msg>, fields: Pty) -> Result<(), russh::Error> {
    let Pty { term, size, modes } = fields;
    let modes: Vec<_> =
        modes.into_iter().filter_map(|(code, value)| Some((PtyMode::from_u8(code)?, value))).collect();
    channel.request_pty(true, &term, size.cols, size.rows, size.width_px, size.height_px, &modes).await
}
