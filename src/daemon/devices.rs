//! The table of backstores: which devices there are, which logical unit each is a port of, and whose commands
//! come through it.
//!
//! A device becomes a port when the kernel announces it or when it is found at start. It answers BUSY until the
//! kernel's settings read right and its I_T nexus is known, and again as soon as that is no longer so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use nix::errno::Errno;

use super::chain;
use super::records::{self, Keep, Records, UnitRecord};
use super::status;
use super::worker::{self, Identity, Notice, Order, Parts, PortId};
use crate::control::{PortStatus, RefusedStatus, Status, UnitStatus};
use crate::lu::{LogicalUnit, Mapping, Setup, Unknown};
use crate::nexus::declared::{self, Declared, Resolved};
use crate::pr::Save;
use crate::scsi::capacity::Geometry;
use crate::scsi::inquiry;
use crate::scsi::nexus::ItNexus;
use crate::store::backing::{self, Backing, BackingId};
use crate::store::blocking::Blocking;
use crate::sys::wake::Waker;
use crate::tcmu::config::{self, Label, Name, Options};
use crate::tcmu::configfs::{self, Backstore, BackstoreName, Settings};
use crate::tcmu::netlink::{Change, DeviceEvent, Replier, Request, Setting};
use crate::tcmu::ring::Interrupted;
use crate::tcmu::watch::{Again, Walk};
use crate::tcmu::{self, Uio, UioPaths};

/// How long a unit that is to end may take to answer what it has taken.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long a worker may take to answer the main thread.
const WORKER_PATIENCE: Duration = Duration::from_secs(2);

/// How long another handler may take to answer for a device of its own. After that nobody will, and whoever
/// made the device would wait for ever.
const FOREIGN_PATIENCE: Duration = Duration::from_secs(10);

