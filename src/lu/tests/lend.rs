//! Copies between units: what one asks for, and what another lends.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::copy::{aborted, begun, list_of, named, segment, this_unit};
use super::*;
use crate::store::{Backing, Loan, Place};

const PEER: &str = "peer";

fn peer() -> Naa {
    Identity::new(PEER).naa()
}

/// A unit that knows a peer with blocks of that size.
fn with_peer(block_size: u32) -> Bench {
    let mut bench = Bench::reserved();
    bench.unit.set_peers([(peer(), block_size)].into());
    bench
}

/// One block at LBA 7 of CSCD 0 to LBA 100 of CSCD 1, twice.
fn twice(from: &[u8], to: &[u8]) -> Vec<u8> {
    let segments = [segment(0, 1, 7, 100), segment(0, 1, 7, 100)];
    list_of(&[from.to_vec(), to.to_vec()], &segments)
}

fn wish(role: Role, part: std::ops::Range<u64>) -> Wish {
    let nexus = Arc::new(nexus(B));
    Wish { nexus, role, part }
}

/// What tells that it has been dropped.
struct Receipt(Sender<()>);

impl Drop for Receipt {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
    }
}

/// Something lent, and where it is told that it is given back.
fn lent(durability: Durability) -> (Lent, Loan, Receiver<()>) {
    let folder = tempfile::tempdir().unwrap();
    let backing = Backing::open(&folder.path().join("peer"), 512_000, 512).unwrap();
    let (receipt, given_back) = channel();
    let loan = Loan::new(Arc::new(backing), Receipt(receipt));
    let lent = Lent {
        loan: loan.clone(),
        durability,
    };
    (lent, loan, given_back)
}

fn asked(step: Step) -> (Wish, Asking) {
    match step {
        Step::Ask(name, wish, asking) => {
            assert_eq!(name, peer());
            (wish, asking)
        }
        other => panic!("{other:?} where another unit was to be asked"),
    }
}

#[test]
fn each_chunk_of_a_copy_to_another_unit_is_asked_for_and_given_back() {
    let mut bench = with_peer(512);
    let list = twice(&this_unit(), &named(peer(), 512));
    let mut step = bench.begin_copy(B, &list);
    for _ in 0..2 {
        let (wanted, asking) = asked(step);
        assert_eq!(wanted, wish(Role::Destination, 51_200..51_712));
        let (lent, loan, given_back) = lent(Durability::Now);
        let chunk = begun(bench.unit.asked(asking, Some(lent)));
        let expected = Operation::Copy {
            from: Place {
                offset: 3584,
                loan: None,
            },
            to: Place {
                offset: 51_200,
                loan: Some(loan),
            },
            length: 512,
            durability: Durability::Now,
        };
        assert_eq!(chunk.0.operation, expected);
        drop(expected);
        let (request, pending) = chunk;
        let Request {
            data, operation, ..
        } = request;
        assert!(given_back.try_recv().is_err(), "it is being copied");
        drop(operation);
        given_back.try_recv().unwrap();
        step = bench.unit.finish(pending, data, Ok(Outcome::Done));
    }
    assert_eq!(answered(step), Response::Good);
}

#[test]
fn source_and_destination_are_asked_for_where_they_are() {
    let mut bench = with_peer(512);
    let (here, there) = (this_unit(), named(peer(), 512));

    let (wanted, asking) = asked(bench.begin_copy(B, &twice(&there, &here)));
    assert_eq!(wanted, wish(Role::Source, 3584..4096));
    let (lent_source, _, given_back) = lent(Durability::Now);
    let chunk = begun(bench.unit.asked(asking, Some(lent_source)));
    let Operation::Copy { to, durability, .. } = &chunk.0.operation else {
        panic!("{:?}", chunk.0.operation)
    };
    assert_eq!((to.offset, &to.loan), (51_200, &None));
    assert_eq!(*durability, Durability::Later, "it is for the destination");
    assert_eq!(bench.fail(chunk, Failure::Truncated), aborted(0));
    given_back.try_recv().unwrap();

    let (wanted, asking) = asked(bench.begin_copy(B, &twice(&there, &there)));
    assert_eq!(wanted, wish(Role::Source, 3584..4096));
    let (lent_source, _, source_given_back) = lent(Durability::Now);
    let (wanted, asking) = asked(bench.unit.asked(asking, Some(lent_source)));
    assert_eq!(wanted, wish(Role::Destination, 51_200..51_712));
    assert!(source_given_back.try_recv().is_err());
    assert_eq!(answered(bench.unit.asked(asking, None)), aborted(0));
    source_given_back.try_recv().unwrap();
    assert_eq!(bench.unit.in_flight(), 0);
}

