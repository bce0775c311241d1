use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::store::backing::Mode;
use crate::store::{Cancellation, Lane};
use crate::sys::region::{Region, Segment};

const SIZE: u64 = 1 << 20;
const AREA: u64 = 1 << 18;
const WAKER: u64 = 7;

struct Bench {
    engine: Engine<u32>,
    waker: Waker,
    backing: Arc<Backing>,
    region: Arc<Region>,
    _folder: tempfile::TempDir,
}

/// Where this program was built: on a disk, unlike what is temporary.
fn build_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.parent().unwrap().to_owned()
}

/// An engine for each that there is, on a file in memory, on one that the page cache has, and past it where that is
/// possible. Each with its name.
fn benches() -> Vec<(String, Bench)> {
    let cached = &build_folder();
    let mut benches = Vec::new();
    for wanted in [Wanted::Best, Wanted::Threads] {
        for (folder, direct) in [
            (Path::new("/dev/shm"), false),
            (cached, false),
            (cached, true),
        ] {
            if let Some(bench) = Bench::new(folder, direct, wanted) {
                benches.push((format!("{wanted:?} in {folder:?}, direct {direct}"), bench));
            }
        }
    }
    assert!(benches.len() >= 4);
    benches
}

impl Bench {
    /// `None` if there is no direct I/O.
    fn new(folder: &Path, direct: bool, wanted: Wanted) -> Option<Bench> {
        let folder = tempfile::tempdir_in(folder).unwrap();
        let path = folder.path().join("lun0.img");
        std::fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
        let mode = Mode {
            direct,
            ..Mode::default()
        };
        let backing = Arc::new(Backing::open_with(&path, SIZE, 512, mode).ok()?);
        let waker = Waker::new().unwrap();
        let (mut engine, kind) = Engine::new(&backing, &waker, wanted).unwrap();
        assert!(wanted == Wanted::Best || kind != Kind::IoUring);
        engine.waits().watch(waker.as_fd(), WAKER).unwrap();
        Some(Bench {
            engine,
            waker,
            backing,
            region: Arc::new(Region::anonymous(usize::try_from(AREA).unwrap()).unwrap()),
            _folder: folder,
        })
    }

    fn data(&self, pieces: &[(u64, u64)]) -> Data {
        let segments = pieces.iter();
        let segments = segments.map(|&(offset, length)| Segment { offset, length });
        Data::new(&self.region, segments.collect(), 0..AREA).unwrap()
    }

    fn submit(&mut self, operation: Operation, data: Data, ticket: u32) {
        let request = Request {
            lane: Lane(0),
            operation,
            data,
            cancellation: Cancellation::default(),
        };
        self.engine.submit(request, ticket);
    }

    /// The next that is done.
    fn done(&mut self) -> Done<u32> {
        loop {
            if let Some(done) = self.engine.reap() {
                return done;
            }
            let mut woken = Vec::new();
            let waits = self.engine.waits();
            waits.wait(Some(Duration::from_secs(20)), &mut woken);
            if woken.contains(&WAKER) {
                self.waker.acknowledge();
            }
        }
    }

    /// The tickets of the next so many that are done, in order; all of them have ended well.
    fn all_done(&mut self, count: usize, name: &str) -> Vec<u32> {
        let mut tickets: Vec<u32> = (0..count)
            .map(|_| {
                let done = self.done();
                assert!(done.result.is_ok(), "{name}: {:?}", done.result);
                done.ticket
            })
            .collect();
        tickets.sort_unstable();
        tickets
    }

    fn run(&mut self, operation: Operation, data: Data) -> Done<u32> {
        self.submit(operation, data, 1);
        let done = self.done();
        assert_eq!(done.ticket, 1);
        done
    }
}

fn write(offset: u64, length: u64, durability: Durability) -> Operation {
    Operation::Write {
        offset,
        length,
        durability,
    }
}

fn read(offset: u64, length: u64, flush: Flush) -> Operation {
    Operation::Read {
        offset,
        length,
        flush,
    }
}

