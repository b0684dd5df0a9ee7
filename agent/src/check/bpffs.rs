//! The BPF file system: whether it is there, whether this user may pin in it, what is pinned and who uses that.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use nix::{
    errno::Errno,
    sys::{
        statfs::{BPF_FS_MAGIC, statfs},
        statvfs::{FsFlags, statvfs},
    },
    unistd::{AccessFlags, Uid, User, eaccess, geteuid},
};

use super::Finding;
use crate::tap::{Pins, holder, pins};

/// Looks at it, and changes nothing.
pub(super) fn bpffs(dir: &Path) -> Vec<Finding> {
    let mut findings = vec![pinnable(dir)];
    findings.push(match pins(dir) {
        Ok(pins) => pinned(dir, &pins),
        Err(error) => Finding::cannot_tell("pins", format!("they cannot be seen: {}", chain(&error))),
    });
    findings.push(match holder(dir) {
        Ok(Some(pid)) => {
            Finding::ok("running agent", format!("process {pid} uses the pins; this check leaves them alone"))
        }
        Ok(None) => Finding::ok("running agent", "none is seen from here"),
        Err(error) => Finding::cannot_tell("running agent", format!("/proc/locks: {error}")),
    });
    findings
}

fn pinnable(dir: &Path) -> Finding {
    const ABOUT: &str = "bpffs";
    let shown = dir.display();
    match statfs(dir).map(|found| found.filesystem_type()) {
        Ok(BPF_FS_MAGIC) => {}
        Ok(_) => return missing(dir, format!("{shown} is not a BPF file system")),
        Err(Errno::ENOENT) => return missing(dir, format!("{shown} does not exist")),
        Err(errno) => {
            let finding = Finding::problem(ABOUT, format!("{shown} cannot be reached: {}", errno.desc()));
            return match barred(dir) {
                Some(barred) => finding.advice(format!("let this user through {barred}")),
                None => finding,
            };
        }
    }
    if statvfs(dir).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY)) {
        return Finding::problem(ABOUT, format!("{shown} is mounted read-only")).advice(
            "systemd: ProtectKernelTunables= does that to /sys: mount one elsewhere and set bpf_dir; \
             containers: take readOnly (:ro) from the volume",
        );
    }
    let rings = dir.join("weir");
    let (place, needed) =
        if rings.exists() { (rings, AccessFlags::all()) } else { (dir.to_owned(), enter()) };
    match eaccess(&place, needed) {
        Ok(()) => Finding::ok(ABOUT, format!("{shown} is one, and this user may pin there")),
        Err(errno) => Finding::problem(
            ABOUT,
            format!("this user ({}) may not pin in {}: {}", geteuid(), owned(&place), errno.desc()),
        )
        .advice(format!(
            "give the agent one of its own: mount -t bpf bpf /run/weir/bpf, chown that to its user, and set bpf_dir; \
             or, with no agent running, chown -R {} {}",
            geteuid(),
            place.display()
        )),
    }
}

/// What it takes to make something in a directory.
fn enter() -> AccessFlags {
    AccessFlags::W_OK | AccessFlags::X_OK
}

fn missing(dir: &Path, text: String) -> Finding {
    let finding = Finding::problem("bpffs", text);
    if fs::read_to_string("/proc/filesystems").is_ok_and(|list| !knows_bpf(&list)) {
        return finding.advice("this kernel has none: take one with CONFIG_BPF_SYSCALL");
    }
    let dir = dir.display();
    finding.advice(format!(
        "mount -t bpf bpf {dir}; in a container, the node's as a volume: Docker: -v {dir}:{dir}; Kubernetes: \
         hostPath.path: {dir}"
    ))
}

/// Whether `/proc/filesystems` lists it (proc_filesystems(5)).
fn knows_bpf(list: &str) -> bool {
    list.lines().any(|line| line.split_ascii_whitespace().last() == Some("bpf"))
}

/// The first directory on the way that this user may not pass.
fn barred(dir: &Path) -> Option<String> {
    let mut way: Vec<&Path> = dir.ancestors().collect();
    way.reverse();
    way.into_iter().find(|place| eaccess(*place, AccessFlags::X_OK).is_err()).map(owned)
}

/// A directory with its owner and mode.
fn owned(place: impl AsRef<Path>) -> String {
    let place = place.as_ref();
    let Ok(found) = fs::metadata(place) else { return place.display().to_string() };
    let owner = User::from_uid(Uid::from_raw(found.uid())).ok().flatten();
    let owner = owner.map_or_else(|| found.uid().to_string(), |user| user.name);
    format!("{} ({owner}'s, mode {:04o})", place.display(), found.mode() & 0o7777)
}

fn pinned(dir: &Path, pins: &Pins) -> Finding {
    const ABOUT: &str = "pins";
    let Pins { places, unknown, foreign } = pins;
    if let Some(path) = foreign.first() {
        let more = foreign.len() - 1;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let rings = dir.join("weir");
        let rings = rings.display();
        return Finding::problem(ABOUT, format!("this user may not use {}{more}", owned(path))).advice(format!(
            "an agent of another user has left them: stop it; if sessions run, chown -R {} {rings}, and they go on; \
             else rm -r {rings}",
            geteuid(),
        ));
    }
    if !unknown.is_empty() {
        let versions = list(unknown);
        return Finding::warning(
            ABOUT,
            format!("those of version {versions} are left alone: not known here"),
        )
        .advice("a newer agent has left them: sessions armed by it stall until one runs again");
    }
    if places.is_empty() {
        return Finding::ok(ABOUT, "none: the rings are made at the start");
    }
    Finding::ok(ABOUT, format!("rings {} are taken up at the start, with the sizes they have", list(places)))
}

fn list(of: &[impl ToString]) -> String {
    of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn a_kernel_without_the_file_system_is_told_from_one_where_it_is_not_mounted() {
        assert!(knows_bpf("nodev\tsysfs\nnodev\tbpf\n\text4\n"));
        assert!(!knows_bpf("nodev\tsysfs\n\text4\nnodev\tbpffs2\n"));
    }

    #[test]
    fn pins_are_said_to_be_taken_up_left_alone_or_somebody_elses() {
        let dir = Path::new("/sys/fs/bpf");
        let mut pins = Pins::default();
        assert_eq!(pinned(dir, &pins).level, Level::Ok);
        pins.places = vec![crate::tap::RingPlace::current(0), crate::tap::RingPlace::current(3)];
        let finding = pinned(dir, &pins);
        assert_eq!((finding.level, finding.text.contains("2-0, 2-3")), (Level::Ok, true), "{finding:?}");
        pins.unknown = vec![9];
        assert_eq!(pinned(dir, &pins).level, Level::Warning);
        pins.foreign = vec!["/sys/fs/bpf/weir/2/0/TAPS".into(), "/sys/fs/bpf/weir/2/0/RING".into()];
        let finding = pinned(dir, &pins);
        assert_eq!((finding.level, finding.text.contains("TAPS and 1 more")), (Level::Problem, true));
    }

    #[test]
    fn a_directory_that_is_no_bpf_file_system_is_a_problem_with_the_command_that_mounts_one() {
        let finding = pinnable(Path::new("/proc"));
        assert_eq!(finding.level, Level::Problem);
        assert!(finding.advice.is_some_and(|advice| advice.contains("mount -t bpf bpf /proc")));
        assert_eq!(pinnable(Path::new("/no/such/directory")).level, Level::Problem);
    }
}
