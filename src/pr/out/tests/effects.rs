//! What has to be stored before the reply, and that changes can be sent.

use crate::pr::testing::{
    KEY_A, KEY_B, Out, Unit, a, b, clear, host, nexus, preempt, preempt_and_abort, register,
    register_and_ignore, release, reserve,
};
use crate::pr::{Change, Save, Type};

/// A, B and C registered, A holding; APTPL as said.
fn reserved(aptpl: bool) -> Unit {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    unit.state.aptpl = aptpl;
    unit
}

#[test]
fn change_of_a_unit_without_aptpl_is_stored_for_the_daemon_alone() {
    for (nexus, out) in [
        (nexus("d", 1), register(0, KEY_A)),
        (a(), register(KEY_A, KEY_B)),
        (a(), register(KEY_A, 0)),
        (a(), register_and_ignore(KEY_A)),
        (a(), release(KEY_A, Type::WriteExclusive)),
        (a(), clear(KEY_A)),
        (b(), preempt(KEY_B, KEY_A, Type::WriteExclusive)),
        (b(), preempt_and_abort(KEY_B, KEY_B, Type::WriteExclusive)),
        (a(), Out::movement(KEY_A, KEY_B, 1, &host("d"))),
    ] {
        assert_eq!(
            reserved(false).good(&nexus, &out).save,
            Save::Runtime,
            "{out:?}"
        );
    }
}

#[test]
fn change_of_a_unit_with_aptpl_before_or_after_is_durable() {
    for (nexus, out) in [
        (a(), release(KEY_A, Type::WriteExclusive)),
        (a(), clear(KEY_A)),
        (b(), preempt(KEY_B, KEY_A, Type::WriteExclusive)),
        (b(), preempt_and_abort(KEY_B, KEY_B, Type::WriteExclusive)),
        (nexus("d", 1), register(0, KEY_A).aptpl()),
    ] {
        let change = reserved(true).good(&nexus, &out);
        assert_eq!(
            (change.save, change.next.aptpl()),
            (Save::Durable, true),
            "{out:?}"
        );
    }
    for (nexus, out) in [
        (a(), register(KEY_A, 0)),
        (a(), register_and_ignore(KEY_A)),
        (a(), Out::movement(KEY_A, KEY_B, 1, &host("d"))),
    ] {
        let change = reserved(true).good(&nexus, &out);
        assert_eq!(
            (change.save, change.next.aptpl()),
            (Save::Durable, false),
            "{out:?}"
        );
        let change = reserved(false).good(&nexus, &out.aptpl());
        assert_eq!((change.save, change.next.aptpl()), (Save::Durable, true));
    }
    let mut unit = Unit::with_three();
    unit.state.aptpl = true;
    assert_eq!(
        unit.good(&a(), &reserve(KEY_A, Type::WriteExclusive)).save,
        Save::Durable
    );
}

#[test]
fn change_of_the_generation_alone_needs_not_be_durable() {
    for aptpl in [false, true] {
        for out in [register(0, 0), register_and_ignore(0)] {
            assert_eq!(
                reserved(aptpl).good(&nexus("d", 1), &out).save,
                Save::Runtime
            );
        }
    }
}

#[test]
fn what_changes_nothing_is_not_stored() {
    for (nexus, out) in [
        (a(), reserve(KEY_A, Type::WriteExclusive)),
        (b(), release(KEY_B, Type::WriteExclusive)),
    ] {
        assert_eq!(reserved(true).good(&nexus, &out).save, Save::Nothing);
    }
}

#[test]
fn change_is_a_value_that_can_be_sent() {
    let mut unit = Unit::reserved(Type::WriteExclusiveRegistrantsOnly);
    let change = unit.good(
        &b(),
        &preempt_and_abort(KEY_B, KEY_A, Type::ExclusiveAccess),
    );
    let sent = serde_json::to_string(&change).expect("serialisable");
    assert_eq!(
        serde_json::from_str::<Change>(&sent).expect("deserialisable"),
        change
    );
}

#[test]
fn change_that_breaks_an_invariant_is_not_received() {
    let change = Unit::reserved(Type::WriteExclusive).good(&a(), &register(KEY_A, KEY_B));
    let sent = serde_json::to_string(&change).expect("serialisable");
    let broken = sent.replace("\"write_exclusive\"", "\"write_exclusive_all_registrants\"");
    assert_ne!(broken, sent);
    assert!(serde_json::from_str::<Change>(&broken).is_err());
}
