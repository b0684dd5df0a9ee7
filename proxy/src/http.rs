//! The listener for machines: `/metrics`, `/health`, `/ready`. Nothing of users or sessions is said here.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, extract::State, response::Response, routing::get};
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
    time::timeout,
};
use tokio_seqpacket::UnixSeqpacket;
use tokio_util::sync::CancellationToken;

use crate::{client_leg::Shared, connections::Connections, metrics::metrics};

/// What the answers come from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The configuration in force.
    pub shared: watch::Receiver<Arc<Shared>>,
    /// Who is connected.
    pub connections: Connections,
    /// Cancelled when the proxy was told to stop.
    pub stopping: CancellationToken,
    agent: Arc<Mutex<Option<(Instant, bool)>>>,
}

impl Observed {
    /// Observes a proxy.
    #[must_use]
    pub fn new(
        shared: watch::Receiver<Arc<Shared>>,
        connections: Connections,
        stopping: CancellationToken,
    ) -> Self {
        Self { shared, connections, stopping, agent: Arc::default() }
    }

    /// Why no new session should come here, if it should not.
    async fn not_ready(&self) -> Option<&'static str> {
        if self.stopping.is_cancelled() {
            return Some("stopping");
        }
        let shared = self.shared.borrow().clone();
        if self.connections.counts().connections >= shared.config.admission.max_connections {
            return Some("max_connections reached");
        }
        (!self.agent_answers(&shared).await).then_some("the agent does not answer")
    }

    /// Whether an agent takes connections. Asked once for all who want to know at the same time, and not again for
    /// a while.
    async fn agent_answers(&self, shared: &Shared) -> bool {
        let mut known = self.agent.lock().await;
        if let Some((asked, answer)) = *known
            && asked.elapsed() < AGENT_ASKED_AGAIN
        {
            return answer;
        }
        let connecting = UnixSeqpacket::connect(&shared.config.agent.socket);
        let answer = matches!(timeout(AGENT_PATIENCE, connecting).await, Ok(Ok(_)));
        *known = Some((Instant::now(), answer));
        answer
    }
}

/// Serves until the process ends.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, observed: Observed) -> io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/health", get(async || "alive\n"))
        .route("/ready", get(ready))
        .with_state(observed);
    weir_telemetry::serve(listener, routes).await
}

async fn show_metrics(State(observed): State<Observed>) -> Response {
    weir_telemetry::exposition(metrics().text(observed.connections.counts()))
}

async fn ready(State(observed): State<Observed>) -> Response {
    weir_telemetry::readiness(observed.not_ready().await)
}

/// Longer than the probes of several load balancers are apart, shorter than anyone minds.
const AGENT_ASKED_AGAIN: Duration = Duration::from_secs(1);

const AGENT_PATIENCE: Duration = Duration::from_secs(1);
