//! Fuzzes packets of the CNI agent.
#![no_main]

#[path = "../invariants.rs"]
#[allow(dead_code, reason = "each target checks one of them")]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::zds(input));
