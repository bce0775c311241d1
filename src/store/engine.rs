//! The store that serves: what can be done at once is, what the kernel can do beside us it does (io_uring), and helper
//! threads do the rest.
//!
//! | where the data is | read | write | flush |
//! |---|---|---|---|
//! | in memory (tmpfs) | at once | at once | nothing to be done |
//! | perhaps in the page cache | at once what is there, the rest by io_uring | io_uring | io_uring |
//! | the same of a block device | the same | threads | io_uring |
//! | on a medium (`direct=1`), aligned | io_uring | io_uring | io_uring |
//! | nobody can tell (network file systems) | threads | threads | io_uring |
//!
//! Space is given back by io_uring where `fallocate` does that, by one command at a time: the others have threads, lest
//! those of one I_T nexus that hang use up the kernel's.
//!
//! Without io_uring, threads do what it would. Everything else is for threads in any case: what compares, copies or
//! fills, and what fails. Of that, io_uring tells only that it has failed, and a thread does it again and finds out at
//! which block.
//!
//! A flush puts all on stable storage that was written before. So all that want one while another is going on get the
//! next one together.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::at_once::{Place, Transfer};
use super::backing::{self, Turn};
use super::blocking::Blocking;
use super::{Backing, Done, Durability, Failure, Flush, Operation, Outcome, Request, Store, space};
use crate::sys::region::Data;
use crate::sys::uring::{Call, Ended, Uring};
use crate::sys::wait::Wait;
use crate::sys::wake::Waker;

/// How many reads that are not in the page cache are left to io_uring at a time. It asks the disk for them on the thread
/// that tells it of them, and waits with it when the disk's queue is full.
const MISSES_MAX: usize = 32;

/// Which engine is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// io_uring, or threads where it is missing or forbidden.
    #[default]
    Best,
    /// Threads.
    Threads,
}

/// Which engine does what can't be done at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The kernel's io_uring.
    IoUring,
    /// Helper threads, and why not io_uring.
    Threads {
        /// What the system said, or who has chosen so.
        reason: String,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::IoUring => formatter.write_str("io_uring"),
            Kind::Threads { reason } => write!(formatter, "threads (no io_uring: {reason})"),
        }
    }
}

/// A store on a backing object. Dropping it waits until nothing touches the backing object any more.
#[derive(Debug)]
pub struct Engine<T> {
    backing: Arc<Backing>,
    place: Place,
    ring: Option<Uring<Work<T>>>,
    threads: Blocking<T>,
    /// Whether io_uring is giving back space: one request at a time does.
    gives_back: bool,
    /// Those that want the next flush: of what they have written, or before they read.
    next_flush: Vec<(Request, T)>,
    /// Those that the flush is for that is going on.
    flush: Vec<(Request, T)>,
    done: VecDeque<Done<T>>,
}

/// What a call of io_uring is for.
#[derive(Debug)]
enum Work<T> {
    /// To move the data of this operation, from so many bytes on. The buffer is with the call.
    Data(Request, T, u64),
    /// To give back a piece of the space that this operation does: which of them.
    Space(Request, T, usize),
    /// For those that wait for a flush.
    Flush,
}

