//! `weir-agent check`: what it finds, says and returns.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::{
    server::{ACCESS_KEY, ENVIRONMENT, Fault, SECRET_KEY, Server},
    support::Node,
};

/// What a check printed and returned.
pub(crate) struct Checked {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    findings: Vec<Value>,
}

impl Checked {
    fn find(&self, about: &str) -> &Value {
        let found = self.findings.iter().find(|finding| finding["about"] == about);
        found.unwrap_or_else(|| panic!("nothing about {about:?} in {}{}", self.stdout, self.stderr))
    }

    pub(crate) fn level(&self, about: &str) -> &str {
        self.find(about)["level"].as_str().expect("a level")
    }

    pub(crate) fn text(&self, about: &str) -> &str {
        self.find(about)["text"].as_str().expect("a sentence")
    }
}

/// Checks a node with nothing but these variables in the environment.
pub(crate) fn run(node: &Node, variables: &[(&str, &str)]) -> Checked {
    let (code, stdout, stderr) = weir_agent(&node.write_config(), &["--json"], variables);
    let findings = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    Checked { code, stdout, stderr, findings }
}

fn weir_agent(config: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-agent"))
        .arg("check")
        .args(arguments)
        .arg("--config")
        .arg(config)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

/// Settings for who asks once and has to be answered, however busy the machine is.
pub(crate) fn patient(server: &Server) -> String {
    server.settings().replace("request_timeout_ms = 1000", "request_timeout_ms = 5000")
}

fn place(is_public: bool) -> (Node, Server) {
    let mut node = Node::new("node = \"node-1\"\n");
    let root = node.path("s3");
    let server = if is_public { Server::start_public(&root) } else { Server::start(&root) };
    node.configure(&patient(&server));
    (node, server)
}

#[test]
fn a_node_and_a_bucket_that_are_fine_are_said_to_be_and_a_second_look_finds_the_same() {
    let (node, server) = place(false);
    let first = run(&node, &ENVIRONMENT);
    assert_eq!(first.code, 0, "{}", first.stdout);
    for about in [
        "state directory",
        "spool",
        "bpffs",
        "allowed user",
        "connection",
        "reachable",
        "writable",
        "readable",
        "listable",
    ] {
        assert_eq!(first.level(about), "ok", "{about}: {}", first.stdout);
    }
    assert_eq!((first.level("not public"), first.level("not listed")), ("ok", "ok"), "{}", first.stdout);
    assert_eq!(first.level("versioned"), "warning", "this server has no versions");
    assert_eq!(first.level("encrypted"), "cannot_tell", "this server does not say");
    assert!(first.text("writable").contains("was stored"), "{}", first.stdout);
    let second = run(&node, &ENVIRONMENT);
    assert_eq!(second.code, 0);
    assert!(second.text("writable").contains("earlier check"), "{}", second.stdout);
    let objects: Vec<_> = crate::support::names(&server.objects().join("v1/check"));
    assert!(objects.len() == 1 && objects[0].starts_with("node-1-"), "{objects:?}");
    assert_eq!(server.not_allowed(), [""; 0]);
}

#[test]
fn a_bucket_that_is_open_to_anybody_is_a_problem() {
    let (node, _server) = place(true);
    let checked = run(&node, &ENVIRONMENT);
    assert_eq!(
        (checked.level("not public"), checked.level("not listed")),
        ("problem", "problem"),
        "{}",
        checked.stdout
    );
    assert_eq!(checked.code, 1);
}

#[test]
fn what_is_wrong_with_a_store_is_told_with_what_to_do() {
    let (mut node, mut server) = place(false);
    // What hangs is waited for.
    node.reconfigure(&server.settings());
    for (fault, about, said) in [
        (Fault::Status(403, "AccessDenied"), "writable", "s3:PutObject on arn:aws:s3:::recordings/weir/*"),
        (Fault::Status(404, "NoSuchBucket"), "usable", "there is no bucket recordings"),
        (Fault::Status(503, "SlowDown"), "reachable", "SlowDown"),
        (Fault::Hanging, "reachable", "cannot store"),
    ] {
        server.fail(Some(fault), None);
        let checked = run(&node, &ENVIRONMENT);
        let finding = checked.text(about).to_owned();
        assert_eq!((checked.code, finding.contains(said)), (1, true), "{fault:?}: {}", checked.stdout);
    }
    server.refuse_connections();
    let checked = run(&node, &ENVIRONMENT);
    assert_eq!((checked.code, checked.level("reachable")), (1, "problem"), "{}", checked.stdout);
    for secret in [ACCESS_KEY, SECRET_KEY] {
        assert!(!checked.stdout.contains(secret) && !checked.stderr.contains(secret));
    }
}

#[test]
fn people_read_a_table_without_colours_where_there_is_no_terminal() {
    let (node, _server) = place(false);
    let (code, table, _) = weir_agent(&node.write_config(), &[], &ENVIRONMENT);
    assert_eq!(code, 0);
    assert!(
        table.lines().any(|line| line.starts_with("ok ") && line.contains("the store answers")),
        "{table}"
    );
    assert!(table.contains("→ enable versioning"), "{table}");
    assert!(!table.contains('\x1b'));
}

#[test]
fn an_agent_looks_at_its_bucket_when_it_starts_and_logs_what_it_finds() {
    let (mut node, _server) = place(false);
    node.environment(&ENVIRONMENT);
    let agent = node.start();
    agent.wait_for_log("store check: a stranger cannot list the bucket");
    assert!(agent.logged("store check: the store names no version"));
    agent.stop();
}
