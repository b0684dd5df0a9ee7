//! `weir-agent check` and an agent that cannot start, on nodes that do not fit: by ordinary users with and without
//! CAP_BPF, in namespaces, without a BPF file system, beside an agent at work. They need root, and setpriv(1),
//! unshare(1) and mount(8) of util-linux.

mod support;

use std::{
    fs::{self, File},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Output},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;
use support::{
    AGENT, Node, names,
    proxy::{Control, meta, stdin},
    stored::verify,
};
use weir_common::{
    control::Reply,
    frame::{ChannelType, Direction, Message},
    session::{ChannelNo, Outcome},
};

/// An ordinary user, whom no file of the system belongs to.
const USER: u32 = 54_321;
const C2T: Direction = Direction::ClientToTarget;

/// A node whose directories are this user's.
fn node(owner: u32) -> Node {
    let node = Node::new("");
    for name in ["", "bpf", "state", "store", "run"] {
        let dir = node.path(name);
        fs::create_dir_all(&dir).expect("a fresh directory");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("an own directory");
        chown(&dir, Some(owner), Some(owner)).expect("root may");
    }
    node
}

/// The agent's program with these words before it.
fn command(before: &[&str]) -> Command {
    let mut command = Command::new(before[0]);
    // Opened here: the build directory may lie where an ordinary user can't go.
    command.args(&before[1..]).arg("/proc/self/fd/0").stdin(File::open(AGENT).expect("it is built"));
    command
}

fn with(node: &Node, before: &[&str], arguments: &[&str]) -> Output {
    let config = node.write_config();
    command(before).args(arguments).arg("--config").arg(config).output().expect("it runs")
}

const PLAIN_USER: [&str; 5] = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--"];
const BPF_USER: [&str; 8] = [
    "setpriv",
    "--reuid=54321",
    "--regid=54321",
    "--clear-groups",
    "--bounding-set=-all,+bpf",
    "--inh-caps=-all,+bpf",
    "--ambient-caps=-all,+bpf",
    "--",
];

/// Has bpf() fail with this error in the program that is started (seccomp(2)).
fn without_bpf(mut command: Command, errno: u32) -> Command {
    let filter =
        |code: u32, jf, k| libc::sock_filter { code: u16::try_from(code).expect("16 bits"), jt: 0, jf, k };
    let bpf = u32::try_from(libc::SYS_bpf).expect("a small number");
    let filters = [
        filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, bpf),
        filter(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno),
        filter(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: 4, filter: filters.as_ptr().cast_mut() };
        // SAFETY: the kernel copies the program, which lives until the call returns, and changes nothing.
        let done =
            unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: one system call, which is all that is done between fork and exec.
    unsafe { command.pre_exec(install) };
    command
}

struct Checked {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Checked {
    fn run(node: &Node, before: &[&str]) -> Self {
        Self::of(&with(node, before, &["check", "--json"]))
    }

    fn of(output: &Output) -> Self {
        let findings = serde_json::from_slice(&output.stdout);
        let findings = findings.unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self { code: output.status.code(), findings }
    }

    /// The level, and text and advice in one.
    fn find(&self, about: &str) -> (&str, String) {
        let finding = self.findings.iter().find(|finding| finding["about"] == about);
        let finding = finding.unwrap_or_else(|| panic!("nothing about {about} in {:#?}", self.findings));
        let text = |key| finding[key].as_str().unwrap_or_default();
        (text("level"), format!("{} → {}", text("text"), text("advice")))
    }

    fn problems(&self) -> Vec<&str> {
        let problems = self.findings.iter().filter(|finding| finding["level"] == "problem");
        problems.map(|finding| finding["about"].as_str().expect("text")).collect()
    }

