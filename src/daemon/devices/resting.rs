//! Rings that the last daemon has left in order, and that this one goes on with; and those that it leaves itself.
//!
//! Their commands are neither blocked nor ended: they wait on the ring, until all ports of the unit are there. So a device
//! that turns out to be refused has to be emptied like the others, lest its initiators wait for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::{Devices, Link};
use crate::daemon::chain;
use crate::daemon::records::handover::{RestingRing, Whose, now};
use crate::daemon::rings::{aside, ours};
use crate::daemon::tap;
use crate::daemon::worker::{Order, PortId, Rest};
use crate::store::backing::BackingId;
use crate::tcmu::configfs::BackstoreName;
use crate::tcmu::{Uio, UioPaths};

/// A ring at rest that was found, and whose commands are on it.
pub(in crate::daemon) type Found = (BackstoreName, RestingRing);

/// How long to wait until a ring that could not be emptied is tried again.
const EMPTY_AGAIN: Duration = Duration::from_secs(1);

/// The rings that were left in order and are not served yet.
pub(in crate::daemon) struct Resting {
    found: Receiver<Found>,
    left: BTreeMap<BackstoreName, RestingRing>,
    /// Those that were not to be served in the end, until they are empty.
    emptying: Arc<Mutex<BTreeSet<BackstoreName>>>,
}

impl Resting {
    /// Those that are found come there, before the walk that shows their backstores.
    pub(in crate::daemon) fn new(found: Receiver<Found>) -> Resting {
        Resting {
            found,
            left: BTreeMap::new(),
            emptying: Arc::default(),
        }
    }

    pub(super) fn take_note(&mut self) {
        self.left.extend(self.found.try_iter());
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

/// Empties the ring of a backstore, if it is there.
fn empty(uio: &UioPaths, name: &BackstoreName) -> Result<(), Box<dyn Error>> {
    for Uio { name: found, .. } in uio.scan()? {
        if let Some(backstore) = ours(&found).filter(|found| found.name() == name) {
            backstore.block()?;
            backstore.reset_ring()?;
        }
    }
    Ok(())
}

impl Devices {
    /// To be called before a device becomes a port: what is on its ring waits until all ports are there, if it is at rest.
    /// Tells what the last daemon has said of it.
    pub(super) fn leave_backlog(
        &self,
        unit: BackingId,
        name: &BackstoreName,
    ) -> Option<RestingRing> {
        let left = self.resting.left.get(name)?;
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
        for name in std::mem::take(&mut self.resting.left).into_keys() {
            if !served.contains(&name) {
                self.empty(name);
            }
        }
    }

    fn empty(&self, name: BackstoreName) {
        log::warn!(TCMU_PR_BACKSTORE:% = name; "backstore {name}: is not served as before: initiators repeat their commands");
        let (uio, again) = (self.uio.clone(), self.again.clone());
        let emptying = Arc::clone(&self.resting.emptying);
        names(&emptying).insert(name.clone());
        let own = name.clone();
        let begun = aside("empty", move || {
            let mut told = false;
            while let Err(error) = empty(&uio, &own) {
                if !std::mem::replace(&mut told, true) {
                    log::error!(TCMU_PR_BACKSTORE:% = own; "backstore {own}: trying again: {}", chain(&*error));
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
    /// the tap notes that meanwhile, if systemd keeps it.
    pub(super) fn hand_over(&self, rests: Vec<Rest>) {
        tap::leave(&self.tap_links);
        let uios = self.uio.scan().unwrap_or_default();
        let resting = rests.into_iter().filter_map(|rest| {
            let port = &self.ports[&rest.port];
            let whose = match &port.link {
                Ok(Link::One(resolved)) => Whose::Nexus(resolved.nexus.clone()),
                Ok(Link::Shared(_)) => Whose::Notes(rest.noted?),
                Err(_) => return None,
            };
            let uio = uios.iter().find(|uio| uio.minor == port.minor)?;
            RestingRing::of(&self.uio, uio, rest.tail, whose, rest.sessions)
        });
        let resting: Vec<RestingRing> = resting.collect();
        let count = resting.len();
        match self.records.hand_over(resting, now()) {
            Ok(()) => log::info!("{count} rings are left to the next daemon"),
            Err(error) => log::error!("initiators will repeat commands: {}", chain(&error)),
        }
    }
}
