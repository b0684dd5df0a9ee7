//! What the kernel says of its own health, told apart by what a slow host alone can bring about.
//!
//! An emulated machine on a busy host is not run for seconds at a time, and its kernel sees late timers and processors
//! that stand still. Such words are counted and are no failure; those that a healthy kernel never says are.

/// What a line of the kernel's means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The kernel is broken: it says so, or a check of its own has failed.
    Broken,
    /// It may be broken, and may as well have been kept waiting by the host.
    Slow,
}

/// Begins what is fatal, anywhere in a line: the console's last words need not be whole.
const FATAL: &[&str] =
    &["Kernel panic - not syncing", "Oops: ", "BUG: unable to handle", "BUG: kernel NULL pointer"];

/// What a kernel may say because it was kept waiting.
///
/// `rcu_check_gp_start_stall` is a `WARN_ON` in `kernel/rcu/tree_stall.h` that a grace period's delay alone sets off.
const SLOW: &[&str] = &[
    "detected stalls on CPUs/tasks",
    "detected expedited stalls on CPUs/tasks",
    "self-detected stall on CPU",
    "rcu_check_gp_start_stall",
    "blocked for more than",
    "BUG: workqueue lockup",
    "BUG: soft lockup",
    "hrtimer: interrupt took",
    "perf: interrupt took too long",
    "clocksource: timekeeping watchdog",
    "clocksource: Marking clocksource",
    "sched: RT throttling activated",
];

/// How a message begins that a check in the kernel has failed. Only the beginning counts: "Spectre V2 : WARNING: Unprivileged
/// eBPF is enabled" is advice, and comes whenever the tests permit that.
const BROKEN: &[&str] = &[
    "WARNING: ",
    "refcount_t: ",
    "BUG: ",
    "kernel BUG at ",
    "general protection fault",
    "UBSAN: ",
    "list_add corruption",
    "list_del corruption",
    "Out of memory: ",
];

/// The same, behind the name of who found it: the watchdog.
const LOCKUPS: &[&str] = &["hard LOCKUP"];

/// Whether this is the end of the kernel.
#[must_use]
pub fn is_fatal(line: &str) -> bool {
    FATAL.iter().any(|words| line.contains(words))
}

/// What the kernel's message in a line of the console means, if there is one and it means anything.
#[must_use]
pub fn sign(line: &str) -> Option<Sign> {
    meaning(message(line)?)
}

/// What a message of the kernel's means, without its stamp, if it means anything.
#[must_use]
pub fn meaning(message: &str) -> Option<Sign> {
    if SLOW.iter().any(|words| message.contains(words)) {
        return Some(Sign::Slow);
    }
    let is_broken = BROKEN.iter().any(|words| message.starts_with(words))
        || LOCKUPS.iter().any(|words| message.contains(words));
    is_broken.then_some(Sign::Broken)
}

/// What is behind the kernel's stamp, `[   12.345678] `. The kernel may have begun in the middle of a test's line.
fn message(line: &str) -> Option<&str> {
    line.match_indices('[').find_map(|(at, _)| {
        let (stamp, rest) = line[at + 1..].split_once(']')?;
        let (seconds, fraction) = stamp.trim_start().split_once('.')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(seconds) && digits(fraction) && fraction.len() >= 6).then(|| rest.trim_start())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_healthy_kernel_never_says_is_a_sign_that_it_is_broken() {
        for line in [
            "[   12.345678] WARNING: CPU: 1 PID: 204 at kernel/bpf/verifier.c:1234 check_cond_jmp_op+0x1/0x2",
            "[   12.345678] WARNING: kernel/bpf/ringbuf.c:355 at bpf_ringbuf_notify+0x1/0x2, CPU#0: swapper/0/0",
            "[    3.141592] refcount_t: underflow; use-after-free.",
            "[   14.000000] UBSAN: array-index-out-of-bounds in kernel/bpf/core.c:1:2",
            "[   14.000000] list_add corruption. next->prev should be prev (1), but was 2. (next=3).",
            "[   14.000000] Out of memory: Killed process 77 (weir-agent) total-vm:1kB",
            "[  101.000001] watchdog: Watchdog detected hard LOCKUP on cpu 0",
            "[    9.000000] BUG: sleeping function called from invalid context at kernel/locking/mutex.c:283",
            "[    9.000000] kernel BUG at kernel/bpf/syscall.c:1!",
            "test a::two - should pa[    9.000000] WARNING: CPU: 0 PID: 1 at net/core/sock_map.c:1 f+0x1/0x2",
        ] {
            assert_eq!(sign(line), Some(Sign::Broken), "{line}");
        }
    }

    #[test]
    fn what_a_slow_host_brings_about_is_told_apart() {
        for line in [
            "[    7.745688] hrtimer: interrupt took 9255450 ns",
            "[   61.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[   61.000000] rcu: INFO: rcu_sched self-detected stall on CPU",
            "[   61.000000] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-... } 22 jiffies s: 5",
            "[  242.000000] INFO: task tap-0123:77 blocked for more than 120 seconds.",
            "[   31.000000] clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable because",
            "[  101.000001] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [tap-0123:77]",
            "[   33.000000] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!",
            "[   33.000000] WARNING: CPU: 0 PID: 9 at kernel/rcu/tree_stall.h:987 rcu_check_gp_start_stall+0x1/0x2",
        ] {
            assert_eq!(sign(line), Some(Sign::Slow), "{line}");
        }
    }

    #[test]
    fn what_the_kernel_says_of_other_things_or_others_say_means_nothing() {
        for line in [
            "[    3.755308] Unstable clock detected, switching default tracing clock to \"global\"",
            "[    5.000000] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible",
            "WARNING: said by a test",
            "a line [12] WARNING: of a test's, with a number",
            "thread 'rings' panicked at [1.5] WARNING: not a stamp",
            "[    0.000000] Linux version 6.1.0-26-cloud-amd64",
            "test refcount_t: is a name ... ok",
        ] {
            assert_eq!(sign(line), None, "{line}");
        }
    }
}
