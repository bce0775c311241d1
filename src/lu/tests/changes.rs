//! Changes of the reservations that take their time: to be stored, or to become true.

use super::*;

const ABORTED: Response = Response::Status(Status::TaskAborted);
const READ_KEYS: [u8; 10] = [0x5e, 0, 0, 0, 0, 0, 0, 0, 24, 0];

impl Bench {
    /// A PERSISTENT RESERVE OUT whose change is being stored when this returns.
    fn storing(&mut self, from: usize, action: u8, keys: [u64; 2]) -> ToStore {
        match self.reserve_out(from, action, keys) {
            Step::Store(to_store) => to_store,
            other => panic!("{other:?} where something was to be stored"),
        }
    }

    fn end_store(&mut self, stored: bool) -> Option<Response> {
        let step = self.unit.stored(stored);
        self.conclude(step)
    }

    fn keys(&self) -> Vec<u64> {
        let registrants = self.unit.reservations().registrants();
        registrants
            .iter()
            .map(|registrant| registrant.key)
            .collect()
    }

    fn wait(&mut self, ticks: u32) {
        (0..ticks).for_each(|_| self.unit.tick());
    }
}

#[test]
fn a_change_is_in_force_when_it_is_stored_and_not_before() {
    let mut bench = Bench::reserved();
    let to_store = bench.storing(A, PREEMPT, [KEY_A, KEY_B]);
    assert_eq!(to_store.next.registrants().len(), 1);
    assert_eq!(to_store.save, Save::Runtime);
    assert_eq!(bench.keys(), [KEY_A, KEY_B]);
    let write = bench.io(B, &WRITE, 512);
    assert_eq!(
        bench.end(write),
        Response::Good,
        "B has not lost access yet"
    );
    assert_eq!(bench.end_store(true), Some(Response::Good));
    assert_eq!(bench.answer(B, &WRITE, 512), CONFLICT);
}

#[test]
fn a_write_that_begins_while_the_change_is_stored_is_waited_for() {
    let mut bench = Bench::reserved();
    bench.storing(A, PREEMPT, [KEY_A, KEY_B]);
    let write = bench.io(B, &WRITE, 512);
    assert_eq!(bench.end_store(true), None);
    assert_eq!(bench.end(write), Response::Good);
    assert_eq!(bench.released(), Some(Response::Good));
}

#[test]
fn a_change_that_comes_while_another_is_stored_is_decided_on_what_that_leaves() {
    let mut bench = Bench::reserved();
    bench.storing(A, PREEMPT, [KEY_A, KEY_B]);
    // Before the PREEMPT it would be GOOD.
    assert!(matches!(
        bench.reserve_out(B, REGISTER, [KEY_B, 0xbb]),
        Step::Held
    ));
    assert!(matches!(bench.reserve_6(C), Step::Held));
    assert!(bench.unit.next_step().is_none(), "it is not its turn");
    assert_eq!(bench.end_store(true), Some(Response::Good));
    let outcomes = bench.settle();
    assert_eq!(outcomes, [CONFLICT, CONFLICT]);
    assert_eq!(bench.keys(), [KEY_A]);
}

#[test]
fn after_a_change_that_could_not_be_stored_the_next_is_decided_on_what_was_before() {
    let mut bench = Bench::reserved();
    bench.storing(A, PREEMPT, [KEY_A, KEY_B]);
    bench.reserve_out(B, REGISTER, [KEY_B, 0xbb]);
    let failure = Response::Check(Sense::internal_target_failure());
    assert_eq!(bench.end_store(false), Some(failure));
    assert_eq!(bench.settle(), [Response::Good]);
    assert_eq!(bench.keys(), [KEY_A, 0xbb]);
}

#[test]
fn reads_of_the_reservations_do_not_wait_for_a_slow_record() {
    let mut bench = Bench::reserved();
    bench.storing(A, PREEMPT, [KEY_A, KEY_B]);
    let Response::DataIn(keys) = bench.answer(C, &READ_KEYS, 24) else {
        panic!("READ KEYS")
    };
    assert_eq!(
        keys[..8],
        [0, 0, 0, 2, 0, 0, 0, 16],
        "nothing has changed yet"
    );
    bench.end_store(true);
}

