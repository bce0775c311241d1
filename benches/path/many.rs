//! Many units and many ports on one processor: each command is to cost what it costs with one.

use crate::figures::Figures;
use crate::kernel::Load;
use crate::node::Unit;
use crate::null::Null;
use crate::promise::{Bound, Promise, divided};
use crate::stages::{DEPTH, LOAD};
use crate::{Plan, shown};

const SIZES: [usize; 3] = [1, 8, 64];
/// Of the commands a second with one.
const LEAST: f64 = 0.9;

const UNITS: &str = "units, each with 32 commands:";
const PORTS: &str = "ports of a unit, each with 32 commands:";
const SPREAD: &str = "ports of a unit, 32 commands (one each at least):";

pub(crate) fn run(plan: &Plan) -> Vec<Promise> {
    let figures = Figures::default();
    let null = |load, ports| Unit::new(load, ports, |_| Null::new());
    let mut units = SIZES.map(|size| -> Vec<_> { (0..size).map(|_| null(LOAD, 1)).collect() });
    let mut ports = SIZES.map(|size| null(LOAD, size));
    let mut spread = SIZES.map(|size| {
        let depth = (DEPTH / size).max(1);
        null(Load { depth, ..LOAD }, size)
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
            }
        }
    }
    let mut promises = Vec::new();
    for (case, is_promised) in [(UNITS, true), (PORTS, true), (SPREAD, false)] {
        for size in SIZES {
            promises.push(shown(&figures, case, size, "ns a command"));
        }
        for size in &SIZES[1..] {
            promises.push(Promise {
                what: format!("{case} {size}, commands a second : with 1"),
                measured: divided(figures.median(case, 1), figures.median(case, *size)),
                bound: is_promised.then_some(Bound::AtLeast(LEAST)),
            });
        }
    }
    promises
}

/// Adds one turn.
fn add(figures: &Figures, case: &'static str, size: usize, unit: &mut Unit<Null>) {
    let turn = unit.turn(usize::MAX);
    figures.add(case, size, turn.done as u64, turn.worker);
}
