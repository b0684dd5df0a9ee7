//! QEMU: the host's, or Debian's unpacked next to the kernels.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use super::{
    apt::{Apt, Package},
    sources::Sources,
};
use crate::exec;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// The oldest QEMU that is used where a newer one can be had. 7.2 sometimes misses, with several processors, that
/// a guest has patched its own code: one boot of 7.3 in twenty ends in `Oops: int3`.
const MIN_MAJOR: u32 = 10;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's translation.
    Tcg,
}

impl Accelerator {
    /// KVM where it is real. Some clouds' guests have a `/dev/kvm` that can't run ordinary guests in turn; only
    /// with a module of a processor's vendor it is worth a try.
    pub(super) fn of_this_machine() -> Self {
        let vendor =
            ["/sys/module/kvm_intel", "/sys/module/kvm_amd"].iter().any(|path| Path::new(path).exists());
        let opens = || File::options().read(true).write(true).open("/dev/kvm").is_ok();
        if vendor && opens() { Self::Kvm } else { Self::Tcg }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// A QEMU that can be started.
pub(super) struct Qemu {
    /// Where it was unpacked; none for the host's.
    root: Option<PathBuf>,
    /// What it runs guests with.
    pub(super) accelerator: Accelerator,
}

impl Qemu {
    /// The host's if it is new enough, else the newest for this release, below `dir`.
    pub(super) fn find(sources: &Sources, dir: &Path) -> Result<Self> {
        let accelerator = Accelerator::of_this_machine();
        let installed = exec::output(Command::new(PROGRAM).arg("--version")).ok();
        if installed.and_then(|version| major(&version)).is_some_and(|major| major >= MIN_MAJOR) {
            return Ok(Self { root: None, accelerator });
        }
        let backports = format!("{}-backports", sources.codename);
        let apt = Apt::open(&dir.join("apt"), sources, &[&sources.codename, &backports])?;
        let packages = packages(&apt, &backports)?;
        let stamp: String =
            packages.iter().map(|Package { name, version }| format!("{name}={version}\n")).collect();
        let (root, stamp_file) = (dir.join("root"), dir.join("packages"));
        let qemu = Self { root: Some(root.clone()), accelerator };
        if fs::read_to_string(&stamp_file).ok().as_ref() != Some(&stamp) {
            let version = packages.iter().find(|package| package.name == PACKAGE).map(|found| &found.version);
            eprintln!("Fetching {PACKAGE} {}", version.map_or("", |version| version));
            apt.unpack(&packages, &root)?;
            exec::output(qemu.command().arg("--version"))?;
            fs::write(&stamp_file, stamp).with_context(|| format!("writing {}", stamp_file.display()))?;
        }
        Ok(qemu)
    }

    /// A machine without anything but processors, memory and one serial port, which is its standard output. Its first
    /// program gets these arguments.
    pub(super) fn machine(
        &self,
        kernel: &Path,
        initramfs: &Path,
        init: &[&str],
        processors: u32,
        memory_mib: u32,
    ) -> Command {
        let mut command = self.command();
        match self.accelerator {
            Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
            Accelerator::Tcg => command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]),
        };
        // Not microvm: it has no timer to calibrate the clock with, which hangs on a busy host.
        command.args(["-machine", "q35", "-smp", &processors.to_string(), "-m", &format!("{memory_mib}M")]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-serial",
            "stdio",
        ]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
        // Warnings and worse; what is wrong enough for an oops ends the machine.
        let parameters = "console=ttyS0 quiet loglevel=5 oops=panic panic=-1";
        command.args(["-append", &format!("{parameters} -- {}", init.join(" "))]);
        command.stdin(Stdio::null());
        command
    }

