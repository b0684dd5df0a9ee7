//! What the agent shows to machines, and the session reports.

#[path = "../support/mod.rs"]
mod support;

mod metrics;
mod readiness;
mod reports;
mod states;
