//! REGISTER of more than the issuer: SPEC_I_PT and ALL_TG_PT.

use crate::pr::testing::{
    KEY_A, KEY_B, KEY_C, Out, Unit, a, a2, b, bad_byte, c, host, nexus, port, register,
    register_and_ignore, reserve,
};
use crate::pr::{Reservations, Type};
use crate::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};
use crate::scsi::sense::Sense;

/// Where the second and third TransportIDs of hosts with short names are in the parameter list: each has 44 bytes.
const SECOND: u16 = 28 + 44;
const THIRD: u16 = 28 + 88;

fn wrong_length() -> Sense {
    Sense::parameter_list_length_error()
}

/// An iSCSI initiator without an ISID: all its ports.
fn all_ports_of(host: &str) -> TransportId {
    TransportId::iscsi(&format!("iqn.2026-11.example:{host}"), None).expect("an iSCSI name")
}

#[test]
fn spec_i_pt_registers_the_issuer_and_all_that_are_listed_at_its_target_port() {
    let mut unit = Unit::new();
    let change = unit.good(
        &a(),
        &register(0, KEY_A).listed(&[host("b"), host("c"), host("d")]),
    );
    let expected = [
        (a(), KEY_A),
        (b(), KEY_A),
        (c(), KEY_A),
        (nexus("d", 1), KEY_A),
    ];
    assert_eq!(unit.registered(), expected);
    assert_eq!(unit.state.generation(), 1);
    assert_eq!(change.attentions, []);
}

#[test]
fn spec_i_pt_with_an_empty_list_registers_the_issuer() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A).listed(&[]));
    assert_eq!(unit.registered(), [(a(), KEY_A)]);
}

#[test]
fn spec_i_pt_counts_a_port_that_is_listed_twice_once() {
    let mut unit = Unit::new();
    unit.good(
        &a(),
        &register(0, KEY_A).listed(&[host("b"), host("a"), host("b")]),
    );
    assert_eq!(unit.registered(), [(a(), KEY_A), (b(), KEY_A)]);
}

#[test]
fn spec_i_pt_registers_nobody_if_one_is_malformed() {
    let mut unit = Unit::new();
    let mut ids: Vec<u8> = ["b", "c", "d", "e"]
        .iter()
        .flat_map(|name| host(name).encode())
        .collect();
    ids[88] = 0x41; // The third claims to be of the Fibre Channel, in format 01b.
    unit.check(
        &a(),
        &register(0, KEY_A).bytes_listed(&ids),
        bad_byte(THIRD),
    );
    assert_eq!(unit.state, Reservations::default());
}

#[test]
fn spec_i_pt_list_must_be_there_whole() {
    let mut unit = Unit::new();
    let out = register(0, KEY_A).listed(&[host("b")]);
    unit.check(&a(), &register(0, KEY_A).spec_i_pt(), wrong_length());
    for length in [25, 27, 28, 71] {
        unit.check(&a(), &out.clone().length(length), wrong_length());
    }
    let mut out = out;
    out.list[24..28].copy_from_slice(&u32::MAX.to_be_bytes());
    unit.check(&a(), &out, wrong_length());
}

#[test]
fn spec_i_pt_ignores_what_follows_the_list() {
    let mut unit = Unit::new();
    let mut out = register(0, KEY_A).listed(&[host("b")]);
    out.list.extend([0xff; 13]);
    unit.good(&a(), &out);
    assert_eq!(unit.registered(), [(a(), KEY_A), (b(), KEY_A)]);
}

#[test]
fn transport_ids_must_fill_the_spec_i_pt_list() {
    let mut unit = Unit::new();
    let mut ids = host("b").encode();
    ids.extend(&host("c").encode()[..40]);
    unit.check(&a(), &register(0, KEY_A).bytes_listed(&ids), bad_byte(24));
    unit.check(
        &a(),
        &register(0, KEY_A).bytes_listed(&[0x05]),
        bad_byte(24),
    );
    // ADDITIONAL LENGTH FFFCh.
    let mut ids = host("b").encode();
    ids[2..4].copy_from_slice(&[0xff, 0xfc]);
    unit.check(&a(), &register(0, KEY_A).bytes_listed(&ids), bad_byte(24));
}

