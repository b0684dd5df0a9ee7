//! `kill -9` of the agent: sessions stall or go on into the ring, and the recording has no gap.

mod support;

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    process::Command,
    time::Duration,
};

use nix::{
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
    sys::signal::Signal,
};
use support::{
    Node, names,
    proxy::{Control, Tap, meta, stdin, stdout},
    stored::verify,
    wait_until,
};
use weir_agent::{journal::Journal, ledger::StateEntry, session::ChannelKernel, spool::SpoolOptions};
use weir_common::{
    control::{self, Reply, Request},
    frame::{ChannelType, Direction, Message},
    session::{ChannelNo, HostKeyTrust, Outcome, SessionMeta, TargetCredential, TargetPeer},
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;
/// Small, so that segments are sealed and spool files rotated and deleted all the time.
const SMALL: &str = "segment_max_bytes = 60000\nsegment_max_age_ms = 20\nspool_file_bytes = 65536\n";

fn begin(node: &Node) -> (SessionMeta, Control, Tap) {
    let (meta, control) = (meta(), Control::connect(&node.socket()));
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    let tap = control.arm(0);
    (meta, control, tap)
}

fn resume(node: &Node, meta: &SessionMeta) -> Control {
    let control = Control::connect(&node.socket());
    assert_eq!(control.open(meta, true), Some(Reply::Opened));
    control
}

fn talk(tap: &mut Tap, rounds: usize) {
    for round in 0..rounds {
        tap.pass(T2C, &stdout(&format!("round {round} ").repeat(1 + round * 37 % 400)));
        tap.pass(C2T, &stdin(&format!("{round}")));
    }
}

#[test]
fn a_session_survives_agents_that_are_killed_and_its_recording_has_no_gap() {
    let node = Node::new(SMALL);
    let mut agent = node.start();
    let (meta, mut control, mut tap) = begin(&node);
    for life in 0..6 {
        talk(&mut tap, 40 + 60 * life);
        agent.kill();
        // The ring still has room, so the session goes on without an agent for a while.
        talk(&mut tap, 10);
        agent = node.start();
        control = resume(&node, &meta);
    }
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.manifest.outcome, Outcome::Completed);
    assert_eq!(recording.frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
    let kernel = recording.manifest.channels[0].t2c.kernel.expect("the counters survived");
    assert_eq!(kernel.captured.records, tap.sent(T2C).len() as u64);
    agent.stop();
}

#[test]
fn a_session_is_completed_by_the_next_agent_when_one_is_killed_right_after_the_close() {
    let node = Node::new(SMALL);
    for delay_us in [0, 500, 2_000, 5_000, 20_000] {
        let agent = node.start();
        let (meta, control, mut tap) = begin(&node);
        talk(&mut tap, 30);
        assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
        let begun = std::time::Instant::now();
        wait_until("the moment has come", || begun.elapsed() >= Duration::from_micros(delay_us));
        agent.kill();
        let agent = node.start();
        let recording = verify(&node, meta.session_id);
        assert_eq!(recording.frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
        agent.stop();
    }
}

#[test]
fn a_session_whose_proxy_does_not_come_back_after_a_restart_is_ended() {
    let node = Node::new("reattach_timeout_ms = 100");
    let agent = node.start();
    let (meta, _control, mut tap) = begin(&node);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    agent.kill();
    let _agent = node.start();
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.manifest.outcome, Outcome::ConnectorLost);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
}

#[test]
fn the_target_is_noted_once_and_survives_a_kill() {
    let node = Node::new("");
    let agent = node.start();
    let (meta, control, _tap) = begin(&node);
    let target = |last: u8| TargetPeer {
        address: ([192, 0, 2, last], 22).into(),
        host_key: "SHA256:host".into(),
        host_key_trust: HostKeyTrust::KnownHosts,
        credential: TargetCredential::Certificate,
    };
    let connected = |control: &Control, last| control.ask(&Request::Connected { target: target(last) }, &[]);
    assert_eq!(connected(&control, 1), Some(Reply::Connected));
    agent.kill();
    let _agent = node.start();
    let control = resume(&node, &meta);
    assert_eq!(connected(&control, 1), Some(Reply::Connected), "a proxy that heard no answer asks again");
    assert!(matches!(connected(&control, 2), Some(Reply::Refused { .. })), "there is one target a session");
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    assert_eq!(verify(&node, meta.session_id).manifest.target, Some(target(1)));
}

#[test]
fn the_spool_of_a_lost_node_is_recovered_elsewhere_and_verifies() {
    let node = Node::new(SMALL);
    let agent = node.start();
    let (meta, _control, mut tap) = begin(&node);
    talk(&mut tap, 60);
    agent.stop();
    let (lost, elsewhere) = (node.path("attached/spool"), node.path("elsewhere"));
    fs::create_dir_all(&lost).expect("a fresh directory");
    for file in node.spool_files() {
        fs::copy(&file, lost.join(file.file_name().expect("a name"))).expect("readable");
    }
    let (config, store) = (node.path("elsewhere.toml"), format!("file://{}", node.path("store").display()));
    fs::write(&config, format!("allowed_uids = [0]\nstate_dir = {elsewhere:?}\nstore = {store:?}\n{SMALL}"))
        .expect("writable");
    let recover = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-agent"));
        let output = command.arg("recover").arg("--config").arg(&config).arg(&lost).args(arguments).output();
        let output = output.expect("it runs");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        (output.status.code(), text)
    };
    let (code, [_, error]) = recover(&[]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("may be under way"), "{error}");
    let (code, [text, _]) = recover(&["--dry-run"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&meta.session_id.to_string()) && text.contains("had not ended"), "{text}");
    let (code, [text, error]) = recover(&["--json", "--give-up-ring"]);
    assert_eq!(code, Some(0), "{text}{error}");
    assert!(text.contains(r#""state":"stored""#) && text.contains(r#""emptied":true"#), "{text}");
    assert_eq!(names(&lost), Vec::<String>::new());
    let signers = node.path("state/allowed_signers");
    let both =
        [&signers, &elsewhere.join("allowed_signers")].map(|path| fs::read_to_string(path).expect("written"));
    fs::write(&signers, both.concat()).expect("writable");
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.manifest.outcome, Outcome::ConnectorLost);
    assert_eq!(recording.frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
    assert_eq!(recording.manifest.channels[0].t2c.kernel, None);
}

/// The owners of everything below a directory.
fn owners(dir: &Path) -> Vec<u32> {
    let items = fs::read_dir(dir).expect("a directory").map(|item| item.expect("readable").path());
    items
        .flat_map(|path| {
            let own = fs::symlink_metadata(&path).expect("it is there").uid();
            let below = if path.is_dir() { owners(&path) } else { Vec::new() };
            [own].into_iter().chain(below)
        })
        .collect()
}

#[test]
fn root_recovers_nothing_for_an_agent_that_is_an_ordinary_user_and_is_told_the_command_that_does() {
    const USER: u32 = 4_990;
    let node = Node::new(SMALL);
    let agent = node.start();
    let (meta, _control, mut tap) = begin(&node);
    talk(&mut tap, 20);
    agent.stop();
    let (lost, config) = (node.path("state/spool"), node.path("elsewhere.toml"));
    let [state, store] = ["elsewhere", "elsewhere-store"].map(|name| node.path(name));
    for own in [&state, &store] {
        fs::create_dir(own).expect("a fresh directory");
        chown(own, Some(USER), Some(USER)).expect("root may");
    }
    fs::set_permissions(node.path("."), fs::Permissions::from_mode(0o755)).expect("an own directory");
    let text =
        format!("allowed_uids = [0]\nstate_dir = {state:?}\nstore = \"file://{}\"\n{SMALL}", store.display());
    fs::write(&config, text).expect("writable");
    // By a name that this user can follow: the build directory may lie where it can't go.
    let run = |command: &mut Command| {
        let output =
            command.stdin(File::open(support::AGENT).expect("it is built")).output().expect("it runs");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        (output.status.code(), text)
    };
    let mut recover = Command::new("/proc/self/fd/0");
    recover.args(["recover", "--give-up-ring", "--json", "--config"]).args([&config, &lost]);
    let (code, [_, error]) = run(&mut recover);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("is user 4990's"), "{error}");
    assert_eq!((owners(&state), owners(&store)), (vec![], vec![]), "nothing was done");
    let (_, command) = error.split_once("Run it as that user: ").expect("a command");
    let command = shlex::split(command).expect("as a shell takes it");
    let (code, [text, error]) = run(Command::new(&command[0]).args(&command[1..]));
    assert_eq!(code, Some(0), "{text}{error}");
    assert!(text.contains(&meta.session_id.to_string()) && text.contains(r#""emptied":true"#), "{text}");
    for dir in [&state, &store] {
        let owners = owners(dir);
        assert!(!owners.is_empty() && owners.iter().all(|owner| *owner == USER), "{owners:?}");
    }
    assert_eq!(names(&lost), Vec::<String>::new());
}

#[test]
fn a_stopped_agent_ends_no_session() {
    let node = Node::new("");
    let agent = node.start();
    let (meta, _control, mut tap) = begin(&node);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    agent.stop();
    let _agent = node.start();
    let control = resume(&node, &meta);
    tap.pass(T2C, &Message::OpenConfirm);
    let mut second = control.arm(1);
    second.pass(C2T, &Message::Open(ChannelType::Session));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.manifest.outcome, Outcome::Completed);
    assert_eq!(recording.frames[&(ChannelNo(1), C2T)], second.sent(C2T));
}

#[test]
fn while_the_agent_is_stopped_exactly_what_fits_the_ring_is_delivered_and_recorded() {
    let node = Node::new("ring_bytes = 65536");
    let agent = node.start();
    let (meta, control, mut tap) = begin(&node);
    agent.signal(Signal::SIGSTOP);
    let chunk = stdout(&"x".repeat(8000));
    let mut delivered = 0;
    while tap.try_pass(T2C, chunk.clone()) {
        delivered += 1;
    }
    assert!((3..9).contains(&delivered), "{delivered} frames fit the ring");
    agent.signal(Signal::SIGCONT);
    tap.pass(T2C, &chunk);
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    let totals = recording.manifest.channels[0].t2c;
    assert_eq!(recording.frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
    assert!(totals.kernel.expect("asked").tossed_full > 0);
}

/// Each takes the other's place in one step: the agent may be storing.
fn exchange(one: &Path, other: &Path) {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).expect("one file system");
}

#[test]
fn spool_files_are_given_back_while_a_session_runs_and_a_full_spool_stalls_it() {
    let node = Node::new(
        "segment_max_bytes = 60000\nspool_file_bytes = 65536\nspool_max_bytes = 262144\nring_bytes = 65536",
    );
    let _agent = node.start();
    let (meta, control, mut tap) = begin(&node);
    let chunk = stdout(&"y".repeat(16_000));
    for _ in 0..60 {
        tap.pass(T2C, &chunk);
        let bytes: u64 =
            node.spool_files().iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum();
        assert!(bytes < 300_000, "{bytes} bytes of spool");
    }
    // A store that takes nothing: a file where the session's directory would be made.
    let day =
        fs::read_dir(node.path("store/v1")).expect("stored").next().expect("a day").expect("readable").path();
    let session = day.join(meta.session_id.to_string());
    fs::write(node.path("aside"), b"").expect("writable");
    exchange(&session, &node.path("aside"));
    let mut passed = 0;
    while passed < 100 && tap.try_pass(T2C, chunk.clone()) || passed < 4 {
        passed += 1;
    }
    wait_until("the session stalls", || !tap.try_pass(T2C, chunk.clone()));
    wait_until("it goes on stalling", || (0..20).all(|_| !tap.try_pass(T2C, chunk.clone())));
    exchange(&session, &node.path("aside"));
    tap.pass(T2C, &chunk);
    // While the spool is still being given back it has no room for the end; a proxy asks again then.
    wait_until("the session is closed", || match control.close(Outcome::Completed) {
        Some(Reply::TryAgain { .. }) => false,
        answer => {
            assert_eq!(answer, Some(Reply::Closed));
            true
        }
    });
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.frames[&(ChannelNo(0), T2C)], tap.sent(T2C));
}

#[test]
fn two_agents_never_run_on_one_state_directory() {
    let node = Node::new("");
    let _agent = node.start();
    let log = node.spawn().wait_for_failure();
    assert!(log.contains("another agent is running on the state directory"), "{log}");
}

#[test]
fn a_freeze_outlives_the_agents_and_nothing_is_armed_behind_it() {
    let node = Node::new(SMALL);
    let mut agent = node.start();
    let (meta, mut control, mut tap) = begin(&node);
    let (other, mut other_control, mut other_tap) = begin(&node);
    talk(&mut tap, 10);
    assert_eq!(control.ask(&Request::Freeze, &[]), Some(Reply::Frozen));
    for _ in 0..2 {
        agent.kill();
        agent = node.start();
        (control, other_control) = (resume(&node, &meta), resume(&node, &other));
        assert!(!tap.try_pass(C2T, stdin("after the end")));
        let pair = Tap::pair();
        match control.ask(&Request::Arm { channel: ChannelNo(1) }, &pair.descriptors()) {
            Some(Reply::Refused { reason }) => assert!(reason.contains("its grant is over"), "{reason}"),
            answer => panic!("a new tap would be open: {answer:?}"),
        }
        assert_eq!(
            control.ask(&Request::Freeze, &[]),
            Some(Reply::Frozen),
            "a proxy that heard nothing asks again"
        );
        // The next agent reads it from a checkpoint.
        let (_, filler, mut chatter) = begin(&node);
        talk(&mut chatter, 100);
        assert_eq!(filler.close(Outcome::Completed), Some(Reply::Closed));
    }
    let outcome = Outcome::Ended { reason: "the grant has expired".into() };
    assert_eq!(control.close(outcome.clone()), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.manifest.outcome, outcome);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
    other_tap.pass(C2T, &stdin("the one beside it goes on"));
    other_control.arm(1);
}

#[test]
fn an_agent_killed_while_it_disarms_a_channel_leaves_it_to_be_disarmed_again() {
    let node = Node::new(SMALL);
    let mut agent = node.start();
    let (meta, mut control, mut first) = begin(&node);
    let mut taps = Vec::new();
    for (channel, delay_us) in (1..).zip([0, 300, 1_000, 2_000, 2_500, 3_000, 4_000, 8_000]) {
        let mut tap = control.arm(channel);
        talk(&mut tap, 10);
        let disarm = control::encode(&Request::Disarm { channel: ChannelNo(channel) }).expect("short");
        control.send(&disarm, &[]).expect("the agent reads");
        let begun = std::time::Instant::now();
        wait_until("the moment has come", || begun.elapsed() >= Duration::from_micros(delay_us));
        agent.kill();
        agent = node.start();
        control = resume(&node, &meta);
        assert_eq!(control.disarm(channel), Some(Reply::Disarmed { channel: ChannelNo(channel) }));
        assert!(!tap.try_pass(C2T, stdin("after the end")));
        first.pass(C2T, &stdin("goes on"));
        taps.push((ChannelNo(channel), tap));
    }
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], first.sent(C2T));
    for (channel, tap) in &taps {
        assert_eq!(recording.frames[&(*channel, T2C)], tap.sent(T2C));
        let totals = recording.manifest.channels[channel.0 as usize];
        assert!(totals.t2c.kernel.is_some(), "channel {channel}");
    }
}

