//! The node: directories, the signing key, users and groups.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use nix::{
    sys::{
        statfs::{
            BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC,
            XFS_SUPER_MAGIC, statfs,
        },
        statvfs::statvfs,
    },
    unistd::{Gid, Group, Uid, User, geteuid},
};
use tempfile::NamedTempFile;

use super::Finding;
use crate::{
    config::{Config, ControlConfig, StoreLocation},
    signing::SigningKey,
};

/// Below this a spool is not worth the name.
const LEAST_FREE_BYTES: u64 = 64 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// Looks at the node.
#[must_use]
pub fn local(config: &Config) -> Vec<Finding> {
    let spool = config.state_dir.join("spool");
    let mut findings = vec![
        user(&config.state_dir),
        writable("state directory", &config.state_dir),
        writable("spool", &spool),
        room(&spool, config.spool.max_bytes),
        lasting(&spool),
        signing_key(&config.signing_key),
    ];
    findings.extend(users(&config.control));
    if let StoreLocation::Directory(root) = &config.store {
        findings.push(writable("store", root));
    }
    findings
}

/// Whether this is run by whom the agent is run: what is found of rights is this user's.
fn user(state: &Path) -> Finding {
    const ABOUT: &str = "user";
    let own = geteuid();
    match fs::metadata(state).map(|found| Uid::from_raw(found.uid())) {
        Ok(owner) if owner != own => Finding::warning(
            ABOUT,
            format!("this is {}, and {} belongs to {}", called(own), state.display(), called(owner)),
        )
        .advice(
            "run it as the agent is run, whose rights are what counts: docs/operations.md has the command",
        ),
        Ok(_) => Finding::ok(ABOUT, format!("{}, to whom {} belongs", called(own), state.display())),
        Err(_) => Finding::ok(ABOUT, called(own)),
    }
}

/// A user's name, or the number if it has none here.
fn called(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| format!("user {uid}"), |user| user.name)
}

/// The directory itself, or the one in which it will be made.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}

fn writable(about: &'static str, path: &Path) -> Finding {
    let found = existing(path);
    match NamedTempFile::new_in(found) {
        Ok(_) if found == path => Finding::ok(about, format!("{} can be written", path.display())),
        Ok(_) => Finding::ok(about, format!("{} is made at the first start", path.display())),
        Err(error) => Finding::problem(about, format!("cannot write to {}: {error}", found.display()))
            .advice(format!(
                "see who owns it and whether it is mounted read-only; this is {}",
                called(geteuid())
            )),
    }
}

fn room(spool: &Path, most: u64) -> Finding {
    let free = match statvfs(existing(spool)) {
        Ok(found) => found.blocks_available().saturating_mul(found.fragment_size()),
        Err(error) => {
            return Finding::cannot_tell("spool room", format!("free space cannot be seen: {error}"));
        }
    };
    let text = format!("{} MiB are free, the spool may take {} MiB", free / MIB, most / MIB);
    if free < LEAST_FREE_BYTES.min(most) {
        Finding::problem("spool room", text).advice("make room: without it sessions stall")
    } else if free < most {
        Finding::warning("spool room", text).advice("make room, or set spool_max_bytes to what there is")
    } else {
        Finding::ok("spool room", text)
    }
}

fn lasting(spool: &Path) -> Finding {
    let kind = match statfs(existing(spool)) {
        Ok(found) => found.filesystem_type(),
        Err(error) => {
            return Finding::cannot_tell("spool disk", format!("its file system cannot be seen: {error}"));
        }
    };
    match kind {
        TMPFS_MAGIC => {
            Finding::warning("spool disk", "the spool is in memory: a restart of the node loses it")
                .advice("put state_dir on a disk")
        }
        OVERLAYFS_SUPER_MAGIC => Finding::warning(
            "spool disk",
            "the spool is in a container's own layer: it goes with the container",
        )
        .advice("put state_dir on a volume of the node"),
        NFS_SUPER_MAGIC => {
            Finding::warning("spool disk", "the spool is on NFS: sessions stall when that is away")
                .advice("put state_dir on a disk of the node")
        }
        kind => Finding::ok("spool disk", format!("the spool is on {}", name(kind))),
    }
}

