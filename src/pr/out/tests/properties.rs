//! What holds of every command, for commands drawn at random.

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use crate::pr::out::{Cdb, Request, answer};
use crate::pr::testing::{Out, Unit, a, a2, b, c, host};
use crate::pr::{Refusal, spc2};
use crate::scsi::nexus::ItNexus;

fn some_nexus() -> impl Strategy<Value = ItNexus> {
    prop_oneof![Just(a()), Just(a2()), Just(b()), Just(c())]
}

fn some_key() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 1_u64..3, 1 => Just(0)]
}

fn some_out() -> impl Strategy<Value = Out> {
    let hosts = prop_oneof![Just("a"), Just("b"), Just("c")];
    let scope_type = prop_oneof![9 => 0_u8..10, 1 => any::<u8>()];
    let flags = 0_u8..16;
    (
        0_u8..9,
        some_key(),
        some_key(),
        scope_type,
        flags,
        hosts,
        0_u16..4,
    )
        .prop_map(
            |(service_action, key, new_key, scope_type, flags, listed, relative)| {
                let out = match service_action {
                    0x07 => Out::movement(key, new_key, relative, &host(listed)).set(17, flags & 3),
                    0x00 if flags & 8 != 0 => Out::new(0x00, key, new_key).listed(&[host(listed)]),
                    _ => Out::new(service_action, key, new_key).set(20, flags & 0x05),
                };
                out.scope_type(scope_type)
            },
        )
}

proptest! {
    #[test]
    fn every_sequence_of_commands_keeps_the_invariants(
        commands in proptest::collection::vec((some_nexus(), some_out(), 0_u8..12), 1..60),
    ) {
        let mut unit = Unit::new();
        for (nexus, out, chance) in commands {
            let before = unit.state.clone();
            let answer = match chance {
                0 => spc2::reserve(&unit.state, &nexus),
                1 => spc2::release(&unit.state, &nexus),
                _ => unit.send(&nexus, &out),
            };
            match answer {
                Ok(change) => {
                    prop_assert_eq!(change.next.check(), Ok(()));
                    let counted = change.next.generation().wrapping_sub(before.generation());
                    prop_assert!(counted <= 1);
                    unit.state = change.next;
                }
                Err(_) => prop_assert_eq!(&unit.state, &before),
            }
        }
    }

    #[test]
    fn arbitrary_parameter_lists_never_panic(
        service_action in 0_u8..9,
        scope_type in any::<u8>(),
        length in prop_oneof![0_u32..200, any::<u32>()],
        key in 0_u64..3,
        list in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let unit = Unit::with_three();
        let mut list = list;
        if let Some(start) = list.get_mut(..8) {
            start.copy_from_slice(&(key * 0xa1).to_be_bytes());
        }
        let cdb = Cdb { service_action, scope_type, parameter_list_length: length };
        for nexus in [a(), a2()] {
            if let Ok(change) = answer(&unit.state, &nexus, cdb, &list, &unit.context) {
                prop_assert_eq!(change.next.check(), Ok(()));
            }
        }
    }

    #[test]
    fn damaged_lists_of_transport_ids_never_panic(
        service_action in prop_oneof![Just(0x00_u8), Just(0x07)],
        at in 8_usize..116,
        value in any::<u8>(),
        length in 24_u32..120,
    ) {
        let mut unit = Unit::reserved(crate::pr::Type::WriteExclusive);
        let (nexus, mut out) = if service_action == 0x07 {
            (a(), Out::movement(0xa1, 7, 1, &host("d")))
        } else {
            (a2(), Out::new(0x00, 0, 7).listed(&[host("d"), host("e")]))
        };
        out.list.resize(120, 0);
        out.list[at] = value;
        let before = unit.state.clone();
        let length = if value % 2 == 0 { length } else { 116 };
        match unit.send(&nexus, &out.length(length)) {
            Ok(change) => prop_assert_eq!(change.next.generation(), before.generation() + 1),
            Err(_) => prop_assert_eq!(&unit.state, &before),
        }
    }

    #[test]
    fn requests_can_be_sent(out in some_out()) {
        let cdb = Cdb {
            service_action: out.service_action,
            scope_type: out.scope_type,
            parameter_list_length: u32::try_from(out.list.len()).expect("short"),
        };
        if let Ok(request) = Request::parse(cdb, &out.list) {
            let sent = serde_json::to_string(&request).expect("serialisable");
            prop_assert_eq!(serde_json::from_str::<Request>(&sent).expect("a request"), request);
        }
    }

    #[test]
    fn wrong_key_conflicts_whatever_scope_and_type_are(out in some_out(), scope_type: u8) {
        // Nobody has the keys that are drawn, and A holds.
        let unit = Unit::reserved(crate::pr::Type::WriteExclusive);
        if unit.clone().send(&b(), &out) == Err(Refusal::Conflict) {
            prop_assert_eq!(unit.clone().send(&b(), &out.scope_type(scope_type)), Err(Refusal::Conflict));
        }
    }
}
