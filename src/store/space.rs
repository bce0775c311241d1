//! The space that data takes up: given back when the data is not needed, filled with the same block again and again, and
//! counted.
//!
//! What a backing object can do is found out once, when it is opened. A file system that turns out not to have what it
//! seemed to have costs time and nothing else: then zeros are written.

use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::{Statvfs, fstatvfs, statvfs};
use nix::unistd::{Whence, lseek};

use super::backing::{Discard, Kind, Mode};
use super::medium::{Clearing, Medium};
use super::{Backing, Content, Failure, Spare, whole};
use crate::sys::block;
use crate::sys::region::Data;

/// How much is written at a time: a multiple of every block size.
const PIECE: u64 = 1 << 20;

/// How much the system is told at a time to give back or to zero. Pieces end at multiples of it, so that no block of a
/// file system is cut in two by us.
const LARGE_PIECE: u64 = 64 << 20;

/// How often the system is asked where the next hole is, to tell of a part of the backing object.
const SEEKS_MAX: usize = 2048;

/// How a part is given back: the space of it if that can be, and in any case it reads as zeros where that is promised.
const DEALLOCATE: [Clearing; 2] = [Clearing::Deallocate, Clearing::Zero];

/// What becomes of space that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deallocation {
    /// It reads as zeros afterwards. Otherwise as anything, but always the same.
    pub zeroes: bool,
    /// In multiples of how many bytes it is best given back.
    pub granularity: u64,
    /// At which byte the first of these multiples begins.
    pub alignment: u64,
}

/// A part of the backing object, and whether it takes up space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Which bytes.
    pub range: Range<u64>,
    /// Whether it takes up space. What does not reads as zeros.
    pub is_allocated: bool,
}

/// How much space there is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Where the backing object lies, for all that lies there.
    pub total: u64,
    /// What is left of it.
    pub available: u64,
    /// What the backing object takes up.
    pub used: u64,
}

/// What a backing object can do about its space.
#[derive(Debug)]
pub(super) struct Space {
    deallocation: Option<Deallocation>,
    deallocate: Shortcut,
    zero: Shortcut,
}

/// A way to make a part read as zeros, or to give it back, without writing it. It may turn out not to be there.
#[derive(Debug)]
struct Shortcut {
    way: Way,
    is_missing: AtomicBool,
}

/// What the system is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To change the file, or to have the device write zeros: with FALLOC_FL_PUNCH_HOLE only if it need not be sent them.
    Fallocate(FallocateFlags),
    /// To tell the device that a part is not needed.
    Discard,
}

impl Way {
    fn take(self, file: &File, part: &Range<u64>) -> io::Result<()> {
        let mode = match self {
            Way::Fallocate(mode) => mode | FallocateFlags::FALLOC_FL_KEEP_SIZE,
            Way::Discard => return block::discard(file, part),
        };
        let too_far = |_| io::Error::from(Errno::EFBIG);
        let offset = part.start.try_into().map_err(too_far)?;
        let length = (part.end - part.start).try_into().map_err(too_far)?;
        Ok(fallocate(file, mode, offset, length)?)
    }
}

impl Shortcut {
    fn new(way: Way) -> Shortcut {
        Shortcut {
            way,
            is_missing: AtomicBool::new(false),
        }
    }

