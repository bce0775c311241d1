//! What is answered first when several answers would be right (SAM-5, status precedence).

use std::sync::Arc;

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
    let report_referrals = [0x9e, 0x13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0];
    let expected = Response::Check(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4)));
    assert_eq!(bench.answer(B, &report_referrals, 24), expected);
}

#[test]
fn reset_goes_before_the_conflict_of_a_service_action_that_does_not_exist() {
    let mut bench = Bench::new(setup());
    let step = bench.reserve_6(A);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    let reset = Sense::bus_device_reset_function_occurred();
    bench.unit.establish(&Arc::new(nexus(B)), reset);
    assert_eq!(bench.answer(B, &NOT_SERVED[1], 24), Response::Check(reset));
    assert_eq!(bench.answer(B, &NOT_SERVED[1], 24), CONFLICT);
}

#[test]
fn conflict_of_reserve_goes_before_the_fields_that_it_must_not_have() {
    let third_party = [0x16, 0x10, 0, 0, 0, 0];
    let extent = [0x16, 0x01, 0, 0, 0, 0];
    let long_id = [0x56, 0x02, 0, 0, 0, 0, 0, 0, 0, 0];
    let release_third_party = [0x17, 0x10, 0, 0, 0, 0];
    let bad = |bit| Response::Check(Sense::invalid_field_in_cdb(Field::cdb_bit(1, bit)));
    let cases = [
        (&third_party[..], 4),
        (&extent, 0),
        (&long_id, 1),
        (&release_third_party, 4),
    ];

    let mut bench = Bench::new(setup());
    for (cdb, bit) in cases {
        assert_eq!(bench.answer(A, cdb, 0), bad(bit), "nothing is reserved");
    }
    let step = bench.reserve_6(A);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    for (cdb, bit) in cases {
        assert_eq!(bench.answer(A, cdb, 0), bad(bit), "A has reserved");
        let is_reserve = cdb[0] != 0x17;
        let expected = if is_reserve { CONFLICT } else { bad(bit) };
        assert_eq!(bench.answer(B, cdb, 0), expected, "A has reserved");
    }
    let mut bench = Bench::held(1);
    for (cdb, bit) in cases {
        assert_eq!(bench.answer(A, cdb, 0), bad(bit), "the holder");
        assert_eq!(bench.answer(B, cdb, 0), CONFLICT, "a registrant");
    }
}

#[test]
fn conflict_of_persistent_reserve_out_goes_before_naca() {
    let mut bench = Bench::reserved();
    let bad = Response::Check(Sense::invalid_field_in_cdb(Field::cdb_bit(9, 2)));
    for (from, expected) in [(A, bad), (C, CONFLICT)] {
        let data = bench.data(24);
        data.zero_from(0);
        data.write_at(0, &KEY_A.to_be_bytes());
        let clear_naca = [0x5f, 3, 0, 0, 0, 0, 0, 0, 24, 0x04];
        let task = bench.task(from, &clear_naca, data);
        let Step::Answer(answer) = bench.unit.begin(task) else {
            panic!("an answer")
        };
        assert_eq!(settle(answer), expected);
    }
}

#[test]
fn conflict_before_a_unit_attention_waits_for_the_losers_writes_too() {
    let mut bench = Bench::reserved();
    let write = bench.io(B, &WRITE, 512);
    assert_eq!(bench.change(A, PREEMPT, [KEY_A, KEY_B]), None);
    let released = Sense::reservations_released();
    bench.unit.establish(&Arc::new(nexus(A)), released);
    // Who repeats a PREEMPT takes its conflict for a success.
    assert_eq!(bench.change(A, PREEMPT, [KEY_A, KEY_B]), None);
    assert_eq!(bench.end(write), Response::Good);
    assert_eq!(bench.settle(), [Response::Good, CONFLICT]);
    assert_eq!(bench.unit.counters().conflicts, 1);
    assert_eq!(
        bench.answer(A, &TEST_UNIT_READY, 0),
        Response::Check(released)
    );
}

#[test]
fn list_of_a_wrong_length_does_not_conflict_and_gets_the_unit_attention_that_is_pending() {
    let mut bench = Bench::reserved();
    let released = Sense::reservations_released();
    bench.unit.establish(&Arc::new(nexus(C)), released);
    for expected in [released, Sense::parameter_list_length_error()] {
        // 23 bytes, and from a nexus that is not registered.
        let clear = [0x5f, 3, 0, 0, 0, 0, 0, 0, 23, 0];
        assert_eq!(bench.answer(C, &clear, 23), Response::Check(expected));
    }
}