#[test]
fn sockets_of_a_disarmed_channel_that_an_agent_was_killed_before_it_forgot_pass_nothing_any_more() {
    let node = Node::new("");
    let agent = node.start();
    let (meta, _control, mut first) = begin(&node);
    first.pass(C2T, &Message::Open(ChannelType::Session));
    agent.stop();
    let dir = node.spool_dir();
    let options =
        SpoolOptions { file_bytes: 1 << 20, max_bytes: 1 << 30, flush_interval: Duration::from_millis(1) };
    let mut journal = Journal::open(&dir, options).expect("the agent has stopped");
    let kernel = ChannelKernel { channel: ChannelNo(0), c2t: None, t2c: None };
    journal.append(StateEntry::Disarmed { session: meta.session_id, kernel }).expect("in order");
    drop(journal);
    assert!(first.try_pass(C2T, stdin("nobody is there to forget the sockets")));
    let agent = node.start();
    let control = resume(&node, &meta);
    assert!(!first.try_pass(C2T, stdin("forgotten")));
    agent.wait_for_log("the ring had records of sockets that belong to no session");
    assert_eq!(control.disarm(0), Some(Reply::Disarmed { channel: ChannelNo(0) }));
    let mut second = control.arm(1);
    second.pass(C2T, &Message::Open(ChannelType::Session));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], first.sent(C2T)[..1]);
}

