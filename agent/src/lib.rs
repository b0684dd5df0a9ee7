//! The privileged half of Weir: see `ARCHITECTURE.md` for how its parts relate.
//!
//! `drain → spool → segments → store`: [`mod@core`] drains the ring that [`tap`] fills, through [`journal`]
//! into [`spool`] and [`ledger`]; [`storing`] brings [`segment`]s and manifests into the [`store`]. Proxies
//! come in through [`control`], and [`lanes`] leads them to the core that has their session. [`session`] is the pure heart of it: what a record means for its session.

#![deny(unsafe_code)]

pub mod adopting;
pub mod agent;
pub mod breaker;
pub mod check;
pub mod clock;
pub mod config;
pub mod control;
pub mod core;
pub mod findings;
pub mod gap;
pub mod http;
pub mod journal;
pub mod lanes;
pub mod ledger;
pub mod metrics;
pub mod recover;
pub mod report;
pub mod segment;
pub mod session;
pub mod signing;
pub mod spool;
mod stored_lines;
pub mod storing;
#[expect(unsafe_code, reason = "the kernel's memory and socket options; nothing else in the agent needs it")]
pub mod tap;
pub mod withholding;

#[cfg(test)]
pub(crate) mod testing;

pub use weir_store as store;

#[doc(hidden)]
pub mod fuzz;
