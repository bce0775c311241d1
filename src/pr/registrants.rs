//! Registrants: who is registered, under which reservation key, in the order of registration.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{REGISTRANTS_MAX, Violation};
use crate::scsi::nexus::ItNexus;

/// An I_T nexus with a registered reservation key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registrant {
    /// Who is registered.
    pub nexus: Arc<ItNexus>,
    /// The reservation key, not zero. Others may have the same.
    pub key: u64,
}

/// The registrants of a logical unit in the order of registration, found by I_T nexus at a constant cost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Registrant>", into = "Vec<Registrant>")]
pub struct Registrants {
    list: Vec<Registrant>,
    /// Where in `list` a nexus is.
    index: HashMap<Arc<ItNexus>, usize>,
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
    pub fn iter(&self) -> std::slice::Iter<'_, Registrant> {
        self.list.iter()
    }

    /// The I_T nexuses, in the order of registration.
    pub fn nexuses(&self) -> impl Iterator<Item = &Arc<ItNexus>> {
        self.list.iter().map(|registrant| &registrant.nexus)
    }

    /// Whether `nexus` is registered.
    pub fn contains(&self, nexus: &ItNexus) -> bool {
        self.index.contains_key(nexus)
    }

    /// The reservation key of `nexus`, if it is registered.
    pub fn key(&self, nexus: &ItNexus) -> Option<u64> {
        let position = *self.index.get(nexus)?;
        Some(self.list[position].key)
    }

    /// Registers `nexus` under `key`, last in order, or gives a registrant another key in its place.
    pub(super) fn set(&mut self, nexus: &ItNexus, key: u64) {
        if let Some(&position) = self.index.get(nexus) {
            self.list[position].key = key;
            return;
        }
        let nexus = Arc::new(nexus.clone());
        self.index.insert(Arc::clone(&nexus), self.list.len());
        self.list.push(Registrant { nexus, key });
    }

    /// Removes those of whom `removed` is true, and yields them in the order of registration.
    pub(super) fn remove(
        &mut self,
        mut removed: impl FnMut(&Registrant) -> bool,
    ) -> Vec<Arc<ItNexus>> {
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.list)
            .into_iter()
            .partition(&mut removed);
        *self = Registrants::from(kept);
        gone.into_iter()
            .map(|registrant| registrant.nexus)
            .collect()
    }

    /// The part of [`Reservations::check`](super::Reservations::check) that concerns registrants alone.
    pub(super) fn check(&self) -> Result<(), Violation> {
        if self.list.iter().any(|registrant| registrant.key == 0) {
            return Err(Violation::KeyZero);
        }
        if self.index.len() != self.list.len() {
            return Err(Violation::RegisteredTwice);
        }
        if self.list.len() > usize::from(REGISTRANTS_MAX) {
            return Err(Violation::TooManyRegistrants);
        }
        Ok(())
    }
}

impl From<Vec<Registrant>> for Registrants {
    fn from(list: Vec<Registrant>) -> Registrants {
        let nexuses = list.iter().map(|registrant| Arc::clone(&registrant.nexus));
        let index = nexuses.zip(0..).collect();
        Registrants { list, index }
    }
}

impl From<Registrants> for Vec<Registrant> {
    fn from(registrants: Registrants) -> Vec<Registrant> {
        registrants.list
    }
}

impl PartialEq for Registrants {
    fn eq(&self, other: &Registrants) -> bool {
        self.list == other.list
    }
}

impl Eq for Registrants {}

impl Hash for Registrants {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.list.hash(state);
    }
}
