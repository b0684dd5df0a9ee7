//! A store that is away while sessions come and go.

use super::*;
use crate::support::stored::directory;

/// Sessions that end while the store is away.
const SESSIONS: usize = 400;
/// What each may take of the agent's memory.
const SESSION_KIB_MAX: u64 = 24;

#[test]
fn while_the_store_is_away_sessions_begin_however_many_have_ended_and_all_are_stored_when_it_is_back() {
    let node = Node::new("max_sessions = 4\n");
    node.small_disk_for("store", 64 * 1024);
    let agent = node.start();
    let (first, control, mut tap) = begin(&node);
    for _ in 0..8 {
        tap.pass(T2C, &quota::incompressible());
    }
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    agent.wait_for_log("the store does not answer");
    let before = agent.memory_kib();
    let mut ended = vec![(first, tap)];
    let mut others = Vec::new();
    for number in 0..SESSIONS {
        let (meta, control, mut tap) = begin(&node);
        tap.pass(T2C, &stdout(&format!("session {number}\r\n")));
        assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
        // Each has two descriptors.
        if number % 50 == 0 { ended.push((meta, tap)) } else { others.push(meta.session_id) }
    }
    let each = agent.memory_kib().saturating_sub(before) / SESSIONS as u64;
    eprintln!("{each} KiB for each session that has ended and is not stored");
    assert!(each < SESSION_KIB_MAX, "{each} KiB a session");
    let (_live, _control, mut live_tap) = begin(&node);
    node.enlarge_disk_for("store", 256 * 1024 * 1024);
    for id in others {
        directory(&node, id);
    }
    for (meta, tap) in &ended {
        let recording = verify(&node, meta.session_id);
        assert_eq!(recording.frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
    }
    live_tap.pass(T2C, &stdout("it has gone on meanwhile"));
}
