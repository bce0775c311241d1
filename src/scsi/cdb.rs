//! CDBs as values: a [`Command`] is what a CDB asks for, with its fields named and its size forgotten.
//!
//! The decoders (`block`, `copy`, `primary`) read the fields of one command and judge their values. What is the same for every
//! command (length, NACA, the bits that its row refuses) [`Row::decode`](super::commands::Row::decode) has
//! judged before it calls one; reserved and obsolete bits and hints are not looked at.

pub(super) mod block;
pub(super) mod copy;
pub(super) mod primary;

use super::provisioning::BlockRange;
use super::sense::{Field, Format, Sense};
use super::{Blocks, Lba};

/// One command, decoded. Lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// TEST UNIT READY (SPC-4).
    TestUnitReady,
    /// REQUEST SENSE (SPC-4).
    RequestSense {
        /// The format asked for with DESC, whatever D_SENSE says.
        format: Format,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// INQUIRY (SPC-4).
    Inquiry {
        /// The vital product data page asked for; `None` asks for standard data.
        page: Option<u8>,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// MODE SENSE(6), MODE SENSE(10) (SPC-4).
    ModeSense(ModeSense),
    /// MODE SELECT(6), MODE SELECT(10) (SPC-4).
    ModeSelect(ModeSelect),
    /// LOG SENSE (SPC-4).
    LogSense(LogSense),
    /// READ CAPACITY(10) (SBC-3).
    ReadCapacity10,
    /// READ CAPACITY(16) (SBC-3).
    ReadCapacity16 {
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// READ(6), (10), (12), (16) (SBC-3).
    Read(Transfer),
    /// WRITE(6), (10), (12), (16) (SBC-3).
    Write(Transfer),
    /// ORWRITE(16) (SBC-3): sets the bits that are set in the data-out.
    OrWrite(Transfer),
    /// WRITE ATOMIC(16) (SBC-4): all of it or nothing.
    WriteAtomic(Transfer),
    /// COMPARE AND WRITE (SBC-3): its data-out is what is to be compared, and then what is to be written.
    CompareAndWrite(Transfer),
    /// WRITE AND VERIFY(10), (12), (16) (SBC-3): to the medium, and read back from there.
    WriteAndVerify {
        /// What it moves. FUA goes without saying, and is not set.
        transfer: Transfer,
        /// BYTCHK: what is read back is compared with what was written.
        compare: bool,
    },
    /// VERIFY(10), (12), (16) (SBC-3): what the transfer names is read, and compared with the data-out if there is any.
    Verify(Transfer, ByteCheck),
    /// WRITE SAME(10), (16) (SBC-3).
    WriteSame(WriteSame),
    /// UNMAP (SBC-3).
    Unmap {
        /// PARAMETER LIST LENGTH.
        parameter_list_length: u32,
    },
    /// GET LBA STATUS (SBC-3).
    GetLbaStatus {
        /// STARTING LOGICAL BLOCK ADDRESS.
        lba: Lba,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// PRE-FETCH(10), (16) (SBC-3).
    PreFetch(CacheRange),
    /// SYNCHRONIZE CACHE(10), (16) (SBC-3).
    SynchronizeCache(CacheRange),
    /// START STOP UNIT (SBC-3).
    StartStopUnit(StartStopUnit),
    /// SEND DIAGNOSTIC (SPC-4), without parameters.
    SendDiagnostic {
        /// SELFTEST: the default self-test; else no test at all.
        self_test: bool,
    },
    /// PREVENT ALLOW MEDIUM REMOVAL (SPC-4).
    PreventAllowMediumRemoval {
        /// PREVENT is 01b: the medium shall not be removed.
        prevent: bool,
    },
    /// RESERVE(6), RESERVE(10) (SPC-2).
    Reserve,
    /// RELEASE(6), RELEASE(10) (SPC-2).
    Release,
    /// PERSISTENT RESERVE IN (SPC-4).
    PersistentReserveIn {
        /// SERVICE ACTION.
        service_action: u8,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// PERSISTENT RESERVE OUT (SPC-4). What its fields mean is judged with the parameter list, after the
    /// reservation key is.
    PersistentReserveOut {
        /// SERVICE ACTION.
        service_action: u8,
        /// SCOPE in bits 7 to 4, TYPE in bits 3 to 0; 0 with the service actions that ignore them.
        scope_and_type: u8,
        /// PARAMETER LIST LENGTH.
        parameter_list_length: u32,
    },
    /// EXTENDED COPY(LID1) (SPC-4).
    ExtendedCopy {
        /// PARAMETER LIST LENGTH.
        parameter_list_length: u32,
    },
    /// RECEIVE COPY STATUS(LID1) (SPC-4).
    ReceiveCopyStatus {
        /// LIST IDENTIFIER.
        list_identifier: u8,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// RECEIVE COPY OPERATING PARAMETERS (SPC-4).
    ReceiveCopyOperatingParameters {
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// REPORT SUPPORTED OPERATION CODES (SPC-4).
    ReportSupportedOperationCodes {
        /// REPORTING OPTIONS and what they look at.
        reporting: Reporting,
        /// RCTD: return command timeouts descriptors.
        rctd: bool,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4).
    ReportSupportedTaskManagementFunctions {
        /// REPD: return the extended parameter data.
        repd: bool,
        /// ALLOCATION LENGTH, at least 4.
        allocation_length: u32,
    },
}

/// What a READ or WRITE moves, or a VERIFY looks at, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The first block.
    pub lba: Lba,
    /// How many; 0 moves nothing (READ(6) and WRITE(6) say 0 for 256, which is 256 here).
    pub blocks: Blocks,
    /// FUA: from or to the medium, not just the cache.
    pub fua: bool,
    /// DPO: the blocks are not worth keeping in the cache.
    pub dpo: bool,
    /// The TRANSFER LENGTH field, to point at when it exceeds the limit. `None` for READ(6), WRITE(6), COMPARE AND WRITE
    /// (whose length has a limit of its own, and no more bits than that) and a VERIFY that does not move its blocks, to which MAXIMUM TRANSFER LENGTH does not apply (SBC-3, Block Limits VPD page).
    pub length_field: Option<Field>,
}

/// BYTCHK: with what VERIFY compares the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteCheck {
    /// 00b: with nothing. They are read, and there is no data-out.
    Nothing,
    /// 01b: with as many blocks of data-out.
    All,
    /// 11b: each of them with the one block of data-out.
    One,
}

/// What WRITE SAME writes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteSame {
    /// Which blocks: at least one, and no more than MAXIMUM WRITE SAME LENGTH.
    pub range: BlockRange,
    /// UNMAP: they may be given back if they read as what was written.
    pub unmap: bool,
    /// NDOB is 0: there is a block of data-out. Otherwise they become zero.
    pub has_data: bool,
}

/// Which blocks PRE-FETCH shall bring into the cache, or SYNCHRONIZE CACHE from it to the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheRange {
    /// The first block.
    pub lba: Lba,
    /// How many; 0 means all to the end.
    pub blocks: Blocks,
    /// IMMED: status may come before it is done.
    pub immed: bool,
}

/// What START STOP UNIT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartStopUnit {
    /// IMMED: status may come before it is done.
    pub immed: bool,
    /// POWER CONDITION: 0h for what START says, 1h for active, 7h for what the unit thinks best.
    pub power_condition: u8,
    /// POWER CONDITION MODIFIER.
    pub power_condition_modifier: u8,
    /// NO_FLUSH: what is in the cache may stay there.
    pub no_flush: bool,
    /// START: be ready for use, or else be stopped.
    pub start: bool,
}

/// What MODE SENSE asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSense {
    /// Which mode parameter header to answer with.
    pub header: ModeHeader,
    /// DBD and LLBAA: which block descriptor to answer with.
    pub block_descriptor: BlockDescriptor,
    /// PC: which values.
    pub page_control: PageControl,
    /// PAGE CODE.
    pub page: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    /// ALLOCATION LENGTH.
    pub allocation_length: u32,
}

