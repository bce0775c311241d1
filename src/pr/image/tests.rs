use std::sync::Arc;

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{
    ATTENTIONS_MAX, AttentionRecord, Error, Image, LENGTH_MAX, NexusRecord, Record,
    RegistrantRecord, attention_text, checksum, write_initiator_port, write_target_port,
};
use crate::pr::testing::{KEY_A, KEY_B, Unit, a, b, register};
use crate::pr::{
    REGISTRANTS_MAX, Registrant, Registrants, Reservation, Reservations, Type, Violation, spc2,
};
use crate::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};
use crate::scsi::sense::Sense;

const UNIT: &str = "lun0-5f0c";

fn image(reservations: Reservations) -> Image {
    Image {
        unit: UNIT.to_owned(),
        boot_id: "0b7f".to_owned(),
        reservations,
        attentions: Vec::new(),
    }
}

/// A registered before B, B holding, APTPL on.
fn example() -> Image {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A));
    unit.good(&b(), &register(0, KEY_B).aptpl());
    unit.good(
        &b(),
        &crate::pr::testing::reserve(KEY_B, Type::WriteExclusiveRegistrantsOnly),
    );
    image(unit.state)
}

/// What follows the first two lines of the example's record.
const EXAMPLE: &str = r#"unit = "lun0-5f0c"
boot_id = "0b7f"
generation = 2
aptpl = true
reservation = "write_exclusive_registrants_only"

[[registrant]]
initiator_port = "iscsi:iqn.2026-11.example:a,i,0x00023d000001"
target_port = "iscsi:iqn.2026-11.example:target,t,0x0001"
key = "0x00000000000000a1"

[[registrant]]
initiator_port = "iscsi:iqn.2026-11.example:b,i,0x00023d000001"
target_port = "iscsi:iqn.2026-11.example:target,t,0x0001"
key = "0x00000000000000b2"
holder = true
"#;

/// A record with this after its first two lines, and the right checksum.
fn record(rest: &str) -> String {
    let checksum = checksum("version = 1\n", rest);
    format!("version = 1\nchecksum = \"{checksum:08x}\"\n{rest}")
}

fn parse(record: &str) -> Result<Image, Error> {
    Image::parse(record.as_bytes(), UNIT)
}

#[track_caller]
fn error(rest: &str) -> Error {
    parse(&record(rest)).expect_err("a record that is refused")
}

#[test]
fn record_is_laid_out_as_documented() {
    assert_eq!(
        example().encode(),
        format!("version = 1\nchecksum = \"c9baeb14\"\n{EXAMPLE}")
    );
}

#[test]
fn checksum_is_crc_32c() {
    // The check value of CRC-32C.
    assert_eq!(checksum("1234", "56789"), 0xe306_9283);
}

#[test]
fn record_comes_back() {
    assert_eq!(parse(&example().encode()).expect("sound"), example());
    let mut states = vec![Reservations::default(), Unit::with_three().state];
    states.extend(Type::ALL.map(|kind| Unit::reserved(kind).state));
    states.push(
        spc2::reserve(&Reservations::default(), &a())
            .expect("GOOD")
            .next,
    );
    for state in states {
        assert_eq!(
            parse(&image(state.clone()).encode()).expect("sound"),
            image(state)
        );
    }
}

#[test]
fn every_kind_of_port_and_the_largest_numbers_come_back() {
    let ids = [
        TransportId::FibreChannel(u64::MAX),
        TransportId::Sbp(1),
        TransportId::Srp([0xfe; 16]),
        TransportId::iscsi("iqn.x", None).expect("a name"),
        TransportId::iscsi("iqn.ü\"\\", Some((1 << 48) - 1)).expect("a name"),
        TransportId::Sas(0x5000_c500_0000_0001),
    ];
    let list = ids.map(|initiator_port| {
        let protocol = initiator_port.protocol();
        let target_port = TargetPort {
            protocol,
            name: "iscsi:\n\u{0}".into(),
        };
        let nexus = ItNexus {
            initiator_port,
            target_port,
        }
        .into();
        Registrant {
            nexus,
            key: u64::MAX,
        }
    });
    let state = Reservations {
        registrants: Registrants::from(list.to_vec()).into(),
        generation: u32::MAX,
        ..Reservations::default()
    };
    assert_eq!(
        parse(&image(state.clone()).encode()).expect("sound"),
        image(state)
    );
}

