//! tcmu-pr: a Linux TCMU backstore handler that implements SCSI-3 persistent reservations in user space.
//!
//! The modules in reading order. Imports point one way, from the top of this list to the bottom:
//!
//! | module | holds | may import |
//! |---|---|---|
//! | [`pr`] | persistent reservations: a value and functions on it | [`scsi`] |
//! | [`scsi`] | what T10 says: bytes ⇄ values | nothing of ours |
//! | [`sys`] | the one room for `unsafe` | nothing of ours |
pub mod cli;
pub mod control;
pub mod daemon;
pub mod lu;
pub mod nexus;
pub mod pr;
pub mod scsi;
pub mod store;
pub mod sys;
pub mod tcmu;
