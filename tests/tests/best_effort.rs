//! `capture_policy = "best_effort"`: the session goes on where another would stall, and its recording says exactly what is
//! missing.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::signal::Signal;
use weir_tests::{Bed, BedOptions, eventually, eventually_within, recording::Recording};

/// Bytes of a frame's header, which the kernel counts too.
const FRAME_HEADER_BYTES: u64 = 16;
const LATER: &str = "2099-01-01T00:00:00Z";

/// An upload into a file at the target, for as long as a test wants.
struct Upload {
    ssh: Child,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    feeder: JoinHandle<Vec<u8>>,
}

impl Upload {
    fn start(mut ssh: Command, file: &Path) -> Self {
        let mut ssh =
            ssh.arg(format!("cat > {}", file.display())).stdin(Stdio::piped()).spawn().expect("ssh starts");
        let mut stdin = ssh.stdin.take().expect("piped");
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let feeder = thread::spawn({
            let (sent, stop) = (sent.clone(), stop.clone());
            move || {
                let mut all = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let start = all.len();
                    while all.len() < start + (16 << 10) {
                        let at = all.len();
                        writeln!(all, "this line of what was sent begins at {at}").expect("in memory");
                    }
                    if stdin.write_all(&all[start..]).is_err() {
                        break;
                    }
                    sent.fetch_add((all.len() - start) as u64, Ordering::Relaxed);
                }
                all
            }
        });
        Self { ssh, sent, stop, feeder }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn wait_for_progress(&self, bytes: u64) {
        let goal = self.sent() + bytes;
        eventually_within(Duration::from_secs(60), "the transfer goes on", || {
            (self.sent() >= goal).then_some(())
        });
    }

    /// Ends the input; gives what was sent.
    fn finish(mut self) -> Vec<u8> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.feeder.join().expect("the feeder does not panic");
        assert!(self.ssh.wait().expect("ssh ends").success());
        sent
    }
}

/// A grant that permits best effort.
fn best_effort(bed: &Bed) -> &'static str {
    let key = fs::read_to_string(bed.path("user/key.pub")).expect("the bed made it");
    let lines = format!("capture_policy = \"best_effort\"\npublic_keys = [\"{}\"]", key.trim());
    fs::write(bed.grant_file("lenient"), Bed::grant_text(LATER, &lines)).expect("written");
    "lenient"
}

/// The recording of the session that went by this grant.
fn recording_of(bed: &Bed, grant: &str) -> Recording {
    let dir = eventually_within(Duration::from_secs(60), "the session is complete in the store", || {
        bed.finished_sessions().into_iter().find(|dir| {
            let recording = Recording::read(dir).expect("readable");
            recording.manifest["session"]["grant_id"] == grant
        })
    });
    Recording::read(&dir).expect("readable")
}

/// Compares what reached the target with the recording: each event is the next piece of it, and each gap stands for as many
/// bytes as it says. Gives how many bytes were missing, by cause.
fn compare(recording: &Recording, delivered: &[u8]) -> BTreeMap<String, u64> {
    let (mut at, mut next_seq, mut missing) = (0, 0, BTreeMap::new());
    for event in recording.events.iter().filter(|event| event.json["dir"] == "c2t" && event.json["ch"] == 0) {
        let number = |key: &str| event.json[key].as_u64().expect("a number");
        assert_eq!(number("seq"), next_seq, "in sequence");
        match event.json["kind"].as_str().expect("a kind") {
            "stdin" => {
                let end = at + event.bytes.len();
                assert!(
                    delivered.get(at..end) == Some(&event.bytes[..]),
                    "at {at}: not what was delivered there"
                );
                at = end;
                next_seq += 1;
            }
            "gap" => {
                // Nothing but data and the end of it goes this way here.
                let bytes = number("bytes") - number("records") * FRAME_HEADER_BYTES;
                at += usize::try_from(bytes).expect("small");
                next_seq += number("records");
                *missing.entry(event.json["cause"].as_str().expect("a cause").to_owned()).or_default() +=
                    bytes;
            }
            _ => next_seq += 1,
        }
    }
    assert_eq!(at, delivered.len(), "recording and gaps are as long as what was delivered");
    missing
}

fn verified(bed: &Bed, recording: &Recording) -> String {
    bed.assert_verifies(recording);
    String::from_utf8(bed.verify(&recording.dir).stdout).expect("text")
}

