//! The logical unit without kernel and disk: commands go in as bytes, and come out as answers or as I/O that the
//! test does or fails.

mod access;
mod atomic;
mod attentions;
mod changes;
mod copy;
mod dataless;
mod exclusive;
mod lend;
mod many;
mod mode;
mod nexuses;
mod order;
mod provision;
mod reads;
mod refused;
mod reserve;
mod resize;
mod verify;

use std::io;

use super::*;
use crate::pr::Save;
use crate::pr::admin::Action;
use crate::scsi::nexus::{Protocol, TargetPort, TransportId};
use crate::scsi::sense::Field;
use crate::store::{Against, Durability, Flush, Operation};
use crate::sys::region::{Region, Segment};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const KEY_A: u64 = 0xa;
const KEY_B: u64 = 0xb;

const TEST_UNIT_READY: [u8; 6] = [0; 6];
const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 96, 0];
const REQUEST_SENSE: [u8; 6] = [0x03, 0, 0, 0, 18, 0];
const SYNCHRONIZE_CACHE: [u8; 10] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// One block at LBA 7.
const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 7, 0, 0, 1, 0];
const READ_FUA: [u8; 10] = [0x28, 0x08, 0, 0, 0, 7, 0, 0, 1, 0];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 7, 0, 0, 1, 0];
const WRITE_FUA: [u8; 10] = [0x2a, 0x08, 0, 0, 0, 7, 0, 0, 1, 0];

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const WRITE_EXCLUSIVE_REGISTRANTS_ONLY: u8 = 5;

/// A unit of 1,000 blocks with three nexuses.
struct Bench {
    unit: LogicalUnit,
    region: Arc<Region>,
    nexuses: Vec<NexusId>,
    /// TYPE of what PERSISTENT RESERVE OUT reserves.
    kind: u8,
}

fn nexus(index: usize) -> ItNexus {
    ItNexus {
        initiator_port: TransportId::Sas(0x3000_0000_0000_0001 + index as u64),
        target_port: TargetPort {
            protocol: Protocol::Sas,
            name: "naa.1".into(),
        },
    }
}

fn setup() -> Setup {
    Setup {
        identity: Identity::new("serial"),
        geometry: Geometry::new(512, 1000, 0).unwrap().writing_atomically(512),
        provisioning: Provisioning::Full,
        reservations: Ok(Reservations::default()),
        attentions: Vec::new(),
        power_on: false,
        write_back: true,
        state: UnitState::default(),
        context: Context::default(),
    }
}

impl Bench {
    fn new(setup: Setup) -> Bench {
        let mut unit = LogicalUnit::new(setup);
        let nexuses = (0..3)
            .map(|index| unit.attach(Some(nexus(index)), Mapping::ReadWrite))
            .collect();
        Bench {
            unit,
            region: Arc::new(Region::anonymous(1 << 16).unwrap()),
            nexuses,
            kind: WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
        }
    }

    fn data(&self, length: u64) -> Data {
        Data::new(
            &self.region,
            vec![Segment { offset: 0, length }],
            0..1 << 16,
        )
        .unwrap()
    }

    fn task(&self, from: usize, cdb: &[u8], data: Data) -> Task {
        let mut padded = [0; 32];
        padded[..cdb.len()].copy_from_slice(cdb);
        let tag = Tag {
            port: from,
            command: 1,
            epoch: 0,
        };
        Task::new(tag, self.nexuses[from], padded, data)
    }

    fn step(&mut self, from: usize, cdb: &[u8], length: u64) -> Step {
        let task = self.task(from, cdb, self.data(length));
        self.unit.begin(task)
    }

    /// What a command is answered that needs no I/O.
    fn answer(&mut self, from: usize, cdb: &[u8], length: u64) -> Response {
        match self.step(from, cdb, length) {
            Step::Answer(answer) => settle(answer),
            Step::Io(request, pending) => {
                let response = self.end((request, pending));
                panic!("{response:?} where an answer was expected")
            }
            other => panic!("{other:?} where an answer was expected"),
        }
    }

