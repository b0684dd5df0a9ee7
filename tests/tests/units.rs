//! The systemd units under `deploy/systemd`: systemd itself reads them, and says what they leave open.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

const AGENT: &str = "weir-agent.service";
const PROXY: &str = "weir-proxy.service";
const MOUNT: &str = "run-weir-bpf.mount";

fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd").join(path)
}

fn text(unit: &str) -> String {
    fs::read_to_string(deployed(unit)).expect("the unit is there")
}

/// The values of a directive, in their order.
fn values(unit: &str, directive: &str) -> Vec<String> {
    let start = format!("{directive}=");
    text(unit).lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
}

/// Runs it; what it says on both outputs, and whether it was content.
fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("systemd's tools are installed");
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(told).expect("UTF-8"))
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    let dir = TempDir::new().expect("a temporary directory");
    let units: Vec<_> = [AGENT, PROXY, MOUNT].map(|unit| dir.path().join(unit)).into();
    for (path, unit) in units.iter().zip([AGENT, PROXY, MOUNT]) {
        // The programs are not installed on this machine, and systemd looks for them.
        let here = text(unit)
            .replace("/usr/bin/weir-agent", "/bin/true")
            .replace("/usr/bin/weir-proxy", "/bin/true");
        fs::write(path, here).expect("writable");
    }
    let mut verify = Command::new("systemd-analyze");
    let (fine, told) = run(verify.args(["verify", "--man=no", "--recursive-errors=no"]).args(&units));
    assert!(fine && !told.contains("weir"), "{told}");
}

/// The exposure that `systemd-analyze security` sums up to, 0 to 10.
fn exposure(unit: &str) -> (f64, String) {
    let mut security = Command::new("systemd-analyze");
    security.env("LC_ALL", "C.UTF-8").env("SYSTEMD_COLORS", "0");
    let (_, told) = run(security.args(["security", "--no-pager", "--offline=true"]).arg(deployed(unit)));
    let sum =
        told.lines().find_map(|line| line.split_once("Overall exposure level for ").map(|(_, sum)| sum));
    let number = sum.and_then(|sum| sum.split_whitespace().nth(1)).and_then(|number| number.parse().ok());
    (number.unwrap_or_else(|| panic!("no sum for {unit}: {told}")), told)
}

#[test]
fn the_units_leave_little_open() {
    for (unit, most) in [(PROXY, 1.5), (AGENT, 2.0)] {
        let (found, told) = exposure(unit);
        assert!(found <= most, "{unit}: {found} is above {most}\n{told}");
    }
}

#[test]
fn the_proxy_has_no_capability_and_the_agent_the_one_that_bpf_takes() {
    assert_eq!(values(PROXY, "CapabilityBoundingSet"), [""]);
    assert_eq!(values(PROXY, "AmbientCapabilities"), [""]);
    assert_eq!(values(AGENT, "CapabilityBoundingSet"), ["CAP_BPF"]);
    assert_eq!(values(AGENT, "AmbientCapabilities"), ["CAP_BPF"]);
    for (unit, user) in [(PROXY, "weir-proxy"), (AGENT, "weir-agent")] {
        assert_eq!((values(unit, "User"), values(unit, "Group")), (vec![user.into()], vec![user.into()]));
    }
}

#[test]
fn an_agent_that_ends_is_started_again_for_ever_and_takes_nobody_with_it() {
    assert_eq!(values(AGENT, "Restart"), ["always"]);
    assert_eq!(values(AGENT, "StartLimitIntervalSec"), ["0"]);
    for directive in ["Requires", "BindsTo", "PartOf", "Requisite"] {
        assert_eq!(values(PROXY, directive), [""; 0], "{directive} would end sessions with the agent");
        assert_eq!(values(AGENT, directive), [""; 0]);
    }
    assert_eq!(values(PROXY, "Wants"), [AGENT]);
    // What goes with the agent must not be where taps are pinned.
    assert_eq!(values(AGENT, "RuntimeDirectory"), [""; 0]);
    assert_eq!(values(MOUNT, "RefuseManualStop"), ["yes"]);
}

