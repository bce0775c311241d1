//! The records of the reservations, with the daemon killed, power lost, and every operation failing, at every point.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "sim/files.rs"]
mod files;

use std::path::Path;
use std::sync::Arc;

use files::{RUN, STATE, SimFiles, Trouble};
use tcmu_pr::daemon::records::{Keep, Keeper, Records};
use tcmu_pr::lu::task::{NexusId, Response, Tag, Task};
use tcmu_pr::lu::{LogicalUnit, Mapping, Setup, Step, ToStore, UnitState};
use tcmu_pr::pr::out::{self, Cdb, Context};
use tcmu_pr::pr::{Change, Reservations, Save};
use tcmu_pr::scsi::capacity::Geometry;
use tcmu_pr::scsi::inquiry::Identity;
use tcmu_pr::scsi::mode::Values;
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};
use tcmu_pr::scsi::provisioning::Provisioning;
use tcmu_pr::scsi::sense::{Format, Sense};
use tcmu_pr::sys::region::{Data, Region, Segment};

const SERIAL: &str = "0123456789abcdef0123456789abcdef";
const BOOT: &str = "11111111-1111-1111-1111-111111111111";
const NEXT_BOOT: &str = "22222222-2222-2222-2222-222222222222";

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const CLEAR: u8 = 3;

fn nexus() -> ItNexus {
    ItNexus {
        initiator_port: TransportId::Sas(0x3000_0000_0000_0001),
        target_port: TargetPort {
            protocol: Protocol::Sas,
            name: "naa.1".into(),
        },
    }
}

/// PERSISTENT RESERVE OUT from the one nexus there is, with write exclusive as type.
fn out(state: &Reservations, action: u8, keys: [u8; 2], aptpl: bool) -> Change {
    let mut list = [0; 24];
    [list[7], list[15]] = keys;
    list[20] = u8::from(aptpl);
    let cdb = Cdb {
        service_action: action,
        scope_type: 1,
        parameter_list_length: 24,
    };
    out::answer(state, &nexus(), cdb, &list, &Context::default()).unwrap()
}

fn records(files: &SimFiles, boot_id: &str) -> Records<SimFiles> {
    Records::new(files.clone(), Path::new(RUN), Path::new(STATE), boot_id)
}

fn to_store(change: &Change) -> ToStore {
    ToStore {
        next: change.next.clone(),
        save: change.save,
        attentions: Vec::new(),
        state: None,
        set_aside: false,
        cause: None,
    }
}

/// What a daemon does when it starts with what it has found.
fn start(files: &SimFiles, boot_id: &str) -> (Reservations, Keeper<SimFiles>) {
    let records = records(files, boot_id);
    let kept = records.reservations(SERIAL).expect("no record is torn");
    let begun = records.begin(SERIAL, &kept);
    begun.expect("nothing is wrong any more");
    (kept.reservations, records.keeper(SERIAL))
}

/// The reservations after a daemon has been killed, and another has started.
fn after_kill(files: &SimFiles) -> Reservations {
    let files = files.after_kill();
    let (found, _keeper) = start(&files, BOOT);
    let (again, _keeper) = start(&files, BOOT);
    assert_eq!(found, again, "the next one finds the same");
    found
}

/// The reservations after a loss of power, for everything that this can do to the disk.
fn after_power_loss(files: &SimFiles) -> Vec<Reservations> {
    let outcomes = files.after_power_loss();
    let found = outcomes.iter().map(|files| {
        let (found, _keeper) = start(files, NEXT_BOOT);
        assert_eq!(
            after_boot_kill(files),
            found,
            "the next daemon finds the same"
        );
        found
    });
    found.collect()
}

fn after_boot_kill(files: &SimFiles) -> Reservations {
    start(&files.after_kill(), NEXT_BOOT).0
}

