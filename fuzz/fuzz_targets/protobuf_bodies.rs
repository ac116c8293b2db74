//! `cargo +nightly fuzz run protobuf_bodies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::protobuf_bodies(data));
