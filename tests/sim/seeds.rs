//! Simulations that one number decides.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The seeds of this run: as many as usual unless the environment says otherwise.
fn seeds(usual: u64) -> Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    match (number("TCMU_PR_SEED"), number("TCMU_PR_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, seeds) => 0..seeds.unwrap_or(usual),
    }
}

/// Runs a simulation with each seed, and says which one fails.
pub(crate) fn for_each_seed(test: &str, usual: u64, simulate: impl Fn(u64)) {
    for seed in seeds(usual) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
            eprintln!("scripts/sim --seed {seed} {test}");
            resume_unwind(panic);
        }
    }
}