#[test]
fn pins_that_root_left_are_given_to_the_agent_before_it_starts() {
    let dir = "/run/weir/bpf/weir";
    let commands = values(AGENT, "ExecStartPre");
    assert_eq!(
        commands,
        [
            // As root, whatever the unit gives the agent; the directory first, so that the second has one.
            format!("+/usr/bin/install -d -m 0700 -o weir-agent -g weir-agent {dir}"),
            // No symbolic link is followed.
            format!("+/usr/bin/chown -hR weir-agent:weir-agent {dir}"),
        ]
    );
    // Only root can put something in the place of the directory: what is around it is a mount of root's.
    assert_eq!(values(AGENT, "RequiresMountsFor"), [values(MOUNT, "Where").concat()]);
    assert!(values(MOUNT, "Options").concat().ends_with("mode=0711"));
}

/// A root directory with nothing but what systemd-sysusers makes of our files.
fn made(users: &[&str]) -> TempDir {
    let root = TempDir::new().expect("a temporary directory");
    fs::create_dir(root.path().join("etc")).expect("writable");
    let files = users.iter().map(|name| deployed(&format!("sysusers.d/{name}.conf")));
    let mut sysusers = Command::new("systemd-sysusers");
    let (fine, told) = run(sysusers.arg(format!("--root={}", root.path().display())).args(files));
    assert!(fine, "{told}");
    root
}

#[test]
fn both_users_are_in_the_group_of_the_control_socket_whichever_package_comes_first() {
    let order = [["weir-agent", "weir-proxy"], ["weir-proxy", "weir-agent"]];
    for root in order.map(|users| made(&users)) {
        let read = |name: &str| fs::read_to_string(root.path().join("etc").join(name)).expect("is made");
        let (users, groups) = (read("passwd"), read("group"));
        let group = groups.lines().find(|line| line.starts_with("weir:")).expect("the group");
        let mut members: Vec<_> = group.rsplit(':').next().expect("members").split(',').collect();
        members.sort_unstable();
        assert_eq!(members, ["weir-agent", "weir-proxy"], "{groups}");
        for user in ["weir-agent:", "weir-proxy:"] {
            let line = users.lines().find(|line| line.starts_with(user)).expect("the user");
            assert!(line.ends_with("/nologin"), "{line}");
        }
    }
    // A proxy whose agent is elsewhere makes its own user only.
    let users = fs::read_to_string(made(&["weir-proxy"]).path().join("etc/passwd")).expect("is made");
    assert!(users.contains("weir-proxy:") && !users.contains("weir-agent:"), "{users}");
}

#[test]
fn directories_belong_to_those_who_use_them() {
    let root = made(&["weir-agent", "weir-proxy"]);
    let files = ["weir-agent", "weir-proxy"].map(|name| deployed(&format!("tmpfiles.d/{name}.conf")));
    let mut tmpfiles = Command::new("systemd-tmpfiles");
    let (fine, told) =
        run(tmpfiles.arg("--create").arg(format!("--root={}", root.path().display())).args(files));
    assert!(fine, "{told}");
    let passwd = fs::read_to_string(root.path().join("etc/passwd")).expect("is made");
    let group = fs::read_to_string(root.path().join("etc/group")).expect("is made");
    let id = |file: &str, name: &str| {
        let line = file.lines().find(|line| line.split(':').next() == Some(name));
        line.and_then(|line| line.split(':').nth(2)?.parse().ok())
            .unwrap_or_else(|| panic!("no {name}: {file}"))
    };
    let (agent, proxy) = (id(&passwd, "weir-agent"), id(&passwd, "weir-proxy"));
    let (agents, both, proxies) = (id(&group, "weir-agent"), id(&group, "weir"), id(&group, "weir-proxy"));
    for (path, mode, user, group) in [
        ("run/weir", 0o750, agent, both),
        ("var/lib/weir", 0o700, agent, agents),
        ("var/lib/weir-proxy", 0o700, proxy, proxies),
        ("etc/weir", 0o755, 0, 0),
        ("etc/weir/grants", 0o750, 0, proxies),
        ("etc/weir/keys", 0o750, 0, proxies),
    ] {
        let found = fs::metadata(root.path().join(path)).expect("is made");
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (mode, user, group), "{path}");
    }
}
