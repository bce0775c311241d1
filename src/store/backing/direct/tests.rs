use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, mpsc};
use std::thread;

use super::*;
use crate::sys::region::{Region, Segment};

/// Five pieces of 1 MiB.
const SIZE: u64 = 5 << 20;

/// A file for direct I/O, or for any other where there is none, and what must be aligned to 4,096 bytes.
fn bench(block_size: u32) -> (File, Direct) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let opened = options
        .clone()
        .custom_flags(libc::O_DIRECT)
        .open(file.path());
    let opened = opened.or_else(|_| options.open(file.path()));
    (opened.unwrap(), Direct::new(4096, block_size).unwrap())
}

#[test]
fn an_alignment_that_there_cannot_be_is_none() {
    for alignment in [0, 3, 1000, 2 << 20] {
        assert!(Direct::new(alignment, 512).is_none(), "{alignment}");
    }
    assert!(Direct::new(4096, 512).unwrap().held.is_some());
    assert!(Direct::new(4096, 4096).unwrap().held.is_none());
    assert!(Direct::new(512, 4096).unwrap().held.is_none());
}

#[test]
fn any_part_is_read_and_written_and_no_more_of_it() {
    let (file, direct) = bench(512);
    let region = Arc::new(Region::anonymous(4 << 20).unwrap());
    let mut model = vec![0; index(SIZE)];
    let mut random = fastrand::Rng::with_seed(1);
    for turn in 0..200u8 {
        let longest = if turn % 16 == 0 { 3 << 20 } else { 20_000 };
        let (mut offset, mut length) = (random.u64(0..SIZE), random.u64(1..longest));
        if turn % 3 == 0 {
            (offset, length) = (offset & !511, (length & !511) + 512);
        }
        let part = offset..(offset + length).min(SIZE);
        let (first, rest) = (random.u64(0..=part.end - part.start), part.end - part.start);
        let start = random.u64(0..8192) & if turn % 2 == 0 { !4095 } else { !0 };
        let segments = vec![
            Segment {
                offset: start,
                length: first,
            },
            Segment {
                offset: start + first + 512,
                length: rest - first,
            },
        ];
        let data = Data::new(&region, segments, 0..4 << 20).unwrap();
        let content: Vec<u8> = (0..data.len()).map(|_| random.u8(..)).collect();
        data.write_at(0, &content);
        let mut done = 0;
        while done < data.len() {
            let range = done..data.len();
            let at = part.start + done;
            done += match turn % 4 {
                0 => direct.write_at(&file, &content[index(done)..], at).unwrap() as u64,
                _ => direct.write(&file, at, &data, range).unwrap(),
            };
        }
        model[index(part.start)..index(part.end)].copy_from_slice(&content);

        let around = part.start.saturating_sub(5000)..(part.end + 5000).min(SIZE);
        let mut found = vec![0; index(around.end - around.start)];
        let mut done = 0;
        while done < found.len() {
            let at = around.start + done as u64;
            done += direct.read_at(&file, &mut found[done..], at).unwrap();
        }
        let expected = &model[index(around.start)..index(around.end)];
        assert!(
            found == expected,
            "turn {turn}: {part:?} from {start}+{first}"
        );

        data.zero_from(0);
        let mut done = 0;
        while done < data.len() {
            let range = done..data.len();
            done += direct.read(&file, part.start + done, &data, range).unwrap();
        }
        let mut found = vec![0; content.len()];
        data.read_at(0, &mut found);
        assert!(found == content, "turn {turn}: {part:?}");
    }
}

#[test]
fn what_is_aligned_goes_as_it_is() {
    let direct = Direct::new(512, 512).unwrap();
    let region = Arc::new(Region::anonymous(1 << 16).unwrap());
    let data = |offset, length| {
        let segments = vec![Segment { offset, length }];
        Data::new(&region, segments, 0..1 << 16).unwrap()
    };
    assert_eq!(direct.aligned(512, &data(4096, 8192), &(0..8192)), 8192);
    assert_eq!(direct.aligned(512, &data(4096, 8192), &(512..8000)), 7168);
    assert_eq!(direct.aligned(100, &data(4096, 8192), &(0..8192)), 0);
    assert_eq!(direct.aligned(512, &data(4100, 8192), &(0..8192)), 0);
}

