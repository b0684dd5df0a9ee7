//! Counting: the plain atomic addition, which is the only one that kernels before 5.12 have.

use core::{arch::asm, ptr::addr_of_mut};

use weir_common::abi::TapCounts;

#[inline(always)]
pub(crate) fn captured(counts: *mut TapCounts, len: u32) {
    // SAFETY: `counts` is a map value, and these are fields of it.
    unsafe {
        add(addr_of_mut!((*counts).captured_records), 1);
        add(addr_of_mut!((*counts).captured_bytes), u64::from(len));
    }
}

#[inline(always)]
pub(crate) fn tossed_full(counts: *mut TapCounts) {
    // SAFETY: as above.
    unsafe { add(addr_of_mut!((*counts).tossed_full), 1) }
}

#[inline(always)]
pub(crate) fn tossed_frozen(counts: *mut TapCounts) {
    // SAFETY: as above.
    unsafe { add(addr_of_mut!((*counts).tossed_frozen), 1) }
}

#[inline(always)]
pub(crate) fn tossed_size(counts: *mut TapCounts) {
    // SAFETY: as above.
    unsafe { add(addr_of_mut!((*counts).tossed_size), 1) }
}

/// # Safety
/// `counter` points to 8 bytes of a map value, aligned.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, by: u64) {
    // SAFETY: one BPF_XADD on memory that the caller vouches for. It is written out because the compiler may
    // choose the fetching form, which came with 5.12.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) by, options(nostack)) };
}
