//! A worker whose ports are shared, against a stand-in for the kernel and its nexus tap.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../sim/disk.rs"]
mod disk;
#[path = "../sim/kernel.rs"]
mod kernel;
#[path = "../sim/tap.rs"]
mod tap;

mod node;
mod random;
mod restarts;

use std::time::Duration;

use kernel::{Buffer, Completed};
use node::{Node, host, of_group_2, target_ports, write};
use tap::{Noting, Session, Tap, Who};
use tcmu_pr::daemon::worker::{Order, PortId};
use tcmu_pr::scsi::nexus::TargetPorts;

const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;
const BUSY: u8 = 0x08;
const CONFLICT: u8 = 0x18;

const TEST_UNIT_READY: [u8; 6] = [0; 6];
/// One block at LBA 3.
const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 3, 0, 0, 1, 0];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 3, 0, 0, 1, 0];
const RESERVE_6: [u8; 6] = [0x16, 0, 0, 0, 0, 0];

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const LOGICAL_UNIT_RESET: u8 = 5;

const KEY_A: u64 = 0xa;
const KEY_B: u64 = 0xb;

fn sense(answer: &Completed) -> (u8, u8, u8) {
    assert_eq!(answer.status, CHECK_CONDITION);
    (answer.sense[2], answer.sense[12], answer.sense[13])
}

#[test]
fn two_sessions_of_one_initiator_on_one_port_are_two_nexuses() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("a", 0x0b));
    node.reserved_by(&a);
    assert_eq!(node.write(&b, 0xbb).status, CONFLICT);
    assert_eq!(node.write(&a, 0xaa).status, GOOD);
    assert_eq!(node.content(3), [0xaa; 512]);

    let read_full_status = [0x5e, 3, 0, 0, 0, 0, 0, 0, 255, 0];
    let answer = node.command(&b, (&read_full_status, Buffer::In(255)));
    let mut expected = vec![
        0, 0, 0, 1, // PRGENERATION
        0, 0, 0, 68, // ADDITIONAL LENGTH
        0, 0, 0, 0, 0, 0, 0, 0x0a, // RESERVATION KEY
        0, 0, 0, 0,    // reserved
        0x01, // R_HOLDER
        0x05, // logical unit scope; write exclusive, registrants only
        0, 0, 0, 0, // reserved
        0, 2, // RELATIVE TARGET PORT IDENTIFIER
        0, 0, 0, 44, // ADDITIONAL DESCRIPTOR LENGTH
        0x45, 0, 0, 40, // iSCSI, with an ISID; ADDITIONAL LENGTH
    ];
    expected.extend(b"iqn.2026-11.example:a,i,0x00023d00000a\0\0");
    assert_eq!(answer.data_in, expected);
}

#[test]
fn a_late_note_is_waited_for_with_one_kick() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    node.reserved_by(&a);
    node.ports[0].kicks();
    let answer = node.noted(0, &b, (&WRITE, Buffer::Out(&[0xbb; 512])), Noting::Late);
    assert_eq!(answer.status, CONFLICT);
    assert_eq!(node.ports[0].kicks(), 2, "for the note, and for the answer");
    let answer = node.noted(0, &a, (&WRITE, Buffer::Out(&[0xaa; 512])), Noting::Late);
    assert_eq!(answer.status, GOOD);
    assert_eq!(node.ports[0].kicks(), 2);
    assert_eq!(node.write(&a, 0xaa).status, GOOD);
    assert_eq!(node.ports[0].kicks(), 1, "there is nothing to wait for");
    assert_eq!(node.report().unknown_nexus, 0);
}

#[test]
fn a_command_that_was_not_noted_is_busy_and_the_next_is_not() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    node.reserved_by(&a);
    node.ports[0].kicks();
    let answer = node.noted(0, &a, (&WRITE, Buffer::Out(&[1; 512])), Noting::Never);
    assert_eq!(answer.status, BUSY);
    assert_eq!(node.ports[0].kicks(), 2, "for the note, and for the answer");
    assert_eq!(node.content(3), [0; 512]);
    let report = node.report();
    assert_eq!((report.unknown_nexus, report.not_noted), (1, 1));
    assert_eq!(node.write(&a, 2).status, GOOD);
    assert_eq!(node.content(3), [2; 512]);
}

