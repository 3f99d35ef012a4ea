//! Introductions and refusals of any bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zcmi::internals::fuzzing::handshake(data));
