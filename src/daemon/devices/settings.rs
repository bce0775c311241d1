//! What the administrator changes of a backstore, or of its disk, while it is served.
//!
//! A disk grows when the first of its backstores is given its new size (`dev_size`), or by `tcmu-pr resize`; the kernel is
//! told of the others. It becomes smaller by `tcmu-pr resize --shrink` only. Initiators are told in any case.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::errno::Errno;

use super::Devices;
use crate::control::Undone;
use crate::daemon::chain;
use crate::daemon::rings::aside;
use crate::daemon::worker::Order;
use crate::lu::Alteration;
use crate::scsi::capacity::Geometry;
use crate::store::backing::BackingId;
use crate::tcmu::config;
use crate::tcmu::configfs::{Backstore, BackstoreName};
use crate::tcmu::netlink::{Request, Setting};

/// Who waits for the end of a resize.
enum Whom {
    /// Whoever has set `dev_size` of this backstore.
    Kernel(BackstoreName, Request),
    /// Whoever has said `tcmu-pr resize`.
    Administrator(Sender<Result<(), Undone>>),
}

/// The backing object of a unit is as large as it is to be, or could not be made so.
pub(in crate::daemon) struct Grown {
    unit: BackingId,
    outcome: Result<(), String>,
}

/// The units whose backing objects are being made larger, beside the main thread.
pub(super) struct Resizes {
    under_way: HashMap<BackingId, (Geometry, Whom)>,
    grown: Sender<Grown>,
    to_be_told: Receiver<Grown>,
}

impl Default for Resizes {
    fn default() -> Resizes {
        let (grown, to_be_told) = unbounded();
        Resizes {
            under_way: HashMap::new(),
            grown,
            to_be_told,
        }
    }
}

impl Devices {
    /// Where it is told that a backing object has grown; [`Devices::grown`] goes on from there.
    pub(in crate::daemon) fn growing(&self) -> Receiver<Grown> {
        self.resizes.to_be_told.clone()
    }

    /// Somebody has set `dev_size` of a backstore. A disk is never made smaller by that: it takes a word of its own.
    pub(super) fn set_size(&mut self, name: &BackstoreName, size: u64, request: Request) {
        let Some(id) = self.find(name) else {
            // One that is refused may be so for its size.
            let refused = self.refused.contains_key(name);
            let outcome = if refused { Ok(()) } else { Err(Errno::ENODEV) };
            self.reply(name, request, outcome);
            return;
        };
        let unit = self.ports[&id].unit;
        let before = self.units[&unit].backing.size();
        if size == before {
            self.reply(name, request, Ok(()));
            return;
        }
        let outcome = if size < before {
            Err(format!(
                "it has {before} bytes: to make it smaller, take all its hosts off what is cut away, and say \
                 `tcmu-pr resize {name} {size} --shrink`"
            ))
        } else {
            self.size_for(unit, size)
        };
        match outcome {
            Ok(geometry) => self.grow(unit, geometry, Whom::Kernel(name.clone(), request)),
            Err(reason) => {
                log::error!(TCMU_PR_BACKSTORE:% = name; "backstore {name}: its size can't be set to {size} bytes: {reason}");
                self.reply(name, request, Err(Errno::EINVAL));
            }
        }
    }

    /// The administrator wants a unit to have so many bytes, or as many as its backing object has now.
    pub(super) fn order_size(
        &mut self,
        unit: BackingId,
        size: Option<u64>,
        shrink: bool,
        reply: Sender<Result<(), Undone>>,
    ) {
        let backing = Arc::clone(&self.units[&unit].backing);
        let size = match size.map_or_else(|| backing.actual_size(), Ok) {
            Ok(size) => size,
            Err(error) => return drop(reply.send(Err(Undone::Refused(error.to_string())))),
        };
        let before = backing.size();
        let path = backing.path().display();
        let geometry = if size < before && !shrink {
            Err(format!(
                "{path} has {before} bytes, and {size} are fewer: say --shrink if no host uses what is cut away"
            ))
        } else {
            self.size_for(unit, size)
        };
        match geometry {
            Err(reason) => drop(reply.send(Err(Undone::Refused(reason)))),
            Ok(geometry) if size < before => {
                log::warn!(
                    "{path}: the administrator makes it smaller, from {before} to {size} bytes"
                );
                self.resize(unit, geometry, Whom::Administrator(reply));
            }
            Ok(geometry) => self.grow(unit, geometry, Whom::Administrator(reply)),
        }
    }

    /// A unit of so many bytes.
    fn size_for(&self, unit: BackingId, size: u64) -> Result<Geometry, String> {
        if self.resizes.under_way.contains_key(&unit) {
            return Err("its size is being changed already".to_owned());
        }
        let geometry = self.units[&unit].geometry;
        let block_size = u64::from(geometry.block_size());
        geometry
            .with_blocks(size / block_size)
            .filter(|_| size % block_size == 0)
            .ok_or(format!(
                "{size} is no multiple of its block size, {block_size}"
            ))
    }

    /// Makes the backing object larger, beside the main thread, and then the unit.
    fn grow(&mut self, unit: BackingId, geometry: Geometry, whom: Whom) {
        self.resizes.under_way.insert(unit, (geometry, whom));
        let backing = Arc::clone(&self.units[&unit].backing);
        let grown = self.resizes.grown.clone();
        aside("grow", move || {
            let outcome = backing.grow(bytes(&geometry));
            let outcome = outcome.map_err(|error| chain(&error));
            // We may be stopping.
            let _ = grown.send(Grown { unit, outcome });
            Ok(())
        });
    }

