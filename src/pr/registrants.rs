//! Registrants: who is registered, under which reservation key, in the order of registration.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{HashMap, OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::event::Registration;
use super::{REGISTRANTS_MAX, Violation};
use crate::scsi::nexus::{IscsiName, ItNexus, TransportId};

/// An I_T nexus with a registered reservation key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registrant {
    /// Who is registered.
    pub nexus: Arc<ItNexus>,
    /// The reservation key, not zero. Others may have the same.
    pub key: u64,
}

/// The registrants of a logical unit in the order of registration, found by I_T nexus, by reservation key and by the
/// name of the initiator.
///
/// A copy shares with the original all in which they do not differ. So it costs nothing to make one for a command to
/// change, and what the command costs grows with the registrants that it touches, not with those that there are.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Registrant>", into = "Vec<Registrant>")]
pub struct Registrants {
    /// By numbers that count up, in the order of registration.
    list: OrdMap<u64, Registrant>,
    numbers: HashMap<Arc<ItNexus>, u64>,
    /// Reservation key and number of each.
    by_key: OrdSet<(u64, u64)>,
    /// Initiator's name and number of each whose port is one of iSCSI's.
    by_name: OrdSet<(IscsiName, u64)>,
}

impl Registrants {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Each of them, in the order of registration.
    pub fn iter(&self) -> impl Iterator<Item = &Registrant> {
        self.list.values()
    }

    /// The I_T nexuses, in the order of registration.
    pub fn nexuses(&self) -> impl Iterator<Item = &Arc<ItNexus>> {
        self.iter().map(|registrant| &registrant.nexus)
    }

    /// Whether `nexus` is registered.
    pub fn contains(&self, nexus: &ItNexus) -> bool {
        self.numbers.contains_key(nexus)
    }

    /// The reservation key of `nexus`, if it is registered.
    pub fn key(&self, nexus: &ItNexus) -> Option<u64> {
        let number = self.numbers.get(nexus)?;
        self.list.get(number).map(|registrant| registrant.key)
    }

    /// The I_T nexuses that are registered under `key`, in the order of registration.
    pub(super) fn with_key(&self, key: u64) -> impl Iterator<Item = &Arc<ItNexus>> {
        let found = self.by_key.range((key, 0)..=(key, u64::MAX));
        found.map(|(_, number)| self.nexus(*number))
    }

    /// The I_T nexuses of the iSCSI initiator with this name, in the order of registration.
    pub(super) fn with_name(&self, name: &IscsiName) -> impl Iterator<Item = &Arc<ItNexus>> {
        let range = (name.clone(), 0)..=(name.clone(), u64::MAX);
        let found = self.by_name.range(range);
        found.map(|(_, number)| self.nexus(*number))
    }

    /// Registers `nexus` under `key`, last in order, or gives a registrant another key in its place.
    pub(super) fn set(&mut self, nexus: &ItNexus, key: u64) {
        let Some(&number) = self.numbers.get(nexus) else {
            let nexus = Arc::new(nexus.clone());
            return self.add(Registrant { nexus, key });
        };
        let registrant = self.list.get_mut(&number);
        let registrant = registrant.expect("every number is in the list");
        self.by_key.remove(&(registrant.key, number));
        self.by_key.insert((key, number));
        registrant.key = key;
    }

    /// Removes `nexus`, if it is registered.
    pub(super) fn remove(&mut self, nexus: &ItNexus) {
        let Some(number) = self.numbers.remove(nexus) else {
            return;
        };
        let gone = self.list.remove(&number);
        let gone = gone.expect("every number is in the list");
        self.by_key.remove(&(gone.key, number));
        if let TransportId::Iscsi { name, .. } = &gone.nexus.initiator_port {
            self.by_name.remove(&(name.clone(), number));
        }
    }

    /// What is other in `after`, which was made of this: in the order of registration.
    pub(super) fn differences(&self, after: &Registrants) -> Vec<Registration> {
        let keys = |before: Option<&Registrant>, after: Option<&Registrant>| {
            let nexus = &before.or(after)?.nexus;
            Some(Registration {
                nexus: Arc::clone(nexus),
                before: before.map(|registrant| registrant.key),
                after: after.map(|registrant| registrant.key),
            })
        };
        let differing = self.list.diff(&after.list);
        differing
            .filter_map(|item| match item {
                DiffItem::Add(_, new) => keys(None, Some(new)),
                DiffItem::Update {
                    old: (_, old),
                    new: (_, new),
                } => keys(Some(old), Some(new)),
                DiffItem::Remove(_, old) => keys(Some(old), None),
            })
            .collect()
    }

    /// The part of [`Reservations::check`](super::Reservations::check) that concerns registrants alone.
    pub(super) fn check(&self) -> Result<(), Violation> {
        if self.with_key(0).next().is_some() {
            return Err(Violation::KeyZero);
        }
        if self.numbers.len() != self.list.len() {
            return Err(Violation::RegisteredTwice);
        }
        if self.list.len() > usize::from(REGISTRANTS_MAX) {
            return Err(Violation::TooManyRegistrants);
        }
        Ok(())
    }

    fn add(&mut self, registrant: Registrant) {
        let number = self.list.get_max().map_or(0, |(last, _)| last + 1);
        self.numbers.insert(Arc::clone(&registrant.nexus), number);
        self.by_key.insert((registrant.key, number));
        if let TransportId::Iscsi { name, .. } = &registrant.nexus.initiator_port {
            self.by_name.insert((name.clone(), number));
        }
        self.list.insert(number, registrant);
    }

    fn nexus(&self, number: u64) -> &Arc<ItNexus> {
        let registrant = self.list.get(&number);
        &registrant.expect("every number is in the list").nexus
    }
}

impl From<Vec<Registrant>> for Registrants {
    fn from(list: Vec<Registrant>) -> Registrants {
        let mut registrants = Registrants::default();
        list.into_iter()
            .for_each(|registrant| registrants.add(registrant));
        registrants
    }
}

impl From<Registrants> for Vec<Registrant> {
    fn from(registrants: Registrants) -> Vec<Registrant> {
        registrants.iter().cloned().collect()
    }
}

impl fmt::Debug for Registrants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Registrants {
    fn eq(&self, other: &Registrants) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Registrants {}

impl Hash for Registrants {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.len());
        self.iter().for_each(|registrant| registrant.hash(state));
    }
}

#[cfg(test)]
mod tests;