/// A change of each kind, from what has been stored before: with APTPL switched on, left on, switched off, and off.
fn changes() -> Vec<(&'static str, Reservations, Change)> {
    let none = Reservations::default();
    let volatile = out(&none, REGISTER, [0, 1], false).next;
    let durable = out(&none, REGISTER, [0, 1], true).next;
    let held = out(&durable, RESERVE, [1, 0], false).next;
    let of = |before: &Reservations, action, keys, aptpl| {
        (before.clone(), out(before, action, keys, aptpl))
    };
    [
        ("first registration", of(&none, REGISTER, [0, 1], false)),
        ("APTPL stays off", of(&volatile, RESERVE, [1, 0], false)),
        ("APTPL on", of(&volatile, REGISTER, [1, 2], true)),
        (
            "first registration with APTPL",
            of(&none, REGISTER, [0, 1], true),
        ),
        ("APTPL stays on", of(&durable, RESERVE, [1, 0], false)),
        ("another key", of(&held, REGISTER, [1, 2], true)),
        ("CLEAR", of(&held, CLEAR, [1, 0], false)),
        ("APTPL off", of(&held, REGISTER, [1, 2], false)),
        (
            "unregistered, APTPL off",
            of(&held, REGISTER, [1, 0], false),
        ),
    ]
    .map(|(name, (before, change))| (name, before, change))
    .into()
}

/// A node on which `before` is stored, with APTPL as it says.
fn node(before: &Reservations) -> (SimFiles, Keeper<SimFiles>) {
    let files = SimFiles::default();
    let mut keeper = records(&files, BOOT).keeper(SERIAL);
    let to_store = ToStore {
        next: before.clone(),
        save: Save::Durable,
        attentions: Vec::new(),
        state: None,
        set_aside: false,
        cause: None,
    };
    keeper.save(&to_store).unwrap();
    (files, keeper)
}

/// How many operations it takes to store a change.
fn operations(before: &Reservations, change: &Change) -> usize {
    let (files, mut keeper) = node(before);
    files.trouble(Trouble::None);
    keeper.save(&to_store(change)).unwrap();
    files.done()
}