impl<T: Send + 'static> Engine<T> {
    /// A store on `backing` that calls `waker` when a thread has done something. Tells which engine it has.
    pub fn new(
        backing: &Arc<Backing>,
        waker: &Waker,
        wanted: Wanted,
    ) -> io::Result<(Engine<T>, Kind)> {
        let ring = match wanted {
            Wanted::Best => Uring::new(backing.file()).map_err(|error| error.to_string()),
            Wanted::Threads => Err("threads were asked for".to_owned()),
        };
        let (ring, kind) = match ring {
            Ok(ring) => (Some(ring), Kind::IoUring),
            Err(reason) => (None, Kind::Threads { reason }),
        };
        let engine = Engine {
            backing: Arc::clone(backing),
            place: Place::of(backing),
            ring,
            threads: Blocking::new(backing, waker)?,
            gives_back: false,
            next_flush: Vec::new(),
            flush: Vec::new(),
            done: VecDeque::new(),
        };
        Ok((engine, kind))
    }

    /// Moves the data of an operation: at once what can be, and the rest as it can be.
    fn move_data(&mut self, mut request: Request, ticket: T) {
        let Some(transfer) = Transfer::of(&request.operation) else {
            return self.threads.submit(request, ticket);
        };
        let moved = self
            .place
            .move_at_once(&self.backing, transfer, &request.data);
        if moved == transfer.length {
            return self.moved(request, ticket);
        }
        let call = self.call(transfer, &request.data, moved);
        match (call, &mut self.ring) {
            (Some(call), Some(ring)) => {
                let data = std::mem::replace(&mut request.data, Data::none());
                ring.start(&call, data, Work::Data(request, ticket, moved));
            }
            _ => self.threads.submit(request, ticket),
        }
    }

    /// What io_uring is to do for an operation of which so many bytes have been moved; `None` if it can't.
    fn call(&self, transfer: Transfer, data: &Data, moved: u64) -> Option<Call> {
        let range = moved..transfer.length;
        let offset = transfer.offset.checked_add(moved)?;
        let can = match self.place {
            // So many may wait in the kernel for a slow disk before whoever asks it to read has to wait too.
            Place::Cache if !transfer.is_write => {
                self.ring.as_ref().map_or(0, Uring::going) < MISSES_MAX
            }
            // The kernel does such writes one after the other, whatever hangs. Files need that anyway.
            Place::Cache => self.backing.kind() == backing::Kind::File,
            Place::Medium => {
                self.backing.goes_as_it_is(offset, data, &range)
                    && (!transfer.is_write || self.backing.is_written_alone())
            }
            // In memory it was done at once, unless it has failed.
            Place::Memory | Place::Anywhere => false,
        };
        // The kernel's offsets are signed.
        let can = can && i64::try_from(offset).is_ok();
        can.then_some(if transfer.is_write {
            Call::Write { offset, range }
        } else {
            Call::Read { offset, range }
        })
    }

    /// Goes on with an operation when its data has been moved, all of it.
    fn moved(&mut self, request: Request, ticket: T) {
        match request.operation {
            Operation::Write {
                durability: Durability::Now,
                ..
            }
            | Operation::Unmap {
                durability: Durability::Now,
                ..
            } if !self.place.is_stable() => self.want_flush(request, ticket),
            _ => self.end(request.data, ticket, Ok(Outcome::Done)),
        }
    }

    /// Gives back space, if nobody does that now.
    fn begin_to_give_back(&mut self, request: Request, ticket: T) {
        if self.gives_back || self.ring.is_none() {
            return self.threads.submit(request, ticket);
        }
        self.gives_back = true;
        self.give_back(request, ticket, 0);
    }

    /// Gives back a piece of the space that an operation does, and all that follow.
    fn give_back(&mut self, request: Request, ticket: T, piece: usize) {
        let Operation::Unmap { ranges, .. } = &request.operation else {
            unreachable!("only these give back space here");
        };
        let part = space::large_pieces(ranges).nth(piece);
        let mode = self.backing.fallocates();
        match (part, mode, &mut self.ring) {
            (Some(_), ..) if request.cancellation.is_cancelled() => {
                self.gives_back = false;
                self.end(request.data, ticket, Err(Failure::Cancelled));
            }
            (Some(part), Some(mode), Some(ring)) => {
                let call = Call::Fallocate { mode, part };
                ring.start(&call, Data::none(), Work::Space(request, ticket, piece));
            }
            (Some(_), ..) => {
                self.gives_back = false;
                self.threads.submit(request, ticket);
            }
            (None, ..) => {
                self.gives_back = false;
                self.moved(request, ticket);
            }
        }
    }

    fn want_flush(&mut self, request: Request, ticket: T) {
        self.next_flush.push((request, ticket));
        self.begin_flush();
    }

    /// Begins a flush for all that want one, unless one is going on.
    fn begin_flush(&mut self) {
        if self.next_flush.is_empty() || !self.flush.is_empty() {
            return;
        }
        std::mem::swap(&mut self.next_flush, &mut self.flush);
        // What is only read has nothing to be flushed.
        if self.backing.mode().read_only {
            return self.end_flush(&Ok(()));
        }
        let turn = self.ring.as_mut().map(|_| self.backing.flushes().begin());
        match turn {
            Some(Turn::Yours) => self.flush(),
            Some(Turn::Nobodys(failed)) => self.end_flush(&Err(failed)),
            // A thread can wait for one that flushes.
            Some(Turn::Others) | None => self.leave_flush(),
        }
    }

    /// Leaves to threads what a flush was for. What was written is not written again: others may have seen it, and written
    /// something else since.
    fn leave_flush(&mut self) {
        for (mut request, ticket) in self.flush.drain(..) {
            if !matches!(request.operation, Operation::Read { .. }) {
                request.operation = Operation::Flush;
            }
            self.threads.submit(request, ticket);
        }
    }

    fn flush(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.start(&Call::SyncData, Data::none(), Work::Flush);
        }
    }

    /// Goes on with all that a flush was for.
    fn end_flush(&mut self, result: &io::Result<()>) {
        let mut flushed = std::mem::take(&mut self.flush);
        for (request, ticket) in flushed.drain(..) {
            match result {
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    let failure = Failure::Flush(io::Error::from_raw_os_error(errno));
                    self.end(request.data, ticket, Err(failure));
                }
                Ok(()) if matches!(request.operation, Operation::Read { .. }) => {
                    self.move_data(request, ticket);
                }
                Ok(()) => self.end(request.data, ticket, Ok(Outcome::Done)),
            }
        }
        // Its memory is used again.
        self.flush = flushed;
        self.begin_flush();
    }

    /// Goes on when the kernel has done a call.
    fn ended(&mut self, ended: Ended<Work<T>>) {
        match (ended.ticket, ended.result) {
            (Work::Data(mut request, ticket, before), result) => {
                request.data = ended.data;
                let whole = Transfer::of(&request.operation).map(|transfer| transfer.length);
                if result.is_ok_and(|moved| Some(before + moved) == whole) {
                    self.moved(request, ticket);
                } else {
                    self.threads.submit(request, ticket);
                }
            }
            (Work::Space(request, ticket, piece), Ok(_)) => {
                self.give_back(request, ticket, piece + 1);
            }
            // A thread finds another way, or why there is none.
            (Work::Space(mut request, ticket, piece), Err(_)) => {
                self.gives_back = false;
                if let Operation::Unmap { ranges, .. } = &mut request.operation {
                    *ranges = space::large_pieces(ranges).skip(piece).collect();
                }
                self.threads.submit(request, ticket);
            }
            (Work::Flush, Err(error)) if error.kind() == io::ErrorKind::Interrupted => self.flush(),
            // The kernel had no thread for it, and has not begun.
            (Work::Flush, Err(error)) if error.raw_os_error() == Some(libc::ECANCELED) => {
                if self.backing.flushes().end(Ok(())).is_ok() {
                    self.leave_flush();
                    self.begin_flush();
                }
            }
            (Work::Flush, result) => {
                let result = self.backing.flushes().end(result.map(drop));
                self.end_flush(&result);
            }
        }
    }

    fn end(&mut self, data: Data, ticket: T, result: Result<Outcome, Failure>) {
        self.done.push_back(Done {
            ticket,
            data,
            result,
        });
    }
}

