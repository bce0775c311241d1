//! PREEMPT and PREEMPT AND ABORT.

use std::sync::Arc;

use crate::pr::testing::{
    KEY_A, KEY_B, KEY_C, Unit, a, a2, b, bad_byte, bad_cdb, c, nexus, preempt, preempt_and_abort,
    register, reserve, told,
};
use crate::pr::{Change, Type};
use crate::scsi::nexus::ItNexus;
use crate::scsi::sense::Sense;

fn preempted() -> Sense {
    Sense::registrations_preempted()
}

fn released() -> Sense {
    Sense::reservations_released()
}

fn is_single(kind: &Type) -> bool {
    !kind.is_all_registrants()
}

fn aborted(change: &Change) -> Vec<ItNexus> {
    change
        .abort
        .iter()
        .map(|nexus| ItNexus::clone(nexus))
        .collect()
}

/// Host A at both target ports and host B, and a reservation that A holds through port 1.
fn two_paths(kind: Type) -> Unit {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A));
    unit.good(&a2(), &register(0, KEY_A));
    unit.good(&b(), &register(0, KEY_B));
    unit.good(&a(), &reserve(KEY_A, kind));
    unit
}

#[test]
fn key_that_nobody_has_conflicts() {
    let mut units = vec![Unit::with_three()];
    units.extend(Type::ALL.map(Unit::reserved));
    for mut unit in units {
        unit.conflict(&b(), &preempt(KEY_B, 0x9999, Type::WriteExclusive));
        unit.conflict(
            &b(),
            &preempt_and_abort(KEY_B, 0x9999, Type::WriteExclusive),
        );
    }
}

#[test]
fn key_zero_without_a_reservation_conflicts() {
    Unit::with_three().conflict(&a(), &preempt(KEY_A, 0, Type::WriteExclusive));
}

#[test]
fn key_zero_is_refused_if_one_nexus_holds_the_reservation() {
    for kind in Type::ALL.into_iter().filter(is_single) {
        let mut unit = Unit::reserved(kind);
        unit.check(&b(), &preempt(KEY_B, 0, kind), bad_byte(8));
        unit.check(
            &a(),
            &preempt_and_abort(KEY_A, 0, kind).scope_type(0xff),
            bad_byte(8),
        );
    }
}

#[test]
fn preempting_the_holder_takes_the_reservation_over() {
    for held in Type::ALL.into_iter().filter(is_single) {
        for kind in Type::ALL {
            let mut unit = Unit::reserved(held);
            let change = unit.good(&b(), &preempt(KEY_B, KEY_A, kind));
            assert_eq!(unit.registered(), [(b(), KEY_B), (c(), KEY_C)]);
            let holder = if is_single(&kind) { Some(b()) } else { None };
            assert_eq!(unit.reservation(), Some((kind, holder)));
            let mut expected = told([a()], preempted());
            if kind != held {
                expected.extend(told([c()], released()));
            }
            assert_eq!(change.attentions, expected);
            assert_eq!(change.abort, []);
            assert_eq!(unit.state.generation(), 4);
        }
    }
}

#[test]
fn preempting_the_holder_removes_all_with_its_key_but_the_issuer() {
    // A2 is another path of the host that holds the reservation; it fails over.
    let mut unit = two_paths(Type::WriteExclusive);
    let change = unit.good(&a2(), &preempt(KEY_A, KEY_A, Type::WriteExclusive));
    assert_eq!(unit.registered(), [(a2(), KEY_A), (b(), KEY_B)]);
    assert_eq!(unit.reservation(), Some((Type::WriteExclusive, Some(a2()))));
    assert_eq!(change.attentions, told([a()], preempted()));

    let mut unit = two_paths(Type::WriteExclusive);
    let change = unit.good(&b(), &preempt(KEY_B, KEY_A, Type::WriteExclusive));
    assert_eq!(unit.registered(), [(b(), KEY_B)]);
    assert_eq!(change.attentions, told([a(), a2()], preempted()));
    assert_eq!(unit.state.generation(), 4);
}

