//! CDBs as values: a [`Command`] is what a CDB asks for, with its fields named and its size forgotten.
//!
//! The decoders here read the fields of one command and judge their values. What is the same for every
//! command (length, NACA, the bits that its row refuses) [`Row::decode`](super::commands::Row::decode) has
//! judged before it calls one; reserved and obsolete bits and hints are not looked at.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

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
    /// WRITE AND VERIFY(10), (12), (16) (SBC-3): to the medium, and read back from there.
    WriteAndVerify {
        /// What it moves. FUA goes without saying, and is not set.
        transfer: Transfer,
        /// BYTCHK: what is read back is compared with what was written.
        compare: bool,
    },
    /// VERIFY(10), (12), (16) (SBC-3): what the transfer names is read, and compared with the data-out if there is any.
    Verify(Transfer, ByteCheck),
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
    /// The TRANSFER LENGTH field, to point at when it exceeds the limit. `None` for READ(6), WRITE(6) and a VERIFY that
    /// does not move its blocks, to which MAXIMUM TRANSFER LENGTH does not apply (SBC-3, Block Limits VPD page).
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

/// The mode parameter header of MODE SENSE(6) or MODE SENSE(10).
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

/// PC field of MODE SENSE. Saved values are refused by the decoder: there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageControl {
    /// 00b.
    Current,
    /// 01b: a mask of the bits that MODE SELECT can change.
    Changeable,
    /// 10b.
    Default,
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

/// FUA of READ and WRITE, byte 1.
const FUA: u8 = 0x08;
/// DPO of READ, WRITE, VERIFY and WRITE AND VERIFY, byte 1.
const DPO: u8 = 0x10;
/// BYTCHK of VERIFY and WRITE AND VERIFY, byte 1.
const BYTCHK: u8 = 0x06;
/// Where sense data points if it is wrong.
const BYTCHK_FIELD: Field = Field::cdb_bit(1, 2);
/// IMMED of START STOP UNIT, byte 1.
const START_STOP_IMMED: u8 = 0x01;
/// NO_FLUSH of START STOP UNIT, byte 4.
const NO_FLUSH: u8 = 0x04;
/// START of START STOP UNIT, byte 4.
const START: u8 = 0x01;
/// SELFTEST of SEND DIAGNOSTIC, byte 1.
const SELFTEST: u8 = 0x04;
/// IMMED of PRE-FETCH and SYNCHRONIZE CACHE, byte 1.
const IMMED: u8 = 0x02;
/// The part of READ(6)'s and WRITE(6)'s byte 1 that belongs to the LOGICAL BLOCK ADDRESS.
const LBA_6: u8 = 0x1f;
/// DESC of REQUEST SENSE, byte 1.
const DESC: u8 = 0x01;
/// EVPD of INQUIRY, byte 1.
const EVPD: u8 = 0x01;
/// DBD of MODE SENSE, byte 1.
const DBD: u8 = 0x08;
/// LLBAA of MODE SENSE(10), byte 1.
const LLBAA: u8 = 0x10;
/// SERVICE ACTION, byte 1.
const SERVICE_ACTION: u8 = 0x1f;
/// PMI of READ CAPACITY(10), byte 8.
const PMI: u8 = 0x01;
/// RCTD of REPORT SUPPORTED OPERATION CODES, byte 2.
const RCTD: u8 = 0x80;
/// REPORTING OPTIONS of REPORT SUPPORTED OPERATION CODES, byte 2.
const REPORTING_OPTIONS: u8 = 0x07;
/// REPD of REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, byte 2.
const REPD: u8 = 0x80;

