//! Copying from one part of a backing object to another, or to a part of another object.

use std::ops::Range;

use nix::errno::Errno;
use nix::fcntl::copy_file_range;

use super::medium::Medium;
use super::space::{self, Deallocation};
use super::{Failure, whole};

/// How much is read at a time where the system does not copy by itself.
const PIECE: u64 = 1 << 20;

/// How many extents of the source are looked for at a time.
const EXTENTS_MAX: usize = 64;

/// Copies `length` bytes. Where source and destination overlap, the destination is afterwards what the source was before.
///
/// What takes up no space in the source takes up none in the destination, if that can be.
pub(super) fn copy(
    (source, from): (&dyn Medium, u64),
    (destination, to): (&dyn Medium, u64),
    length: u64,
) -> Result<(), Failure> {
    let is_same = std::ptr::addr_eq(source, destination);
    if is_same && from.abs_diff(to) < length {
        return through_memory((source, from), (destination, to), length, length);
    }
    let reads_as_zeros = |space: Deallocation| space.zeroes;
    let gives_back = destination.deallocation().is_some_and(reads_as_zeros);
    let seek = |at, sought| source.seek(at, sought);
    let end = from.saturating_add(length);
    let mut at = from;
    while at < end {
        let extents = space::extents(seek, &(at..end), 1, EXTENTS_MAX);
        for extent in extents.map_err(|error| Failure::Read { at, error })? {
            let Range { start, end } = extent.range;
            let to = to + (start - from);
            if extent.is_allocated || !gives_back {
                copy_data((source, start), (destination, to), end - start)?;
            } else {
                check_size(source, end)?;
                let part = to..to + (end - start);
                space::unmap(destination, &[part], || false)?;
            }
            at = end;
        }
    }
    Ok(())
}

/// Behind its end, a file that was made shorter looks like a hole.
fn check_size(source: &dyn Medium, end: u64) -> Result<(), Failure> {
    match source.actual_size() {
        Ok(size) if size < end => Err(Failure::Truncated),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::Read { at: end, error }),
    }
}

/// The system copies, where it can: on some file systems without moving a byte. Whatever it can't do, it is not asked
/// to: what is read and written instead says what is wrong, and where.
fn copy_data(
    (source, from): (&dyn Medium, u64),
    (destination, to): (&dyn Medium, u64),
    length: u64,
) -> Result<(), Failure> {
    let mut done = 0;
    while done < length {
        let copied = by_the_system(
            (source, from + done),
            (destination, to + done),
            length - done,
        );
        match copied {
            Ok(copied) if copied > 0 => done += copied,
            Err(Errno::EINTR) => {}
            Ok(_) | Err(_) => {
                let (from, to, left) = (from + done, to + done, length - done);
                return through_memory((source, from), (destination, to), left, PIECE);
            }
        }
    }
    Ok(())
}

/// Copies some of it, at least. Where that can't be, and at the end of the source, it is 0 bytes.
fn by_the_system(
    (source, from): (&dyn Medium, u64),
    (destination, to): (&dyn Medium, u64),
    length: u64,
) -> Result<u64, Errno> {
    let (Some(source), Some(destination)) = (source.file(), destination.file()) else {
        return Ok(0);
    };
    let signed = |offset| i64::try_from(offset).map_err(|_| Errno::EFBIG);
    let (mut from, mut to) = (signed(from)?, signed(to)?);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let copied = copy_file_range(source, Some(&mut from), destination, Some(&mut to), length);
    copied.map(|copied| copied as u64)
}

