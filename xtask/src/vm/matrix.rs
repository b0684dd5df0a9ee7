//! `cargo xtask vm matrix`: the kernel-facing tests on one kernel after another.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use super::{
    apt::Apt,
    boot::{Outcome, boot},
    initramfs,
    kernel::{self, Kernel, Series},
    payload::Payload,
    progress::Progress,
    qemu::Qemu,
    report,
    sources::{self, Sources},
};
use crate::workspace;

/// Run the tests that face the kernel, and the agent, on Debian's kernels in QEMU.
#[derive(Parser)]
pub(crate) struct Options {
    /// Only the tests whose name contains this.
    filter: Option<String>,
    /// The kernel series to run on.
    #[arg(long, value_delimiter = ',', default_value = DEFAULT_KERNELS)]
    kernels: Vec<Series>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Machines that run at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// A machine's memory in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(128..))]
    memory_mib: u32,
    /// A machine that says nothing for this long has failed.
    #[arg(long, default_value_t = 240)]
    stall_secs: u64,
    /// Have the kernels panic before the first test, and fail where that goes unnoticed.
    #[arg(long)]
    panic: bool,
}

/// The oldest kernel that Weir supports, Debian's of today, and newer ones.
const DEFAULT_KERNELS: &str = "5.10,6.1,6.12,6.18,7.3";

/// Those of Debian's releases: what every change is tested on.
const USUAL_KERNELS: &str = "5.10,6.1,6.12";

/// A machine's processors, and tests that run at a time on them.
const PROCESSORS: u32 = 2;

/// Runs it all on the usual kernels.
///
/// # Errors
/// If one fails, or what it takes can't be had.
pub(crate) fn run_usual() -> Result<()> {
    run(&Options::parse_from(["cargo xtask vm matrix", "--kernels", USUAL_KERNELS]))
}

/// Runs it all on every kernel, after a look whether failure would be noticed.
///
/// # Errors
/// If one fails, or what it takes can't be had.
pub(crate) fn run_all() -> Result<()> {
    run(&Options::parse_from(["cargo xtask vm matrix", "--kernels", "6.12", "--panic"]))?;
    run(&Options::parse_from(["cargo xtask vm matrix"]))
}

/// Why there can't be a matrix on this machine, if that is so.
pub(crate) fn unsupported() -> Option<&'static str> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the virtual machines are x86-64, as this machine would have to be");
    }
    (!sources::is_debian()).then_some("kernels are fetched with apt, which takes a Debian")
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(why) = unsupported() {
        bail!("{why}");
    }
    ensure!(!options.kernels.is_empty(), "no kernel to run on");
    let dir = workspace::target_dir()?.join("vm");
    let logs = dir.join("logs");
    fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
    let mut suites: Vec<_> = options.kernels.iter().map(|series| series.suite()).collect();
    suites.sort_unstable();
    suites.dedup();
    let sources = Sources::of_this_machine()?;
    let qemu = Qemu::find(&sources, &dir.join("qemu"))?;
    let kernels = dir.join("kernels");
    let apt = Apt::open(&kernels.join("apt"), &sources, &suites)?;
    let fetched = options.kernels.iter().map(|series| kernel::fetch(&apt, &kernels, *series));
    let kernels = fetched.collect::<Result<Vec<_>>>()?;
    let payload = Payload::build(&dir.join("payload"))?;
    let initramfs = dir.join("initramfs");
    let mut arguments = vec![format!("--test-threads={PROCESSORS}")];
    arguments.extend(options.filter.clone());
    initramfs::write(&initramfs, &payload, &arguments)?;

    let outcomes = Matrix { options, qemu: &qemu, initramfs: &initramfs, logs: &logs }.run(kernels)?;
    if options.json {
        println!("{}", report::json(&outcomes, qemu.accelerator)?);
    } else {
        print!("{}", report::table(&outcomes));
    }
    let (passed, failed) = report::counts(&outcomes);
    let sum = format!("{passed} passed, {failed} failed");
    if options.json {
        eprintln!("{sum}");
    } else {
        println!("{sum}");
    }
    ensure!(failed == 0, "Weir does not work on every kernel");
    Ok(())
}

