//! One control connection: requests in, replies out, in order.
//!
//! A request that is malformed ends the connection and nothing else. Whatever way it ends, the core hears of
//! it.

use std::{io, os::fd::OwnedFd, time::Duration};

use tokio::time::timeout;
use tokio_seqpacket::{UCred, UnixSeqpacket};
use tracing::{debug, warn};
use weir_common::{
    abi::{ABI_VERSION, OLDEST_ABI_VERSION},
    control::{self, Reply, Request},
    session::SessionId,
};

use super::message::{ReceiveError, Received, receive};
use crate::{core::Ask, lanes::Connection};

/// How long a peer may take to read a reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connection ended before its peer ended it.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("it did not open a session within {0:?}")]
    NotOpened(Duration),
    #[error("the proxy speaks tap ABI {proxy}, this agent {ABI_VERSION}; use versions that go together")]
    Abi { proxy: u16 },
    #[error("its peer does not read replies")]
    NotRead,
    #[error("a reply could not be sent: {0}")]
    Reply(#[source] io::Error),
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    socket: UnixSeqpacket,
    peer: UCred,
    mut connection: Connection,
    open_timeout: Duration,
) {
    let id = connection.id();
    let (pid, uid) = (peer.pid(), peer.uid());
    let mut session = None;
    let ended = converse(&socket, &mut connection, open_timeout, &mut session).await;
    let session = session.map(tracing::field::display);
    match ended {
        Ok(()) => debug!(?id, session, pid, uid, "control connection ended"),
        Err(error) => {
            warn!(?id, session, pid, uid, %error, "ending a control connection");
            // The peer may be gone, and it is told only what it did itself.
            let _ = reply(&socket, &Reply::Refused { reason: error.to_string() }).await;
        }
    }
    drop(socket);
    connection.end().await;
}

async fn converse(
    socket: &UnixSeqpacket,
    connection: &mut Connection,
    open_timeout: Duration,
    session: &mut Option<SessionId>,
) -> Result<(), ConnectionError> {
    let first = timeout(open_timeout, receive(socket)).await;
    let mut next = first.map_err(|_| ConnectionError::NotOpened(open_timeout))??;
    while let Some(received) = next {
        if let Request::Open { meta, .. } = &received.request {
            *session = Some(meta.session_id);
        }
        let answer = connection.ask(ask(received)?).await;
        reply(socket, &answer).await?;
        next = receive(socket).await?;
    }
    Ok(())
}

fn ask(received: Received) -> Result<Ask, ConnectionError> {
    let Received { request, descriptors } = received;
    match request {
        Request::Open { abi, resume, meta } if may_open(abi, resume) => Ok(Ask::Open { resume, meta }),
        Request::Open { abi, .. } => Err(ConnectionError::Abi { proxy: abi }),
        Request::Connected { target } => Ok(Ask::Connected { target }),
        Request::Arm { channel } => {
            let found = descriptors.len();
            let [client, target] = <[OwnedFd; control::ARM_DESCRIPTORS]>::try_from(descriptors)
                .map_err(|_| ReceiveError::Descriptors { expected: control::ARM_DESCRIPTORS, found })?;
            Ok(Ask::Arm { channel, client, target })
        }
        Request::Disarm { channel } => Ok(Ask::Disarm { channel }),
        Request::Freeze => Ok(Ask::Freeze),
        Request::Close { outcome } => Ok(Ask::Close { outcome }),
    }
}

/// Whether a proxy of this ABI version may: a session that was begun under an older one comes to its end under it.
fn may_open(abi: u16, resume: bool) -> bool {
    abi == ABI_VERSION || resume && (OLDEST_ABI_VERSION..ABI_VERSION).contains(&abi)
}

async fn reply(socket: &UnixSeqpacket, reply: &Reply) -> Result<(), ConnectionError> {
    let bytes = control::encode(reply).map_err(ReceiveError::from)?;
    match timeout(REPLY_TIMEOUT, socket.send(&bytes)).await {
        Ok(sent) => sent.map(drop).map_err(ConnectionError::Reply),
        Err(_) => Err(ConnectionError::NotRead),
    }
}
