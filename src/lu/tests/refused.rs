//! Which refused commands are told to those who take note of them, and what is told of changes.

use super::*;
use crate::lu::{Attempt, RefusedCommands};
use crate::pr::event::Act;

impl Bench {
    fn refused(&mut self) -> Vec<RefusedCommands> {
        let mut refused: Vec<_> = std::iter::from_fn(|| self.unit.refused()).collect();
        refused.sort_by_key(|one| (one.nexus.clone(), one.attempt.is_some()));
        refused
    }

    /// What is to be stored is said to come of this act, by this one.
    fn act_of(&self, step: &Step) -> (Act, Option<ItNexus>) {
        let Step::Store(to_store) = step else {
            panic!("{step:?} where something was to be stored")
        };
        let cause = to_store.cause.as_ref().unwrap();
        assert_eq!(cause.before, *self.unit.reservations());
        (cause.act, cause.by.as_deref().cloned())
    }
}

#[test]
fn refused_commands_are_told_once_for_each_nexus_and_kind() {
    let mut bench = Bench::held(1);
    for from in [B, C, B] {
        assert_eq!(bench.answer(from, &WRITE, 512), CONFLICT);
    }
    assert_eq!(bench.answer(B, &SYNCHRONIZE_CACHE, 0), CONFLICT);
    assert_eq!(bench.change(C, 0x04, [0xdead, 0xa1]), Some(CONFLICT));
    let told = |from, attempt, count| RefusedCommands {
        nexus: Arc::new(nexus(from)),
        operation: if attempt {
            "PERSISTENT RESERVE OUT, PREEMPT"
        } else {
            "WRITE(10)"
        },
        attempt: attempt.then_some(Attempt {
            act: Some(Act::Preempt),
            key: 0xdead,
        }),
        count,
    };
    let expected = [told(B, false, 3), told(C, false, 1), told(C, true, 1)];
    assert_eq!(bench.refused(), expected);
    assert_eq!(bench.refused(), []);
    assert_eq!(bench.unit.counters().conflicts, 5);
}

#[test]
fn a_change_tells_who_makes_it_by_what() {
    let mut bench = Bench::new(setup());
    let step = bench.reserve_out(A, 0x06, [0, 0xa1]);
    let act = Act::RegisterAndIgnoreExistingKey;
    assert_eq!(bench.act_of(&step), (act, Some(nexus(A))));
    bench.conclude(step);
    bench.unit.administer(Action::Clear, Ticket(1));
    let step = bench.unit.next_step().unwrap();
    assert_eq!(bench.act_of(&step), (Act::AdministratorClear, None));
    bench.unit.stored(true);
    // B has nothing to be told first.
    let step = bench.reserve_6(B);
    let by_b = Some(nexus(B));
    assert_eq!(bench.act_of(&step), (Act::Spc2Reserve, by_b.clone()));
    bench.conclude(step);
    bench.unit.nexus_lost(nexus(B));
    let step = bench.unit.next_step().unwrap();
    assert_eq!(bench.act_of(&step), (Act::NexusLoss, by_b));
    bench.conclude(step);
}
