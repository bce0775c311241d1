//! `preadv2` and `pwritev2` straight from and to the ring's data area.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use smallvec::SmallVec;

use super::region::Data;

/// As many pieces as one system call takes (`IOV_MAX`).
const PIECES_MAX: usize = 1024;

/// How many bytes one system call moves at most (`MAX_RW_COUNT`, with the smallest page).
const LENGTH_MAX: usize = 0x7fff_f000;

/// The pieces of a buffer, as system calls want them. That many are no allocation.
type Pieces = SmallVec<[libc::iovec; 64]>;

/// Whether a read may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until it has read something, for a medium if need be.
    Any,
    /// Not at all: it reads what it can without (`RWF_NOWAIT`), and fails with EAGAIN if that is nothing, or with EOPNOTSUPP
    /// where the file system can't tell.
    None,
}

impl Patience {
    fn flags(self) -> libc::c_int {
        match self {
            Patience::Any => 0,
            Patience::None => libc::RWF_NOWAIT,
        }
    }
}

/// Reads from byte `offset` of `file` into a range of the buffer. Gives the number of bytes that were read,
/// which may be fewer than asked for: 0 at the end of the file.
pub fn read(
    file: &File,
    offset: u64,
    data: &Data,
    range: Range<u64>,
    patience: Patience,
) -> io::Result<u64> {
    let pieces = iovecs(data, range);
    // SAFETY: every iovec lies inside the mapping that `data` keeps alive over this call (Data::iovec).
    // The kernel may write them while others look: nobody holds a reference into the mapping.
    let done = unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            pieces.as_ptr(),
            count(&pieces),
            signed(offset)?,
            patience.flags(),
        )
    };
    bytes(done)
}

/// Writes a range of the buffer to `file` from byte `offset` on. Gives the number of bytes that were written,
/// which may be fewer than asked for.
pub fn write(file: &File, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64> {
    let pieces = iovecs(data, range);
    // SAFETY: as in `read`; the kernel only reads the pieces.
    let done = unsafe {
        libc::pwritev2(
            file.as_raw_fd(),
            pieces.as_ptr(),
            count(&pieces),
            signed(offset)?,
            0,
        )
    };
    bytes(done)
}

/// Whether the file system can tell which reads would wait for a medium ([`Patience::None`]).
pub fn tells_what_waits(file: &File) -> bool {
    let mut byte = 0u8;
    let piece = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: the iovec is `byte`, which nobody else knows.
    let done = unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            &raw const piece,
            1,
            0,
            Patience::None.flags(),
        )
    };
    // That is said before anything else, as that a byte is too little to be read past the page cache.
    bytes(done).err().and_then(|error| error.raw_os_error()) != Some(libc::EOPNOTSUPP)
}

/// Writes memory to `file` at byte `offset`, all of it or, even if power is lost meanwhile, none (`RWF_ATOMIC`). Gives the
/// number of bytes that were written. An error where the kernel can't do that with this many bytes, there.
pub fn write_atomic(file: &File, bytes: &[u8], offset: u64) -> io::Result<u64> {
    let piece = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the iovec is the slice, which the kernel only reads.
    let done = unsafe {
        libc::pwritev2(
            file.as_raw_fd(),
            &raw const piece,
            1,
            signed(offset)?,
            libc::RWF_ATOMIC,
        )
    };
    self::bytes(done)
}

/// How much of a range of the buffer, from its beginning, one of these calls can move whose pieces must begin in memory
/// at multiples of `alignment` and be as long.
pub fn aligned(data: &Data, range: Range<u64>, alignment: u64) -> u64 {
    let mut length = 0;
    for piece in iovecs(data, range) {
        let is_aligned = |number: usize| number as u64 % alignment == 0;
        if !is_aligned(piece.iov_base.addr()) {
            break;
        }
        length += piece.iov_len as u64;
        if !is_aligned(piece.iov_len) {
            break;
        }
    }
    length - length % alignment
}

/// A range of the buffer, if it is in one piece that one call can move. Otherwise the pieces that one call can move
/// are put into `pieces`, which is empty.
pub(super) fn one_piece(
    data: &Data,
    range: &Range<u64>,
    pieces: &mut Vec<libc::iovec>,
) -> Option<libc::iovec> {
    let mut iovecs = pieces_of(data, range.clone());
    let first = iovecs.next()?;
    let Some(second) = iovecs.next() else {
        return (first.iov_len <= LENGTH_MAX).then_some(first);
    };
    pieces.extend([first, second]);
    pieces.extend(iovecs);
    None
}

