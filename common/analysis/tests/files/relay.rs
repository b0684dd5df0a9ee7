//! Runs a client and the program it asks its target for, and takes down what goes between them.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use crate::recorded::{C2T, Recorded, T2C, Wanted};
use weir_common::{
    digest::Sha256,
    frame::Direction,
    recording::findings::{FileAccess, FileOperation, FileResult, Transferred},
};

/// Where Debian has OpenSSH's.
const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

/// Stands in for `ssh`: says what it was asked for, passes both directions on, and ends as the target does.
const RELAY: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
printf '%s\0' "$@" > arguments
exec 3<&0
cat <&3 > up &
cat < down
kill $! 2> /dev/null
exit "$(cat status)"
"#;

/// A client's and a target's folder, and the relay between them.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["client", "target", "relay"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let bench = Self { folder };
        fs::write(bench.relay(), RELAY).expect("a script");
        fs::set_permissions(bench.relay(), fs::Permissions::from_mode(0o755)).expect("a script");
        bench
    }

    pub(crate) fn client(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join("client").join(name)
    }

    pub(crate) fn target(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join("target").join(name)
    }

    fn relay(&self) -> PathBuf {
        self.folder.path().join("relay/relay")
    }

    /// Runs `sftp` with these commands.
    pub(crate) fn sftp(&self, options: &[&str], commands: &[u8]) -> (Recorded, ExitStatus) {
        let mut client = Command::new("sftp");
        client.args(["-b", "-"]).args(options).arg("-S").arg(self.relay()).arg("target");
        self.run(client, commands)
    }

    /// Runs `scp`.
    pub(crate) fn scp<A: AsRef<std::ffi::OsStr>>(&self, arguments: &[A]) -> (Recorded, ExitStatus) {
        let mut client = Command::new("scp");
        client.arg("-S").arg(self.relay()).args(arguments);
        self.run(client, b"")
    }

    /// Runs `rsync`.
    pub(crate) fn rsync(&self, arguments: &[&str]) -> (Recorded, ExitStatus) {
        let mut client = Command::new("rsync");
        client.arg("-e").arg(self.relay()).args(arguments);
        self.run(client, b"")
    }

    fn run(&self, mut client: Command, input: &[u8]) -> (Recorded, ExitStatus) {
        let relay = self.folder.path().join("relay");
        let (up, down) = (relay.join("up"), relay.join("down"));
        for fifo in [&up, &down] {
            let _ = fs::remove_file(fifo);
            assert!(Command::new("mkfifo").arg(fifo).status().expect("mkfifo").success());
        }
        let mut client = client
            .current_dir(self.client(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the client is installed");
        client.stdin.take().expect("piped").write_all(input).expect("it reads");

        // Each waits until the relay opens it, and the relay opens the second when it has written its arguments.
        let down = OpenOptions::new().write(true).open(down).expect("the relay reads it");
        let up = File::open(up).expect("the relay writes it");
        let wanted = wanted(&fs::read(relay.join("arguments")).expect("the relay wrote them"));
        let data = self.serve(&wanted, up, down);
        let status = client.wait().expect("it ends");
        (Recorded { wanted, data }, status)
    }

    fn serve(&self, wanted: &Wanted, up: File, down: File) -> Vec<(Direction, Vec<u8>)> {
        let mut server = match wanted {
            Wanted::Subsystem(name) => {
                assert_eq!(name, "sftp");
                Command::new(SFTP_SERVER)
            }
            Wanted::Command(command) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(std::ffi::OsStr::from_bytes(command));
                shell
            }
        };
        server
            .current_dir(self.target(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut server = server.spawn().expect("the server is installed");
        let (to, from) = (server.stdin.take().expect("piped"), server.stdout.take().expect("piped"));
        let data = Arc::new(Mutex::new(Vec::new()));
        thread::scope(|scope| {
            scope.spawn(|| pump(up, to, C2T, &data));
            pump(from, &down, T2C, &data);
            let status = server.wait().expect("it ends").code().expect("no signal");
            fs::write(self.folder.path().join("relay/status"), status.to_string()).expect("a file");
            drop(down);
        });
        Arc::into_inner(data).expect("both are over").into_inner().expect("nobody panicked")
    }
}

/// Takes down first, then passes on: as a tap does.
fn pump(
    mut from: impl Read,
    mut to: impl Write,
    direction: Direction,
    data: &Mutex<Vec<(Direction, Vec<u8>)>>,
) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = from.read(&mut buffer).expect("it can be read");
        if count == 0 {
            return;
        }
        data.lock().expect("nobody panicked").push((direction, buffer[..count].to_vec()));
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// What `ssh` was asked for: options, host, and the words of a command or the name of a subsystem.
fn wanted(arguments: &[u8]) -> Wanted {
    let arguments: Vec<&[u8]> =
        arguments.strip_suffix(b"\0").expect("it ends so").split(|byte| *byte == 0).collect();
    let at = arguments.iter().position(|argument| *argument == b"--").map_or(0, |at| at + 1);
    let words = arguments[at + 1..].join(&b' ');
    if arguments[..at].contains(&&b"-s"[..]) {
        Wanted::Subsystem(String::from_utf8(words).expect("a name"))
    } else {
        Wanted::Command(words)
    }
}

/// Bytes that are no text, and the same for the same seed.
pub(crate) fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::from_fn(|| Some(next())).flatten().take(count).collect()
}

/// What goes when a file goes as a whole.
pub(crate) fn whole(content: &[u8]) -> Transferred {
    Transferred { bytes: content.len() as u64, sha256: Sha256::of(content), in_order: true, recorded: true }
}

/// What went to the target of the file at this path, and how it ended.
#[track_caller]
pub(crate) fn only<'a>(files: &'a [FileAccess], operation: FileOperation, path: &str) -> &'a FileAccess {
    let found: Vec<_> =
        files.iter().filter(|file| file.operation == operation && file.path == path).collect();
    let paths: Vec<_> = files.iter().map(|file| (file.operation, &file.path)).collect();
    assert_eq!(found.len(), 1, "{operation:?} {path} among {paths:?}");
    found[0]
}

/// The digest as `sha256sum` says it.
pub(crate) fn sha256sum(path: &Path) -> Sha256 {
    let output =
        Command::new("sha256sum").stdin(File::open(path).expect("a file")).output().expect("coreutils");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split(' ').next().expect("a digest").parse().expect("a digest")
}

/// Checks what must hold of every recorded channel: a recording without content tells the same, and an agent that
/// stores its state behind every event finds the same content.
pub(crate) fn check(recorded: &Recorded) -> Vec<FileAccess> {
    let files = recorded.files();
    assert!(
        !files.iter().any(|file| matches!(file.result, FileResult::Unfollowed(_))),
        "followed to its end"
    );
    let mut without = recorded.files_without_content();
    for transferred in without.iter_mut().flat_map(|file| [&mut file.read, &mut file.written]).flatten() {
        assert_eq!(transferred.recorded, transferred.bytes == 0);
        transferred.recorded = true;
    }
    assert!(without == files, "the same without content");
    let stored = |_: usize, transfer: &mut weir_analysis::transfers::Transfer| {
        let text = serde_json::to_string(transfer).expect("it serializes");
        *transfer = serde_json::from_str(&text).expect("just written");
        assert_eq!(serde_json::to_string(transfer).expect("it serializes"), text);
        assert!(text.len() < 8 << 10, "{} bytes of state", text.len());
    };
    assert_eq!(recorded.ranges(stored), recorded.ranges(|_, _| {}));
    files
}
