//! A worker's real loop against a stand-in for the kernel, a disk whose operations the test ends when it likes,
//! and records that can fail.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/kernel.rs"]
mod kernel;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, unbounded};
use disk::{Disk, TestStore, end_first};
use kernel::{Buffer, Completed, Kernel, RING_OFFSET, STALE};
use proptest::prelude::*;
use tcmu_pr::control::Undone;
use tcmu_pr::daemon::recorder::Recorder;
use tcmu_pr::daemon::records::Keep;
use tcmu_pr::daemon::worker::{self, Handle, Identity, Notice, Order, Parts, Poll, PortId, Report};
use tcmu_pr::lu::{Mapping, ToStore};
use tcmu_pr::pr::Reservations;
use tcmu_pr::pr::admin::Action;
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TargetPorts, TransportId};
use tcmu_pr::store::saved;
use tcmu_pr::sys::wait::EpollWait;
use tcmu_pr::sys::wake::Waker;

const SOON: Duration = Duration::from_secs(20);
const A: usize = 0;
const B: usize = 1;
const KEY_A: u64 = 0xa;
const KEY_B: u64 = 0xb;

const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;
const BUSY: u8 = 0x08;
const CONFLICT: u8 = 0x18;
const TASK_ABORTED: u8 = 0x40;

const TEST_UNIT_READY: [u8; 6] = [0; 6];
/// One block at LBA 3.
const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 3, 0, 0, 1, 0];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 3, 0, 0, 1, 0];
const RESERVE_6: [u8; 6] = [0x16, 0, 0, 0, 0, 0];
const RELEASE_6: [u8; 6] = [0x17, 0, 0, 0, 0, 0];

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;

/// Records in memory.
#[derive(Clone, Default)]
struct TestKeeper {
    kept: Arc<Mutex<Vec<Reservations>>>,
    /// A folder that is not there: storing fails as it does on a real disk.
    fails: Arc<Mutex<bool>>,
    /// Whoever has it holds up storing.
    slow: Arc<Mutex<()>>,
}

impl Keep for TestKeeper {
    fn save(&mut self, to_store: &ToStore) -> Result<(), saved::Error> {
        let _slow = self.slow.lock().unwrap();
        if *self.fails.lock().unwrap() {
            return saved::replace(&saved::Disk, "/nonexistent/folder/record".as_ref(), b"");
        }
        self.kept.lock().unwrap().push(to_store.next.clone());
        Ok(())
    }
}

struct Node {
    kernels: Vec<Kernel>,
    handle: Handle,
    notices: Receiver<Notice>,
    disk: Arc<Mutex<Disk>>,
    waker: Waker,
    keeper: TestKeeper,
}

fn nexus(index: usize) -> ItNexus {
    ItNexus {
        initiator_port: TransportId::Sas(0x3000_0000_0000_0001 + index as u64),
        target_port: target_port(),
    }
}

fn target_port() -> TargetPort {
    TargetPort {
        protocol: Protocol::Sas,
        name: "naa.1".into(),
    }
}

impl Node {
    /// A unit of 64 blocks with a port for A and one for B, of which nobody knows yet who sends.
    fn unidentified() -> Node {
        let waker = Waker::new().unwrap();
        let disk = Arc::new(Mutex::new(Disk::new()));
        let keeper = TestKeeper::default();
        let (notices_in, notices) = unbounded();
        let parts = Parts {
            unit: disk::unit(),
            store: TestStore {
                disk: Arc::clone(&disk),
                waker: waker.clone(),
                wait: EpollWait::new().unwrap(),
            },
            medium: None,
            recorder: Recorder::start(keeper.clone(), &waker).unwrap(),
            waker: waker.clone(),
            notices: notices_in,
            logout_patience: Duration::ZERO,
            poll: Poll::Off,
        };
        let handle = worker::start("unit", parts).unwrap();
        let mut kernels = Vec::new();
        for port in [A, B] {
            let (mut kernel, device) = Kernel::new(1 << 14, 64);
            kernel.scatter = true;
            handle.give(Order::AddPort(PortId(port), device));
            kernels.push(kernel);
        }
        Node {
            kernels,
            handle,
            notices,
            disk,
            waker,
            keeper,
        }
    }

    fn new() -> Node {
        let node = Node::unidentified();
        node.identify(A, Some(nexus(A)));
        node.identify(B, Some(nexus(B)));
        // The answer says that the orders before it were carried out.
        node.report();
        node
    }