    /// The I/O that a command asks for.
    fn io(&mut self, from: usize, cdb: &[u8], length: u64) -> (Request, Pending) {
        match self.step(from, cdb, length) {
            Step::Io(request, pending) => (request, pending),
            Step::Answer(answer) => panic!("{:?} where I/O was expected", settle(answer)),
            other => panic!("{other:?} where I/O was expected"),
        }
    }

    fn end(&mut self, io: (Request, Pending)) -> Response {
        self.end_with(io, Ok(Outcome::Done))
    }

    fn end_with(
        &mut self,
        (request, pending): (Request, Pending),
        result: Result<Outcome, Failure>,
    ) -> Response {
        match self.unit.finish(pending, request.data, result) {
            Step::Answer(answer) => settle(answer),
            other => panic!("{other:?} at the end of a command"),
        }
    }

    /// Fails the I/O of a command. That a flush has failed is stored before it is told.
    fn fail(&mut self, (request, pending): (Request, Pending), failure: Failure) -> Response {
        match self.unit.finish(pending, request.data, Err(failure)) {
            Step::Answer(answer) => settle(answer),
            Step::Held => {
                let told = self.settle();
                told.into_iter().next().expect("the answer")
            }
            other => panic!("{other:?} at the end of a command"),
        }
    }

    /// A PERSISTENT RESERVE OUT up to the point where its change is stored.
    fn reserve_out(&mut self, from: usize, action: u8, keys: [u64; 2]) -> Step {
        let cdb = [0x5f, action, self.kind, 0, 0, 0, 0, 0, 24, 0];
        let data = self.data(24);
        data.zero_from(0);
        data.write_at(0, &keys[0].to_be_bytes());
        data.write_at(8, &keys[1].to_be_bytes());
        let task = self.task(from, &cdb, data);
        self.unit.begin(task)
    }

    /// A PERSISTENT RESERVE OUT that is stored; its response unless it waits.
    fn change(&mut self, from: usize, action: u8, keys: [u64; 2]) -> Option<Response> {
        let step = self.reserve_out(from, action, keys);
        self.conclude(step)
    }

    /// RESERVE(6), up to the point where it is stored.
    fn reserve_6(&mut self, from: usize) -> Step {
        self.step(from, &[0x16, 0, 0, 0, 0, 0], 0)
    }

    /// The response to a command whose change is stored if it is to be; `None` if it waits.
    fn conclude(&mut self, step: Step) -> Option<Response> {
        match step {
            Step::Store(_) => {
                let step = self.unit.stored(true);
                self.conclude(step)
            }
            Step::Answer(answer) => Some(settle(answer)),
            Step::Held => None,
            other => panic!("{other:?} of a command that changes reservations"),
        }
    }

