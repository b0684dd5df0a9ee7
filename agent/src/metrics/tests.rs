//! What the exposition holds, that the documents speak of the same, and when the agent calls itself ready.

use std::{fs, path::Path, time::Instant};

use weir_telemetry::{
    labels,
    names::{exposed, mentioned},
};
use yaml_rust2::{Yaml, YamlLoader};

use super::*;

fn text() -> String {
    let _ = metrics().lane(0);
    metrics().text().expect("a string")
}

fn document(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_series_is_there_before_its_first_event() {
    let text = text();
    for line in [
        "weir_agent_records_drained_total{ring=\"0\"}",
        "weir_agent_drained_bytes_total{ring=\"0\"}",
        "weir_agent_messages_tossed_total{ring=\"0\",cause=\"full\"}",
        "weir_agent_messages_not_recorded_total{ring=\"0\",cause=\"malformed\"}",
        "weir_agent_ring_capacity_bytes{ring=\"0\"}",
        "weir_agent_drain_pass_seconds_bucket{le=\"0.001\",ring=\"0\"}",
        "weir_agent_sessions{ring=\"0\",state=\"paused\"}",
        "weir_agent_sessions_closed_total{outcome=\"connector_lost\"}",
        "weir_agent_storing_failures_total{class=\"unavailable\"}",
        "weir_agent_uploads_total{result=\"already_there\"}",
        "weir_agent_report_attempts_total{result=\"unauthorized\"}",
        "weir_agent_program_log_lines_total{result=\"left_out\"}",
        "weir_agent_build_info{version=\"",
        "process_open_fds ",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
    let of_a_ring = Metrics::new();
    let _ = of_a_ring.lane(0);
    let text = of_a_ring.text().expect("a string");
    assert_eq!(text.lines().filter(|line| line.contains("ring=\"0\"")).count(), 43, "docs/limits.md");
}

#[test]
fn what_is_documented_asked_for_and_exposed_is_the_same() {
    let exposed = exposed(&text());
    let ours: std::collections::BTreeSet<_> =
        exposed.iter().filter(|name| name.starts_with("weir_agent_")).cloned().collect();
    assert_eq!(mentioned(&document("docs/metrics.md"), "weir_agent_", &exposed), ours);
    for path in [
        "deploy/prometheus/weir-agent.rules.yaml",
        "deploy/grafana/weir.json",
        "docs/operations.md",
        "docs/limits.md",
    ] {
        let asked = mentioned(&document(path), "weir_agent_", &exposed);
        assert!(!asked.is_empty() || path.ends_with("limits.md"), "{path} asks for nothing");
        assert_eq!(asked.difference(&ours).collect::<Vec<_>>(), Vec::<&String>::new(), "{path}");
    }
    for path in ["deploy/prometheus/weir-agent.rules.yaml", "deploy/grafana/weir.json", "docs/metrics.md"] {
        let asked = mentioned(&document(path), "process_", &exposed);
        assert!(asked.is_subset(&exposed), "{path}: {asked:?}");
    }
}

#[test]
fn the_labels_that_are_documented_and_asked_for_are_exposed_with_these_values() {
    let exposed = labels::exposed(&text(), "weir_agent_");
    for (name, labels) in labels::documented(&document("docs/metrics.md"), "weir_agent_") {
        let exposed = &exposed[&name];
        assert!(labels.keys().eq(exposed.keys()), "{name}: {labels:?} and {exposed:?}");
        let listed = labels.iter().filter(|(_, values)| !values.is_empty());
        listed.for_each(|(label, values)| assert_eq!(values, &exposed[label], "{name}: {label}"));
    }
    for path in ["deploy/prometheus/weir-agent.rules.yaml", "deploy/grafana/weir.json", "docs/operations.md"]
    {
        let vain = labels::in_vain(&document(path), "weir_agent_", &exposed);
        assert!(vain.is_empty(), "{path}: {vain:?}");
    }
}

#[test]
fn alerts_are_what_prometheus_reads_and_say_what_is_wrong() {
    for path in ["deploy/prometheus/weir-agent.rules.yaml", "deploy/prometheus/weir-proxy.rules.yaml"] {
        let files = YamlLoader::load_from_str(&document(path)).expect(path);
        let [file] = &files[..] else { panic!("{path}: one document") };
        let groups = file["groups"].as_vec().expect(path);
        let rules: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_vec().expect(path)).collect();
        let names: std::collections::BTreeSet<_> = rules.iter().map(|rule| rule["alert"].as_str()).collect();
        assert!(names.len() == rules.len() && rules.len() > 5, "{path}: an alert of each name");
        for rule in rules {
            let keys = rule.as_hash().expect(path).keys().map(|key| key.as_str().expect("a key"));
            let known = ["alert", "expr", "for", "labels", "annotations"];
            assert_eq!(keys.filter(|key| !known.contains(key)).count(), 0, "{rule:?}");
            assert!(rule["expr"].as_str().is_some_and(|query| query.contains(['<', '>', '='])), "{rule:?}");
            assert!(
                ["warning", "critical"].contains(&rule["labels"]["severity"].as_str().expect("a severity"))
            );
            assert!(
                rule["annotations"]["summary"].as_str().is_some_and(|summary| summary.len() > 20),
                "{rule:?}"
            );
            let lasting = rule["for"].as_str().map(|lasting| lasting.split_at(lasting.len() - 1));
            let is_time =
                |(number, unit): (&str, &str)| number.parse::<u16>().is_ok() && "smh".contains(unit);
            assert!(rule["for"] == Yaml::BadValue || lasting.is_some_and(is_time), "{rule:?}");
        }
    }
}

#[test]
fn what_is_new_is_what_came_since() {
    let before = Tosses { tossed: [1, 2, 3], not_recorded: [0, 5, 0], unrecorded: [1, 100] };
    let now = Tosses { tossed: [1, 4, 3], not_recorded: [2, 5, 1], unrecorded: [3, 350] };
    let news = Tosses { tossed: [0, 2, 0], not_recorded: [2, 0, 1], unrecorded: [2, 250] };
    assert_eq!(now.since(&before), news);
}

#[test]
fn an_agent_is_alive_while_its_core_passes_and_ready_while_its_spool_and_store_take_something() {
    // Of its own: the process's may be used by other tests.
    let metrics = Metrics::new();
    let (now, patience) = (Instant::now(), Duration::from_secs(60));
    assert_eq!(metrics.not_alive(now), None);
    assert!(metrics.not_ready(now, patience).is_some_and(|reason| reason.contains("starting")));
    metrics.health.start();
    let lanes = [metrics.lane(0), metrics.lane(1)];
    for lane in &lanes {
        lane.alive(Instant::now());
    }
    let now = Instant::now();
    assert_eq!((metrics.not_alive(now), metrics.not_ready(now, patience)), (None, None));
    for (taking, words) in [
        (Taking::NothingNew, "nearly full"),
        (Taking::Full, "is full"),
        (Taking::Unwritable, "cannot be written"),
    ] {
        lanes[1].publish(&state(taking), now);
        assert!(metrics.not_ready(now, patience).is_some_and(|reason| reason.contains(words)), "{taking:?}");
        assert_eq!(metrics.not_alive(now), None, "a restart would not help");
        lanes[1].publish(&state(Taking::Everything), now);
    }
    metrics.health.store_outage(true, now);
    let later = now + patience / 2;
    lanes.iter().for_each(|lane| lane.alive(later));
    assert_eq!(metrics.not_ready(later, patience), None);
    let later = now + patience;
    lanes.iter().for_each(|lane| lane.alive(later));
    assert!(metrics.not_ready(later, patience).is_some_and(|reason| reason.contains("store")));
    metrics.health.store_outage(false, later);
    assert_eq!(metrics.not_ready(later, patience), None);
    lanes[0].alive(later + 2 * health::CORE_PATIENCE);
    let later = later + 2 * health::CORE_PATIENCE;
    assert!(metrics.not_alive(later).is_some_and(|reason| reason.contains("no pass for 10 s")));
    assert!(metrics.not_ready(later, patience).is_some());
    metrics.stopping();
    assert_eq!(metrics.not_alive(later), None);
    assert_eq!(metrics.not_ready(later, patience), Some("stopping".to_owned()));
}

#[test]
fn a_ring_that_is_full_again_and_again_is_a_reason_only_while_messages_find_no_room() {
    let (metrics, patience, tick) = (Metrics::new(), Duration::from_secs(60), Duration::from_millis(100));
    metrics.health.start();
    let lane = metrics.lane(0);
    let full = LaneState { ring_capacity: 100, ring_used: 91, ..state(Taking::Everything) };
    let mut now = Instant::now();
    let mut for_a_while = |ring_used, tossed, ticks| {
        lane.tosses(&Tosses { tossed: [tossed, 0, 0], ..Tosses::default() }, now + tick);
        for _ in 0..ticks {
            now += tick;
            lane.alive(now);
            lane.publish(&LaneState { ring_used, ..full }, now);
        }
        metrics.not_ready(now, patience)
    };
    assert_eq!(for_a_while(91, 0, 40), None, "everything passes");
    assert_eq!(for_a_while(90, 0, 10), None);
    assert_eq!(for_a_while(91, 1, 21), None, "a burst");
    // Drained in between, for less than it takes to be relieved.
    for_a_while(10, 0, 9);
    let reason = for_a_while(91, 0, 1);
    assert!(reason.as_ref().is_some_and(|reason| reason.contains("full for 3 s")), "{reason:?}");
    assert_eq!(for_a_while(90, 0, 10), None);
}

fn state(taking: Taking) -> LaneState {
    LaneState {
        ring_capacity: 1,
        ring_used: 0,
        spool: 0,
        spool_limit: 1,
        disk_free: Some(1),
        oldest_unstored: Duration::ZERO,
        sessions: SessionCounts::default(),
        taking,
    }
}
