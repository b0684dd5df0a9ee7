//! CPU and memory of other processes, and the machine's load.

use std::{fs, ops::Sub, time::Duration};

use anyhow::{Context, Result};
use nix::{
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// CPU time, in user space and in the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) proxy: Duration,
    pub(crate) agent: Duration,
    /// The jump host's `sshd` with its children.
    pub(crate) jump: Duration,
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            proxy: self.proxy.saturating_sub(before.proxy),
            agent: self.agent.saturating_sub(before.agent),
            jump: self.jump.saturating_sub(before.jump),
        }
    }
}

/// What the threads of a process used, those that have ended included, to the nanosecond.
pub(crate) fn cpu_time(pid: Pid) -> Result<Duration> {
    Ok(clock_gettime(ClockId::pid_cpu_clock_id(pid)?)?.into())
}

/// [`cpu_time`], and what the children used that were waited for; those only to 10 ms each.
pub(crate) fn cpu_time_with_children(pid: Pid) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything; cutime and cstime are fields 16 and 17, proc(5).
    let (_, rest) = stat.rsplit_once(')').context("a process has a name")?;
    let ticks: u64 =
        rest.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(cpu_time(pid)? + Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// `USER_HZ`, 100 on every architecture that Linux still has.
const TICKS_PER_SECOND: u64 = 100;

/// How many children a process has.
pub(crate) fn children(pid: Pid) -> usize {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().count()
}

/// Anonymous memory that a process has resident, in KiB (`RssAnon`, proc(5)).
pub(crate) fn anonymous_kib(pid: Pid) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    Ok(line.context("RssAnon in a process's status")?.parse()?)
}

/// The load average over a minute.
pub(crate) fn load() -> Result<f64> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split_whitespace().next().context("an empty /proc/loadavg")?.parse()?)
}
