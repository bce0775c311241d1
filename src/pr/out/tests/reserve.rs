//! RESERVE, RELEASE and CLEAR.

use crate::pr::testing::{
    KEY_A, KEY_B, KEY_C, Unit, a, b, bad_cdb, c, clear, nexus, register, release, reserve, told,
};
use crate::pr::{Change, Reservations, Type};
use crate::scsi::sense::Sense;

#[test]
fn reserve_makes_the_issuer_holder_or_all_registrants() {
    for kind in Type::ALL {
        let mut unit = Unit::with_three();
        let change = unit.good(&b(), &reserve(KEY_B, kind));
        let holder = if kind.code() >= 7 { None } else { Some(b()) };
        assert_eq!(unit.reservation(), Some((kind, holder)));
        assert_eq!(unit.state.generation(), 3);
        assert_eq!(change.attentions, []);
        assert_eq!(
            unit.registered(),
            [(a(), KEY_A), (b(), KEY_B), (c(), KEY_C)]
        );
    }
}

#[test]
fn reserve_by_the_holder_changes_nothing_if_the_type_is_the_same_and_conflicts_otherwise() {
    for held in Type::ALL {
        let mut unit = Unit::reserved(held);
        for kind in Type::ALL {
            if kind == held {
                let before = unit.state.clone();
                assert_eq!(
                    unit.good(&a(), &reserve(KEY_A, kind)),
                    Change::nothing(&before)
                );
            } else {
                unit.conflict(&a(), &reserve(KEY_A, kind));
            }
        }
    }
}

#[test]
fn reserve_by_the_holder_with_a_wrong_scope_or_type_is_refused() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    unit.check(
        &a(),
        &reserve(KEY_A, Type::WriteExclusive).scope_type(0x11),
        bad_cdb(2, 7),
    );
    unit.check(
        &a(),
        &reserve(KEY_A, Type::WriteExclusive).scope_type(0x00),
        bad_cdb(2, 3),
    );
}

#[test]
fn reserve_of_a_free_unit_with_a_scope_or_type_that_is_none_reserves_nothing() {
    let mut unit = Unit::with_three();
    for (scope_type, field) in [
        (0x11, bad_cdb(2, 7)),
        (0x10, bad_cdb(2, 7)),
        (0x00, bad_cdb(2, 3)),
        (0x02, bad_cdb(2, 3)),
        (0x04, bad_cdb(2, 3)),
        (0x09, bad_cdb(2, 3)),
    ] {
        let out = reserve(KEY_A, Type::WriteExclusive).scope_type(scope_type);
        unit.check(&a(), &out, field);
    }
    assert_eq!(unit.state, Unit::with_three().state);
}

#[test]
fn reserve_by_another_conflicts_even_with_a_wrong_type() {
    for held in Type::ALL
        .into_iter()
        .filter(|kind| !kind.is_all_registrants())
    {
        let mut unit = Unit::reserved(held);
        for scope_type in [held.code(), 1, 3, 5, 6, 7, 8, 0, 0x10] {
            unit.conflict(&b(), &reserve(KEY_B, held).scope_type(scope_type));
        }
    }
}

#[test]
fn every_registrant_is_a_holder_of_an_all_registrants_reservation_also_a_later_one() {
    for kind in [
        Type::WriteExclusiveAllRegistrants,
        Type::ExclusiveAccessAllRegistrants,
    ] {
        let mut unit = Unit::reserved(kind);
        unit.good(&b(), &reserve(KEY_B, kind));
        let d = nexus("d", 1);
        unit.good(&d, &register(0, 0xd4));
        unit.good(&d, &reserve(0xd4, kind));
        unit.good(&d, &release(0xd4, kind));
        assert_eq!(unit.reservation(), None);
    }
}

