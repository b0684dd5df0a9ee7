//! The listener for machines: bounded, in the clear, and without a word about users or sessions.
//!
//! Owns that nobody can take descriptors from the sessions here. Not here: what is answered, but for its form.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};

/// Serves until the process ends.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, routes: Router) -> io::Result<()> {
    let bounds = Bounds { connections: CONNECTIONS, time: CONNECTION_TIME };
    axum::serve(Bounded::new(listener, bounds), routes).await
}

/// The answer to `/metrics`: the exposition as OpenMetrics text.
#[must_use]
pub fn exposition(text: Result<String, fmt::Error>) -> Response {
    match text {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The answer to `/ready`: 503 with the reason, if there is one why not.
#[must_use]
pub fn readiness(not_ready: Option<impl fmt::Display>) -> Response {
    let (status, text) = match not_ready {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    };
    (status, text).into_response()
}

/// A listener whose connections are few and short, so that nobody can take descriptors from the sessions.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    time: Duration,
}

#[derive(Clone, Copy)]
struct Bounds {
    connections: usize,
    time: Duration,
}

impl Bounded {
    fn new(listener: TcpListener, bounds: Bounds) -> Self {
        let Bounds { connections, time } = bounds;
        Self { listener, places: Arc::new(Semaphore::new(connections)), time }
    }
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
            return (Brief { stream, over: Box::pin(sleep(self.time)), _place: place }, peer);
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn connections_are_few_and_one_that_says_nothing_makes_room_when_its_time_is_over() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let bounds = Bounds { connections: 2, time: Duration::from_millis(300) };
        let routes = Router::new().route("/health", axum::routing::get(async || "alive\n"));
        let serving = tokio::spawn(async move { axum::serve(Bounded::new(listener, bounds), routes).await });
        let begun = std::time::Instant::now();
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(TcpStream::connect(address).await.expect("a connection"));
        }
        let mut asking = TcpStream::connect(address).await.expect("the kernel takes it");
        asking
            .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .expect("sent");
        let mut answer = String::new();
        asking.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("alive\n"), "{answer}");
        assert!(begun.elapsed() >= bounds.time, "it had to wait for a place");
        for mut stream in silent {
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "hung up on");
        }
        serving.abort();
    }
}
