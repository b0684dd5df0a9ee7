//! See `weir_common::fuzz::record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_common::fuzz::record(bytes));
