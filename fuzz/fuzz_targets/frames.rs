#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::bus::any_bytes::frames(bytes));
