//! REGISTER, REGISTER AND IGNORE EXISTING KEY, unregistering, APTPL.

use crate::pr::testing::{
    KEY_A, KEY_B, KEY_C, Out, Unit, a, b, c, clear, host, nexus, preempt, register,
    register_and_ignore, reserve, told,
};
use crate::pr::{Reservations, Type};
use crate::scsi::Access;
use crate::scsi::sense::{Field, Sense};

fn released() -> Sense {
    Sense::reservations_released()
}

#[test]
fn register_of_an_unregistered_nexus_with_a_key_conflicts() {
    let mut unit = Unit::new();
    unit.conflict(&a(), &register(KEY_A, KEY_A));
    unit.conflict(&a(), &register(KEY_A, 0));
    unit.conflict(&a(), &register(KEY_A, KEY_A).listed(&[host("b")]));
    assert_eq!(unit.state, Reservations::default());
}

#[test]
fn register_of_zero_by_an_unregistered_nexus_counts_and_does_nothing_else() {
    for out in [
        register(0, 0),
        register(0, 0).bytes_listed(&[0xff]),
        register_and_ignore(0),
    ] {
        let mut unit = Unit::with_three();
        let change = unit.good(&nexus("d", 1), &out);
        assert_eq!(unit.state.generation(), 4);
        assert_eq!(unit.registered().len(), 3);
        assert_eq!(change.attentions, []);
    }
}

#[test]
fn stranger_cannot_switch_aptpl_off_or_on() {
    for on in [true, false] {
        let mut unit = Unit::new();
        let out = register(0, KEY_A);
        unit.good(&a(), &if on { out.aptpl() } else { out });
        for out in [register(0, 0), register_and_ignore(0)] {
            unit.good(&b(), &out);
            unit.good(&b(), &out.aptpl());
            assert_eq!(unit.state.aptpl(), on);
        }
    }
}

#[test]
fn register_registers() {
    let mut unit = Unit::new();
    let change = unit.good(&a(), &register(0, KEY_A));
    assert_eq!(unit.registered(), [(a(), KEY_A)]);
    assert_eq!(unit.state.generation(), 1);
    assert_eq!(change.attentions, []);
}

#[test]
fn nexuses_may_have_the_same_key() {
    let mut unit = Unit::new();
    unit.good(&b(), &register(0, KEY_A));
    unit.good(&a(), &register(0, KEY_A));
    assert_eq!(unit.registered(), [(b(), KEY_A), (a(), KEY_A)]);
}

#[test]
fn register_of_a_registrant_with_a_wrong_key_conflicts() {
    let mut unit = Unit::with_three();
    let before = unit.state.clone();
    for new_key in [0, KEY_A, KEY_B] {
        unit.conflict(&a(), &register(0, new_key));
        unit.conflict(&a(), &register(KEY_B, new_key));
        unit.conflict(&a(), &register(KEY_B, new_key).listed(&[host("d")]));
    }
    assert_eq!(unit.state, before);
}

#[test]
fn register_of_a_registrant_with_spec_i_pt_is_refused() {
    let refused = Sense::invalid_field_in_parameter_list(Field::parameter_bit(20, 3));
    let mut unit = Unit::with_three();
    unit.check(&a(), &register(KEY_A, KEY_B).listed(&[host("d")]), refused);
    unit.check(&a(), &register(KEY_A, 0).listed(&[]), refused);
    unit.check(&a(), &register(KEY_A, KEY_B).spec_i_pt(), refused);
}

#[test]
fn register_replaces_the_key_in_its_place() {
    let mut unit = Unit::with_three();
    unit.good(&a(), &register(KEY_A, 0xd4));
    assert_eq!(unit.registered(), [(a(), 0xd4), (b(), KEY_B), (c(), KEY_C)]);
    assert_eq!(unit.state.generation(), 4);
    unit.good(&a(), &register(0xd4, 0xd4));
    assert_eq!(unit.state.generation(), 5);
}

#[test]
fn holder_keeps_the_reservation_when_it_changes_its_key() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let change = unit.good(&a(), &register(KEY_A, 0xd4));
    assert_eq!(unit.reservation(), Some((Type::WriteExclusive, Some(a()))));
    assert_eq!(change.attentions, []);
}

#[test]
fn register_and_ignore_looks_at_no_key() {
    let mut unit = Unit::new();
    unit.good(&a(), &Out::new(0x06, 0x9999, KEY_A));
    assert_eq!(unit.registered(), [(a(), KEY_A)]);
    unit.good(&a(), &Out::new(0x06, 0x9999, KEY_B));
    assert_eq!(unit.registered(), [(a(), KEY_B)]);
    unit.good(&a(), &Out::new(0x06, 0x9999, 0));
    assert_eq!(unit.registered(), []);
    unit.good(&a(), &Out::new(0x06, 0x9999, 0));
    assert_eq!(unit.state.generation(), 4);
}

#[test]
fn generation_wraps() {
    let mut unit = Unit::new();
    unit.state.generation = u32::MAX;
    unit.good(&a(), &register(0, KEY_A));
    assert_eq!(unit.state.generation(), 0);
}

#[test]
fn unregistering_a_non_holder_leaves_the_reservation() {
    for kind in Type::ALL {
        for out in [register(KEY_B, 0), register_and_ignore(0)] {
            let mut unit = Unit::reserved(kind);
            let before = unit.reservation();
            let change = unit.good(&b(), &out);
            assert_eq!(unit.reservation(), before);
            assert_eq!(unit.registered(), [(a(), KEY_A), (c(), KEY_C)]);
            assert_eq!(unit.state.generation(), 4);
            assert_eq!(change.attentions, []);
        }
    }
}

