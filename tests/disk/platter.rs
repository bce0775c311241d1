//! A medium in memory with a cache in front of it that a loss of power empties, and with blocks that cannot be read or
//! written.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use nix::fcntl::PosixFadviseAdvice;
use tcmu_pr::store::medium::{Clearing, Medium};
use tcmu_pr::store::space::{Deallocation, Figures, Found, Sought};
use tcmu_pr::sys::region::Data;

use crate::model::Word;

/// What goes wrong until it is told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// This block can't be read.
    Unreadable(usize),
    /// This block can't be written.
    Unwritable(usize),
    /// The cache can't be written to the medium, and what is in it is lost.
    FlushFails,
    /// After so many calls there is no power.
    PowerCut(u32),
    /// Calls do less than they are asked for.
    Slow,
}

#[derive(Debug)]
struct State {
    block: usize,
    /// What reads find.
    content: Vec<u8>,
    durable: Vec<u8>,
    /// What was written since the cache was last written to the medium: from which byte on, and what. One is lost or kept
    /// as a whole.
    cached: Vec<(usize, Vec<u8>)>,
    trouble: Trouble,
    flush_failed: bool,
    has_no_power: bool,
    rng: Rng,
}

/// A medium. Its clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Platter(Arc<Mutex<State>>);

impl Platter {
    /// A medium of zeros.
    pub(crate) fn new(block: usize, blocks: usize, seed: u64) -> Platter {
        Platter(Arc::new(Mutex::new(State {
            block,
            content: vec![0; block * blocks],
            durable: vec![0; block * blocks],
            cached: Vec::new(),
            trouble: Trouble::None,
            flush_failed: false,
            has_no_power: false,
            rng: Rng::with_seed(seed),
        })))
    }

    pub(crate) fn trouble(&self, trouble: Trouble) {
        self.0.lock().unwrap().trouble = trouble;
    }

    pub(crate) fn has_no_power(&self) -> bool {
        self.0.lock().unwrap().has_no_power
    }

    /// What a block holds: a word, again and again.
    pub(crate) fn word(&self, block: usize) -> Word {
        let state = self.0.lock().unwrap();
        word_of(&state.content[block * state.block..(block + 1) * state.block])
    }

    /// Loses what is in the cache, but for any part of it, and has power again.
    pub(crate) fn power_on(&self) {
        let mut state = self.0.lock().unwrap();
        let State {
            durable,
            cached,
            rng,
            ..
        } = &mut *state;
        for (at, content) in std::mem::take(cached) {
            if rng.bool() {
                durable[at..at + content.len()].copy_from_slice(&content);
            }
        }
        state.content = state.durable.clone();
        state.flush_failed = false;
        state.has_no_power = false;
        state.trouble = Trouble::None;
    }
}

/// What the bytes of a block hold, again and again.
pub(crate) fn word_of(block: &[u8]) -> Word {
    let mut words = block.chunks(8);
    let word = words.next().unwrap();
    assert!(words.all(|other| other == word), "a torn block");
    Word::from_be_bytes(word.try_into().unwrap())
}

impl State {
    /// Each call on the medium begins here. Gives how much of that many bytes it does.
    fn call(&mut self, bytes: usize) -> io::Result<usize> {
        if let Trouble::PowerCut(left) = &mut self.trouble {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => self.has_no_power = true,
            }
        }
        if self.has_no_power {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        match self.trouble {
            Trouble::Slow if bytes > 1 => Ok(self.rng.usize(1..=bytes)),
            _ => Ok(bytes),
        }
    }

    /// How much of a part comes before this block: an error if it is in its first.
    fn before(&self, bad: Option<usize>, part: Range<usize>) -> io::Result<usize> {
        let Some(bad) = bad else {
            return Ok(part.len());
        };
        let bad = bad * self.block..(bad + 1) * self.block;
        if bad.contains(&part.start) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if part.start < bad.start {
            return Ok(part.len().min(bad.start - part.start));
        }
        Ok(part.len())
    }

    fn read(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let length = self.call(length)?;
        let from = usize::try_from(offset).unwrap().min(self.content.len());
        let to = (from + length).min(self.content.len());
        let bad = match self.trouble {
            Trouble::Unreadable(block) => Some(block),
            _ => None,
        };
        let length = self.before(bad, from..to)?;
        Ok(&self.content[from..from + length])
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        // Blocks are written whole.
        let length = self.call(bytes.len())?;
        let length = length.next_multiple_of(self.block).min(bytes.len());
        let from = usize::try_from(offset).unwrap();
        let bad = match self.trouble {
            Trouble::Unwritable(block) => Some(block),
            _ => None,
        };
        let length = self.before(bad, from..from + length)?;
        let bytes = &bytes[..length];
        for (at, block) in (from..).step_by(self.block).zip(bytes.chunks(self.block)) {
            self.keep(at, block.to_vec());
        }
        Ok(bytes.len())
    }

    /// Writes all of it or nothing, whatever goes wrong.
    fn write_atomic(&mut self, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        self.call(bytes.len())?;
        let from = usize::try_from(offset).unwrap();
        if let Trouble::Unwritable(block) = self.trouble {
            if (from..from + bytes.len()).contains(&(block * self.block)) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
        }
        self.keep(from, bytes);
        Ok(())
    }

    fn keep(&mut self, at: usize, bytes: Vec<u8>) {
        self.content[at..at + bytes.len()].copy_from_slice(&bytes);
        self.cached.push((at, bytes));
    }
}

impl Medium for Platter {
    fn read(&self, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64> {
        let mut state = self.0.lock().unwrap();
        let length = usize::try_from(range.end - range.start).unwrap();
        let read = state.read(offset, length)?;
        Ok(data.write_at(range.start, read) as u64)
    }

    fn write(&self, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        data.read_at(range.start, &mut bytes);
        let written = self.0.lock().unwrap().write(offset, &bytes)?;
        Ok(written as u64)
    }

    fn write_atomic(&self, offset: u64, data: &Data, length: u64) -> io::Result<()> {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        data.read_at(0, &mut bytes);
        self.0.lock().unwrap().write_atomic(offset, bytes)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        let read = state.read(offset, bytes.len())?;
        bytes[..read.len()].copy_from_slice(read);
        Ok(read.len())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.lock().unwrap().write(offset, bytes)
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.call(0)?;
        if state.trouble == Trouble::FlushFails || state.flush_failed {
            state.flush_failed = true;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        state.durable = state.content.clone();
        state.cached.clear();
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
        let zeros = vec![0; usize::try_from(part.end - part.start).unwrap()];
        let mut state = self.0.lock().unwrap();
        if state.trouble == Trouble::Slow {
            return Ok(false);
        }
        let mut done = 0;
        while done < zeros.len() {
            done += state.write(part.start + done as u64, &zeros[done..])?;
        }
        Ok(true)
    }

    fn seek(&self, _at: u64, _sought: Sought) -> io::Result<Found> {
        Ok(Found::Unknown)
    }

    fn figures(&self) -> io::Result<Figures> {
        panic!("nobody asks")
    }

    fn block_size(&self) -> u32 {
        u32::try_from(self.0.lock().unwrap().block).unwrap()
    }

    fn size(&self) -> u64 {
        self.0.lock().unwrap().content.len() as u64
    }

    fn actual_size(&self) -> io::Result<u64> {
        Ok(self.size())
    }
}
