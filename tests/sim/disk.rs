//! A disk in memory whose operations the test ends when it likes.

#![allow(dead_code, reason = "each test crate uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tcmu_pr::lu::task::Pending;
use tcmu_pr::lu::{LogicalUnit, Setup, UnitState};
use tcmu_pr::pr::Reservations;
use tcmu_pr::pr::out::Context;
use tcmu_pr::scsi::capacity::Geometry;
use tcmu_pr::scsi::inquiry;
use tcmu_pr::scsi::provisioning::Provisioning;
use tcmu_pr::store::space::{Extent, Figures};
use tcmu_pr::store::{Content, Done, Failure, Operation, Outcome, Request, Store};
use tcmu_pr::sys::wake::Waker;

/// Of 512 bytes.
pub(crate) const BLOCKS: usize = 64;

/// A disk in memory. While it is held, operations wait for the test to let them go.
pub(crate) struct Disk {
    pub(crate) content: Vec<u8>,
    pub(crate) held: bool,
    pub(crate) waiting: VecDeque<(Request, Pending)>,
    done: VecDeque<Done<Pending>>,
}

/// The store of a worker.
#[derive(Clone)]
pub(crate) struct TestStore {
    pub(crate) disk: Arc<Mutex<Disk>>,
    pub(crate) waker: Waker,
}

/// A unit on such a disk, with which nobody is registered.
pub(crate) fn unit() -> LogicalUnit {
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
        reservations: Ok(Reservations::default()),
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
            content: vec![0; 512 * BLOCKS],
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
        let at = |offset: u64, length: u64| {
            let from = usize::try_from(offset).unwrap();
            from..from + usize::try_from(length).unwrap()
        };
        let mut result = Ok(Outcome::Done);
        match request.operation {
            Operation::Read { offset, length, .. } => {
                request.data.write_at(0, &self.content[at(offset, length)]);
            }
            Operation::Write { offset, length, .. }
            | Operation::WriteAndVerify { offset, length, .. }
            | Operation::WriteAtomic { offset, length, .. } => {
                request
                    .data
                    .read_at(0, &mut self.content[at(offset, length)]);
            }
            Operation::CompareAndWrite { offset, length, .. } => {
                let length = usize::try_from(length).unwrap();
                let mut halves = vec![0; 2 * length];
                request.data.read_at(0, &mut halves);
                let (expected, new) = halves.split_at(length);
                let content = &mut self.content[at(offset, length as u64)];
                let mut bytes = content.iter().zip(expected);
                match bytes.position(|(found, expected)| found != expected) {
                    None => content.copy_from_slice(new),
                    Some(at) => result = Err(Failure::Miscompare { at: at as u64 }),
                }
            }
            Operation::OrWrite { offset, length, .. } => {
                let content = &mut self.content[at(offset, length)];
                let mut bits = vec![0; content.len()];
                request.data.read_at(0, &mut bits);
                content
                    .iter_mut()
                    .zip(bits)
                    .for_each(|(byte, bits)| *byte |= bits);
            }
            Operation::Copy {
                from, to, length, ..
            } => {
                let to = at(to.offset, length).start;
                self.content.copy_within(at(from.offset, length), to);
            }
            // Nobody is told here whether it is as it should be.
            Operation::Verify { .. } => {}
            Operation::Flush | Operation::PreFetch { .. } | Operation::Examine => {}
            Operation::Unmap { ranges, .. } => {
                for range in ranges {
                    self.content[at(range.start, range.end - range.start)].fill(0);
                }
            }
            Operation::WriteSame {
                offset,
                length,
                content,
                ..
            } => {
                let mut block = [0; 512];
                if content != Content::Zeros {
                    request.data.read_at(0, &mut block);
                }
                for place in self.content[at(offset, length)].chunks_mut(512) {
                    place.copy_from_slice(&block);
                }
            }
            Operation::Extents { offset, length, .. } => {
                result = Ok(Outcome::Extents(vec![Extent {
                    range: offset..offset + length,
                    is_allocated: true,
                }]));
            }
            Operation::Figures => {
                result = Ok(Outcome::Figures(Figures {
                    total: 1 << 30,
                    available: 1 << 29,
                    used: 1 << 20,
                }));
            }
        }
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
}

/// Ends the operation that has waited the longest.
pub(crate) fn end_first(disk: &Mutex<Disk>, waker: &Waker) {
    let mut disk = disk.lock().unwrap();
    let operation = disk.waiting.pop_front().unwrap();
    disk.perform(operation);
    drop(disk);
    waker.wake();
}