#[test]
fn unregistering_the_holder_releases_silently_if_no_registrant_had_access() {
    for kind in [Type::WriteExclusive, Type::ExclusiveAccess] {
        let mut unit = Unit::reserved(kind);
        let change = unit.good(&a(), &register(KEY_A, 0));
        assert_eq!(unit.reservation(), None);
        assert_eq!(change.attentions, []);
        assert_eq!(unit.state.generation(), 4);
    }
}

#[test]
fn unregistering_the_holder_of_registrants_only_releases_and_tells_the_others() {
    for kind in [
        Type::WriteExclusiveRegistrantsOnly,
        Type::ExclusiveAccessRegistrantsOnly,
    ] {
        for out in [register(KEY_A, 0), register_and_ignore(0)] {
            let mut unit = Unit::reserved(kind);
            let change = unit.good(&a(), &out);
            assert_eq!(unit.reservation(), None);
            assert_eq!(change.attentions, told([b(), c()], released()));
            unit.good(&b(), &reserve(KEY_B, kind));
        }
    }
}

#[test]
fn reservation_of_all_registrants_lasts_until_the_last_unregisters() {
    for kind in [
        Type::WriteExclusiveAllRegistrants,
        Type::ExclusiveAccessAllRegistrants,
    ] {
        let mut unit = Unit::reserved(kind);
        for (nexus, key) in [(a(), KEY_A), (b(), KEY_B)] {
            let change = unit.good(&nexus, &register(key, 0));
            assert_eq!(unit.reservation(), Some((kind, None)));
            assert_eq!(change.attentions, []);
        }
        let change = unit.good(&c(), &register(KEY_C, 0));
        assert_eq!(unit.reservation(), None);
        assert_eq!(change.attentions, []);
    }
}

#[test]
fn unregistering_counts_once_whoever_holds_the_reservation() {
    for kind in Type::ALL {
        for (issuer, key) in [(a(), KEY_A), (b(), KEY_B)] {
            let mut unit = Unit::reserved(kind);
            assert_eq!(unit.state.generation(), 3);
            unit.good(&issuer, &register(key, 0));
            assert_eq!(unit.state.generation(), 4);
        }
    }
}

#[test]
fn those_who_remain_of_all_registrants_still_write_when_the_first_has_left() {
    let mut unit = Unit::reserved(Type::WriteExclusiveAllRegistrants);
    unit.good(&a(), &register(KEY_A, 0));
    assert_eq!(
        unit.reservation(),
        Some((Type::WriteExclusiveAllRegistrants, None))
    );
    for (nexus, writes) in [
        (b(), true),
        (c(), true),
        (a(), false),
        (nexus("d", 1), false),
    ] {
        let allowed = unit.state.allowed(Some(&nexus));
        assert_eq!(allowed.contains(Access::Write), writes, "{nexus}");
        assert!(allowed.contains(Access::Read), "{nexus}");
    }
}

#[test]
fn aptpl_of_the_last_registration_rules_the_unit() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A).aptpl());
    assert!(unit.state.aptpl());
    unit.good(&b(), &register_and_ignore(KEY_B));
    assert!(!unit.state.aptpl());
    unit.good(&b(), &register_and_ignore(KEY_B).aptpl());
    assert!(unit.state.aptpl());
    unit.good(&b(), &register(KEY_B, 0));
    assert!(!unit.state.aptpl());
    unit.good(&a(), &register(KEY_A, KEY_A).aptpl());
    unit.conflict(&a(), &register(KEY_B, KEY_A));
    unit.good(&a(), &clear(KEY_A));
    assert!(unit.state.aptpl());
}

#[test]
fn aptpl_can_be_forced() {
    let mut unit = Unit::new();
    unit.context.force_aptpl = true;
    unit.good(&a(), &register(0, KEY_A));
    assert!(unit.state.aptpl());
    unit.good(&a(), &register(KEY_A, 0));
    assert!(unit.state.aptpl());
    unit.good(&a(), &register(0, KEY_A));
    unit.good(&a(), &reserve(KEY_A, Type::WriteExclusive));
    unit.good(&a(), &Out::movement(KEY_A, KEY_B, 1, &host("b")));
    assert!(unit.state.aptpl());
}

#[test]
fn aptpl_decides_what_a_loss_of_power_leaves() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A).aptpl());
    unit.good(&a(), &reserve(KEY_A, Type::WriteExclusive));
    let mut after = Unit {
        state: unit.state.after_power_loss(),
        ..unit.clone()
    };
    assert_eq!(after.registered(), [(a(), KEY_A)]);
    assert_eq!(after.reservation(), Some((Type::WriteExclusive, Some(a()))));
    assert_eq!(after.state.generation(), 0);
    assert!(after.state.aptpl());

    after.good(&b(), &register(0, KEY_B));
    after.good(&b(), &register(KEY_B, 0));
    assert_eq!(after.state.after_power_loss(), Reservations::default());
}

#[test]
fn host_that_comes_back_with_the_same_isid_is_still_registered() {
    let mut unit = Unit::with_three();
    unit.context.nexuses.clear();
    unit.good(&a(), &reserve(KEY_A, Type::WriteExclusive));
    unit.conflict(&b(), &reserve(KEY_B, Type::WriteExclusive));
    unit.good(&b(), &preempt(KEY_B, KEY_A, Type::WriteExclusive));
}
