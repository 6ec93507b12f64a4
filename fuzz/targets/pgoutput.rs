//! `pgoutput` of `tests/support/fuzz.rs`, driven by libFuzzer.
#![no_main]

#[allow(dead_code, reason = "each target runs one of the bodies")]
#[path = "../../tests/support/fuzz.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::pgoutput(bytes));
