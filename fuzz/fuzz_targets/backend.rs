#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::backend::any_bytes::backend(bytes));
