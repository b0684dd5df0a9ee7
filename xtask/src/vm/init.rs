//! The first and only program that a virtual machine starts: it sets up what a kernel gives, tries the agent,
//! runs the tests, says how that went, and turns the machine off.
//!
//! What it says goes to the console, where `console` reads it on the host.

use std::{
    fs,
    path::Path,
    process::{self, Command},
};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use weir_tests::Process;

use super::console::MARK;

/// Where things are in the virtual machine.
pub(super) const TESTS: &str = "/payload/tests";
pub(super) const TEST_ARGUMENTS: &str = "/payload/test-arguments";
pub(super) const AGENT: &str = "/payload/weir-agent";
pub(super) const AGENT_CONFIG: &str = "/payload/agent.toml";

/// What the trial of the agent is called among the tests.
const AGENT_TEST: &str = "the_agent_starts_and_stops";

/// The agent's configuration: everything that may be left to its default is.
pub(super) const AGENT_CONFIG_TEXT: &str = "allowed_uids = [0]\n";

/// Folders that have to be there, parents first.
pub(super) const FOLDERS: &[&str] =
    &["/dev", "/etc", "/proc", "/run", "/run/weir", "/sys", "/tmp", "/var", "/var/lib", "/var/lib/weir"];

/// Kinds of file systems and where they are mounted, in order.
const MOUNTS: &[(&str, &str)] =
    &[("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp"), ("bpf", "/sys/fs/bpf")];

/// Runs as the machine's process 1. Does not return there: the kernel panics when process 1 ends.
pub(super) fn run() -> Result<()> {
    ensure!(process::id() == 1, "this is what the virtual machines of `cargo xtask vm matrix` run");
    let status = match guest() {
        Ok(status) => status,
        Err(error) => {
            println!("{MARK} error {error:#}");
            1
        }
    };
    println!("{MARK} end {status}");
    // https://docs.kernel.org/admin-guide/sysrq.html: powers off without asking anybody.
    fs::write("/proc/sysrq-trigger", "o").context("turning the machine off")?;
    loop {
        std::thread::park();
    }
}

fn guest() -> Result<i32> {
    for (kind, at) in MOUNTS {
        let mounted = mount(Some(*kind), *at, Some(*kind), MsFlags::empty(), None::<&str>);
        mounted.with_context(|| format!("mounting {kind} on {at}"))?;
    }
    // IFF_UP and IFF_LOOPBACK: the tests bind to 127.0.0.1.
    fs::write("/sys/class/net/lo/flags", "0x9").context("bringing the loopback device up")?;
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("asking for the kernel's release")?;
    println!("{MARK} kernel {}", release.trim());

    match try_agent() {
        Ok(()) => println!("{MARK} passed {AGENT_TEST}"),
        Err(error) => println!("{error:#}\n{MARK} failed {AGENT_TEST}"),
    }
    let arguments = fs::read_to_string(TEST_ARGUMENTS).context("reading the tests' arguments")?;
    let status = Command::new(TESTS).args(arguments.lines()).env("RUST_BACKTRACE", "0").status();
    let status = status.context("starting the tests")?;
    status.code().with_context(|| format!("the tests ended with {status}"))
}

/// As an administrator would: check the configuration, start it with a bpffs that nobody has used, stop it.
fn try_agent() -> Result<()> {
    let log = Path::new("/tmp/weir-agent.log");
    let command = || {
        let mut command = Command::new(AGENT);
        command.args(["--config", AGENT_CONFIG]);
        command
    };
    let check = command().arg("--check").status().context("starting the agent")?;
    ensure!(check.success(), "--check ended with {check}");
    let mut agent = Process::start("weir-agent", &mut command(), log)?;
    agent.wait_for_line("ready", 0)?;
    let status = agent.stop();
    ensure!(status.success(), "stopped, the agent ended with {status}");
    Ok(())
}
