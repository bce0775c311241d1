//! A medium in memory, which does all that it is asked to at once.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::PosixFadviseAdvice;
use tcmu_pr::store::medium::{Clearing, Medium};
use tcmu_pr::store::space::{Deallocation, Figures, Found, Sought};
use tcmu_pr::sys::region::Data;

/// Blocks of 512 bytes in memory.
#[derive(Debug)]
pub(crate) struct Memory(Mutex<State>);

#[derive(Debug)]
struct State {
    content: Vec<u8>,
    flush_fails: bool,
}

impl Memory {
    /// So many bytes, all of them this one.
    pub(crate) fn new(size: usize, byte: u8) -> Memory {
        Memory(Mutex::new(State {
            content: vec![byte; size],
            flush_fails: false,
        }))
    }

    /// All that it holds.
    pub(crate) fn content(&self) -> Vec<u8> {
        self.with(|state| state.content.clone())
    }

    /// Lets flushes fail from here on.
    pub(crate) fn fail_flushes(&self) {
        self.with(|state| state.flush_fails = true);
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// As much of so many bytes at an offset as there is.
fn part(content: &[u8], offset: u64, length: usize) -> Range<usize> {
    let from = usize::try_from(offset).map_or(content.len(), |from| from.min(content.len()));
    from..from.saturating_add(length).min(content.len())
}

impl Medium for Memory {
    fn read(&self, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64> {
        let length = usize::try_from(range.end - range.start).expect("it is in memory");
        let bytes = self.with(|state| state.content[part(&state.content, offset, length)].to_vec());
        Ok(data.write_at(range.start, &bytes) as u64)
    }

    fn write(&self, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64> {
        let length = usize::try_from(range.end - range.start).expect("it is in memory");
        let mut bytes = vec![0; length];
        data.read_at(range.start, &mut bytes);
        self.write_at(&bytes, offset).map(|written| written as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|state| {
            let part = part(&state.content, offset, bytes.len());
            bytes[..part.len()].copy_from_slice(&state.content[part.clone()]);
            Ok(part.len())
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.with(|state| {
            let part = part(&state.content, offset, bytes.len());
            state.content[part.clone()].copy_from_slice(&bytes[..part.len()]);
            Ok(part.len())
        })
    }

    fn flush(&self) -> io::Result<()> {
        if self.with(|state| state.flush_fails) {
            return Err(io::Error::other("it was to fail"));
        }
        Ok(())
    }

    fn advise(&self, _offset: u64, _length: u64, _advice: PosixFadviseAdvice) {}

    fn deallocation(&self) -> Option<Deallocation> {
        Some(Deallocation {
            zeroes: true,
            granularity: 4096,
            alignment: 0,
        })
    }

    fn clear(&self, _clearing: Clearing, part: &Range<u64>) -> io::Result<bool> {
        let length = usize::try_from(part.end - part.start).expect("it is in memory");
        self.write_at(&vec![0; length], part.start).map(|_| true)
    }

    fn seek(&self, _at: u64, _sought: Sought) -> io::Result<Found> {
        Ok(Found::Unknown)
    }

    fn figures(&self) -> io::Result<Figures> {
        Ok(Figures {
            total: 1 << 30,
            available: 1 << 29,
            used: 1 << 17,
        })
    }

    fn block_size(&self) -> u32 {
        512
    }

    fn size(&self) -> u64 {
        self.with(|state| state.content.len() as u64)
    }

    fn actual_size(&self) -> io::Result<u64> {
        Ok(self.size())
    }
}