/// TransportIDs that are wrong in one way each.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    // Format 01b, iSCSI.
    let iscsi = |additional: [u8; 2], text: &[u8]| {
        let mut bytes = vec![0x45, 0];
        bytes.extend(additional);
        bytes.extend(text);
        bytes
    };
    let long = [b"iqn.".as_slice(), &[b'x'; 296], b",i,0x1\0\0"].concat();
    vec![
        (
            "a length that is no multiple of 4",
            iscsi([0, 22], b"iqn.2026-11.a:b,i,0x1\0\0\0"),
        ),
        (
            "a length below 20",
            iscsi([0, 16], b"iqn.a:b,i,0x1\0\0\0\0\0\0\0"),
        ),
        ("no NUL", iscsi([0, 20], b"iqn.2026-1.a:b,i,0x1")),
        (
            "NUL after the separator",
            iscsi([0, 24], b"iqn.2026-11.a:b,i,0x\0\0\0\0"),
        ),
        (
            "nothing after the separator",
            iscsi([0, 20], b"iqn.2026-11.a:b,i,0x"),
        ),
        ("a name of 300 bytes", iscsi([0x01, 0x34], &long)),
        ("no ISID", iscsi([0, 20], b"iqn.2026-11.a:b\0\0\0\0\0")),
        (
            "a control character",
            iscsi([0, 24], b"iqn.2026-11.\x1b[2J,i,0x1\0\0"),
        ),
        (
            "no UTF-8",
            iscsi([0, 24], b"iqn.2026-11.a:\xff,i,0x1\0\0\0"),
        ),
    ]
}

/// Makes the initiator known of which one of them has no ISID.
fn know(unit: &mut Unit) {
    let initiator_port = TransportId::iscsi("iqn.2026-11.a:b", None).expect("a name");
    unit.context.nexuses.insert(ItNexus {
        initiator_port,
        target_port: port(1),
    });
}

#[test]
fn malformed_transport_id_registers_nobody() {
    for (what, id) in malformed() {
        let mut unit = Unit::new();
        know(&mut unit);
        let mut ids = host("b").encode();
        ids.extend(&id);
        let out = register(0, KEY_A).bytes_listed(&ids);
        let refused = unit.send(&a(), &out).err();
        assert_eq!(refused, Some(bad_byte(SECOND).into()), "{what}");
        assert_eq!(unit.state, Reservations::default());
    }
}

#[test]
fn malformed_transport_id_is_no_destination() {
    for (what, id) in malformed() {
        let mut unit = Unit::reserved(Type::WriteExclusive);
        know(&mut unit);
        let mut out = Out::new(0x07, KEY_A, KEY_B);
        out.list[19] = 1; // RELATIVE TARGET PORT IDENTIFIER
        let length = u16::try_from(id.len()).expect("short");
        out.list[22..24].copy_from_slice(&length.to_be_bytes());
        out.list.extend(&id);
        let refused = unit.send(&a(), &out).err();
        assert_eq!(refused, Some(bad_byte(24).into()), "{what}");
    }
}

#[test]
fn isid_is_no_matter_where_sessions_cannot_be_told_apart() {
    let whole = |name: &str| ItNexus {
        initiator_port: all_ports_of(name),
        target_port: port(1),
    };
    // The issuer is such an initiator: so are those it names.
    let mut unit = Unit::new();
    let out = register(0, KEY_A).listed(&[host("b"), host("a"), host("b")]);
    unit.good(&whole("a"), &out);
    assert_eq!(
        unit.registered(),
        [(whole("a"), KEY_A), (whole("b"), KEY_A)]
    );
    // The other is known to be one, and only at that target port.
    let mut unit = Unit::new();
    unit.context.nexuses.insert(whole("b"));
    unit.good(&a(), &register(0, KEY_A).listed(&[host("b"), host("c")]));
    let registered = [(a(), KEY_A), (whole("b"), KEY_A), (c(), KEY_A)];
    assert_eq!(unit.registered(), registered);
    unit.good(&a2(), &register(0, KEY_B).listed(&[host("b")]));
    assert_eq!(unit.registered()[4], (nexus("b", 2), KEY_B));
    // It is refused if it is registered, as any other.
    let mut unit = Unit::new();
    unit.good(&whole("b"), &register(0, KEY_B));
    unit.check(&a(), &register(0, KEY_A).listed(&[host("b")]), bad_byte(28));
}