    /// A and B are registered, A holds write exclusive, registrants only.
    fn reserved() -> Bench {
        Bench::held(WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    }

    /// A and B are registered, and A, or all of them, hold a reservation of this type.
    fn held(kind: u8) -> Bench {
        let mut bench = Bench::new(setup());
        bench.kind = kind;
        assert_eq!(bench.change(A, REGISTER, [0, KEY_A]), Some(Response::Good));
        assert_eq!(bench.change(B, REGISTER, [0, KEY_B]), Some(Response::Good));
        assert_eq!(bench.change(A, RESERVE, [KEY_A, 0]), Some(Response::Good));
        bench
    }

    fn released(&mut self) -> Option<Response> {
        self.unit.next_step().and_then(|step| self.conclude(step))
    }

    /// Lets everything go on that can, with every change stored.
    fn settle(&mut self) -> Vec<Response> {
        let mut responses = Vec::new();
        while let Some(step) = self.unit.next_step() {
            responses.extend(self.conclude(step));
        }
        responses
    }

    /// Has the administrator's order carried out; `None` if its end waits.
    fn administer(&mut self, action: Action) -> Option<Result<(), Unfulfilled>> {
        self.unit.administer(action, Ticket(7));
        let mut step = self.unit.next_step().expect("the order");
        if let Step::Store(_) = step {
            step = self.unit.stored(true);
        }
        match step {
            Step::Administered(Ticket(7), outcome) => Some(outcome),
            Step::Held => None,
            other => panic!("{other:?} of an order"),
        }
    }
}

/// The answer that a step is.
fn answered(step: Step) -> Response {
    match step {
        Step::Answer(answer) => settle(answer),
        other => panic!("{other:?} where an answer was expected"),
    }
}

fn settle(answer: Answer) -> Response {
    let response = answer.response().clone();
    answer.deliver(Format::Fixed);
    response
}

const CONFLICT: Response = Response::Status(Status::ReservationConflict);

fn errno(code: i32) -> Failure {
    Failure::Io(io::Error::from_raw_os_error(code))
}

fn unread(at: u64, code: i32) -> Failure {
    let error = io::Error::from_raw_os_error(code);
    Failure::Read { at, error }
}

fn unwritten(at: u64, code: i32) -> Failure {
    let error = io::Error::from_raw_os_error(code);
    Failure::Write { at, error }
}

#[test]
fn a_command_that_is_not_served_is_refused_before_anything_else() {
    let mut bench = Bench::new(Setup {
        power_on: true,
        ..setup()
    });
    let expected = Response::Check(Sense::invalid_command_operation_code());
    assert_eq!(bench.answer(A, &[0x04, 0, 0, 0, 0, 0], 0), expected);
    let power_on = Response::Check(Sense::power_on_occurred());
    assert_eq!(
        bench.answer(A, &TEST_UNIT_READY, 0),
        power_on,
        "it ate no unit attention"
    );
}

#[test]
fn power_on_is_told_to_each_nexus_once() {
    let mut bench = Bench::new(Setup {
        power_on: true,
        ..setup()
    });
    let power_on = Response::Check(Sense::power_on_occurred());
    assert!(matches!(bench.answer(A, &INQUIRY, 96), Response::DataIn(_)));
    assert_eq!(bench.answer(A, &READ, 512), power_on);
    assert_eq!(bench.answer(A, &TEST_UNIT_READY, 0), Response::Good);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), power_on);
}

#[test]
fn request_sense_reports_and_clears_a_unit_attention() {
    let mut bench = Bench::new(Setup {
        power_on: true,
        ..setup()
    });
    let Response::DataIn(bytes) = bench.answer(A, &REQUEST_SENSE, 18) else {
        panic!("GOOD")
    };
    assert_eq!(bytes[..3], [0x70, 0, 0x06]);
    assert_eq!(bytes[12..14], [0x29, 0x01]);
    assert_eq!(bench.answer(A, &TEST_UNIT_READY, 0), Response::Good);
}

#[test]
fn a_fenced_nexus_gets_conflicts_and_its_unit_attention_with_the_first_command_that_passes() {
    let mut bench = Bench::reserved();
    assert_eq!(
        bench.change(A, PREEMPT, [KEY_A, KEY_B]),
        Some(Response::Good)
    );
    assert_eq!(bench.answer(B, &WRITE, 512), CONFLICT);
    assert_eq!(bench.answer(B, &WRITE, 512), CONFLICT);
    let preempted = Response::Check(Sense::registrations_preempted());
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), preempted);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
    assert_eq!(bench.unit.counters().conflicts, 2);
}

#[test]
fn a_power_on_goes_before_a_conflict() {
    let mut bench = Bench::new(Setup {
        power_on: true,
        ..setup()
    });
    for from in [A, B] {
        bench.answer(from, &TEST_UNIT_READY, 0);
    }
    bench.change(A, REGISTER, [0, KEY_A]);
    bench.change(A, RESERVE, [KEY_A, 0]);
    assert_eq!(bench.answer(B, &WRITE, 512), CONFLICT);
    let power_on = Response::Check(Sense::power_on_occurred());
    assert_eq!(bench.answer(C, &WRITE, 512), power_on);
    assert_eq!(bench.answer(C, &WRITE, 512), CONFLICT);
}

#[test]
fn a_conflict_goes_before_what_is_wrong_with_the_fields() {
    let mut bench = Bench::reserved();
    let past_the_end = [0x2a, 0, 0, 0, 3, 0xe8, 0, 0, 1, 0];
    assert_eq!(bench.answer(C, &past_the_end, 512), CONFLICT);
    let out_of_range = Response::Check(Sense::logical_block_address_out_of_range());
    assert_eq!(bench.answer(A, &past_the_end, 512), out_of_range);
}

