//! Shared memory by offset, never by reference.
//!
//! A [`Region`] is a mapping that somebody else writes while we look: the kernel's ring, or the test's
//! stand-in for it. A `&[u8]` into it would be a promise that nobody can keep, so values are copied in and
//! out, and head and tail are atomics. Every offset and length is checked here. A [`Data`] is the data
//! buffer of one command: a list of pieces of a region, checked when it was made.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// An offset or length that does not lie inside the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes at offset {offset:#x} do not lie inside the mapping")]
pub struct OutOfBounds {
    /// Where the access would have begun.
    pub offset: u64,
    /// How long it would have been.
    pub length: u64,
}

/// A shared mapping, addressed by offset from its start.
#[derive(Debug)]
pub struct Region {
    map: MmapRaw,
}

impl Region {
    /// Maps `length` bytes of a device or file, shared, for reading and writing. A child process does not
    /// inherit the mapping.
    pub fn map(file: impl AsFd, length: usize) -> io::Result<Region> {
        let map = MmapOptions::new()
            .len(length)
            .map_raw(file.as_fd().as_raw_fd())?;
        map.advise(Advice::DontFork)?;
        Ok(Region { map })
    }

    /// Zeroed memory of our own: what tests and benches put in the kernel's place.
    pub fn anonymous(length: usize) -> io::Result<Region> {
        let map = MmapOptions::new().len(length).map_anon()?;
        Ok(Region { map: map.into() })
    }

    /// The length of the mapping in bytes.
    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Whether the mapping is empty; it never is.
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// The only way from an offset to a pointer: `length` bytes from it are inside the mapping.
    fn pointer(&self, offset: u64, length: u64) -> Result<*mut u8, OutOfBounds> {
        let out_of_bounds = OutOfBounds { offset, length };
        let end = offset.checked_add(length).ok_or(out_of_bounds)?;
        if end > self.len() {
            return Err(out_of_bounds);
        }
        let offset = usize::try_from(offset).map_err(|_| out_of_bounds)?;
        // SAFETY: offset <= end <= the mapping's length, checked above.
        Ok(unsafe { self.map.as_mut_ptr().add(offset) })
    }

    fn atomic(&self, offset: u64) -> Result<&AtomicU32, OutOfBounds> {
        let pointer = self.pointer(offset, 4)?.cast::<u32>();
        if !pointer.is_aligned() {
            return Err(OutOfBounds { offset, length: 4 });
        }
        // SAFETY: `pointer` gave four bytes inside the mapping, aligned as just checked, and the mapping
        // lives as long as the returned borrow of `self`. The other side uses the word atomically too.
        Ok(unsafe { AtomicU32::from_ptr(pointer) })
    }

    /// Reads a word that publishes what the other side wrote before it.
    pub fn load_acquire(&self, offset: u64) -> Result<u32, OutOfBounds> {
        Ok(self.atomic(offset)?.load(Ordering::Acquire))
    }

    /// Reads a word of eight bytes that publishes what the other side wrote before it.
    pub fn load_acquire_u64(&self, offset: u64) -> Result<u64, OutOfBounds> {
        let pointer = self.pointer(offset, 8)?.cast::<u64>();
        if !pointer.is_aligned() {
            return Err(OutOfBounds { offset, length: 8 });
        }
        // SAFETY: as in `atomic`, with eight bytes.
        let word = unsafe { AtomicU64::from_ptr(pointer) };
        Ok(word.load(Ordering::Acquire))
    }

    /// Writes a word that publishes what we wrote before it.
    pub fn store_release(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        self.atomic(offset)?.store(value, Ordering::Release);
        Ok(())
    }

    /// Copies a value out of the mapping.
    pub fn read<T: FromBytes>(&self, offset: u64) -> Result<T, OutOfBounds> {
        let pointer = self.pointer(offset, size_of::<T>() as u64)?.cast::<T>();
        // SAFETY: `pointer` gave size_of::<T>() bytes inside the mapping; any bytes are a valid T
        // (FromBytes), and an unaligned read asks for no alignment.
        Ok(unsafe { ptr::read_unaligned(pointer) })
    }