    fn identify(&self, port: usize, nexus: Option<ItNexus>) {
        let mut target_ports = TargetPorts::default();
        target_ports.add(&target_port());
        let identity = nexus.map(|nexus| Identity {
            nexus: Some(nexus),
            mapping: Mapping::ReadWrite,
        });
        self.handle.give(Order::Identify {
            port: PortId(port),
            identity,
            target_ports,
        });
    }

    fn report(&self) -> Report {
        let (reply, answer) = bounded(1);
        self.handle.give(Order::Report(reply));
        answer.recv_timeout(SOON).unwrap()
    }

    /// How things are after everything that is on the rings now has been taken: orders are obeyed before entries
    /// are taken, so the second report comes after them.
    fn settled(&self) -> Report {
        self.report();
        self.report()
    }

    /// Waits until the reservations are so: what changes them is stored beside the worker.
    fn wait_for(&self, wanted: impl Fn(&Reservations) -> bool) {
        let deadline = std::time::Instant::now() + SOON;
        while !wanted(&self.report().reservations) {
            assert!(std::time::Instant::now() < deadline, "it does not come");
        }
    }

    fn send(&mut self, from: usize, cdb: &[u8], buffer: Buffer<'_>) -> u16 {
        let id = self.kernels[from].submit(cdb, buffer).expect("room");
        self.kernels[from].ring_doorbell();
        id
    }

    /// Sends a command and waits for its answer.
    fn command(&mut self, from: usize, cdb: &[u8], buffer: Buffer<'_>) -> Completed {
        let id = self.send(from, cdb, buffer);
        let answer = self.kernels[from].wait_for(1).remove(0);
        assert_eq!(answer.id, id);
        answer
    }

    fn send_reserve_out(&mut self, from: usize, action: u8, keys: [u64; 2]) -> u16 {
        let mut list = [0; 24];
        list[..8].copy_from_slice(&keys[0].to_be_bytes());
        list[8..16].copy_from_slice(&keys[1].to_be_bytes());
        // Write exclusive, registrants only.
        self.send(
            from,
            &[0x5f, action, 5, 0, 0, 0, 0, 0, 24, 0],
            Buffer::Out(&list),
        )
    }

    fn reserve_out(&mut self, from: usize, action: u8, keys: [u64; 2]) -> u8 {
        self.send_reserve_out(from, action, keys);
        self.kernels[from].wait_for(1)[0].status
    }

    /// A and B registered, A holds write exclusive, registrants only.
    fn reserved() -> Node {
        let mut node = Node::new();
        assert_eq!(node.reserve_out(A, REGISTER, [0, KEY_A]), GOOD);
        assert_eq!(node.reserve_out(B, REGISTER, [0, KEY_B]), GOOD);
        assert_eq!(node.reserve_out(A, RESERVE, [KEY_A, 0]), GOOD);
        node
    }

    fn hold_disk(&self) {
        self.disk.lock().unwrap().held = true;
    }

    /// Ends the operations that wait, and holds no more.
    fn let_go(&self) {
        self.disk.lock().unwrap().let_go();
        self.waker.wake();
    }

    /// Waits until so many operations are with the disk: the worker has begun the commands.
    fn wait_until_held(&self, count: usize) {
        let deadline = std::time::Instant::now() + SOON;
        while self.disk.lock().unwrap().waiting.len() != count {
            assert!(
                std::time::Instant::now() < deadline,
                "the worker did not begin {count}"
            );
            std::thread::yield_now();
        }
    }

    fn content(&self, block: usize) -> Vec<u8> {
        self.disk.lock().unwrap().memory.content()[512 * block..512 * (block + 1)].to_vec()
    }

    fn stop(self) {
        assert!(self.handle.stop(SOON));
    }
}

fn sense(answer: &Completed) -> (u8, u8, u8) {
    assert_eq!(answer.status, CHECK_CONDITION);
    (answer.sense[2], answer.sense[12], answer.sense[13])
}

