//! PERSISTENT RESERVE OUT: what must hold is in `pr_out.rs` of the library.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tcmu_pr_fuzz::pr_out::run(data));
