#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::import::any_bytes::description(bytes));
