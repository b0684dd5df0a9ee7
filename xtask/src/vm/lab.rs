//! Where the machines live: their folder, their network namespace, and the environment that `vagrant` needs to
//! find them.
//!
//! Everything is below `target/vm/lab`, and everything that runs is in the namespace [`NAMESPACE`]: the host's
//! network, its libvirt and its Vagrant are not touched. Takes root.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context, Result, ensure};

use crate::{debian, workspace};

/// The network namespace of the machines, of libvirt and of whoever talks to either.
pub(crate) const NAMESPACE: &str = "weirvm";

/// The machines, in the order in which people think of them.
pub(crate) const MACHINES: [&str; 3] = ["store", "connector", "target"];

/// What `vm up` found out and everything after it has to know: variables for `vagrant`, one a line.
const ENVIRONMENT: &str = "environment";

/// The folder of it all.
pub(crate) fn dir() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("vm/lab"))
}

/// A program inside the namespace, where the machines have addresses. `virsh` finds the machines there.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Result<Command> {
    Ok(command_in(&dir()?, program))
}

/// `vagrant`, for the machines that `vm up` made.
///
/// # Errors
/// If there are none.
pub(crate) fn vagrant() -> Result<Command> {
    let dir = dir()?;
    let file = dir.join(ENVIRONMENT);
    let text = fs::read_to_string(&file);
    let text = text.with_context(|| format!("no {}; run `cargo xtask vm up` first", file.display()))?;
    Ok(vagrant_in(&dir, &parse(&text)))
}

/// A variable of those.
///
/// # Errors
/// If there are no machines, or it was not noted.
pub(super) fn remembered(dir: &Path, name: &str) -> Result<PathBuf> {
    let file = dir.join(ENVIRONMENT);
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let found = parse(&text).into_iter().find(|(known, _)| *known == name);
    let (_, value) = found.with_context(|| format!("{} has no {name}", file.display()))?;
    Ok(value.into())
}

/// When the machines were made.
pub(super) fn since(dir: &Path) -> Result<SystemTime> {
    let file = dir.join(ENVIRONMENT);
    let found = fs::metadata(&file).and_then(|found| found.modified());
    found.with_context(|| format!("looking at {}", file.display()))
}

/// `ssh` to a machine, by the configuration that `vm up` had Vagrant write: a second faster than `vagrant ssh`.
/// Options of ssh may come before the command.
///
/// # Errors
/// If there are no machines, or none of this name.
pub(crate) fn ssh(machine: &str, command: &[OsString]) -> Result<Command> {
    ensure!(MACHINES.contains(&machine), "no machine {machine}; there are {}", MACHINES.join(", "));
    let dir = dir()?;
    let config = ssh_config(&dir);
    ensure!(config.exists(), "no {}; run `cargo xtask vm up` first", config.display());
    let options = command.iter().take_while(|word| word.as_encoded_bytes().starts_with(b"-")).count();
    let (options, command) = command.split_at(options);
    let mut ssh = command_in(&dir, "ssh");
    ssh.arg("-F").arg(config).args(options).arg(machine).args(command);
    Ok(ssh)
}

/// How `ssh` gets to the machines.
pub(super) fn ssh_config(dir: &Path) -> PathBuf {
    dir.join("ssh_config")
}

/// A machine's serial console.
pub(crate) fn console(dir: &Path, machine: &str) -> PathBuf {
    dir.join(format!("{machine}.console"))
}

/// As [`command`].
pub(super) fn command_in(dir: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", NAMESPACE]).arg(program).env("LIBVIRT_DEFAULT_URI", libvirt_uri(dir));
    command
}

/// Where the lab's libvirt keeps what it would keep in the system's folders.
pub(super) fn libvirt(dir: &Path) -> PathBuf {
    dir.join("libvirt")
}

/// Notes what `vagrant` has to know from now on.
pub(super) fn remember(dir: &Path, variables: &[(&str, String)]) -> Result<()> {
    let text: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let file = dir.join(ENVIRONMENT);
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
}

/// Forgets it: from now on there are no machines.
pub(super) fn forget(dir: &Path) -> Result<()> {
    for file in [dir.join(ENVIRONMENT), ssh_config(dir)] {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether `vm up` got as far as making machines.
pub(super) fn is_up(dir: &Path) -> bool {
    dir.join(ENVIRONMENT).exists()
}

/// Fails unless this is root.
pub(super) fn ensure_root() -> Result<()> {
    ensure!(debian::is_root()?, "this needs root: it makes a network namespace and starts libvirt in it");
    Ok(())
}

fn vagrant_in(dir: &Path, variables: &[(&str, &str)]) -> Command {
    let mut vagrant = command_in(dir, "vagrant");
    vagrant
        .env("VAGRANT_CWD", workspace::root().join("tests/vm"))
        .env("VAGRANT_HOME", dir.join("vagrant"))
        .env("VAGRANT_DOTFILE_PATH", dir.join("machines"))
        .env("VAGRANT_DEFAULT_PROVIDER", "libvirt")
        .env("VAGRANT_CHECKPOINT_DISABLE", "1")
        .env("WEIR_VM_DIR", dir)
        .envs(variables.iter().copied());
    vagrant
}

fn libvirt_uri(dir: &Path) -> String {
    format!("qemu:///system?socket={}", libvirt(dir).join("run/libvirt-sock").display())
}

fn parse(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_remembered_becomes_vagrants_environment() {
        let dir = std::env::temp_dir().join(format!("weir-lab-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary folder");
        let kernel = "/a folder/vmlinuz=6.1".to_owned();
        remember(&dir, &[("WEIR_VM_BOX", "weir/bookworm".to_owned()), ("WEIR_VM_KERNEL", kernel.clone())])
            .expect("it is written");
        assert!(is_up(&dir));
        let text = fs::read_to_string(dir.join(ENVIRONMENT)).expect("it was written");
        let vagrant = vagrant_in(&dir, &parse(&text));
        let value = |name: &str| {
            let found = vagrant.get_envs().find(|(known, _)| *known == name).and_then(|(_, value)| value);
            found.map(|value| value.to_string_lossy().into_owned())
        };
        assert_eq!(value("WEIR_VM_KERNEL"), Some(kernel));
        assert_eq!(value("WEIR_VM_BOX").as_deref(), Some("weir/bookworm"));
        assert_eq!(value("VAGRANT_HOME"), Some(dir.join("vagrant").to_string_lossy().into_owned()));
        let words: Vec<_> = vagrant.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(words, ["netns", "exec", NAMESPACE, "vagrant"]);
        assert_eq!(remembered(&dir, "WEIR_VM_BOX").expect("it is noted"), PathBuf::from("weir/bookworm"));
        remembered(&dir, "WEIR_VM").expect_err("there is none");
        assert!(since(&dir).is_ok());
        forget(&dir).and_then(|()| forget(&dir)).expect("forgetting twice does no harm");
        assert!(!is_up(&dir));
        fs::remove_dir_all(&dir).expect("it was ours");
    }
}
