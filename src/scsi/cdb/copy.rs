//! Third-party copies (SPC-4).

use zerocopy::big_endian::U32;

use super::{Command, layout};
use crate::scsi::sense::Sense;

layout! {
    /// EXTENDED COPY(LID1).
    ExtendedCopyCdb {
        _opcode: u8, _service_action: u8, _reserved: [u8; 8], parameter_list_length: U32, _reserved2: u8, _control: u8,
    }
}
layout! {
    /// RECEIVE COPY STATUS(LID1), RECEIVE COPY OPERATING PARAMETERS.
    ReceiveCopyCdb {
        _opcode: u8, _service_action: u8, list_identifier: u8, _reserved: [u8; 7], allocation_length: U32,
        _reserved2: u8, _control: u8,
    }
}

pub(in crate::scsi) fn extended_copy(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ExtendedCopyCdb::of(cdb)?;
    Ok(Command::ExtendedCopy {
        parameter_list_length: cdb.parameter_list_length.get(),
    })
}

pub(in crate::scsi) fn receive_copy_status(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ReceiveCopyCdb::of(cdb)?;
    Ok(Command::ReceiveCopyStatus {
        list_identifier: cdb.list_identifier,
        allocation_length: cdb.allocation_length.get(),
    })
}

pub(in crate::scsi) fn receive_copy_operating_parameters(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ReceiveCopyCdb::of(cdb)?;
    Ok(Command::ReceiveCopyOperatingParameters {
        allocation_length: cdb.allocation_length.get(),
    })
}
