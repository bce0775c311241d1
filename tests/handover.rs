//! A worker that ends, and another that goes on with its rings: what comes meanwhile is performed, and once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/kernel.rs"]
mod kernel;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded};
use disk::{Disk, TestStore};
use kernel::{Buffer, Completed, Kernel};
use tcmu_pr::daemon::recorder::Recorder;
use tcmu_pr::daemon::records::Keep;
use tcmu_pr::daemon::worker::{self, Handle, Identity, Order, Parts, Poll, PortId, Rest};
use tcmu_pr::lu::{Mapping, ToStore};
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TargetPorts, TransportId};
use tcmu_pr::store::saved;
use tcmu_pr::sys::wait::EpollWait;
use tcmu_pr::sys::wake::Waker;
use tcmu_pr::tcmu::ring::{Completion, Entry};

const SOON: Duration = Duration::from_secs(20);
const A: usize = 0;
const B: usize = 1;

const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;
const BUSY: u8 = 0x08;
const TASK_ABORTED: u8 = 0x40;

const ABORT_TASK: u8 = 1;
const LOGICAL_UNIT_RESET: u8 = 5;

const TEST_UNIT_READY: [u8; 6] = [0; 6];

/// One block.
fn write(block: u8) -> [u8; 10] {
    [0x2a, 0, 0, 0, 0, block, 0, 0, 1, 0]
}

struct NoKeeper;

impl Keep for NoKeeper {
    fn save(&mut self, _: &ToStore) -> Result<(), saved::Error> {
        Ok(())
    }
}

fn target_port() -> TargetPort {
    TargetPort {
        protocol: Protocol::Sas,
        name: "naa.1".into(),
    }
}

/// A daemon's worker, with ports that nobody has been named for yet.
struct Daemon {
    handle: Handle,
    waker: Waker,
}

impl Daemon {
    fn start(disk: &Arc<Mutex<Disk>>) -> Daemon {
        let waker = Waker::new().unwrap();
        let parts = Parts {
            unit: disk::unit(),
            store: TestStore {
                disk: Arc::clone(disk),
                waker: waker.clone(),
                wait: EpollWait::new().unwrap(),
            },
            medium: None,
            recorder: Recorder::start(NoKeeper, &waker).unwrap(),
            waker: waker.clone(),
            notices: unbounded().0,
            logout_patience: Duration::ZERO,
            poll: Poll::Off,
        };
        Daemon {
            handle: worker::start("unit", parts).unwrap(),
            waker,
        }
    }

    /// One that goes on with the rings of the one before, and does not yet.
    fn go_on(disk: &Arc<Mutex<Disk>>, kernels: &[Kernel; 2]) -> Daemon {
        let daemon = Daemon::start(disk);
        for (port, kernel) in kernels.iter().enumerate() {
            daemon.handle.give(Order::LeaveBacklog);
            daemon
                .handle
                .give(Order::AddPort(PortId(port), kernel.open_again()));
        }
        daemon
    }

    fn identify_all(&self) {
        for port in [A, B] {
            let mut target_ports = TargetPorts::default();
            target_ports.add(&target_port());
            self.handle.give(Order::Identify {
                port: PortId(port),
                identity: Some(Identity {
                    nexus: Some(ItNexus {
                        initiator_port: TransportId::Sas(0x3000_0000_0000_0001 + port as u64),
                        target_port: target_port(),
                    }),
                    mapping: Mapping::ReadWrite,
                }),
                target_ports,
            });
        }
        self.settle();
    }

    /// All orders are obeyed, and what could be taken from the rings is taken.
    fn settle(&self) {
        for _ in 0..2 {
            let (reply, answer) = bounded(1);
            self.handle.give(Order::Report(reply));
            answer.recv_timeout(SOON).unwrap();
        }
    }

    fn take_backlog(&self) {
        self.handle.give(Order::TakeBacklog);
        self.settle();
    }

    fn end(self) -> Vec<Rest> {
        self.handle.end(SOON).expect("it ends")
    }
}

struct Node {
    kernels: [Kernel; 2],
    disk: Arc<Mutex<Disk>>,
    daemon: Option<Daemon>,
}

impl Node {
    fn new(ring_size: u32) -> Node {
        let disk = Arc::new(Mutex::new(Disk::new()));
        let daemon = Daemon::start(&disk);
        let kernels = [A, B].map(|port| {
            let (kernel, device) = Kernel::new(ring_size, 1024);
            daemon.handle.give(Order::AddPort(PortId(port), device));
            kernel
        });
        daemon.identify_all();
        Node {
            kernels,
            disk,
            daemon: Some(daemon),
        }
    }

