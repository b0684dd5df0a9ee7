//! A whole Weir on one machine: what the end-to-end tests and the demo run against.
//!
//! A [`Bed`] is a target (a real `sshd`), an agent with a bpffs of its own, a proxy that runs unprivileged, a
//! user with a key, and a `file://` store, all under one directory. Everything it starts ends with it.

#![forbid(unsafe_code)]

mod bed;
mod port;
mod process;
pub mod recording;
mod sshd;
pub mod targets;
mod wait;

pub use bed::{Bed, BedOptions, GRANT, PROXY_UID, TARGET_USER, keygen};
pub use port::Port;
pub use process::{Process, started};
pub use sshd::{ACCOUNT, PASSWORD, Sshd, ssh_keygen};
pub use wait::{eventually, eventually_within};
