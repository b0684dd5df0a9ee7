//! What the agent counts, and how it is shown: Prometheus text. `docs/metrics.md` says what each means.
//!
//! Nothing of a user, a resource or a session is in a name or a label, so the number of series is fixed. The drain
//! adds once per pass; what a scrape shows of rings, spool and sessions its core published at its last tick, so that
//! a scrape asks nobody. Also what follows from it: whether the agent is alive and ready ([`health`]).

mod findings;
pub mod health;
mod lane;
mod storing;

use std::{sync::LazyLock, time::Duration};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use weir_common::{abi::ABI_VERSION, session::Outcome};
use weir_telemetry::Process;

pub use self::{
    findings::{FINDINGS_FAILURE_CLASSES, Findings},
    health::{Health, Taking},
    lane::{Lane, LaneState, SessionCounts, Tosses},
    storing::{FAILURE_CLASSES, Uploads},
};

pub(crate) type ByOne = Family<[(&'static str, &'static str); 1], Counter>;
pub(crate) type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    process: Process,
    lanes: lane::Lanes,
    /// What became of objects on their way into the store.
    pub uploads: Uploads,
    /// What sessions amount to.
    pub findings: Findings,
    /// The session reports.
    pub reports: Reports,
    /// Whether the agent is alive and ready.
    pub health: Health,
    opened: Counter,
    resumed: Counter,
    closed: ByOne,
    stored: Counter,
    refused: ByOne,
    sealed: Counter,
    uploaded: Counter,
    flush: Histogram,
    flush_failures: Counter,
    program_log: ByOne,
    stopping: Gauge,
    store_answers: Gauge,
}

/// The session reports.
#[derive(Debug)]
pub struct Reports {
    /// Reports that wait to be delivered.
    pub queued: Gauge,
    /// The most that may wait; 0 without a receiver.
    pub limit: Gauge,
    /// Reports that the receiver will never take, on the disk.
    pub rejected: Gauge,
    /// Reports that a session's opening should have queued and did not, for want of room.
    pub skipped: Counter,
    attempts: ByOne,
    took: Histogram,
}

/// What came of an attempt to deliver a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver has it.
    Delivered,
    /// The receiver will never take it.
    Rejected,
    /// The receiver does not know the agent.
    Unauthorized,
    /// Anything else.
    Failed,
}

