//! How often the worker's thread allocates memory for a command, once all that it keeps is there.

use tcmu_pr::lu::task::Pending;
use tcmu_pr::store::Store;

use crate::disk::{File, LOADS};
use crate::node::{self, Unit};
use crate::null::Null;
use crate::promise::{Bound, Promise};
use crate::{Plan, stages};

/// Enough for the ring to come round, which takes one more note of what lies on it.
const WARM_UP: usize = 20_000;
const COMMANDS: usize = 10_000;

pub(crate) fn run(_: &Plan) -> Vec<Promise> {
    let mut promises = vec![Promise {
        what: "4 KiB read, no I/O: allocations".to_owned(),
        measured: Some(each(&mut Unit::new(stages::LOAD, 1, |_| Null::new()))),
        bound: Some(Bound::AtMost(0.0)),
    }];
    let file = File::in_memory();
    for (name, load) in LOADS {
        let backing = node::backing(&file.path, load.within);
        let mut unit = Unit::new(load, 1, |waker| node::store(&backing, waker));
        promises.push(Promise {
            what: format!("{name}: allocations"),
            measured: Some(each(&mut unit)),
            bound: Some(Bound::AtMost(0.0)),
        });
    }
    promises
}

fn each<S: Store<Pending>>(unit: &mut Unit<S>) -> f64 {
    unit.serve(WARM_UP);
    let counted = allocation_counter::measure(|| unit.serve(COMMANDS));
    counted.count_total as f64 / COMMANDS as f64
}
