//! From a resource to a connection that is logged in.

use std::{sync::Arc, time::Duration};

use russh::{Disconnect, client};
use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};
use tokio_util::sync::CancellationToken;
use weir_common::session::{TargetCredential, TargetPeer};

use super::{
    Connection, Handler, Slot, address,
    credential::{Login, Proof},
    error::{ConnectError, Failure},
    host_key::{Expectation, HostKeyCheck},
};
use crate::{
    algorithms,
    config::{Access, Target},
    gate::{self, Gate, GatedStream},
    limits,
    session::End,
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
    end: End,
) -> Result<Connection, ConnectError> {
    let connected = timeout(within, connect_unbounded(target, login, within, end)).await;
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

async fn connect_unbounded(
    target: &Target,
    login: Login<'_>,
    within: Duration,
    end: End,
) -> Result<Connection, Failure> {
    let host_keys = target.host_keys.clone();
    let expectation = spawn_blocking(move || Expectation::gather(&host_keys))
        .await
        .unwrap_or_else(|panic| Err(std::io::Error::other(panic).into()))?;
    let Way { host, proof, credential } = way(target, login, within).await?;
    let addresses = address::resolve(&host, target.resource.port).await?;
    let tcp = address::connect(&addresses).await?;
    let address = tcp.peer_addr().map_err(|source| Failure::Tcp { tried: Vec::new(), source })?;

    let gate = Gate::new();
    let (routes, opening) = (Arc::new(Routes::default()), Arc::new(Slot::default()));
    let lost = CancellationToken::new();
    let config = Arc::new(config(&expectation));
    let host_key = HostKeyCheck::new(expectation);
    let handler = Handler {
        host_key: host_key.clone(),
        routes: routes.clone(),
        opening: opening.clone(),
        lost: lost.clone(),
        end: end.clone(),
    };
    let stream = GatedStream::new(tcp, gate.clone());
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
    gate::tend(&gate, &end);
    let peer = TargetPeer {
        address,
        host_key: host_key.fingerprint.to_string(),
        host_key_trust: host_key.trust,
        credential,
    };
    Ok(Connection { handle, routes, open_turn: Mutex::new(()), opening, gate, lost, peer })
}

fn config(expectation: &Expectation) -> client::Config {
    client::Config {
        window_size: limits::WINDOW_BYTES,
        channel_buffer_size: 1,
        keepalive_interval: Some(limits::TARGET_KEEPALIVE.0),
        keepalive_max: limits::TARGET_KEEPALIVE.1,
        preferred: algorithms::for_target(&expectation.algorithms(), expectation.wants_certificate()),
        ..Default::default()
    }
}
