//! Disks that are read-only, broken, or full to the last byte: what was delivered is stored all the same, what is not
//! recorded is not delivered, and whatever gives space back finds a way.

mod support;

use std::{fs, path::Path, process::Command};

use support::{
    Agent, Node,
    proxy::{Control, Tap, meta, stdout},
    stored::{assert_all_told, verify},
    wait_until,
};
use weir_common::{
    control::Reply,
    frame::{Direction, Message},
    recording::GapCause,
    session::{CapturePolicy, ChannelNo, Outcome, SessionMeta},
};

const T2C: Direction = Direction::TargetToClient;
const DISK_BYTES: u64 = 32 * 1024 * 1024;

struct Client {
    meta: SessionMeta,
    control: Control,
    tap: Tap,
}

impl Client {
    fn begin(node: &Node, capture_policy: CapturePolicy) -> Self {
        let (meta, control) = (SessionMeta { capture_policy, ..meta() }, Control::connect(&node.socket()));
        assert_eq!(control.open(&meta, false), Some(Reply::Opened));
        let tap = control.arm(0);
        Self { meta, control, tap }
    }

    fn resume(&mut self, node: &Node) {
        self.control = Control::connect(&node.socket());
        assert_eq!(self.control.open(&self.meta, true), Some(Reply::Opened));
    }

    fn say(&mut self, text: &str) {
        self.tap.pass(T2C, &stdout(text));
    }

    fn close(&self) {
        // It is put off while the spool takes nothing.
        wait_until("the session is closed", || self.control.close(Outcome::Completed) == Some(Reply::Closed));
    }

    /// Verifies the recording: it is what came through, byte for byte.
    fn assert_stored(&self, node: &Node, outcome: &Outcome) {
        let recording = verify(node, self.meta.session_id);
        assert_eq!(&recording.manifest.outcome, outcome);
        assert!(recording.gaps.is_empty());
        assert!(
            recording.frames[&(ChannelNo(0), T2C)] == self.tap.sent(T2C),
            "the recording is what was delivered"
        );
    }
}

fn large() -> Message {
    stdout(&"z".repeat(30_000))
}

/// Flushes the disk when the spool on it has these bytes.
fn flush(node: &Node, said: &str) {
    let has = |path: &Path| {
        fs::read(path).is_ok_and(|bytes| bytes.windows(said.len()).any(|window| window == said.as_bytes()))
    };
    wait_until("it is in the spool", || node.spool_files().iter().any(|path| has(path)));
    let disk = fs::File::open(node.path("state")).expect("is there");
    nix::unistd::syncfs(disk).expect("works");
}

/// Whoever asks is told why, and may ask again.
fn assert_put_off(reply: &Option<Reply>) {
    assert!(
        matches!(reply, Some(Reply::TryAgain { reason }) if reason.contains("cannot record at the moment")),
        "{reply:?}"
    );
}

#[test]
fn a_spool_whose_disk_breaks_under_it_stalls_sessions_and_the_next_agent_goes_on_when_it_is_mended() {
    let node = Node::new("ring_bytes = 65536\nsegment_max_age_ms = 60000");
    node.ext4_disk_for("state", DISK_BYTES);
    let agent = node.start();
    let mut strict = Client::begin(&node, CapturePolicy::FailClosed);
    let mut lenient = Client::begin(&node, CapturePolicy::BestEffort);
    strict.say("said before");
    lenient.say("the last before");
    flush(&node, "the last before");
    node.break_disk_for("state");
    wait_until("the ring is full", || {
        assert!(lenient.tap.try_pass(T2C, large()), "it never stalls");
        !strict.tap.try_pass(T2C, large())
    });
    (0..5).for_each(|_| assert!(lenient.tap.try_pass(T2C, large()), "it never stalls"));
    let line = agent.wait_for_log("the spool cannot be written");
    assert!(line.contains("Read-only file system"), "{line}");
    assert_put_off(&Control::connect(&node.socket()).open(&meta(), false));
    assert_put_off(&strict.control.disarm(0));
    assert_put_off(&strict.control.close(Outcome::Completed));
    assert!(!strict.tap.try_pass(T2C, stdout("nothing comes through")));
    agent.kill();
    node.detach_disk_for("state");
    node.attach_disk_for("state");
    let _agent = node.start();
    for client in [&mut strict, &mut lenient] {
        client.resume(&node);
    }
    strict.close();
    lenient.say("said behind");
    lenient.close();
    strict.assert_stored(&node, &Outcome::Completed);
    let causes = assert_all_told(&verify(&node, lenient.meta.session_id), 0, &lenient.tap);
    assert!(!causes.is_empty() && causes.iter().all(|&cause| cause == GapCause::AgentDown), "{causes:?}");
}

