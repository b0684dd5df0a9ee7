//! `record_file_content = false`: files go through as ever, and their content is nowhere in the recording; how much it was
//! and its digest are.

use std::{
    collections::HashSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use rand::RngExt;
use sha2::{Digest, Sha256};
use weir_tests::{Bed, BedOptions, eventually, eventually_within, recording::Recording};

const LATER: &str = "2099-01-01T00:00:00Z";
const FILE_BYTES: usize = 5 << 20;
/// What is looked for: a piece of content of twice this many bytes has such a block in it whole.
const BLOCK_BYTES: usize = 32;

/// A grant that does not want file content kept.
fn quiet(bed: &Bed) -> &'static str {
    let key = fs::read_to_string(bed.path("user/key.pub")).expect("the bed made it");
    let lines = format!("record_file_content = false\npublic_keys = [\"{}\"]", key.trim());
    fs::write(bed.grant_file("quiet"), Bed::grant_text(LATER, &lines)).expect("written");
    "quiet"
}

/// A random file, and where it is to go and to come back.
struct Files {
    bytes: Vec<u8>,
    here: PathBuf,
    there: PathBuf,
    back: PathBuf,
}

impl Files {
    fn new(bed: &Bed) -> Self {
        let mut bytes = vec![0; FILE_BYTES];
        rand::rng().fill(&mut bytes[..]);
        let [here, there, back] = ["user/here", "target/there", "user/back"].map(|path| bed.path(path));
        fs::write(&here, &bytes).expect("written");
        Self { bytes, here, there, back }
    }

    fn sha256(&self) -> String {
        hex(&Sha256::digest(&self.bytes))
    }

    fn assert_arrived(&self, path: &Path) {
        assert!(
            fs::read(path).expect("it arrived") == self.bytes,
            "other bytes arrived at {}",
            path.display()
        );
    }

