//! Rings that the last daemon has left in order, and that this one goes on with; and those that it leaves itself.
//!
//! Their commands are neither blocked nor ended: they wait on the ring, until all ports of the unit are there. So a device
//! that turns out to be refused has to be emptied like the others, lest its initiators wait for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::{Devices, Link};
use crate::daemon::chain;
use crate::daemon::records::handover::{Handover, RestingRing, Whose};
use crate::daemon::rings::aside;
use crate::daemon::tap;
use crate::daemon::worker::{Order, PortId, Rest};
use crate::store::backing::BackingId;
use crate::tcmu::UioPaths;
use crate::tcmu::configfs::{self, Backstore, BackstoreName};

/// A ring at rest that was found.
#[derive(Debug)]
pub(in crate::daemon) struct Found {
    pub(in crate::daemon) backstore: Backstore,
    /// What the last daemon has said of it.
    pub(in crate::daemon) left: RestingRing,
}

/// How long to wait until a ring that could not be emptied is tried again.
const EMPTY_AGAIN: Duration = Duration::from_secs(1);

/// The rings that were left in order and are not served yet.
pub(in crate::daemon) struct Resting {
    found: Receiver<Found>,
    left: BTreeMap<BackstoreName, Found>,
    /// What the last daemon has told of all of them.
    handover: Handover,
    /// Those that were not to be served in the end, until they are empty.
    emptying: Arc<Mutex<BTreeSet<BackstoreName>>>,
}

impl Resting {
    /// Those that are found of the ones that the last daemon has told of come there, before the walk that shows their
    /// backstores.
    pub(in crate::daemon) fn new(found: Receiver<Found>, handover: Handover) -> Resting {
        Resting {
            found,
            left: BTreeMap::new(),
            handover,
            emptying: Arc::default(),
        }
    }

    pub(super) fn take_note(&mut self) {
        let found = self.found.try_iter();
        self.left
            .extend(found.map(|found| (found.backstore.name().clone(), found)));
    }

    /// A backstore was made anew: it is not the one that was found.
    pub(super) fn forget(&mut self, name: &BackstoreName) {
        self.take_note();
        self.left.remove(name);
    }

    /// Whether a ring is being emptied: it can be served after that.
    pub(super) fn is_emptying(&self, name: &BackstoreName) -> bool {
        names(&self.emptying).contains(name)
    }
}

fn names(shared: &Mutex<BTreeSet<BackstoreName>>) -> MutexGuard<'_, BTreeSet<BackstoreName>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Empties a ring, if it is still there. One that was made anew under its name has nothing of the last daemon's on it, and
/// is served: nobody would unblock it.
fn empty(uios: &UioPaths, found: &Found) -> Result<(), configfs::Error> {
    if !found.left.is_there(uios) {
        return Ok(());
    }
    found.backstore.block()?;
    found.backstore.reset_ring()
}

impl Devices {
    /// To be called before a device becomes a port: what is on its ring waits until all ports are there, if it is at rest.
    /// Tells what the last daemon has said of it.
    pub(super) fn leave_backlog(
        &self,
        unit: BackingId,
        name: &BackstoreName,
    ) -> Option<RestingRing> {
        let left = &self.resting.left.get(name)?.left;
        log::info!(TCMU_PR_BACKSTORE:% = name; "backstore {name}: goes on with what is on its ring");
        self.units[&unit].worker.give(Order::LeaveBacklog);
        Some(left.clone())
    }

    /// Lets the tap tell who sends through a port that any number of initiators share: from where the last daemon has left
    /// off, if it has, or else from now on.
    pub(super) fn tap(&self, unit: BackingId, id: PortId, minor: u32, left: Option<&RestingRing>) {
        let (unit, Ok(notes)) = (&self.units[&unit], &self.tap) else {
            return;
        };
        let goes_on = left.and_then(|left| match left.whose {
            Whose::Notes(place) => Some((notes.go_on(minor, place)?, left.sessions.clone())),
            Whose::Nexus(_) => None,
        });
        match goes_on {
            Some((notes, sessions)) => unit.worker.give(Order::GoOn(id, notes, sessions)),
            None => unit.tap(id, minor, notes),
        }
    }

