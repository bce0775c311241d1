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
    /// How many wait to do so, who come first.
    waiting: usize,
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
    /// Not as long as somebody else does, or waits to.
    Others,
    /// Never: a flush has failed.
    Nobodys(io::Error),
}

impl Flushes {
    /// Begins a flush, which is to be [ended](Flushes::end), unless somebody else has.
    pub(in crate::store) fn begin(&self) -> Turn {
        let mut state = self.lock();
        if state.going || state.waiting > 0 {
            return Turn::Others;
        }
        state.begin().map_or_else(Turn::Nobodys, |()| Turn::Yours)
    }

    /// Waits until nobody flushes, and begins a flush.
    pub(super) fn wait_and_begin(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.waiting += 1;
        let others = self.ended.wait_while(state, |state| state.going);
        let mut state = others.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state.begin()
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn those_who_wait_come_before_those_who_would_have_to() {
        let flushes = Flushes::default();
        assert!(matches!(flushes.begin(), Turn::Yours));
        assert!(matches!(flushes.begin(), Turn::Others));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                flushes.wait_and_begin().unwrap();
                flushes.end(Ok(())).unwrap();
            });
            while flushes.lock().waiting == 0 {
                thread::yield_now();
            }
            let mut state = flushes.lock();
            state.going = false;
            drop(state);
            assert!(matches!(flushes.begin(), Turn::Others));
            flushes.ended.notify_all();
            waiting.join().unwrap();
        });
        assert!(matches!(flushes.begin(), Turn::Yours));
    }

    #[test]
    fn nobody_flushes_after_a_failure_until_it_is_forgotten() {
        let flushes = Flushes::default();
        flushes.wait_and_begin().unwrap();
        let failed = io::Error::from_raw_os_error(libc::ENOSPC);
        assert!(flushes.end(Err(failed)).is_err());
        let told = flushes.wait_and_begin().unwrap_err();
        assert_eq!(told.raw_os_error(), Some(libc::ENOSPC));
        let Turn::Nobodys(told) = flushes.begin() else {
            panic!("one has failed")
        };
        assert_eq!(told.raw_os_error(), Some(libc::ENOSPC));
        flushes.forget_failure();
        assert!(matches!(flushes.begin(), Turn::Yours));
    }
}
