//! Storing what a PERSISTENT RESERVE OUT has changed.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use tcmu_pr::daemon::records::{Keep, Records};
use tcmu_pr::lu::ToStore;
use tcmu_pr::pr::{Reservations, Save};

use crate::figures::Figures;
use crate::group::Group;
use crate::world::{MOST, REGISTER, after, key, list, reserved};

/// So many registrants each.
pub(crate) const SIZES: [usize; 4] = [1, 128, 1_024, MOST];
/// A change with APTPL on: both records.
pub(crate) const DURABLE: &str = "store with APTPL";
/// One write, fsync, rename and fsync of the folder, of as many bytes as the record has.
pub(crate) const PLAIN: &str = "write, fsync, rename, fsync";
/// A change with APTPL off: the record that outlives the daemon.
pub(crate) const RUNTIME: &str = "store without APTPL";

const SERIAL: &str = "0123456789abcdef0123456789abcdef";
/// Where `/run` may not be in memory, this is.
const MEMORY: &str = "/dev/shm";

pub(crate) fn run(criterion: &mut Criterion, figures: &Figures, disk: &Path) {
    let mut group = Group {
        criterion: criterion.benchmark_group("record"),
        figures,
    };
    group
        .criterion
        .sampling_mode(SamplingMode::Flat)
        .sample_size(20)
        .measurement_time(Duration::from_secs(3));
    for size in SIZES {
        let run = tempfile::tempdir_in(MEMORY).unwrap();
        let state = tempfile::tempdir_in(disk).unwrap();
        let mut keeper = Records::open(run.path(), state.path())
            .unwrap()
            .keeper(SERIAL);
        let [on, off] = [true, false].map(|aptpl| changes(size, aptpl));
        keeper.save(&on[1]).unwrap();
        let record = fs::read(state.path().join(SERIAL).with_extension("pr")).unwrap();

        let mut next = on.iter().cycle();
        // Side by side, since a disk is not always as fast.
        group.measure(DURABLE, size, |runs| {
            let mut took = [Duration::ZERO; 2];
            for _ in 0..runs {
                let begun = Instant::now();
                replace(state.path(), &record);
                took[0] += begun.elapsed();
                let begun = Instant::now();
                keeper.save(next.next().unwrap()).unwrap();
                took[1] += begun.elapsed();
            }
            figures.add(PLAIN, size, runs, took[0]);
            took[1]
        });
        let mut next = off.iter().cycle();
        group.measure(RUNTIME, size, |runs| {
            let begun = Instant::now();
            for _ in 0..runs {
                keeper.save(next.next().unwrap()).unwrap();
            }
            begun.elapsed()
        });
    }
    group.criterion.finish();
}

/// What the first of so many registrants has stored when it takes one key or another.
fn changes(size: usize, aptpl: bool) -> [ToStore; 2] {
    let state = reserved(size, key);
    [1, 2].map(|new| {
        let mut list = list([key(0), new]);
        list[20] = u8::from(aptpl);
        let next: Reservations = after(&state, 0, REGISTER, &list);
        ToStore {
            next,
            save: if aptpl { Save::Durable } else { Save::Runtime },
            attentions: Vec::new(),
            state: None,
            set_aside: false,
            cause: None,
        }
    })
}

/// The least that replaces a file for good.
fn replace(folder: &Path, content: &[u8]) {
    let (new, path) = (folder.join("plain.new"), folder.join("plain"));
    let mut file = File::create(&new).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
    drop(file);
    fs::rename(new, path).unwrap();
    File::open(folder).unwrap().sync_all().unwrap();
}
