//! What the agent's tests share: a node with a BPF file system of its own, the agent on it, and a proxy's
//! side of the control socket.

#![expect(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod bpffs;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod scrape;
pub(crate) mod stored;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tempfile::TempDir;
use weir_agent::tap::RingPlace;

use bpffs::Bpffs;

/// The agent's program.
pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_weir-agent");

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until this is true.
pub(crate) fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        pause();
    }
}

/// Lets the agent have the processor.
#[expect(clippy::disallowed_methods, reason = "between two looks at a condition")]
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// Directories and a BPF file system that nobody else uses.
pub(crate) struct Node {
    bpf: Bpffs,
    dir: TempDir,
    extra: String,
    environment: Vec<(String, String)>,
}

impl Node {
    /// A node whose agent has these settings besides short times.
    pub(crate) fn new(extra: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let bpf = Bpffs::at(&dir.path().join("bpf"));
        Self { bpf, dir, extra: extra.to_owned(), environment: Vec::new() }
    }

    /// Settings besides those that it was made with.
    pub(crate) fn configure(&mut self, extra: &str) {
        self.extra.push_str(extra);
    }

    /// What its agents find in their environment besides this process's.
    pub(crate) fn environment(&mut self, variables: &[(&str, &str)]) {
        self.environment
            .extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    }

    /// Other settings for the agents from now on.
    pub(crate) fn reconfigure(&mut self, extra: &str) {
        extra.clone_into(&mut self.extra);
    }

    /// A fresh BPF file system in place of the old one: what a restart of the node leaves.
    pub(crate) fn forget_kernel_objects(&self) {
        self.bpf.forget();
    }

    /// A disk of its own, of this size, for the state.
    pub(crate) fn small_disk(&self, bytes: u64) {
        self.small_disk_for("state", bytes);
    }

    /// A disk of its own, of this size, for the state or the store.
    pub(crate) fn small_disk_for(&self, name: &str, bytes: u64) {
        let dir = self.path(name);
        fs::create_dir_all(&dir).expect("a fresh directory");
        let size = format!("size={bytes}");
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some(&*size))
            .expect("root may mount a tmpfs");
    }

    /// A disk of its own, of this size, with a file system that can break.
    pub(crate) fn ext4_disk_for(&self, name: &str, bytes: u64) {
        let image = self.path(name).with_extension("ext4");
        fs::File::create(&image).and_then(|file| file.set_len(bytes)).expect("writable");
        // Nothing is kept for root, which this is.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-E", "nodiscard"]).arg(&image));
        fs::create_dir_all(self.path(name)).expect("a fresh directory");
        self.attach_disk_for(name);
    }

    /// Mounts it again, as after a restart of the node.
    pub(crate) fn attach_disk_for(&self, name: &str) {
        self.mount_image(name, "loop,errors=remount-ro");
    }

    /// Mounts it as a snapshot that is attached elsewhere.
    pub(crate) fn attach_disk_read_only_for(&self, name: &str) {
        self.mount_image(name, "loop,ro");
    }

    fn mount_image(&self, name: &str, options: &str) {
        let (image, dir) = (self.path(name).with_extension("ext4"), self.path(name));
        run(Command::new("mount").args(["-o", options]).args([image, dir]));
    }

    /// Unmounts it: what was not flushed before it broke is gone.
    pub(crate) fn detach_disk_for(&self, name: &str) {
        // Children that other tests are just starting have what this process has open until they are themselves.
        wait_until("nobody uses the disk", || umount2(&self.path(name), MntFlags::empty()).is_ok());
    }

    /// The disk fails with files open for writing: the kernel makes it read-only, and flushes nothing any more.
    pub(crate) fn break_disk_for(&self, name: &str) {
        remount(&self.path(name), MsFlags::empty(), "abort").expect("root may break it");
    }

    /// Makes a disk read-only or writable; waits until no file on it is open for writing.
    pub(crate) fn make_disk_writable_for(&self, name: &str, writable: bool) {
        let flags = if writable { MsFlags::empty() } else { MsFlags::MS_RDONLY };
        wait_until("nobody writes", || match remount(&self.path(name), flags, "") {
            Ok(()) => true,
            Err(Errno::EBUSY) => false,
            Err(errno) => panic!("cannot remount: {errno}"),
        });
    }

    /// Fills a disk of its own to the last byte, but for what is taken beforehand.
    pub(crate) fn fill_disk_for(&self, name: &str) -> PathBuf {
        let path = self.path(name).join("ballast");
        let mut ballast = fs::File::create(&path).expect("there is room for an inode");
        for piece in [1024 * 1024, 4096, 1] {
            while ballast.write_all(&vec![1; piece]).is_ok() {}
        }
        path
    }

    /// Another size for a disk of its own.
    pub(crate) fn enlarge_disk_for(&self, name: &str, bytes: u64) {
        let size = format!("size={bytes}");
        mount(None::<&str>, &self.path(name), None::<&str>, MsFlags::MS_REMOUNT, Some(&*size))
            .expect("root may give it more room");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The spool of the first ring.
    pub(crate) fn spool_dir(&self) -> PathBuf {
        self.path("state/spool").join(RingPlace::current(0).to_string())
    }

    pub(crate) fn spool_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.spool_dir())
            .expect("a spool")
            .map(|item| item.expect("readable").path())
            .collect();
        files.sort();
        files
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/agent.sock")
    }

    pub(crate) fn write_config(&self) -> PathBuf {
        let at = |name| self.path(name).display().to_string();
        let (socket, state, store, bpf) = (at("run/agent.sock"), at("state"), at("store"), at("bpf"));
        let store = if self.extra.contains("store = ") {
            String::new()
        } else {
            format!("store = \"file://{store}\"\n")
        };
        let bpf =
            if self.extra.contains("bpf_dir = ") { String::new() } else { format!("bpf_dir = {bpf:?}\n") };
        let mut text = format!("control_socket = {socket:?}\nstate_dir = {state:?}\n{store}{bpf}");
        let allowed_uids = format!("allowed_uids = [{}]", geteuid());
        for line in [
            &*allowed_uids,
            "ring_bytes = 1048576",
            "max_taps = 1024",
            "reattach_timeout_ms = 120000",
            // Of small disks, and of whatever the machine's has left.
            "disk_refuse_bytes = 0",
        ] {
            let key = line.split(' ').next().expect("a key");
            if !self.extra.contains(key) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text.push_str(&self.extra);
        let path = self.path("agent.toml");
        fs::write(&path, text).expect("writable");
        path
    }

    /// Starts the agent and waits until it is ready.
    pub(crate) fn start(&self) -> Agent {
        let agent = self.spawn();
        agent.wait_for_log("ready");
        agent
    }

    /// Starts the agent.
    pub(crate) fn spawn(&self) -> Agent {
        self.spawn_by(Command::new(AGENT))
    }

    /// Starts the agent by a command to which only its options have to be added.
    pub(crate) fn spawn_by(&self, mut command: Command) -> Agent {
        let mut child = command
            .arg("--config")
            .arg(self.write_config())
            .env("WEIR_LOG", "debug")
            .envs(self.environment.iter().cloned())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let log = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let (stderr, of_thread) = (child.stderr.take().expect("piped"), Arc::clone(&log));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                of_thread.0.lock().expect("no panic in between").push(line);
                of_thread.1.notify_all();
            }
        });
        Agent { child, log, reader: Some(reader) }
    }
}

