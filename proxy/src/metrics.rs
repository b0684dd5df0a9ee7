//! What the proxy counts, and how it is shown: Prometheus text. `docs/metrics.md` says what each means.
//!
//! Nothing of a user, a resource or a session is in a name or a label, so the number of series is fixed. What the
//! hot path touches are relaxed atomics that were looked up before.

use std::sync::LazyLock;

use prometheus_client::{
    encoding::text::encode,
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use weir_common::frame::Direction;
use weir_telemetry::Process;

use crate::{
    connections::{Counts, Refusal},
    session::Cause,
};

pub use prometheus_client::metrics::counter::Counter;

type ByOne = Family<[(&'static str, &'static str); 1], Counter>;
type ByTwo = Family<[(&'static str, &'static str); 2], Counter>;
type Parts = Family<[(&'static str, &'static str); 1], Histogram, fn() -> Histogram>;

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    accepted: Counter,
    refused: ByOne,
    open: Gauge,
    unauthenticated: Gauge,
    logins: ByTwo,
    sessions: Gauge,
    opened: Counter,
    ended: ByOne,
    sessions_refused: ByOne,
    setup: Parts,
    channels: ByOne,
    channels_refused: ByOne,
    to_target: Counter,
    to_client: Counter,
    held: Gauge,
    resent: Counter,
    stalled: Gauge,
    agent_reconnects: Counter,
    reloads: ByOne,
    stopping: Gauge,
    process: Process,
}

/// The process's metrics.
#[must_use]
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

/// A direction of a tap that is being sent again what was tossed; counted until it is dropped.
#[derive(Debug)]
pub struct Stalled(());

