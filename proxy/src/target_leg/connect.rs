//! From a resource to a connection that is logged in.

use std::{sync::Arc, time::Duration};

use russh::{Disconnect, Limits, client};
use tokio::{task::spawn_blocking, time::timeout};
use tokio_util::sync::CancellationToken;
use weir_common::session::{TargetCredential, TargetPeer};

use super::{
    Connection, Forwardings, Handler, Severing, address,
    credential::{Login, Proof},
    error::{ConnectError, Failure},
    host_key::{Expectation, HostKeyCheck},
};
use crate::{
    algorithms,
    config::{Access, HostKeys, Target, Transport},
    gate::{self, Gate, GatedStream},
    limits,
    session::Session,
    tap::Routes,
};

/// Connects to a target and logs in.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    target: &Target,
    login: Login<'_>,
    within: Duration,
    transport: Transport,
    session: &Arc<Session>,
) -> Result<Connection, ConnectError> {
    let connected = timeout(within, connect_unbounded(target, login, within, transport, session)).await;
    connected
        .unwrap_or(Err(Failure::Timeout { after: within }))
        .map_err(|failure| ConnectError { resource: target.resource.name.clone(), failure })
}

/// Where a target is, and what it will take.
struct Way {
    host: String,
    proof: Proof,
    credential: TargetCredential,
}

async fn way(target: &Target, login: Login<'_>, within: Duration) -> Result<Way, Failure> {
    match &target.access {
        Access::Ssh(credential) => Ok(Way {
            host: target.resource.host.clone(),
            proof: Proof::prepare(credential, login, within)?,
            credential: credential.kind(),
        }),
        #[cfg(feature = "aws")]
        Access::Ec2(instance) => {
            let key = super::credential::one_time_key().map_err(super::credential::CredentialError::from)?;
            let address =
                instance.api.admit(&instance.id, instance.address, login.user, key.public_key()).await?;
            Ok(Way {
                host: address.to_string(),
                proof: Proof::Key(key),
                credential: TargetCredential::Ec2InstanceConnect,
            })
        }
        #[cfg(not(feature = "aws"))]
        Access::Ec2(_) => unreachable!("the configuration has none without the feature"),
    }
}

/// What is known of the target's host key, files read anew.
async fn expectation(host_keys: &HostKeys) -> Result<Expectation, Failure> {
    if host_keys.known_hosts.is_none() && host_keys.learned.is_none() {
        return Ok(Expectation::gather(host_keys)?);
    }
    let host_keys = host_keys.clone();
    let gathered = spawn_blocking(move || Expectation::gather(&host_keys)).await;
    Ok(gathered.unwrap_or_else(|panic| Err(std::io::Error::other(panic).into()))?)
}

async fn connect_unbounded(
    target: &Target,
    login: Login<'_>,
    within: Duration,
    transport: Transport,
    session: &Arc<Session>,
) -> Result<Connection, Failure> {
    let expectation = expectation(&target.host_keys).await?;
    let Way { host, proof, credential } = way(target, login, within).await?;
    let addresses = address::resolve(&host, target.resource.port).await?;
    let tcp = address::connect(&addresses).await?;
    let address = tcp.peer_addr().map_err(|source| Failure::Tcp { tried: Vec::new(), source })?;

    let gate = Severing(Gate::new());
    let (routes, forwardings) = (Arc::new(Routes::default()), Arc::new(Forwardings::default()));
    let lost = CancellationToken::new();
    let config = Arc::new(config(transport, &expectation));
    let host_key = HostKeyCheck::new(expectation);
    let handler = Handler {
        host_key: host_key.clone(),
        routes: routes.clone(),
        forwardings: forwardings.clone(),
        gate: Arc::clone(&gate),
        lost: lost.clone(),
        session: session.clone(),
    };
    let stream = GatedStream::new(tcp, Arc::clone(&gate));
    let connected = client::connect_stream(config, stream, handler).await;
    let accepted = match (connected, host_key.verdict()) {
        (_, Some(Err(refusal))) => Err(Failure::HostKey(refusal)),
        (Ok(handle), Some(Ok(accepted))) => Ok((handle, accepted)),
        (Ok(_), None) => Err(Failure::Handshake(russh::Error::UnknownKey)),
        (Err(error), _) => Err(Failure::Handshake(error)),
    };
    let (mut handle, host_key) = accepted?;
    if let Err(failure) = proof.log_in(&mut handle, login.user).await {
        // It may hang up by itself after a refused login.
        let _ = handle.disconnect(Disconnect::ByApplication, "", "").await;
        return Err(failure);
    }
    gate::tend(&gate, session.end());
    let peer = TargetPeer {
        address,
        host_key: host_key.fingerprint.to_string(),
        host_key_trust: host_key.trust,
        credential,
    };
    Ok(Connection { handle, routes, forwardings, gate, lost, peer })
}

fn config(transport: Transport, expectation: &Expectation) -> client::Config {
    let Transport { rekey_bytes, rekey_after, keepalive } = transport;
    client::Config {
        window_size: limits::FIRST_WINDOW_BYTES,
        channel_buffer_size: 1,
        limits: Limits::new(rekey_bytes, rekey_bytes, rekey_after),
        maximum_packet_size: limits::PACKET_BYTES,
        keepalive_interval: Some(keepalive),
        keepalive_max: limits::TARGET_KEEPALIVES,
        preferred: algorithms::for_target(&expectation.algorithms(), expectation.wants_certificate()),
        ..Default::default()
    }
}