fn through_memory(
    (source, from): (&dyn Medium, u64),
    (destination, to): (&dyn Medium, u64),
    length: u64,
    piece: u64,
) -> Result<(), Failure> {
    let piece = usize::try_from(piece.min(length)).expect("a chunk of a copy fits in memory");
    let mut buffer = vec![0; piece];
    let mut done = 0;
    while done < length {
        let left = usize::try_from(length - done).unwrap_or(usize::MAX);
        let bytes = &mut buffer[..piece.min(left)];
        whole::read_exact(source, bytes, from + done)?;
        whole::write_all(destination, bytes, to + done)?;
        done += bytes.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::path::Path;

    use super::*;
    use crate::store::Backing;

    const SIZE: u64 = 8 << 20;

    /// A backing object in which no two blocks of 512 bytes are alike, neither here nor in another with another mark.
    fn object(folder: &Path, name: &str, mark: u8) -> (Backing, Vec<u8>) {
        let backing = Backing::open(&folder.join(name), SIZE, 512).unwrap();
        let content: Vec<u8> = (0..16_384u32)
            .flat_map(|block| (block << 8 | u32::from(mark)).to_be_bytes().repeat(128))
            .collect();
        backing.file().write_all_at(&content, 0).unwrap();
        (backing, content)
    }

    fn content(backing: &Backing) -> Vec<u8> {
        let mut content = vec![0; usize::try_from(SIZE).unwrap()];
        backing.file().read_exact_at(&mut content, 0).unwrap();
        content
    }

    #[test]
    fn bytes_go_from_one_object_to_another_and_nothing_else_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (source, from) = object(folder.path(), "source", 1);
        let (destination, mut expected) = object(folder.path(), "destination", 2);
        for (at, to, length) in [
            (0, 4096, 4096),
            (512, 1 << 20, 3 << 20),
            (7, 1025, 3),
            (0, 0, 0),
            (8_388_607, 8_388_607, 1),
        ] {
            expected[to..to + length].copy_from_slice(&from[at..at + length]);
            let length = length as u64;
            copy((&source, at as u64), (&destination, to as u64), length).unwrap();
            assert!(content(&destination) == expected, "{at} to {to}");
        }
        assert!(content(&source) == from);
    }

    #[test]
    fn a_copy_onto_itself_is_as_if_all_had_been_read_before() {
        let folder = tempfile::tempdir().unwrap();
        let (object, mut expected) = object(folder.path(), "object", 1);
        for (at, to, length) in [
            (0, 512, 3 << 20),
            (512, 0, 3 << 20),
            (1 << 20, (1 << 20) + 1, 4 << 20),
            (4096, 4096, 4096),
            (0, 4 << 20, 4 << 20),
        ] {
            expected.copy_within(at..at + length, to);
            let length = length as u64;
            copy((&object, at as u64), (&object, to as u64), length).unwrap();
            assert!(content(&object) == expected, "{at} to {to}");
        }
    }

    #[test]
    fn a_hole_of_the_source_is_one_of_the_destination() {
        let folder = tempfile::tempdir().unwrap();
        let source = Backing::open(&folder.path().join("source"), SIZE, 512).unwrap();
        let (destination, mut expected) = object(folder.path(), "destination", 2);
        let data = [7; 65_536];
        source.file().write_all_at(&data, 1 << 20).unwrap();
        expected[..4 << 20].fill(0);
        expected[1 << 20..(1 << 20) + 65_536].copy_from_slice(&data);
        copy((&source, 0), (&destination, 0), 4 << 20).unwrap();
        assert!(content(&destination) == expected);
        // 4 MiB that nobody has copied to, and the 64 KiB, with some room for the file system.
        let taken = 512 * destination.file().metadata().unwrap().blocks();
        assert!(taken < (4 << 20) + (1 << 20), "{taken} bytes are taken up");
    }

    #[test]
    fn where_the_system_does_not_copy_it_is_read_and_written() {
        let folder = tempfile::tempdir().unwrap();
        let (source, from) = object(folder.path(), "source", 1);
        let (destination, mut expected) = object(folder.path(), "destination", 2);
        expected[512..(2 << 20) + 1024].copy_from_slice(&from[..(2 << 20) + 512]);
        let length = (2 << 20) + 512;
        through_memory((&source, 0), (&destination, 512), length, PIECE).unwrap();
        assert!(content(&destination) == expected);
    }

    #[test]
    fn a_source_that_was_made_shorter_is_an_error_and_not_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let (source, _) = object(folder.path(), "source", 1);
        let (destination, _) = object(folder.path(), "destination", 2);
        source.file().set_len(SIZE / 2).unwrap();
        for from in [0, SIZE / 4, SIZE / 2] {
            let ended = copy((&source, from), (&destination, 0), SIZE / 2);
            let is_truncated = matches!(ended, Err(Failure::Truncated));
            assert_eq!(is_truncated, from > 0, "{from}");
        }
    }
}
