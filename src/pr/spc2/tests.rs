use super::super::testing::{KEY_A, KEY_B, Unit, a, a2, b, c, nexus, preempt, register, release};
use super::super::{Change, Refusal, Reservations, Save, Type};
use super::{release as release_spc2, reserve as reserve_spc2};
use crate::pr::testing;

/// A unit that A has reserved.
fn reserved() -> Reservations {
    reserve_spc2(&Reservations::default(), &a())
        .expect("GOOD")
        .next
}

#[track_caller]
fn assert_nothing(state: &Reservations, answer: Result<Change, Refusal>) {
    let change = answer.expect("GOOD");
    assert_eq!(change, Change::nothing(state));
    assert_eq!(change.save, Save::Nothing);
}

#[test]
fn reserve_of_a_free_unit_reserves_it() {
    let change = reserve_spc2(&Reservations::default(), &a()).expect("GOOD");
    assert_eq!(change.next.spc2(), Some(&a()));
    assert_eq!(change.next.generation(), 0);
    assert_eq!(change.save, Save::Runtime);
    assert_eq!(change.attentions, []);
    assert_eq!(change.next.check(), Ok(()));
    assert!(
        !change
            .next
            .allowed(Some(&b()))
            .contains(crate::scsi::Access::Read)
    );
}

#[test]
fn release_of_a_free_unit_does_nothing() {
    let state = Reservations::default();
    assert_nothing(&state, release_spc2(&state, &a()));
}

#[test]
fn reserve_by_the_holder_does_nothing() {
    assert_nothing(&reserved(), reserve_spc2(&reserved(), &a()));
}

#[test]
fn release_by_the_holder_releases() {
    let change = release_spc2(&reserved(), &a()).expect("GOOD");
    assert_eq!(change.next, Reservations::default());
    assert_eq!((change.save, change.attentions.len()), (Save::Runtime, 0));
}

#[test]
fn reserve_by_another_conflicts() {
    for other in [b(), a2()] {
        assert_eq!(reserve_spc2(&reserved(), &other), Err(Refusal::Conflict));
    }
}

#[test]
fn release_by_another_does_nothing() {
    assert_nothing(&reserved(), release_spc2(&reserved(), &b()));
}

#[test]
fn reserve_and_release_by_who_has_access_to_a_persistent_reservation_do_nothing() {
    for kind in Type::ALL {
        let state = Unit::reserved(kind).state;
        assert_nothing(&state, reserve_spc2(&state, &a()));
        assert_nothing(&state, release_spc2(&state, &a()));
    }
    for kind in Type::ALL
        .into_iter()
        .filter(|kind| kind.admits_registrants())
    {
        let state = Unit::reserved(kind).state;
        assert_nothing(&state, reserve_spc2(&state, &b()));
        assert_nothing(&state, release_spc2(&state, &b()));
    }
}

#[test]
fn reserve_and_release_by_others_conflict_with_a_persistent_reservation() {
    for kind in [Type::WriteExclusive, Type::ExclusiveAccess] {
        let state = Unit::reserved(kind).state;
        assert_eq!(reserve_spc2(&state, &b()), Err(Refusal::Conflict));
        assert_eq!(release_spc2(&state, &b()), Err(Refusal::Conflict));
    }
    for kind in Type::ALL {
        let state = Unit::reserved(kind).state;
        assert_eq!(reserve_spc2(&state, &nexus("d", 1)), Err(Refusal::Conflict));
        assert_eq!(release_spc2(&state, &nexus("d", 1)), Err(Refusal::Conflict));
    }
}

#[test]
fn reserve_and_release_conflict_with_registrations_alone() {
    let state = Unit::with_three().state;
    for nexus in [a(), nexus("d", 1)] {
        assert_eq!(reserve_spc2(&state, &nexus), Err(Refusal::Conflict));
        assert_eq!(release_spc2(&state, &nexus), Err(Refusal::Conflict));
    }
}

#[test]
fn persistent_reserve_out_conflicts_with_a_reserve_whoever_asks_and_whatever_else_is_wrong() {
    let mut unit = Unit {
        state: reserved(),
        ..Unit::new()
    };
    for nexus in [a(), b()] {
        unit.conflict(&nexus, &register(0, KEY_A));
        unit.conflict(&nexus, &testing::register_and_ignore(KEY_A));
        unit.conflict(&nexus, &release(KEY_A, Type::WriteExclusive));
        unit.conflict(&nexus, &preempt(KEY_A, KEY_B, Type::WriteExclusive));
        unit.conflict(&nexus, &testing::Out::new(0x08, 0, 0));
        unit.conflict(&nexus, &register(0, KEY_A).length(3));
    }
    assert_eq!(unit.state, reserved());
}

#[test]
fn reset_releases_a_reserve_and_nothing_else() {
    let change = reserved().released_by_reset().expect("a change");
    assert_eq!((change.next.spc2(), change.save), (None, Save::Runtime));
    assert_eq!(Reservations::default().released_by_reset(), None);
    assert_eq!(
        Unit::reserved(Type::WriteExclusive)
            .state
            .released_by_reset(),
        None
    );
}

#[test]
fn loss_of_the_nexus_that_holds_a_reserve_releases_it() {
    let change = reserved().released_by_nexus_loss(&a()).expect("a change");
    assert_eq!(change.next.spc2(), None);
    for other in [a2(), b(), c()] {
        assert_eq!(reserved().released_by_nexus_loss(&other), None);
    }
    let state = Unit::reserved(Type::WriteExclusive).state;
    assert_eq!(state.released_by_nexus_loss(&a()), None);
}
