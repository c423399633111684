#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::peripheral::any_bytes::registers(bytes));
