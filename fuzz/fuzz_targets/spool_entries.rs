//! See `weir_agent::fuzz::spool_entries`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_agent::fuzz::spool_entries(bytes));