#[test]
fn what_was_written_is_read_back_whatever_its_pieces() {
    let whole: &[(u64, u64)] = &[(4096, 65_536)];
    let pages: Vec<(u64, u64)> = (0..16).map(|page| (4096 * (2 * page + 1), 4096)).collect();
    for (name, mut bench) in benches() {
        for pieces in [whole, &pages] {
            for durability in [Durability::Later, Durability::Now] {
                for flush in [Flush::No, Flush::First] {
                    let pattern: Vec<u8> = (0..65_536u32).map(|at| at.to_le_bytes()[1]).collect();
                    let data = bench.data(pieces);
                    data.write_at(0, &pattern);
                    let done = bench.run(write(8192, 61_440, durability), data);
                    assert!(done.result.is_ok(), "{name}: {:?}", done.result);

                    let data = bench.data(pieces);
                    data.write_at(0, &[0xff; 65_536]);
                    let done = bench.run(read(8192 + 4096, 57_344, flush), data);
                    assert!(done.result.is_ok(), "{name}: {:?}", done.result);
                    let mut found = vec![0; 65_536];
                    done.data.read_at(0, &mut found);
                    assert!(found[..57_344] == pattern[4096..61_440], "{name}");
                    assert!(found[57_344..].iter().all(|&byte| byte == 0xff), "{name}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_aligned_is_moved_too() {
    for (name, mut bench) in benches() {
        let data = bench.data(&[(3, 1000), (2048, 24)]);
        data.write_at(0, &[0x5a; 1024]);
        let done = bench.run(write(512, 1024, Durability::Later), data);
        assert!(done.result.is_ok(), "{name}: {:?}", done.result);
        let mut found = [0xff; 2048];
        bench.backing.read_at(&mut found, 0).unwrap();
        assert!(found[..512].iter().all(|&byte| byte == 0), "{name}");
        assert!(found[512..1536].iter().all(|&byte| byte == 0x5a), "{name}");
        assert!(found[1536..].iter().all(|&byte| byte == 0), "{name}");
    }
}

/// Three parts, of which the first is cut in two where large pieces end.
#[test]
fn space_is_given_back_piece_by_piece() {
    const LARGE: u64 = 64 << 20;
    for (name, mut bench) in benches() {
        bench.backing.grow(3 * LARGE).unwrap();
        let places = [LARGE - 8192, LARGE, 2 * LARGE, 2 * LARGE + 16_384];
        for place in places {
            bench.backing.write_at(&[0x5a; 8192], place).unwrap();
        }
        for durability in [Durability::Later, Durability::Now] {
            let unmap = Operation::Unmap {
                ranges: vec![
                    LARGE - 4096..LARGE + 4096,
                    0..4096,
                    2 * LARGE..2 * LARGE + 8192,
                ],
                durability,
            };
            // Those that come meanwhile are done too.
            for ticket in 0..3 {
                let data = bench.data(&[]);
                bench.submit(unmap.clone(), data, ticket);
            }
            assert_eq!(bench.all_done(3, &name), [0, 1, 2]);
        }
        for (place, expected) in places.into_iter().zip([
            [[0x5a; 4096], [0; 4096]],
            [[0; 4096], [0x5a; 4096]],
            [[0; 4096]; 2],
            [[0x5a; 4096]; 2],
        ]) {
            let mut found = [0xff; 8192];
            bench.backing.read_at(&mut found, place).unwrap();
            assert!(found[..] == *expected.as_flattened(), "{name}: {place}");
        }
    }
}

#[test]
fn what_is_cancelled_gives_back_no_space() {
    for (name, mut bench) in benches() {
        bench.backing.write_at(&[0x5a; 4096], 0).unwrap();
        let cancellation = Cancellation::possible();
        cancellation.cancel();
        let request = Request {
            lane: Lane(0),
            operation: Operation::Unmap {
                ranges: vec![0..2048, 2048..4096],
                durability: Durability::Now,
            },
            data: bench.data(&[]),
            cancellation,
        };
        bench.engine.submit(request, 1);
        let result = bench.done().result;
        assert!(matches!(result, Err(Failure::Cancelled)), "{name}");
        let mut found = [0; 4096];
        bench.backing.read_at(&mut found, 0).unwrap();
        assert_eq!(found, [0x5a; 4096]);
    }
}

#[test]
fn much_can_be_going_on() {
    for (name, mut bench) in benches() {
        for ticket in 0..1000 {
            let place = u64::from(ticket % 32) * 4096;
            let data = bench.data(&[(place, 4096)]);
            match ticket % 3 {
                0 => bench.submit(write(place, 4096, Durability::Now), data, ticket),
                1 => bench.submit(Operation::Flush, data, ticket),
                _ => bench.submit(read(place, 4096, Flush::First), data, ticket),
            }
        }
        let expected: Vec<u32> = (0..1000).collect();
        assert_eq!(bench.all_done(1000, &name), expected, "{name}");
    }
}

#[test]
fn a_file_that_was_made_shorter_is_an_error_and_not_zeros() {
    for (name, mut bench) in benches() {
        bench.backing.file().set_len(8192).unwrap();
        for offset in [4096, 8192, 12_288] {
            let data = bench.data(&[(0, 8192)]);
            let done = bench.run(read(offset, 8192, Flush::No), data);
            let is_told = matches!(done.result, Err(Failure::Truncated));
            assert!(is_told, "{name}: {:?}", done.result);
        }
    }
}

#[test]
fn a_failed_write_tells_where_and_why() {
    for (name, mut bench) in benches() {
        let offset = 1 << 63;
        let data = bench.data(&[(0, 4096)]);
        let done = bench.run(write(offset, 4096, Durability::Later), data);
        let Err(Failure::Write { at, error }) = done.result else {
            panic!("{name}: {:?}", done.result)
        };
        assert_eq!((at, error.raw_os_error()), (offset, Some(libc::EFBIG)));
    }
}

#[test]
fn after_a_failed_flush_nothing_is_told_to_be_stable() {
    for (name, mut bench) in benches() {
        if bench.engine.place.is_stable() {
            continue;
        }
        assert!(matches!(bench.backing.flushes().begin(), Turn::Yours));
        let failed = Err(io::Error::from_raw_os_error(libc::EIO));
        bench.backing.flushes().end(failed).unwrap_err();
        for operation in [
            Operation::Flush,
            write(0, 4096, Durability::Now),
            read(0, 4096, Flush::First),
        ] {
            let data = bench.data(&[(0, 4096)]);
            let done = bench.run(operation, data);
            let Err(Failure::Flush(error)) = done.result else {
                panic!("{name}: {:?}", done.result)
            };
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name}");
        }
        let data = bench.data(&[(0, 4096)]);
        assert!(
            bench
                .run(write(0, 4096, Durability::Later), data)
                .result
                .is_ok()
        );
    }
}

#[test]
fn those_that_want_a_flush_while_one_is_going_on_get_the_next_one_together() {
    for (_, mut bench) in benches() {
        if bench.engine.place.is_stable() || bench.engine.ring.is_none() {
            continue;
        }
        for ticket in 0..10 {
            let data = bench.data(&[]);
            bench.submit(Operation::Flush, data, ticket);
        }
        let tickets = |those: &[(Request, u32)]| -> Vec<u32> {
            those.iter().map(|&(_, ticket)| ticket).collect()
        };
        assert_eq!(tickets(&bench.engine.flush), [0]);
        assert_eq!(
            tickets(&bench.engine.next_flush),
            (1..10).collect::<Vec<_>>()
        );
        assert_eq!(bench.done().ticket, 0);
        assert_eq!(bench.engine.flush.len(), 9);
        assert!(bench.engine.next_flush.is_empty());
        (1..10).for_each(|ticket| assert_eq!(bench.done().ticket, ticket));
    }
}

#[test]
fn a_flush_waits_for_that_of_a_thread_and_nothing_is_written_again() {
    for (name, mut bench) in benches() {
        if bench.engine.place.is_stable() {
            continue;
        }
        assert!(matches!(bench.backing.flushes().begin(), Turn::Yours));
        let data = bench.data(&[(0, 4096)]);
        data.write_at(0, &[0x5a; 4096]);
        bench.submit(write(0, 4096, Durability::Now), data, 1);
        let mut found = [0; 4096];
        while found != [0x5a; 4096] {
            assert!(bench.engine.reap().is_none(), "{name}");
            let waits = bench.engine.waits();
            waits.wait(Some(Duration::from_millis(1)), &mut Vec::new());
            bench.backing.read_at(&mut found, 0).unwrap();
        }
        // Whoever has seen that writes something else.
        bench.backing.write_at(&[0xa5; 4096], 0).unwrap();
        assert!(bench.engine.reap().is_none(), "{name}");
        bench.backing.flushes().end(Ok(())).unwrap();
        let done = bench.done();
        assert_eq!(done.ticket, 1);
        assert!(done.result.is_ok(), "{name}: {:?}", done.result);
        bench.backing.read_at(&mut found, 0).unwrap();
        assert!(found == [0xa5; 4096], "{name}");
    }
}

#[test]
fn dropping_ends_a_flush_that_others_wait_for() {
    for (_, mut bench) in benches() {
        for ticket in 0..3 {
            let data = bench.data(&[]);
            bench.submit(Operation::Flush, data, ticket);
        }
        bench
            .engine
            .waits()
            .wait(Some(Duration::ZERO), &mut Vec::new());
        let Bench {
            engine, backing, ..
        } = bench;
        drop(engine);
        assert!(matches!(backing.flushes().begin(), Turn::Yours));
    }
}

#[test]
fn a_backing_object_is_free_as_soon_as_its_engine_is_gone() {
    for (name, bench) in benches() {
        let Bench {
            engine,
            backing,
            _folder,
            ..
        } = bench;
        let path = backing.path().to_owned();
        assert!(!Backing::is_free(&path, false).unwrap());
        drop(engine);
        drop(backing);
        assert!(Backing::is_free(&path, false).unwrap(), "{name}");
    }
}

#[test]
fn what_is_only_read_is_not_flushed() {
    let folder = tempfile::tempdir_in(build_folder()).unwrap();
    let path = folder.path().join("lun0.img");
    std::fs::write(&path, [1; 4096]).unwrap();
    let mode = Mode {
        read_only: true,
        ..Mode::default()
    };
    for wanted in [Wanted::Best, Wanted::Threads] {
        let backing = Arc::new(Backing::open_with(&path, 4096, 512, mode).unwrap());
        // Somebody else would have to be waited for.
        assert!(matches!(backing.flushes().begin(), Turn::Yours));
        let waker = Waker::new().unwrap();
        let (mut engine, _) = Engine::new(&backing, &waker, wanted).unwrap();
        engine.waits().watch(waker.as_fd(), WAKER).unwrap();
        let mut bench = Bench {
            engine,
            waker,
            backing,
            region: Arc::new(Region::anonymous(4096).unwrap()),
            _folder: tempfile::tempdir().unwrap(),
        };
        let segments = vec![Segment {
            offset: 0,
            length: 512,
        }];
        let data = Data::new(&bench.region, segments, 0..4096).unwrap();
        let done = bench.run(read(512, 512, Flush::First), data);
        assert!(done.result.is_ok());
        let mut byte = [0];
        done.data.read_at(511, &mut byte);
        assert_eq!(byte, [1]);
    }
}

#[test]
fn dropping_waits_for_what_is_going_on() {
    for (_, mut bench) in benches() {
        for index in 0..32 {
            let data = bench.data(&[(index * 4096, 4096)]);
            data.write_at(0, &[0x5a; 4096]);
            bench.submit(write(index * 4096, 4096, Durability::Later), data, 0);
        }
        // The kernel is told of them.
        bench
            .engine
            .waits()
            .wait(Some(Duration::ZERO), &mut Vec::new());
        let Bench {
            engine, backing, ..
        } = bench;
        let has_ring = engine.ring.is_some();
        drop(engine);
        let mut found = vec![0; 32 * 4096];
        backing.read_at(&mut found, 0).unwrap();
        let written = found.iter().filter(|&&byte| byte == 0x5a).count();
        // Of a lane, threads have begun four.
        assert!(written >= if has_ring { 32 * 4096 } else { 4 * 4096 });
    }
}
