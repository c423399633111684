#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::hub::https::any_bytes::https(bytes));
