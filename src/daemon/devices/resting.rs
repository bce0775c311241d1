//! Rings that the last daemon has left in order, and that this one goes on with; and those that it leaves itself.
//!
//! Their commands are neither blocked nor ended: they wait on the ring, until all ports of the unit are there. So a device
//! that turns out to be refused has to be emptied like the others, lest its initiators wait for ever.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Receiver;

use super::Devices;
use crate::daemon::chain;
use crate::daemon::records::handover::{RestingRing, now};
use crate::daemon::rings::{aside, ours};
use crate::daemon::worker::{Order, Rests};
use crate::store::backing::BackingId;
use crate::tcmu::Uio;
use crate::tcmu::configfs::BackstoreName;

/// The rings that were left in order and are not served yet.
pub(in crate::daemon) struct Resting {
    found: Receiver<BackstoreName>,
    names: BTreeSet<BackstoreName>,
    /// Those that were not to be served in the end, until they are empty.
    emptying: Arc<Mutex<BTreeSet<BackstoreName>>>,
}

impl Resting {
    /// Names of those that are found come there, before the walk that shows their backstores.
    pub(in crate::daemon) fn new(found: Receiver<BackstoreName>) -> Resting {
        Resting {
            found,
            names: BTreeSet::new(),
            emptying: Arc::default(),
        }
    }

    pub(super) fn take_note(&mut self) {
        self.names.extend(self.found.try_iter());
    }

    /// Whether a ring is being emptied: it can be served after that.
    pub(super) fn is_emptying(&self, name: &BackstoreName) -> bool {
        names(&self.emptying).contains(name)
    }
}

fn names(shared: &Mutex<BTreeSet<BackstoreName>>) -> MutexGuard<'_, BTreeSet<BackstoreName>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Devices {
    /// To be called before a device becomes a port: what is on its ring waits until all ports are there, if it is at rest.
    pub(super) fn leave_backlog(&self, unit: BackingId, name: &BackstoreName) {
        if self.resting.names.contains(name) {
            log::info!("backstore {name}: goes on with what is on its ring");
            self.units[&unit].worker.give(Order::LeaveBacklog);
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
        for name in std::mem::take(&mut self.resting.names) {
            if !served.contains(&name) {
                self.empty(name);
            }
        }
    }

    fn empty(&self, name: BackstoreName) {
        log::warn!("backstore {name}: is not served as before: initiators repeat their commands");
        let (uio, again) = (self.uio.clone(), self.again.clone());
        let emptying = Arc::clone(&self.resting.emptying);
        names(&emptying).insert(name.clone());
        aside("empty", move || {
            let uios = uio.scan().unwrap_or_default().into_iter();
            for Uio { name: found, .. } in uios {
                if let Some(backstore) = ours(&found).filter(|found| *found.name() == name) {
                    backstore.block()?;
                    backstore.reset_ring()?;
                }
            }
            names(&emptying).remove(&name);
            again.ask();
            Ok(())
        });
    }

    /// Leaves rings at rest to the next daemon. Where initiators share a backstore, nobody notes meanwhile whose commands
    /// come: so those are not left.
    pub(super) fn hand_over(&self, rests: Rests) {
        let uios = self.uio.scan().unwrap_or_default();
        let resting = rests.into_iter().filter_map(|(id, tail)| {
            let port = &self.ports[&id];
            port.label.as_ref()?;
            let uio = uios.iter().find(|uio| uio.minor == port.minor)?;
            RestingRing::of(&self.uio, uio, tail)
        });
        let resting: Vec<RestingRing> = resting.collect();
        let count = resting.len();
        match self.records.hand_over(resting, now()) {
            Ok(()) => log::info!("{count} rings are left to the next daemon"),
            Err(error) => log::error!("initiators will repeat commands: {}", chain(&error)),
        }
    }
}
