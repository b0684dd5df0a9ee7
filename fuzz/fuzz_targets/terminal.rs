//! See `weir_analysis::fuzz::terminal`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_analysis::fuzz::terminal(bytes));