#[test]
fn preempt_and_abort_also_aborts_what_waits() {
    let mut bench = Bench::reserved();
    // B's own RESERVE waits for a write of C's.
    bench.change(A, 2, [KEY_A, 0]);
    bench.answer(B, &TEST_UNIT_READY, 0);
    let write = bench.io(C, &WRITE, 512);
    assert_eq!(bench.change(B, RESERVE, [KEY_B, 0]), None);
    // Another of B's waits while the change is stored.
    bench.storing(A, PREEMPT_AND_ABORT, [KEY_A, KEY_B]);
    bench.reserve_out(B, REGISTER, [KEY_B, 0xbb]);
    assert_eq!(bench.end_store(true), None);
    assert_eq!(bench.settle(), [ABORTED, ABORTED]);
    assert_eq!(bench.end(write), Response::Good);
    assert_eq!(
        bench.settle(),
        [Response::Good],
        "the PREEMPT AND ABORT itself"
    );
    assert_eq!(bench.keys(), [KEY_A]);
}

#[test]
fn preempt_and_abort_aborts_who_does_not_hold_the_reservation_and_spares_the_issuer() {
    let mut bench = Bench::held(1);
    let read = bench.io(B, &READ, 512);
    let own = [bench.io(A, &WRITE, 512), bench.io(A, &READ, 512)];
    assert_eq!(bench.change(A, PREEMPT_AND_ABORT, [KEY_A, KEY_B]), None);
    assert_eq!(bench.end(read), ABORTED);
    assert_eq!(bench.released(), Some(Response::Good));
    let own = own.map(|command| bench.end(command));
    assert_eq!(own, [Response::Good, Response::InPlace(512)]);
    assert_eq!(bench.keys(), [KEY_A]);
    let preempted = Response::Check(Sense::registrations_preempted());
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), preempted);
}

#[test]
fn preempt_and_abort_of_the_issuers_own_key_aborts_its_other_commands() {
    let mut bench = Bench::held(1);
    let own = bench.io(A, &WRITE, 512);
    let other = bench.io(B, &READ, 512);
    assert_eq!(bench.change(A, PREEMPT_AND_ABORT, [KEY_A, KEY_A]), None);
    assert_eq!(bench.end(own), ABORTED);
    assert_eq!(bench.released(), Some(Response::Good), "not itself");
    assert_eq!(bench.end(other), Response::InPlace(512));
    assert_eq!(bench.keys(), [KEY_A, KEY_B]);
}

#[test]
fn preempt_and_abort_that_is_refused_aborts_nothing() {
    for (keys, refused) in [
        ([KEY_A, 0xdead], CONFLICT),
        ([KEY_B, KEY_B], CONFLICT),
        (
            [KEY_A, 0],
            Response::Check(Sense::invalid_field_in_parameter_list(Field::parameter(8))),
        ),
    ] {
        let mut bench = Bench::held(1);
        let read = bench.io(B, &READ, 512);
        assert_eq!(bench.change(A, PREEMPT_AND_ABORT, keys), Some(refused));
        assert_eq!(bench.end(read), Response::InPlace(512));
    }
}

#[test]
fn a_reset_aborts_the_commands_of_every_nexus() {
    let mut bench = Bench::reserved();
    let write = bench.io(A, &WRITE, 512);
    let read = bench.io(C, &READ, 512);
    assert_eq!(
        bench.change(A, PREEMPT, [KEY_A, KEY_B]),
        Some(Response::Good)
    );
    bench.storing(A, REGISTER, [KEY_A, 0xaa]);
    bench.reserve_out(A, REGISTER, [0xaa, 0xab]);
    bench.unit.reset(&[]);
    assert_eq!(bench.settle(), [ABORTED]);
    assert_eq!(bench.end_store(true), Some(ABORTED));
    assert_eq!(bench.keys(), [0xaa], "what was stored stands");
    assert_eq!(bench.end(write), ABORTED);
    assert_eq!(bench.end(read), ABORTED);
    assert!(bench.settle().is_empty());
}