#[test]
fn a_stopping_agent_refuses_nothing_and_the_next_one_carries_out_what_it_did_not() {
    let node = Node::new("");
    let mut agent = node.start();
    for _ in 0..5 {
        let sessions: Vec<_> = (0..10).map(|_| begin(&node)).collect();
        agent.signal(Signal::SIGSTOP);
        let close = control::encode(&Request::Close { outcome: Outcome::Completed }).expect("short");
        let disarm = control::encode(&Request::Disarm { channel: ChannelNo(0) }).expect("short");
        for (number, (_, control, _)) in sessions.iter().enumerate() {
            if number % 2 == 0 {
                control.send(&disarm, &[]).expect("the socket has room");
            }
            control.send(&close, &[]).expect("the socket has room");
        }
        agent.signal(Signal::SIGTERM);
        agent.signal(Signal::SIGCONT);
        agent.stop();
        agent = node.start();
        for (number, (meta, control, tap)) in sessions.into_iter().enumerate() {
            let mut closed = false;
            while let Some(reply) = control.receive() {
                closed |= reply == Reply::Closed;
                assert!(!matches!(reply, Reply::Refused { .. }), "session {number}: {reply:?}");
            }
            let again = Control::connect(&node.socket());
            match again.open(&meta, true) {
                Some(Reply::Opened) => {
                    assert!(!closed, "session {number}");
                    assert_eq!(again.close(Outcome::Completed), Some(Reply::Closed));
                }
                Some(Reply::Refused { reason }) => {
                    assert!(reason.contains("has ended") || reason.contains("not known"), "{reason}");
                }
                other => panic!("session {number}: {other:?}"),
            }
            let recording = verify(&node, meta.session_id);
            assert_eq!(recording.manifest.outcome, Outcome::Completed, "session {number}");
            drop(tap);
        }
    }
}
