//! Commands that move no data: START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, SEND DIAGNOSTIC.

use super::*;

const SEND_DIAGNOSTIC: [u8; 6] = [0x1d, 0x04, 0, 0, 0, 0];

/// START STOP UNIT with these bits in byte 4: POWER CONDITION, NO_FLUSH, LOEJ, START.
fn start_stop_unit(bits: u8) -> [u8; 6] {
    [0x1b, 0, 0, 0, bits, 0]
}

fn invalid_field(byte: u16, bit: u8) -> Response {
    Response::Check(Sense::invalid_field_in_cdb(Field::cdb_bit(byte, bit)))
}

#[test]
fn start_stop_unit_flushes_and_stops_nothing() {
    let mut bench = Bench::new(setup());
    for bits in [0x00, 0x01, 0x10, 0x70] {
        let flush = bench.io(A, &start_stop_unit(bits), 0);
        assert_eq!(flush.0.operation, Operation::Flush, "{bits:02x}");
        assert_eq!(bench.end(flush), Response::Good);
        assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
        let read = bench.io(B, &READ, 512);
        assert_eq!(bench.end(read), Response::InPlace(512));
    }
}

#[test]
fn start_stop_unit_with_no_flush_does_nothing() {
    let mut bench = Bench::new(setup());
    for bits in [0x04, 0x05, 0x14, 0x74] {
        let response = bench.answer(A, &start_stop_unit(bits), 0);
        assert_eq!(response, Response::Good, "{bits:02x}");
    }
}

#[test]
fn start_stop_unit_tells_of_a_failed_flush_and_goes_on_to() {
    let mut bench = Bench::new(setup());
    let flush = bench.io(A, &start_stop_unit(0x00), 0);
    let failure = Failure::Flush(io::Error::from_raw_os_error(libc::EIO));
    let expected = Response::Check(Sense::write_error());
    assert_eq!(bench.fail(flush, failure), expected);
    let latched = Response::Check(Sense::internal_target_failure());
    for bits in [0x00, 0x01, 0x04] {
        assert_eq!(bench.answer(B, &start_stop_unit(bits), 0), latched);
    }
}

#[test]
fn start_stop_unit_of_an_outsider_conflicts_before_its_fields_are_looked_at() {
    let mut bench = Bench::reserved();
    for (bits, expected) in [
        (0x02, invalid_field(4, 1)), // LOEJ
        (0x30, invalid_field(4, 7)), // STANDBY
    ] {
        assert_eq!(bench.answer(C, &start_stop_unit(bits), 0), CONFLICT);
        assert_eq!(bench.answer(A, &start_stop_unit(bits), 0), expected);
    }
    // To start is free, and so is to start with the wrong fields.
    let load = start_stop_unit(0x03);
    assert_eq!(bench.answer(C, &load, 0), invalid_field(4, 1));
}

#[test]
fn preempt_waits_for_the_losers_stop_and_not_for_its_start() {
    for (bits, waits) in [(0x00, true), (0x01, false)] {
        let mut bench = Bench::reserved();
        let flush = bench.io(B, &start_stop_unit(bits), 0);
        let answered = bench.change(A, PREEMPT, [KEY_A, KEY_B]).is_some();
        assert_eq!(answered, !waits, "{bits:02x}");
        assert_eq!(bench.end(flush), Response::Good);
        assert_eq!(bench.released().is_some(), waits, "{bits:02x}");
    }
}

#[test]
fn prevent_and_allow_medium_removal_do_nothing() {
    let mut bench = Bench::new(setup());
    for (prevent, expected) in [
        (0, Response::Good),
        (1, Response::Good),
        (2, invalid_field(4, 1)),
        (3, invalid_field(4, 1)),
    ] {
        assert_eq!(bench.answer(A, &[0x1e, 0, 0, 0, prevent, 0], 0), expected);
    }
}

#[test]
fn send_diagnostic_looks_at_the_backing_object() {
    let mut bench = Bench::new(setup());
    // SELFTEST, and nothing at all.
    for cdb in [SEND_DIAGNOSTIC, [0x1d, 0, 0, 0, 0, 0]] {
        let test = bench.io(A, &cdb, 0);
        assert_eq!(test.0.operation, Operation::Examine);
        assert_eq!(bench.end(test), Response::Good);
    }
    let failed = Response::Check(Sense::internal_target_failure());
    for failure in [errno(libc::EIO), errno(libc::EINVAL), Failure::Truncated] {
        let test = bench.io(A, &SEND_DIAGNOSTIC, 0);
        assert_eq!(bench.fail(test, failure), failed);
    }
}