#[test]
fn largest_record_fits() {
    let name = format!("iqn.{}", "x".repeat(219));
    let list = (0..u64::from(REGISTRANTS_MAX)).map(|isid| {
        let initiator_port = TransportId::iscsi(&name, Some(isid)).expect("a name");
        let target = format!("{name},t,0x0001").into();
        let target_port = TargetPort {
            protocol: Protocol::Iscsi,
            name: target,
        };
        Registrant {
            nexus: ItNexus {
                initiator_port,
                target_port,
            }
            .into(),
            key: 1,
        }
    });
    let registrants = Registrants::from(list.collect::<Vec<_>>());
    let state = Reservations {
        registrants: registrants.into(),
        ..Reservations::default()
    };
    let record = image(state.clone()).encode();
    assert!(record.len() < LENGTH_MAX);
    assert_eq!(parse(&record).expect("sound"), image(state));
}

#[test]
fn record_of_any_length_that_was_torn_is_refused() {
    let record = example().encode();
    for length in 0..record.len() {
        let torn = parse(&record[..length]);
        assert!(
            matches!(torn, Err(Error::NotARecord | Error::Checksum { .. })),
            "{length}"
        );
    }
}

#[test]
fn record_with_any_bit_changed_is_refused() {
    let record = example().encode().into_bytes();
    for bit in 0..record.len() * 8 {
        let mut damaged = record.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if !damaged.eq_ignore_ascii_case(&record) {
            assert!(Image::parse(&damaged, UNIT).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn something_else_is_refused() {
    for text in [
        "",
        "\n",
        "hello",
        "version = 1",
        "version = one\n",
        "checksum = \"00000000\"\n",
    ] {
        assert!(matches!(parse(text), Err(Error::NotARecord)), "{text:?}");
    }
    assert!(matches!(
        Image::parse(&[0xff; 40], UNIT),
        Err(Error::NotARecord)
    ));
    let long = vec![b'x'; LENGTH_MAX + 1];
    assert!(matches!(Image::parse(&long, UNIT), Err(Error::TooLong(_))));
}

#[test]
fn unknown_version_is_named_before_anything_else_is_looked_at() {
    let newer = parse("version = 2\nwhatever\n");
    assert!(matches!(newer, Err(Error::UnknownVersion(2))));
}

#[test]
fn record_of_another_unit_is_refused() {
    let refused = Image::parse(example().encode().as_bytes(), "lun1");
    let text = refused.expect_err("another unit's").to_string();
    assert_eq!(
        text,
        "the record is of the logical unit \"lun0-5f0c\", not of \"lun1\""
    );
}

#[test]
fn unknown_and_missing_fields_are_refused() {
    assert!(matches!(
        error(&format!("scope = 1\n{EXAMPLE}")),
        Error::Syntax(_)
    ));
    assert!(matches!(
        error(&EXAMPLE.replace("aptpl = true\n", "")),
        Error::Syntax(_)
    ));
    assert!(matches!(
        error(&EXAMPLE.replace("= 2", "= -1")),
        Error::Syntax(_)
    ));
    assert!(matches!(
        error(&EXAMPLE.replace("only\"", "\"")),
        Error::Syntax(_)
    ));
}

#[test]
fn names_that_are_none_are_refused() {
    for wrong in [
        "",
        "iqn.x",
        "iscsi:x",
        "fc:0x1",
        "fc:0xzz00000000000001",
        "srp:0x1",
        "usb:0x1",
    ] {
        let rest = EXAMPLE.replace("iscsi:iqn.2026-11.example:b,i,0x00023d000001", wrong);
        assert!(matches!(error(&rest), Error::Port(_)), "{wrong}");
    }
    let rest = EXAMPLE.replace("iscsi:iqn.2026-11.example:target", "target");
    assert!(matches!(error(&rest), Error::Port(_)));
}

#[test]
fn keys_that_are_none_are_refused() {
    for wrong in [
        "",
        "b2",
        "0xb2",
        "0x00000000000000g2",
        "0x0000000000000000b2",
        "0x+0000000000000b",
    ] {
        let rest = EXAMPLE.replace("0x00000000000000b2", wrong);
        assert!(matches!(error(&rest), Error::Key(_)), "{wrong}");
    }
}

#[test]
fn one_registrant_is_the_holder_unless_all_are() {
    assert!(matches!(
        error(&EXAMPLE.replace("holder = true\n", "")),
        Error::Holders(0)
    ));
    let two = EXAMPLE.replace("a1\"\n", "a1\"\nholder = true\n");
    assert!(matches!(error(&two), Error::Holders(2)));
    let all = EXAMPLE.replace("registrants_only", "all_registrants");
    assert!(matches!(error(&all), Error::Holders(1)));
    let free = EXAMPLE.replace("reservation = \"write_exclusive_registrants_only\"\n", "");
    assert!(matches!(error(&free), Error::Holders(1)));
}

#[test]
fn contradictions_are_refused() {
    let zero = EXAMPLE.replace("0x00000000000000a1", "0x0000000000000000");
    assert!(matches!(error(&zero), Error::Violation(Violation::KeyZero)));
    let twice = EXAMPLE.replace("example:b,", "example:A,");
    assert!(matches!(
        error(&twice),
        Error::Violation(Violation::RegisteredTwice)
    ));
    let reserve =
        "\n[reserve]\ninitiator_port = \"sas:0x0000000000000001\"\ntarget_port = \"sas:x\"\n";
    let both = format!("{EXAMPLE}{reserve}");
    assert!(matches!(
        error(&both),
        Error::Violation(Violation::ReserveBesideRegistrants)
    ));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Image::parse(&bytes, UNIT).is_err());
    }

    #[test]
    fn arbitrary_changes_under_a_right_checksum_never_panic(
        at in 0..EXAMPLE.len(),
        text in "[ -~\n]{0,12}",
        removed in 0_usize..20,
    ) {
        let end = (at + removed).min(EXAMPLE.len());
        let rest = format!("{}{text}{}", &EXAMPLE[..at], &EXAMPLE[end..]);
        if let Ok(image) = parse(&record(&rest)) {
            prop_assert_eq!(image.reservations.check(), Ok(()));
            prop_assert_eq!(parse(&image.encode()).expect("sound"), image);
        }
    }
}

#[test]
fn unit_attentions_stand_at_the_end_in_their_order() {
    let attentions = vec![
        (Arc::new(a()), Sense::registrations_preempted()),
        (Arc::new(a()), Sense::power_on_occurred()),
        (Arc::new(b()), Sense::reservations_released()),
    ];
    let image = Image {
        attentions,
        ..example()
    };
    let [a, b] = ["a", "b"].map(|name| {
        format!(
            "initiator_port = \"iscsi:iqn.2026-11.example:{name},i,0x00023d000001\"\n\
             target_port = \"iscsi:iqn.2026-11.example:target,t,0x0001\"\n"
        )
    });
    let expected = record(&format!(
        "{EXAMPLE}\n[[unit_attention]]\n{a}additional_sense = \"0x2a05\"\n\
         \n[[unit_attention]]\n{a}additional_sense = \"0x2901\"\n\
         \n[[unit_attention]]\n{b}additional_sense = \"0x2a04\"\n"
    ));
    assert_eq!(image.encode(), expected);
    assert_eq!(parse(&expected).unwrap(), image);
    let unknown = expected.split_once('\n').unwrap().1;
    let unknown = unknown.split_once('\n').unwrap().1;
    let unknown = unknown.replace("0x2901", "0x0000");
    assert!(matches!(error(&unknown), Error::Attention(text) if text == "0x0000"));
}

#[test]
fn the_largest_record_can_be_read_again() {
    let nexus = |number: usize| {
        Arc::new(ItNexus {
            initiator_port: TransportId::from_iscsi_port_name(&format!(
                "iqn.{number:0>219},i,0x00023d000001"
            ))
            .unwrap(),
            target_port: TargetPort {
                protocol: Protocol::Iscsi,
                name: format!("iqn.{:0>219},t,0x0001", 1).into(),
            },
        })
    };
    let registrants: Vec<Registrant> = (0..usize::from(REGISTRANTS_MAX))
        .map(|number| Registrant {
            nexus: nexus(number),
            key: u64::MAX,
        })
        .collect();
    let reservations = Reservations {
        registrants: Arc::new(Registrants::from(registrants)),
        ..Reservations::default()
    };
    let attentions = (0..ATTENTIONS_MAX + 1)
        .map(|number| (nexus(number), Sense::registrations_preempted()))
        .collect();
    let image = Image {
        attentions,
        ..image(reservations)
    };
    let record = image.encode();
    assert!(record.len() > LENGTH_MAX / 2, "{}", record.len());
    let read = parse(&record).unwrap();
    assert_eq!(read.reservations, image.reservations);
    assert_eq!(read.attentions, image.attentions[..ATTENTIONS_MAX]);
}

/// What the `toml` crate makes of an image: another way to the same text.
fn by_toml(image: &Image) -> String {
    let nexus = |nexus: &ItNexus| {
        let mut text = [String::new(), String::new()];
        write_initiator_port(&mut text[0], &nexus.initiator_port).unwrap();
        write_target_port(&mut text[1], &nexus.target_port).unwrap();
        text
    };
    let state = &image.reservations;
    let single = state
        .reservation
        .as_ref()
        .and_then(Reservation::single_holder);
    let registrants = state.registrants.iter().map(|registrant| {
        let [initiator_port, target_port] = nexus(&registrant.nexus);
        RegistrantRecord {
            initiator_port,
            target_port,
            key: format!("0x{:016x}", registrant.key),
            holder: single == Some(&*registrant.nexus),
        }
    });
    let attentions = image.attentions.iter().map(|(told, condition)| {
        let [initiator_port, target_port] = nexus(told);
        AttentionRecord {
            initiator_port,
            target_port,
            additional_sense: attention_text(condition),
        }
    });
    let reserve = state.spc2.as_deref().map(|holder| {
        let [initiator_port, target_port] = nexus(holder);
        NexusRecord {
            initiator_port,
            target_port,
        }
    });
    let rest = toml::to_string(&Record {
        unit: image.unit.clone(),
        boot_id: image.boot_id.clone(),
        generation: state.generation,
        aptpl: state.aptpl,
        reservation: state.reservation.as_ref().map(|held| held.kind),
        reserve,
        registrant: registrants.collect(),
        unit_attention: attentions.collect(),
    });
    record(&rest.unwrap())
}

#[test]
fn record_is_what_toml_writes() {
    let mut states = vec![Reservations::default(), Unit::with_three().state];
    states.extend(Type::ALL.map(|kind| Unit::reserved(kind).state));
    let reserved = spc2::reserve(&Reservations::default(), &a()).expect("GOOD");
    states.push(reserved.next);
    for state in states {
        let attentions = vec![
            (Arc::new(a()), Sense::registrations_preempted()),
            (Arc::new(b()), Sense::reservations_released()),
        ];
        for attentions in [Vec::new(), attentions] {
            let image = Image {
                attentions,
                ..image(state.clone())
            };
            assert_eq!(image.encode(), by_toml(&image));
        }
    }
}

proptest! {
    #[test]
    fn record_is_what_toml_writes_of_any_name(unit in ".*", boot_id in ".*", name in ".*") {
        let mut reservations = Unit::with_three().state;
        let target_port = TargetPort { protocol: Protocol::Iscsi, name: name.into() };
        let nexus = ItNexus { target_port, ..a() };
        reservations.registrants_mut().set(&nexus, KEY_A);
        let attentions = vec![(Arc::new(nexus), Sense::registrations_preempted())];
        let image = Image { unit, boot_id, reservations, attentions };
        prop_assert_eq!(image.encode(), by_toml(&image));
        let found = Image::parse(image.encode().as_bytes(), &image.unit).expect("sound");
        prop_assert_eq!(found, image);
    }
}
