//! The tap against the real kernel. These need root: they mount a bpffs of their own and load the program.
//!
//! Delivery between the two ends of a socket pair is synchronous: when `send` returns, the message is in the
//! receiver's queue or it was tossed. So nothing here has to wait to see that something was *not* delivered.

mod adopting;
mod arming;
mod capturing;
mod gaps;
mod logging;
mod rings;
mod support;
