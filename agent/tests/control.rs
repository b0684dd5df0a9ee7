//! Peers of the control socket that do not keep to the protocol harm themselves only.

mod support;

use std::{
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Command,
};

use support::{
    Node,
    proxy::{Control, Tap, meta, stdin},
    stored::verify,
    wait_until,
};
use weir_common::{
    abi::{ABI_VERSION, OLDEST_ABI_VERSION},
    control::{self, MAX_MESSAGE, Reply, Request},
    frame::{ChannelType, Direction, Message},
    session::{ChannelNo, Outcome, SessionMeta},
};

const C2T: Direction = Direction::ClientToTarget;

fn reason(reply: Option<Reply>) -> String {
    match reply {
        Some(Reply::Refused { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

fn arm(channel: u32) -> Vec<u8> {
    control::encode(&Request::Arm { channel: ChannelNo(channel) }).expect("short")
}

#[test]
fn whatever_is_malformed_is_refused_with_its_reason_and_ends_the_connection() {
    let node = Node::new("");
    let _agent = node.start();
    let mut long = b"{\"op\":\"arm\",\"channel\":1,".to_vec();
    long.resize(MAX_MESSAGE + 1, b' ');
    let cases: [(&[u8], &str); 5] = [
        (b"not json", "malformed control message"),
        (b"{\"op\":\"arm\",\"channel\":-1}", "malformed control message"),
        (b"{\"op\":\"steal\"}", "malformed control message"),
        (b"{\"op\":\"arm\",\"channel\":1,\"x\":2}", "malformed control message"),
        (&long, "over the limit"),
    ];
    for (bytes, expected) in cases {
        let control = Control::connect(&node.socket());
        control.send(bytes, &[]).expect("the agent reads");
        let reason = reason(control.receive());
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(control.receive(), None, "the connection has ended");
    }
}

#[test]
fn a_tap_needs_exactly_its_two_descriptors_and_any_others_are_closed() {
    let node = Node::new("");
    let agent = node.start();
    let before = agent.open_descriptors();
    for count in [0, 1, 3, 12, 40] {
        let control = Control::connect(&node.socket());
        assert_eq!(control.open(&meta(), false), Some(Reply::Opened));
        let tap = Tap::pair();
        let descriptors = vec![tap.descriptors()[0]; count];
        control.send(&arm(0), &descriptors).expect("the agent reads");
        let reason = reason(control.receive());
        assert!(reason.contains("descriptors"), "{count}: {reason}");
        assert_eq!(control.receive(), None, "{count}");
    }
    let control = Control::connect(&node.socket());
    let tap = Tap::pair();
    let open = Request::Open { abi: ABI_VERSION, resume: false, meta: Box::new(meta()) };
    control.send(&control::encode(&open).expect("short"), &tap.descriptors()).expect("the agent reads");
    assert!(reason(control.receive()).contains("descriptors"));
    drop(control);
    wait_until("the agent has closed them all", || agent.open_descriptors() == before);
}

#[test]
fn what_is_no_tap_is_refused_and_the_session_goes_on() {
    let node = Node::new("");
    let agent = node.start();
    let meta = meta();
    let control = Control::connect(&node.socket());
    control.open(&meta, false);
    let before = agent.open_descriptors();
    let file = std::fs::File::open("/dev/null").expect("is there");
    let request = Request::Arm { channel: ChannelNo(0) };
    let refused = reason(control.ask(&request, &[file.as_raw_fd(), file.as_raw_fd()]));
    assert!(refused.contains("not a tap socket"), "{refused}");
    let tap = Tap::pair();
    let [client, _] = tap.descriptors();
    assert!(reason(control.ask(&request, &[client, client])).contains("another channel"));
    let mut used = Tap::pair();
    used.send_raw(C2T, b"sent before it is armed");
    let refused = reason(control.ask(&request, &used.descriptors()));
    assert!(refused.contains("unrecorded"), "{refused}");
    assert!(!used.try_pass(Direction::TargetToClient, Message::OpenConfirm), "never opened");
    assert_eq!(agent.open_descriptors(), before);
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    let again = Tap::pair();
    assert!(reason(control.ask(&request, &again.descriptors())).contains("used already"));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
}

#[test]
fn nothing_passes_the_taps_of_a_session_that_is_frozen_and_what_passed_before_is_stored() {
    let node = Node::new("");
    let _agent = node.start();
    let meta = meta();
    let control = Control::connect(&node.socket());
    control.open(&meta, false);
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    assert_eq!(control.ask(&Request::Freeze, &[]), Some(Reply::Frozen));
    for direction in [C2T, Direction::TargetToClient] {
        assert!(!tap.try_pass(direction, Message::Eof), "{direction:?}");
    }
    let outcome = Outcome::Ended { reason: "the grant has expired".into() };
    assert_eq!(control.close(outcome.clone()), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.manifest.outcome, outcome);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)].len(), 1);
    let kernel = recording.manifest.channels[0].c2t.kernel.expect("counted");
    assert_eq!(kernel.tossed_frozen, 1);
}

#[test]
fn the_order_of_requests_is_kept() {
    let node = Node::new("");
    let _agent = node.start();
    let meta = meta();
    let tap = Tap::pair();
    let early = Control::connect(&node.socket());
    assert!(
        reason(early.ask(&Request::Arm { channel: ChannelNo(0) }, &tap.descriptors())).contains("no session")
    );
    assert!(reason(early.close(Outcome::Completed)).contains("no session"));
    let control = Control::connect(&node.socket());
    assert!(reason(control.open(&meta, true)).contains("not known"));
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    assert!(reason(control.open(&meta, false)).contains("already"));
    let other = Control::connect(&node.socket());
    assert!(reason(other.open(&meta, false)).contains("registered already"));
    let mut forged = meta.clone();
    forged.user = "mallory".into();
    assert!(reason(other.open(&forged, true)).contains("another access context"));
    let older = |resume, meta: &SessionMeta| {
        let open = Request::Open { abi: OLDEST_ABI_VERSION, resume, meta: Box::new(meta.clone()) };
        Control::connect(&node.socket()).ask(&open, &[])
    };
    let new = support::proxy::meta();
    assert!(reason(older(false, &new)).contains(&format!("ABI {OLDEST_ABI_VERSION}")));
    assert!(reason(older(true, &new)).contains("not known"), "it is let through to who knows it");
    assert_eq!(older(true, &meta), Some(Reply::Opened));
    let abi = Request::Open { abi: ABI_VERSION + 1, resume: true, meta: Box::new(meta) };
    let reason = reason(Control::connect(&node.socket()).ask(&abi, &[]));
    assert!(
        reason.contains(&format!("ABI {}", ABI_VERSION + 1)) && reason.contains(&ABI_VERSION.to_string())
    );
}

#[test]
fn a_connection_that_takes_a_session_over_keeps_it_when_the_old_one_ends() {
    let node = Node::new("");
    let _agent = node.start();
    let meta = meta();
    let old = Control::connect(&node.socket());
    old.open(&meta, false);
    let mut tap = old.arm(0);
    let new = Control::connect(&node.socket());
    assert_eq!(new.open(&meta, true), Some(Reply::Opened));
    assert!(reason(old.close(Outcome::Completed)).contains("taken it over"));
    old.drop_connection();
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    let mut second = new.arm(1);
    second.pass(C2T, &Message::Open(ChannelType::Session));
    assert_eq!(new.close(Outcome::Completed), Some(Reply::Closed));
    assert_eq!(verify(&node, meta.session_id).manifest.outcome, Outcome::Completed);
}

#[test]
fn users_that_are_not_allowed_are_refused_by_their_user_id() {
    let node = Node::new("allowed_uids = [4711]");
    let agent = node.start();
    let control = Control::connect(&node.socket());
    let reason = reason(control.receive());
    assert!(reason.contains("allowed_uids or allowed_users"), "{reason}");
    assert_eq!(control.receive(), None);
    agent.wait_for_log("the user is not in allowed_uids");
}

#[test]
fn users_are_allowed_by_name_and_a_name_that_nobody_has_is_told_before_anything_is_opened() {
    let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("readable").expect("has a name");
    let node = Node::new(&format!("allowed_uids = []\nallowed_users = [{:?}]", own.name));
    let _agent = node.start();
    assert_eq!(Control::connect(&node.socket()).open(&meta(), false), Some(Reply::Opened));

    let node = Node::new("allowed_users = [\"root\", \"nobody-of-weir\"]");
    let mut check = Command::new(env!("CARGO_BIN_EXE_weir-agent"));
    let check = check.arg("--check").arg("--config").arg(node.write_config());
    let check = check.output().expect("the agent starts");
    let told = String::from_utf8(check.stderr).expect("UTF-8");
    assert!(!check.status.success() && told.contains("this node has no user \"nobody-of-weir\""), "{told}");
    node.spawn().wait_for_log("useradd --system nobody-of-weir");
    assert!(!node.path("state").exists());
}

#[test]
fn other_users_cannot_even_connect() {
    let node = Node::new("");
    let _agent = node.start();
    let connect = format!(
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect({:?})",
        node.socket().display().to_string()
    );
    // The directory of the test is closed to others; the socket's mode is what is to be seen.
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("own directory");
    };
    open(&node.path("."));
    let output = Command::new("python3").args(["-c", &connect]).uid(65_534).gid(65_534).output();
    let output = output.expect("python3 runs");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.contains("PermissionError"), "{complaint}");
}

