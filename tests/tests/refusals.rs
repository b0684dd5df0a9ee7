//! What must not get through: each gets a clear error, is logged with its cause, and disturbs nobody else.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Output, Stdio},
};

use weir_tests::{Bed, BedOptions, GRANT, eventually};

/// A session that is under way while others are refused.
struct Bystander {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Bystander {
    fn start(bed: &Bed) -> Self {
        let mut child =
            bed.ssh().arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh starts");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut bystander = Self { child, stdin, stdout };
        bystander.echo(b"first");
        bystander
    }

    fn echo(&mut self, what: &[u8; 5]) {
        self.stdin.write_all(what).expect("the session takes input");
        let mut back = [0; 5];
        self.stdout.read_exact(&mut back).expect("the session answers");
        assert_eq!(&back, what);
    }

    /// Nothing that happened meanwhile touched this session.
    fn assert_untouched(mut self, bed: &Bed) {
        self.echo(b"still");
        drop(self.stdin);
        assert!(self.child.wait().expect("ssh ends").success());
        let recording = bed.recording(1);
        bed.assert_verifies(&recording);
        assert_eq!(recording.stream(0, "stdin"), b"firststill");
    }
}

fn try_in(bed: &Bed, grant: &str, key: &str) -> Output {
    bed.ssh_as(grant, key).args(["-o", "BatchMode=yes", "touch /tmp/never"]).output().expect("ssh runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn strangers_learn_the_same_whatever_the_cause_and_the_log_names_it() {
    let bed = Bed::start(BedOptions::default());
    let bystander = Bystander::start(&bed);
    let connections = || bed.target_log().matches("Connection from").count();
    let before = connections();
    bed.write_grant("expired", "2001-01-01T00:00:00Z").expect("written");
    fs::write(bed.grant_file("broken"), "user = [").expect("written");
    let table = [
        ("wrong key", GRANT, "user/stranger_key", "is not listed in the grant"),
        ("unknown grant", "nobody", "user/key", "no such grant"),
        ("expired grant", "expired", "user/key", "the grant expired at 2001-01-01T00:00:00Z"),
        ("malformed grant", "broken", "user/key", "malformed grant file"),
        ("not a grant id", "..", "user/key", "not a grant id"),
    ];
    let mut answers = Vec::new();
    for (case, grant, key, cause) in table {
        let output = try_in(&bed, grant, key);
        assert_eq!(output.status.code(), Some(255), "{case}");
        answers.push(said(&output).replace(&format!("{grant}@"), "GRANT@"));
        let _ = bed.proxy_said(cause);
    }
    assert!(answers[0].contains("Permission denied (publickey)"), "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(connections(), before, "a refused login reached the target");
    bystander.assert_untouched(&bed);
}

#[test]
fn a_grant_counts_from_the_moment_its_file_is_there_and_no_longer_than_that() {
    let bed = Bed::start(BedOptions::default());
    assert_eq!(try_in(&bed, "later", "user/key").status.code(), Some(255));
    bed.write_grant("later", "2099-01-01T00:00:00Z").expect("written");
    let output = bed.ssh_as("later", "user/key").arg("echo in").output().expect("ssh runs");
    assert_eq!(output.stdout, b"in\n");
    fs::remove_file(bed.grant_file("later")).expect("removed");
    assert_eq!(try_in(&bed, "later", "user/key").status.code(), Some(255));
}

#[test]
fn a_target_with_another_host_key_is_refused_loudly_and_recorded_as_such() {
    let mut bed = Bed::prepare_temporary(BedOptions::default());
    bed.write_proxy_config(&bed.public_key("user/stranger_key").expect("a key")).expect("written");
    bed.start_target().expect("the target starts");
    bed.start_agent().expect("the agent starts");
    bed.start_proxy().expect("the proxy starts");
    let output = try_in(&bed, GRANT, "user/key");
    assert_eq!(output.status.code(), Some(255));
    let answer = said(&output);
    assert!(answer.contains("the host key of target is not the one this connector expects"), "{answer}");
    assert!(!bed.target_log().contains("Accepted"), "the connector logged in to an unverified target");
    let _ = bed.proxy_said("no connection to the target");

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "ended");
    assert!(recording.events.is_empty(), "nothing was exchanged");
}

#[test]
fn a_target_that_is_not_there_is_named_with_the_reason() {
    let mut bed = Bed::prepare_temporary(BedOptions::default());
    bed.start_agent().expect("the agent starts");
    bed.start_proxy().expect("the proxy starts");
    let output = try_in(&bed, GRANT, "user/key");
    let answer = said(&output);
    assert!(answer.contains("cannot connect to target: connection refused"), "{answer}");
    assert!(!answer.contains("127.0.0.1:2"), "{answer}");
}

#[test]
fn a_grant_that_expires_during_a_session_ends_it_with_the_reason() {
    let bed = Bed::start(BedOptions::default());
    let soon =
        std::process::Command::new("date").args(["-u", "-d", "+8 seconds", "+%Y-%m-%dT%H:%M:%SZ"]).output();
    let soon = String::from_utf8(soon.expect("date runs").stdout).expect("text");
    bed.write_grant("brief", soon.trim()).expect("written");
    let output = bed.ssh_as("brief", "user/key").arg("echo in; sleep 60").output().expect("ssh runs");
    assert_eq!(output.stdout, b"in\n");
    assert!(said(&output).contains("the grant has expired; the session was closed"), "{}", said(&output));
    eventually("the kernel is told", || bed.agent().log().contains("session frozen").then_some(()));
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "ended");
}

#[test]
fn garbage_and_silence_on_the_port_disturb_nobody() {
    let bed = Bed::start(BedOptions { login_timeout_ms: 6_000, ..Default::default() });
    let bystander = Bystander::start(&bed);
    let arguments = bed.ssh_arguments(GRANT, "user/key");
    let port: u16 =
        arguments[arguments.iter().position(|a| a == "-p").expect("there") + 1].parse().expect("a port");
    let silent: Vec<_> =
        (0..20).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("connected")).collect();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 70_000], b"SSH-2.0-x\r\n\x00\x00\xff\xff\xff\xff"]
    {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        // The proxy may hang up in the middle.
        let _ = stream.write_all(garbage);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    bystander.assert_untouched(&bed);
    drop(silent);
}

#[test]
fn a_user_who_gets_no_session_for_want_of_space_reads_that_and_the_target_hears_nothing() {
    let mut bed = Bed::prepare_temporary(BedOptions::default());
    let config = fs::read_to_string(bed.path("agent.toml")).expect("the bed has written it");
    // A spool has more than that from its first entry on.
    fs::write(bed.path("agent.toml"), format!("spool_refuse_bytes = 1\n{config}")).expect("written");
    bed.start_target().expect("the target starts");
    bed.start_agent().expect("the agent starts");
    bed.start_proxy().expect("the proxy starts");
    let output = try_in(&bed, GRANT, "user/key");
    assert_eq!(output.status.code(), Some(255));
    let said = said(&output);
    assert!(said.contains("session refused: the connector's recorder is nearly out of space"), "{said}");
    assert!(!bed.target_log().contains("Connection from"), "the target was contacted");
}
