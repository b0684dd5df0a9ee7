//! The listener for machines: `/metrics`, `/health`, `/ready`. Nothing of users or sessions is said here.

use std::{
    io,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use crate::metrics::metrics;

/// Serves until the process ends. A store that fails makes the agent unready after `store_patience`.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, store_patience: Duration) -> io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(async || weir_telemetry::exposition(metrics().text())))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .with_state(store_patience);
    weir_telemetry::serve(listener, routes).await
}

async fn health() -> Response {
    match metrics().not_alive(Instant::now()) {
        None => "alive\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not alive: {reason}\n")).into_response(),
    }
}

async fn ready(State(store_patience): State<Duration>) -> Response {
    weir_telemetry::readiness(metrics().not_ready(Instant::now(), store_patience))
}
