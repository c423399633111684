#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::amqp::any_bytes::amqp(bytes));
