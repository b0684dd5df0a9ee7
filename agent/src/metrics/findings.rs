//! What sessions amount to.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{ByOne, begin, by_one, counter};

/// Why a session has no findings.
pub const FINDINGS_FAILURE_CLASSES: [&str; 4] = ["store", "unreadable", "too_long", "panicked"];

/// What sessions amount to.
#[derive(Debug)]
pub struct Findings {
    made: Counter,
    failures: ByOne,
    took: Histogram,
}

impl Findings {
    pub(super) fn register(agent: &mut Registry) -> Self {
        let failures = by_one(agent, "findings_failures", "Sessions stored without findings, by class");
        begin(&failures, "class", &FINDINGS_FAILURE_CLASSES);
        let took = Histogram::new(FINDINGS_SECONDS);
        let help = "Time to make a session's findings";
        agent.register_with_unit("findings", help, Unit::Seconds, took.clone());
        let made = counter(agent, "findings_made", "Times that the findings of a session were made");
        Self { made, failures, took }
    }

    /// A session's findings were made, in this time.
    pub fn made(&self, took: Duration) {
        self.made.inc();
        self.took.observe(took.as_secs_f64());
    }

    /// A session is stored without findings, for a reason of this class.
    pub fn failed(&self, class: &'static str) {
        self.failures.get_or_create(&[("class", class)]).inc();
    }
}

/// From a session of one command, whose segment is at hand, to gigabytes from a bucket.
const FINDINGS_SECONDS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0];
