//! Direct I/O: past the page cache, where offsets, lengths and memory must be aligned.
//!
//! What is aligned goes as it is. For the rest there is a buffer in between that is. Where a block of the unit is smaller
//! than what can be written, its neighbours are read and written with it: nobody else writes them meanwhile.

use std::fs::File;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::object::BackingId;
use crate::sys::alignment::{self, DirectIo};
use crate::sys::region::Data;
use crate::sys::vectored::Patience;
use crate::sys::{block, vectored};

/// How much is moved at a time by way of a buffer in between.
const PIECE: u64 = 1 << 20;

/// How many bytes an atomic write has, if the system leaves the choice: there can be only one length, and databases ask
/// for this one, the page of most of them.
const DATABASE_PAGE: u32 = 16 << 10;

/// What direct I/O on a file takes that does not say: a page.
const PAGE: u32 = 4096;

/// Direct I/O on an open file.
#[derive(Debug)]
pub(super) struct Direct {
    /// Of what offsets, lengths and memory are multiples, in bytes.
    alignment: u64,
    /// The parts that are being written, if a write can concern more than it is asked to write.
    held: Option<Parts>,
    /// How many bytes an atomic write has, if there are atomic writes.
    atomic_write: Option<u32>,
}

impl Direct {
    /// What is known of an open file whose unit has blocks of so many bytes; `None` if there is no direct I/O on it.
    pub(super) fn of(file: &File, id: BackingId, block_size: u32) -> io::Result<Option<Direct>> {
        let alignment = match (alignment::direct_io(file)?, id) {
            (DirectIo::Aligned { offset, memory }, _) => offset.max(memory),
            (DirectIo::Missing, _) => return Ok(None),
            (DirectIo::Unknown, BackingId::File { .. }) => PAGE,
            (DirectIo::Unknown, BackingId::BlockDevice { .. }) => block::logical_block_size(file)?,
        };
        let lengths = alignment::atomic_writes(file)?;
        Ok(Direct::new(alignment, block_size).map(|direct| direct.writing_atomically(lengths)))
    }

    /// `None` unless the alignment is one that there can be.
    fn new(alignment: u32, block_size: u32) -> Option<Direct> {
        let is_good = alignment.is_power_of_two() && u64::from(alignment) <= PIECE;
        is_good.then(|| Direct {
            alignment: alignment.into(),
            held: (alignment > block_size).then(Parts::default),
            atomic_write: None,
        })
    }

    /// The same where the system writes every power of two of these atomically, at a multiple of itself.
    fn writing_atomically(self, lengths: Option<RangeInclusive<u32>>) -> Direct {
        let length = lengths.map(|lengths| DATABASE_PAGE.min(*lengths.end()).max(*lengths.start()));
        let fits = |length: u32| length.is_power_of_two() && u64::from(length) >= self.alignment;
        let atomic_write = length.filter(|&length| fits(length) && u64::from(length) <= PIECE);
        Direct {
            atomic_write,
            ..self
        }
    }

    /// How many bytes an atomic write has, if there are atomic writes.
    pub(super) fn atomic_write(&self) -> Option<u32> {
        self.atomic_write
    }

    /// Writes the first `length` bytes of the buffer at byte `offset`, all of them or none.
    ///
    /// They go by way of memory of our own: the kernel asks for one piece that is aligned, and nobody changes it
    /// meanwhile.
    pub(super) fn write_atomic(
        &self,
        file: &File,
        offset: u64,
        data: &Data,
        length: u64,
    ) -> io::Result<()> {
        let served = self.atomic_write.map(u64::from);
        if served != Some(length) || offset % length != 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut buffer = Aligned::new(index(length), index(self.alignment));
        data.read_at(0, buffer.bytes());
        let _held = self.hold(offset..offset + length);
        let written = vectored::write_atomic(file, buffer.bytes(), offset)?;
        if written == length {
            Ok(())
        } else {
            log::error!("the system wrote {written} of {length} bytes that are atomic");
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }

    /// Of what offsets, lengths and memory are multiples, in bytes.
    pub(super) fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Whether all of the range can go as it is.
    pub(super) fn goes_as_it_is(&self, offset: u64, data: &Data, range: &Range<u64>) -> bool {
        self.aligned(offset, data, range) == range.end - range.start
    }

    /// Whether a write changes nothing but what it writes.
    pub(super) fn writes_alone(&self) -> bool {
        self.held.is_none()
    }

    /// Reads from byte `offset` into a range of the buffer; perhaps less.
    pub(super) fn read(
        &self,
        file: &File,
        offset: u64,
        data: &Data,
        range: Range<u64>,
    ) -> io::Result<u64> {
        let as_it_is = self.aligned(offset, data, &range);
        if as_it_is > 0 {
            let range = range.start..range.start + as_it_is;
            return vectored::read(file, offset, data, range, Patience::Any);
        }
        self.read_between(file, offset, range.end - range.start, |bytes| {
            data.write_at(range.start, bytes);
        })
    }

    /// Writes a range of the buffer from byte `offset` on; perhaps less.
    pub(super) fn write(
        &self,
        file: &File,
        offset: u64,
        data: &Data,
        range: Range<u64>,
    ) -> io::Result<u64> {
        let as_it_is = self.aligned(offset, data, &range);
        if as_it_is > 0 {
            let _held = self.hold(offset..offset + as_it_is);
            let range = range.start..range.start + as_it_is;
            return vectored::write(file, offset, data, range);
        }
        self.write_between(file, offset, range.end - range.start, |bytes| {
            data.read_at(range.start, bytes);
        })
    }

    /// Reads from byte `offset` into memory; perhaps less.
    pub(super) fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.read_between(file, offset, bytes.len() as u64, |read| {
            bytes[..read.len()].copy_from_slice(read);
        })?;
        Ok(index(read))
    }