impl<T> Drop for Engine<T> {
    fn drop(&mut self) {
        let Some(mut ring) = self.ring.take() else {
            return;
        };
        // Others may wait for a flush to end, threads of this store too.
        while ring.going() > 0 {
            ring.wait(None, &mut Vec::new());
            while let Some(ended) = ring.ended() {
                if matches!(ended.ticket, Work::Flush) {
                    let flushed = self.backing.flushes().end(ended.result.map(drop));
                    flushed.unwrap_or_else(|error| log::error!("flushing failed: {error}"));
                }
            }
        }
    }
}

impl<T: Send + 'static> Store<T> for Engine<T> {
    fn submit(&mut self, request: Request, ticket: T) {
        let is_stable = self.place.is_stable();
        match request.operation {
            Operation::Flush if is_stable => self.end(request.data, ticket, Ok(Outcome::Done)),
            Operation::Flush => self.want_flush(request, ticket),
            Operation::Read {
                flush: Flush::First,
                ..
            } if !is_stable => self.want_flush(request, ticket),
            // Without io_uring a thread has to flush, and can write as well.
            Operation::Write {
                durability: Durability::Now,
                ..
            } if !is_stable && self.ring.is_none() => self.threads.submit(request, ticket),
            Operation::Unmap { .. } => self.begin_to_give_back(request, ticket),
            _ => self.move_data(request, ticket),
        }
    }

    fn reap(&mut self) -> Option<Done<T>> {
        loop {
            if let Some(done) = self.done.pop_front() {
                return Some(done);
            }
            let Some(ended) = self.ring.as_mut().and_then(Uring::ended) else {
                return self.threads.reap();
            };
            self.ended(ended);
        }
    }

    fn waits(&mut self) -> &mut dyn Wait {
        match &mut self.ring {
            Some(ring) => ring,
            None => self.threads.waits(),
        }
    }
}

#[cfg(test)]
mod tests;
