//! What the tests and the demo need from the distribution, installed where that is possible.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::debian;

/// Programs and the Debian packages they come from.
const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/bin/ssh", "openssh-client"),
    ("/usr/bin/ssh-keygen", "openssh-client"),
    ("/usr/bin/ssh-agent", "openssh-client"),
    ("/usr/sbin/sshd", "openssh-server"),
    ("/usr/bin/cc", "gcc"),
    ("/usr/bin/git", "git"),
    // Man pages are formatted to see that they can be.
    ("/usr/bin/groff", "groff-base"),
    ("/usr/bin/python3", "python3"),
    ("/usr/bin/rsync", "rsync"),
    ("/usr/bin/prlimit", "util-linux"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/xauth", "xauth"),
];

/// The same for sessions with real shells: what findings are measured by.
const SHELLS: &[(&str, &str)] = &[
    ("/usr/bin/bash", "bash"),
    ("/usr/bin/dash", "dash"),
    ("/usr/bin/fish", "fish"),
    ("/usr/bin/less", "less"),
    ("/usr/bin/python3", "python3"),
    ("/usr/bin/screen", "screen"),
    ("/usr/bin/sqlite3", "sqlite3"),
    ("/usr/bin/strace", "strace"),
    ("/usr/bin/sudo", "sudo"),
    ("/usr/bin/tmux", "tmux"),
    ("/usr/bin/top", "procps"),
    ("/usr/bin/vim", "vim"),
    ("/usr/bin/zsh", "zsh"),
];

/// What audits the connector's port (PyPI), in its own virtual environment below the target directory. A newer one may
/// Makes sure that everything is there.
///
/// # Errors
/// If something is missing and can't be installed; the error says what to install.
pub(crate) fn ensure_all() -> Result<()> {
    ensure!(debian::is_root()?, "this needs root: it loads a BPF program, mounts a bpffs and starts an sshd");
    install(&missing(&[PROGRAMS, SHELLS]))
}

/// Makes sure that the shells of the corpus are there, and what is run in them.
///
/// # Errors
/// If something is missing and can't be installed; the error says what to install.
pub(crate) fn ensure_shells() -> Result<()> {
    install(&missing(&[SHELLS]))
}

fn missing(programs: &[&[(&str, &'static str)]]) -> Vec<&'static str> {
    let missing = programs.iter().copied().flatten().filter(|(program, _)| !Path::new(program).exists());
    let mut missing: Vec<_> = missing.map(|&(_, package)| package).collect();
    missing.dedup();
    missing
}

fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        debian::can_install()?,
        "missing, and there is no apt-get to install it with: {}",
        missing.join(", ")
    );
    debian::install(missing)
}