fn name(kind: FsType) -> String {
    match kind {
        EXT4_SUPER_MAGIC => "ext4".to_owned(),
        XFS_SUPER_MAGIC => "xfs".to_owned(),
        BTRFS_SUPER_MAGIC => "btrfs".to_owned(),
        FsType(number) => format!("a file system of type {number:#x}"),
    }
}

fn signing_key(path: &Path) -> Finding {
    if !path.exists() {
        return Finding::ok("signing key", format!("{} is made at the first start", path.display()));
    }
    match SigningKey::load_or_make(path) {
        Ok(key) => Finding::ok("signing key", format!("{} is {}", path.display(), key.fingerprint())),
        Err(error) => Finding::problem("signing key", error.to_string()),
    }
}

fn users(control: &ControlConfig) -> Vec<Finding> {
    let user = |&uid: &u32| match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => Finding::ok("allowed user", format!("{uid} is {}", user.name)),
        Ok(None) => Finding::warning("allowed user", format!("no user of this node has the id {uid}"))
            .advice("see allowed_uids; it may be right if the proxy runs in a container"),
        Err(error) => Finding::cannot_tell("allowed user", format!("{uid}: {error}")),
    };
    let named = |name: &String| match User::from_name(name) {
        Ok(Some(user)) => Finding::ok("allowed user", format!("{name} has the id {}", user.uid)),
        Ok(None) => Finding::problem("allowed user", format!("this node has no user {name}"))
            .advice(format!("useradd --system {name}, or set allowed_users to the proxy's user")),
        Err(error) => Finding::cannot_tell("allowed user", format!("{name}: {error}")),
    };
    let mut findings: Vec<_> = control.allowed_uids.iter().map(user).collect();
    findings.extend(control.allowed_users.iter().map(named));
    if let Some(group) = &control.group {
        findings.push(match Group::from_name(group) {
            Ok(Some(Group { gid, .. })) => {
                Finding::ok("control group", format!("{group} has the id {}", Gid::as_raw(gid)))
            }
            Ok(None) => Finding::problem("control group", format!("this node has no group {group}"))
                .advice(format!("groupadd --system {group}, or set control_group")),
            Err(error) => Finding::cannot_tell("control group", format!("{group}: {error}")),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    fn config(dir: &Path, more: &str) -> Config {
        let text = format!(
            "allowed_uids = [0, 4000000]\nstate_dir = {dir:?}\nstore = \"file://{}\"\n{more}",
            dir.display()
        );
        Config::parse(Path::new("agent.toml"), &text).expect("makes sense")
    }

    fn level(findings: &[Finding], about: &str) -> Level {
        findings
            .iter()
            .filter(|finding| finding.about == about)
            .map(|finding| finding.level)
            .max()
            .expect("found")
    }

    #[test]
    fn what_is_wrong_with_a_node_is_found_and_nothing_is_made() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let more = "control_group = \"no-such-group\"";
        let findings = local(&config(&dir.path().join("state"), more));
        assert_eq!(level(&findings, "state directory"), Level::Ok);
        assert_eq!(level(&findings, "control group"), Level::Problem);
        assert_eq!(level(&findings, "allowed user"), Level::Warning);
        assert_eq!(level(&findings, "signing key"), Level::Ok);
        assert!(!dir.path().join("state").exists());
    }

    #[test]
    fn a_user_that_is_named_has_to_be_there() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, expected) in [("root", Level::Warning), ("no-such-user", Level::Problem)] {
            let findings = local(&config(dir.path(), &format!("allowed_users = [{name:?}]")));
            assert_eq!(level(&findings, "allowed user"), expected, "4000000 is worth a warning");
        }
    }

    #[test]
    fn a_directory_that_is_none_and_a_key_that_is_none_are_problems() {
        let findings = local(&config(Path::new("/proc/state"), "signing_key = \"/proc/version\""));
        assert_eq!(level(&findings, "state directory"), Level::Problem);
        assert_eq!(level(&findings, "signing key"), Level::Problem);
    }
}
