#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::command::any_bytes::message(bytes));
