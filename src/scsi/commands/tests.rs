use proptest::prelude::*;

use super::*;
use crate::scsi::capacity::{self, Geometry};
use crate::scsi::inquiry::{self, Identity};
use crate::scsi::mode::{self, ModeState, Values};
use crate::scsi::provisioning::Provisioning;
use crate::scsi::report;

/// The shortest way to ask for the command: operation code, service action, the rest 0 if it can be.
fn minimal(row: &Row) -> Vec<u8> {
    let mut cdb = vec![0; row.usage.len()];
    cdb[0] = row.opcode();
    cdb[1] = row.service_action().unwrap_or(0);
    match row.name {
        "REPORT SUPPORTED OPERATION CODES" => cdb[2] = 0x03, // look at operation code and service action
        "WRITE SAME(10)" => cdb[8] = 0x01,                   // NUMBER OF LOGICAL BLOCKS
        "WRITE SAME(16)" => cdb[13] = 0x01,
        "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS" => cdb[9] = 0x04, // the least ALLOCATION LENGTH
        _ => {}
    }
    cdb
}

/// The rows that we decode.
fn decoded() -> impl Iterator<Item = &'static Row> {
    COMMANDS.iter().filter(|row| row.name != "REPORT LUNS")
}

/// Every bit of a row's CDB that says neither operation code nor service action.
fn bits(row: &Row) -> impl Iterator<Item = (usize, u8)> + use<'_> {
    let is_service_action =
        |byte, mask| row.has_service_action && byte == 1 && mask & SERVICE_ACTION != 0;
    (1..row.usage.len())
        .flat_map(|byte| (0..8).map(move |bit| (byte, 1 << bit)))
        .filter(move |&(byte, mask)| !is_service_action(byte, mask))
}

fn refuses(row: &Row, byte: usize, mask: u8) -> bool {
    let naca = byte == row.usage.len() - 1 && mask == NACA;
    naca || row
        .refuse
        .iter()
        .any(|bits| usize::from(bits.byte) == byte && bits.mask & mask != 0)
}

/// Refused by the decoder: the LBA of READ CAPACITY(10) unless PMI is set, and of SEND DIAGNOSTIC the PARAMETER LIST
/// LENGTH, which is more than one byte; ATOMIC BOUNDARY is as long.
fn depends(row: &Row, byte: usize) -> bool {
    row.name == "READ CAPACITY(10)" && (2..6).contains(&byte)
        || row.name == "SEND DIAGNOSTIC" && (3..5).contains(&byte)
        || row.name == "WRITE ATOMIC(16)" && (10..12).contains(&byte)
}

#[test]
fn rows_ascend_and_none_is_twice() {
    let keys: Vec<_> = COMMANDS
        .iter()
        .map(|row| (row.opcode(), row.service_action()))
        .collect();
    assert!(keys.is_sorted_by(|one, next| one < next), "{keys:02x?}");
}

#[test]
fn an_operation_code_has_service_actions_in_all_its_rows_or_is_one_row() {
    for row in COMMANDS {
        let rows = of_opcode(row.opcode());
        let all = rows.iter().all(|row| row.has_service_action);
        assert!(all || rows.len() == 1, "{}", row.name);
    }
}

#[test]
fn a_cdb_is_as_long_as_its_group_code_says() {
    for row in COMMANDS {
        let length = match row.opcode() >> 5 {
            0 => 6,
            1 | 2 => 10,
            4 => 16,
            5 => 12,
            group => panic!("{}: group {group} has no length", row.name),
        };
        assert_eq!(row.cdb_length(), length, "{}", row.name);
    }
}

#[test]
fn usage_and_refusal_do_not_meet_and_control_is_not_used() {
    for row in COMMANDS {
        for bits in row.refuse {
            let usage = row.usage[usize::from(bits.byte)];
            let service_action = if row.has_service_action && bits.byte == 1 {
                SERVICE_ACTION
            } else {
                0
            };
            assert_eq!(
                bits.mask & (usage | service_action),
                0,
                "{} {bits:?}",
                row.name
            );
        }
        assert_eq!(row.usage.last(), Some(&0), "{}", row.name);
    }
}

#[test]
fn find_answers_with_the_row_of_operation_code_and_service_action() {
    for row in COMMANDS {
        let mut cdb = minimal(row);
        cdb[1] |= 0xe0; // not of the service action
        assert_eq!(find(&cdb, Features::ALL).unwrap().name, row.name);
    }
}

#[test]
fn every_decoder_accepts_a_minimal_cdb() {
    for row in decoded() {
        assert!(
            row.decode(&minimal(row), Features::ALL).is_ok(),
            "{}",
            row.name
        );
    }
}