    fn end(&mut self) -> Vec<Rest> {
        self.daemon.take().unwrap().end()
    }

    /// The next daemon, which does not begin anything yet.
    fn next(&mut self) -> &Daemon {
        self.daemon = Some(Daemon::go_on(&self.disk, &self.kernels));
        self.daemon.as_ref().unwrap()
    }

    fn write(&mut self, port: usize, block: u8, value: u8) -> u16 {
        let data = Buffer::Out(&[value; 512]);
        let id = self.kernels[port].submit(&write(block), data);
        self.kernels[port].ring_doorbell();
        id.expect("room")
    }

    fn content(&self, block: usize) -> u8 {
        self.disk.lock().unwrap().memory.content()[512 * block]
    }

    fn tails(&self) -> Vec<Rest> {
        let tails = self.kernels.iter().map(Kernel::tail).enumerate();
        let rests = tails.map(|(port, tail)| Rest {
            port: PortId(port),
            tail,
            noted: None,
            sessions: Vec::new(),
        });
        rests.collect()
    }
}

fn statuses(answers: &[Completed]) -> Vec<u8> {
    answers.iter().map(|answer| answer.status).collect()
}

#[test]
fn a_ring_is_at_rest_when_all_that_was_taken_is_answered_for_all_to_see() {
    let (mut kernel, mut device) = Kernel::new(1 << 12, 8);
    assert_eq!(device.ring.at_rest(), Some(0));
    kernel.submit(&TEST_UNIT_READY, Buffer::None).unwrap();
    assert_eq!(device.ring.at_rest(), Some(0), "nobody has looked");
    let Some(Entry::Command(command)) = device.ring.pop().unwrap() else {
        panic!("there is a command");
    };
    assert_eq!(device.ring.at_rest(), None, "it is taken");
    let good = Completion {
        status: GOOD,
        data_in_length: None,
        sense: &[],
    };
    device.ring.complete(command.id, &good);
    assert_eq!(device.ring.at_rest(), None, "nobody can see the answer");
    device.ring.publish().unwrap();
    assert_eq!(device.ring.at_rest(), Some(120));
    kernel.task_management(ABORT_TASK, &[]);
    device.ring.pop().unwrap();
    assert_eq!(device.ring.at_rest(), None, "it is stepped over unseen");
    device.ring.publish().unwrap();
    assert_eq!(device.ring.at_rest(), Some(152));
    kernel.reset();
    assert_eq!(device.ring.at_rest(), None, "it was emptied by another");
}

#[test]
fn what_is_in_flight_is_answered_and_what_comes_meanwhile_is_performed_by_the_next() {
    // Room for some thirty commands: the ring comes round every few rounds, with filler at its end.
    let mut node = Node::new(4096);
    let mut tails = BTreeSet::new();
    for round in 0..40 {
        let held = round % 3 == 0;
        node.disk.lock().unwrap().held = held;
        let taken: Vec<u16> = (0..5)
            .map(|block| node.write(A, block, round + 1))
            .collect();
        let ids: BTreeSet<u16> = taken.into_iter().collect();
        let daemon = node.daemon.take().unwrap();
        daemon.settle();
        daemon.handle.give(Order::Stop);
        if held {
            // They end in another order than they came in.
            let mut disk = node.disk.lock().unwrap();
            disk.waiting.make_contiguous().reverse();
            disk.let_go();
            drop(disk);
            daemon.waker.wake();
        }
        let rests = daemon.end();
        assert_eq!(rests, node.tails(), "both are at rest");
        tails.insert(rests[A].tail);
        let answers = node.kernels[A].wait_for(5);
        assert_eq!(answers.iter().map(|a| a.id).collect::<BTreeSet<_>>(), ids);
        assert_eq!(statuses(&answers), [GOOD; 5]);

        let meanwhile = [
            node.write(A, 10, round + 2),
            node.write(A, 11, round + 2),
            node.write(B, 12, round + 2),
        ];
        let daemon = node.next();
        daemon.identify_all();
        daemon.take_backlog();
        let answers = node.kernels[A].wait_for(2);
        assert_eq!(statuses(&answers), [GOOD; 2]);
        assert_eq!(
            answers.iter().map(|a| a.id).collect::<BTreeSet<_>>(),
            meanwhile[..2].iter().copied().collect()
        );
        assert_eq!(statuses(&node.kernels[B].wait_for(1)), [GOOD]);
        for block in [10, 11, 12] {
            assert_eq!(node.content(block), round + 2);
        }
    }
    assert!(tails.len() > 10, "the ring was left anywhere: {tails:?}");
    node.end();
}

