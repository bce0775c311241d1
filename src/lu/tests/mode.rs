//! Mode parameters that are changed, and what else outlives the daemon.

use super::*;
use crate::lu::change::FENCE_PATIENCE;
use crate::scsi::mode::Values;

/// WCE=1, and SWP=1 where it says so.
const CACHED: Values = Values {
    write_cache_enabled: true,
    software_write_protect: false,
};
const THROUGH: Values = Values {
    write_cache_enabled: false,
    software_write_protect: false,
};
const PROTECTED: Values = Values {
    write_cache_enabled: true,
    software_write_protect: true,
};
const CHANGED: Response = Response::Check(Sense::mode_parameters_changed());
const ABORTED: Response = Response::Status(Status::TaskAborted);
const SAVE: bool = true;

impl Bench {
    /// A MODE SELECT(6) of the Caching and the Control mode page.
    fn select_step(&mut self, from: usize, values: Values, save: bool) -> Step {
        let wce = if values.write_cache_enabled { 0x04 } else { 0 };
        let swp = if values.software_write_protect {
            0x08
        } else {
            0
        };
        let mut list = vec![0; 4];
        list.extend([0x08, 0x12, wce]);
        list.resize(24, 0);
        list.extend([0x0a, 0x0a, 0x02, 0x10, swp, 0x40, 0, 0, 0xff, 0xff, 0, 0]);
        let cdb = [0x15, 0x10 | u8::from(save), 0, 0, 36, 0];
        let data = self.data(36);
        data.write_at(0, &list);
        let task = self.task(from, &cdb, data);
        self.unit.begin(task)
    }

    /// A MODE SELECT that asks for nothing but to be stored; what it is answered.
    fn select(&mut self, from: usize, values: Values, save: bool) -> Option<Response> {
        let step = self.select_step(from, values, save);
        self.conclude(step)
    }

    /// A MODE SELECT whose values are being stored when this returns.
    fn select_storing(&mut self, from: usize, values: Values, save: bool) -> UnitState {
        match self.select_step(from, values, save) {
            Step::Store(to_store) => to_store.state.expect("they change"),
            other => panic!("{other:?} where something was to be stored"),
        }
    }

    /// What comes next, which is the flush of the write cache.
    fn flush(&mut self) -> (Request, Pending) {
        match self.unit.next_step() {
            Some(Step::Io(request, pending)) => {
                assert_eq!(request.operation, Operation::Flush);
                (request, pending)
            }
            other => panic!("{other:?} where the cache was to be flushed"),
        }
    }

    fn end_flush(&mut self, (request, pending): (Request, Pending), result: Result<(), Failure>) {
        let step = self
            .unit
            .finish(pending, request.data, result.map(|()| Outcome::Done));
        assert!(matches!(step, Step::Held), "{step:?}");
    }

    /// When a write of that nexus has to be durable.
    fn durability(&mut self, from: usize) -> Durability {
        let write = self.io(from, &WRITE, 512);
        let Operation::Write { durability, .. } = write.0.operation else {
            panic!("{:?}", write.0.operation)
        };
        assert_eq!(self.end(write), Response::Good);
        durability
    }

    /// WCE as MODE SENSE tells it to that nexus.
    fn wce(&mut self, from: usize) -> bool {
        let Response::DataIn(bytes) = self.answer(from, &[0x1a, 0x08, 0x08, 0, 24, 0], 24) else {
            panic!("GOOD")
        };
        bytes[6] & 0x04 != 0
    }

    fn through() -> Bench {
        Bench::new(Setup {
            write_back: false,
            ..setup()
        })
    }
}

#[test]
fn what_mode_select_sets_is_stored_then_told() {
    let mut bench = Bench::through();
    let state = bench.select_storing(A, CACHED, false);
    let expected = UnitState {
        selected: Some(CACHED),
        saved: None,
        flush_failed: false,
    };
    assert_eq!(state, expected);
    assert!(!bench.wce(C), "it is not in force yet");
    let step = bench.unit.stored(true);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    assert_eq!(bench.answer(A, &TEST_UNIT_READY, 0), Response::Good);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), CHANGED);
    assert!(bench.wce(B));
}

