//! A file descriptor by which one thread wakes another that waits in `epoll`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes the thread that waits for it. Clones wake the same thread.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<EventFd>,
}

impl Waker {
    /// A waker that nobody has used yet.
    pub fn new() -> io::Result<Waker> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(0, flags)?;
        Ok(Waker {
            event: Arc::new(event),
        })
    }

    /// Makes the waiting thread look.
    pub fn wake(&self) {
        // The only failure of a non-blocking eventfd is a full counter, and then the other side is awake.
        let _ = self.event.write(1);
    }

    /// Takes note of every [`Waker::wake`] so far. To be called before looking, never after.
    pub fn acknowledge(&self) {
        // Failure says that nobody called.
        let _ = self.event.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
