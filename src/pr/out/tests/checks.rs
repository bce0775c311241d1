//! What is refused, and what is refused first.

use crate::pr::Type;
use crate::pr::out::{PARAMETER_LIST_LENGTH_MAX, RegistrationLimit};
use crate::pr::testing::{
    KEY_A, KEY_B, Out, Unit, a, b, bad_byte, bad_cdb, clear, host, nexus, preempt,
    preempt_and_abort, register, register_and_ignore, release, reserve,
};
use crate::scsi::sense::{Field, Sense};

const WRONG_LENGTH: Sense = Sense::parameter_list_length_error();
const SPEC_I_PT: Sense = Sense::invalid_field_in_parameter_list(Field::parameter_bit(20, 3));

#[test]
fn unknown_service_actions_are_refused() {
    let mut unit = Unit::new();
    for service_action in 0x08..=0x1f {
        let out = Out::new(service_action, 0, KEY_A);
        unit.check(&a(), &out, bad_cdb(1, 4));
        unit.check(&a(), &out.length(0), bad_cdb(1, 4));
    }
}

#[test]
fn parameter_list_length_is_24() {
    for service_action in [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06] {
        let mut unit = Unit::with_three();
        for length in [0, 1, 23, 25, 28, 4096] {
            let mut out = Out::new(service_action, KEY_A, KEY_A).length(length);
            out.list.resize(4096, 0);
            unit.check(&a(), &out, WRONG_LENGTH);
            // Even where there is a conflict: the keys of such a list are not looked at.
            unit.check(&nexus("d", 1), &out, WRONG_LENGTH);
        }
    }
}

#[test]
fn list_that_was_not_wholly_transferred_is_refused() {
    let mut unit = Unit::new();
    let mut out = register(0, KEY_A).length(24);
    out.list.truncate(23);
    unit.check(&a(), &out, WRONG_LENGTH);
    let out = register(0, KEY_A).listed(&[host("b")]);
    let length = u32::try_from(out.list.len()).expect("short");
    unit.check(&a(), &out.length(length + 1), WRONG_LENGTH);
}

#[test]
fn overlong_list_is_refused_unread() {
    let mut unit = Unit::new();
    let out = register(0, KEY_A).bytes_listed(&[]);
    for length in [PARAMETER_LIST_LENGTH_MAX + 1, u32::MAX] {
        unit.check(&a(), &out.clone().length(length), WRONG_LENGTH);
    }
}

#[test]
fn list_of_the_greatest_length_is_read() {
    let mut unit = Unit::new();
    let mut out = register(0, KEY_A).listed(&[host("b")]);
    out.list.resize(28 + 65_536, 0xff);
    unit.good(&a(), &out);
    assert_eq!(unit.registered(), [(a(), KEY_A), (b(), KEY_A)]);
    out.list.push(0xff);
    Unit::new().check(&a(), &out, WRONG_LENGTH);
}

#[test]
fn transferred_bytes_past_the_parameter_list_length_are_no_part_of_it() {
    let mut unit = Unit::new();
    let mut out = register(0, KEY_A).length(24);
    out.list.resize(100, 0xff);
    unit.good(&a(), &out);
}

#[test]
fn unregistered_issuer_conflicts() {
    for mut unit in [
        Unit::new(),
        Unit::with_three(),
        Unit::reserved(Type::WriteExclusive),
    ] {
        for service_action in [0x01, 0x02, 0x03, 0x04, 0x05, 0x07] {
            for key in [0, KEY_A] {
                unit.conflict(
                    &nexus("d", 1),
                    &Out::new(service_action, key, KEY_B).scope_type(1),
                );
            }
        }
    }
}

#[test]
fn wrong_reservation_key_conflicts_whatever_the_scope_type_and_reservation() {
    for mut unit in [Unit::with_three(), Unit::reserved(Type::WriteExclusive)] {
        for service_action in [0x01, 0x02, 0x03, 0x04, 0x05, 0x07] {
            for key in [0, KEY_B] {
                for scope_type in [0x01, 0x00, 0x0f, 0x11] {
                    let out = Out::new(service_action, key, KEY_B).scope_type(scope_type);
                    unit.conflict(&a(), &out);
                }
            }
        }
    }
}

#[test]
fn conflict_stands_before_misplaced_spec_i_pt() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    for service_action in [0x01, 0x02, 0x03, 0x04, 0x05] {
        let out = Out::new(service_action, KEY_A, 0)
            .scope_type(0x11)
            .spec_i_pt();
        unit.conflict(&b(), &out);
    }
    // B knows its key, but A holds the reservation.
    unit.conflict(
        &b(),
        &reserve(KEY_B, Type::WriteExclusive)
            .scope_type(0x10)
            .spec_i_pt(),
    );
}

#[test]
fn spec_i_pt_is_for_register_only() {
    let mut unit = Unit::with_three();
    for out in [
        reserve(KEY_A, Type::WriteExclusive),
        release(KEY_A, Type::WriteExclusive),
        clear(KEY_A),
        preempt(KEY_A, KEY_B, Type::WriteExclusive),
        preempt_and_abort(KEY_A, KEY_B, Type::WriteExclusive),
        register_and_ignore(KEY_A),
    ] {
        unit.check(&a(), &out.clone().spec_i_pt(), SPEC_I_PT);
        // Also before SCOPE and TYPE.
        unit.check(&a(), &out.scope_type(0x1f).spec_i_pt(), SPEC_I_PT);
    }
}

