//! REGISTER AND MOVE.

use crate::pr::Type;
use crate::pr::testing::{
    KEY_A, KEY_B, KEY_C, Out, Unit, a, b, bad_byte, bad_cdb, c, host, nexus, port, register,
    reserve,
};
use crate::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};
use crate::scsi::sense::Sense;

const NEW_KEY: u64 = 0xd4;

/// REGISTER AND MOVE by A to host D at the first target port.
fn to_d() -> Out {
    Out::movement(KEY_A, NEW_KEY, 1, &host("d"))
}

fn all_ports_of(host: &str) -> TransportId {
    TransportId::iscsi(&format!("iqn.2026-11.example:{host}"), None).expect("an iSCSI name")
}

#[test]
fn move_without_a_reservation_is_refused() {
    Unit::with_three().check(&a(), &to_d(), bad_cdb(1, 4));
    // Before anything that is wrong with the list.
    Unit::with_three().check(&a(), &Out::new(0x07, KEY_A, 0), bad_cdb(1, 4));
}

#[test]
fn move_by_a_non_holder_conflicts() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    unit.conflict(&b(), &Out::movement(KEY_B, NEW_KEY, 1, &host("d")));
    unit.conflict(&a(), &Out::movement(KEY_B, NEW_KEY, 1, &host("d")));
    unit.conflict(&nexus("d", 1), &Out::movement(0, NEW_KEY, 1, &host("d")));
}

#[test]
fn reservation_of_all_registrants_cannot_be_moved() {
    for kind in [
        Type::WriteExclusiveAllRegistrants,
        Type::ExclusiveAccessAllRegistrants,
    ] {
        Unit::reserved(kind).conflict(&a(), &to_d());
        Unit::reserved(kind).conflict(&a(), &Out::new(0x07, KEY_A, 0));
    }
}

#[test]
fn move_registers_the_destination_and_makes_it_holder() {
    for kind in [1, 3, 5, 6].map(|code| Type::parse(code).expect("a type")) {
        let mut unit = Unit::reserved(kind);
        let d = nexus("d", 2);
        let change = unit.good(&a(), &Out::movement(KEY_A, NEW_KEY, 2, &host("d")));
        let registered = [
            (a(), KEY_A),
            (b(), KEY_B),
            (c(), KEY_C),
            (d.clone(), NEW_KEY),
        ];
        assert_eq!(unit.registered(), registered);
        assert_eq!(unit.reservation(), Some((kind, Some(d))));
        assert_eq!(unit.state.generation(), 4);
        assert_eq!(change.attentions, []);
    }
}

#[test]
fn move_with_unreg_removes_the_issuer() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let change = unit.good(&a(), &to_d().unreg());
    assert_eq!(
        unit.registered(),
        [(b(), KEY_B), (c(), KEY_C), (nexus("d", 1), NEW_KEY)]
    );
    assert_eq!(
        unit.reservation(),
        Some((Type::WriteExclusive, Some(nexus("d", 1))))
    );
    assert_eq!(change.attentions, []);
    unit.good(&nexus("d", 1), &reserve(NEW_KEY, Type::WriteExclusive));
}

#[test]
fn move_replaces_the_key_of_a_registered_destination() {
    let mut unit = Unit::reserved(Type::WriteExclusiveRegistrantsOnly);
    unit.good(&a(), &Out::movement(KEY_A, NEW_KEY, 1, &host("b")));
    assert_eq!(
        unit.registered(),
        [(a(), KEY_A), (b(), NEW_KEY), (c(), KEY_C)]
    );
    assert_eq!(
        unit.reservation(),
        Some((Type::WriteExclusiveRegistrantsOnly, Some(b())))
    );
}

#[test]
fn move_sets_aptpl() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    unit.good(&a(), &to_d().aptpl());
    assert!(unit.state.aptpl());
    unit.good(
        &nexus("d", 1),
        &Out::movement(NEW_KEY, KEY_A, 1, &host("a")),
    );
    assert!(!unit.state.aptpl());
}

#[test]
fn move_ignores_scope_type_and_what_follows_the_transport_id() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let mut out = to_d().scope_type(0xff);
    out.list[16] = 0xff;
    out.list[17] = 0xfc;
    out.list.extend([0xff; 9]);
    unit.good(&a(), &out);
    assert_eq!(
        unit.reservation(),
        Some((Type::WriteExclusive, Some(nexus("d", 1))))
    );
}

#[test]
fn transport_id_length_is_at_least_24_and_a_multiple_of_4() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    for length in [24, 25, 47] {
        unit.check(&a(), &to_d().length(length), bad_byte(20));
    }
    for length in [0_u32, 20, 23, 25, 26, 27] {
        let mut out = to_d();
        out.list[20..24].copy_from_slice(&length.to_be_bytes());
        unit.check(&a(), &out, bad_byte(20));
    }
}

