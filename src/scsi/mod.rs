//! What the SCSI standards say: bytes ⇄ values, and nothing else.
//!
//! This module owns the wire formats of SPC-4 and SBC-3 as far as a logical unit needs them. It does no
//! I/O, keeps no state, reads no clock and imports nothing else of this crate. Multi-byte fields are
//! big-endian throughout.

mod atomic;
pub mod capacity;
pub mod cdb;
pub mod commands;
pub mod copy;
pub mod features;
pub mod inquiry;
pub mod log;
pub mod mode;
pub mod nexus;
pub mod provisioning;
pub mod report;
pub mod sense;

use std::fmt;

/// Status of a completed command (SAM-5, status codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// The command was carried out.
    Good = 0x00,
    /// Sense data says what happened.
    CheckCondition = 0x02,
    /// The unit cannot take the command now; the initiator retries.
    Busy = 0x08,
    /// A reservation shuts this I_T nexus out.
    ReservationConflict = 0x18,
    /// The task set has no room; the initiator retries.
    TaskSetFull = 0x28,
    /// Another I_T nexus had the command aborted.
    TaskAborted = 0x40,
}

/// A logical block address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

/// A number of logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blocks(pub u64);

/// Which way a command's data goes, seen from the initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataDirection {
    /// The command moves no data.
    None,
    /// From the device to the initiator.
    In,
    /// From the initiator to the device.
    Out,
}

/// What a command asks of a reservation: the classes into which SPC-4 and SBC-3 sort commands in their
/// tables of "commands that are allowed in the presence of various reservations".
///
/// The class is a property of the command, not of its data direction: VERIFY sends data and is a
/// [`Access::Read`], SYNCHRONIZE CACHE sends none and is a [`Access::Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Access {
    /// Allowed under any persistent reservation and any RESERVE of another I_T nexus.
    Free,
    /// Allowed under any persistent reservation, refused under a RESERVE of another I_T nexus.
    FreeUnlessReserved,
    /// Refused to those that may not read.
    Read,
    /// Refused to those that may not write.
    Write,
    /// PERSISTENT RESERVE IN: like [`Access::FreeUnlessReserved`], and refused to the holder of a RESERVE too.
    PersistentReserveIn,
    /// PERSISTENT RESERVE OUT: its service actions have their own rules; refused while a RESERVE exists.
    PersistentReserveOut,
    /// RESERVE and RELEASE, whose rules are SPC-2's with compatible reservation handling.
    Reserve,
}

impl Access {
    /// Every class, in the order of their discriminants.
    pub const ALL: [Access; 7] = [
        Access::Free,
        Access::FreeUnlessReserved,
        Access::Read,
        Access::Write,
        Access::PersistentReserveIn,
        Access::PersistentReserveOut,
        Access::Reserve,
    ];
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Free => "free",
            Access::FreeUnlessReserved => "free unless reserved",
            Access::Read => "read",
            Access::Write => "write",
            Access::PersistentReserveIn => "persistent reserve in",
            Access::PersistentReserveOut => "persistent reserve out",
            Access::Reserve => "reserve",
        })
    }
}

/// Cuts a data-in answer to the allocation length of its command (SPC-4, ALLOCATION LENGTH field). That
/// is never an error, not even at length 0; the length fields inside the answer keep telling the whole.
pub fn truncate(mut answer: Vec<u8>, allocation_length: u32) -> Vec<u8> {
    answer.truncate(usize::try_from(allocation_length).unwrap_or(usize::MAX));
    answer
}

/// The bits of a flag: `mask` if it is set, else none.
fn flag(is_set: bool, mask: u8) -> u8 {
    if is_set { mask } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_cut_to_the_allocation_length() {
        assert!(truncate(vec![1, 2, 3], 0).is_empty());
        assert_eq!(truncate(vec![1, 2, 3], 2), [1, 2]);
        assert_eq!(truncate(vec![1, 2, 3], 3), [1, 2, 3]);
        assert_eq!(truncate(vec![1, 2, 3], u32::MAX), [1, 2, 3]);
    }
}
