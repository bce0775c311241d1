//! How a device becomes a port of its unit: one that a walk has found, or that is being made while the kernel waits for
//! our answer.
//!
//! What it takes of the file system that its disk lies in is asked beside the main thread ([`Disks`](super::disks::Disks)).
//! Those that a walk has found have a moment, all together; what is not there by then is refused, and taken up by the walk
//! that follows the answer. One that is being made waits longer, and nobody but whoever makes it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, never};
use nix::errno::Errno;

use super::disks::{Opened, Wanted};
use super::{Devices, Port};
use crate::control::journal::MessageId;
use crate::daemon::asked::Asked;
use crate::daemon::chain;
use crate::daemon::history::{self, Noting, tell_unit};
use crate::daemon::recorder::Recorder;
use crate::daemon::records::handover::RestingRing;
use crate::daemon::refusal::Refusal;
use crate::daemon::rings::unblock;
use crate::daemon::unit::{Unit, context, geometry, on_medium, watch};
use crate::daemon::worker::{self, Order, Parts, PortId};
use crate::lu::{LogicalUnit, Setup, UnitState, Unknown};
use crate::nexus;
use crate::scsi::capacity::Geometry;
use crate::scsi::inquiry;
use crate::store::backing::{Backing, BackingId, Look};
use crate::tcmu::config::{Name, Options};
use crate::tcmu::configfs::{Backstore, BackstoreName, Settings};
use crate::tcmu::netlink::Request;
use crate::tcmu::{Device, Uio};

/// How long a walk waits for the file systems of the disks that it has found.
const FOUND_PATIENCE: Duration = Duration::from_secs(2);

/// How long whoever makes a backstore waits for its file system.
const ANNOUNCED_PATIENCE: Duration = Duration::from_secs(10);

/// A device that is to become a port.
pub(super) struct Candidate {
    uio: Uio,
    backstore: Backstore,
    settings: Settings,
    /// Its links count from walks that began then or later.
    since: Instant,
    /// What was found out so far.
    plan: Option<Plan>,
}

/// What is to be served, when it is known what is at its path.
struct Plan {
    options: Options,
    geometry: Geometry,
    look: Look,
    wanted: Wanted,
    /// Which of all the devices that have had its number.
    incarnation: Option<u64>,
    device: Device,
}

/// A device that is being made: the kernel waits for our answer.
pub(super) struct Announced {
    candidate: Candidate,
    request: Request,
    deadline: Instant,
}

impl Candidate {
    pub(super) fn new(
        uio: Uio,
        backstore: Backstore,
        settings: Settings,
        since: Instant,
    ) -> Candidate {
        Candidate {
            uio,
            backstore,
            settings,
            since,
            plan: None,
        }
    }

    fn handler(&self) -> &str {
        Name::parse(&self.uio.name).map_or("", |name| name.handler)
    }

    fn path(&self) -> Option<PathBuf> {
        let options = Options::parse(self.handler()).ok();
        options.map(|options| options.path)
    }
}

impl Devices {
    /// A device is being made, and waits for our answer: its settings can be looked at.
    pub(super) fn announced(
        &mut self,
        uio: Uio,
        backstore: Backstore,
        request: Request,
        now: Instant,
    ) {
        self.forget_announced(backstore.name());
        match backstore.take() {
            Ok(settings) => self.add_announced(Announced {
                candidate: Candidate::new(uio, backstore, settings, Instant::now()),
                request,
                deadline: now + ANNOUNCED_PATIENCE,
            }),
            Err(error) => {
                self.refuse(backstore.name(), chain(&error));
                self.answer_announced(backstore, request, Err(Errno::EINVAL));
            }
        }
    }

    /// Makes a device that is being made a port, as soon as its file system has answered.
    fn add_announced(&mut self, mut announced: Announced) {
        let added = self.add(&mut announced.candidate, Duration::ZERO);
        let is_early = Instant::now() < announced.deadline;
        if is_early && matches!(added, Err(Refusal::NoAnswer { .. })) {
            return self.announced.push(announced);
        }
        let Announced {
            candidate, request, ..
        } = announced;
        let added = self.tell_added(&candidate.backstore, added);
        self.answer_announced(candidate.backstore, request, added);
    }

