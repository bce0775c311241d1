//! WRITE ATOMIC, which a unit serves whose medium writes atomically.

use super::*;

/// WRITE ATOMIC(16) of so many blocks at this LBA.
fn write_atomic(lba: u16, blocks: u8) -> [u8; 16] {
    let [high, low] = lba.to_be_bytes();
    [0x9c, 0, 0, 0, 0, 0, 0, 0, high, low, 0, 0, 0, blocks, 0, 0]
}

/// Of a unit that writes 4 blocks atomically.
fn atomic() -> Setup {
    let setup = setup();
    Setup {
        geometry: setup.geometry.writing_atomically(2048),
        ..setup
    }
}

fn invalid_field(byte: u16) -> Response {
    Response::Check(Sense::invalid_field_in_cdb(Field::cdb(byte)))
}

#[test]
fn what_the_medium_writes_atomically_is_handed_to_it_and_as_durable_as_a_write() {
    for (write_back, flags, durability) in [
        (true, 0x00, Durability::Later),
        (true, 0x08, Durability::Now),
        (false, 0x00, Durability::Now),
    ] {
        let mut bench = Bench::new(Setup {
            write_back,
            ..atomic()
        });
        let mut cdb = write_atomic(8, 4);
        cdb[1] = flags;
        let both = bench.io(A, &cdb, 2048);
        let expected = Operation::WriteAtomic {
            offset: 4096,
            length: 2048,
            durability,
        };
        assert_eq!(both.0.operation, expected);
        assert_eq!(bench.end(both), Response::Good);
    }
}

#[test]
fn what_the_medium_does_not_write_atomically_is_refused() {
    let mut bench = Bench::new(atomic());
    let out_of_range = Response::Check(Sense::logical_block_address_out_of_range());
    let wrong_length = Response::Check(Sense::invalid_field_in_command_information_unit());
    for (lba, blocks, length, expected) in [
        (2, 4, 2048, invalid_field(2)),
        (4, 2, 1024, invalid_field(12)),
        (4, 8, 4096, invalid_field(12)),
        (4, 4, 1024, wrong_length.clone()),
        (4, 4, 4096, wrong_length),
        (4, 0, 0, Response::Good),
        // The unit has 1,000 blocks. What is past the end is that before it is anything else.
        (996, 8, 4096, out_of_range.clone()),
        (998, 4, 2048, out_of_range.clone()),
        (1000, 0, 0, out_of_range),
    ] {
        let response = bench.answer(A, &write_atomic(lba, blocks), length);
        assert_eq!(response, expected, "{blocks} blocks at {lba}");
    }
}

#[test]
fn nothing_comes_in_between() {
    let mut bench = Bench::new(atomic());
    let writing = bench.io(A, &write_atomic(4, 4), 2048); // blocks 4 to 7
    for cdb in [READ, WRITE] {
        assert!(matches!(bench.step(B, &cdb, 512), Step::Held)); // block 7
    }
    assert_eq!(bench.end(writing), Response::Good);
    for _ in 0..2 {
        let Some(Step::Io(request, pending)) = bench.unit.next_step() else {
            panic!("what has waited begins")
        };
        bench.end((request, pending));
    }
}

#[test]
fn a_medium_of_other_blocks_or_none_writes_nothing_atomically() {
    let not_served = Response::Check(Sense::invalid_command_operation_code());
    for bytes in [0, 256, 1536, 16 << 20] {
        let setup = setup();
        let mut bench = Bench::new(Setup {
            geometry: setup.geometry.writing_atomically(bytes),
            ..setup
        });
        let response = bench.answer(A, &write_atomic(4, 4), 2048);
        assert_eq!(response, not_served, "{bytes}");
    }
}

#[test]
fn what_failed_tells_where_it_was_to_begin() {
    let mut bench = Bench::new(atomic());
    let both = bench.io(A, &write_atomic(8, 4), 2048);
    let error = std::io::Error::from_raw_os_error(libc::EIO);
    let expected = Response::Check(Sense::write_error().with_information(8));
    assert_eq!(
        bench.fail(both, Failure::Write { at: 4096, error }),
        expected
    );
}
