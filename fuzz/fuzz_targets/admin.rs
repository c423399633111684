#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::operate::admin::any_bytes::admin(bytes));
