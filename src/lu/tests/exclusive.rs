//! COMPARE AND WRITE, ORWRITE, and that they are alone where they work.

use super::*;

/// COMPARE AND WRITE of so many blocks at this LBA.
fn compare_and_write(lba: u8, blocks: u8) -> [u8; 16] {
    [0x89, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, blocks, 0, 0]
}

/// ORWRITE(16) of so many blocks at this LBA.
fn or_write(lba: u8, blocks: u8) -> [u8; 16] {
    [0x8b, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, blocks, 0, 0]
}

fn write(lba: u8, blocks: u8) -> [u8; 10] {
    [0x2a, 0, 0, 0, 0, lba, 0, 0, blocks, 0]
}

const ABORTED: Response = Response::Status(Status::TaskAborted);

/// What can begin now.
fn begun(bench: &mut Bench) -> Vec<(Request, Pending)> {
    let mut begun = Vec::new();
    while let Some(step) = bench.unit.next_step() {
        match step {
            Step::Io(request, pending) => begun.push((request, pending)),
            other => panic!("{other:?}"),
        }
    }
    begun
}

fn held(bench: &mut Bench, from: usize, cdb: &[u8], length: u64) {
    match bench.step(from, cdb, length) {
        Step::Held => {}
        Step::Io(request, pending) => panic!(
            "{:?} begins",
            (request.operation, bench.end_of(pending, request.data))
        ),
        other => panic!("{other:?}"),
    }
}

impl Bench {
    fn end_of(&mut self, pending: Pending, data: Data) -> Response {
        answered(self.unit.finish(pending, data, Ok(Outcome::Done)))
    }
}

#[test]
fn compare_and_write_has_twice_its_blocks_as_data() {
    let mut bench = Bench::new(setup());
    let expected = Operation::CompareAndWrite {
        offset: 3584,
        length: 1024,
        durability: Durability::Later,
    };
    let both = bench.io(A, &compare_and_write(7, 2), 2048);
    assert_eq!(both.0.operation, expected);
    assert_eq!(bench.end(both), Response::Good);
    let wrong = Response::Check(Sense::invalid_field_in_command_information_unit());
    for length in [0, 1024, 2047, 2049, 4096] {
        let response = bench.answer(A, &compare_and_write(7, 2), length);
        assert_eq!(response, wrong, "{length}");
    }
}

#[test]
fn what_is_written_is_as_durable_as_a_write() {
    let durability = |write_back, cdb: &[u8], length| {
        let mut bench = Bench::new(Setup {
            write_back,
            ..setup()
        });
        let (request, pending) = bench.io(A, cdb, length);
        let durability = match request.operation {
            Operation::CompareAndWrite { durability, .. }
            | Operation::OrWrite { durability, .. } => durability,
            ref other => panic!("{other:?}"),
        };
        bench.end((request, pending));
        durability
    };
    for (cdb, length) in [(compare_and_write(7, 1), 1024), (or_write(7, 1), 512)] {
        let mut fua = cdb;
        fua[1] = 0x08;
        assert_eq!(durability(true, &cdb, length), Durability::Later);
        assert_eq!(durability(true, &fua, length), Durability::Now);
        assert_eq!(durability(false, &cdb, length), Durability::Now);
    }
}

#[test]
fn a_miscompare_tells_the_byte() {
    let mut bench = Bench::new(setup());
    let both = bench.io(A, &compare_and_write(7, 2), 2048);
    let Response::Check(sense) = bench.fail(both, Failure::Miscompare { at: 513 }) else {
        panic!("CHECK CONDITION")
    };
    let (bytes, _) = sense.encode(Format::Fixed);
    let expected = [
        0xf0, 0, 0x0e, 0, 0, 0x02, 0x01, 0x0a, // VALID, MISCOMPARE, INFORMATION: byte 513
        0, 0, 0, 0, 0x1d, 0x00, // MISCOMPARE DURING VERIFY OPERATION
    ];
    assert_eq!(bytes[..14], expected);
}

#[test]
fn no_blocks_are_good_within_the_unit() {
    let mut bench = Bench::new(setup());
    let past = |opcode| [opcode, 0, 0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0, 0, 0, 0, 0, 0];
    let beyond = |opcode| [opcode, 0, 0, 0, 0, 0, 0, 0, 0x03, 0xe7, 0, 0, 0, 2, 0, 0];
    let out_of_range = Response::Check(Sense::logical_block_address_out_of_range());
    for opcode in [0x89, 0x8b] {
        assert_eq!(bench.answer(A, &past(opcode), 0), out_of_range);
        assert_eq!(bench.answer(A, &beyond(opcode), 2048), out_of_range);
    }
    assert_eq!(bench.answer(A, &compare_and_write(7, 0), 0), Response::Good);
    assert_eq!(bench.answer(A, &or_write(7, 0), 0), Response::Good);
}

#[test]
fn orwrite_has_the_limit_of_transfers_and_compare_and_write_has_none() {
    let mut bench = Bench::new(Setup {
        geometry: Geometry::new(512, 1 << 20, 0).unwrap(),
        ..setup()
    });
    // 16,385 blocks: one more than 8 MiB.
    let cdb = [0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x01, 0, 0];
    let too_long = Response::Check(Sense::invalid_field_in_cdb(Field::cdb(10)));
    assert_eq!(bench.answer(A, &cdb, 512), too_long);
}

