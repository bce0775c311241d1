use std::cell::Cell;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::sys::region::{Region, Segment};

/// The size of the backing object: two pieces and a half.
const SIZE: u64 = 5 << 19;

struct Bench {
    backing: Backing,
    data: Data,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// A backing object that takes up no space, and a buffer of one block of 4,096 bytes of which no two are alike
    /// within 256.
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let backing = Backing::open(&folder.path().join("lun0.img"), SIZE, 512).unwrap();
        let region = Arc::new(Region::anonymous(4096).unwrap());
        let segment = Segment {
            offset: 0,
            length: 4096,
        };
        let data = Data::new(&region, vec![segment], 0..4096).unwrap();
        data.write_at(0, &block());
        Bench {
            backing,
            data,
            _folder: folder,
        }
    }

    /// The same, on a file system that turns out to have none of the ways.
    fn without_ways() -> Bench {
        let bench = Bench::new();
        let Space {
            deallocate, zero, ..
        } = &bench.backing.space;
        for way in [deallocate, zero] {
            way.is_missing.store(true, Ordering::Relaxed);
        }
        bench
    }

    /// The same, full of ones.
    fn full(self) -> Bench {
        let ones = vec![1; usize::try_from(SIZE).unwrap()];
        self.backing.file().write_all_at(&ones, 0).unwrap();
        self
    }

    fn write_same(&self, range: Range<u64>, content: Content, spare: Spare) {
        write_same(&self.backing, &range, &self.data, content, spare, || false).unwrap();
    }

    fn unmap(&self, range: Range<u64>, is_cancelled: impl FnMut() -> bool) -> Result<(), Failure> {
        unmap(&self.backing, &[range], is_cancelled)
    }

    fn content(&self) -> Vec<u8> {
        let mut content = vec![0xff; usize::try_from(SIZE).unwrap()];
        self.backing.file().read_exact_at(&mut content, 0).unwrap();
        content
    }

    /// Asserts what is in the range; around it are ones.
    fn assert_holds(&self, range: Range<u64>, expected: impl Iterator<Item = u8>) {
        let content = self.content();
        let at = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        assert!(content[..at.start].iter().all(|&byte| byte == 1));
        assert!(content[at.clone()].iter().copied().eq(expected));
        assert!(content[at.end..].iter().all(|&byte| byte == 1));
    }

    /// How much space it takes up.
    fn used(&self) -> u64 {
        // What is to be written may have no place yet.
        self.backing.flush().unwrap();
        self.backing.figures().unwrap().used
    }
}

fn block() -> Vec<u8> {
    (0..=255).cycle().take(4096).collect()
}

fn zeros(length: usize) -> impl Iterator<Item = u8> {
    std::iter::repeat_n(0, length)
}

#[test]
fn what_is_unmapped_reads_as_zeros_and_takes_up_no_space() {
    let bench = Bench::new().full();
    assert_eq!(bench.used(), SIZE);
    // Blocks of 512 bytes that stick out of those of the file system at both ends.
    let ranges = [3584..1_049_600, 1_049_600..1_050_112];
    unmap(&bench.backing, &ranges, || false).unwrap();
    bench.assert_holds(3584..1_050_112, zeros(1_046_528));
    assert_eq!(SIZE - bench.used(), 1_044_480, "all but what sticks out");
}

#[test]
fn what_cannot_be_unmapped_reads_as_zeros_all_the_same() {
    let bench = Bench::without_ways().full();
    bench.unmap(512..2_097_664, || false).unwrap();
    bench.assert_holds(512..2_097_664, zeros(2_097_152));
    assert_eq!(bench.used(), SIZE);
}

#[test]
fn a_block_is_written_again_and_again_wherever_it_begins() {
    for (size, range) in [
        (512, 512..1024),
        (512, 1_048_064..2_098_176),
        (4096, 4096..SIZE - 4096),
    ] {
        for spare in [Spare::Keep, Spare::GiveBack] {
            let bench = Bench::new().full();
            bench.write_same(range.clone(), Content::Block(size), spare);
            let size = usize::try_from(size).unwrap();
            let length = usize::try_from(range.end - range.start).unwrap();
            let expected = block().into_iter().take(size).cycle().take(length);
            bench.assert_holds(range.clone(), expected);
        }
    }
}

