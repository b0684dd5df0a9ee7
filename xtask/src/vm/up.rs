//! `cargo xtask vm up`: the machines of the whole-system tests, from nothing to provisioned.

use std::{
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{
    apt::Apt,
    boot_files::{self, BootFiles},
    down,
    kernel::Series,
    lab, libvirt,
    qemu::{Accelerator, Qemu},
    sources::Sources,
    status,
    vagrant_box::{self, VagrantBox},
};
use crate::{exec, package, prerequisites, test, workspace};

/// Start the machines of the whole-system tests with Vagrant and libvirt. Takes root.
///
/// Box, kernel and packages come from Debian's mirror and this workspace; everything is below target/vm/lab, and
/// everything runs in the network namespace weirvm. tests/vm/README.md says what the machines are.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The kernel series that the machines run; 6.1 if none is named.
    #[arg(long)]
    kernel: Option<Series>,
    /// The Debian release in the machines.
    #[arg(long, default_value = vagrant_box::SUITE)]
    suite: String,
    /// A folder with Weir's packages and weir-s3, instead of building them.
    #[arg(long)]
    packages: Option<PathBuf>,
}

impl Options {
    /// The usual machines, on this kernel if one is named.
    pub(super) fn on(kernel: Option<Series>) -> Self {
        Self { kernel, suite: vagrant_box::SUITE.to_owned(), packages: None }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    bring_up(options)?;
    status::print(&lab::dir()?)
}

/// Brings them up, unless they are up. Says what it does on standard error alone.
///
/// # Errors
/// If they can't be brought up, or are up on another kernel than one that is named.
pub(super) fn bring_up(options: &Options) -> Result<()> {
    lab::ensure_root()?;
    let dir = lab::dir()?;
    if is_complete(&dir)? {
        return say_what_they_have(&dir, options.kernel);
    }
    let kernel = options.kernel.unwrap_or_else(|| DEFAULT_KERNEL.parse().expect("a series"));
    let started = Instant::now();
    let say = |what: &str| eprintln!("[{:>3} s] {what}", started.elapsed().as_secs());
    prerequisites::ensure_for_machines()?;
    // What an interrupted `up` has left is in nobody's way then.
    down::clear(&dir)?;
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let packages = match &options.packages {
        Some(folder) => folder.canonicalize().with_context(|| format!("looking for {}", folder.display()))?,
        None => {
            say("Building Weir's packages and weir-s3");
            build_packages(&dir.join("packages"))?
        }
    };
    let sources = Sources::of_this_machine()?;
    say("Looking for QEMU, a kernel and the box");
    let qemu = Qemu::find(&sources, &dir.with_file_name("qemu"))?;
    let boot = boot_files(&sources, &dir, kernel)?;
    let vagrant_box = vagrant_box::build(&dir.join("box"), &sources, &options.suite)?;

    say("Starting libvirt");
    libvirt::start(&dir)?;
    lab::remember(&dir, &environment(&dir, &qemu, &boot, &vagrant_box, &packages)?)?;
    add_box(&dir, &vagrant_box)?;
    say(&format!("Starting the machines on Linux {kernel} with {}", qemu.accelerator.name()));
    exec::run(vagrant()?.args(["up", "--provider", "libvirt"]).stdout(io::stderr()))?;
    let config = exec::output(lab::vagrant()?.arg("ssh-config"))?;
    let file = lab::ssh_config(&dir);
    fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
    say("The machines are up");
    Ok(())
}

/// Machines that are up keep kernel and packages, whatever is built or asked for later.
fn say_what_they_have(dir: &Path, wanted: Option<Series>) -> Result<()> {
    let kernel = lab::remembered(dir, "WEIR_VM_KERNEL")?;
    let series = kernel.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    ensure!(
        wanted.is_none_or(|wanted| wanted.to_string() == series),
        "the machines are up on Linux {series}; `cargo xtask vm down` ends them"
    );
    let minutes = lab::since(dir)?.elapsed().unwrap_or_default().as_secs() / 60;
    eprintln!(
        "The machines have been up for {minutes} minutes, on Linux {series} and with the packages that were in {} then: what was \
         built since is not in them. `cargo xtask vm down` ends them.",
        packages(dir)?.display()
    );
    Ok(())
}

/// Where the packages are that the machines have.
pub(super) fn packages(dir: &Path) -> Result<PathBuf> {
    lab::remembered(dir, PACKAGES)
}

/// Whether everything is there: the way into the machines is written down last.
fn is_complete(dir: &Path) -> Result<bool> {
    Ok(lab::ssh_config(dir).exists() && libvirt::exists()? && libvirt::answers(dir))
}

/// What a machine is booted with, for a kernel of this series.
pub(super) fn boot_files(sources: &Sources, dir: &Path, series: Series) -> Result<BootFiles> {
    let kernels = dir.with_file_name("kernels");
    let suite = series.suite();
    // Not the matrix's: it would read its lists again each time.
    let apt = Apt::open(&kernels.join(format!("apt-{suite}")), sources, &[suite])?;
    boot_files::prepare(&apt, &kernels, &dir.join("boot"), series)
}

/// Debian packages, and the S3 server that stands in for a bucket. They are in a folder of their own with nothing else in it: in
/// `target/packages` may be what somebody ships.
fn build_packages(packages: &Path) -> Result<PathBuf> {
    if packages.exists() {
        fs::remove_dir_all(packages).with_context(|| format!("removing {}", packages.display()))?;
    }
    package::make(&package::Options::dev(packages))?;
    let target = workspace::target_dir()?;
    let mut build = workspace::cargo();
    // Of the same packages as the tests: by itself its dependencies would be built once more, with other features.
    build.args(["build", "--locked", "--bin", S3_SERVER]).args(test::PACKAGES);
    exec::run(&mut build)?;
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(packages.join(S3_SERVER));
    exec::run(strip.arg(target.join("debug").join(S3_SERVER)))?;
    Ok(packages.to_owned())
}

/// What the Vagrantfile reads, and what this program wants to know later.
fn environment(
    dir: &Path,
    qemu: &Qemu,
    boot: &BootFiles,
    vagrant_box: &VagrantBox,
    packages: &Path,
) -> Result<Vec<(&'static str, String)>> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let driver = match qemu.accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "qemu",
    };
    Ok(vec![
        ("WEIR_VM_BOX", vagrant_box.name.clone()),
        ("WEIR_VM_KERNEL", path(&boot.kernel)),
        ("WEIR_VM_INITRAMFS", path(&boot.initramfs)),
        ("WEIR_VM_DRIVER", driver.to_owned()),
        ("WEIR_VM_EMULATOR", path(&qemu.emulator(&dir.join("qemu-system-x86_64"))?)),
        (PACKAGES, path(packages)),
    ])
}