#[test]
fn what_was_left_waits_until_it_is_known_who_sends() {
    let mut node = Node::new(1 << 14);
    node.end();
    node.write(A, 3, 7);
    let daemon = node.next();
    daemon.settle();
    assert_eq!(node.kernels[A].process(), []);
    node.daemon.as_ref().unwrap().identify_all();
    assert_eq!(node.kernels[A].process(), []);
    assert_eq!(node.content(3), 0);
    node.daemon.as_ref().unwrap().take_backlog();
    assert_eq!(statuses(&node.kernels[A].wait_for(1)), [GOOD]);
    assert_eq!(node.content(3), 7);
    // From now on as ever.
    node.write(B, 4, 8);
    assert_eq!(statuses(&node.kernels[B].wait_for(1)), [GOOD]);
    node.end();
}

#[test]
fn nobody_being_known_the_answer_is_busy_as_ever() {
    let mut node = Node::new(1 << 14);
    node.end();
    node.write(A, 3, 7);
    node.next().take_backlog();
    assert_eq!(statuses(&node.kernels[A].wait_for(1)), [BUSY]);
    node.end();
}

#[test]
fn what_was_aborted_meanwhile_is_not_performed_however_far_behind_that_is_said() {
    let mut node = Node::new(1 << 17);
    node.end();
    let aborted = node.write(A, 3, 7);
    // More than is taken in a turn.
    let others: Vec<u16> = (0..300).map(|_| node.write(A, 4, 8)).collect();
    node.kernels[A].task_management(ABORT_TASK, &[aborted]);
    // The initiator has given up waiting for an answer to that, and has sent it anew.
    node.write(B, 3, 9);
    let daemon = node.next();
    daemon.identify_all();
    daemon.take_backlog();
    assert_eq!(statuses(&node.kernels[B].wait_for(1)), [GOOD]);
    let answers = node.kernels[A].wait_for(others.len() + 1);
    for answer in answers {
        let expected = if answer.id == aborted {
            TASK_ABORTED
        } else {
            GOOD
        };
        assert_eq!(answer.status, expected);
    }
    assert_eq!(node.content(3), 9);
    assert_eq!(node.content(4), 8);
    node.end();
}

#[test]
fn a_reset_that_came_meanwhile_is_told_through_the_other_port() {
    let mut node = Node::new(1 << 14);
    node.end();
    let reset = node.write(B, 3, 7);
    node.kernels[B].task_management(LOGICAL_UNIT_RESET, &[reset]);
    node.write(A, 4, 8);
    let daemon = node.next();
    daemon.identify_all();
    daemon.take_backlog();
    assert_eq!(statuses(&node.kernels[B].wait_for(1)), [TASK_ABORTED]);
    let told = node.kernels[A].wait_for(1).remove(0);
    assert_eq!(told.status, CHECK_CONDITION);
    assert_eq!(
        [told.sense[2], told.sense[12], told.sense[13]],
        [6, 0x29, 3]
    );
    assert_eq!([node.content(3), node.content(4)], [0, 0]);
    node.end();
}

#[test]
fn who_ends_without_having_begun_leaves_the_rings_as_they_were() {
    let mut node = Node::new(1 << 14);
    node.write(A, 3, 7);
    node.kernels[A].wait_for(1);
    let before = node.end();
    node.write(A, 3, 8);
    node.next();
    assert_eq!(node.end(), before);
    assert_eq!(node.kernels[A].process(), []);
    let daemon = node.next();
    daemon.identify_all();
    daemon.take_backlog();
    assert_eq!(statuses(&node.kernels[A].wait_for(1)), [GOOD]);
    node.end();
}

#[test]
fn nothing_is_left_in_order_by_whom_a_write_hangs() {
    let mut node = Node::new(1 << 14);
    node.disk.lock().unwrap().held = true;
    node.write(A, 3, 7);
    let deadline = Instant::now() + SOON;
    while node.disk.lock().unwrap().waiting.is_empty() {
        assert!(Instant::now() < deadline, "it is not begun");
        std::thread::yield_now();
    }
    let daemon = node.daemon.take().unwrap();
    assert_eq!(daemon.handle.end(Duration::from_millis(10)), None);
    node.disk.lock().unwrap().let_go();
    daemon.waker.wake();
    node.kernels[A].wait_for(1);
}