    /// A program that takes QEMU's arguments and needs no environment, for those who start it themselves. Written
    /// to `wrapper` where it takes more than the host's QEMU.
    pub(super) fn emulator(&self, wrapper: &Path) -> Result<PathBuf> {
        if self.root.is_none() {
            return Ok(Path::new("/usr/bin").join(PROGRAM));
        }
        let mut script = "#!/bin/sh\n".to_owned();
        let command = self.command();
        for (name, value) in command.get_envs() {
            let value = value.unwrap_or_default();
            script += &format!("export {}='{}'\n", name.to_string_lossy(), value.to_string_lossy());
        }
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        script += &format!("exec {} \"$@\"\n", words.join(" "));
        fs::write(wrapper, script).with_context(|| format!("writing {}", wrapper.display()))?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(wrapper, mode)
            .with_context(|| format!("making {} executable", wrapper.display()))?;
        Ok(wrapper.to_owned())
    }

    fn command(&self) -> Command {
        let Some(root) = &self.root else { return Command::new(PROGRAM) };
        let mut command = Command::new(root.join("usr/bin").join(PROGRAM));
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|dir| root.join(dir));
        command.env("LD_LIBRARY_PATH", format!("{}:{}", libraries[0].display(), libraries[1].display()));
        for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(root.join(data));
        }
        command
    }
}

/// QEMU and all it depends on, without what the host has installed: those libraries are of the same release.
fn packages(apt: &Apt, backports: &str) -> Result<Vec<Package>> {
    let plan = |options: &[&str]| {
        let mut install = apt.get();
        install.args(["install", "--simulate", "--no-install-recommends", PACKAGE]).args(options);
        exec::output(&mut install)
    };
    // Not every release has backports.
    let plan = plan(&["--target-release", backports]).or_else(|_| plan(&[]))?;
    let mut query = Command::new("dpkg-query");
    let installed = exec::output(query.args(["--show", "-f", "${Package} ${db:Status-Status}\n"]))?;
    let installed: Vec<_> = installed.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    // Another version of a part of QEMU would not do.
    let needed =
        |package: &Package| package.name.starts_with("qemu-") || !installed.contains(&package.name.as_str());
    Ok(plan.lines().filter_map(planned).filter(needed).collect())
}
/// A line `Inst name (version suite [architecture])` of a simulation.
fn planned(line: &str) -> Option<Package> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    let version = rest.split_whitespace().next()?;
    Some(Package { name: name.to_owned(), version: version.to_owned() })
}

/// The first number of what `--version` prints.
fn major(version: &str) -> Option<u32> {
    version.strip_prefix("QEMU emulator version ")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        assert_eq!(
            major("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright"),
            Some(7)
        );
        assert_eq!(major("something else"), None);
    }

    #[test]
    fn an_emulator_brings_its_libraries_and_data() {
        let dir = std::env::temp_dir().join(format!("weir-emulator-{}", std::process::id()));
        fs::create_dir_all(dir.join("root/usr/bin")).expect("a temporary folder");
        let program = dir.join("root/usr/bin").join(PROGRAM);
        fs::write(&program, "#!/bin/sh\necho \"$LD_LIBRARY_PATH\" \"$@\"\n").expect("it is written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let qemu = Qemu { root: Some(dir.join("root")), accelerator: Accelerator::Tcg };
        let emulator = qemu.emulator(&dir.join("emulator")).expect("it is written");
        let said = exec::output(Command::new(emulator).arg("two words")).expect("it runs");
        assert!(said.starts_with(&format!("{}/root/usr/lib/x86_64-linux-gnu:", dir.display())), "{said}");
        assert!(said.contains("root/usr/share/seabios") && said.ends_with(" two words\n"), "{said}");
        fs::remove_dir_all(&dir).expect("it was ours");
    }

    #[test]
    fn what_a_simulation_would_install_is_read() {
        let package = planned("Inst libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])").expect("a package");
        assert_eq!(package, Package { name: "libfdt1".to_owned(), version: "1.6.1-4+b1".to_owned() });
        assert_eq!(planned("Conf libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])"), None);
    }
}
