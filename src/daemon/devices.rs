//! The table of backstores: which devices there are, which logical unit each is a port of, and whose commands
//! come through it.
//!
//! A device becomes a port when the kernel announces it or when it is found at start. It answers BUSY until the
//! kernel's settings read right and it is known whose commands come through it, and again as soon as that is no longer
//! so ([`links`]).

mod checks;
mod domains;
mod links;
mod node;
mod resting;
mod settings;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::Level;
use nix::errno::Errno;

use super::asked::{Asked, WORKER_PATIENCE};
use super::chain;
use super::configuration::Node;
use super::history::{self, Noting, tell_unit};
use super::performance::performance;
use super::recorder::Recorder;
use super::records::Records;
use super::records::handover::{RestingRing, now};
use super::refusal::Refusal;
use super::rings::{Waiting, aside, ours, unblock};
use super::sessions::Reserves;
use super::status;
use super::tap;
use super::unit::{Unit, context, geometry, mode, on_medium, provisioning, watch};
use super::unix_s;
use super::warnings::Warnings;
use super::worker::{self, Notice, Order, Parts, PortId, Rest};
use crate::control::journal::{self, MessageId};
use crate::control::{
    Administration, PortStatus, RefusedStatus, Status, TapStatus, Undone, UnitStatus,
};
use crate::lu::{Alteration, LogicalUnit, Setup, UnitState, Unknown};
use crate::nexus;
use crate::nexus::tap::{Links, Notes};
use crate::pr::admin::Action;
use crate::scsi::capacity::Geometry;
use crate::scsi::inquiry;
use crate::scsi::nexus::ItNexus;
use crate::store::backing::{Backing, BackingId};
use crate::store::engine::Engine;
use crate::sys::wake::Waker;
use crate::tcmu::config::{Label, Name, Options};
use crate::tcmu::configfs::{Backstore, BackstoreName, Settings};
use crate::tcmu::netlink::{Change, DeviceEvent, Replier, Request, Setting};
use crate::tcmu::ring::Interrupted;
use crate::tcmu::watch::{Again, Walk};
use crate::tcmu::{Uio, UioPaths};

/// How long units that are to end may take to answer what they have taken.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long another handler may take to answer for a device of its own. After that nobody will, and whoever
/// made the device would wait for ever.
const FOREIGN_PATIENCE: Duration = Duration::from_secs(10);

/// How many characters of a wrong config string are logged: more than a right one can have.
const CONFIG_SHOWN: usize = 300;

pub(super) use links::Link;
pub(super) use resting::{Found, Resting};
use settings::Resizes;

struct Port {
    unit: BackingId,
    backstore: Backstore,
    minor: u32,
    /// Which of all the devices that have had that number.
    incarnation: Option<u64>,
    /// Walks that began before this say nothing of its links.
    since: Instant,
    config: String,
    /// `None`: any number of initiators share it.
    label: Option<Label>,
    write_cache: bool,
    /// Whose commands come through it, or what the administrator must change.
    link: Result<Link, String>,
    /// The I_T nexus that it has served, or the last daemon has.
    served: Option<ItNexus>,
    /// Its ring can't be served any more.
    failed: Option<String>,
}

/// What the kernel has asked the handler of another subtype, and until when that may answer.
struct Foreign {
    deadline: Instant,
    device_id: u32,
    change: Change,
    request: Request,
}

/// All backstores of ours, and the logical units that they are ports of.
pub(super) struct Devices {
    records: Records,
    node: Node,
    warnings: Warnings,
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
    /// Changes of devices that were there before us, which the first walk has yet to bring.
    early: Vec<DeviceEvent>,
    /// What was refused last, and why: it is logged once.
    last_refused: Option<(BackstoreName, String)>,
    /// Devices of other handlers that nobody has answered for yet, and until when we wait.
    foreign: Vec<Foreign>,
    next_port: usize,
    who_waits: Receiver<Waiting>,
    /// Whose rings can't be emptied yet; `None` before they were looked at.
    waiting: Option<Waiting>,
    resting: Resting,
    reserves: Reserves,
    resizes: Resizes,
    /// What the nexus tap notes, or why there is none.
    tap: Result<Notes, String>,
    tap_links: Weak<Links>,
    /// When the daemon was started, in seconds since 1970.
    started_unix_s: u64,
}

