//! Fuzzes PROXY protocol headers: who calls whom, by which identity.
#![no_main]

#[path = "../invariants.rs"]
#[allow(dead_code, reason = "each target checks one of them")]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::proxy_protocol(input));
