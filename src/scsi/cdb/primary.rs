//! Commands for every kind of device (SPC-4).

use zerocopy::big_endian::{U16, U32};

use super::{
    BlockDescriptor, Command, LogSense, ModeHeader, ModeSelect, ModeSense, PageControl, Reporting,
    SERVICE_ACTION, layout,
};
use crate::scsi::sense::{Field, Format, Sense};

/// SELFTEST of SEND DIAGNOSTIC, byte 1.
const SELFTEST: u8 = 0x04;
/// DESC of REQUEST SENSE, byte 1.
const DESC: u8 = 0x01;
/// EVPD of INQUIRY, byte 1.
const EVPD: u8 = 0x01;
/// DBD of MODE SENSE, byte 1.
const DBD: u8 = 0x08;
/// LLBAA of MODE SENSE(10), byte 1.
const LLBAA: u8 = 0x10;
/// PF of MODE SELECT, byte 1.
const PF: u8 = 0x10;
/// SP of MODE SELECT, byte 1.
const SP: u8 = 0x01;
/// RCTD of REPORT SUPPORTED OPERATION CODES, byte 2.
const RCTD: u8 = 0x80;
/// REPORTING OPTIONS of REPORT SUPPORTED OPERATION CODES, byte 2.
const REPORTING_OPTIONS: u8 = 0x07;
/// REPD of REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, byte 2.
const REPD: u8 = 0x80;

layout! {
    /// SEND DIAGNOSTIC.
    SendDiagnosticCdb {
        _opcode: u8, flags: u8, _reserved: u8, parameter_list_length: U16, _control: u8,
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
    /// MODE SELECT(6).
    ModeSelect6Cdb {
        _opcode: u8, flags: u8, _reserved: [u8; 2], parameter_list_length: u8, _control: u8,
    }
}
layout! {
    /// MODE SELECT(10).
    ModeSelect10Cdb {
        _opcode: u8, flags: u8, _reserved: [u8; 5], parameter_list_length: U16, _control: u8,
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

layout! {
    /// LOG SENSE.
    LogSenseCdb {
        _opcode: u8, _flags: u8, page: u8, subpage: u8, _reserved: u8, parameter_pointer: U16,
        allocation_length: U16, _control: u8,
    }
}

pub(in crate::scsi) fn log_sense(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = LogSenseCdb::of(cdb)?;
    Ok(Command::LogSense(LogSense {
        page: page_code(cdb.page),
        subpage: cdb.subpage,
        parameter_pointer: cdb.parameter_pointer.get(),
        allocation_length: cdb.allocation_length.get().into(),
    }))
}

pub(in crate::scsi) fn test_unit_ready(_cdb: &[u8]) -> Result<Command, Sense> {
    Ok(Command::TestUnitReady)
}

pub(in crate::scsi) fn request_sense(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = RequestSenseCdb::of(cdb)?;
    Ok(Command::RequestSense {
        format: match cdb.flags & DESC {
            0 => Format::Fixed,
            _ => Format::Descriptor,
        },
        allocation_length: cdb.allocation_length.into(),
    })
}

pub(in crate::scsi) fn inquiry(cdb: &[u8]) -> Result<Command, Sense> {
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

pub(in crate::scsi) fn mode_sense_6(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ModeSense6Cdb::of(cdb)?;
    Ok(Command::ModeSense(ModeSense {
        header: ModeHeader::Six,
        block_descriptor: match cdb.flags & DBD {
            0 => BlockDescriptor::Short,
            _ => BlockDescriptor::None,
        },
        page_control: page_control(cdb.page),
        page: page_code(cdb.page),
        subpage: cdb.subpage,
        allocation_length: cdb.allocation_length.into(),
    }))
}

pub(in crate::scsi) fn mode_sense_10(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ModeSense10Cdb::of(cdb)?;
    Ok(Command::ModeSense(ModeSense {
        header: ModeHeader::Ten,
        block_descriptor: match (cdb.flags & DBD, cdb.flags & LLBAA) {
            (0, 0) => BlockDescriptor::Short,
            (0, _) => BlockDescriptor::Long,
            _ => BlockDescriptor::None,
        },
        page_control: page_control(cdb.page),
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
const fn page_control(byte: u8) -> PageControl {
    match byte >> 6 {
        0b00 => PageControl::Current,
        0b01 => PageControl::Changeable,
        0b10 => PageControl::Default,
        _ => PageControl::Saved,
    }
}

pub(in crate::scsi) fn mode_select_6(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ModeSelect6Cdb::of(cdb)?;
    let length = cdb.parameter_list_length.into();
    Ok(mode_select(ModeHeader::Six, cdb.flags, length))
}

pub(in crate::scsi) fn mode_select_10(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = ModeSelect10Cdb::of(cdb)?;
    let length = cdb.parameter_list_length.get();
    Ok(mode_select(ModeHeader::Ten, cdb.flags, length))
}

fn mode_select(header: ModeHeader, flags: u8, parameter_list_length: u16) -> Command {
    Command::ModeSelect(ModeSelect {
        header,
        page_format: flags & PF != 0,
        save: flags & SP != 0,
        parameter_list_length,
    })
}

/// There are no diagnostic pages that a parameter list could hold.
pub(in crate::scsi) fn send_diagnostic(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = SendDiagnosticCdb::of(cdb)?;
    if cdb.parameter_list_length.get() != 0 {
        return Err(Sense::invalid_field_in_cdb(Field::cdb(3)));
    }
    Ok(Command::SendDiagnostic {
        self_test: cdb.flags & SELFTEST != 0,
    })
}

pub(in crate::scsi) fn reserve(_cdb: &[u8]) -> Result<Command, Sense> {
    Ok(Command::Reserve)
}

pub(in crate::scsi) fn release(_cdb: &[u8]) -> Result<Command, Sense> {
    Ok(Command::Release)
}

pub(in crate::scsi) fn persistent_reserve_in(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = PersistentReserveInCdb::of(cdb)?;
    Ok(Command::PersistentReserveIn {
        service_action: cdb.service_action & SERVICE_ACTION,
        allocation_length: cdb.allocation_length.get().into(),
    })
}

/// RESERVE, RELEASE, PREEMPT and PREEMPT AND ABORT.
pub(in crate::scsi) fn persistent_reserve_out(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = PersistentReserveOutCdb::of(cdb)?;
    Ok(Command::PersistentReserveOut {
        service_action: cdb.service_action & SERVICE_ACTION,
        scope_and_type: cdb.scope_and_type,
        parameter_list_length: cdb.parameter_list_length.get(),
    })
}

/// The service actions that ignore SCOPE and TYPE.
pub(in crate::scsi) fn persistent_reserve_out_unscoped(cdb: &[u8]) -> Result<Command, Sense> {
    let cdb = PersistentReserveOutCdb::of(cdb)?;
    Ok(Command::PersistentReserveOut {
        service_action: cdb.service_action & SERVICE_ACTION,
        scope_and_type: 0,
        parameter_list_length: cdb.parameter_list_length.get(),
    })
}

pub(in crate::scsi) fn report_supported_operation_codes(cdb: &[u8]) -> Result<Command, Sense> {
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

pub(in crate::scsi) fn report_supported_task_management_functions(
    cdb: &[u8],
) -> Result<Command, Sense> {
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