    /// Tells whether it could be taken.
    fn take(&self, file: &File, part: &Range<u64>) -> io::Result<bool> {
        if self.is_missing.load(Ordering::Relaxed) {
            return Ok(false);
        }
        loop {
            match self.way.take(file, part) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    self.is_missing.store(true, Ordering::Relaxed);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Space {
    /// What an open object can do.
    pub(super) fn of(file: &File, kind: Kind, mode: Mode) -> io::Result<Space> {
        let space = match kind {
            Kind::File => Space::of_file(file.metadata()?.blksize()),
            Kind::BlockDevice(discard) => return Ok(Space::of_device(discard)),
        };
        // What nobody writes is as it would be otherwise, and can't be tried.
        if mode.read_only {
            return Ok(space);
        }
        // There is nothing behind the end that could be lost.
        let end = file.metadata()?.len();
        let behind = end..end.saturating_add(file.metadata()?.blksize());
        let deallocates = space.deallocate.take(file, &behind)?;
        Ok(Space {
            deallocation: space.deallocation.filter(|_| deallocates),
            ..space
        })
    }

    /// Makes a part of the backing object read as zeros; tells whether there is this way to do it. That there is not is
    /// worth a line in the log, once.
    pub(super) fn clear(
        &self,
        backing: &Backing,
        clearing: Clearing,
        part: &Range<u64>,
    ) -> io::Result<bool> {
        let way = match clearing {
            Clearing::Deallocate => &self.deallocate,
            Clearing::Zero => &self.zero,
        };
        let was_missing = way.is_missing.load(Ordering::Relaxed);
        let held = backing.hold(part);
        let taken = way.take(backing.file(), part)?;
        drop(held);
        if !taken && !was_missing {
            log::warn!(
                "{}: what is below it does not support {:?}: it is made zeros otherwise",
                backing.path().display(),
                way.way
            );
        }
        Ok(taken)
    }

    fn of_file(block: u64) -> Space {
        Space {
            deallocation: Some(Deallocation {
                zeroes: true,
                granularity: block,
                alignment: 0,
            }),
            deallocate: Shortcut::new(Way::Fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE)),
            zero: Shortcut::new(Way::Fallocate(FallocateFlags::FALLOC_FL_ZERO_RANGE)),
        }
    }

    /// What a block device can do, as it says. One that discards need not read as zeros then.
    fn of_device(discard: Discard) -> Space {
        let deallocation = Deallocation {
            zeroes: discard.zeroes,
            granularity: discard.granularity,
            alignment: discard.alignment,
        };
        let deallocate = if discard.zeroes {
            Way::Fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE)
        } else {
            Way::Discard
        };
        Space {
            deallocation: (discard.maximum > 0).then_some(deallocation),
            deallocate: Shortcut::new(deallocate),
            zero: Shortcut::new(Way::Fallocate(FallocateFlags::FALLOC_FL_ZERO_RANGE)),
        }
    }
}

impl Backing {
    /// How `fallocate` gives back space, if it does and nobody else has to be kept away meanwhile.
    pub(super) fn fallocates(&self) -> Option<FallocateFlags> {
        let is_there = !self.space.deallocate.is_missing.load(Ordering::Relaxed);
        match self.space.deallocate.way {
            Way::Fallocate(mode) if is_there && self.is_written_alone() => {
                Some(mode | FallocateFlags::FALLOC_FL_KEEP_SIZE)
            }
            _ => None,
        }
    }

    /// What becomes of space that is given back; `None` if none can be.
    pub fn deallocation(&self) -> Option<Deallocation> {
        self.space.deallocation
    }

    /// Whether it can be told how much space there is: of a file, since it lies in a file system.
    pub fn has_figures(&self) -> bool {
        self.kind() == Kind::File && self.deallocation().is_some()
    }

    /// How much space there is now. Of a block device, nobody says.
    pub(super) fn figures(&self) -> io::Result<Figures> {
        if self.kind() != Kind::File {
            return Err(Errno::EOPNOTSUPP.into());
        }
        Ok(Figures::new(
            &fstatvfs(self.file())?,
            &self.file().metadata()?,
        ))
    }
}

/// How much space there is where a path leads, without opening what is there.
pub fn figures_at(path: &Path) -> io::Result<Figures> {
    Ok(Figures::new(&statvfs(path)?, &fs::metadata(path)?))
}

impl Figures {
    fn new(file_system: &Statvfs, metadata: &Metadata) -> Figures {
        let fragment = file_system.fragment_size();
        Figures {
            total: file_system.blocks().saturating_mul(fragment),
            available: file_system.blocks_available().saturating_mul(fragment),
            used: metadata.blocks().saturating_mul(512),
        }
    }
}

/// Makes a part read as zeros in the first way that there is.
fn clear(
    medium: &dyn Medium,
    range: &Range<u64>,
    ways: &[Clearing],
    is_cancelled: &mut dyn FnMut() -> bool,
) -> Result<(), Failure> {
    for part in pieces(range, LARGE_PIECE) {
        if is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let mut is_clear = false;
        for &way in ways {
            let failed = |error| Failure::Write {
                at: part.start,
                error,
            };
            is_clear = is_clear || medium.clear(way, &part).map_err(failed)?;
        }
        if !is_clear {
            fill(medium, &part, &[0], is_cancelled)?;
        }
    }
    Ok(())
}

/// Writes a block again and again. The range begins at a multiple of it.
fn fill(
    medium: &dyn Medium,
    range: &Range<u64>,
    block: &[u8],
    is_cancelled: &mut dyn FnMut() -> bool,
) -> Result<(), Failure> {
    let size = usize::try_from((range.end - range.start).min(PIECE)).expect("at most PIECE");
    let blocks = block.repeat(size.div_ceil(block.len().max(1)));
    for part in pieces(range, PIECE) {
        if is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let length = usize::try_from(part.end - part.start).expect("at most PIECE");
        whole::write_all(medium, &blocks[..length], part.start)?;
    }
    Ok(())
}

/// Gives back the space of these parts.
///
/// `is_cancelled` is asked before each piece whether to go on.
pub(super) fn unmap(
    medium: &dyn Medium,
    ranges: &[Range<u64>],
    mut is_cancelled: impl FnMut() -> bool,
) -> Result<(), Failure> {
    ranges
        .iter()
        .try_for_each(|range| clear(medium, range, &DEALLOCATE, &mut is_cancelled))
}

/// Fills a part with the same again and again. Zeros are not written if the same can be had without.
///
/// `is_cancelled` is asked before each piece whether to go on.
pub(super) fn write_same(
    medium: &dyn Medium,
    range: &Range<u64>,
    data: &Data,
    content: Content,
    spare: Spare,
    mut is_cancelled: impl FnMut() -> bool,
) -> Result<(), Failure> {
    let block = match content {
        Content::Zeros => vec![0],
        Content::Block(length) => {
            let mut block = vec![0; usize::try_from(length.min(PIECE)).expect("at most PIECE")];
            data.read_at(0, &mut block);
            block
        }
    };
    if block.iter().any(|&byte| byte != 0) {
        return fill(medium, range, &block, &mut is_cancelled);
    }
    let reads_as_zeros = medium.deallocation().is_some_and(|one| one.zeroes);
    match spare {
        Spare::GiveBack if reads_as_zeros => clear(medium, range, &DEALLOCATE, &mut is_cancelled),
        _ => clear(medium, range, &[Clearing::Zero], &mut is_cancelled),
    }
}

/// Which parts of a range take up space, in order and without gaps: at least one unless the range is empty, at most
/// `most`, and so perhaps not to its end. Begin and end of the range are multiples of `block`; a block of which some
/// takes up space does so as a whole.
pub(super) fn extents(
    seek: impl Fn(u64, Sought) -> io::Result<Found>,
    range: &Range<u64>,
    block: u64,
    most: usize,
) -> io::Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut at = range.start;
    for _ in 0..SEEKS_MAX {
        if at >= range.end || extents.len() > most {
            break;
        }
        let data = next_data(seek(at, Sought::Data)?, at, range.end);
        let allocated = data - data % block;
        push(&mut extents, at..allocated, false);
        at = allocated;
        if data < range.end {
            let hole = next_hole(seek(data, Sought::Hole)?, data, range.end);
            at = hole.next_multiple_of(block).min(range.end);
            push(&mut extents, allocated..at, true);
        }
    }
    extents.truncate(most);
    Ok(extents)
}

