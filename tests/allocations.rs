//! The way of a READ or WRITE allocates no memory, once all that the daemon keeps is there: what is allocated costs time, and
//! can fail.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(dead_code, reason = "the benchmark of the same way uses the rest")]

#[path = "../benches/path/kernel.rs"]
mod kernel;
#[path = "../benches/path/node.rs"]
mod node;

use kernel::{Load, Way};
use node::Unit;

/// A unit of so many bytes.
const SIZE: u64 = 16 << 20;
/// After so many commands, all is there.
const WARM_UP: usize = 2_000;
const COMMANDS: usize = 10_000;

/// How often the worker's thread allocates while it serves the commands.
fn allocations(way: Way, length: usize, depth: usize) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let load = Load {
        way,
        length,
        depth,
        within: SIZE,
    };
    let backing = node::backing(&folder.path().join("lun0.img"), SIZE);
    let mut unit = Unit::new(load, 1, |waker| node::store(&backing, waker));
    unit.serve(WARM_UP);
    let counted = allocation_counter::measure(|| unit.serve(COMMANDS));
    counted.count_total
}

#[test]
fn the_allocations_of_a_thread_are_counted() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![7u8; 100])));
    assert_eq!(counted.count_total, 1);
}

#[test]
fn reads_and_writes_of_a_page_allocate_nothing() {
    assert_eq!(allocations(Way::Read, 4096, 32), 0);
    assert_eq!(allocations(Way::Write, 4096, 32), 0);
}

#[test]
fn reads_and_writes_of_many_pieces_allocate_nothing() {
    assert_eq!(allocations(Way::Read, 128 << 10, 8), 0);
    assert_eq!(allocations(Way::Write, 128 << 10, 8), 0);
}
