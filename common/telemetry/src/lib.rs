//! What the proxy and the agent share of showing themselves: the metrics of a process, the port they are served on, and
//! the form of the log's lines.
//!
//! Not here: what either of them counts and logs, and when it is ready.

#![forbid(unsafe_code)]

pub mod labels;
mod listener;
mod log;
pub mod names;
mod process;

pub use listener::{exposition, readiness, serve};
pub use log::{LOG_FORMAT, LogFormat, UnknownFormat, lines};
pub use process::Process;
