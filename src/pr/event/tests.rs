//! The event of each service action, by hand.

use super::*;
use crate::pr::testing::{
    KEY_A, KEY_B, KEY_C, Out, Unit, a, a2, b, c, clear, nexus, preempt, preempt_and_abort,
    register, register_and_ignore, release, reserve,
};
use crate::pr::{Holder, Type, spc2};
use crate::scsi::nexus::TransportId;

const TYPE: Type = Type::WriteExclusiveRegistrantsOnly;

/// Sends a command that ends with GOOD, and gives the event.
fn event(unit: &mut Unit, issuer: &ItNexus, out: &Out) -> Event {
    let cause = Cause {
        act: Act::of_cdb(&[0x5f, out.service_action]).expect("there is such a service action"),
        by: Some(Arc::new(issuer.clone())),
        before: unit.state.clone(),
    };
    unit.good(issuer, out);
    Event::new(cause, &unit.state)
}

/// The registrations that have changed: whose, the key before, the key after.
fn changed(event: &Event) -> Vec<(ItNexus, Option<u64>, Option<u64>)> {
    let all = event.registrations.iter();
    all.map(|one| (ItNexus::clone(&one.nexus), one.before, one.after))
        .collect()
}

fn fenced(event: &Event) -> Vec<(ItNexus, Option<u64>)> {
    event
        .fenced()
        .map(|one| (ItNexus::clone(&one.nexus), one.before))
        .collect()
}

fn held(kind: Type, holder: ItNexus) -> Option<Reservation> {
    let holder = Holder::Nexus(Arc::new(holder));
    Some(Reservation { kind, holder })
}

#[test]
fn register_tells_the_keys_before_and_after() {
    let mut unit = Unit::new();
    let first = event(&mut unit, &a(), &register(0, KEY_A));
    assert_eq!(
        (first.act, first.by.as_deref()),
        (Act::Register, Some(&a()))
    );
    assert_eq!(changed(&first), [(a(), None, Some(KEY_A))]);
    assert_eq!(first.after.generation(), 1);
    let other = event(&mut unit, &a(), &register(KEY_A, KEY_B));
    assert_eq!(changed(&other), [(a(), Some(KEY_A), Some(KEY_B))]);
    let same = event(&mut unit, &a(), &register(KEY_B, KEY_B));
    assert_eq!(changed(&same), []);
    assert_eq!(same.after.generation(), 3);
    let gone = event(&mut unit, &a(), &register(KEY_B, 0));
    assert_eq!(changed(&gone), [(a(), Some(KEY_B), None)]);
    assert_eq!(fenced(&gone), [], "it was its own");
}

#[test]
fn register_and_ignore_existing_key_through_all_ports_tells_each() {
    let mut unit = Unit::new();
    unit.good(&a(), &register(0, KEY_A));
    let both = event(&mut unit, &a(), &register_and_ignore(KEY_B).all_tg_pt());
    assert_eq!(both.act, Act::RegisterAndIgnoreExistingKey);
    assert_eq!(
        changed(&both),
        [(a(), Some(KEY_A), Some(KEY_B)), (a2(), None, Some(KEY_B))]
    );
    let none = event(&mut unit, &a(), &register_and_ignore(0).all_tg_pt());
    assert_eq!(changed(&none).len(), 2);
    assert_eq!(fenced(&none), [], "both are of one host");
}

#[test]
fn register_for_others_tells_them() {
    let mut unit = Unit::new();
    let ids: Vec<TransportId> = [b(), c()].map(|nexus| nexus.initiator_port).into();
    let listed = event(&mut unit, &a(), &register(0, KEY_A).listed(&ids));
    let registered = [a(), b(), c()].map(|nexus| (nexus, None, Some(KEY_A)));
    assert_eq!(changed(&listed), registered);
}

#[test]
fn reserve_and_release_tell_the_reservation() {
    let mut unit = Unit::with_three();
    let reserved = event(&mut unit, &a(), &reserve(KEY_A, TYPE));
    assert_eq!(reserved.act, Act::Reserve);
    assert_eq!(reserved.reservation_before, None);
    assert_eq!(reserved.after.reservation().cloned(), held(TYPE, a()));
    assert_eq!(changed(&reserved), []);
    assert_eq!(reserved.after.generation(), 3, "RESERVE does not count");
    let released = event(&mut unit, &a(), &release(KEY_A, TYPE));
    assert_eq!(released.act, Act::Release);
    assert_eq!(released.reservation_before, held(TYPE, a()));
    assert_eq!(released.after.reservation(), None);
}

