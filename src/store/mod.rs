//! Blocks on a file: where the data of a logical unit lies. Knows no SCSI.
//!
//! A [`Backing`] is the backing object, opened, locked and of the right size. A [`Store`] does I/O on it without
//! ever blocking the thread that owns the logical unit: requests go in with a ticket, and come back with it
//! when they are done, in any order. Each is in a [`Lane`], and waits behind others of its lane at most.

mod at_once;
pub mod backing;
pub mod blocking;
mod copy;
pub mod engine;
mod exclusive;
pub mod medium;
pub mod saved;
pub mod space;
mod verify;
mod whole;

use std::any::Any;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::region::Data;
use crate::sys::wait::Wait;
pub use backing::Backing;
pub use blocking::perform;
use medium::Medium;
use space::{Extent, Figures};

/// What to do with the backing object. Offsets and lengths are bytes; data starts at byte 0 of the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read into the buffer.
    Read {
        /// Where in the backing object.
        offset: u64,
        /// How much.
        length: u64,
        /// What must be on stable storage before the read begins: everything, or nothing.
        flush: Flush,
    },
    /// Write from the buffer.
    Write {
        /// Where in the backing object.
        offset: u64,
        /// How much.
        length: u64,
        /// When it must be on stable storage.
        durability: Durability,
    },
    /// Put everything that was written before on stable storage.
    Flush,
    /// Write from the buffer to stable storage, read that back from the medium, and compare.
    WriteAndVerify {
        /// Where in the backing object.
        offset: u64,
        /// How much.
        length: u64,
        /// With what to compare.
        against: Against,
    },
    /// Read from the medium and compare; the buffer stays as it is. What was written before is put on stable storage
    /// first.
    Verify {
        /// Where in the backing object.
        offset: u64,
        /// How much.
        length: u64,
        /// With what to compare.
        against: Against,
    },
    /// Compare the first half of the buffer with what is there, and if it is the same, write the second half over it.
    /// Nothing may come in between.
    CompareAndWrite {
        /// Where in the backing object.
        offset: u64,
        /// How much is compared, and how much is written.
        length: u64,
        /// When it must be on stable storage.
        durability: Durability,
    },
    /// Read what is there, and write it back with every bit set that is set in the buffer. Nothing may come in between.
    OrWrite {
        /// Where in the backing object.
        offset: u64,
        /// How much.
        length: u64,
        /// When it must be on stable storage.
        durability: Durability,
    },
    /// Write from the buffer, of which all is there after a loss of power, or nothing. Nothing may come in between.
    WriteAtomic {
        /// Where in the backing object: a multiple of the length.
        offset: u64,
        /// How much: what the backing object writes atomically.
        length: u64,
        /// When it must be on stable storage.
        durability: Durability,
    },
    /// Copy from one part to another, which may overlap; the buffer stays as it is.
    Copy {
        /// Where the source is.
        from: Place,
        /// Where the destination is.
        to: Place,
        /// How much.
        length: u64,
        /// When it must be on stable storage.
        durability: Durability,
    },
    /// Get ready to be read soon. A hint: that it was not followed is no failure.
    PreFetch {
        /// Where in the backing object.
        offset: u64,
        /// How much.
        length: u64,
    },
    /// See whether the backing object is there and has its size.
    Examine,
    /// Give back the space of these parts, the data of which nobody needs. What they read as afterwards, the backing
    /// object's [`space::Deallocation`] says.
    Unmap {
        /// Which parts.
        ranges: Vec<Range<u64>>,
        /// When it must be on stable storage.
        durability: Durability,
    },
    /// Fill a part with the same block again and again.
    WriteSame {
        /// Where in the backing object: a multiple of the block.
        offset: u64,
        /// How much.
        length: u64,
        /// With what.
        content: Content,
        /// What becomes of the space if that is zeros.
        spare: Spare,
        /// When it must be on stable storage.
        durability: Durability,
    },
    /// Tell which of a part takes up space: [`Outcome::Extents`].
    Extents {
        /// Where in the backing object: a multiple of `block`.
        offset: u64,
        /// How much: a multiple of `block`.
        length: u64,
        /// A block takes up space as a whole or not at all.
        block: u64,
        /// The most extents to tell of.
        most: usize,
    },
    /// Tell how much space there is: [`Outcome::Figures`].
    Figures,
}

/// With what a part is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros.
    Zeros,
    /// The first so many bytes of the buffer, again and again.
    Block(u64),
}

/// What becomes of space that is filled with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spare {
    /// It stays taken up.
    Keep,
    /// It is given back, if what is given back reads as zeros.
    GiveBack,
}

impl Operation {
    /// The parts of the backing object whose content it reads or changes; they are empty if there are none. A flush
    /// concerns all of it, and changes nothing.
    pub fn parts(&self) -> [Range<u64>; 2] {
        match *self {
            Operation::Read { offset, length, .. }
            | Operation::Write { offset, length, .. }
            | Operation::WriteAndVerify { offset, length, .. }
            | Operation::Verify { offset, length, .. }
            | Operation::CompareAndWrite { offset, length, .. }
            | Operation::OrWrite { offset, length, .. }
            | Operation::WriteAtomic { offset, length, .. }
            | Operation::WriteSame { offset, length, .. } => {
                [offset..offset.saturating_add(length), 0..0]
            }
            // All that lies between them too.
            Operation::Unmap { ref ranges, .. } => {
                let start = ranges.iter().map(|range| range.start).min();
                let end = ranges.iter().map(|range| range.end).max();
                [start.unwrap_or(0)..end.unwrap_or(0), 0..0]
            }
            Operation::Copy {
                ref from,
                ref to,
                length,
                ..
            } => [from.own_part(length), to.own_part(length)],
            Operation::Flush
            | Operation::PreFetch { .. }
            | Operation::Examine
            | Operation::Extents { .. }
            | Operation::Figures => [0..0, 0..0],
        }
    }

