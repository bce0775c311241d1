//! The order of checks: commands that are wrong in every way, put right one thing after the other.

use crate::pr::Type;
use crate::pr::out::RegistrationLimit;
use crate::pr::testing::{
    KEY_A, KEY_B, KEY_C, Out, Unit, a, b, bad_byte, bad_cdb, clear, host, nexus, preempt,
    preempt_and_abort, register, register_and_ignore, release, reserve,
};
use crate::scsi::nexus::{ItNexus, TransportId};
use crate::scsi::sense::{Field, Sense};

const WRONG_KEY: u64 = 0x9999;
const WRONG_LENGTH: Sense = Sense::parameter_list_length_error();
const SPEC_I_PT: Sense = Sense::invalid_field_in_parameter_list(Field::parameter_bit(20, 3));
const FULL: Sense = Sense::insufficient_registration_resources();

/// A nexus that is not registered.
fn d() -> ItNexus {
    nexus("d", 1)
}

/// A holds write exclusive, B and C are registered, and nobody else can be.
fn full() -> Unit {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    for number in 0..125 {
        unit.good(&nexus(&format!("n{number}"), 1), &register(0, 1));
    }
    unit.context.registration_limit = RegistrationLimit::try_from(128).expect("the least");
    unit
}

/// What every service action but REGISTER and REGISTER AND MOVE checks first, in order: `out` is right but for its
/// keys, scope and type.
fn assert_common_order(out: &Out) {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let with_key = |key: u64| {
        let mut out = out.clone().scope_type(0x12).spec_i_pt();
        out.list[..8].copy_from_slice(&key.to_be_bytes());
        out
    };
    let wrong = with_key(WRONG_KEY);
    let mut unknown = wrong.clone().length(23);
    unknown.service_action = 0x08;
    unit.check(&d(), &unknown, bad_cdb(1, 4));
    unit.check(&d(), &wrong.clone().length(23), WRONG_LENGTH);
    let mut long = wrong.clone();
    long.list.extend([0; 4]);
    unit.check(&d(), &long, WRONG_LENGTH);
    unit.conflict(&d(), &wrong);
    unit.conflict(&b(), &wrong);
    unit.check(&a(), &with_key(KEY_A), SPEC_I_PT);
}

#[test]
fn reserve_is_checked_in_order() {
    assert_common_order(&reserve(0, Type::WriteExclusive));
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let out = |key, scope_type| reserve(key, Type::WriteExclusive).scope_type(scope_type);
    unit.conflict(&b(), &out(KEY_B, 0x12).spec_i_pt());
    unit.check(&a(), &out(KEY_A, 0x12).spec_i_pt(), SPEC_I_PT);
    unit.check(&a(), &out(KEY_A, 0x12), bad_cdb(2, 7));
    unit.check(&a(), &out(KEY_A, 0x02), bad_cdb(2, 3));
    unit.conflict(&a(), &out(KEY_A, 0x03));
    unit.good(&a(), &out(KEY_A, 0x01));
}

#[test]
fn release_is_checked_in_order() {
    assert_common_order(&release(0, Type::WriteExclusive));
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let out = |scope_type| release(KEY_A, Type::WriteExclusive).scope_type(scope_type);
    unit.check(&a(), &out(0x12), bad_cdb(2, 7));
    let invalid = Sense::invalid_release_of_persistent_reservation();
    unit.check(&a(), &out(0x02), invalid);
    unit.good(&a(), &out(0x01));
}

#[test]
fn clear_is_checked_in_order() {
    assert_common_order(&clear(0));
    Unit::reserved(Type::WriteExclusive).good(&a(), &clear(KEY_A).scope_type(0x12));
}

#[test]
fn preempt_is_checked_in_order() {
    for service_action in [0x04, 0x05] {
        let out = |preempted, scope_type| {
            Out::new(service_action, KEY_B, preempted).scope_type(scope_type)
        };
        assert_common_order(&out(0, 0x12));
        let mut unit = Unit::reserved(Type::WriteExclusive);
        unit.check(&b(), &out(0, 0x12).spec_i_pt(), SPEC_I_PT);
        unit.check(&b(), &out(0, 0x12), bad_byte(8));
        unit.conflict(&b(), &out(WRONG_KEY, 0x12));
        unit.check(&b(), &out(KEY_A, 0x12), bad_cdb(2, 7));
        unit.check(&b(), &out(KEY_A, 0x02), bad_cdb(2, 3));
        unit.good(&b(), &out(KEY_A, 0x03));
    }
}

