//! What a user does comes through and is recorded: shells, commands, exit statuses, bulk both ways.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rand::RngExt;
use sha2::{Digest, Sha256};
use weir_tests::{Bed, BedOptions, eventually};

const MIB: usize = 1 << 20;

fn random(bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    rand::rng().fill(&mut data[..]);
    data
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a command with this on its standard input.
fn run_with_input(command: &mut Command, input: Vec<u8>) -> std::process::Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ssh starts");
    let mut stdin = child.stdin.take().expect("piped");
    let feeder = thread::spawn(move || stdin.write_all(&input).expect("ssh takes its input"));
    let output = child.wait_with_output().expect("ssh ends");
    feeder.join().expect("the feeder does not panic");
    output
}

/// The process that holds the shared connection, connected.
fn master(bed: &Bed) -> std::process::Child {
    let master = bed.shared_ssh().args(["-M", "-N"]).spawn().expect("ssh starts");
    eventually("the master listens", || bed.control_path().exists().then_some(()));
    master
}

#[test]
fn an_exec_keeps_stdout_stderr_and_exit_status_apart_and_all_of_it_is_recorded() {
    let bed = Bed::start(BedOptions::default());
    let output = bed.ssh().arg("echo out; echo err >&2; exit 42").output().expect("ssh runs");
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.command().as_deref(), Some("echo out; echo err >&2; exit 42"));
    assert_eq!(recording.stream(0, "stdout"), b"out\n");
    assert_eq!(recording.stream(0, "stderr"), b"err\n");
    assert_eq!(recording.kind("exit_status")[0].json["status"], 42);
    let manifest = &recording.manifest;
    assert_eq!(manifest["outcome"]["kind"], "completed");
    assert_eq!(manifest["session"]["user"], "ada@example.com");
    assert_eq!(manifest["session"]["request_id"], "REQ-1042");
    assert_eq!(manifest["session"]["approvers"][0], "grace@example.com");
    assert_eq!(manifest["session"]["resource"]["name"], "target");
}

#[test]
fn a_shell_on_a_pty_comes_through_with_its_resize_and_exit_status() {
    let bed = Bed::start(BedOptions::default());
    let (pty, pts) = pty_process::blocking::open().expect("a pty");
    pty.resize(pty_process::Size::new(24, 80)).expect("sized");
    let ssh =
        pty_process::blocking::Command::new("ssh").args(bed.ssh_arguments(weir_tests::GRANT, "user/key"));
    let mut child = ssh.spawn(pts).expect("ssh starts");
    let (pty, screen) = (Arc::new(pty), Arc::new(Mutex::new(String::new())));
    let reader = thread::spawn({
        let (pty, screen) = (pty.clone(), screen.clone());
        move || {
            let mut buffer = [0; 4096];
            // The pty reports an error once its last user is gone.
            while let Ok(len @ 1..) = (&*pty).read(&mut buffer) {
                screen.lock().expect("no panic").push_str(&String::from_utf8_lossy(&buffer[..len]));
            }
        }
    });
    let type_in = |line: &str| (&*pty).write_all(line.as_bytes()).expect("typed");
    let shown = |what: &str| screen.lock().expect("no panic").contains(what).then_some(());

    // Quoted, so that the echo of what was typed is not what is waited for.
    type_in("PS1='REA''DY> '\n");
    eventually("the shell prompts", || shown("READY> "));
    type_in("echo si''ze=$(stty size)\n");
    eventually("the shell sees the size", || shown("size=24 80"));
    pty.resize(pty_process::Size::new(50, 132)).expect("resized");
    eventually("the shell sees the new size", || {
        type_in("echo si''ze=$(stty size)\n");
        shown("size=50 132")
    });
    type_in("exit 7\n");
    assert_eq!(child.wait().expect("ssh ends").code(), Some(7));
    drop(pty);
    reader.join().expect("the reader does not panic");

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    let request = &recording.kind("pty")[0].json;
    assert_eq!((&request["size"]["rows"], &request["size"]["cols"]), (&24.into(), &80.into()));
    let resize = &recording.kind("window_change")[0].json;
    assert_eq!((&resize["rows"], &resize["cols"]), (&50.into(), &132.into()));
    assert_eq!(recording.kind("shell").len(), 1);
    assert_eq!(recording.kind("exit_status")[0].json["status"], 7);
    let typed = String::from_utf8(recording.stream(0, "stdin")).expect("typed text");
    assert!(typed.contains("stty size") && typed.contains("exit 7"), "{typed}");
    let shown = String::from_utf8_lossy(&recording.stream(0, "stdout")).into_owned();
    assert!(shown.contains("size=24 80") && shown.contains("size=50 132"), "{shown}");
}

#[test]
fn sixty_four_mebibytes_up_arrive_and_are_recorded_byte_for_byte() {
    let bed = Bed::start(BedOptions::default());
    let sent = random(64 * MIB);
    let expected = digest(&sent);
    let output = run_with_input(bed.ssh().arg("sha256sum"), sent);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{expected}  -\n"));

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(digest(&recording.stream(0, "stdin")), expected);
}

