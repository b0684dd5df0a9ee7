//! One channel on the target: frames in, SSH out.

use std::time::Duration;

use russh::{Channel, ChannelWriteHalf, Pty as PtyMode, Sig, client::Msg};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use weir_common::frame::{ChannelType, Message, OpenFailure, Pty};

use super::{Connection, handler::Opening};
use crate::{
    session::Cause,
    tap::{self, Queue, Receiver, TapError, queue},
};

/// Why a channel ended other than by being closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error(transparent)]
    Tap(#[from] TapError),
    #[error("the target's connection failed: {0}")]
    Ssh(#[from] russh::Error),
    #[error("the first frame on the tap does not open a channel")]
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

pub(super) async fn serve(
    connection: &Connection,
    end: tap::End,
    stall_timeout: Duration,
) -> Result<(), ChannelError> {
    let tap::End { socket: _, sender, mut receiver } = end;
    let (replies, reader) = queue(&connection.gate);
    match receiver.next().await? {
        Some(Message::Open(ChannelType::Session)) => {}
        Some(_) => return Err(ChannelError::NotOpened),
        None => return Ok(()),
    }
    let (channel, closed) = match open(connection, &replies).await {
        Ok(opened) => opened,
        Err(failure) => {
            let _ = replies.push(Message::OpenFailure(failure), 0);
            drop(replies);
            return Ok(sender.run(reader, stall_timeout).await?);
        }
    };
    // From here on only the route keeps the queue open.
    drop(replies);
    let id = channel.id();
    // Dropping the read half keeps russh from waiting on a queue that nobody empties; the handler has it all.
    let (_, write) = channel.split();

    let to_target = async {
        let result = obey(&mut receiver, &write, &closed).await;
        connection.routes.remove(&id);
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
                () = connection.lost() => {}
            }
        }
    }
    Ok(())
}

/// Opens a channel on the target. Its messages go to `replies`; the token is cancelled when the target closes it.
async fn open(
    connection: &Connection,
    replies: &Queue,
) -> Result<(Channel<Msg>, CancellationToken), OpenFailure> {
    let lost = || OpenFailure {
        code: CONNECT_FAILED,
        description: "the connection to the server was lost".to_owned(),
    };
    let _turn = connection.open_turn.lock().await;
    let (closed, opened) = oneshot::channel();
    connection.opening.put(Opening { queue: replies.clone(), closed });
    match connection.handle.channel_open_session().await {
        Ok(channel) => Ok((channel, opened.await.map_err(|_| lost())?)),
        Err(error) => {
            connection.opening.take();
            Err(match error {
                russh::Error::ChannelOpenFailure(failure) => OpenFailure {
                    code: failure.code(),
                    description: "the server refused the channel".to_owned(),
                },
                _ => lost(),
            })
        }
    }
}

/// RFC 4254 section 5.1.
const CONNECT_FAILED: u32 = 2;

/// Does what the frames say until they say `Close`, or the client leg or the target's channel is gone.
async fn obey(
    receiver: &mut Receiver,
    channel: &ChannelWriteHalf<Msg>,
    closed: &CancellationToken,
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
            Message::Pty(fields) => request_pty(channel, fields).await?,
            Message::Shell => channel.request_shell(true).await?,
            Message::Exec(command) => channel.exec(true, command).await?,
            Message::Subsystem(name) => channel.request_subsystem(true, name).await?,
            Message::Env(fields) => channel.set_env(true, fields.name, fields.value).await?,
            Message::WindowChange(size) => {
                channel.window_change(size.cols, size.rows, size.width_px, size.height_px).await?;
            }
            Message::Signal(name) => channel.signal(Sig::Custom(name)).await?,
            // Inbound refuses frames that may not go this way, and a second Open means nothing to a target.
            Message::Open(_)
            | Message::OpenConfirm
            | Message::OpenFailure(_)
            | Message::Stdout(_)
            | Message::Stderr(_)
            | Message::Success
            | Message::Failure
            | Message::ExitStatus(_)
            | Message::PortBound(_)
            | Message::AgentForward
            | Message::X11(_)
            | Message::TcpipForward(_)
            | Message::CancelTcpipForward(_)
            | Message::StreamlocalForward(_)
            | Message::CancelStreamlocalForward(_)
            | Message::ExitSignal(_) => return Err(ChannelError::NotOpened),
        }
    }
    // The target may have closed it, or be gone.
    let _ = channel.close().await;
    Ok(())
}

async fn request_pty(channel: &ChannelWriteHalf<Msg>, fields: Pty) -> Result<(), russh::Error> {
    let Pty { term, size, modes } = fields;
    let modes: Vec<_> =
        modes.into_iter().filter_map(|(code, value)| Some((PtyMode::from_u8(code)?, value))).collect();
    channel.request_pty(true, &term, size.cols, size.rows, size.width_px, size.height_px, &modes).await
}