#[test]
fn a_fence_behind_a_hung_write_is_given_up_and_never_good() {
    let mut bench = Bench::reserved();
    let hung = bench.io(B, &WRITE, 512);
    assert_eq!(bench.change(A, PREEMPT, [KEY_A, KEY_B]), None);
    assert!(matches!(bench.step(C, &READ_KEYS, 24), Step::Held));
    bench.wait(FENCE_PATIENCE - 1);
    let expected = Waiting {
        replies: 2,
        ticks: FENCE_PATIENCE - 1,
    };
    assert_eq!(bench.unit.waiting(), expected);
    assert_eq!(bench.released(), None);
    bench.wait(1);
    assert_eq!(bench.released(), Some(ABORTED), "something has changed");
    let busy = Response::Status(Status::Busy);
    assert_eq!(bench.released(), Some(busy), "nothing has changed");
    assert_eq!(bench.released(), None);
    // The victim stays shut out, and those who ask again wait again.
    assert_eq!(bench.answer(B, &WRITE, 512), CONFLICT);
    assert!(matches!(bench.step(C, &READ_KEYS, 24), Step::Held));
    assert_eq!(bench.end(hung), Response::Good);
    assert!(matches!(bench.released(), Some(Response::DataIn(_))));
}

#[test]
fn the_loss_of_a_nexus_ends_its_reserve_also_if_that_cannot_be_stored() {
    for stored in [true, false] {
        let mut bench = Bench::new(setup());
        let step = bench.reserve_6(A);
        assert_eq!(bench.conclude(step), Some(Response::Good));
        bench.unit.nexus_lost(nexus(B));
        assert!(bench.settle().is_empty());
        assert_eq!(bench.answer(B, &READ, 512), CONFLICT);
        bench.unit.nexus_lost(nexus(A));
        assert!(matches!(bench.unit.next_step(), Some(Step::Store(_))));
        assert_eq!(bench.end_store(stored), None);
        let read = bench.io(B, &READ, 512);
        bench.end(read);
    }
}

#[test]
fn the_loss_of_a_nexus_waits_for_the_reserve_that_is_being_stored() {
    let mut bench = Bench::new(setup());
    assert!(matches!(bench.reserve_6(A), Step::Store(_)));
    bench.unit.nexus_lost(nexus(A));
    assert_eq!(bench.end_store(true), Some(Response::Good));
    assert_eq!(bench.answer(B, &READ, 512), CONFLICT);
    bench.settle();
    let read = bench.io(B, &READ, 512);
    bench.end(read);
}

#[test]
fn what_a_nexus_has_sent_and_nobody_has_begun_goes_with_it() {
    let mut bench = Bench::reserved();
    bench.storing(A, PREEMPT, [KEY_A, KEY_B]);
    bench.reserve_out(C, REGISTER, [0, 0xc]);
    bench.unit.detach(bench.nexuses[C]);
    assert_eq!(bench.settle(), [ABORTED]);
    assert_eq!(bench.end_store(true), Some(Response::Good));
    assert_eq!(bench.keys(), [KEY_A]);
}

#[test]
fn a_session_of_the_target_itself_is_let_in_like_one_that_is_not_registered() {
    let mut bench = Bench::reserved();
    bench.nexuses[C] = bench.unit.attach(None, Mapping::ReadWrite);
    assert_eq!(bench.answer(C, &WRITE, 512), CONFLICT);
    let read_capacity = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(matches!(
        bench.answer(C, &read_capacity, 8),
        Response::DataIn(_)
    ));
    let failure = Response::Check(Sense::internal_target_failure());
    assert_eq!(bench.change(C, REGISTER, [0, 0xc]), Some(failure.clone()));
    let step = bench.reserve_6(C);
    assert_eq!(bench.conclude(step), Some(failure));
    assert_eq!(bench.keys(), [KEY_A, KEY_B]);
}

#[test]
fn the_administrator_clears() {
    let mut bench = Bench::reserved();
    assert_eq!(bench.administer(Action::Clear), Some(Ok(())));
    assert!(bench.keys().is_empty());
    let cleared = Response::Check(Sense::reservations_preempted());
    for from in [A, B] {
        assert_eq!(bench.answer(from, &TEST_UNIT_READY, 0), cleared);
    }
    assert_eq!(bench.answer(C, &TEST_UNIT_READY, 0), Response::Good);
}

