#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::operate::text::any_bytes::show(bytes));
