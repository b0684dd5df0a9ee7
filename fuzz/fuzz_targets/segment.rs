//! See `weir_console::fuzz::segment`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_console::fuzz::segment(bytes));
