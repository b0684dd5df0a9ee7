//! `cargo xtask vm`: Weir on kernels that this machine does not run, in QEMU.
//!
//! Everything comes from the Debian mirror that this machine already uses, through apt with a configuration and
//! state of our own below `target/vm`; nothing is installed and nothing of the host's apt is changed. Takes no
//! root, unless the build of the BPF program has to install its compiler.

mod apt;
mod boot;
mod console;
mod cpio;
mod init;
mod initramfs;
mod kernel;
mod matrix;
mod payload;
mod progress;
mod qemu;
mod report;
mod sources;

use anyhow::Result;

pub(crate) use matrix::{run_all, run_usual, unsupported};

/// Run Weir on other kernels.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Matrix(matrix::Options),
    /// What a virtual machine runs first.
    #[command(hide = true)]
    Init {
        /// Have the kernel panic.
        #[arg(long)]
        panic: bool,
    },
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.what {
        What::Matrix(options) => matrix::run(options),
        What::Init { panic } => init::run(*panic),
    }
}
