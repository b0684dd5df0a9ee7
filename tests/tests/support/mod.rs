//! What the tests of logins have in common.

mod token;

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

pub(crate) use token::SoftwareToken;
use weir_tests::Bed;

/// When grants of tests expire.
pub(crate) const LATER: &str = "2099-01-01T00:00:00Z";

/// Writes a grant with these lines.
pub(crate) fn grant(bed: &Bed, id: &str, lines: &str) {
    fs::write(bed.grant_file(id), Bed::grant_text(LATER, lines)).expect("written");
}

/// Certifies the user's key under a name of its own, by `user/ca` unless the arguments name another; returns the file.
pub(crate) fn certify(bed: &Bed, name: &str, arguments: &[&str]) -> String {
    let file = format!("user/{name}.pub");
    fs::copy(bed.path("user/key.pub"), bed.path(&file)).expect("copied");
    let ca = if arguments.contains(&"-s") { &[][..] } else { &["-s", "user/ca"] };
    bed.ssh_keygen(&[&["-q", "-I", "ada-laptop"], ca, arguments, &[&file]].concat());
    format!("user/{name}-cert.pub")
}

/// `ssh` with a key only, and a command.
pub(crate) fn try_in(bed: &Bed, grant: &str, key: &str) -> Output {
    bed.ssh_as(grant, key).args(["-o", "BatchMode=yes", "echo in"]).output().expect("ssh runs")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A secret and a grant's line for it, made by `weir-proxy hash-secret`.
pub(crate) fn hashed_secret(bed: &Bed) -> (String, String) {
    let output = Command::new(bed.path("bin/weir-proxy"))
        .args(["hash-secret", "--generate"])
        .output()
        .expect("weir-proxy runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines = text.lines();
    let secret = lines.next().and_then(|line| line.rsplit(": ").next()).expect("a secret").to_owned();
    let line = lines.next().expect("a line for the grant").to_owned();
    assert!(line.starts_with("one_time_secret = \"$argon2id$"), "{line}");
    (secret, line)
}

/// `ssh … echo in` that answers the prompt with this secret, once. The user's key is offered before.
pub(crate) fn ssh_with_secret(bed: &Bed, grant: &str, secret: &str) -> Command {
    let askpass = bed.path("user/askpass");
    if !askpass.exists() {
        fs::write(&askpass, "#!/bin/sh\nprintf '%s\\n' \"$WEIR_TEST_SECRET\"\n").expect("written");
        fs::set_permissions(&askpass, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    let mut arguments = bed.ssh_arguments(grant, "user/key");
    let user = arguments.pop().expect("the user comes last");
    let mut ssh = Command::new("ssh");
    ssh.args(arguments).args([
        "-l",
        user.split('@').next().expect("a name"),
        "-o",
        "NumberOfPasswordPrompts=1",
    ]);
    ssh.env("SSH_ASKPASS", askpass).env("SSH_ASKPASS_REQUIRE", "force").env("WEIR_TEST_SECRET", secret);
    // Options may follow the host, but not the command.
    ssh.args(["-o", "RemoteCommand=echo in", "127.0.0.1"]).stdin(Stdio::null());
    ssh
}

/// What the two sides said to each other until the login failed, as `ssh -v` tells it.
pub(crate) fn exchange(output: &Output, grant: &str) -> String {
    let told = [
        "Authentications that can continue",
        "Next authentication method",
        "Offering public key",
        "Server accepts key",
        "Remote protocol",
        "SSH2_MSG",
        "kex:",
        "banner",
        "No more authentication",
        "server-sig-algs",
    ];
    let said = stderr(output).replace('\r', "");
    let lines =
        said.lines().filter(|line| !line.starts_with("debug") || told.iter().any(|part| line.contains(part)));
    lines.map(|line| format!("{}\n", line.replace(&format!("{grant}@"), "GRANT@"))).collect()
}

/// A time from now, as grants have it.
pub(crate) fn in_seconds(seconds: u32) -> String {
    let date = Command::new("date")
        .args(["-u", "-d", &format!("+{seconds} seconds"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output();
    String::from_utf8(date.expect("date runs").stdout).expect("text").trim().to_owned()
}

/// A session that waits to be ended; it has begun.
pub(crate) struct Waiting(Option<Child>);

/// How a session ended.
pub(crate) struct Ended {
    pub(crate) after: Duration,
    pub(crate) said: String,
}

impl Waiting {
    pub(crate) fn start(mut ssh: Command) -> Self {
        let mut child = ssh
            .arg("echo begun; exec sleep 300")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ssh starts");
        let mut line = [0; 6];
        child.stdout.as_mut().expect("piped").read_exact(&mut line).expect("the session begins");
        assert_eq!(&line, b"begun\n");
        Self(Some(child))
    }

    /// Makes a change and waits for the end that follows.
    pub(crate) fn ended_by(mut self, change: &dyn Fn()) -> Ended {
        let child = self.0.take().expect("taken once");
        let start = Instant::now();
        change();
        let output = child.wait_with_output().expect("ssh ends");
        Ended { after: start.elapsed(), said: stderr(&output) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