#[test]
fn a_command_of_an_unknown_nexus_is_busy_and_the_main_thread_is_asked_once() {
    let mut node = Node::unidentified();
    assert_eq!(node.command(A, &WRITE, Buffer::Out(&[7; 512])).status, BUSY);
    assert_eq!(
        node.command(A, &[0x12, 0, 0, 0, 96, 0], Buffer::In(96))
            .status,
        BUSY
    );
    assert!(matches!(
        node.notices.recv_timeout(SOON).unwrap(),
        Notice::WhoSends(PortId(A))
    ));
    assert_eq!(node.settled().unknown_nexus, 2);
    assert!(node.notices.is_empty());
    assert_eq!(node.content(3), [0; 512], "nothing was performed");

    node.identify(A, Some(nexus(A)));
    node.settled();
    assert_eq!(node.command(A, &WRITE, Buffer::Out(&[7; 512])).status, GOOD);
    assert_eq!(node.content(3), [7; 512]);
    node.identify(A, None);
    node.settled();
    assert_eq!(node.command(A, &WRITE, Buffer::Out(&[8; 512])).status, BUSY);
    assert_eq!(node.content(3), [7; 512]);
    node.stop();
}

#[test]
fn what_is_done_is_measured() {
    let mut node = Node::new();
    assert_eq!(node.command(A, &WRITE, Buffer::Out(&[7; 512])).status, GOOD);
    let read = [0x28, 0, 0, 0, 0, 5, 0, 0, 10, 0];
    assert_eq!(node.command(B, &read, Buffer::In(5120)).status, GOOD);
    assert_eq!(node.command(A, &TEST_UNIT_READY, Buffer::None).status, GOOD);
    node.identify(A, None);
    node.settled();
    assert_eq!(node.command(A, &WRITE, Buffer::Out(&[8; 512])).status, BUSY);
    let measured = node.settled().measured;
    let [reads, writes, flushes, others] = measured.totals;
    let counted = [reads, writes, flushes, others].map(|total| (total.commands, total.bytes));
    assert_eq!(counted, [(1, 5120), (2, 512), (0, 0), (1, 0)]);
    assert_eq!((measured.busy, measured.depth), (1, 0));
    assert_eq!(writes.latencies.iter().sum::<u64>(), 1);

    node.hold_disk();
    node.send(B, &read, Buffer::In(5120));
    node.wait_until_held(1);
    let waiting = node.report().measured;
    assert_eq!((waiting.depth, waiting.totals[0].commands), (1, 1));
    assert!(!waiting.oldest.is_zero());
    node.let_go();
    node.kernels[B].wait_for(1);
    let answered = node.settled().measured;
    assert_eq!((answered.depth, answered.totals[0].commands), (0, 2));
    node.stop();
}

#[test]
fn a_reset_comes_before_what_waits_on_another_ring() {
    let mut node = Node::new();
    // The initiator has learned of the reset through B's port when it sends this through A's.
    node.kernels[B].task_management(5, &[]); // LOGICAL UNIT RESET
    let told = node.command(A, &TEST_UNIT_READY, Buffer::None);
    assert_eq!(sense(&told), (0x06, 0x29, 0x03));
    assert_eq!(node.command(A, &TEST_UNIT_READY, Buffer::None).status, GOOD);
    node.stop();
}

#[test]
fn what_one_port_writes_the_other_reads() {
    let mut node = Node::new();
    let pattern: Vec<u8> = (0..5120u32)
        .map(|byte| byte.to_le_bytes()[0] ^ 0x11)
        .collect();
    let write = [0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 10, 0, 0];
    assert_eq!(node.command(A, &write, Buffer::Out(&pattern)).status, GOOD);
    let read = [0x28, 0, 0, 0, 0, 5, 0, 0, 10, 0];
    let answer = node.command(B, &read, Buffer::In(5120));
    assert_eq!(answer.status, GOOD);
    assert_eq!(answer.data_in, pattern);
    assert!(node.kernels[A].idle());
    node.stop();
}

#[test]
fn many_commands_are_answered_with_few_doorbells() {
    let mut node = Node::new();
    (0..50).for_each(|_| {
        assert!(
            node.kernels[A]
                .submit(&TEST_UNIT_READY, Buffer::None)
                .is_some()
        )
    });
    node.kernels[A].doorbells();
    node.kernels[A].ring_doorbell();
    // All of them lie on the ring when the worker wakes up: it takes them in one turn.
    let deadline = std::time::Instant::now() + SOON;
    let (mut answers, mut doorbells) = (0, 0);
    while answers < 50 {
        assert!(std::time::Instant::now() < deadline);
        answers += node.kernels[A].process().len();
        doorbells += node.kernels[A].doorbells();
    }
    node.settled();
    doorbells += node.kernels[A].doorbells();
    assert_eq!(doorbells, 1);
    node.stop();
}

