//! A node that never comes back, whose sessions lie in the spools of two rings: they are finished in the bucket from
//! elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use weir_agent::tap::RingPlace;
use weir_common::session::{ChannelNo, Outcome, SessionId};

use crate::{
    faults::{C2T, Session, T2C},
    server::{ENVIRONMENT, Server},
    support::{Node, names, proxy::stdout, stored::verify, wait_until},
};

/// So large that the last words of a session wait in the spool, so small that there are segments before.
const SETTINGS: &str = "segment_max_bytes = 30000\nsegment_max_age_ms = 600000\nspool_file_bytes = 65536\n";
const SESSIONS: usize = 4;

fn holds(dir: &Path, text: &str) -> bool {
    names(dir).iter().any(|name| {
        // A file may be given back meanwhile.
        let bytes = fs::read(dir.join(name)).unwrap_or_default();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    })
}

/// Whether the bucket has the session's first segment.
fn is_begun(server: &Server, session: SessionId) -> bool {
    let days = fs::read_dir(server.objects().join("v1")).into_iter().flatten();
    let dirs = days.map(|day| day.expect("readable").path().join(session.to_string()));
    dirs.into_iter().any(|dir| dir.join("000001.sig").exists())
}

fn recover(config: &Path, spools: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-agent"));
    command
        .args(["recover", "--json", "--give-up-ring", "--config"])
        .arg(config)
        .arg(spools)
        .envs(ENVIRONMENT);
    let output = command.output().expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

#[test]
fn the_spools_of_two_rings_of_a_killed_agent_are_finished_in_the_bucket_from_elsewhere() {
    let mut node = Node::new(&format!("cpu_groups = ['0', '1']\n{SETTINGS}"));
    let server = Server::start(&node.path("s3"));
    node.configure(&server.settings());
    node.environment(&ENVIRONMENT);
    std::os::unix::fs::symlink(server.objects(), node.path("store")).expect("not there yet");
    let agent = node.start();
    let mut sessions: Vec<_> = (0..SESSIONS).map(|_| Session::begin(&node)).collect();
    let spools: [PathBuf; 2] =
        [0, 1].map(|ring| node.path("state/spool").join(RingPlace::current(ring).to_string()));
    for session in &mut sessions {
        session.talk(60);
    }
    for session in &mut sessions {
        wait_until("a segment is in the bucket", || is_begun(&server, session.meta.session_id));
        session.tap.pass(T2C, &stdout(&last_words(session)));
    }
    for session in &sessions {
        // What is in the ring only goes with the node.
        wait_until("the last words are in a spool", || {
            spools.iter().any(|dir| holds(dir, &last_words(session)))
        });
    }
    agent.kill();
    for dir in &spools {
        let known = sessions.iter().filter(|session| holds(dir, &last_words(session))).count();
        assert_eq!(known, SESSIONS / 2, "in {}", dir.display());
    }
    let (lost, elsewhere, config) =
        (node.path("attached"), node.path("elsewhere"), node.path("elsewhere.toml"));
    fs::rename(node.path("state/spool"), &lost).expect("on the same disk");
    let text = format!("allowed_uids = [0]\nstate_dir = {elsewhere:?}\n{SETTINGS}{}", server.settings());
    fs::write(&config, text).expect("writable");
    let (code, text) = recover(&config, &lost);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.matches(r#""state":"stored""#).count(), SESSIONS, "{text}");
    assert_eq!(text.matches(r#""emptied":true"#).count(), 2, "{text}");
    assert_eq!(names(&lost), Vec::<String>::new());
    assert_eq!(server.not_allowed(), Vec::<String>::new());
    // What the lost node had stored keeps its signatures.
    let signers = node.path("state/allowed_signers");
    let both = [&signers, &elsewhere.join("allowed_signers")];
    let both = both.map(|path| fs::read_to_string(path).expect("written"));
    fs::write(&signers, both.concat()).expect("writable");
    for session in &sessions {
        let recording = verify(&node, session.meta.session_id);
        assert_eq!(recording.manifest.outcome, Outcome::ConnectorLost);
        assert!(recording.manifest.segments.len() > 1);
        assert!(recording.manifest.findings.is_some(), "who recovers makes the findings, too");
        for way in [C2T, T2C] {
            assert_eq!(recording.frames[&(ChannelNo(0), way)], session.tap.sent(way), "{way}");
        }
    }
}

fn last_words(session: &Session) -> String {
    format!("the last words of {}", session.meta.session_id)
}
