//! VERIFY and WRITE AND VERIFY.

use super::*;

/// VERIFY(10) of two blocks at LBA 7, with these flags in byte 1.
fn verify_10(flags: u8) -> [u8; 10] {
    [0x2f, flags, 0, 0, 0, 7, 0, 0, 2, 0]
}

const BYTCHK_01: u8 = 0x02;
const BYTCHK_11: u8 = 0x06;

#[test]
fn verify_reads_and_compares_as_byte_check_says() {
    let mut bench = Bench::new(setup());
    for (flags, length, against) in [
        (0x00, 0, Against::Nothing),
        (BYTCHK_01, 1024, Against::Data),
        (BYTCHK_11, 512, Against::Repeated(512)),
    ] {
        let expected = Operation::Verify {
            offset: 3584,
            length: 1024,
            against,
        };
        let long = [0x8f, flags, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0];
        let cdbs: [&[u8]; 3] = [
            &verify_10(flags),
            &[0xaf, flags, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0],
            &long,
        ];
        for cdb in cdbs {
            let verify = bench.io(A, cdb, length);
            assert_eq!(verify.0.operation, expected, "{cdb:02x?}");
            assert_eq!(bench.end(verify), Response::Good);
        }
    }
}

#[test]
fn verify_that_finds_a_difference_is_a_miscompare() {
    let mut bench = Bench::new(setup());
    let verify = bench.io(A, &verify_10(BYTCHK_01), 1024);
    let Response::Check(sense) = bench.fail(verify, Failure::Miscompare { at: 5 }) else {
        panic!("CHECK CONDITION")
    };
    let (bytes, _) = sense.encode(Format::Fixed);
    let expected = [
        0x70, 0, 0x0e, 0, 0, 0, 0, 0x0a, // current, VALID=0, MISCOMPARE
        0, 0, 0, 0, 0x1d, 0x00, // MISCOMPARE DURING VERIFY OPERATION
    ];
    assert_eq!(bytes[..14], expected);
}

#[test]
fn verify_that_cannot_read_says_so() {
    let mut bench = Bench::new(setup());
    let unreadable = Sense::unrecovered_read_error().with_information(8);
    for (code, expected) in [
        (libc::EIO, unreadable),
        (libc::EBADMSG, unreadable),
        (libc::ENODEV, Sense::logical_unit_communication_failure()),
    ] {
        let verify = bench.io(A, &verify_10(0), 0);
        let failure = unread(8 * 512, code);
        assert_eq!(bench.fail(verify, failure), Response::Check(expected));
    }
    let verify = bench.io(A, &verify_10(0), 0);
    let failure = unread(8 * 512, libc::ENOMEM);
    assert_eq!(bench.fail(verify, failure), Response::Status(Status::Busy));
}

#[test]
fn verify_takes_no_more_and_no_less_data_than_byte_check_asks_for() {
    let mut bench = Bench::new(setup());
    let wrong = Response::Check(Sense::invalid_field_in_command_information_unit());
    for length in [0, 512, 1023, 1025] {
        let response = bench.answer(A, &verify_10(BYTCHK_01), length);
        assert_eq!(response, wrong, "{length}");
    }
    for length in [0, 511, 513, 1024] {
        let response = bench.answer(A, &verify_10(BYTCHK_11), length);
        assert_eq!(response, wrong, "{length}");
    }
    // What is not asked for is not looked at.
    let verify = bench.io(A, &verify_10(0), 1024);
    assert_eq!(bench.end(verify), Response::Good);
}

#[test]
fn verify_of_nothing_is_good_and_inside_the_unit() {
    let mut bench = Bench::new(setup());
    let out_of_range = Response::Check(Sense::logical_block_address_out_of_range());
    for flags in [0, BYTCHK_01, BYTCHK_11] {
        let at = |high, low| [0x2f, flags, 0, 0, high, low, 0, 0, 0, 0];
        assert_eq!(bench.answer(A, &at(0x03, 0xe7), 0), Response::Good);
        assert_eq!(bench.answer(A, &at(0x03, 0xe8), 0), out_of_range);
    }
}

#[test]
fn verify_past_the_end_is_out_of_range() {
    let mut bench = Bench::new(setup());
    let out_of_range = Response::Check(Sense::logical_block_address_out_of_range());
    for (flags, length) in [(0, 0), (BYTCHK_01, 1024), (BYTCHK_11, 512)] {
        let cdb = [0x2f, flags, 0, 0, 0x03, 0xe7, 0, 0, 2, 0];
        assert_eq!(bench.answer(A, &cdb, length), out_of_range);
    }
}