#[test]
fn a_preempt_is_answered_when_the_losers_writes_have_ended_and_not_before() {
    let mut bench = Bench::reserved();
    let first = bench.io(B, &WRITE, 512);
    let second = bench.io(B, &WRITE, 512);
    let own = bench.io(A, &WRITE, 512);
    assert_eq!(bench.change(A, PREEMPT, [KEY_A, KEY_B]), None);
    assert_eq!(
        bench.answer(B, &WRITE, 512),
        CONFLICT,
        "the change is in force already"
    );
    let other = bench.io(A, &READ, 512);
    assert_eq!(
        bench.end(other),
        Response::InPlace(512),
        "others are served meanwhile"
    );
    assert_eq!(bench.end(first), Response::Good);
    assert_eq!(bench.released(), None);
    assert_eq!(bench.end(second), Response::Good);
    assert_eq!(bench.released(), Some(Response::Good));
    assert_eq!(bench.released(), None);
    assert_eq!(bench.end(own), Response::Good);
}

#[test]
fn a_reserve_waits_for_the_writes_of_nexuses_that_never_registered() {
    let mut bench = Bench::new(setup());
    bench.change(A, REGISTER, [0, KEY_A]);
    let write = bench.io(C, &WRITE, 512);
    assert_eq!(bench.change(A, RESERVE, [KEY_A, 0]), None);
    assert_eq!(bench.end(write), Response::Good);
    assert_eq!(bench.released(), Some(Response::Good));
}

#[test]
fn a_repeated_command_waits_like_the_one_it_repeats() {
    let mut bench = Bench::new(setup());
    bench.change(A, REGISTER, [0, KEY_A]);
    let write = bench.io(C, &WRITE, 512);
    assert_eq!(bench.change(A, RESERVE, [KEY_A, 0]), None);
    assert_eq!(
        bench.change(A, RESERVE, [KEY_A, 0]),
        None,
        "it takes nothing away, but it is relied on"
    );
    assert_eq!(bench.end(write), Response::Good);
    assert_eq!(bench.released(), Some(Response::Good));
    assert_eq!(bench.released(), Some(Response::Good));
}

#[test]
fn a_read_that_the_reservation_allows_is_not_waited_for() {
    let mut bench = Bench::new(setup());
    bench.change(A, REGISTER, [0, KEY_A]);
    let read = bench.io(C, &READ, 512);
    assert_eq!(bench.change(A, RESERVE, [KEY_A, 0]), Some(Response::Good));
    assert_eq!(bench.end(read), Response::InPlace(512));
}

#[test]
fn preempt_and_abort_waits_and_ends_the_commands_with_task_aborted() {
    let mut bench = Bench::reserved();
    let read = bench.io(B, &READ, 512);
    let other = bench.io(C, &READ, 512);
    assert_eq!(
        bench.change(A, PREEMPT_AND_ABORT, [KEY_A, KEY_B]),
        None,
        "reads are aborted, too"
    );
    assert_eq!(bench.end(read), Response::Status(Status::TaskAborted));
    assert_eq!(bench.released(), Some(Response::Good));
    assert_eq!(bench.end(other), Response::InPlace(512));
}

#[test]
fn a_change_that_cannot_be_stored_changes_nothing() {
    let mut bench = Bench::reserved();
    let before = bench.unit.reservations().clone();
    let step = bench.reserve_out(A, PREEMPT, [KEY_A, KEY_B]);
    assert!(matches!(step, Step::Store(_)));
    let Step::Answer(answer) = bench.unit.stored(false) else {
        panic!("an answer")
    };
    assert_eq!(
        settle(answer),
        Response::Check(Sense::internal_target_failure())
    );
    assert_eq!(*bench.unit.reservations(), before);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
    let write = bench.io(B, &WRITE, 512);
    assert_eq!(bench.end(write), Response::Good);
}

