//! Session reports: delivered at least once whatever happens to receiver and agent, and metadata only.

use std::{fs, path::PathBuf, process::Command};

use weir_common::{
    control::Reply,
    digest::Sha256,
    frame::{ChannelType, Direction, Message},
    recording::SUMS,
    report::{SessionReport, Status, Totals},
    session::{Outcome, SessionId, SessionMeta},
};

use crate::support::{
    Agent, Node, names,
    proxy::{Control, meta, stdin, stdout},
    receiver::{Does, Receiver},
    stored::{directory, verify},
    wait_until,
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;
const TOKEN: &str = "s3cret-t0ken";
/// What is said in every session here, and must not be in any report.
const SAID: &str = "xyzzy-content";

/// A node and where its reports go. The receiver is gone before the node.
struct Lab {
    receiver: Receiver,
    node: Node,
    _dir: tempfile::TempDir,
    token_file: PathBuf,
}

impl Lab {
    fn new(extra: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (ca_file, token_file) = (dir.path().join("ca.pem"), dir.path().join("token"));
        let receiver = Receiver::start(TOKEN, &ca_file);
        fs::write(&token_file, format!("{TOKEN}\n")).expect("writable");
        let node = Node::new(&format!(
            "segment_max_age_ms = 50\n[report]\nurl = {:?}\ntoken_file = {token_file:?}\nca_file = {ca_file:?}\ntimeout_ms = 700\n{extra}",
            receiver.url(),
        ));
        Self { receiver, node, _dir: dir, token_file }
    }

    /// A session from beginning to end.
    fn session(&self) -> SessionMeta {
        let (meta, control) = self.begin();
        assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
        meta
    }

    fn begin(&self) -> (SessionMeta, Control) {
        let (meta, control) = (meta(), Control::connect(&self.node.socket()));
        assert_eq!(control.open(&meta, false), Some(Reply::Opened));
        let mut tap = control.arm(0);
        tap.pass(C2T, &Message::Open(ChannelType::Session));
        tap.pass(C2T, &stdin(SAID));
        tap.pass(T2C, &stdout(&SAID.repeat(100)));
        (meta, control)
    }

    fn delivered(&self, session: SessionId) {
        wait_until("the report of the session being stored is taken", || self.receiver.has_stored(session));
        wait_until("nothing waits for it", || {
            self.queue().iter().all(|name| !name.contains(&session.to_string()))
        });
    }

    fn queue(&self) -> Vec<String> {
        let mut names = names(&self.node.path("state/reports"));
        names.retain(|name| name.ends_with(".json"));
        names
    }

    fn rejected(&self) -> Vec<String> {
        names(&self.node.path("state/reports/rejected"))
    }

    /// No report has anything of what was said, and the token is not in the log.
    fn says_nothing(&self, agent: &Agent) {
        for came in self.receiver.came() {
            assert!(!String::from_utf8_lossy(&came.body).contains(SAID));
        }
        let log = agent.log();
        assert!(!log.contains(SAID) && !log.contains(TOKEN), "{log}");
    }
}

fn totals(report: &SessionReport) -> Option<&Totals> {
    match &report.status {
        Status::Open => None,
        Status::Stored(totals) => Some(totals),
    }
}

#[test]
fn a_session_is_reported_when_it_begins_and_when_it_is_stored_with_what_its_recording_says() {
    let lab = Lab::new("");
    let agent = lab.node.start();
    let (meta, control) = lab.begin();
    let id = meta.session_id;
    wait_until("its beginning is reported", || !lab.receiver.taken(id).is_empty());
    let open = lab.receiver.taken(id).remove(0);
    assert_eq!((&open.session, &open.status), (&meta, &Status::Open));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    lab.delivered(id);
    let recording = verify(&lab.node, id);
    let report = lab.receiver.taken(id).pop().expect("just taken");
    let totals = totals(&report).expect("stored");
    assert_eq!((&report.session, report.opened_at), (&meta, recording.manifest.opened_at));
    assert_eq!(report.location.store, format!("file://{}", lab.node.path("store").display()));
    let dir = lab.node.path("store").join(&report.location.path);
    assert_eq!(dir, directory(&lab.node, id));
    assert_eq!(totals.sums, Sha256::of(&fs::read(dir.join(SUMS)).expect("is there")));
    let stored: u64 =
        names(&dir).iter().map(|name| fs::metadata(dir.join(name)).expect("is there").len()).sum();
    assert_eq!(totals.stored_bytes, stored);
    assert_eq!((totals.channels, totals.adds_up), (1, Some(true)));
    assert_eq!(totals.segments, recording.manifest.segments.len() as u64);
    assert_eq!((totals.c2t, totals.t2c), {
        let channel = &recording.manifest.channels[0];
        (channel.c2t.accepted, channel.t2c.accepted)
    });
    assert!(agent.log().contains(&totals.signer), "the fingerprint that the agent names at its start");
    assert_eq!((lab.queue(), lab.rejected()), (Vec::new(), Vec::new()));
    lab.says_nothing(&agent);
    agent.stop();
}

#[test]
fn a_receiver_that_is_down_fails_or_hangs_gets_every_report_once_it_is_back() {
    let mut lab = Lab::new("");
    let agent = lab.node.start();
    lab.receiver.go_down();
    let down = lab.session();
    agent.wait_for_log("a session report was not delivered");
    lab.receiver.next([
        Does::Answer(500, ""),
        Does::Hang,
        Does::Answer(503, "Retry-After: 1\r\n"),
        Does::Hang,
    ]);
    lab.receiver.go_up();
    let failing = lab.session();
    lab.delivered(down.session_id);
    lab.delivered(failing.session_id);
    agent.wait_for_log("session reports are delivered again");
    for meta in [down, failing] {
        let reports = lab.receiver.taken(meta.session_id);
        assert!(reports.iter().any(|report| report.status == Status::Open));
    }
    assert_eq!(lab.rejected(), Vec::<String>::new());
    lab.says_nothing(&agent);
}

#[test]
fn a_lost_answer_brings_the_same_report_again() {
    let lab = Lab::new("");
    let agent = lab.node.start();
    lab.receiver.next([Does::LoseTheAnswer, Does::LoseTheAnswer, Does::LoseTheAnswer]);
    let meta = lab.session();
    lab.delivered(meta.session_id);
    let came = lab.receiver.came();
    assert!(came.len() >= 5, "three were lost: {}", came.len());
    for came in &came {
        let same = |other: &&crate::support::receiver::Came| {
            std::mem::discriminant(&other.report.status) == std::mem::discriminant(&came.report.status)
        };
        assert!(lab.receiver.came().iter().filter(same).all(|other| other.body == came.body));
    }
    lab.says_nothing(&agent);
}

#[test]
fn a_token_that_is_not_accepted_is_said_and_the_right_one_is_read_from_the_file_without_a_restart() {
    let lab = Lab::new("");
    let agent = lab.node.start();
    lab.receiver.set_token("another-one");
    let meta = lab.session();
    let line = agent.wait_for_log("does not accept the token (401");
    assert!(line.contains(&lab.token_file.display().to_string()) && line.contains("session"), "{line}");
    wait_until("it was tried", || lab.receiver.unauthorized() >= 3);
    assert!(lab.receiver.came().is_empty());
    fs::remove_file(&lab.token_file).expect("is there");
    agent.wait_for_log("cannot read the token");
    fs::write(&lab.token_file, "another-one").expect("writable");
    lab.delivered(meta.session_id);
    assert!(!agent.log().contains("another-one"), "{}", agent.log());
    lab.says_nothing(&agent);
}

#[test]
fn nothing_is_sent_to_a_receiver_whose_certificate_is_another_authoritys() {
    let lab = Lab::new("");
    let other = tempfile::tempdir().expect("a temporary directory");
    let ca_file = other.path().join("ca.pem");
    let impostor = Receiver::start(TOKEN, &ca_file);
    let token_file = &lab.token_file;
    let right = lab._dir.path().join("ca.pem");
    let node = Node::new(&format!(
        "[report]\nurl = {:?}\ntoken_file = {token_file:?}\nca_file = {right:?}\ntimeout_ms = 2000\n",
        impostor.url(),
    ));
    let agent = node.start();
    let (meta, control) = (meta(), Control::connect(&node.socket()));
    control.open(&meta, false);
    control.close(Outcome::Completed);
    let line = agent.wait_for_log("a session report was not delivered");
    assert!(line.to_lowercase().contains("certificate"), "{line}");
    directory(&node, meta.session_id);
    wait_until("both reports wait", || {
        names(&node.path("state/reports")).iter().filter(|name| name.ends_with(".json")).count() == 2
    });
    assert!(impostor.came().is_empty() && impostor.unauthorized() == 0);
}

#[test]
fn a_report_that_will_never_be_taken_is_set_aside_and_holds_up_no_other() {
    let lab = Lab::new("");
    let agent = lab.node.start();
    let (bad, control) = lab.begin();
    wait_until("its beginning is reported", || !lab.receiver.taken(bad.session_id).is_empty());
    lab.receiver.with_session(bad.session_id, Does::Answer(422, ""));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let name = format!("{}.stored.json", bad.session_id);
    wait_until("it is set aside", || lab.rejected() == [name.clone()]);
    let line = agent.wait_for_log("will never take this session report");
    assert!(line.contains("ERROR") && line.contains(&bad.session_id.to_string()), "{line}");
    let good = lab.session();
    lab.delivered(good.session_id);
    let aside = fs::read(lab.node.path("state/reports/rejected").join(name)).expect("is there");
    let report: SessionReport = serde_json::from_slice(&aside).expect("a report");
    assert!(totals(&report).is_some());
    wait_until("nothing waits any more", || lab.queue().is_empty());
}

#[test]
fn a_report_that_always_fails_holds_up_no_other() {
    let lab = Lab::new("");
    let _agent = lab.node.start();
    let (bad, control) = lab.begin();
    lab.receiver.with_session(bad.session_id, Does::Hang);
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    directory(&lab.node, bad.session_id);
    for _ in 0..5 {
        lab.delivered(lab.session().session_id);
    }
    assert!(!lab.receiver.has_stored(bad.session_id));
    lab.receiver.with_session(bad.session_id, Does::Take);
    lab.delivered(bad.session_id);
}

#[test]
fn no_report_is_lost_however_often_the_agent_is_killed_between_storing_and_reporting() {
    let lab = Lab::new("");
    let mut sessions = Vec::new();
    for round in 0..8_u64 {
        let agent = lab.node.start();
        if round % 2 == 0 {
            lab.receiver.next([Does::LoseTheAnswer, Does::Answer(500, "")]);
        }
        let meta = lab.session();
        let begun = std::time::Instant::now();
        wait_until("the moment has come", || begun.elapsed().as_millis() >= u128::from(round * round * 2));
        agent.kill();
        sessions.push(meta.session_id);
    }
    let agent = lab.node.start();
    for session in sessions {
        lab.delivered(session);
        let recording = verify(&lab.node, session);
        let report = lab.receiver.taken(session).pop().expect("just taken");
        let segments = totals(&report).map(|totals| totals.segments);
        assert!(segments.is_none_or(|segments| segments == recording.manifest.segments.len() as u64));
    }
    lab.says_nothing(&agent);
}

#[test]
fn a_running_session_is_reported_once_more_after_a_restart() {
    let lab = Lab::new("");
    let agent = lab.node.start();
    let (meta, _control) = lab.begin();
    wait_until("its beginning is reported", || lab.receiver.taken(meta.session_id).len() == 1);
    agent.kill();
    let _agent = lab.node.start();
    wait_until("it is reported again", || lab.receiver.taken(meta.session_id).len() >= 2);
    let reports = lab.receiver.taken(meta.session_id);
    assert!(reports.iter().all(|report| *report == reports[0]));
}

#[test]
fn a_full_queue_keeps_sessions_in_the_spool_and_loses_none() {
    let mut lab = Lab::new("reports_max = 2\n");
    lab.receiver.go_down();
    let agent = lab.node.start();
    let sessions: Vec<_> = (0..4).map(|_| lab.session().session_id).collect();
    agent.wait_for_log("2 session reports wait to be delivered already");
    for session in &sessions {
        directory(&lab.node, *session);
    }
    assert_eq!(lab.queue().len(), 2);
    // The next agent does not forget them either.
    agent.kill();
    let _agent = lab.node.start();
    lab.receiver.go_up();
    for session in sessions {
        lab.delivered(session);
    }
}

#[test]
fn sessions_that_are_recovered_are_reported_beside_a_running_agent_and_what_is_left_is_delivered_next() {
    let lab = Lab::new("");
    let agent = lab.node.start();
    let sessions = [lab.begin(), lab.begin()];
    let [first, second] = [&sessions[0].0, &sessions[1].0].map(|meta| meta.session_id);
    for id in [first, second] {
        wait_until("its beginning is reported", || !lab.receiver.taken(id).is_empty());
    }
    agent.kill();
    lab.node.forget_kernel_objects();
    let spools = ["lost", "copy"].map(|name| lab.node.path(name).join("spool"));
    fs::create_dir_all(&spools[1]).expect("a fresh directory");
    for file in lab.node.spool_files() {
        fs::copy(&file, spools[1].join(file.file_name().expect("a name"))).expect("readable");
    }
    fs::create_dir_all(spools[0].parent().expect("its directory")).expect("a fresh directory");
    fs::rename(lab.node.path("state/spool"), &spools[0]).expect("on the same disk");
    let agent = lab.node.start();
    let recover = |spool: &PathBuf, patience: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-agent"));
        command.arg("recover").arg("--config").arg(lab.node.write_config()).arg(spool);
        let output = command.args(["--give-up-ring", "--patience", patience]).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, text) = recover(&spools[0], "20");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("2 session reports delivered"), "{text}");
    for id in [first, second] {
        assert!(lab.receiver.has_stored(id));
        assert_eq!(verify(&lab.node, id).manifest.outcome, Outcome::ConnectorLost);
    }
    // The agent beside it goes on.
    lab.delivered(lab.session().session_id);
    lab.receiver.usually(Does::Answer(503, ""));
    let (code, text) = recover(&spools[1], "1");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("{first}: its report WAITS")), "{text}");
    assert_eq!(lab.queue().iter().filter(|name| name.ends_with(".stored.json")).count(), 2);
    lab.receiver.usually(Does::Take);
    agent.stop();
    let agent = lab.node.start();
    for id in [first, second] {
        // Of its beginning there may be two: an agent was killed right after it had told of it.
        let stored = || lab.receiver.taken(id).iter().filter(|report| totals(report).is_some()).count();
        wait_until("it is delivered again", || stored() >= 2);
        lab.delivered(id);
    }
    lab.says_nothing(&agent);
}

