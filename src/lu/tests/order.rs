//! What is answered first when several answers would be right (SAM-5, status precedence).

use super::*;

/// PERSISTENT RESERVE IN and OUT with service actions that do not exist.
const NOT_SERVED: [[u8; 10]; 4] = [
    [0x5e, 0x04, 0, 0, 0, 0, 0, 0, 24, 0],
    [0x5f, 0x08, 0, 0, 0, 0, 0, 0, 24, 0],
    [0x5f, 0x10, 0, 0, 0, 0, 0, 0, 24, 0],
    [0x5f, 0x1f, 0, 0, 0, 0, 0, 0, 24, 0],
];

#[test]
fn persistent_reserve_of_no_service_action_is_an_invalid_field() {
    let mut bench = Bench::reserved();
    let expected = Response::Check(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4)));
    for cdb in NOT_SERVED {
        for from in [A, B, C] {
            assert_eq!(bench.answer(from, &cdb, 24), expected, "{cdb:02x?}");
        }
    }
}

#[test]
fn persistent_reserve_conflicts_with_a_reserve_whatever_its_service_action() {
    let mut bench = Bench::new(setup());
    let step = bench.reserve_6(A);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    for cdb in NOT_SERVED {
        for from in [A, B] {
            assert_eq!(bench.answer(from, &cdb, 24), CONFLICT, "{cdb:02x?}");
        }
    }
    assert_eq!(bench.unit.counters().conflicts, 8);
    // Another operation code that is served in part is not concerned.
    let get_lba_status = [0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0];
    let expected = Response::Check(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4)));
    assert_eq!(bench.answer(B, &get_lba_status, 24), expected);
}

#[test]
fn reset_goes_before_the_conflict_of_a_service_action_that_does_not_exist() {
    let mut bench = Bench::new(setup());
    let step = bench.reserve_6(A);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    let reset = Sense::bus_device_reset_function_occurred();
    bench.unit.establish(&nexus(B), reset);
    assert_eq!(bench.answer(B, &NOT_SERVED[1], 24), Response::Check(reset));
    assert_eq!(bench.answer(B, &NOT_SERVED[1], 24), CONFLICT);
}
