//! Who flushes: one at a time, and nobody any more once a flush has failed.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The flushes of a backing object.
#[derive(Debug, Default)]
pub(in crate::store) struct Flushes {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Somebody flushes.
    going: bool,
    /// Why data could not be put on stable storage, once that has happened.
    failed: Option<i32>,
}

impl State {
    fn begin(&mut self) -> io::Result<()> {
        if let Some(errno) = self.failed {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.going = true;
        Ok(())
    }
}

/// Whether somebody may flush now.
#[derive(Debug)]
pub(in crate::store) enum Turn {
    /// Yes, and has to tell how that has ended.
    Yours,
    /// Not as long as somebody else does.
    Others,
    /// Never: a flush has failed.
    Nobodys(io::Error),
}

impl Flushes {
    /// Begins a flush, which is to be [ended](Flushes::end), unless somebody else has.
    pub(in crate::store) fn begin(&self) -> Turn {
        let mut state = self.lock();
        if state.going {
            return Turn::Others;
        }
        state.begin().map_or_else(Turn::Nobodys, |()| Turn::Yours)
    }

    /// Waits until nobody flushes, and begins a flush.
    pub(super) fn wait_and_begin(&self) -> io::Result<()> {
        let others = self.ended.wait_while(self.lock(), |state| state.going);
        others.unwrap_or_else(PoisonError::into_inner).begin()
    }

    /// Ends a flush.
    pub(in crate::store) fn end(&self, result: io::Result<()>) -> io::Result<()> {
        let mut state = self.lock();
        state.going = false;
        if let Err(error) = &result {
            state.failed = Some(error.raw_os_error().unwrap_or(libc::EIO));
        }
        drop(state);
        self.ended.notify_all();
        result
    }

    pub(super) fn forget_failure(&self) {
        self.lock().failed = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
