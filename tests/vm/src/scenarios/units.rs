//! The units as they run: own users, no capability for the proxy, the agent's exactly one, and what systemd thinks of their
//! confinement.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bed::{AGENT, Bed, PROXY};

/// CAP_BPF (capabilities(7)).
const AGENT_CAPABILITIES: u64 = 1 << 39;
/// What systemd may think of the proxy: 0 is locked up, 10 is not confined at all.
const PROXY_EXPOSURE: f64 = 2.0;
/// What `weir-agent check` finds here rightly: the tests' S3 server has neither a certificate nor versions nor locks, and the disk
/// of the spool is small enough to be filled.
const OF_THE_LAB: &[(&str, &str)] =
    &[("connection", "problem"), ("versioned", "warning"), ("locked", "warning"), ("spool room", "warning")];

pub(super) fn run(bed: &Bed<'_>) -> Result<()> {
    let (agent, proxy) = (exposure(bed, AGENT)?, exposure(bed, PROXY)?);
    ensure!(proxy < PROXY_EXPOSURE, "systemd-analyze security {PROXY}: {proxy}");
    bed.note(format!("exposure: {PROXY} {proxy}, {AGENT} {agent}"));

    let of_agent = Process::of(bed, AGENT)?;
    let of_proxy = Process::of(bed, PROXY)?;
    ensure!(
        of_agent.user == AGENT && of_proxy.user == PROXY,
        "users: {} and {}",
        of_agent.user,
        of_proxy.user
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let (agent, proxy) = (of_agent.capabilities(set)?, of_proxy.capabilities(set)?);
        ensure!(proxy == 0, "the proxy's {set} is {proxy:016x}");
        ensure!(
            agent == AGENT_CAPABILITIES,
            "the agent's {set} is {agent:016x}, CAP_BPF is {AGENT_CAPABILITIES:016x}"
        );
    }
    for process in [&of_agent, &of_proxy] {
        ensure!(process.field("NoNewPrivs")? == "1", "{} may get new privileges", process.user);
        ensure!(process.field("Seccomp")? == "2", "{} has no filter of system calls", process.user);
    }
    for unit in [AGENT, PROXY] {
        let restarts = bed.connector.unit(unit, "NRestarts")?;
        ensure!(restarts == "0", "{unit} was started {restarts} times more than once");
    }

    // What the agent would say of this machine, as the agent: before Linux 5.11 that takes locked memory, too.
    let check = bed.connector.run(
        "set -a; . /etc/weir/agent.env; set +a; prlimit --memlock=unlimited \
         setpriv --reuid weir-agent --regid weir-agent --init-groups --bounding-set -all,+bpf --inh-caps -all,+bpf \
         --ambient-caps -all,+bpf --no-new-privs weir-agent check --config /etc/weir/agent.toml --json 2>&1 || true",
    )?;
    let report: Value = serde_json::from_str(&check).with_context(|| check.clone())?;
    let findings = report.as_array().context("weir-agent check --json prints an array")?;
    let unexpected = unexpected(findings);
    ensure!(!findings.is_empty() && unexpected.is_empty(), "weir-agent check: {unexpected:#?}");
    bed.assert_works("units").map(drop)
}

/// Warnings and problems that are not the lab's.
fn unexpected(findings: &[Value]) -> Vec<&Value> {
    let is_unexpected = |finding: &&Value| {
        // What can't be seen is not wrong. A level that is new here is looked at.
        let harmless = finding["level"] == "ok" || finding["level"] == "cannot_tell";
        let of_the_lab =
            OF_THE_LAB.iter().any(|(about, level)| finding["about"] == *about && finding["level"] == *level);
        !harmless && !of_the_lab
    };
    findings.iter().filter(is_unexpected).collect()
}

/// What `systemd-analyze security` says of a unit.
fn exposure(bed: &Bed<'_>, unit: &str) -> Result<f64> {
    let text = bed.connector.run(&format!("systemd-analyze security --no-pager {unit}.service"))?;
    let line =
        text.lines().find(|line| line.contains("Overall exposure level")).with_context(|| text.clone())?;
    let number = line.rsplit(": ").next().and_then(|rest| rest.split_whitespace().next());
    Ok(number.with_context(|| line.to_owned())?.parse()?)
}

/// A unit's main process, as the kernel has it.
struct Process {
    user: String,
    status: String,
}

impl Process {
    fn of(bed: &Bed<'_>, unit: &str) -> Result<Self> {
        let pid = bed.connector.main_pid(unit)?;
        let status = bed.connector.read(&format!("/proc/{pid}/status"))?;
        let user = bed.connector.run(&format!("stat -c %U /proc/{pid}"))?.trim().to_owned();
        Ok(Self { user, status })
    }

    fn field(&self, name: &str) -> Result<&str> {
        let found = self.status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map(str::trim).with_context(|| format!("{name} in {}", self.status))
    }

    fn capabilities(&self, set: &str) -> Result<u64> {
        Ok(u64::from_str_radix(self.field(set)?, 16)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn warnings_and_problems_are_unexpected_unless_the_lab_is_known_for_them() {
        let finding = |about: &str, level: &str| json!({ "about": about, "level": level, "text": "" });
        let known = [
            finding("kernel", "ok"),
            finding("encrypted", "cannot_tell"),
            finding("connection", "problem"),
            finding("versioned", "warning"),
            finding("locked", "warning"),
            finding("spool room", "warning"),
        ];
        assert_eq!(unexpected(&known), Vec::<&Value>::new());
        for (about, level) in [
            ("memory limit", "warning"),
            ("spool room", "problem"),
            ("tap", "problem"),
            ("kernel", "hopeless"),
        ] {
            let findings = [finding("kernel", "ok"), finding(about, level)];
            assert_eq!(unexpected(&findings), [&findings[1]], "{about}");
        }
    }
}
