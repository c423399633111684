#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::bus::properties::rtu_line(bytes));
