//! `cargo xtask demo`: a whole Weir on this machine, to try or to watch.

use std::{
    collections::HashSet,
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use weir_tests::{Bed, BedOptions, GRANT};

use crate::{build_ebpf, exec, prerequisites, test, workspace};

/// Start a target, the agent and the proxy on loopback, and show recordings as they complete. Takes root.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run one scripted session, verify and show its recording, and exit.
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    step("Looking for what is needed");
    prerequisites::ensure_all()?;
    step("Building the BPF program");
    build_ebpf::build()?;
    step("Building agent, proxy and console");
    test::build_binaries()?;
    let mut demo = Demo::start(if options.once { "127.0.0.1:0" } else { LISTEN })?;
    if options.once { demo.once() } else { demo.watch() }
}

/// Where the connector listens while somebody tries it.
const LISTEN: &str = "127.0.0.1:10022";

/// What the scripted session types.
const SCRIPT: &str = "whoami\nuname -sr\necho \"all of this is recorded\"\nexit 3\n";
const SCRIPT_STATUS: i32 = 3;

struct Demo {
    bed: Bed,
    dir: PathBuf,
    weir: PathBuf,
}

impl Demo {
    fn start(listen: &str) -> Result<Self> {
        let target_dir = workspace::target_dir()?;
        let dir = target_dir.join("demo");
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
        }
        fs::create_dir_all(&dir)?;
        let options = BedOptions {
            listen: listen.to_owned(),
            store: Some(dir.join("store")),
            segment_max_age_ms: 5_000,
            ..Default::default()
        };
        let bin = target_dir.join("debug");
        let mut bed = Bed::prepare(&bin, options)?;
        step("Starting a target (sshd)");
        bed.start_target()?;
        step("Starting weir-agent");
        bed.start_agent()?;
        step("Starting weir-proxy, unprivileged");
        bed.start_proxy()?;
        let signers = dir.join("allowed_signers");
        fs::copy(bed.allowed_signers(), &signers)?;
        Ok(Self { bed, dir, weir: bin.join("weir") })
    }

    fn once(&mut self) -> Result<()> {
        step("Running one session with ssh");
        let mut child = self
            .bed
            .ssh()
            .args(["-tt", "-o", "LogLevel=ERROR"])
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start ssh")?;
        std::io::Write::write_all(child.stdin.as_mut().expect("piped"), SCRIPT.as_bytes())?;
        let status = child.wait()?;
        ensure!(
            status.code() == Some(SCRIPT_STATUS),
            "the session ended with {status}, not with its exit status"
        );
        step("Waiting for the recording");
        let dir = weir_tests::eventually("the recording is complete", || self.bed.finished_sessions().pop());
        step("Verifying it");
        exec::run(&mut self.weir("verify", &dir))?;
        step("What weir show says of it");
        exec::run(&mut self.weir("show", &dir))?;
        step("What the session printed (weir play)");
        exec::run(self.weir("play", &dir).arg("--instant"))?;
        step("Done");
        self.where_things_are(&dir);
        Ok(())
    }

    fn watch(&mut self) -> Result<()> {
        let (stop, stopped) = mpsc::channel();
        ctrlc::set_handler(move || {
            // The second Ctrl-C finds nobody waiting any more.
            let _ = stop.send(());
        })?;
        let arguments: Vec<_> = self.bed.ssh_arguments(GRANT, "user/key");
        println!("\nTry it from another terminal:\n\n    ssh {}\n", arguments.join(" "));
        println!("The recordings go to {}.", self.dir.join("store").display());
        println!("Ctrl-C ends everything.\n");
        let mut seen = HashSet::new();
        while stopped.recv_timeout(POLL) == Err(mpsc::RecvTimeoutError::Timeout) {
            for dir in self.bed.finished_sessions() {
                if seen.insert(dir.clone()) {
                    println!("── a session is complete ──");
                    self.weir("verify", &dir).status()?;
                    println!("see it:  {} play {}\n", self.weir.display(), dir.display());
                }
            }
        }
        println!("\nEnding the target, the agent and the proxy");
        Ok(())
    }

    fn weir(&self, subcommand: &str, dir: &Path) -> Command {
        let mut command = Command::new(&self.weir);
        command.arg(subcommand);
        if subcommand == "verify" {
            command.arg("--allowed-signers").arg(self.dir.join("allowed_signers"));
        }
        command.arg(dir);
        command
    }

    fn where_things_are(&self, dir: &Path) {
        println!("\nThe recording stays in {}", dir.display());
        println!("The signer's key is in {}", self.dir.join("allowed_signers").display());
    }
}

const POLL: Duration = Duration::from_millis(200);

/// Says what happens next.
fn step(what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("\x1b[1;36m==>\x1b[0m \x1b[1m{what}\x1b[0m");
    } else {
        eprintln!("==> {what}");
    }
}
