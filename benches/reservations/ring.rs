//! A read through the emulated ring: what the gate is measured by.
//!
//! The harsher of the measures at hand. The store is memory, and has done what it is told before it returns: no file, no
//! system call, no other thread. Of the way of the command only the worker's turn is counted, not the kernel's side. And
//! it takes many commands in one turn, so that they share its costs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use criterion::Criterion;
use crossbeam_channel::unbounded;
use tcmu_pr::daemon::recorder::Record;
use tcmu_pr::daemon::worker::{Identity, Order, Parts, Poll, PortId, Worker};
use tcmu_pr::lu::task::Pending;
use tcmu_pr::lu::{LogicalUnit, Mapping, ToStore};
use tcmu_pr::scsi::nexus::TargetPorts;
use tcmu_pr::store::{Done, Operation, Outcome, Request, Store};
use tcmu_pr::sys::wait::{EpollWait, Wait};
use tcmu_pr::sys::wake::Waker;

use crate::figures::Figures;
use crate::group::Group;
use crate::kernel::{Buffer, Kernel};
use crate::world::{self, MOST, nexus};

/// So many registrants each.
pub(crate) const SIZES: [usize; 2] = [1, MOST];
/// A READ(10) of 4 KiB, one of [`DEPTH`] in one turn.
pub(crate) const READ: &str = "4 KiB read through the ring";

/// How many commands lie on the ring when the worker wakes up.
const DEPTH: u32 = 32;
/// Eight blocks of 512 bytes.
const LENGTH: usize = 4_096;

/// A disk of 4 KiB in memory.
struct Memory {
    content: Vec<u8>,
    done: VecDeque<Done<Pending>>,
    wait: EpollWait,
}

impl Store<Pending> for Memory {
    fn submit(&mut self, request: Request, ticket: Pending) {
        assert!(matches!(request.operation, Operation::Read { .. }));
        request.data.write_at(0, &self.content);
        self.done.push_back(Done {
            ticket,
            data: request.data,
            result: Ok(Outcome::Done),
        });
    }

    fn reap(&mut self) -> Option<Done<Pending>> {
        self.done.pop_front()
    }

    fn waits(&mut self) -> &mut dyn Wait {
        &mut self.wait
    }
}

/// Nothing changes, so there is nothing to store.
struct NoRecord;

impl Record for NoRecord {
    fn submit(&mut self, to_store: ToStore) {
        panic!("nothing has changed: {to_store:?}");
    }

    fn reap(&mut self) -> Option<bool> {
        None
    }
}

pub(crate) fn run(criterion: &mut Criterion, figures: &Figures) {
    let mut group = Group {
        criterion: criterion.benchmark_group("ring"),
        figures,
    };
    for size in SIZES {
        let (mut kernel, mut worker) = node(size);
        group.measure(READ, size, |runs| {
            let mut took = Duration::ZERO;
            for _ in 0..runs {
                for _ in 0..DEPTH {
                    let cdb = [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0];
                    kernel.submit(&cdb, Buffer::In(LENGTH)).unwrap();
                }
                let begun = Instant::now();
                worker.turn();
                took += begun.elapsed();
                let answers = kernel.process();
                assert!(answers.iter().all(|answer| answer.status == 0));
                assert_eq!(answers.len(), DEPTH as usize);
                kernel.doorbells();
            }
            took / DEPTH
        });
    }
    group.criterion.finish();
}

/// A device through which one of so many registrants sends.
fn node(registrants: usize) -> (Kernel, Worker<Memory, NoRecord>) {
    let (notices, _) = unbounded();
    let parts = Parts {
        unit: LogicalUnit::new(world::setup(world::reserved(registrants, world::key))),
        store: Memory {
            content: vec![0x5a; LENGTH],
            done: VecDeque::new(),
            wait: EpollWait::new().unwrap(),
        },
        medium: None,
        recorder: NoRecord,
        waker: Waker::new().unwrap(),
        notices,
        logout_patience: Duration::ZERO,
        poll: Poll::Off,
    };
    let (orders, to_do) = unbounded();
    let mut worker = Worker::new(parts, (orders.clone(), to_do)).unwrap();
    let (kernel, device) = Kernel::new(1 << 14, 64);
    let sender = nexus(registrants / 2);
    let mut target_ports = TargetPorts::default();
    target_ports.add(&sender.target_port);
    orders.send(Order::AddPort(PortId(0), device)).unwrap();
    orders
        .send(Order::Identify {
            port: PortId(0),
            identity: Some(Identity {
                nexus: Some(sender),
                mapping: Mapping::ReadWrite,
            }),
            target_ports,
        })
        .unwrap();
    worker.turn();
    (kernel, worker)
}
