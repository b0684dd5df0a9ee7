//! The BPF program behind every tap: a socket filter that lets a message through only after it is in the ring, or, where
//! a session's policy permits that, after it is counted as missing there.
//!
//! The kernel runs it on the receiving socket, on its own copy of the message, before the message is queued
//! (`unix_dgram_sendmsg` → `sk_filter`). The return value is how much of the message to keep; 0 tosses it, which
//! the sender does not notice.
//!
//! Invariants:
//! - For [`TAP_ARMED`] the full length is returned only behind a submitted record of exactly that message; every other
//!   path tosses.
//! - For [`TAP_BEST_EFFORT`] and [`TAP_SKIPPING`] it is returned behind that too, or behind the count of exactly that
//!   message as part of a gap. A captured message lies behind the record of the gap before it.
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
mod gap;
mod log;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_get_socket_cookie,
    macros::{map, socket_filter},
    maps::{HashMap, RingBuf},
    programs::SkBuffContext,
};
use weir_common::abi::{
    MAX_MESSAGE, TAP_ARMED, TAP_BEST_EFFORT, TAP_PAUSED, TAP_SKIPPING, TapCounts, TapGap,
};

use crate::capture::{Outcome, capture};

/// From the receiving socket's cookie to the tap's state. The agent sets the size.
#[map]
static TAPS: HashMap<u64, u32> = HashMap::with_max_entries(1, 0);

/// From the receiving socket's cookie to its counters. The agent sets the size.
#[map]
static COUNTS: HashMap<u64, TapCounts> = HashMap::with_max_entries(1, 0);

/// From the receiving socket's cookie to what passed unrecorded, if that may be. The agent sets the size.
#[map]
static GAPS: HashMap<u64, TapGap> = HashMap::with_max_entries(1, 0);

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
    if !matches!(state, TAP_ARMED | TAP_PAUSED | TAP_BEST_EFFORT | TAP_SKIPPING) {
        counts::tossed_frozen(counts);
        return TOSS;
    }
    let len = ctx.len();
    if len == 0 || len > MAX_MESSAGE as u32 {
        counts::tossed_size(counts);
        log::tossed(len, cookie);
        return TOSS;
    }
    let mut outcome = Outcome::Full;
    if is_recorded(state, cookie, len) {
        outcome = capture(&ctx, cookie, len, counts);
    }
    match outcome {
        Outcome::Captured => i64::from(len),
        Outcome::Full => match gap_of(state, cookie) {
            Some(gap) => {
                gap::passed(gap, len);
                i64::from(len)
            }
            // Without an entry nothing can be counted, and so nothing passes unrecorded.
            None => {
                counts::tossed_full(counts);
                TOSS
            }
        },
        Outcome::Unreadable => TOSS,
    }
}

/// Whether a message is to be recorded now: the gap before it is told.
#[inline(always)]
fn is_recorded(state: u32, cookie: u64, len: u32) -> bool {
    match state {
        TAP_ARMED => true,
        TAP_BEST_EFFORT => match gap_of(state, cookie) {
            Some(gap) => gap::close(gap, cookie, len),
            None => true,
        },
        _ => false,
    }
}

/// The tap's gap, if it may have one.
///
/// Looked up where it is used: of a pointer that is known to be null the verifier follows, on behalf of an agent without
/// `CAP_PERFMON`, how a processor would use it that guesses wrong.
#[inline(always)]
fn gap_of(state: u32, cookie: u64) -> Option<*mut TapGap> {
    if !matches!(state, TAP_BEST_EFFORT | TAP_SKIPPING) {
        return None;
    }
    GAPS.get_ptr_mut(cookie)
}

/// What the kernel's licence check reads. No helper used here is reserved for GPL programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
