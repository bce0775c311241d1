//! What the administrator changes of a backstore, or of its disk, while it is served.
//!
//! A disk grows when the first of its backstores is given its new size (`dev_size`), or by `tcmu-pr resize`; the kernel is
//! told of the others. It becomes smaller by `tcmu-pr resize --shrink` only. Initiators are told in any case.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// How long whoever resizes a disk waits for its file system, at least.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who waits for the end of a resize.
enum Whom {
    /// Nobody any more: it has taken too long.
    Nobody,
    /// Whoever has set `dev_size` of this backstore.
    Kernel(BackstoreName, Request),
    /// Whoever has said `tcmu-pr resize`.
    Administrator(Sender<Result<(), Undone>>),
}

/// What has become of the backing object of a unit.
pub(in crate::daemon) struct Grown {
    unit: BackingId,
    step: Step,
}

enum Step {
    /// It has this size now, or that could not be told.
    Asked(Result<u64, String>),
    /// It is as large as it is to be, or could not be made so.
    Grown(Result<(), String>),
}

/// Somebody wants a unit to be as large as its backing object is.
struct SizeAsked {
    shrink: bool,
    whom: Whom,
    deadline: Instant,
}

/// A backing object is being made larger.
struct Growing {
    geometry: Geometry,
    whom: Whom,
    deadline: Instant,
}

/// The units whose backing objects are asked for their size or made larger, beside the main thread.
pub(super) struct Resizes {
    asked: HashMap<BackingId, SizeAsked>,
    under_way: HashMap<BackingId, Growing>,
    grown: Sender<Grown>,
    to_be_told: Receiver<Grown>,
}

impl Default for Resizes {
    fn default() -> Resizes {
        let (grown, to_be_told) = unbounded();
        Resizes {
            asked: HashMap::new(),
            under_way: HashMap::new(),
            grown,
            to_be_told,
        }
    }
}

impl Resizes {
    /// Does something about the backing object of a unit beside the main thread, and tells what has come of it.
    fn beside(&self, what: &str, unit: BackingId, step: impl FnOnce() -> Step + Send + 'static) {
        let grown = self.grown.clone();
        aside(what, move || {
            // We may be stopping.
            let _ = grown.send(Grown { unit, step: step() });
            Ok(())
        });
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
        let Some(size) = size else {
            return self.ask_size(unit, shrink, reply);
        };
        let backing = &self.units[&unit].backing;
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

    /// Asks a backing object for its size, beside the main thread, which goes on with that then.
    fn ask_size(&mut self, unit: BackingId, shrink: bool, reply: Sender<Result<(), Undone>>) {
        if self.resizes.asked.contains_key(&unit) {
            let reason = "its file system is being asked for its size already";
            // Whoever asked may have gone.
            let _ = reply.send(Err(Undone::Refused(reason.to_owned())));
            return;
        }
        let asked = SizeAsked {
            shrink,
            whom: Whom::Administrator(reply),
            deadline: Instant::now() + PATIENCE,
        };
        self.resizes.asked.insert(unit, asked);
        let backing = Arc::clone(&self.units[&unit].backing);
        self.resizes.beside("size", unit, move || {
            let size = backing.actual_size();
            Step::Asked(size.map_err(|error| error.to_string()))
        });
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
        let growing = Growing {
            geometry,
            whom,
            deadline: Instant::now() + PATIENCE,
        };
        self.resizes.under_way.insert(unit, growing);
        let backing = Arc::clone(&self.units[&unit].backing);
        self.resizes.beside("grow", unit, move || {
            let outcome = backing.grow(bytes(&geometry));
            Step::Grown(outcome.map_err(|error| chain(&error)))
        });
    }

    /// Goes on with a unit whose backing object has told its size, or has grown, or could not.
    pub(in crate::daemon) fn grown(&mut self, Grown { unit, step }: Grown) {
        let is_there = self.units.contains_key(&unit);
        match step {
            Step::Asked(size) => {
                let asked = self.resizes.asked.remove(&unit);
                let Some(SizeAsked {
                    shrink,
                    whom: Whom::Administrator(reply),
                    ..
                }) = asked
                else {
                    return;
                };
                match size {
                    Ok(size) if is_there => self.order_size(unit, Some(size), shrink, reply),
                    Ok(_) => self.not_resized(Whom::Administrator(reply), GONE),
                    Err(reason) => self.not_resized(Whom::Administrator(reply), &reason),
                }
            }
            Step::Grown(outcome) => {
                let growing = self.resizes.under_way.remove(&unit);
                let Some(Growing { geometry, whom, .. }) = growing else {
                    return;
                };
                match outcome {
                    Ok(()) if is_there => self.resize(unit, geometry, whom),
                    Ok(()) => self.not_resized(whom, GONE),
                    Err(reason) => self.not_resized(whom, &reason),
                }
            }
        }
    }

    fn not_resized(&mut self, whom: Whom, reason: &str) {
        match whom {
            Whom::Nobody => log::error!("a disk's size can't be set: {reason}"),
            // Whoever asked may have gone.
            Whom::Administrator(reply) => {
                drop(reply.send(Err(Undone::Refused(reason.to_owned()))));
            }
            Whom::Kernel(name, request) => {
                log::error!(TCMU_PR_BACKSTORE:% = name; "backstore {name}: its size can't be set: {reason}");
                self.reply(&name, request, Err(Errno::EINVAL));
            }
        }
    }

    /// Tells those who have waited too long for a file system. What was begun goes on.
    pub(super) fn answer_for_resizes(&mut self, now: Instant) {
        let resizes = &mut self.resizes;
        let asked = resizes.asked.iter_mut();
        let growing = resizes.under_way.iter_mut();
        let waiting = asked
            .map(|(unit, asked)| (unit, asked.deadline, &mut asked.whom))
            .chain(growing.map(|(unit, growing)| (unit, growing.deadline, &mut growing.whom)));
        let due = waiting.filter(|(_, deadline, _)| *deadline <= now);
        let due = due.map(|(unit, _, whom)| (*unit, std::mem::replace(whom, Whom::Nobody)));
        let due: Vec<(BackingId, Whom)> = due.collect();
        for (unit, whom) in due {
            if let (Some(unit), Whom::Administrator(_) | Whom::Kernel(..)) =
                (self.units.get(&unit), &whom)
            {
                let path = unit.backing.path().display();
                let reason = format!(
                    "the file system of {path} does not answer: see to its server or its device (`stat {path}` hangs until it \
                     is back)"
                );
                self.not_resized(whom, &reason);
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
            Whom::Nobody | Whom::Administrator(_) => None,
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
            Whom::Nobody => None,
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
        for growing in std::mem::take(&mut self.resizes.under_way).into_values() {
            if let Whom::Kernel(name, request) = growing.whom {
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
                    TCMU_PR_BACKSTORE:% = name;
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
                        TCMU_PR_BACKSTORE:% = name;
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
                    TCMU_PR_BACKSTORE:% = name;
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

/// Why the size of a disk can't be set that was removed meanwhile.
const GONE: &str = "the disk is gone";

fn bytes(geometry: &Geometry) -> u64 {
    geometry.byte_length(geometry.blocks())
}
