//! io_uring: system calls on one file that go on while the thread does, and the wait for their ends and for everything
//! else in one system call.
//!
//! The kernel has the memory of a call until it has ended, and so it is kept here.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::{self, Entry};
use io_uring::types::{Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use nix::fcntl::FallocateFlags;
use slab::Slab;

use super::region::Data;
use super::vectored;
use super::wait::Wait;

/// How many calls the kernel is told of at a time. More may be going on.
const SUBMISSIONS: u32 = 128;

/// How many ends there is room for before the kernel keeps them elsewhere.
const COMPLETIONS: u32 = 1024;

/// Where the file stands among those that the kernel knows.
const FILE: Fixed = Fixed(0);

/// Marks what is said of a descriptor that is watched, beside its key.
const WATCH: u64 = 1 << 63;

/// Marks what nobody looks at.
const IGNORED: u64 = 1 << 62;

/// A system call on the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Read from byte `offset` into a range of the buffer. The outcome is how many bytes: 0 at the end of the file.
    Read {
        /// Where in the file.
        offset: u64,
        /// Into what of the buffer.
        range: Range<u64>,
    },
    /// Write a range of the buffer from byte `offset` on. The outcome is how many bytes.
    Write {
        /// Where in the file.
        offset: u64,
        /// What of the buffer.
        range: Range<u64>,
    },
    /// `fdatasync`.
    SyncData,
    /// `fallocate`.
    Fallocate {
        /// In which way.
        mode: FallocateFlags,
        /// Which part of the file.
        part: Range<u64>,
    },
}

/// A call that has ended.
#[derive(Debug)]
pub struct Ended<T> {
    /// As it was started with.
    pub ticket: T,
    /// The buffer, given back.
    pub data: Data,
    /// Its outcome.
    pub result: io::Result<u64>,
}

/// A call that the kernel has, with all that it may touch.
struct Going<T> {
    ticket: T,
    data: Data,
    pieces: Pieces,
}

/// What `readv` and `writev` go by. Empty if the buffer is in one piece.
#[derive(Default)]
struct Pieces(Vec<libc::iovec>);

// SAFETY: the addresses are only handed to the kernel, for which it makes no difference which thread does that.
unsafe impl Send for Pieces {}

/// Calls on a file. Dropping it waits until all of them have ended.
///
/// It belongs to the thread that waits first, from then on. Needs Linux 6.1.
pub struct Uring<T> {
    ring: IoUring,
    is_enabled: bool,
    going: Slab<Going<T>>,
    /// To be used again.
    spare: Vec<Pieces>,
    ended: VecDeque<Ended<T>>,
    watched: BTreeMap<u64, RawFd>,
    /// The keys of the descriptors to which something came.
    came: Vec<u64>,
    /// Descriptors that have been let go, and that the kernel has let go too.
    forgotten: Vec<u64>,
}

impl<T> fmt::Debug for Uring<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Uring");
        shown.field("going", &self.going.len()).finish()
    }
}

impl<T> Uring<T> {
    /// Calls on this file.
    pub fn new(file: &File) -> io::Result<Uring<T>> {
        let ring: IoUring = IoUring::builder()
            .dontfork()
            .setup_cqsize(COMPLETIONS)
            // It is made on another thread than the one that it will belong to.
            .setup_r_disabled()
            .setup_single_issuer()
            // What ends is looked at when we ask, and does not interrupt us.
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(SUBMISSIONS)?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        Ok(Uring {
            ring,
            is_enabled: false,
            going: Slab::new(),
            spare: Vec::new(),
            ended: VecDeque::new(),
            watched: BTreeMap::new(),
            came: Vec::new(),
            forgotten: Vec::new(),
        })
    }

