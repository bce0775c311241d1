//! What must hold of bytes that come from elsewhere: the bodies of the fuzz targets.
//!
//! Each takes any bytes at all, and panics if something does not hold. cargo-fuzz looks for bytes that make
//! it so; `tests/fuzz.rs`, which has these modules too, replays those that were worth keeping.

pub mod image;
pub mod lu;
pub mod pr_out;
pub mod transport_id;
