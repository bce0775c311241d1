//! The record of the reservations: what must hold is in `image.rs` of the library.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tcmu_pr_fuzz::image::run(data));
