//! What operations need of a backing object: the seam between what an operation does and what does it.
//!
//! [`Backing`] is the one that serves. A medium in memory that fails, and loses power, is one for tests.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;

use nix::fcntl::PosixFadviseAdvice;

use super::Backing;
use super::space::{self, Deallocation, Figures, Found, Sought};
use crate::sys::region::Data;

/// A way to make a part read as zeros without writing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clearing {
    /// Its space is given back. What it reads as, [`Deallocation`] says.
    Deallocate,
    /// It takes up space, and reads as zeros.
    Zero,
}

/// A backing object. Reading and writing may do less than they are asked for, and 0 bytes at the end of the object.
pub trait Medium: fmt::Debug + Send + Sync {
    /// Reads from byte `offset` on into a range of the buffer, and gives how many bytes.
    fn read(&self, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64>;

    /// Writes a range of the buffer from byte `offset` on, and gives how many bytes.
    fn write(&self, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64>;

    /// Writes the first `length` bytes of the buffer at byte `offset`, so that after a loss of power all of them are there
    /// or none is. An error if it can't: never is it tried in another way.
    fn write_atomic(&self, _offset: u64, _data: &Data, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Reads from byte `offset` on, and gives how many bytes.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes from byte `offset` on, and gives how many bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Puts everything that was written before on stable storage. Once that has failed, it fails for ever.
    fn flush(&self) -> io::Result<()>;

    /// Tells what will become of a part. A hint.
    fn advise(&self, offset: u64, length: u64, advice: PosixFadviseAdvice);

    /// What becomes of space that is given back; `None` if none can be.
    fn deallocation(&self) -> Option<Deallocation>;

    /// Makes a part read as zeros; tells whether there is this way to do it.
    fn clear(&self, clearing: Clearing, part: &Range<u64>) -> io::Result<bool>;

    /// Where the next data or hole begins.
    fn seek(&self, at: u64, sought: Sought) -> io::Result<Found>;

    /// How much space there is now.
    fn figures(&self) -> io::Result<Figures>;

    /// The open file, if there is one that the system may copy from and to.
    fn file(&self) -> Option<&File> {
        None
    }

    /// Bytes in a block of the unit.
    fn block_size(&self) -> u32;

    /// The size in bytes with which it is served.
    fn size(&self) -> u64;

    /// The size in bytes that it has now, whoever changed it.
    fn actual_size(&self) -> io::Result<u64>;
}

impl Medium for Backing {
    fn read(&self, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64> {
        Backing::read(self, offset, data, range)
    }

    fn write(&self, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64> {
        Backing::write(self, offset, data, range)
    }

    fn write_atomic(&self, offset: u64, data: &Data, length: u64) -> io::Result<()> {
        Backing::write_atomic(self, offset, data, length)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        Backing::read_at(self, bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        Backing::write_at(self, bytes, offset)
    }

    fn flush(&self) -> io::Result<()> {
        Backing::flush(self)
    }

    fn advise(&self, offset: u64, length: u64, advice: PosixFadviseAdvice) {
        Backing::advise(self, offset, length, advice);
    }

    fn deallocation(&self) -> Option<Deallocation> {
        Backing::deallocation(self)
    }

    fn clear(&self, clearing: Clearing, part: &Range<u64>) -> io::Result<bool> {
        self.space.clear(self, clearing, part)
    }

    fn seek(&self, at: u64, sought: Sought) -> io::Result<Found> {
        space::seek(self.file(), at, sought)
    }

    fn figures(&self) -> io::Result<Figures> {
        Backing::figures(self)
    }

    fn file(&self) -> Option<&File> {
        // With direct I/O, parts of blocks are read and written again by us, which the system knows nothing of.
        (!self.mode().direct).then(|| Backing::file(self))
    }

    fn block_size(&self) -> u32 {
        Backing::block_size(self)
    }

    fn size(&self) -> u64 {
        Backing::size(self)
    }

    fn actual_size(&self) -> io::Result<u64> {
        Backing::actual_size(self)
    }
}
