//! A full disk, a store in conflict, a node that restarts: what goes wrong is said, and nothing is lost or
//! let through.

mod support;

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
};

use support::{
    Node,
    proxy::{Control, Tap, meta, stdout},
    stored::{Poison, assert_all_told, directory, places_to_be, verify},
    wait_until,
};
use weir_common::{
    control::{Reply, Request},
    frame::{ChannelType, Direction, Message},
    recording::GapCause,
    session::{CapturePolicy, ChannelNo, Outcome, SessionMeta},
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;

fn begin(node: &Node) -> (SessionMeta, Control, Tap) {
    let (meta, control) = (meta(), Control::connect(&node.socket()));
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    let tap = control.arm(0);
    (meta, control, tap)
}

#[test]
fn a_full_disk_stalls_sessions_and_puts_every_request_off_until_there_is_room() {
    let node = Node::new("ring_bytes = 65536\nsegment_max_age_ms = 60000");
    node.small_disk(8 * 1024 * 1024);
    let agent = node.start();
    let (meta, control, mut tap) = begin(&node);
    let mut second = control.arm(1);
    second.pass(C2T, &Message::Open(ChannelType::Session));
    let chunk = stdout(&"z".repeat(30_000));
    fs::write(node.path("state/ballast"), vec![1; 2 * 1024 * 1024]).expect("there is room");
    for _ in 0..40 {
        tap.pass(T2C, &chunk);
    }
    fs::write(node.path("state/ballast"), vec![1; 4 * 1024 * 1024]).expect("there is room");
    let mut passed = 0;
    wait_until("the session stalls", || {
        passed += u32::from(tap.try_pass(T2C, chunk.clone()));
        agent.logged("the spool's disk is full") && !tap.try_pass(T2C, chunk.clone())
    });
    put_off(&Control::connect(&node.socket()).open(&support::proxy::meta(), false));
    let pair = Tap::pair();
    let arm = Request::Arm { channel: ChannelNo(2) };
    put_off(&control.ask(&arm, &pair.descriptors()));
    put_off(&control.disarm(1));
    put_off(&control.disarm(1));
    put_off(&control.close(Outcome::Completed));
    let resumed = Control::connect(&node.socket()).open(&meta, true);
    assert_eq!(refused(resumed), format!("session {} is ending", meta.session_id));
    fs::remove_file(node.path("state/ballast")).expect("removable");
    agent.wait_for_log("the spool has room again");
    agent.wait_for_log("session closed");
    directory(&node, meta.session_id);
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed), "although it is stored by now");
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.manifest.outcome, Outcome::Completed);
    assert_eq!(recording.frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
    let (_, _control, mut tap) = begin(&node);
    tap.pass(T2C, &chunk);
}

fn put_off(reply: &Option<Reply>) {
    assert!(
        matches!(reply, Some(Reply::TryAgain { reason }) if reason.contains("spool is full")),
        "{reply:?}"
    );
}

