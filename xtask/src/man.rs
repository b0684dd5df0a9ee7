//! `cargo xtask man`: the man pages of `weir`, in the target directory.

use anyhow::Result;

use crate::{
    exec,
    workspace::{cargo, target_dir},
};

/// Write the man pages of `weir` to `target/man`.
#[derive(clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_: &Options) -> Result<()> {
    let out = target_dir()?.join("man");
    exec::run(
        cargo()
            .args(["run", "--quiet", "-p", "weir-console", "--bin", "weir", "--", "man", "--out"])
            .arg(out),
    )
}
