//! The agent as an ordinary user: what it has to be given on the kernel at hand, that this is enough for all it does,
//! and what it says where something is missing. Takes root, which has all of it to give.

mod support;

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt, chown},
    process::Command,
};

use support::{
    AGENT, Agent, Node,
    proxy::{Control, meta, stdin, stdout},
    stored::verify,
    wait_until,
};
use weir_common::{
    control::{Reply, Request},
    frame::Direction,
    session::{ChannelNo, Outcome},
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;

/// Nobody's user id.
const USER: u32 = 4_990;

/// What the agent is given; it has no privilege besides.
#[derive(Clone, Copy, Debug)]
struct Given {
    /// As setpriv(1) writes them.
    capabilities: &'static str,
    /// RLIMIT_MEMLOCK, as prlimit(1) writes it.
    memlock: &'static str,
}

/// What the unit gives it.
const ENOUGH: Given = Given { capabilities: "-all,+bpf", memlock: NO_LIMIT };

const NO_LIMIT: &str = "unlimited";

/// What a process has where nobody sets it, before 5.16.
const LITTLE_MEMLOCK: &str = "65536";

/// A node laid out for an agent that is an ordinary user.
fn node(extra: &str) -> Node {
    let node = Node::new(extra);
    fs::set_permissions(node.path("bpf"), fs::Permissions::from_mode(0o711)).expect("root's");
    fs::create_dir(node.path("bpf/weir")).expect("a fresh file system");
    for own in [".", "bpf/weir"] {
        chown(node.path(own), Some(USER), Some(USER)).expect("root may");
    }
    node
}

fn spawn(node: &Node, given: Given) -> Agent {
    let Given { capabilities, memlock } = given;
    let mut command = Command::new("setpriv");
    // To lift the limit is not for root everywhere, and later kernels don't look at it.
    if memlock != NO_LIMIT || memory_counts() {
        command = Command::new("prlimit");
        command.arg(format!("--memlock={memlock}")).arg("setpriv");
    }
    command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()]);
    command.args(["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}={capabilities}")));
    command.arg("--no-new-privs");
    // Opened here: the build directory may lie where an ordinary user can't go.
    command.arg("/proc/self/fd/0").stdin(File::open(AGENT).expect("it is built"));
    node.spawn_by(command)
}

fn start(node: &Node, given: Given) -> Agent {
    let agent = spawn(node, given);
    agent.wait_for_log("ready");
    agent
}

/// Whether the kernel lets processes without capabilities use bpf(), for some of what there is.
fn anybody_may() -> bool {
    let disabled = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").expect("procfs");
    disabled.trim() == "0"
}

/// Whether BPF memory counts against RLIMIT_MEMLOCK.
fn memory_counts() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut number = || numbers.next().and_then(Result::ok).expect("a release is two numbers and more");
    (number(), number()) < (5, 11)
}

#[test]
fn an_agent_with_cap_bpf_alone_records_is_killed_goes_on_and_freezes() {
    let node = node("");
    let agent = start(&node, ENOUGH);
    let (meta, control) = (meta(), Control::connect(&node.socket()));
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    let mut tap = control.arm(0);
    let talk = |tap: &mut support::proxy::Tap| {
        for round in 0..100_usize {
            tap.pass(T2C, &stdout(&format!("round {round} ").repeat(1 + round * 37 % 400)));
            tap.pass(C2T, &stdin(&format!("{round}")));
        }
    };
    talk(&mut tap);
    agent.kill();
    tap.pass(C2T, &stdin("into the ring"));
    let agent = start(&node, ENOUGH);
    let control = Control::connect(&node.socket());
    assert_eq!(control.open(&meta, true), Some(Reply::Opened));
    talk(&mut tap);
    let mut second = control.arm(1);
    talk(&mut second);
    assert_eq!(control.disarm(1), Some(Reply::Disarmed { channel: ChannelNo(1) }));
    assert_eq!(control.ask(&Request::Freeze, &[]), Some(Reply::Frozen));
    assert!(!tap.try_pass(C2T, stdin("too late")));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    for (channel, tap) in [(0, &tap), (1, &second)] {
        for direction in [C2T, T2C] {
            assert!(recording.frames[&(ChannelNo(channel), direction)] == tap.sent(direction));
        }
    }
    let kernel = recording.manifest.channels[0].c2t.kernel.expect("counted");
    assert_eq!(kernel.tossed_frozen, 1);
    agent.stop();
}

#[test]
fn without_cap_bpf_no_other_capability_helps_unless_the_kernel_lets_anybody_use_bpf() {
    for capabilities in
        ["-all", "-all,+net_admin,+perfmon", "-all,+dac_override,+net_raw,+sys_ptrace,+setuid"]
    {
        let node = node("");
        let agent = spawn(&node, Given { capabilities, ..ENOUGH });
        let refused = "Operation not permitted";
        wait_until("the agent is ready or refused", || agent.logged("ready") || agent.logged(refused));
        if agent.logged("ready") {
            assert!(anybody_may(), "{capabilities}: {}", agent.log());
            agent.stop();
            continue;
        }
        let log = agent.wait_for_failure();
        // Where anybody may use bpf(), old kernels keep some of what the agent does with it to CAP_BPF.
        assert!(log.contains("CAP_BPF is missing") || anybody_may(), "{capabilities}: {log}");
        assert!(!node.socket().exists(), "{capabilities}: nobody can ask for a tap");
    }
}

#[test]
fn the_limit_on_locked_memory_matters_before_5_11_only() {
    let little = Given { memlock: LITTLE_MEMLOCK, ..ENOUGH };
    let node = node("");
    if !memory_counts() {
        start(&node, little).stop();
        return;
    }
    let log = spawn(&node, little).wait_for_failure();
    assert!(log.contains("RLIMIT_MEMLOCK is 64 KiB"), "{log}");
    assert!(!node.socket().exists());
    // Where nobody sets the limit the agent lifts it, if it may.
    start(&node, Given { capabilities: "-all,+bpf,+sys_resource", ..little }).stop();
}
