//! See `weir_common::fuzz::findings`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_common::fuzz::findings(bytes));
