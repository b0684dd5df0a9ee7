//! The kernel side: the only module that knows aya and BPF.
//!
//! [`Rings`] holds what is pinned below a bpffs and outlives this process: rings, each with taps of its own, those of
//! older versions included. [`Rings::open_ring`] loads the program against the maps of one. It gives two
//! halves that may live on different threads: [`Taps`] arms, freezes, counts and removes taps, and [`Ring`]
//! reads what the kernel captured.
//!
//! Invariants:
//! - A socket that [`Taps::arm`] has touched passes a message only after the kernel copied it into the ring, or counted
//!   it as missing there if the state is one that permits it; whatever went wrong while arming, the socket then passes
//!   nothing.
//! - A record stays in the ring until [`Ring::release`] was told that it is safe elsewhere.
//!
//! [`probe()`] and [`pins()`] look whether all this would work, and change nothing.
//!
//! Not here: what the bytes mean, whose session a cookie belongs to, when to read and when to release.

mod error;
mod layout;
mod load;
mod log;
mod map;
mod mapping;
mod pins;
mod probe;
mod ring;
mod rings;
mod socket;
mod taps;

pub use error::TapError;
pub use load::{MIN_RING_BYTES, TapOptions};
use log::LOG_MAP;
pub use log::ProgramLog;
pub use pins::{Pins, holder, pins};
pub use probe::{Probe, Refusal, Step, probe};
pub use ring::{Record, Records, Ring, RingId};
pub use rings::{RingPlace, Rings};
pub use taps::{TapState, Taps};
