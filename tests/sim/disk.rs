//! A disk in memory whose operations the test ends when it likes.

#![allow(dead_code, reason = "each test crate uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "memory.rs"]
mod memory;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

pub(crate) use memory::Memory;
use tcmu_pr::lu::task::Pending;
use tcmu_pr::lu::{LogicalUnit, Setup, UnitState};
use tcmu_pr::pr::Reservations;
use tcmu_pr::pr::out::Context;
use tcmu_pr::scsi::capacity::Geometry;
use tcmu_pr::scsi::inquiry;
use tcmu_pr::scsi::provisioning::Provisioning;
use tcmu_pr::store::{Done, Request, Store, perform};
use tcmu_pr::sys::wait::{EpollWait, Wait};
use tcmu_pr::sys::wake::Waker;

/// Of 512 bytes.
pub(crate) const BLOCKS: usize = 64;

/// A disk in memory. While it is held, operations wait for the test to let them go.
pub(crate) struct Disk {
    pub(crate) memory: Memory,
    pub(crate) held: bool,
    pub(crate) waiting: VecDeque<(Request, Pending)>,
    done: VecDeque<Done<Pending>>,
}

/// The store of a worker.
pub(crate) struct TestStore {
    pub(crate) disk: Arc<Mutex<Disk>>,
    pub(crate) waker: Waker,
    pub(crate) wait: EpollWait,
}

/// A unit on such a disk, with which nobody is registered.
pub(crate) fn unit() -> LogicalUnit {
    unit_with(Reservations::default())
}

/// The same, with what is registered and reserved.
pub(crate) fn unit_with(reservations: Reservations) -> LogicalUnit {
    LogicalUnit::new(Setup {
        identity: inquiry::Identity::new("serial"),
        geometry: Geometry::new(512, BLOCKS as u64, 0).unwrap(),
        provisioning: Provisioning::Thin {
            zeroes: true,
            granularity: 4096,
            alignment: 0,
            figures: true,
            soft_threshold: Some(1 << 29),
        },
        reservations: Ok(reservations),
        attentions: Vec::new(),
        power_on: false,
        write_back: false,
        state: UnitState::default(),
        context: Context::default(),
    })
}

impl Disk {
    pub(crate) fn new() -> Disk {
        Disk {
            memory: Memory::new(512 * BLOCKS, 0),
            held: false,
            waiting: VecDeque::new(),
            done: VecDeque::new(),
        }
    }

    /// Ends the operations that wait, and holds no more.
    pub(crate) fn let_go(&mut self) {
        self.held = false;
        while let Some(operation) = self.waiting.pop_front() {
            self.perform(operation);
        }
    }

    pub(crate) fn perform(&mut self, (request, ticket): (Request, Pending)) {
        let result = perform(&self.memory, &request);
        self.done.push_back(Done {
            ticket,
            data: request.data,
            result,
        });
    }
}

impl Store<Pending> for TestStore {
    fn submit(&mut self, request: Request, ticket: Pending) {
        let mut disk = self.disk.lock().unwrap();
        if disk.held {
            disk.waiting.push_back((request, ticket));
        } else {
            disk.perform((request, ticket));
            self.waker.wake();
        }
    }

    fn reap(&mut self) -> Option<Done<Pending>> {
        self.disk.lock().unwrap().done.pop_front()
    }

    fn waits(&mut self) -> &mut dyn Wait {
        &mut self.wait
    }
}

/// Ends the operation that has waited the longest.
pub(crate) fn end_first(disk: &Mutex<Disk>, waker: &Waker) {
    let mut disk = disk.lock().unwrap();
    let operation = disk.waiting.pop_front().unwrap();
    disk.perform(operation);
    drop(disk);
    waker.wake();
}
