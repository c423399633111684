#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::hub::any_bytes::sas(bytes));
