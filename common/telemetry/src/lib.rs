//! What the proxy and the agent show to machines: the metrics of a process, and the port they are served on.
//!
//! Not here: what either of them counts, and when it is ready.

#![forbid(unsafe_code)]

pub mod labels;
mod listener;
pub mod names;
mod process;

pub use listener::{exposition, readiness, serve};
pub use process::Process;
