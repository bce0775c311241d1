//! The table of backstores: which devices there are, which logical unit each is a port of, and whose commands
//! come through it.
//!
//! A device becomes a port when the kernel announces it or when it is found at start. It answers BUSY until the
//! kernel's settings read right and it is known whose commands come through it, and again as soon as that is no longer
//! so ([`links`]).

mod adding;
mod checks;
mod disks;
mod domains;
mod links;
mod node;
mod resting;
mod settings;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Weak;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::Level;
use nix::errno::Errno;

use super::asked::WORKER_PATIENCE;
use super::chain;
use super::configuration::Node;
use super::performance::performance;
use super::records::Records;
use super::records::handover::now;
use super::rings::{Waiting, aside, ours, unblock};
use super::sessions::Reserves;
use super::status;
use super::tap;
use super::unit::Unit;
use super::unix_s;
use super::warnings::Warnings;
use super::worker::{self, Notice, Order, PortId, Rest};
use crate::control::journal::{self, MessageId};
use crate::control::{
    Administration, PortStatus, RefusedStatus, Status, TapStatus, Undone, UnitStatus,
};
use crate::lu::Alteration;
use crate::nexus::tap::{Links, Notes};
use crate::pr::admin::Action;
use crate::scsi::nexus::ItNexus;
use crate::store::backing::BackingId;
use crate::tcmu::config::Label;
use crate::tcmu::configfs::{Backstore, BackstoreName};
use crate::tcmu::netlink::{Change, DeviceEvent, Replier, Request, Setting};
use crate::tcmu::ring::Interrupted;
use crate::tcmu::watch::{Again, Walk};
use crate::tcmu::{Uio, UioPaths};

/// How long units that are to end may take to answer what they have taken.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long another handler may take to answer for a device of its own. After that nobody will, and whoever
/// made the device would wait for ever.
const FOREIGN_PATIENCE: Duration = Duration::from_secs(10);

use adding::{Announced, Candidate};
use checks::Check;
use disks::Disks;
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
    disks: Disks,
    /// Devices that are being made, whose disks have not been opened yet.
    announced: Vec<Announced>,
    checks: Vec<Check>,
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
            disks: Disks::default(),
            announced: Vec::new(),
            checks: Vec::new(),
            tap: Err("it is not attached yet".to_owned()),
            tap_links: Weak::new(),
            started_unix_s: unix_s(),
        }
    }

    /// Where it is told that a file system has answered late; [`Devices::go_on`] goes on from there.
    pub(super) fn late(&self) -> Receiver<()> {
        self.disks.late()
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
                return self.announced(uio, backstore, event.request, now);
            }
            Change::Removed => {
                self.resting.forget(backstore.name());
                self.refused.remove(backstore.name());
                self.forget_announced(backstore.name());
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
        self.answer_for_resizes(now);
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
        let mut found = Vec::new();
        for uio in uios {
            let known = self.ports.values().any(|port| port.minor == uio.minor)
                || self.is_announced(uio.minor);
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
            found.push(Candidate::new(uio, backstore, settings, walk.began));
        }
        self.add_found(found, walk.began)
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
        self.end_announced();
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

    fn refuse(&mut self, name: &BackstoreName, reason: String) {
        // rtslib writes again what was refused: one creation, two announcements.
        let refused = Some((name.clone(), reason.clone()));
        if self.last_refused != refused && self.refused.get(name) != Some(&reason) {
            log::error!(TCMU_PR_BACKSTORE:% = name; "backstore {name} is refused: {reason}");
            self.last_refused = refused;
        }
        self.refused.insert(name.clone(), reason);
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
                TCMU_PR_BACKSTORE:% = port.backstore.name();
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
        // The worker is the one who closes it, which its file system may take its time for.
        drop(unit.backing);
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
