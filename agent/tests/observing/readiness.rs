//! When the agent says that no new session should come: what it goes by, and what it does not.

use std::{fs, os::unix::fs::symlink};

use nix::sys::signal::Signal;
use weir_common::{
    control::Reply,
    frame::{ChannelType, Direction, Message},
    session::Outcome,
};

use crate::support::{
    Node,
    proxy::{Control, meta, stdout},
    scrape::{LISTEN, address, get, not_ready, value},
    stored::directory,
    wait_until,
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;
const READY: &str = "ready_store_failing_ms = 100\nready_store_idle_ms = 50\n";

#[test]
fn an_idle_node_whose_store_is_full_says_so_before_a_session_needs_it() {
    let node = Node::new(&format!("{LISTEN}{READY}"));
    node.small_disk_for("store", 256 * 1024);
    let agent = node.start();
    let address = address(&agent);
    wait_until("it is ready", || get(address, "/ready").0 == 200);
    fs::write(node.path("store/ballast"), vec![0; 512 * 1024]).expect_err("the disk is full");
    not_ready(address, "the store has taken nothing for");
    assert_eq!(value(address, "weir_agent_store_answers"), 0.0);
    assert_eq!(value(address, "weir_agent_storing_failures_total{class=\"no_space\"}"), 0.0);
    fs::remove_file(node.path("store/ballast")).expect("is there");
    wait_until("it is ready again", || get(address, "/ready").0 == 200);
    assert_eq!(value(address, "weir_agent_store_answers"), 1.0);
}

#[test]
fn one_session_that_cannot_be_stored_makes_nobody_unready() {
    let node = Node::new(&format!("{LISTEN}{READY}"));
    let agent = node.start();
    let (address, meta, control) = (address(&agent), meta(), Control::connect(&node.socket()));
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    // Its directory leads nowhere.
    let day = jiff::Timestamp::now().strftime("dt=%Y-%m-%d").to_string();
    let poison = node.path("store/v1").join(day).join(meta.session_id.to_string());
    fs::create_dir_all(poison.parent().expect("a directory")).expect("writable");
    symlink(node.path("nowhere"), &poison).expect("writable");
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    // The first pauses add up to more than the patience.
    let failures = "weir_agent_storing_failures_total{class=\"unavailable\"}";
    wait_until("it is tried again and again", || value(address, failures) >= 3.0);
    assert_eq!(get(address, "/ready"), (200, "ready\n".to_owned()));
    assert!(value(address, "weir_agent_storing_retries_total") >= 3.0);
    fs::remove_file(poison).expect("is there");
    directory(&node, meta.session_id);
}

#[test]
fn a_ring_that_is_full_again_and_again_while_messages_are_tossed_makes_the_agent_unready() {
    let node = Node::new(&format!("{LISTEN}ring_bytes = 65536\n"));
    let agent = node.start();
    let (address, control) = (address(&agent), Control::connect(&node.socket()));
    assert_eq!(control.open(&meta(), false), Some(Reply::Opened));
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    let said = stdout(&"z".repeat(400));
    wait_until("the ring is the reason", || {
        // An agent that gets too little of the processor.
        agent.signal(Signal::SIGSTOP);
        while tap.try_pass(T2C, said.clone()) {}
        agent.signal(Signal::SIGCONT);
        let (status, text) = get(address, "/ready");
        status == 503 && text.starts_with("not ready: a ring has been full for ")
    });
    assert!(value(address, "weir_agent_messages_tossed_total{ring=\"0\",cause=\"full\"}") > 0.0);
    wait_until("it is ready again", || get(address, "/ready").0 == 200);
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
}
