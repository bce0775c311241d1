use super::super::testing::{
    KEY_A, KEY_B, Unit, a, b, bad_cdb, clear, port, register, register_and_ignore, reserve,
};
use super::super::{REGISTRANTS_MAX, Registrant, Registrants, Reservations, Type};
use super::{answer, capabilities, full_status, keys, reservation};
use crate::scsi::nexus::{ItNexus, Protocol, TargetPort, TargetPorts, TransportId};

/// A nexus of the Fibre Channel, whose TransportID has 24 bytes.
fn fc(name: u64, port: &str) -> ItNexus {
    ItNexus {
        initiator_port: TransportId::FibreChannel(name),
        target_port: TargetPort {
            protocol: Protocol::FibreChannel,
            name: port.into(),
        },
    }
}

#[test]
fn read_keys_reports_every_key_in_order_with_repetitions() {
    let mut unit = Unit::new();
    unit.good(&b(), &register(0, KEY_B));
    unit.good(&a(), &register(0, KEY_B));
    unit.good(&b(), &register(KEY_B, 0x0123_4567_89ab_cdef));
    let expected = [
        0, 0, 0, 3, // PRGENERATION
        0, 0, 0, 16, // ADDITIONAL LENGTH
        0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, // B, registered first
        0, 0, 0, 0, 0, 0, 0, 0xb2, // A
    ];
    assert_eq!(keys(&unit.state), expected);
    assert_eq!(
        answer(0x00, &unit.state, &unit.context.ports),
        Ok(expected.to_vec())
    );
}

#[test]
fn read_keys_of_nobody_is_a_header() {
    assert_eq!(keys(&Reservations::default()), [0; 8]);
}

#[test]
fn read_keys_can_report_all_registrants_that_there_can_be() {
    let list = (1..=u64::from(REGISTRANTS_MAX)).map(|key| Registrant {
        nexus: fc(key, "p").into(),
        key,
    });
    let registrants = Registrants::from(list.collect::<Vec<_>>());
    let state = Reservations {
        registrants: registrants.into(),
        ..Reservations::default()
    };
    let bytes = keys(&state);
    assert_eq!(bytes.len(), 65_528);
    assert_eq!(bytes[4..8], [0x00, 0x00, 0xff, 0xf0]); // 8 * 8,190
}

#[test]
fn read_reservation_without_one_is_a_header() {
    let unit = Unit::with_three();
    assert_eq!(reservation(&unit.state), [0, 0, 0, 3, 0, 0, 0, 0]);
}

#[test]
fn read_reservation_reports_the_key_of_the_holder_and_the_type() {
    for kind in Type::ALL {
        let unit = Unit::reserved(kind);
        let key = if kind.code() >= 7 { 0 } else { 0xa1 };
        let expected = [
            0,
            0,
            0,
            3, // PRGENERATION
            0,
            0,
            0,
            16, // ADDITIONAL LENGTH
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            key, // RESERVATION KEY
            0,
            0,
            0,
            0,           // obsolete
            0,           // reserved
            kind.code(), // SCOPE, TYPE
            0,
            0, // obsolete
        ];
        assert_eq!(reservation(&unit.state), expected);
        assert_eq!(
            answer(0x01, &unit.state, &unit.context.ports),
            Ok(expected.to_vec())
        );
    }
}

#[test]
fn read_reservation_reports_the_key_that_the_holder_has_now() {
    let mut unit = Unit::reserved(Type::WriteExclusive);
    unit.good(&a(), &register(KEY_A, 0xd4));
    let expected = [
        0, 0, 0, 4, // PRGENERATION
        0, 0, 0, 16, // ADDITIONAL LENGTH
        0, 0, 0, 0, 0, 0, 0, 0xd4, // RESERVATION KEY
        0, 0, 0, 0, // obsolete
        0, 1, // reserved; SCOPE, TYPE
        0, 0, // obsolete
    ];
    assert_eq!(reservation(&unit.state), expected);
}

#[test]
fn report_capabilities_says_what_is_supported() {
    let mut expected = [
        0x00, 0x08, // LENGTH
        0x1d, // CRH, SIP_C, ATP_C, PTPL_C
        0xc0, // TMV, ALLOW COMMANDS 100b, PTPL_A off
        0xea, // WR_EX_AR, EX_AC_RO, WR_EX_RO, EX_AC, WR_EX
        0x01, // EX_AC_AR
        0x00, 0x00, // reserved
    ];
    let mut unit = Unit::new();
    assert_eq!(capabilities(&unit.state), expected);
    unit.good(&a(), &register(0, KEY_A).aptpl());
    expected[3] = 0xc1; // PTPL_A on
    assert_eq!(
        answer(0x02, &unit.state, &unit.context.ports),
        Ok(expected.to_vec())
    );
}

#[test]
fn clear_leaves_aptpl_in_the_capabilities() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A).aptpl());
    unit.good(&a(), &clear(KEY_A));
    let expected = [
        0x00, 0x08, // LENGTH
        0x1d, // CRH, SIP_C, ATP_C, PTPL_C
        0xc1, // TMV, ALLOW COMMANDS 100b, PTPL_A on
        0xea, 0x01, // types
        0x00, 0x00, // reserved
    ];
    assert_eq!(capabilities(&unit.state), expected);
}

