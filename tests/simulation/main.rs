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

#[path = "../sim/seeds.rs"]
mod seeds;

mod litmus;
mod node;
mod oracle;
mod random;
