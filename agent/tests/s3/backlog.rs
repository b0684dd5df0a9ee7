//! What a restart does not wait for. How long its pause is has a benchmark (`cargo xtask bench agent`); that it does not
//! grow with the store's answers, or with what is still to be stored, does not depend on speed.

use std::fs;

use weir_common::session::{ChannelNo, Outcome};

use crate::{
    faults::{C2T, Session, T2C},
    server::{ENVIRONMENT, Fault, Server},
    support::{Node, proxy::stdout, stored::verify, wait_until},
};

const SESSIONS: usize = 12;
/// A frame of the backlog.
const CHUNK_BYTES: usize = 30_000;
/// Far more than the ring, of 1 MiB, takes: without an agent that drains it nothing would pass any more.
const CHUNKS: usize = 16;
const RING_BYTES: usize = 1 << 20;

fn spool_bytes(node: &Node) -> usize {
    let bytes = |file| fs::metadata(file).map_or(0, |file| file.len());
    usize::try_from(node.spool_files().into_iter().map(bytes).sum::<u64>()).expect("it fits the disk")
}

/// Passes more than the ring takes, over all sessions.
fn pass(sessions: &mut [Session]) {
    for session in sessions {
        for _ in 0..CHUNKS {
            session.tap.pass(T2C, &stdout(&"x".repeat(CHUNK_BYTES)));
        }
    }
}

#[test]
fn after_a_restart_traffic_flows_while_the_store_hangs_and_all_that_was_said_waits_for_it() {
    const { assert!(SESSIONS * CHUNKS * CHUNK_BYTES > 4 * RING_BYTES) };
    let mut node =
        Node::new("segment_max_bytes = 60000\nsegment_max_age_ms = 50\nspool_file_bytes = 65536\n");
    let server = Server::start(&node.path("s3"));
    node.configure(&server.settings());
    node.environment(&ENVIRONMENT);
    std::os::unix::fs::symlink(server.objects(), node.path("store")).expect("not there yet");
    server.fail(Some(Fault::Hanging), None);
    let agent = node.start();
    let mut sessions: Vec<_> = (0..SESSIONS).map(|_| Session::begin(&node)).collect();
    pass(&mut sessions);
    wait_until("the backlog is in the spool", || spool_bytes(&node) > SESSIONS * CHUNKS * CHUNK_BYTES);
    agent.kill();

    server.count_anew();
    let agent = node.start();
    for session in &mut sessions {
        session.resume(&node);
    }
    pass(&mut sessions);
    let mut new = Session::begin(&node);
    new.talk(3);
    wait_until("the next agent has asked the store", || server.failed("") > 0);
    assert!(!server.objects().join("v1").exists(), "nothing has been stored, of any session");

    server.fail(None, None);
    sessions.push(new);
    for session in &sessions {
        session.close();
    }
    for session in &sessions {
        let recording = verify(&node, session.meta.session_id);
        assert_eq!(recording.manifest.outcome, Outcome::Completed);
        for way in [C2T, T2C] {
            assert_eq!(recording.frames[&(ChannelNo(0), way)], session.tap.sent(way), "{way}");
        }
    }
    agent.stop();
}
