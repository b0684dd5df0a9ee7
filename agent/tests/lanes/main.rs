//! Several rings with a core and a spool each: sessions are spread over them, survive, and what a smaller
//! configuration or an older version left comes to its end. And a session's share of the spool, and what gathers there while
//! the store is away.

#[path = "../support/mod.rs"]
mod support;

mod backlog;
mod quota;
mod version_1;

use std::{collections::HashSet, fs, net::SocketAddr, path::PathBuf};

use support::{
    Node,
    proxy::{Control, Tap, meta, stdin, stdout},
    scrape::{LISTEN, address, exposition},
    stored::verify,
    wait_until,
};
use weir_agent::tap::RingPlace;
use weir_common::{
    control::Reply,
    frame::{ChannelType, Direction, Message},
    session::{ChannelNo, Outcome, SessionId, SessionMeta},
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;
const TWO: &str = "cpu_groups = ['0', '1']\n";

fn begin(node: &Node) -> (SessionMeta, Control, Tap) {
    let (meta, control) = (meta(), Control::connect(&node.socket()));
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    (meta, control, tap)
}

fn resume(node: &Node, meta: &SessionMeta) -> Control {
    let control = Control::connect(&node.socket());
    assert_eq!(control.open(meta, true), Some(Reply::Opened));
    control
}

fn finish(node: &Node, meta: &SessionMeta, control: &Control, tap: &Tap) {
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(node, meta.session_id);
    for way in [C2T, T2C] {
        let frames = recording.frames.get(&(ChannelNo(0), way)).map_or(&[][..], Vec::as_slice);
        assert_eq!(frames, tap.sent(way), "{way}");
    }
}

fn spool(node: &Node, place: RingPlace) -> PathBuf {
    node.path("state/spool").join(place.to_string())
}

fn pins(node: &Node, place: RingPlace) -> PathBuf {
    node.path("bpf/weir").join(place.abi.to_string()).join(place.ring.to_string())
}

/// Whether the lane's spool tells of this session.
fn knows(node: &Node, place: RingPlace, session: SessionId) -> bool {
    let id = session.to_string();
    let files = fs::read_dir(spool(node, place)).into_iter().flatten();
    files
        .map(|item| fs::read(item.expect("readable").path()).expect("readable"))
        .any(|bytes| bytes.windows(id.len()).any(|window| window == id.as_bytes()))
}

#[test]
fn sessions_are_spread_over_two_lanes_and_survive_a_kill_byte_for_byte() {
    let node = Node::new(TWO);
    let mut agent = node.start();
    let mut sessions: Vec<_> = (0..6).map(|_| begin(&node)).collect();
    for lane in [0, 1].map(RingPlace::current) {
        let known = sessions.iter().filter(|(meta, _, _)| knows(&node, lane, meta.session_id)).count();
        assert_eq!(known, 3, "in lane {lane}");
    }
    for round in 0..3 {
        for (number, (_, _, tap)) in sessions.iter_mut().enumerate() {
            for line in 0..20 {
                tap.pass(T2C, &stdout(&format!("session {number}, round {round}, line {line}\r\n")));
            }
        }
        agent.kill();
        for (_, _, tap) in &mut sessions {
            tap.pass(C2T, &stdin("while there is no agent\r"));
        }
        agent = node.start();
        for (meta, control, _) in &mut sessions {
            *control = resume(&node, meta);
        }
    }
    for (meta, control, tap) in &sessions {
        finish(&node, meta, control, tap);
    }
}

#[test]
fn a_lane_that_is_configured_no_more_goes_when_its_last_session_is_stored() {
    let mut node = Node::new(&format!("{TWO}{LISTEN}"));
    let agent = node.start();
    let [mut kept, mut surplus] = [(); 2].map(|()| begin(&node));
    let gone = RingPlace::current(1);
    assert!(knows(&node, gone, surplus.0.session_id));
    agent.stop();
    node.reconfigure(LISTEN);
    let agent = node.start();
    let address = address(&agent);
    for (meta, control, tap) in [&mut kept, &mut surplus] {
        *control = resume(&node, meta);
        tap.pass(T2C, &stdout("it goes on"));
    }
    let new = [(); 3].map(|()| begin(&node));
    assert!(new.iter().all(|(meta, _, _)| !knows(&node, gone, meta.session_id)), "no session begins there");
    let (meta, control, tap) = surplus;
    finish(&node, &meta, &control, &tap);
    assert!(spool(&node, gone).exists(), "whoever has a connection may ask once more");
    drop(control);
    agent.wait_for_log("the ring is removed");
    assert!(!spool(&node, gone).exists() && !pins(&node, gone).exists());
    assert_only_counts_are_left(address, "1");
    for (meta, control, mut tap) in new.into_iter().chain([kept]) {
        tap.pass(C2T, &stdin("exit\r"));
        finish(&node, &meta, &control, &tap);
    }
}

/// A gauge of a ring that is gone would be an alarm that nothing ends.
fn assert_only_counts_are_left(address: SocketAddr, ring: &str) {
    let (text, label) = (exposition(address), format!("ring=\"{ring}\""));
    let gauges = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge"));
    let gauges: HashSet<_> = gauges.collect();
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    let of_ring = |line: &&str| line.contains(&label);
    let left: Vec<_> = text.lines().filter(of_ring).filter(|line| gauges.contains(&*name(line))).collect();
    assert_eq!(left, Vec::<&str>::new());
    assert!(text.lines().any(|line| line.starts_with("weir_agent_records_drained_total") && of_ring(&line)));
    assert!(text.contains("weir_agent_last_flush_timestamp_seconds{ring=\"0\"}"), "{text}");
}

#[test]
fn the_bound_of_all_sessions_is_one_for_all_lanes() {
    let node = Node::new(&format!("{TWO}max_sessions = 3"));
    let _agent = node.start();
    let _sessions = [(); 3].map(|()| begin(&node));
    let reply = Control::connect(&node.socket()).open(&meta(), false);
    assert!(
        matches!(&reply, Some(Reply::Refused { reason }) if reason.contains("3 sessions already")),
        "{reply:?}"
    );
}

#[test]
fn what_a_node_had_before_it_restarted_is_stored_from_every_spool() {
    let mut node = Node::new(TWO);
    let agent = node.start();
    let sessions = [(); 2].map(|()| begin(&node));
    agent.stop();
    node.forget_kernel_objects();
    node.reconfigure("");
    let agent = node.start();
    for (meta, _, tap) in &sessions {
        let recording = verify(&node, meta.session_id);
        assert_eq!(recording.manifest.outcome, Outcome::ConnectorLost);
        assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
    }
    agent.wait_for_log("the ring is removed");
    wait_until("the spool is gone", || !spool(&node, RingPlace::current(1)).exists());
}
