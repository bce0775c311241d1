//! The whole way of a command, with the store that the daemon has, on a file in memory and on one of a disk's file system
//! that is all in the page cache, and past that: beside the bare I/O, and beside fio.
//!
//! The bare I/O is one system call for each operation; for what may have to wait, fio's io_uring at the same depth.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::figures::Figures;
use crate::fio::{ENGINES, Fio};
use crate::kernel::{Load, Way};
use crate::node::{self, Running, Unit};
use crate::promise::{Bound, Promise};
use crate::{Plan, processor, shown};

const SIZE: u64 = 256 << 20;
const MEMORY: &str = "/dev/shm";
/// Names another folder than the build's to measure a disk in.
const FOLDER: &str = "TCMU_PR_BENCH_FOLDER";
/// Of fio's operations for each second of the processor's.
const LEAST: f64 = 0.7;
/// Nanoseconds of the daemon for each command, above the I/O.
const MOST: f64 = 1500.0;
/// Commands that are served without a look at the clock.
const AT_A_TIME: usize = 2_048;

/// What is sent, and what it is called.
pub(crate) const LOADS: [(&str, Load); 4] = [
    ("4 KiB read", load(Way::Read, 4096, 32)),
    ("4 KiB write", load(Way::Write, 4096, 32)),
    ("128 KiB read", load(Way::Read, 128 << 10, 8)),
    ("128 KiB write", load(Way::Write, 128 << 10, 8)),
];

const fn load(way: Way, length: usize, depth: usize) -> Load {
    Load {
        way,
        length,
        depth,
        within: SIZE,
    }
}

const TURNS: &str = "taking turns";
const THREAD: &str = "a thread of its own";
const BARE: &str = "the system calls alone";
const TURNS_ABOVE: &str = "above the I/O, taking turns";
const THREAD_ABOVE: &str = "above the I/O, a thread of its own";
const TURNS_TO_FIO: &str = "taking turns : the best of fio";
const THREAD_TO_FIO: &str = "a thread of its own, its part : the best of fio";

/// A file that is there until the end of the measurement.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

impl File {
    /// One of [`SIZE`] bytes, all of which are in memory.
    pub(crate) fn in_memory() -> File {
        File::written(Path::new(MEMORY))
    }

    /// One without content.
    pub(crate) fn sparse(size: u64) -> File {
        let file = File::below(Path::new(MEMORY));
        fs::File::create(&file.path).unwrap().set_len(size).unwrap();
        file
    }

    fn below(folder: &Path) -> File {
        let folder = tempfile::tempdir_in(folder).unwrap();
        File {
            path: folder.path().join("lun0.img"),
            _folder: folder,
        }
    }

    fn written(folder: &Path) -> File {
        let file = File::below(folder);
        let mut content = fs::File::create(&file.path).unwrap();
        for _ in 0..SIZE >> 20 {
            content.write_all(&[0x5a; 1 << 20]).unwrap();
        }
        // What is written now is not written back while it is measured.
        content.sync_all().unwrap();
        file
    }
}