    /// Nothing of the file lies in the session's directory, packed or not, nor in what the events hold as base64.
    fn assert_nowhere_in(&self, recording: &Recording) {
        let blocks: HashSet<_> = self.bytes.chunks_exact(BLOCK_BYTES).collect();
        let is_clean = |bytes: &[u8]| !bytes.windows(BLOCK_BYTES).any(|window| blocks.contains(window));
        assert!(!is_clean(&self.bytes[7..7 + 2 * BLOCK_BYTES]), "the search finds what there is");
        for item in fs::read_dir(&recording.dir).expect("readable") {
            let path = item.expect("readable").path();
            let stored = fs::read(&path).expect("readable");
            assert!(is_clean(&stored), "{} has content", path.display());
            if path.extension().is_some_and(|name| name == "zst") {
                let unpacked = zstd::decode_all(&stored[..]).expect("zstd");
                assert!(is_clean(&unpacked), "{} has content", path.display());
            }
        }
        for event in &recording.events {
            assert!(is_clean(&event.bytes), "an event has content: {}", event.json["seq"]);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn stored_bytes(recording: &Recording) -> u64 {
    let items = fs::read_dir(&recording.dir).expect("readable");
    items.map(|item| item.and_then(|item| item.metadata()).expect("readable").len()).sum()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// `ssh`'s arguments for this grant, as `scp` and `sftp` spell them, and the destination.
fn copy_arguments(bed: &Bed, grant: &str) -> (Vec<String>, String) {
    let mut arguments = bed.ssh_arguments(grant, "user/key");
    let destination = arguments.pop().expect("the destination is last");
    // They spell the port with a capital letter.
    let spelled = |word: String| if word == "-p" { "-P".to_owned() } else { word };
    (arguments.into_iter().map(spelled).collect(), destination)
}

/// Checks a recording of the file: all of it is accounted for in this stream, and nothing of it is there.
fn assert_left_out(bed: &Bed, files: &Files, recording: &Recording, stream: &str) {
    assert_eq!(recording.manifest["session"]["record_file_content"], false);
    bed.assert_verifies(recording);
    let said = String::from_utf8(bed.verify(&recording.dir).stdout).expect("text");
    let verdict = said.lines().last().unwrap_or_default();
    assert!(verdict.starts_with("INTACT, file content not recorded (by grant)"), "{said}");
    let withheld: u64 = recording.withheld(stream).iter().map(|part| part.bytes).sum();
    assert!(withheld >= FILE_BYTES as u64, "{withheld} bytes are withheld");
    files.assert_nowhere_in(recording);
    let stored = stored_bytes(recording);
    assert!(stored < FILE_BYTES as u64 / 20, "{stored} bytes are stored");
}

/// The same, of a protocol that tells files apart.
fn assert_digest(files: &Files, recording: &Recording, stream: &str) {
    let withheld = recording.withheld(stream);
    assert_eq!(withheld.iter().map(|part| part.bytes).sum::<u64>(), FILE_BYTES as u64);
    assert_eq!(withheld.last().map(|part| part.sha256.clone()), Some(files.sha256()));
}

/// `scp` there and back with these options.
fn scp_there_and_back(options: &[&str]) {
    let bed = Bed::start(BedOptions { segment_max_age_ms: 200, ..Default::default() });
    let (grant, files) = (quiet(&bed), Files::new(&bed));
    let (arguments, destination) = copy_arguments(&bed, grant);
    let scp = |from: String, to: String| {
        succeeded(
            &Command::new("scp").args(&arguments).args(options).args([from, to]).output().expect("scp runs"),
        );
    };
    scp(files.here.display().to_string(), format!("{destination}:{}", files.there.display()));
    files.assert_arrived(&files.there);
    scp(format!("{destination}:{}", files.there.display()), files.back.display().to_string());
    files.assert_arrived(&files.back);
    for (number, stream) in [(1, "stdin"), (2, "stdout")] {
        let recording = bed.recording(number);
        assert_left_out(&bed, &files, &recording, stream);
        assert_digest(&files, &recording, stream);
        assert!(recording.events.iter().any(|event| has(&event.bytes, b"there")), "the path is recorded");
    }
}

fn has(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

#[test]
fn scp_by_sftp_leaves_its_content_out() {
    scp_there_and_back(&[]);
}

#[test]
fn scp_by_its_old_protocol_leaves_its_content_out() {
    scp_there_and_back(&["-O"]);
}

#[test]
fn sftp_leaves_its_content_out() {
    let bed = Bed::start(BedOptions { segment_max_age_ms: 200, ..Default::default() });
    let (grant, files) = (quiet(&bed), Files::new(&bed));
    let (arguments, destination) = copy_arguments(&bed, grant);
    let mut sftp = Command::new("sftp")
        .args(arguments)
        .args(["-b", "-", &destination])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sftp starts");
    let Files { here, there, back, .. } = &files;
    let batch = format!("put {} {}\nget {1} {}\n", here.display(), there.display(), back.display());
    sftp.stdin.take().expect("piped").write_all(batch.as_bytes()).expect("it reads");
    assert!(sftp.wait().expect("sftp ends").success());
    files.assert_arrived(there);
    files.assert_arrived(back);
    let recording = bed.recording(1);
    for stream in ["stdin", "stdout"] {
        assert_left_out(&bed, &files, &recording, stream);
        assert_digest(&files, &recording, stream);
    }
    assert!(recording.events.iter().any(|event| has(&event.bytes, b"target/there")), "the path is recorded");
}

#[test]
fn rsync_leaves_its_content_out() {
    let bed = Bed::start(BedOptions { segment_max_age_ms: 200, ..Default::default() });
    let (grant, files) = (quiet(&bed), Files::new(&bed));
    let mut ssh = bed.ssh_arguments(grant, "user/key");
    let destination = ssh.pop().expect("the destination is last");
    let remote_shell = format!("ssh {}", ssh.join(" "));
    let rsync = |from: String, to: String| {
        let output =
            Command::new("rsync").args(["-e", &remote_shell, &from, &to]).output().expect("rsync runs");
        succeeded(&output);
    };
    rsync(files.here.display().to_string(), format!("{destination}:{}", files.there.display()));
    files.assert_arrived(&files.there);
    rsync(format!("{destination}:{}", files.there.display()), files.back.display().to_string());
    files.assert_arrived(&files.back);
    for (number, stream) in [(1, "stdin"), (2, "stdout")] {
        let recording = bed.recording(number);
        assert_left_out(&bed, &files, &recording, stream);
        assert!(recording.command().is_some_and(|command| command.starts_with("rsync --server")));
    }
}

#[test]
fn an_agent_that_is_killed_in_mid_transfer_leaves_nothing_of_the_content_and_the_digest_is_right() {
    let mut bed = Bed::start(BedOptions { segment_max_age_ms: 100, ..Default::default() });
    let (grant, files) = (quiet(&bed), Files::new(&bed));
    let (arguments, destination) = copy_arguments(&bed, grant);
    let mut scp = Command::new("scp")
        .args(arguments)
        // Kilobits per second: some seconds for the file.
        .args(["-l", "10000"])
        .arg(&files.here)
        .arg(format!("{destination}:{}", files.there.display()))
        .spawn()
        .expect("scp starts");
    for life in 1..=3 {
        eventually_within(Duration::from_secs(60), "some more has arrived", || {
            let arrived = fs::metadata(&files.there).map_or(0, |file| file.len());
            (arrived > life << 20).then_some(())
        });
        bed.take_agent().kill();
        bed.start_agent().expect("the next agent starts");
    }
    assert!(scp.wait().expect("scp ends").success());
    files.assert_arrived(&files.there);
    let recording = bed.recording(1);
    let segments = recording.manifest["segments"].as_array().map_or(0, Vec::len);
    assert!(segments > 3, "the transfer went through {segments} segments only");
    assert_left_out(&bed, &files, &recording, "stdin");
    assert_digest(&files, &recording, "stdin");
}

#[test]
fn what_is_no_file_protocol_is_recorded_whatever_the_grant_says_of_files() {
    let bed = Bed::start(BedOptions::default());
    let grant = quiet(&bed);
    let file = bed.path("target/typed");
    let mut cat = bed
        .ssh_as(grant, "user/key")
        .arg(format!("cat > {0}; cat {0}", file.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ssh starts");
    let mut bytes = vec![0; 100_000];
    rand::rng().fill(&mut bytes[..]);
    cat.stdin.take().expect("piped").write_all(&bytes).expect("it reads");
    assert!(cat.wait_with_output().expect("ssh ends").stdout == bytes);
    eventually("it is there", || file.exists().then_some(()));
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    for stream in ["stdin", "stdout"] {
        assert!(recording.stream(0, stream) == bytes, "{stream} is recorded");
        assert!(recording.withheld(stream).is_empty());
    }
    let said = String::from_utf8(bed.verify(&recording.dir).stdout).expect("text");
    assert!(said.lines().last().is_some_and(|line| line.starts_with("INTACT ")), "{said}");
}