fn remount(at: &Path, flags: MsFlags, options: &str) -> Result<(), Errno> {
    mount(None::<&str>, at, None::<&str>, MsFlags::MS_REMOUNT | flags, Some(options))
}

fn run(command: &mut Command) {
    let output = command.output().expect("is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = umount2(&self.path("state"), MntFlags::MNT_DETACH);
        let _ = umount2(&self.path("store"), MntFlags::MNT_DETACH);
    }
}

/// A running agent; killed when it is dropped.
pub(crate) struct Agent {
    child: Child,
    log: Arc<(Mutex<Vec<String>>, Condvar)>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    /// Waits for a line of the log that contains this.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        let (lines, changed) = &*self.log;
        let found = |lines: &Vec<String>| lines.iter().find(|line| line.contains(text)).cloned();
        let lines = lines.lock().expect("no panic in between");
        let (lines, timeout) = changed
            .wait_timeout_while(lines, PATIENCE, |lines| found(lines).is_none())
            .expect("no panic in between");
        assert!(!timeout.timed_out(), "no {text:?} in the log:\n{}", lines.join("\n"));
        found(&lines).expect("just found")
    }

    pub(crate) fn logged(&self, text: &str) -> bool {
        self.log.0.lock().expect("no panic in between").iter().any(|line| line.contains(text))
    }

    pub(crate) fn log(&self) -> String {
        self.log.0.lock().expect("no panic in between").join("\n")
    }

    /// Sends a signal. With SIGSTOP nothing of the agent runs any more when this returns: the kernel stops one thread after
    /// the other.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("the agent runs");
        if signal == Signal::SIGSTOP {
            wait_until("every thread is stopped", || {
                let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the agent runs");
                threads.filter_map(Result::ok).all(|thread| {
                    let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                    stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
                })
            });
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the agent runs");
        self.child.wait().expect("killed");
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.child.wait().expect("the agent ends");
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// Whether it has ended, by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    /// Waits for an end that is not of our making.
    pub(crate) fn wait_for_failure(mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                break status;
            }
            // It is killed when this is dropped.
            assert!(Instant::now() < deadline, "it was to fail, and runs:\n{}", self.log());
            pause();
        };
        assert!(!status.success(), "{status}:\n{}", self.log());
        self.reader.take().expect("joined once").join().expect("reads to the end");
        self.log()
    }

    /// What it has in memory.
    pub(crate) fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the agent runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the agent runs").count()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names of the files in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let name = |item: std::io::Result<fs::DirEntry>| {
        item.expect("readable").file_name().into_string().expect("text")
    };
    let mut names: Vec<_> = fs::read_dir(dir).expect("a directory").map(name).collect();
    names.sort();
    names
}
