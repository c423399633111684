#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::bus::properties::modbus_tcp(bytes));