#[test]
fn only_a_block_that_is_all_zero_counts_as_zeros() {
    for at in [0, 511] {
        let bench = Bench::new().full();
        let mut block = [0; 512];
        block[at] = 0x80;
        bench.data.write_at(0, &block);
        bench.write_same(0..8192, Content::Block(512), Spare::GiveBack);
        assert_eq!(bench.content()[..512], block);
        assert_eq!(bench.used(), SIZE);
    }
}

#[test]
fn zeros_give_space_back_only_if_that_is_asked_for() {
    for content in [Content::Zeros, Content::Block(512)] {
        for (spare, given_back) in [(Spare::Keep, 0), (Spare::GiveBack, 1 << 20)] {
            for bench in [Bench::new(), Bench::without_ways()] {
                let bench = bench.full();
                let is_without = bench.backing.space.zero.is_missing.load(Ordering::Relaxed);
                let given_back = if is_without { 0 } else { given_back };
                if content == Content::Block(512) {
                    bench.data.write_at(0, &[0; 512]);
                }
                bench.write_same(8192..1_056_768, content, spare);
                bench.assert_holds(8192..1_056_768, zeros(1 << 20));
                assert_eq!(SIZE - bench.used(), given_back, "{content:?} {spare:?}");
            }
        }
    }
}

#[test]
fn zeros_that_are_to_take_up_space_do() {
    for bench in [Bench::new(), Bench::without_ways()] {
        bench.write_same(0..SIZE, Content::Zeros, Spare::Keep);
        assert_eq!(bench.used(), SIZE);
    }
}

#[test]
fn one_that_is_cancelled_ends_with_the_piece() {
    let bench = Bench::new().full();
    let asked = Cell::new(0);
    let twice = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    let (content, spare) = (Content::Block(4096), Spare::Keep);
    let ended = write_same(
        &bench.backing,
        &(0..SIZE),
        &bench.data,
        content,
        spare,
        twice,
    );
    assert!(matches!(ended, Err(Failure::Cancelled)));
    bench.assert_holds(0..2 << 20, block().into_iter().cycle().take(2 << 20));

    asked.set(2);
    let ended = bench.unmap(0..SIZE, twice);
    assert!(matches!(ended, Err(Failure::Cancelled)));
    assert_eq!(bench.used(), SIZE);

    // Where zeros have to be written, they too are in pieces: one question for the large piece, two for small ones.
    let bench = Bench::without_ways().full();
    asked.set(0);
    let ended = bench.unmap(0..SIZE, twice);
    assert!(matches!(ended, Err(Failure::Cancelled)));
    bench.assert_holds(0..1 << 20, zeros(1 << 20));
}

#[test]
fn a_part_that_no_file_can_have_is_an_error() {
    let bench = Bench::new();
    for range in [1 << 63..(1 << 63) + 512, 512..u64::MAX] {
        let ended = bench.unmap(range, || false);
        let Err(Failure::Write { error, .. }) = ended else {
            panic!("{ended:?}")
        };
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
    }
}

/// A regular file on a file system that knows neither holes nor how to make them.
fn plain() -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/self/comm")
        .unwrap()
}

fn seeks(file: &File) -> impl Fn(u64, Sought) -> io::Result<Found> {
    |at, sought| seek(file, at, sought)
}

#[test]
fn what_a_file_system_cannot_do_is_found_out() {
    let file = plain();
    let space = Space::of(&file, Kind::File, Mode::default()).unwrap();
    assert_eq!(space.deallocation, None);
    assert!(!space.zero.take(&file, &(0..512)).unwrap());
    assert!(space.zero.is_missing.load(Ordering::Relaxed));
}

#[test]
fn a_device_can_do_what_it_says() {
    let discard = Discard {
        maximum: 1 << 30,
        granularity: 65_536,
        alignment: 512,
        zeroes: true,
    };
    let punch = Way::Fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE);
    for (discard, way, zeroes) in [
        (discard, punch, Some(true)),
        (
            Discard {
                zeroes: false,
                ..discard
            },
            Way::Discard,
            Some(false),
        ),
        (
            Discard {
                maximum: 0,
                ..discard
            },
            punch,
            None,
        ),
        (Discard::default(), Way::Discard, None),
    ] {
        let space = Space::of_device(discard);
        let expected = zeroes.map(|zeroes| Deallocation {
            zeroes,
            granularity: 65_536,
            alignment: 512,
        });
        assert_eq!(space.deallocation, expected);
        assert_eq!(space.deallocate.way, way);
    }
}

