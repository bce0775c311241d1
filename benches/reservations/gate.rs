//! The gate: may this I_T nexus run this command?

use std::hint::black_box;

use criterion::Criterion;
use tcmu_pr::pr::gate::Standing;
use tcmu_pr::scsi::Access;

use crate::figures::Figures;
use crate::group::{Group, repeat};
use crate::world::{self, MOST, nexus};

/// So many registrants each.
pub(crate) const SIZES: [usize; 5] = [1, 16, 128, 1_024, MOST];
/// What every command waits for.
pub(crate) const COMMAND: &str = "gate, each command";
/// What the first command of a nexus after a change waits for besides.
pub(crate) const FIRST: &str = "gate, first command after a change";

pub(crate) fn run(criterion: &mut Criterion, figures: &Figures) {
    let mut group = Group {
        criterion: criterion.benchmark_group("gate"),
        figures,
    };
    for size in SIZES {
        let state = world::reserved(size, world::key);
        let registrant = nexus(size / 2);
        let mut standing = Standing::new(&state, 1, Some(&registrant));
        group.measure(
            COMMAND,
            size,
            repeat(|| {
                let standing = black_box(&mut standing);
                standing.refresh(&state, black_box(1), Some(&registrant));
                standing.admits(black_box(Access::Write))
            }),
        );
        // Registrants all over the list but the holder, and one who is none: they all have to be looked up.
        let asking: Vec<_> = (0..16)
            .map(|part| nexus(1 + (size - 1) * part / 15))
            .collect();
        let mut next = asking.iter().cycle();
        group.measure(
            FIRST,
            size,
            repeat(|| Standing::new(black_box(&state), 1, next.next())),
        );
    }
    group.criterion.finish();
}