#[test]
fn a_unit_that_is_no_peer_or_has_other_blocks_is_not_asked() {
    let mut bench = with_peer(512);
    for other in [
        named(Identity::new("stranger").naa(), 512),
        named(peer(), 4096),
    ] {
        let step = bench.begin_copy(B, &twice(&this_unit(), &other));
        assert_eq!(answered(step), aborted(0));
    }
    bench.unit.set_peers(HashMap::new());
    let step = bench.begin_copy(B, &twice(&this_unit(), &named(peer(), 512)));
    assert_eq!(answered(step), aborted(0));
}

#[test]
fn blocks_of_different_sizes_are_copied_as_bytes_if_they_come_out_even() {
    let mut bench = with_peer(4096);
    let there = named(peer(), 4096);
    let copy = |flags, blocks| {
        let segments = [segment(flags, blocks, 7, 3)];
        list_of(&[this_unit(), there.clone()], &segments)
    };
    for (flags, blocks, length) in [(0x00, 16, 8192), (0x02, 1, 4096)] {
        let (wanted, asking) = asked(bench.begin_copy(B, &copy(flags, blocks)));
        assert_eq!(wanted, wish(Role::Destination, 12_288..12_288 + length));
        assert_eq!(answered(bench.unit.asked(asking, None)), aborted(0));
    }
    let inexact = Sense::unexpected_inexact_segment().of_segment(0);
    let step = bench.begin_copy(B, &copy(0x00, 15));
    assert_eq!(answered(step), Response::Check(inexact));
}

#[test]
fn nothing_waits_with_something_lent() {
    let mut bench = with_peer(512);
    let compare_and_write = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0];
    let list = twice(&this_unit(), &named(peer(), 512));
    let (_, asking) = asked(bench.begin_copy(B, &list));
    let alone = bench.io(A, &compare_and_write, 1024);
    let (lent, _, given_back) = lent(Durability::Later);
    let step = bench.unit.asked(asking, Some(lent));
    assert_eq!(answered(step), aborted(0));
    given_back.try_recv().unwrap();
    assert_eq!(bench.end(alone), Response::Good);
}

#[test]
fn a_preempt_waits_for_a_copy_that_has_asked_and_stops_it() {
    let mut bench = with_peer(512);
    let list = twice(&this_unit(), &named(peer(), 512));
    let (_, asking) = asked(bench.begin_copy(B, &list));
    assert_eq!(bench.change(A, PREEMPT, [KEY_A, KEY_B]), None);
    let (lent, _, given_back) = lent(Durability::Later);
    let step = bench.unit.asked(asking, Some(lent));
    assert_eq!(answered(step), aborted(0));
    given_back.try_recv().unwrap();
    assert_eq!(bench.released(), Some(Response::Good));
}

#[test]
fn a_flush_that_fails_is_of_the_unit_that_was_copied_to() {
    let mut bench = with_peer(512);
    let (here, there) = (this_unit(), named(peer(), 512));
    let eio = || Failure::Flush(io::Error::from_raw_os_error(libc::EIO));
    for (list, latches) in [(twice(&here, &there), false), (twice(&there, &here), true)] {
        let (_, asking) = asked(bench.begin_copy(B, &list));
        let (lent, _, _given_back) = lent(Durability::Now);
        let chunk = begun(bench.unit.asked(asking, Some(lent)));
        assert_eq!(bench.fail(chunk, eio()), aborted(0));
        let expected = if latches {
            let write = bench.answer(A, &WRITE, 512);
            assert_eq!(write, Response::Check(Sense::internal_target_failure()));
            continue;
        } else {
            bench.io(A, &WRITE, 512)
        };
        assert_eq!(bench.end(expected), Response::Good);
    }
}

#[test]
fn a_unit_that_is_to_end_neither_goes_on_nor_lends() {
    let mut bench = Bench::reserved();
    let list = twice(&this_unit(), &this_unit());
    let chunk = bench.copy(B, &list);
    bench.unit.wind_up();
    assert_eq!(bench.end(chunk), aborted(1));
    assert!(bench.unit.lend(&wish(Role::Source, 0..512)).is_none());
}