    fn answer_announced(
        &mut self,
        backstore: Backstore,
        request: Request,
        added: Result<(), Errno>,
    ) {
        let waited = self.reply(backstore.name(), request, added);
        if !waited || added == Err(Errno::ETIMEDOUT) {
            // If it is there, it is taken up by walks; otherwise what was asked is taken back by them.
            self.look_again();
        }
        if waited && added.is_err() {
            // The kernel unmakes it: there is nothing left to be refused.
            self.refused.remove(backstore.name());
        }
        if !waited && added.is_ok() {
            // It may have been taken for one that was there before us, and emptied.
            unblock(vec![backstore]);
        }
        self.resolve();
    }

    /// Whether the device with this minor number is being made.
    pub(super) fn is_announced(&self, minor: u32) -> bool {
        let mut announced = self.announced.iter();
        announced.any(|announced| announced.candidate.uio.minor == minor)
    }

    /// A device is not being made any more, or anew.
    pub(super) fn forget_announced(&mut self, name: &BackstoreName) {
        let announced = std::mem::take(&mut self.announced);
        for announced in announced {
            if announced.candidate.backstore.name() == name {
                announced.request.leave();
                self.look_again();
            } else {
                self.announced.push(announced);
            }
        }
    }

    /// Ends what waits for file systems, since nobody is going to be told any more.
    pub(super) fn end_announced(&mut self) {
        for announced in std::mem::take(&mut self.announced) {
            let name = announced.candidate.backstore.name();
            self.reply(name, announced.request, Err(Errno::EINTR));
        }
    }

    /// When [`Devices::go_on`] has to answer somebody although his file system has not.
    pub(in crate::daemon) fn due(&self) -> Receiver<Instant> {
        let announced = self.announced.iter().map(|announced| announced.deadline);
        let checks = self.checks.iter().map(|check| check.deadline);
        announced.chain(checks).min().map_or_else(never, at)
    }

    /// Goes on with what has waited for file systems: they have answered, or it can't wait any longer.
    pub(in crate::daemon) fn go_on(&mut self) {
        for announced in std::mem::take(&mut self.announced) {
            self.add_announced(announced);
        }
        for check in std::mem::take(&mut self.checks) {
            self.check(check);
        }
        // What a walk has found is taken up by the next.
        if self.look_since.is_some() {
            self.again.ask();
        }
    }

    /// Adds what a walk that began then has found, and gives it.
    pub(super) fn add_found(&mut self, found: Vec<Candidate>, began: Instant) -> Vec<Backstore> {
        let announced = self.announced.iter().map(|announced| &announced.candidate);
        let paths = found.iter().chain(announced).filter_map(Candidate::path);
        let paths: BTreeSet<PathBuf> = paths.collect();
        self.disks.keep(|path: &Path| paths.contains(path));
        // All are asked first, so that those that hang are waited for together.
        for path in found.iter().filter_map(Candidate::path) {
            self.disks.ask(&path);
        }
        let plans = found
            .iter()
            .map(|candidate| self.plan(candidate, FOUND_PATIENCE));
        let plans: Vec<Result<Plan, Refusal>> = plans.collect();
        let mut added = Vec::new();
        for (mut candidate, plan) in found.into_iter().zip(plans) {
            let outcome = plan.and_then(|plan| {
                candidate.plan = Some(plan);
                self.add(&mut candidate, FOUND_PATIENCE)
            });
            // What is refused is listed, with the reason, and stays blocked.
            match self.tell_added(&candidate.backstore, outcome) {
                Ok(()) => added.push(candidate.backstore),
                Err(_) => self.look_since = Some(began),
            }
        }
        added
    }

