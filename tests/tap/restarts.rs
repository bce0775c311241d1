//! Another daemon goes on where one has left off: what was sent meanwhile is of whom it is, or nobody's.

use std::collections::BTreeMap;
use std::time::Duration;

use crossbeam_channel::unbounded;
use tcmu_pr::daemon::worker::{Order, PortId};

use crate::kernel::Buffer;
use crate::node::{Node, host, of_group_2};
use crate::tap::{Noting, Session, Tap};
use crate::{
    BUSY, CONFLICT, GOOD, LOGICAL_UNIT_RESET, READ, RESERVE_6, TEST_UNIT_READY, WRITE, sense,
};

/// A node where `a` may write, and `b` and `c` may not; `c` comes through the other port.
fn reserved() -> (Node, [Session; 3]) {
    let mut node = Node::with(Tap::with_slots(3), Duration::ZERO);
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    let c = node.login(of_group_2(host("c", 0x0c)));
    node.reserved_by(&a);
    assert_eq!(node.write(&b, 0xbb).status, CONFLICT);
    assert_eq!(node.write(&c, 0xcc).status, CONFLICT);
    (node, [a, b, c])
}

/// Sends a write that fills the block with a byte.
fn send(node: &mut Node, session: &Session, byte: u8, noting: Noting) -> u16 {
    let command = (&WRITE[..], Buffer::Out(&[byte; 512]));
    node.send(crate::node::port_of(session), session, command, noting)
}

#[test]
fn what_was_sent_meanwhile_is_of_whom_it_is() {
    let (mut node, [a, b, c]) = reserved();
    let rests = node.stop();
    let expected = BTreeMap::from([
        (send(&mut node, &b, 0xbb, Noting::Early), CONFLICT),
        (send(&mut node, &a, 0xa1, Noting::Early), GOOD),
        (send(&mut node, &b, 0xbb, Noting::Early), CONFLICT),
        (send(&mut node, &a, 0xa2, Noting::Late), GOOD),
    ]);
    let other = send(&mut node, &c, 0xcc, Noting::Late);
    assert_eq!(node.start_again(&rests), [true; 2]);
    assert_eq!(node.ports[0].kernel.process(), [], "nothing is begun yet");
    assert_eq!(node.take_backlog(0), expected);
    assert_eq!(node.take_backlog(1), BTreeMap::from([(other, CONFLICT)]));
    assert_eq!(node.content(3), [0xa2; 512]);
    // From now on as ever.
    assert_eq!(node.write(&b, 0xbb).status, CONFLICT);
    assert_eq!(node.write(&a, 0xa3).status, GOOD);
    assert_eq!(node.report().not_noted, 0);
}

#[test]
fn what_was_not_noted_meanwhile_is_nobodys() {
    let (mut node, [a, b, _]) = reserved();
    let rests = node.stop();
    let expected = BTreeMap::from([
        (send(&mut node, &a, 0xa1, Noting::Early), GOOD),
        (send(&mut node, &b, 0xbb, Noting::Never), BUSY),
        (send(&mut node, &a, 0xa2, Noting::Early), GOOD),
        (send(&mut node, &a, 0xa3, Noting::Never), BUSY),
        (send(&mut node, &b, 0xbb, Noting::Late), CONFLICT),
    ]);
    node.start_again(&rests);
    assert_eq!(node.take_backlog(0), expected);
    assert_eq!(node.content(3), [0xa2; 512]);
}

#[test]
fn one_that_begins_nothing_leaves_it_to_the_next() {
    let (mut node, [a, b, _]) = reserved();
    let rests = node.stop();
    let first = send(&mut node, &a, 0xa1, Noting::Early);
    node.start_again(&rests);
    assert_eq!(node.stop(), rests);
    let second = send(&mut node, &b, 0xbb, Noting::Early);
    assert_eq!(node.start_again(&rests), [true; 2]);
    let expected = BTreeMap::from([(first, GOOD), (second, CONFLICT)]);
    assert_eq!(node.take_backlog(0), expected);
}

#[test]
fn what_was_sent_before_a_reset_of_the_ring_is_nobodys() {
    for after_start in [false, true] {
        let (mut node, [a, b, c]) = reserved();
        let rests = node.stop();
        send(&mut node, &a, 0xa1, Noting::Early);
        if after_start {
            node.start_again(&rests);
        }
        node.ports[0].reset(&node.tap);
        let expected = BTreeMap::from([
            (send(&mut node, &b, 0xbb, Noting::Early), BUSY),
            (send(&mut node, &a, 0xa2, Noting::Early), BUSY),
        ]);
        let other = send(&mut node, &c, 0xcc, Noting::Early);
        if !after_start {
            assert_eq!(node.start_again(&rests), [false, true]);
        }
        assert_eq!(node.take_backlog(0), expected);
        assert_eq!(node.take_backlog(1), BTreeMap::from([(other, CONFLICT)]));
        assert_eq!(node.content(3), [0; 512]);
        assert_eq!(node.write(&b, 0xbb).status, CONFLICT);
        assert_eq!(node.write(&a, 0xa3).status, GOOD);
    }
}

