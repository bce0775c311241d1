//! Commands about logical block provisioning (SBC-3), and WRITE SAME.

use zerocopy::big_endian::U16;

use super::{Medium10, Medium16};
use crate::scsi::cdb::{Command, WriteSame, layout};
use crate::scsi::provisioning::{BlockRange, MAXIMUM_WRITE_SAME};
use crate::scsi::sense::{Field, Sense};
use crate::scsi::{Blocks, Lba};

/// UNMAP of WRITE SAME, byte 1.
const UNMAP: u8 = 0x08;
/// NDOB of WRITE SAME(16), byte 1.
const NDOB: u8 = 0x01;

layout! {
    /// UNMAP.
    UnmapCdb {
        _opcode: u8, _flags: u8, _reserved: [u8; 4], _group: u8, parameter_list_length: U16,
        _control: u8,
    }
}

pub(in crate::scsi) fn unmap(cdb: &[u8]) -> Result<Command, Sense> {
    Ok(Command::Unmap {
        parameter_list_length: UnmapCdb::of(cdb)?.parameter_list_length.get().into(),
    })
}

pub(in crate::scsi) fn get_lba_status(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = Medium16::of(cdb)?;
    Ok(Command::GetLbaStatus {
        lba: Lba(cdb.lba.get()),
        allocation_length: cdb.length.get(),
    })
}

pub(in crate::scsi) fn write_same_10(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = Medium10::of(cdb)?;
    let asked = WriteSame {
        range: BlockRange {
            lba: Lba(cdb.lba.get().into()),
            blocks: Blocks(cdb.length.get().into()),
        },
        unmap: cdb.flags & UNMAP != 0,
        has_data: true,
    };
    write_same(asked, Field::cdb(7))
}

/// NDOB without UNMAP is served, too: it asks for zeros (SBC-4).
pub(in crate::scsi) fn write_same_16(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = Medium16::of(cdb)?;
    let asked = WriteSame {
        range: BlockRange {
            lba: Lba(cdb.lba.get()),
            blocks: Blocks(cdb.length.get().into()),
        },
        unmap: cdb.flags & UNMAP != 0,
        has_data: cdb.flags & NDOB == 0,
    };
    write_same(asked, Field::cdb(10))
}

/// No blocks would be all to the end: WSNZ=1 says that this is not served.
fn write_same(asked: WriteSame, length_field: Field) -> Result<Command, Sense> {
    let blocks = asked.range.blocks;
    if blocks == Blocks(0) || blocks > MAXIMUM_WRITE_SAME {
        return Err(Sense::invalid_field_in_cdb(length_field));
    }
    Ok(Command::WriteSame(asked))
}