#[test]
fn a_session_goes_on_with_the_next_agent_after_its_spool_was_read_only() {
    let node = Node::new("segment_max_age_ms = 60000");
    node.ext4_disk_for("state", DISK_BYTES);
    let agent = node.start();
    let mut client = Client::begin(&node, CapturePolicy::FailClosed);
    client.say("said before");
    flush(&node, "said before");
    node.break_disk_for("state");
    client.say("captured, and in the ring");
    agent.wait_for_log("the spool cannot be written");
    agent.kill();
    // Whoever starts it before the disk is mended is told why there is none.
    let log = node.spawn().wait_for_failure();
    assert!(log.contains("Read-only file system") && log.contains("state"), "{log}");
    node.detach_disk_for("state");
    node.attach_disk_for("state");
    let _agent = node.start();
    client.resume(&node);
    client.say("said behind");
    client.close();
    client.assert_stored(&node, &Outcome::Completed);
}

#[test]
fn an_agent_on_a_read_only_state_directory_ends_and_says_so() {
    let node = Node::new("");
    node.small_disk(DISK_BYTES);
    let client = {
        let _agent = node.start();
        Client::begin(&node, CapturePolicy::FailClosed)
    };
    node.make_disk_writable_for("state", false);
    let log = node.spawn().wait_for_failure();
    assert!(log.contains("Read-only file system") && log.contains("state/lock"), "{log}");
    node.make_disk_writable_for("state", true);
    let _agent = node.start();
    drop(client);
}

#[test]
fn a_store_that_is_read_only_is_tried_until_it_is_not_also_by_an_agent_that_starts_meanwhile() {
    let node = Node::new("segment_max_age_ms = 50");
    node.small_disk_for("store", DISK_BYTES);
    let mut agent = node.start();
    let mut client = Client::begin(&node, CapturePolicy::FailClosed);
    for restarted in [false, true] {
        fs::write(node.path("store/.tmp/left"), "half").expect("writable");
        node.make_disk_writable_for("store", false);
        if restarted {
            agent.kill();
            agent = node.start();
            client.resume(&node);
        }
        client.say("while nothing can be stored");
        let line = agent.wait_for_log("the store does not answer");
        assert!(line.contains("Read-only file system"), "{line}");
        node.make_disk_writable_for("store", true);
        client.say("while everything can");
    }
    client.close();
    client.assert_stored(&node, &Outcome::Completed);
}

#[test]
fn an_agent_that_starts_on_a_disk_full_to_the_last_byte_stores_what_it_has_and_sessions_go_on() {
    for node_restarted in [false, true] {
        let node = Node::new(
            "ring_bytes = 65536\nsegment_max_age_ms = 60000\n\
             [report]\nurl = \"http://127.0.0.1:9/\"\ntoken_file = \"/dev/null\"\n",
        );
        node.ext4_disk_for("state", DISK_BYTES);
        let agent = node.start();
        let mut clients = [(); 3].map(|()| Client::begin(&node, CapturePolicy::FailClosed));
        for client in &mut clients {
            (0..100).for_each(|_| client.tap.pass(T2C, &large()));
        }
        // What is in the ring survives an agent that is killed, and no restart of the node.
        if node_restarted {
            agent.stop();
        } else {
            agent.kill();
        }
        let ballast = node.fill_disk_for("state");
        if node_restarted {
            node.forget_kernel_objects();
        }
        let agent = node.start();
        if !node_restarted {
            for client in &mut clients {
                client.resume(&node);
                (0..10).for_each(|_| client.tap.pass(T2C, &large()));
                client.close();
            }
        }
        let outcome = if node_restarted { Outcome::ConnectorLost } else { Outcome::Completed };
        for client in &clients {
            client.assert_stored(&node, &outcome);
        }
        assert!(agent.logged("what is held for notes of what is stored is used now"), "{}", agent.log());
        // One that was killed leaves a directory, whose block the next one's may take.
        let has_no_room = agent.logged("session reports cannot be written until there is room");
        assert!(has_no_room || !node_restarted, "{}", agent.log());
        for client in &clients {
            let report = format!("{}.stored.json", client.meta.session_id);
            wait_until("it is to be reported", || node.path("state/reports").join(&report).exists());
        }
        assert!(ballast.exists(), "the space is what was stored");
        let mut next = Client::begin(&node, CapturePolicy::FailClosed);
        next.say("there is room");
        next.close();
        next.assert_stored(&node, &Outcome::Completed);
    }
}

/// What the disk of a lost node is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// A snapshot of a volume.
    ReadOnly,
    /// Others have filled it, also the room that the agent held.
    Full,
    /// Others have filled it, but for that room.
    FullButForTheReserve,
}

