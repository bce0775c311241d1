//! What reservations cost, and whether the promises about it hold: how long a command waits at the gate, and how long
//! PERSISTENT RESERVE OUT takes, with one registrant and with 8,190.
//!
//! Criterion measures. What is compared is compared by the median of its samples, and the table of the promises comes
//! last: `scripts/bench` runs all of this.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

mod change;
#[path = "../measured/figures.rs"]
mod figures;
mod gate;
mod group;
#[path = "../../tests/sim/kernel.rs"]
mod kernel;
#[path = "../measured/promise.rs"]
mod promise;
mod promises;
mod record;
mod ring;
mod world;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use criterion::Criterion;

use figures::Figures;

fn main() -> ExitCode {
    // Cargo's folder for what benchmarks write: below `target`, and so on a disk as real as the sources' own.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .output_directory(&folder.join("criterion"))
        .configure_from_args();
    let figures = Figures::default();
    gate::run(&mut criterion, &figures);
    ring::run(&mut criterion, &figures);
    change::run(&mut criterion, &figures);
    record::run(&mut criterion, &figures, folder);
    criterion.final_summary();
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    if !asked("--bench") || asked("--test") || asked("--list") {
        // Each case ran once, or not at all: that measures nothing.
        return ExitCode::SUCCESS;
    }
    promises::report(&figures)
}