#[test]
fn a_session_that_has_ended_meanwhile_is_not_taken_for_the_next_in_its_slot() {
    let (mut node, [a, b, _]) = reserved();
    let rests = node.stop();
    let ended = send(&mut node, &a, 0xa1, Noting::Early);
    let slot = node.tap.slot(&a);
    node.tap.logout(&a);
    node.tap.logout(&b);
    let next = node.login(host("b", 0x0b));
    let after = send(&mut node, &next, 0xbb, Noting::Early);
    assert_eq!(node.tap.slot(&next), slot);
    let again = node.login(host("a", 0x0a));
    let back = send(&mut node, &again, 0xa2, Noting::Early);
    node.start_again(&rests);
    let expected = BTreeMap::from([(ended, BUSY), (after, CONFLICT), (back, GOOD)]);
    assert_eq!(node.take_backlog(0), expected);
    assert_eq!(node.content(3), [0xa2; 512]);
}

#[test]
fn a_tap_that_was_attached_meanwhile_has_noted_nothing_of_before() {
    let (mut node, [a, ..]) = reserved();
    let rests = node.stop();
    send(&mut node, &a, 0xa1, Noting::Early);
    node.tap = Tap::with_slots(3);
    send(&mut node, &a, 0xa1, Noting::Early);
    assert_eq!(node.start_again(&rests), [false; 2]);
    let answers = node.take_backlog(0);
    assert_eq!(answers.into_values().collect::<Vec<_>>(), [BUSY, BUSY]);
    assert_eq!(node.write(&a, 0xa2).status, GOOD);
}

#[test]
fn a_tap_that_is_lost_before_anything_is_begun_leaves_it_to_nobody() {
    let (mut node, [a, ..]) = reserved();
    let rests = node.stop();
    let sent = send(&mut node, &a, 0xa1, Noting::Early);
    node.start_again(&rests);
    node.tap = Tap::with_slots(3);
    node.tapped(0);
    node.tapped(1);
    node.give(Order::SessionsEnded);
    assert_eq!(node.take_backlog(0), BTreeMap::from([(sent, BUSY)]));
    assert_eq!(node.content(3), [0; 512]);
}

/// A node where `a` has reserved the unit by RESERVE, and `b` has sent a command.
fn reserved_by_reserve() -> (Node, [Session; 2]) {
    let mut node = Node::with(Tap::with_slots(2), Duration::ZERO);
    let a = node.login(host("a", 0x0a));
    let b = node.login(host("b", 0x0b));
    assert_eq!(node.status(&a, &RESERVE_6), GOOD);
    assert_eq!(node.read(&b), CONFLICT);
    (node, [a, b])
}

/// The daemon ends, another one goes on, and something happens in between.
fn restart(node: &mut Node, meanwhile: impl FnOnce(&mut Node)) {
    let rests = node.stop();
    meanwhile(node);
    assert_eq!(node.start_again(&rests), [true; 2]);
    node.take_backlog(0);
}

#[test]
fn a_reset_that_came_meanwhile_is_told_to_who_has_sent_nothing_since() {
    let (mut node, [a, b, c]) = reserved();
    restart(&mut node, |node| {
        node.ports[0].task_management(&node.tap, LOGICAL_UNIT_RESET);
    });
    for session in [&a, &b] {
        let status = node.status(session, &TEST_UNIT_READY);
        assert_eq!(status, GOOD, "the kernel has told those of the port");
    }
    let answer = node.command(&c, (&TEST_UNIT_READY, Buffer::None));
    assert_eq!(sense(&answer), (0x06, 0x29, 0x03));
    assert_eq!(node.status(&c, &TEST_UNIT_READY), GOOD);
}

#[test]
fn a_reserve_ends_with_its_session_though_another_has_taken_its_place() {
    let (mut node, [a, b]) = reserved_by_reserve();
    let slot = node.tap.slot(&a);
    let again = node.login(host("a", 0x0a));
    restart(&mut node, |node| {
        node.tap.logout(&a);
        let command = (&TEST_UNIT_READY[..], Buffer::None);
        node.send(0, &again, command, Noting::Early);
    });
    assert_eq!(node.tap.slot(&again), slot);
    assert_eq!(node.read(&b), GOOD);
    assert_eq!(node.report().reservations.spc2(), None);
}

#[test]
fn a_reserve_that_another_session_has_sent_since_is_its_own() {
    let (mut node, [a, b]) = reserved_by_reserve();
    let again = node.login(host("a", 0x0a));
    restart(&mut node, |node| {
        node.tap.logout(&a);
        let command = (&RESERVE_6[..], Buffer::None);
        node.send(0, &again, command, Noting::Early);
    });
    assert_eq!(node.read(&b), CONFLICT);
    assert_eq!(node.read(&again), GOOD);
}

