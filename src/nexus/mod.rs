//! Who sent a command: the I_T nexus.

pub mod declared;
