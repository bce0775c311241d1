//! EXTENDED COPY and RECEIVE COPY OPERATING PARAMETERS.

use super::*;
use crate::store::Place;

/// A CSCD descriptor of the unit of the tests: identification descriptor, NAA of 16 bytes, blocks of 512 bytes.
pub(super) fn this_unit() -> Vec<u8> {
    named(Identity::new("serial").naa(), 512)
}

pub(super) fn named(naa: [u8; 16], block_size: u32) -> Vec<u8> {
    let mut descriptor = vec![0xe4, 0, 0, 0, 0x01, 0x03, 0, 16];
    descriptor.extend(naa);
    descriptor.extend([0; 4]);
    descriptor.extend(block_size.to_be_bytes());
    descriptor
}

/// A block to block segment from CSCD 0 to CSCD 1, with these flags.
pub(super) fn segment(flags: u8, blocks: u16, from: u64, to: u64) -> Vec<u8> {
    let mut descriptor = vec![0x02, flags, 0, 0x18, 0, 0, 0, 1, 0, 0];
    descriptor.extend(blocks.to_be_bytes());
    descriptor.extend(from.to_be_bytes());
    descriptor.extend(to.to_be_bytes());
    descriptor
}

/// A parameter list that copies within the unit.
fn list(segments: &[Vec<u8>]) -> Vec<u8> {
    list_of(&[this_unit(), this_unit()], segments)
}

pub(super) fn list_of(cscds: &[Vec<u8>], segments: &[Vec<u8>]) -> Vec<u8> {
    let (cscds, segments) = (cscds.concat(), segments.concat());
    let mut list = vec![0, 0, 0, u8::try_from(cscds.len()).unwrap(), 0, 0, 0, 0];
    list.extend(u32::try_from(segments.len()).unwrap().to_be_bytes());
    list.extend([0; 4]);
    [list, cscds, segments].concat()
}

