//! `cargo xtask bench`: measurements, each in the crate that it measures.

use anyhow::Result;

use crate::{build_ebpf, exec, workspace};

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
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match options.what {
        What::Tap { json, quick } => {
            build_ebpf::build()?;
            let mut command = workspace::cargo();
            command.args([
                "run",
                "--quiet",
                "--release",
                "--package",
                "weir-agent",
                "--example",
                "bench-tap",
                "--",
            ]);
            command.args(json.then_some("--json")).args(quick.then_some("--quick"));
            exec::run(&mut command)
        }
    }
}