/// The process's metrics.
#[must_use]
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::default();
        let process = Process::register(&mut registry);
        let agent = registry.sub_registry_with_prefix("weir_agent");
        let build = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("abi", ABI_VERSION.to_string())];
        agent.register("build", "The agent's version and the newest kernel ABI it speaks", Info::new(build));
        let closed = by_one(agent, "sessions_closed", "Sessions that are over, by outcome");
        begin(&closed, "outcome", &OUTCOMES);
        let refused = by_one(agent, "requests_refused", "Requests of proxies not carried out, by answer");
        begin(&refused, "answer", &["try_again", "refused"]);
        let program_log =
            by_one(agent, "program_log_lines", "Diagnostics of the BPF program, by what became of them");
        begin(&program_log, "result", &["logged", "left_out"]);
        let flush = Histogram::new(FLUSH_SECONDS);
        let help = "Time to bring what was appended to the spool onto the disk";
        agent.register_with_unit("flush", help, Unit::Seconds, flush.clone());
        Self {
            lanes: lane::Lanes::register(agent),
            uploads: Uploads::register(agent),
            findings: Findings::register(agent),
            reports: Reports::register(agent),
            health: Health::default(),
            opened: counter(agent, "sessions_opened", "Sessions registered"),
            resumed: counter(agent, "sessions_resumed", "Times a session's proxy came back to it"),
            stored: counter(agent, "sessions_stored", "Sessions of which everything is in the store"),
            sealed: counter(agent, "segments_sealed", "Segments begun"),
            uploaded: counter(agent, "segments_uploaded", "Segments in the store"),
            flush_failures: counter(agent, "flush_failures", "Flushes of the spool that failed"),
            stopping: gauge(agent, "stopping", "1 once the agent was told to stop"),
            store_answers: gauge(agent, "store_answers", "0 while the store is known not to answer, else 1"),
            closed,
            refused,
            flush,
            program_log,
            process,
            registry,
        }
    }

    /// The metrics of a ring and the core that drains it.
    #[must_use]
    pub fn lane(&self, ring: usize) -> Lane {
        self.lanes.lane(ring)
    }

    /// The core that drains this ring has ended: everything of its lane is stored.
    pub fn lane_ended(&self, ring: usize) {
        self.lanes.ended(ring);
    }

    /// A session was registered.
    pub fn session_opened(&self) {
        self.opened.inc();
    }

    /// A session's proxy came back.
    pub fn session_resumed(&self) {
        self.resumed.inc();
    }

    /// A session is over.
    pub fn session_closed(&self, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Completed => "completed",
            Outcome::Ended { .. } => "ended",
            Outcome::ConnectorLost => "connector_lost",
        };
        self.closed.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Everything about a session is in the store.
    pub fn session_stored(&self) {
        self.stored.inc();
    }

    /// A proxy was told to try again, or that it never will be.
    pub fn request_refused(&self, answer: &'static str) {
        self.refused.get_or_create(&[("answer", answer)]).inc();
    }

    /// A segment was begun.
    pub fn segment_sealed(&self) {
        self.sealed.inc();
    }

    /// A segment is in the store.
    pub fn segment_uploaded(&self) {
        self.uploaded.inc();
    }

    /// What was appended to the spool is on the disk; it took this long.
    pub fn flushed(&self, took: Duration) {
        self.flush.observe(took.as_secs_f64());
    }

    /// The spool could not be flushed.
    pub fn flush_failed(&self) {
        self.flush_failures.inc();
    }

    /// Diagnostics of the BPF program were logged, or left out because they were too many.
    pub fn program_log(&self, logged: bool, lines: u64) {
        let result = if logged { "logged" } else { "left_out" };
        self.program_log.get_or_create(&[("result", result)]).inc_by(lines);
    }

    /// The agent was told to stop.
    pub fn stopping(&self) {
        self.stopping.set(1);
        self.health.stop();
    }

    /// All of it as Prometheus reads it (OpenMetrics text).
    ///
    /// # Errors
    /// If it can't be written, which does not happen with a string.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        self.process.refresh();
        self.store_answers.set(self.health.store_answers().into());
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Reports {
    fn register(agent: &mut Registry) -> Self {
        let attempts = by_one(agent, "report_attempts", "Attempts to deliver a session report, by result");
        begin(&attempts, "result", &["delivered", "rejected", "unauthorized", "failed"]);
        let took = Histogram::new(REPORT_SECONDS);
        agent.register_with_unit(
            "report",
            "Time an attempt to deliver a report took",
            Unit::Seconds,
            took.clone(),
        );
        Self {
            queued: gauge(agent, "reports_queued", "Session reports that wait to be delivered"),
            limit: gauge(agent, "reports_limit", "The most that may wait; 0 without a receiver"),
            rejected: gauge(agent, "reports_rejected", "Session reports that the receiver will never take"),
            skipped: counter(agent, "reports_skipped", "Reports of a session's beginning left out"),
            attempts,
            took,
        }
    }

    /// There was an attempt to deliver a report, and it took this long.
    pub fn attempted(&self, result: Attempt, took: Duration) {
        let result = match result {
            Attempt::Delivered => "delivered",
            Attempt::Rejected => "rejected",
            Attempt::Unauthorized => "unauthorized",
            Attempt::Failed => "failed",
        };
        self.attempts.get_or_create(&[("result", result)]).inc();
        self.took.observe(took.as_secs_f64());
    }
}

pub(crate) fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn by_one(registry: &mut Registry, name: &str, help: &str) -> ByOne {
    let family = ByOne::default();
    registry.register(name, help, family.clone());
    family
}

/// Series are there from the start: Prometheus sees no increase in a counter that appears with its first event.
fn begin(family: &ByOne, label: &'static str, values: &[&'static str]) {
    values.iter().for_each(|value| drop(family.get_or_create(&[(label, *value)])));
}

const OUTCOMES: [&str; 3] = ["completed", "ended", "connector_lost"];

/// A good disk flushes within milliseconds; seconds mean that it is busy or breaking.
const FLUSH_SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// From a receiver next door to one that hangs until the timeout.
const REPORT_SECONDS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[cfg(test)]
mod tests;