#[test]
fn release_without_a_reservation_changes_nothing() {
    let mut unit = Unit::with_three();
    let before = unit.state.clone();
    for kind in [0x01, 0x05, 0x00, 0x0f] {
        let out = release(KEY_A, Type::WriteExclusive).scope_type(kind);
        assert_eq!(unit.good(&a(), &out), Change::nothing(&before));
    }
}

#[test]
fn release_with_a_wrong_key_conflicts_by_whomever_and_whether_anything_is_reserved() {
    for mut unit in [Unit::with_three(), Unit::reserved(Type::WriteExclusive)] {
        let before = unit.state.clone();
        for issuer in [a(), b()] {
            for key in [0, KEY_C] {
                unit.conflict(&issuer, &release(key, Type::WriteExclusive));
            }
        }
        assert_eq!(unit.state, before);
    }
}

#[test]
fn release_by_a_non_holder_changes_nothing() {
    for kind in Type::ALL
        .into_iter()
        .filter(|kind| !kind.is_all_registrants())
    {
        let mut unit = Unit::reserved(kind);
        let before = unit.state.clone();
        for wrong in Type::ALL {
            assert_eq!(
                unit.good(&b(), &release(KEY_B, wrong)),
                Change::nothing(&before)
            );
        }
    }
}

#[test]
fn release_with_another_type_is_refused() {
    let invalid = Sense::invalid_release_of_persistent_reservation();
    for held in Type::ALL {
        let mut unit = Unit::reserved(held);
        for kind in (0x0..=0xf).filter(|&kind| kind != held.code()) {
            unit.check(&a(), &release(KEY_A, held).scope_type(kind), invalid);
        }
    }
}

#[test]
fn release_with_another_scope_is_refused_even_without_a_reservation() {
    let mut unit = Unit::with_three();
    unit.check(
        &a(),
        &release(KEY_A, Type::WriteExclusive).scope_type(0x21),
        bad_cdb(2, 7),
    );
}

#[test]
fn release_tells_the_others_if_registrants_had_access() {
    for kind in Type::ALL {
        let mut unit = Unit::reserved(kind);
        let change = unit.good(&a(), &release(KEY_A, kind));
        let expected = if kind.code() >= 5 {
            told([b(), c()], Sense::reservations_released())
        } else {
            Vec::new()
        };
        assert_eq!(change.attentions, expected);
        assert_eq!(unit.reservation(), None);
        assert_eq!(unit.registered().len(), 3);
        assert_eq!(unit.state.generation(), 3);
    }
}

#[test]
fn release_by_any_registrant_ends_an_all_registrants_reservation() {
    for kind in [
        Type::WriteExclusiveAllRegistrants,
        Type::ExclusiveAccessAllRegistrants,
    ] {
        let mut unit = Unit::reserved(kind);
        let change = unit.good(&b(), &release(KEY_B, kind));
        assert_eq!(unit.reservation(), None);
        assert_eq!(
            change.attentions,
            told([a(), c()], Sense::reservations_released())
        );
    }
}

#[test]
fn clear_removes_everything_and_tells_the_others() {
    let mut units = vec![Unit::with_three()];
    units.extend(Type::ALL.map(Unit::reserved));
    for mut unit in units {
        let change = unit.good(&b(), &clear(KEY_B));
        assert_eq!(
            change.attentions,
            told([a(), c()], Sense::reservations_preempted())
        );
        assert_eq!(change.abort, []);
        assert_eq!((unit.registered().len(), unit.reservation()), (0, None));
        assert_eq!(unit.state.generation(), 4);
    }
}

#[test]
fn clear_of_five_counts_once() {
    let mut unit = Unit::with_three();
    unit.good(&nexus("d", 1), &register(0, 0xd4));
    unit.good(&nexus("e", 1), &register(0, 0xe5));
    let change = unit.good(&a(), &clear(KEY_A));
    assert_eq!(change.attentions.len(), 4);
    assert_eq!(
        unit.state,
        Reservations {
            generation: 6,
            ..Reservations::default()
        }
    );
}