#[test]
fn spec_i_pt_list_is_of_the_protocol_of_the_target_port() {
    let mut unit = Unit::new();
    let ids = [host("b"), TransportId::FibreChannel(1)];
    unit.check(&a(), &register(0, KEY_A).listed(&ids), bad_byte(SECOND));
}

#[test]
fn spec_i_pt_refuses_whom_it_finds_registered() {
    let mut unit = Unit::new();
    unit.good(&b(), &register(0, KEY_A));
    let before = unit.state.clone();
    unit.check(
        &a(),
        &register(0, KEY_A).listed(&[host("c"), host("b")]),
        bad_byte(SECOND),
    );
    assert_eq!(unit.state, before);
}

#[test]
fn pointer_to_a_transport_id_beyond_its_reach_is_to_the_list() {
    let mut unit = Unit::new();
    let mut ids = host("b").encode().repeat(1489); // 65,516 bytes: the next is at byte 65,544
    ids.extend([0x41; 20]);
    unit.check(&a(), &register(0, KEY_A).bytes_listed(&ids), bad_byte(24));
}

#[test]
fn iscsi_name_alone_stands_for_every_known_port_of_the_initiator() {
    let mut unit = Unit::new();
    let mut second = b();
    second.initiator_port = TransportId::iscsi("iqn.2026-11.example:b", Some(9)).expect("a name");
    unit.context
        .nexuses
        .extend([b(), second.clone(), nexus("b", 2), c()]);
    unit.good(&a(), &register(0, KEY_A).listed(&[all_ports_of("b")]));
    let registered = unit.registered();
    assert_eq!(registered.len(), 3);
    assert!(registered.contains(&(b(), KEY_A)));
    assert!(registered.contains(&(second, KEY_A)));
}

#[test]
fn iscsi_name_of_which_no_port_is_known_is_refused() {
    let mut unit = Unit::new();
    unit.context.nexuses.insert(nexus("b", 2));
    let ids = [host("c"), all_ports_of("b")];
    unit.check(&a(), &register(0, KEY_A).listed(&ids), bad_byte(SECOND));
}

#[test]
fn all_tg_pt_registers_at_every_target_port_of_the_protocol() {
    let mut unit = Unit::new();
    let fc = TargetPort {
        protocol: Protocol::FibreChannel,
        name: "naa.1".into(),
    };
    unit.context.ports.add(&fc);
    unit.context.ports.add(&port(4));
    unit.good(&a2(), &register(0, KEY_A).all_tg_pt());
    assert_eq!(
        unit.registered(),
        [(a2(), KEY_A), (a(), KEY_A), (nexus("a", 4), KEY_A)]
    );
    assert_eq!(unit.state.generation(), 1);
}

#[test]
fn all_tg_pt_over_four_target_ports_counts_once() {
    let mut unit = Unit::new();
    unit.context.ports.add(&port(3));
    unit.context.ports.add(&port(4));
    let change = unit.good(&a(), &register(0, KEY_A).all_tg_pt());
    let registered = [1, 2, 3, 4].map(|number| (nexus("a", number), KEY_A));
    assert_eq!(unit.registered(), registered);
    assert_eq!(unit.state.generation(), 1);
    assert_eq!(change.attentions, []);
}

#[test]
fn all_tg_pt_and_spec_i_pt_register_every_listed_port_at_every_target_port() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A).listed(&[host("b")]).all_tg_pt());
    let registered = [
        (a(), KEY_A),
        (a2(), KEY_A),
        (b(), KEY_A),
        (nexus("b", 2), KEY_A),
    ];
    assert_eq!(unit.registered(), registered);
    assert_eq!(unit.state.generation(), 1);
}