#[test]
fn only_a_verify_that_moves_its_blocks_has_the_limit_of_transfers() {
    let mut bench = Bench::new(Setup {
        geometry: Geometry::new(512, 1 << 20, 0).unwrap(),
        ..setup()
    });
    // 16,385 blocks: one more than 8 MiB.
    let cdb = |flags| [0xaf, flags, 0, 0, 0, 0, 0, 0, 0x40, 0x01, 0, 0];
    let too_long = Response::Check(Sense::invalid_field_in_cdb(Field::cdb(6)));
    assert_eq!(bench.answer(A, &cdb(BYTCHK_01), 512), too_long);
    for (flags, length) in [(0, 0), (BYTCHK_11, 512)] {
        let verify = bench.io(A, &cdb(flags), length);
        assert_eq!(bench.end(verify), Response::Good);
    }
}

#[test]
fn verify_does_not_pretend_after_a_failed_flush() {
    let mut bench = Bench::new(setup());
    let verify = bench.io(A, &verify_10(0), 0);
    let failure = Failure::Flush(io::Error::from_raw_os_error(libc::EIO));
    let expected = Response::Check(Sense::write_error());
    assert_eq!(bench.fail(verify, failure), expected);
    let latched = Response::Check(Sense::internal_target_failure());
    assert_eq!(bench.answer(A, &verify_10(0), 0), latched);
}

#[test]
fn verify_goes_on_where_writes_are_protected() {
    let mut bench = Bench::new(setup());
    bench.nexuses[A] = bench.unit.attach(Some(nexus(A)), Mapping::ReadOnly);
    bench.answer(A, &TEST_UNIT_READY, 0);
    let verify = bench.io(A, &verify_10(BYTCHK_01), 1024);
    assert_eq!(bench.end(verify), Response::Good);
}

#[test]
fn verify_of_a_loser_conflicts_before_its_fields_are_looked_at() {
    let mut bench = Bench::held(3);
    let reserved = verify_10(0x04); // BYTCHK=10b
    assert_eq!(bench.answer(B, &reserved, 0), CONFLICT);
    let expected = Response::Check(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 2)));
    assert_eq!(bench.answer(A, &reserved, 0), expected);
}

#[test]
fn a_verify_in_flight_is_waited_for_like_a_read() {
    for (kind, waits) in [(1, false), (3, true), (5, false), (6, true)] {
        let mut bench = Bench::new(setup());
        bench.kind = kind;
        bench.change(A, REGISTER, [0, KEY_A]);
        let verify = bench.io(C, &verify_10(BYTCHK_01), 1024);
        let answered = bench.change(A, RESERVE, [KEY_A, 0]).is_some();
        assert_eq!(answered, !waits, "type {kind}");
        assert_eq!(bench.end(verify), Response::Good);
        assert_eq!(bench.released().is_some(), waits, "type {kind}");
    }
}

/// WRITE AND VERIFY(10) of two blocks at LBA 7, with these flags in byte 1.
fn write_and_verify_10(flags: u8) -> [u8; 10] {
    [0x2e, flags, 0, 0, 0, 7, 0, 0, 2, 0]
}

#[test]
fn write_and_verify_goes_to_the_medium_and_back_whatever_the_cache_mode_is() {
    for write_back in [true, false] {
        let mut bench = Bench::new(Setup {
            write_back,
            ..setup()
        });
        for (flags, against) in [(0x00, Against::Nothing), (BYTCHK_01, Against::Data)] {
            let expected = Operation::WriteAndVerify {
                offset: 3584,
                length: 1024,
                against,
            };
            let long = [0x8e, flags, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0];
            let cdbs: [&[u8]; 3] = [
                &write_and_verify_10(flags),
                &[0xae, flags, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0],
                &long,
            ];
            for cdb in cdbs {
                let write = bench.io(A, cdb, 1024);
                assert_eq!(write.0.operation, expected, "{cdb:02x?}");
                assert_eq!(bench.end(write), Response::Good);
            }
        }
    }
}

#[test]
fn write_and_verify_tells_whether_it_could_not_write_read_or_find_it_again() {
    let mut bench = Bench::new(setup());
    let eio = || io::Error::from_raw_os_error(libc::EIO);
    for (failure, expected) in [
        (
            unwritten(7 * 512, libc::EIO),
            Sense::write_error().with_information(7),
        ),
        (
            unread(8 * 512, libc::EIO),
            Sense::unrecovered_read_error().with_information(8),
        ),
        (
            Failure::Miscompare { at: 5 },
            Sense::miscompare_during_verify_operation(),
        ),
        (
            unwritten(7 * 512, libc::ENOSPC),
            Sense::space_allocation_failed_write_protect(),
        ),
        (Failure::Flush(eio()), Sense::write_error()),
    ] {
        let write = bench.io(A, &write_and_verify_10(BYTCHK_01), 1024);
        assert_eq!(bench.fail(write, failure), Response::Check(expected));
    }
    let latched = Response::Check(Sense::internal_target_failure());
    let response = bench.answer(A, &write_and_verify_10(0), 1024);
    assert_eq!(response, latched, "the last was a flush");
}