/// `weir-agent recover` of the lost node's spools by another one; its exit code and what it says.
fn recover(node: &Node, arguments: &[&str]) -> (Option<i32>, String) {
    let (config, elsewhere) = (node.path("elsewhere.toml"), node.path("elsewhere"));
    let store = format!("file://{}", node.path("store").display());
    fs::write(&config, format!("allowed_uids = [0]\nstate_dir = {elsewhere:?}\nstore = {store:?}\n"))
        .expect("writable");
    let mut command = Command::new(support::AGENT);
    command.arg("recover").arg("--config").arg(&config).arg(node.path("state/spool"));
    let output = command.arg("--give-up-ring").args(arguments).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

fn spool_contents(node: &Node) -> Vec<Vec<u8>> {
    node.spool_files().iter().map(|path| fs::read(path).expect("readable")).collect()
}

#[test]
fn the_spool_of_a_node_whose_disk_takes_nothing_is_recovered_and_left_as_it_is() {
    for lost in [Lost::ReadOnly, Lost::Full, Lost::FullButForTheReserve] {
        let node = Node::new("segment_max_age_ms = 60000\nspool_file_bytes = 65536");
        node.ext4_disk_for("state", DISK_BYTES);
        let agent = node.start();
        // Their notes take more than what the last block of a file may have left.
        let mut clients = [(); 10].map(|()| Client::begin(&node, CapturePolicy::FailClosed));
        for client in &mut clients {
            (0..10).for_each(|_| client.tap.pass(T2C, &large()));
        }
        agent.stop();
        let signers = fs::read_to_string(node.path("state/allowed_signers")).expect("is there");
        match lost {
            Lost::ReadOnly => {
                node.detach_disk_for("state");
                node.attach_disk_read_only_for("state");
            }
            Lost::Full | Lost::FullButForTheReserve => {
                if lost == Lost::Full {
                    fs::remove_file(node.path("state/spool/weir.reserve")).expect("it is held");
                }
                node.fill_disk_for("state");
            }
        }
        let before = spool_contents(&node);
        let (code, said) = recover(&node, &[]);
        if lost == Lost::FullButForTheReserve {
            assert_eq!(code, Some(0), "{said}");
        } else {
            assert!(matches!(code, Some(1 | 2)) && said.contains("pass --work DIR"), "{code:?}: {said}");
            if lost == Lost::ReadOnly {
                assert!(code == Some(2) && said.contains("Read-only file system"), "{said}");
                assert!(spool_contents(&node) == before, "nothing of it is changed");
            }
            let before = spool_contents(&node);
            let work = node.path("work").display().to_string();
            let (code, said) = recover(&node, &["--work", &work]);
            assert!(code == Some(0) && said.contains("left as it was (--work)"), "{code:?}: {said}");
            assert!(spool_contents(&node) == before, "nothing of it is changed");
        }
        // Whoever verifies looks for the signers there.
        node.detach_disk_for("state");
        let own = fs::read_to_string(node.path("elsewhere/allowed_signers")).expect("is there");
        fs::write(node.path("state/allowed_signers"), signers + &own).expect("writable");
        for client in &clients {
            client.assert_stored(&node, &Outcome::ConnectorLost);
        }
    }
}

/// Has the agent's files grow no more, or as they like.
fn limit_files(agent: &Agent, bytes: &str) {
    let limit = format!("--fsize={bytes}:unlimited");
    let done = Command::new("prlimit").args(["--pid", &agent.pid().to_string(), &limit]).status();
    assert!(done.expect("is installed").success());
}

#[test]
fn what_passes_a_best_effort_session_while_the_spool_cannot_be_written_is_told_as_a_gap_for_that_reason() {
    let node = Node::new("ring_bytes = 65536\nsegment_max_age_ms = 60000");
    // A write past the limit is an error, and not the end.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", support::AGENT]);
    let agent = node.spawn_by(command);
    agent.wait_for_log("ready");
    let mut client = Client::begin(&node, CapturePolicy::BestEffort);
    client.say("said before");
    limit_files(&agent, "1");
    let mut pass = || assert!(client.tap.try_pass(T2C, large()), "it never stalls");
    wait_until("the spool is in trouble", || {
        pass();
        agent.logged("the spool cannot be written")
    });
    (0..20).for_each(|_| pass());
    limit_files(&agent, "unlimited");
    agent.wait_for_log("the spool can be written again");
    client.say("said behind");
    client.close();
    let causes = assert_all_told(&verify(&node, client.meta.session_id), 0, &client.tap);
    assert!(causes.contains(&GapCause::SpoolUnwritable), "{causes:?}");
}
