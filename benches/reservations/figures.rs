//! The times that were measured.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use criterion::BenchmarkId;
use criterion::measurement::WallTime;

/// Nanoseconds of each sample, by the name of the case and its size.
#[derive(Default)]
pub(crate) struct Figures(RefCell<BTreeMap<(&'static str, usize), Vec<f64>>>);

impl Figures {
    /// Adds a sample: so many runs took so long.
    pub(crate) fn add(&self, case: &'static str, size: usize, runs: u64, took: Duration) {
        let each = took.as_secs_f64() * 1e9 / runs as f64;
        self.0
            .borrow_mut()
            .entry((case, size))
            .or_default()
            .push(each);
    }

    /// The median of a case in nanoseconds, if it was measured.
    pub(crate) fn median(&self, case: &'static str, size: usize) -> Option<f64> {
        let mut samples = self.0.borrow().get(&(case, size))?.clone();
        samples.sort_by(f64::total_cmp);
        Some(samples[samples.len() / 2])
    }
}

/// Cases of one kind.
pub(crate) struct Group<'a, 'b> {
    pub(crate) criterion: criterion::BenchmarkGroup<'a, WallTime>,
    pub(crate) figures: &'b Figures,
}

impl Group<'_, '_> {
    /// Measures a case. `time` runs it so many times, and says how long that took.
    pub(crate) fn measure(
        &mut self,
        case: &'static str,
        size: usize,
        mut time: impl FnMut(u64) -> Duration,
    ) {
        let id = BenchmarkId::new(case, size);
        self.criterion.bench_function(id, |bencher| {
            bencher.iter_custom(|runs| {
                let took = time(runs);
                self.figures.add(case, size, runs, took);
                took
            });
        });
    }
}

/// Repeats what needs no preparation.
pub(crate) fn repeat<T>(mut run: impl FnMut() -> T) -> impl FnMut(u64) -> Duration {
    move |runs| {
        let begun = Instant::now();
        for _ in 0..runs {
            std::hint::black_box(run());
        }
        begun.elapsed()
    }
}