impl Devices {
    /// An empty table. The first walk that began after `started` brings the devices that were there before us.
    pub(super) fn new(
        records: Records,
        replier: Replier,
        notices: Sender<Notice>,
        again: Again,
        started: Instant,
        who_waits: Receiver<Waiting>,
        resting: Resting,
    ) -> Devices {
        Devices {
            records,
            node: Node::default(),
            warnings: Warnings::default(),
            uio: UioPaths::default(),
            replier,
            notices,
            reserves: Reserves::new(again.clone()),
            again,
            walk: None,
            look_since: Some(started),
            units: HashMap::new(),
            ports: BTreeMap::new(),
            refused: BTreeMap::new(),
            early: Vec::new(),
            last_refused: None,
            foreign: Vec::new(),
            next_port: 0,
            who_waits,
            waiting: None,
            resting,
            resizes: Resizes::default(),
            tap: Err("it is not attached yet".to_owned()),
            tap_links: Weak::new(),
            started_unix_s: unix_s(),
        }
    }

    /// Takes note of what has happened to the nexus tap.
    pub(super) fn tapped(&mut self, event: tap::Event) {
        match event {
            tap::Event::SessionsEnded => {
                for unit in self.units.values() {
                    unit.worker.give(Order::SessionsEnded);
                }
            }
            tap::Event::Missing(why) => {
                let shared = self.ports.values().any(|port| port.label.is_none());
                let level = if shared { Level::Error } else { Level::Info };
                let text = format_args!("nexus tap: {why}");
                journal::tell(level, MessageId::TapMissing, &[], text);
                self.tap = Err(why);
                self.resolve();
            }
            tap::Event::Attached(notes, links) => {
                self.tap_links = links;
                for (&id, port) in &self.ports {
                    if port.label.is_none() {
                        self.units[&port.unit].tap(id, port.minor, &notes);
                    }
                }
                self.tap = Ok(notes);
                self.resolve();
                // Those that were refused for want of it are tried again; before the first walk, none was.
                if self.walk.is_some() {
                    self.look_since = Some(Instant::now());
                    self.again.ask();
                }
            }
        }
    }

    /// Messages of the kernel were lost: looks for devices whose announcement or removal was missed.
    pub(super) fn overrun(&mut self) {
        log::warn!("messages of the kernel were lost: looking at all devices again");
        self.look_again();
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
        if self.walk.is_none() && matches!(event.change, Change::Reconfigured(_)) {
            return self.early.push(event);
        }
        let outcome = match event.change {
            Change::Added => {
                // One that we knew was unmade without a message.
                if let Some(id) = self.find(backstore.name()) {
                    self.remove(id);
                }
                self.resting.forget(backstore.name());
                let uio = Uio {
                    minor: event.minor,
                    name: event.device,
                };
                let added = self.announced(&uio, &backstore);
                let waited = self.reply(backstore.name(), event.request, added);
                if !waited {
                    if added.is_ok() {
                        // It may have been taken for one that was there before us, and emptied.
                        unblock(vec![backstore]);
                    }
                    self.look_again();
                } else if added.is_err() {
                    // The kernel unmakes it: there is nothing left to be refused.
                    self.refused.remove(backstore.name());
                }
                return self.resolve();
            }
            Change::Removed => {
                self.resting.forget(backstore.name());
                self.refused.remove(backstore.name());
                if let Some(id) = self.find(backstore.name()) {
                    self.remove(id);
                }
                Ok(())
            }
            Change::Reconfigured(Setting::Size(size)) => {
                return self.set_size(backstore.name(), size, event.request);
            }
            Change::Reconfigured(setting) => self.reconfigure(backstore.name(), &setting),
        };
        if !self.reply(backstore.name(), event.request, outcome) {
            self.look_again();
        }
        self.resolve();
    }

    /// Devices may have been made or unmade without our knowing, by another handler too: a ring that is gone must not be
    /// touched any more.
    fn look_again(&mut self) {
        self.look_since = Some(Instant::now());
        self.again.ask();
    }

    /// Does what is due by the clock.
    pub(super) fn tick(&mut self, now: Instant) {
        self.answer_for_foreign(now);
        self.warnings.tick();
        // A walk may have become too old to be trusted.
        self.resolve();
    }

    /// Takes what a walk has found: devices that were there before us, and whose commands come through each port.
    pub(super) fn walked(&mut self, walk: Walk) {
        while let Ok(waiting) = self.who_waits.try_recv() {
            self.waiting = Some(waiting);
            self.look_since.get_or_insert(walk.began);
        }
        let look = self.look_since.is_some_and(|since| walk.began >= since);
        self.resting.take_note();
        let found = if look {
            self.look_for_devices(&walk)
        } else {
            Vec::new()
        };
        self.look_for_sessions(&walk);
        let looked = look && self.look_since.is_none_or(|since| since >= walk.began);
        self.walk = Some(walk);
        self.resolve();
        if looked {
            self.take_backlogs();
        }
        for event in std::mem::take(&mut self.early) {
            self.event(event, Instant::now());
        }
        unblock(found);
    }