#[test]
fn every_bit_in_usage_counts() {
    for row in decoded() {
        let plain = row.decode(&minimal(row), Features::ALL);
        for (byte, mask) in bits(row).filter(|&(byte, mask)| row.usage[byte] & mask != 0) {
            let mut cdb = minimal(row);
            cdb[byte] ^= mask;
            assert_ne!(
                row.decode(&cdb, Features::ALL),
                plain,
                "{} byte {byte} {mask:02x}",
                row.name
            );
        }
    }
}

#[test]
fn every_bit_outside_usage_and_refusal_is_ignored() {
    for row in decoded() {
        let plain = row.decode(&minimal(row), Features::ALL);
        for (byte, mask) in bits(row) {
            if row.usage[byte] & mask == 0 && !refuses(row, byte, mask) && !depends(row, byte) {
                let mut cdb = minimal(row);
                cdb[byte] |= mask;
                assert_eq!(
                    row.decode(&cdb, Features::ALL),
                    plain,
                    "{} byte {byte} {mask:02x}",
                    row.name
                );
            }
        }
    }
}

#[test]
fn every_refused_bit_is_pointed_at_by_the_first_bit_of_its_field() {
    for row in COMMANDS {
        for (byte, mask) in bits(row).filter(|&(byte, mask)| refuses(row, byte, mask)) {
            let mut cdb = minimal(row);
            cdb[byte] |= mask;
            let first = match (row.name, byte, mask) {
                (_, 1, 0x20 | 0x40 | 0x80) => 7, // PROTECT fields, SELF-TEST CODE
                ("GET LBA STATUS", 14, _) => 7,  // REPORT TYPE
                (_, _, mask) => u8::try_from(mask.trailing_zeros()).unwrap(),
            };
            let field = Field::cdb_bit(u16::try_from(byte).unwrap(), first);
            assert_eq!(
                row.decode(&cdb, Features::ALL),
                Err(Sense::invalid_field_in_cdb(field)),
                "{} byte {byte} {mask:02x}",
                row.name
            );
        }
    }
}

#[test]
fn naca_is_refused_before_any_other_field() {
    let cdb = [0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0x04]; // READ(10), RDPROTECT=1, NACA=1
    let refused = find(&cdb, Features::ALL)
        .unwrap()
        .decode(&cdb, Features::ALL);
    assert_eq!(
        refused,
        Err(Sense::invalid_field_in_cdb(Field::cdb_bit(9, 2)))
    );
}

#[test]
fn a_cdb_cut_short_lacks_the_byte_after_its_end() {
    for row in COMMANDS {
        for length in 0..row.usage.len() {
            let missing = Field::cdb(u16::try_from(length).unwrap());
            let refused = row.decode(&minimal(row)[..length], Features::ALL);
            assert_eq!(
                refused,
                Err(Sense::invalid_field_in_cdb(missing)),
                "{}",
                row.name
            );
        }
    }
}

#[test]
fn bytes_behind_the_cdb_are_not_looked_at() {
    for row in decoded() {
        let mut cdb = minimal(row);
        let plain = row.decode(&cdb, Features::ALL);
        cdb.extend([0xff; 16]);
        assert_eq!(row.decode(&cdb, Features::ALL), plain, "{}", row.name);
    }
}

#[test]
fn an_unknown_operation_code_is_not_a_field() {
    let unknown = Err(Sense::invalid_command_operation_code());
    assert_eq!(find(&[], Features::ALL).map(|row| row.name), unknown);
    for opcode in 0..=0xff {
        if COMMANDS.iter().all(|row| row.opcode() != opcode) {
            assert_eq!(
                find(&[opcode; 16], Features::ALL).map(|row| row.name),
                unknown,
                "{opcode:02x}"
            );
        }
    }
}

#[test]
fn an_unknown_service_action_is_a_field_of_a_known_operation_code() {
    let unknown = Err(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4)));
    for (opcode, service_action) in [
        (0x5e, 0x04),
        (0x5e, 0x1f),
        (0x5f, 0x08),
        (0x5f, 0x10),
        (0x83, 0x01),
        (0x83, 0x10),
        (0x84, 0x01),
        (0x84, 0x04),
        (0x84, 0x05),
        (0x9e, 0x00),
        (0xa3, 0x0a),
    ] {
        let cdb = [
            opcode,
            service_action,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        assert_eq!(
            find(&cdb, Features::ALL).map(|row| row.name),
            unknown,
            "{opcode:02x}/{service_action:02x}"
        );
    }
    assert_eq!(find(&[0x9e], Features::ALL).map(|row| row.name), unknown);
}