#[test]
fn nobody_is_let_in_while_the_reservations_are_not_known() {
    let mut bench = Bench::new(Setup {
        reservations: Err(Unknown),
        ..setup()
    });
    let manual = Response::Check(Sense::manual_intervention_required());
    for cdb in [
        &READ[..],
        &WRITE,
        &TEST_UNIT_READY,
        &[0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0],
    ] {
        assert_eq!(bench.answer(A, cdb, 512), manual);
    }
    assert!(matches!(bench.answer(A, &INQUIRY, 96), Response::DataIn(_)));
    let Response::DataIn(bytes) = bench.answer(A, &REQUEST_SENSE, 18) else {
        panic!("GOOD")
    };
    assert_eq!((bytes[2], bytes[12], bytes[13]), (0x02, 0x04, 0x03));
}

#[test]
fn a_write_whose_data_is_not_as_long_as_its_blocks_is_refused() {
    let mut bench = Bench::new(setup());
    let wrong = Response::Check(Sense::invalid_field_in_command_information_unit());
    for length in [0, 511, 513, 1024] {
        assert_eq!(bench.answer(A, &WRITE, length), wrong, "{length}");
    }
}

#[test]
fn a_read_is_cut_to_its_buffer() {
    let mut bench = Bench::new(setup());
    let read = bench.io(A, &READ, 100);
    let expected = Operation::Read {
        offset: 3584,
        length: 100,
        flush: Flush::No,
    };
    assert_eq!(read.0.operation, expected);
    assert_eq!(bench.end(read), Response::InPlace(100));
    assert_eq!(bench.answer(A, &READ, 0), Response::Good);
}

#[test]
fn a_write_is_durable_before_its_answer_if_fua_or_the_cache_mode_asks_for_it() {
    for (write_back, cdb, expected) in [
        (true, WRITE, Durability::Later),
        (true, WRITE_FUA, Durability::Now),
        (false, WRITE, Durability::Now),
        (false, WRITE_FUA, Durability::Now),
    ] {
        let mut bench = Bench::new(Setup {
            write_back,
            ..setup()
        });
        let write = bench.io(A, &cdb, 512);
        let expected = Operation::Write {
            offset: 3584,
            length: 512,
            durability: expected,
        };
        assert_eq!(write.0.operation, expected);
        assert_eq!(bench.end(write), Response::Good);
    }
}

#[test]
fn a_read_with_fua_flushes_first() {
    let mut bench = Bench::new(setup());
    let read = bench.io(A, &READ_FUA, 512);
    let expected = Operation::Read {
        offset: 3584,
        length: 512,
        flush: Flush::First,
    };
    assert_eq!(read.0.operation, expected);
    bench.end(read);
}

#[test]
fn a_failed_flush_is_reported_and_stays_reported() {
    let mut bench = Bench::new(setup());
    let flush = bench.io(A, &SYNCHRONIZE_CACHE, 0);
    assert_eq!(flush.0.operation, Operation::Flush);
    let waiting = bench.io(B, &SYNCHRONIZE_CACHE, 0);
    let failure = Failure::Flush(io::Error::from_raw_os_error(libc::EIO));
    assert_eq!(
        bench.fail(flush, failure),
        Response::Check(Sense::write_error())
    );
    bench.end(waiting);
    let latched = Response::Check(Sense::internal_target_failure());
    for (cdb, length) in [(WRITE, 512), (SYNCHRONIZE_CACHE, 0), (READ_FUA, 512)] {
        assert_eq!(bench.answer(A, &cdb, length), latched);
    }
    let read = bench.io(A, &READ, 512);
    assert_eq!(bench.end(read), Response::InPlace(512));
}

#[test]
fn errors_of_the_backing_object_become_sense_that_hosts_act_on() {
    let mut bench = Bench::new(setup());
    let [unreadable, unwritable] = [Sense::unrecovered_read_error(), Sense::write_error()]
        .map(|sense| sense.with_information(7));
    for (code, expected) in [
        (libc::EIO, unreadable),
        (libc::ENODEV, Sense::logical_unit_communication_failure()),
        (libc::EINVAL, Sense::internal_target_failure()),
    ] {
        let read = bench.io(A, &READ, 512);
        assert_eq!(
            bench.fail(read, unread(7 * 512 + 511, code)),
            Response::Check(expected),
            "{code}"
        );
    }
    for (code, expected) in [
        (libc::EIO, unwritable),
        (libc::ENOSPC, Sense::space_allocation_failed_write_protect()),
        (libc::EROFS, Sense::write_protected()),
    ] {
        let write = bench.io(A, &WRITE, 512);
        assert_eq!(
            bench.fail(write, unwritten(7 * 512, code)),
            Response::Check(expected),
            "{code}"
        );
    }
    let read = bench.io(A, &READ, 512);
    let truncated = Response::Check(Sense::internal_target_failure());
    assert_eq!(bench.fail(read, Failure::Truncated), truncated);
}