#[test]
fn all_tg_pt_and_spec_i_pt_refuse_whom_they_find_registered_at_another_port() {
    let mut unit = Unit::new();
    unit.good(&nexus("b", 2), &register(0, KEY_B));
    unit.check(
        &a(),
        &register(0, KEY_A).listed(&[host("b")]).all_tg_pt(),
        bad_byte(28),
    );
    unit.good(&a(), &register(0, KEY_A).listed(&[host("b")]));
}

#[test]
fn registration_at_all_ports_is_one_of_each_port() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A).all_tg_pt());
    unit.good(&a2(), &register(KEY_A, 0));
    assert_eq!(unit.registered(), [(a(), KEY_A)]);
}

#[test]
fn all_tg_pt_conflicts_if_one_port_has_another_key() {
    let mut unit = Unit::new();
    unit.good(&a2(), &register(0, KEY_B));
    for new_key in [0, KEY_A] {
        unit.conflict(&a(), &register(0, new_key).all_tg_pt());
    }
    unit.good(&a(), &register(0, KEY_A));
    let before = unit.state.clone();
    for new_key in [0, KEY_C] {
        unit.conflict(&a(), &register(KEY_A, new_key).all_tg_pt());
        unit.conflict(&a(), &register(KEY_B, new_key).all_tg_pt());
    }
    assert_eq!(unit.state, before);
    unit.good(&a(), &register_and_ignore(KEY_C).all_tg_pt());
    assert_eq!(unit.registered(), [(a2(), KEY_C), (a(), KEY_C)]);
}

#[test]
fn all_tg_pt_changes_the_key_at_every_port_and_registers_where_there_is_none() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A));
    unit.good(&a(), &register(KEY_A, KEY_B).all_tg_pt());
    assert_eq!(unit.registered(), [(a(), KEY_B), (a2(), KEY_B)]);
}

#[test]
fn all_tg_pt_unregisters_at_every_port_where_there_is_a_registration() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A));
    unit.good(&b(), &register(0, KEY_B));
    unit.good(&a(), &register(KEY_A, 0).all_tg_pt());
    assert_eq!(unit.registered(), [(b(), KEY_B)]);
    unit.good(&a(), &register(0, KEY_A).all_tg_pt());
    unit.good(&a(), &register(KEY_A, 0).all_tg_pt());
    assert_eq!(unit.registered(), [(b(), KEY_B)]);
    assert_eq!(unit.state.generation(), 5);
}

#[test]
fn all_tg_pt_unregisters_a_holder_at_another_port() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A).all_tg_pt());
    unit.good(&b(), &register(0, KEY_B));
    unit.good(&a2(), &reserve(KEY_A, Type::WriteExclusiveRegistrantsOnly));
    assert_eq!(
        unit.reservation(),
        Some((Type::WriteExclusiveRegistrantsOnly, Some(a2())))
    );
    let change = unit.good(&a(), &register_and_ignore(0).all_tg_pt());
    assert_eq!(unit.reservation(), None);
    let released = Sense::reservations_released();
    assert_eq!(change.attentions, crate::pr::testing::told([b()], released));
}

#[test]
fn two_sessions_of_an_initiator_are_two_nexuses() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A));
    let mut other = a();
    other.initiator_port = TransportId::iscsi("iqn.2026-11.example:a", Some(2)).expect("a name");
    unit.conflict(&other, &reserve(KEY_A, Type::WriteExclusive));
    unit.good(&other, &register(0, KEY_A));
    assert_eq!(unit.registered(), [(a(), KEY_A), (other, KEY_A)]);
}

#[test]
fn spec_i_pt_can_be_limited_to_initiators_that_are_known() {
    let mut unit = Unit::new();
    unit.context.spec_i_pt_known_only = true;
    unit.context.nexuses = [a(), b()].into();
    let stranger = register(0, KEY_A).listed(&[host("b"), host("c")]);
    unit.check(&a(), &stranger, bad_byte(SECOND));
    unit.good(&a(), &register(0, KEY_A).listed(&[host("b")]));
    assert_eq!(unit.registered(), [(a(), KEY_A), (b(), KEY_A)]);
}
