//! The audit trail of the fence: who has registered, reserved and preempted whom, when, by which command.
//!
//! Each logical unit has a [`Ledger`]: a file of [`Entry`]s, a line of JSON each, the newest last, and an older file of
//! the same kind. A [`Limiter`] keeps those who do much from filling it.
//!
//! What was written outlives the daemon, however that ends. It is not synced: a loss of power can take the last half
//! minute with it, and what the next daemon finds then tells that something is missing.

use std::path::{Path, PathBuf};

mod entry;
mod ledger;
mod limiter;

pub use entry::{Entry, Held, Kind, NexusName, Other, RegistrationEntry, State, in_hexadecimal};
pub use ledger::{Found, Ledger, SIZE_MAX, read};
pub use limiter::{Limiter, Rate, Withheld};

/// Where the history of the unit with this serial number is in a folder of records that last.
pub fn path(folder: &Path, serial: &str) -> PathBuf {
    folder.join(serial).with_extension("history")
}
