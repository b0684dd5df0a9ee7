//! The contracts between Weir's parts.
//!
//! [`abi`] is what the BPF program and the agent share and needs no standard library. The rest, behind the
//! `std` feature, is what the proxy, the agent and the console share: [`frame`] is what the proxy's two legs
//! exchange, [`control`] what proxy and agent say to each other, [`session`] who and what a session is about,
//! [`recording`] what is stored, and [`report`] what the console is told.
//!
//! Nothing here does I/O, reads a clock or knows aya or russh.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

pub mod abi;
#[cfg(feature = "std")]
pub mod control;
#[cfg(feature = "std")]
pub mod digest;
#[cfg(feature = "std")]
pub mod frame;
#[cfg(feature = "std")]
#[doc(hidden)]
pub mod fuzz;
#[cfg(feature = "std")]
pub mod recording;
#[cfg(feature = "std")]
pub mod report;
#[cfg(feature = "std")]
pub mod session;
