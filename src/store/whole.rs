//! Parts of the backing object, read and written whole, and where that fails.
//!
//! The system may do less than it is asked for, and go on when it is asked again. Of what it cannot do, it does not
//! say at which block: that is found out here, since initiators can mend a block that they know.

use std::io;
use std::ops::Range;

use super::Failure;
use super::medium::Medium;
use crate::sys::region::Data;

/// Reads a part of the backing object into the beginning of the buffer.
pub(super) fn read(medium: &dyn Medium, part: Range<u64>, data: &Data) -> Result<(), Failure> {
    read_with(medium, part.clone(), |from, range| {
        let buffer = from - part.start..from - part.start + range;
        medium.read(from, data, buffer)
    })
}

/// Reads a part of the backing object into memory.
pub(super) fn read_exact(
    medium: &dyn Medium,
    bytes: &mut [u8],
    offset: u64,
) -> Result<(), Failure> {
    let part = offset..offset.saturating_add(bytes.len() as u64);
    read_with(medium, part, |from, length| {
        let piece = &mut bytes[index(from - offset)..index(from - offset + length)];
        medium.read_at(piece, from).map(|read| read as u64)
    })
}

/// Writes a range of the buffer to the backing object from byte `offset` on.
pub(super) fn write(
    medium: &dyn Medium,
    offset: u64,
    data: &Data,
    range: Range<u64>,
) -> Result<(), Failure> {
    let start = range.start;
    write_with(offset, range.end - start, |done, length| {
        let piece = start + done..start + done + length;
        medium.write(offset + done, data, piece)
    })
}

/// Writes the first `length` bytes of the buffer to the backing object at byte `offset`: all of them or none.
pub(super) fn write_atomic(
    medium: &dyn Medium,
    offset: u64,
    data: &Data,
    length: u64,
) -> Result<(), Failure> {
    write_with(offset, length, |_, _| {
        medium.write_atomic(offset, data, length)?;
        Ok(length)
    })
}

/// Writes memory to the backing object from byte `offset` on.
pub(super) fn write_all(medium: &dyn Medium, bytes: &[u8], offset: u64) -> Result<(), Failure> {
    write_with(offset, bytes.len() as u64, |done, length| {
        let piece = &bytes[index(done)..index(done + length)];
        let written = medium.write_at(piece, offset + done);
        written.map(|written| written as u64)
    })
}

/// `read` is told where to begin and how much to read.
fn read_with(
    medium: &dyn Medium,
    part: Range<u64>,
    mut read: impl FnMut(u64, u64) -> io::Result<u64>,
) -> Result<(), Failure> {
    let mut next = part.start;
    let failed = repeat(&mut next, part.end, &mut read);
    match failed {
        Err(Stopped::Failed(error)) => Err(Failure::Read {
            at: if is_of_the_medium(&error) {
                let block = u64::from(medium.block_size());
                first_unreadable(next..part.end, block, read)
            } else {
                next
            },
            error,
        }),
        Err(Stopped::AtTheEnd) => Err(Failure::Truncated),
        Ok(()) => Ok(()),
    }
}

/// `write` is told how much has been written and how much is left.
fn write_with(
    offset: u64,
    length: u64,
    mut write: impl FnMut(u64, u64) -> io::Result<u64>,
) -> Result<(), Failure> {
    let mut done = 0;
    match repeat(&mut done, length, &mut write) {
        Err(Stopped::Failed(error)) => Err(Failure::Write {
            at: offset.saturating_add(done),
            error,
        }),
        Err(Stopped::AtTheEnd) => Err(Failure::Truncated),
        Ok(()) => Ok(()),
    }
}

/// Why a call is not repeated until all is done.
enum Stopped {
    Failed(io::Error),
    /// It does nothing any more.
    AtTheEnd,
}

/// Repeats a call that may do less than it is asked for. `next` is where it goes on.
fn repeat(
    next: &mut u64,
    end: u64,
    call: &mut impl FnMut(u64, u64) -> io::Result<u64>,
) -> Result<(), Stopped> {
    while *next < end {
        match call(*next, end - *next) {
            Ok(0) => return Err(Stopped::AtTheEnd),
            Ok(bytes) => *next += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Stopped::Failed(error)),
        }
    }
    Ok(())
}

/// The first block of a part that cannot be read as a whole. Half of what may hold it is read at a time.
fn first_unreadable(
    part: Range<u64>,
    block: u64,
    mut read: impl FnMut(u64, u64) -> io::Result<u64>,
) -> u64 {
    let Range {
        start: mut readable,
        end: mut unreadable,
    } = part;
    while unreadable - readable > block {
        let blocks = (unreadable - readable).div_ceil(block);
        let middle = readable + blocks / 2 * block;
        let mut next = readable;
        match repeat(&mut next, middle, &mut read) {
            Ok(()) => readable = middle,
            // What stops in the middle of a block has not read it.
            Err(_) => {
                unreadable = middle;
                readable = next - next % block;
            }
        }
    }
    readable
}

/// Whether the medium is bad at some block, and not something else at all of them.
fn is_of_the_medium(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EBADMSG | libc::EUCLEAN)
    )
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it lies in a buffer in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads from a medium of 64 blocks of 512 bytes, of which one is bad, `piece` bytes at most at a time. Counts.
    fn medium(bad: u64, piece: u64, calls: &mut u32) -> impl FnMut(u64, u64) -> io::Result<u64> {
        move |from, length| {
            *calls += 1;
            let left = (bad * 512).saturating_sub(from);
            if from >= (bad + 1) * 512 {
                return Ok(length.min(piece));
            }
            match left {
                0 => Err(io::Error::from_raw_os_error(libc::EIO)),
                _ => Ok(length.min(piece).min(left)),
            }
        }
    }

    /// The same where a read of which any block is bad fails as a whole.
    fn strict_medium(bad: u64) -> impl FnMut(u64, u64) -> io::Result<u64> {
        move |from, length| {
            let range = from..from + length;
            if range.start < (bad + 1) * 512 && bad * 512 < range.end {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            Ok(length)
        }
    }

    #[test]
    fn the_first_bad_block_is_found_wherever_it_is() {
        for bad in 0..64 {
            let found = first_unreadable(0..64 * 512, 512, strict_medium(bad));
            assert_eq!(found, bad * 512);
            let mut calls = 0;
            let found = first_unreadable(0..64 * 512, 512, medium(bad, 1 << 20, &mut calls));
            assert_eq!(found, bad * 512);
            assert!(calls <= 14, "{calls} reads");
        }
        assert_eq!(first_unreadable(512..1024, 512, strict_medium(1)), 512);
        assert_eq!(
            first_unreadable(512..7 * 512, 512, strict_medium(6)),
            6 * 512
        );
    }

    #[test]
    fn what_does_less_than_it_is_asked_for_is_asked_again() {
        let mut calls = 0;
        let mut next = 0;
        let read = repeat(&mut next, 4096, &mut medium(100, 1000, &mut calls));
        assert!(read.is_ok());
        assert_eq!((next, calls), (4096, 5));
    }

    #[test]
    fn a_call_that_was_interrupted_is_repeated() {
        let mut calls = 0;
        let mut next = 0;
        let mut call = |_, length| {
            calls += 1;
            match calls {
                1 => Err(io::Error::from(io::ErrorKind::Interrupted)),
                _ => Ok(length),
            }
        };
        assert!(repeat(&mut next, 10, &mut call).is_ok());
        assert_eq!((next, calls), (10, 2));
    }
}