    /// Whether no other operation may read or change its part while it is being done.
    pub fn is_exclusive(&self) -> bool {
        matches!(
            self,
            Operation::CompareAndWrite { .. }
                | Operation::OrWrite { .. }
                | Operation::WriteAtomic { .. }
        )
    }
}

/// Where a copy is from or to: in the backing object, or in another that is lent for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// At which byte.
    pub offset: u64,
    /// The other.
    pub loan: Option<Loan>,
}

impl Place {
    fn medium<'a>(&'a self, own: &'a dyn Medium) -> &'a dyn Medium {
        self.loan.as_ref().map_or(own, |loan| &*loan.medium)
    }

    /// The part of the backing object itself.
    fn own_part(&self, length: u64) -> Range<u64> {
        match self.loan {
            None => self.offset..self.offset.saturating_add(length),
            Some(_) => 0..0,
        }
    }
}

/// Another backing object, lent for one operation. It is given back when this is dropped.
#[derive(Clone, Debug)]
pub struct Loan {
    // Dropped first: whoever learns that it is given back has it.
    medium: Arc<dyn Medium>,
    receipt: Arc<dyn Any + Send + Sync>,
}

impl Loan {
    /// A medium, and what tells whoever has lent it, when it is dropped, that it is given back.
    pub fn new(medium: Arc<dyn Medium>, receipt: impl Any + Send + Sync) -> Loan {
        Loan {
            medium,
            receipt: Arc::new(receipt),
        }
    }
}

impl PartialEq for Loan {
    fn eq(&self, other: &Loan) -> bool {
        Arc::ptr_eq(&self.receipt, &other.receipt)
    }
}

impl Eq for Loan {}

/// When a write must be on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// With the next flush.
    Later,
    /// Before the write is done.
    Now,
}

/// Whether a read flushes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// It reads what is there.
    No,
    /// It reads what is on stable storage.
    First,
}

/// What data is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Nothing: that it can be read is all.
    Nothing,
    /// The buffer.
    Data,
    /// The first so many bytes of the buffer, again and again.
    Repeated(u64),
}

/// Who an operation is for: one that hangs never holds up those of another lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane(pub usize);

/// One operation and its data buffer, which belongs to the store until the operation is done.
#[derive(Debug)]
pub struct Request {
    /// Behind whose operations it may wait.
    pub lane: Lane,
    /// What to do.
    pub operation: Operation,
    /// From or to where.
    pub data: Data,
    /// Whether somebody still wants to know how it ends.
    pub cancellation: Cancellation,
}

/// Tells an operation that nobody waits for it any more. What it has done until then stays.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Option<Arc<AtomicBool>>);

impl Cancellation {
    /// Of an operation that can be cancelled. The default is of one that goes on to its end.
    pub fn possible() -> Cancellation {
        Cancellation(Some(Arc::default()))
    }

    /// Cancels the operation. It ends at the next occasion, with [`Failure::Cancelled`] or as it would have.
    pub fn cancel(&self) {
        if let Some(flag) = &self.0 {
            flag.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// Why an operation failed.
#[derive(Debug)]
pub enum Failure {
    /// The system said so.
    Io(io::Error),
    /// The system said so while data was read.
    Read {
        /// Where in the backing object: what comes before could be read.
        at: u64,
        /// Why.
        error: io::Error,
    },
    /// The system said so while data was written.
    Write {
        /// Where in the backing object: what comes before was written.
        at: u64,
        /// Why.
        error: io::Error,
    },
    /// The system could not put data on stable storage. What is on the medium is not known from here on.
    Flush(io::Error),
    /// The data is not what it was compared with.
    Miscompare {
        /// Where in the buffer the first byte is that differs.
        at: u64,
    },
    /// It was cancelled before its end.
    Cancelled,
    /// The backing object ends before the data does: somebody made it shorter.
    Truncated,
}

/// What an operation has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it is done.
    Done,
    /// Which of a part takes up space, in order and without gaps; perhaps not to its end.
    Extents(Vec<Extent>),
    /// How much space there is.
    Figures(Figures),
}

/// An operation that was done, or failed.
#[derive(Debug)]
pub struct Done<T> {
    /// As it was submitted.
    pub ticket: T,
    /// The buffer, given back.
    pub data: Data,
    /// How it ended.
    pub result: Result<Outcome, Failure>,
}

/// Asynchronous I/O on a backing object. It is also what its thread waits with, for whatever else it waits: the kernel
/// can be told of new operations and asked for those that are done in one system call.
pub trait Store<T> {
    /// Starts an operation. Never blocks.
    fn submit(&mut self, request: Request, ticket: T);

    /// Takes an operation that is done, if there is one.
    fn reap(&mut self) -> Option<Done<T>>;

    /// What the thread waits with. A wait also ends when an operation is done.
    fn waits(&mut self) -> &mut dyn Wait;
}