#[test]
fn a_preempt_is_answered_after_the_victims_last_write() {
    let mut node = Node::reserved();
    node.hold_disk();
    node.send(B, &WRITE, Buffer::Out(&[0xbb; 512]));
    node.wait_until_held(1);
    node.send_reserve_out(A, PREEMPT, [KEY_A, KEY_B]);
    node.wait_for(|reservations| reservations.registrants().len() == 1);
    assert!(
        node.kernels[A].process().is_empty(),
        "it is in force, but not answered"
    );

    let id = node.send(A, &TEST_UNIT_READY, Buffer::None);
    assert_eq!(
        node.kernels[A].wait_for(1)[0].id,
        id,
        "others are served meanwhile"
    );
    let refused = node.send(B, &WRITE, Buffer::Out(&[0xcc; 512]));
    let answer = &node.kernels[B].wait_for(1)[0];
    assert_eq!((answer.id, answer.status), (refused, CONFLICT));

    node.let_go();
    assert_eq!(node.kernels[B].wait_for(1)[0].status, GOOD);
    assert_eq!(node.kernels[A].wait_for(1)[0].status, GOOD);
    assert_eq!(node.content(3), [0xbb; 512]);
    node.stop();
}

#[test]
fn nothing_of_a_nexus_whose_writes_were_aborted_reaches_the_disk_any_more() {
    const WRITES: u8 = 32;
    let write = |block| [0x2a, 0, 0, 0, 0, block, 0, 0, 1, 0];
    let mut node = Node::reserved();
    node.hold_disk();
    for block in 0..WRITES {
        node.send(B, &write(block), Buffer::Out(&[0xbb; 512]));
    }
    node.wait_until_held(WRITES.into());
    let preempt = node.send_reserve_out(A, PREEMPT_AND_ABORT, [KEY_A, KEY_B]);
    node.wait_for(|reservations| reservations.registrants().len() == 1);
    for written in 0..WRITES {
        assert!(
            node.kernels[A].process().is_empty(),
            "after {written} writes"
        );
        end_first(&node.disk, &node.waker);
        assert_eq!(node.kernels[B].wait_for(1)[0].status, TASK_ABORTED);
    }
    let answer = node.kernels[A].wait_for(1).remove(0);
    assert_eq!((answer.id, answer.status), (preempt, GOOD));
    node.let_go();
    let content = node.disk.lock().unwrap().memory.content();
    for block in 0..WRITES {
        let answer = node.command(B, &write(block), Buffer::Out(&[0xcc; 512]));
        assert_eq!(answer.status, CONFLICT);
    }
    node.settled();
    assert!(node.disk.lock().unwrap().memory.content() == content);
    node.stop();
}

#[test]
fn a_change_is_stored_before_it_is_answered() {
    let node = Node::reserved();
    let kept = node.keeper.kept.lock().unwrap().clone();
    assert_eq!(kept.len(), 3, "two registrations and a reservation");
    assert_eq!(kept[2], node.settled().reservations);
    node.stop();
}

#[test]
fn a_change_that_cannot_be_stored_is_refused_and_has_no_effect() {
    let mut node = Node::reserved();
    *node.keeper.fails.lock().unwrap() = true;
    node.send_reserve_out(A, PREEMPT, [KEY_A, KEY_B]);
    let answer = node.kernels[A].wait_for(1).remove(0);
    assert_eq!(
        sense(&answer),
        (0x04, 0x44, 0x00),
        "INTERNAL TARGET FAILURE"
    );
    assert_eq!(node.settled().reservations.registrants().len(), 2);
    assert_eq!(node.command(B, &WRITE, Buffer::Out(&[1; 512])).status, GOOD);
    node.stop();
}

#[test]
fn a_slow_record_holds_up_the_change_and_nothing_else() {
    let mut node = Node::reserved();
    let slow = Arc::clone(&node.keeper.slow);
    let held = slow.lock().unwrap();
    let preempt = node.send_reserve_out(A, PREEMPT, [KEY_A, KEY_B]);
    let write = node.send(B, &WRITE, Buffer::Out(&[0xbb; 512]));
    let answer = node.kernels[B].wait_for(1).remove(0);
    assert_eq!((answer.id, answer.status), (write, GOOD));
    assert_eq!(node.settled().reservations.registrants().len(), 2);
    assert!(node.kernels[A].process().is_empty());
    drop(held);
    let answer = node.kernels[A].wait_for(1).remove(0);
    assert_eq!((answer.id, answer.status), (preempt, GOOD));
    assert_eq!(
        node.command(B, &WRITE, Buffer::Out(&[0xcc; 512])).status,
        CONFLICT
    );
    node.stop();
}