#[test]
fn sixty_four_mebibytes_down_arrive_and_are_recorded_byte_for_byte() {
    let bed = Bed::start(BedOptions::default());
    let file = bed.path("random");
    let sent = random(64 * MIB);
    std::fs::write(&file, &sent).expect("written");
    let output = bed.ssh().arg(format!("cat {}", file.display())).output().expect("ssh runs");
    assert_eq!(digest(&output.stdout), digest(&sent));

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(digest(&recording.stream(0, "stdout")), digest(&sent));
}

#[test]
fn bulk_both_ways_completes_although_the_reader_is_slow_at_first() {
    let bed = Bed::start(BedOptions::default());
    let sent = random(128 * MIB);
    let expected = digest(&sent);
    let mut child =
        bed.ssh().arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh starts");
    let mut stdin = child.stdin.take().expect("piped");
    let fed = Arc::new(AtomicUsize::new(0));
    let feeder = thread::spawn({
        let fed = fed.clone();
        move || {
            for chunk in sent.chunks(64 << 10) {
                stdin.write_all(chunk).expect("ssh takes its input");
                fed.fetch_add(chunk.len(), Ordering::Relaxed);
            }
        }
    });
    // The reader is slow until what it does not read has filled every buffer on the way and back.
    let mut last = 0;
    eventually("nothing more can be sent while nobody reads", || {
        #[expect(clippy::disallowed_methods, reason = "the interval over which nothing may move")]
        thread::sleep(Duration::from_millis(500));
        let now = fed.load(Ordering::Relaxed);
        (std::mem::replace(&mut last, now) == now && now > MIB).then_some(())
    });
    assert!(last < 100 * MIB, "{last} bytes are held somewhere: nothing bounds them");
    let mut received = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut received).expect("ssh's output");
    feeder.join().expect("the feeder does not panic");
    assert!(child.wait().expect("ssh ends").success());
    assert_eq!(digest(&received), expected);
    let peak = bed.proxy().peak_memory_bytes();
    println!("the proxy's memory peaked at {} MiB", peak >> 20);
    assert!(peak < 64 << 20, "the proxy held {peak} bytes");

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(digest(&recording.stream(0, "stdin")), expected);
    assert_eq!(digest(&recording.stream(0, "stdout")), expected);
}

#[test]
fn typing_while_a_pty_prints_loses_nothing_either_way() {
    let bed = Bed::start(BedOptions::default());
    let typed: Vec<u8> = b"abcdefghijklmnopqrstuvwxyz\n".iter().copied().cycle().take(64 << 10).collect();
    // Raw and without echo, so that input and output are exact; `cat` takes the input while 8 MiB are printed.
    // A shell gives what runs in the background no standard input but what it is given by number.
    let script = "stty raw -echo; exec 3<&0; echo go >&2; (head -c 65536 <&3 | sha256sum >&2) & \
                  yes 0123456789abcdef | head -c 8388608; wait";
    let mut child = bed
        .ssh()
        .arg("-tt")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ssh starts");
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let mut received = Vec::new();
    // The pty joins stdout and stderr: "go" is the first line.
    while !received.ends_with(b"go\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).expect("the script says go");
        received.push(byte[0]);
    }
    let expected = digest(&typed);
    let feeder = thread::spawn({
        let typed = typed.clone();
        move || {
            typed.chunks(16).for_each(|keys| stdin.write_all(keys).expect("ssh takes its input"));
            stdin
        }
    });
    stdout.read_to_end(&mut received).expect("ssh's output");
    drop(feeder.join().expect("the feeder does not panic"));
    assert!(child.wait().expect("ssh ends").success());
    let shown = String::from_utf8_lossy(&received);
    assert!(shown.contains(&expected), "the target read something else than was typed");
    assert_eq!(received.len(), 3 + 8 * MIB + format!("{expected}  -\n").len());

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(digest(&recording.stream(0, "stdin")), expected);
    assert_eq!(digest(&recording.stream(0, "stdout")), digest(&received));
}

#[test]
fn several_channels_of_one_connection_are_recorded_each_by_itself() {
    let bed = Bed::start(BedOptions::default());
    let mut master = master(&bed);
    let sessions: Vec<_> = (0..4)
        .map(|number| {
            let mut command = bed.shared_ssh();
            command.arg(format!("echo channel {number}; exit {number}"));
            command.stdout(Stdio::piped()).spawn().expect("ssh starts")
        })
        .collect();
    for (number, session) in sessions.into_iter().enumerate() {
        let output = session.wait_with_output().expect("ssh ends");
        assert_eq!(output.stdout, format!("channel {number}\n").into_bytes());
        assert_eq!(output.status.code(), i32::try_from(number).ok());
    }
    assert!(
        bed.shared_ssh().args(["-O", "exit"]).stderr(Stdio::null()).status().expect("ssh runs").success()
    );
    master.wait().expect("the master ends");

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    let mut outputs: Vec<_> = (0..4).map(|channel| recording.stream(channel, "stdout")).collect();
    outputs.sort();
    let expected: Vec<_> = (0..4).map(|number| format!("channel {number}\n").into_bytes()).collect();
    assert_eq!(outputs, expected);
}

