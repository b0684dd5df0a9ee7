//! What the tests and the demo need from the distribution, installed where that is possible.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};

use crate::exec;

/// Programs and the Debian packages they come from.
const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/bin/ssh", "openssh-client"),
    ("/usr/bin/ssh-keygen", "openssh-client"),
    ("/usr/sbin/sshd", "openssh-server"),
    ("/usr/bin/cc", "gcc"),
];

/// Makes sure that everything is there.
///
/// # Errors
/// If something is missing and can't be installed; the error says what to install.
pub(crate) fn ensure_all() -> Result<()> {
    ensure!(is_root()?, "this needs root: it loads a BPF program, mounts a bpffs and starts an sshd");
    let mut missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, _)| !Path::new(program).exists())
        .map(|&(_, package)| package)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "missing, and there is no apt-get to install it with: {}",
        missing.join(", ")
    );
    eprintln!("Installing {} with apt-get", missing.join(", "));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    exec::run(apt().arg("update"))?;
    exec::run(apt().args(["install", "--yes", "--no-install-recommends"]).args(missing))
}

fn is_root() -> Result<bool> {
    Ok(exec::output(Command::new("id").arg("-u"))?.trim() == "0")
}
