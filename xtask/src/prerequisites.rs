//! What the tests and the demo need from the distribution, installed where that is possible.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{debian, exec, workspace};

/// Programs and the Debian packages they come from.
const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/bin/ssh", "openssh-client"),
    ("/usr/bin/ssh-keygen", "openssh-client"),
    ("/usr/bin/ssh-agent", "openssh-client"),
    ("/usr/sbin/sshd", "openssh-server"),
    ("/usr/bin/cc", "gcc"),
    ("/usr/bin/git", "git"),
    ("/usr/bin/python3", "python3"),
    // Debian's python3 can't make virtual environments without it.
    ("/usr/share/doc/python3-venv", "python3-venv"),
    ("/usr/bin/rsync", "rsync"),
    ("/usr/bin/xauth", "xauth"),
];

/// What audits the connector's port (PyPI), in its own virtual environment below the target directory. A newer one may
/// object to more: raise it on purpose.
const SSH_AUDIT: &str = "ssh-audit==3.9.0";

/// Makes sure that everything is there.
///
/// # Errors
/// If something is missing and can't be installed; the error says what to install.
pub(crate) fn ensure_all() -> Result<()> {
    ensure!(debian::is_root()?, "this needs root: it loads a BPF program, mounts a bpffs and starts an sshd");
    let missing = PROGRAMS.iter().filter(|(program, _)| !Path::new(program).exists());
    let mut missing: Vec<_> = missing.map(|&(_, package)| package).collect();
    missing.dedup();
    if !missing.is_empty() {
        ensure!(
            debian::can_install()?,
            "missing, and there is no apt-get to install it with: {}",
            missing.join(", ")
        );
        debian::install(&missing)?;
    }
    ensure_ssh_audit()
}

fn ensure_ssh_audit() -> Result<()> {
    let environment = workspace::target_dir()?.join("ssh-audit");
    let installed = environment.join("weir-installed");
    if fs::read_to_string(&installed).is_ok_and(|version| version == SSH_AUDIT) {
        return Ok(());
    }
    eprintln!("Installing {SSH_AUDIT} from PyPI");
    exec::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let pip = environment.join("bin/pip");
    exec::run(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", SSH_AUDIT]))?;
    fs::write(&installed, SSH_AUDIT).with_context(|| format!("cannot write {}", installed.display()))
}