#[test]
fn what_we_would_not_do_is_refused() {
    for row in COMMANDS {
        let refused: &[(u16, u8)] = match row.opcode() {
            0x28 | 0xa8 | 0x88 | 0x2a | 0xaa | 0x8a => &[(1, 0xe0)], // RDPROTECT, WRPROTECT
            0x2f | 0xaf | 0x8f => &[(1, 0xe0)],                      // VRPROTECT
            0x2e | 0xae | 0x8e | 0x89 | 0x8b | 0x9c => &[(1, 0xe0)], // WRPROTECT, ORPROTECT
            0x41 | 0x93 => &[(1, 0xe0), (1, 0x10), (1, 0x04), (1, 0x02)], // WRPROTECT, ANCHOR, PBDATA, LBDATA
            0x42 | 0x4d => &[(1, 0x01)],                                  // ANCHOR, SP
            0x9e if row.service_action() == Some(0x12) => &[(14, 0xff)],  // REPORT TYPE
            0x12 => &[(1, 0x02)],                                         // CMDDT
            0x1b => &[(4, 0x02)],                                         // LOEJ
            0x1d => &[(1, 0xe0)],                                         // SELF-TEST CODE
            0x1e => &[(4, 0x02)],                                         // PREVENT
            0x16 | 0x17 => &[(1, 0x10), (1, 0x01)],                       // 3RDPTY, EXTENT
            0x56 | 0x57 => &[(1, 0x10), (1, 0x02), (1, 0x01)],            // 3RDPTY, LONGID, EXTENT
            _ => &[],
        };
        let fields: Vec<_> = row
            .refuse
            .iter()
            .map(|bits| (bits.byte, bits.mask))
            .collect();
        assert_eq!(fields, refused, "{}", row.name);
    }
}

/// SPC-4 and SBC-3, commands that are allowed in the presence of various reservations: also those that nobody serves
/// here yet, so that whoever adds one finds its class.
fn class(opcode: u8, service_action: u8) -> Access {
    match (opcode, service_action) {
        (0x03 | 0x12 | 0x4d | 0x86 | 0x87 | 0xa0, _) // REQUEST SENSE, INQUIRY, LOG SENSE, access control, REPORT LUNS
        | (0xa3, 0x05 | 0x0a) // REPORT IDENTIFYING INFORMATION, TARGET PORT GROUPS
        | (0xab, 0x01) // READ MEDIA SERIAL NUMBER
        | (0x25, _) | (0x9e, 0x10) // READ CAPACITY
            => Access::Free,
        (0x00 | 0x84, _) // TEST UNIT READY, RECEIVE COPY RESULTS
        | (0xa3, 0x0b | 0x0e | 0x0f) // REPORT ALIASES, PRIORITY, TIMESTAMP
        | (0x9e, 0x13) // REPORT REFERRALS
            => Access::FreeUnlessReserved,
        (0x1a | 0x5a | 0x1c | 0x3c | 0x9b | 0x8c | 0xa2, _) // MODE SENSE, diagnostics, buffer, attribute, security
        | (0xa3, 0x0c | 0x0d | 0x10) | (0x83, 0x10) // REPORT SUPPORTED ..., MANAGEMENT PROTOCOL IN, POPULATE TOKEN
        | (0x08 | 0x28 | 0xa8 | 0x88, _) // READ
        | (0x34 | 0x90, _) // PRE-FETCH
        | (0x2f | 0xaf | 0x8f, _) // VERIFY, with and without data
        | (0x37 | 0xb7 | 0x52, _) | (0x9e, 0x12) // READ DEFECT DATA, XDREAD, GET LBA STATUS
            => Access::Read,
        (0x15 | 0x55 | 0x1d | 0x3b | 0x4c | 0x8d | 0xb5 | 0xa4, _) // MODE SELECT and what else sets something
        | (0x83, 0x00 | 0x01 | 0x11 | 0x1c) // EXTENDED COPY, WRITE USING TOKEN, COPY OPERATION ABORT
        | (0x0a | 0x2a | 0xaa | 0x8a | 0x2e | 0xae | 0x8e | 0x9c, _) // WRITE, and VERIFY, ATOMIC
        | (0x89 | 0x41 | 0x93 | 0x42 | 0x8b | 0x50 | 0x51 | 0x53, _) // COMPARE AND WRITE, WRITE SAME, UNMAP, ORWRITE
        | (0x35 | 0x91 | 0x04 | 0x48 | 0x07 | 0x3e | 0x3f, _) // SYNCHRONIZE CACHE, FORMAT UNIT, SANITIZE, LONG
        | (0x9e | 0x9f, 0x11) // READ LONG(16), WRITE LONG(16)
            => Access::Write,
        (0x5e, _) => Access::PersistentReserveIn,
        (0x5f, _) => Access::PersistentReserveOut,
        (0x16 | 0x17 | 0x56 | 0x57, _) => Access::Reserve,
        (0x1b | 0x1e, _) => Access::Write, // START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, but for their free forms
        _ => panic!("{opcode:02x}/{service_action:02x} has no class"),
    }
}