#[test]
fn a_unit_lends_as_its_own_reservations_say() {
    for (kind, of_registrant, source, destination) in [
        (1, true, true, false),
        (3, true, false, false),
        (5, true, true, true),
        (5, false, true, false),
        (6, false, false, false),
        (7, true, true, true),
        (8, false, false, false),
    ] {
        let mut bench = Bench::held(kind);
        let of = if of_registrant { B } else { C };
        for (role, expected) in [(Role::Source, source), (Role::Destination, destination)] {
            let wish = Wish {
                nexus: Arc::new(nexus(of)),
                ..wish(role, 0..512)
            };
            let loan = bench.unit.lend(&wish);
            assert_eq!(loan.is_some(), expected, "type {kind}, {role:?}");
            if let Some((loan, _)) = loan {
                assert_eq!(bench.unit.in_flight(), 1);
                bench.unit.given_back(loan);
            }
            assert_eq!(bench.unit.in_flight(), 0);
        }
    }
}

#[test]
fn a_unit_lends_only_what_is_there_to_whom_it_knows() {
    let mut bench = Bench::new(setup());
    let mut lends = |wish: &Wish| {
        let loan = bench.unit.lend(wish);
        loan.map(|(loan, _)| bench.unit.given_back(loan)).is_some()
    };
    assert!(lends(&wish(Role::Destination, 0..512_000)));
    assert!(!lends(&wish(Role::Source, 1..512_001)));
    let stranger = Wish {
        nexus: Arc::new(nexus(3)),
        ..wish(Role::Source, 0..512)
    };
    assert!(!lends(&stranger));
    // It is remembered, since it has something in flight.
    let read = bench.io(B, &READ, 512);
    bench.unit.detach(bench.nexuses[B]);
    assert!(bench.unit.lend(&wish(Role::Source, 0..512)).is_none());
    assert_eq!(bench.end(read), Response::InPlace(512));
}

#[test]
fn a_unit_does_not_lend_to_whom_it_has_to_tell_something_or_that_may_only_read() {
    let mut bench = Bench::new(setup());
    bench.unit.attach(Some(nexus(B)), Mapping::ReadOnly);
    let source = wish(Role::Source, 0..512);
    assert!(
        bench.unit.lend(&source).is_none(),
        "MODE PARAMETERS CHANGED"
    );
    bench.answer(B, &TEST_UNIT_READY, 0);
    let (loan, _) = bench.unit.lend(&source).expect("it has been told");
    bench.unit.given_back(loan);
    let destination = wish(Role::Destination, 0..512);
    assert!(bench.unit.lend(&destination).is_none());

    let mut fenced = Bench::new(Setup {
        reservations: Err(Unknown),
        ..setup()
    });
    assert!(fenced.unit.lend(&source).is_none());
}

#[test]
fn a_loan_says_when_it_must_be_durable() {
    for (write_back, expected) in [(true, Durability::Later), (false, Durability::Now)] {
        let mut bench = Bench::new(Setup {
            write_back,
            ..setup()
        });
        let lent = bench.unit.lend(&wish(Role::Destination, 0..512));
        let (loan, durability) = lent.expect("nothing is in the way");
        assert_eq!(durability, expected);
        bench.unit.given_back(loan);
    }
}

#[test]
fn a_preempt_waits_until_what_was_lent_is_given_back() {
    let mut bench = Bench::reserved();
    let (loan, _) = bench
        .unit
        .lend(&wish(Role::Destination, 0..512))
        .expect("B is registered");
    assert_eq!(bench.change(A, PREEMPT, [KEY_A, KEY_B]), None);
    assert_eq!(bench.released(), None);
    assert!(bench.unit.lend(&wish(Role::Destination, 0..512)).is_none());
    bench.unit.given_back(loan);
    assert_eq!(bench.released(), Some(Response::Good));
}

#[test]
fn what_must_be_alone_and_what_is_lent_do_not_meet() {
    let mut bench = Bench::new(setup());
    let compare_and_write = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0];
    let part = wish(Role::Source, 4095..4096);
    let (loan, _) = bench.unit.lend(&part).expect("nothing is in the way");
    let step = bench.step(A, &compare_and_write, 1024);
    assert!(matches!(step, Step::Held), "{step:?}");
    assert!(bench.unit.lend(&part).is_none(), "it waits in front");
    let elsewhere = bench.unit.lend(&wish(Role::Source, 4096..8192));
    bench
        .unit
        .given_back(elsewhere.expect("it is not in the way").0);
    bench.unit.given_back(loan);
    let alone = begun(bench.unit.next_step().expect("COMPARE AND WRITE"));
    assert!(bench.unit.lend(&part).is_none(), "it is alone");
    assert_eq!(bench.end(alone), Response::Good);
}
