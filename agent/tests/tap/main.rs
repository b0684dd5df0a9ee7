//! The tap against the real kernel. As root they mount bpffs of their own; an ordinary user needs `CAP_BPF` and a
//! directory on one (`support/bpffs.rs`).
//!
//! Delivery between the two ends of a socket pair is synchronous: when `send` returns, the message is in the
//! receiver's queue or it was tossed. So nothing here has to wait to see that something was *not* delivered.

mod adopting;
mod arming;
#[path = "../support/bpffs.rs"]
#[expect(dead_code, reason = "a part of it is for whole nodes")]
mod bpffs;
mod capturing;
mod gaps;
mod logging;
mod rings;
mod sizes;
mod support;