/// Tells Vagrant of the box, unless it has this one already.
fn add_box(dir: &Path, vagrant_box: &VagrantBox) -> Result<()> {
    let VagrantBox { name, file, stamp } = vagrant_box;
    ensure!(file.exists(), "the box {} is gone", file.display());
    let noted = dir.join("vagrant").join(format!("{}.stamp", name.replace('/', "-")));
    if fs::read_to_string(&noted).is_ok_and(|present| present == *stamp) {
        return Ok(());
    }
    exec::run(vagrant()?.args(["box", "add", "--force", "--name", name]).arg(file))?;
    fs::write(&noted, stamp).with_context(|| format!("writing {}", noted.display()))
}

/// Vagrant, with a line of progress for those who see it move.
fn vagrant() -> Result<Command> {
    let mut vagrant = lab::vagrant()?;
    if !io::stderr().is_terminal() {
        vagrant.arg("--no-tty");
    }
    Ok(vagrant)
}

/// Debian 12's, as the machines are.
const DEFAULT_KERNEL: &str = "6.1";

/// Where the Vagrantfile looks for packages.
const PACKAGES: &str = "WEIR_VM_PACKAGES";

/// The S3 server.
const S3_SERVER: &str = "weir-s3";

#[cfg(test)]
mod tests {
    use super::*;

