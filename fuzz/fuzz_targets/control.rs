//! See `weir_common::fuzz::control`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_common::fuzz::control(bytes));
