//! Who sent a command: the I_T nexus.
//!
//! The ring does not say. There are two ways to know: [`declared`], a backstore for each nexus; and [`tap`], BPF
//! programs in the kernel that note the session of every command.

pub mod declared;
mod fabric;
pub mod tap;