#[test]
fn what_cannot_be_stored_is_not_set() {
    let mut bench = Bench::through();
    bench.select_storing(A, PROTECTED, SAVE);
    let step = bench.unit.stored(false);
    let failed = Response::Check(Sense::internal_target_failure());
    assert_eq!(bench.conclude(step), Some(failed));
    assert_eq!(bench.unit.mode_values(), THROUGH);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
    assert_eq!(bench.durability(A), Durability::Now);
}

#[test]
fn values_that_are_so_already_are_told_to_nobody_and_stored_only_to_be_saved() {
    let mut bench = Bench::new(setup());
    let step = bench.select_step(A, CACHED, false);
    assert!(matches!(step, Step::Answer(_)), "{step:?}");
    assert_eq!(bench.conclude(step), Some(Response::Good));
    let state = bench.select_storing(A, CACHED, SAVE);
    assert_eq!((state.selected, state.saved), (Some(CACHED), Some(CACHED)));
    let step = bench.unit.stored(true);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
}

#[test]
fn wrong_parameters_are_refused_and_nothing_is_stored() {
    let mut bench = Bench::new(setup());
    let data = bench.data(6);
    data.write_at(0, &[0, 0, 0, 0, 0x07, 0]);
    let task = bench.task(A, &[0x15, 0x10, 0, 0, 6, 0], data);
    let Step::Answer(answer) = bench.unit.begin(task) else {
        panic!("an answer")
    };
    let no_such_page = Sense::invalid_field_in_parameter_list(Field::parameter(4));
    assert_eq!(settle(answer), Response::Check(no_such_page));
}

#[test]
fn software_write_protect_refuses_writes_after_all_other_checks_of_the_unit() {
    let mut bench = Bench::new(setup());
    assert_eq!(bench.select(A, PROTECTED, false), Some(Response::Good));
    let protected = Response::Check(Sense::logical_unit_software_write_protected());
    assert_eq!(bench.answer(A, &WRITE, 512), protected);
    assert_eq!(bench.answer(B, &WRITE, 512), CHANGED);
    assert_eq!(bench.answer(B, &WRITE, 512), protected);
    let past_the_end = [0x2a, 0, 0, 0, 3, 0xe8, 0, 0, 1, 0];
    assert_eq!(bench.answer(A, &past_the_end, 512), protected);
    let read = bench.io(A, &READ, 512);
    assert_eq!(bench.end(read), Response::InPlace(512));
    let flush = bench.io(A, &SYNCHRONIZE_CACHE, 0);
    assert_eq!(bench.end(flush), Response::Good);
    let Response::DataIn(header) = bench.answer(C, &REQUEST_SENSE, 18) else {
        panic!("GOOD")
    };
    assert_eq!(header[12..14], [0x2a, 0x01]);
    assert_eq!(bench.select(C, CACHED, false), Some(Response::Good));
    assert_eq!(bench.durability(C), Durability::Later);
}

#[test]
fn software_write_protect_is_told_when_no_write_is_in_flight_any_more() {
    let mut bench = Bench::new(setup());
    let write = bench.io(B, &WRITE, 512);
    let read = bench.io(B, &READ, 512);
    assert_eq!(bench.select(A, PROTECTED, false), None);
    assert_eq!(bench.released(), None);
    assert_eq!(bench.end(write), Response::Good);
    assert_eq!(bench.released(), Some(Response::Good));
    assert_eq!(bench.end(read), Response::InPlace(512));
}

#[test]
fn wce_is_switched_off_when_what_was_cached_is_on_the_medium() {
    let mut bench = Bench::new(setup());
    let cached = bench.io(B, &WRITE, 512);
    let step = bench.select_step(A, THROUGH, false);
    assert!(matches!(step, Step::Held), "{step:?}");
    assert!(bench.unit.next_step().is_none(), "it waits for the write");
    assert_eq!(bench.durability(C), Durability::Now, "from now on");
    assert!(bench.wce(C), "and nobody is told yet");
    assert_eq!(bench.end(cached), Response::Good);
    let flush = bench.flush();
    assert!(bench.unit.next_step().is_none(), "it waits for the flush");
    bench.end_flush(flush, Ok(()));
    let Some(Step::Store(to_store)) = bench.unit.next_step() else {
        panic!("it is stored")
    };
    assert_eq!(to_store.state.unwrap().selected, Some(THROUGH));
    assert_eq!(
        bench.durability(C),
        Durability::Now,
        "while it is stored, too"
    );
    let step = bench.unit.stored(true);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    assert_eq!(bench.answer(C, &TEST_UNIT_READY, 0), CHANGED);
    assert!(!bench.wce(C));
    assert_eq!(bench.durability(A), Durability::Now);
    assert!(bench.unit.is_idle());
}