    /// Tells the workers which sessions that had reserved their units by RESERVE are gone.
    fn look_for_sessions(&mut self, walk: &Walk) {
        let ports = &self.ports;
        let name = |id: PortId| (ports[&id].backstore.name(), ports[&id].label.is_none());
        for (id, order) in self.reserves.walked(walk, name) {
            self.units[&ports[&id].unit].worker.give(order);
        }
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
        let (Ok(states), Some(waiting)) = (&walk.backstores, self.waiting.clone()) else {
            return Vec::new();
        };
        // What is refused now is tried again with the next walk.
        self.look_since = None;
        let mut added = Vec::new();
        for uio in &uios {
            let known = self.ports.values().any(|port| port.minor == uio.minor);
            let Some(backstore) = ours(&uio.name).filter(|_| !known) else {
                continue;
            };
            // One that is not there, or is being made, has a message of its own.
            let Some(state) = states.get(backstore.name()).filter(|state| state.enabled) else {
                continue;
            };
            // It is looked at again when what is waited for changes.
            if let Some(why) = waiting.get(backstore.name()) {
                self.refuse(backstore.name(), why.clone());
                continue;
            }
            let settings = match &state.prepared {
                Some(Ok(settings)) => *settings,
                Some(Err(error)) => {
                    self.refuse(backstore.name(), chain(error));
                    self.look_since = Some(walk.began);
                    continue;
                }
                None => continue,
            };
            if self.resting.is_emptying(backstore.name()) {
                self.look_since = Some(walk.began);
                continue;
            }
            // What is refused is listed, with the reason, and stays blocked.
            match self.add_or_refuse(uio, &backstore, settings, walk.began) {
                Ok(()) => added.push(backstore),
                Err(_) => self.look_since = Some(walk.began),
            }
        }
        added
    }

    /// Could a backstore with this config string be made? If not, why not.
    pub(super) fn check_config(&self, config: &str) -> Result<(), String> {
        let checked = Options::parse_config(config)
            .map_err(Refusal::from)
            .and_then(|options| {
                let options = options.with(&self.node.defaults);
                self.check_tap(&options)?;
                let served =
                    Backing::identify(&options.path)?.and_then(|id| self.units.get_key_value(&id));
                match served {
                    Some((&id, _)) => self.check_label(id, &options),
                    None => {
                        Backing::probe(&options.path, mode(&options.disk))?;
                        self.check_gone(&options.path)
                    }
                }
            });
        checked.map_err(|refusal| {
            let reason = chain(&refusal);
            let shown: String = config.chars().take(CONFIG_SHOWN).collect();
            log::warn!("config {}: {reason}", shown.escape_debug());
            reason
        })
    }

    /// Changes the unit with this serial number. The worker answers.
    pub(super) fn administer(
        &mut self,
        serial: &str,
        action: Administration,
        reply: Sender<Result<(), Undone>>,
    ) {
        let mut units = self.units.iter_mut();
        let found = units.find(|(_, unit)| unit.record.serial == serial);
        let found =
            found.ok_or_else(|| format!("no logical unit here has the serial number {serial:?}"));
        let (&id, unit) =
            match found.and_then(|(id, unit)| unit.takes_orders().map(|()| (id, unit))) {
                Ok(found) => found,
                Err(reason) => {
                    // Whoever asked may have gone.
                    let _ = reply.send(Err(Undone::Refused(reason)));
                    return;
                }
            };
        let path = unit.backing.path().display();
        let action = match action {
            Administration::Clear => {
                log::warn!("{path}: the administrator clears all registrations");
                Action::Clear
            }
            Administration::Preempt { key } => {
                log::warn!("{path}: the administrator preempts the key {key:#018x}");
                Action::Preempt { key }
            }
            Administration::ClearFlushFailure => {
                log::warn!("{path}: the administrator knows that a flush has failed");
                unit.backing.forget_flush_failure();
                let alteration = Alteration::ForgetFlushFailure;
                return unit.worker.give(Order::Alter { alteration, reply });
            }
            Administration::Resize { size_bytes, shrink } => {
                return self.order_size(id, size_bytes, shrink, reply);
            }
        };
        unit.worker.give(Order::Administer { action, reply });
    }

