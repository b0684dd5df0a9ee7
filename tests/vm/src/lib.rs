//! Whole-system tests on virtual machines: a connector with proxy and agent as their units, a target, and a machine that
//! is the store and the user.
//!
//! What one machine can show is in `weir-tests`. Here is what takes several, or an end of one: reboots, power cuts, clocks
//! that jump, networks and stores that go away, package upgrades. Every scenario begins with the machines as they were
//! when they had come up (the snapshot [`CLEAN`]). Nothing here knows which provider runs them: `vagrant` and `ssh` are
//! all that is used, as [`Lab`] hands them over.

#![forbid(unsafe_code)]

mod bed;
mod feeder;
pub mod kernel_log;
mod lab;
mod machine;
pub mod report;
mod scenarios;
mod session;
mod shell;
mod stored;
mod ticker;
mod wait;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result, ensure};

use crate::{bed::Bed, scenarios::SCENARIOS};
pub use crate::{
    lab::{CLEAN, Lab, MACHINES},
    report::Outcome,
};

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only scenarios whose names contain this.
    pub filter: Option<String>,
    /// A package of the agent with a higher version than the one that is installed.
    pub upgrade: Option<PathBuf>,
    /// Leave the machines as the last scenario left them.
    pub keep: bool,
}

/// The names of the scenarios that a filter leaves.
#[must_use]
pub fn names(filter: Option<&str>) -> Vec<&'static str> {
    let wanted = |name: &&str| filter.is_none_or(|filter| name.contains(filter));
    SCENARIOS.iter().map(|scenario| scenario.name).filter(wanted).collect()
}

/// Runs the scenarios one after the other, says on standard error how far it is, and keeps the logs of what failed.
///
/// # Errors
/// If nothing is left by the filter, or the machines are not up. What a scenario finds is in its outcome, and that the machines
/// could not be brought back after the last one is an outcome, too.
pub fn run(lab: &Lab, options: &Options) -> Result<Vec<Outcome>> {
    let names = names(options.filter.as_deref());
    ensure!(!names.is_empty(), "no scenario has such a name; there are: {}", self::names(None).join(", "));
    let logs = lab.dir().join("logs");
    if logs.exists() {
        fs::remove_dir_all(&logs).with_context(|| format!("removing {}", logs.display()))?;
    }
    lab.ensure_clean_snapshot()?;
    let mut outcomes = Vec::new();
    for (number, scenario) in SCENARIOS.iter().filter(|scenario| names.contains(&scenario.name)).enumerate() {
        eprintln!("[{}/{}] {}", number + 1, names.len(), scenario.name);
        let began = Instant::now();
        let bed = Bed::restored(lab, options);
        let restored = began.elapsed();
        let (failure, notes) = match bed {
            Ok(bed) => {
                let failure = (scenario.run)(&bed).and_then(|()| bed.assert_kernels_are_well()).err();
                if failure.is_some() {
                    bed.keep_logs(&logs.join(scenario.name));
                }
                (failure, bed.into_notes())
            }
            Err(error) => (Some(error.context("restoring the machines")), Vec::new()),
        };
        let outcome = Outcome {
            name: scenario.name,
            failure: failure.map(|error| format!("{error:#}")),
            restored,
            took: began.elapsed(),
            notes,
        };
        eprintln!("{}", report::line(&outcome));
        outcomes.push(outcome);
    }
    if !options.keep {
        let began = Instant::now();
        // What the scenarios found is not lost with it.
        if let Err(error) = lab.restore() {
            let (failure, took) = (Some(format!("{error:#}")), began.elapsed());
            outcomes.push(Outcome { name: "restore", failure, restored: took, took, notes: Vec::new() });
        }
    }
    Ok(outcomes)
}
