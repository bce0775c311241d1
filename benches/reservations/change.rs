//! PERSISTENT RESERVE OUT at a logical unit, all of it but the storing: from the entry of the ring to the answer.

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use tcmu_pr::pr::Reservations;
use tcmu_pr::scsi::nexus::TransportId;

use crate::figures::Figures;
use crate::group::{Group, repeat};
use crate::world::{
    CLEAR, MOST, PREEMPT, REGISTER, REGISTER_AND_IGNORE, Unit, key, list, name, registered,
    reserved,
};

/// So many registrants each, of whom one is touched.
pub(crate) const SIZES: [usize; 4] = [2, 128, 1_024, MOST];
/// So many registrants are touched each.
pub(crate) const TOUCHED: [usize; 3] = [64, 512, MOST / 2];

/// A registrant takes another key.
pub(crate) const ANOTHER_KEY: &str = "another key";
/// A registrant goes or comes back: one of the two.
pub(crate) const COME_AND_GO: &str = "unregister or register";
/// A registrant is removed by another.
pub(crate) const PREEMPT_ONE: &str = "preempt one";
/// One REGISTER names 64 initiators without their ISIDs, while so many are logged in.
pub(crate) const NAMED: &str = "register 64 others by name";
/// Half of twice as many registrants are removed.
pub(crate) const PREEMPT_HALF: &str = "preempt so many of twice as many";
/// All of so many registrants are removed.
pub(crate) const CLEAR_ALL: &str = "clear so many";

/// How many initiators [`NAMED`] names.
const NAMES: usize = 64;
const SHARED_KEY: u64 = 0xb;

pub(crate) fn run(criterion: &mut Criterion, figures: &Figures) {
    let mut group = Group {
        criterion: criterion.benchmark_group("reserve out"),
        figures,
    };
    for size in SIZES {
        one_of(&mut group, size);
    }
    group
        .criterion
        .sampling_mode(SamplingMode::Flat)
        .sample_size(20)
        .measurement_time(Duration::from_secs(1));
    for size in &SIZES[1..] {
        let list = names(*size);
        let unit = || Unit::new(Reservations::default(), *size);
        group.measure(NAMED, *size, prepared(unit, 0, REGISTER, &list, NAMES + 1));
    }
    for touched in TOUCHED {
        let state = reserved(2 * touched, |number| match number % 2 {
            0 => key(number),
            _ => SHARED_KEY,
        });
        let unit = || Unit::new(state.clone(), 2 * touched);
        let list = list([key(0), SHARED_KEY]);
        group.measure(
            PREEMPT_HALF,
            touched,
            prepared(unit, 0, PREEMPT, &list, touched),
        );
    }
    for touched in TOUCHED {
        let state = reserved(touched, key);
        let unit = || Unit::new(state.clone(), touched);
        let list = list([key(0), 0]);
        group.measure(CLEAR_ALL, touched, prepared(unit, 0, CLEAR, &list, 0));
    }
    group.criterion.finish();
}

/// What touches one registrant, in the middle of the list.
fn one_of(group: &mut Group<'_, '_>, size: usize) {
    let middle = size / 2;
    let mut unit = Unit::new(registered(size, key), size);
    let lists = [1, 2].map(|key| list([0, key]));
    let mut next = lists.iter().cycle();
    group.measure(
        ANOTHER_KEY,
        size,
        repeat(|| unit.reserve_out(middle, REGISTER_AND_IGNORE, next.next().unwrap())),
    );
    let lists = [list([0, 0]), list([0, 1])];
    let mut next = lists.iter().cycle();
    group.measure(
        COME_AND_GO,
        size,
        repeat(|| unit.reserve_out(middle, REGISTER_AND_IGNORE, next.next().unwrap())),
    );

    let mut unit = Unit::new(reserved(size, key), size);
    let preempt = list([key(0), key(middle)]);
    let register = list([0, key(middle)]);
    group.measure(PREEMPT_ONE, size, |runs| {
        let mut took = Duration::ZERO;
        for _ in 0..runs {
            let begun = Instant::now();
            unit.reserve_out(0, PREEMPT, &preempt);
            took += begun.elapsed();
            unit.take_attentions(middle);
            unit.reserve_out(middle, REGISTER, &register);
        }
        took
    });
}

/// Times one command at a new unit each, which has so many registrants then.
fn prepared(
    unit: impl Fn() -> Unit,
    from: usize,
    action: u8,
    list: &[u8],
    left: usize,
) -> impl FnMut(u64) -> Duration {
    move |runs| {
        let mut took = Duration::ZERO;
        for _ in 0..runs {
            let mut unit = unit();
            let begun = Instant::now();
            unit.reserve_out(from, action, list);
            took += begun.elapsed();
            assert_eq!(unit.registrants(), left);
        }
        took
    }
}

/// The parameter list of a REGISTER for the first initiator, and for others all over so many, by their names.
fn names(size: usize) -> Vec<u8> {
    let ids = (0..NAMES).map(|part| {
        let number = 1 + part * (size - 1) / NAMES;
        TransportId::iscsi(&name(number), None).unwrap().encode()
    });
    let ids: Vec<u8> = ids.flatten().collect();
    let mut list = list([0, key(0)]);
    // SPEC_I_PT.
    list[20] = 0x08;
    list.extend(u32::try_from(ids.len()).unwrap().to_be_bytes());
    list.extend(ids);
    list
}
