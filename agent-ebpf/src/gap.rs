//! Gaps: what a best-effort tap passed unrecorded, counted, and told by a record in front of the next captured message.
//!
//! Owns that every message which passes unrecorded is in exactly one gap: it is added to the open one before it passes,
//! and what a record says is subtracted from it, so that a count that comes in between stays.

use core::ptr::addr_of_mut;

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use weir_common::abi::{
    ABI_VERSION, GAP_RECORD_LEN, GapRecord, MAX_MESSAGE, RECORD_GAP, RECORD_HEADER_LEN, RecordHeader, TapGap,
};

use crate::{RING, capture::RING_HEADER_LEN, counts::add};

/// `BPF_RB_AVAIL_DATA` and `BPF_RB_RING_SIZE` of `linux/bpf.h`.
const AVAILABLE_DATA: u64 = 0;
const RING_SIZE: u64 = 1;

/// A message of `len` bytes takes at most half again as much of the ring as it has, and this: see the size classes.
const CLASS_SLACK: u64 = 64;

/// A gap record as it lies in the ring.
#[repr(C)]
struct Record {
    header: RecordHeader,
    gap: GapRecord,
}

const _: () = assert!(size_of::<Record>() == RECORD_HEADER_LEN + GAP_RECORD_LEN);

/// Counts a message that passes unrecorded.
#[inline(always)]
pub(crate) fn passed(gap: *mut TapGap, len: u32) {
    // SAFETY: `gap` is a map value, and these are fields of it; the helper has no preconditions.
    unsafe {
        if (*gap).open_records == 0 {
            addr_of_mut!((*gap).open_since_ns).write(bpf_ktime_get_boot_ns());
        }
        add(addr_of_mut!((*gap).passed_records), 1);
        add(addr_of_mut!((*gap).passed_bytes), u64::from(len));
        add(addr_of_mut!((*gap).open_bytes), u64::from(len));
        add(addr_of_mut!((*gap).open_records), 1);
    }
}

/// Puts the record of the open gap, if there is one, in front of a message of `len` bytes. False if there is no room
/// for both: then the message belongs to the gap too.
///
/// If another processor takes the message's room meanwhile, the message begins the next gap.
#[inline(always)]
pub(crate) fn close(gap: *mut TapGap, cookie: u64, len: u32) -> bool {
    // SAFETY: `gap` is a map value, and these are fields of it.
    let (records, bytes, since_ns) =
        unsafe { ((*gap).open_records, (*gap).open_bytes, (*gap).open_since_ns) };
    if records == 0 {
        return true;
    }
    // A reservation that is given up takes its room all the same, so it is looked for first.
    let used = RING.query(AVAILABLE_DATA);
    let size = RING.query(RING_SIZE);
    let record = RING_HEADER_LEN + size_of::<Record>();
    let message = u64::from(len) + (u64::from(len) >> 1) + CLASS_SLACK;
    let message = message.min((RING_HEADER_LEN + RECORD_HEADER_LEN + MAX_MESSAGE).next_multiple_of(8) as u64);
    if used.saturating_add(message + record as u64) >= size {
        return false;
    }
    let Some(mut entry) = RING.reserve::<Record>(0) else { return false };
    // SAFETY: the helper has no preconditions.
    let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the pointer is to the reservation, which is large and aligned enough.
    unsafe {
        entry.as_mut_ptr().write(Record {
            header: RecordHeader {
                cookie,
                boot_ns,
                len: GAP_RECORD_LEN as u32,
                abi: ABI_VERSION,
                kind: RECORD_GAP,
            },
            gap: GapRecord { records, bytes, since_ns, cause: 0, reserved: 0 },
        });
        add(addr_of_mut!((*gap).open_records), records.wrapping_neg());
        add(addr_of_mut!((*gap).open_bytes), bytes.wrapping_neg());
    }
    entry.submit(0);
    true
}