/// EXTENDED COPY of a parameter list of that length.
fn cdb(length: usize) -> [u8; 16] {
    let mut cdb = [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    cdb[10..14].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
    cdb
}

fn own(offset: u64) -> Place {
    Place { offset, loan: None }
}

fn of(from: u64, to: u64, length: u64) -> Operation {
    Operation::Copy {
        from: own(from),
        to: own(to),
        length,
        durability: Durability::Later,
    }
}

/// COPY ABORTED, COPY TARGET DEVICE NOT REACHABLE in that segment.
pub(super) fn aborted(segment: u16) -> Response {
    Response::Check(Sense::copy_target_device_not_reachable().of_segment(segment))
}

/// A unit of 512 MiB.
fn large() -> Bench {
    Bench::new(Setup {
        geometry: Geometry::new(512, 1 << 20, 0).unwrap(),
        ..setup()
    })
}

impl Bench {
    pub(super) fn begin_copy(&mut self, from: usize, list: &[u8]) -> Step {
        let data = self.data(list.len() as u64);
        data.write_at(0, list);
        let task = self.task(from, &cdb(list.len()), data);
        self.unit.begin(task)
    }

    /// The first chunk of a copy.
    pub(super) fn copy(&mut self, from: usize, list: &[u8]) -> (Request, Pending) {
        begun(self.begin_copy(from, list))
    }

    /// Lets a chunk end, and gives what comes next.
    fn ended(&mut self, (request, pending): (Request, Pending)) -> Step {
        let done = Ok(Outcome::Done);
        self.unit.finish(pending, request.data, done)
    }
}

pub(super) fn begun(step: Step) -> (Request, Pending) {
    match step {
        Step::Io(request, pending) => (request, pending),
        Step::Answer(answer) => panic!("{:?} where I/O was expected", settle(answer)),
        other => panic!("{other:?} where I/O was expected"),
    }
}

#[test]
fn a_segment_is_copied_in_bytes_of_the_unit() {
    let mut bench = Bench::new(setup());
    let mut with_offset = vec![0x0a, 0, 0, 0x1c, 0, 0, 0, 1];
    with_offset.extend(1000u32.to_be_bytes());
    with_offset.extend(7u64.to_be_bytes());
    with_offset.extend(100u64.to_be_bytes());
    with_offset.extend([0, 5, 0, 6]);
    for (segment, expected) in [
        (segment(0x00, 2, 7, 100), of(3584, 51_200, 1024)),
        (segment(0x02, 2, 7, 100), of(3584, 51_200, 1024)), // DC=1
        (segment(0x00, 1, 999, 0), of(511_488, 0, 512)),
        (with_offset, of(3589, 51_206, 1000)),
    ] {
        let chunk = bench.copy(A, &list(&[segment]));
        assert_eq!(chunk.0.operation, expected);
        assert_eq!(bench.end(chunk), Response::Good);
        assert_eq!(bench.unit.in_flight(), 0);
    }
}

#[test]
fn segments_are_copied_one_after_the_other_in_chunks() {
    let mut bench = large();
    let segments = [
        segment(0, 0x5000, 0, 0x8000),
        segment(0, 0, 0, 0),
        segment(0, 1, 3, 4),
    ];
    let first = bench.copy(A, &list(&segments));
    assert_eq!(first.0.operation, of(0, 0x100_0000, 4 << 20));
    let second = begun(bench.ended(first));
    assert_eq!(second.0.operation, of(4 << 20, 0x140_0000, 4 << 20));
    let third = begun(bench.ended(second));
    assert_eq!(third.0.operation, of(8 << 20, 0x180_0000, 2 << 20));
    let next_segment = begun(bench.ended(third));
    assert_eq!(next_segment.0.operation, of(1536, 2048, 512));
    assert_eq!(bench.end(next_segment), Response::Good);
}

#[test]
fn a_segment_that_overlaps_itself_never_overwrites_what_it_has_not_read() {
    let mut bench = large();
    // 10 MiB, 1 MiB further on: the last chunk first.
    let mut chunk = bench.copy(A, &list(&[segment(0, 0x5000, 0, 0x800)]));
    for expected in [
        of(6 << 20, 7 << 20, 4 << 20),
        of(2 << 20, 3 << 20, 4 << 20),
        of(0, 1 << 20, 2 << 20),
    ] {
        assert_eq!(chunk.0.operation, expected);
        match bench.ended(chunk) {
            Step::Io(request, pending) => chunk = (request, pending),
            other => return assert_eq!(answered(other), Response::Good),
        }
    }
    panic!("there is a fourth chunk");
}

#[test]
fn a_segment_that_overlaps_itself_the_other_way_begins_with_its_first_chunk() {
    let mut bench = large();
    let chunk = bench.copy(A, &list(&[segment(0, 0x5000, 0x800, 0)]));
    assert_eq!(chunk.0.operation, of(1 << 20, 0, 4 << 20));
    let next = begun(bench.ended(chunk));
    assert_eq!(next.0.operation, of(5 << 20, 4 << 20, 4 << 20));
    let last = begun(bench.ended(next));
    assert_eq!(bench.end(last), Response::Good);
}

#[test]
fn a_write_through_unit_copies_to_stable_storage() {
    let mut bench = Bench::new(Setup {
        write_back: false,
        ..setup()
    });
    let chunk = bench.copy(A, &list(&[segment(0, 1, 0, 1)]));
    let durable = Operation::Copy {
        from: own(0),
        to: own(512),
        length: 512,
        durability: Durability::Now,
    };
    assert_eq!(chunk.0.operation, durable);
    assert_eq!(bench.end(chunk), Response::Good);
}

#[test]
fn nothing_to_copy_is_good() {
    let mut bench = Bench::new(setup());
    assert_eq!(bench.answer(A, &cdb(0), 0), Response::Good);
    for list in [list(&[]), list(&[segment(0, 0, 7, 100)])] {
        assert_eq!(answered(bench.begin_copy(A, &list)), Response::Good);
    }
    assert_eq!(bench.unit.in_flight(), 0);
}

#[test]
fn what_is_wrong_with_the_list_is_told_before_anything_is_copied() {
    let mut bench = Bench::new(setup());
    let mut wrong = list(&[segment(0, 1, 0, 1), segment(0, 1, 0, 1)]);
    wrong[80 + 28] = 0x03; // the type of the second segment
    let unsupported = Response::Check(Sense::unsupported_segment_descriptor_type_code());
    assert_eq!(answered(bench.begin_copy(A, &wrong)), unsupported);
    // The data-out has less than the CDB says.
    let short = Response::Check(Sense::parameter_list_length_error());
    assert_eq!(bench.answer(A, &cdb(108), 107), short);
}

#[test]
fn a_segment_that_cannot_be_copied_ends_the_command_once_those_before_it_are_done() {
    let one = segment(0, 1, 0, 1);
    let other_unit = named(Identity::new("another").naa(), 512);
    let other_blocks = named(Identity::new("serial").naa(), 4096);
    let to_third = |mut segment: Vec<u8>| {
        segment[7] = 2;
        segment
    };
    let from_third = |mut segment: Vec<u8>| {
        segment[5] = 2;
        segment
    };
    let third = |cscd| [this_unit(), this_unit(), cscd];
    for (cscds, bad) in [
        (third(this_unit()), segment(0, 2, 999, 0)),
        (third(this_unit()), segment(0, 2, 0, 999)),
        (third(this_unit()), segment(0, 1, u64::MAX, 0)),
        (third(this_unit()), segment(0, 0, 0, 1001)),
        (third(other_unit.clone()), to_third(one.clone())),
        (third(other_unit), from_third(one.clone())),
        (third(other_blocks), to_third(one.clone())),
    ] {
        let mut bench = Bench::new(setup());
        let segments = [one.clone(), bad.clone(), one.clone()];
        let chunk = bench.copy(A, &list_of(&cscds, &segments));
        assert_eq!(bench.end(chunk), aborted(1), "{bad:02x?}");
        assert_eq!(bench.unit.in_flight(), 0);
    }
    let mut bench = Bench::new(setup());
    let missing = list_of(&[this_unit()], std::slice::from_ref(&one));
    assert_eq!(answered(bench.begin_copy(A, &missing)), aborted(0));
}

#[test]
fn a_chunk_that_fails_ends_the_command() {
    let mut bench = Bench::new(setup());
    let segments = [segment(0, 1, 0, 1), segment(0, 1, 0, 1)];
    for failure in [
        Failure::Truncated,
        errno(libc::ENOSPC),
        errno(libc::ENOMEM),
        Failure::Flush(io::Error::from_raw_os_error(libc::EIO)),
    ] {
        let chunk = bench.copy(A, &list(&segments));
        let second = begun(bench.ended(chunk));
        assert_eq!(bench.fail(second, failure), aborted(1));
    }
    // The last was a flush: nothing pretends to be clean.
    let step = bench.begin_copy(A, &list(&segments));
    assert_eq!(answered(step), aborted(0));
    let latched = Response::Check(Sense::internal_target_failure());
    assert_eq!(bench.answer(A, &WRITE, 512), latched);
}

#[test]
fn a_copy_to_a_write_protected_unit_is_aborted() {
    let mut bench = Bench::new(setup());
    bench.nexuses[A] = bench.unit.attach(Some(nexus(A)), Mapping::ReadOnly);
    bench.answer(A, &TEST_UNIT_READY, 0);
    let step = bench.begin_copy(A, &list(&[segment(0, 1, 0, 1)]));
    assert_eq!(answered(step), aborted(0));
}

#[test]
fn a_copy_of_a_loser_conflicts_whatever_is_in_its_list() {
    for kind in [1, 3, 5, 6] {
        let mut bench = Bench::held(kind);
        let step = bench.begin_copy(C, &[0xff; 20]);
        assert_eq!(answered(step), CONFLICT, "type {kind}");
    }
}

#[test]
fn a_preempt_waits_for_the_chunk_and_stops_the_next() {
    let mut bench = Bench::reserved();
    let segments = [segment(0, 1, 0, 1), segment(0, 1, 0, 1)];
    let chunk = bench.copy(B, &list(&segments));
    assert_eq!(bench.change(A, PREEMPT, [KEY_A, KEY_B]), None);
    assert_eq!(bench.released(), None);
    assert_eq!(bench.end(chunk), aborted(1));
    assert_eq!(bench.released(), Some(Response::Good));
}

#[test]
fn a_copy_that_has_ended_before_it_is_stopped_is_good() {
    let mut bench = Bench::reserved();
    let chunk = bench.copy(B, &list(&[segment(0, 1, 0, 1)]));
    assert_eq!(bench.change(A, PREEMPT, [KEY_A, KEY_B]), None);
    assert_eq!(bench.end(chunk), Response::Good);
    assert_eq!(bench.released(), Some(Response::Good));
}

#[test]
fn an_aborted_copy_ends_with_its_chunk() {
    let segments = [segment(0, 1, 0, 1), segment(0, 1, 0, 1)];
    let task_aborted = Response::Status(Status::TaskAborted);

    let mut bench = Bench::reserved();
    let chunk = bench.copy(B, &list(&segments));
    assert_eq!(bench.change(A, PREEMPT_AND_ABORT, [KEY_A, KEY_B]), None);
    assert_eq!(bench.end(chunk), task_aborted);
    assert_eq!(bench.released(), Some(Response::Good));

    let chunk = bench.copy(A, &list(&segments));
    let other = bench.io(A, &READ, 512);
    bench.unit.abort_task(|tag| tag.port == A);
    assert_eq!(bench.end(chunk), task_aborted);
    assert_eq!(bench.end(other), Response::InPlace(512));

    let mut bench = Bench::new(setup());
    let chunk = bench.copy(A, &list(&segments));
    bench.unit.reset(&[]);
    assert_eq!(bench.end(chunk), task_aborted);
    bench.settle();
}

#[test]
fn what_must_be_alone_waits_for_source_and_destination_of_a_chunk() {
    // COMPARE AND WRITE of one block at LBA 7 and 8.
    let compare_and_write = |lba| [0x89, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, 1, 0, 0];
    for (from, to, next) in [(7, 100, (8, 9)), (100, 7, (9, 8))] {
        let mut bench = Bench::new(setup());
        let chunk = bench.copy(
            A,
            &list(&[segment(0, 1, from, to), segment(0, 1, next.0, next.1)]),
        );
        let step = bench.step(B, &compare_and_write(7), 1024);
        assert!(matches!(step, Step::Held), "{step:?}");
        let elsewhere = bench.io(B, &compare_and_write(8), 1024);
        // The next chunk waits in turn.
        let step = bench.ended(chunk);
        assert!(matches!(step, Step::Held), "{step:?}");
        let waited = begun(bench.unit.next_step().expect("COMPARE AND WRITE"));
        assert!(matches!(
            waited.0.operation,
            Operation::CompareAndWrite { .. }
        ));
        assert_eq!(bench.end(waited), Response::Good);
        assert_eq!(bench.end(elsewhere), Response::Good);
        let chunk = begun(bench.unit.next_step().expect("the chunk"));
        let (from, to) = (512 * next.0, 512 * next.1);
        assert_eq!(chunk.0.operation, of(from, to, 512));
        assert_eq!(bench.end(chunk), Response::Good);
    }
}

#[test]
fn the_status_of_a_copy_is_kept_for_the_nexus_that_knows_its_identifier() {
    let status_of = |identifier| [0x84, 0, identifier, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0];
    let unknown = Response::Check(Sense::invalid_field_in_cdb(Field::cdb(2)));
    let told = |state, segments, bytes: [u8; 2]| {
        Response::DataIn(vec![
            0, 0, 0, 8, state, 0, segments, 0, 0, 0, bytes[0], bytes[1],
        ])
    };
    let mut bench = Bench::reserved();
    let segments = [segment(0, 1, 0, 1), segment(0, 2, 0, 2)];
    let mut seven = list(&segments);
    seven[0] = 7;
    assert_eq!(bench.answer(B, &status_of(7), 12), unknown);
    let chunk = bench.copy(B, &seven);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
    assert_eq!(bench.answer(B, &status_of(7), 12), told(0, 0, [0, 0]));
    let chunk = begun(bench.ended(chunk));
    assert_eq!(bench.answer(B, &status_of(7), 12), told(0, 1, [2, 0]));
    assert_eq!(bench.end(chunk), Response::Good);
    assert_eq!(bench.answer(B, &status_of(7), 12), told(1, 2, [6, 0]));
    assert_eq!(bench.answer(A, &status_of(7), 12), unknown);
    assert_eq!(bench.answer(B, &status_of(0), 12), unknown);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
    assert_eq!(bench.answer(B, &status_of(7), 12), unknown);
    // One that fails in its second segment.
    seven[80 + 28 + 11] = 0xff;
    seven[80 + 28 + 10] = 0x7f;
    let chunk = bench.copy(B, &seven);
    assert_eq!(bench.end(chunk), aborted(1));
    assert_eq!(bench.answer(B, &status_of(7), 12), told(2, 1, [2, 0]));
    // LIST ID USAGE 11b: nobody will ask.
    let mut unnamed = list(&segments);
    unnamed[..2].copy_from_slice(&[9, 0x18]);
    let chunk = bench.copy(B, &unnamed);
    assert_eq!(bench.answer(B, &status_of(9), 12), unknown);
    let chunk = begun(bench.ended(chunk));
    // One that is aborted while it waits for COMPARE AND WRITE of LBA 1.
    assert_eq!(bench.end(chunk), Response::Good);
    let alone = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0];
    let alone = bench.io(A, &alone, 1024);
    seven[0] = 8;
    assert!(matches!(bench.begin_copy(B, &seven), Step::Held));
    bench.unit.abort_task(|tag| tag.port == B);
    bench.settle();
    assert_eq!(bench.answer(B, &status_of(8), 12), told(2, 0, [0, 0]));
    assert_eq!(bench.end(alone), Response::Good);
}

#[test]
fn operating_parameters_are_told_to_everybody() {
    let mut bench = Bench::held(3);
    let cdb = [0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0];
    let Response::DataIn(bytes) = bench.answer(C, &cdb, 20) else {
        panic!("GOOD")
    };
    assert_eq!(bytes.len(), 20, "the allocation length");
    assert_eq!(bytes[..4], [0, 0, 0, 43]);
}
