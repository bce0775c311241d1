//! A seeded simulation of a disk: random commands, in flight together, on a medium that fails and loses power, under the
//! code that serves. A naive model, which shares nothing with it, says what each command must be answered, what each block
//! holds, and what it may hold after a loss of power: what somebody was told to be on stable storage is there.
//!
//! A failure prints its seed. `scripts/sim` runs it again, or runs more seeds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod command;
mod model;
mod platter;
mod run;

#[path = "../sim/seeds.rs"]
mod seeds;

use run::Run;
use seeds::for_each_seed;

#[test]
fn what_a_disk_says_is_true() {
    for_each_seed("what_a_disk_says_is_true", 100, |seed| Run::new(seed).run());
}
