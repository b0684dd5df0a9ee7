//! What is made of sessions with real OpenSSH at both ends: beside the segments, and checked with common tools.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::Value;
use sha2::{Digest, Sha256};
use weir_tests::{Bed, BedOptions, GRANT, recording::Recording};

fn lines(recording: &Recording, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(recording.dir.join(name)).expect("is there");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn commands(recording: &Recording) -> Vec<String> {
    let commands = lines(recording, "commands.ndjson");
    commands.iter().map(|command| command["text"].as_str().expect("text").to_owned()).collect()
}

/// Also with `sha256sum -c`.
fn assert_listed(bed: &Bed, recording: &Recording, names: &[&str]) {
    bed.assert_verifies(recording);
    let sums = fs::read_to_string(recording.dir.join("SHA256SUMS")).expect("is there");
    for name in names {
        assert!(sums.contains(&format!("  {name}\n")), "{name} is not in\n{sums}");
    }
    let text = recording.manifest["findings"].to_string();
    assert!(names.iter().all(|name| text.contains(name)), "{text}");
}

#[test]
fn a_command_is_told_with_its_end_and_without_its_secret() {
    let bed = Bed::start(BedOptions::default());
    let command = "echo --password=hunter2; exit 42";
    let output = bed.ssh().arg(command).output().expect("ssh runs");
    assert_eq!(output.status.code(), Some(42));
    let recording = bed.recording(1);
    assert_listed(&bed, &recording, &["commands.ndjson", "transcript.txt"]);
    assert_eq!(recording.command().as_deref(), Some(command), "the evidence keeps it");
    let commands = lines(&recording, "commands.ndjson");
    assert_eq!(commands.len(), 1);
    let text = commands[0]["text"].as_str().expect("text");
    assert!(text.starts_with("echo --password=") && !text.contains("hunter2"), "{text}");
    assert_eq!((&commands[0]["source"], &commands[0]["exit_code"]), (&"exec".into(), &42.into()));
    assert_eq!(commands[0]["evidence"]["to"], output.stdout.len());
    let transcript = fs::read_to_string(recording.dir.join("transcript.txt")).expect("is there");
    assert!(transcript.contains("#0] echo --password=") && !transcript.contains("hunter2"), "{transcript}");
    assert_eq!(recording.manifest["findings"]["counts"]["commands"], 1);
}

#[test]
fn what_is_typed_into_a_shell_is_read_off_its_terminal() {
    let bed = Bed::start(BedOptions::default());
    let mut child = bed
        .ssh()
        .args(["-tt", "env PS1='test$ ' bash --norc --noprofile -i"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("ssh starts");
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    until(&mut stdout, "test$ ");
    for (typed, answer) in
        [("echo fir\u{7f}rst-$((1+1))\r", "rst-2\r\n"), ("printf 'a\\nb\\n' | tail -1\r", "b\r\n")]
    {
        stdin.write_all(typed.as_bytes()).expect("ssh takes it");
        until(&mut stdout, answer);
        until(&mut stdout, "test$ ");
    }
    stdin.write_all(b"exit 3\r").expect("ssh takes it");
    assert_eq!(child.wait().expect("ssh ends").code(), Some(3));

    let recording = bed.recording(1);
    assert_listed(&bed, &recording, &["commands.ndjson", "transcript.txt"]);
    let found = commands(&recording);
    for expected in ["echo first-$((1+1))", "printf 'a\\nb\\n' | tail -1", "exit 3"] {
        assert!(found.iter().any(|command| command == expected), "{expected:?} is not in {found:?}");
    }
    let transcript = fs::read_to_string(recording.dir.join("transcript.txt")).expect("is there");
    assert!(transcript.contains("] test$ echo first-$((1+1))\n"), "{transcript}");
    assert!(transcript.contains("\n    first-2\n"), "{transcript}");
}

/// Reads until this came.
fn until(stdout: &mut impl std::io::Read, text: &str) {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(text.as_bytes()) {
        stdout.read_exact(&mut byte).expect("ssh goes on");
        seen.push(byte[0]);
    }
}

#[test]
fn files_that_were_copied_are_told_with_the_digest_of_what_went_through() {
    let bed = Bed::start(BedOptions::default());
    let content = b"some content\n".repeat(5000);
    let (from, to) = (bed.path("user/copied"), bed.path("target/copy"));
    fs::write(&from, &content).expect("writable");
    let batch = bed.path("user/batch");
    fs::write(&batch, format!("put {} {}\n", from.display(), to.display())).expect("writable");
    let arguments = bed.ssh_arguments(GRANT, "user/key");
    let Some((user, options)) = arguments.split_last() else { panic!("no arguments") };
    // `sftp` says the port in capitals.
    let options = options.iter().map(|option| if option == "-p" { "-P" } else { option });
    let copied =
        Command::new("sftp").args(options).arg("-b").arg(&batch).arg(user).output().expect("it runs");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));

    let recording = bed.recording(1);
    assert_listed(&bed, &recording, &["files.ndjson"]);
    let files = lines(&recording, "files.ndjson");
    let written =
        files.iter().find(|file| file["written"]["bytes"] == content.len()).expect("it was written");
    assert_eq!(written["path"], to.display().to_string());
    let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        (&written["written"]["sha256"], &written["written"]["in_order"]),
        (&digest.into(), &true.into())
    );
}
