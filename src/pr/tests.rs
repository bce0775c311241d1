use std::sync::Arc;

use super::out::RegistrationLimit;
use super::testing::{KEY_A, KEY_B, Unit, a, b, nexus, register};
use super::{
    Holder, REGISTRANTS_MAX, Registrant, Registrants, Reservation, Reservations, Type, Violation,
    spc2,
};

fn registrants(list: impl IntoIterator<Item = Registrant>) -> Arc<Registrants> {
    Arc::new(Registrants::from(list.into_iter().collect::<Vec<_>>()))
}

/// A and B registered, A holding.
fn sound() -> Reservations {
    Reservations {
        registrants: registrants([
            Registrant {
                nexus: a().into(),
                key: KEY_A,
            },
            Registrant {
                nexus: b().into(),
                key: KEY_B,
            },
        ]),
        reservation: Some(Reservation::new(Type::WriteExclusive, &a())),
        ..Reservations::default()
    }
}

#[test]
fn sound_reservations_pass() {
    assert_eq!(sound().check(), Ok(()));
    assert_eq!(Reservations::default().check(), Ok(()));
    for kind in Type::ALL {
        assert_eq!(Unit::reserved(kind).state.check(), Ok(()));
    }
}

#[test]
fn key_zero_is_a_violation() {
    let zero = Registrant {
        nexus: b().into(),
        key: 0,
    };
    let state = Reservations {
        registrants: registrants([zero]),
        ..Reservations::default()
    };
    assert_eq!(state.check(), Err(Violation::KeyZero));
}

#[test]
fn nexus_registered_twice_is_a_violation() {
    let twice = [KEY_A, KEY_B].map(|key| Registrant {
        nexus: b().into(),
        key,
    });
    let state = Reservations {
        registrants: registrants(twice),
        ..Reservations::default()
    };
    assert_eq!(state.check(), Err(Violation::RegisteredTwice));
}

#[test]
fn more_registrants_than_there_can_be_are_a_violation() {
    let many = |number: u16| {
        let list = (0..number).map(|port| Registrant {
            nexus: nexus("a", port).into(),
            key: 1,
        });
        Reservations {
            registrants: registrants(list),
            ..Reservations::default()
        }
    };
    assert_eq!(many(REGISTRANTS_MAX).check(), Ok(()));
    assert_eq!(
        many(REGISTRANTS_MAX + 1).check(),
        Err(Violation::TooManyRegistrants)
    );
}

#[test]
fn holder_that_is_not_registered_is_a_violation() {
    let held = Reservation::new(Type::ExclusiveAccess, &nexus("d", 1));
    let state = Reservations {
        reservation: Some(held),
        ..sound()
    };
    assert_eq!(state.check(), Err(Violation::HolderNotRegistered));
}

#[test]
fn reservation_without_registrants_is_a_violation() {
    for kind in Type::ALL {
        let reservation = Some(Reservation::new(kind, &a()));
        let state = Reservations {
            reservation,
            ..Reservations::default()
        };
        assert_eq!(state.check(), Err(Violation::NobodyRegistered));
    }
}

#[test]
fn holder_unlike_the_type_is_a_violation() {
    for kind in Type::ALL {
        let holder = if kind.is_all_registrants() {
            Holder::Nexus(a().into())
        } else {
            Holder::AllRegistrants
        };
        let state = Reservations {
            reservation: Some(Reservation { kind, holder }),
            ..sound()
        };
        assert_eq!(state.check(), Err(Violation::HolderUnlikeType));
    }
}

#[test]
fn reserve_beside_registrants_is_a_violation() {
    let state = Reservations {
        spc2: Some(a().into()),
        reservation: None,
        ..sound()
    };
    assert_eq!(state.check(), Err(Violation::ReserveBesideRegistrants));
}

#[test]
fn type_codes_are_those_of_spc_4() {
    let codes = Type::ALL.map(Type::code);
    assert_eq!(codes, [1, 3, 5, 6, 7, 8]);
    for code in 0..=u8::MAX {
        assert_eq!(Type::parse(code).is_some(), codes.contains(&code));
    }
}

#[test]
fn registrants_are_found_after_others_have_gone() {
    let mut unit = Unit::with_three();
    unit.good(&a(), &register(KEY_A, 0));
    let registrants = unit.state.registrants();
    assert_eq!(registrants.key(&a()), None);
    assert_eq!(registrants.key(&b()), Some(KEY_B));
    assert_eq!(registrants.len(), 2);
    unit.good(&a(), &register(0, KEY_A));
    assert_eq!(unit.registered()[2], (a(), KEY_A));
}

#[test]
fn reserve_does_not_outlive_a_loss_of_power() {
    let mut state = spc2::reserve(&Reservations::default(), &a())
        .expect("GOOD")
        .next;
    state.aptpl = true;
    let after = state.after_power_loss();
    assert_eq!(
        after,
        Reservations {
            aptpl: true,
            ..Reservations::default()
        }
    );
}

#[test]
fn types_have_the_names_that_spc_4_gives_them() {
    let names = Type::ALL.map(|kind| kind.to_string());
    assert_eq!(
        names,
        [
            "Write Exclusive",
            "Exclusive Access",
            "Write Exclusive, Registrants Only",
            "Exclusive Access, Registrants Only",
            "Write Exclusive, All Registrants",
            "Exclusive Access, All Registrants",
        ]
    );
}

#[test]
fn registration_limit_is_told_as_a_number() {
    let limit = RegistrationLimit::try_from(129).expect("it is in range");
    assert_eq!(serde_json::to_string(&limit).expect("a number"), "129");
    assert_eq!(limit.get(), 129);
}