impl Drop for Stalled {
    fn drop(&mut self) {
        metrics().stalled.dec();
    }
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::default();
        let process = Process::register(&mut registry);
        let proxy = registry.sub_registry_with_prefix("weir_proxy");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            proxy.register(name, help, counter.clone());
            counter
        };
        let accepted = counter("connections_accepted", "TCP connections accepted, refused ones included");
        let opened = counter("sessions_opened", "Sessions that the agent registered");
        let resent = counter("frames_resent", "Frames sent again because the kernel tossed them");
        let agent_reconnects = counter("agent_reconnects", "Times a running session found the next agent");
        let family = |registry: &mut Registry, name: &str, help: &str| {
            let family = ByOne::default();
            registry.register(name, help, family.clone());
            family
        };
        let refused =
            family(proxy, "connections_refused", "Connections refused, by the limit that was reached");
        let ended = family(proxy, "sessions_ended", "Sessions that are over, by cause");
        let sessions_refused = family(proxy, "sessions_refused", "Logins that came to no session, by cause");
        let channels =
            family(proxy, "channels_opened", "Channels that users' clients asked for and may have, by type");
        let channels_refused = family(proxy, "channels_refused", "Channels refused, by cause");
        let reloads = family(proxy, "reloads", "Attempts to reload the configuration, by result");
        let gauge = |registry: &mut Registry, name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let open = gauge(proxy, "connections", "Connections now");
        let unauthenticated =
            gauge(proxy, "connections_unauthenticated", "Connections whose users have not logged in");
        let sessions = gauge(proxy, "sessions", "Sessions now");
        let stalled = gauge(proxy, "taps_stalled", "Directions of taps whose frames are being tossed now");
        let stopping = gauge(proxy, "stopping", "1 once the proxy was told to stop");
        let held = Gauge::default();
        proxy.register_with_unit(
            "held",
            "Bytes that came in and wait to be passed on",
            Unit::Bytes,
            held.clone(),
        );
        let logins = ByTwo::default();
        proxy.register("logins", "Proofs of identity, by result and method", logins.clone());
        let delivered = ByOne::default();
        let help = "Bytes of data that crossed a tap and were delivered, by direction";
        proxy.register_with_unit("delivered", help, Unit::Bytes, delivered.clone());
        // There from the start: Prometheus sees no increase in a counter that appears with its first event.
        let begin = |family: &ByOne, label, values: &[&'static str]| {
            values.iter().for_each(|value| drop(family.get_or_create(&[(label, *value)])));
        };
        begin(&ended, "cause", &Cause::ALL.map(Cause::label));
        begin(&refused, "cause", &Refusal::ALL.map(Refusal::label));
        begin(&refused, "cause", &["login_failures"]);
        begin(&sessions_refused, "cause", &["not_recorded", "bad_grant"]);
        begin(&channels_refused, "cause", &["grant", "limit"]);
        begin(&reloads, "result", &["done", "failed"]);
        for result in ["accepted", "refused"] {
            for method in ["publickey", "certificate", "one_time_secret"] {
                drop(logins.get_or_create(&[("result", result), ("method", method)]));
            }
        }
        let setup: Parts = Family::new_with_constructor(|| Histogram::new(SETUP_SECONDS));
        let help = "Time from a login to its session, and the agent's and the target's part of it";
        proxy.register_with_unit("session_setup", help, Unit::Seconds, setup.clone());
        Self {
            accepted,
            refused,
            open,
            unauthenticated,
            logins,
            sessions,
            opened,
            ended,
            sessions_refused,
            setup,
            channels,
            channels_refused,
            to_target: delivered.get_or_create_owned(&[("direction", "to_target")]),
            to_client: delivered.get_or_create_owned(&[("direction", "to_client")]),
            held,
            resent,
            stalled,
            agent_reconnects,
            reloads,
            stopping,
            process,
            registry,
        }
    }

    /// A connection was accepted, whatever comes of it.
    pub fn connection_accepted(&self) {
        self.accepted.inc();
    }

    /// A connection was refused because of this limit.
    pub fn connection_refused(&self, limit: &'static str) {
        self.refused.get_or_create(&[("cause", limit)]).inc();
    }

    /// Somebody tried to prove who they are, by this method.
    pub fn login(&self, accepted: bool, method: &'static str) {
        let result = if accepted { "accepted" } else { "refused" };
        self.logins.get_or_create(&[("result", result), ("method", method)]).inc();
    }

    /// The agent registered a session.
    pub fn session_opened(&self) {
        self.opened.inc();
        self.sessions.inc();
    }

    /// A session that the agent had registered is over.
    pub fn session_ended(&self, cause: Cause) {
        self.ended.get_or_create(&[("cause", cause.label())]).inc();
        self.sessions.dec();
    }

    /// Nothing came of a login: the agent did not register it, say.
    pub fn session_refused(&self, cause: &'static str) {
        self.sessions_refused.get_or_create(&[("cause", cause)]).inc();
    }

    /// A part of setting a session up took this long: `agent`, `target`, or `total`.
    pub fn session_setup(&self, part: &'static str, took: std::time::Duration) {
        self.setup.get_or_create(&[("part", part)]).observe(took.as_secs_f64());
    }

    /// A client opens a channel of this type.
    pub fn channel_opened(&self, kind: &'static str) {
        self.channels.get_or_create(&[("type", kind)]).inc();
    }

    /// A client may not have a channel.
    pub fn channel_refused(&self, cause: &'static str) {
        self.channels_refused.get_or_create(&[("cause", cause)]).inc();
    }

    /// The counter of bytes delivered this way.
    #[must_use]
    pub fn delivered(&self, direction: Direction) -> &Counter {
        match direction {
            Direction::ClientToTarget => &self.to_target,
            Direction::TargetToClient => &self.to_client,
        }
    }

    /// Bytes came in and wait.
    pub fn held(&self, bytes: usize) {
        self.held.inc_by(bytes.cast_signed() as i64);
    }

    /// Bytes wait no longer.
    pub fn released(&self, bytes: usize) {
        self.held.dec_by(bytes.cast_signed() as i64);
    }

    /// Frames are sent again.
    pub fn frames_resent(&self, frames: usize) {
        self.resent.inc_by(frames as u64);
    }

    /// Frames of a direction of a tap are tossed, until the guard is dropped.
    #[must_use]
    pub fn tap_stalled(&self) -> Stalled {
        self.stalled.inc();
        Stalled(())
    }

    /// A session found the next agent.
    pub fn agent_reconnected(&self) {
        self.agent_reconnects.inc();
    }

    /// The configuration was reloaded, or was not because it can't be used.
    pub fn reloaded(&self, succeeded: bool) {
        let result = if succeeded { "done" } else { "failed" };
        self.reloads.get_or_create(&[("result", result)]).inc();
    }

    /// The proxy was told to stop.
    pub fn stopping(&self) {
        self.stopping.set(1);
    }

    /// All of it as Prometheus reads it (OpenMetrics text), with these connections.
    ///
    /// # Errors
    /// If it can't be written, which does not happen with a string.
    pub fn text(&self, counts: Counts) -> Result<String, std::fmt::Error> {
        self.open.set(i64::try_from(counts.connections).unwrap_or(i64::MAX));
        self.unauthenticated.set(i64::try_from(counts.strangers).unwrap_or(i64::MAX));
        self.process.refresh();
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// A login takes some 10 ms on a good day, and may wait seconds for an agent or a target.
const SETUP_SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

#[cfg(test)]
mod tests {
    use weir_telemetry::{
        labels,
        names::{exposed, mentioned},
    };

    use super::*;

    #[test]
    fn every_series_carries_its_unit_and_no_more_labels_than_are_documented() {
        metrics().login(false, "publickey");
        metrics().session_setup("agent", std::time::Duration::from_millis(3));
        metrics().connection_refused("max_connections");
        let text = metrics().text(Counts { connections: 3, strangers: 2 }).expect("a string");
        for line in [
            "weir_proxy_connections 3",
            "weir_proxy_connections_unauthenticated 2",
            "weir_proxy_connections_refused_total{cause=\"max_connections\"} 1",
            "weir_proxy_logins_total{result=\"refused\",method=\"publickey\"} 1",
            "weir_proxy_session_setup_seconds_count{part=\"agent\"} 1",
            "weir_proxy_delivered_bytes_total{direction=\"to_target\"}",
            "# UNIT weir_proxy_held_bytes bytes",
            "process_open_fds ",
            "process_resident_memory_bytes ",
            "process_start_time_seconds ",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn what_is_documented_asked_for_and_exposed_is_the_same() {
        let document = |path: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        // A family without a series is not exposed.
        metrics().channel_opened("session");
        metrics().session_setup("agent", std::time::Duration::from_millis(3));
        let exposed = exposed(&metrics().text(Counts { connections: 0, strangers: 0 }).expect("a string"));
        let asked = |path, prefix| mentioned(&document(path), prefix, &exposed);
        let ours = |name: &&String| name.starts_with("weir_proxy_");
        assert!(asked("docs/metrics.md", "weir_proxy_").iter().eq(exposed.iter().filter(ours)));
        for path in
            ["deploy/prometheus/weir-proxy.rules.yaml", "deploy/grafana/weir.json", "docs/operations.md"]
        {
            let asked = asked(path, "weir_proxy_");
            assert!(!asked.is_empty() && asked.is_subset(&exposed), "{path}: {asked:?}");
            let documented = labels::documented(&document("docs/metrics.md"), "weir_proxy_");
            let vain = labels::in_vain(&document(path), "weir_proxy_", &documented);
            assert!(vain.is_empty(), "{path}: {vain:?}");
        }
        for path in ["deploy/prometheus/weir-proxy.rules.yaml", "deploy/grafana/weir.json", "docs/metrics.md"]
        {
            let asked = asked(path, "process_");
            assert!(!asked.is_empty() && asked.is_subset(&exposed), "{path}: {asked:?}");
        }
    }
}
