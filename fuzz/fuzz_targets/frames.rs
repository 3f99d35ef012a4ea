//! What a connection makes of any frames, and of what its program does meanwhile.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zcmi::internals::fuzzing::frames(data));
