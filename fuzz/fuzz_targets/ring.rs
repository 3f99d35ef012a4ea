//! What a pair of rings makes of a peer that writes all that it may, at any moment.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zcmi::internals::fuzzing::ring(data));
