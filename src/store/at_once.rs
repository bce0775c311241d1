//! What need not wait: data that is in memory is moved on the thread that asks for it, which costs less than to hand it to
//! anybody.
//!
//! That thread serves everybody and must never wait for a medium. Which files let it be sure of that is found out here,
//! once, when the backing object is opened.

use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use super::Operation;
use super::backing::{Backing, Kind};
use crate::sys::region::Data;
use crate::sys::vectored::{self, Patience};

/// What is known of where the data of a backing object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In memory, always: as our own memory is, which can be swapped out too.
    Memory,
    /// Some of it in memory, and the system can tell what.
    Cache,
    /// On a medium, past the page cache.
    Medium,
    /// Nobody can tell, as with network file systems.
    Anywhere,
}

/// An operation that moves data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    /// Where in the backing object.
    pub(super) offset: u64,
    /// How much.
    pub(super) length: u64,
    /// Into the backing object.
    pub(super) is_write: bool,
}

impl Transfer {
    /// `None` if it is none, or more than that.
    pub(super) fn of(operation: &Operation) -> Option<Transfer> {
        let (offset, length, is_write) = match *operation {
            Operation::Read { offset, length, .. } => (offset, length, false),
            Operation::Write { offset, length, .. } => (offset, length, true),
            _ => return None,
        };
        Some(Transfer {
            offset,
            length,
            is_write,
        })
    }
}

impl Place {
    pub(super) fn of(backing: &Backing) -> Place {
        let file_system = fstatfs(backing.file());
        let is_in_memory = file_system.is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
        if backing.kind() == Kind::File && is_in_memory && !backing.mode().direct {
            Place::Memory
        } else if !vectored::tells_what_waits(backing.file()) {
            Place::Anywhere
        } else if backing.mode().direct {
            Place::Medium
        } else {
            Place::Cache
        }
    }

    /// Whether what is written is as stable as it will ever be.
    pub(super) fn is_stable(self) -> bool {
        self == Place::Memory
    }

    /// Moves what can be moved without waiting, and gives how many bytes. Of what fails, nothing is said: who does the
    /// rest finds out.
    ///
    /// Of writes, only those to memory: where a file system is frozen, for a snapshot, a write waits until it is not, whatever
    /// it is told (`RWF_NOWAIT`).
    pub(super) fn move_at_once(self, backing: &Backing, transfer: Transfer, data: &Data) -> u64 {
        let Transfer {
            offset,
            length,
            is_write,
        } = transfer;
        let patience = match self {
            Place::Memory => Patience::Any,
            Place::Cache if !is_write => Patience::None,
            Place::Cache | Place::Medium | Place::Anywhere => return 0,
        };
        let file = backing.file();
        let moved = if is_write {
            vectored::write(file, offset, data, 0..length)
        } else {
            vectored::read(file, offset, data, 0..length, patience)
        };
        moved.unwrap_or(0)
    }
}
