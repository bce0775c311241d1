//! What the SCSI standards say: bytes ⇄ values, and nothing else.
//!
//! This module owns the wire formats of SPC-4 and SBC-3 as far as a logical unit needs them. It does no
//! I/O, keeps no state, reads no clock and imports nothing else of this crate. Multi-byte fields are
//! big-endian throughout.

pub mod nexus;
pub mod sense;

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