#[test]
fn what_overlaps_waits_until_a_compare_and_write_has_ended() {
    let mut bench = Bench::new(setup());
    let compare = bench.io(A, &compare_and_write(7, 2), 2048); // blocks 7 and 8
    for (cdb, length) in [
        (&write(8, 1)[..], 512),
        (&write(0, 8), 4096),
        (&READ, 512),
        (&compare_and_write(8, 1), 1024),
        (&or_write(7, 2), 1024),
        (&[0x2f, 0, 0, 0, 0, 0, 0, 0, 0xff, 0], 0), // VERIFY
    ] {
        held(&mut bench, B, cdb, length);
    }
    for (cdb, length) in [
        (&write(6, 1)[..], 512),
        (&write(9, 1), 512),
        (&SYNCHRONIZE_CACHE, 0),
    ] {
        let beside = bench.io(B, cdb, length);
        assert_eq!(bench.end(beside), Response::Good);
    }
    assert!(bench.unit.next_step().is_none());
    assert_eq!(bench.end(compare), Response::Good);
    // In the order in which they came: two writes and a read, then what must be alone.
    let first = begun(&mut bench);
    assert_eq!(first.len(), 3);
    for one in first {
        assert!(matches!(
            one.0.operation,
            Operation::Read { .. } | Operation::Write { .. }
        ));
        bench.end(one);
    }
    let mut order = Vec::new();
    let mut next = begun(&mut bench);
    while let Some(one) = next.pop() {
        assert!(next.is_empty(), "one at a time");
        order.push(
            format!("{:?}", one.0.operation)
                .split(' ')
                .next()
                .unwrap()
                .to_owned(),
        );
        bench.end(one);
        next = begun(&mut bench);
    }
    assert_eq!(order, ["CompareAndWrite", "OrWrite", "Verify"]);
}

#[test]
fn a_compare_and_write_waits_for_what_overlaps() {
    let mut bench = Bench::new(setup());
    let read = bench.io(A, &READ, 512);
    let other = bench.io(A, &write(7, 1), 512);
    held(&mut bench, B, &compare_and_write(7, 1), 1024);
    bench.end(read);
    assert!(bench.unit.next_step().is_none());
    bench.end(other);
    let mut begun = begun(&mut bench);
    assert_eq!(bench.end(begun.remove(0)), Response::Good);
    // And when it is gone, nothing waits any more.
    let [one, two] = [write(7, 1), write(7, 1)].map(|cdb| bench.io(A, &cdb, 512));
    bench.end(one);
    bench.end(two);
}

#[test]
fn a_later_one_does_not_overtake_one_that_waits() {
    let mut bench = Bench::new(setup());
    let first = bench.io(A, &write(0, 8), 4096);
    held(&mut bench, B, &compare_and_write(7, 2), 2048);
    held(&mut bench, A, &write(8, 1), 512);
    bench.end(first);
    let mut next = begun(&mut bench);
    assert_eq!(next.len(), 1);
    bench.end(next.remove(0));
    let mut last = begun(&mut bench);
    assert_eq!(bench.end(last.remove(0)), Response::Good);
}

#[test]
fn a_fence_waits_for_what_waits() {
    let mut bench = Bench::reserved();
    let first = bench.io(A, &WRITE, 512);
    held(&mut bench, B, &compare_and_write(7, 1), 1024);
    assert_eq!(bench.change(A, PREEMPT, [KEY_A, KEY_B]), None);
    bench.end(first);
    let Some(Step::Io(request, pending)) = bench.unit.next_step() else {
        panic!("the loser's turn")
    };
    assert!(bench.unit.next_step().is_none(), "the fence holds");
    bench.end((request, pending));
    assert_eq!(bench.released(), Some(Response::Good));
}

#[test]
fn one_that_waits_and_is_aborted_ends_at_once() {
    let mut bench = Bench::reserved();
    let first = bench.io(A, &WRITE, 512);
    held(&mut bench, B, &compare_and_write(7, 2), 2048);
    held(&mut bench, A, &write(8, 1), 512);
    assert_eq!(
        bench.change(A, PREEMPT_AND_ABORT, [KEY_A, KEY_B]),
        Some(Response::Good)
    );
    let Some(Step::Answer(answer)) = bench.unit.next_step() else {
        panic!("the loser's command")
    };
    assert_eq!(settle(answer), ABORTED);
    let mut next = begun(&mut bench);
    assert_eq!(next.len(), 1, "what it has held up goes on");
    bench.end(next.remove(0));
    bench.end(first);
    assert_eq!(bench.unit.in_flight(), 0);
}

#[test]
fn abort_task_ends_what_waits_and_stops_what_has_not_written_yet() {
    let mut bench = Bench::new(setup());
    let compare = bench.io(A, &compare_and_write(7, 1), 1024);
    held(&mut bench, B, &WRITE, 512);
    bench.unit.abort_task(|tag| tag.port == B);
    let Some(Step::Answer(answer)) = bench.unit.next_step() else {
        panic!("what has waited")
    };
    assert_eq!(settle(answer), ABORTED);
    assert!(!compare.0.cancellation.is_cancelled());
    bench.unit.abort_task(|tag| tag.port == A);
    assert!(compare.0.cancellation.is_cancelled());
    assert_eq!(bench.fail(compare, Failure::Cancelled), ABORTED);
}

#[test]
fn a_reset_ends_what_waits() {
    let mut bench = Bench::new(setup());
    let compare = bench.io(A, &compare_and_write(7, 1), 1024);
    held(&mut bench, B, &or_write(7, 1), 512);
    let told = bench.nexuses.clone();
    bench.unit.reset(&told);
    assert_eq!(bench.settle(), [ABORTED]);
    assert_eq!(bench.end(compare), ABORTED);
    assert!(bench.unit.is_idle());
}
