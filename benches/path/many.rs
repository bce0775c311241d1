//! Many units and many ports on one processor: each command is to cost what it costs with one. Each unit has the store
//! that the daemon has, on a file in memory.
//!
//! More buffers and files than the processor's caches hold cost whoever moves data. So what counts is how many times as
//! much as the system calls alone a command costs, on as many files into as many buffers.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use tcmu_pr::lu::task::Pending;
use tcmu_pr::store::engine::Engine;

use crate::disk::File;
use crate::figures::Figures;
use crate::kernel::Load;
use crate::node::{self, Unit};
use crate::promise::{Bound, Promise, divided};
use crate::stages::{DEPTH, LOAD};
use crate::{Plan, shown};

const SIZES: [usize; 3] = [1, 8, 64];
/// Of the commands a second with one.
const LEAST: f64 = 0.9;

const UNITS: &str = "units, each with 32 commands:";
const PORTS: &str = "ports of a unit, each with 32 commands:";
const BARE: &str = "the system calls alone, files with 32 buffers each:";
const SPREAD: &str = "ports of a unit, 32 commands (one each at least):";

pub(crate) fn run(plan: &Plan) -> Vec<Promise> {
    let figures = Figures::default();
    let files: Vec<File> = (0..SIZES.iter().sum::<usize>() + 2 * SIZES.len())
        .map(|_| File::sparse(LOAD.within))
        .collect();
    let mut files = files.iter();
    let mut unit = |load: Load, ports| {
        let file = files.next().expect("there is one for each");
        let backing = node::backing(&file.path, load.within);
        Unit::new(load, ports, |waker| node::store(&backing, waker))
    };
    let mut units = SIZES.map(|size| -> Vec<_> { (0..size).map(|_| unit(LOAD, 1)).collect() });
    let mut ports = SIZES.map(|size| unit(LOAD, size));
    let mut bare = SIZES.map(Bare::new);
    let mut spread = SIZES.map(|size| {
        let depth = (DEPTH / size).max(1);
        unit(Load { depth, ..LOAD }, size)
    });
    for _ in 0..plan.samples / 8 {
        for (at, size) in SIZES.into_iter().enumerate() {
            // As many turns of a unit, whatever the number of units.
            for _ in 0..SIZES[2] / size {
                for unit in &mut units[at] {
                    add(&figures, UNITS, size, unit);
                }
                add(&figures, PORTS, size, &mut ports[at]);
                add(&figures, SPREAD, size, &mut spread[at]);
                bare[at].add(&figures);
            }
        }
    }
    let mut promises = Vec::new();
    for case in [BARE, UNITS, PORTS, SPREAD] {
        for size in SIZES {
            promises.push(shown(&figures, case, size, "ns a command"));
        }
    }
    let above = |case, size| divided(figures.median(case, size), figures.median(BARE, size));
    for case in [UNITS, PORTS] {
        for size in &SIZES[1..] {
            promises.push(Promise {
                what: format!("{case} {size}, commands a second beside the system calls : with 1"),
                measured: divided(above(case, 1), above(case, *size)),
                bound: Some(Bound::AtLeast(LEAST)),
            });
        }
    }
    promises
}

/// The system calls alone, on so many files, each with as many buffers as a unit has.
struct Bare {
    files: Vec<(fs::File, File)>,
    buffers: Vec<u8>,
    random: fastrand::Rng,
}

impl Bare {
    fn new(size: usize) -> Bare {
        let open = |file: File| (fs::File::open(&file.path).unwrap(), file);
        Bare {
            files: (0..size).map(|_| open(File::sparse(LOAD.within))).collect(),
            buffers: vec![0x5a; size * DEPTH * LOAD.length],
            random: fastrand::Rng::with_seed(7),
        }
    }

    /// Adds one turn on each file.
    fn add(&mut self, figures: &Figures) {
        let begun = Instant::now();
        let length = LOAD.length as u64;
        let buffers = self.buffers.chunks_mut(DEPTH * LOAD.length);
        for ((file, _), buffers) in self.files.iter().zip(buffers) {
            for buffer in buffers.chunks_mut(LOAD.length) {
                let at = self.random.u64(0..LOAD.within / length) * length;
                file.read_exact_at(buffer, at).unwrap();
            }
        }
        let operations = self.files.len() * DEPTH;
        figures.add(BARE, self.files.len(), operations as u64, begun.elapsed());
    }
}

/// Adds one turn.
fn add(figures: &Figures, case: &'static str, size: usize, unit: &mut Unit<Engine<Pending>>) {
    let turn = unit.turn(usize::MAX);
    figures.add(case, size, turn.done as u64, turn.worker);
}