#[test]
fn holder_changes_the_type_by_preempting_itself() {
    let mut unit = two_paths(Type::WriteExclusive);
    let change = unit.good(
        &a(),
        &preempt(KEY_A, KEY_A, Type::ExclusiveAccessRegistrantsOnly),
    );
    assert_eq!(unit.registered(), [(a(), KEY_A), (b(), KEY_B)]);
    let held = Some((Type::ExclusiveAccessRegistrantsOnly, Some(a())));
    assert_eq!(unit.reservation(), held);
    let mut expected = told([a2()], preempted());
    expected.extend(told([b()], released()));
    assert_eq!(change.attentions, expected);
}

#[test]
fn holder_that_preempts_itself_without_a_change_only_counts() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let before = unit.state.clone();
    let change = unit.good(&a(), &preempt(KEY_A, KEY_A, Type::WriteExclusive));
    assert_eq!(change.attentions, []);
    assert_eq!(unit.state, before.counted());
}

#[test]
fn scope_and_type_matter_when_the_reservation_is_preempted() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    unit.check(
        &b(),
        &preempt(KEY_B, KEY_A, Type::WriteExclusive).scope_type(0x00),
        bad_cdb(2, 3),
    );
    unit.check(
        &b(),
        &preempt(KEY_B, KEY_A, Type::WriteExclusive).scope_type(0x11),
        bad_cdb(2, 7),
    );
    let mut unit = Unit::reserved(Type::WriteExclusiveAllRegistrants);
    unit.check(
        &b(),
        &preempt(KEY_B, 0, Type::WriteExclusive).scope_type(0x02),
        bad_cdb(2, 3),
    );
}

#[test]
fn preempting_another_key_removes_registrations_and_leaves_the_reservation() {
    for held in Type::ALL {
        for scope_type in [0x01, 0x05, 0x00, 0xff] {
            let mut unit = Unit::reserved(held);
            let before = unit.reservation();
            let out = preempt(KEY_B, KEY_C, Type::WriteExclusive).scope_type(scope_type);
            let change = unit.good(&b(), &out);
            assert_eq!(unit.registered(), [(a(), KEY_A), (b(), KEY_B)]);
            assert_eq!(unit.reservation(), before);
            assert_eq!(change.attentions, told([c()], preempted()));
            assert_eq!(unit.state.generation(), 4);
        }
    }
}

#[test]
fn preempting_without_a_reservation_removes_registrations() {
    let mut unit = Unit::with_three();
    unit.good(&nexus("d", 1), &register(0, KEY_C));
    let change = unit.good(&a(), &preempt(KEY_A, KEY_C, Type::WriteExclusive));
    assert_eq!(unit.registered(), [(a(), KEY_A), (b(), KEY_B)]);
    assert_eq!(unit.reservation(), None);
    assert_eq!(change.attentions, told([c(), nexus("d", 1)], preempted()));
    assert_eq!(unit.state.generation(), 5);
}

#[test]
fn preempting_three_registrations_counts_once() {
    let mut unit = Unit::with_three();
    for name in ["d", "e"] {
        unit.good(&nexus(name, 1), &register(0, KEY_C));
    }
    assert_eq!(unit.state.generation(), 5);
    let change = unit.good(&a(), &preempt(KEY_A, KEY_C, Type::WriteExclusive));
    assert_eq!(unit.registered(), [(a(), KEY_A), (b(), KEY_B)]);
    let removed = [c(), nexus("d", 1), nexus("e", 1)];
    assert_eq!(change.attentions, told(removed, preempted()));
    assert_eq!(unit.state.generation(), 6);
}

#[test]
fn non_holder_that_preempts_its_own_key_removes_itself() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let change = unit.good(&b(), &preempt(KEY_B, KEY_B, Type::WriteExclusive));
    assert_eq!(unit.registered(), [(a(), KEY_A), (c(), KEY_C)]);
    assert_eq!(unit.reservation(), Some((Type::WriteExclusive, Some(a()))));
    assert_eq!(change.attentions, []);
}

#[test]
fn registrant_of_all_that_preempts_its_own_key_removes_itself_and_its_twins() {
    for kind in [
        Type::WriteExclusiveAllRegistrants,
        Type::ExclusiveAccessAllRegistrants,
    ] {
        let mut unit = two_paths(kind);
        let change = unit.good(&a(), &preempt(KEY_A, KEY_A, kind));
        assert_eq!(unit.registered(), [(b(), KEY_B)]);
        assert_eq!(unit.reservation(), Some((kind, None)));
        assert_eq!(change.attentions, told([a2()], preempted()));
        // The last one takes the reservation with it.
        unit.good(&b(), &preempt(KEY_B, KEY_B, kind));
        assert_eq!((unit.registered().len(), unit.reservation()), (0, None));
    }
}