pub(crate) fn run(plan: &Plan) -> Vec<Promise> {
    // Cargo's folder for what benchmarks write: below `target`, and so on a disk as real as the sources' own.
    let disk = std::env::var_os(FOLDER).map_or(env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let mut promises = Vec::new();
    for (folder, direct) in [(Path::new(MEMORY), false), (&disk, false), (&disk, true)] {
        let mut place = file_system(folder);
        if direct {
            place += ", past the page cache";
        }
        let file = File::written(folder);
        for (name, load) in LOADS {
            // What is written to a disk's file system may have to wait: one thread that serves all can't just call.
            let must_wait = direct || load.way == Way::Write && folder == disk;
            let figures = measure(&file.path, load, direct, must_wait, plan);
            for line in lines(&figures, load, direct) {
                promises.push(Promise {
                    what: format!("{place}, {name}: {}", line.what),
                    ..line
                });
            }
        }
    }
    promises
}

/// What the file system is called that a folder is on.
fn file_system(folder: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let below = mounts.filter(|(point, _)| folder.starts_with(point));
    let (_, name) = below.max_by_key(|(point, _)| point.len()).unwrap();
    name.to_owned()
}

/// All ways, in turns.
fn measure(path: &Path, load: Load, direct: bool, must_wait: bool, plan: &Plan) -> Figures {
    let figures = Figures::default();
    let fio = Fio::new(path, load, direct);
    let backing = node::backing_with(path, load.within, direct);
    let mut turns = Unit::new(load, 1, |waker| node::store(&backing, waker));
    let mut thread = Running::start(load, 1, |waker| node::store(&backing, waker));
    let mut bare = (!direct).then(|| Bare::new(path, load));
    for _ in 0..plan.rounds {
        let of_fio = ENGINES.iter().filter_map(|engine| {
            let rate = fio.as_ref()?.rate(engine, plan.seconds)?;
            figures.add_value(engine.name, 0, rate / 1e3);
            Some((engine.is_deep, rate))
        });
        let of_fio: Vec<(bool, f64)> = of_fio.collect();
        let best_of_fio = of_fio.iter().map(|&(_, rate)| rate).reduce(f64::max);
        let deep_of_fio = of_fio.iter().find(|&&(is_deep, _)| is_deep);
        let by_turns = used(plan.seconds, || turns.serve(AT_A_TIME));
        let by_thread = used(plan.seconds, || thread.serve(AT_A_TIME));
        let bare = bare
            .as_mut()
            .map(|bare| used(plan.seconds, || bare.operate(AT_A_TIME)));
        for (case, used) in [
            (TURNS, Some(&by_turns)),
            (THREAD, Some(&by_thread)),
            (BARE, bare.as_ref()),
        ] {
            if let Some(used) = used {
                figures.add_value(case, 0, 1.0 / used.all / 1e3);
            }
        }
        // The kernel's side is left in: it is little.
        let of_the_daemon = by_thread.all - by_thread.this_thread;
        let io = match (deep_of_fio, &bare) {
            (Some((_, rate)), _) if must_wait => Some(1.0 / rate),
            (_, bare) => bare.as_ref().map(|bare| bare.all),
        };
        if let Some(io) = io {
            figures.add_value(TURNS_ABOVE, 0, (by_turns.all - io) * 1e9);
            figures.add_value(THREAD_ABOVE, 0, (of_the_daemon - io) * 1e9);
        }
        if let Some(best) = best_of_fio {
            figures.add_value(TURNS_TO_FIO, 0, 1.0 / by_turns.all / best);
            figures.add_value(THREAD_TO_FIO, 0, 1.0 / of_the_daemon / best);
        }
    }
    thread.stop();
    figures
}

/// Seconds of the processor that an operation uses.
struct Used {
    /// In all threads of this process.
    all: f64,
    /// In this one.
    this_thread: f64,
}

/// What an operation uses; `operate` does [`AT_A_TIME`] of them.
fn used(seconds: f64, mut operate: impl FnMut()) -> Used {
    let begun = Instant::now();
    let (all, this_thread) = (processor::used(), processor::used_by_this_thread());
    let mut operations = 0;
    while begun.elapsed().as_secs_f64() < seconds {
        operate();
        operations += AT_A_TIME;
    }
    let each = |used: Duration| used.as_secs_f64() / operations as f64;
    Used {
        all: each(processor::used() - all),
        this_thread: each(processor::used_by_this_thread() - this_thread),
    }
}

/// What cannot be left out: one system call for each operation.
struct Bare {
    file: fs::File,
    load: Load,
    buffer: Vec<u8>,
    random: fastrand::Rng,
}

impl Bare {
    fn new(path: &Path, load: Load) -> Bare {
        let options = fs::OpenOptions::new().read(true).write(true).open(path);
        Bare {
            file: options.unwrap(),
            load,
            buffer: vec![0x5a; load.length],
            random: fastrand::Rng::with_seed(7),
        }
    }

    fn operate(&mut self, count: usize) {
        let length = self.load.length as u64;
        for _ in 0..count {
            let at = self.random.u64(0..self.load.within / length) * length;
            match self.load.way {
                Way::Read => self.file.read_exact_at(&mut self.buffer, at),
                Way::Write => self.file.write_all_at(&self.buffer, at),
            }
            .unwrap();
        }
    }
}

fn lines(figures: &Figures, load: Load, direct: bool) -> Vec<Promise> {
    let is_small = load.length == 4096;
    let engines = ENGINES.iter().map(|engine| engine.name);
    let mut lines: Vec<Promise> = [TURNS, THREAD, BARE]
        .into_iter()
        .chain(engines)
        .map(|case| shown(figures, case, 0, "thousands a second"))
        .collect();
    let is_cached_read = load.way == Way::Read && !direct;
    for (case, measure, bound, is_promised) in [
        // A turn is over before what goes past the page cache has ended: it takes more of them.
        (TURNS_ABOVE, "ns", Bound::AtMost(MOST), is_small && !direct),
        (THREAD_ABOVE, "ns", Bound::AtMost(MOST), is_small),
        (
            TURNS_TO_FIO,
            "",
            Bound::AtLeast(LEAST),
            is_small && is_cached_read,
        ),
        (
            THREAD_TO_FIO,
            "",
            Bound::AtLeast(LEAST),
            is_small && is_cached_read,
        ),
    ] {
        lines.push(Promise {
            bound: is_promised.then_some(bound),
            ..shown(figures, case, 0, measure)
        });
    }
    lines
}
