//! The AWS APIs that the tests talk to: moto, in a Python environment of its own below the target directory.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{debian, exec, workspace};

/// The version, with what the tests use of it.
const MOTO: &str = "moto[ec2,server]==5.2.1";
const PYTHON: &str = "/usr/bin/python3";

/// Installs it, if it is not there.
///
/// # Errors
/// If it can't be installed; the error says what failed.
pub(crate) fn ensure() -> Result<()> {
    let dir = workspace::target_dir()?.join("moto");
    // Written last: an environment without it is not finished, or of another version.
    let finished = dir.join("installed");
    if std::fs::read_to_string(&finished).is_ok_and(|installed| installed == MOTO) {
        return Ok(());
    }
    if exec::output(Command::new(PYTHON).args(["-c", "import ensurepip, venv"])).is_err() {
        debian::install(&["python3-venv"])?;
    }
    eprintln!("Installing {MOTO} into {}", dir.display());
    exec::run(Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(&dir))?;
    exec::run(Command::new(dir.join("bin/pip")).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        MOTO,
    ]))?;
    std::fs::write(&finished, MOTO).with_context(|| format!("cannot write {}", finished.display()))
}