#[test]
fn clear_tells_whom_it_removes() {
    let mut unit = Unit::reserved(TYPE);
    let cleared = event(&mut unit, &b(), &clear(KEY_B));
    assert_eq!(cleared.act, Act::Clear);
    assert_eq!(
        changed(&cleared),
        [
            (a(), Some(KEY_A), None),
            (b(), Some(KEY_B), None),
            (c(), Some(KEY_C), None)
        ]
    );
    assert_eq!(fenced(&cleared), [(a(), Some(KEY_A)), (c(), Some(KEY_C))]);
    assert_eq!(cleared.reservation_before, held(TYPE, a()));
    assert_eq!(cleared.after.generation(), 4);
}

#[test]
fn preempt_tells_whom_it_fences_and_who_holds_now() {
    for (act, out) in [
        (Act::Preempt, preempt(KEY_B, KEY_A, Type::ExclusiveAccess)),
        (
            Act::PreemptAndAbort,
            preempt_and_abort(KEY_B, KEY_A, Type::ExclusiveAccess),
        ),
    ] {
        let mut unit = Unit::reserved(TYPE);
        let preempted = event(&mut unit, &b(), &out);
        assert_eq!(preempted.act, act);
        assert_eq!(fenced(&preempted), [(a(), Some(KEY_A))]);
        assert_eq!(changed(&preempted), [(a(), Some(KEY_A), None)]);
        assert_eq!(preempted.reservation_before, held(TYPE, a()));
        assert_eq!(
            preempted.after.reservation().cloned(),
            held(Type::ExclusiveAccess, b())
        );
    }
}

#[test]
fn register_and_move_tells_the_new_holder() {
    let mut unit = Unit::reserved(TYPE);
    let stranger = nexus("d", 2);
    let out = Out::movement(KEY_A, 0xd4, 2, &stranger.initiator_port).unreg();
    let moved = event(&mut unit, &a(), &out);
    assert_eq!(moved.act, Act::RegisterAndMove);
    assert_eq!(
        changed(&moved),
        [
            (a(), Some(KEY_A), None),
            (stranger.clone(), None, Some(0xd4))
        ]
    );
    assert_eq!(moved.reservation_before, held(TYPE, a()));
    assert_eq!(moved.after.reservation().cloned(), held(TYPE, stranger));
    assert_eq!(fenced(&moved), []);
}

#[test]
fn the_administrator_fences_everybody() {
    let unit = Unit::reserved(TYPE);
    let cause = |act| Cause {
        act,
        by: None,
        before: unit.state.clone(),
    };
    let next = unit.state.removed(KEY_A).next;
    let preempted = Event::new(cause(Act::AdministratorPreempt), &next);
    assert_eq!(fenced(&preempted), [(a(), Some(KEY_A))]);
    assert_eq!(preempted.after.reservation(), None);
    let next = unit.state.cleared(None).next;
    let cleared = Event::new(cause(Act::AdministratorClear), &next);
    assert_eq!(fenced(&cleared).len(), 3);
}

#[test]
fn reserve_of_spc_2_and_its_end_tell_the_holder() {
    let free = Unit::new().state;
    let reserved = spc2::reserve(&free, &a()).expect("GOOD").next;
    let cause = |act, before: &Reservations| Cause {
        act,
        by: Some(Arc::new(a())),
        before: before.clone(),
    };
    let begun = Event::new(cause(Act::Spc2Reserve, &free), &reserved);
    assert_eq!(begun.reserve_before, None);
    assert_eq!(begun.after.spc2(), Some(&a()));
    let lost = reserved.released_by_nexus_loss(&a()).expect("it ends");
    let ended = Event::new(cause(Act::NexusLoss, &reserved), &lost.next);
    assert_eq!(ended.reserve_before.as_deref(), Some(&a()));
    assert_eq!(ended.after.spc2(), None);
}

#[test]
fn a_cdb_tells_its_act() {
    for (cdb, act) in [
        ([0x5f, 0x00], Some(Act::Register)),
        ([0x5f, 0x07], Some(Act::RegisterAndMove)),
        ([0x5f, 0x08], None),
        ([0x5f, 0x1f], None),
        ([0x16, 0x00], Some(Act::Spc2Reserve)),
        ([0x56, 0x00], Some(Act::Spc2Reserve)),
        ([0x17, 0x00], Some(Act::Spc2Release)),
        ([0x57, 0x00], Some(Act::Spc2Release)),
        ([0x5e, 0x00], None),
    ] {
        assert_eq!(Act::of_cdb(&cdb), act, "{cdb:02x?}");
    }
}
