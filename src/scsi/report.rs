//! What the device server says of itself: REPORT SUPPORTED OPERATION CODES, read off the command table, and
//! REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.

use zerocopy::big_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::cdb::Reporting;
use super::commands::{self, COMMANDS, Row};
use super::features::Features;
use super::flag;
use super::sense::{Field, Sense};

/// Command descriptor of the all_commands parameter data (SPC-4).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct CommandDescriptor {
    opcode: u8,
    reserved1: u8,
    service_action: U16,
    reserved2: u8,
    /// CTDP in bit 1, SERVACTV in bit 0.
    flags: u8,
    cdb_length: U16,
}

/// Before the CDB usage data of the one_command parameter data (SPC-4).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct OneCommand {
    reserved: u8,
    /// CTDP in bit 7, SUPPORT in bits 2 to 0.
    flags: u8,
    cdb_size: U16,
}

/// Command timeouts descriptor (SPC-4).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct CommandTimeouts {
    descriptor_length: U16,
    reserved: u8,
    command_specific: u8,
    nominal_processing_timeout_s: U32,
    recommended_timeout_s: U32,
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS parameter data (SPC-4): ABORT TASK (80h) and LOGICAL UNIT
/// RESET (08h) are the functions that are handed to us.
const TASK_MANAGEMENT_FUNCTIONS: [u8; 4] = [0x88, 0x00, 0x00, 0x00];
/// The same with REPD=1: byte 3 tells the length of the rest, the timeouts in which are not given.
const TASK_MANAGEMENT_FUNCTIONS_EXTENDED: [u8; 16] =
    [0x88, 0x00, 0x00, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const SERVACTV: u8 = 0x01;
const CTDP_ALL: u8 = 0x02;
const CTDP_ONE: u8 = 0x80;
const NOT_SUPPORTED: u8 = 0b001;
const SUPPORTED_AS_STANDARD: u8 = 0b011;

/// The answer to REPORT SUPPORTED OPERATION CODES of a unit with those features. With `rctd`, every command has a command timeouts
/// descriptor. That a command is not supported is an answer, too.
///
/// # Errors
/// INVALID FIELD IN CDB, pointing at REPORTING OPTIONS, if they ask for the command without service action
/// and it has some, or the other way round.
pub fn supported_operation_codes(
    reporting: Reporting,
    rctd: bool,
    features: Features,
) -> Result<Vec<u8>, Sense> {
    let row = match reporting {
        Reporting::All => return Ok(all_commands(rctd, features)),
        Reporting::Opcode(opcode) => match commands::served(opcode, features).next() {
            Some(row) if row.has_service_action => return Err(wrong_reporting_option()),
            row => row,
        },
        Reporting::ServiceAction(opcode, service_action) => {
            match commands::served(opcode, features).next() {
                Some(row) if !row.has_service_action => return Err(wrong_reporting_option()),
                _ => with_service_action(opcode, service_action, features),
            }
        }
        Reporting::Either(opcode, service_action) => {
            with_service_action(opcode, service_action, features)
        }
    };
    Ok(one_command(row, rctd, features))
}

/// The answer to REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, with the extended parameter data if `repd`.
pub fn supported_task_management_functions(repd: bool) -> Vec<u8> {
    if repd {
        TASK_MANAGEMENT_FUNCTIONS_EXTENDED.to_vec()
    } else {
        TASK_MANAGEMENT_FUNCTIONS.to_vec()
    }
}

fn wrong_reporting_option() -> Sense {
    Sense::invalid_field_in_cdb(Field::cdb_bit(2, 2))
}

/// A command without service actions has service action 0 here.
fn with_service_action(
    opcode: u8,
    service_action: u16,
    features: Features,
) -> Option<&'static Row> {
    commands::served(opcode, features)
        .find(|row| u16::from(row.service_action().unwrap_or(0)) == service_action)
}

/// All_commands parameter data: length of the rest in 4 bytes, then the command descriptors.
fn all_commands(rctd: bool, features: Features) -> Vec<u8> {
    let mut descriptors = Vec::new();
    for row in COMMANDS.iter().filter(|row| row.is_served(features)) {
        let descriptor = CommandDescriptor {
            opcode: row.opcode(),
            reserved1: 0,
            service_action: u16::from(row.service_action().unwrap_or(0)).into(),
            reserved2: 0,
            flags: flag(row.has_service_action, SERVACTV) | flag(rctd, CTDP_ALL),
            cdb_length: row.cdb_length().into(),
        };
        descriptors.extend(descriptor.as_bytes());
        if rctd {
            descriptors.extend(timeouts(row).as_bytes());
        }
    }
    let length =
        u32::try_from(descriptors.len()).expect("8,192 commands at most have 20 bytes each");
    [&length.to_be_bytes(), descriptors.as_slice()].concat()
}

fn one_command(row: Option<&Row>, rctd: bool, features: Features) -> Vec<u8> {
    let Some(row) = row else {
        return vec![0, NOT_SUPPORTED, 0, 0];
    };
    let header = OneCommand {
        reserved: 0,
        flags: SUPPORTED_AS_STANDARD | flag(rctd, CTDP_ONE),
        cdb_size: row.cdb_length().into(),
    };
    let mut answer = [header.as_bytes(), &row.usage_on(features)].concat();
    if rctd {
        answer.extend(timeouts(row).as_bytes());
    }
    answer
}