#[test]
fn access_is_as_the_standards_class_it() {
    for row in COMMANDS {
        let class = class(row.opcode(), row.service_action().unwrap_or(0));
        assert_eq!(row.access, class, "{}", row.name);
    }
}

#[test]
fn to_start_and_to_allow_removal_are_free_and_no_other_form_of_any_command_is() {
    for row in COMMANDS.iter().filter(|row| row.access != Access::Free) {
        for byte_4 in 0..=0xff {
            let mut cdb = minimal(row);
            cdb[4] = byte_4;
            let is_free = match row.opcode() {
                // START=1 and POWER CONDITION=0h, whatever LOEJ, NO_FLUSH and the reserved bit are
                0x1b => [0x01, 0x03, 0x05, 0x07, 0x09, 0x0b, 0x0d, 0x0f].contains(&byte_4),
                0x1e => byte_4 % 4 == 0, // PREVENT=00b
                _ => false,
            };
            let access = if is_free { Access::Free } else { row.access };
            assert_eq!(row.access_of(&cdb), access, "{} {byte_4:02x}", row.name);
        }
        assert_eq!(
            row.access_of(&[row.opcode()]),
            row.access,
            "a CDB cut short"
        );
    }
}

#[test]
fn only_three_commands_are_performed_with_a_unit_attention_pending() {
    for row in COMMANDS {
        let attention = match row.opcode() {
            0x12 | 0xa0 => Attention::PassBy, // INQUIRY, REPORT LUNS
            0x03 => Attention::AsData,        // REQUEST SENSE
            _ => Attention::Report,
        };
        assert_eq!(row.attention, attention, "{}", row.name);
    }
}

#[test]
fn only_reads_writes_and_flushes_touch_the_medium() {
    for row in COMMANDS {
        let (media, direction) = match row.opcode() {
            0x08 | 0x28 | 0xa8 | 0x88 => (Media::Read, DataDirection::In),
            0x9e if row.service_action() == Some(0x12) => (Media::Read, DataDirection::In),
            0x0a | 0x2a | 0xaa | 0x8a | 0x2e | 0xae | 0x8e | 0x89 | 0x8b | 0x9c => {
                (Media::Write, DataDirection::Out)
            }
            0x41 | 0x42 | 0x93 => (Media::Write, DataDirection::Out), // WRITE SAME, UNMAP
            0x35 | 0x91 | 0x1b => (Media::Sync, DataDirection::None),
            0x34 | 0x90 => (Media::Read, DataDirection::None),
            0x2f | 0xaf | 0x8f => (Media::Read, DataDirection::Out),
            0x15 | 0x55 | 0x5f | 0x83 => (Media::None, DataDirection::Out),
            0x00 | 0x16 | 0x17 | 0x1d | 0x1e | 0x56 | 0x57 => (Media::None, DataDirection::None),
            _ => (Media::None, DataDirection::In),
        };
        assert_eq!(
            (row.media, row.direction),
            (media, direction),
            "{}",
            row.name
        );
    }
}

#[test]
fn markdown_has_a_line_for_every_row() {
    let table = markdown();
    assert_eq!(table.lines().count(), COMMANDS.len() + 2);
    assert!(table.contains("\n| READ(10) | 28h |  | read |\n"));
    assert!(table.contains("\n| READ CAPACITY(16) | 9Eh | 10h | free |\n"));
    let prevent = "\n| PREVENT ALLOW MEDIUM REMOVAL | 1Eh |  | write; free with PREVENT=00b |\n";
    assert!(table.contains(prevent));
}

const THIN: Provisioning = Provisioning::Thin {
    zeroes: true,
    granularity: 4096,
    alignment: 0,
    figures: true,
    soft_threshold: None,
};