#[test]
fn a_read_only_mapping_refuses_writes_and_says_so_in_the_mode_header() {
    let mut bench = Bench::new(setup());
    bench.nexuses[A] = bench.unit.attach(Some(nexus(A)), Mapping::ReadOnly);
    let changed = Response::Check(Sense::mode_parameters_changed());
    assert_eq!(bench.answer(A, &TEST_UNIT_READY, 0), changed);
    let protected = Response::Check(Sense::write_protected());
    assert_eq!(bench.answer(A, &WRITE, 512), protected);
    let mode_sense = [0x1a, 0x08, 0x08, 0, 4, 0];
    let Response::DataIn(bytes) = bench.answer(A, &mode_sense, 4) else {
        panic!("GOOD")
    };
    assert_eq!(bytes[2] & 0x80, 0x80, "WP");
    let Response::DataIn(bytes) = bench.answer(B, &mode_sense, 4) else {
        panic!("GOOD")
    };
    assert_eq!(bytes[2] & 0x80, 0);
}

#[test]
fn a_reset_is_told_to_those_whom_the_kernel_does_not_tell() {
    let mut bench = Bench::new(setup());
    bench.unit.reset(&[bench.nexuses[A]]);
    assert!(bench.settle().is_empty());
    assert_eq!(bench.answer(A, &TEST_UNIT_READY, 0), Response::Good);
    let reset = Response::Check(Sense::bus_device_reset_function_occurred());
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), reset);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
}

#[test]
fn a_reset_ends_a_reserve_and_no_persistent_reservation() {
    let mut bench = Bench::new(setup());
    let step = bench.reserve_6(A);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    assert_eq!(bench.answer(B, &READ, 512), CONFLICT);
    bench.unit.reset(&[]);
    bench.settle();
    bench.answer(B, &TEST_UNIT_READY, 0);
    let read = bench.io(B, &READ, 512);
    assert_eq!(bench.end(read), Response::InPlace(512));

    let mut bench = Bench::reserved();
    bench.unit.reset(&[]);
    bench.settle();
    bench.answer(C, &TEST_UNIT_READY, 0);
    assert_eq!(bench.answer(C, &WRITE, 512), CONFLICT);
}

#[test]
fn a_nexus_that_comes_back_finds_its_registration_and_its_unit_attention() {
    let mut bench = Bench::reserved();
    bench.unit.detach(bench.nexuses[B]);
    assert_eq!(
        bench.change(A, PREEMPT, [KEY_A, KEY_B]),
        Some(Response::Good)
    );
    bench.nexuses[B] = bench.unit.attach(Some(nexus(B)), Mapping::ReadWrite);
    let preempted = Response::Check(Sense::registrations_preempted());
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), preempted);
    assert_eq!(bench.answer(B, &WRITE, 512), CONFLICT);

    bench.unit.detach(bench.nexuses[A]);
    bench.nexuses[A] = bench.unit.attach(Some(nexus(A)), Mapping::ReadWrite);
    let write = bench.io(A, &WRITE, 512);
    assert_eq!(bench.end(write), Response::Good);
}

#[test]
fn a_nexus_that_leaves_with_a_write_in_flight_is_waited_for() {
    let mut bench = Bench::reserved();
    let write = bench.io(B, &WRITE, 512);
    bench.unit.detach(bench.nexuses[B]);
    assert_eq!(bench.change(A, PREEMPT, [KEY_A, KEY_B]), None);
    assert_eq!(bench.end(write), Response::Good);
    assert_eq!(bench.released(), Some(Response::Good));
}