/// Why a device is not served. Each text says what to do.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Configfs(#[from] configfs::Error),
    #[error(transparent)]
    Device(#[from] tcmu::Error),
    #[error(transparent)]
    Backing(#[from] backing::Error),
    #[error(transparent)]
    Records(#[from] records::Error),
    #[error(
        "a block size of {block_size} bytes does not go with a size of {size} bytes: give hw_block_size 512 or 4096, and a multiple of it as size"
    )]
    Geometry { block_size: u32, size: u64 },
    #[error(
        "{path} is served already with {key}={theirs}, and this backstore has {key}={ours}: backstores with the same \
         path are one disk, give them the same {key}"
    )]
    Differs {
        path: PathBuf,
        key: &'static str,
        theirs: u64,
        ours: u64,
    },
    #[error(
        "backstore {other} has the label {label} already: give each backstore of {path} a nexus= of its own"
    )]
    LabelTwice {
        path: PathBuf,
        label: Label,
        other: BackstoreName,
    },
    #[error("starting the logical unit on {path}")]
    Start {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

struct Unit {
    worker: worker::Handle,
    backing: Arc<Backing>,
    record: UnitRecord,
    geometry: Geometry,
    /// Whether writes may wait in the cache.
    write_back: bool,
}

struct Port {
    unit: BackingId,
    backstore: Backstore,
    minor: u32,
    /// Walks that began before this say nothing of its links.
    since: Instant,
    config: String,
    label: Label,
    write_cache: bool,
    /// Whose commands come through it, or what the administrator must change.
    link: Result<Resolved, String>,
    /// Its ring can't be served any more.
    failed: Option<String>,
}

impl Port {
    fn declared(&self) -> Declared {
        Declared {
            backstore: self.backstore.name().clone(),
            label: self.label.clone(),
        }
    }
}

/// All backstores of ours, and the logical units that they are ports of.
pub(super) struct Devices {
    records: Records,
    uio: UioPaths,
    replier: Replier,
    notices: Sender<Notice>,
    again: Again,
    /// What the last walk of the target configuration found.
    walk: Option<Walk>,
    /// Devices may be there that nobody has announced: to be looked for with a walk that began then or later.
    look_since: Option<Instant>,
    units: HashMap<BackingId, Unit>,
    ports: BTreeMap<PortId, Port>,
    refused: BTreeMap<BackstoreName, String>,
    /// What was refused last, and why: it is logged once.
    last_refused: Option<(BackstoreName, String)>,
    /// Devices of other handlers that nobody has answered for yet, and until when we wait.
    foreign: Vec<(Instant, BackstoreName, Request)>,
    next_port: usize,
}

impl Devices {
    /// An empty table. The first walk that began after `started` brings the devices that were there before us.
    pub(super) fn new(
        records: Records,
        uio: UioPaths,
        replier: Replier,
        notices: Sender<Notice>,
        again: Again,
        started: Instant,
    ) -> Devices {
        Devices {
            records,
            uio,
            replier,
            notices,
            again,
            walk: None,
            look_since: Some(started),
            units: HashMap::new(),
            ports: BTreeMap::new(),
            refused: BTreeMap::new(),
            last_refused: None,
            foreign: Vec::new(),
            next_port: 0,
        }
    }

    /// Messages of the kernel were lost: looks for devices whose announcement or removal was missed.
    pub(super) fn overrun(&mut self) {
        log::warn!("messages of the kernel were lost: looking at all devices again");
        self.look_since = Some(Instant::now());
        self.again.ask();
    }

    /// A device is being made, and waits for our answer: its settings can be looked at.
    fn announced(&mut self, uio: &Uio, backstore: &Backstore) -> Result<(), Errno> {
        match backstore.take() {
            Ok(settings) => self.add_or_refuse(uio, backstore, settings, Instant::now()),
            Err(error) => {
                self.refuse(backstore.name(), chain(&error));
                Err(Errno::EINVAL)
            }
        }
    }

    /// Does what the kernel announces, and answers.
    pub(super) fn event(&mut self, event: DeviceEvent, now: Instant) {
        let Some(backstore) = ours(&event.device) else {
            return self.leave_to_its_handler(event, now);
        };
        let outcome = match event.change {
            Change::Added => {
                let uio = Uio {
                    minor: event.minor,
                    name: event.device,
                };
                let added = self.announced(&uio, &backstore);
                if added.is_err() {
                    // The kernel unmakes it: there is nothing left to be refused.
                    self.refused.remove(backstore.name());
                }
                added
            }
            Change::Removed => {
                self.refused.remove(backstore.name());
                if let Some(id) = self.find(backstore.name()) {
                    self.remove(id);
                }
                Ok(())
            }
            Change::Reconfigured(setting) => self.reconfigure(backstore.name(), &setting),
        };
        if let Err(error) = self.replier.reply(event.request, outcome) {
            log::error!("backstore {}: {}", backstore.name(), chain(&error));
        }
        self.resolve();
    }

    /// Takes what a walk has found: devices that were there before us, and whose commands come through each port.
    pub(super) fn walked(&mut self, walk: Walk) {
        self.refuse_foreign(&walk);
        let look = self.look_since.is_some_and(|since| walk.began >= since);
        let found = if look {
            self.look_for_devices(&walk)
        } else {
            Vec::new()
        };
        self.walk = Some(walk);
        self.resolve();
        unblock(found);
    }

    /// Adds the devices that a walk has found and nobody has announced, and gives them; removes those that are gone.
    fn look_for_devices(&mut self, walk: &Walk) -> Vec<Backstore> {
        let uios = match self.uio.scan() {
            Ok(uios) => uios,
            Err(error) => {
                log::error!("{}", chain(&error));
                return Vec::new();
            }
        };
        self.look_since = None;
        let there: BTreeSet<(u32, BackstoreName)> = uios
            .iter()
            .filter_map(|uio| Some((uio.minor, ours(&uio.name)?.name().clone())))
            .collect();
        let gone: Vec<PortId> = self
            .ports
            .iter()
            .filter(|(_, port)| !there.contains(&(port.minor, port.backstore.name().clone())))
            .map(|(&id, _)| id)
            .collect();
        gone.into_iter().for_each(|id| self.remove(id));
        let Ok(states) = &walk.backstores else {
            return Vec::new();
        };
        let mut added = Vec::new();
        for uio in &uios {
            let known = self.ports.values().any(|port| port.minor == uio.minor);
            let Some(backstore) = ours(&uio.name).filter(|_| !known) else {
                continue;
            };
            let settings = match states.get(backstore.name()).map(|state| &state.prepared) {
                Some(Some(Ok(settings))) => *settings,
                Some(Some(Err(error))) => {
                    self.refuse(backstore.name(), chain(error));
                    continue;
                }
                // It has come or gone since; then there is a message about it.
                _ => continue,
            };
            // What is refused is listed, with the reason, and stays blocked.
            if self
                .add_or_refuse(uio, &backstore, settings, walk.began)
                .is_ok()
            {
                added.push(backstore);
            }
        }
        added
    }

    /// Finds out anew whose commands come through each port, and tells the workers what has changed.
    fn resolve(&mut self) {
        let ids: Vec<PortId> = self.ports.keys().copied().collect();
        for id in ids {
            let link = self.link(id);
            self.relink(id, link);
        }
    }

    /// Could a backstore with this config string be made? If not, why not.
    pub(super) fn check_config(&self, config: &str) -> Result<(), String> {
        let checked = Options::parse_config(config)
            .map_err(Refusal::from)
            .and_then(|options| {
                let served =
                    Backing::identify(&options.path)?.and_then(|id| self.units.get_key_value(&id));
                match served {
                    Some((&id, _)) => self.check_label(id, &options),
                    None => Ok(Backing::probe(&options.path)?),
                }
            });
        checked.map_err(|refusal| {
            let reason = chain(&refusal);
            log::warn!("config {}: {reason}", config.escape_debug());
            reason
        })
    }

    /// Does what a worker needs done.
    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::WhoSends(_) => self.again.ask(),
            Notice::Failed(id, why) => self.failed(id, &why),
        }
    }

    fn failed(&mut self, id: PortId, why: &Interrupted) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        let reason = format!(
            "{}; delete the backstore and create it again, or restart tcmu-pr",
            chain(why)
        );
        log::error!("backstore {}: {reason}", port.backstore.name());
        port.failed = Some(reason);
        let backstore = port.backstore.clone();
        aside("block", move || backstore.block());
        self.resolve();
    }

    /// How things are, in a line.
    pub(super) fn summary(&self) -> String {
        let serving = self.ports.values().filter(|port| port.link.is_ok()).count();
        format!(
            "{} logical units, {} backstores, {serving} of them serving, {} refused",
            self.units.len(),
            self.ports.len(),
            self.refused.len()
        )
    }

    /// How things are.
    pub(super) fn status(&self) -> Status {
        let mut units: Vec<UnitStatus> = self
            .units
            .iter()
            .map(|(&id, unit)| self.unit_status(id, unit))
            .collect();
        units.sort_by(|a, b| a.path.cmp(&b.path));
        let refused = self
            .refused
            .iter()
            .map(|(backstore, reason)| RefusedStatus {
                backstore: backstore.to_string(),
                reason: reason.clone(),
            });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            units,
            refused: refused.collect(),
        }
    }

    /// Lets every unit answer what it has taken, and ends.
    pub(super) fn stop(self) {
        for (_, _, request) in self.foreign {
            request.leave();
        }
        for unit in self.units.into_values() {
            if !unit.worker.stop(STOP_PATIENCE) {
                log::error!(
                    "{}: I/O hangs; it is left behind",
                    unit.backing.path().display()
                );
            }
        }
        if let Err(error) = self.replier.retire() {
            log::warn!("{}", chain(&error));
        }
    }

    fn add_or_refuse(
        &mut self,
        uio: &Uio,
        backstore: &Backstore,
        settings: Settings,
        since: Instant,
    ) -> Result<(), Errno> {
        match self.add(uio, backstore, settings, since) {
            Ok(()) => {
                log::info!("backstore {}: served", backstore.name());
                self.last_refused = None;
                Ok(())
            }
            Err(refusal) => {
                self.refuse(backstore.name(), chain(&refusal));
                Err(Errno::EINVAL)
            }
        }
    }

    fn refuse(&mut self, name: &BackstoreName, reason: String) {
        // rtslib writes again what was refused: one creation, two announcements.
        let refused = Some((name.clone(), reason.clone()));
        if self.last_refused != refused {
            log::error!("backstore {name} is refused: {reason}");
            self.last_refused = refused;
        }
        self.refused.insert(name.clone(), reason);
    }

    /// Makes a device a port of its unit. Its links count from walks that began at `since` or later.
    fn add(
        &mut self,
        uio: &Uio,
        backstore: &Backstore,
        settings: Settings,
        since: Instant,
    ) -> Result<(), Refusal> {
        let handler = Name::parse(&uio.name)
            .map(|name| name.handler)
            .unwrap_or_default();
        let options = Options::parse(handler)?;
        let geometry = geometry(&settings)?;
        let device = self.uio.open(uio.minor)?;
        // Last, since only this can create something.
        let unit = match Backing::identify(&options.path)? {
            Some(id) if self.units.contains_key(&id) => {
                self.check_same(id, &options, &geometry)?;
                id
            }
            _ => self.start_unit(&options, geometry)?,
        };
        let id = PortId(self.next_port);
        self.next_port += 1;
        self.units[&unit].worker.give(Order::AddPort(id, device));
        let port = Port {
            unit,
            backstore: backstore.clone(),
            minor: uio.minor,
            since,
            config: handler.trim_end_matches('\n').to_owned(),
            label: options.nexus,
            write_cache: settings.write_cache,
            link: Err("its links have not been looked at yet".to_owned()),
            failed: None,
        };
        self.refused.remove(backstore.name());
        self.ports.insert(id, port);
        self.again.ask();
        self.agree_on_write_back(unit);
        Ok(())
    }

    fn start_unit(&mut self, options: &Options, geometry: Geometry) -> Result<BackingId, Refusal> {
        let block_size = geometry.block_size();
        let size = geometry.byte_length(geometry.blocks());
        let backing = Arc::new(Backing::open(&options.path, size, block_size)?);
        let record = self.records.unit(backing.path())?;
        let (reservations, power_on) = match self.records.reservations(&record.serial) {
            Ok(kept) => {
                // From now on a restart finds that there was a power on, and a crash between two records is mended.
                let mut keeper = self.records.keeper(&record.serial);
                keeper
                    .save(&kept.reservations, Save::Durable)
                    .map_err(records::Error::from)?;
                (Ok(kept.reservations), kept.power_on)
            }
            Err(error) => {
                log::error!("{}: {}", backing.path().display(), chain(&error));
                (Err(Unknown), false)
            }
        };
        let start = |source| Refusal::Start {
            path: backing.path().to_owned(),
            source,
        };
        let waker = Waker::new().map_err(start)?;
        let parts = Parts {
            unit: LogicalUnit::new(Setup {
                identity: inquiry::Identity::new(&record.serial),
                geometry,
                reservations,
                power_on,
                write_back: false,
            }),
            store: Blocking::new(&backing, &waker).map_err(start)?,
            keeper: self.records.keeper(&record.serial),
            waker,
            notices: self.notices.clone(),
        };
        let worker = worker::start("unit", parts).map_err(start)?;
        let id = backing.id();
        log::info!(
            "{}: logical unit {}",
            backing.path().display(),
            record.serial
        );
        self.units.insert(
            id,
            Unit {
                worker,
                backing,
                record,
                geometry,
                write_back: false,
            },
        );
        Ok(id)
    }

    /// A further port of a unit must be the same disk.
    fn check_same(&self, id: BackingId, options: &Options, ours: &Geometry) -> Result<(), Refusal> {
        let theirs = &self.units[&id].geometry;
        let size = |geometry: &Geometry| geometry.byte_length(geometry.blocks());
        let differs = |key, theirs, ours| {
            Err(Refusal::Differs {
                path: options.path.clone(),
                key,
                theirs,
                ours,
            })
        };
        if size(theirs) != size(ours) {
            return differs("size", size(theirs), size(ours));
        }
        if theirs.block_size() != ours.block_size() {
            return differs(
                "hw_block_size",
                theirs.block_size().into(),
                ours.block_size().into(),
            );
        }
        self.check_label(id, options)
    }

    fn check_label(&self, id: BackingId, options: &Options) -> Result<(), Refusal> {
        let twin = self
            .ports
            .values()
            .find(|port| port.unit == id && port.label == options.nexus);
        match twin {
            None => Ok(()),
            Some(port) => Err(Refusal::LabelTwice {
                path: options.path.clone(),
                label: options.nexus.clone(),
                other: port.backstore.name().clone(),
            }),
        }
    }

    fn remove(&mut self, id: PortId) {
        let Some(port) = self.ports.remove(&id) else {
            return;
        };
        let Some(unit) = self.units.get(&port.unit) else {
            return;
        };
        let (removed, done) = bounded(1);
        unit.worker.give(Order::RemovePort(id, removed));
        if done.recv_timeout(WORKER_PATIENCE).is_err() {
            log::warn!(
                "backstore {}: its worker is slow to let go",
                port.backstore.name()
            );
        }
        log::info!("backstore {}: removed", port.backstore.name());
        if self.ports.values().any(|other| other.unit == port.unit) {
            self.agree_on_write_back(port.unit);
            return;
        }
        let Some(unit) = self.units.remove(&port.unit) else {
            return;
        };
        let path = unit.backing.path().to_owned();
        if !unit.worker.stop(STOP_PATIENCE) {
            log::error!(
                "{}: I/O hangs; the file stays locked until it ends",
                path.display()
            );
        }
        // To initiators this is a loss of power: what APTPL did not ask to keep is gone.
        if let Err(error) = self.records.power_off(&unit.record.serial) {
            log::error!("{}: {}", path.display(), chain(&error));
        }
    }

    fn reconfigure(&mut self, name: &BackstoreName, setting: &Setting) -> Result<(), Errno> {
        let Some(id) = self.find(name) else {
            return Err(Errno::ENODEV);
        };
        let Some(port) = self.ports.get_mut(&id) else {
            return Err(Errno::ENODEV);
        };
        let unit = &self.units[&port.unit];
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
            Setting::Size(size) if *size == unit.backing.size() => Ok(()),
            Setting::Size(size) => {
                log::error!(
                    "backstore {name}: its size can't be changed from {} to {size} bytes while it is served",
                    unit.backing.size()
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
                self.agree_on_write_back(unit);
                Ok(())
            }
            Setting::Other => {
                log::error!(
                    "backstore {name}: a setting that this version does not know was changed"
                );
                Err(Errno::EOPNOTSUPP)
            }
        }
    }

    /// A unit's writes may wait in the cache if all its backstores say so (`emulate_write_cache`).
    ///
    /// That they wait no longer holds at once. That they may wait from now on is nothing to tell a host that has
    /// been told otherwise: it does not flush. So that begins while nobody is served.
    fn agree_on_write_back(&mut self, unit: BackingId) {
        let mut of_unit = self.ports.values().filter(|port| port.unit == unit);
        let wanted = of_unit.clone().all(|port| port.write_cache);
        let serving = of_unit.any(|port| port.link.is_ok());
        let Some(unit) = self.units.get_mut(&unit) else {
            return;
        };
        if wanted && !unit.write_back && serving {
            return;
        }
        unit.write_back = wanted;
        unit.worker.give(Order::WriteBack(wanted));
    }

    /// Whose commands come through a port, as far as the last walk tells. Never looks for itself: the kernel may hold
    /// what it would look at until the main thread has answered.
    fn link(&self, id: PortId) -> Result<Resolved, String> {
        let port = &self.ports[&id];
        if let Some(reason) = &port.failed {
            return Err(reason.clone());
        }
        // An older walk may have seen another backstore of this name.
        let Some(walk) = self.walk.as_ref().filter(|walk| walk.began >= port.since) else {
            return Err("its links have not been looked at yet".to_owned());
        };
        let backstores = walk.backstores.as_ref().map_err(|error| chain(error))?;
        match backstores
            .get(port.backstore.name())
            .map(|state| &state.prepared)
        {
            Some(Some(Ok(_))) => {}
            Some(Some(Err(error))) => return Err(chain(error)),
            _ => return Err("its settings can't be read".to_owned()),
        }
        let groups = walk.groups.as_ref().map_err(|error| chain(error))?;
        let siblings: Vec<Declared> = self
            .ports
            .values()
            .filter(|other| other.unit == port.unit)
            .map(Port::declared)
            .collect();
        declared::resolve(groups, &port.declared(), &siblings).map_err(|error| chain(&error))
    }

    fn relink(&mut self, id: PortId, link: Result<Resolved, String>) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        if port.link == link {
            return;
        }
        let Some(unit) = self.units.get_mut(&port.unit) else {
            return;
        };
        let link = link.and_then(|resolved| {
            know_port(&self.records, &mut unit.record, &resolved.nexus).map(|()| resolved)
        });
        match &link {
            Ok(resolved) => log::info!("backstore {}: {}", port.backstore.name(), resolved.nexus),
            Err(reason) => log::info!("backstore {}: {reason}", port.backstore.name()),
        }
        let identity = link.as_ref().ok().map(|resolved| Identity {
            nexus: resolved.nexus.clone(),
            mapping: if resolved.write_protect {
                Mapping::ReadOnly
            } else {
                Mapping::ReadWrite
            },
        });
        let target_ports = unit.record.target_ports.clone();
        unit.worker.give(Order::Identify {
            port: id,
            identity,
            target_ports,
        });
        port.link = link;
    }

    fn find(&self, name: &BackstoreName) -> Option<PortId> {
        let mut ports = self.ports.iter();
        ports
            .find(|(_, port)| port.backstore.name() == name)
            .map(|(&id, _)| id)
    }

    fn leave_to_its_handler(&mut self, event: DeviceEvent, now: Instant) {
        match (event.change, Name::parse(&event.device)) {
            (Change::Added, Some(name)) => {
                self.foreign
                    .push((now + FOREIGN_PATIENCE, name.backstore(), event.request));
            }
            _ => event.request.leave(),
        }
    }

    /// Answers for devices of other handlers that have not answered: they do not run.
    fn refuse_foreign(&mut self, walk: &Walk) {
        let Ok(states) = &walk.backstores else { return };
        for (deadline, name, request) in std::mem::take(&mut self.foreign) {
            let enabled = states.get(&name).is_none_or(|state| state.enabled);
            if enabled {
                request.leave();
            } else if walk.began < deadline {
                self.foreign.push((deadline, name, request));
            } else {
                log::warn!("backstore {name}: its handler does not run: refused");
                if let Err(error) = self.replier.reply(request, Err(Errno::ENOENT)) {
                    log::error!("backstore {name}: {}", chain(&error));
                }
            }
        }
    }

    fn unit_status(&self, id: BackingId, unit: &Unit) -> UnitStatus {
        let (reply, answer) = bounded(1);
        unit.worker.give(Order::Report(reply));
        let report = answer.recv_timeout(WORKER_PATIENCE).ok();
        let ports = self
            .ports
            .values()
            .filter(|port| port.unit == id)
            .map(|port| PortStatus {
                backstore: port.backstore.name().to_string(),
                uio: format!("uio{}", port.minor),
                label: port.label.to_string(),
                link: status::link(&port.link),
            });
        UnitStatus {
            path: unit.backing.path().display().to_string(),
            serial: unit.record.serial.clone(),
            size_bytes: unit.backing.size(),
            block_size_bytes: unit.geometry.block_size(),
            ports: ports.collect(),
            reservations: report
                .as_ref()
                .map(status::reservations)
                .unwrap_or_default(),
            counters: report.as_ref().map(status::counters).unwrap_or_default(),
            in_flight: report.map_or(0, |report| report.in_flight as u64),
        }
    }
}

