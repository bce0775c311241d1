//! Commands for block devices (SBC-3).

pub(in crate::scsi) mod provisioning;

use zerocopy::big_endian::{U16, U32, U64};

use super::{ByteCheck, CacheRange, Command, StartStopUnit, Transfer, layout};
use crate::scsi::sense::{Field, Sense};
use crate::scsi::{Blocks, Lba};

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
/// IMMED of PRE-FETCH and SYNCHRONIZE CACHE, byte 1.
const IMMED: u8 = 0x02;
/// The part of READ(6)'s and WRITE(6)'s byte 1 that belongs to the LOGICAL BLOCK ADDRESS.
const LBA_6: u8 = 0x1f;
/// PMI of READ CAPACITY(10), byte 8.
const PMI: u8 = 0x01;

layout! {
    /// READ(6), WRITE(6): LOGICAL BLOCK ADDRESS in 21 bits.
    Medium6 { _opcode: u8, lba_high: u8, lba_low: U16, length: u8, _control: u8, }
}
layout! {
    /// READ(10), WRITE(10), WRITE AND VERIFY(10), VERIFY(10), WRITE SAME(10), PRE-FETCH(10), SYNCHRONIZE CACHE(10).
    Medium10 { _opcode: u8, flags: u8, lba: U32, _group: u8, length: U16, _control: u8, }
}
layout! {
    /// READ(12), WRITE(12), WRITE AND VERIFY(12), VERIFY(12).
    Medium12 { _opcode: u8, flags: u8, lba: U32, length: U32, _group: u8, _control: u8, }
}
layout! {
    /// READ(16), WRITE(16), ORWRITE(16), COMPARE AND WRITE, WRITE AND VERIFY(16), VERIFY(16), WRITE SAME(16),
    /// PRE-FETCH(16), SYNCHRONIZE CACHE(16), READ CAPACITY(16), GET LBA STATUS.
    Medium16 { _opcode: u8, flags: u8, lba: U64, length: U32, _group: u8, _control: u8, }
}
layout! {
    /// WRITE ATOMIC(16).
    WriteAtomic16 {
        _opcode: u8, flags: u8, lba: U64, boundary: U16, length: U16, _group: u8, _control: u8,
    }
}
layout! {
    /// START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL.
    StartStopCdb { _opcode: u8, flags: u8, _reserved: u8, modifier: u8, what: u8, _control: u8, }
}
layout! {
    /// READ CAPACITY(10).
    ReadCapacity10Cdb {
        _opcode: u8, _reserved1: u8, lba: U32, _reserved2: [u8; 2], flags: u8, _control: u8,
    }
}

/// SBC-2 refuses an LBA without PMI, and initiators' tests hold to it. SBC-3 has made both obsolete, so
/// an LBA with PMI is ignored.
pub(in crate::scsi) fn read_capacity_10(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ReadCapacity10Cdb::of(cdb)?;
    if cdb.lba.get() != 0 && cdb.flags & PMI == 0 {
        return Err(Sense::invalid_field_in_cdb(Field::cdb(2)));
    }
    Ok(Command::ReadCapacity10)
}

pub(in crate::scsi) fn read_capacity_16(cdb: &[u8]) -> Result<Command, Sense> {
    Ok(Command::ReadCapacity16 {
        allocation_length: Medium16::of(cdb)?.length.get(),
    })
}

pub(in crate::scsi) fn read_6(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_6(cdb).map(Command::Read)
}

pub(in crate::scsi) fn read_10(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_10(cdb).map(Command::Read)
}

pub(in crate::scsi) fn read_12(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_12(cdb).map(Command::Read)
}

pub(in crate::scsi) fn read_16(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_16(cdb).map(Command::Read)
}

pub(in crate::scsi) fn write_6(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_6(cdb).map(Command::Write)
}

pub(in crate::scsi) fn write_10(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_10(cdb).map(Command::Write)
}

pub(in crate::scsi) fn write_12(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_12(cdb).map(Command::Write)
}

pub(in crate::scsi) fn write_16(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_16(cdb).map(Command::Write)
}

pub(in crate::scsi) fn or_write_16(cdb: &[u8]) -> Result<Command, Sense> {
    transfer_16(cdb).map(Command::OrWrite)
}

/// There is no ATOMIC BOUNDARY: it must be 0. Of the length, the limits of atomic writes decide.
pub(in crate::scsi) fn write_atomic_16(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = WriteAtomic16::of(cdb)?;
    if cdb.boundary.get() != 0 {
        return Err(Sense::invalid_field_in_cdb(Field::cdb(10)));
    }
    let (lba, blocks) = (cdb.lba.get(), cdb.length.get().into());
    Ok(Command::WriteAtomic(Transfer {
        length_field: None,
        ..transfer(lba, blocks, cdb.flags, Field::cdb(12))
    }))
}

pub(in crate::scsi) fn compare_and_write(cdb: &[u8]) -> Result<Command, Sense> {
    let [.., blocks] = Medium16::of(cdb)?.length.get().to_be_bytes();
    let transfer = transfer_16(cdb)?;
    Ok(Command::CompareAndWrite(Transfer {
        blocks: Blocks(blocks.into()), // the other bytes are reserved here
        length_field: None,
        ..transfer
    }))
}

pub(in crate::scsi) fn write_and_verify_10(cdb: &[u8]) -> Result<Command, Sense> {
    write_and_verify(cdb, transfer_10(cdb)?)
}

pub(in crate::scsi) fn write_and_verify_12(cdb: &[u8]) -> Result<Command, Sense> {
    write_and_verify(cdb, transfer_12(cdb)?)
}

pub(in crate::scsi) fn write_and_verify_16(cdb: &[u8]) -> Result<Command, Sense> {
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

pub(in crate::scsi) fn verify_10(cdb: &[u8]) -> Result<Command, Sense> {
    verify(cdb, transfer_10(cdb)?)
}

pub(in crate::scsi) fn verify_12(cdb: &[u8]) -> Result<Command, Sense> {
    verify(cdb, transfer_12(cdb)?)
}

pub(in crate::scsi) fn verify_16(cdb: &[u8]) -> Result<Command, Sense> {
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

pub(in crate::scsi) fn pre_fetch_10(cdb: &[u8]) -> Result<Command, Sense> {
    cache_range_10(cdb).map(Command::PreFetch)
}

pub(in crate::scsi) fn pre_fetch_16(cdb: &[u8]) -> Result<Command, Sense> {
    cache_range_16(cdb).map(Command::PreFetch)
}

pub(in crate::scsi) fn synchronize_cache_10(cdb: &[u8]) -> Result<Command, Sense> {
    cache_range_10(cdb).map(Command::SynchronizeCache)
}

pub(in crate::scsi) fn synchronize_cache_16(cdb: &[u8]) -> Result<Command, Sense> {
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
pub(in crate::scsi) fn start_stop_unit(cdb: &[u8]) -> Result<Command, Sense> {
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

pub(in crate::scsi) fn prevent_allow_medium_removal(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = StartStopCdb::of(cdb)?;
    Ok(Command::PreventAllowMediumRemoval {
        prevent: cdb.what & 0x01 != 0,
    })
}