    /// Copies a value into the mapping.
    pub fn write<T: IntoBytes + Immutable>(
        &self,
        offset: u64,
        value: &T,
    ) -> Result<(), OutOfBounds> {
        self.copy_in(offset, value.as_bytes())
    }

    /// Copies bytes out of the mapping.
    pub fn copy_out(&self, offset: u64, bytes: &mut [u8]) -> Result<(), OutOfBounds> {
        let pointer = self.pointer(offset, bytes.len() as u64)?;
        // SAFETY: `pointer` gave bytes.len() bytes inside the mapping; `bytes` is ours alone and so
        // cannot overlap them.
        unsafe { ptr::copy_nonoverlapping(pointer, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies bytes into the mapping.
    pub fn copy_in(&self, offset: u64, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let pointer = self.pointer(offset, bytes.len() as u64)?;
        // SAFETY: as in `copy_out`, the other way round.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), pointer, bytes.len()) };
        Ok(())
    }

    fn zero(&self, offset: u64, length: u64) -> Result<(), OutOfBounds> {
        let pointer = self.pointer(offset, length)?;
        let length = usize::try_from(length).map_err(|_| OutOfBounds { offset, length })?;
        // SAFETY: `pointer` gave `length` bytes inside the mapping.
        unsafe { ptr::write_bytes(pointer, 0, length) };
        Ok(())
    }
}

/// One piece of a command's data buffer: a range of offsets of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Segment {
    /// Offset from the start of the mapping.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// The data buffer of one command, addressed from 0 to [`Data::len`] whatever its pieces are.
#[derive(Debug)]
pub struct Data {
    /// There if there are pieces of it.
    region: Option<Arc<Region>>,
    segments: Vec<Segment>,
    length: u64,
}

impl Data {
    /// A buffer of these pieces of `region`, each of which must lie inside `within`.
    pub fn new(
        region: &Arc<Region>,
        segments: Vec<Segment>,
        within: Range<u64>,
    ) -> Result<Data, OutOfBounds> {
        let mut length = 0u64;
        for &Segment {
            offset,
            length: piece,
        } in &segments
        {
            let out_of_bounds = OutOfBounds {
                offset,
                length: piece,
            };
            let end = offset.checked_add(piece).ok_or(out_of_bounds)?;
            if offset < within.start || end > within.end || end > region.len() {
                return Err(out_of_bounds);
            }
            length = length.checked_add(piece).ok_or(out_of_bounds)?;
        }
        Ok(Data {
            region: Some(Arc::clone(region)),
            segments,
            length,
        })
    }

    /// The buffer of what moves no data.
    pub fn none() -> Data {
        Data {
            region: None,
            segments: Vec::new(),
            length: 0,
        }
    }

    /// Gives up the buffer, for the list of its pieces to be used again.
    pub fn into_segments(self) -> Vec<Segment> {
        self.segments
    }

    /// The region that the pieces are of.
    fn region(&self) -> &Region {
        self.region
            .as_ref()
            .expect("where there are pieces, there is what they are of")
    }

    /// The length of the buffer in bytes: the fabric's expected data transfer length.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether the command came without a data buffer.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Copies from the buffer, from byte `at` on. Gives the number of bytes that were there.
    pub fn read_at(&self, at: u64, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in self.pieces(at..at.saturating_add(bytes.len() as u64)) {
            let length = usize::try_from(piece.length).expect("a piece of `bytes` fits in memory");
            self.region()
                .copy_out(piece.offset, &mut bytes[done..done + length])
                .expect("Data::new checked every piece");
            done += length;
        }
        done
    }

    /// Copies into the buffer, from byte `at` on. Gives the number of bytes for which there was room.
    pub fn write_at(&self, at: u64, bytes: &[u8]) -> usize {
        let mut done = 0;
        for piece in self.pieces(at..at.saturating_add(bytes.len() as u64)) {
            let length = usize::try_from(piece.length).expect("a piece of `bytes` fits in memory");
            self.region()
                .copy_in(piece.offset, &bytes[done..done + length])
                .expect("Data::new checked every piece");
            done += length;
        }
        done
    }

    /// Zeroes the buffer from byte `at` to its end.
    pub fn zero_from(&self, at: u64) {
        for piece in self.pieces(at..self.length) {
            self.region()
                .zero(piece.offset, piece.length)
                .expect("Data::new checked every piece");
        }
    }

    /// The pieces that make up a range of the buffer, cut to it, in order.
    pub(super) fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = Segment> {
        let mut start = 0u64;
        self.segments.iter().filter_map(move |segment| {
            let piece = start..start + segment.length;
            start = piece.end;
            let from = range.start.max(piece.start);
            let to = range.end.min(piece.end);
            (from < to).then(|| Segment {
                offset: segment.offset + (from - piece.start),
                length: to - from,
            })
        })
    }

    /// A piece as the system calls on vectors want it.
    pub(super) fn iovec(&self, piece: Segment) -> libc::iovec {
        let base = self
            .region()
            .pointer(piece.offset, piece.length)
            .expect("Data::new checked every piece");
        let length = usize::try_from(piece.length).expect("a piece lies inside the mapping");
        libc::iovec {
            iov_base: base.cast(),
            iov_len: length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Arc<Region> {
        Arc::new(Region::anonymous(8192).unwrap())
    }

    fn data(region: &Arc<Region>, pieces: &[(u64, u64)]) -> Data {
        let segments = pieces
            .iter()
            .map(|&(offset, length)| Segment { offset, length })
            .collect();
        Data::new(region, segments, 4096..8192).unwrap()
    }

    #[test]
    fn an_access_past_the_end_is_refused() {
        let region = region();
        assert!(region.read::<u64>(8184).is_ok());
        let refused = OutOfBounds {
            offset: 8185,
            length: 8,
        };
        assert_eq!(region.read::<u64>(8185), Err(refused));
        assert!(region.copy_in(u64::MAX, &[1]).is_err());
        assert!(region.store_release(8190, 1).is_err());
        assert!(
            region.load_acquire(2).is_err(),
            "a word that is not aligned"
        );
    }

    #[test]
    fn a_piece_outside_the_data_area_is_refused() {
        let region = region();
        for (offset, length) in [(4095, 1), (8191, 2), (u64::MAX, 2), (4096, u64::MAX)] {
            let segments = vec![Segment { offset, length }];
            assert!(
                Data::new(&region, segments, 4096..8192).is_err(),
                "{offset} {length}"
            );
        }
    }

    #[test]
    fn bytes_cross_the_borders_of_pieces() {
        let region = region();
        let data = data(&region, &[(8000, 3), (4096, 2), (5000, 4)]);
        assert_eq!(data.len(), 9);
        assert_eq!(data.write_at(1, b"abcdef"), 6);
        let mut bytes = [0xff; 9];
        assert_eq!(data.read_at(0, &mut bytes), 9);
        assert_eq!(&bytes, b"\0abcdef\0\0");
        let mut piece = [0; 2];
        region.copy_out(4096, &mut piece).unwrap();
        assert_eq!(&piece, b"cd");
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let region = region();
        let data = data(&region, &[(4096, 2), (4100, 2)]);
        assert_eq!(data.write_at(3, b"xyz"), 1);
        let mut bytes = [0; 8];
        assert_eq!(data.read_at(2, &mut bytes), 2);
        assert_eq!(&bytes[..2], b"\0x");
        assert_eq!(data.read_at(u64::MAX, &mut bytes), 0);
    }

    #[test]
    fn zeroing_begins_at_the_byte_asked_for() {
        let region = region();
        let data = data(&region, &[(4096, 2), (4100, 2)]);
        data.write_at(0, b"abcd");
        data.zero_from(1);
        let mut bytes = [0xff; 4];
        data.read_at(0, &mut bytes);
        assert_eq!(&bytes, b"a\0\0\0");
    }
}
