//! `cargo xtask lint`: formatting and clippy, where every warning counts.

use anyhow::Result;

use crate::{exec, workspace};

/// Checks formatting and lints.
///
/// # Errors
/// If anything is to be said.
pub(crate) fn run() -> Result<()> {
    eprintln!("Checking format and lints");
    exec::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
    let clippy =
        ["clippy", "--locked", "--workspace", "--exclude", "weir-agent-ebpf", "--all-targets", "--quiet"];
    exec::run(workspace::cargo().args(clippy).args(["--", "--deny", "warnings"]))
}
