//! One session's directory that the store does not take, with answers as in an outage, while it takes everybody else's.

use support::{
    Node,
    proxy::{meta, stdin, stdout},
    stored::verify,
};
use weir_common::session::ChannelNo;

use crate::{
    faults::{C2T, Session, T2C},
    server::{ENVIRONMENT, Fault, Server},
    support,
};

/// A session keeps its share of the spool with few words in files of others' bytes.
const SMALL: &str = "session_spool_max_bytes = 262144\nsegment_max_bytes = 60000\nsegment_max_age_ms = 200\n\
                     spool_file_bytes = 65536\n";
/// Requests for it: the tries with their pauses in half a minute, two requests each, and as many again.
const REQUESTS_MAX: usize = 40;
/// Sessions of others that begin before it must have used up its share.
const OTHERS_MAX: usize = 150;

/// A session that says something and is stored.
fn another(node: &Node) {
    let mut session = Session::begin(node);
    for _ in 0..5 {
        session.tap.pass(T2C, &stdout(&"z".repeat(30_000)));
    }
    session.close();
    let recording = verify(node, session.meta.session_id);
    assert_eq!(recording.frames[&(ChannelNo(0), T2C)], session.tap.sent(T2C));
}

fn is_stored_apart_from_others(fault: Fault) {
    let mut node = Node::new(SMALL);
    let server = Server::start(&node.path("s3"));
    node.configure(&server.settings());
    node.environment(&ENVIRONMENT);
    std::os::unix::fs::symlink(server.objects(), node.path("store")).expect("not there yet");
    let agent = node.start();
    let mut poisoned = Session::begin_without_words(&node, meta());
    let id = poisoned.meta.session_id.to_string();
    server.fail(Some(fault), Some(&id));
    let lines = |words: &[&str]| {
        agent.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    poisoned.tap.pass(C2T, &stdin("the first word"));
    // Nobody else has been answered yet.
    agent.wait_for_log("the store does not answer");
    let mut others = 0;
    while lines(&[&id, "it is paused"]) == 0 {
        assert!(others < OTHERS_MAX, "it keeps everybody's space");
        poisoned.tap.try_pass(C2T, stdin("a word"));
        another(&node);
        others += 1;
    }
    assert!(!poisoned.tap.try_pass(C2T, stdin("a word")), "its share is used up");
    let requests = server.failed(&id);
    assert!((1..REQUESTS_MAX).contains(&requests), "{requests} requests, and {others} others were stored");
    assert_eq!(lines(&["the store does not answer"]), 1, "what only it meets is no outage any more");
    assert!(lines(&[&id, "the store takes others' objects"]) <= requests);
    server.fail(None, None);
    poisoned.tap.pass(C2T, &stdin("it goes on"));
    poisoned.close();
    let recording = verify(&node, poisoned.meta.session_id);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], poisoned.tap.sent(C2T));
}

#[test]
fn a_session_that_alone_is_denied_is_no_outage_and_uses_up_no_more_than_its_share() {
    is_stored_apart_from_others(Fault::Status(403, "AccessDenied"));
}

#[test]
fn a_session_that_alone_is_told_to_slow_down_is_no_outage_and_uses_up_no_more_than_its_share() {
    is_stored_apart_from_others(Fault::Status(503, "SlowDown"));
}
