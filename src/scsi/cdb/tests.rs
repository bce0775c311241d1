use super::*;
use crate::scsi::commands;
use crate::scsi::features::Features;

fn decode(cdb: &[u8]) -> Result<Command, Sense> {
    commands::find(cdb, Features::ALL)?.decode(cdb, Features::ALL)
}

fn refused(byte: u16) -> Result<Command, Sense> {
    Err(Sense::invalid_field_in_cdb(Field::cdb(byte)))
}

#[test]
fn read_6_has_a_21_bit_lba_and_neither_fua_nor_limit() {
    let expected = Transfer {
        lba: Lba(0x1f_2345),
        blocks: Blocks(7),
        fua: false,
        dpo: false,
        length_field: None,
    };
    assert_eq!(
        decode(&[0x08, 0xff, 0x23, 0x45, 7, 0]),
        Ok(Command::Read(expected))
    );
    assert_eq!(
        decode(&[0x0a, 0xff, 0x23, 0x45, 7, 0]),
        Ok(Command::Write(expected))
    );
}

#[test]
fn read_6_of_length_0_is_of_256_blocks() {
    let Ok(Command::Read(transfer)) = decode(&[0x08, 0, 0, 0, 0, 0]) else {
        panic!("READ(6) decodes")
    };
    assert_eq!(transfer.blocks, Blocks(256));
}

#[test]
fn read_and_write_10_name_their_fields() {
    let expected = Transfer {
        lba: Lba(0x1122_3344),
        blocks: Blocks(0x5566),
        fua: true,
        dpo: false,
        length_field: Some(Field::cdb(7)),
    };
    let cdb = |opcode| [opcode, 0x08, 0x11, 0x22, 0x33, 0x44, 0, 0x55, 0x66, 0];
    assert_eq!(decode(&cdb(0x28)), Ok(Command::Read(expected)));
    assert_eq!(decode(&cdb(0x2a)), Ok(Command::Write(expected)));
}

#[test]
fn read_and_write_12_name_their_fields() {
    let expected = Transfer {
        lba: Lba(0x1122_3344),
        blocks: Blocks(0x5566_7788),
        fua: false,
        dpo: true,
        length_field: Some(Field::cdb(6)),
    };
    let cdb = |opcode| {
        [
            opcode, 0x10, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0,
        ]
    };
    assert_eq!(decode(&cdb(0xa8)), Ok(Command::Read(expected)));
    assert_eq!(decode(&cdb(0xaa)), Ok(Command::Write(expected)));
}

#[test]
fn read_and_write_16_name_their_fields() {
    let expected = Transfer {
        lba: Lba(0x1122_3344_5566_7788),
        blocks: Blocks(0x99aa_bbcc),
        fua: true,
        dpo: true,
        length_field: Some(Field::cdb(10)),
    };
    let cdb = |opcode| {
        [
            opcode, 0x18, // DPO, FUA
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // LOGICAL BLOCK ADDRESS
            0x99, 0xaa, 0xbb, 0xcc, // TRANSFER LENGTH
            0, 0,
        ]
    };
    assert_eq!(decode(&cdb(0x88)), Ok(Command::Read(expected)));
    assert_eq!(decode(&cdb(0x8a)), Ok(Command::Write(expected)));
}

#[test]
fn or_write_names_its_fields() {
    let cdb = [
        0x8b, 0x18, // DPO, FUA
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // LOGICAL BLOCK ADDRESS
        0x99, 0xaa, 0xbb, 0xcc, // TRANSFER LENGTH
        0, 0,
    ];
    let expected = Transfer {
        lba: Lba(0x1122_3344_5566_7788),
        blocks: Blocks(0x99aa_bbcc),
        fua: true,
        dpo: true,
        length_field: Some(Field::cdb(10)),
    };
    assert_eq!(decode(&cdb), Ok(Command::OrWrite(expected)));
}

#[test]
fn write_atomic_names_its_fields_and_has_no_boundary() {
    let cdb = |boundary: [u8; 2]| {
        let mut cdb = [
            0x9c, 0x18, // DPO, FUA
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // LOGICAL BLOCK ADDRESS
            0, 0, // ATOMIC BOUNDARY
            0xbb, 0xcc, // TRANSFER LENGTH
            0, 0,
        ];
        cdb[10..12].copy_from_slice(&boundary);
        cdb
    };
    let expected = Transfer {
        lba: Lba(0x1122_3344_5566_7788),
        blocks: Blocks(0xbbcc),
        fua: true,
        dpo: true,
        length_field: None,
    };
    assert_eq!(decode(&cdb([0, 0])), Ok(Command::WriteAtomic(expected)));
    let refused = Err(Sense::invalid_field_in_cdb(Field::cdb(10)));
    assert_eq!(decode(&cdb([0, 8])), refused);
    assert_eq!(decode(&cdb([1, 0])), refused);
}

