//! A kernel and an initramfs that boot the box: it holds neither kernel nor modules, so that one box serves every
//! kernel.
//!
//! The initramfs holds a static busybox and the few modules that a machine takes, loads these, and hands over to
//! the box's init. What is a module and not in [`MODULES`] is not there in the machines.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::{
    apt::Apt,
    cpio::Archive,
    kernel::{self, Series},
};
use crate::{exec, workspace};

/// What a machine needs that Debian's cloud kernels have as modules: disks, network cards, the file system,
/// randomness, DHCP, and the power button, by which Vagrant halts. In some series one or the other is built in.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "virtio_net", "ext4", "virtio_rng", "af_packet", "button", "evdev"];

/// Debian's busybox-static.
const BUSYBOX: &str = "/bin/busybox";

/// What `/init` is.
const INIT: &str = "tests/vm/box/init";

/// Folders of the initramfs.
const FOLDERS: &[&str] = &["bin", "dev", "modules", "newroot", "proc", "sys"];

/// What a machine is booted with.
pub(super) struct BootFiles {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
}

/// Fetches what is not below `dir` and `kernels` yet.
pub(super) fn prepare(apt: &Apt, kernels: &Path, dir: &Path, series: Series) -> Result<BootFiles> {
    let fetched = kernel::fetch(apt, kernels, series)?;
    let package = kernel::fetched_package(kernels, series)?;
    let dir = dir.join(series.to_string());
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let files = BootFiles { kernel: dir.join("vmlinuz"), initramfs: dir.join("initramfs") };
    let init_file = workspace::root().join(INIT);
    let init = fs::read(&init_file).with_context(|| format!("reading {}", init_file.display()))?;
    let made_of = format!("{package:?}\n{MODULES:?}\n{}", String::from_utf8_lossy(&init));
    let stamp_file = dir.join("stamp");
    if is_as_made(&stamp_file, &made_of, &files) {
        return Ok(files);
    }
    eprintln!("Fetching the modules of {}", package.name);
    let unpacked = dir.join("unpacked");
    apt.unpack(&kernel::holders_of_the_modules(apt, &package)?, &unpacked)?;
    write(&files.initramfs, &init, &modules(&unpacked)?)?;
    fs::remove_dir_all(&unpacked).with_context(|| format!("removing {}", unpacked.display()))?;
    fs::copy(&fetched.image, &files.kernel).context("copying the kernel")?;
    fs::write(&stamp_file, stamp(&made_of, &files)?)
        .with_context(|| format!("writing {}", stamp_file.display()))?;
    Ok(files)
}

/// Whether the files are those that were made of this: somebody may have put a kernel of their own in their place.
fn is_as_made(stamp_file: &Path, made_of: &str, files: &BootFiles) -> bool {
    let noted = fs::read_to_string(stamp_file).ok();
    noted.is_some() && noted == stamp(made_of, files).ok()
}

/// What they were made of, and what they are.
fn stamp(made_of: &str, files: &BootFiles) -> Result<String> {
    let digest = |path: &Path| -> Result<String> {
        let content = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect())
    };
    let BootFiles { kernel, initramfs } = files;
    Ok(format!("{made_of}\n{}\n{}\n", digest(kernel)?, digest(initramfs)?))
}

/// A module under its file's name, ready to be loaded.
struct Module {
    name: String,
    content: Vec<u8>,
}

