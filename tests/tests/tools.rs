//! The tools that people run over SSH work through the connector, and what they transfer is recorded.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rand::RngExt;
use weir_tests::{Bed, BedOptions, GRANT};

/// The `ssh` command line that tools take, without the destination.
fn ssh_line(bed: &Bed) -> String {
    let mut arguments = bed.ssh_arguments(GRANT, "user/key");
    arguments.pop();
    format!("ssh {}", arguments.join(" "))
}

/// A file of random bytes, two directories to exchange it between.
fn random_file(bed: &Bed) -> (PathBuf, Vec<u8>) {
    let mut bytes = vec![0; 3 << 20];
    rand::rng().fill(&mut bytes[..]);
    let path = bed.path("user/random");
    fs::write(&path, &bytes).expect("written");
    (path, bytes)
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// `scp` with these options there and back again; the bytes are in the recordings of both.
fn scp_there_and_back(options: &[&str]) {
    let bed = Bed::start(BedOptions::default());
    let (file, bytes) = random_file(&bed);
    let mut ssh = bed.ssh_arguments(GRANT, "user/key");
    let destination = ssh.pop().expect("the destination is last");
    // scp spells the port with a capital letter.
    let ssh: Vec<_> = ssh.iter().map(|word| if word == "-p" { "-P" } else { word }).collect();
    let scp = |from: String, to: String| {
        Command::new("scp").args(&ssh).args(options).args([from, to]).output().expect("scp runs")
    };
    let there = bed.path("target/there");
    let back = bed.path("user/back");
    succeeded(&scp(file.display().to_string(), format!("{destination}:{}", there.display())));
    assert!(fs::read(&there).expect("it arrived") == bytes, "other bytes arrived");
    succeeded(&scp(format!("{destination}:{}", there.display()), back.display().to_string()));
    assert!(fs::read(&back).expect("it came back") == bytes, "other bytes came back");

    for (number, stream) in [(1, "stdin"), (2, "stdout")] {
        let recording = bed.recording(number);
        bed.assert_verifies(&recording);
        // Both protocols cut the file into pieces with bytes of their own in between.
        let recorded = recording.stream(0, stream);
        assert!(recorded.len() >= bytes.len(), "{} of {} bytes are recorded", recorded.len(), bytes.len());
        let probe = &bytes[1_000_000..1_001_000];
        assert!(
            recorded.windows(probe.len()).any(|window| window == probe),
            "the file is not in the recording"
        );
    }
}

#[test]
fn scp_over_sftp_works_and_is_recorded() {
    scp_there_and_back(&[]);
}

#[test]
fn scp_by_its_old_protocol_works_and_is_recorded() {
    scp_there_and_back(&["-O"]);
}

#[test]
fn sftp_works_and_its_subsystem_is_recorded() {
    let bed = Bed::start(BedOptions::default());
    let (file, bytes) = random_file(&bed);
    let mut ssh = bed.ssh_arguments(GRANT, "user/key");
    let destination = ssh.pop().expect("the destination is last");
    let ssh: Vec<_> = ssh.iter().map(|word| if word == "-p" { "-P" } else { word }).collect();
    let batch = bed.path("user/batch");
    let there = bed.path("target/there");
    let commands =
        format!("put {0} {1}\nrename {1} {1}.renamed\nls -l {1}.renamed\n", file.display(), there.display());
    fs::write(&batch, commands).expect("written");
    let output =
        Command::new("sftp").args(&ssh).arg("-b").arg(&batch).arg(destination).output().expect("sftp runs");
    succeeded(&output);
    assert!(fs::read(there.with_extension("renamed")).expect("it arrived") == bytes, "other bytes arrived");
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.kind("subsystem")[0].json["name"], "sftp");
}

#[test]
fn rsync_works() {
    let bed = Bed::start(BedOptions::default());
    let (file, bytes) = random_file(&bed);
    let there = bed.path("target/there");
    let rsync = || {
        let to = format!("{GRANT}@127.0.0.1:{}", there.display());
        Command::new("rsync")
            .args(["--archive", "--checksum", "-e", &ssh_line(&bed)])
            .arg(&file)
            .arg(to)
            .output()
            .expect("rsync runs")
    };
    succeeded(&rsync());
    assert!(fs::read(&there).expect("it arrived") == bytes, "other bytes arrived");
    let mut changed = bytes;
    changed[77] ^= 1;
    fs::write(&file, &changed).expect("written");
    succeeded(&rsync());
    assert!(fs::read(&there).expect("it arrived") == changed, "other bytes arrived");
}

#[test]
fn git_clones_and_pushes() {
    let bed = Bed::start(BedOptions::default());
    let origin = bed.path("target/origin.git");
    let clone = bed.path("user/clone");
    let git = |arguments: &[&str], dir: &Path| {
        let mut command = Command::new("git");
        command.args([
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@example.com",
            "-c",
            "init.defaultBranch=main",
        ]);
        command.args(arguments).current_dir(dir).env("GIT_SSH_COMMAND", ssh_line(&bed));
        let output = command.output().expect("git runs");
        succeeded(&output);
        String::from_utf8(output.stdout).expect("text")
    };
    let origin_path = origin.display().to_string();
    git(&["init", "-q", "--bare", &origin_path], &bed.path(""));
    git(
        &["clone", "-q", &format!("{GRANT}@127.0.0.1:{origin_path}"), &clone.display().to_string()],
        &bed.path(""),
    );
    fs::write(clone.join("file"), "content\n").expect("written");
    git(&["add", "file"], &clone);
    git(&["commit", "-q", "-m", "first"], &clone);
    git(&["push", "-q", "origin", "HEAD:main"], &clone);
    assert_eq!(git(&["show", "main:file"], &origin), "content\n");
}
