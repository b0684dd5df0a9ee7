//! A child process with its log in a file, ended when it goes out of scope.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait::{eventually, eventually_within};

/// A running child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command; what it prints is appended to `log`.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Waits until its log holds a line with this text and gives that line.
    ///
    /// # Errors
    /// If it ends first; the error holds the log.
    pub fn wait_for_line(&mut self, text: &str, occurrence: usize) -> Result<String> {
        eventually_within(Duration::from_secs(60), &format!("{text:?} in the log of {}", self.name), || {
            let log = self.log();
            if let Some(line) = log.lines().filter(|line| line.contains(text)).nth(occurrence) {
                return Some(Ok(line.to_owned()));
            }
            match self.child.try_wait() {
                Ok(Some(status)) => Some(Err((status, log))),
                _ => None,
            }
        })
        .or_else(|(status, log)| bail!("{} ended with {status}; its log:\n{log}", self.name))
    }

    /// Everything it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("process ids are positive"))
    }

    /// The most memory it ever had resident, in bytes (`VmHWM`, proc(5)).
    ///
    /// # Panics
    /// If it is gone.
    #[must_use]
    pub fn peak_memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak.and_then(|kib| kib.parse::<u64>().ok()).expect("Linux says so") * 1024
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it is gone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
        if signal == Signal::SIGSTOP {
            let threads = format!("/proc/{}/task", self.pid());
            eventually("every thread is stopped", || {
                let threads = fs::read_dir(&threads).expect("it runs").filter_map(Result::ok);
                let states =
                    threads.map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default());
                // What is behind the name, which may contain anything. A thread that has ended has none.
                let mut states = states.filter_map(|stat| Some(stat.rsplit_once(") ")?.1.to_owned()));
                states.all(|state| state.starts_with('T')).then_some(())
            });
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("the child was not waited for yet");
        self.child.wait().expect("killed");
    }

    /// `SIGTERM`, and waits until it is gone.
    ///
    /// # Panics
    /// If it is still there after 30 seconds.
    pub fn stop(self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits until it is gone.
    ///
    /// # Panics
    /// If it is still there after 30 seconds.
    pub fn wait(mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually_within(Duration::from_secs(30), &what, || self.child.try_wait().expect("our child"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Starts a command that prints `started` when it runs, such as `ssh … 'echo started; cat'`, and waits for that line. Its
/// streams are pipes.
///
/// # Panics
/// If it says something else, or nothing.
pub fn started(command: &mut Command) -> Child {
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = streams.spawn().expect("the command starts");
    let mut line = [0; 8];
    child.stdout.as_mut().expect("piped").read_exact(&mut line).expect("it says so");
    assert_eq!(&line, b"started\n");
    child
}