#[test]
fn all_tg_pt_and_aptpl_are_ignored_where_they_do_not_belong() {
    let mut unit = Unit::with_three();
    unit.good(
        &a(),
        &reserve(KEY_A, Type::WriteExclusive).all_tg_pt().aptpl(),
    );
    unit.good(
        &a(),
        &release(KEY_A, Type::WriteExclusive).all_tg_pt().aptpl(),
    );
    unit.good(
        &a(),
        &preempt(KEY_A, KEY_B, Type::WriteExclusive)
            .all_tg_pt()
            .aptpl(),
    );
    unit.good(&a(), &clear(KEY_A).all_tg_pt().aptpl());
    assert!(!unit.state.aptpl());
}

#[test]
fn reserved_and_obsolete_bytes_are_ignored() {
    let mut unit = Unit::new();
    let mut out = register(0, KEY_A);
    out.list[16..20].fill(0xff);
    out.list[20] = 0xf2;
    out.list[21..24].fill(0xff);
    unit.good(&a(), &out);
    assert_eq!(unit.registered(), [(a(), KEY_A)]);
}

#[test]
fn scope_is_the_logical_unit() {
    for scope in [0x10, 0x20, 0xf0] {
        let mut unit = Unit::reserved(Type::WriteExclusive);
        for out in [
            reserve(KEY_A, Type::WriteExclusive),
            release(KEY_A, Type::WriteExclusive),
            preempt(KEY_A, KEY_A, Type::WriteExclusive),
            preempt_and_abort(KEY_A, KEY_A, Type::WriteExclusive),
        ] {
            let out = out.scope_type(scope | 0x01);
            unit.check(&a(), &out, bad_cdb(2, 7));
        }
    }
}

#[test]
fn scope_and_type_are_ignored_where_nothing_is_reserved() {
    let mut unit = Unit::with_three();
    unit.good(&a(), &register(KEY_A, KEY_A).scope_type(0xff));
    unit.good(&a(), &register_and_ignore(KEY_A).scope_type(0xff));
    unit.good(
        &a(),
        &preempt(KEY_A, KEY_B, Type::WriteExclusive).scope_type(0xff),
    );
    unit.good(&a(), &clear(KEY_A).scope_type(0xff));
}

#[test]
fn type_must_exist() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    for kind in [0x0, 0x2, 0x4, 0x9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf] {
        let out = |service_action| Out::new(service_action, KEY_A, KEY_A).scope_type(kind);
        for service_action in [0x01, 0x04, 0x05] {
            unit.check(&a(), &out(service_action), bad_cdb(2, 3));
        }
    }
}

#[test]
fn registrations_beyond_the_limit_are_refused_and_others_still_work() {
    let mut unit = Unit::new();
    unit.context.registration_limit = RegistrationLimit::try_from(128).expect("the least");
    for number in 0..128 {
        unit.good(&nexus(&format!("n{number}"), 1), &register(0, KEY_A));
    }
    let full = Sense::insufficient_registration_resources();
    let before = unit.state.clone();
    unit.check(&b(), &register(0, KEY_B), full);
    unit.check(&b(), &register_and_ignore(KEY_B), full);
    unit.check(&nexus("n1", 1), &register(KEY_A, KEY_B).all_tg_pt(), full);
    assert_eq!(unit.state, before);

    unit.good(&nexus("n1", 1), &reserve(KEY_A, Type::WriteExclusive));
    let movement = Out::movement(KEY_A, KEY_B, 1, &host("b"));
    unit.check(&nexus("n1", 1), &movement, full);
    unit.good(
        &nexus("n1", 1),
        &Out::movement(KEY_A, KEY_B, 1, &host("n2")),
    );
    // UNREG makes the room that the destination takes.
    unit.good(
        &nexus("n2", 1),
        &Out::movement(KEY_B, KEY_B, 1, &host("b")).unreg(),
    );

    unit.good(&nexus("n3", 1), &register(KEY_A, KEY_B));
    unit.good(&nexus("n3", 1), &register(KEY_B, 0));
    unit.check(&a(), &register(0, KEY_A).listed(&[host("c")]), full);
    unit.good(&a(), &register(0, KEY_A));
}

#[test]
fn lowered_limit_removes_nobody() {
    let mut unit = Unit::new();
    for number in 0..200 {
        unit.good(&nexus(&format!("n{number}"), 1), &register(0, KEY_A));
    }
    unit.context.registration_limit = RegistrationLimit::try_from(128).expect("the least");
    unit.good(&nexus("n1", 1), &register(KEY_A, KEY_B));
    unit.check(
        &b(),
        &register(0, KEY_B),
        Sense::insufficient_registration_resources(),
    );
}

#[test]
fn registration_limit_is_128_to_8190() {
    assert_eq!(RegistrationLimit::default().get(), 1_024);
    for (limit, fits) in [
        (0, false),
        (127, false),
        (128, true),
        (8_190, true),
        (8_191, false),
    ] {
        assert_eq!(RegistrationLimit::try_from(limit).is_ok(), fits, "{limit}");
    }
}

#[test]
fn move_without_a_transport_id_is_refused_only_after_the_conflicts() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    unit.conflict(&b(), &Out::new(0x07, KEY_B, 0));
    unit.check(&a(), &Out::new(0x07, KEY_A, KEY_B), bad_byte(20));
    unit.check(&a(), &Out::new(0x07, KEY_A, KEY_B).length(23), WRONG_LENGTH);
}
