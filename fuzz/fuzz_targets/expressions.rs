//! `cargo +nightly fuzz run expressions`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::expressions(data));
