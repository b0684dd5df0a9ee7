//! Tools of the tests that come from PyPI, each in a Python environment of its own below the target directory.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{debian, exec, workspace};

const PYTHON: &str = "/usr/bin/python3";

/// The tools: a directory's name, and what is installed there.
const TOOLS: &[(&str, &str)] = &[("moto", "moto[ec2,server]==5.2.1"), ("ssh-audit", "ssh-audit==3.9.0")];

/// Installs what is not there.
///
/// # Errors
/// If something can't be installed; the error says what failed.
pub(crate) fn ensure_tools() -> Result<()> {
    TOOLS.iter().try_for_each(|(name, requirement)| ensure_tool(name, requirement))
}

fn ensure_tool(name: &str, requirement: &str) -> Result<()> {
    let environment = workspace::target_dir()?.join(name);
    // Written last: an environment without it is not finished, or of another version.
    let finished = environment.join("weir-installed");
    if fs::read_to_string(&finished).is_ok_and(|installed| installed == requirement) {
        return Ok(());
    }
    if exec::output(Command::new(PYTHON).args(["-c", "import ensurepip, venv"])).is_err() {
        ensure!(
            debian::can_install()?,
            "{PYTHON} can't make environments, and there is no apt-get: install venv"
        );
        debian::install(&["python3-venv"])?;
    }
    eprintln!("Installing {requirement} from PyPI");
    exec::run(Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(&environment))?;
    pip(&environment, requirement)?;
    fs::write(&finished, requirement).with_context(|| format!("cannot write {}", finished.display()))
}

fn pip(environment: &Path, requirement: &str) -> Result<()> {
    let options = ["install", "--quiet", "--disable-pip-version-check"];
    exec::run(Command::new(environment.join("bin/pip")).args(options).arg(requirement))
}
