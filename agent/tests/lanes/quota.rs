//! A session that has used up its share of the spool is paused, alone.

use weir_common::{control::Request, recording::GapCause, session::CapturePolicy};

use super::{
    support::stored::{Poison, assert_all_told},
    *,
};

const SMALL: &str = "session_spool_max_bytes = 262144\nsegment_max_bytes = 60000\nspool_file_bytes = 65536\n";

fn chunk() -> Message {
    stdout(&"z".repeat(30_000))
}

/// Passes as much as the session's share has room for.
fn fill(tap: &mut Tap) {
    let mut passed = 0;
    let mut tossed = 0;
    wait_until("the session is paused", || {
        let through = tap.try_pass(T2C, chunk());
        passed += u32::from(through);
        tossed = if through { 0 } else { tossed + 1 };
        tossed > 20
    });
    assert!((9..60).contains(&passed), "{passed} chunks: the share, and what was in the ring");
}

#[test]
fn a_session_over_its_share_is_paused_alone_across_a_kill_and_goes_on_when_it_is_stored() {
    let node = Node::new(SMALL);
    let agent = node.start();
    let (meta, _control, mut tap) = begin(&node);
    let poison = Poison::put(&node, meta.session_id);
    fill(&mut tap);
    agent.wait_for_log("it is paused");
    let (other, other_control, mut other_tap) = begin(&node);
    for _ in 0..20 {
        other_tap.pass(T2C, &chunk());
    }
    agent.kill();
    assert!(!tap.try_pass(T2C, chunk()), "the kernel needs no agent for it");
    let agent = node.start();
    let (control, other_control) = (resume(&node, &meta), {
        drop(other_control);
        resume(&node, &other)
    });
    agent.wait_for_log("it is paused");
    assert!(!tap.try_pass(T2C, chunk()));
    let mut second = control.arm(1);
    assert!(!second.try_pass(C2T, Message::Open(ChannelType::Session)), "armed paused");
    finish(&node, &other, &other_control, &other_tap);
    poison.lift();
    agent.wait_for_log("it goes on");
    tap.pass(T2C, &chunk());
    second.pass(C2T, &Message::Open(ChannelType::Session));
    finish(&node, &meta, &control, &tap);
}

#[test]
fn what_passes_a_best_effort_session_over_its_share_is_told_as_a_gap_for_that_reason() {
    let node = Node::new(SMALL);
    let agent = node.start();
    let (mut meta, control) = (meta(), Control::connect(&node.socket()));
    meta.capture_policy = CapturePolicy::BestEffort;
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    let mut tap = control.arm(0);
    let poison = Poison::put(&node, meta.session_id);
    let mut pass = || assert!(tap.try_pass(T2C, chunk()), "it never stalls");
    wait_until("it has used up its share", || {
        pass();
        agent.logged("it is paused")
    });
    (0..50).for_each(|_| pass());
    poison.lift();
    agent.wait_for_log("it goes on");
    pass();
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let causes = assert_all_told(&verify(&node, meta.session_id), 0, &tap);
    assert!(causes.contains(&GapCause::SessionQuota), "{causes:?}");
}

#[test]
fn a_freeze_wins_over_a_pause_and_its_end() {
    let node = Node::new(SMALL);
    let agent = node.start();
    let (meta, control, mut tap) = begin(&node);
    let poison = Poison::put(&node, meta.session_id);
    fill(&mut tap);
    assert_eq!(control.ask(&Request::Freeze, &[]), Some(Reply::Frozen));
    poison.lift();
    agent.wait_for_log("it goes on");
    assert!(!tap.try_pass(T2C, chunk()));
    finish(&node, &meta, &control, &tap);
}

#[test]
fn a_session_that_cannot_be_stored_and_says_little_is_paused_before_it_keeps_everybodys_space() {
    let node = Node::new(&format!("spool_max_bytes = 4194304\n{SMALL}"));
    let agent = node.start();
    let (meta, control, mut tap) = begin(&node);
    let poison = Poison::put(&node, meta.session_id);
    let (other, other_control, mut other_tap) = begin(&node);
    // Ten times what there is room for, and a word in every file.
    let mut said = 0;
    for _ in 0..700 {
        said += u32::from(tap.try_pass(C2T, stdin("a word")));
        other_tap.pass(T2C, &chunk());
    }
    agent.wait_for_log("it is paused");
    assert!((3..350).contains(&said), "{said} words");
    finish(&node, &other, &other_control, &other_tap);
    poison.lift();
    tap.pass(C2T, &stdin("it goes on"));
    finish(&node, &meta, &control, &tap);
}

#[test]
fn while_the_store_takes_nothing_a_session_that_says_little_answers_for_nobody_elses_bytes() {
    let node = Node::new(SMALL);
    node.small_disk_for("store", 64 * 1024);
    let agent = node.start();
    let (meta, control, mut tap) = begin(&node);
    let mut others = Vec::new();
    // The first fills the store. Of what follows a half each would be the quiet one's: more than its share.
    for _ in 0..5 {
        let (other, other_control, mut other_tap) = begin(&node);
        for _ in 0..8 {
            other_tap.pass(T2C, &incompressible());
            tap.pass(C2T, &stdin("a word"));
        }
        if others.is_empty() {
            agent.wait_for_log("the store does not answer");
        }
        others.push((other, other_control, other_tap));
    }
    for _ in 0..100 {
        assert!(tap.try_pass(C2T, stdin("another")), "paused");
    }
    assert!(!agent.logged("it is paused"));
    node.enlarge_disk_for("store", 64 * 1024 * 1024);
    for (other, other_control, other_tap) in &others {
        finish(&node, other, other_control, other_tap);
    }
    finish(&node, &meta, &control, &tap);
}

/// As much as [`chunk`], and as much in a store.
pub(super) fn incompressible() -> Message {
    let bytes: Vec<u8> = rand::random_iter().take(30_000).collect();
    Message::Stdout(bytes.into())
}
