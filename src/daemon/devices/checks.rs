//! What a config string must fit: the disk that was there, the nexus tap, and the other backstores of its unit.

use std::path::Path;

use super::{Devices, Port};
use crate::daemon::refusal::Refusal;
use crate::store::backing::{Backing, BackingId};
use crate::tcmu::config::Options;

impl Devices {
    /// A disk that was there once is not made anew, empty, where its file is missing: its file system may just not be
    /// mounted.
    pub(super) fn check_gone(&self, path: &Path) -> Result<(), Refusal> {
        let missing = Backing::name_of_missing(path)?;
        let known = missing.map(|name| self.records.known(&name));
        match known.transpose()?.flatten() {
            None => Ok(()),
            Some(_) => Err(Refusal::Gone {
                path: path.to_owned(),
            }),
        }
    }

    /// Whoever shares a backstore must be told apart.
    pub(super) fn check_tap(&self, options: &Options) -> Result<(), Refusal> {
        match (&options.nexus, &self.tap) {
            (None, Err(why)) => Err(Refusal::NoTap {
                path: options.path.clone(),
                why: why.clone(),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn check_label(&self, id: BackingId, options: &Options) -> Result<(), Refusal> {
        let mut of_unit = self.ports.values().filter(|port| port.unit == id);
        let other_way = |port: &&Port| port.label.is_some() != options.nexus.is_some();
        if let Some(port) = of_unit.clone().find(other_way) {
            return Err(Refusal::BothWays {
                path: options.path.clone(),
                other: port.backstore.name().clone(),
            });
        }
        let Some(label) = &options.nexus else {
            return Ok(());
        };
        match of_unit.find(|port| port.label.as_ref() == Some(label)) {
            None => Ok(()),
            Some(port) => Err(Refusal::LabelTwice {
                path: options.path.clone(),
                label: label.clone(),
                other: port.backstore.name().clone(),
            }),
        }
    }
}