#[test]
fn a_stop_answers_the_change_that_is_being_stored() {
    let mut node = Node::reserved();
    let slow = Arc::clone(&node.keeper.slow);
    let held = slow.lock().unwrap();
    node.send_reserve_out(A, PREEMPT, [KEY_A, KEY_B]);
    node.settled();
    node.handle.give(Order::Stop);
    node.settled();
    assert!(node.kernels[A].process().is_empty());
    drop(held);
    let Node {
        handle,
        mut kernels,
        ..
    } = node;
    assert!(handle.stop(SOON));
    assert_eq!(kernels[A].process()[0].status, GOOD);
}

#[test]
fn the_administrator_is_told_how_his_order_ended() {
    let mut node = Node::reserved();
    let administer = |action| {
        let (reply, outcome) = bounded(1);
        node.handle.give(Order::Administer { action, reply });
        outcome.recv_timeout(SOON).unwrap()
    };
    let error = administer(Action::Preempt { key: 0xdead }).unwrap_err();
    let why = "nobody is registered with the key 0x000000000000dead";
    assert_eq!(error, Undone::Refused(why.to_owned()));
    administer(Action::Preempt { key: KEY_B }).unwrap();
    assert_eq!(node.report().reservations.registrants().len(), 1);
    administer(Action::Clear).unwrap();
    assert_eq!(node.report().reservations.registrants().len(), 0);
    let answer = node.command(B, &TEST_UNIT_READY, Buffer::None);
    assert_eq!(
        sense(&answer),
        (0x06, 0x2a, 0x05),
        "REGISTRATIONS PREEMPTED"
    );
    node.stop();
}

#[test]
fn a_port_that_goes_with_a_write_in_flight_leaves_the_others_alone() {
    let mut node = Node::reserved();
    node.hold_disk();
    node.send(B, &WRITE, Buffer::Out(&[0xbb; 512]));
    node.wait_until_held(1);
    let (removed, done) = bounded(1);
    node.handle.give(Order::RemovePort(PortId(B), removed));
    done.recv_timeout(SOON).unwrap();
    node.send_reserve_out(A, PREEMPT, [KEY_A, KEY_B]);
    node.wait_for(|reservations| reservations.registrants().len() == 1);
    assert!(
        node.kernels[A].process().is_empty(),
        "the write can still reach the disk"
    );
    node.let_go();
    assert_eq!(node.kernels[A].wait_for(1)[0].status, GOOD);
    assert_eq!(node.content(3), [0xbb; 512]);
    assert!(node.kernels[B].process().is_empty());
    node.stop();
}

#[test]
fn a_broken_ring_is_told_and_the_other_port_goes_on() {
    let mut node = Node::new();
    node.kernels[B]
        .submit(&TEST_UNIT_READY, Buffer::None)
        .unwrap();
    node.kernels[B].region.write(RING_OFFSET, &1u32).unwrap();
    node.kernels[B].ring_doorbell();
    let notice = node.notices.recv_timeout(SOON).unwrap();
    assert!(matches!(notice, Notice::Failed(PortId(B), _)), "{notice:?}");
    assert_eq!(node.command(A, &TEST_UNIT_READY, Buffer::None).status, GOOD);
    node.stop();
}

#[test]
fn a_ring_that_was_reset_goes_on_and_old_answers_go_nowhere() {
    let mut node = Node::new();
    assert_eq!(node.command(A, &TEST_UNIT_READY, Buffer::None).status, GOOD);
    node.hold_disk();
    node.send(A, &WRITE, Buffer::Out(&[1; 512]));
    node.wait_until_held(1);
    node.kernels[A].reset();
    let id = node.send(A, &TEST_UNIT_READY, Buffer::None);
    let answer = node.kernels[A].wait_for(1).remove(0);
    assert_eq!((answer.id, answer.status), (id, GOOD));
    node.let_go();
    node.settled();
    assert!(node.kernels[A].process().is_empty());
    assert_eq!(node.command(A, &TEST_UNIT_READY, Buffer::None).status, GOOD);
    node.stop();
}

