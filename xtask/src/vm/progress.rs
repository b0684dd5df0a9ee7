//! How far the machines are, on standard error: one line that changes on a terminal, plain lines elsewhere.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use super::{boot::Outcome, console::Transcript, kernel::Series};

/// How often a machine says where it is when there is no terminal.
const INTERVAL: Duration = Duration::from_secs(20);

/// The machines that run.
pub(super) struct Progress {
    terminal: bool,
    running: BTreeMap<Series, String>,
    /// How long each had run when it last said where it is.
    said: BTreeMap<Series, Duration>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), running: BTreeMap::new(), said: BTreeMap::new() }
    }

    pub(super) fn started(&mut self, series: Series) {
        if !self.terminal {
            eprintln!("{series}: starting");
        }
    }

    pub(super) fn running(&mut self, series: Series, transcript: &Transcript, took: Duration) {
        let Transcript { planned, release, failed, .. } = transcript;
        let done = match (release, failed.len()) {
            (None, _) => "booting".to_owned(),
            (_, 0) => format!("{}/{planned} tests", transcript.done()),
            (_, failed) => format!("{}/{planned} tests, {failed} failed", transcript.done()),
        };
        let line = format!("{series}: {done}, {} s", took.as_secs());
        let said = self.said.entry(series).or_default();
        if !self.terminal && took >= *said + INTERVAL {
            *said = took;
            eprintln!("{line}");
        }
        self.running.insert(series, line);
        self.draw();
    }

    pub(super) fn ended(&mut self, outcome: &Outcome) {
        let Outcome { series, transcript, complaint, took, log: _ } = outcome;
        self.running.remove(series);
        self.erase();
        let verdict = complaint.as_deref().unwrap_or("ok");
        eprintln!(
            "{series}: {}/{} tests, {} s: {verdict}",
            transcript.passed,
            transcript.planned,
            took.as_secs()
        );
        self.draw();
    }

    fn draw(&self) {
        if self.terminal && !self.running.is_empty() {
            self.erase();
            let lines: Vec<_> = self.running.values().map(String::as_str).collect();
            // Only for the eye: it does not matter whether it arrives.
            let _ = write!(io::stderr(), "{}", lines.join("  |  "));
        }
    }

    fn erase(&self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
