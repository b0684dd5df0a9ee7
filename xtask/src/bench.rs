//! `cargo xtask bench`: measurements, each in the crate that it measures.

use std::process::Command;

use anyhow::Result;

use crate::{build_ebpf, exec, prerequisites, workspace};

/// Measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// What capturing costs per message, and how much of the ring is content. Takes root.
    Tap {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// Fewer and shorter rounds.
        #[arg(long)]
        quick: bool,
    },
    /// The agent: draining, recovery, memory, restarts, what is stored, fairness. Takes root.
    Agent {
        /// Print JSON, with every sample, instead of a table.
        #[arg(long)]
        json: bool,
        /// Fewer and smaller rounds.
        #[arg(long)]
        quick: bool,
        /// Only these measurements; `--only help` names them.
        #[arg(long, value_name = "MEASUREMENT,…")]
        only: Option<String>,
        /// How many rounds to take medians of.
        #[arg(long)]
        rounds: Option<usize>,
    },
    /// The whole path from client to target, against plain `sshd` and `ssh -J`. Takes root.
    Ssh {
        /// Print JSON, with every sample, instead of a table.
        #[arg(long)]
        json: bool,
        /// Fewer and smaller rounds.
        #[arg(long)]
        quick: bool,
        /// Only these measurements; `--only help` names them.
        #[arg(long, value_name = "MEASUREMENT,…")]
        only: Option<String>,
        /// How many rounds to take medians of.
        #[arg(long)]
        rounds: Option<usize>,
    },
    /// What is found of the commands that real shells ran, against what the shells say: precision and recall.
    Commands {
        /// Print JSON, with every session, instead of tables.
        #[arg(long)]
        json: bool,
        /// Only this shell: `bash`, `"bash osc633"`, …
        #[arg(long)]
        shell: Option<String>,
        /// Only this trap.
        #[arg(long)]
        trap: Option<String>,
        /// What prompts, sizes and commands are generated from: a number, or `random`.
        #[arg(long)]
        seed: Option<String>,
        /// How many sessions of each kind.
        #[arg(long)]
        rounds: Option<u32>,
        /// List what was expected and not found, and what was found and did not run.
        #[arg(long)]
        misses: bool,
    },
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if let What::Commands { json, shell, trap, seed, rounds, misses } = &options.what {
        prerequisites::ensure_shells()?;
        // Not in release: these sessions wait most of the time, and nothing of this is about speed.
        let mut command = workspace::cargo();
        command.args(["run", "--quiet", "--package=weir-corpus", "--example=bench-commands", "--"]);
        command.args(json.then_some("--json")).args(misses.then_some("--misses"));
        command.args(shell.iter().flat_map(|shell| ["--shell", shell]));
        command.args(trap.iter().flat_map(|trap| ["--trap", trap]));
        command.args(seed.iter().flat_map(|seed| ["--seed", seed]));
        command.args(rounds.iter().flat_map(|rounds| ["--rounds".to_owned(), rounds.to_string()]));
        return exec::run(&mut command);
    }
    build_ebpf::build()?;
    match &options.what {
        What::Tap { json, quick } => {
            let mut command = example("bench-tap")?;
            command.args(json.then_some("--json")).args(quick.then_some("--quick"));
            exec::run(&mut command)
        }
        What::Agent { json, quick, only, rounds } => {
            let mut command = example("bench-agent")?;
            command.args(json.then_some("--json")).args(quick.then_some("--quick"));
            command.args(only.iter().flat_map(|only| ["--only", only]));
            command.args(rounds.iter().flat_map(|rounds| ["--rounds".to_owned(), rounds.to_string()]));
            exec::run(&mut command)
        }
        What::Ssh { json, quick, only, rounds } => {
            prerequisites::ensure_all()?;
            let mut command = example("bench-ssh")?;
            command.args(json.then_some("--json")).args(quick.then_some("--quick"));
            command.args(only.iter().flat_map(|only| ["--only", only]));
            command.args(rounds.iter().flat_map(|rounds| ["--rounds".to_owned(), rounds.to_string()]));
            exec::run(&mut command)
        }
        What::Commands { .. } => Ok(()),
    }
}

/// An example in release, which measures something; add its arguments.
///
/// All are built in one go with the programs that they start: other sets of packages have other features of shared dependencies,
/// and each would build these anew, the AWS crates among them.
fn example(name: &str) -> Result<Command> {
    let mut build = workspace::cargo();
    build.args(["build", "--release", "--bins", "--package=weir-agent", "--package=weir-proxy"]);
    build.args(["--package=weir-console", "--package=weir-tests"]);
    build.args(["--example=bench-tap", "--example=bench-agent", "--example=bench-ssh"]);
    exec::run(&mut build)?;
    let mut command = Command::new(workspace::target_dir()?.join("release/examples").join(name));
    command.current_dir(workspace::root());
    Ok(command)
}
