//! See `weir_analysis::fuzz::session`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_analysis::fuzz::session(bytes));