    fn tests_vm(path: &str) -> PathBuf {
        workspace::root().join("tests/vm").join(path)
    }

    #[test]
    fn every_machine_is_in_the_vagrantfile_and_has_a_script_that_is_shell() {
        let vagrantfile = fs::read_to_string(tests_vm("Vagrantfile")).expect("it is in the repository");
        let common = fs::read_to_string(tests_vm("provision/common.sh")).expect("it is in the repository");
        for machine in lab::MACHINES {
            assert!(vagrantfile.contains(&format!("\n  \"{machine}\" => {{")), "{machine}");
            let own =
                fs::read_to_string(tests_vm(&format!("provision/{machine}.sh"))).expect("it has a script");
            // As the Vagrantfile puts them together.
            exec::output(Command::new("sh").args(["-nc", &format!("{common}\n{own}")])).expect("it is shell");
        }
        for script in ["box/customize.sh", "box/init", "provision/keys.sh"] {
            exec::output(Command::new("sh").arg("-n").arg(tests_vm(script))).expect("it is shell");
        }
    }

    #[test]
    fn machines_that_are_up_on_another_kernel_are_not_what_was_asked_for() {
        let dir = std::env::temp_dir().join(format!("weir-vm-has-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary folder");
        let noted = [("WEIR_VM_KERNEL", "/lab/boot/5.10/vmlinuz"), (PACKAGES, "/lab/packages")];
        lab::remember(&dir, &noted.map(|(name, value)| (name, value.to_owned()))).expect("it is written");
        let series = |text: &str| Some(text.parse().expect("a series"));
        say_what_they_have(&dir, None).expect("whatever they run");
        say_what_they_have(&dir, series("5.10")).expect("what they run");
        let error = say_what_they_have(&dir, series(DEFAULT_KERNEL)).expect_err("another").to_string();
        assert!(error.contains("up on Linux 5.10"), "{error}");
        fs::remove_dir_all(&dir).expect("it was ours");
    }

    #[test]
    fn provisioning_takes_the_only_version_of_a_package_and_chooses_among_none() {
        let dir = std::env::temp_dir().join(format!("weir-vm-packages-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary folder");
        let common = fs::read_to_string(tests_vm("provision/common.sh")).expect("it is in the repository");
        let functions = &common[common.find("fail() {").expect("it has functions")..];
        let end = functions.find("# Installs packages").expect("what comes behind them");
        let functions = functions[..end].replace("/weir/packages", &dir.to_string_lossy());
        let script =
            format!("set -eu; name=connector; {functions}\nfile=$(package weir-agent)\necho \"$file\"");
        let run = || exec::output(Command::new("sh").args(["-c", &script]));
        run().expect_err("there is none");
        let package = |name: &str| {
            let path = dir.join(name);
            fs::write(&path, "").expect("writable");
            path
        };
        package("weir_1.0_amd64.deb");
        let one = package("weir-agent_1.0_amd64.deb");
        assert_eq!(run().expect("there is one").trim_end(), one.to_string_lossy());
        package("weir-agent_1.1_amd64.deb");
        let error = run().expect_err("there are two").to_string();
        assert!(error.contains("several versions of weir-agent"), "{error}");
        fs::remove_dir_all(&dir).expect("it was ours");
    }

    #[test]
    fn keys_are_made_once() {
        let dir = std::env::temp_dir().join(format!("weir-vm-keys-{}", std::process::id()));
        let make = || exec::run(Command::new("sh").arg(tests_vm("provision/keys.sh")).arg(&dir));
        let read = || fs::read(dir.join("target_host.pub")).expect("there is a key");
        make().expect("they are made");
        let first = read();
        make().expect("they are there");
        assert_eq!(read(), first);
        fs::remove_dir_all(&dir).expect("it was ours");
    }
}