    /// Goes on with a unit whose backing object has grown, or could not.
    pub(in crate::daemon) fn grown(&mut self, Grown { unit, outcome }: Grown) {
        let Some((geometry, whom)) = self.resizes.under_way.remove(&unit) else {
            return;
        };
        let outcome = if self.units.contains_key(&unit) {
            outcome
        } else {
            Err("the disk is gone".to_owned())
        };
        match (outcome, whom) {
            (Ok(()), whom) => self.resize(unit, geometry, whom),
            (Err(reason), Whom::Administrator(reply)) => {
                drop(reply.send(Err(Undone::Refused(reason))));
            }
            (Err(reason), Whom::Kernel(name, request)) => {
                log::error!(TCMU_PR_BACKSTORE:% = name; "backstore {name}: its size can't be set: {reason}");
                self.reply(&name, request, Err(Errno::EINVAL));
            }
        }
    }

    /// Gives a unit its new size: its worker, its backstores in the kernel, and whoever waits.
    fn resize(&mut self, id: BackingId, geometry: Geometry, whom: Whom) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        let size = bytes(&geometry);
        log::info!("{}: it has {size} bytes now", unit.backing.path().display());
        unit.backing.serve_no_more_than(size);
        unit.geometry = geometry;
        let alteration = Alteration::Resize(geometry);
        let (reply, altered) = bounded(1);
        unit.worker.give(Order::Alter { alteration, reply });
        let asked = match &whom {
            Whom::Kernel(name, _) => Some(name.clone()),
            Whom::Administrator(_) => None,
        };
        let ports = self.ports.values().filter(|port| port.unit == id);
        let backstores: Vec<Backstore> = ports
            .map(|port| port.backstore.clone())
            .filter(|backstore| asked.as_ref() != Some(backstore.name()))
            .collect();
        let reply = match whom {
            Whom::Administrator(reply) => Some(reply),
            Whom::Kernel(name, request) => {
                self.reply(&name, request, Ok(()));
                None
            }
        };
        // The kernel asks us each time, and is told that it is so already.
        aside("resize", move || {
            let told = backstores
                .iter()
                .try_for_each(|backstore| backstore.set_size(size));
            if let Some(reply) = reply {
                let altered = altered.recv();
                let altered =
                    altered.unwrap_or(Err(Undone::Refused("tcmu-pr is stopping".to_owned())));
                let told = told.as_ref().map_err(|error| chain(error)).copied();
                // Whoever asked may have gone.
                let _ = reply.send(altered.and(told.map_err(Undone::Refused)));
            }
            told
        });
    }

    /// Ends what waits for backing objects that grow, since nobody is going to be told any more.
    pub(super) fn end_resizes(&mut self) {
        for (_, whom) in std::mem::take(&mut self.resizes.under_way).into_values() {
            if let Whom::Kernel(name, request) = whom {
                self.reply(&name, request, Err(Errno::EINTR));
            }
        }
    }

    pub(super) fn reconfigure(
        &mut self,
        name: &BackstoreName,
        setting: &Setting,
    ) -> Result<(), Errno> {
        let Some(id) = self.find(name) else {
            return Err(Errno::ENODEV);
        };
        let Some(port) = self.ports.get_mut(&id) else {
            return Err(Errno::ENODEV);
        };
        match setting {
            Setting::Config(config) => {
                let same = config.trim_end_matches('\n').strip_prefix(config::SUBTYPE);
                if same.and_then(|handler| handler.strip_prefix('/')) == Some(&port.config) {
                    return Ok(());
                }
                log::error!(
                    "backstore {name}: its config string can't be changed to {}: delete the backstore and create \
                     it again",
                    config.escape_debug()
                );
                Err(Errno::EINVAL)
            }
            Setting::WriteCache(write_cache) => {
                let unit = port.unit;
                let before = std::mem::replace(&mut port.write_cache, *write_cache);
                let serving = self
                    .ports
                    .values()
                    .any(|port| port.unit == unit && port.link.is_ok());
                if *write_cache && !before && serving {
                    log::error!(
                        "backstore {name}: emulate_write_cache can't be switched on while the disk is exported: its \
                         initiators would not flush what they believe to be written. Take its LUNs away first"
                    );
                    self.ports
                        .entry(id)
                        .and_modify(|port| port.write_cache = before);
                    return Err(Errno::EBUSY);
                }
                let agreed = self.agree_on_write_cache(unit);
                if let (Some(agreed), Some(unit)) = (agreed, self.units.get(&unit)) {
                    unit.worker.give(Order::WriteCache(agreed));
                }
                Ok(())
            }
            Setting::Size(_) | Setting::Other => {
                log::error!(
                    "backstore {name}: a setting that this version does not know was changed"
                );
                Err(Errno::EOPNOTSUPP)
            }
        }
    }

    /// A unit's writes may wait in the cache if all its backstores say so (`emulate_write_cache`) and no MODE SELECT has
    /// said otherwise. Gives what they say now, if it holds.
    ///
    /// That they wait no longer holds as soon as the cache is empty. That they may wait from now on is nothing to tell a
    /// host that has been told otherwise: it does not flush. So that begins while nobody is served.
    pub(super) fn agree_on_write_cache(&mut self, unit: BackingId) -> Option<bool> {
        let mut of_unit = self.ports.values().filter(|port| port.unit == unit);
        let wanted = of_unit.clone().all(|port| port.write_cache);
        let serving = of_unit.any(|port| port.link.is_ok());
        let unit = self.units.get_mut(&unit)?;
        if wanted && !unit.write_cache && serving {
            return None;
        }
        unit.write_cache = wanted;
        unit.worker.give(Order::DefaultWriteCache(wanted));
        Some(wanted)
    }
}

fn bytes(geometry: &Geometry) -> u64 {
    geometry.byte_length(geometry.blocks())
}
