#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::hub::way::any_bytes::way(bytes));
