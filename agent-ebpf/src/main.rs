//! The BPF program behind every tap: a socket filter that lets a message through only after it is in the ring.
//!
//! The kernel runs it on the receiving socket, on its own copy of the message, before the message is queued
//! (`unix_dgram_sendmsg` → `sk_filter`). The return value is how much of the message to keep; 0 tosses it, which
//! the sender does not notice.
//!
//! Invariants:
//! - The full length is returned only behind a submitted record of exactly that message; every other path
//!   tosses.
//! - A message is counted before its record is submitted, so nobody reads a record that is not yet counted.
//! - Only the agent adds or removes map entries; the program changes counters and nothing else.
//!
//! It has to pass the verifier of kernel 5.10: no bounded-loop tricks, no fetching atomics, and every length is
//! bounded right where it is used (see `capture`).
//!
//! Not here: what a message means. Frames, sessions and directions are the agent's business.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod capture;
mod counts;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_get_socket_cookie,
    macros::{map, socket_filter},
    maps::{HashMap, RingBuf},
    programs::SkBuffContext,
};
use aya_log_ebpf::warn;
use weir_common::abi::{MAX_MESSAGE, TAP_ARMED, TapCounts};

use crate::capture::{Outcome, capture};

/// From the receiving socket's cookie to the tap's state. The agent sets the size.
#[map]
static TAPS: HashMap<u64, u32> = HashMap::with_max_entries(1, 0);

/// From the receiving socket's cookie to its counters. The agent sets the size.
#[map]
static COUNTS: HashMap<u64, TapCounts> = HashMap::with_max_entries(1, 0);

/// Where messages are copied to. The agent sets the size.
#[map]
static RING: RingBuf = RingBuf::with_byte_size(4096, 0);

const TOSS: i64 = 0;

/// The program, see the module's documentation.
#[socket_filter]
pub fn weir_tap(ctx: SkBuffContext) -> i64 {
    // SAFETY: the helper reads the context it is given, which is the one the kernel handed to the program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: the agent removes an entry only when its socket is closed, so the element is not reused meanwhile.
    let Some(&state) = (unsafe { TAPS.get(cookie) }) else { return TOSS };
    let Some(counts) = COUNTS.get_ptr_mut(cookie) else { return TOSS };
    if state != TAP_ARMED {
        counts::tossed_frozen(counts);
        return TOSS;
    }
    let len = ctx.len();
    if len == 0 || len > MAX_MESSAGE as u32 {
        counts::tossed_size(counts);
        warn!(&ctx, "tossed a message of {} bytes to socket {}: taps pass 1 to {}", len, cookie, MAX_MESSAGE);
        return TOSS;
    }
    match capture(&ctx, cookie, len, counts) {
        Outcome::Captured => i64::from(len),
        Outcome::Full => {
            counts::tossed_full(counts);
            TOSS
        }
        Outcome::Unreadable => TOSS,
    }
}

/// What the kernel's licence check reads. No helper used here is reserved for GPL programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
