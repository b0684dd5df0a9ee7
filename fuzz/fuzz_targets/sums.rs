//! See `weir_console::fuzz::sums`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_console::fuzz::sums(bytes));
