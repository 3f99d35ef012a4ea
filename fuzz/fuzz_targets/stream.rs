//! What a transport in software makes of any bytes on an established connection, and of what its program does meanwhile.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zcmi::internals::fuzzing::stream(data));
