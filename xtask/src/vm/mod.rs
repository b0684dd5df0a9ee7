//! `cargo xtask vm`: Weir on kernels that this machine does not run, in QEMU; and on several machines, with
//! Vagrant.
//!
//! Everything comes from the Debian mirror that this machine already uses, through apt with a configuration and
//! state of our own below `target/vm`; nothing of the host's apt is changed. The matrix installs nothing and takes no
//! root, unless the build of the BPF program has to install its compiler. The machines take root, and Vagrant
//! and libvirt from Debian.

mod apt;
mod boot;
mod boot_files;
mod console;
mod cpio;
mod down;
mod init;
mod initramfs;
mod kernel;
mod lab;
mod libvirt;
mod matrix;
mod payload;
mod progress;
mod qemu;
mod report;
mod sources;
mod status;
mod test;
mod up;
mod upgrade;
mod vagrant_box;

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};

pub(crate) use matrix::{run_all, run_usual, unsupported};

use crate::exec;

/// Run Weir on other kernels.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Matrix(matrix::Options),
    Box(vagrant_box::Options),
    Up(up::Options),
    Down(down::Options),
    Status(status::Options),
    Test(test::Options),
    /// Log in to a machine, or run a command there.
    Ssh {
        /// store, connector or target
        machine: String,
        /// What to run, with what ssh takes before it (`-t`).
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Run vagrant for the machines, for example `snapshot save clean`.
    Vagrant {
        /// What vagrant takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<OsString>,
    },
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
        What::Box(options) => vagrant_box::run(options),
        What::Up(options) => up::run(options),
        What::Down(options) => down::run(options),
        What::Status(options) => status::run(options),
        What::Test(options) => test::run(options),
        What::Ssh { machine, command } => become_program(&mut lab::ssh(machine, command)?),
        What::Vagrant { arguments } => become_program(lab::vagrant()?.args(arguments)),
        What::Init { panic } => init::run(*panic),
    }
}

/// Replaces this process, so that terminal, signals and exit status are the program's.
fn become_program(command: &mut Command) -> Result<()> {
    Err(command.exec()).with_context(|| format!("could not start `{}`", exec::line(command)))
}
