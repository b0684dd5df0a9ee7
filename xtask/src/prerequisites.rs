//! What the tests and the demo need from the distribution, installed where that is possible.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};

use crate::{debian, exec};

/// Programs and the Debian packages they come from.
const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/bin/ssh", "openssh-client"),
    ("/usr/bin/ssh-keygen", "openssh-client"),
    ("/usr/bin/ssh-agent", "openssh-client"),
    ("/usr/sbin/sshd", "openssh-server"),
    ("/usr/bin/cc", "gcc"),
    ("/usr/bin/git", "git"),
    ("/usr/bin/ip", "iproute2"),
    // Man pages are formatted to see that they can be.
    ("/usr/bin/groff", "groff-base"),
    ("/usr/bin/python3", "python3"),
    ("/usr/bin/rsync", "rsync"),
    ("/usr/bin/mount", "mount"),
    ("/usr/bin/prlimit", "util-linux"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/xauth", "xauth"),
    ("/usr/sbin/mkfs.ext4", "e2fsprogs"),
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
];

/// The same for making packages, and for looking at the units in them.
const PACKAGING: &[(&str, &str)] = &[
    ("/usr/bin/dh", "debhelper"),
    ("/usr/bin/dpkg-shlibdeps", "dpkg-dev"),
    ("/usr/bin/git", "git"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/bin/systemd-analyze", "systemd"),
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

/// Packages that building and starting the machines takes: all of them, since some have no program of their own.
const MACHINES: &[&str] = &[
    "busybox-static",
    "dnsmasq-base",
    "dpkg-dev",
    "e2fsprogs",
    "iproute2",
    "kmod",
    "libvirt-clients",
    "libvirt-daemon-system",
    "mmdebstrap",
    "openssh-client",
    "qemu-utils",
    "rsync",
    "vagrant",
    "vagrant-libvirt",
    "xz-utils",
];

/// Makes sure that everything is there.
///
/// # Errors
/// If something is missing and can't be installed; the error says what to install.
pub(crate) fn ensure_all() -> Result<()> {
    ensure!(debian::is_root()?, "this needs root: it loads a BPF program, mounts a bpffs and starts an sshd");
    install(&missing(&[PROGRAMS, PACKAGING, SHELLS]))
}

/// Makes sure that packages can be made.
///
/// # Errors
/// If something is missing and can't be installed; the error says what to install.
pub(crate) fn ensure_packaging() -> Result<()> {
    install(&missing(&[PACKAGING]))
}

/// Makes sure that the shells of the corpus are there, and what is run in them.
///
/// # Errors
/// If something is missing and can't be installed; the error says what to install.
pub(crate) fn ensure_shells() -> Result<()> {
    install(&missing(&[SHELLS]))
}

/// Makes sure that what builds and runs the virtual machines of `cargo xtask vm up` is there.
///
/// # Errors
/// If something is missing and can't be installed; the error says what to install.
pub(crate) fn ensure_for_machines() -> Result<()> {
    ensure!(debian::can_install()?, "this needs root and Debian; it takes {}", MACHINES.join(", "));
    let mut query = Command::new("dpkg-query");
    let installed = exec::output(query.args(["--show", "-f", "${Package} ${db:Status-Status}\n"]))?;
    let installed: Vec<_> = installed.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    let missing = MACHINES.iter().filter(|package| !installed.contains(package));
    install(&missing.copied().collect::<Vec<_>>())
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