    /// Starts a call, with the next wait at the latest.
    pub fn start(&mut self, call: &Call, data: Data, ticket: T) {
        let vacant = self.going.vacant_entry();
        let user_data = vacant.key() as u64;
        let mut pieces = self.spare.pop().unwrap_or_default();
        let entry = match *call {
            Call::Read { offset, ref range } => {
                match vectored::one_piece(&data, range, &mut pieces.0) {
                    Some(one) => opcode::Read::new(FILE, one.iov_base.cast(), length(&one))
                        .offset(offset)
                        .build(),
                    None => opcode::Readv::new(FILE, pieces.0.as_ptr(), count(&pieces))
                        .offset(offset)
                        .build(),
                }
            }
            Call::Write { offset, ref range } => {
                match vectored::one_piece(&data, range, &mut pieces.0) {
                    Some(one) => opcode::Write::new(FILE, one.iov_base.cast(), length(&one))
                        .offset(offset)
                        .build(),
                    None => opcode::Writev::new(FILE, pieces.0.as_ptr(), count(&pieces))
                        .offset(offset)
                        .build(),
                }
            }
            Call::SyncData => opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build(),
            Call::Fallocate { mode, ref part } => {
                opcode::Fallocate::new(FILE, part.end - part.start)
                    .offset(part.start)
                    .mode(mode.bits())
                    .build()
            }
        };
        vacant.insert(Going {
            ticket,
            data,
            pieces,
        });
        // SAFETY: what the kernel reads and writes is in `going` until it says that the call has ended: the mapping that
        // `data` keeps alive, and the list of its pieces, which does not move with the `Vec` that holds it.
        unsafe { self.push(&entry.user_data(user_data)) };
    }

    /// Takes a call that has ended, if one has.
    pub fn ended(&mut self) -> Option<Ended<T>> {
        if self.ended.is_empty() {
            self.collect();
        }
        self.ended.pop_front()
    }

    /// How many calls have been started and have not ended.
    pub fn going(&self) -> usize {
        self.going.len()
    }

    /// # Safety
    ///
    /// What the entry points to lives until its end has been collected.
    unsafe fn push(&mut self, entry: &Entry) {
        loop {
            // SAFETY: as the caller promises.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            self.enter(0, None);
            self.collect();
        }
    }

    /// Tells the kernel of all that was started: none of it must go to a file that gets the number of one that is closed.
    fn submit_all(&mut self) {
        while !self.ring.submission().is_empty() {
            self.enter(0, None);
            self.collect();
        }
    }

    /// Tells the kernel of what was started, and waits for as many ends, for so long at most.
    fn enter(&mut self, ends: usize, timeout: Option<Duration>) {
        if !self.is_enabled {
            let enabled = self.ring.submitter().register_enable_rings();
            enabled.unwrap_or_else(|error| panic!("enabling an io_uring of our own: {error}"));
            self.is_enabled = true;
        }
        let entered = match timeout {
            None => self.ring.submitter().submit_and_wait(ends),
            Some(timeout) => {
                let timeout = Timespec::from(timeout);
                let arguments = SubmitArgs::new().timespec(&timeout);
                self.ring.submitter().submit_with_args(ends, &arguments)
            }
        };
        if let Err(error) = entered {
            // It is asked again: a signal came, time is up, or the kernel wants ends to be collected or has no memory.
            let passes = [
                libc::EINTR,
                libc::ETIME,
                libc::EBUSY,
                libc::EAGAIN,
                libc::ENOMEM,
            ];
            let errno = error.raw_os_error().unwrap_or(0);
            assert!(
                passes.contains(&errno),
                "io_uring_enter on a ring of our own: {error}"
            );
        }
    }