#[test]
fn transport_id_that_is_not_there_whole_is_a_wrong_length() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let wrong_length = Sense::parameter_list_length_error();
    unit.check(&a(), &to_d().length(24 + 40), wrong_length);
    let mut out = to_d();
    out.list[20..24].copy_from_slice(&[0xff, 0xff, 0xff, 0xfc]);
    unit.check(&a(), &out, wrong_length);
}

#[test]
fn key_zero_is_refused() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    unit.check(&a(), &Out::movement(KEY_A, 0, 1, &host("d")), bad_byte(8));
    // Before the port, before the TransportID.
    unit.check(&a(), &Out::movement(KEY_A, 0, 0, &host("a")), bad_byte(8));
}

#[test]
fn issuers_own_initiator_port_is_refused_through_whatever_target_port() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    for relative in [0, 1, 2, 3] {
        unit.check(
            &a(),
            &Out::movement(KEY_A, NEW_KEY, relative, &host("a")),
            bad_byte(24),
        );
    }
}

#[test]
fn unknown_relative_target_port_is_refused() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    for relative in [0, 3, 0xffff] {
        unit.check(
            &a(),
            &Out::movement(KEY_A, NEW_KEY, relative, &host("d")),
            bad_byte(18),
        );
    }
}

#[test]
fn malformed_transport_id_is_refused() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let mut out = to_d();
    out.list[24] = 0x4a;
    unit.check(&a(), &out, bad_byte(24));
    let mut out = to_d();
    out.list[27] = 36; // ADDITIONAL LENGTH of the TransportID, 4 less than TRANSPORTID LENGTH has room for
    unit.check(&a(), &out, bad_byte(24));
}

#[test]
fn transport_id_is_of_the_protocol_of_the_destination_port() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let fc = TargetPort {
        protocol: Protocol::FibreChannel,
        name: "naa.1".into(),
    };
    unit.context.ports.add(&fc);
    unit.check(
        &a(),
        &Out::movement(KEY_A, NEW_KEY, 3, &host("d")),
        bad_byte(24),
    );
    let id = TransportId::FibreChannel(1);
    unit.check(&a(), &Out::movement(KEY_A, NEW_KEY, 1, &id), bad_byte(24));
    unit.good(&a(), &Out::movement(KEY_A, NEW_KEY, 3, &id));
}

#[test]
fn isid_is_no_matter_where_sessions_cannot_be_told_apart() {
    let whole = |name: &str| ItNexus {
        initiator_port: all_ports_of(name),
        target_port: port(1),
    };
    let mut unit = Unit::new();
    unit.good(&whole("a"), &register(0, KEY_A));
    unit.good(&whole("a"), &reserve(KEY_A, Type::WriteExclusive));
    for relative in [0, 1, 2] {
        let own = Out::movement(KEY_A, NEW_KEY, relative, &host("a"));
        unit.check(&whole("a"), &own, bad_byte(24));
    }
    unit.good(&whole("a"), &to_d().unreg());
    assert_eq!(unit.registered(), [(whole("d"), NEW_KEY)]);
    assert_eq!(
        unit.reservation(),
        Some((Type::WriteExclusive, Some(whole("d"))))
    );
}

#[test]
fn transport_id_must_fill_the_length_that_is_given_for_it() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let mut out = to_d();
    out.list.extend([0; 4]);
    // TRANSPORTID LENGTH takes them in: 4 more.
    out.list[23] += 4;
    unit.check(&a(), &out, bad_byte(24));
    // Beyond it they do not matter.
    out.list[23] -= 4;
    unit.good(&a(), &out);
}

#[test]
fn iscsi_name_alone_must_stand_for_one_port() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    let out = |host: &str| Out::movement(KEY_A, NEW_KEY, 1, &all_ports_of(host));
    unit.check(&a(), &out("d"), bad_byte(24));
    unit.check(&a(), &out("a"), bad_byte(24));
    unit.context.nexuses.insert(nexus("d", 2));
    unit.check(&a(), &out("d"), bad_byte(24));
    unit.context.nexuses.insert(nexus("d", 1));
    let mut two = unit.clone();
    let mut second = nexus("d", 1);
    second.initiator_port = TransportId::iscsi("iqn.2026-11.example:d", Some(9)).expect("a name");
    two.context.nexuses.insert(second);
    two.check(&a(), &out("d"), bad_byte(24));
    unit.good(&a(), &out("d"));
    assert_eq!(
        unit.reservation(),
        Some((Type::WriteExclusive, Some(nexus("d", 1))))
    );
}