    fn says(&self, about: &str, level: &str, words: &[&str]) {
        let (found, text) = self.find(about);
        assert_eq!(found, level, "{text}");
        for word in words {
            assert!(text.contains(word), "no {word:?} in {text:?}");
        }
    }
}

/// What a start that fails says.
fn told(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_ordinary_user_with_cap_bpf_alone_is_fine_and_the_agent_it_starts_gets_ready() {
    let node = node(USER);
    let checked = Checked::run(&node, &BPF_USER);
    assert_eq!((checked.code, checked.problems()), (Some(0), vec![]), "{:#?}", checked.findings);
    assert_eq!(checked.find("capabilities"), ("ok", "CAP_BPF → ".to_owned()));
    for about in ["kernel", "user namespace", "seccomp", "BPF maps", "BPF program", "tap", "bpffs", "pins"] {
        assert_eq!(checked.find(about).0, "ok", "{about}");
    }
    assert!(!node.path("bpf/weir").exists(), "nothing was pinned");
    let agent = node.spawn_by(command(&BPF_USER));
    agent.wait_for_log("ready");
    assert_eq!(fs::metadata(node.path("bpf/weir")).expect("pinned").uid(), USER);
    Checked::run(&node, &BPF_USER).says("running agent", "ok", &["leaves them alone"]);
    agent.stop();
    Checked::run(&node, &BPF_USER).says("pins", "ok", &["2-0"]);
    Checked::run(&node, &["env"]).says("user", "warning", &["this is root", "belongs to user 54321"]);
}

#[test]
fn an_ordinary_user_without_any_is_told_the_capability_by_the_check_and_by_the_start() {
    let node = node(USER);
    let checked = Checked::run(&node, &PLAIN_USER);
    assert_eq!(
        (checked.code, checked.problems()),
        (Some(1), vec!["capabilities"]),
        "{:#?}",
        checked.findings
    );
    checked.says(
        "capabilities",
        "problem",
        &["CAP_BPF is missing", "(54321)", "systemd: AmbientCapabilities=CAP_BPF", "--cap-add BPF"],
    );
    checked.says("bpf()", "cannot_tell", &["Operation not permitted", "reason above"]);
    let said = told(&with(&node, &PLAIN_USER, &[]));
    for words in ["CAP_BPF is missing", "What to do: systemd: AmbientCapabilities=CAP_BPF"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
}

#[test]
fn in_a_user_namespace_even_roots_capabilities_are_said_to_be_worth_nothing() {
    let node = node(0);
    let unshare = ["unshare", "--user", "--map-root-user", "--"];
    let checked = Checked::run(&node, &unshare);
    checked.says("user namespace", "problem", &["no capability permits bpf()", "PrivateUsers="]);
    assert_eq!(checked.find("capabilities").0, "cannot_tell");
    assert_eq!(checked.code, Some(1));
    assert!(told(&with(&node, &unshare, &[])).contains("user namespace: one of its own"));
}

#[test]
fn a_seccomp_filter_is_found_out_in_spite_of_every_capability() {
    let node = node(0);
    for errno in [libc::EPERM, libc::ENOSYS] {
        let mut command = without_bpf(Command::new(AGENT), u32::try_from(errno).expect("positive"));
        let output = command.args(["check", "--json", "--config"]).arg(node.write_config()).output();
        let checked = Checked::of(&output.expect("it runs"));
        assert_eq!(checked.problems(), ["seccomp"], "{:#?}", checked.findings);
        checked.says("seccomp", "problem", &["refuses bpf()", "seccompProfile"]);
    }
}

#[test]
fn without_a_bpf_file_system_the_command_that_mounts_one_is_said() {
    let node = node(USER);
    umount2(&node.path("bpf"), MntFlags::MNT_DETACH).expect("mounted");
    let checked = Checked::run(&node, &BPF_USER);
    let command = format!("mount -t bpf bpf {}", node.path("bpf").display());
    assert_eq!((checked.code, checked.problems()), (Some(1), vec!["bpffs"]));
    checked.says("bpffs", "problem", &["is not a BPF file system", &command, "hostPath"]);
    assert!(told(&with(&node, &BPF_USER, &[])).contains(&command));
    fs::remove_dir(node.path("bpf")).expect("empty");
    Checked::run(&node, &BPF_USER).says("bpffs", "problem", &["does not exist", &command]);
}

#[test]
fn a_bpf_file_system_that_is_read_only_somebody_elses_or_out_of_reach_is_told_as_what_it_is() {
    let mut node = node(USER);
    let bpf = node.path("bpf");
    let read_only = |flags| mount(None::<&str>, &bpf, None::<&str>, flags, None::<&str>).expect("root may");
    read_only(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
    let checked = Checked::run(&node, &BPF_USER);
    checked.says("bpffs", "problem", &["read-only", "ProtectKernelTunables="]);
    assert!(told(&with(&node, &BPF_USER, &[])).contains("is mounted read-only"));
    read_only(MsFlags::MS_REMOUNT);
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root may");
        chown(path, Some(0), Some(0)).expect("root may");
    };
    mode(&bpf, 0o755);
    let checked = Checked::run(&node, &BPF_USER);
    checked.says(
        "bpffs",
        "problem",
        &["may not pin in", "root's, mode 0755", "mount -t bpf", "Permission denied"],
    );
    assert_eq!(checked.problems(), ["bpffs"]);
    assert!(told(&with(&node, &BPF_USER, &[])).contains("may not pin in"));
    let closed = node.path("closed");
    fs::create_dir_all(closed.join("bpf")).expect("a fresh directory");
    mode(&closed, 0o700);
    node.configure(&format!("bpf_dir = {:?}\n", closed.join("bpf").display().to_string()));
    Checked::run(&node, &BPF_USER).says(
        "bpffs",
        "problem",
        &["cannot be reached", "let this user through", "closed (root's, mode 0700)"],
    );
}

#[test]
fn pins_that_an_agent_of_another_user_has_left_are_told() {
    let node = node(USER);
    node.start().stop();
    let give = |names: &[&str]| {
        let paths = names.iter().map(|name| node.path(name));
        let given = Command::new("chown").args(["-hR", "54321:54321"]).args(paths).status();
        assert!(given.expect("it runs").success());
    };
    // The next agent is another user's, who was given everything but the pins.
    give(&["state", "store", "run"]);
    let weir = node.path("bpf/weir");
    let checked = Checked::run(&node, &BPF_USER);
    checked.says("pins", "problem", &["may not use", "bpf/weir (root's, mode 0700)"]);
    for (made_own, refused) in
        [("", "2 (root's, mode 0700)"), ("2", "2/0 (root's, mode 0700)"), ("2/0", "2/0/")]
    {
        chown(weir.join(made_own), Some(USER), Some(USER)).expect("root may");
        let checked = Checked::run(&node, &BPF_USER);
        assert_eq!((checked.code, checked.problems()), (Some(1), vec!["pins"]), "{:#?}", checked.findings);
        checked.says("pins", "problem", &["may not use", refused, "root's", "rm -r", "chown -R 54321 "]);
        let said = told(&with(&node, &BPF_USER, &[]));
        assert!(said.contains("may not use") && said.contains(refused), "{said}");
    }
    give(&["bpf/weir"]);
    let agent = node.spawn_by(command(&BPF_USER));
    agent.wait_for_log("ready");
    agent.stop();
}

#[test]
fn the_maps_of_all_rings_are_made_at_a_time_as_limits_are_on_the_sum() {
    // Any limit would do, and of this one every kernel takes notice.
    let limited = ["prlimit", "--nofile=50:50", "--"];
    let mut node = node(0);
    assert_eq!(Checked::run(&node, &limited).find("BPF maps").0, "ok");
    node.configure("cpu_groups = [\"0\", \"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\", \"9\"]\n");
    Checked::run(&node, &["env"]).says("BPF maps", "ok", &["10 rings, each"]);
    Checked::run(&node, &limited).says("BPF maps", "problem", &["Too many open files"]);
}

#[test]
fn what_another_users_interrupted_recovery_left_among_the_reports_is_logged_and_keeps_no_agent_from_starting()
{
    let mut node = node(USER);
    let token = node.path("token");
    fs::write(&token, "a token").expect("writable");
    node.configure(&format!(
        "[report]\nurl = \"https://localhost:1/api/v1/reports\"\ntoken_file = {:?}\n",
        token.display().to_string()
    ));
    let reports = node.path("state/reports");
    let left = reports.join(".tmp/left");
    fs::create_dir_all(&left).expect("a fresh directory");
    fs::set_permissions(&left, fs::Permissions::from_mode(0o700)).expect("an own directory");
    for own in [&reports, &reports.join(".tmp")] {
        chown(own, Some(USER), Some(USER)).expect("root may");
    }
    let agent = node.spawn_by(command(&BPF_USER));
    agent.wait_for_log("ready");
    assert!(agent.logged("what an interrupted write left stays"), "{}", agent.log());
    agent.stop();
    assert!(left.is_dir());
}

#[test]
fn a_check_beside_an_agent_with_an_armed_tap_changes_nothing_and_the_session_is_whole() {
    let node = Node::new("");
    let agent = node.start();
    let (meta, control) = (meta(), Control::connect(&node.socket()));
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    let mut tap = control.arm(0);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    let pinned = || names(&node.path("bpf/weir/2/0"));
    let (before, descriptors) = (pinned(), agent.open_descriptors());
    for _ in 0..3 {
        let output = Command::new(AGENT)
            .args(["check", "--json", "--config"])
            .arg(node.write_config())
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.contains("uses the pins; this check leaves them alone"), "{text}");
        tap.pass(C2T, &stdin("while it is checked"));
    }
    assert_eq!((pinned(), agent.open_descriptors()), (before, descriptors));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    let recording = verify(&node, meta.session_id);
    assert_eq!(recording.frames[&(ChannelNo(0), C2T)], tap.sent(C2T));
    agent.stop();
}