    fn tell_added(
        &mut self,
        backstore: &Backstore,
        outcome: Result<(), Refusal>,
    ) -> Result<(), Errno> {
        match outcome {
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

    /// What a device is to serve, if what is at its path is told within this time; and asks for it to be opened.
    fn plan(&self, candidate: &Candidate, patience: Duration) -> Result<Plan, Refusal> {
        let options = Options::parse(candidate.handler())?;
        let look = self.disks.look(&options.path, patience)?;
        // Where the config string is silent, it is as the backstores of the same unit have it that were there before.
        let served = look.id.and_then(|id| self.units.get(&id));
        let defaults = served.map_or(self.node.defaults, |unit| unit.defaults);
        let is_served = served.is_some();
        let options = options.with(&defaults);
        self.check_tap(&options)?;
        if options.nexus.is_none() && candidate.uio.minor >= nexus::tap::DEVICES {
            return Err(Refusal::TooManyDevices);
        }
        let geometry = geometry(&candidate.settings, &options.disk)?;
        let wanted = Wanted {
            id: look.id,
            size: geometry.byte_length(geometry.blocks()),
            block_size: geometry.block_size(),
            disk: options.disk,
            engine: self.node.effort.engine,
        };
        let incarnation = self.uio.incarnation(candidate.uio.minor);
        let device = self.uio.open(candidate.uio.minor)?;
        // Last, since only this can create something.
        if !is_served {
            self.disks.open(&options.path, wanted, &self.records);
        }
        Ok(Plan {
            options,
            geometry,
            look,
            wanted,
            incarnation,
            device,
        })
    }

    /// Makes a device a port of its unit, if its file system answers within this time from when it was asked.
    fn add(&mut self, candidate: &mut Candidate, patience: Duration) -> Result<(), Refusal> {
        let mut plan = match candidate.plan.take() {
            Some(plan) => plan,
            None => self.plan(candidate, patience)?,
        };
        // It may have been created meanwhile, for another backstore.
        let mut units = self.units.values();
        if plan.look.id.is_none() && units.any(|unit| unit.backing.path() == plan.look.name) {
            drop(plan);
            plan = self.plan(candidate, patience)?;
        }
        let served = plan.look.id.filter(|id| self.units.contains_key(id));
        let unit = if let Some(id) = served {
            self.units[&id].check_same(&plan.options, &plan.look.name, &plan.geometry)?;
            self.check_label(id, &plan.options)?;
            id
        } else {
            let path = &plan.options.path;
            self.disks.open(path, plan.wanted, &self.records);
            let opened = match self.disks.opened(path, &plan.wanted, patience) {
                Err(refusal @ Refusal::NoAnswer { .. }) => {
                    candidate.plan = Some(plan);
                    return Err(refusal);
                }
                opened => opened?,
            };
            self.start_unit(opened, &plan.options, plan.geometry)?
        };
        self.add_port(unit, candidate, plan);
        Ok(())
    }

    fn add_port(&mut self, unit: BackingId, candidate: &Candidate, plan: Plan) {
        let Candidate {
            uio,
            backstore,
            settings,
            ..
        } = candidate;
        let options = plan.options;
        if settings.command_timeout_s != 0 {
            log::warn!(
                TCMU_PR_BACKSTORE:% = backstore.name();
                "backstore {}: the kernel fails commands after {} s (cmd_time_out), which can't be changed while it is \
                 exported: take its LUNs away, set attribute cmd_time_out=0, and export it again",
                backstore.name(),
                settings.command_timeout_s
            );
        }
        let id = PortId(self.next_port);
        self.next_port += 1;
        let left = self.leave_backlog(unit, backstore.name());
        self.units[&unit]
            .worker
            .give(Order::AddPort(id, plan.device));
        if options.nexus.is_none() {
            self.tap(unit, id, uio.minor, left.as_ref());
        }
        let port = Port {
            unit,
            backstore: backstore.clone(),
            minor: uio.minor,
            incarnation: plan.incarnation,
            since: candidate.since,
            config: candidate.handler().trim_end_matches('\n').to_owned(),
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
    }

    fn start_unit(
        &mut self,
        opened: Opened,
        options: &Options,
        geometry: Geometry,
    ) -> Result<BackingId, Refusal> {
        let Opened {
            backing,
            provisioning,
            waker,
            store,
            engine,
        } = opened;
        let geometry = on_medium(geometry, &backing.topology(), &options.disk);
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
}
