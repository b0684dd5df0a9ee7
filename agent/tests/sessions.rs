//! Sessions against the real kernel: from the control socket to a directory that anyone can verify.

mod support;

use bytes::Bytes;
use support::{
    Node, names,
    proxy::{Control, Tap, frame, meta, stdin, stdout},
    stored::{directory, verify},
    wait_until,
};
use weir_common::{
    control::{Reply, Request},
    frame::{ChannelType, Direction, Env, Message, Pty, WindowSize},
    session::{ChannelNo, Outcome},
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;

/// An interactive session in a few frames.
fn shell(tap: &mut Tap) {
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    tap.pass(T2C, &Message::OpenConfirm);
    let size = WindowSize { cols: 80, rows: 24, width_px: 0, height_px: 0 };
    tap.pass(C2T, &Message::Pty(Pty { term: "xterm".into(), size, modes: vec![(53, 1)] }));
    tap.pass(T2C, &Message::Success);
    tap.pass(C2T, &Message::Env(Env { name: "LANG".into(), value: "C.UTF-8".into() }));
    tap.pass(C2T, &Message::Shell);
    tap.pass(T2C, &Message::Success);
    tap.pass(T2C, &stdout("$ "));
    tap.pass(C2T, &stdin("exit\r"));
    tap.pass(T2C, &stdout("exit\r\nλ\u{1b}[0m"));
    tap.pass(T2C, &Message::ExitStatus(0));
    tap.pass(T2C, &Message::Close);
    tap.pass(C2T, &Message::Close);
}

#[test]
fn a_session_is_stored_as_it_was_delivered_and_verifies_with_common_tools() {
    let node = Node::new("");
    let agent = node.start();
    let meta = meta();
    let control = Control::connect(&node.socket());
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    let mut tap = control.arm(0);
    shell(&mut tap);
    let mut second = control.arm(1);
    let binary: Vec<u8> = (0..32 * 1024_u32).map(|i| (i * 7 % 251) as u8).collect();
    for _ in 0..40 {
        second.pass(C2T, &Message::Stdin(Bytes::from(binary.clone())));
    }
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.manifest.session, meta);
    assert_eq!(recording.manifest.outcome, Outcome::Completed);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
    assert_eq!(recording.frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
    assert_eq!(recording.frames[&(ChannelNo(1), C2T)], second.sent(C2T));
    let kernel = recording.manifest.channels[0].c2t.kernel.expect("the kernel was asked");
    assert_eq!(kernel.captured.records, tap.sent(C2T).len() as u64);
    agent.stop();
}

#[test]
fn a_session_without_a_single_channel_still_has_a_manifest() {
    let node = Node::new("");
    let _agent = node.start();
    let meta = meta();
    let control = Control::connect(&node.socket());
    control.open(&meta, false);
    let outcome = Outcome::Ended { reason: "the target did not answer".into() };
    assert_eq!(control.close(outcome.clone()), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    assert_eq!((recording.manifest.outcome, recording.manifest.segments.len()), (outcome, 0));
    assert_eq!(names(&directory(&node, meta.session_id)), ["SHA256SUMS", "SHA256SUMS.sig", "manifest.json"]);
}

#[test]
fn a_proxy_that_dies_ends_its_session_and_the_kernel_lets_nothing_pass_any_more() {
    let node = Node::new("");
    let _agent = node.start();
    let meta = meta();
    let control = Control::connect(&node.socket());
    control.open(&meta, false);
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    control.drop_connection();
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.manifest.outcome, Outcome::ConnectorLost);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
    assert!(!tap.try_pass(T2C, Message::OpenConfirm), "frozen, then removed");
}

#[test]
fn a_closed_session_passes_nothing_from_the_moment_of_the_reply() {
    let node = Node::new("");
    let _agent = node.start();
    let control = Control::connect(&node.socket());
    control.open(&meta(), false);
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    assert!(!tap.try_pass(C2T, stdin("after the end")));
}

#[test]
fn duplicates_frames_out_of_sequence_and_what_is_no_frame_are_counted_and_not_recorded() {
    let node = Node::new("");
    let _agent = node.start();
    let meta = meta();
    let control = Control::connect(&node.socket());
    control.open(&meta, false);
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    let send = |bytes: &[u8]| {
        tap.send_raw(C2T, bytes);
        wait_until("the kernel passes it", || tap.receive_raw(C2T).is_some());
    };
    send(&frame(Message::Open(ChannelType::Session), 0));
    send(&frame(stdin("too early"), 7));
    send(b"no frame");
    send(&frame(stdin("behind what is no frame"), 1));
    control.close(Outcome::Completed);
    let recording = verify(&node, meta.session_id);
    let totals = recording.manifest.channels[0].c2t;
    let counts = [totals.accepted, totals.duplicate, totals.out_of_sequence, totals.malformed];
    assert_eq!(counts.map(|count| count.records), [1, 1, 1, 2]);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
}

#[test]
fn segments_are_sealed_by_age_while_the_session_goes_on_and_form_a_chain() {
    let node = Node::new("segment_max_age_ms = 50");
    let _agent = node.start();
    let meta = meta();
    let control = Control::connect(&node.socket());
    control.open(&meta, false);
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    for number in 1..=3 {
        tap.pass(T2C, &stdout(&format!("line {number}\n")));
        let sealed = format!("{number:06}.ndjson.zst");
        wait_until("a segment is sealed", || {
            let days = std::fs::read_dir(node.path("store/v1")).into_iter().flatten().flatten();
            days.into_iter().any(|day| day.path().join(meta.session_id.to_string()).join(&sealed).exists())
        });
    }
    control.close(Outcome::Completed);
    let recording = verify(&node, meta.session_id);
    assert!(recording.manifest.segments.len() >= 3);
    assert_eq!(recording.frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
}

#[test]
fn sessions_side_by_side_are_kept_apart() {
    let node = Node::new("segment_max_bytes = 20000");
    let _agent = node.start();
    let mut sessions: Vec<_> = (0..8)
        .map(|_| {
            let (meta, control) = (meta(), Control::connect(&node.socket()));
            control.open(&meta, false);
            let tap = control.arm(0);
            (meta, control, tap)
        })
        .collect();
    for round in 0..60 {
        for (number, (_, _, tap)) in sessions.iter_mut().enumerate() {
            let text =
                format!("session {number} round {round} ").repeat(1 + (number * 31 + round * 17) % 200);
            tap.pass(T2C, &stdout(&text));
            tap.pass(C2T, &stdin(&text[..10]));
        }
    }
    for (meta, control, tap) in &sessions {
        assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
        let recording = verify(&node, meta.session_id);
        assert!(recording.manifest.segments.len() > 1);
        assert_eq!(recording.frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
        assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
    }
}

#[test]
fn a_disarmed_channel_passes_nothing_and_makes_room_for_the_next_ones_and_its_counts_are_in_the_manifest() {
    let node = Node::new("max_taps = 4");
    let _agent = node.start();
    let (meta, control) = (meta(), Control::connect(&node.socket()));
    control.open(&meta, false);
    let mut first = control.arm(0);
    first.pass(C2T, &Message::Open(ChannelType::Session));
    let mut others = Vec::new();
    for channel in 1..20 {
        let mut tap = control.arm(channel);
        tap.pass(C2T, &Message::Open(ChannelType::Session));
        tap.pass(T2C, &stdout(&format!("channel {channel}")));
        let disarmed = Some(Reply::Disarmed { channel: ChannelNo(channel) });
        assert_eq!(control.disarm(channel), disarmed);
        assert!(!tap.try_pass(C2T, stdin("after the end")));
        assert_eq!(control.disarm(channel), disarmed, "it is");
        others.push((ChannelNo(channel), tap));
        first.pass(T2C, &stdout("the first one goes on"));
    }
    assert!(
        matches!(control.disarm(20), Some(Reply::Refused { reason }) if reason.contains("no channel 20"))
    );
    let tap = Tap::pair();
    let again = control.ask(&Request::Arm { channel: ChannelNo(3) }, &tap.descriptors());
    assert!(matches!(again, Some(Reply::Refused { reason }) if reason.contains("used already")));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.frames[&(ChannelNo(0), T2C)], first.sent(T2C));
    for (channel, tap) in &others {
        assert_eq!(recording.frames[&(*channel, C2T)], tap.sent(C2T));
        assert_eq!(recording.frames[&(*channel, T2C)], tap.sent(T2C));
    }
    let channels = &recording.manifest.channels;
    assert!(channels.iter().map(|totals| totals.channel.0).eq(0..20));
    assert!(channels.iter().all(|totals| totals.c2t.kernel.is_some() && totals.t2c.kernel.is_some()));
}
