//! Development tasks: `cargo xtask <task>`. Every task is a module; this one only dispatches.

mod bench;
mod build_ebpf;
mod debian;
mod demo;
mod exec;
mod lint;
mod man;
mod package;
mod prerequisites;
mod python;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Development tasks of Weir.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    BuildEbpf(build_ebpf::Options),
    Bench(bench::Options),
    Demo(demo::Options),
    /// Check formatting and lints.
    Lint,
    Man(man::Options),
    Package(package::Options),
    Test(test::Options),
    Vm(vm::Options),
}

fn main() -> ExitCode {
    match run(Task::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::BuildEbpf(options) => build_ebpf::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Lint => lint::run(),
        Task::Man(options) => man::run(&options),
        Task::Package(options) => package::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Vm(options) => vm::run(&options),
    }
}
