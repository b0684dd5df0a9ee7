//! The two clocks of the node: kernel time since boot, by which records are stamped, and the calendar.

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use weir_common::recording::Clock;

/// Kernel time since boot in nanoseconds, suspend included: the clock of `bpf_ktime_get_boot_ns`.
#[must_use]
pub fn boot_ns() -> u64 {
    // CLOCK_BOOTTIME exists since Linux 2.6.39 and is never negative.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the kernel has a boot time clock");
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
}

/// Both clocks at this moment.
#[must_use]
pub fn now() -> Clock {
    Clock { boot_ns: boot_ns(), at: Timestamp::now() }
}
