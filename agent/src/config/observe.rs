//! What the agent shows to machines, and when it calls itself ready.

use std::{net::SocketAddr, time::Duration};

/// What the agent shows to machines.
#[derive(Clone, Copy, Debug)]
pub struct ObserveConfig {
    /// Where metrics, health and readiness are served; none for nowhere.
    pub listen: Option<SocketAddr>,
    /// How long the store may fail before the agent is not ready.
    pub store_patience: Duration,
    /// When nothing has reached the store for this long, it is looked at.
    pub store_idle: Duration,
}
