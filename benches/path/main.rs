//! What the way of a command through the daemon costs, and whether the promises about it hold: processor time, disk
//! operations a second beside fio's, memory, allocations and system calls.
//!
//! The worker is the real one. The kernel's side of its rings is ours, in the same process, and all of it has one
//! processor. Other programs disturb that: what is compared is measured in turns, and told by its median, with the
//! quartiles beside it. `scripts/bench path` runs all of this.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

mod allocations;
mod disk;
#[path = "../measured/figures.rs"]
mod figures;
mod fio;
mod idle;
mod kernel;
mod many;
mod node;
mod null;
mod poll;
mod processor;
#[path = "../measured/promise.rs"]
mod promise;
mod stages;
mod traced;

use std::process::ExitCode;

use figures::Figures;
use promise::Promise;

/// How long it is measured.
struct Plan {
    /// How often what takes a millisecond is done.
    samples: usize,
    /// Rounds of what is compared with fio.
    rounds: usize,
    /// How long each of both runs in a round.
    seconds: f64,
}

const FULL: Plan = Plan {
    samples: 600,
    rounds: 7,
    seconds: 0.6,
};
const QUICK: Plan = Plan {
    samples: 100,
    rounds: 5,
    seconds: 0.3,
};

/// A case, and what it is called.
type Case = (&'static str, fn(&Plan) -> Vec<Promise>);

const CASES: [Case; 7] = [
    ("stages", stages::run),
    ("many", many::run),
    ("idle", idle::run),
    ("allocations", allocations::run),
    ("calls", traced::run),
    ("poll", poll::run),
    ("disk", disk::run),
];

fn main() -> ExitCode {
    processor::keep_to_one();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, name, commands] = &arguments[..] {
        if serve == traced::SERVE {
            traced::serve(name, commands.parse().unwrap());
            return ExitCode::SUCCESS;
        }
    }
    let asked = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if !asked("--bench") {
        // Cargo tests that it can be run.
        return ExitCode::SUCCESS;
    }
    let plan = if asked("--quick") { QUICK } else { FULL };
    let wanted = arguments.iter().find(|word| !word.starts_with('-'));
    let mut promises = Vec::new();
    for (name, run) in CASES {
        if wanted.is_none_or(|wanted| name.contains(wanted.as_str())) {
            promises.extend(run(&plan));
        }
    }
    promise::report(&promises, "")
}

/// A figure of which nothing is promised, with its quartiles.
fn shown(figures: &Figures, case: &'static str, size: usize, measure: &str) -> Promise {
    let [low, high] = match figures.quartiles(case, size) {
        Some([low, _, high]) => [low, high].map(short),
        None => ["-".to_owned(), "-".to_owned()],
    };
    let measure = match measure {
        "" => String::new(),
        measure => format!(", {measure}"),
    };
    let size_shown = if size == 0 {
        String::new()
    } else {
        format!(" {size}")
    };
    Promise {
        what: format!("{case}{size_shown}{measure} ({low} to {high})"),
        measured: figures.median(case, size),
        bound: None,
    }
}

fn short(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}