#[test]
fn compare_and_write_has_one_byte_for_its_blocks() {
    let cdb = [
        0x89, 0x08, // FUA
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // LOGICAL BLOCK ADDRESS
        0xff, 0xff, 0xff, // reserved
        0xfe, // NUMBER OF LOGICAL BLOCKS
        0, 0,
    ];
    let expected = Transfer {
        lba: Lba(0x1122_3344_5566_7788),
        blocks: Blocks(0xfe),
        fua: true,
        dpo: false,
        length_field: None,
    };
    assert_eq!(decode(&cdb), Ok(Command::CompareAndWrite(expected)));
}

#[test]
fn verify_names_its_fields() {
    let expected = |lba, blocks, length_field| Transfer {
        lba: Lba(lba),
        blocks: Blocks(blocks),
        fua: false,
        dpo: true,
        length_field,
    };
    for (bits, byte_check) in [
        (0x00, ByteCheck::Nothing),
        (0x02, ByteCheck::All),
        (0x06, ByteCheck::One),
    ] {
        let field = |byte| (byte_check == ByteCheck::All).then_some(Field::cdb(byte));
        let flags = 0x10 | bits; // DPO
        let cdb = [0x2f, flags, 0x11, 0x22, 0x33, 0x44, 0, 0x55, 0x66, 0];
        let transfer = expected(0x1122_3344, 0x5566, field(7));
        assert_eq!(decode(&cdb), Ok(Command::Verify(transfer, byte_check)));
        let cdb = [
            0xaf, flags, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0,
        ];
        let transfer = expected(0x1122_3344, 0x5566_7788, field(6));
        assert_eq!(decode(&cdb), Ok(Command::Verify(transfer, byte_check)));
        let cdb = [
            0x8f, flags, // DPO, BYTCHK
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // LOGICAL BLOCK ADDRESS
            0x99, 0xaa, 0xbb, 0xcc, // VERIFICATION LENGTH
            0, 0,
        ];
        let transfer = expected(0x1122_3344_5566_7788, 0x99aa_bbcc, field(10));
        assert_eq!(decode(&cdb), Ok(Command::Verify(transfer, byte_check)));
    }
}

#[test]
fn write_and_verify_names_its_fields() {
    let expected = |lba, blocks, field, compare| Command::WriteAndVerify {
        transfer: Transfer {
            lba: Lba(lba),
            blocks: Blocks(blocks),
            fua: false,
            dpo: true,
            length_field: Some(Field::cdb(field)),
        },
        compare,
    };
    for (bits, compare) in [(0x00, false), (0x02, true)] {
        let flags = 0x18 | bits; // DPO, and a bit that is reserved
        let cdb = [0x2e, flags, 0x11, 0x22, 0x33, 0x44, 0, 0x55, 0x66, 0];
        let wanted = expected(0x1122_3344, 0x5566, 7, compare);
        assert_eq!(decode(&cdb), Ok(wanted));
        let cdb = [
            0xae, flags, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0,
        ];
        let wanted = expected(0x1122_3344, 0x5566_7788, 6, compare);
        assert_eq!(decode(&cdb), Ok(wanted));
        let cdb = [
            0x8e, flags, // DPO, BYTCHK
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // LOGICAL BLOCK ADDRESS
            0x99, 0xaa, 0xbb, 0xcc, // TRANSFER LENGTH
            0, 0,
        ];
        let wanted = expected(0x1122_3344_5566_7788, 0x99aa_bbcc, 10, compare);
        assert_eq!(decode(&cdb), Ok(wanted));
    }
}

#[test]
fn write_and_verify_cannot_repeat_a_block() {
    let refused = Err(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 2)));
    for bytchk in [0x04, 0x06] {
        assert_eq!(decode(&[0x2e, bytchk, 0, 0, 0, 0, 0, 0, 1, 0]), refused);
        let cdb = [0xae, bytchk, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        assert_eq!(decode(&cdb), refused);
        let cdb = [0x8e, bytchk, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        assert_eq!(decode(&cdb), refused);
    }
}

#[test]
fn byte_check_10b_is_reserved() {
    let refused = Err(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 2)));
    assert_eq!(decode(&[0x2f, 0x04, 0, 0, 0, 0, 0, 0, 1, 0]), refused);
    assert_eq!(decode(&[0xaf, 0x04, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]), refused);
    let cdb = [0x8f, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    assert_eq!(decode(&cdb), refused);
}

