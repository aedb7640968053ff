#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netft_proto::fuzzing::super_packet(bytes));
