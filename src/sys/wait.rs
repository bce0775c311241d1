//! What a thread waits for: descriptors that become readable.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Waits for descriptors, each by a key of whoever waits. Keys are smaller than 2^62.
///
/// A descriptor wakes the thread each time that something comes, whether what came before was read or not. So nothing
/// need be read from it; and whoever is woken has to look at everything, since for what is there already nothing comes
/// again.
pub trait Wait {
    /// From now on a wait ends when something comes to this descriptor. Something may be there already.
    fn watch(&mut self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()>;

    /// Lets go of a descriptor, watched or only written to: after this, the file that it stands for can be closed.
    fn forget(&mut self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()>;

    /// Writes these bytes to a descriptor that does not block: now, or when the next wait begins, in the same system call. To
    /// whom it matters whether they could be written has to do it himself.
    fn write(&mut self, fd: BorrowedFd<'_>, bytes: &'static [u8]);

    /// Waits until something comes to a descriptor that is watched, for so long at most, and adds the keys of those to
    /// which something came. It may end early.
    fn wait(&mut self, timeout: Option<Duration>, woken: &mut Vec<u64>);

    /// Whether it is worth a wait of no length: something may have come. A look that costs nothing; where it can't be known
    /// without a system call, nothing has.
    fn may_have_come(&mut self) -> bool {
        false
    }
}

/// Waits with `epoll`.
#[derive(Debug)]
pub struct EpollWait {
    epoll: Epoll,
}

/// How many descriptors one wait tells of.
const EVENTS_MAX: usize = 64;

impl EpollWait {
    /// A wait for nothing yet.
    pub fn new() -> io::Result<EpollWait> {
        Ok(EpollWait {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        })
    }
}

impl Wait for EpollWait {
    fn watch(&mut self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        Ok(self.epoll.add(fd, EpollEvent::new(flags, key))?)
    }

    fn forget(&mut self, fd: BorrowedFd<'_>, _key: u64) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    fn write(&mut self, fd: BorrowedFd<'_>, bytes: &'static [u8]) {
        if let Err(errno) = nix::unistd::write(fd, bytes) {
            log::debug!("writing to a descriptor: {errno}");
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, woken: &mut Vec<u64>) {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(time) => EpollTimeout::try_from(time).unwrap_or(EpollTimeout::MAX),
        };
        match self.epoll.wait(&mut events, timeout) {
            Ok(count) => woken.extend(events[..count].iter().map(EpollEvent::data)),
            Err(Errno::EINTR) => {}
            Err(errno) => panic!("epoll_wait on descriptors of our own: {errno}"),
        }
    }
}