#[test]
fn protection_information_is_refused() {
    let refused = Err(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 7)));
    for protect in [0x20, 0x40, 0x60, 0x80, 0xa0, 0xe0] {
        assert_eq!(decode(&[0x28, protect, 0, 0, 0, 0, 0, 0, 1, 0]), refused);
        assert_eq!(decode(&[0x2a, protect, 0, 0, 0, 0, 0, 0, 1, 0]), refused);
        for opcode in [0x89, 0x8b] {
            let cdb = [opcode, protect, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
            assert_eq!(decode(&cdb), refused);
        }
    }
}

#[test]
fn pre_fetch_and_synchronize_cache_name_their_fields() {
    let expected = CacheRange {
        lba: Lba(0x1122_3344),
        blocks: Blocks(0x5566),
        immed: true,
    };
    let cdb = |opcode| [opcode, 0x02, 0x11, 0x22, 0x33, 0x44, 0, 0x55, 0x66, 0];
    assert_eq!(decode(&cdb(0x34)), Ok(Command::PreFetch(expected)));
    assert_eq!(decode(&cdb(0x35)), Ok(Command::SynchronizeCache(expected)));
    let expected = CacheRange {
        lba: Lba(0x1122_3344_5566_7788),
        blocks: Blocks(0x99aa_bbcc),
        immed: false,
    };
    let cdb = |opcode| {
        [
            opcode, 0, // IMMED=0
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // LOGICAL BLOCK ADDRESS
            0x99, 0xaa, 0xbb, 0xcc, // NUMBER OF LOGICAL BLOCKS
            0, 0,
        ]
    };
    assert_eq!(decode(&cdb(0x90)), Ok(Command::PreFetch(expected)));
    assert_eq!(decode(&cdb(0x91)), Ok(Command::SynchronizeCache(expected)));
}

#[test]
fn request_sense_asks_for_the_format_it_wants() {
    let expected = |format| Command::RequestSense {
        format,
        allocation_length: 252,
    };
    assert_eq!(
        decode(&[0x03, 0, 0, 0, 252, 0]),
        Ok(expected(Format::Fixed))
    );
    assert_eq!(
        decode(&[0x03, 1, 0, 0, 252, 0]),
        Ok(expected(Format::Descriptor))
    );
}

#[test]
fn inquiry_asks_for_standard_data_or_a_page() {
    let expected = |page| Command::Inquiry {
        page,
        allocation_length: 0x0124,
    };
    assert_eq!(decode(&[0x12, 0, 0, 0x01, 0x24, 0]), Ok(expected(None)));
    assert_eq!(
        decode(&[0x12, 1, 0, 0x01, 0x24, 0]),
        Ok(expected(Some(0x00)))
    );
    assert_eq!(
        decode(&[0x12, 1, 0x83, 0x01, 0x24, 0]),
        Ok(expected(Some(0x83)))
    );
}

#[test]
fn inquiry_for_a_page_without_evpd_is_refused() {
    assert_eq!(decode(&[0x12, 0, 0x83, 0, 96, 0]), refused(2));
}

#[test]
fn mode_sense_names_its_fields() {
    let expected = ModeSense {
        header: ModeHeader::Six,
        block_descriptor: BlockDescriptor::None,
        page_control: PageControl::Changeable,
        page: 0x0a,
        subpage: 0xff,
        allocation_length: 192,
    };
    assert_eq!(
        decode(&[0x1a, 0x08, 0x4a, 0xff, 192, 0]),
        Ok(Command::ModeSense(expected))
    );
    let expected = ModeSense {
        header: ModeHeader::Ten,
        block_descriptor: BlockDescriptor::Long,
        page_control: PageControl::Default,
        page: 0x3f,
        subpage: 0x00,
        allocation_length: 0x0123,
    };
    let cdb = [0x5a, 0x10, 0xbf, 0x00, 0, 0, 0, 0x01, 0x23, 0];
    assert_eq!(decode(&cdb), Ok(Command::ModeSense(expected)));
}