#[test]
fn a_file_can_give_space_back_in_blocks_of_its_file_system() {
    let bench = Bench::new();
    let expected = Deallocation {
        zeroes: true,
        granularity: bench.backing.file().metadata().unwrap().blksize(),
        alignment: 0,
    };
    assert_eq!(bench.backing.deallocation(), Some(expected));
    let metadata = bench.backing.file().metadata().unwrap();
    assert_eq!((metadata.len(), metadata.blocks()), (SIZE, 0));
}

#[test]
fn where_nobody_knows_of_holes_all_takes_up_space() {
    let expected = Extent {
        range: 512..4096,
        is_allocated: true,
    };
    let found = extents(seeks(&plain()), &(512..4096), 512, 10).unwrap();
    assert_eq!(found, [expected]);
}

#[test]
fn data_that_is_given_back_while_it_is_looked_for_is_no_reason_to_look_for_ever() {
    let gone = |at, _| Ok(Found::At(at));
    let expected = Extent {
        range: 512..4096,
        is_allocated: true,
    };
    assert_eq!(extents(gone, &(512..4096), 512, 10).unwrap(), [expected]);
}

#[test]
fn a_block_half_in_a_hole_takes_up_space() {
    let bench = Bench::new();
    let file = bench.backing.file();
    file.write_all_at(&[1; 4096], 69_632).unwrap();
    let found = extents(seeks(file), &(0..SIZE), 65_536, 10).unwrap();
    let extent = |range, is_allocated| Extent {
        range,
        is_allocated,
    };
    let expected = [
        extent(0..65_536, false),
        extent(65_536..131_072, true),
        extent(131_072..SIZE, false),
    ];
    assert_eq!(found, expected);
    assert_eq!(
        extents(seeks(file), &(0..SIZE), 65_536, 2).unwrap(),
        expected[..2]
    );
    let from_within = extents(seeks(file), &(65_536..131_072), 65_536, 2).unwrap();
    assert_eq!(from_within, expected[1..2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn extents_are_those_that_were_written(
        pages in prop::collection::vec(any::<bool>(), 64), first in 0..64_usize, most in 1..40_usize,
    ) {
        let bench = Bench::new();
        let file = bench.backing.file();
        for (page, _) in pages.iter().enumerate().filter(|(_, is_written)| **is_written) {
            file.write_all_at(&[1; 4096], page as u64 * 4096).unwrap();
        }
        let range = first as u64 * 4096..64 * 4096;
        let found = extents(seeks(file), &range, 512, most).unwrap();
        prop_assert!(found.len() <= most);
        let mut at = range.start;
        for (index, extent) in found.iter().enumerate() {
            prop_assert_eq!(extent.range.start, at);
            prop_assert!(index == 0 || found[index - 1].is_allocated != extent.is_allocated);
            at = extent.range.end;
            for page in extent.range.start / 4096..at.div_ceil(4096) {
                prop_assert_eq!(pages[usize::try_from(page).unwrap()], extent.is_allocated);
            }
        }
        prop_assert!(at == range.end || found.len() == most);
    }
}

#[test]
fn pieces_end_at_multiples_and_leave_nothing_out() {
    let last = u64::MAX - 1;
    for (range, ends) in [
        (0..0, vec![]),
        (0..10, vec![10]),
        (3..25, vec![10, 20, 25]),
        (10..20, vec![20]),
        (last..u64::MAX, vec![u64::MAX]),
    ] {
        let mut at = range.start;
        let found = pieces(&range, 10).map(|piece| {
            assert_eq!(piece.start, at);
            at = piece.end;
            at
        });
        assert_eq!(found.collect::<Vec<_>>(), ends);
    }
}

#[test]
fn figures_tell_what_is_left_and_what_is_taken_up() {
    let bench = Bench::new();
    assert_eq!(bench.used(), 0);
    let bench = bench.full();
    assert_eq!(bench.used(), SIZE);
    let figures = bench.backing.figures().unwrap();
    assert!(figures.available > 0);
    assert!(figures.available <= figures.total);
    let from_outside = figures_at(bench.backing.path()).unwrap();
    assert_eq!(from_outside.total, figures.total);
    assert_eq!(from_outside.used, SIZE);
}