#[test]
fn nothing_is_read_or_written_behind_the_end() {
    let (file, direct) = bench(512);
    let mut bytes = vec![0; 8192];
    assert_eq!(direct.read_at(&file, &mut bytes, SIZE - 100).unwrap(), 100);
    assert_eq!(direct.read_at(&file, &mut bytes, SIZE).unwrap(), 0);
    assert_eq!(direct.write_at(&file, &bytes[..100], SIZE).unwrap(), 0);
    let too_far = direct.read_at(&file, &mut bytes, u64::MAX).unwrap_err();
    assert_eq!(too_far.raw_os_error(), Some(libc::EFBIG));
    assert_eq!(file.metadata().unwrap().len(), SIZE);
}

#[test]
fn neighbours_that_are_written_at_the_same_time_do_not_lose_each_other() {
    const ROUNDS: u8 = 100;
    let (file, direct) = bench(512);
    thread::scope(|scope| {
        for block in 0..8 {
            let (file, direct) = (&file, &direct);
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    let at = 8192 + block * 512;
                    assert_eq!(direct.write_at(file, &[round; 512], at).unwrap(), 512);
                    let mut found = [0; 512];
                    direct.read_at(file, &mut found, at).unwrap();
                    assert_eq!(found, [round; 512], "block {block}");
                }
            });
        }
    });
}

#[test]
fn who_must_be_alone_waits_for_those_who_are_there_and_for_nobody_else() {
    let parts = Parts::default();
    let others = [
        parts.hold(0..4096, Hold::WithOthers),
        parts.hold(0..8192, Hold::WithOthers),
    ];
    // Beside them.
    drop(parts.hold(8192..12_288, Hold::Alone));
    thread::scope(|scope| {
        let (got, has) = mpsc::channel();
        let parts = &parts;
        scope.spawn(move || {
            let alone = parts.hold(4096..8192, Hold::Alone);
            got.send(()).unwrap();
            drop(alone);
        });
        assert!(has.try_recv().is_err());
        drop(others);
        has.recv().unwrap();
    });
    assert!(parts.lock().is_empty());
}

#[test]
fn of_the_lengths_of_atomic_writes_one_is_served() {
    let served = |alignment, lengths| {
        let direct = Direct::new(alignment, 512).unwrap();
        direct.writing_atomically(lengths).atomic_write()
    };
    assert_eq!(served(512, None), None);
    assert_eq!(served(512, Some(512..=4096)), Some(4096));
    assert_eq!(served(512, Some(4096..=16_384)), Some(16_384));
    assert_eq!(served(4096, Some(4096..=4 << 20)), Some(16_384));
    assert_eq!(served(512, Some(65_536..=4 << 20)), Some(65_536));
    // Less than direct I/O takes; more than goes at once; no power of two.
    assert_eq!(served(4096, Some(512..=2048)), None);
    assert_eq!(served(512, Some(2 << 20..=4 << 20)), None);
    assert_eq!(served(512, Some(512..=1536)), None);
}

#[test]
fn another_length_or_place_than_is_served_is_never_written() {
    let (file, direct) = bench(512);
    let direct = direct.writing_atomically(Some(4096..=4096));
    let region = Arc::new(Region::anonymous(1 << 16).unwrap());
    let segment = Segment {
        offset: 0,
        length: 8192,
    };
    let data = Data::new(&region, vec![segment], 0..1 << 16).unwrap();
    data.write_at(0, &[0xff; 8192]);
    for (offset, length) in [(0, 8192), (0, 512), (2048, 4096)] {
        let refused = direct.write_atomic(&file, offset, &data, length);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
    let mut found = [0xff; 8192];
    assert_eq!(direct.read_at(&file, &mut found, 0).unwrap(), 8192);
    assert_eq!(found, [0; 8192]);
}