#[test]
fn wce_stays_if_the_flush_fails() {
    let mut bench = Bench::new(setup());
    bench.select_step(A, THROUGH, SAVE);
    let flush = bench.flush();
    let error = io::Error::from_raw_os_error(libc::EIO);
    bench.end_flush(flush, Err(Failure::Flush(error)));
    assert_eq!(bench.settle(), [Response::Check(Sense::write_error())]);
    assert!(bench.unit.has_flush_failed());
    assert!(bench.wce(A));
    assert!(bench.unit.is_idle());
}

#[test]
fn wce_stays_if_it_cannot_be_stored() {
    let mut bench = Bench::new(setup());
    bench.select_step(A, THROUGH, false);
    let flush = bench.flush();
    bench.end_flush(flush, Ok(()));
    assert!(matches!(bench.unit.next_step(), Some(Step::Store(_))));
    let step = bench.unit.stored(false);
    let failed = Response::Check(Sense::internal_target_failure());
    assert_eq!(bench.conclude(step), Some(failed));
    assert!(bench.wce(A));
    assert_eq!(bench.durability(A), Durability::Later);
}

#[test]
fn who_loses_access_while_the_cache_is_flushed_changes_nothing() {
    let mut bench = Bench::reserved();
    bench.select_step(B, THROUGH, false);
    let flush = bench.flush();
    assert_eq!(
        bench.change(A, PREEMPT, [KEY_A, KEY_B]),
        Some(Response::Good),
        "the flush takes nothing from anybody"
    );
    bench.end_flush(flush, Ok(()));
    assert_eq!(bench.settle(), [CONFLICT]);
    assert!(bench.wce(A));
    assert_eq!(bench.durability(A), Durability::Later);
}

#[test]
fn an_aborted_mode_select_leaves_the_cache_as_it_is() {
    let mut bench = Bench::reserved();
    bench.select_step(B, THROUGH, false);
    let flush = bench.flush();
    assert_eq!(
        bench.change(A, PREEMPT_AND_ABORT, [KEY_A, KEY_B]),
        Some(Response::Good)
    );
    assert_eq!(bench.released(), Some(ABORTED));
    assert_eq!(bench.durability(A), Durability::Now, "the flush goes on");
    bench.end_flush(flush, Ok(()));
    assert!(bench.settle().is_empty());
    assert_eq!(bench.durability(A), Durability::Later);
    assert!(bench.wce(A));
}

#[test]
fn a_second_mode_select_is_busy_while_the_cache_is_flushed() {
    let mut bench = Bench::new(setup());
    bench.select_step(A, THROUGH, false);
    let flush = bench.flush();
    let busy = Response::Status(Status::Busy);
    assert_eq!(bench.select(B, PROTECTED, false), Some(busy));
    bench.end_flush(flush, Ok(()));
    assert_eq!(bench.settle(), [Response::Good]);
}

#[test]
fn a_mode_select_waits_for_the_change_that_is_being_stored() {
    let mut bench = Bench::reserved();
    let step = bench.reserve_out(A, PREEMPT, [KEY_A, KEY_B]);
    assert!(matches!(step, Step::Store(_)));
    let step = bench.select_step(B, PROTECTED, false);
    assert!(matches!(step, Step::Held), "{step:?}");
    let step = bench.unit.stored(true);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    assert_eq!(bench.settle(), [CONFLICT], "B has lost access by then");
}

#[test]
fn a_write_that_hangs_makes_mode_select_busy_and_leaves_wce() {
    let mut bench = Bench::new(setup());
    let hangs = bench.io(B, &WRITE, 512);
    bench.select_step(A, THROUGH, false);
    (0..FENCE_PATIENCE).for_each(|_| bench.unit.tick());
    assert_eq!(bench.settle(), [Response::Status(Status::Busy)]);
    assert!(bench.wce(A));
    assert_eq!(bench.durability(A), Durability::Later);
    assert_eq!(bench.end(hangs), Response::Good);
    assert!(bench.unit.is_idle());
}

