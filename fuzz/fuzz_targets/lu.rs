//! The whole logical unit: what must hold is in `lu.rs` of the library.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tcmu_pr_fuzz::lu::run(data));
