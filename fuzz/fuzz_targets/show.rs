#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::operate::show::any_bytes::show(bytes));
