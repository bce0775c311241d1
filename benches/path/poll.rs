//! What it gains to look at the rings again before sleeping, and what it costs: one command at a time, as a single
//! initiator sends them that waits for each answer, with a processor for each side where there are two.

use std::time::{Duration, Instant};

use tcmu_pr::daemon::worker::Poll;

use crate::disk::{File, LOADS};
use crate::figures::Figures;
use crate::kernel::Load;
use crate::node::{self, Running};
use crate::promise::Promise;
use crate::{Plan, processor, shown};

const POLLS: [(&str, &str, Poll); 3] = [
    (
        "one 4 KiB read at a time, no polling: thousands a second",
        "one 4 KiB read at a time, no polling: processor time each, ns",
        Poll::Off,
    ),
    (
        "one 4 KiB read at a time, adaptive polling: thousands a second",
        "one 4 KiB read at a time, adaptive polling: processor time each, ns",
        Poll::Adaptive,
    ),
    (
        "one 4 KiB read at a time, 50 us of polling: thousands a second",
        "one 4 KiB read at a time, 50 us of polling: processor time each, ns",
        Poll::Fixed(Duration::from_micros(50)),
    ),
];
const COMMANDS: usize = 4_096;

pub(crate) fn run(plan: &Plan) -> Vec<Promise> {
    processor::use_all();
    let figures = Figures::default();
    let load = Load {
        depth: 1,
        ..LOADS[0].1
    };
    let files = POLLS.map(|_| File::sparse(load.within));
    let mut units: Vec<_> = POLLS
        .iter()
        .zip(&files)
        .map(|(&(rate, used, poll), file)| {
            let backing = node::backing(&file.path, load.within);
            let store = |waker: &_| node::store(&backing, waker);
            (rate, used, Running::start_polling(load, 1, poll, store))
        })
        .collect();
    for _ in 0..plan.rounds {
        for (rate, used, unit) in &mut units {
            let (begun, before) = (Instant::now(), processor::used());
            unit.serve(COMMANDS);
            let commands = COMMANDS as f64;
            let thousands = commands / begun.elapsed().as_secs_f64() / 1e3;
            let each = (processor::used() - before).as_secs_f64() / commands;
            figures.add_value(rate, 0, thousands);
            figures.add_value(used, 0, each * 1e9);
        }
    }
    units.into_iter().for_each(|(.., unit)| unit.stop());
    processor::keep_to_one();
    let cases = POLLS.iter().flat_map(|&(rate, used, _)| [rate, used]);
    cases.map(|case| shown(&figures, case, 0, "")).collect()
}