#[test]
fn a_command_that_was_not_noted_is_not_the_one_before_it_of_the_same_id() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    node.reserved_by(&a);
    assert_eq!(node.read(&b), GOOD);
    let command = (&WRITE[..], Buffer::Out(&[1; 512]));
    let id = node.send(0, &a, command, Noting::Early);
    node.run();
    assert_eq!(node.ports[0].kernel.process()[0].status, GOOD);
    for _ in 0..3 {
        let command = (&WRITE[..], Buffer::Out(&[2; 512]));
        let answer = node.noted(0, &b, command, Noting::Never);
        assert_eq!((answer.id, answer.status), (id, BUSY));
    }
    assert_eq!(node.write(&b, 2).status, CONFLICT);
    assert_eq!(node.content(3), [1; 512]);
}

#[test]
fn what_was_noted_before_a_reset_of_the_ring_is_nobodys() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    node.reserved_by(&a);
    assert_eq!(node.read(&b), GOOD);
    // Two that nobody has taken, a reset, and two more before the worker has seen it.
    let command = || (&WRITE[..], Buffer::Out(&[1; 512]));
    node.send(0, &a, command(), Noting::Early);
    node.send(0, &a, command(), Noting::Late);
    node.ports[0].reset(&node.tap);
    node.send(0, &b, command(), Noting::Early);
    node.send(0, &b, command(), Noting::Never);
    node.run();
    let answers = node.ports[0].kernel.process();
    let statuses: Vec<u8> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [BUSY, BUSY]);
    assert_eq!(node.content(3), [0; 512]);
    assert_eq!(node.write(&b, 2).status, CONFLICT);
    assert_eq!(node.write(&a, 3).status, GOOD);
}

#[test]
fn notes_of_what_a_reset_has_ended_are_not_taken_for_others() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    node.reserved_by(&a);
    assert_eq!(node.read(&b), GOOD);
    let command = || (&WRITE[..], Buffer::Out(&[1; 512]));
    let lost = node.send(0, &a, command(), Noting::Early);
    node.ports[0].reset(&node.tap);
    node.run();
    let answer = node.noted(0, &b, command(), Noting::Never);
    assert_eq!((answer.id, answer.status), (lost, BUSY));
    assert_eq!(node.write(&b, 2).status, CONFLICT, "in step");
    assert_eq!(node.content(3), [0; 512]);
}

#[test]
fn a_note_from_before_a_reset_that_the_ring_does_not_show_is_not_taken() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    // The ring is new: after the reset it looks as if nothing had been there. The id comes back, without a note.
    let command = || (&WRITE[..], Buffer::Out(&[1; 512]));
    let lost = node.send(0, &a, command(), Noting::Early);
    node.ports[0].reset(&node.tap);
    let answer = node.noted(0, &b, command(), Noting::Never);
    assert_eq!((answer.id, answer.status), (lost, BUSY));
    assert_eq!(node.content(3), [0; 512]);
    assert_eq!(node.report().sessions, [], "nobody has been served");
}

#[test]
fn a_reset_that_the_ring_does_not_show_costs_one_command() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    // The ring is new: after the reset it looks as if nothing had been there.
    for _ in 0..2 {
        node.send(0, &a, (&READ, Buffer::In(512)), Noting::Early);
    }
    node.ports[0].reset(&node.tap);
    assert_eq!(node.read(&b), BUSY, "out of step");
    assert_eq!(node.read(&b), GOOD);
    let report = node.report();
    assert_eq!((report.unknown_nexus, report.not_noted), (1, 1));
    assert_eq!(report.sessions.len(), 1, "only B has been served");
}

#[test]
fn a_slot_that_is_used_again_is_another_session() {
    let mut node = Node::with(Tap::with_slots(2), Duration::ZERO);
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    node.reserved_by(&a);
    assert_eq!(node.reserve_out(&b, REGISTER, [0, KEY_B]), GOOD);
    // B's command is in flight while A ends and C gets its slot.
    node.disk().held = true;
    node.send(0, &b, (&write(4), Buffer::Out(&[0xbb; 512])), Noting::Early);
    node.run();
    let slot = node.tap.slot(&a);
    node.tap.logout(&a);
    let c = node.login(host("c", 0x0c));
    node.send(0, &c, (&WRITE, Buffer::Out(&[0xcc; 512])), Noting::Early);
    node.run();
    assert_eq!(node.tap.slot(&c), slot);
    assert_eq!(node.ports[0].kernel.process()[0].status, CONFLICT);
    assert_eq!(node.report().sessions.len(), 2);
    node.disk().let_go();
    node.run();
    assert_eq!(node.ports[0].kernel.process()[0].status, GOOD);
    assert_eq!(node.content(4), [0xbb; 512]);
    assert_eq!(node.content(3), [0; 512]);
}