/// Names the fields of a CDB layout, in order, each unaligned and big-endian.
macro_rules! layout {
    ($(#[$doc:meta])+ $name:ident { $($field:ident: $type:ty,)+ }) => {
        $(#[$doc])+
        #[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        struct $name {
            $($field: $type,)+
        }

        impl $name {
            fn of(cdb: &[u8]) -> Result<&$name, Sense> {
                let (fields, _) = $name::ref_from_prefix(cdb).map_err(|_| too_short(cdb))?;
                Ok(fields)
            }
        }
    };
}

layout! {
    /// READ(6), WRITE(6): LOGICAL BLOCK ADDRESS in 21 bits.
    Medium6 { _opcode: u8, lba_high: u8, lba_low: U16, length: u8, _control: u8, }
}
layout! {
    /// READ(10), WRITE(10), WRITE AND VERIFY(10), VERIFY(10), PRE-FETCH(10), SYNCHRONIZE CACHE(10).
    Medium10 { _opcode: u8, flags: u8, lba: U32, _group: u8, length: U16, _control: u8, }
}
layout! {
    /// READ(12), WRITE(12), WRITE AND VERIFY(12), VERIFY(12).
    Medium12 { _opcode: u8, flags: u8, lba: U32, length: U32, _group: u8, _control: u8, }
}
layout! {
    /// READ(16), WRITE(16), WRITE AND VERIFY(16), VERIFY(16), PRE-FETCH(16), SYNCHRONIZE CACHE(16), READ CAPACITY(16).
    Medium16 { _opcode: u8, flags: u8, lba: U64, length: U32, _group: u8, _control: u8, }
}
layout! {
    /// START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL.
    StartStopCdb { _opcode: u8, flags: u8, _reserved: u8, modifier: u8, what: u8, _control: u8, }
}
layout! {
    /// SEND DIAGNOSTIC.
    SendDiagnosticCdb {
        _opcode: u8, flags: u8, _reserved: u8, parameter_list_length: U16, _control: u8,
    }
}
layout! {
    /// READ CAPACITY(10).
    ReadCapacity10Cdb {
        _opcode: u8, _reserved1: u8, lba: U32, _reserved2: [u8; 2], flags: u8, _control: u8,
    }
}
layout! {
    /// INQUIRY.
    InquiryCdb { _opcode: u8, flags: u8, page: u8, allocation_length: U16, _control: u8, }
}
layout! {
    /// REQUEST SENSE.
    RequestSenseCdb { _opcode: u8, flags: u8, _reserved: [u8; 2], allocation_length: u8, _control: u8, }
}
layout! {
    /// MODE SENSE(6).
    ModeSense6Cdb {
        _opcode: u8, flags: u8, page: u8, subpage: u8, allocation_length: u8, _control: u8,
    }
}
layout! {
    /// MODE SENSE(10).
    ModeSense10Cdb {
        _opcode: u8, flags: u8, page: u8, subpage: u8, _reserved: [u8; 3], allocation_length: U16,
        _control: u8,
    }
}
layout! {
    /// PERSISTENT RESERVE IN.
    PersistentReserveInCdb {
        _opcode: u8, service_action: u8, _reserved: [u8; 5], allocation_length: U16, _control: u8,
    }
}
layout! {
    /// PERSISTENT RESERVE OUT.
    PersistentReserveOutCdb {
        _opcode: u8, service_action: u8, scope_and_type: u8, _reserved: [u8; 2],
        parameter_list_length: U32, _control: u8,
    }
}
layout! {
    /// REPORT SUPPORTED OPERATION CODES.
    ReportSupportedOperationCodesCdb {
        _opcode: u8, _service_action: u8, options: u8, requested_opcode: u8,
        requested_service_action: U16, allocation_length: U32, _reserved: u8, _control: u8,
    }
}
layout! {
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
    ReportSupportedTaskManagementFunctionsCdb {
        _opcode: u8, _service_action: u8, options: u8, _reserved1: [u8; 3], allocation_length: U32,
        _reserved2: u8, _control: u8,
    }
}

/// A CDB that ends before its command does: INVALID FIELD IN CDB, pointing at the first byte that is missing.
pub(super) fn too_short(cdb: &[u8]) -> Sense {
    Sense::invalid_field_in_cdb(Field::cdb(u16::try_from(cdb.len()).unwrap_or(u16::MAX)))
}

pub(super) fn test_unit_ready(_cdb: &[u8]) -> Result<Command, Sense> {
    Ok(Command::TestUnitReady)
}

pub(super) fn request_sense(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = RequestSenseCdb::of(cdb)?;
    Ok(Command::RequestSense {
        format: match cdb.flags & DESC {
            0 => Format::Fixed,
            _ => Format::Descriptor,
        },
        allocation_length: cdb.allocation_length.into(),
    })
}

pub(super) fn inquiry(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = InquiryCdb::of(cdb)?;
    let page = match (cdb.flags & EVPD, cdb.page) {
        (0, 0) => None,
        (0, _) => return Err(Sense::invalid_field_in_cdb(Field::cdb(2))),
        (_, page) => Some(page),
    };
    Ok(Command::Inquiry {
        page,
        allocation_length: cdb.allocation_length.get().into(),
    })
}

pub(super) fn mode_sense_6(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ModeSense6Cdb::of(cdb)?;
    Ok(Command::ModeSense(ModeSense {
        header: ModeHeader::Six,
        block_descriptor: match cdb.flags & DBD {
            0 => BlockDescriptor::Short,
            _ => BlockDescriptor::None,
        },
        page_control: page_control(cdb.page)?,
        page: page_code(cdb.page),
        subpage: cdb.subpage,
        allocation_length: cdb.allocation_length.into(),
    }))
}

pub(super) fn mode_sense_10(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ModeSense10Cdb::of(cdb)?;
    Ok(Command::ModeSense(ModeSense {
        header: ModeHeader::Ten,
        block_descriptor: match (cdb.flags & DBD, cdb.flags & LLBAA) {
            (0, 0) => BlockDescriptor::Short,
            (0, _) => BlockDescriptor::Long,
            _ => BlockDescriptor::None,
        },
        page_control: page_control(cdb.page)?,
        page: page_code(cdb.page),
        subpage: cdb.subpage,
        allocation_length: cdb.allocation_length.get().into(),
    }))
}

/// PAGE CODE: bits 5 to 0 of MODE SENSE's byte 2.
const fn page_code(byte: u8) -> u8 {
    byte & 0x3f
}

/// PC: bits 7 and 6 of MODE SENSE's byte 2.
const fn page_control(byte: u8) -> Result<PageControl, Sense> {
    match byte >> 6 {
        0b00 => Ok(PageControl::Current),
        0b01 => Ok(PageControl::Changeable),
        0b10 => Ok(PageControl::Default),
        _ => Err(Sense::saving_parameters_not_supported()),
    }
}

/// SBC-2 refuses an LBA without PMI, and initiators' tests hold to it. SBC-3 has made both obsolete, so
/// an LBA with PMI is ignored.
pub(super) fn read_capacity_10(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ReadCapacity10Cdb::of(cdb)?;
    if cdb.lba.get() != 0 && cdb.flags & PMI == 0 {
        return Err(Sense::invalid_field_in_cdb(Field::cdb(2)));
    }
    Ok(Command::ReadCapacity10)
}

pub(super) fn read_capacity_16(cdb: &[u8]) -> Result<Command, Sense> {
    Ok(Command::ReadCapacity16 {
        allocation_length: Medium16::of(cdb)?.length.get(),
    })
}

pub(super) fn read_6(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_6(cdb).map(Command::Read)
}

pub(super) fn read_10(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_10(cdb).map(Command::Read)
}

pub(super) fn read_12(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_12(cdb).map(Command::Read)
}

pub(super) fn read_16(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_16(cdb).map(Command::Read)
}

pub(super) fn write_6(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_6(cdb).map(Command::Write)
}

pub(super) fn write_10(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_10(cdb).map(Command::Write)
}

pub(super) fn write_12(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_12(cdb).map(Command::Write)
}

pub(super) fn write_16(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_16(cdb).map(Command::Write)
}

pub(super) fn write_and_verify_10(cdb: &[u8]) -> Result<Command, Sense> {
    write_and_verify(cdb, transfer_10(cdb)?)
}

pub(super) fn write_and_verify_12(cdb: &[u8]) -> Result<Command, Sense> {
    write_and_verify(cdb, transfer_12(cdb)?)
}

pub(super) fn write_and_verify_16(cdb: &[u8]) -> Result<Command, Sense> {
    write_and_verify(cdb, transfer_16(cdb)?)
}

fn write_and_verify(cdb: &[u8], transfer: Transfer) -> Result<Command, Sense> {
    let compare = match byte_check(cdb)? {
        ByteCheck::Nothing => false,
        ByteCheck::All => true,
        ByteCheck::One => return Err(Sense::invalid_field_in_cdb(BYTCHK_FIELD)),
    };
    let transfer = Transfer {
        fua: false, // its bit is reserved here
        ..transfer
    };
    Ok(Command::WriteAndVerify { transfer, compare })
}

fn byte_check(cdb: &[u8]) -> Result<ByteCheck, Sense> {
    match cdb[1] & BYTCHK {
        0b000 => Ok(ByteCheck::Nothing),
        0b010 => Ok(ByteCheck::All),
        0b110 => Ok(ByteCheck::One),
        _ => Err(Sense::invalid_field_in_cdb(BYTCHK_FIELD)),
    }
}

pub(super) fn verify_10(cdb: &[u8]) -> Result<Command, Sense> {
    verify(cdb, transfer_10(cdb)?)
}

pub(super) fn verify_12(cdb: &[u8]) -> Result<Command, Sense> {
    verify(cdb, transfer_12(cdb)?)
}

pub(super) fn verify_16(cdb: &[u8]) -> Result<Command, Sense> {
    verify(cdb, transfer_16(cdb)?)
}

fn verify(cdb: &[u8], transfer: Transfer) -> Result<Command, Sense> {
    let byte_check = byte_check(cdb)?;
    let moves_all = byte_check == ByteCheck::All;
    let transfer = Transfer {
        fua: false, // its bit is reserved here
        length_field: transfer.length_field.filter(|_| moves_all),
        ..transfer
    };
    Ok(Command::Verify(transfer, byte_check))
}

fn transfer_6(cdb: &[u8]) -> Result<Transfer, Sense> {
    let cdb = Medium6::of(cdb)?;
    let lba_high = u64::from(cdb.lba_high & LBA_6) << 16;
    Ok(Transfer {
        lba: Lba(lba_high | u64::from(cdb.lba_low.get())),
        blocks: Blocks(match cdb.length {
            0 => 256,
            length => length.into(),
        }),
        fua: false,
        dpo: false,
        length_field: None,
    })
}

fn transfer_10(cdb: &[u8]) -> Result<Transfer, Sense> {
    let cdb = Medium10::of(cdb)?;
    let (lba, blocks) = (cdb.lba.get().into(), cdb.length.get().into());
    Ok(transfer(lba, blocks, cdb.flags, Field::cdb(7)))
}

fn transfer_12(cdb: &[u8]) -> Result<Transfer, Sense> {
    let cdb = Medium12::of(cdb)?;
    let (lba, blocks) = (cdb.lba.get().into(), cdb.length.get());
    Ok(transfer(lba, blocks, cdb.flags, Field::cdb(6)))
}

fn transfer_16(cdb: &[u8]) -> Result<Transfer, Sense> {
    let cdb = Medium16::of(cdb)?;
    let (lba, blocks) = (cdb.lba.get(), cdb.length.get());
    Ok(transfer(lba, blocks, cdb.flags, Field::cdb(10)))
}

fn transfer(lba: u64, blocks: u32, flags: u8, length_field: Field) -> Transfer {
    Transfer {
        lba: Lba(lba),
        blocks: Blocks(blocks.into()),
        fua: flags & FUA != 0,
        dpo: flags & DPO != 0,
        length_field: Some(length_field),
    }
}

pub(super) fn pre_fetch_10(cdb: &[u8]) -> Result<Command, Sense> {
    cache_range_10(cdb).map(Command::PreFetch)
}

pub(super) fn pre_fetch_16(cdb: &[u8]) -> Result<Command, Sense> {
    cache_range_16(cdb).map(Command::PreFetch)
}

pub(super) fn synchronize_cache_10(cdb: &[u8]) -> Result<Command, Sense> {
    cache_range_10(cdb).map(Command::SynchronizeCache)
}

pub(super) fn synchronize_cache_16(cdb: &[u8]) -> Result<Command, Sense> {
    cache_range_16(cdb).map(Command::SynchronizeCache)
}

fn cache_range_10(cdb: &[u8]) -> Result<CacheRange, Sense> {
    let cdb = Medium10::of(cdb)?;
    Ok(CacheRange {
        lba: Lba(cdb.lba.get().into()),
        blocks: Blocks(cdb.length.get().into()),
        immed: cdb.flags & IMMED != 0,
    })
}

fn cache_range_16(cdb: &[u8]) -> Result<CacheRange, Sense> {
    let cdb = Medium16::of(cdb)?;
    Ok(CacheRange {
        lba: Lba(cdb.lba.get()),
        blocks: Blocks(cdb.length.get().into()),
        immed: cdb.flags & IMMED != 0,
    })
}

/// The power conditions that a unit without power management has (SBC-3, START STOP UNIT): START_VALID, ACTIVE and
/// LU_CONTROL.
pub(super) fn start_stop_unit(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = StartStopCdb::of(cdb)?;
    let power_condition = cdb.what >> 4;
    if !matches!(power_condition, 0x0 | 0x1 | 0x7) {
        return Err(Sense::invalid_field_in_cdb(Field::cdb_bit(4, 7)));
    }
    Ok(Command::StartStopUnit(StartStopUnit {
        immed: cdb.flags & START_STOP_IMMED != 0,
        power_condition,
        power_condition_modifier: cdb.modifier & 0x0f,
        no_flush: cdb.what & NO_FLUSH != 0,
        start: cdb.what & START != 0,
    }))
}

/// There are no diagnostic pages that a parameter list could hold.
pub(super) fn send_diagnostic(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = SendDiagnosticCdb::of(cdb)?;
    if cdb.parameter_list_length.get() != 0 {
        return Err(Sense::invalid_field_in_cdb(Field::cdb(3)));
    }
    Ok(Command::SendDiagnostic {
        self_test: cdb.flags & SELFTEST != 0,
    })
}

pub(super) fn prevent_allow_medium_removal(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = StartStopCdb::of(cdb)?;
    Ok(Command::PreventAllowMediumRemoval {
        prevent: cdb.what & 0x01 != 0,
    })
}

pub(super) fn reserve(_cdb: &[u8]) -> Result<Command, Sense> {
    Ok(Command::Reserve)
}

pub(super) fn release(_cdb: &[u8]) -> Result<Command, Sense> {
    Ok(Command::Release)
}

pub(super) fn persistent_reserve_in(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = PersistentReserveInCdb::of(cdb)?;
    Ok(Command::PersistentReserveIn {
        service_action: cdb.service_action & SERVICE_ACTION,
        allocation_length: cdb.allocation_length.get().into(),
    })
}

/// RESERVE, RELEASE, PREEMPT and PREEMPT AND ABORT.
pub(super) fn persistent_reserve_out(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = PersistentReserveOutCdb::of(cdb)?;
    Ok(Command::PersistentReserveOut {
        service_action: cdb.service_action & SERVICE_ACTION,
        scope_and_type: cdb.scope_and_type,
        parameter_list_length: cdb.parameter_list_length.get(),
    })
}

/// The service actions that ignore SCOPE and TYPE.
pub(super) fn persistent_reserve_out_unscoped(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = PersistentReserveOutCdb::of(cdb)?;
    Ok(Command::PersistentReserveOut {
        service_action: cdb.service_action & SERVICE_ACTION,
        scope_and_type: 0,
        parameter_list_length: cdb.parameter_list_length.get(),
    })
}

pub(super) fn report_supported_operation_codes(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ReportSupportedOperationCodesCdb::of(cdb)?;
    let opcode = cdb.requested_opcode;
    let service_action = cdb.requested_service_action.get();
    Ok(Command::ReportSupportedOperationCodes {
        reporting: match cdb.options & REPORTING_OPTIONS {
            0b000 => Reporting::All,
            0b001 => Reporting::Opcode(opcode),
            0b010 => Reporting::ServiceAction(opcode, service_action),
            0b011 => Reporting::Either(opcode, service_action),
            _ => return Err(Sense::invalid_field_in_cdb(Field::cdb_bit(2, 2))),
        },
        rctd: cdb.options & RCTD != 0,
        allocation_length: cdb.allocation_length.get(),
    })
}

pub(super) fn report_supported_task_management_functions(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ReportSupportedTaskManagementFunctionsCdb::of(cdb)?;
    let allocation_length = cdb.allocation_length.get();
    if allocation_length < 4 {
        return Err(Sense::invalid_field_in_cdb(Field::cdb(6)));
    }
    Ok(Command::ReportSupportedTaskManagementFunctions {
        repd: cdb.options & REPD != 0,
        allocation_length,
    })
}

#[cfg(test)]
mod tests;
