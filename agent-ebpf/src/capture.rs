//! Copying a message into the ring, in the smallest of a fixed set of record sizes.
//!
//! The verifier wants the size of a reservation as a constant, so there is one instance of `into_class` per
//! class. A class is named by the bytes it takes in the ring, all headers included: 2^k and 1.5 · 2^k, so that
//! at most a third of the ring is padding, and as the last one exactly the largest message. The padding holds
//! whatever the ring held there before; readers go by the length in the header.

use core::{arch::asm, ptr::addr_of_mut};

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use weir_common::abi::{
    ABI_VERSION, MAX_MESSAGE, RECORD_HEADER_LEN, RECORD_MESSAGE, RecordHeader, TapCounts,
};

use crate::{RING, counts};

/// What became of a message.
pub(crate) enum Outcome {
    /// It is in the ring.
    Captured,
    /// The ring had no room.
    Full,
    /// The kernel would not copy it.
    Unreadable,
}

/// Bytes the kernel puts before each record (`BPF_RINGBUF_HDR_SZ`).
pub(crate) const RING_HEADER_LEN: usize = 8;

/// A record with room for `ROOM` bytes of message.
#[repr(C)]
struct Record<const ROOM: usize> {
    header: RecordHeader,
    message: [u8; ROOM],
}

macro_rules! by_class {
    ($ctx:ident, $cookie:ident, $len:ident, $counts:ident; $($ring_bytes:expr,)*) => {
        $(
            const { assert!($ring_bytes % 8 == 0, "the kernel aligns records to 8 bytes") };
            if $len as usize <= $ring_bytes - RING_HEADER_LEN - RECORD_HEADER_LEN {
                return into_class::<{ $ring_bytes - RING_HEADER_LEN - RECORD_HEADER_LEN }>(
                    $ctx, $cookie, $len, $counts,
                );
            }
        )*
    };
}

/// Copies a message of `len` bytes, 1 to [`MAX_MESSAGE`], into the ring and counts it.
#[inline(always)]
pub(crate) fn capture(ctx: &SkBuffContext, cookie: u64, len: u32, counts: *mut TapCounts) -> Outcome {
    by_class! {
        ctx, cookie, len, counts;
        64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576,
        (RING_HEADER_LEN + RECORD_HEADER_LEN + MAX_MESSAGE).next_multiple_of(8),
    }
    Outcome::Unreadable
}

#[inline(always)]
fn into_class<const ROOM: usize>(
    ctx: &SkBuffContext,
    cookie: u64,
    len: u32,
    counts: *mut TapCounts,
) -> Outcome {
    let Some(mut entry) = RING.reserve::<Record<ROOM>>(0) else { return Outcome::Full };
    let record = entry.as_mut_ptr();
    // SAFETY: the helper has no preconditions.
    let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: `record` is the reservation, large and aligned enough for the header.
    unsafe {
        addr_of_mut!((*record).header).write(RecordHeader {
            cookie,
            boot_ns,
            len,
            abi: ABI_VERSION,
            kind: RECORD_MESSAGE,
        });
    }
    // The verifier of 5.10 needs to see, on one register and right here, that the length is neither 0 nor more
    // than the room. The compiler knows both already and would drop the steps, so it must not know the numbers.
    let last = opaque(u64::from(len).wrapping_sub(1));
    if last >= ROOM as u64 {
        entry.discard(0);
        return Outcome::Unreadable;
    }
    let bounded = opaque(last) + 1;
    // SAFETY: `message` has `ROOM` bytes and `bounded` is at most that.
    let copied = unsafe {
        let message = addr_of_mut!((*record).message);
        bpf_skb_load_bytes(ctx.as_ptr().cast_const(), 0, message.cast(), bounded as u32)
    };
    if copied != 0 {
        entry.discard(0);
        return Outcome::Unreadable;
    }
    counts::captured(counts, len);
    entry.submit(0);
    Outcome::Captured
}

/// The same number, about which the compiler knows nothing. The verifier follows the move.
///
/// It has to be an instruction: an empty statement leaves two line infos at one offset, which the kernel refuses.
#[inline(always)]
fn opaque(mut value: u64) -> u64 {
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value
}
