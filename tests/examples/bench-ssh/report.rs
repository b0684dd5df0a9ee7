//! The result: a row a measurement, as a table or as JSON.

use std::{fs, process::Command};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{lab::Route, samples::Samples, usage};

/// Where and when it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cpus: usize,
    kernel: String,
    ssh: String,
    load_at_start: f64,
}

impl Machine {
    pub(crate) fn now() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let ssh = Command::new("ssh").arg("-V").output()?;
        Ok(Self {
            cpu: model.map_or_else(|| "unknown".to_owned(), |(_, model)| model.trim().to_owned()),
            cpus: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .context("the kernel's release")?
                .trim()
                .to_owned(),
            ssh: String::from_utf8_lossy(&ssh.stderr).trim().to_owned(),
            load_at_start: usage::load()?,
        })
    }
}

/// What is to be reached by Weir's median.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// At least so many times a route's.
    AtLeastTimes(f64, Route),
    /// At most so many times a route's.
    AtMostTimes(f64, Route),
    /// At most so much more than a route's.
    AtMostOver(f64, Route),
    /// Less than a route's.
    Below(Route),
    /// At most this.
    AtMost(f64),
}

/// A measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    what: String,
    unit: &'static str,
    direct: Option<f64>,
    jump: Option<f64>,
    weir: Option<f64>,
    weir_to_direct: Option<f64>,
    weir_to_jump: Option<f64>,
    goal: Option<String>,
    met: Option<bool>,
    samples: Samples,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, samples: Samples) -> Self {
        let median = |route| samples.median(route);
        let (direct, jump, weir) = (median(Route::Direct), median(Route::Jump), median(Route::Weir));
        let ratio = |to: Option<f64>| Some(weir? / to?).filter(|ratio| ratio.is_finite());
        Self {
            what: what.into(),
            unit,
            direct,
            jump,
            weir,
            weir_to_direct: ratio(direct),
            weir_to_jump: ratio(jump),
            goal: None,
            met: None,
            samples,
        }
    }

    pub(crate) fn with_goal(self, goal: Goal) -> Self {
        let of = |route: Route| self.samples.median(route);
        let (text, met) = match goal {
            Goal::AtLeastTimes(times, route) => {
                (format!("≥ {times} × {}", name(route)), self.met(of(route), |weir, it| weir >= it * times))
            }
            Goal::AtMostTimes(times, route) => {
                (format!("≤ {times} × {}", name(route)), self.met(of(route), |weir, it| weir <= it * times))
            }
            Goal::AtMostOver(by, route) => {
                (format!("≤ {} + {by}", name(route)), self.met(of(route), |weir, it| weir <= it + by))
            }
            Goal::Below(route) => (format!("< {}", name(route)), self.met(of(route), |weir, it| weir < it)),
            Goal::AtMost(most) => (format!("≤ {most}"), self.met(Some(most), |weir, it| weir <= it)),
        };
        Self { goal: Some(text), met, ..self }
    }

    fn met(&self, other: Option<f64>, holds: impl Fn(f64, f64) -> bool) -> Option<bool> {
        Some(holds(self.weir?, other?))
    }
}

fn name(route: Route) -> &'static str {
    match route {
        Route::Direct => "direct",
        Route::Jump => "jump",
        Route::Weir => "weir",
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
        let Machine { cpu, cpus, kernel, ssh, load_at_start } = machine;
        println!("{cpus} × {cpu}, Linux {kernel}, {ssh}");
        let quick = if *quick { ", quick" } else { "" };
        println!("medians of {rounds} rounds{quick}; load {load_at_start} before, {load_at_end} after\n");
        let width = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or_default();
        println!(
            "| {:width$} | {:8} | {:>8} | {:>8} | {:>8} | {:>8} | {:>8} | {:14} | met |",
            "", "unit", "direct", "jump", "weir", "÷ direct", "÷ jump", "goal"
        );
        println!(
            "|{:-<w$}|{:-<10}|{:->10}|{:->10}|{:->10}|{:->10}|{:->10}|{:-<16}|-----|",
            "",
            "",
            ":",
            ":",
            ":",
            ":",
            ":",
            "",
            w = width + 2
        );
        for row in rows {
            let met = row.met.map_or("", |met| if met { "yes" } else { "NO" });
            println!(
                "| {:width$} | {:8} | {:>8} | {:>8} | {:>8} | {:>8} | {:>8} | {:14} | {met:3} |",
                row.what,
                row.unit,
                number(row.direct),
                number(row.jump),
                number(row.weir),
                number(row.weir_to_direct),
                number(row.weir_to_jump),
                row.goal.as_deref().unwrap_or_default(),
            );
        }
    }
}

/// Three digits that count.
fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}
