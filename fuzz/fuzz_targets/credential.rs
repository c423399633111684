#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::config::any_bytes::credential(bytes));