#[test]
fn register_is_checked_in_order() {
    let mut unit = full();
    let broken: Vec<u8> = [host("e"), TransportId::FibreChannel(1)]
        .iter()
        .flat_map(TransportId::encode)
        .chain([0x4f; 20])
        .collect();
    let out = |key| register(key, KEY_A).bytes_listed(&broken);
    unit.check(&d(), &out(WRONG_KEY).length(23), WRONG_LENGTH);
    unit.conflict(&d(), &out(WRONG_KEY).length(24));
    unit.conflict(&a(), &out(WRONG_KEY).length(24));
    unit.check(&a(), &out(KEY_A).length(24), SPEC_I_PT);
    unit.check(&d(), &out(0).length(24), WRONG_LENGTH);
    unit.check(&d(), &out(0).length(27), WRONG_LENGTH);
    unit.check(&d(), &out(0).length(28 + 87), WRONG_LENGTH);
    // 44 bytes of iSCSI, 24 of the Fibre Channel, and then what is no TransportID.
    unit.check(&d(), &out(0), bad_byte(28 + 44 + 24));
    let listed = |ids: &[TransportId]| register(0, KEY_A).listed(ids);
    let fc = TransportId::FibreChannel(1);
    unit.check(&d(), &listed(&[fc, host("b")]), bad_byte(28));
    unit.check(&d(), &listed(&[host("e"), host("b")]), bad_byte(28 + 44));
    unit.check(&d(), &listed(&[host("e")]), FULL);
    unit.context.registration_limit = RegistrationLimit::default();
    unit.good(&d(), &listed(&[host("e")]));
}

#[test]
fn register_and_ignore_is_checked_in_order() {
    let mut unit = full();
    let out = || register_and_ignore(KEY_A).spec_i_pt();
    unit.check(&d(), &out().length(23), WRONG_LENGTH);
    unit.check(&d(), &out(), SPEC_I_PT);
    unit.check(&d(), &register_and_ignore(KEY_A), FULL);
}

#[test]
fn register_and_move_is_checked_in_order() {
    let mut unit = full();
    // Every list is of the issuer's own port, has no key, and names no port.
    let own = |key, new_key, relative| Out::movement(key, new_key, relative, &host("a"));
    let mut wrong = own(WRONG_KEY, 0, 0);
    wrong.list[23] = 23; // TRANSPORTID LENGTH
    unit.check(&d(), &wrong.clone().length(23), WRONG_LENGTH);
    unit.conflict(&d(), &wrong);
    unit.conflict(&a(), &wrong);
    let mut by_b = wrong.clone();
    by_b.list[..8].copy_from_slice(&KEY_B.to_be_bytes());
    unit.conflict(&b(), &by_b);
    let mut by_a = wrong;
    by_a.list[..8].copy_from_slice(&KEY_A.to_be_bytes());
    Unit::with_three().check(&a(), &by_a, bad_cdb(1, 4));
    Unit::reserved(Type::WriteExclusiveAllRegistrants).conflict(&a(), &by_a);
    unit.check(&a(), &by_a, bad_byte(20));
    unit.check(&a(), &own(KEY_A, 0, 0).length(47), bad_byte(20));
    unit.check(&a(), &own(KEY_A, 0, 0).length(48), WRONG_LENGTH);
    unit.check(&a(), &own(KEY_A, 0, 0), bad_byte(8));
    unit.check(&a(), &own(KEY_A, 1, 0), bad_byte(24));
    let mut malformed = Out::movement(KEY_A, 1, 0, &host("e"));
    malformed.list[24] = 0x4f;
    unit.check(&a(), &malformed, bad_byte(18));
    malformed.list[19] = 1; // RELATIVE TARGET PORT IDENTIFIER
    unit.check(&a(), &malformed, bad_byte(24));
    unit.check(&a(), &Out::movement(KEY_A, 1, 1, &host("e")), FULL);
    unit.good(&a(), &Out::movement(KEY_A, 1, 1, &host("b")));
}

#[test]
fn what_passes_a_reservation_depends_on_the_service_action_and_the_issuers_part() {
    for kind in Type::ALL {
        let all = kind.is_all_registrants();
        // Who is registered is a holder if all registrants are.
        for (issuer, key, is_holder, is_registered) in [
            (a(), KEY_A, true, true),
            (b(), KEY_B, all, true),
            (d(), 0, false, false),
        ] {
            let movement = Out::movement(key, 1, 1, &host("e"));
            for (out, passes) in [
                (register(key, 0xd4), true),
                (register_and_ignore(0xd4), true),
                (reserve(key, kind), is_holder),
                (release(key, kind), is_registered),
                (clear(key), is_registered),
                (preempt(key, KEY_C, kind), is_registered),
                (preempt_and_abort(key, KEY_C, kind), is_registered),
                (movement, is_holder && !all),
            ] {
                let mut unit = Unit::reserved(kind);
                if passes {
                    unit.good(&issuer, &out);
                } else {
                    unit.conflict(&issuer, &out);
                }
            }
        }
    }
}
