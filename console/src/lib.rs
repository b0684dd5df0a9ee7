//! The people's side of Weir: verify, show and play session recordings.
//!
//! [`store`] reads a session's directory or its part of a bucket, [`segment`] and [`bulk`] what lies in it,
//! [`recording`] puts these together for [`show`], [`play`] and [`export`]; [`findings`] says what it amounts to,
//! [`emulator`] what stood on the screen. [`find`] goes through the sessions of a store for [`sessions`] and [`search`].
//! [`verify`] trusts none of it and reports all that is wrong.
//!
//! A recording is written by whoever was watched, in part at least. So two invariants hold everywhere: nothing
//! of it reaches a terminal before [`escape`] or [`play::screen`] took out what a terminal would act on, and
//! everything that is read has a limit that was set before the first byte.
//!
//! Not here: anything that writes recordings, aya, russh.

#![forbid(unsafe_code)]

pub mod bulk;
pub mod cli;
pub mod emulator;
pub mod escape;
pub mod export;
pub mod find;
pub mod findings;
#[doc(hidden)]
pub mod fuzz;
pub mod hashed;
pub mod look;
pub mod manifest;
pub mod manual;
pub mod parallel;
pub mod play;
pub mod recording;
pub mod run;
pub mod search;
pub mod segment;
pub mod sessions;
pub mod show;
pub mod store;
pub mod table;
pub mod track;
pub mod verify;
