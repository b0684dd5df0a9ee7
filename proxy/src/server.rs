//! Accepts connections from users, as many as may be, until told to stop; and the end of all of them.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client_leg::{self, Shared},
    connections::Connections,
    limits,
    metrics::metrics,
    session::Cause,
};

/// Accepts until `stop` is cancelled; the listener is closed then. A connection keeps the configuration that was in
/// force when it was accepted.
pub async fn accept(
    listener: TcpListener,
    shared: watch::Receiver<Arc<Shared>>,
    connections: Connections,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
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
        metrics().connection_accepted();
        let shared = shared.borrow().clone();
        if let Some(left) = shared.sources.refused(peer.ip()) {
            metrics().connection_refused("login_failures");
            tracing::debug!(%peer, ?left, "connection refused: too many of its source's logins have failed");
            continue;
        }
        let exempt = shared.sources.is_exempt(peer.ip());
        match connections.admit(peer, shared.config.admission, exempt) {
            Ok((place, stranger)) => {
                tokio::spawn(client_leg::serve(shared, stream, peer, place, stranger));
            }
            Err(refusal) => {
                metrics().connection_refused(refusal.label());
                say_full(stream);
                tracing::warn!(%peer, limit = %refusal, "connection refused: the limit is reached");
            }
        }
    }
}

/// Lets sessions go on for the grace period, then ends what is left, with the reason; returns when the agent has
/// heard of every end, or after [`limits::SHUTDOWN_PATIENCE`].
pub async fn drain(connections: &Connections, grace: Duration) {
    let over = sleep_until(Instant::now() + grace);
    tokio::pin!(over);
    let mut report = interval(limits::SHUTDOWN_REPORT);
    loop {
        tokio::select! {
            // Who has not logged in has nothing to lose, and is not waited for.
            () = connections.until(|counts| counts.logged_in() == 0) => break,
            () = &mut over => break,
            _ = report.tick() => {
                tracing::info!(sessions = connections.counts().logged_in(), "stopping: sessions are still running");
            }
        }
    }
    let left = connections.counts();
    if left.logged_in() > 0 {
        tracing::warn!(sessions = left.logged_in(), "the grace period is over: the sessions are ended");
    }
    connections.end_all(Cause::ShuttingDown, SHUTTING_DOWN);
    let ended = connections.until(|counts| counts.connections == 0);
    if timeout(limits::SHUTDOWN_PATIENCE, ended).await.is_err() {
        let left = connections.counts().connections;
        tracing::error!(connections = left, "stopping although not every session has come to its end");
    }
}

/// Tells who is refused why, in a line before the version that never comes (RFC 4253 section 4.2); `ssh -v` shows it.
fn say_full(stream: TcpStream) {
    // The socket is fresh and does not block: it goes out at once, or not at all.
    let _ = stream.into_std().and_then(|mut stream| stream.write_all(FULL));
}

/// Whether the next `accept` may work at once; out of descriptors it will not.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const FULL: &[u8] = b"weir: this connector has too many connections; try again in a moment\r\n";

const SHUTTING_DOWN: &str =
    "the connector is shutting down; the session was closed. Connect again in a moment";