    /// Takes note of what the kernel says has ended or come.
    fn collect(&mut self) {
        let mut again = Vec::new();
        for entry in self.ring.completion() {
            let user_data = entry.user_data();
            if user_data & WATCH != 0 {
                let key = user_data & !WATCH;
                let goes_on = cqueue::more(entry.flags());
                match self.watched.get(&key) {
                    Some(&fd) => {
                        self.came.push(key);
                        if !goes_on && entry.result() < 0 {
                            // It would come again at once.
                            let error = io::Error::from_raw_os_error(-entry.result());
                            log::warn!("descriptor {fd} is watched no more: {error}");
                            self.watched.remove(&key);
                        } else if !goes_on {
                            again.push((key, fd));
                        }
                    }
                    None if !goes_on => self.forgotten.push(key),
                    None => {}
                }
            } else if user_data & IGNORED == 0 {
                let index = usize::try_from(user_data).expect("an index went in");
                let Going {
                    ticket,
                    data,
                    mut pieces,
                } = self.going.remove(index);
                if self.spare.len() < SUBMISSIONS as usize {
                    pieces.0.clear();
                    self.spare.push(pieces);
                }
                let result = entry.result();
                let result = u64::try_from(result)
                    .map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()));
                self.ended.push_back(Ended {
                    ticket,
                    data,
                    result,
                });
            }
        }
        for (key, fd) in again {
            self.push_watch(fd, key);
        }
    }

    fn push_watch(&mut self, fd: RawFd, key: u64) {
        let events = u32::from(libc::POLLIN.unsigned_abs());
        let entry = opcode::PollAdd::new(io_uring::types::Fd(fd), events)
            .multi(true)
            .build();
        // SAFETY: it points to nothing.
        unsafe { self.push(&entry.user_data(WATCH | key)) };
    }

    fn has_more(&mut self) -> bool {
        let submissions = self.ring.submission();
        let more = !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow();
        drop(submissions);
        more || !self.ring.completion().is_empty()
    }
}

impl<T> Wait for Uring<T> {
    fn watch(&mut self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        self.watched.insert(key, fd.as_raw_fd());
        self.push_watch(fd.as_raw_fd(), key);
        Ok(())
    }

    fn forget(&mut self, _fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        if self.watched.remove(&key).is_none() {
            self.submit_all();
            return Ok(());
        }
        // Not PollRemove, which does nothing while something comes.
        let entry = opcode::AsyncCancel::new(WATCH | key).build();
        // SAFETY: it points to nothing.
        unsafe { self.push(&entry.user_data(IGNORED)) };
        self.submit_all();
        // The kernel has the file open until it says that it does not watch it any more.
        while !self.forgotten.contains(&key) {
            self.enter(1, None);
            self.collect();
        }
        self.forgotten.clear();
        Ok(())
    }

    fn write(&mut self, fd: BorrowedFd<'_>, bytes: &'static [u8]) {
        let length = u32::try_from(bytes.len()).expect("a few bytes");
        let fd = io_uring::types::Fd(fd.as_raw_fd());
        let entry = opcode::Write::new(fd, bytes.as_ptr(), length).build();
        // That it was written is no reason to wake up.
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the bytes are there for ever.
        unsafe { self.push(&entry.user_data(IGNORED)) };
    }

    fn wait(&mut self, timeout: Option<Duration>, woken: &mut Vec<u64>) {
        self.collect();
        let is_due = !self.ended.is_empty() || !self.came.is_empty();
        if !is_due && timeout != Some(Duration::ZERO) {
            self.enter(1, timeout);
        } else if self.has_more() {
            self.enter(0, None);
        }
        self.collect();
        woken.append(&mut self.came);
    }

    fn may_have_come(&mut self) -> bool {
        !self.ended.is_empty() || self.has_more()
    }
}

impl<T> Drop for Uring<T> {
    fn drop(&mut self) {
        // Before it is enabled, the kernel has been told of nothing.
        while self.is_enabled && !self.going.is_empty() {
            self.enter(1, None);
            self.collect();
        }
        // The kernel takes a while to take the ring apart. The file can be locked by others at once.
        if let Err(error) = self.ring.submitter().unregister_files() {
            log::warn!("letting go of a file: {error}");
        }
    }
}

fn length(piece: &libc::iovec) -> u32 {
    u32::try_from(piece.iov_len).expect("vectored::one_piece gives no longer one")
}

fn count(pieces: &Pieces) -> u32 {
    u32::try_from(pieces.0.len()).expect("as many as a system call takes")
}

#[cfg(test)]
mod tests;