#[test]
fn a_command_that_needs_a_feature_is_not_known_without() {
    let unmap = [0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let unknown = Err(Sense::invalid_command_operation_code());
    let found = |features| find(&unmap, features).map(|row| row.name);
    assert_eq!(found(Features::NONE), unknown);
    assert_eq!(found(Features::ALL), Ok("UNMAP"));
    assert_eq!(found(Provisioning::Full.features()), unknown);
    assert_eq!(found(THIN.features()), Ok("UNMAP"));
}

#[test]
fn a_field_that_needs_a_feature_is_refused_without() {
    let discards = Provisioning::Thin {
        zeroes: false,
        granularity: 4096,
        alignment: 0,
        figures: true,
        soft_threshold: None,
    };
    let refused = |bit| Err(Sense::invalid_field_in_cdb(Field::cdb_bit(1, bit)));
    for opcode in [0x41, 0x93] {
        let row = &of_opcode(opcode)[0];
        // UNMAP; with LBDATA, which stands behind it; with ANCHOR, which stands before it.
        for (flags, bit) in [(0x08, 3), (0x0a, 3), (0x18, 4)] {
            let mut cdb = minimal(row);
            cdb[1] = flags;
            for provisioning in [Provisioning::Full, discards] {
                assert_eq!(row.decode(&cdb, provisioning.features()), refused(bit));
            }
            assert_eq!(row.decode(&cdb, THIN.features()).is_ok(), flags == 0x08);
        }
    }
}

#[test]
fn write_same_of_no_blocks_or_too_many_is_refused() {
    for (row, length) in [(&of_opcode(0x41)[0], 7), (&of_opcode(0x93)[0], 12)] {
        let field = if length == 7 { 7 } else { 10 };
        for (blocks, is_served) in [
            ([0x00, 0x00], false),
            ([0x00, 0x01], true),
            ([0x80, 0x00], true),
            ([0x80, 0x01], false),
        ] {
            let mut cdb = minimal(row);
            cdb[length..length + 2].copy_from_slice(&blocks);
            let decoded = row.decode(&cdb, Features::ALL);
            match is_served {
                true => assert!(decoded.is_ok()),
                false => assert_eq!(decoded, Err(Sense::invalid_field_in_cdb(Field::cdb(field)))),
            }
        }
    }
}

/// What the pure side makes of a command.
fn answer(command: Command) -> Result<Vec<u8>, Sense> {
    let geometry = Geometry::new(512, 1 << 20, 0).unwrap();
    let identity = Identity::new("serial-1");
    let values = Values::default();
    let state = ModeState {
        current: values,
        default: values,
        saved: values,
        read_only: false,
        task_aborted_status: true,
        soft_threshold: None,
    };
    match command {
        Command::Inquiry { page: None, .. } => Ok(inquiry::standard(&identity)),
        Command::Inquiry {
            page: Some(page), ..
        } => inquiry::vital_product_data(
            page,
            &identity,
            &geometry,
            &THIN,
            &inquiry::Ports::default(),
        ),
        Command::ModeSense(asked) => mode::sense(&asked, &state, &geometry),
        Command::ReadCapacity10 => Ok(capacity::read_capacity_10(&geometry)),
        Command::ReadCapacity16 { .. } => Ok(capacity::read_capacity_16(&geometry, &THIN)),
        Command::Read(transfer)
        | Command::Write(transfer)
        | Command::WriteAndVerify { transfer, .. }
        | Command::Verify(transfer, _) => {
            geometry.check_transfer_length(&transfer)?;
            geometry.check_range(transfer.lba, transfer.blocks)?;
            let end = geometry.byte_offset(transfer.lba) + geometry.byte_length(transfer.blocks);
            assert!(end <= 512 << 20);
            Ok(Vec::new())
        }
        Command::PreFetch(range) | Command::SynchronizeCache(range) => {
            geometry.check_range(range.lba, range.blocks)?;
            Ok(Vec::new())
        }
        Command::ReportSupportedOperationCodes {
            reporting, rctd, ..
        } => report::supported_operation_codes(reporting, rctd, Features::ALL),
        Command::ReportSupportedTaskManagementFunctions { repd, .. } => {
            Ok(report::supported_task_management_functions(repd))
        }
        _ => Ok(Vec::new()),
    }
}

proptest! {
    #[test]
    fn no_cdb_makes_us_panic(cdb in prop::collection::vec(any::<u8>(), 0..=32)) {
        let _ = find(&cdb, Features::ALL).and_then(|row| row.decode(&cdb, Features::ALL)).and_then(answer);
    }

    #[test]
    fn no_field_makes_us_panic(
        row in (0..COMMANDS.len()).prop_map(|index| &COMMANDS[index]),
        mut cdb in prop::collection::vec(any::<u8>(), 2..=32),
    ) {
        cdb[0] = row.opcode();
        cdb[1] = row.service_action().unwrap_or(cdb[1]);
        prop_assert_eq!(find(&cdb, Features::ALL).unwrap().name, row.name);
        let _ = row.decode(&cdb, Features::ALL).and_then(answer);
    }
}
