//! What sessions can say and what of it is recorded, as the metrics have it.

use std::fs;

use weir_common::{
    control::{Reply, Request},
    frame::{ChannelType, Direction, Message},
    recording::GapCause,
    session::{CapturePolicy, ChannelNo, Outcome, SessionMeta},
};

use crate::support::{
    Node,
    proxy::{Control, Tap, meta, stdout},
    scrape::{LISTEN, address, becomes, value},
    stored::verify,
    wait_until,
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;
const UNRECORDED: &str = "weir_agent_messages_passed_unrecorded_total{ring=\"0\"}";
const UNRECORDED_BYTES: &str = "weir_agent_passed_unrecorded_bytes_total{ring=\"0\"}";

fn in_state(state: &str) -> String {
    format!("weir_agent_sessions{{ring=\"0\",state=\"{state}\"}}")
}

fn begin(node: &Node, capture_policy: CapturePolicy) -> (SessionMeta, Control, Tap) {
    let meta = SessionMeta { capture_policy, ..meta() };
    let control = Control::connect(&node.socket());
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    (meta, control, tap)
}

#[test]
fn a_best_effort_session_over_its_share_passes_unrecorded_and_is_not_paused() {
    let node = Node::new(&format!(
        "{LISTEN}session_spool_max_bytes = 262144\nsegment_max_bytes = 60000\nspool_file_bytes = 65536\n"
    ));
    let agent = node.start();
    let address = address(&agent);
    let (meta, control, mut tap) = begin(&node, CapturePolicy::BestEffort);
    let day = jiff::Timestamp::now().strftime("dt=%Y-%m-%d").to_string();
    let poison = node.path("store/v1").join(day).join(meta.session_id.to_string());
    fs::create_dir_all(poison.parent().expect("a directory")).expect("writable");
    fs::write(&poison, b"").expect("writable");
    becomes(address, &in_state("open"), 1.0);
    let chunk = stdout(&"z".repeat(30_000));
    wait_until("it has used up its share", || {
        assert!(tap.try_pass(T2C, chunk.clone()), "it never stalls");
        value(address, UNRECORDED) > 0.0
    });
    becomes(address, &in_state("unrecorded"), 1.0);
    assert_eq!((value(address, &in_state("paused")), value(address, &in_state("open"))), (0.0, 0.0));
    fs::remove_file(poison).expect("is there");
    becomes(address, &in_state("open"), 1.0);
    assert!(tap.try_pass(T2C, chunk), "the gap is told in front of it");
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    let gaps = &recording.gaps[&(ChannelNo(0), T2C)];
    assert!(gaps.iter().all(|(_, gap)| gap.cause == GapCause::SessionQuota), "{gaps:?}");
    assert_eq!(recording.manifest.channels[0].t2c.passed.records as f64, value(address, UNRECORDED));
}

#[test]
fn a_session_whose_grant_is_over_is_frozen_until_it_is_closed() {
    let node = Node::new(LISTEN);
    let agent = node.start();
    let address = address(&agent);
    let (meta, control, mut tap) = begin(&node, CapturePolicy::FailClosed);
    becomes(address, &in_state("open"), 1.0);
    assert_eq!(control.ask(&Request::Freeze, &[]), Some(Reply::Frozen));
    becomes(address, &in_state("frozen"), 1.0);
    assert_eq!(value(address, &in_state("open")), 0.0);
    assert!(!tap.try_pass(T2C, stdout("too late")));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    becomes(address, &in_state("frozen"), 0.0);
    verify(&node, meta.session_id);
}

#[test]
fn what_passed_unrecorded_while_no_agent_ran_is_counted_by_the_next_one_and_not_by_the_one_after() {
    let node = Node::new(&format!("{LISTEN}ring_bytes = 65536\n"));
    let agent = node.start();
    let (meta, control, mut tap) = begin(&node, CapturePolicy::BestEffort);
    becomes(address(&agent), &in_state("open"), 1.0);
    agent.kill();
    let chunk = stdout(&"z".repeat(3_000));
    for _ in 0..100 {
        assert!(tap.try_pass(T2C, chunk.clone()), "it never stalls");
    }
    drop(control);
    let agent = node.start();
    let (metrics, control) = (address(&agent), Control::connect(&node.socket()));
    assert_eq!(control.open(&meta, true), Some(Reply::Opened));
    wait_until("what passed is counted", || value(metrics, UNRECORDED) > 0.0);
    // The gap is told in front of the next message.
    assert!(tap.try_pass(T2C, stdout("recorded")));
    agent.wait_for_log("messages passed unrecorded");
    let passed = value(metrics, UNRECORDED);
    assert!((60.0..100.0).contains(&passed), "{passed} of 100: the ring has room for some twenty");
    assert!(value(metrics, UNRECORDED_BYTES) > 3_000.0 * passed);
    drop(control);
    agent.kill();
    let agent = node.start();
    let (metrics, control) = (address(&agent), Control::connect(&node.socket()));
    assert_eq!(control.open(&meta, true), Some(Reply::Opened));
    becomes(metrics, &in_state("open"), 1.0);
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    assert_eq!(value(metrics, UNRECORDED), 0.0, "the spool has it");
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.manifest.channels[0].t2c.passed.records as f64, passed);
}
