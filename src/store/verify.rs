//! Whether what is on the medium can be read, and is what it should be.

use std::ops::Range;

use nix::fcntl::PosixFadviseAdvice;

use super::medium::Medium;
use super::{Against, Failure, whole};
use crate::sys::region::Data;

/// How much is read at a time: a multiple of every block size.
const PIECE: u64 = 1 << 20;

/// A multiple of every page size. What the system is to forget is given in whole pages: of those that stick out at
/// either end, it keeps what it has.
const PAGES: u64 = 1 << 16;

/// Reads a part of the backing object from the medium, and compares it. Nothing of it may be dirty: the system forgets
/// only what it need not write.
///
/// `is_cancelled` is asked before each piece whether to go on.
pub(super) fn verify(
    medium: &dyn Medium,
    Range { start: offset, end }: Range<u64>,
    data: &Data,
    against: Against,
    mut is_cancelled: impl FnMut() -> bool,
) -> Result<(), Failure> {
    let length = end - offset;
    let forgotten = whole_pages(offset, length);
    medium.advise(
        forgotten.start,
        forgotten.end - forgotten.start,
        PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    );
    let piece = usize::try_from(length.min(PIECE)).expect("at most PIECE");
    let mut found = vec![0; piece];
    let mut wanted = match against {
        Against::Nothing => Vec::new(),
        Against::Data => vec![0; piece],
        Against::Repeated(block) => {
            let mut block = vec![0; usize::try_from(block.min(PIECE)).expect("at most PIECE")];
            data.read_at(0, &mut block);
            block.repeat(piece.div_ceil(block.len().max(1)))
        }
    };
    let mut done = 0;
    while done < length {
        if is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let bytes = usize::try_from((length - done).min(PIECE)).expect("at most PIECE");
        let found = &mut found[..bytes];
        whole::read_exact(medium, found, offset.saturating_add(done))?;
        if against == Against::Data {
            data.read_at(done, &mut wanted[..bytes]);
        }
        if against != Against::Nothing {
            if let Some(at) = first_difference(found, &wanted[..bytes]) {
                return Err(Failure::Miscompare { at: done + at });
            }
        }
        done += bytes as u64;
    }
    Ok(())
}

/// Where two pieces of the same length differ first.
pub(super) fn first_difference(one: &[u8], other: &[u8]) -> Option<u64> {
    let mut pairs = one.iter().zip(other);
    pairs.position(|(a, b)| a != b).map(|at| at as u64)
}

fn whole_pages(offset: u64, length: u64) -> Range<u64> {
    let end = offset.saturating_add(length);
    offset - offset % PAGES..end.checked_next_multiple_of(PAGES).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use super::*;
    use crate::store::Backing;
    use crate::sys::region::{Region, Segment};

    /// The size of the backing object: two pieces and a half.
    const SIZE: u64 = 5 << 19;

    struct Bench {
        backing: Backing,
        data: Data,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        /// A backing object and a buffer with the same content, in which no two blocks of 512 bytes are alike.
        fn new() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let backing = Backing::open(&folder.path().join("lun0.img"), SIZE, 512).unwrap();
            let region = Arc::new(Region::anonymous(1 << 22).unwrap());
            let segment = Segment {
                offset: 0,
                length: SIZE,
            };
            let data = Data::new(&region, vec![segment], 0..1 << 22).unwrap();
            let content: Vec<u8> = (0..5120u32)
                .flat_map(|block| block.to_be_bytes().repeat(128))
                .collect();
            data.write_at(0, &content);
            backing.file().write_all_at(&content, 0).unwrap();
            Bench {
                backing,
                data,
                _folder: folder,
            }
        }

        fn verify(&self, range: Range<u64>, against: Against) -> Result<(), Failure> {
            verify(&self.backing, range, &self.data, against, || false)
        }

        /// Flips a bit of the backing object.
        fn spoil(&self, at: u64) {
            let mut byte = [0];
            self.backing.file().read_exact_at(&mut byte, at).unwrap();
            let spoilt = [byte[0] ^ 0x10];
            self.backing.file().write_all_at(&spoilt, at).unwrap();
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_no_miscompare() {
        let bench = Bench::new();
        bench.verify(0..SIZE, Against::Data).unwrap();
        bench.verify(0..SIZE, Against::Nothing).unwrap();
        bench.verify(0..512, Against::Data).unwrap();
    }

    #[test]
    fn a_bit_anywhere_makes_a_miscompare_and_only_where_something_is_compared() {
        for at in [0, 511, (1 << 20) - 1, 1 << 20, (1 << 21) + 7, SIZE - 1] {
            let bench = Bench::new();
            bench.spoil(at);
            let compared = bench.verify(0..SIZE, Against::Data);
            let found = matches!(compared, Err(Failure::Miscompare { at: found }) if found == at);
            assert!(found, "{at}: {compared:?}");
            bench.verify(0..SIZE, Against::Nothing).unwrap();
            if at > 0 {
                bench.verify(0..at, Against::Data).unwrap();
            }
        }
    }

    #[test]
    fn the_buffer_begins_where_the_range_does() {
        let bench = Bench::new();
        let shifted = bench.verify(512..1024, Against::Data);
        assert!(matches!(shifted, Err(Failure::Miscompare { .. })));
        bench.data.write_at(0, &[0, 0, 0, 1].repeat(128));
        bench.verify(512..1024, Against::Data).unwrap();
    }

    #[test]
    fn one_block_is_compared_with_each() {
        let bench = Bench::new();
        let block: Vec<u8> = (0..512u32).map(|byte| byte.to_be_bytes()[3]).collect();
        bench.data.write_at(0, &block);
        bench
            .backing
            .file()
            .write_all_at(&block.repeat(5118), 512)
            .unwrap();
        let range = 512..5119 * 512;
        bench.verify(range.clone(), Against::Repeated(512)).unwrap();
        let too_many = bench.verify(512..SIZE, Against::Repeated(512));
        assert!(matches!(too_many, Err(Failure::Miscompare { .. })));
        bench.spoil((1 << 20) + 512);
        let compared = bench.verify(range, Against::Repeated(512));
        assert!(matches!(compared, Err(Failure::Miscompare { .. })));
    }

    #[test]
    fn one_that_is_cancelled_ends_with_the_piece() {
        let bench = Bench::new();
        bench.spoil(1 << 21); // in the third piece
        for (pieces, is_cancelled) in [(0, true), (2, true), (3, false)] {
            let mut asked = 0;
            let cancel = || {
                asked += 1;
                asked > pieces
            };
            let range = 0..SIZE;
            let ended = verify(&bench.backing, range, &bench.data, Against::Data, cancel);
            let expected = match ended {
                Err(Failure::Cancelled) => true,
                Err(Failure::Miscompare { .. }) => false,
                other => panic!("{other:?}"),
            };
            assert_eq!(expected, is_cancelled, "after {pieces} pieces");
        }
    }

    #[test]
    fn a_file_that_was_made_shorter_is_not_verified() {
        let bench = Bench::new();
        bench.backing.file().set_len(SIZE - 1).unwrap();
        let short = bench.verify(0..SIZE, Against::Nothing);
        assert!(matches!(short, Err(Failure::Truncated)));
    }

    #[test]
    fn pages_are_forgotten_whole() {
        for (offset, length, expected) in [
            (0, 512, 0..65_536),
            (65_535, 2, 0..131_072),
            (65_536, 65_536, 65_536..131_072),
            (u64::MAX - 1, 1, 0xffff_ffff_ffff_0000..u64::MAX),
        ] {
            assert_eq!(whole_pages(offset, length), expected);
        }
    }
}