#[test]
fn a_change_that_was_stored_is_found() {
    for (name, before, change) in changes() {
        let (files, mut keeper) = node(&before);
        keeper.save(&to_store(&change)).unwrap();
        assert_eq!(after_kill(&files), change.next, "{name}");
        let expected = change.next.after_power_loss();
        for found in after_power_loss(&files) {
            assert_eq!(found, expected, "{name}");
        }
    }
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_or_the_new_reservations() {
    for (name, before, change) in changes() {
        for at in 0..operations(&before, &change) {
            let (files, mut keeper) = node(&before);
            files.trouble(Trouble::Stop(at));
            // The process is not there any more to look at the outcome.
            let _ = keeper.save(&to_store(&change));
            let found = after_kill(&files);
            assert!(
                found == before || found == change.next,
                "{name}, killed before operation {at}: {found:?}"
            );
            let either = [before.after_power_loss(), change.next.after_power_loss()];
            for found in after_power_loss(&files) {
                assert!(
                    either.contains(&found),
                    "{name}, power lost before operation {at}: {found:?}"
                );
            }
        }
    }
}

#[test]
fn a_change_that_failed_is_not_found() {
    for errno in [libc::ENOSPC, libc::EIO] {
        for (name, before, change) in changes() {
            let mut failures = 0;
            for at in 0..operations(&before, &change) {
                let (files, mut keeper) = node(&before);
                files.trouble(Trouble::Once(at, errno));
                assert!(
                    keeper.save(&to_store(&change)).is_err(),
                    "{name}, operation {at}"
                );
                failures += 1;
                assert_eq!(after_kill(&files), before, "{name}, operation {at}");
                for found in after_power_loss(&files) {
                    assert_eq!(found, before.after_power_loss(), "{name}, operation {at}");
                }
                // The same again.
                keeper.save(&to_store(&change)).unwrap();
                assert_eq!(after_kill(&files), change.next, "{name}, operation {at}");
                for found in after_power_loss(&files) {
                    assert_eq!(found, change.next.after_power_loss(), "{name}");
                }
            }
            assert!(failures > 0);
        }
    }
}

/// A logical unit of which the one nexus there is has sent a command; what it is answered.
struct Unit {
    unit: LogicalUnit,
    nexus: NexusId,
    keeper: Keeper<SimFiles>,
}

impl Unit {
    fn new(reservations: Reservations, keeper: Keeper<SimFiles>) -> Unit {
        let mut unit = LogicalUnit::new(Setup {
            identity: Identity::new(SERIAL),
            geometry: Geometry::new(512, 64, 0).unwrap(),
            provisioning: Provisioning::Full,
            reservations: Ok(reservations),
            attentions: Vec::new(),
            power_on: false,
            write_back: false,
            state: UnitState::default(),
            context: Context::default(),
        });
        let nexus = unit.attach(Some(nexus()), Mapping::ReadWrite);
        Unit {
            unit,
            nexus,
            keeper,
        }
    }

    fn answer(&mut self, cdb: [u8; 10], list: &[u8]) -> Response {
        let region = Arc::new(Region::anonymous(4096).unwrap());
        region.copy_in(0, list).unwrap();
        let segment = Segment {
            offset: 0,
            length: 24,
        };
        let data = Data::new(&region, vec![segment], 0..4096).unwrap();
        let mut padded = [0; 32];
        padded[..10].copy_from_slice(&cdb);
        let tag = Tag {
            port: 0,
            command: 1,
            epoch: 0,
        };
        let task = Task::new(tag, self.nexus, padded, data);
        let step = match self.unit.begin(task) {
            Step::Store(to_store) => {
                let stored = self.keeper.save(&to_store).is_ok();
                self.unit.stored(stored)
            }
            step => step,
        };
        let Step::Answer(answer) = step else {
            panic!("{step:?} where an answer was expected")
        };
        let response = answer.response().clone();
        answer.deliver(Format::Fixed);
        response
    }
}

#[test]
fn a_reserve_that_cannot_be_stored_is_refused_and_reserves_nothing() {
    let mut list = [0; 24];
    list[7] = 1; // RESERVATION KEY
    let reserve = [0x5f, RESERVE, 1, 0, 0, 0, 0, 0, 24, 0];
    let read_reservation = [0x5e, 1, 0, 0, 0, 0, 0, 0, 24, 0];
    let nothing = vec![0, 0, 0, 1, 0, 0, 0, 0]; // PRGENERATION; ADDITIONAL LENGTH
    let failure = Response::Check(Sense::internal_target_failure());
    for aptpl in [false, true] {
        let registered = out(&Reservations::default(), REGISTER, [0, 1], aptpl).next;
        let change = out(&registered, RESERVE, [1, 0], false);
        let count = operations(&registered, &change);
        assert!(count > 0);
        for (at, errno) in (0..count).flat_map(|at| [(at, libc::ENOSPC), (at, libc::EIO)]) {
            let (files, keeper) = node(&registered);
            files.trouble(Trouble::Once(at, errno));
            let mut unit = Unit::new(registered.clone(), keeper);
            assert_eq!(unit.answer(reserve, &list), failure, "operation {at}");
            let read = unit.answer(read_reservation, &[]);
            assert_eq!(read, Response::DataIn(nothing.clone()));
            assert_eq!(after_kill(&files), registered);
            // Once there is room again, it is as if nothing had been.
            assert_eq!(unit.answer(reserve, &list), Response::Good);
            assert_eq!(after_kill(&files), change.next);
        }
    }
}

#[test]
fn a_reservation_without_aptpl_outlives_the_daemon_and_no_loss_of_power() {
    let registered = out(&Reservations::default(), REGISTER, [0, 1], false).next;
    let reserved = out(&registered, RESERVE, [1, 0], false);
    let (files, mut keeper) = node(&registered);
    keeper.save(&to_store(&reserved)).unwrap();
    let found = after_kill(&files);
    assert!(found.is_holder(&nexus()));
    assert_eq!(found.generation(), 1);
    for found in after_power_loss(&files) {
        assert_eq!(found, Reservations::default());
    }
}

#[test]
fn a_disk_that_fails_for_good_lets_no_refused_change_out_while_the_node_is_up() {
    for (name, before, change) in changes() {
        for at in 0..operations(&before, &change) {
            let (files, mut keeper) = node(&before);
            files.trouble(Trouble::From(at, libc::EIO));
            assert!(keeper.save(&to_store(&change)).is_err());
            assert!(keeper.save(&to_store(&change)).is_err());
            assert_eq!(after_kill(&files), before, "{name}, from operation {at}");
        }
    }
}

#[test]
fn what_could_not_be_taken_back_is_overwritten_by_the_next_change() {
    let registered = out(&Reservations::default(), REGISTER, [0, 1], false).next;
    let aptpl_on = out(&registered, REGISTER, [1, 2], true);
    let reserved = out(&registered, RESERVE, [1, 0], false);
    assert_eq!(
        reserved.save,
        Save::Runtime,
        "of itself it would not touch the disk"
    );
    for at in 0..operations(&registered, &aptpl_on) {
        let (files, mut keeper) = node(&registered);
        files.trouble(Trouble::From(at, libc::EIO));
        keeper.save(&to_store(&aptpl_on)).unwrap_err();
        files.trouble(Trouble::None);
        keeper.save(&to_store(&reserved)).unwrap();
        assert_eq!(after_kill(&files), reserved.next);
        for found in after_power_loss(&files) {
            assert_eq!(found, Reservations::default(), "operation {at}");
        }
    }
}

#[test]
fn a_record_that_cannot_be_read_is_never_lost_nor_taken_for_an_empty_one() {
    use tcmu_pr::store::saved::Files;
    let torn = b"version = 1\nchecks";
    let clear = ToStore {
        next: Reservations::default(),
        save: Save::Durable,
        attentions: Vec::new(),
        state: None,
        set_aside: true,
        cause: None,
    };
    let damaged = || {
        let files = SimFiles::default();
        for folder in [RUN, STATE] {
            let path = Path::new(folder).join(SERIAL).with_extension("pr");
            files.write(&path, torn).unwrap();
        }
        files.sync_folder(Path::new(STATE)).unwrap();
        files
    };
    let files = damaged();
    files.trouble(Trouble::None);
    records(&files, BOOT).keeper(SERIAL).save(&clear).unwrap();
    for at in 0..=files.done() {
        for trouble in [Trouble::Stop(at), Trouble::From(at, libc::ENOSPC)] {
            let files = damaged();
            files.trouble(trouble);
            let stored = records(&files, BOOT).keeper(SERIAL).save(&clear);
            let next = files.after_kill();
            let found = records(&next, BOOT).reservations(SERIAL);
            assert_eq!(found.is_ok(), stored.is_ok(), "{trouble:?}");
            for folder in [RUN, STATE] {
                let kept = next
                    .names()
                    .into_iter()
                    .any(|path| path.starts_with(folder) && next.read(&path).unwrap() == torn);
                assert!(kept, "{trouble:?}: {folder}");
            }
        }
    }
}

const VALUES: Values = Values {
    write_cache_enabled: true,
    software_write_protect: false,
};
const PROTECTED: Values = Values {
    write_cache_enabled: true,
    software_write_protect: true,
};

/// What a unit keeps besides, before and after: MODE SELECT without and with SP, a reset, a failed flush.
fn states() -> [(&'static str, UnitState, UnitState); 5] {
    let none = UnitState::default();
    let selected = UnitState {
        selected: Some(VALUES),
        ..none
    };
    let saved = UnitState {
        selected: Some(PROTECTED),
        saved: Some(PROTECTED),
        ..none
    };
    let reset = UnitState {
        selected: None,
        ..saved
    };
    let failed = UnitState {
        flush_failed: true,
        ..saved
    };
    [
        ("MODE SELECT", none, selected),
        ("MODE SELECT that saves", selected, saved),
        ("reset", saved, reset),
        ("failed flush", saved, failed),
        ("seen to", failed, saved),
    ]
}

fn state_to_store(state: UnitState) -> ToStore {
    ToStore {
        next: Reservations::default(),
        save: Save::Runtime,
        attentions: Vec::new(),
        state: Some(state),
        set_aside: false,
        cause: None,
    }
}

fn node_with_state(before: UnitState) -> (SimFiles, Keeper<SimFiles>) {
    let (files, mut keeper) = node(&Reservations::default());
    keeper.save(&state_to_store(before)).unwrap();
    files.trouble(Trouble::None);
    (files, keeper)
}

/// What is found of the state after a daemon has been killed, and after each loss of power that there can be.
fn found_states(files: &SimFiles) -> (UnitState, Vec<UnitState>) {
    let found = |files: &SimFiles, boot_id| records(files, boot_id).state(SERIAL).unwrap();
    let outcomes = files.after_power_loss();
    (
        found(&files.after_kill(), BOOT),
        outcomes
            .iter()
            .map(|files| found(files, NEXT_BOOT))
            .collect(),
    )
}

/// What a loss of power leaves of a state.
fn saved_only(state: UnitState) -> UnitState {
    UnitState {
        saved: state.saved,
        ..UnitState::default()
    }
}

#[test]
fn a_state_that_was_stored_is_found() {
    for (name, before, after) in states() {
        let (files, mut keeper) = node_with_state(before);
        keeper.save(&state_to_store(after)).unwrap();
        let (after_kill, after_power_loss) = found_states(&files);
        assert_eq!(after_kill, after, "{name}");
        for found in after_power_loss {
            assert_eq!(found, saved_only(after), "{name}");
        }
    }
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_or_the_new_state() {
    for (name, before, after) in states() {
        let (files, mut keeper) = node_with_state(before);
        keeper.save(&state_to_store(after)).unwrap();
        for at in 0..files.done() {
            let (files, mut keeper) = node_with_state(before);
            files.trouble(Trouble::Stop(at));
            // The process is not there any more to look at the outcome.
            let _ = keeper.save(&state_to_store(after));
            let (after_kill, after_power_loss) = found_states(&files);
            // What outlives a loss of power comes first: a daemon may find that saved, and the command not done.
            let between = UnitState {
                saved: after.saved,
                ..before
            };
            assert!(
                [before, between, after].contains(&after_kill),
                "{name}, killed before operation {at}: {after_kill:?}"
            );
            for found in after_power_loss {
                assert!(
                    [saved_only(before), saved_only(after)].contains(&found),
                    "{name}, power lost before operation {at}: {found:?}"
                );
            }
        }
    }
}

#[test]
fn a_state_that_could_not_be_stored_is_not_found() {
    for (name, before, after) in states() {
        let (files, mut keeper) = node_with_state(before);
        keeper.save(&state_to_store(after)).unwrap();
        for at in 0..files.done() {
            let (files, mut keeper) = node_with_state(before);
            files.trouble(Trouble::Once(at, libc::ENOSPC));
            let stored = keeper.save(&state_to_store(after)).is_ok();
            let (after_kill, after_power_loss) = found_states(&files);
            let expected = if stored { after } else { before };
            assert_eq!(after_kill, expected, "{name}, operation {at}");
            for found in after_power_loss {
                assert_eq!(found, saved_only(expected), "{name}, operation {at}");
            }
        }
    }
}
