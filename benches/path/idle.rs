//! The memory that a unit takes that has nothing to do, and each further port of one: anonymous memory of the process.
//! That is without the rings, which are the kernel's, and without what the kernel keeps for a thread.

use std::time::{Duration, Instant};
use std::{fs, thread};

use tcmu_pr::daemon::worker::Poll;

use crate::disk::{File, LOADS};
use crate::node::{self, Running};
use crate::promise::{Bound, Promise};
use crate::{Plan, processor};

const UNITS: usize = 64;
const PORTS: usize = 64;
/// So that whatever is made with the first commands is there.
const COMMANDS: usize = 1_000;
/// How long nothing is done.
const IDLE: Duration = Duration::from_secs(2);
/// What all of them may use then, of one processor.
const IDLE_MOST: f64 = 0.005;

pub(crate) fn run(_: &Plan) -> Vec<Promise> {
    let (_, load) = LOADS[0];
    let files: Vec<File> = (0..=UNITS).map(|_| File::sparse(load.within)).collect();
    processor::use_all();
    let start = |file: &File, ports| {
        let backing = node::backing(&file.path, load.within);
        let store = |waker: &_| node::store(&backing, waker);
        Running::start_polling(load, ports, Poll::Adaptive, store)
    };
    // What the first makes for all is not theirs.
    start(&files[0], 1).stop();

    // All of them stay to the end: none takes memory that another has left.
    let before = Figures::now();
    let many_ports = start(&files[0], 1 + PORTS);
    let with_many_ports = Figures::now();
    let mut units: Vec<Running> = files[1..].iter().map(|file| start(file, 1)).collect();
    let fresh = Figures::now();
    for unit in &mut units {
        unit.serve(COMMANDS);
    }
    let served = Figures::now();
    let (begun, used) = (Instant::now(), processor::used());
    thread::sleep(IDLE);
    let idle = (processor::used() - used).as_secs_f64() / begun.elapsed().as_secs_f64();
    units.into_iter().for_each(Running::stop);
    many_ports.stop();
    processor::keep_to_one();

    let idle = Promise {
        what: format!("processor time of {UNITS} idle units that poll, of one processor"),
        measured: Some(idle),
        bound: Some(Bound::AtMost(IDLE_MOST)),
    };
    let line = |what: &str, measured: f64| Promise {
        what: what.to_owned(),
        measured: Some(measured),
        bound: None,
    };
    let each = |after: f64, before: f64| (after - before) / UNITS as f64;
    let memory = |figures: &Figures| figures.kibibytes;
    let fresh_unit = each(memory(&fresh), memory(&with_many_ports));
    let served_unit = each(memory(&served), memory(&with_many_ports));
    let ports = memory(&with_many_ports) - memory(&before) - fresh_unit;
    let threads = |figures: &Figures| each(figures.threads, with_many_ports.threads);
    vec![
        line("memory of an idle unit, fresh, KiB", fresh_unit),
        line("memory of an idle unit that has served, KiB", served_unit),
        line("memory of each further port, KiB", ports / PORTS as f64),
        line("threads of a unit, fresh", threads(&fresh)),
        line("threads of a unit that has served", threads(&served)),
        idle,
    ]
}

/// How things are with this process.
struct Figures {
    /// Of anonymous memory.
    kibibytes: f64,
    threads: f64,
}

impl Figures {
    fn now() -> Figures {
        Figures {
            kibibytes: number("/proc/self/smaps_rollup", "Anonymous:"),
            threads: number("/proc/self/status", "Threads:"),
        }
    }
}

/// The number behind a name.
fn number(path: &str, name: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next());
    number.unwrap().parse().unwrap()
}