#[test]
fn while_the_agent_is_stopped_a_best_effort_session_goes_on_and_one_that_fails_closed_beside_it_stalls() {
    let bed = Bed::start(BedOptions { ring_bytes: 256 << 10, ..Default::default() });
    let (file, strict_file) = (bed.path("delivered"), bed.path("delivered-strictly"));
    let lenient = Upload::start(bed.ssh_as(best_effort(&bed), "user/key"), &file);
    let strict = Upload::start(bed.ssh(), &strict_file);
    lenient.wait_for_progress(1 << 20);
    strict.wait_for_progress(1 << 20);

    bed.agent().signal(Signal::SIGSTOP);
    // More than all buffers on the way hold.
    lenient.wait_for_progress(32 << 20);
    let mut stalled = u64::MAX;
    eventually("the other one stalls", || {
        #[expect(clippy::disallowed_methods, reason = "the interval over which nothing may move")]
        thread::sleep(Duration::from_millis(700));
        let now = strict.sent();
        (std::mem::replace(&mut stalled, now) == now).then_some(())
    });
    lenient.wait_for_progress(4 << 20);
    assert_eq!(strict.sent(), stalled);
    bed.agent().signal(Signal::SIGCONT);
    lenient.wait_for_progress(1 << 20);
    strict.wait_for_progress(1 << 20);

    let sent = lenient.finish();
    assert!(
        fs::read(&file).expect("the target wrote it") == sent,
        "it is the session that goes on, not less"
    );
    let recording = recording_of(&bed, "lenient");
    let missing = compare(&recording, &sent);
    assert!(missing["ring_full"] > 8 << 20, "{missing:?}");
    let said = verified(&bed, &recording);
    assert!(said.lines().last().is_some_and(|line| line.starts_with("INTACT, WITH GAPS")), "{said}");
    assert_eq!(recording.manifest["session"]["capture_policy"], "best_effort");

    let sent = strict.finish();
    assert!(fs::read(&strict_file).expect("the target wrote it") == sent);
    let recording = recording_of(&bed, weir_tests::GRANT);
    assert_eq!(compare(&recording, &sent), BTreeMap::new());
    let said = verified(&bed, &recording);
    assert!(said.lines().last().is_some_and(|line| line.starts_with("INTACT ")), "{said}");
}

#[test]
fn a_best_effort_session_outlives_its_agent_and_the_next_one_tells_the_gap() {
    let mut bed =
        Bed::start(BedOptions { ring_bytes: 256 << 10, stall_timeout_ms: 1_000, ..Default::default() });
    let file = bed.path("delivered");
    let lenient = Upload::start(bed.ssh_as(best_effort(&bed), "user/key"), &file);
    lenient.wait_for_progress(1 << 20);
    bed.take_agent().kill();
    lenient.wait_for_progress(32 << 20);
    // Longer than a session that fails closed would be let stall.
    let _ = bed.proxy_said("the session goes on, as its grant permits");
    lenient.wait_for_progress(1 << 20);
    bed.start_agent().expect("the next agent starts");
    eventually("the session is taken up", || {
        fs::read_to_string(bed.path("agent.log"))
            .is_ok_and(|log| log.contains("session resumed"))
            .then_some(())
    });
    lenient.wait_for_progress(1 << 20);
    let sent = lenient.finish();
    assert!(fs::read(&file).expect("the target wrote it") == sent);
    let recording = recording_of(&bed, "lenient");
    let missing = compare(&recording, &sent);
    assert!(missing["agent_down"] > 8 << 20, "{missing:?}");
    let _ = verified(&bed, &recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "completed");
}

#[test]
fn channels_that_end_or_are_asked_for_while_no_agent_runs_do_not_end_a_best_effort_session() {
    let mut bed =
        Bed::start(BedOptions { ring_bytes: 256 << 10, stall_timeout_ms: 1_000, ..Default::default() });
    let (file, short_file) = (bed.path("delivered"), bed.path("delivered-meanwhile"));
    let grant = best_effort(&bed);
    let shared = |role: &[&str]| {
        let mut ssh = bed.ssh_as(grant, "user/key");
        ssh.arg("-o").arg(format!("ControlPath={}", bed.control_path().display())).args(role);
        ssh
    };
    let lenient = Upload::start(shared(&["-o", "ControlMaster=yes"]), &file);
    lenient.wait_for_progress(1 << 20);
    eventually("the connection can be shared", || bed.control_path().exists().then_some(()));
    let mut short = shared(&[]);
    short.arg(format!("cat > {}", short_file.display())).stdin(Stdio::piped());
    let mut short = short.spawn().expect("ssh starts");
    short.stdin.as_mut().expect("piped").write_all(b"before\n").expect("it reads");
    eventually("the other channel is open", || fs::read(&short_file).ok().filter(|said| !said.is_empty()));
    let commands = [shared(&[]), shared(&[])];

    bed.take_agent().kill();
    drop(short.stdin.take());
    assert!(short.wait().expect("ssh ends").success(), "its exit status comes through");
    // Past the stall timeout, with the end of a channel to tell; then with somebody who asks.
    let _ = bed.proxy_said("the session goes on, as its grant permits");
    let [refused, taken] = commands.map(|mut ssh| {
        ssh.arg("true").stdin(Stdio::null());
        ssh
    });
    let status = { refused }.status().expect("ssh starts");
    assert!(!status.success(), "what opens a channel needs an agent");
    lenient.wait_for_progress(1 << 20);
    bed.start_agent().expect("the next agent starts");
    assert!({ taken }.status().expect("ssh starts").success());
    lenient.wait_for_progress(1 << 20);
    let sent = lenient.finish();
    assert!(fs::read(&file).expect("the target wrote it") == sent);
    let recording = recording_of(&bed, "lenient");
    assert!(compare(&recording, &sent)["agent_down"] > 0);
    let _ = verified(&bed, &recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "completed");
}
