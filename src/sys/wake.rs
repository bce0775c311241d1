//! A file descriptor by which one thread wakes another that waits for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes the thread that waits for it. Clones wake the same thread.
#[derive(Clone, Debug)]
pub struct Waker {
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    event: EventFd,
    /// It rings, and nobody has taken note of it: ringing again is not needed.
    rings: AtomicBool,
}

impl Waker {
    /// A waker that nobody has used yet.
    pub fn new() -> io::Result<Waker> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Bell {
            event: EventFd::from_value_and_flags(0, flags)?,
            rings: AtomicBool::new(false),
        };
        Ok(Waker {
            bell: Arc::new(bell),
        })
    }

    /// Makes the waiting thread look.
    pub fn wake(&self) {
        // What was done before this is seen by whoever takes note of it, or of the ringing that is there already.
        if !self.bell.rings.swap(true, Ordering::AcqRel) {
            // The only failure of a non-blocking eventfd is a full counter, and then the other side is awake.
            let _ = self.bell.event.write(1);
        }
    }

    /// Takes note of every [`Waker::wake`] so far. To be called before looking, never after.
    pub fn acknowledge(&self) {
        // Failure says that nobody called.
        let _ = self.bell.event.read();
        self.bell.rings.swap(false, Ordering::AcqRel);
    }

    /// Whether somebody has called and nobody has taken note of it.
    pub fn rings(&self) -> bool {
        self.bell.rings.load(Ordering::Relaxed)
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.event.as_fd()
    }
}