#[test]
fn write_and_verify_has_the_checks_of_a_write() {
    let mut bench = Bench::new(Setup {
        geometry: Geometry::new(512, 1 << 20, 0).unwrap(),
        ..setup()
    });
    for flags in [0, BYTCHK_01] {
        let wrong = Response::Check(Sense::invalid_field_in_command_information_unit());
        for length in [0, 512, 1023, 1025] {
            let response = bench.answer(A, &write_and_verify_10(flags), length);
            assert_eq!(response, wrong, "{length}");
        }
        // 16,385 blocks: one more than 8 MiB.
        let too_long = Response::Check(Sense::invalid_field_in_cdb(Field::cdb(7)));
        let cdb = [0x2e, flags, 0, 0, 0, 0, 0, 0x40, 0x01, 0];
        assert_eq!(bench.answer(A, &cdb, 512), too_long);
        // LBA FFFFFh and two blocks, LBA 100000h and none.
        let out_of_range = Response::Check(Sense::logical_block_address_out_of_range());
        let cdb = [0x2e, flags, 0, 0x0f, 0xff, 0xff, 0, 0, 2, 0];
        assert_eq!(bench.answer(A, &cdb, 1024), out_of_range);
        let cdb = [0x2e, flags, 0, 0x10, 0, 0, 0, 0, 0, 0];
        assert_eq!(bench.answer(A, &cdb, 0), out_of_range);
        let cdb = [0x2e, flags, 0, 0, 0, 7, 0, 0, 0, 0];
        assert_eq!(bench.answer(A, &cdb, 0), Response::Good);
    }
    bench.nexuses[A] = bench.unit.attach(Some(nexus(A)), Mapping::ReadOnly);
    bench.answer(A, &TEST_UNIT_READY, 0);
    let protected = Response::Check(Sense::write_protected());
    let response = bench.answer(A, &write_and_verify_10(0), 1024);
    assert_eq!(response, protected);
}

#[test]
fn write_and_verify_of_a_loser_conflicts_and_is_waited_for_like_a_write() {
    let mut bench = Bench::reserved();
    let write = bench.io(B, &write_and_verify_10(BYTCHK_01), 1024);
    assert_eq!(bench.change(A, PREEMPT, [KEY_A, KEY_B]), None);
    // BYTCHK=10b: the conflict goes before it.
    for flags in [0, BYTCHK_01, 0x04] {
        let response = bench.answer(B, &write_and_verify_10(flags), 1024);
        assert_eq!(response, CONFLICT);
    }
    assert_eq!(bench.released(), None);
    assert_eq!(bench.end(write), Response::Good);
    assert_eq!(bench.released(), Some(Response::Good));
}

#[test]
fn an_aborted_verify_is_told_to_stop_and_no_other_command_is() {
    let mut bench = Bench::reserved();
    let verify = bench.io(B, &verify_10(0), 0);
    let write = bench.io(B, &write_and_verify_10(0), 1024);
    let bystander = bench.io(C, &verify_10(0), 0);
    let is_cancelled = |io: &(Request, Pending)| io.0.cancellation.is_cancelled();
    assert!(!is_cancelled(&verify));
    assert_eq!(bench.change(A, PREEMPT_AND_ABORT, [KEY_A, KEY_B]), None);
    assert!(is_cancelled(&verify));
    assert!(!is_cancelled(&write), "it changes something");
    assert!(!is_cancelled(&bystander));
    let aborted = Response::Status(Status::TaskAborted);
    assert_eq!(bench.fail(verify, Failure::Cancelled), aborted);
    assert_eq!(bench.released(), None);
    assert_eq!(bench.end(write), aborted);
    assert_eq!(bench.released(), Some(Response::Good));
    assert_eq!(bench.end(bystander), Response::Good);
}

#[test]
fn a_reset_tells_every_verify_to_stop() {
    let mut bench = Bench::new(setup());
    let verify = bench.io(A, &verify_10(0), 0);
    bench.unit.reset(&[]);
    assert!(verify.0.cancellation.is_cancelled());
    let aborted = Response::Status(Status::TaskAborted);
    assert_eq!(bench.fail(verify, Failure::Cancelled), aborted);
    bench.settle();
}

#[test]
fn abort_task_stops_the_verify_that_is_meant_and_lets_a_write_go_on() {
    let mut bench = Bench::new(setup());
    let verify = bench.io(A, &verify_10(0), 0);
    let write = bench.io(A, &write_and_verify_10(0), 1024);
    let other = bench.io(B, &verify_10(0), 0);
    bench.unit.abort_task(|tag| tag.port == A);
    assert!(verify.0.cancellation.is_cancelled());
    assert!(!other.0.cancellation.is_cancelled());
    let aborted = Response::Status(Status::TaskAborted);
    assert_eq!(bench.fail(verify, Failure::Cancelled), aborted);
    assert_eq!(bench.end(write), Response::Good);
    assert_eq!(bench.end(other), Response::Good);
}