#[test]
fn a_stop_answers_what_was_taken_and_takes_no_more() {
    let mut node = Node::new();
    node.hold_disk();
    node.send(A, &WRITE, Buffer::Out(&[1; 512]));
    node.wait_until_held(1);
    node.handle.give(Order::Stop);
    node.settled();
    node.send(A, &TEST_UNIT_READY, Buffer::None);
    node.settled();
    assert!(node.kernels[A].process().is_empty());
    node.let_go();
    let Node {
        handle,
        mut kernels,
        ..
    } = node;
    assert!(handle.stop(SOON));
    let answers = kernels[A].process();
    assert_eq!(
        answers.len(),
        1,
        "the command that came after the stop waits for the next daemon"
    );
    assert_eq!(answers[0].status, GOOD);
}

#[test]
fn a_worker_whose_disk_hangs_is_given_up() {
    let mut node = Node::new();
    node.hold_disk();
    node.send(A, &WRITE, Buffer::Out(&[1; 512]));
    node.wait_until_held(1);
    assert!(!node.handle.stop(Duration::from_millis(10)));
    // The worker still owns the disk: let it end before the test does.
    end_first(&node.disk, &node.waker);
    assert_eq!(node.kernels[A].wait_for(1)[0].status, GOOD);
}

#[test]
fn nothing_is_stored_of_a_unit_that_was_removed_however_late_it_ends() {
    let mut node = Node::reserved();
    node.hold_disk();
    node.send(A, &WRITE, Buffer::Out(&[1; 512]));
    node.wait_until_held(1);
    let kept = node.keeper.kept;
    let stored = kept.lock().unwrap().len();
    assert!(!node.handle.power_off(Duration::from_millis(10)));
    end_first(&node.disk, &node.waker);
    let deadline = std::time::Instant::now() + SOON;
    while Arc::strong_count(&kept) > 1 {
        assert!(std::time::Instant::now() < deadline, "it does not end");
        std::thread::yield_now();
    }
    assert_eq!(kept.lock().unwrap().len(), stored);
}

#[test]
fn a_change_of_a_unit_that_is_removed_is_refused() {
    let mut node = Node::reserved();
    node.handle.give(Order::PowerOff);
    node.report();
    assert_eq!(
        node.reserve_out(B, REGISTER, [KEY_B, 0]),
        CHECK_CONDITION,
        "it can't be stored"
    );
    assert_eq!(node.keeper.kept.lock().unwrap().len(), 3);
    node.stop();
}

#[test]
fn a_reset_of_one_port_is_told_to_the_other() {
    const LOGICAL_UNIT_RESET: u8 = 5;
    const TARGET_WARM_RESET: u8 = 6;
    const TARGET_COLD_RESET: u8 = 7;
    let mut node = Node::new();
    for function in [LOGICAL_UNIT_RESET, TARGET_WARM_RESET, TARGET_COLD_RESET] {
        node.kernels[A].task_management(function, &[]);
        node.kernels[A].ring_doorbell();
        assert_eq!(
            node.command(A, &TEST_UNIT_READY, Buffer::None).status,
            GOOD,
            "the kernel tells A"
        );
        let answer = node.command(B, &TEST_UNIT_READY, Buffer::None);
        assert_eq!(sense(&answer), (0x06, 0x29, 0x03));
        assert_eq!(node.command(B, &TEST_UNIT_READY, Buffer::None).status, GOOD);
    }
    node.stop();
}

#[test]
fn a_reset_of_one_port_aborts_the_commands_of_the_other_and_ends_a_reserve() {
    let mut node = Node::new();
    assert_eq!(
        node.command(B, &[0x16, 0, 0, 0, 0, 0], Buffer::None).status,
        GOOD
    );
    assert_eq!(node.command(A, &READ, Buffer::In(512)).status, CONFLICT);
    node.hold_disk();
    node.send(B, &WRITE, Buffer::Out(&[0xbb; 512]));
    node.wait_until_held(1);
    node.kernels[A].task_management(5, &[]);
    node.kernels[A].ring_doorbell();
    node.wait_for(|reservations| reservations.spc2().is_none());
    node.let_go();
    assert_eq!(node.kernels[B].wait_for(1)[0].status, TASK_ABORTED);
    assert_eq!(node.command(A, &READ, Buffer::In(512)).status, GOOD);
    node.stop();
}