#[test]
fn reports_that_a_lost_node_did_not_deliver_are_delivered_by_who_recovers_it() {
    let lab = Lab::new("");
    lab.receiver.usually(Does::Answer(503, ""));
    let agent = lab.node.start();
    let stored = lab.session().session_id;
    verify(&lab.node, stored);
    let waits = |dir: &str| {
        let dir = lab.node.path(dir).join("reports");
        fs::read_dir(dir).is_ok_and(|mut items| {
            items.any(|item| item.is_ok_and(|item| item.file_name() == *format!("{stored}.stored.json")))
        })
    };
    wait_until("it is to be reported", || waits("state"));
    let running = lab.begin().0.session_id;
    agent.kill();
    lab.node.forget_kernel_objects();
    fs::rename(lab.node.path("state"), lab.node.path("lost")).expect("on the same disk");
    let damaged = lab.node.path("lost/reports").join(format!("{}.stored.json", meta().session_id));
    fs::write(&damaged, "{}").expect("writable");
    let recover = |state: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-agent"));
        let spools = lab.node.path(state).join("spool");
        command.arg("recover").arg("--config").arg(lab.node.write_config()).arg(spools);
        let output = command.arg("--give-up-ring").args(arguments).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, text) = recover("lost", &["--dry-run"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("session reports wait\n") && waits("lost"), "{text}");
    lab.receiver.usually(Does::Take);
    let report =
        fs::read(lab.node.path("lost/reports").join(format!("{stored}.stored.json"))).expect("is there");
    let (code, text) = recover("lost", &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("2 session reports delivered"), "{text}");
    assert!(text.contains("1 session reports are LEFT") && text.contains("this version reads"), "{text}");
    assert!(lab.receiver.has_stored(stored) && lab.receiver.has_stored(running));
    assert!(!waits("lost") && !waits("state") && damaged.exists());
    fs::remove_file(damaged).expect("removable");
    // The same for who recovers with the lost node's state directory as its own; its spools are empty now.
    fs::create_dir_all(lab.node.path("lost/spool")).expect("writable");
    fs::rename(lab.node.path("state"), lab.node.path("elsewhere")).expect("on the same disk");
    fs::rename(lab.node.path("lost"), lab.node.path("state")).expect("on the same disk");
    let (code, text) = recover("state", &[]);
    assert_eq!(code, Some(2), "there is nothing any more: {text}");
    let name = format!("{stored}.stored.json");
    fs::write(lab.node.path("state/reports").join(&name), report).expect("writable");
    let (code, text) = recover("state", &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 session reports delivered") && !waits("state"), "{text}");
    assert_eq!(lab.receiver.taken(stored).iter().filter(|report| totals(report).is_some()).count(), 2);
}
