//! RESERVE of SPC-2 whose holder's session may be gone.

use super::*;

const ABORTED: Response = Response::Status(Status::TaskAborted);
const RELEASE_6: [u8; 6] = [0x17, 0, 0, 0, 0, 0];

impl Bench {
    /// A has reserved the unit, and somebody looks for sessions.
    fn reserved_6() -> Bench {
        let mut bench = Bench::new(setup());
        bench.unit.expect_looks();
        assert_eq!(bench.grant(A), Some(Response::Good));
        assert_eq!(bench.unit.reserve(), Some((&nexus(A), 1)));
        bench
    }

    fn grant(&mut self, from: usize) -> Option<Response> {
        let step = self.reserve_6(from);
        self.conclude(step)
    }

    fn looked(&mut self) -> Vec<Response> {
        self.unit.looked();
        self.settle()
    }
}

#[test]
fn a_reserve_that_conflicts_waits_for_a_look_and_goes_on_if_the_session_is_gone() {
    let mut bench = Bench::reserved_6();
    assert!(matches!(bench.reserve_6(B), Step::Held));
    assert!(bench.unit.is_in_doubt());
    assert!(bench.unit.next_step().is_none());
    bench.unit.session_lost(&nexus(A), 1);
    assert_eq!(bench.looked(), [Response::Good]);
    assert!(!bench.unit.is_in_doubt());
    assert_eq!(bench.unit.reserve(), Some((&nexus(B), 2)));
    assert_eq!(bench.answer(A, &READ, 512), CONFLICT);
}

#[test]
fn a_reserve_conflicts_after_a_look_that_has_found_the_session() {
    let mut bench = Bench::reserved_6();
    bench.reserve_6(B);
    assert_eq!(bench.looked(), [CONFLICT]);
    assert_eq!(bench.unit.counters().conflicts, 1);
    assert_eq!(bench.unit.reserve(), Some((&nexus(A), 1)));
}

#[test]
fn nobody_else_waits_for_a_look() {
    let mut bench = Bench::reserved_6();
    bench.reserve_6(B);
    assert_eq!(bench.answer(B, &READ, 512), CONFLICT);
    assert_eq!(bench.answer(C, &RELEASE_6, 0), Response::Good);
    assert_eq!(
        bench.grant(A),
        Some(Response::Good),
        "the holder's own is good"
    );
    bench.looked();
}

#[test]
fn without_anybody_who_looks_a_conflict_is_told_at_once() {
    let mut bench = Bench::new(setup());
    bench.grant(A);
    assert_eq!(bench.grant(B), Some(CONFLICT));
}

#[test]
fn a_conflict_with_registrations_is_told_at_once() {
    let mut bench = Bench::reserved();
    bench.unit.expect_looks();
    assert_eq!(bench.grant(C), Some(CONFLICT));
}

#[test]
fn a_look_that_does_not_come_is_given_up() {
    let mut bench = Bench::reserved_6();
    bench.reserve_6(B);
    assert!(bench.unit.needs_ticks());
    for _ in 0..3 {
        bench.unit.tick();
        assert!(bench.unit.next_step().is_none());
    }
    bench.unit.tick();
    assert_eq!(bench.settle(), [CONFLICT]);
    assert!(!bench.unit.needs_ticks());
    // The next waits as long.
    bench.reserve_6(B);
    for _ in 0..3 {
        bench.unit.tick();
        assert!(bench.unit.next_step().is_none());
    }
    bench.looked();
}

#[test]
fn what_is_told_of_an_earlier_session_does_not_end_what_a_later_one_was_promised() {
    let mut bench = Bench::reserved_6();
    assert_eq!(bench.grant(A), Some(Response::Good), "by the next session");
    bench.unit.session_lost(&nexus(A), 1);
    assert!(bench.settle().is_empty());
    assert_eq!(bench.unit.reserve(), Some((&nexus(A), 2)));
    bench.unit.session_lost(&nexus(A), 2);
    bench.settle();
    assert_eq!(bench.unit.reserve(), None);
}

#[test]
fn a_reserve_that_has_come_before_the_news_of_the_earlier_session_stays() {
    let mut bench = Bench::reserved_6();
    assert!(matches!(bench.step(A, &RELEASE_6, 0), Step::Store(_)));
    assert!(
        matches!(bench.reserve_6(A), Step::Held),
        "by the next session"
    );
    bench.unit.session_lost(&nexus(A), 1);
    let step = bench.unit.stored(true);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    assert_eq!(bench.settle(), [Response::Good]);
    assert_eq!(bench.unit.reserve(), Some((&nexus(A), 2)));
}

#[test]
fn persistent_reservations_and_unit_attentions_outlive_the_session() {
    let mut bench = Bench::reserved();
    bench.change(A, PREEMPT, [KEY_A, KEY_B]);
    bench.unit.session_lost(&nexus(A), 0);
    bench.unit.session_lost(&nexus(B), 0);
    assert!(bench.settle().is_empty());
    assert_eq!(bench.unit.reservations().registrants().len(), 1);
    assert_eq!(bench.answer(B, &WRITE, 512), CONFLICT);
    let told = Response::Check(Sense::registrations_preempted());
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), told);
}

#[test]
fn who_waits_for_a_look_is_aborted_by_a_reset_and_by_its_own_going() {
    let mut bench = Bench::reserved_6();
    bench.reserve_6(B);
    assert!(!bench.unit.is_idle());
    bench.unit.detach(bench.nexuses[B]);
    assert_eq!(bench.settle(), [ABORTED]);
    bench.reserve_6(C);
    bench.unit.reset(&[]);
    assert_eq!(bench.settle(), [ABORTED]);
    assert!(bench.unit.is_idle());
    assert_eq!(bench.unit.reserve(), None);
}