#[test]
fn the_administrator_preempts_and_waits_for_the_losers_writes() {
    let mut bench = Bench::reserved();
    assert_eq!(
        bench.administer(Action::Preempt { key: 0xdead }),
        Some(Err(Unfulfilled::NoSuchKey(0xdead)))
    );
    let write = bench.io(B, &WRITE, 512);
    assert_eq!(bench.administer(Action::Preempt { key: KEY_B }), None);
    assert_eq!(bench.keys(), [KEY_A]);
    bench.wait(FENCE_PATIENCE);
    assert!(matches!(
        bench.unit.next_step(),
        Some(Step::Administered(
            Ticket(7),
            Err(Unfulfilled::StillInFlight)
        ))
    ));
    assert_eq!(bench.end(write), Response::Good);
    assert!(bench.unit.next_step().is_none());
}

#[test]
fn the_administrator_is_told_that_nothing_was_stored() {
    let mut bench = Bench::reserved();
    bench.unit.administer(Action::Clear, Ticket(1));
    assert!(matches!(bench.unit.next_step(), Some(Step::Store(_))));
    assert!(matches!(
        bench.unit.stored(false),
        Step::Administered(Ticket(1), Err(Unfulfilled::NotStored))
    ));
    assert_eq!(bench.keys(), [KEY_A, KEY_B]);
}

#[test]
fn the_administrator_goes_on_without_a_record_that_cannot_be_read() {
    let mut bench = Bench::new(Setup {
        reservations: Err(Unknown),
        ..setup()
    });
    assert_eq!(
        bench.administer(Action::Preempt { key: KEY_A }),
        Some(Err(Unfulfilled::Unreadable))
    );
    bench.unit.administer(Action::Clear, Ticket(1));
    let Some(Step::Store(to_store)) = bench.unit.next_step() else {
        panic!("an empty record")
    };
    assert!(to_store.set_aside);
    assert_eq!(to_store.save, Save::Durable);
    assert_eq!(to_store.next, Reservations::default());
    assert!(bench.unit.is_fenced(), "until that is stored");
    assert!(matches!(
        bench.unit.stored(true),
        Step::Administered(Ticket(1), Ok(()))
    ));
    let cleared = Response::Check(Sense::reservations_preempted());
    assert_eq!(bench.answer(A, &TEST_UNIT_READY, 0), cleared);
    let write = bench.io(A, &WRITE, 512);
    assert_eq!(bench.end(write), Response::Good);
}

#[test]
fn a_record_that_cannot_be_set_aside_keeps_everybody_out() {
    let mut bench = Bench::new(Setup {
        reservations: Err(Unknown),
        ..setup()
    });
    bench.unit.administer(Action::Clear, Ticket(1));
    bench.unit.next_step();
    assert!(matches!(
        bench.unit.stored(false),
        Step::Administered(Ticket(1), Err(Unfulfilled::NotStored))
    ));
    let manual = Response::Check(Sense::manual_intervention_required());
    assert_eq!(bench.answer(A, &WRITE, 512), manual);
}

#[test]
fn what_is_stored_for_the_next_daemon_holds_the_unit_attentions_that_are_pending() {
    let mut bench = Bench::reserved();
    let to_store = bench.storing(A, PREEMPT, [KEY_A, KEY_B]);
    let told = (Arc::new(nexus(B)), Sense::registrations_preempted());
    assert_eq!(to_store.attentions, std::slice::from_ref(&told));
    bench.end_store(true);
    let last_words = bench.unit.last_words().expect("it is known");
    assert_eq!(last_words.attentions, [told]);
    assert_eq!(last_words.next, *bench.unit.reservations());
    let next = Bench::new(Setup {
        reservations: Ok(last_words.next),
        attentions: last_words.attentions,
        ..setup()
    });
    for mut bench in [bench, next] {
        assert_eq!(bench.answer(B, &WRITE, 512), CONFLICT);
        let preempted = Response::Check(Sense::registrations_preempted());
        assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), preempted);
        assert!(
            bench
                .unit
                .last_words()
                .expect("it is known")
                .attentions
                .is_empty()
        );
    }
}

#[test]
fn a_unit_whose_reservations_are_not_known_leaves_no_word_of_them() {
    let bench = Bench::new(Setup {
        reservations: Err(Unknown),
        ..setup()
    });
    assert!(bench.unit.last_words().is_none());
}