fn iovecs(data: &Data, range: Range<u64>) -> Pieces {
    pieces_of(data, range).collect()
}

fn pieces_of(data: &Data, range: Range<u64>) -> impl Iterator<Item = libc::iovec> {
    let pieces = data.pieces(range).take(PIECES_MAX);
    pieces.map(|piece| data.iovec(piece))
}

fn count(pieces: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(pieces.len()).expect("at most PIECES_MAX")
}

fn signed(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

fn bytes(done: libc::ssize_t) -> io::Result<u64> {
    u64::try_from(done).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use super::*;
    use crate::sys::region::{Region, Segment};

    #[test]
    fn a_buffer_of_many_pieces_goes_to_the_file_and_back() {
        let region = Arc::new(Region::anonymous(1 << 16).unwrap());
        let piece = |index: u64| Segment {
            offset: 65536 - 16 * (index + 1),
            length: 16,
        };
        let data = Data::new(&region, (0..2000).map(piece).collect(), 0..65536).unwrap();
        let pattern: Vec<u8> = (0..32000u32).map(|byte| byte.to_le_bytes()[0]).collect();
        data.write_at(0, &pattern);
        let file = tempfile::tempfile().unwrap();

        assert_eq!(write(&file, 10, &data, 0..32000).unwrap(), 16384);
        assert_eq!(write(&file, 16394, &data, 16384..32000).unwrap(), 15616);

        let mut written = vec![0; 32000];
        file.read_exact_at(&mut written, 10).unwrap();
        assert_eq!(written, pattern);
        data.zero_from(0);
        assert_eq!(read(&file, 11, &data, 1..17, Patience::Any).unwrap(), 16);
        let mut back = [0xff; 18];
        data.read_at(0, &mut back);
        assert_eq!(back[0], 0);
        assert_eq!(back[1..17], pattern[1..17]);
        assert_eq!(back[17], 0);
        assert_eq!(
            read(&file, 32010, &data, 0..16, Patience::Any).unwrap(),
            0,
            "the end of the file"
        );
    }

    #[test]
    fn what_is_aligned_ends_with_the_first_piece_that_is_not() {
        let region = Arc::new(Region::anonymous(1 << 16).unwrap());
        let aligned = |pieces: &[(u64, u64)], range, alignment| {
            let segment = |&(offset, length)| Segment { offset, length };
            let segments = pieces.iter().map(segment).collect();
            aligned(
                &Data::new(&region, segments, 0..1 << 16).unwrap(),
                range,
                alignment,
            )
        };
        let pages = [(0, 4096), (8192, 4096), (4096, 512)];
        assert_eq!(aligned(&pages, 0..8704, 512), 8704);
        assert_eq!(aligned(&pages, 0..8704, 4096), 8192);
        assert_eq!(aligned(&pages, 0..8000, 512), 7680);
        assert_eq!(aligned(&pages, 512..8704, 512), 8192);
        assert_eq!(
            aligned(&pages, 512..8704, 4096),
            0,
            "it begins within a page"
        );
        assert_eq!(aligned(&pages, 256..8704, 512), 0);
        // A piece that is too short ends it, and so does one that begins in between.
        assert_eq!(
            aligned(&[(0, 512), (512, 100), (1024, 512)], 0..1124, 512),
            512
        );
        assert_eq!(aligned(&[(0, 512), (700, 512)], 0..1024, 512), 512);
        assert_eq!(aligned(&[], 0..0, 512), 0);
        // No more pieces than a call takes.
        let small: Vec<_> = (0..2000).map(|piece| (piece * 16, 16)).collect();
        assert_eq!(aligned(&small, 0..32_000, 16), 16_384);
    }

    #[test]
    fn what_cannot_be_written_atomically_is_not_written_at_all() {
        // Not past the page cache, whatever the file system and the kernel can do.
        let file = tempfile::tempfile().unwrap();
        let error = write_atomic(&file, &[1; 4096], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn an_offset_past_every_file_is_an_error() {
        let region = Arc::new(Region::anonymous(4096).unwrap());
        let data = Data::new(
            &region,
            vec![Segment {
                offset: 0,
                length: 1,
            }],
            0..4096,
        )
        .unwrap();
        let file = tempfile::tempfile().unwrap();
        let error = write(&file, u64::MAX, &data, 0..1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
    }
}