#[test]
fn a_reserve_stays_as_long_as_one_session_of_its_nexus() {
    let (mut node, [a, b]) = reserved_by_reserve();
    node.tap.logout(&b);
    // Through the other port, which comes after the one by which the first is known.
    let other = node.login(host("a", 0x0a));
    let command = (&TEST_UNIT_READY[..], Buffer::None);
    node.noted(1, &other, command, Noting::Early);
    restart(&mut node, |node| node.tap.logout(&a));
    let b = node.login(host("b", 0x0b));
    assert_eq!(node.read(&b), CONFLICT);
    node.tap.logout(&other);
    node.give(Order::SessionsEnded);
    node.run();
    assert_eq!(node.read(&b), GOOD, "it has ended in sight of the next");
}

#[test]
fn who_is_there_is_known_before_it_has_sent_anything() {
    let (mut node, [_, b, c]) = reserved();
    let mut before = node.report().sessions;
    restart(&mut node, |node| node.tap.logout(&b));
    before.retain(|(nexus, _)| !nexus.to_string().contains("iqn.2026-11.example:b,"));
    assert_eq!(before.len(), 2);
    assert_eq!(node.report().sessions, before);
    assert_eq!(node.write(&c, 0xcc).status, CONFLICT);
    assert_eq!(node.report().sessions, before, "it is the same");
}

#[test]
fn who_is_known_already_when_another_port_comes_is_known_once() {
    let (mut node, [.., c]) = reserved();
    let rests = node.stop();
    node.start_without_ports();
    node.go_on(0, &rests);
    node.take_backlog(0);
    let read = (&READ[..], Buffer::In(512));
    assert_eq!(node.noted(0, &c, read, Noting::Early).status, GOOD);
    node.go_on(1, &rests);
    node.take_backlog(1);
    let of_c = |node: &mut Node| {
        let sessions = node.report().sessions.into_iter();
        sessions
            .filter(|(nexus, _)| nexus.to_string().contains("iqn.2026-11.example:c,"))
            .count()
    };
    assert_eq!(of_c(&mut node), 1);
    node.tap.logout(&c);
    node.give(Order::SessionsEnded);
    assert_eq!(of_c(&mut node), 0);
    // Nobody keeps for it what happens now.
    node.give(Order::WriteCache(true));
    node.run();
    let c = node.login(of_group_2(host("c", 0x0c)));
    assert_eq!(node.status(&c, &TEST_UNIT_READY), GOOD);
}

#[test]
fn a_port_that_comes_later_ends_no_reserve_that_was_sent_since() {
    let (mut node, [a, b]) = reserved_by_reserve();
    // A is known by the other port.
    node.tap.logout(&a);
    let a = node.login(host("a", 0x0a));
    let command = (&RESERVE_6[..], Buffer::None);
    assert_eq!(node.noted(1, &a, command, Noting::Early).status, GOOD);
    let rests = node.stop();
    node.tap.logout(&a);
    let again = node.login(host("a", 0x0a));
    node.start_without_ports();
    node.go_on(0, &rests);
    node.take_backlog(0);
    assert_eq!(node.status(&again, &RESERVE_6), GOOD);
    // It is not known any more by whose session it was sent.
    node.give(Order::RemovePort(PortId(0), unbounded().0));
    node.go_on(1, &rests);
    node.take_backlog(1);
    let read = (&READ[..], Buffer::In(512));
    assert_eq!(node.noted(1, &b, read, Noting::Early).status, CONFLICT);
}

#[test]
fn who_was_known_by_a_port_that_is_removed_is_not_any_more() {
    let (mut node, _) = reserved();
    let rests = node.stop();
    node.start_again(&rests);
    node.give(Order::RemovePort(PortId(1), unbounded().0));
    node.take_backlog(0);
    let sessions = node.report().sessions;
    assert_eq!(sessions.len(), 2, "A and B, and not C: {sessions:?}");
}

#[test]
fn with_a_tap_that_was_attached_meanwhile_no_session_is_taken_over() {
    let (mut node, [_, b]) = reserved_by_reserve();
    let rests = node.stop();
    node.tap = Tap::with_slots(2);
    assert_eq!(node.start_again(&rests), [false; 2]);
    node.take_backlog(0);
    assert_eq!(node.report().sessions, []);
    assert_eq!(node.read(&b), CONFLICT, "nobody knows whether A has gone");
}

#[test]
fn what_is_known_of_sessions_is_forgotten_with_the_tap_that_has_told_of_them() {
    let (mut node, [_, b]) = reserved_by_reserve();
    let rests = node.stop();
    assert_eq!(node.start_again(&rests), [true; 2]);
    node.tap = Tap::with_slots(2);
    node.tapped(0);
    node.tapped(1);
    node.take_backlog(0);
    assert_eq!(node.report().sessions, []);
    assert_eq!(node.read(&b), CONFLICT);
}
