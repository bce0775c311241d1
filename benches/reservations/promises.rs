//! What is promised of these times, and whether it holds.

use std::process::ExitCode;

use crate::figures::Figures;
use crate::promise::{self, Bound, Promise, divided};
use crate::{change, gate, record, ring};

/// Of a time that is to stay the same, how much of a difference is none: caches, and other programs.
const FLAT: f64 = 2.0;
/// With 4,095 times as many registrants: trees are a few levels deeper, and no longer in the nearest cache.
const NEARLY_FLAT: f64 = 8.0;
/// Of the time of a read.
const PART_OF_A_READ: f64 = 0.01;
const MICROSECONDS: f64 = 20.0;
const TIMES_A_REPLACEMENT: f64 = 2.0;

/// Prints the table. Fails if something that is promised does not hold.
pub(crate) fn report(figures: &Figures) -> ExitCode {
    let mut text = "\nTIMES, MEDIANS\n".to_owned();
    for (case, sizes) in cases() {
        let times = sizes.iter().map(|&size| {
            let time = figures.median(case, size);
            format!("{size}: {}", time.map_or("-".to_owned(), duration))
        });
        text += &format!("{case:34} {}\n", times.collect::<Vec<_>>().join(", "));
    }
    promise::report(&promises(figures), &text)
}

fn promises(figures: &Figures) -> Vec<Promise> {
    let mut promises = vec![
        Promise {
            what: "gate, each command: slowest size : fastest".to_owned(),
            measured: spread(figures, gate::COMMAND, &gate::SIZES),
            bound: Some(Bound::AtMost(FLAT)),
        },
        Promise {
            what: "gate, first command after a change: slowest size : fastest".to_owned(),
            measured: spread(figures, gate::FIRST, &gate::SIZES),
            bound: Some(Bound::AtMost(FLAT)),
        },
        Promise {
            what: "gate, slowest size : 4 KiB read, fastest size".to_owned(),
            measured: divided(
                slowest(figures, gate::COMMAND, &gate::SIZES),
                fastest(figures, ring::READ, &ring::SIZES),
            ),
            bound: Some(Bound::AtMost(PART_OF_A_READ)),
        },
        Promise {
            what: "4 KiB read: slowest size : fastest".to_owned(),
            measured: spread(figures, ring::READ, &ring::SIZES),
            bound: Some(Bound::AtMost(FLAT)),
        },
    ];
    let one_touched = [
        change::ANOTHER_KEY,
        change::COME_AND_GO,
        change::PREEMPT_ONE,
    ];
    for case in one_touched {
        let [few, .., many] = change::SIZES;
        promises.push(Promise {
            what: format!("{case}, microseconds with {many} registrants"),
            measured: figures.median(case, many).map(|time| time / 1e3),
            bound: Some(Bound::AtMost(MICROSECONDS)),
        });
        promises.push(Promise {
            what: format!("{case}: {many} registrants : {few}"),
            measured: divided(figures.median(case, many), figures.median(case, few)),
            bound: Some(Bound::AtMost(NEARLY_FLAT)),
        });
    }
    let [_, few, .., many] = change::SIZES;
    promises.push(Promise {
        what: format!("{}: {many} logged in : {few}", change::NAMED),
        measured: divided(
            figures.median(change::NAMED, many),
            figures.median(change::NAMED, few),
        ),
        bound: Some(Bound::AtMost(NEARLY_FLAT)),
    });
    for case in [change::PREEMPT_HALF, change::CLEAR_ALL] {
        let [few, .., many] = change::TOUCHED;
        promises.push(Promise {
            what: format!("{case}, each: {many} : {few}"),
            measured: divided(
                each(figures.median(case, many), many),
                each(figures.median(case, few), few),
            ),
            bound: Some(Bound::AtMost(NEARLY_FLAT)),
        });
    }
    for size in record::SIZES {
        promises.push(Promise {
            what: format!(
                "{} : {}, {size} registrants",
                record::DURABLE,
                record::PLAIN
            ),
            measured: divided(
                figures.median(record::DURABLE, size),
                figures.median(record::PLAIN, size),
            ),
            bound: Some(Bound::AtMost(TIMES_A_REPLACEMENT)),
        });
    }
    promises
}

/// Every case, and its sizes.
fn cases() -> Vec<(&'static str, &'static [usize])> {
    vec![
        (gate::COMMAND, &gate::SIZES),
        (gate::FIRST, &gate::SIZES),
        (ring::READ, &ring::SIZES),
        (change::ANOTHER_KEY, &change::SIZES),
        (change::COME_AND_GO, &change::SIZES),
        (change::PREEMPT_ONE, &change::SIZES),
        (change::NAMED, &change::SIZES[1..]),
        (change::PREEMPT_HALF, &change::TOUCHED),
        (change::CLEAR_ALL, &change::TOUCHED),
        (record::RUNTIME, &record::SIZES),
        (record::DURABLE, &record::SIZES),
        (record::PLAIN, &record::SIZES),
    ]
}

fn medians(figures: &Figures, case: &'static str, sizes: &[usize]) -> Option<Vec<f64>> {
    let medians = sizes.iter().map(|&size| figures.median(case, size));
    medians.collect()
}

fn slowest(figures: &Figures, case: &'static str, sizes: &[usize]) -> Option<f64> {
    medians(figures, case, sizes)?.into_iter().reduce(f64::max)
}

fn fastest(figures: &Figures, case: &'static str, sizes: &[usize]) -> Option<f64> {
    medians(figures, case, sizes)?.into_iter().reduce(f64::min)
}

fn spread(figures: &Figures, case: &'static str, sizes: &[usize]) -> Option<f64> {
    divided(slowest(figures, case, sizes), fastest(figures, case, sizes))
}

fn each(time: Option<f64>, count: usize) -> Option<f64> {
    time.map(|time| time / count as f64)
}

fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}
