//! A seeded simulation of a whole node: the kernel's rings, the worker, a disk whose operations take their time, records on
//! a disk that fails, daemons that are killed, and losses of power.
//!
//! The worker is the real one; only its thread is missing: the test takes its turns, and time is counted in turns. What
//! the nodes send is random, and so is all that happens to it. A naive model of the standard, which shares nothing with
//! the engine, says what each command must have been answered.
//!
//! A failure prints its seed, and the command that runs it again. `scripts/sim --seeds 100000` runs so many instead of the
//! usual number.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../model/engine.rs"]
#[allow(dead_code, reason = "the exhaustive model uses all of it")]
mod engine;
#[path = "../sim/files.rs"]
mod files;
#[path = "../sim/kernel.rs"]
mod kernel;
#[path = "../model/rules.rs"]
#[allow(dead_code, reason = "the exhaustive model uses all of it")]
mod rules;

mod litmus;
mod node;
mod oracle;
mod random;

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
fn for_each_seed(test: &str, usual: u64, simulate: impl Fn(u64)) {
    for seed in seeds(usual) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
            eprintln!("scripts/sim --seed {seed} {test}");
            resume_unwind(panic);
        }
    }
}
