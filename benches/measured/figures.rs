//! What was measured.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// The samples of each case, mostly nanoseconds, by its name and its size.
#[derive(Default)]
pub(crate) struct Figures(RefCell<BTreeMap<(&'static str, usize), Vec<f64>>>);

impl Figures {
    /// Adds a sample: so many runs took so long.
    pub(crate) fn add(&self, case: &'static str, size: usize, runs: u64, took: Duration) {
        self.add_value(case, size, took.as_secs_f64() * 1e9 / runs as f64);
    }

    /// Adds a sample of anything.
    pub(crate) fn add_value(&self, case: &'static str, size: usize, value: f64) {
        let mut samples = self.0.borrow_mut();
        samples.entry((case, size)).or_default().push(value);
    }

    /// The median of a case, if it was measured.
    pub(crate) fn median(&self, case: &'static str, size: usize) -> Option<f64> {
        Some(self.quartiles(case, size)?[1])
    }

    /// The lower quartile of a case, its median and its upper quartile, if it was measured.
    pub(crate) fn quartiles(&self, case: &'static str, size: usize) -> Option<[f64; 3]> {
        let mut samples = self.0.borrow().get(&(case, size))?.clone();
        samples.sort_by(f64::total_cmp);
        Some([1, 2, 3].map(|quarter| samples[samples.len() * quarter / 4]))
    }
}
