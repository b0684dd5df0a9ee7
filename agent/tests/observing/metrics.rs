//! `/metrics`, `/health` and `/ready` of a running agent.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    time::SystemTime,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use weir_common::{
    control::Reply,
    frame::{ChannelType, Direction, Message},
    session::Outcome,
};

use crate::support::{
    Node, PATIENCE,
    proxy::{Control, frame, meta, stdin, stdout},
    scrape::{LISTEN, address, becomes, exposition, get, not_ready, value},
    stored::directory,
    wait_until,
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;
const FULL: &str = "not ready: the spool is full; sessions stall until it has room\n";

#[test]
fn what_happens_to_a_session_is_counted_and_names_nobody() {
    let node = Node::new(LISTEN);
    let agent = node.start();
    let address = address(&agent);
    assert_eq!(get(address, "/health"), (200, "alive\n".to_owned()));
    assert_eq!(get(address, "/ready"), (200, "ready\n".to_owned()));
    let (meta, control) = (meta(), Control::connect(&node.socket()));
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    tap.pass(T2C, &stdout("some words"));
    tap.send_raw(C2T, &frame(Message::Open(ChannelType::Session), 0));
    tap.send_raw(C2T, &frame(stdin("too early"), 7));
    tap.send_raw(C2T, &[0; 40_000]);
    becomes(address, "weir_agent_records_drained_total{ring=\"0\"}", 4.0);
    // While the session runs.
    becomes(address, "weir_agent_messages_not_recorded_total{ring=\"0\",cause=\"duplicate\"}", 1.0);
    becomes(address, "weir_agent_messages_not_recorded_total{ring=\"0\",cause=\"out_of_sequence\"}", 1.0);
    becomes(address, "weir_agent_messages_tossed_total{ring=\"0\",cause=\"size\"}", 1.0);
    becomes(address, "weir_agent_sessions{ring=\"0\",state=\"open\"}", 1.0);
    becomes(address, "weir_agent_program_log_lines_total{result=\"logged\"}", 1.0);
    assert_eq!(value(address, "weir_agent_ring_capacity_bytes{ring=\"0\"}"), 1_048_576.0);
    assert!(value(address, "weir_agent_oldest_unstored_seconds{ring=\"0\"}") > 0.0);
    assert!(value(address, "weir_agent_spool_bytes{ring=\"0\"}") > 0.0);
    assert_eq!(value(address, "weir_agent_spool_limit_bytes{ring=\"0\"}"), 8.0 * 1024.0 * 1024.0 * 1024.0);
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let dir = directory(&node, meta.session_id);
    becomes(address, "weir_agent_sessions_stored_total", 1.0);
    becomes(address, "weir_agent_sessions{ring=\"0\",state=\"open\"}", 0.0);
    for (series, expected) in [
        ("weir_agent_sessions_opened_total", 1.0),
        ("weir_agent_sessions_closed_total{outcome=\"completed\"}", 1.0),
        ("weir_agent_segments_sealed_total", 1.0),
        ("weir_agent_segments_uploaded_total", 1.0),
        ("weir_agent_uploads_total{result=\"stored\"}", 5.0),
        // Not once more at the end.
        ("weir_agent_messages_tossed_total{ring=\"0\",cause=\"size\"}", 1.0),
        ("weir_agent_messages_not_recorded_total{ring=\"0\",cause=\"duplicate\"}", 1.0),
        ("weir_agent_oldest_unstored_seconds{ring=\"0\"}", 0.0),
        ("weir_agent_reports_limit", 0.0),
    ] {
        becomes(address, series, expected);
    }
    let stored = fs::read_dir(dir).expect("is there").map(|item| item.expect("readable"));
    let stored: u64 = stored.map(|item| item.metadata().expect("is there").len()).sum();
    assert_eq!(value(address, "weir_agent_uploaded_bytes_total"), stored as f64);
    let flushed = "weir_agent_last_flush_timestamp_seconds{ring=\"0\"}";
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs_f64();
    wait_until("the spool is flushed", || value(address, flushed) >= now);
    assert!(value(address, "weir_agent_flush_seconds_count") > 0.0);
    let text = exposition(address);
    for name in [&meta.user, &meta.grant_id, &meta.resource.name, &meta.session_id.to_string()] {
        assert!(!text.contains(name.as_str()), "{name}");
    }
    agent.stop();
}

#[test]
fn a_full_spool_and_a_store_that_fails_make_the_agent_unready_and_not_dead() {
    let node = Node::new(&format!(
        "{LISTEN}ready_store_failing_ms = 100\nsegment_max_age_ms = 10\nspool_file_bytes = 65536\nspool_max_bytes = 1048576\n\
         session_spool_max_bytes = 1048576\nring_bytes = 65536\n"
    ));
    node.small_disk_for("store", 1024 * 1024);
    let agent = node.start();
    let address = address(&agent);
    // Nothing can be stored until it is gone.
    fs::write(node.path("store/ballast"), vec![0; 2 * 1024 * 1024]).expect_err("the disk is full");
    let (meta, control) = (meta(), Control::connect(&node.socket()));
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    not_ready(address, "the store has taken nothing for");
    // A look at the store may have found it full before the first segment was tried.
    wait_until("storing has failed", || {
        value(address, "weir_agent_storing_failures_total{class=\"no_space\"}") >= 1.0
    });
    // A single toss says little: the ring is small, and the drain may be late for once.
    wait_until("the spool is full", || {
        tap.try_pass(T2C, stdout(&"z".repeat(30_000)));
        get(address, "/ready") == (503, FULL.to_owned())
    });
    becomes(address, "weir_agent_sessions{ring=\"0\",state=\"paused\"}", 1.0);
    becomes(address, "weir_agent_spool_state{ring=\"0\",state=\"full\"}", 1.0);
    assert_eq!(value(address, "weir_agent_spool_state{ring=\"0\",state=\"roomy\"}"), 0.0);
    assert_eq!(value(address, "weir_agent_store_answers"), 0.0);
    assert!(value(address, "weir_agent_spool_disk_free_bytes{ring=\"0\"}") > 0.0);
    wait_until("tosses are seen while the session runs", || {
        tap.try_pass(T2C, stdout("z"));
        value(address, "weir_agent_messages_tossed_total{ring=\"0\",cause=\"full\"}") > 0.0
    });
    assert_eq!(get(address, "/health").0, 200);
    fs::remove_file(node.path("store/ballast")).expect("is there");
    wait_until("it is ready again", || get(address, "/ready").0 == 200);
    becomes(address, "weir_agent_spool_state{ring=\"0\",state=\"roomy\"}", 1.0);
    assert_eq!(value(address, "weir_agent_store_answers"), 1.0);
    tap.pass(T2C, &stdout("it goes on"));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    directory(&node, meta.session_id);
}

#[test]
fn a_flood_of_the_programs_diagnostics_is_counted_and_does_not_fill_the_log() {
    let node = Node::new(LISTEN);
    let agent = node.start();
    let address = address(&agent);
    let control = Control::connect(&node.socket());
    assert_eq!(control.open(&meta(), false), Some(Reply::Opened));
    let tap = control.arm(0);
    for _ in 0..300 {
        tap.send_raw(C2T, &[0; 40_000]);
    }
    becomes(address, "weir_agent_messages_tossed_total{ring=\"0\",cause=\"size\"}", 300.0);
    becomes(address, "weir_agent_program_log_lines_total{result=\"left_out\"}", 280.0);
    assert_eq!(value(address, "weir_agent_program_log_lines_total{result=\"logged\"}"), 20.0);
    wait_until("all of them are read", || {
        agent.log().matches("tossed a message of 40000 bytes").count() >= 20
    });
    assert_eq!(agent.log().matches("tossed a message of 40000 bytes").count(), 20);
}

#[test]
fn the_service_manager_is_told_when_the_agent_is_ready_and_when_it_stops() {
    let node = Node::new("");
    // It writes the configuration.
    node.start().stop();
    let socket = UnixDatagram::bind(node.path("notify")).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut agent = Command::new(env!("CARGO_BIN_EXE_weir-agent"))
        .arg("--config")
        .arg(node.path("agent.toml"))
        .env("NOTIFY_SOCKET", node.path("notify"))
        .stderr(Stdio::null())
        .spawn()
        .expect("the agent starts");
    let told = || {
        let mut message = [0; 256];
        let len = socket.recv(&mut message).expect("it is told in time");
        String::from_utf8_lossy(&message[..len]).into_owned()
    };
    assert!(told().contains("READY=1"));
    assert!(node.socket().exists());
    kill(Pid::from_raw(i32::try_from(agent.id()).expect("a pid")), Signal::SIGTERM).expect("it runs");
    assert!(told().contains("STOPPING=1"));
    assert!(agent.wait().expect("it ends").success());
}
