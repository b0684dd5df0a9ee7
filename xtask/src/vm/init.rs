//! The first and only program that a virtual machine starts: it sets up what a kernel gives, tries the agent,
//! runs the tests, as root and as an ordinary user, says how that went, and turns the machine off.
//!
//! What it says goes to the console, where `console` reads it on the host.

use std::{
    fs,
    os::unix::fs::chown,
    path::Path,
    process::{self, Command},
};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use weir_tests::Process;

use super::console::MARK;

/// Where things are in the virtual machine. The tests are in the folder, under their names.
pub(super) const PAYLOAD: &str = "/payload";
pub(super) const TEST_ARGUMENTS: &str = "/payload/arguments";
pub(super) const AGENT: &str = "/payload/weir-agent";
pub(super) const AGENT_CONFIG: &str = "/payload/agent.toml";
pub(super) const PASSWD: &str = "/etc/passwd";

/// The tests that face the kernel: the agent's test targets of these names.
pub(super) const TESTS: &[&str] = &["tap", "control", "crash", "privileges", "node"];

/// What the tests and this program start, and Debian's packages that have it.
pub(super) const TOOLS: &[(&str, &str)] = &[
    ("/usr/bin/chown", "coreutils"),
    ("/usr/bin/env", "coreutils"),
    ("/usr/bin/prlimit", "util-linux"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/sha256sum", "coreutils"),
    ("/usr/bin/ssh-keygen", "openssh-client"),
    ("/usr/bin/unshare", "util-linux"),
];

/// The certificates that an agent which reports does not start without, and Debian's package that has them.
pub(super) const AUTHORITIES: (&str, &str) = ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates");

/// What the trial of the agent is called among the tests.
const AGENT_TEST: &str = "the_agent_starts_and_stops";

/// The agent's configuration: everything that may be left to its default is.
pub(super) const AGENT_CONFIG_TEXT: &str = "allowed_uids = [0]\n";

/// Who there is: ssh-keygen wants a name for its user.
pub(super) const PASSWD_TEXT: &str = "root:x:0:0::/scratch:/bin/sh\nweir-agent:x:990:990::/scratch:/bin/sh\n";

/// `weir-agent` of [`PASSWD_TEXT`].
const USER: u32 = 990;

/// The tests' temporary files. Not `/tmp`, below which the agent may lie if it was built there.
const SCRATCH: &str = "/scratch";

/// A BPF file system for the ordinary user, and what is its own of it: it can't mount one.
const USER_BPFFS: &str = "/run/bpf";
const USER_BPF_DIR: &str = "/run/bpf/tests";

/// Folders that have to be there, parents first.
pub(super) const FOLDERS: &[&str] = &[
    "/dev",
    "/etc",
    "/proc",
    "/run",
    USER_BPFFS,
    "/run/weir",
    SCRATCH,
    "/sys",
    "/var",
    "/var/lib",
    "/var/lib/weir",
];

/// Kinds of file systems, where they are mounted and with which options, in order.
const MOUNTS: &[(&str, &str, Option<&str>)] = &[
    ("proc", "/proc", None),
    ("sysfs", "/sys", None),
    ("devtmpfs", "/dev", None),
    ("tmpfs", SCRATCH, Some("mode=1777")),
    ("bpf", "/sys/fs/bpf", None),
    ("bpf", USER_BPFFS, Some("mode=0711")),
];

/// <https://docs.kernel.org/admin-guide/sysctl/kernel.html#unprivileged-bpf-disabled>
const UNPRIVILEGED_BPF: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

/// <https://docs.kernel.org/admin-guide/sysrq.html>
const SYSRQ: &str = "/proc/sysrq-trigger";

/// Runs as the machine's process 1, and has the kernel panic if that is what is tried. Does not return there: the
/// kernel panics when process 1 ends.
pub(super) fn run(panic: bool) -> Result<()> {
    ensure!(process::id() == 1, "this is what the virtual machines of `cargo xtask vm matrix` run");
    let status = match guest(panic) {
        Ok(status) => status,
        Err(error) => {
            println!("{MARK} error {error:#}");
            1
        }
    };
    println!("{MARK} end {status}");
    // Powers off without asking anybody.
    fs::write(SYSRQ, "o").context("turning the machine off")?;
    loop {
        std::thread::park();
    }
}

fn guest(panic: bool) -> Result<i32> {
    for (kind, at, options) in MOUNTS {
        let mounted = mount(Some(*kind), *at, Some(*kind), MsFlags::empty(), *options);
        mounted.with_context(|| format!("mounting {kind} on {at}"))?;
    }
    fs::create_dir(USER_BPF_DIR).with_context(|| format!("creating {USER_BPF_DIR}"))?;
    chown(USER_BPF_DIR, Some(USER), Some(USER)).with_context(|| format!("giving {USER_BPF_DIR} away"))?;
    // IFF_UP and IFF_LOOPBACK: the tests bind to 127.0.0.1.
    fs::write("/sys/class/net/lo/flags", "0x9").context("bringing the loopback device up")?;
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("asking for the kernel's release")?;
    println!("{MARK} kernel {}", release.trim());
    if panic {
        fs::write(SYSRQ, "c").context("having the kernel panic")?;
    }

    match try_agent() {
        Ok(()) => println!("{MARK} passed {AGENT_TEST}"),
        Err(error) => println!("{error:#}\n{MARK} failed {AGENT_TEST}"),
    }
    rounds()
}

/// As an administrator would: check the configuration, start it with a bpffs that nobody has used, stop it.
fn try_agent() -> Result<()> {
    let log = Path::new(SCRATCH).join("weir-agent.log");
    let command = || {
        let mut command = Command::new(AGENT);
        command.args(["--config", AGENT_CONFIG]);
        command
    };
    let check = command().arg("--check").status().context("starting the agent")?;
    ensure!(check.success(), "--check ended with {check}");
    let mut agent = Process::start("weir-agent", &mut command(), &log)?;
    agent.wait_for_line("ready", 0)?;
    let status = agent.stop();
    ensure!(status.success(), "stopped, the agent ended with {status}");
    Ok(())
}

/// All tests, and their worst exit status.
fn rounds() -> Result<i32> {
    let mut tap = Command::new(test("tap"));
    // These are most of the time, and for the ordinary user the kernel is the stricter one.
    tap.args(["--skip", "capturing::"]);
    let mut worst = round("root", tap)?;
    for name in ["tap", "control", "crash"] {
        worst = worst.max(round("user", as_user(&test(name)))?);
    }
    let privileges = || Command::new(test("privileges"));
    let mut node = unlimited();
    node.arg(test("node"));
    for command in [privileges(), node] {
        worst = worst.max(round("root", command)?);
    }
    // From 1 there is no way back.
    for value in ["0", "1"] {
        fs::write(UNPRIVILEGED_BPF, value).with_context(|| format!("setting {UNPRIVILEGED_BPF}"))?;
        let name = format!("root, unprivileged_bpf_disabled={value}");
        worst = worst.max(round(&name, privileges())?);
    }
    Ok(worst)
}

fn test(name: &str) -> String {
    format!("{PAYLOAD}/{name}")
}

/// As the agent's unit runs it: `CAP_BPF`, and locked memory without a limit, which matters before 5.11.
fn as_user(program: &str) -> Command {
    let mut command = unlimited();
    command.args(["/usr/bin/setpriv", "--no-new-privs", "--clear-groups"]);
    command.args([format!("--reuid={USER}"), format!("--regid={USER}")]);
    command.args(["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}=-all,+bpf")));
    command.arg(program).env("WEIR_TEST_BPFFS", USER_BPF_DIR);
    // Both take another user, which only root can be.
    command.args(["--skip", "other_users_cannot_even_connect", "--skip", "root_recovers_nothing"]);
    command
}

/// Runs what is added with locked memory without a limit.
fn unlimited() -> Command {
    let mut command = Command::new("/usr/bin/prlimit");
    command.arg("--memlock=unlimited");
    command
}

/// Runs one test program to its end, and returns its exit status.
fn round(name: &str, mut command: Command) -> Result<i32> {
    println!("{MARK} round {name}");
    let arguments = fs::read_to_string(TEST_ARGUMENTS).context("reading the tests' arguments")?;
    command.args(arguments.lines());
    let environment = [("RUST_BACKTRACE", "0"), ("PATH", "/usr/bin"), ("TMPDIR", SCRATCH), ("HOME", SCRATCH)];
    let status = command.envs(environment).status().context("starting the tests")?;
    status.code().with_context(|| format!("the tests ended with {status}"))
}
