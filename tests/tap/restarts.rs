//! Another daemon goes on where one has left off: what was sent meanwhile is of whom it is, or nobody's.

use std::collections::BTreeMap;
use std::time::Duration;

use tcmu_pr::daemon::worker::Order;

use crate::kernel::Buffer;
use crate::node::{Node, host, of_group_2};
use crate::tap::{Noting, Session, Tap};
use crate::{BUSY, CONFLICT, GOOD, WRITE};

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
