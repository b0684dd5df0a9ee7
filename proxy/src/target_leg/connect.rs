//! From a resource to a connection that is logged in.

use std::{io, sync::Arc, time::Duration};

use russh::{
    Disconnect, Limits, client,
    keys::{Algorithm, PrivateKeyWithHashAlg},
};
use socket2::SockRef;
use ssh_key::HashAlg;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;
use weir_common::session::{HostKeyTrust, TargetCredential, TargetPeer};

use super::{Connection, Forwardings, Handler};
use crate::{
    algorithms,
    config::{Target, Transport},
    gate::{self, Gate, GatedStream},
    limits,
    session::Session,
    tap::Routes,
};

/// Why a target could not be reached. `Display` is what the user is told; the cause is for the log.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection.
    #[error("cannot connect to {resource}: {}", tcp_reason(source))]
    Tcp {
        /// The resource's name.
        resource: String,
        /// Why.
        source: io::Error,
    },
    /// Not the key that is pinned.
    #[error(
        "the host key of {resource} is not the one this connector expects; nothing was sent. \
         Either the server was rebuilt or somebody is in between: tell your administrator"
    )]
    HostKey {
        /// The resource's name.
        resource: String,
    },
    /// SSH could not be set up.
    #[error("{resource} does not complete the SSH handshake")]
    Handshake {
        /// The resource's name.
        resource: String,
        /// Why.
        source: russh::Error,
    },
    /// The login was refused.
    #[error("{resource} does not accept this connector's login")]
    Login {
        /// The resource's name.
        resource: String,
    },
    /// Not in time.
    #[error("{resource} did not answer within {} s", after.as_secs_f32())]
    Timeout {
        /// The resource's name.
        resource: String,
        /// How long was waited.
        after: Duration,
    },
}

/// Names what a user can act on, and nothing of the network behind the connector.
fn tcp_reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::TimedOut => "timed out",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "no route to it",
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => "connection lost",
        _ => "its name or address does not work",
    }
}

/// Connects to a target and logs in.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    target: &Target,
    login: &str,
    within: Duration,
    transport: Transport,
    session: &Arc<Session>,
) -> Result<Connection, ConnectError> {
    timeout(within, connect_unbounded(target, login, transport, session))
        .await
        .map_err(|_| ConnectError::Timeout { resource: target.resource.name.clone(), after: within })?
}

async fn connect_unbounded(
    target: &Target,
    login: &str,
    transport: Transport,
    session: &Arc<Session>,
) -> Result<Connection, ConnectError> {
    let resource = || target.resource.name.clone();
    let address = (target.resource.host.as_str(), target.resource.port);
    let tcp = TcpStream::connect(address)
        .await
        .and_then(|stream| prepare(&stream).map(|()| stream))
        .map_err(|source| ConnectError::Tcp { resource: resource(), source })?;

    let peer = TargetPeer {
        address: tcp.peer_addr().map_err(|source| ConnectError::Tcp { resource: resource(), source })?,
        host_key: target.host_key.fingerprint(HashAlg::Sha256).to_string(),
        host_key_trust: HostKeyTrust::Pinned,
        credential: TargetCredential::PrivateKey,
    };
    let gate = Gate::new();
    let (routes, forwardings) = (Arc::new(Routes::default()), Arc::new(Forwardings::default()));
    let (lost, host_key_refused) = (CancellationToken::new(), CancellationToken::new());
    let handler = Handler {
        expected_host_key: target.host_key.clone(),
        host_key_refused: host_key_refused.clone(),
        routes: routes.clone(),
        forwardings: forwardings.clone(),
        gate: gate.clone(),
        lost: lost.clone(),
        session: session.clone(),
    };
    let failed = |source: russh::Error| {
        if host_key_refused.is_cancelled() {
            ConnectError::HostKey { resource: resource() }
        } else {
            ConnectError::Handshake { resource: resource(), source }
        }
    };
    let stream = GatedStream::new(tcp, gate.clone());
    let mut handle =
        client::connect_stream(Arc::new(config(transport)), stream, handler).await.map_err(failed)?;
    let hash = match target.private_key.algorithm() {
        Algorithm::Rsa { .. } => handle.best_supported_rsa_hash().await.map_err(failed)?.flatten(),
        _ => None,
    };
    let key = PrivateKeyWithHashAlg::new(target.private_key.clone(), hash);
    if !handle.authenticate_publickey(login, key).await.map_err(failed)?.success() {
        // It may hang up by itself after a refused login.
        let _ = handle.disconnect(Disconnect::ByApplication, "", "").await;
        return Err(ConnectError::Login { resource: resource() });
    }
    gate::tend(&gate, session.end());
    Ok(Connection { handle, routes, forwardings, gate, lost, peer })
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // sshd sends two small packets before it sets TCP_NODELAY itself; a delayed ACK would cost 40 ms here.
    SockRef::from(stream).set_tcp_quickack(true)
}

fn config(transport: Transport) -> client::Config {
    let Transport { rekey_bytes, rekey_after, keepalive } = transport;
    client::Config {
        window_size: limits::WINDOW_BYTES,
        channel_buffer_size: 1,
        limits: Limits::new(rekey_bytes, rekey_bytes, rekey_after),
        maximum_packet_size: limits::PACKET_BYTES,
        keepalive_interval: Some(keepalive),
        keepalive_max: limits::TARGET_KEEPALIVES,
        preferred: algorithms::for_targets(),
        ..Default::default()
    }
}