#[test]
fn nobody_who_was_told_wce_0_has_writes_wait_in_the_cache() {
    let mut bench = Bench::through();
    assert!(!bench.wce(B));
    assert_eq!(bench.select(A, CACHED, false), Some(Response::Good));
    assert_eq!(
        bench.durability(A),
        Durability::Later,
        "it has asked for it"
    );
    assert_eq!(bench.answer(C, &TEST_UNIT_READY, 0), CHANGED);
    assert_eq!(bench.durability(C), Durability::Later, "it never asked");
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), CHANGED);
    assert_eq!(bench.durability(B), Durability::Now);
    let cut_short = [0x1a, 0x08, 0x08, 0, 4, 0];
    bench.answer(B, &cut_short, 4);
    assert_eq!(bench.durability(B), Durability::Now, "that was the header");
    assert!(bench.wce(B));
    assert_eq!(bench.durability(B), Durability::Later);
}

#[test]
fn after_a_restart_a_nexus_may_have_been_told_wce_0() {
    let mut bench = Bench::new(Setup {
        write_back: false,
        state: UnitState {
            selected: Some(CACHED),
            ..UnitState::default()
        },
        ..setup()
    });
    assert_eq!(bench.durability(A), Durability::Now);
    assert!(bench.wce(A));
    assert_eq!(bench.durability(A), Durability::Later);
}

#[test]
fn a_reset_brings_back_what_was_saved_and_tells_nobody_but_of_the_reset() {
    let mut bench = Bench::through();
    assert_eq!(bench.select(A, PROTECTED, SAVE), Some(Response::Good));
    assert!(matches!(bench.select_step(A, THROUGH, false), Step::Held));
    let flush = bench.flush();
    bench.end_flush(flush, Ok(()));
    assert_eq!(bench.settle(), [Response::Good]);
    bench.unit.reset(&[bench.nexuses[A]]);
    assert!(bench.settle().is_empty());
    assert_eq!(bench.unit.mode_values(), PROTECTED);
    assert_eq!(bench.answer(A, &TEST_UNIT_READY, 0), Response::Good);
}

#[test]
fn a_reset_that_switches_wce_off_flushes_and_then_tells() {
    let mut bench = Bench::through();
    bench.select(A, CACHED, false);
    bench.unit.reset(&[bench.nexuses[A]]);
    assert!(matches!(bench.unit.next_step(), Some(Step::Held)), "SPC-2");
    let Some(Step::Store(to_store)) = bench.unit.next_step() else {
        panic!("it is stored")
    };
    assert_eq!(to_store.state, Some(UnitState::default()));
    bench.unit.stored(true);
    let flush = bench.flush();
    assert!(bench.wce(A));
    assert_eq!(bench.durability(A), Durability::Now);
    bench.end_flush(flush, Ok(()));
    assert!(bench.settle().is_empty());
    assert_eq!(bench.answer(A, &TEST_UNIT_READY, 0), CHANGED);
    assert!(!bench.wce(A));
}

#[test]
fn the_administrators_word_goes_before_what_was_selected_and_saved() {
    let mut bench = Bench::through();
    bench.select(A, CACHED, SAVE);
    bench.unit.set_default_write_cache(false);
    assert!(bench.wce(A), "that is the default only");
    bench.unit.set_write_cache(false);
    let Some(Step::Store(to_store)) = bench.unit.next_step() else {
        panic!("it is stored")
    };
    let state = to_store.state.unwrap();
    assert_eq!(
        (state.selected, state.saved),
        (Some(THROUGH), Some(THROUGH))
    );
    bench.unit.stored(true);
    let flush = bench.flush();
    bench.end_flush(flush, Ok(()));
    assert!(bench.settle().is_empty());
    assert_eq!(bench.answer(C, &TEST_UNIT_READY, 0), CHANGED);
    assert!(!bench.wce(C));
}

#[test]
fn a_change_of_the_default_is_told() {
    let mut bench = Bench::new(setup());
    bench.unit.set_default_write_cache(true);
    assert!(bench.settle().is_empty());
    assert_eq!(
        bench.answer(A, &TEST_UNIT_READY, 0),
        Response::Good,
        "it was so before"
    );
    bench.unit.set_default_write_cache(false);
    let flush = bench.flush();
    bench.end_flush(flush, Ok(()));
    assert!(bench.settle().is_empty());
    for from in [A, B] {
        assert_eq!(bench.answer(from, &TEST_UNIT_READY, 0), CHANGED);
    }
}