/// Where the next data begins, `end` at the latest. Where nobody knows about holes, all is data.
fn next_data(found: Found, at: u64, end: u64) -> u64 {
    match found {
        Found::At(data) => data.clamp(at, end),
        Found::Nothing => end,
        Found::Unknown => at,
    }
}

/// Where the next hole begins, `end` at the latest. Some data there is at `at`, where it was found, even if it has been
/// given back since.
fn next_hole(found: Found, at: u64, end: u64) -> u64 {
    match found {
        Found::At(hole) => hole.clamp((at + 1).min(end), end),
        Found::Nothing | Found::Unknown => end,
    }
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// What takes up space.
    Data,
    /// What does not.
    Hole,
}

/// What a file system says of its data and holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It begins there.
    At(u64),
    /// There is none any more.
    Nothing,
    /// Nobody knows of holes.
    Unknown,
}

/// Asks the file system of a file.
pub(super) fn seek(file: &File, at: u64, sought: Sought) -> io::Result<Found> {
    let at = at.try_into().map_err(|_| Errno::EFBIG)?;
    let whence = match sought {
        Sought::Data => Whence::SeekData,
        Sought::Hole => Whence::SeekHole,
    };
    match lseek(file, at, whence) {
        Ok(found) => Ok(Found::At(u64::try_from(found).map_err(|_| Errno::EIO)?)),
        Err(Errno::ENXIO) => Ok(Found::Nothing),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Found::Unknown),
        Err(errno) => Err(errno.into()),
    }
}

/// Adds a part, to the one before if that is of the same kind.
fn push(extents: &mut Vec<Extent>, range: Range<u64>, is_allocated: bool) {
    if range.is_empty() {
        return;
    }
    match extents.last_mut() {
        Some(last) if last.is_allocated == is_allocated => last.range.end = range.end,
        _ => extents.push(Extent {
            range,
            is_allocated,
        }),
    }
}

/// These parts, in pieces that the system is told at a time to give back.
pub(super) fn large_pieces(ranges: &[Range<u64>]) -> impl Iterator<Item = Range<u64>> {
    ranges.iter().flat_map(|range| pieces(range, LARGE_PIECE))
}

/// Cuts a range at the multiples of `size`.
fn pieces(range: &Range<u64>, size: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let Range { mut start, end } = *range;
    std::iter::from_fn(move || {
        let next = start.saturating_add(size - start % size).min(end);
        let piece = start..next;
        start = next;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests;