#[test]
fn vital_product_data_tells_the_relative_target_port() {
    let mut bench = Bench::new(setup());
    let mut ports = TargetPorts::default();
    ports.add(&TargetPort {
        protocol: Protocol::Sas,
        name: "naa.9".into(),
    });
    ports.add(&nexus(A).target_port);
    bench.unit.set_target_ports(ports);
    let Response::DataIn(bytes) = bench.answer(A, &[0x12, 1, 0x83, 0, 255, 0], 255) else {
        panic!("GOOD")
    };
    // PIV, target port, relative target port identifier; length 4; 2.
    assert_eq!(bytes[bytes.len() - 7..], [0x94, 0, 4, 0, 0, 0, 2]);
}

#[test]
fn a_read_in_flight_is_waited_for_if_the_reservation_shuts_out_readers() {
    for (kind, waits) in [
        (1, false),
        (3, true),
        (5, false),
        (6, true),
        (7, false),
        (8, true),
    ] {
        let mut bench = Bench::new(setup());
        bench.kind = kind;
        bench.change(A, REGISTER, [0, KEY_A]);
        let read = bench.io(C, &READ, 512);
        let answered = bench.change(A, RESERVE, [KEY_A, 0]).is_some();
        assert_eq!(answered, !waits, "type {kind}");
        assert_eq!(bench.end(read), Response::InPlace(512));
        assert_eq!(bench.released().is_some(), waits, "type {kind}");
    }
}

#[test]
fn a_registrants_commands_in_flight_are_waited_for_if_only_the_holder_has_access() {
    for (kind, waits) in [
        (1, true),
        (3, true),
        (5, false),
        (6, false),
        (7, false),
        (8, false),
    ] {
        let mut bench = Bench::new(setup());
        bench.kind = kind;
        bench.change(A, REGISTER, [0, KEY_A]);
        bench.change(B, REGISTER, [0, KEY_B]);
        let write = bench.io(B, &WRITE, 512);
        let answered = bench.change(A, RESERVE, [KEY_A, 0]).is_some();
        assert_eq!(answered, !waits, "type {kind}");
        bench.end(write);
        assert_eq!(bench.released().is_some(), waits, "type {kind}");
    }
}

#[test]
fn a_reserve_of_spc_2_waits_for_the_reads_and_writes_of_others() {
    for cdb in [READ, WRITE] {
        let mut bench = Bench::new(setup());
        let other = bench.io(B, &cdb, 512);
        let own = bench.io(A, &cdb, 512);
        let step = bench.reserve_6(A);
        assert_eq!(bench.conclude(step), None);
        bench.end(other);
        assert_eq!(bench.released(), Some(Response::Good), "not for its own");
        bench.end(own);
    }
}

#[test]
fn who_unregisters_waits_for_its_own_writes() {
    let mut bench = Bench::reserved();
    let write = bench.io(B, &WRITE, 512);
    assert_eq!(bench.change(B, REGISTER, [KEY_B, 0]), None);
    bench.end(write);
    assert_eq!(bench.released(), Some(Response::Good));
}

#[test]
fn what_takes_access_from_nobody_waits_for_nobody() {
    const RELEASE: u8 = 2;
    const CLEAR: u8 = 3;
    for (action, from) in [(RELEASE, A), (CLEAR, B)] {
        let mut bench = Bench::reserved();
        let write = bench.io(B, &WRITE, 512);
        let key = [KEY_A, KEY_B][from];
        assert_eq!(bench.change(from, action, [key, 0]), Some(Response::Good));
        bench.end(write);
    }
}

#[test]
fn nobody_reads_that_a_nexus_is_shut_out_before_its_writes_have_ended() {
    let mut bench = Bench::reserved();
    let write = bench.io(B, &WRITE, 512);
    assert_eq!(bench.change(A, PREEMPT, [KEY_A, KEY_B]), None);
    let read_keys = [0x5e, 0, 0, 0, 0, 0, 0, 0, 24, 0];
    assert!(matches!(bench.step(C, &read_keys, 24), Step::Held));
    assert_eq!(
        bench.change(A, PREEMPT, [KEY_A, KEY_B]),
        None,
        "the repeated command's conflict"
    );
    bench.end(write);
    assert_eq!(bench.released(), Some(Response::Good));
    let Some(Response::DataIn(keys)) = bench.released() else {
        panic!("READ KEYS")
    };
    assert_eq!(keys[4..], [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0xa]);
    assert_eq!(bench.released(), Some(CONFLICT));
    assert!(matches!(
        bench.answer(C, &read_keys, 24),
        Response::DataIn(_)
    ));
}