#[test]
fn a_connection_that_says_nothing_is_ended() {
    let node = Node::new("open_timeout_ms = 50");
    let _agent = node.start();
    let control = Control::connect(&node.socket());
    assert!(reason(control.receive()).contains("did not open a session"));
    assert_eq!(control.receive(), None);
}

#[test]
fn a_flood_of_garbage_connections_leaves_a_session_alone() {
    let node = Node::new("max_sessions = 20");
    let _agent = node.start();
    let meta = meta();
    let control = Control::connect(&node.socket());
    control.open(&meta, false);
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    let mut silent = Vec::new();
    for round in 0..300_u32 {
        let garbage = Control::connect(&node.socket());
        // The agent may have refused it already.
        let _ = garbage.send(&round.to_le_bytes(), &[]);
        if round % 10 == 0 {
            silent.push(Control::connect(&node.socket()));
            tap.pass(C2T, &stdin("still here "));
        }
    }
    drop(silent);
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
}

#[test]
fn a_session_past_the_bound_is_refused_and_finds_room_when_one_has_ended() {
    let node = Node::new("max_sessions = 3");
    let _agent = node.start();
    let open = || {
        let (control, meta) = (Control::connect(&node.socket()), meta());
        let reply = control.open(&meta, false);
        (control, meta, reply)
    };
    let (first, meta, _) = open();
    let _second = open();
    assert!(matches!(open().2, Some(Reply::Opened)), "and gone again with its connection");
    wait_until("it has ended", || matches!(open().2, Some(Reply::Opened)));
    first.close(Outcome::Completed);
    verify(&node, meta.session_id);
}