/// Makes sure that the target port has a relative target port identifier that lasts.
fn know_port(records: &Records, record: &mut UnitRecord, nexus: &ItNexus) -> Result<(), String> {
    if record.target_ports.relative(&nexus.target_port).is_some() {
        return Ok(());
    }
    let mut next = record.clone();
    if next.target_ports.add(&nexus.target_port).is_none() {
        return Err(
            "the unit has had 65,535 target ports: no number is left for another".to_owned(),
        );
    }
    records.save_unit(&next).map_err(|error| chain(&error))?;
    *record = next;
    Ok(())
}

/// The backstore behind a UIO name, if it is one of ours.
fn ours(uio_name: &str) -> Option<Backstore> {
    Name::parse(uio_name)
        .filter(Name::is_ours)
        .and_then(|name| backstore(&name))
}

fn backstore(name: &Name<'_>) -> Option<Backstore> {
    Backstore::new(configfs::ROOT.as_ref(), name.backstore()).ok()
}

/// Ends with BUSY what the last daemon has left on the rings of our devices, and has the kernel answer BUSY until
/// they are [unblocked](unblock). All of them before any is served, since several may be ports of one unit.
///
/// A device that somebody has open is left alone: as long as that is another process, I/O of it may touch the ring's
/// data; if it is this one, the device was announced and is served.
pub(super) fn stop_rings(uio: &UioPaths) -> Result<(), tcmu::Error> {
    for found in uio.scan()? {
        let Some(backstore) = ours(&found.name) else {
            continue;
        };
        // One that is being made has nothing on its ring, and is about to be announced.
        if !matches!(backstore.is_enabled(), Ok(true)) {
            continue;
        }
        let stop = || -> Result<(), Refusal> {
            let _claim = uio.claim(found.minor)?;
            backstore.block()?;
            Ok(backstore.reset_ring()?)
        };
        if let Err(error) = stop() {
            log::warn!("backstore {}: {}", backstore.name(), chain(&error));
        }
    }
    Ok(())
}

/// Lets commands come to us. On a thread of its own: the kernel may hold what is to be written until the main
/// thread has answered.
fn unblock(backstores: Vec<Backstore>) {
    if backstores.is_empty() {
        return;
    }
    aside("unblock", move || {
        backstores.iter().try_for_each(Backstore::unblock)
    });
}

fn aside(what: &str, body: impl FnOnce() -> Result<(), configfs::Error> + Send + 'static) {
    let body = move || {
        if let Err(error) = body() {
            log::error!("{}", chain(&error));
        }
    };
    if let Err(error) = thread::Builder::new().name(what.to_owned()).spawn(body) {
        log::error!("starting a thread: {error}");
    }
}

fn geometry(settings: &Settings) -> Result<Geometry, Refusal> {
    let Settings {
        size_bytes: size,
        block_size_bytes: block_size,
        ..
    } = *settings;
    let blocks = size.checked_div(u64::from(block_size)).unwrap_or(0);
    Geometry::new(block_size, blocks, 0)
        .filter(|geometry| geometry.byte_length(geometry.blocks()) == size)
        .ok_or(Refusal::Geometry { block_size, size })
}
