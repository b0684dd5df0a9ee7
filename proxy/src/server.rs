//! Accepts connections from users, up to the configured number, until told to stop.

use std::{io, sync::Arc};

use tokio::{net::TcpListener, sync::Semaphore, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::client_leg::{self, Shared};

/// Serves until `stop` is cancelled; returns when every connection has ended.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(shared.config.max_connections));
    let strangers = Arc::new(Semaphore::new(shared.config.max_unauthenticated));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                if !is_peers_fault(&error) {
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let Ok(stranger) = strangers.clone().try_acquire_owned() else {
            let limit = shared.config.max_unauthenticated;
            tracing::warn!(%peer, limit, "connection refused: max_unauthenticated reached");
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%peer, limit = shared.config.max_connections, "connection refused: max_connections reached");
            continue;
        };
        let Some(stranger) = shared.sources.admit(peer.ip(), stranger) else { continue };
        let shared = shared.clone();
        connections.spawn(async move {
            client_leg::serve(shared, stream, peer, stranger).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Whether the next `accept` may work at once; out of descriptors it will not.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