    /// Does what a worker needs done.
    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::WhoSends(_) => self.again.ask(),
            Notice::Failed(id, why) => self.failed(id, &why),
            Notice::Released(id) => self.reserves.give_up(id),
            // A port that is gone has nothing reserved any more.
            Notice::Reserved(id, number, nexus) if self.ports.contains_key(&id) => {
                self.reserves.take_up(id, number, nexus, Instant::now());
            }
            Notice::Doubted(id) => {
                if let (false, Some(port)) = (self.reserves.doubt(id), self.ports.get(&id)) {
                    self.units[&port.unit].worker.give(Order::Looked);
                }
            }
            Notice::Reserved(..) => {}
        }
    }

    fn failed(&mut self, id: PortId, why: &Interrupted) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        let reason = format!("{}; restart tcmu-pr, which empties the ring", chain(why));
        log::error!(TCMU_PR_BACKSTORE:% = port.backstore.name(); "backstore {}: {reason}", port.backstore.name());
        port.failed = Some(reason);
        let backstore = port.backstore.clone();
        aside("block", move || backstore.block());
        self.resolve();
    }

    /// How things are, in a line.
    pub(super) fn summary(&self) -> String {
        let serving = self.ports.values().filter(|port| port.link.is_ok()).count();
        format!(
            "{} logical units, {} backstores, {serving} of them serving, {} refused{}",
            self.units.len(),
            self.ports.len(),
            self.refused.len(),
            self.warnings.summary()
        )
    }

    /// How things are.
    pub(super) fn status(&mut self) -> Status {
        // All of them first, so that those that hang are waited for together.
        self.units.values_mut().for_each(Unit::ask);
        let told = self.units.iter_mut().map(|(&id, unit)| (id, unit.told()));
        let told: Vec<_> = told.collect();
        let told = told
            .into_iter()
            .map(|(id, report)| self.unit_status(id, &self.units[&id], report));
        let mut units: Vec<UnitStatus> = told.collect();
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
            started_unix_s: self.started_unix_s,
            tap: match &self.tap {
                Ok(_) => TapStatus::Attached,
                Err(reason) => TapStatus::Missing {
                    reason: reason.clone(),
                },
            },
            units,
            refused: refused.collect(),
            warnings: self.warnings.list(),
        }
    }

    /// Lets every unit answer what it has taken, and ends.
    pub(super) fn stop(mut self) {
        for foreign in std::mem::take(&mut self.foreign) {
            foreign.request.leave();
        }
        self.end_resizes();
        // From now on, what comes stays on the rings, and ages.
        let ended = now();
        for unit in self.units.values() {
            unit.worker.give(Order::Stop);
        }
        let mut rests = Vec::<Rest>::new();
        let deadline = Instant::now() + STOP_PATIENCE;
        for unit in std::mem::take(&mut self.units).into_values() {
            match unit
                .worker
                .end(deadline.saturating_duration_since(Instant::now()))
            {
                Some(of_unit) => rests.extend(of_unit),
                None => log::error!(
                    "{}: I/O hangs; it is left behind",
                    unit.backing.path().display()
                ),
            }
        }
        self.hand_over(rests, ended);
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
                log::info!(TCMU_PR_BACKSTORE:% = backstore.name(); "backstore {}: served", backstore.name());
                self.last_refused = None;
                Ok(())
            }
            Err(refusal) => {
                self.refuse(backstore.name(), chain(&refusal));
                Err(refusal.errno())
            }
        }
    }

    fn refuse(&mut self, name: &BackstoreName, reason: String) {
        // rtslib writes again what was refused: one creation, two announcements.
        let refused = Some((name.clone(), reason.clone()));
        if self.last_refused != refused && self.refused.get(name) != Some(&reason) {
            log::error!(TCMU_PR_BACKSTORE:% = name; "backstore {name} is refused: {reason}");
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
        let options = self.options(handler)?;
        self.check_tap(&options)?;
        if options.nexus.is_none() && uio.minor >= nexus::tap::DEVICES {
            return Err(Refusal::TooManyDevices);
        }
        let geometry = geometry(&settings, &options.disk)?;
        if settings.command_timeout_s != 0 {
            log::warn!(
                "backstore {}: the kernel fails commands after {} s (cmd_time_out), which can't be changed while it is \
                 exported: take its LUNs away, set attribute cmd_time_out=0, and export it again",
                backstore.name(),
                settings.command_timeout_s
            );
        }
        let incarnation = self.uio.incarnation(uio.minor);
        let device = self.uio.open(uio.minor)?;
        // Last, since only this can create something.
        let unit = match Backing::identify(&options.path)? {
            Some(id) if self.units.contains_key(&id) => {
                self.units[&id].check_same(&options, &geometry)?;
                self.check_label(id, &options)?;
                id
            }
            _ => self.start_unit(&options, geometry)?,
        };
        let id = PortId(self.next_port);
        self.next_port += 1;
        let left = self.leave_backlog(unit, backstore.name());
        self.units[&unit].worker.give(Order::AddPort(id, device));
        if options.nexus.is_none() {
            self.tap(unit, id, uio.minor, left.as_ref());
        }
        let port = Port {
            unit,
            backstore: backstore.clone(),
            minor: uio.minor,
            incarnation,
            since,
            config: handler.trim_end_matches('\n').to_owned(),
            label: options.nexus,
            write_cache: settings.write_cache,
            link: Err("its links have not been looked at yet".to_owned()),
            served: left.and_then(RestingRing::nexus),
            failed: None,
        };
        self.refused.remove(backstore.name());
        self.ports.insert(id, port);
        self.again.ask();
        self.agree_on_write_cache(unit);
        Ok(())
    }

    fn start_unit(&mut self, options: &Options, geometry: Geometry) -> Result<BackingId, Refusal> {
        let block_size = geometry.block_size();
        let size = geometry.byte_length(geometry.blocks());
        let (path, mode) = (&options.path, mode(&options.disk));
        self.check_gone(path)?;
        let backing = Arc::new(Backing::open_with(path, size, block_size, mode)?);
        let geometry = on_medium(geometry, &backing.topology(), &options.disk);
        let provisioning = provisioning(&backing, &options.disk)?;
        let record = self.records.unit(backing.path())?;
        if self
            .units
            .values()
            .any(|unit| unit.record.serial == record.serial)
        {
            return Err(Refusal::Replaced {
                path: options.path.clone(),
            });
        }
        let mut unreadable = None;
        let (reservations, attentions, power_on) = match self.records.reservations(&record.serial) {
            Ok(kept) => {
                self.records.begin(&record.serial, &kept)?;
                (Ok(kept.reservations), kept.attentions, kept.power_on)
            }
            Err(error) => {
                let reason = chain(&error);
                tell_unit(&record, MessageId::RecordUnreadable, &reason);
                unreadable = Some(reason);
                (Err(Unknown), Vec::new(), false)
            }
        };
        let state = self.records.state(&record.serial).unwrap_or_else(|error| {
            log::error!(
                "{}: {}. Writes are refused as after a failed flush, until `tcmu-pr clear-flush-failure`",
                backing.path().display(),
                chain(&error)
            );
            UnitState {
                flush_failed: true,
                ..UnitState::default()
            }
        });
        if state.flush_failed {
            let text = "a flush has failed: writes are refused until `tcmu-pr clear-flush-failure`";
            tell_unit(&record, MessageId::FlushFailed, text);
        }
        let start = |source| Refusal::Start {
            path: backing.path().to_owned(),
            source,
        };
        let waker = Waker::new().map_err(start)?;
        let (store, engine) =
            Engine::new(&backing, &waker, self.node.effort.engine).map_err(start)?;
        let history = history::begin(&self.records, &record, reservations.as_ref().ok(), power_on)
            .map_err(start)?;
        let keeper = Noting::new(self.records.keeper(&record.serial), history);
        let parts = Parts {
            unit: LogicalUnit::new(Setup {
                identity: inquiry::Identity::new(&record.serial),
                geometry,
                provisioning,
                reservations,
                attentions,
                power_on,
                write_back: false,
                state,
                context: context(&options.reservations),
            }),
            store,
            medium: Some(Arc::<Backing>::clone(&backing)),
            recorder: Recorder::start(keeper, &waker).map_err(start)?,
            waker,
            notices: self.notices.clone(),
            logout_patience: worker::LOGOUT_PATIENCE,
            poll: self.node.effort.poll,
        };
        let worker = worker::start("unit", parts).map_err(start)?;
        worker.give(Order::ExpectLooks);
        let watch = watch(&backing, &provisioning, &worker).map_err(start)?;
        let id = backing.id();
        log::info!(
            "{}: logical unit {}, by {engine}",
            backing.path().display(),
            record.serial
        );
        self.units.insert(
            id,
            Unit {
                worker,
                asked: Asked::default(),
                engine,
                backing,
                record,
                geometry,
                options: options.reservations,
                copy_domain: options.copy_domain.clone(),
                disk: options.disk,
                defaults: self.node.defaults,
                _watch: watch,
                served_ports: None,
                unreadable,
                write_cache: false,
            },
        );
        self.introduce(options.copy_domain.as_ref());
        Ok(id)
    }

    fn remove(&mut self, id: PortId) {
        let Some(port) = self.ports.remove(&id) else {
            return;
        };
        self.reserves.give_up(id);
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
        log::info!(TCMU_PR_BACKSTORE:% = port.backstore.name(); "backstore {}: removed", port.backstore.name());
        if self.ports.values().any(|other| other.unit == port.unit) {
            self.agree_on_write_cache(port.unit);
            return;
        }
        let Some(unit) = self.units.remove(&port.unit) else {
            return;
        };
        self.introduce(unit.copy_domain.as_ref());
        let path = unit.backing.path().to_owned();
        if !unit.worker.power_off(STOP_PATIENCE) {
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

    fn find(&self, name: &BackstoreName) -> Option<PortId> {
        let mut ports = self.ports.iter();
        ports
            .find(|(_, port)| port.backstore.name() == name)
            .map(|(&id, _)| id)
    }

    /// Another handler's device. The kernel sends the next message about a device when the last one was answered, so
    /// this one says that all earlier ones were.
    fn leave_to_its_handler(&mut self, event: DeviceEvent, now: Instant) {
        let device_id = event.device_id;
        let (answered, waiting) = std::mem::take(&mut self.foreign)
            .into_iter()
            .partition::<Vec<Foreign>, _>(|foreign| foreign.device_id == device_id);
        self.foreign = waiting;
        answered
            .into_iter()
            .for_each(|foreign| foreign.request.leave());
        self.foreign.push(Foreign {
            deadline: now + FOREIGN_PATIENCE,
            device_id,
            change: event.change,
            request: event.request,
        });
    }

    /// Answers for devices whose handler has not answered, since then it does not run and whoever waits would wait for
    /// ever, holding what the walks of the target configuration look at. One that was answered is not asked for
    /// again, which the kernel says with an error.
    fn answer_for_foreign(&mut self, now: Instant) {
        let (due, waiting): (Vec<Foreign>, Vec<Foreign>) = std::mem::take(&mut self.foreign)
            .into_iter()
            .partition(|foreign| foreign.deadline <= now);
        self.foreign = waiting;
        for foreign in due {
            let outcome = match foreign.change {
                Change::Added => Err(Errno::ENOENT),
                Change::Removed => Ok(()),
                Change::Reconfigured(_) => Err(Errno::EOPNOTSUPP),
            };
            if let Err(error) = self.replier.reply(foreign.request, outcome) {
                log::error!("a device of another handler: {}", chain(&error));
            }
        }
    }

    /// `report` is none of a unit that does not answer.
    fn unit_status(
        &self,
        id: BackingId,
        unit: &Unit,
        report: Option<worker::Report>,
    ) -> UnitStatus {
        let is = |fact: fn(&worker::Report) -> bool| report.as_ref().is_some_and(fact);
        let ports = self
            .ports
            .values()
            .filter(|port| port.unit == id)
            .map(|port| PortStatus {
                backstore: port.backstore.name().to_string(),
                uio: format!("uio{}", port.minor),
                label: port.label.as_ref().map(ToString::to_string),
                link: status::link(&port.link),
            });
        UnitStatus {
            path: unit.backing.path().display().to_string(),
            serial: unit.record.serial.clone(),
            size_bytes: unit.backing.size(),
            block_size_bytes: unit.geometry.block_size(),
            ports: ports.collect(),
            sessions: report.as_ref().map(status::sessions).unwrap_or_default(),
            reservations: report
                .as_ref()
                .map(|report| status::reservations(report, unit))
                .unwrap_or_default(),
            engine: unit.engine.to_string(),
            write_cache: is(|report| report.mode.write_cache_enabled),
            software_write_protect: is(|report| report.mode.software_write_protect),
            flush_failed: is(|report| report.flush_failed),
            counters: report.as_ref().map(status::counters).unwrap_or_default(),
            in_flight: report.as_ref().map_or(0, |report| report.in_flight as u64),
            waiting: report.as_ref().map(status::waiting).unwrap_or_default(),
            performance: report.as_ref().map(performance),
        }
    }
}
