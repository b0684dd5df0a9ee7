//! The connector's proxy: an SSH server towards the user, an SSH client towards the target, and nothing
//! between the two but taps.
//!
//! [`client_leg`] and [`target_leg`] are the only modules that know russh, but for the algorithms they offer. They never call each other: what
//! one wants of the other it says in a frame, and the frame goes through the kernel's filter. What they do
//! share is the [`session`], which opens taps, and says when it is over.

#![deny(unsafe_code)]

pub mod agent;
mod algorithms;
pub mod auth;
pub mod client_leg;
pub mod config;
pub mod connections;
pub mod gate;
pub mod grant;
pub mod http;
pub mod integration;
mod ioctl;
pub mod limits;
pub mod metrics;
pub mod policy;
pub mod server;
pub mod session;
pub mod tap;
pub mod target_leg;