#[test]
fn key_zero_preempts_a_reservation_of_all_registrants() {
    for held in [
        Type::WriteExclusiveAllRegistrants,
        Type::ExclusiveAccessAllRegistrants,
    ] {
        for kind in Type::ALL {
            let mut unit = Unit::reserved(held);
            let change = unit.good(&b(), &preempt(KEY_B, 0, kind));
            assert_eq!(unit.registered(), [(b(), KEY_B)]);
            let holder = if is_single(&kind) { Some(b()) } else { None };
            assert_eq!(unit.reservation(), Some((kind, holder)));
            assert_eq!(change.attentions, told([a(), c()], preempted()));
            assert_eq!(unit.state.generation(), 4);
        }
    }
}

#[test]
fn key_zero_by_the_only_registrant_changes_the_type() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A));
    unit.good(&a(), &reserve(KEY_A, Type::WriteExclusiveAllRegistrants));
    let change = unit.good(&a(), &preempt(KEY_A, 0, Type::ExclusiveAccess));
    assert_eq!(unit.registered(), [(a(), KEY_A)]);
    assert_eq!(unit.reservation(), Some((Type::ExclusiveAccess, Some(a()))));
    assert_eq!(change.attentions, []);
}

#[test]
fn abort_does_what_preempt_does() {
    for held in Type::ALL {
        for key in [0, KEY_A, KEY_B, KEY_C, 0x9999] {
            for scope_type in [0x01, 0x08, 0x00, 0x11] {
                let (mut one, mut other) = (Unit::reserved(held), Unit::reserved(held));
                let kind = Type::WriteExclusive;
                let preempt = preempt(KEY_B, key, kind).scope_type(scope_type);
                let abort = preempt_and_abort(KEY_B, key, kind).scope_type(scope_type);
                let (one, other) = (one.send(&b(), &preempt), other.send(&b(), &abort));
                assert_eq!(
                    one,
                    other.map(|change| Change {
                        abort: Vec::new(),
                        ..change
                    })
                );
            }
        }
    }
}

#[test]
fn abort_is_of_whoever_had_the_key_holder_or_not() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let change = unit.good(&b(), &preempt_and_abort(KEY_B, KEY_A, Type::WriteExclusive));
    assert_eq!(aborted(&change), [a()]);
    let change = unit.good(&b(), &preempt_and_abort(KEY_B, KEY_C, Type::WriteExclusive));
    assert_eq!(aborted(&change), [c()]);
}

#[test]
fn abort_spares_the_issuer_unless_its_own_key_is_preempted() {
    let mut unit = two_paths(Type::WriteExclusive);
    let change = unit.good(
        &a2(),
        &preempt_and_abort(KEY_A, KEY_A, Type::WriteExclusive),
    );
    assert_eq!(aborted(&change), [a(), a2()]);
    let mut unit = Unit::reserved(Type::ExclusiveAccessAllRegistrants);
    let change = unit.good(&b(), &preempt_and_abort(KEY_B, 0, Type::WriteExclusive));
    assert_eq!(aborted(&change), [a(), b(), c()]);
    let mut unit = Unit::reserved(Type::ExclusiveAccessAllRegistrants);
    let change = unit.good(&b(), &preempt_and_abort(KEY_B, KEY_B, Type::WriteExclusive));
    assert_eq!(aborted(&change), [b()]);
}

#[test]
fn preempted_nexus_loses_access() {
    let mut unit = Unit::reserved(Type::WriteExclusiveRegistrantsOnly);
    let change = unit.good(&b(), &preempt(KEY_B, KEY_C, Type::WriteExclusive));
    assert!(
        !change
            .next
            .allowed(Some(&c()))
            .contains(crate::scsi::Access::Write)
    );
    assert!(
        change
            .next
            .allowed(Some(&a()))
            .contains(crate::scsi::Access::Write)
    );
    // The same key through another session is another nexus.
    assert_eq!(change.attentions, vec![(Arc::new(c()), preempted())]);
}