/// What all machines have in common.
struct Matrix<'a> {
    options: &'a Options,
    qemu: &'a Qemu,
    initramfs: &'a Path,
    logs: &'a Path,
}

impl Matrix<'_> {
    /// Runs them all, and returns how they did in the order of their kernels.
    fn run(&self, kernels: Vec<Kernel>) -> Result<Vec<Outcome>> {
        eprintln!("Booting {} kernels with {}", kernels.len(), self.qemu.accelerator.name());
        let queue = Mutex::new(VecDeque::from(kernels));
        let progress = Mutex::new(Progress::new());
        let work = || -> Result<Vec<Outcome>> {
            let mut outcomes = Vec::new();
            loop {
                // A statement of its own, so that nobody holds the queue while a machine runs.
                let next = lock(&queue).pop_front();
                let Some(kernel) = next else { return Ok(outcomes) };
                outcomes.push(self.boot(&kernel, &progress)?);
            }
        };
        let mut outcomes = thread::scope(|scope| -> Result<Vec<Outcome>> {
            let workers: Vec<_> = (0..self.options.jobs).map(|_| scope.spawn(work)).collect();
            let mut outcomes = Vec::new();
            for worker in workers {
                outcomes.extend(worker.join().ok().context("a machine's watcher panicked")??);
            }
            Ok(outcomes)
        })?;
        outcomes.sort_by_key(|outcome| outcome.series);
        Ok(outcomes)
    }

    fn boot(&self, kernel: &Kernel, progress: &Mutex<Progress>) -> Result<Outcome> {
        let Kernel { series, image } = kernel;
        let log: PathBuf = self.logs.join(format!("{series}.log"));
        let Options { panic, memory_mib, .. } = *self.options;
        let init: &[&str] = if panic { &["vm", "init", "--panic"] } else { &["vm", "init"] };
        let mut machine = self.qemu.machine(image, self.initramfs, init, PROCESSORS, memory_mib);
        lock(progress).started(*series);
        let stall = Duration::from_secs(self.options.stall_secs);
        let mut outcome = boot(*series, &mut machine, stall, log, &mut |transcript, took| {
            lock(progress).running(*series, transcript, took);
        })?;
        if panic {
            outcome.complaint = unnoticed_panic(outcome.complaint);
        }
        lock(progress).ended(&outcome);
        Ok(outcome)
    }
}

/// What is to be said of a machine whose kernel was to panic, by what was said of it.
fn unnoticed_panic(complaint: Option<String>) -> Option<String> {
    match complaint {
        Some(noticed) if noticed.contains("Kernel panic") => None,
        Some(other) => Some(format!("the panic was taken for: {other}")),
        None => Some("the panic went unnoticed".to_owned()),
    }
}

/// A thread that panicked leaves neither queue nor progress in a state that would matter.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_was_asked_for_has_to_be_told_as_one() {
        let told = |complaint: &str| unnoticed_panic(Some(complaint.to_owned()));
        assert_eq!(told("[    2.1] Kernel panic - not syncing: sysrq triggered crash"), None);
        assert!(told("silent for 240 s").is_some_and(|why| why.contains("silent")));
        assert!(unnoticed_panic(None).is_some());
    }

    #[test]
    fn the_usual_kernels_are_some_of_all() {
        let series = |text: &str| text.split(',').map(|series| series.parse().expect("a series")).collect();
        let (usual, all): (Vec<Series>, Vec<Series>) = (series(USUAL_KERNELS), series(DEFAULT_KERNELS));
        assert!(usual.iter().all(|series| all.contains(series)) && usual.len() < all.len());
    }
}