    /// Writes memory from byte `offset` on; perhaps less.
    pub(super) fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let written = self.write_between(file, offset, bytes.len() as u64, |written| {
            written.copy_from_slice(&bytes[..written.len()]);
        })?;
        Ok(index(written))
    }

    /// Keeps those away meanwhile that write this part as the neighbours of what they are asked to write.
    pub(super) fn hold(&self, part: Range<u64>) -> Option<Held<'_>> {
        let held = self.held.as_ref()?;
        Some(held.hold(self.widen(&part), Hold::WithOthers))
    }

    /// How much of the range, from its beginning, can go as it is.
    fn aligned(&self, offset: u64, data: &Data, range: &Range<u64>) -> u64 {
        if offset % self.alignment != 0 {
            return 0;
        }
        vectored::aligned(data, range.clone(), self.alignment)
    }

    /// The part with what is read and written with it.
    fn widen(&self, part: &Range<u64>) -> Range<u64> {
        let end = part.end.checked_next_multiple_of(self.alignment);
        part.start - part.start % self.alignment..end.unwrap_or(part.end)
    }

    /// The piece that comes next of a part, with what is read and written with it, and a buffer for that.
    fn next_piece(&self, offset: u64, length: u64) -> io::Result<Piece> {
        let end = offset.checked_add(length);
        let part = offset..end.ok_or(io::Error::from_raw_os_error(libc::EFBIG))?;
        let wide = self.widen(&part);
        let wide = wide.start..wide.end.min(wide.start + PIECE);
        let end = part.end.min(wide.end);
        Ok(Piece {
            part: offset..end,
            buffer: Aligned::new(index(wide.end - wide.start), index(self.alignment)),
            wide,
        })
    }

    fn read_between(
        &self,
        file: &File,
        offset: u64,
        length: u64,
        take: impl FnOnce(&[u8]),
    ) -> io::Result<u64> {
        let mut piece = self.next_piece(offset, length)?;
        let read = fill(file, piece.buffer.bytes(), piece.wide.start)?;
        let inside = piece.inside();
        let inside = inside.start..inside.end.min(read);
        if inside.is_empty() {
            return Ok(0);
        }
        let bytes = &piece.buffer.bytes()[inside];
        take(bytes);
        Ok(bytes.len() as u64)
    }

    fn write_between(
        &self,
        file: &File,
        offset: u64,
        length: u64,
        give: impl FnOnce(&mut [u8]),
    ) -> io::Result<u64> {
        let mut piece = self.next_piece(offset, length)?;
        let Piece { part, wide, .. } = &piece;
        let is_whole = part == wide;
        let how = if is_whole {
            Hold::WithOthers
        } else {
            Hold::Alone
        };
        let held = self.held.as_ref();
        let _held = held.map(|held| held.hold(wide.clone(), how));
        let start = wide.start;
        if !is_whole && fill(file, piece.buffer.bytes(), start)? < piece.buffer.length {
            return Ok(0);
        }
        let inside = piece.inside();
        let bytes = piece.buffer.bytes();
        give(&mut bytes[inside.clone()]);
        file.write_all_at(bytes, start)?;
        Ok(inside.len() as u64)
    }
}

/// A piece of a part that goes by way of a buffer.
struct Piece {
    /// What was asked for.
    part: Range<u64>,
    /// What is read or written.
    wide: Range<u64>,
    buffer: Aligned,
}

impl Piece {
    /// Where in the buffer that is which was asked for.
    fn inside(&self) -> Range<usize> {
        let Piece { part, wide, .. } = self;
        index(part.start - wide.start)..index(part.end - wide.start)
    }
}

/// Reads until the buffer is full or the file ends. Gives how much was read.
fn fill(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("at most a piece")
}

/// Memory that begins at a multiple of its alignment.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(length: usize, alignment: usize) -> Aligned {
        let bytes = vec![0; length + alignment];
        Aligned {
            start: bytes.as_ptr().align_offset(alignment),
            bytes,
            length,
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

/// How a part is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// Others may write there too: they don't write what they were not asked to write.
    WithOthers,
    /// Nobody else writes there.
    Alone,
}

/// The parts that are being written.
#[derive(Debug, Default)]
struct Parts {
    parts: Mutex<Vec<(Range<u64>, Hold)>>,
    given_back: Condvar,
}

impl Parts {
    /// Waits until nobody holds any of this part who should be alone there, or whom it would disturb.
    fn hold(&self, part: Range<u64>, how: Hold) -> Held<'_> {
        let disturbs = |(other, their): &(Range<u64>, Hold)| {
            let overlaps = other.start < part.end && part.start < other.end;
            overlaps && (how == Hold::Alone || *their == Hold::Alone)
        };
        let parts = self.lock();
        let wait = self
            .given_back
            .wait_while(parts, |parts| parts.iter().any(disturbs));
        let mut parts = wait.unwrap_or_else(PoisonError::into_inner);
        parts.push((part.clone(), how));
        Held {
            parts: self,
            part,
            how,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Range<u64>, Hold)>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part that is being written. Dropping it lets others go on.
#[derive(Debug)]
pub(in crate::store) struct Held<'a> {
    parts: &'a Parts,
    part: Range<u64>,
    how: Hold,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut parts = self.parts.lock();
        let ours = parts
            .iter()
            .position(|(part, how)| *part == self.part && *how == self.how);
        if let Some(ours) = ours {
            parts.swap_remove(ours);
        }
        drop(parts);
        self.parts.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests;