#[test]
fn a_session_that_comes_back_is_still_registered_and_told_what_it_has_missed() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    node.reserved_by(&a);
    assert_eq!(node.reserve_out(&b, REGISTER, [0, KEY_B]), GOOD);
    node.give(Order::WriteCache(true));
    node.run();
    node.tap.logout(&a);
    node.give(Order::SessionsEnded);
    assert_eq!(node.report().sessions.len(), 1);
    let a = node.login(host("a", 0x0a));
    let answer = node.write(&a, 0xaa);
    assert_eq!(
        sense(&answer),
        (0x06, 0x2a, 0x01),
        "MODE PARAMETERS CHANGED"
    );
    assert_eq!(node.write(&a, 0xaa).status, GOOD);
    // With another ISID it is somebody else.
    node.tap.logout(&a);
    let a = node.login(host("a", 0x0e));
    assert_eq!(node.write(&a, 0xee).status, CONFLICT);
}

#[test]
fn a_reserve_of_a_session_that_has_ended_refuses_nobody() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    assert_eq!(node.status(&a, &RESERVE_6), GOOD);
    assert_eq!(node.status(&b, &RESERVE_6), CONFLICT, "A is there");
    node.tap.logout(&a);
    assert_eq!(node.status(&b, &RESERVE_6), GOOD);
    let a = node.login(host("a", 0x0a));
    assert_eq!(node.read(&a), CONFLICT, "it is B's now");

    node.tap.logout(&b);
    node.give(Order::SessionsEnded);
    node.run();
    assert_eq!(node.read(&a), GOOD);
    assert_eq!(node.report().reservations.spc2(), None);
}

#[test]
fn a_session_that_is_reinstated_has_lost_its_reserve() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    assert_eq!(node.status(&a, &RESERVE_6), GOOD);
    node.tap.logout(&a);
    let a = node.login(host("a", 0x0a));
    assert_eq!(node.status(&a, &TEST_UNIT_READY), GOOD);
    assert_eq!(node.read(&b), GOOD);
    // One that it sends at once is its own.
    node.tap.logout(&a);
    let a = node.login(host("a", 0x0a));
    assert_eq!(node.status(&a, &RESERVE_6), GOOD);
    assert_eq!(node.read(&b), CONFLICT);
    node.give(Order::SessionsEnded);
    node.run();
    assert_eq!(node.read(&b), CONFLICT);
}

#[test]
fn a_nexus_is_lost_with_the_last_of_its_sessions() {
    let mut node = Node::new();
    let old = node.login(host("a", 0x0a));
    let new = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    assert_eq!(node.status(&old, &RESERVE_6), GOOD);
    assert_eq!(node.status(&new, &TEST_UNIT_READY), GOOD);
    node.tap.logout(&old);
    node.give(Order::SessionsEnded);
    node.run();
    assert_eq!(node.read(&b), CONFLICT);
    node.tap.logout(&new);
    node.give(Order::SessionsEnded);
    node.run();
    assert_eq!(node.read(&b), GOOD);
}

#[test]
fn a_session_that_is_reinstated_is_still_registered() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    node.reserved_by(&a);
    node.tap.logout(&a);
    let a = node.login(host("a", 0x0a));
    assert_eq!(node.write(&a, 0xaa).status, GOOD);
    assert_eq!(node.report().sessions.len(), 1);
}

#[test]
fn a_reset_is_told_by_us_to_the_sessions_of_other_ports_only() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    let c = node.login(of_group_2(host("a", 0x0a)));
    for session in [&a, &b, &c] {
        assert_eq!(node.status(session, &TEST_UNIT_READY), GOOD);
    }
    // The note of the command behind it is not the reset's.
    node.ports[0].task_management(&node.tap, LOGICAL_UNIT_RESET);
    assert_eq!(node.status(&a, &TEST_UNIT_READY), GOOD);
    assert_eq!(node.status(&b, &TEST_UNIT_READY), GOOD);
    let answer = node.command(&c, (&TEST_UNIT_READY, Buffer::None));
    assert_eq!(sense(&answer), (0x06, 0x29, 0x03));
    assert_eq!(node.status(&c, &TEST_UNIT_READY), GOOD);
    assert_eq!(node.report().unknown_nexus, 0);
}

