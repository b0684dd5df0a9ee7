//! The store against moto, another implementation of the API: with versions, Object Lock, encryption by KMS and tags.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use weir_agent::{
    config::{Encryption, LockMode, ObjectLock, S3Options},
    store::{Put, S3Store, Store, StoreError},
};
use weir_common::{digest::Sha256, recording::SIGNATURE, session::ChannelNo};

use crate::{
    check,
    faults::{C2T, Session, T2C},
    server::{ENVIRONMENT, credentials, options_for},
    store::run,
    support::{Node, stored::verify, wait_until},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/s3/s3_api.py");

/// A moto of this test's own; killed when it is dropped.
pub(crate) struct Moto {
    python: PathBuf,
    pub(crate) port: String,
    process: Child,
}

impl Moto {
    pub(crate) fn start() -> Self {
        let python = python();
        let mut process = Command::new(&python)
            .args([SCRIPT, "serve"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python runs");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says its port");
        let port = line.trim().strip_prefix("port=").expect("it serves").to_owned();
        Self { python, port, process }
    }

    pub(crate) fn run(&self, command: &str, arguments: &[&str]) -> String {
        let output = Command::new(&self.python)
            .args([SCRIPT, command, &self.port])
            .args(arguments)
            .output()
            .expect("python runs");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port.parse().expect("a port")).into()
    }

    pub(crate) fn settings(&self, more: &str) -> String {
        format!(
            "store = \"s3://recordings/weir\"\n[s3]\nregion = \"eu-central-1\"\nendpoint = \"{}\"\npath_style = true\n\
             request_timeout_ms = 2000\n{more}",
            self.endpoint()
        )
    }

    fn options(&self) -> S3Options {
        S3Options {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            ..options_for(self.endpoint())
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).expect("moto runs");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The Python that has moto: `cargo xtask test` installs it below the target directory.
fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_weir-agent")).parent().and_then(Path::parent);
    let installed = target.map(|target| target.join("moto/bin/python")).filter(|python| python.exists());
    let python = installed.unwrap_or_else(|| "python3".into());
    let has_moto = Command::new(&python).args(["-c", "import moto.server, boto3"]).output();
    assert!(
        has_moto.is_ok_and(|output| output.status.success()),
        "moto is missing: run `cargo xtask test`, which installs it"
    );
    python
}

#[test]
fn tags_encryption_and_lock_arrive_and_evidence_is_never_overwritten() {
    let moto = Moto::start();
    moto.run("bucket", &["recordings", "lock"]);
    let options = S3Options {
        encryption: Encryption::Kms(Some("alias/weir".into())),
        lock: Some(ObjectLock { mode: LockMode::Compliance, days: 400 }),
        tags: [("team", "sec ops"), ("cost", "a+b/c")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..moto.options()
    };
    let store = S3Store::with_credentials(options, credentials());
    let put = |body: &'static [u8]| run(store.put("v1/x", Bytes::from_static(body), Sha256::of(body)));
    assert_eq!(put(b"evidence").expect("stored"), Put::Stored);
    let shown: Value = serde_json::from_str(&moto.run("show", &["recordings", "weir/v1/x"])).expect("JSON");
    assert_eq!(shown["encryption"], "aws:kms");
    assert_eq!(shown["key"], "alias/weir");
    assert_eq!(shown["lock"], "COMPLIANCE");
    assert_eq!(shown["tags"], json!({"team": "sec ops", "cost": "a+b/c"}));
    assert_eq!(put(b"evidence").expect("the same"), Put::AlreadyThere);
    assert!(matches!(put(b"forgery!"), Err(StoreError::Conflict { .. })));
    assert_eq!(run(store.get("v1/x", 100)).expect("is there"), &b"evidence"[..]);
}

#[test]
fn a_lock_on_a_bucket_that_takes_none_is_told() {
    let moto = Moto::start();
    moto.run("bucket", &["recordings"]);
    let options =
        S3Options { lock: Some(ObjectLock { mode: LockMode::Governance, days: 1 }), ..moto.options() };
    let store = S3Store::with_credentials(options, credentials());
    let error =
        run(store.put("v1/x", Bytes::from_static(b"x"), Sha256::of(b"x"))).expect_err("no lock there");
    assert!(error.to_string().contains("Object Lock"), "{error}");
}

#[test]
fn a_check_sees_versions_lock_and_encryption() {
    let moto = Moto::start();
    moto.run("bucket", &["recordings", "lock"]);
    let mut node = Node::new("node = \"node/1\"\n");
    node.configure(
        &moto
            .settings("encryption = \"aws:kms\"\nobject_lock_mode = \"governance\"\nobject_lock_days = 30\n"),
    );
    let checked = check::run(&node, &ENVIRONMENT);
    for about in
        ["reachable", "writable", "readable", "listable", "encrypted", "versioned", "locked", "not public"]
    {
        assert_eq!(checked.level(about), "ok", "{about}: {}", checked.stdout);
    }
    let keys = moto.run("list", &["recordings"]);
    assert!(keys.starts_with("weir/v1/check/node_1-") && keys.lines().count() == 1, "{keys}");
}

#[test]
fn a_bucket_that_is_made_late_an_outage_and_kill_9_lose_nothing() {
    let moto = Moto::start();
    let mut node =
        Node::new("segment_max_bytes = 60000\nsegment_max_age_ms = 50\nspool_file_bytes = 65536\n");
    node.configure(&moto.settings("encryption = \"AES256\"\n"));
    node.environment(&ENVIRONMENT);
    // It loads what it needs as the first asks, which takes longer than an agent waits.
    moto.run("bucket", &["another"]);
    let agent = node.start();
    let mut session = Session::begin(&node);
    session.talk(40);
    let line = agent.wait_for_log("the store does not answer");
    assert!(line.contains("there is no bucket recordings"), "{line}");
    moto.run("bucket", &["recordings"]);
    wait_until("something is stored", || moto.run("list", &["recordings"]).contains("000001"));
    // It accepts connections, and never answers.
    moto.signal(Signal::SIGSTOP);
    session.talk(40);
    agent.wait_for_log("the store cannot store");
    agent.kill();
    let _agent = node.start();
    session.resume(&node);
    session.talk(10);
    session.close();
    moto.signal(Signal::SIGCONT);
    wait_until("the session is complete", || {
        moto.run("list", &["recordings"]).contains(&format!("/{SIGNATURE}"))
    });
    let store = node.path("store");
    fs::create_dir(&store).expect("not there yet");
    moto.run("copy", &["recordings", "weir", store.to_str().expect("text")]);
    let recording = verify(&node, session.meta.session_id);
    for direction in [C2T, T2C] {
        assert_eq!(recording.frames[&(ChannelNo(0), direction)], session.tap.sent(direction), "{direction}");
    }
}
