use crate::pr::testing::{KEY_A, KEY_B, KEY_C, Unit, a, b, c, told};
use crate::pr::{Change, Reservations, Save, Type, spc2};
use crate::scsi::sense::Sense;

#[test]
fn released_tells_every_registrant_if_registrants_had_access() {
    for kind in Type::ALL {
        let change = Unit::reserved(kind).state.released(None);
        let all = told([a(), b(), c()], Sense::reservations_released());
        assert_eq!(
            change.attentions,
            if kind.code() >= 5 { all } else { Vec::new() }
        );
        assert_eq!(change.next.reservation(), None);
        assert_eq!(change.next.registrants().len(), 3);
        assert_eq!(change.next.generation(), 3);
        assert_eq!(change.save, Save::Runtime);
    }
}

#[test]
fn released_without_a_reservation_changes_nothing() {
    let state = Unit::with_three().state;
    assert_eq!(state.released(None), Change::nothing(&state));
}

#[test]
fn cleared_removes_everything_and_tells_everybody() {
    let change = Unit::reserved(Type::ExclusiveAccess).state.cleared(None);
    assert_eq!(
        change.next,
        Reservations {
            generation: 4,
            ..Reservations::default()
        }
    );
    let all = told([a(), b(), c()], Sense::reservations_preempted());
    assert_eq!(change.attentions, all);
}

#[test]
fn cleared_ends_a_reserve_and_tells_its_holder() {
    let reserved = spc2::reserve(&Reservations::default(), &b()).expect("nothing is reserved");
    let change = reserved.next.cleared(None);
    assert_eq!(
        change.next,
        Reservations {
            generation: 1,
            ..Reservations::default()
        }
    );
    let holder = told([b()], Sense::reservations_preempted());
    assert_eq!(change.attentions, holder);
    assert_eq!(change.save, Save::Runtime);
}

#[test]
fn removed_key_of_the_holder_takes_the_reservation_with_it() {
    let change = Unit::reserved(Type::WriteExclusive).state.removed(KEY_A);
    assert_eq!(change.next.reservation(), None);
    assert_eq!(change.next.registrants().len(), 2);
    assert_eq!(change.next.generation(), 4);
    let mut expected = told([a()], Sense::registrations_preempted());
    expected.extend(told([b(), c()], Sense::reservations_released()));
    assert_eq!(change.attentions, expected);
}

#[test]
fn removed_key_of_another_leaves_the_reservation() {
    for kind in Type::ALL {
        let before = Unit::reserved(kind).state;
        let change = before.removed(KEY_B);
        assert_eq!(change.next.reservation(), before.reservation());
        assert_eq!(
            change.attentions,
            told([b()], Sense::registrations_preempted())
        );
        assert_eq!(change.next.check(), Ok(()));
    }
}

#[test]
fn removed_last_registrant_takes_the_reservation_of_all_with_it() {
    let mut state = Unit::reserved(Type::WriteExclusiveAllRegistrants).state;
    for key in [KEY_A, KEY_B, KEY_C] {
        assert!(state.reservation().is_some());
        state = state.removed(key).next;
    }
    assert_eq!(state.reservation(), None);
}

#[test]
fn removed_key_that_nobody_has_changes_nothing() {
    let state = Unit::with_three().state;
    assert_eq!(state.removed(0), Change::nothing(&state));
    assert_eq!(state.removed(0x9999), Change::nothing(&state));
}
