//! The result: a row a measurement, as a table or as JSON; and what is known of processes and the machine.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use nix::{
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde::Serialize;

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cpus: usize,
    kernel: String,
    load_at_start: f64,
}

impl Machine {
    pub(crate) fn now() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
        Ok(Self {
            cpu: model.map_or_else(|| "unknown".to_owned(), |(_, model)| model.trim().to_owned()),
            cpus: std::thread::available_parallelism()?.get(),
            kernel: kernel.trim().to_owned(),
            load_at_start: load()?,
        })
    }
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    Least(f64),
    Most(f64),
    /// The first, or the second if that is less: what the disk can do.
    LeastOrDisk(f64, f64),
}

/// A measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    what: String,
    unit: &'static str,
    median: Option<f64>,
    goal: Option<String>,
    met: Option<bool>,
    samples: Vec<f64>,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, samples: Vec<f64>) -> Self {
        let median = quantile(&samples, 0.5);
        Self { what: what.into(), unit, median, goal: None, met: None, samples }
    }

    pub(crate) fn with_goal(self, goal: Goal) -> Self {
        let met = |holds: &dyn Fn(f64) -> bool| self.median.map(holds);
        let (text, met) = match goal {
            Goal::Least(least) => (format!("≥ {least}"), met(&|median| median >= least)),
            Goal::Most(most) => (format!("≤ {most}"), met(&|median| median <= most)),
            Goal::LeastOrDisk(least, disk) => {
                (format!("≥ {least} or the disk"), met(&|median| median >= least.min(disk)))
            }
        };
        Self { goal: Some(text), met, ..self }
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) load_at_end: f64,
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// A table in Markdown, which reads well in a terminal too.
    pub(crate) fn print(&self) {
        let Self { machine, load_at_end, quick, rounds, rows } = self;
        let Machine { cpu, cpus, kernel, load_at_start } = machine;
        println!("{cpus} × {cpu}, Linux {kernel}");
        let quick = if *quick { ", quick" } else { "" };
        println!("medians of {rounds} rounds{quick}; load {load_at_start} before, {load_at_end} after\n");
        let width = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or_default();
        println!("| {:width$} | {:12} | {:>9} | {:18} | met |", "", "unit", "median", "goal");
        println!("|{:-<w$}|{:-<14}|{:->11}|{:-<20}|-----|", "", "", ":", "", w = width + 2);
        for Row { what, unit, median, goal, met, samples: _ } in rows {
            let met = met.map_or("", |met| if met { "yes" } else { "NO" });
            let (median, goal) = (number(*median), goal.as_deref().unwrap_or_default());
            println!("| {what:width$} | {unit:12} | {median:>9} | {goal:18} | {met:3} |");
        }
    }
}

/// Three digits that count.
fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) if value >= 0.1 => format!("{value:.2}"),
        Some(value) => format!("{value:.4}"),
    }
}

/// The value that this share of the samples is below, interpolated; none of none.
pub(crate) fn quantile(samples: &[f64], share: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = sorted.len().checked_sub(1)? as f64 * share;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the last")]
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

/// What the threads of a process used, those that have ended included.
pub(crate) fn cpu_time(pid: Pid) -> Result<Duration> {
    Ok(clock_gettime(ClockId::pid_cpu_clock_id(pid)?)?.into())
}

/// What this thread used.
pub(crate) fn thread_cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// A line of a process's status in KiB, e.g. `RssAnon`, see proc(5).
pub(crate) fn status_kib(pid: Pid, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.with_context(|| format!("{name} in a process's status"))?.parse()?)
}

/// The load average over a minute.
pub(crate) fn load() -> Result<f64> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split_whitespace().next().context("an empty /proc/loadavg")?.parse()?)
}
