//! Cases that criterion measures.

use std::time::{Duration, Instant};

use criterion::BenchmarkId;
use criterion::measurement::WallTime;

use crate::figures::Figures;

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