/// What MODE SELECT asks for, besides its parameter list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSelect {
    /// With which mode parameter header the list begins.
    pub header: ModeHeader,
    /// PF: the list has mode pages of the standard's format.
    pub page_format: bool,
    /// SP: the values are to outlive resets and a loss of power.
    pub save: bool,
    /// PARAMETER LIST LENGTH.
    pub parameter_list_length: u16,
}

/// What LOG SENSE asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSense {
    /// PAGE CODE.
    pub page: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    /// PARAMETER POINTER: the first parameter wanted, of those in ascending order.
    pub parameter_pointer: u16,
    /// ALLOCATION LENGTH.
    pub allocation_length: u32,
}

/// The mode parameter header of the 6-byte or the 10-byte commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeHeader {
    /// 4 bytes.
    Six,
    /// 8 bytes.
    Ten,
}

/// The block descriptor in mode parameters (SBC-3, mode parameter block descriptors).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockDescriptor {
    /// DBD=1: none.
    None,
    /// 8 bytes, with a 32-bit number of blocks.
    Short,
    /// LLBAA=1: 16 bytes, with a 64-bit number of blocks.
    Long,
}

/// PC field of MODE SENSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageControl {
    /// 00b.
    Current,
    /// 01b: a mask of the bits that MODE SELECT can change.
    Changeable,
    /// 10b.
    Default,
    /// 11b: those that a loss of power or a reset brings back.
    Saved,
}

/// What REPORT SUPPORTED OPERATION CODES asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporting {
    /// 000b: every command.
    All,
    /// 001b: a command without service actions.
    Opcode(u8),
    /// 010b: one service action of a command.
    ServiceAction(u8, u16),
    /// 011b: either of these; the service action of a command without any is 0.
    Either(u8, u16),
}

/// SERVICE ACTION, byte 1.
const SERVICE_ACTION: u8 = 0x1f;

/// Names the fields of a CDB layout, in order, each unaligned and big-endian.
macro_rules! layout {
    ($(#[$doc:meta])+ $name:ident { $($field:ident: $type:ty,)+ }) => {
        $(#[$doc])+
        #[derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout, zerocopy::Unaligned)]
        #[repr(C)]
        struct $name {
            $($field: $type,)+
        }

        impl $name {
            fn of(cdb: &[u8]) -> Result<&$name, Sense> {
                let (fields, _) = <$name as zerocopy::FromBytes>::ref_from_prefix(cdb)
                    .map_err(|_| $crate::scsi::cdb::too_short(cdb))?;
                Ok(fields)
            }
        }
    };
}
use layout;

/// A CDB that ends before its command does: INVALID FIELD IN CDB, pointing at the first byte that is missing.
pub(super) fn too_short(cdb: &[u8]) -> Sense {
    Sense::invalid_field_in_cdb(Field::cdb(u16::try_from(cdb.len()).unwrap_or(u16::MAX)))
}

#[cfg(test)]
mod tests;