/// The modules and what they depend on, in the order in which they can be loaded.
fn modules(unpacked: &Path) -> Result<Vec<Module>> {
    let lib = unpacked.join("lib");
    if !lib.exists() {
        // Packages that know of the merged /usr only.
        std::os::unix::fs::symlink("usr/lib", &lib).context("linking lib to usr/lib")?;
    }
    let folder = lib.join("modules");
    let mut releases = fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
    let release = releases.next().with_context(|| format!("{} is empty", folder.display()))?;
    let release = release.context("listing modules")?.file_name();
    exec::run(Command::new("depmod").arg("-b").arg(unpacked).arg(&release))?;
    let mut paths = Vec::new();
    for module in MODULES {
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("-d").arg(unpacked).arg("-S").arg(&release).args(["--show-depends", module]);
        for path in loaded(&exec::output(&mut modprobe)?) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    paths.iter().map(|path| read_module(path)).collect()
}

/// The files in what `modprobe --show-depends` prints: `insmod FILE`, or `builtin NAME`.
fn loaded(printed: &str) -> Vec<PathBuf> {
    let lines = printed.lines().filter_map(|line| line.strip_prefix("insmod "));
    lines.filter_map(|rest| rest.split_whitespace().next()).map(PathBuf::from).collect()
}

/// Not every kernel can unpack modules itself.
fn read_module(path: &Path) -> Result<Module> {
    let name = path.file_name().context("a module has a name")?.to_string_lossy().into_owned();
    let unpack = [(".xz", "xz"), (".zst", "zstd")];
    let packed = unpack.iter().find_map(|(suffix, program)| Some((name.strip_suffix(suffix)?, program)));
    let Some((plain, program)) = packed else {
        let content = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        return Ok(Module { name, content });
    };
    let mut command = Command::new(program);
    command.args(["--decompress", "--stdout"]).arg(path);
    let output = command.output().with_context(|| format!("could not start `{}`", exec::line(&command)))?;
    ensure!(output.status.success(), "`{}` failed: {}", exec::line(&command), output.status);
    Ok(Module { name: plain.to_owned(), content: output.stdout })
}

fn write(to: &Path, init: &[u8], modules: &[Module]) -> Result<()> {
    let busybox = fs::read(BUSYBOX).with_context(|| format!("reading {BUSYBOX}"))?;
    let out = File::create(to).with_context(|| format!("creating {}", to.display()))?;
    let mut archive = Archive::new(BufWriter::new(out));
    for folder in FOLDERS {
        archive.directory(folder)?;
    }
    archive.character_device("dev/console", 5, 1)?;
    archive.file("bin/busybox", 0o755, &busybox)?;
    archive.file("init", 0o755, init)?;
    let names: String = modules.iter().map(|module| format!("{}\n", module.name)).collect();
    archive.file("modules/list", 0o644, names.as_bytes())?;
    for Module { name, content } in modules {
        archive.file(&format!("modules/{name}"), 0o644, content)?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_is_not_loaded() {
        let printed = "builtin virtio_pci\n\
                       insmod /k/lib/modules/6.1/kernel/lib/crc16.ko \n\
                       insmod /k/lib/modules/6.1/kernel/fs/ext4/ext4.ko option=1\n";
        let expected =
            ["/k/lib/modules/6.1/kernel/lib/crc16.ko", "/k/lib/modules/6.1/kernel/fs/ext4/ext4.ko"];
        assert_eq!(loaded(printed), expected.map(PathBuf::from));
    }

    #[test]
    fn a_kernel_that_was_put_in_the_place_of_ours_is_noticed() {
        let dir = std::env::temp_dir().join(format!("weir-boot-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary folder");
        let files = BootFiles { kernel: dir.join("vmlinuz"), initramfs: dir.join("initramfs") };
        let stamp_file = dir.join("stamp");
        assert!(!is_as_made(&stamp_file, "of this", &files));
        fs::write(&files.kernel, "a kernel").expect("it is written");
        fs::write(&files.initramfs, "an initramfs").expect("it is written");
        fs::write(&stamp_file, stamp("of this", &files).expect("they can be read")).expect("it is written");
        assert!(is_as_made(&stamp_file, "of this", &files));
        assert!(!is_as_made(&stamp_file, "of that", &files));
        fs::write(&files.kernel, "a kernel of somebody's own").expect("it is written");
        assert!(!is_as_made(&stamp_file, "of this", &files));
        fs::remove_file(&files.kernel).expect("it was there");
        assert!(!is_as_made(&stamp_file, "of this", &files));
        fs::remove_dir_all(&dir).expect("it was ours");
    }

    #[test]
    fn a_packed_module_is_unpacked() {
        let dir = std::env::temp_dir().join(format!("weir-module-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary folder");
        let path = dir.join("a.ko");
        fs::write(&path, "a module").expect("it is written");
        let plain = read_module(&path).expect("it is read");
        exec::run(Command::new("xz").arg(&path)).expect("xz works");
        let packed = read_module(&dir.join("a.ko.xz")).expect("it is unpacked");
        assert_eq!((packed.name, packed.content), (plain.name, plain.content));
        fs::remove_dir_all(&dir).expect("it was ours");
    }
}