#[test]
fn full_status_of_more_than_can_be_sent_tells_its_whole_length() {
    // 65,527 bytes of descriptors can be: 1,365 of 48 bytes.
    for (registrants, additional_length, sent) in [
        (1_365, [0, 0, 0xff, 0xf0], 65_528),
        (1_366, [0, 1, 0x00, 0x20], 65_535),
    ] {
        let list = (1..=registrants).map(|name| Registrant {
            nexus: fc(name, "p").into(),
            key: 1,
        });
        let registrants = Registrants::from(list.collect::<Vec<_>>());
        let state = Reservations {
            registrants: registrants.into(),
            ..Reservations::default()
        };
        let bytes = full_status(&state, &TargetPorts::default());
        assert_eq!(bytes[4..8], additional_length);
        assert_eq!(crate::scsi::truncate(bytes, 0xffff).len(), sent);
    }
}

#[test]
fn full_status_has_a_descriptor_for_every_nexus() {
    let mut unit = Unit::new();
    let (first, second) = (fc(0x5001, "p1"), fc(0x5002, "p2"));
    unit.context.ports = TargetPorts::default();
    unit.context.ports.add(&first.target_port);
    unit.context.ports.add(&second.target_port);
    unit.good(&first, &register(0, KEY_A));
    unit.good(&second, &register(0, KEY_B));
    unit.good(
        &second,
        &reserve(KEY_B, Type::ExclusiveAccessRegistrantsOnly),
    );
    let expected = [
        0, 0, 0, 2, // PRGENERATION
        0, 0, 0, 96, // ADDITIONAL LENGTH
        0, 0, 0, 0, 0, 0, 0, 0xa1, // RESERVATION KEY
        0, 0, 0, 0, // reserved
        0, 0, // ALL_TG_PT, R_HOLDER; SCOPE, TYPE
        0, 0, 0, 0, // reserved
        0, 1, // RELATIVE TARGET PORT IDENTIFIER
        0, 0, 0, 24, // ADDITIONAL DESCRIPTOR LENGTH
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x01, 0, 0, 0, 0, 0, 0, 0,
        0, // TransportID
        0, 0, 0, 0, 0, 0, 0, 0xb2, // RESERVATION KEY
        0, 0, 0, 0, // reserved
        1, 6, // R_HOLDER; TYPE
        0, 0, 0, 0, // reserved
        0, 2, // RELATIVE TARGET PORT IDENTIFIER
        0, 0, 0, 24, // ADDITIONAL DESCRIPTOR LENGTH
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0, 0,
        0, // TransportID
    ];
    assert_eq!(full_status(&unit.state, &unit.context.ports), expected);
    assert_eq!(
        answer(0x03, &unit.state, &unit.context.ports),
        Ok(expected.to_vec())
    );
}

#[test]
fn full_status_of_an_iscsi_registrant_has_its_name_and_isid() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A));
    let bytes = full_status(&unit.state, &unit.context.ports);
    assert_eq!(bytes[4..8], [0, 0, 0, 68]); // ADDITIONAL LENGTH: one descriptor
    assert_eq!(bytes[28..32], [0, 0, 0, 44]); // ADDITIONAL DESCRIPTOR LENGTH
    assert_eq!(bytes[32..36], [0x45, 0, 0, 40]); // format 01b, iSCSI; ADDITIONAL LENGTH
    assert_eq!(&bytes[36..], b"iqn.2026-11.example:a,i,0x00023d000001\0\0");
}

#[test]
fn full_status_marks_every_registrant_as_holder_of_an_all_registrants_reservation() {
    for kind in [
        Type::WriteExclusiveAllRegistrants,
        Type::ExclusiveAccessAllRegistrants,
    ] {
        let unit = Unit::reserved(kind);
        let bytes = full_status(&unit.state, &unit.context.ports);
        assert_eq!(bytes.len(), 8 + 3 * 68);
        for descriptor in bytes[8..].chunks(68) {
            assert_eq!(descriptor[12..14], [1, kind.code()]);
        }
    }
}

#[test]
fn full_status_gives_a_port_that_is_gone_the_number_zero() {
    let mut unit = Unit::new();
    unit.good(&a(), &register_and_ignore(KEY_A));
    assert_eq!(
        full_status(&unit.state, &TargetPorts::default())[26..28],
        [0, 0]
    );
    let mut ports = TargetPorts::default();
    ports.add(&port(9));
    assert_eq!(full_status(&unit.state, &ports)[26..28], [0, 0]);
    ports.add(&port(1));
    assert_eq!(full_status(&unit.state, &ports)[26..28], [0, 2]);
}

#[test]
fn unknown_service_actions_are_refused() {
    let unit = Unit::new();
    for service_action in 0x04..=0xff {
        let refused = answer(service_action, &unit.state, &unit.context.ports);
        assert_eq!(refused, Err(bad_cdb(1, 4)));
    }
}
