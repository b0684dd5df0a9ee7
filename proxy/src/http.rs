//! The listener for machines: `/metrics`, `/health`, `/ready`. Nothing of users or sessions is said here.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch},
    time::{Sleep, sleep, timeout},
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
    axum::serve(Bounded { listener, places: Arc::new(Semaphore::new(CONNECTIONS)) }, routes).await
}

async fn show_metrics(State(observed): State<Observed>) -> impl IntoResponse {
    let text =
        metrics().text(observed.connections.counts()).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok::<_, StatusCode>(([(CONTENT_TYPE, OPEN_METRICS)], text))
}

async fn ready(State(observed): State<Observed>) -> impl IntoResponse {
    match observed.not_ready().await {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

/// A listener whose connections are few and short, so that nobody can take descriptors from the sessions.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        loop {
            // It fails when the semaphore is closed, which this one never is.
            let Ok(place) = self.places.clone().acquire_owned().await else { continue };
            // Pauses by itself when there are no descriptors left.
            let (stream, peer) = Listener::accept(&mut self.listener).await;
            return (Brief { stream, over: Box::pin(sleep(CONNECTION_TIME)), _place: place }, peer);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct Brief {
    stream: TcpStream,
    over: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Brief {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.over.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Brief {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Brief {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connections at once: several scrapers, probes and a person.
const CONNECTIONS: usize = 32;

/// How long one may last: longer than any scrape, and no longer than a probe may be kept waiting by connections that say
/// nothing. A scraper that keeps its connection makes a new one.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Longer than the probes of several load balancers are apart, shorter than anyone minds.
const AGENT_ASKED_AGAIN: Duration = Duration::from_secs(1);

const AGENT_PATIENCE: Duration = Duration::from_secs(1);
