//! Commands that move no data: START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, SEND DIAGNOSTIC, PRE-FETCH.

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

/// The range of the backing object that a PRE-FETCH asks for.
fn pre_fetched(bench: &mut Bench, cdb: &[u8]) -> (u64, u64) {
    let pre_fetch = bench.io(A, cdb, 0);
    let Operation::PreFetch { offset, length } = pre_fetch.0.operation else {
        panic!("{:?}", pre_fetch.0.operation)
    };
    assert_eq!(bench.end(pre_fetch), Response::Good);
    (offset, length)
}

#[test]
fn pre_fetch_brings_its_blocks_into_the_cache() {
    let mut bench = Bench::new(setup());
    for immed in [0x00, 0x02] {
        let cdb = [0x34, immed, 0, 0, 0, 7, 0, 0, 3, 0];
        assert_eq!(pre_fetched(&mut bench, &cdb), (3584, 1536));
        let cdb = [0x90, immed, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0];
        assert_eq!(pre_fetched(&mut bench, &cdb), (3584, 1536));
    }
}

#[test]
fn pre_fetch_of_length_0_goes_to_the_end() {
    let mut bench = Bench::new(setup());
    // LBA 998 of 1,000.
    let cdb = [0x34, 0, 0, 0, 0x03, 0xe6, 0, 0, 0, 0];
    assert_eq!(pre_fetched(&mut bench, &cdb), (510_976, 1024));
}

#[test]
fn pre_fetch_takes_64_mib_of_the_cache_at_most() {
    let mut bench = Bench::new(Setup {
        geometry: Geometry::new(512, 1 << 24, 0).unwrap(),
        ..setup()
    });
    let cdb = |blocks| {
        let [a, b, c, d] = u32::to_be_bytes(blocks);
        [0x90, 0, 0, 0, 0, 0, 0, 0, 0, 1, a, b, c, d, 0, 0]
    };
    for (blocks, length) in [
        (0, 67_108_864),
        (0x1_ffff, 67_108_352),
        (0x2_0000, 67_108_864),
        (0x2_0001, 67_108_864),
    ] {
        assert_eq!(pre_fetched(&mut bench, &cdb(blocks)), (512, length));
    }
}

#[test]
fn pre_fetch_past_the_end_is_out_of_range() {
    let mut bench = Bench::new(setup());
    let out_of_range = Response::Check(Sense::logical_block_address_out_of_range());
    // LBA 999 and two blocks, LBA 1,000 and to the end.
    for (lba, blocks) in [(0xe7, 2), (0xe8, 0)] {
        let cdb = [0x34, 0, 0, 0, 0x03, lba, 0, 0, blocks, 0];
        assert_eq!(bench.answer(A, &cdb, 0), out_of_range);
    }
}

#[test]
fn pre_fetch_is_a_read_to_reservations_and_to_write_protection() {
    let cdb = [0x34, 0, 0, 0, 0, 7, 0, 0, 1, 0];
    assert_eq!(Bench::held(3).answer(B, &cdb, 0), CONFLICT);
    let mut bench = Bench::held(1);
    bench.nexuses[B] = bench.unit.attach(Some(nexus(B)), Mapping::ReadOnly);
    let changed = Response::Check(Sense::mode_parameters_changed());
    assert_eq!(bench.answer(B, &cdb, 0), changed);
    let pre_fetch = bench.io(B, &cdb, 0);
    assert_eq!(bench.end(pre_fetch), Response::Good);
}
