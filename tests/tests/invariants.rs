//! Attempts to break the invariants on a running Weir: stop the drain, kill the agent, kill the proxy, take the
//! agent away.

use std::{
    fs,
    io::{Read, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::signal::Signal;
use rand::RngExt;
use sha2::{Digest, Sha256};
use weir_tests::{Bed, BedOptions, eventually, eventually_within, started};

/// Random bytes into a session for as long as a test wants, remembered as a digest.
struct Upload {
    ssh: Child,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    feeder: JoinHandle<String>,
}

impl Upload {
    fn start(command: &mut Command) -> Self {
        let mut ssh = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh starts");
        let mut stdin = ssh.stdin.take().expect("piped");
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let feeder = thread::spawn({
            let (sent, stop) = (sent.clone(), stop.clone());
            move || {
                let (mut digest, mut chunk) = (Sha256::new(), vec![0; 16 << 10]);
                while !stop.load(Ordering::Relaxed) {
                    rand::rng().fill(&mut chunk[..]);
                    if stdin.write_all(&chunk).is_err() {
                        break;
                    }
                    digest.update(&chunk);
                    sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                }
                hex(digest)
            }
        });
        Self { ssh, sent, stop, feeder }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn wait_for_progress(&self, bytes: u64) {
        let goal = self.sent() + bytes;
        eventually("the transfer goes on", || (self.sent() >= goal).then_some(()));
    }

    /// Ends the input; gives the digest of what was sent and what the session printed.
    fn finish(self) -> (String, String) {
        self.stop.store(true, Ordering::Relaxed);
        let digest = self.feeder.join().expect("the feeder does not panic");
        let output = self.ssh.wait_with_output().expect("ssh ends");
        assert!(output.status.success(), "ssh: {}", output.status);
        (digest, String::from_utf8(output.stdout).expect("text"))
    }
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until a number has not changed for a while, and gives it.
fn settled(what: &str, mut read: impl FnMut() -> u64) -> u64 {
    let mut last = u64::MAX;
    eventually(what, || {
        #[expect(clippy::disallowed_methods, reason = "the interval over which nothing may move")]
        thread::sleep(Duration::from_millis(700));
        let now = read();
        (std::mem::replace(&mut last, now) == now).then_some(now)
    })
}

#[test]
fn a_transfer_stalls_while_the_drain_is_stopped_and_afterwards_nothing_is_missing() {
    let bed = Bed::start(BedOptions { ring_bytes: 1 << 20, ..Default::default() });
    let (upload, _, stalled) = stalled_upload(&bed);

    bed.agent().signal(Signal::SIGCONT);
    eventually("the transfer goes on", || (upload.sent() > stalled + (16 << 20)).then_some(()));
    let (sent, printed) = upload.finish();
    assert_eq!(printed, format!("{sent}  -\n"));
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(hex(Sha256::new_with_prefix(recording.stream(0, "stdin"))), sent);
    let tossed = &recording.manifest["channels"][0]["c2t"]["kernel"]["tossed_full"];
    assert!(tossed.as_u64().expect("counted") > 0, "the ring was never full: nothing was tested");
}

#[test]
fn what_was_delivered_while_the_drain_was_stopped_had_been_captured() {
    let mut bed = Bed::start(BedOptions { ring_bytes: 1 << 20, ..Default::default() });
    let (mut upload, file, sent) = stalled_upload(&bed);
    // Nobody can pass on anything any more; what reached the target is all that ever will.
    bed.take_proxy().kill();
    upload.ssh.wait().expect("ssh ends");
    settled("the target has written what it got", || fs::metadata(&file).map_or(0, |file| file.len()));
    let delivered = fs::read(&file).expect("the target wrote it");

    bed.agent().signal(Signal::SIGCONT);
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    let recorded = recording.stream(0, "stdin");
    assert!(recorded.starts_with(&delivered), "the target has bytes that the kernel had not recorded");
    assert!(!delivered.is_empty() && (recorded.len() as u64) < sent, "the session was not stalled");
}

/// An upload that has stalled because the agent is stopped; the file the target writes it to; what was sent.
fn stalled_upload(bed: &Bed) -> (Upload, PathBuf, u64) {
    let file = bed.path("delivered");
    let upload = Upload::start(bed.ssh().arg(format!("tee {} | sha256sum", file.display())));
    upload.wait_for_progress(4 << 20);
    bed.agent().signal(Signal::SIGSTOP);
    let sent = settled("the transfer stalls", || upload.sent());
    (upload, file, sent)
}

#[test]
fn killing_the_agent_at_random_moments_of_a_transfer_leaves_no_gap_and_no_duplicate() {
    const KILLS: usize = 12;
    let mut bed =
        Bed::start(BedOptions { ring_bytes: 1 << 20, segment_max_age_ms: 300, ..Default::default() });
    let upload = Upload::start(bed.ssh().arg("sha256sum"));
    for _ in 0..KILLS {
        upload.wait_for_progress(rand::rng().random_range(100_000..4_000_000));
        bed.take_agent().kill();
        bed.start_agent().expect("the next agent starts");
    }
    upload.wait_for_progress(4 << 20);
    let (sent, printed) = upload.finish();
    assert_eq!(printed, format!("{sent}  -\n"));

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(hex(Sha256::new_with_prefix(recording.stream(0, "stdin"))), sent);
    assert_eq!(recording.manifest["outcome"]["kind"], "completed");
}

#[test]
fn a_session_whose_agent_stays_away_stalls_and_goes_on_with_the_next_agent() {
    let mut bed = Bed::start(BedOptions { ring_bytes: 256 << 10, ..Default::default() });
    let upload = Upload::start(bed.ssh().arg("sha256sum"));
    upload.wait_for_progress(1 << 20);
    bed.take_agent().kill();
    let stalled = settled("the transfer stalls without an agent", || upload.sent());
    bed.start_agent().expect("the next agent starts");
    eventually("the transfer goes on", || (upload.sent() > stalled + (4 << 20)).then_some(()));
    let (sent, printed) = upload.finish();
    assert_eq!(printed, format!("{sent}  -\n"));
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(hex(Sha256::new_with_prefix(recording.stream(0, "stdin"))), sent);
}

#[test]
fn a_killed_proxy_leaves_a_session_that_ended_abnormally_and_verifies() {
    let mut bed = Bed::start(BedOptions::default());
    let mut child = started(bed.ssh().arg("echo started; cat"));

    bed.take_proxy().kill();
    assert!(!child.wait().expect("ssh ends").success());
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "connector_lost");
    assert_eq!(recording.stream(0, "stdout"), b"started\n");
}

#[test]
fn proxy_and_agent_killed_together_leave_a_session_that_the_next_agent_ends() {
    let mut bed = Bed::start(BedOptions { reattach_timeout_ms: 500, ..Default::default() });
    let mut child = started(bed.ssh().arg("echo started; cat"));

    bed.take_agent().kill();
    bed.take_proxy().kill();
    assert!(!child.wait().expect("ssh ends").success());
    bed.start_agent().expect("the next agent starts");
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "connector_lost");
    assert_eq!(recording.stream(0, "stdout"), b"started\n");
}

#[test]
fn without_an_agent_a_session_is_refused_with_the_reason_and_nothing_reaches_the_target() {
    let mut bed = Bed::start(BedOptions::default());
    bed.take_agent().kill();
    let output = bed.ssh().arg("touch /tmp/never").output().expect("ssh runs");
    assert_eq!(output.status.code(), Some(255));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the recording agent on this connector does not answer"), "{said}");
    assert!(!bed.target_log().contains("Connection from"), "the target was contacted");
    let _ = bed.proxy_said("session refused: it would not be recorded");

    bed.start_agent().expect("the next agent starts");
    let output = bed.ssh().arg("echo back").output().expect("ssh runs");
    assert_eq!(output.stdout, b"back\n");
}

#[test]
fn a_stall_past_its_timeout_closes_the_session_and_the_user_reads_why() {
    let bed = Bed::start(BedOptions { ring_bytes: 256 << 10, stall_timeout_ms: 1_000, ..Default::default() });
    bed.agent().signal(Signal::SIGSTOP);
    // The session was registered by nobody yet: this one waits for the agent, and gives up.
    let refused = bed.ssh().arg("true").output().expect("ssh runs");
    assert_eq!(refused.status.code(), Some(255));
    bed.agent().signal(Signal::SIGCONT);

    let mut child = bed
        .ssh()
        .arg("cat > /dev/null")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ssh starts");
    let mut stdin = child.stdin.take().expect("piped");
    let feeder = thread::spawn(move || while stdin.write_all(&[0; 4096]).is_ok() {});
    eventually("the session runs", || bed.target_log().contains("Starting session").then_some(()));
    bed.agent().signal(Signal::SIGSTOP);
    eventually_within(Duration::from_secs(60), "the session is closed", || {
        child.try_wait().expect("our child").map(drop)
    });
    bed.agent().signal(Signal::SIGCONT);
    feeder.join().expect("the feeder does not panic");
    let mut said = String::new();
    child.stderr.as_mut().expect("piped").read_to_string(&mut said).expect("text");
    assert!(said.contains("the recording has stalled for 1 s; the session was closed"), "{said}");
    let dir = eventually("the session is complete in the store", || {
        bed.finished_sessions().into_iter().find(|dir| {
            let recording = weir_tests::recording::Recording::read(dir).expect("readable");
            recording.command().is_some()
        })
    });
    let recording = weir_tests::recording::Recording::read(&dir).expect("readable");
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "ended");
}

#[test]
fn a_channel_that_is_opened_while_the_agent_dies_comes_up_with_the_next_one() {
    let mut bed = Bed::start(BedOptions::default());
    let mut first = started(bed.shared_ssh().args(["-M", "echo started; cat"]));

    bed.agent().signal(Signal::SIGSTOP);
    let second = bed.shared_ssh().arg("echo second").stdout(Stdio::piped()).spawn().expect("ssh starts");
    bed.take_agent().kill();
    bed.start_agent().expect("the next agent starts");
    assert_eq!(second.wait_with_output().expect("ssh ends").stdout, b"second\n");
    drop(first.stdin.take());
    assert!(first.wait().expect("ssh ends").success());
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "completed");
}

#[test]
fn an_agent_that_answers_too_late_arms_nothing_that_it_has_not_seen() {
    let bed = Bed::start(BedOptions::default());
    let mut first = started(bed.shared_ssh().args(["-M", "echo started; cat"]));

    bed.agent().signal(Signal::SIGSTOP);
    let second = bed.shared_ssh().arg("echo second; cat").stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let second = second.expect("ssh starts");
    // By then it has been asked once more, on another connection and for another pair of sockets.
    let _ = bed.proxy_said("asking it on another connection");
    bed.agent().signal(Signal::SIGCONT);
    assert_eq!(second.wait_with_output().expect("ssh ends").stdout, b"second\n");
    drop(first.stdin.take());
    assert!(first.wait().expect("ssh ends").success());
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "completed");
    let opened = recording.kind("open");
    let channel = opened.last().expect("two").json["ch"].as_u64().expect("a number");
    assert_eq!(recording.stream(channel, "stdout"), b"second\n");
}
