//! `cargo xtask vm matrix`: the kernel-facing tests on one kernel after another.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
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
    sources::Sources,
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
    /// Keep the consoles of kernels that passed too, below target/vm/logs.
    #[arg(long)]
    keep_logs: bool,
    /// Machines that run at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// A machine's memory in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(128..))]
    memory_mib: u32,
    /// A machine that says nothing for this long has failed.
    #[arg(long, default_value_t = 240)]
    stall_secs: u64,
}

/// The oldest kernel that Weir supports, Debian's of today, and newer ones.
const DEFAULT_KERNELS: &str = "5.10,6.1,6.12,6.18,7.3";

/// A machine's processors, and tests that run at a time on them.
const PROCESSORS: u32 = 2;

/// Runs it all on every kernel.
pub(crate) fn run_all() -> Result<()> {
    run(&Options::parse_from(["cargo xtask vm matrix"]))
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the virtual machines are x86-64, as this machine would have to be"
    );
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
        let mut machine = self.qemu.machine(image, self.initramfs, PROCESSORS, self.options.memory_mib);
        lock(progress).started(*series);
        let stall = Duration::from_secs(self.options.stall_secs);
        let outcome = boot(*series, &mut machine, stall, log, &mut |transcript, took| {
            lock(progress).running(*series, transcript, took);
        })?;
        lock(progress).ended(&outcome);
        if outcome.passed() && !self.options.keep_logs {
            fs::remove_file(&outcome.log).with_context(|| format!("removing {}", outcome.log.display()))?;
        }
        Ok(outcome)
    }
}

/// A thread that panicked leaves neither queue nor progress in a state that would matter.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