#[test]
fn a_conflict_of_a_reservation_command_goes_before_its_unit_attention() {
    let mut bench = Bench::reserved();
    bench.change(A, PREEMPT, [KEY_A, KEY_B]);
    assert_eq!(bench.change(B, RESERVE, [KEY_B, 0]), Some(CONFLICT));
    let preempted = Response::Check(Sense::registrations_preempted());
    assert_eq!(
        bench.change(B, REGISTER, [0, KEY_B]),
        Some(preempted),
        "it does not conflict"
    );
    assert_eq!(bench.change(B, REGISTER, [0, KEY_B]), Some(Response::Good));
}

#[test]
fn a_failed_flush_of_an_aborted_command_stays_reported() {
    let mut bench = Bench::reserved();
    let write = bench.io(B, &WRITE_FUA, 512);
    bench.change(A, PREEMPT_AND_ABORT, [KEY_A, KEY_B]);
    let (request, pending) = write;
    let failure = Failure::Flush(io::Error::from_raw_os_error(libc::EIO));
    let step = bench.unit.finish(pending, request.data, Err(failure));
    assert!(matches!(step, Step::Held), "{step:?}");
    let aborted = Response::Status(Status::TaskAborted);
    assert_eq!(bench.settle(), [Response::Good, aborted]);
    let latched = Response::Check(Sense::internal_target_failure());
    assert_eq!(bench.answer(A, &SYNCHRONIZE_CACHE, 0), latched);
}

#[test]
fn a_refused_command_changes_nothing() {
    let mut bench = Bench::reserved();
    let before = bench.unit.reservations().clone();
    for (from, action, keys) in [
        (C, RESERVE, [1, 0]),
        (B, PREEMPT, [KEY_A, KEY_A]),
        (A, PREEMPT, [KEY_A, 0]),
        (A, REGISTER, [7, 0]),
        (A, 8, [KEY_A, 0]),
    ] {
        let response = bench.change(from, action, keys).expect("an answer");
        assert_ne!(response, Response::Good);
        assert_eq!(*bench.unit.reservations(), before);
    }
    for from in [A, B, C] {
        assert_eq!(
            bench.answer(from, &TEST_UNIT_READY, 0),
            Response::Good,
            "no unit attention"
        );
    }
}

#[test]
fn what_the_system_cannot_do_now_is_busy() {
    let mut bench = Bench::new(setup());
    let write = bench.io(A, &WRITE, 512);
    assert_eq!(
        bench.fail(write, unwritten(7 * 512, libc::ENOMEM)),
        Response::Status(Status::Busy)
    );
}

#[test]
fn a_power_on_is_not_told_again_to_a_nexus_that_comes_back() {
    let mut bench = Bench::new(Setup {
        power_on: true,
        ..setup()
    });
    bench.answer(A, &TEST_UNIT_READY, 0);
    bench.unit.detach(bench.nexuses[A]);
    bench.nexuses[A] = bench.unit.attach(Some(nexus(A)), Mapping::ReadWrite);
    assert_eq!(bench.answer(A, &TEST_UNIT_READY, 0), Response::Good);
}

#[test]
fn each_nexus_has_a_lane_of_its_own() {
    let mut bench = Bench::new(setup());
    let all = [(A, READ), (A, WRITE), (B, READ), (C, SYNCHRONIZE_CACHE)]
        .map(|(from, cdb)| bench.io(from, &cdb, 512));
    let [read, write, other, flush] = all.each_ref().map(|(request, _)| request.lane);
    assert_eq!(read, write);
    assert_ne!(read, other);
    assert_ne!(read, flush);
    assert_ne!(other, flush);
    for io in all {
        bench.end(io);
    }
}