#[test]
fn an_exit_status_arrives_although_both_sides_were_done_with_their_data_long_before() {
    let bed = Bed::start(BedOptions::default());
    // The client's standard input is empty, and the program closes its outputs a second before it ends.
    let output =
        bed.ssh().arg("exec >&- 2>&-; sleep 1; exit 9").stdin(Stdio::null()).output().expect("ssh runs");
    assert_eq!(output.status.code(), Some(9));
}

#[test]
fn a_program_that_goes_on_behind_its_eof_has_it_delivered() {
    let bed = Bed::start(BedOptions::default());
    let command = "echo last; exec >&- 2>&-; cat > /dev/null; exit 5";
    let mut child =
        bed.ssh().arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh starts");
    let mut received = Vec::new();
    // Ends at the eof, while the program still reads.
    child.stdout.take().expect("piped").read_to_end(&mut received).expect("ssh's output");
    assert_eq!(received, b"last\n");
    assert!(child.try_wait().expect("our child").is_none(), "the session ended with the eof");
    drop(child.stdin.take());
    assert_eq!(child.wait().expect("ssh ends").code(), Some(5));
}

#[test]
fn a_program_that_ends_without_reading_its_input_ends_the_session() {
    let bed = Bed::start(BedOptions::default());
    let mut child =
        bed.ssh().arg("head -c 1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh starts");
    let mut stdin = child.stdin.take().expect("piped");
    let feeder = thread::spawn(move || while stdin.write_all(&[b'y'; 64 << 10]).is_ok() {});
    let output = child.wait_with_output().expect("ssh ends");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"y"[..]));
    feeder.join().expect("the feeder does not panic");
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "completed");
}

#[test]
fn a_reader_that_quits_in_the_middle_leaves_the_shared_connection_usable() {
    let bed = Bed::start(BedOptions::default());
    let mut master = master(&bed);
    let mut quitter =
        bed.shared_ssh().arg("cat /dev/zero").stdout(Stdio::piped()).spawn().expect("ssh starts");
    let mut some = [0; 4096];
    quitter.stdout.take().expect("piped").read_exact(&mut some).expect("zeros");
    // Its standard output is closed now, in the middle of the stream.
    quitter.wait().expect("ssh ends");
    let output = bed.shared_ssh().arg("echo fine").output().expect("ssh runs");
    assert_eq!(output.stdout, b"fine\n");
    assert!(
        bed.shared_ssh().args(["-O", "exit"]).stderr(Stdio::null()).status().expect("ssh runs").success()
    );
    master.wait().expect("the master ends");
    bed.assert_verifies(&bed.recording(1));
}

#[test]
fn a_localised_desktop_with_every_locale_variable_set_gets_its_shell() {
    let bed = Bed::start(BedOptions::default());
    let names = [
        "LANG",
        "LC_ADDRESS",
        "LC_ALL",
        "LC_COLLATE",
        "LC_CTYPE",
        "LC_IDENTIFICATION",
        "LC_MEASUREMENT",
        "LC_MESSAGES",
        "LC_MONETARY",
        "LC_NAME",
        "LC_NUMERIC",
        "LC_PAPER",
        "LC_TELEPHONE",
        "LC_TIME",
    ];
    let mut ssh = bed.ssh();
    ssh.args(["-o", "SendEnv=LANG LC_*"]).envs(names.map(|name| (name, "C.UTF-8")));
    let output = ssh.arg("echo $LC_TIME").output().expect("ssh runs");
    assert_eq!(output.stdout, b"C.UTF-8\n");
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.kind("env").len(), names.len());
}

#[test]
fn keepalives_are_answered_while_a_program_takes_no_input() {
    let bed = Bed::start(BedOptions::default());
    let mut ssh = bed.ssh();
    // Next to nothing lies before it, behind the gate that is shut: a look every second finds it.
    ssh.args(["-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=2", "sleep 15; wc -c"]);
    let output = run_with_input(&mut ssh, vec![0; 20_000_000]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.stdout, b"20000000\n");
}

#[test]
fn a_session_without_a_channel_ends_when_its_target_is_lost() {
    let bed = Bed::start(BedOptions::default());
    let ssh = bed.ssh().arg("-N").stderr(Stdio::piped()).spawn().expect("ssh starts");
    eventually("the target is connected", || bed.agent().log().contains("target connected").then_some(()));
    let listener = bed.target().pid();
    let children = std::fs::read_to_string(format!("/proc/{listener}/task/{listener}/children"));
    let serving = children.expect("proc(5)").trim().parse().expect("one process serves the session");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(serving), nix::sys::signal::Signal::SIGKILL)
        .expect("it runs");
    let output = ssh.wait_with_output().expect("ssh ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the connection to the server was lost"), "{said}");
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "ended");
    assert_eq!(recording.manifest["target"]["address"], format!("127.0.0.1:{}", bed.target_port()));
}
