#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fieldbridge::hub::amqp::any_bytes::amqp_message(bytes));