#[test]
fn who_may_not_write_does_not_and_is_told_when_that_changes() {
    let mut node = Node::new();
    let mut a = node.login(host("a", 0x0a));
    a.read_only = true;
    let b = node.login(host("b", 0x0b));
    assert_eq!(
        sense(&node.write(&a, 1)),
        (0x07, 0x27, 0x00),
        "WRITE PROTECTED"
    );
    assert_eq!(node.read(&a), GOOD);
    assert_eq!(node.write(&b, 2).status, GOOD);
    a.read_only = false;
    assert_eq!(sense(&node.write(&a, 3)), (0x06, 0x2a, 0x01));
    assert_eq!(node.write(&a, 3).status, GOOD);
    a.read_only = true;
    let answer = node.command(&a, (&READ, Buffer::In(512)));
    assert_eq!(sense(&answer), (0x06, 0x2a, 0x01));
    assert_eq!(sense(&node.write(&a, 4)), (0x07, 0x27, 0x00));
    assert_eq!(node.status(&b, &TEST_UNIT_READY), GOOD, "B's is as it was");
    assert_eq!(node.content(3), [3; 512]);
}

#[test]
fn a_target_port_that_is_not_known_yet_is_asked_for_once() {
    let mut node = Node::new();
    let mut first = TargetPorts::default();
    first.add(target_ports().iter().nth(1).unwrap());
    node.share(0, first.clone());
    let a = node.login(host("a", 0x0a));
    let b = node.login(of_group_2(host("b", 0x0b)));
    assert_eq!(node.status(&a, &TEST_UNIT_READY), GOOD);
    for _ in 0..2 {
        let answer = node.noted(0, &b, (&TEST_UNIT_READY, Buffer::None), Noting::Early);
        assert_eq!(answer.status, BUSY);
    }
    assert_eq!(node.notice(), "WhoSends(PortId(0))");
    assert!(node.notices.is_empty(), "once");
    let report = node.report();
    assert_eq!((report.unknown_nexus, report.not_noted), (2, 0));
    assert_eq!(report.sessions.len(), 1);

    // Whoever has looked has not found it yet.
    node.share(0, first);
    let answer = node.noted(0, &b, (&TEST_UNIT_READY, Buffer::None), Noting::Early);
    assert_eq!(answer.status, BUSY);
    assert_eq!(node.notice(), "WhoSends(PortId(0))");
    node.share(0, target_ports());
    let answer = node.noted(0, &b, (&TEST_UNIT_READY, Buffer::None), Noting::Early);
    assert_eq!(answer.status, GOOD);
    assert!(node.notices.is_empty());
}

#[test]
fn a_session_that_has_no_name_is_busy_each_time() {
    let mut node = Node::new();
    for who in [
        Who {
            isid: None,
            ..host("a", 0x0a)
        },
        Who {
            fabric: "usb_gadget",
            ..host("a", 0x0a)
        },
        Who {
            initiator: String::new(),
            ..host("a", 0x0a)
        },
    ] {
        let before = node.report().unknown_nexus;
        let session = node.login(who);
        for _ in 0..2 {
            assert_eq!(node.write(&session, 1).status, BUSY, "{session:?}");
        }
        assert_eq!(node.report().unknown_nexus, before + 2);
    }
    let report = node.report();
    assert_eq!(report.not_noted, 0);
    assert!(report.sessions.is_empty());
    assert_eq!(node.content(3), [0; 512]);
    assert!(node.notices.is_empty());
}

#[test]
fn a_new_tap_knows_nobody_and_takes_nothing_from_anybody() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    let c = node.login(of_group_2(host("c", 0x0c)));
    node.reserved_by(&a);
    assert_eq!(node.read(&b), GOOD);
    assert_eq!(node.reserve_out(&c, REGISTER, [0, KEY_B]), GOOD);
    // B's slot and generation will be A's.
    let before = node.tap.slot(&b);
    node.send(0, &a, (&WRITE, Buffer::Out(&[1; 512])), Noting::Early);
    node.tap = Tap::new();
    node.tapped(0);
    node.run();
    assert_eq!(node.ports[0].kernel.process()[0].status, BUSY);
    assert!(node.report().sessions.is_empty());
    assert_eq!(
        node.write(&c, 1).status,
        BUSY,
        "nothing is noted for that port"
    );
    node.tapped(1);
    node.run();
    assert_eq!(node.write(&c, 2).status, GOOD);
    assert_eq!(node.write(&a, 3).status, GOOD);
    assert_eq!(node.tap.slot(&a), before);
    assert_eq!(node.write(&b, 4).status, CONFLICT);
    assert_eq!(node.report().sessions.len(), 3);
}

