//! What who listens at a unix socket makes of any bytes and descriptors.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zcmi::internals::fuzzing::set_up(data));
