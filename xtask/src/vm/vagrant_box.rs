//! The Vagrant box: a Debian made offline of the mirror's packages, without kernel or boot loader.
//!
//! No loop device is needed: `mke2fs -d` fills the file system as it makes it. `tests/vm/box/customize.sh` says
//! how the box differs from a plain Debian.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{lab, sources::Sources};
use crate::{exec, prerequisites, workspace};

/// Build the box of the machines from Debian's packages. Takes root.
///
/// The box has no kernel: `vm up` boots it with one of the matrix's.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The Debian release.
    #[arg(long, default_value = SUITE)]
    suite: String,
}

/// The release unless another is asked for: the one that packages are built on.
pub(super) const SUITE: &str = "bookworm";

/// What is in the box besides what is essential. Everything that the tests run in the machines has to be here,
/// since nothing can be installed there.
const PACKAGES: &[&str] = &[
    "bpftool",
    "ca-certificates",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "netbase",
    "openssh-client",
    "openssh-server",
    "openssh-sftp-server",
    "procps",
    "python3-minimal",
    "rsync",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
];

/// What nobody reads in a test machine.
const LEFT_OUT: &[&str] = &["/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*"];

/// How the box differs from what was installed.
const CUSTOMIZE: &str = "tests/vm/box/customize.sh";

/// The disk. It grows in its file only as it is used.
const SIZE_GIB: u32 = 4;

/// A box that Vagrant can add.
pub(super) struct VagrantBox {
    /// Its name for Vagrant.
    pub(super) name: String,
    pub(super) file: PathBuf,
    /// What it was made of, in words: two boxes with the same are the same.
    pub(super) stamp: String,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    lab::ensure_root()?;
    prerequisites::ensure_for_machines()?;
    let made = build(&lab::dir()?.join("box"), &Sources::of_this_machine()?, &options.suite)?;
    println!("{} is {}", made.name, made.file.display());
    Ok(())
}

/// Builds it below `dir`, unless it is there and made of the same.
pub(super) fn build(dir: &Path, sources: &Sources, suite: &str) -> Result<VagrantBox> {
    let customize = workspace::root().join(CUSTOMIZE);
    let script =
        fs::read_to_string(&customize).with_context(|| format!("reading {}", customize.display()))?;
    let archives = archives(sources, suite);
    let stamp = format!("{suite} {SIZE_GIB} GiB\n{archives:?}\n{PACKAGES:?}\n{LEFT_OUT:?}\n{script}");
    let dir = dir.join(suite);
    let made = VagrantBox { name: format!("weir/{suite}"), file: dir.join("weir.box"), stamp };
    let stamp_file = dir.join("stamp");
    if fs::read_to_string(&stamp_file).is_ok_and(|present| present == made.stamp) {
        return Ok(made);
    }
    eprintln!("Building the box of Debian {suite} (about a minute)");
    let started = Instant::now();
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let tar = dir.join("root.tar");
    install(&tar, &archives, suite, &customize)?;
    pack(&dir, &tar)?;
    fs::write(&stamp_file, &made.stamp).with_context(|| format!("writing {}", stamp_file.display()))?;
    let size = fs::metadata(&made.file).context("looking at the box")?.len();
    let (mib, secs) = (size / 1024 / 1024, started.elapsed().as_secs());
    eprintln!("Built {} of {mib} MiB in {secs} s", made.file.display());
    Ok(made)
}

/// Lines of `sources.list(5)`.
fn archives(sources: &Sources, suite: &str) -> Vec<String> {
    let mut lines = vec![format!("deb {} {suite} main", sources.archive)];
    lines.extend(sources.security.as_ref().map(|security| format!("deb {security} {suite}-security main")));
    lines
}

/// A tar archive, so that mmdebstrap takes its own mounts away before anybody else touches the files.
fn install(tar: &Path, archives: &[String], suite: &str, customize: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--mode=root", "--variant=minbase", "--format=tar"]);
    command.arg(format!("--include={}", PACKAGES.join(",")));
    command.args(["--aptopt=Acquire::Check-Valid-Until \"false\"", "--aptopt=Acquire::Languages \"none\""]);
    command.args(LEFT_OUT.iter().map(|pattern| format!("--dpkgopt=path-exclude={pattern}")));
    command.arg(format!("--customize-hook={}", customize.display()));
    command.arg(suite).arg(tar).args(archives);
    command.env("WEIR_VM_PUBLIC_KEY", vagrants_key()?);
    exec::run(&mut command)
}

/// The public half of the key that every box knows and no network may.
fn vagrants_key() -> Result<PathBuf> {
    let listed = exec::output(Command::new("dpkg").args(["--listfiles", "vagrant"]))?;
    let found = listed.lines().find(|path| path.ends_with("/keys/vagrant.pub"));
    found.map(PathBuf::from).context("the package vagrant has no keys/vagrant.pub")
}

/// Root, disk, box, each made of the one before it, which is then removed.
fn pack(dir: &Path, tar: &Path) -> Result<()> {
    let (root, raw, image) = (dir.join("root"), dir.join("disk.raw"), dir.join("box.img"));
    fs::create_dir(&root).with_context(|| format!("creating {}", root.display()))?;
    let mut unpack = Command::new("tar");
    unpack.args(["--numeric-owner", "--xattrs", "-xpf"]).arg(tar).arg("-C").arg(&root);
    exec::run(&mut unpack)?;
    fs::remove_file(tar).with_context(|| format!("removing {}", tar.display()))?;
    ensure!(root.join("sbin/init").is_symlink(), "the new root has no init");

    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-E", "lazy_itable_init=1,root_owner=0:0", "-d"]).arg(&root).arg(&raw);
    exec::run(mke2fs.arg(format!("{SIZE_GIB}G")))?;
    fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;

    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-O", "qcow2", "-c", "-o", "compression_type=zstd"]).arg(&raw).arg(&image);
    exec::run(&mut convert)?;
    fs::remove_file(&raw).with_context(|| format!("removing {}", raw.display()))?;

    let metadata = serde_json::json!({ "provider": "libvirt", "format": "qcow2", "virtual_size": SIZE_GIB });
    fs::write(dir.join("metadata.json"), metadata.to_string()).context("writing the box's metadata")?;
    fs::write(dir.join("Vagrantfile"), "Vagrant.configure(\"2\") { |config| }\n")
        .context("writing the box's Vagrantfile")?;
    let mut archive = Command::new("tar");
    archive.arg("-C").arg(dir).arg("-cf").arg(dir.join("weir.box"));
    exec::run(archive.args(["metadata.json", "Vagrantfile", "box.img"]))?;
    fs::remove_file(&image).with_context(|| format!("removing {}", image.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_of_another_release_comes_from_the_same_mirror() {
        let sources = Sources {
            codename: "bookworm".to_owned(),
            archive: "http://mirror.example/debian".to_owned(),
            security: Some("http://mirror.example/security".to_owned()),
        };
        let expected = [
            "deb http://mirror.example/debian trixie main",
            "deb http://mirror.example/security trixie-security main",
        ];
        assert_eq!(archives(&sources, "trixie"), expected);
    }
}