#[test]
fn dbd_goes_before_llbaa() {
    let descriptor = |flags| match decode(&[0x5a, flags, 0x3f, 0, 0, 0, 0, 0, 255, 0]) {
        Ok(Command::ModeSense(asked)) => asked.block_descriptor,
        other => panic!("{other:?}"),
    };
    assert_eq!(descriptor(0x00), BlockDescriptor::Short);
    assert_eq!(descriptor(0x08), BlockDescriptor::None);
    assert_eq!(descriptor(0x10), BlockDescriptor::Long);
    assert_eq!(descriptor(0x18), BlockDescriptor::None);
}

#[test]
fn mode_sense_asks_for_values_of_four_kinds() {
    let page_control = |page| match decode(&[0x1a, 0, page, 0, 255, 0]) {
        Ok(Command::ModeSense(asked)) => asked.page_control,
        other => panic!("{other:?}"),
    };
    assert_eq!(page_control(0x08), PageControl::Current);
    assert_eq!(page_control(0x48), PageControl::Changeable);
    assert_eq!(page_control(0x88), PageControl::Default);
    assert_eq!(page_control(0xc8), PageControl::Saved);
}

#[test]
fn mode_select_names_its_fields() {
    let expected = ModeSelect {
        header: ModeHeader::Six,
        page_format: true,
        save: false,
        parameter_list_length: 24,
    };
    assert_eq!(
        decode(&[0x15, 0x10, 0, 0, 24, 0]),
        Ok(Command::ModeSelect(expected))
    );
    let expected = ModeSelect {
        header: ModeHeader::Ten,
        page_format: false,
        save: true,
        parameter_list_length: 0x0123,
    };
    assert_eq!(
        decode(&[0x55, 0x01, 0, 0, 0, 0, 0, 0x01, 0x23, 0]),
        Ok(Command::ModeSelect(expected))
    );
}

#[test]
fn read_capacity_10_takes_an_lba_only_with_pmi() {
    assert_eq!(decode(&[0x25, 0, 0, 0, 0, 1, 0, 0, 0, 0]), refused(2));
    assert_eq!(
        decode(&[0x25, 0, 0, 0, 0, 1, 0, 0, 1, 0]),
        Ok(Command::ReadCapacity10)
    );
    assert_eq!(
        decode(&[0x25, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
        Ok(Command::ReadCapacity10)
    );
}

#[test]
fn read_capacity_16_has_a_32_bit_allocation_length() {
    let cdb = [
        0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x02, 0x03, 0x04, 0, 0,
    ];
    let expected = Command::ReadCapacity16 {
        allocation_length: 0x0102_0304,
    };
    assert_eq!(decode(&cdb), Ok(expected));
}

#[test]
fn start_stop_unit_names_its_fields() {
    let expected = StartStopUnit {
        immed: true,
        power_condition: 7,
        power_condition_modifier: 0x0a,
        no_flush: true,
        start: false,
    };
    let cdb = [0x1b, 0x01, 0, 0x0a, 0x74, 0];
    assert_eq!(decode(&cdb), Ok(Command::StartStopUnit(expected)));
    let expected = StartStopUnit {
        immed: false,
        power_condition: 0,
        power_condition_modifier: 0,
        no_flush: false,
        start: true,
    };
    let cdb = [0x1b, 0, 0, 0, 0x01, 0];
    assert_eq!(decode(&cdb), Ok(Command::StartStopUnit(expected)));
}

#[test]
fn power_conditions_are_start_valid_active_and_lu_control() {
    let refused = Err(Sense::invalid_field_in_cdb(Field::cdb_bit(4, 7)));
    for power_condition in 0..0x10 {
        let decoded = decode(&[0x1b, 0, 0, 0, power_condition << 4, 0]);
        if [0, 1, 7].contains(&power_condition) {
            assert!(decoded.is_ok(), "{power_condition:x}");
        } else {
            assert_eq!(decoded, refused, "{power_condition:x}");
        }
    }
}

#[test]
fn prevent_is_one_bit_and_the_other_is_refused() {
    let decode = |prevent| decode(&[0x1e, 0, 0, 0, prevent, 0]);
    let expected = |prevent| Ok(Command::PreventAllowMediumRemoval { prevent });
    assert_eq!(decode(0), expected(false));
    assert_eq!(decode(1), expected(true));
    let refused = Err(Sense::invalid_field_in_cdb(Field::cdb_bit(4, 1)));
    assert_eq!(decode(2), refused);
    assert_eq!(decode(3), refused);
}

#[test]
fn send_diagnostic_has_the_default_self_test_and_no_parameters() {
    let expected = |self_test| Ok(Command::SendDiagnostic { self_test });
    assert_eq!(decode(&[0x1d, 0x04, 0, 0, 0, 0]), expected(true));
    // PF, DEVOFFL, UNITOFFL
    assert_eq!(decode(&[0x1d, 0x13, 0, 0, 0, 0]), expected(false));
    assert_eq!(decode(&[0x1d, 0x10, 0, 1, 0, 0]), refused(3));
    assert_eq!(decode(&[0x1d, 0x10, 0, 0, 1, 0]), refused(3));
    for code in [1, 2, 4, 5, 6] {
        let wrong = Err(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 7)));
        assert_eq!(decode(&[0x1d, code << 5, 0, 0, 0, 0]), wrong, "{code}");
    }
}