#[test]
fn a_new_tap_ends_the_notes_of_every_port() {
    let mut node = Node::new();
    let a = node.login(of_group_2(host("a", 0x0a)));
    let b = node.login(host("b", 0x0b));
    node.reserved_by(&a);
    let before = node.tap.slot(&a);
    // On the other port lies a command that the old tap has noted.
    node.send(1, &a, (&WRITE, Buffer::Out(&[1; 512])), Noting::Early);
    node.tap = Tap::new();
    node.tapped(0);
    node.run();
    assert_eq!(node.ports[1].kernel.process()[0].status, BUSY);
    assert_eq!(node.write(&b, 2).status, CONFLICT);
    assert_eq!(node.tap.slot(&b), before, "it has what A had");
    assert_eq!(node.content(3), [0; 512]);
}

#[test]
fn notes_from_before_the_worker_has_them_are_nobodys() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    node.reserved_by(&a);
    assert_eq!(node.read(&b), GOOD);
    // From here on they have not been read, but A's command has been served.
    let notes = node.tap.notes().of_device(node.ports[0].minor).unwrap();
    assert_eq!(node.write(&a, 1).status, GOOD);
    node.give(Order::Tap(PortId(0), notes));
    let answer = node.noted(0, &b, (&WRITE, Buffer::Out(&[2; 512])), Noting::Never);
    assert_eq!(answer.status, BUSY);
    assert_eq!(node.content(3), [1; 512]);
}

#[test]
fn a_reserve_waits_for_a_session_that_is_about_to_end() {
    let mut node = Node::with(Tap::new(), Duration::from_secs(3600));
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    assert_eq!(node.status(&a, &RESERVE_6), GOOD);
    reserve_and_wait(&mut node, &b);
    assert_eq!(node.read(&a), GOOD, "others go on");
    node.tap.logout(&a);
    node.give(Order::SessionsEnded);
    node.run();
    assert_eq!(node.ports[0].kernel.process()[0].status, GOOD);
}

#[test]
fn a_reserve_outlives_the_tap() {
    let mut node = reserved_before_a_new_tap();
    let b = node.login(host("b", 0x0b));
    // Nobody knows whether A is still there: its session is looked for.
    reserve_and_wait(&mut node, &b);
    assert!(node.notice().starts_with("Reserved(PortId(0), 1, "));
    assert_eq!(node.notice(), "Doubted(PortId(0))");
    node.give(Order::Looked);
    node.run();
    assert_eq!(node.ports[0].kernel.process()[0].status, CONFLICT);
}

#[test]
fn a_reserve_of_who_has_gone_with_the_tap_ends() {
    let mut node = reserved_before_a_new_tap();
    let b = node.login(host("b", 0x0b));
    reserve_and_wait(&mut node, &b);
    node.give(Order::SessionLost(PortId(0), 1));
    node.give(Order::Looked);
    node.run();
    assert_eq!(node.ports[0].kernel.process()[0].status, GOOD);
}

#[test]
fn a_reserve_of_who_is_there_with_a_new_tap_does_not_end() {
    let mut node = reserved_before_a_new_tap();
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    assert_eq!(node.read(&a), GOOD, "it has come back into sight");
    node.give(Order::SessionLost(PortId(0), 1));
    assert_eq!(node.status(&b, &RESERVE_6), CONFLICT);
    node.tap.logout(&a);
    assert_eq!(node.status(&b, &RESERVE_6), GOOD);
}

/// Sends a RESERVE that conflicts, and is not answered until it is known whether the holder is still there.
fn reserve_and_wait(node: &mut Node, session: &Session) {
    node.send(0, session, (&RESERVE_6, Buffer::None), Noting::Early);
    node.run();
    assert_eq!(node.ports[0].kernel.process().len(), 0, "it waits");
}

/// A has reserved the unit, and the tap is a new one.
fn reserved_before_a_new_tap() -> Node {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    assert_eq!(node.status(&a, &RESERVE_6), GOOD);
    node.tap = Tap::new();
    node.tapped(0);
    node.tapped(1);
    node.run();
    node
}

#[test]
fn a_port_that_serves_nobody_for_a_while_stays_in_step() {
    let mut node = Node::new();
    let a = node.login(host("a", 0x0a));
    node.reserved_by(&a);
    node.unidentify(0);
    for noting in [Noting::Early, Noting::Late, Noting::Never, Noting::Early] {
        let answer = node.noted(0, &a, (&WRITE, Buffer::Out(&[1; 512])), noting);
        assert_eq!(answer.status, BUSY);
    }
    assert_eq!(node.notice(), "WhoSends(PortId(0))");
    assert_eq!(node.content(3), [0; 512]);
    node.share(0, target_ports());
    assert_eq!(node.write(&a, 2).status, GOOD);
    let report = node.report();
    assert_eq!((report.unknown_nexus, report.not_noted), (4, 0));
}
