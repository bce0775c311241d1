//! TransportIDs: what must hold is in `transport_id.rs` of the library.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tcmu_pr_fuzz::transport_id::run(data));