#[test]
fn reserve_and_release_of_either_length_are_one() {
    assert_eq!(decode(&[0x16, 0, 0, 0, 0, 0]), Ok(Command::Reserve));
    assert_eq!(
        decode(&[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Ok(Command::Reserve)
    );
    assert_eq!(decode(&[0x17, 0, 0, 0, 0, 0]), Ok(Command::Release));
    assert_eq!(
        decode(&[0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Ok(Command::Release)
    );
}

#[test]
fn persistent_reserve_in_has_four_service_actions() {
    for service_action in 0..4 {
        let cdb = [0x5e, service_action, 0, 0, 0, 0, 0, 0x12, 0x34, 0];
        let expected = Command::PersistentReserveIn {
            service_action,
            allocation_length: 0x1234,
        };
        assert_eq!(decode(&cdb), Ok(expected));
    }
}

#[test]
fn persistent_reserve_out_has_scope_and_type_where_they_count() {
    for (service_action, scope_and_type) in [
        (0, 0),
        (1, 0xa5),
        (2, 0xa5),
        (3, 0),
        (4, 0xa5),
        (5, 0xa5),
        (6, 0),
        (7, 0),
    ] {
        let cdb = [0x5f, service_action, 0xa5, 0, 0, 0x01, 0x02, 0x03, 0x04, 0];
        let expected = Command::PersistentReserveOut {
            service_action,
            scope_and_type,
            parameter_list_length: 0x0102_0304,
        };
        assert_eq!(decode(&cdb), Ok(expected));
    }
}

#[test]
fn report_supported_operation_codes_has_four_reporting_options() {
    let options = [
        Reporting::All,
        Reporting::Opcode(0x9e),
        Reporting::ServiceAction(0x9e, 0x0110),
        Reporting::Either(0x9e, 0x0110),
    ];
    let cdb = |options| [0xa3, 0x0c, options, 0x9e, 0x01, 0x10, 0, 1, 2, 3, 0, 0];
    for (code, reporting) in (0..).zip(options) {
        for (flag, rctd) in [(0x00, false), (0x80, true)] {
            let expected = Command::ReportSupportedOperationCodes {
                reporting,
                rctd,
                allocation_length: 0x0001_0203,
            };
            assert_eq!(decode(&cdb(flag | code)), Ok(expected));
        }
    }
    for reserved in 4..8 {
        let refused = Err(Sense::invalid_field_in_cdb(Field::cdb_bit(2, 2)));
        assert_eq!(decode(&cdb(reserved)), refused);
    }
}

#[test]
fn report_supported_task_management_functions_wants_room_for_4_bytes() {
    let cdb = |length| [0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, length, 0, 0];
    assert_eq!(decode(&cdb(3)), refused(6));
    let expected = Command::ReportSupportedTaskManagementFunctions {
        repd: true,
        allocation_length: 4,
    };
    assert_eq!(decode(&cdb(4)), Ok(expected));
}

#[test]
fn the_commands_of_copies_name_their_fields() {
    let expected = Command::ExtendedCopy {
        parameter_list_length: 0x1122_3344,
    };
    let cdb = [
        0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0x11, 0x22, 0x33, 0x44, 0, 0,
    ];
    assert_eq!(decode(&cdb), Ok(expected));
    let expected = Command::ReceiveCopyStatus {
        list_identifier: 9,
        allocation_length: 0x1122_3344,
    };
    let cdb = [
        0x84, 0x00, 9, 0, 0, 0, 0, 0, 0, 0, 0x11, 0x22, 0x33, 0x44, 0, 0,
    ];
    assert_eq!(decode(&cdb), Ok(expected));
    let expected = Command::ReceiveCopyOperatingParameters {
        allocation_length: 0x1122_3344,
    };
    let cdb = [
        0x84, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0x11, 0x22, 0x33, 0x44, 0, 0,
    ];
    assert_eq!(decode(&cdb), Ok(expected));
}