    /// To be called when whoever is served is, and it is known who sends: begins what has waited on rings at rest, and
    /// empties those that nobody serves.
    pub(super) fn take_backlogs(&mut self) {
        for unit in self.units.values() {
            unit.worker.give(Order::TakeBacklog);
        }
        let served = self.ports.values().map(|port| port.backstore.name());
        let served: BTreeSet<&BackstoreName> = served.collect();
        for (name, found) in std::mem::take(&mut self.resting.left) {
            if !served.contains(&name) {
                self.empty(name, found);
            }
        }
    }

    fn empty(&self, name: BackstoreName, found: Found) {
        log::warn!(TCMU_PR_BACKSTORE:% = name; "backstore {name}: is not served as before: initiators repeat their commands");
        let (uio, again) = (self.uio.clone(), self.again.clone());
        let emptying = Arc::clone(&self.resting.emptying);
        names(&emptying).insert(name.clone());
        let own = name.clone();
        let begun = aside("empty", move || {
            let mut told = false;
            while let Err(error) = empty(&uio, &found) {
                if !std::mem::replace(&mut told, true) {
                    log::error!(TCMU_PR_BACKSTORE:% = own; "backstore {own}: trying again: {}", chain(&error));
                }
                thread::sleep(EMPTY_AGAIN);
            }
            names(&emptying).remove(&own);
            again.ask();
            Ok(())
        });
        if !begun {
            names(&self.resting.emptying).remove(&name);
        }
    }

    /// Leaves rings at rest to the next daemon, if it is known whose commands come. Where initiators share a backstore,
    /// the tap notes that meanwhile, if systemd keeps it. `ended`: since when nothing has been taken from them.
    ///
    /// Before the first walk nobody was served. So what the last daemon has left is so still, and is left again.
    pub(super) fn hand_over(&self, rests: Vec<Rest>, ended: Duration) {
        tap::leave(&self.tap_links);
        let left = match self.walk {
            Some(_) => self.rings_at_rest(rests, ended),
            None => self.resting.handover.clone(),
        };
        match self.records.hand_over(&left) {
            Ok(()) => log::info!("{} rings are left to the next daemon", left.count()),
            Err(error) => log::error!("initiators will repeat commands: {}", chain(&error)),
        }
    }

    fn rings_at_rest(&self, rests: Vec<Rest>, ended: Duration) -> Handover {
        let uios = self.uio.scan().unwrap_or_default();
        let resting = rests.into_iter().filter_map(|rest| {
            let port = &self.ports[&rest.port];
            let whose = match &port.link {
                Ok(Link::One(resolved)) => Whose::Nexus(resolved.nexus.clone()),
                Ok(Link::Shared(_)) => Whose::Notes(rest.noted?),
                Err(_) => return None,
            };
            // Not one that was made anew since, and that nobody has told us of.
            if self.uio.incarnation(port.minor) != port.incarnation {
                return None;
            }
            let uio = uios.iter().find(|uio| uio.minor == port.minor)?;
            RestingRing::of(&self.uio, uio, rest.tail, whose, rest.sessions)
        });
        Handover::new(resting.collect(), ended)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::nexus::tap::Place;
    use crate::tcmu::configfs::tests::Tree;

    #[test]
    fn a_ring_is_emptied_unless_its_device_was_made_anew() {
        for is_made_anew in [false, true] {
            let tree = Tree::new();
            tree.file(
                "class/uio3/name",
                "tcm-user/0/lun0-a/pr//srv/lun0.img;nexus=a",
            );
            let uios = UioPaths {
                class: tree.root().join("class"),
                nodes: tree.root().join("dev"),
            };
            let uio = uios.scan().unwrap().remove(0);
            let whose = Whose::Notes(Place {
                tap: 17,
                last: 4711,
                resets: 0,
            });
            let found = Found {
                backstore: tree.backstore("user_0", "lun0-a"),
                left: RestingRing::of(&uios, &uio, 0, whose, Vec::new()).unwrap(),
            };
            if is_made_anew {
                // Renamed, so that its inode is not given out again.
                let class = tree.root().join("class");
                fs::rename(class.join("uio3"), class.join("old")).unwrap();
                tree.file(
                    "class/uio3/name",
                    "tcm-user/0/lun0-a/pr//srv/lun0.img;nexus=a",
                );
            }
            empty(&uios, &found).unwrap();
            let is_done = ["block_dev", "reset_ring"]
                .map(|file| tree.content(&format!("core/user_0/lun0-a/action/{file}")) == "1");
            assert_eq!(is_done, [!is_made_anew; 2]);
        }
    }
}