#[test]
fn current_default_and_saved_values_can_differ() {
    let mut bench = Bench::new(setup());
    bench.select(A, PROTECTED, SAVE);
    bench.select(A, CACHED, false);
    let swp = |bench: &mut Bench, page: u8| {
        let answer = bench.answer(A, &[0x1a, 0x08, page, 0, 16, 0], 16);
        let Response::DataIn(bytes) = answer else {
            panic!("GOOD")
        };
        bytes[8] & 0x08 != 0
    };
    assert!(!swp(&mut bench, 0x0a), "current");
    assert!(!swp(&mut bench, 0x8a), "default");
    assert!(swp(&mut bench, 0xca), "saved");
}

#[test]
fn a_failed_flush_is_told_when_it_is_stored() {
    let mut bench = Bench::new(setup());
    let (request, pending) = bench.io(A, &SYNCHRONIZE_CACHE, 0);
    let other = bench.io(B, &WRITE_FUA, 512);
    let failed = || Err(Failure::Flush(io::Error::from_raw_os_error(libc::EIO)));
    let step = bench.unit.finish(pending, request.data, failed());
    assert!(matches!(step, Step::Held), "{step:?}");
    let Some(Step::Store(to_store)) = bench.unit.next_step() else {
        panic!("it is stored")
    };
    assert!(to_store.state.unwrap().flush_failed);
    let (request, pending) = other;
    let step = bench.unit.finish(pending, request.data, failed());
    assert!(matches!(step, Step::Held), "{step:?}");
    assert!(matches!(bench.unit.stored(true), Step::Held));
    let error = Response::Check(Sense::write_error());
    assert_eq!(bench.settle(), [error.clone(), error]);
}

#[test]
fn a_failed_flush_that_cannot_be_stored_is_told_all_the_same() {
    let mut bench = Bench::new(setup());
    let (request, pending) = bench.io(A, &SYNCHRONIZE_CACHE, 0);
    let failed = Err(Failure::Flush(io::Error::from_raw_os_error(libc::EIO)));
    bench.unit.finish(pending, request.data, failed);
    assert!(matches!(bench.unit.next_step(), Some(Step::Store(_))));
    assert!(matches!(bench.unit.stored(false), Step::Held));
    assert_eq!(bench.settle(), [Response::Check(Sense::write_error())]);
    assert!(bench.unit.has_flush_failed());
}

#[test]
fn a_flush_that_failed_before_a_restart_is_not_forgotten_until_somebody_says_so() {
    let mut bench = Bench::new(Setup {
        state: UnitState {
            flush_failed: true,
            ..UnitState::default()
        },
        ..setup()
    });
    let latched = Response::Check(Sense::internal_target_failure());
    for (cdb, length) in [(WRITE, 512), (SYNCHRONIZE_CACHE, 0), (READ_FUA, 512)] {
        assert_eq!(bench.answer(A, &cdb, length), latched);
    }
    bench.unit.alter(Alteration::ForgetFlushFailure, Ticket(7));
    let Some(Step::Store(to_store)) = bench.unit.next_step() else {
        panic!("it is stored")
    };
    assert!(!to_store.state.unwrap().flush_failed);
    assert_eq!(bench.answer(A, &WRITE, 512), latched, "not yet");
    let step = bench.unit.stored(true);
    assert!(
        matches!(step, Step::Administered(Ticket(7), Ok(()))),
        "{step:?}"
    );
    assert_eq!(bench.durability(A), Durability::Later);
}

#[test]
fn a_flush_that_fails_while_another_failure_is_forgotten_is_not() {
    let mut bench = Bench::new(setup());
    let first = bench.io(A, &SYNCHRONIZE_CACHE, 0);
    let second = bench.io(A, &SYNCHRONIZE_CACHE, 0);
    let failure = || Failure::Flush(io::Error::from_raw_os_error(libc::EIO));
    bench.fail(first, failure());
    bench.unit.alter(Alteration::ForgetFlushFailure, Ticket(7));
    assert!(matches!(bench.unit.next_step(), Some(Step::Store(_))));
    let (request, pending) = second;
    let step = bench.unit.finish(pending, request.data, Err(failure()));
    assert!(matches!(step, Step::Held), "{step:?}");
    assert!(matches!(bench.unit.stored(true), Step::Administered(..)));
    assert_eq!(bench.settle(), [Response::Check(Sense::write_error())]);
    let latched = Response::Check(Sense::internal_target_failure());
    assert_eq!(bench.answer(A, &WRITE, 512), latched);
}
