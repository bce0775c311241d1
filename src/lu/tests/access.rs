//! Which commands a reservation lets through, from the CDB on (SPC-4 r37 and SBC-3, commands that are allowed in the
//! presence of various reservations).

use super::*;

const READ_CAPACITY_10: [u8; 10] = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const READ_CAPACITY_16: [u8; 16] = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
const SYNCHRONIZE_CACHE_16: [u8; 16] = [0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const COMPARE_AND_WRITE: [u8; 16] = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
const WRITE_ATOMIC: [u8; 16] = [0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
const OR_WRITE: [u8; 16] = [0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
const WRITE_AND_VERIFY: [u8; 10] = [0x2e, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// BYTCHK=01b.
const VERIFY_10: [u8; 10] = [0x2f, 0x02, 0, 0, 0, 0, 0, 0, 1, 0];
const VERIFY_16: [u8; 16] = [0x8f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
const START: [u8; 6] = [0x1b, 0, 0, 0, 0x01, 0];
const STOP: [u8; 6] = [0x1b, 0, 0, 0, 0x00, 0];
const ACTIVE: [u8; 6] = [0x1b, 0, 0, 0, 0x11, 0];
const SEND_DIAGNOSTIC: [u8; 6] = [0x1d, 0x04, 0, 0, 0, 0];
const ALLOW_REMOVAL: [u8; 6] = [0x1e, 0, 0, 0, 0, 0];
const PREVENT_REMOVAL: [u8; 6] = [0x1e, 0, 0, 0, 1, 0];
/// Without a parameter list.
const MODE_SELECT_6: [u8; 6] = [0x15, 0x10, 0, 0, 0, 0];
const MODE_SELECT_10: [u8; 10] = [0x55, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
const MODE_SENSE_6: [u8; 6] = [0x1a, 0x08, 0x08, 0, 24, 0];
const MODE_SENSE_10: [u8; 10] = [0x5a, 0x08, 0x08, 0, 0, 0, 0, 0, 24, 0];

/// The commands that shut-out nexuses are most often wrongly let in with, or wrongly refused. None is served here, and
/// that is said before any reservation is asked: one that is served some day has its class in the table of commands.
const NOT_SERVED: [(&str, &[u8]); 3] = [
    ("FORMAT UNIT", &[0x04, 0, 0, 0, 0, 0]),
    ("UNMAP", &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]),
    ("LOG SELECT", &[0x4c, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
];

impl Bench {
    /// Whether a command is not refused with a conflict; its I/O, if it has any, is done.
    fn passes(&mut self, from: usize, cdb: &[u8], length: u64) -> bool {
        let response = match self.step(from, cdb, length) {
            Step::Answer(answer) => settle(answer),
            Step::Io(request, pending) => self.end((request, pending)),
            other => panic!("{other:?} where an answer was expected"),
        };
        assert!(!matches!(response, Response::Check(_)), "{response:?}");
        response != CONFLICT
    }
}

#[test]
fn write_exclusive_lets_outsiders_read_and_neither_write_nor_flush() {
    let mut bench = Bench::held(1);
    for (cdb, length, passes) in [
        (&READ_CAPACITY_10[..], 8, true),
        (&READ_CAPACITY_16, 32, true),
        (&TEST_UNIT_READY, 0, true),
        (&READ, 512, true),
        (&MODE_SENSE_6, 24, true),
        (&MODE_SENSE_10, 24, true),
        (&VERIFY_10, 512, true),
        (&VERIFY_16, 0, true),
        (&START, 0, true),
        (&ALLOW_REMOVAL, 0, true),
        (&STOP, 0, false),
        (&ACTIVE, 0, false),
        (&PREVENT_REMOVAL, 0, false),
        (&SEND_DIAGNOSTIC, 0, false),
        (&MODE_SELECT_6, 0, false),
        (&MODE_SELECT_10, 0, false),
        (&WRITE, 512, false),
        (&WRITE_FUA, 512, false),
        (&WRITE_AND_VERIFY, 512, false),
        (&COMPARE_AND_WRITE, 1024, false),
        (&OR_WRITE, 512, false),
        (&WRITE_ATOMIC, 512, false),
        (&SYNCHRONIZE_CACHE, 0, false),
        (&SYNCHRONIZE_CACHE_16, 0, false),
    ] {
        assert!(bench.passes(A, cdb, length), "the holder: {cdb:02x?}");
        // B is registered, C is not: to this type it is all the same.
        for from in [B, C] {
            assert_eq!(bench.passes(from, cdb, length), passes, "{cdb:02x?}");
        }
    }
}

#[test]
fn exclusive_access_lets_outsiders_see_no_more_than_size_and_state() {
    let mut bench = Bench::held(3);
    for (cdb, length, passes) in [
        (&READ_CAPACITY_10[..], 8, true),
        (&READ_CAPACITY_16, 32, true),
        (&TEST_UNIT_READY, 0, true),
        (&INQUIRY, 96, true),
        (&REQUEST_SENSE, 18, true),
        (&START, 0, true),
        (&ALLOW_REMOVAL, 0, true),
        (&STOP, 0, false),
        (&ACTIVE, 0, false),
        (&PREVENT_REMOVAL, 0, false),
        (&SEND_DIAGNOSTIC, 0, false),
        (&MODE_SELECT_6, 0, false),
        (&MODE_SELECT_10, 0, false),
        (&VERIFY_10, 512, false),
        (&VERIFY_16, 0, false),
        (&READ, 512, false),
        (&MODE_SENSE_6, 24, false),
        (&MODE_SENSE_10, 24, false),
        (&WRITE, 512, false),
        (&WRITE_AND_VERIFY, 512, false),
        (&COMPARE_AND_WRITE, 1024, false),
        (&OR_WRITE, 512, false),
        (&WRITE_ATOMIC, 512, false),
        (&SYNCHRONIZE_CACHE, 0, false),
    ] {
        assert!(bench.passes(A, cdb, length), "the holder: {cdb:02x?}");
        for from in [B, C] {
            assert_eq!(bench.passes(from, cdb, length), passes, "{cdb:02x?}");
        }
    }
    // REPORT TARGET PORT GROUPS would pass, but is not served.
    let report_target_port_groups = [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0];
    let not_served = Response::Check(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4)));
    for from in [A, B, C] {
        let response = bench.answer(from, &report_target_port_groups, 24);
        assert_eq!(response, not_served);
    }
}

#[test]
fn registrants_types_let_registrants_do_everything() {
    for kind in [5, 6, 7, 8] {
        let mut bench = Bench::held(kind);
        let read_only = kind == 5 || kind == 7;
        for (cdb, length, is_read) in [
            (&READ[..], 512, true),
            (&VERIFY_10, 512, true),
            (&MODE_SENSE_6, 24, true),
            (&WRITE, 512, false),
            (&WRITE_AND_VERIFY, 512, false),
            (&COMPARE_AND_WRITE, 1024, false),
            (&OR_WRITE, 512, false),
            (&WRITE_ATOMIC, 512, false),
            (&COMPARE_AND_WRITE, 1024, false),
            (&OR_WRITE, 512, false),
            (&WRITE_ATOMIC, 512, false),
            (&SYNCHRONIZE_CACHE, 0, false),
            (&SYNCHRONIZE_CACHE_16, 0, false),
        ] {
            for from in [A, B] {
                assert!(bench.passes(from, cdb, length), "type {kind}: {cdb:02x?}");
            }
            let passes = is_read && read_only;
            assert_eq!(bench.passes(C, cdb, length), passes, "{kind}: {cdb:02x?}");
        }
    }
}

#[test]
fn transfer_of_nothing_is_refused_all_the_same() {
    let mut bench = Bench::held(3);
    let nothing = |opcode| [opcode, 0, 0, 0, 0, 7, 0, 0, 0, 0];
    for opcode in [0x28, 0x2a] {
        assert_eq!(bench.answer(B, &nothing(opcode), 0), CONFLICT);
        assert_eq!(bench.answer(A, &nothing(opcode), 0), Response::Good);
    }
}

#[test]
fn reserve_lets_others_start_the_unit_and_allow_removal_and_nothing_else_of_these() {
    let mut bench = Bench::new(setup());
    let step = bench.reserve_6(A);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    for (cdb, passes) in [
        (START, true),
        (ALLOW_REMOVAL, true),
        (STOP, false),
        (ACTIVE, false),
        (PREVENT_REMOVAL, false),
        (SEND_DIAGNOSTIC, false),
    ] {
        assert_eq!(bench.passes(B, &cdb, 0), passes, "{cdb:02x?}");
        assert!(bench.passes(A, &cdb, 0), "who reserved: {cdb:02x?}");
    }
}

#[test]
fn what_is_not_served_is_said_under_every_reservation_and_to_everybody() {
    let not_served = Response::Check(Sense::invalid_command_operation_code());
    for kind in [1, 3, 5, 6, 7, 8] {
        let mut bench = Bench::held(kind);
        for (name, cdb) in NOT_SERVED {
            for from in [A, B, C] {
                assert_eq!(bench.answer(from, cdb, 512), not_served, "{name}");
            }
        }
    }
}

#[test]
fn nobody_writes_a_write_protected_unit_and_everybody_reads_it() {
    let mut setup = setup();
    setup.geometry = setup.geometry.write_protected();
    let mut bench = Bench::new(setup);
    let protected = Response::Check(Sense::write_protected());
    for from in [A, B] {
        assert_eq!(bench.answer(from, &WRITE, 512), protected);
        assert_eq!(bench.answer(from, &WRITE_AND_VERIFY, 512), protected);
        assert!(bench.passes(from, &READ, 512));
        assert!(bench.passes(from, &SYNCHRONIZE_CACHE, 0));
        let Response::DataIn(mode) = bench.answer(from, &MODE_SENSE_6, 24) else {
            panic!("MODE SENSE was refused");
        };
        assert_eq!(mode[2], 0x90); // WP, DPOFUA
    }
}
