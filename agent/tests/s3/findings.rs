//! Findings of sessions whose segments have to come back out of the bucket.

use std::fs;

use support::{
    Agent, Node,
    proxy::{meta, stdout},
    stored::{directory, verify},
    wait_until,
};
use weir_common::{
    frame::{ChannelType, Message},
    recording::{
        Manifest,
        findings::{COMMANDS, Command},
    },
};

use crate::{
    faults::{C2T, Session, T2C},
    server::{ENVIRONMENT, Fault, Server},
    support,
};

/// Requests that fail before the fault is over.
const FAILURES: usize = 3;

struct Place {
    node: Node,
    server: Server,
}

impl Place {
    fn new() -> Self {
        let mut node = Node::new("segment_max_bytes = 60000\nsegment_max_age_ms = 20\n");
        let server = Server::start(&node.path("s3"));
        node.configure(&server.settings());
        node.environment(&ENVIRONMENT);
        std::os::unix::fs::symlink(server.objects(), node.path("store")).expect("not there yet");
        Self { node, server }
    }

    /// A session whose segments are in the bucket, all but the last maybe, and its agent was killed.
    fn session_of_a_killed_agent(&self) -> Session {
        let agent = self.node.start();
        let mut session = Session::begin_without_words(&self.node, meta());
        session.tap.pass(C2T, &Message::Open(ChannelType::Session));
        session.tap.pass(C2T, &Message::Exec(b"show --all"[..].into()));
        for round in 0..30 {
            session.tap.pass(T2C, &stdout(&format!("round {round} ").repeat(400)));
        }
        session.tap.pass(T2C, &Message::ExitStatus(5));
        wait_until("a segment is in the bucket", || self.holds(&session, "000001.sig"));
        // The next agent would put it again, if this one had not noted it.
        agent.wait_for_log("segment stored");
        agent.kill();
        session
    }

    fn holds(&self, session: &Session, name: &str) -> bool {
        let days = fs::read_dir(self.server.objects().join("v1")).into_iter().flatten();
        days.flatten().any(|day| day.path().join(session.meta.session_id.to_string()).join(name).exists())
    }

    /// The next agent takes the session up, and it ends.
    fn end(&self, session: &mut Session) -> Agent {
        let agent = self.node.start();
        session.resume(&self.node);
        session.close();
        agent
    }

    fn manifest(&self, session: &Session) -> Manifest {
        verify(&self.node, session.meta.session_id).manifest
    }
}

#[test]
fn findings_are_made_of_what_the_bucket_gives_back_as_soon_as_it_does() {
    let place = Place::new();
    let mut session = place.session_of_a_killed_agent();
    place.server.fail(Some(Fault::Status(503, "SlowDown")), Some("000001.ndjson"));
    let agent = place.end(&mut session);
    wait_until("the bucket does not answer", || place.server.failed("") >= FAILURES);
    assert!(!place.holds(&session, "manifest.json"), "it waits for the findings, for a while");
    place.server.fail(None, None);
    let findings = place.manifest(&session).findings.expect("they were made");
    assert_eq!(findings.counts.map(|counts| counts.commands), Some(1));
    let commands = directory(&place.node, session.meta.session_id).join(COMMANDS);
    let line = fs::read_to_string(commands).expect("is there");
    let Command { text, exit_code, .. } = serde_json::from_str(&line).expect("one command");
    assert_eq!((text.as_str(), exit_code), ("show --all", Some(5)));
    assert_eq!(place.server.not_allowed(), [""; 0]);
    agent.stop();
}

#[test]
fn a_bucket_that_must_not_be_read_gets_the_evidence_without_findings() {
    let place = Place::new();
    let mut session = place.session_of_a_killed_agent();
    place.server.fail(Some(Fault::Status(403, "AccessDenied")), Some("000001.ndjson"));
    let agent = place.end(&mut session);
    assert_eq!(place.manifest(&session).findings, None);
    agent.wait_for_log("the session is stored without findings");
    assert!(!agent.log().contains("show --all"));
    agent.stop();
}
