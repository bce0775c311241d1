use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{ParseError, TransportId};

/// An iSCSI TransportID with this text in the least length that holds it and a NUL, at least 24 bytes.
fn iscsi(format: u8, text: &[u8]) -> Vec<u8> {
    let additional = (text.len() + 1).next_multiple_of(4).max(20);
    let mut bytes = vec![(format << 6) | 0x05, 0];
    bytes.extend(u16::try_from(additional).expect("short").to_be_bytes());
    bytes.extend(text);
    bytes.resize(4 + additional, 0);
    bytes
}

fn error(bytes: &[u8]) -> Option<ParseError> {
    TransportId::parse(bytes).err()
}

#[test]
fn fibre_channel_has_the_port_name_at_byte_8() {
    let bytes = [
        0x00, 0, 0, 0, 0, 0, 0, 0, // format 00b, FCP
        0x50, 0x01, 0x43, 0x80, 0x12, 0x34, 0x56, 0x78, // N_Port_Name
        0, 0, 0, 0, 0, 0, 0, 0, // reserved
    ];
    let id = TransportId::FibreChannel(0x5001_4380_1234_5678);
    assert_eq!(TransportId::parse(&bytes), Ok((id.clone(), 24)));
    assert_eq!(id.encode(), bytes);
}

#[test]
fn sbp_has_the_eui_64_at_byte_8() {
    let bytes = [
        0x03, 0, 0, 0, 0, 0, 0, 0, // format 00b, SBP
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, // EUI-64
        0, 0, 0, 0, 0, 0, 0, 0, // reserved
    ];
    let id = TransportId::Sbp(0x0011_2233_4455_6677);
    assert_eq!(TransportId::parse(&bytes), Ok((id.clone(), 24)));
    assert_eq!(id.encode(), bytes);
}

#[test]
fn srp_has_the_port_identifier_at_byte_8() {
    let bytes = [
        0x04, 0, 0, 0, 0, 0, 0, 0, // format 00b, SRP
        0xfe, 0x80, 0, 0, 0, 0, 0, 1, 0, 0x02, 0xc9, 3, 0, 4, 5,
        6, // initiator port identifier
    ];
    let id = TransportId::Srp([0xfe, 0x80, 0, 0, 0, 0, 0, 1, 0, 0x02, 0xc9, 3, 0, 4, 5, 6]);
    assert_eq!(TransportId::parse(&bytes), Ok((id.clone(), 24)));
    assert_eq!(id.encode(), bytes);
}

#[test]
fn sas_has_the_address_at_byte_4() {
    let bytes = [
        0x06, 0, 0, 0, // format 00b, SAS
        0x50, 0x00, 0xc5, 0x00, 0x01, 0x02, 0x03, 0x04, // SAS address
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // reserved
    ];
    let id = TransportId::Sas(0x5000_c500_0102_0304);
    assert_eq!(TransportId::parse(&bytes), Ok((id.clone(), 24)));
    assert_eq!(id.encode(), bytes);
}

#[test]
fn iscsi_without_an_isid_has_format_00b() {
    let id = TransportId::iscsi("iqn.2026-11.a:b", None).expect("a name");
    let mut bytes = vec![0x05, 0, 0, 20]; // format 00b, iSCSI; ADDITIONAL LENGTH
    bytes.extend(b"iqn.2026-11.a:b\0\0\0\0\0"); // 15 characters, NUL to 20
    assert_eq!(id.encode(), bytes);
    assert_eq!(TransportId::parse(&bytes), Ok((id, 24)));
}

#[test]
fn iscsi_with_an_isid_has_format_01b_and_twelve_lower_case_digits() {
    let id = TransportId::iscsi("iqn.2026-11.a:b", Some(0x0002_3dab_0001)).expect("a name");
    let mut bytes = vec![0x45, 0, 0, 36]; // format 01b, iSCSI; ADDITIONAL LENGTH
    bytes.extend(b"iqn.2026-11.a:b,i,0x00023dab0001\0\0\0\0"); // 32 characters, NUL to 36
    assert_eq!(id.encode(), bytes);
    assert_eq!(TransportId::parse(&bytes), Ok((id, 40)));
}

#[test]
fn iscsi_text_always_ends_in_a_nul() {
    // 23 characters need 24 bytes, 24 characters need 28.
    for (name, additional) in [
        ("iqn.2026-11.example:abc", 24),
        ("iqn.2026-11.example:abcd", 28),
    ] {
        let bytes = TransportId::iscsi(name, None).expect("a name").encode();
        assert_eq!(bytes[3], additional);
        assert_eq!(bytes.len(), 4 + usize::from(additional));
    }
}

#[test]
fn longest_iscsi_transport_id_has_248_bytes() {
    let name = format!("iqn.{}", "x".repeat(219));
    let id = TransportId::iscsi(&name, Some(1)).expect("223 bytes");
    assert_eq!(id.encode().len(), 248);
    assert_eq!(TransportId::parse(&id.encode()), Ok((id, 248)));
    assert_eq!(
        TransportId::iscsi(&(name + "x"), None),
        Err(ParseError::NotAnIscsiName)
    );
}

#[test]
fn isid_of_one_to_twelve_digits_of_either_case_is_compared_as_a_number() {
    let id = TransportId::iscsi("iqn.x", Some(0xab)).expect("a name");
    for text in ["iqn.x,i,0xab", "iqn.x,i,0xAB", "iqn.x,i,0x0000000000Ab"] {
        assert_eq!(
            TransportId::parse(&iscsi(1, text.as_bytes())).map(|parsed| parsed.0),
            Ok(id.clone())
        );
    }
}