fn refused(reply: Option<Reply>) -> String {
    match reply {
        Some(Reply::Refused { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

fn begin_best_effort(node: &Node) -> (SessionMeta, Control, Tap) {
    let (mut meta, control) = (meta(), Control::connect(&node.socket()));
    meta.capture_policy = CapturePolicy::BestEffort;
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    let tap = control.arm(0);
    (meta, control, tap)
}

#[test]
fn a_best_effort_session_goes_on_while_the_disk_is_full_and_opens_channels() {
    let node = Node::new("ring_bytes = 65536\nsegment_max_age_ms = 60000");
    node.small_disk(8 * 1024 * 1024);
    let agent = node.start();
    let (lenient, control, mut tap) = begin_best_effort(&node);
    let (_strict, _strict_control, mut strict) = begin(&node);
    let chunk = stdout(&"z".repeat(3_000));
    tap.pass(T2C, &chunk);
    fs::write(node.path("state/ballast"), vec![1; 5 * 1024 * 1024]).expect("there is room");
    wait_until("the spool is full", || {
        assert!(tap.try_pass(T2C, chunk.clone()), "it never stalls");
        agent.logged("the spool's disk is full")
    });
    for _ in 0..200 {
        assert!(tap.try_pass(T2C, chunk.clone()), "it never stalls");
    }
    let large = stdout(&"z".repeat(30_000));
    assert!(!strict.try_pass(T2C, large.clone()), "the one beside it does");
    let mut second = control.arm(1);
    assert!(second.try_pass(T2C, large));
    fs::remove_file(node.path("state/ballast")).expect("removable");
    agent.wait_for_log("the spool has room again");
    strict.pass(T2C, &chunk);
    tap.pass(T2C, &stdout("after"));
    assert_eq!(control.disarm(1), Some(Reply::Disarmed { channel: ChannelNo(1) }), "its gap is open");
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, lenient.session_id);
    let causes = assert_all_told(&recording, 0, &tap);
    assert!(causes.contains(&GapCause::SpoolFull), "{causes:?}");
    assert_eq!(assert_all_told(&recording, 1, &second), [GapCause::SpoolFull]);
}

#[test]
fn what_passed_while_no_agent_was_running_is_told_by_the_next_one_once_however_often_it_is_killed() {
    let node = Node::new("ring_bytes = 65536");
    let agent = node.start();
    let (meta, control, mut tap) = begin_best_effort(&node);
    let chunk = stdout(&"z".repeat(3_000));
    tap.pass(T2C, &chunk);
    agent.kill();
    for _ in 0..100 {
        assert!(tap.try_pass(T2C, chunk.clone()), "it never stalls");
    }
    drop(control);
    for _ in 0..3 {
        let agent = node.start();
        let control = Control::connect(&node.socket());
        assert_eq!(control.open(&meta, true), Some(Reply::Opened));
        wait_until("the gap is told", || {
            assert!(tap.try_pass(T2C, stdout("again")), "it never stalls");
            agent.logged("messages passed unrecorded")
        });
        agent.kill();
        for _ in 0..100 {
            assert!(tap.try_pass(T2C, chunk.clone()), "it never stalls");
        }
    }
    // The last gap is open when the session ends.
    let _agent = node.start();
    let control = Control::connect(&node.socket());
    assert_eq!(control.open(&meta, true), Some(Reply::Opened));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    let causes = assert_all_told(&recording, 0, &tap);
    assert!(causes.len() >= 2 && causes.iter().all(|&cause| cause == GapCause::AgentDown), "{causes:?}");
}

#[test]
fn a_best_effort_channel_that_ended_while_no_agent_was_running_is_told_to_its_end_and_another_begins() {
    let node = Node::new("ring_bytes = 65536");
    let mut agent = node.start();
    let (meta, mut control, mut tap) = begin_best_effort(&node);
    let mut over = Vec::new();
    for life in 1..4 {
        let mut short = control.arm(life);
        let chunk = stdout(&"z".repeat(3_000));
        short.pass(T2C, &chunk);
        agent.kill();
        // In turn, so that both have records in the ring, and gaps behind these.
        for _ in 0..60 {
            assert!(
                short.try_pass(T2C, chunk.clone()) && tap.try_pass(T2C, chunk.clone()),
                "it never stalls"
            );
        }
        over.push((life, short));
        // The proxy has closed it, and says so to the next agent.
        agent = node.start();
        let next = Control::connect(&node.socket());
        assert_eq!(next.open(&meta, true), Some(Reply::Opened));
        control = next;
        assert_eq!(control.disarm(life), Some(Reply::Disarmed { channel: ChannelNo(life) }));
        assert_eq!(
            control.disarm(life),
            Some(Reply::Disarmed { channel: ChannelNo(life) }),
            "it may ask twice"
        );
        assert!(tap.try_pass(T2C, stdout("goes on")));
    }
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    for (channel, tap) in over.iter().chain([&(0, tap)]) {
        let causes = assert_all_told(&recording, *channel, tap);
        assert!(!causes.is_empty() && causes.iter().all(|&cause| cause == GapCause::AgentDown), "{causes:?}");
    }
}

#[test]
fn a_frozen_session_gets_no_new_channel() {
    let node = Node::new("");
    let _agent = node.start();
    for (meta, control, mut tap) in [begin(&node), begin_best_effort(&node)] {
        tap.pass(T2C, &stdout("before"));
        assert_eq!(control.ask(&Request::Freeze, &[]), Some(Reply::Frozen));
        assert!(!tap.try_pass(T2C, stdout("after")), "whatever its policy");
        let pair = Tap::pair();
        let arm = Request::Arm { channel: ChannelNo(1) };
        let reason = refused(control.ask(&arm, &pair.descriptors()));
        assert_eq!(reason, format!("session {} is frozen: its grant is over", meta.session_id));
        assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
        assert_all_told(&verify(&node, meta.session_id), 0, &tap);
    }
}

#[test]
fn a_session_that_has_ended_or_whose_taps_the_kernel_lost_is_not_resumed() {
    let node = Node::new("");
    let agent = node.start();
    let (ended, control, mut tap) = begin(&node);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    // A store that takes nothing keeps it from being finished.
    Poison::put(&node, ended.session_id);
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let resume = |meta| refused(Control::connect(&node.socket()).open(meta, true));
    assert_eq!(resume(&ended), format!("session {} has ended", ended.session_id));
    let (lost, _control, mut tap) = begin(&node);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    agent.stop();
    for map in ["TAPS", "COUNTS"] {
        fs::remove_file(node.path("bpf/weir/2/0").join(map)).expect("pinned");
    }
    let _agent = node.start();
    let reason = resume(&lost);
    assert!(reason.contains("lost the tap of channel 0"), "{reason}");
    assert_eq!(resume(&ended), format!("session {} has ended", ended.session_id));
}

#[test]
fn a_spool_that_could_not_be_written_is_tried_again_although_no_session_is_under_way() {
    let node = Node::new("ring_bytes = 65536");
    node.small_disk(8 * 1024 * 1024);
    let agent = node.start();
    let mut ballast = fs::File::create(node.path("state/ballast")).expect("there is room");
    // To the last byte, unlike what records leave free.
    while std::io::Write::write_all(&mut ballast, &[1; 4096]).is_ok() {}
    // Those that still find room stay, and say nothing: nobody but who asks finds out that there is room again.
    let mut controls = Vec::new();
    let mut open = || {
        let control = Control::connect(&node.socket());
        let reply = control.open(&meta(), false);
        controls.push(control);
        reply
    };
    wait_until("not even a session's beginning finds room", || {
        matches!(open(), Some(Reply::TryAgain { .. }))
    });
    agent.wait_for_log("the spool cannot be written");
    fs::remove_file(node.path("state/ballast")).expect("removable");
    drop(ballast);
    wait_until("there is room", || open() == Some(Reply::Opened));
}

#[test]
fn evidence_that_is_there_already_is_never_overwritten_and_other_sessions_go_on() {
    let node = Node::new("seal_parallelism = 1");
    let agent = node.start();
    let (meta, control, mut tap) = begin(&node);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    let objects: Vec<_> = places_to_be(&node, meta.session_id)
        .into_iter()
        .map(|place| place.join("000001.ndjson.zst"))
        .collect();
    for object in &objects {
        fs::create_dir_all(object.parent().expect("a directory")).expect("writable");
        fs::write(object, b"somebody else's").expect("writable");
    }
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let line = agent.wait_for_log("evidence conflicts");
    assert!(line.contains(&meta.session_id.to_string()), "{line}");
    let (other, control, mut other_tap) = begin(&node);
    other_tap.pass(C2T, &Message::Open(ChannelType::Session));
    control.close(Outcome::Completed);
    verify(&node, other.session_id);
    for object in &objects {
        assert_eq!(fs::read(object).expect("is there"), b"somebody else's");
    }
    // Once somebody has looked at it and moved it away, the session is completed.
    objects.iter().for_each(|object| fs::remove_file(object).expect("removable"));
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
}

/// Where in the spool this was written, once it is there.
fn spooled_at(node: &Node, said: &[u8]) -> (fs::File, u64) {
    let mut found = None;
    wait_until("it is in the spool", || {
        found = node.spool_files().into_iter().find_map(|path| {
            let bytes = fs::read(&path).ok()?;
            let at = bytes.windows(said.len()).position(|window| window == said)?;
            Some((fs::File::options().write(true).open(path).ok()?, at as u64))
        });
        found.is_some()
    });
    found.expect("just found")
}

#[test]
fn a_session_whose_records_were_altered_in_the_spool_is_told_and_holds_up_no_other() {
    let node = Node::new("seal_parallelism = 1\nsegment_max_age_ms = 60000");
    let agent = node.start();
    let (damaged, control, mut tap) = begin(&node);
    for said in ["before", "what was really said", "behind"] {
        tap.pass(T2C, &stdout(said));
    }
    let (file, at) = spooled_at(&node, b"what was really said");
    file.write_all_at(b"i", at + 6).expect("writable");
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let line = agent.wait_for_log("storing failed");
    assert!(line.contains(&damaged.session_id.to_string()) && line.contains("is damaged at"), "{line}");
    for _ in 0..3 {
        let (other, control, mut tap) = begin(&node);
        tap.pass(T2C, &stdout("meanwhile"));
        assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
        assert_eq!(verify(&node, other.session_id).frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
    }
    let stored = places_to_be(&node, damaged.session_id);
    assert!(
        !stored.iter().any(|place| place.exists()),
        "nothing is stored of what is not as it was recorded"
    );
    assert!(!agent.log().contains("really said"), "the log tells where, and not what");
    // It stays in the spool for whoever can mend it.
    file.write_all_at(b"a", at + 6).expect("writable");
    assert_eq!(verify(&node, damaged.session_id).frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
}

#[test]
fn short_of_space_new_sessions_are_refused_at_once_and_running_ones_go_on() {
    let node = Node::new(
        "segment_max_bytes = 60000\nspool_file_bytes = 65536\nspool_max_bytes = 4194304\nspool_refuse_bytes = 1048576\nsession_spool_max_bytes = 4194304",
    );
    let agent = node.start();
    let (meta, _control, mut tap) = begin(&node);
    let poison = Poison::put(&node, meta.session_id);
    let chunk = stdout(&"z".repeat(30_000));
    for _ in 0..40 {
        tap.pass(T2C, &chunk);
    }
    agent.wait_for_log("past spool_refuse_bytes");
    let reason = refused(Control::connect(&node.socket()).open(&support::proxy::meta(), false));
    assert!(reason.contains("nearly out of space"), "{reason}");
    for _ in 0..10 {
        tap.pass(T2C, &chunk);
    }
    poison.lift();
    agent.wait_for_log("new sessions are taken");
    let (_, _control, mut tap) = begin(&node);
    tap.pass(T2C, &chunk);
}

#[test]
fn a_hundred_sessions_that_cannot_be_stored_hold_up_nobody_and_keep_no_space_but_their_own() {
    let node = Node::new(
        "seal_parallelism = 1\nspool_file_bytes = 65536\nspool_max_bytes = 4194304\nsegment_max_bytes = 60000",
    );
    let _agent = node.start();
    for _ in 0..100 {
        let (meta, control, mut tap) = begin(&node);
        Poison::put(&node, meta.session_id);
        tap.pass(C2T, &Message::Open(ChannelType::Session));
        assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    }
    // More than the spool has room for comes after what it has to keep.
    let (other, control, mut tap) = begin(&node);
    let chunk = stdout(&"z".repeat(30_000));
    for _ in 0..300 {
        tap.pass(T2C, &chunk);
    }
    wait_until("there is room for its end", || control.close(Outcome::Completed) == Some(Reply::Closed));
    let recording = verify(&node, other.session_id);
    assert_eq!(recording.frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
}

#[test]
fn sessions_of_a_node_that_restarted_are_ended_without_the_kernels_counters() {
    let node = Node::new("");
    let agent = node.start();
    let (meta, _control, mut tap) = begin(&node);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    tap.pass(T2C, &Message::OpenConfirm);
    agent.stop();
    node.forget_kernel_objects();
    let _agent = node.start();
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.manifest.outcome, Outcome::ConnectorLost);
    assert_eq!(recording.manifest.channels[0].c2t.kernel, None);
    assert_eq!(recording.frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
    let (meta, control, mut tap) = begin(&node);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    control.close(Outcome::Completed);
    assert!(verify(&node, meta.session_id).manifest.channels[0].c2t.kernel.is_some());
}

#[test]
fn what_was_said_lies_in_the_spool_for_the_agent_alone_and_goes_when_it_is_stored() {
    let node = Node::new("");
    let _agent = node.start();
    let (meta, control, mut tap) = begin(&node);
    let said = "the only one who knows";
    for _ in 0..200 {
        tap.pass(T2C, &stdout(&said.repeat(500)));
    }
    let mode = |path: &std::path::Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode(&node.spool_dir()), 0o700);
    assert!(node.spool_files().iter().all(|file| mode(file) == 0o600));
    control.close(Outcome::Completed);
    directory(&node, meta.session_id);
    wait_until("nothing of it is in the spool", || {
        let in_file = |file| fs::read(file).is_ok_and(|bytes| contains(&bytes, said.as_bytes()));
        !node.spool_files().into_iter().any(in_file)
    });
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_damaged_key_or_configuration_stops_the_agent_with_the_reason() {
    let node = Node::new("");
    fs::create_dir_all(node.path("state")).expect("writable");
    fs::write(node.path("state/signing_key"), "no key").expect("writable");
    fs::set_permissions(node.path("state/signing_key"), fs::Permissions::from_mode(0o600)).expect("own file");
    assert!(node.spawn().wait_for_failure().contains("is not an unencrypted OpenSSH private key"));
    let node = Node::new("store = \"ftp://bucket/prefix\"");
    assert!(node.spawn().wait_for_failure().contains("file:///"));
}
