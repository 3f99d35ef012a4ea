//! Handles and encoded values of any bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zcmi::internals::fuzzing::handle(data));
