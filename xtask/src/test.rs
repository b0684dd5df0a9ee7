//! `cargo xtask test`: every test there is, the kernel part and real OpenSSH included.

use std::process::Command;

use anyhow::Result;

use crate::{build_ebpf, exec, lint, prerequisites, python, vm, workspace};

/// All but the BPF program, which is not for this machine, and the end-to-end tests.
pub(crate) const PACKAGES: &[&str] =
    &["--workspace", "--exclude", "weir-agent-ebpf", "--exclude", "weir-tests"];

/// Run every test. Takes root, and for those on other kernels a Debian on x86-64.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the tests whose name contains this.
    filter: Option<String>,
    /// Also run the long soak of the agent, and those that face the kernel on all kernels that
    /// `cargo xtask vm matrix` knows, not only on the usual ones.
    #[arg(long, conflicts_with = "filter")]
    long: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    prerequisites::ensure_all()?;
    python::ensure_tools()?;
    build_ebpf::build()?;
    if options.filter.is_none() {
        lint::run()?;
    }
    build_binaries()?;
    exec::run(test().args(PACKAGES).args(&options.filter))?;
    // Each of these runs a whole Weir and keeps two cores busy by itself.
    exec::run(
        test().args(["--package", "weir-tests"]).args(&options.filter).args(["--", "--test-threads=2"]),
    )?;
    if options.long {
        eprintln!("Soaking the agent for several minutes");
        exec::run(test().args(["--package", "weir-agent", "--test", "s3", "soak"]).env("WEIR_SOAK", "long"))?;
    }
    if options.filter.is_none() {
        on_other_kernels(options.long)?;
    }
    Ok(())
}

fn on_other_kernels(all: bool) -> Result<()> {
    if let Some(why) = vm::unsupported() {
        eprintln!("NOT TESTED: other kernels than this machine's; {why}");
        return Ok(());
    }
    if all { vm::run_all() } else { vm::run_usual() }
}

/// Builds what the end-to-end tests and the demo start.
///
/// # Errors
/// If it does not compile.
pub(crate) fn build_binaries() -> Result<()> {
    eprintln!("Building weir-agent, weir-proxy and weir");
    let packages = ["weir-agent", "weir-proxy", "weir-console"];
    let mut build = workspace::cargo();
    build.args(["build", "--locked", "--bins"]);
    for package in packages {
        build.args(["--package", package]);
    }
    exec::run(&mut build)
}

fn test() -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--locked", "--no-fail-fast"]);
    command
}
