//! What the agent makes of sessions: beside the segments, listed, and the same after a kill.

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use support::{
    Node,
    proxy::{Control, Tap, meta, stdout},
    stored::{directory, verify},
    wait_until,
};
use weir_common::{
    control::Reply,
    frame::{ChannelType, Direction, Message, TcpAddress},
    recording::findings::{
        COMMANDS, Command, FORWARDS, FindingCounts, Forward, ForwardKind, Source, TRANSCRIPT,
    },
    session::{Outcome, SessionMeta},
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;
const SMALL: &str = "segment_max_bytes = 60000\nsegment_max_age_ms = 20\nspool_file_bytes = 65536\n";

fn begin(node: &Node) -> (SessionMeta, Control) {
    let (meta, control) = (meta(), Control::connect(&node.socket()));
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    (meta, control)
}

fn exec(tap: &mut Tap, command: &str, said: usize, status: u32) {
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    tap.pass(T2C, &Message::OpenConfirm);
    tap.pass(C2T, &Message::Exec(command.as_bytes().to_vec()));
    tap.pass(T2C, &Message::Success);
    for line in 0..said {
        tap.pass(T2C, &stdout(&format!("line {line} ").repeat(300)));
    }
    tap.pass(T2C, &Message::ExitStatus(status));
    tap.pass(T2C, &Message::Close);
    tap.pass(C2T, &Message::Close);
}

fn close(control: &Control) {
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
}

fn lines<T: serde::de::DeserializeOwned>(text: &str) -> Vec<T> {
    text.lines().map(|line| serde_json::from_str(line).expect("a finding")).collect()
}

#[test]
fn commands_and_forwards_lie_beside_the_segments_and_secrets_are_masked() {
    let node = Node::new("");
    let agent = node.start();
    let (meta, control) = begin(&node);
    exec(&mut control.arm(0), "mysql -u root --password=hunter2 shop", 2, 0);
    exec(&mut control.arm(1), "false", 0, 1);
    let mut forward = control.arm(2);
    let to = TcpAddress { host: "db.internal".into(), port: 5432 };
    let originator = weir_common::frame::Originator { address: "127.0.0.1".into(), port: 40_000 };
    forward.pass(C2T, &Message::Open(ChannelType::DirectTcpip { to, originator }));
    forward.pass(T2C, &stdout("0123456789"));
    close(&control);
    let manifest = verify(&node, meta.session_id).manifest;
    let findings = manifest.findings.expect("they were made");
    assert_eq!(findings.counts, Some(FindingCounts { commands: 2, files: 0, forwards: 1 }));
    let dir = directory(&node, meta.session_id);
    let read = |name| fs::read_to_string(dir.join(name)).expect("is there");
    let commands: Vec<Command> = lines(&read(COMMANDS));
    let said: Vec<_> = commands.iter().map(|command| (command.n, command.ch.0, command.exit_code)).collect();
    assert_eq!(said, [(1, 0, Some(0)), (2, 1, Some(1))]);
    assert!(commands.iter().all(|command| command.source == Source::Exec && command.span.t_end.is_some()));
    assert_eq!((commands[0].text.contains("hunter2"), commands[0].masked), (false, 1));
    assert!(commands[0].text.starts_with("mysql -u root --password="), "{}", commands[0].text);
    let forwards: Vec<Forward> = lines(&read(FORWARDS));
    let [Forward { kind, to, received, .. }] = &forwards[..] else { panic!("one forward") };
    assert_eq!((*kind, to.as_str(), *received), (ForwardKind::Local, "db.internal:5432", 10));
    let transcript = read(TRANSCRIPT);
    assert!(!transcript.contains("hunter2") && transcript.ends_with("Z #1] false\n"), "{transcript}");
    assert!(!agent.log().contains("hunter2"));
    agent.stop();
}

#[test]
fn an_agent_that_is_killed_between_segments_and_manifest_is_followed_by_one_that_makes_them() {
    let node = Node::new(SMALL);
    for delay_us in [0, 1_000, 3_000, 10_000, 30_000] {
        let agent = node.start();
        let (meta, control) = begin(&node);
        exec(&mut control.arm(0), "show --all", 60, 7);
        close(&control);
        let begun = Instant::now();
        wait_until("the moment has come", || begun.elapsed() >= Duration::from_micros(delay_us));
        agent.kill();
        let agent = node.start();
        let manifest = verify(&node, meta.session_id).manifest;
        let findings = manifest.findings.expect("they were made");
        assert_eq!((findings.counts.map(|counts| counts.commands), findings.superseded.len()), (Some(1), 0));
        let commands =
            fs::read_to_string(directory(&node, meta.session_id).join(COMMANDS)).expect("is there");
        let commands: Vec<Command> = lines(&commands);
        assert_eq!((commands[0].text.as_str(), commands[0].exit_code), ("show --all", Some(7)));
        agent.stop();
    }
}

#[test]
fn where_no_findings_are_wanted_there_are_none() {
    let node = Node::new("[findings]\nenabled = false\n");
    let agent = node.start();
    let (meta, control) = begin(&node);
    exec(&mut control.arm(0), "show --all", 1, 0);
    close(&control);
    assert_eq!(verify(&node, meta.session_id).manifest.findings, None);
    assert!(!directory(&node, meta.session_id).join(COMMANDS).exists());
    agent.stop();
}