#[test]
fn malformed_isid_is_refused() {
    let texts = [
        "iqn.x,i,0x",
        "iqn.x,i,0x1234567890123",
        "iqn.x,i,0x12g4",
        "iqn.x,i,0x+1",
        "iqn.x",
    ];
    for text in texts {
        assert_eq!(
            error(&iscsi(1, text.as_bytes())),
            Some(ParseError::NotAnIsid),
            "{text}"
        );
    }
    // The first separator ends the name.
    assert_eq!(
        error(&iscsi(1, b"iqn.x,i,0x1,i,0x2")),
        Some(ParseError::NotAnIsid)
    );
}

#[test]
fn iscsi_names_are_folded_to_lower_case() {
    let (id, _) = TransportId::parse(&iscsi(0, b"IQN.2026-11.Example:A")).expect("well-formed");
    assert_eq!(id.to_string(), "iqn.2026-11.example:a");
}

#[test]
fn what_is_no_iscsi_name_is_refused() {
    let names: [&[u8]; 8] = [
        b"",
        b"iqn",
        b"ipn.x",
        b"iqn.a b",
        b"iqn.a\x07",
        b"iqn.a,b",
        b"iqn.\xff\xfe",
        b"iqn.\xc2\x85",
    ];
    for name in names {
        assert_eq!(
            error(&iscsi(0, name)),
            Some(ParseError::NotAnIscsiName),
            "{name:?}"
        );
    }
    assert_eq!(
        error(&iscsi(0, b"iqn.a,i,0x1")),
        Some(ParseError::NotAnIscsiName)
    );
    let long = [b"iqn.".as_slice(), &[b'x'; 296]].concat();
    assert_eq!(error(&iscsi(0, &long)), Some(ParseError::NotAnIscsiName));
}

#[test]
fn iscsi_text_ends_at_the_first_nul() {
    let (id, used) =
        TransportId::parse(&iscsi(0, b"iqn.x\0garbage,i,0x and more")).expect("well-formed");
    assert_eq!((id.to_string().as_str(), used), ("iqn.x", 32));
}

#[test]
fn iscsi_without_a_nul_is_refused() {
    let mut bytes = vec![0x05, 0, 0, 20];
    bytes.extend(b"iqn.2026-11.exampleab");
    bytes.truncate(24);
    assert_eq!(error(&bytes), Some(ParseError::WrongLength));
}

#[test]
fn iscsi_additional_length_is_at_least_20_and_a_multiple_of_4() {
    for additional in [0_u16, 4, 16, 19, 21, 22, 0xfffd] {
        let mut bytes = iscsi(0, b"iqn.x");
        bytes[2..4].copy_from_slice(&additional.to_be_bytes());
        assert_eq!(error(&bytes), Some(ParseError::WrongLength), "{additional}");
    }
}

#[test]
fn transport_id_that_the_list_cuts_is_truncated() {
    assert_eq!(error(&[]), Some(ParseError::Truncated));
    for protocol in [0x00, 0x03, 0x04, 0x06] {
        let mut bytes = [0; 23];
        bytes[0] = protocol;
        assert_eq!(error(&bytes), Some(ParseError::Truncated));
    }
    let mut bytes = iscsi(0, b"iqn.x");
    bytes[2..4].copy_from_slice(&0xfffc_u16.to_be_bytes());
    assert_eq!(error(&bytes), Some(ParseError::Truncated));
    assert_eq!(error(&[0x05, 0, 0]), Some(ParseError::Truncated));
}

#[test]
fn other_protocols_and_formats_are_unknown() {
    let unknown = [
        0x01, 0x02, 0x07, 0x08, 0x09, 0x0a, 0x0f, 0x40, 0x43, 0x84, 0xc6,
    ];
    for first in unknown {
        let mut bytes = [0; 24];
        bytes[0] = first;
        assert_eq!(
            error(&bytes),
            Some(ParseError::UnknownFormat),
            "{first:02x}"
        );
    }
    assert_eq!(error(&iscsi(2, b"iqn.x")), Some(ParseError::UnknownFormat));
}

#[test]
fn reserved_bits_are_ignored() {
    let mut bytes = TransportId::FibreChannel(7).encode();
    bytes[0] |= 0x30;
    bytes[1] = 0xff;
    assert_eq!(
        TransportId::parse(&bytes),
        Ok((TransportId::FibreChannel(7), 24))
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        first in any::<u8>(),
        additional in 0_u16..64,
        rest in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut bytes = vec![first, 0];
        bytes.extend(additional.to_be_bytes());
        bytes.extend(rest);
        if let Ok((id, used)) = TransportId::parse(&bytes) {
            prop_assert!(used <= bytes.len());
            prop_assert_eq!(TransportId::parse(&id.encode()).map(|parsed| parsed.0), Ok(id));
        }
    }

    #[test]
    fn iscsi_transport_ids_come_back(name in "iqn\\.[ -~a-zß-ö]{0,40}", isid in any::<Option<u32>>()) {
        if let Ok(id) = TransportId::iscsi(&name, isid.map(u64::from)) {
            let bytes = id.encode();
            prop_assert_eq!(TransportId::parse(&bytes), Ok((id, bytes.len())));
        }
    }
}
