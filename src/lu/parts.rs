//! Which parts of the medium the commands in flight read and change, so that COMPARE AND WRITE and its like are alone
//! where they work (SBC-3: the comparison and the write are one uninterrupted series of actions).
//!
//! An operation that must be alone waits until none has begun that overlaps it, and those that come later and overlap it
//! wait for it: in the order in which they came, whatever port they came through. While there are none such, all that
//! any other command pays for this is one look at a counter.

use std::collections::VecDeque;
use std::ops::Range;

use super::task::{Pending, TaskSet};
use crate::store::{Operation, Request};

/// What an operation reads or changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// In bytes. A copy has two, of others the second is empty.
    ranges: [Range<u64>; 2],
    /// Nothing else may be there meanwhile.
    alone: bool,
}

impl Part {
    fn of(operation: &Operation) -> Option<Part> {
        let ranges = operation.parts();
        let alone = operation.is_exclusive();
        let is_somewhere = ranges.iter().any(|range| !range.is_empty());
        is_somewhere.then_some(Part { ranges, alone })
    }

    /// Of something that others that need not be alone may meet.
    pub(super) fn shared(ranges: [Range<u64>; 2]) -> Part {
        let alone = false;
        Part { ranges, alone }
    }

    fn excludes(&self, other: &Part) -> bool {
        let overlaps = |one: &Range<u64>| {
            let mut others = other.ranges.iter();
            others.any(|other| one.start < other.end && other.start < one.end)
        };
        (self.alone || other.alone) && self.ranges.iter().any(overlaps)
    }
}

/// An operation that waits for others.
#[derive(Debug)]
struct Waiting {
    part: Part,
    request: Request,
    pending: Pending,
}

/// The operations that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Parts {
    waiting: VecDeque<Waiting>,
    /// How many have begun or wait that must be alone.
    alone: usize,
}

impl Parts {
    /// Begins an operation, and gives it back; or keeps it until what excludes it has ended.
    pub(super) fn begin(
        &mut self,
        tasks: &mut TaskSet,
        request: Request,
        pending: Pending,
    ) -> Option<(Request, Pending)> {
        let Some(part) = Part::of(&request.operation) else {
            return Some((request, pending));
        };
        self.alone += usize::from(part.alone);
        if self.alone > 0 && self.must_wait(tasks, &part) {
            self.waiting.push_back(Waiting {
                part,
                request,
                pending,
            });
            return None;
        }
        tasks.set_begun(pending.key, part);
        Some((request, pending))
    }

    /// Whether something can begin that need not be alone, without waiting.
    pub(super) fn admit(&self, tasks: &TaskSet, ranges: [Range<u64>; 2]) -> bool {
        self.alone == 0 || !self.must_wait(tasks, &Part::shared(ranges))
    }

    /// Takes note of the end of an operation, or of one that has waited.
    pub(super) fn end(&mut self, part: Option<&Part>) {
        self.alone -= usize::from(part.is_some_and(|part| part.alone));
    }

    /// The operations that have waited and begin now.
    pub(super) fn go_on(&mut self, tasks: &mut TaskSet) -> Vec<(Request, Pending)> {
        let mut begin = Vec::new();
        if self.waiting.is_empty() {
            return begin;
        }
        for one in std::mem::take(&mut self.waiting) {
            if self.must_wait(tasks, &one.part) {
                self.waiting.push_back(one);
            } else {
                tasks.set_begun(one.pending.key, one.part);
                begin.push((one.request, one.pending));
            }
        }
        begin
    }

    /// Takes those that wait and are meant: they have done nothing.
    pub(super) fn take(&mut self, is_meant: impl Fn(&Pending) -> bool) -> Vec<(Request, Pending)> {
        let mut taken = Vec::new();
        for one in std::mem::take(&mut self.waiting) {
            if is_meant(&one.pending) {
                self.end(Some(&one.part));
                taken.push((one.request, one.pending));
            } else {
                self.waiting.push_back(one);
            }
        }
        taken
    }

    /// Whether an operation that has begun, or that came earlier and waits, is in the way.
    fn must_wait(&self, tasks: &TaskSet, part: &Part) -> bool {
        let waiting = self.waiting.iter().map(|one| &one.part);
        tasks
            .begun()
            .chain(waiting)
            .any(|other| part.excludes(other))
    }
}
