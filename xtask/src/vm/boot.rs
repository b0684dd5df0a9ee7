//! One virtual machine, from its start to its verdict. Nothing here waits for a time to pass: the console is
//! read line by line, and only its silence has a limit.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{console::Transcript, kernel::Series};
use crate::exec;

/// How long a machine may take at most: it can be broken without being silent.
const MAX_RUN: Duration = Duration::from_secs(30 * 60);

/// How long it may take to turn itself off after the tests.
const MAX_POWER_OFF: Duration = Duration::from_secs(60);

/// How often whoever watches hears that the machine still runs.
const TICK: Duration = Duration::from_secs(1);

/// Lines of the console that were read and not looked at yet.
const MAX_LINES: usize = 1024;

/// How a kernel did.
pub(super) struct Outcome {
    pub(super) series: Series,
    pub(super) transcript: Transcript,
    /// What the machine did wrong besides what it said.
    pub(super) complaint: Option<String>,
    pub(super) took: Duration,
    pub(super) log: PathBuf,
}

/// Starts the machine and watches it. Its console is kept in `log`.
///
/// # Errors
/// If QEMU or the log can't be used; a machine that fails is an [`Outcome`].
pub(super) fn boot(
    series: Series,
    machine: &mut Command,
    stall: Duration,
    log: PathBuf,
    progress: &mut dyn FnMut(&Transcript, Duration),
) -> Result<Outcome> {
    let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let errors = file.try_clone().context("sharing the log")?;
    machine.stdout(Stdio::piped()).stderr(errors);
    let started = Instant::now();
    let child = machine.spawn().with_context(|| format!("could not start `{}`", exec::line(machine)))?;
    let mut machine = Machine(child);
    let console = machine.0.stdout.take().context("the machine has no console")?;
    let (sender, lines) = mpsc::sync_channel(MAX_LINES);
    let reader = thread::spawn(move || read(console, file, &sender));

    let mut transcript = Transcript::default();
    let stopped = watch(&lines, started, stall, MAX_POWER_OFF.min(stall), &mut transcript, progress);
    let took = started.elapsed();
    let status = match stopped {
        Some(_) => machine.kill(),
        None => machine.0.wait(),
    };
    let status = status.context("ending the machine")?;
    // Nobody listens any more: the reader ends, even if it still has a line to send.
    drop(lines);
    let read = reader.join().ok().context("the console's reader panicked")?;
    read.with_context(|| format!("copying the console to {}", log.display()))?;

    let mut complaint = transcript.complaint();
    let said_why = transcript.trouble.is_some() || transcript.broken.is_some();
    if transcript.status.is_none() && !said_why {
        let ended = || format!("the machine ended before the tests did, {status}");
        complaint = Some(stopped.unwrap_or_else(ended));
        if let (None, Some(last)) = (&transcript.release, last_line(&log)) {
            complaint = complaint.map(|complaint| format!("{complaint}; it said last: {last}"));
        }
    } else if complaint.is_none() {
        // All tests have passed, and it did not end by itself.
        complaint = stopped;
    }
    Ok(Outcome { series, transcript, complaint, took, log })
}

impl Outcome {
    pub(super) fn passed(&self) -> bool {
        self.complaint.is_none()
    }
}

/// A QEMU that does not outlive us.
struct Machine(Child);

impl Machine {
    fn kill(&mut self) -> io::Result<ExitStatus> {
        self.0.kill()?;
        self.0.wait()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It was waited for already, unless there was an error that is told in any case.
        let _ = self.kill();
    }
}

/// Follows the console to its end, or returns why it did not wait for that.
fn watch(
    lines: &Receiver<String>,
    started: Instant,
    stall: Duration,
    power_off: Duration,
    transcript: &mut Transcript,
    progress: &mut dyn FnMut(&Transcript, Duration),
) -> Option<String> {
    let mut heard = Instant::now();
    loop {
        progress(transcript, started.elapsed());
        match lines.recv_timeout(TICK) {
            Ok(line) => {
                transcript.line(&line);
                heard = Instant::now();
            }
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let done = transcript.status.is_some();
        if done && heard.elapsed() > power_off {
            return Some(format!("still on {} s after the tests", power_off.as_secs()));
        }
        if heard.elapsed() > stall {
            return Some(format!("silent for {} s", stall.as_secs()));
        }
        if started.elapsed() > MAX_RUN {
            return Some(format!("not done after {} s", MAX_RUN.as_secs()));
        }
    }
}

/// Copies the console into the log, and line by line to whoever watches.
fn read(console: impl Read, mut log: File, lines: &SyncSender<String>) -> Result<()> {
    let mut console = BufReader::new(console);
    let mut line = Vec::new();
    while console.read_until(b'\n', &mut line).context("reading the console")? > 0 {
        log.write_all(&line).context("writing the log")?;
        if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            break;
        }
        line.clear();
    }
    Ok(())
}

fn last_line(log: &Path) -> Option<String> {
    let log = std::fs::read(log).ok()?;
    let log = String::from_utf8_lossy(&log);
    log.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, stall: Duration) -> Outcome {
        let log = std::env::temp_dir().join(format!("weir-xtask-{}-{}", std::process::id(), script.len()));
        let series = "6.1".parse().expect("a series");
        let outcome = boot(series, Command::new("sh").arg("-c").arg(script), stall, log, &mut |_, _| {});
        let outcome = outcome.expect("sh starts");
        std::fs::remove_file(&outcome.log).expect("there was a log");
        outcome
    }

    const GOOD: &str = "echo weir-vm: kernel 6.1; echo running 1 test; echo 'test a ... ok'; \
                        echo 'test result: ok. 1 passed'; echo weir-vm: end 0";

    #[test]
    fn a_machine_that_reports_and_ends_passes() {
        let outcome = run(GOOD, MAX_RUN);
        assert_eq!((outcome.complaint, outcome.transcript.passed), (None, 1));
    }

    #[test]
    fn a_machine_that_falls_silent_is_ended() {
        let outcome = run("echo weir-vm: kernel 6.1; exec sleep 1000", Duration::from_millis(100));
        let complaint = outcome.complaint.expect("it never ended");
        assert!(complaint.starts_with("silent for 0 s"), "{complaint}");
    }

    #[test]
    fn a_machine_that_stays_on_after_its_tests_has_failed() {
        let outcome = run(&format!("{GOOD}; exec sleep 1000"), Duration::from_secs(2));
        assert_eq!(outcome.complaint.as_deref(), Some("still on 2 s after the tests"));
        assert_eq!(outcome.transcript.passed, 1);
    }

    #[test]
    fn of_a_machine_that_never_got_anywhere_the_last_words_are_told() {
        let outcome = run("echo no such firmware >&2; exit 1", MAX_RUN);
        let complaint =
            "the machine ended before the tests did, exit status: 1; it said last: no such firmware";
        assert_eq!(outcome.complaint.as_deref(), Some(complaint));
    }
}
