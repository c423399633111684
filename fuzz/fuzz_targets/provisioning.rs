#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::provisioning::any_bytes::provisioning(bytes));