fn timeouts(row: &Row) -> CommandTimeouts {
    CommandTimeouts {
        descriptor_length: 0x000a.into(),
        reserved: 0,
        command_specific: 0,
        nominal_processing_timeout_s: 0.into(),
        recommended_timeout_s: row.recommended_timeout_s.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(reporting: Reporting) -> Vec<u8> {
        supported_operation_codes(reporting, false, Features::ALL).unwrap()
    }

    #[test]
    fn all_commands_are_the_table() {
        let answer = supported_operation_codes(Reporting::All, false, Features::ALL).unwrap();
        let (length, descriptors) = answer.split_first_chunk().unwrap();
        assert_eq!(
            u32::from_be_bytes(*length),
            u32::try_from(descriptors.len()).unwrap()
        );
        assert_eq!(descriptors.len(), COMMANDS.len() * 8);
        for (descriptor, row) in descriptors.chunks(8).zip(COMMANDS) {
            let length = u8::try_from(row.usage.len()).unwrap();
            let expected = match row.service_action() {
                Some(action) => [row.usage[0], 0, 0, action, 0, 0x01, 0, length],
                None => [row.usage[0], 0, 0, 0, 0, 0x00, 0, length],
            };
            assert_eq!(descriptor, expected, "{}", row.name);
        }
    }

    #[test]
    fn the_first_command_of_all_is_test_unit_ready() {
        let expected = [
            0x00, 0x00, 0x00, 0x00, // TEST UNIT READY, no service action
            0x00, 0x00, // CTDP=0, SERVACTV=0
            0x00, 0x06, // CDB LENGTH
        ];
        assert_eq!(one(Reporting::All)[4..12], expected);
    }

    #[test]
    fn rctd_gives_every_command_its_timeouts() {
        let answer = supported_operation_codes(Reporting::All, true, Features::ALL).unwrap();
        assert_eq!(answer.len(), 4 + COMMANDS.len() * 20);
        for descriptor in answer[4..].chunks(20) {
            assert_eq!(descriptor[5] & 0x02, 0x02); // CTDP
            assert_eq!(descriptor[8..16], [0x00, 0x0a, 0, 0, 0, 0, 0, 0]); // length, no nominal timeout
        }
    }

    #[test]
    fn one_command_shows_its_usage_data() {
        let expected = [
            0x00, 0x03, // CTDP=0, SUPPORT=011b
            0x00, 0x0a, // CDB SIZE
            0x2a, 0x18, 0xff, 0xff, 0xff, 0xff, 0x00, 0xff, 0xff,
            0x00, // WRITE(10): DPO, FUA; LBA; length
        ];
        assert_eq!(one(Reporting::Opcode(0x2a)), expected);
        assert_eq!(one(Reporting::Either(0x2a, 0)), expected);
    }

    #[test]
    fn one_service_action_shows_its_usage_data_and_timeouts() {
        let expected = [
            0x00, 0x83, // CTDP=1, SUPPORT=011b
            0x00, 0x0a, // CDB SIZE
            0x5f, 0x04, 0xff, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff,
            0x00, // PREEMPT: SCOPE, TYPE; length
            0x00, 0x0a, 0x00, 0x00, // DESCRIPTOR LENGTH
            0x00, 0x00, 0x00, 0x00, // NOMINAL COMMAND PROCESSING TIMEOUT: not given
            0x00, 0x00, 0x00, 0x00, // RECOMMENDED COMMAND TIMEOUT: none
        ];
        let asked = |reporting| supported_operation_codes(reporting, true, Features::ALL).unwrap();
        assert_eq!(asked(Reporting::ServiceAction(0x5f, 0x04)), expected);
        assert_eq!(asked(Reporting::Either(0x5f, 0x04)), expected);
    }

    #[test]
    fn reservation_commands_show_what_they_evaluate() {
        let persistent = |opcode, service_action| {
            [
                one(Reporting::ServiceAction(opcode, service_action)),
                one(Reporting::Either(opcode, service_action)),
            ]
        };
        for service_action in 0..4 {
            let expected = [
                0x00,
                0x03, // CTDP=0, SUPPORT=011b
                0x00,
                0x0a, // CDB SIZE
                0x5e,
                service_action,
                0,
                0,
                0,
                0,
                0,
                0xff,
                0xff,
                0x00, // ALLOCATION LENGTH
            ];
            let asked = persistent(0x5e, u16::from(service_action));
            assert_eq!(asked, [expected, expected]);
        }
        for (service_action, scope_type) in (0..8).zip([0, 0xff, 0xff, 0, 0xff, 0xff, 0, 0]) {
            let expected = [
                0x00,
                0x03, // CTDP=0, SUPPORT=011b
                0x00,
                0x0a, // CDB SIZE
                0x5f,
                service_action,
                scope_type,
                0,
                0, // SCOPE, TYPE where they are not ignored
                0xff,
                0xff,
                0xff,
                0xff,
                0x00, // PARAMETER LIST LENGTH
            ];
            let asked = persistent(0x5f, u16::from(service_action));
            assert_eq!(asked, [expected, expected]);
        }
        for opcode in [0x16, 0x17] {
            let expected = [0x00, 0x03, 0x00, 0x06, opcode, 0, 0, 0, 0, 0];
            assert_eq!(one(Reporting::Opcode(opcode)), expected);
        }
        for opcode in [0x56, 0x57] {
            let expected = [0x00, 0x03, 0x00, 0x0a, opcode, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(one(Reporting::Opcode(opcode)), expected);
        }
    }

    #[test]
    fn reads_recommend_a_minute() {
        let answer =
            supported_operation_codes(Reporting::Opcode(0x08), true, Features::ALL).unwrap();
        assert_eq!(answer[4 + 6 + 8..], [0, 0, 0, 60]);
    }

    #[test]
    fn a_reporting_option_that_does_not_fit_the_command_is_refused() {
        let refused = Err(Sense::invalid_field_in_cdb(Field::cdb_bit(2, 2)));
        for opcode in [0x5e, 0x5f, 0x9e, 0xa3] {
            let asked = Reporting::Opcode(opcode);
            assert_eq!(
                supported_operation_codes(asked, false, Features::ALL),
                refused
            );
        }
        for opcode in [0x16, 0x17, 0x28, 0x56, 0x57] {
            let asked = Reporting::ServiceAction(opcode, 0);
            assert_eq!(
                supported_operation_codes(asked, false, Features::ALL),
                refused
            );
        }
    }

    #[test]
    fn what_is_not_supported_is_said_so() {
        let not_supported = [0x00, 0x01, 0x00, 0x00]; // CTDP=0, SUPPORT=001b, CDB SIZE 0
        for reporting in [
            Reporting::Opcode(0x04),
            Reporting::ServiceAction(0x04, 0),
            Reporting::Either(0x04, 0),
            Reporting::ServiceAction(0x5f, 0x08), // REPLACE LOST RESERVATION
            Reporting::ServiceAction(0x5f, 0x0104),
            Reporting::Either(0x9e, 0x13),
            Reporting::Either(0x28, 1), // READ(10) has no service action
        ] {
            assert_eq!(one(reporting), not_supported, "{reporting:?}");
            let with_timeouts = supported_operation_codes(reporting, true, Features::ALL).unwrap();
            assert_eq!(with_timeouts, not_supported, "{reporting:?}");
        }
    }

    #[test]
    fn what_a_unit_lacks_the_feature_for_is_not_supported_and_not_listed() {
        let none = Features::NONE;
        let asked = |reporting| supported_operation_codes(reporting, false, none).unwrap();
        let not_supported = [0x00, 0x01, 0x00, 0x00];
        assert_eq!(asked(Reporting::Opcode(0x42)), not_supported); // UNMAP
        assert_eq!(asked(Reporting::Either(0x42, 0)), not_supported);
        let service_action = asked(Reporting::ServiceAction(0x42, 0));
        assert_eq!(service_action, not_supported);
        let all = asked(Reporting::All);
        assert!(all[4..].chunks(8).all(|descriptor| descriptor[0] != 0x42));
        let lacking = COMMANDS.iter().filter(|row| row.needs.is_some()).count();
        assert_eq!(all.len(), 4 + (COMMANDS.len() - lacking) * 8);
    }

    #[test]
    fn a_field_that_a_unit_lacks_the_feature_for_is_not_in_the_usage_data() {
        for (opcode, on, off) in [(0x41, 0x08, 0x00), (0x93, 0x09, 0x01)] {
            // UNMAP of WRITE SAME
            for (features, flags) in [(Features::ALL, on), (Features::NONE, off)] {
                let asked = Reporting::Opcode(opcode);
                let answer = supported_operation_codes(asked, false, features).unwrap();
                assert_eq!(answer[4..6], [opcode, flags]);
                assert_eq!(answer[6..10], [0xff; 4]);
            }
        }
    }

    #[test]
    fn abort_task_and_logical_unit_reset_are_supported() {
        let short = [0x88, 0x00, 0x00, 0x00]; // ATS, LURS
        assert_eq!(supported_task_management_functions(false), short);
        let extended = [
            0x88, 0x00, 0x00, 0x0c, // ATS, LURS; 12 more bytes
            0x00, 0x00, 0x00, 0x00, // TMFTMOV=0
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // timeouts
        ];
        assert_eq!(supported_task_management_functions(true), extended);
    }

    proptest! {
        #[test]
        fn no_question_makes_it_panic(option in 0..4, opcode: u8, service_action: u16, rctd: bool) {
            let reporting = match option {
                0 => Reporting::All,
                1 => Reporting::Opcode(opcode),
                2 => Reporting::ServiceAction(opcode, service_action),
                _ => Reporting::Either(opcode, service_action),
            };
            if let Ok(answer) = supported_operation_codes(reporting, rctd, Features::ALL) {
                prop_assert!(answer.len() >= 4);
            }
        }
    }
}
