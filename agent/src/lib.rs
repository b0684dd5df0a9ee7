//! The privileged half of Weir: see `ARCHITECTURE.md` for how its parts relate.

pub mod tap;
