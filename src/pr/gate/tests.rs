//! Rows and columns as in SPC-4 r37 and SBC-3: commands that are allowed in the presence of various
//! reservations.

use super::super::testing::{KEY_A, Unit, a, a2, b, host, nexus, port, register, reserve};
use super::super::{Reservations, Type, spc2};
use super::Standing;
use crate::scsi::Access::{
    self, Free, FreeUnlessReserved, PersistentReserveIn, PersistentReserveOut, Read, Reserve, Write,
};
use crate::scsi::nexus::ItNexus;

const ALL: &[Access] = &[
    Free,
    FreeUnlessReserved,
    Read,
    Write,
    PersistentReserveIn,
    PersistentReserveOut,
    Reserve,
];
const NO_WRITE: &[Access] = &[
    Free,
    FreeUnlessReserved,
    Read,
    PersistentReserveIn,
    PersistentReserveOut,
    Reserve,
];
const NO_DATA: &[Access] = &[
    Free,
    FreeUnlessReserved,
    PersistentReserveIn,
    PersistentReserveOut,
    Reserve,
];

#[track_caller]
fn assert_allowed(state: &Reservations, nexus: Option<&ItNexus>, expected: &[Access]) {
    let allowed = state.allowed(nexus);
    for access in Access::ALL {
        assert_eq!(
            allowed.contains(access),
            expected.contains(&access),
            "{access:?}"
        );
    }
}

/// A holds, B is registered, the nexus of A at port 2 and D are not, and a session has no initiator port.
#[track_caller]
fn assert_row(kind: Type, registrant: &[Access], unregistered: &[Access]) {
    let state = Unit::reserved(kind).state;
    assert_allowed(&state, Some(&a()), ALL);
    assert_allowed(&state, Some(&b()), registrant);
    assert_allowed(&state, Some(&a2()), unregistered);
    assert_allowed(&state, Some(&nexus("d", 1)), unregistered);
    assert_allowed(&state, None, unregistered);
}

#[test]
fn without_a_reservation_everything_is_allowed_to_everybody() {
    for state in [Unit::new().state, Unit::with_three().state] {
        assert_allowed(&state, Some(&a()), ALL);
        assert_allowed(&state, Some(&nexus("d", 1)), ALL);
        assert_allowed(&state, None, ALL);
    }
}

#[test]
fn write_exclusive_lets_others_read() {
    assert_row(Type::WriteExclusive, NO_WRITE, NO_WRITE);
}

#[test]
fn exclusive_access_lets_others_neither_read_nor_write() {
    assert_row(Type::ExclusiveAccess, NO_DATA, NO_DATA);
}

#[test]
fn write_exclusive_registrants_only_lets_registrants_write_and_others_read() {
    assert_row(Type::WriteExclusiveRegistrantsOnly, ALL, NO_WRITE);
}

#[test]
fn exclusive_access_registrants_only_shuts_out_who_is_not_registered() {
    assert_row(Type::ExclusiveAccessRegistrantsOnly, ALL, NO_DATA);
}

#[test]
fn write_exclusive_all_registrants_lets_registrants_write_and_others_read() {
    assert_row(Type::WriteExclusiveAllRegistrants, ALL, NO_WRITE);
}

#[test]
fn exclusive_access_all_registrants_shuts_out_who_is_not_registered() {
    assert_row(Type::ExclusiveAccessAllRegistrants, ALL, NO_DATA);
}

#[test]
fn reserve_lets_its_holder_do_all_but_persistent_reserve() {
    let state = spc2::reserve(&Reservations::default(), &a())
        .expect("GOOD")
        .next;
    assert_allowed(
        &state,
        Some(&a()),
        &[Free, FreeUnlessReserved, Read, Write, Reserve],
    );
}

#[test]
fn reserve_lets_others_do_what_spc_2_lists() {
    let state = spc2::reserve(&Reservations::default(), &a())
        .expect("GOOD")
        .next;
    for other in [Some(&b()), Some(&a2()), None] {
        assert_allowed(&state, other, &[Free, Reserve]);
    }
}

#[test]
fn one_session_of_an_initiator_has_nothing_by_another() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A));
    unit.good(&a(), &reserve(KEY_A, Type::ExclusiveAccess));
    let mut other = a();
    other.initiator_port =
        crate::scsi::nexus::TransportId::iscsi("iqn.2026-11.example:a", Some(2)).expect("a name");
    assert_ne!(other.initiator_port, host("a"));
    assert_eq!(other.target_port, port(1));
    assert_allowed(&unit.state, Some(&other), NO_DATA);
}

#[test]
fn standing_is_that_of_the_latest_edition() {
    let free = Reservations::default();
    let held = Unit::reserved(Type::ExclusiveAccess).state;
    let mut standing = Standing::new(&free, 1, Some(&b()));
    assert!(standing.admits(Write));
    standing.refresh(&held, 2, Some(&b()));
    assert!(!standing.admits(Write));
    assert!(standing.admits(Free));
    standing.refresh(&free, 3, Some(&b()));
    assert!(standing.admits(Write));
}
