//! The log as JSON: a line is an object, says which session it is about, and nothing of what is said in one.

mod support;

use std::process::Command;

use serde_json::{Map, Value};
use support::{
    AGENT, Node,
    proxy::{Control, meta, stdin, stdout},
    stored::verify,
};
use weir_common::{
    control::Reply,
    frame::{ChannelType, Direction, Message},
    session::Outcome,
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;

#[test]
fn each_line_is_an_object_that_names_its_session_and_holds_nothing_that_was_said() {
    let mut node = Node::new("segment_max_bytes = 4096\n");
    node.environment(&[("WEIR_LOG_FORMAT", "json")]);
    let agent = node.start();
    let (typed, printed) = ("hunter2-was-typed", "the-launch-code-is-0000");
    let sessions = [(); 2].map(|()| {
        let (meta, control) = (meta(), Control::connect(&node.socket()));
        assert_eq!(control.open(&meta, false), Some(Reply::Opened));
        let mut tap = control.arm(0);
        tap.pass(C2T, &Message::Open(ChannelType::Session));
        for _ in 0..20 {
            tap.pass(C2T, &stdin(typed));
            tap.pass(T2C, &stdout(&printed.repeat(20)));
        }
        // No frame: the log says that the stream ends here, and not what came instead.
        tap.send_raw(C2T, format!("\x07{printed}").as_bytes());
        assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
        (meta, control, tap)
    });
    for (meta, _, _) in &sessions {
        verify(&node, meta.session_id);
    }
    agent.wait_for_log("session stored");
    let log = agent.log();
    assert!(!log.contains(typed) && !log.contains("launch-code"), "{log}");
    let lines: Vec<Map<String, Value>> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    for line in &lines {
        for name in ["time", "level", "target", "message"] {
            assert!(line.get(name).is_some_and(Value::is_string), "{name}: {line:?}");
        }
    }
    for (meta, _, _) in &sessions {
        let id = Value::from(meta.session_id.to_string());
        let of_session: Vec<_> = lines.iter().filter(|line| line.get("session") == Some(&id)).collect();
        for message in [
            "session opened",
            "tap armed",
            "a message is no frame; its stream ends here",
            "session closed",
            "segment stored",
        ] {
            assert!(of_session.iter().any(|line| line["message"] == message), "{message}: {of_session:?}");
        }
    }
}

#[test]
fn a_form_of_the_log_that_does_not_exist_is_named_at_once() {
    let output = Command::new(AGENT).arg("--check").env("WEIR_LOG_FORMAT", "xml").output().expect("runs");
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("WEIR_LOG_FORMAT: xml"), "{said}");
}