#[test]
fn abort_task_stops_a_verify_of_that_port_and_number_and_no_other() {
    const ABORT_TASK: u8 = 1;
    const VERIFY: [u8; 10] = [0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let mut node = Node::new();
    node.hold_disk();
    let first = node.send(A, &VERIFY, Buffer::None);
    let second = node.send(A, &VERIFY, Buffer::None);
    node.send(B, &VERIFY, Buffer::None);
    let alike = node.send(B, &VERIFY, Buffer::None);
    assert_eq!(alike, second, "each port has numbers of its own");
    node.wait_until_held(4);
    node.kernels[A].task_management(ABORT_TASK, &[second]);
    // What comes after it on the ring is answered after it.
    assert_eq!(node.command(A, &TEST_UNIT_READY, Buffer::None).status, GOOD);
    let disk = node.disk.lock().unwrap();
    let held = disk.waiting.iter();
    let cancelled = held.filter(|(request, _)| request.cancellation.is_cancelled());
    assert_eq!(cancelled.count(), 1);
    drop(disk);
    node.let_go();
    for completed in node.kernels[A].wait_for(2) {
        let expected = if completed.id == first {
            GOOD
        } else {
            TASK_ABORTED
        };
        assert_eq!(completed.status, expected);
    }
    for completed in node.kernels[B].wait_for(2) {
        assert_eq!(completed.status, GOOD);
    }
    node.stop();
}

impl Node {
    /// Somebody looks for sessions, and A has reserved the unit.
    fn reserved_6() -> Node {
        let mut node = Node::new();
        node.handle.give(Order::ExpectLooks);
        assert_eq!(node.command(A, &RESERVE_6, Buffer::None).status, GOOD);
        assert!(node.notice().starts_with("Reserved(PortId(0), 1, "));
        node
    }

    fn notice(&self) -> String {
        format!("{:?}", self.notices.recv_timeout(SOON).unwrap())
    }
}

#[test]
fn the_main_thread_is_told_of_each_reserve_and_of_its_end() {
    let mut node = Node::reserved_6();
    assert_eq!(node.command(A, &RESERVE_6, Buffer::None).status, GOOD);
    assert!(node.notice().starts_with("Reserved(PortId(0), 2, "));
    assert_eq!(node.command(A, &RELEASE_6, Buffer::None).status, GOOD);
    assert_eq!(node.notice(), "Released(PortId(0))");
    assert_eq!(node.command(B, &RESERVE_6, Buffer::None).status, GOOD);
    assert!(node.notice().starts_with("Reserved(PortId(1), 3, "));
    node.stop();
}

#[test]
fn a_reserve_that_conflicts_waits_for_the_main_thread_to_look() {
    let mut node = Node::reserved_6();
    node.send(B, &RESERVE_6, Buffer::None);
    assert_eq!(node.notice(), "Doubted(PortId(0))");
    node.handle.give(Order::Looked);
    assert_eq!(node.kernels[B].wait_for(1)[0].status, CONFLICT);
    node.send(B, &RESERVE_6, Buffer::None);
    assert_eq!(node.notice(), "Doubted(PortId(0))");
    node.handle.give(Order::SessionLost(PortId(A), 1));
    node.handle.give(Order::Looked);
    assert_eq!(node.kernels[B].wait_for(1)[0].status, GOOD);
    assert_eq!(node.notice(), "Released(PortId(0))");
    assert!(node.notice().starts_with("Reserved(PortId(1), 2, "));
    assert_eq!(node.command(A, &READ, Buffer::In(512)).status, CONFLICT);
    node.stop();
}

#[test]
fn a_session_of_a_port_that_serves_nobody_now_is_watched_on() {
    let mut node = Node::reserved_6();
    node.identify(A, None);
    node.send(B, &RESERVE_6, Buffer::None);
    assert_eq!(node.notice(), "Doubted(PortId(0))");
    node.handle.give(Order::SessionLost(PortId(A), 1));
    node.handle.give(Order::Looked);
    assert_eq!(node.kernels[B].wait_for(1)[0].status, GOOD);
    node.stop();
}

#[test]
fn a_reserve_ends_with_its_port_though_nobody_knows_any_more_whom_that_serves() {
    let mut node = Node::reserved_6();
    node.identify(A, None);
    assert_eq!(node.command(B, &READ, Buffer::In(512)).status, CONFLICT);
    let (removed, done) = bounded(1);
    node.handle.give(Order::RemovePort(PortId(A), removed));
    done.recv_timeout(SOON).unwrap();
    node.send(B, &RESERVE_6, Buffer::None);
    assert_eq!(node.kernels[B].wait_for(1)[0].status, GOOD);
    node.stop();
}

#[test]
fn a_reserve_is_not_kept_waiting_when_the_worker_ends() {
    let mut node = Node::reserved_6();
    node.send(B, &RESERVE_6, Buffer::None);
    assert_eq!(node.notice(), "Doubted(PortId(0))");
    node.handle.give(Order::Stop);
    assert_eq!(node.kernels[B].wait_for(1)[0].status, CONFLICT);
    node.stop();
}

#[test]
fn a_look_that_does_not_come_is_not_waited_for() {
    let mut node = Node::reserved_6();
    node.send(B, &RESERVE_6, Buffer::None);
    assert_eq!(node.kernels[B].wait_for(1)[0].status, CONFLICT);
    node.stop();
}

#[test]
fn a_bidirectional_command_is_refused() {
    let mut node = Node::new();
    node.kernels[A].submit(&READ, Buffer::In(512)).unwrap();
    node.kernels[A]
        .region
        .write(RING_OFFSET + 12, &1u32)
        .unwrap();
    node.kernels[A].ring_doorbell();
    let answer = node.kernels[A].wait_for(1).remove(0);
    assert_eq!(sense(&answer), (0x05, 0x20, 0x00));
    node.stop();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    /// Whatever is sent, it is answered, and no answer shows a byte of what the buffer held before.
    #[test]
    fn any_command_is_answered_and_none_hands_out_stale_bytes(
        commands in prop::collection::vec(
            (
                prop::sample::select(vec![
                    0x00u8, 0x03, 0x08, 0x0a, 0x12, 0x16, 0x17, 0x1a, 0x25, 0x28, 0x2a, 0x35, 0x56, 0x57,
                    0x5a, 0x5e, 0x5f, 0x88, 0x8a, 0x91, 0x9e, 0xa0, 0xa3, 0xa8, 0xaa, 0x42, 0x7f, 0xff,
                ]),
                prop::collection::vec(prop_oneof![Just(0u8), 0u8..8, any::<u8>()], 15),
                prop_oneof![Just(0usize), 1usize..600, Just(4096), Just(9000)],
                any::<bool>(),
                0usize..2,
            ),
            1..60,
        ),
    ) {
        let mut node = Node::new();
        for (opcode, rest, length, data_in, from) in commands {
            let cdb: Vec<u8> = std::iter::once(opcode).chain(rest).collect();
            let out = vec![0; length];
            let buffer = if data_in { Buffer::In(length) } else { Buffer::Out(&out) };
            let answer = node.command(from, &cdb, buffer);
            prop_assert!(matches!(answer.status, GOOD | CHECK_CONDITION | CONFLICT), "{:?}", answer);
            prop_assert!(!answer.data_in.contains(&STALE), "{:02x?}: {:02x?}", cdb, answer.data_in);
        }
        node.stop();
    }
}

/// MODE SELECT(6) of the Caching mode page.
const MODE_SELECT: [u8; 6] = [0x15, 0x10, 0, 0, 24, 0];

fn caching(write_cache_enabled: bool) -> [u8; 24] {
    let mut list = [0; 24];
    list[4..6].copy_from_slice(&[0x08, 0x12]);
    list[6] = if write_cache_enabled { 0x04 } else { 0x00 };
    list
}

#[test]
fn a_write_cache_is_switched_off_when_what_is_in_it_has_gone_to_the_disk() {
    let mut node = Node::new();
    let on = node.command(A, &MODE_SELECT, Buffer::Out(&caching(true)));
    assert_eq!(on.status, GOOD);
    let told = node.command(B, &TEST_UNIT_READY, Buffer::None);
    assert_eq!(sense(&told), (0x06, 0x2a, 0x01));
    node.hold_disk();
    let write = node.send(A, &WRITE, Buffer::Out(&[7; 512]));
    node.wait_until_held(1);
    let off = node.send(A, &MODE_SELECT, Buffer::Out(&caching(false)));
    assert_eq!(node.settled().waiting.replies, 1);
    node.wait_until_held(1);
    node.let_go();
    let answers = node.kernels[A].wait_for(2);
    assert_eq!(
        answers
            .iter()
            .map(|answer| (answer.id, answer.status))
            .collect::<Vec<_>>(),
        [(write, GOOD), (off, GOOD)]
    );
    let told = node.command(B, &TEST_UNIT_READY, Buffer::None);
    assert_eq!(sense(&told), (0x06, 0x2a, 0x01));
    node.stop();
}
