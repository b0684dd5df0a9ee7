//! A libvirt of our own: started by hand where there may be no systemd, in a network namespace and with private
//! mounts, so that the host's networks, firewall, libvirt and its files stay as they are.
//!
//! What runs in the namespace is ours. Ending it all therefore needs no list: whoever is in there is ended, and
//! whatever state an interrupted start left behind goes the same way.

use std::{
    fs,
    io::ErrorKind,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::lab::{self, NAMESPACE};
use crate::exec;

/// The system's folders that libvirt writes to, and the folder in ours that it finds there instead.
const FOLDERS: &[(&str, &str)] = &[
    ("etc", "/etc/libvirt"),
    ("lib", "/var/lib/libvirt"),
    ("run", "/run/libvirt"),
    ("cache", "/var/cache/libvirt"),
    ("log", "/var/log/libvirt"),
];

/// QEMU as root: its files are below a target directory that may be anywhere. No cgroups, which take a manager,
/// and no second daemon for the consoles.
const QEMU_CONF: &str = r#"user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"#;

/// Whose the namespace is: the folder of a lab. It is where the namespace is and goes with it, at the latest when the host restarts;
/// folders of the lab stay behind.
const OWNER: &str = "/run/weirvm.owner";

/// How long the daemon may take to answer, and processes to end when they are told to.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const POLL: Duration = Duration::from_millis(100);

/// Makes the namespace and starts the daemon, unless it answers already.
pub(super) fn start(dir: &Path) -> Result<()> {
    if exists()? {
        if answers(dir) {
            return Ok(());
        }
        // Left behind by something that was interrupted.
        stop(dir)?;
    }
    let ours = lab::libvirt(dir);
    for (folder, place) in FOLDERS {
        let folder = ours.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        // Where there is no systemd nobody has made /run/libvirt.
        fs::create_dir_all(place).with_context(|| format!("creating {place}"))?;
    }
    let write = |name: &str, text: &str| {
        let path = ours.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    write("etc/qemu.conf", QEMU_CONF)?;
    write("etc/libvirtd.conf", &daemon_conf(&ours))?;
    // It fails if somebody else was faster: whoever gets past it is the owner, whatever an earlier one has left.
    exec::run(Command::new("ip").args(["netns", "add", NAMESPACE]))?;
    fs::write(OWNER, own_path(dir)?).with_context(|| format!("writing {OWNER}"))?;
    exec::run(Command::new("ip").args(["-n", NAMESPACE, "link", "set", "lo", "up"]))?;
    exec::run(lab::command_in(dir, "sh").args(["-euc", &start_script(&ours)]))?;
    let deadline = Instant::now() + PATIENCE;
    while !answers(dir) {
        let log = ours.join("log/libvirtd.log");
        ensure!(Instant::now() < deadline, "libvirtd does not answer; see {}", log.display());
        pause();
    }
    Ok(())
}

/// Whether there is a namespace.
pub(super) fn exists() -> Result<bool> {
    let listed = exec::output(Command::new("ip").args(["netns", "list"]))?;
    Ok(listed.lines().any(|line| line.split_whitespace().next() == Some(NAMESPACE)))
}

/// Whether the daemon is there.
pub(super) fn answers(dir: &Path) -> bool {
    exec::output(lab::command_in(dir, "virsh").arg("uri")).is_ok()
}

/// Ends everything in the namespace, and the namespace. There need not be one.
///
/// # Errors
/// If it is another checkout's, whose machines somebody may be using.
pub(super) fn stop(dir: &Path) -> Result<()> {
    if !exists()? {
        return Ok(());
    }
    let owner = fs::read_to_string(OWNER).ok();
    // A daemon that answers in our folder is ours.
    let others_run = !processes()?.is_empty() && !answers(dir);
    ensure!(
        may_end(owner.as_deref(), own_path(dir)?, others_run),
        "the network namespace {NAMESPACE} belongs to {}; run `cargo xtask vm down` in that checkout, or, if that \
         is gone, end what `ip netns pids {NAMESPACE}` lists and `ip netns delete {NAMESPACE}`",
        owner.as_deref().unwrap_or("somebody unknown")
    );
    if !end_all(Signal::SIGTERM)? && !end_all(Signal::SIGKILL)? {
        bail!("processes in the network namespace {NAMESPACE} can't be ended: {:?}", processes()?);
    }
    exec::run(Command::new("ip").args(["netns", "delete", NAMESPACE]))?;
    fs::remove_file(OWNER).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error).with_context(|| format!("removing {OWNER}")),
    })
}

/// Whether the namespace is this checkout's, or nobody's: made by a start that was interrupted before it could say whose. Where
/// nothing says whose it is, something may run in it that is not ours.
fn may_end(owner: Option<&str>, own: &str, others_run: bool) -> bool {
    match owner {
        Some(owner) => owner == own,
        None => !others_run,
    }
}

/// How a checkout is told from others. The folder need not be there.
fn own_path(dir: &Path) -> Result<&str> {
    dir.to_str().with_context(|| format!("{} is no UTF-8", dir.display()))
}

/// Tells every process in the namespace to end, and returns whether they did.
fn end_all(signal: Signal) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let running = processes()?;
        if running.is_empty() {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        for process in running {
            // It may have ended by itself, and what starts meanwhile is told the next time.
            let _ = kill(process, signal);
        }
        pause();
    }
}

fn processes() -> Result<Vec<Pid>> {
    let listed = exec::output(Command::new("ip").args(["netns", "pids", NAMESPACE]))?;
    Ok(listed.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect())
}

/// The mounts are seen by the daemon and what it starts: `ip netns exec` gives it a mount namespace of its own.
fn start_script(ours: &Path) -> String {
    let mut script = String::new();
    for (folder, place) in FOLDERS {
        script += &format!("mount --bind '{}' {place}\n", ours.join(folder).display());
    }
    script
        + "exec libvirtd --daemon --config /etc/libvirt/libvirtd.conf --pid-file /run/libvirt/libvirtd.pid\n"
}

fn daemon_conf(ours: &Path) -> String {
    format!(
        "unix_sock_rw_perms = \"0700\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n\
         log_outputs = \"3:file:{}\"\n",
        ours.join("log/libvirtd.log").display()
    )
}

fn pause() {
    #[expect(clippy::disallowed_methods, reason = "the poll interval of a wait on a condition")]
    std::thread::sleep(POLL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_checkouts_own_machines_are_ended_and_what_nobody_owns() {
        let own = "/a/target/vm/lab";
        assert!(may_end(Some(own), own, true));
        assert!(!may_end(Some("/b/target/vm/lab"), own, true));
        assert!(!may_end(Some("/b/target/vm/lab"), own, false));
        assert!(!may_end(None, own, true));
        assert!(may_end(None, own, false));
        assert!(OWNER.contains(NAMESPACE));
    }

    #[test]
    fn every_folder_that_libvirt_writes_to_is_ours_before_it_starts() {
        let script = start_script(Path::new("/a lab/libvirt"));
        let lines: Vec<_> = script.lines().collect();
        assert_eq!(lines.first(), Some(&"mount --bind '/a lab/libvirt/etc' /etc/libvirt"));
        assert_eq!(lines.len(), FOLDERS.len() + 1);
        assert!(lines.last().is_some_and(|line| line.starts_with("exec libvirtd --daemon ")), "{script}");
    }
}
