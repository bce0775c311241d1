//! A logical unit: where commands, reservations and blocks meet.
//!
//! A [`LogicalUnit`] belongs to one thread by `&mut` and so needs no lock: the command that changes a reservation
//! and the command that the reservation refuses pass through here one after the other. It does no I/O. What
//! a command needs done outside comes out as a [`Step`], and goes back in with [`LogicalUnit::finish`] or
//! [`LogicalUnit::stored`]. What follows from that, and from resets and the administrator's orders, comes out of
//! [`LogicalUnit::next_step`].
//!
//! It keeps the fence: a PERSISTENT RESERVE OUT is answered only when no command is in flight any more that the
//! reservations it leaves behind would refuse.

mod attention;
mod change;
mod copy;
mod execute;
mod lend;
mod mode;
mod parts;
mod provision;
mod refused;
mod reserve;
pub mod task;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use slab::Slab;

use crate::pr::Reservations;
use crate::pr::gate::Standing;
use crate::pr::out::Context;
use crate::scsi::capacity::Geometry;
use crate::scsi::commands::{self, Attention, Media, Row};
use crate::scsi::copy::CopyStatus;
use crate::scsi::features::Features;
use crate::scsi::inquiry::{Identity, Naa};
use crate::scsi::mode::Values;
use crate::scsi::nexus::{ItNexus, RelativeTargetPort, TargetPort, TargetPorts};
use crate::scsi::provisioning::Provisioning;
use crate::scsi::sense::{Format, Sense};
use crate::scsi::{Access, Status};
use crate::store::{Failure, Outcome, Request};
use crate::sys::region::Data;
use attention::Attentions;
use change::{Awaited, Storing};
pub use change::{FENCE_PATIENCE, ToStore, Unfulfilled};
pub use copy::Asking;
pub use lend::{Lent, LoanId, Role, Wish};
use mode::Draining;
pub use mode::{Alteration, UnitState};
use parts::Parts;
use refused::Refusals;
pub use refused::{Attempt, RefusedCommands};
pub use reserve::LOOK_PATIENCE;
use reserve::Reserves;
use task::{
    Answer, NexusId, Pending, Response, Tag, Task, TaskKey, TaskSet, Ticket, Told, Waiting,
};

/// What a logical unit starts from.
#[derive(Debug)]
pub struct Setup {
    /// Who it is.
    pub identity: Identity,
    /// How large it is.
    pub geometry: Geometry,
    /// What it does about blocks that nobody needs.
    pub provisioning: Provisioning,
    /// What is registered and reserved; `Err` if that is not known, and then nobody is let in.
    pub reservations: Result<Reservations, Unknown>,
    /// The unit attention conditions that are pending.
    pub attentions: Vec<(Arc<ItNexus>, Sense)>,
    /// Whether initiators must be told that there was a power on.
    pub power_on: bool,
    /// Whether written blocks may wait in the cache until the next flush, unless MODE SELECT has set something else (WCE).
    pub write_back: bool,
    /// What was kept besides the reservations.
    pub state: UnitState,
    /// What the administrator has set for PERSISTENT RESERVE OUT.
    pub context: Context,
}

/// The reservations of the unit are not known: their record can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

/// What a nexus may do besides what reservations say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Reads and writes.
    ReadWrite,
    /// The administrator mapped the unit read-only to this initiator.
    ReadOnly,
}

impl Mapping {
    /// That of an initiator that may only read, or may write too.
    pub fn new(read_only: bool) -> Mapping {
        if read_only {
            Mapping::ReadOnly
        } else {
            Mapping::ReadWrite
        }
    }
}

/// What a command needs done.
#[derive(Debug)]
pub enum Step {
    /// Nothing: here is its answer.
    Answer(Answer),
    /// Nothing now: its answer waits for others, and comes from [`LogicalUnit::next_step`].
    Held,
    /// I/O, after which [`LogicalUnit::finish`] says how to go on.
    Io(Request, Pending),
    /// The unit of that name is to be asked for what a copy needs, after which [`LogicalUnit::asked`] says how to go on.
    Ask(Naa, Wish, Asking),
    /// The record of the reservations is to be stored, after which [`LogicalUnit::stored`] says how to go on. There is
    /// no other [`Step::Store`] before that.
    Store(ToStore),
    /// Nothing: this is how an order of the administrator's has ended.
    Administered(Ticket, Result<(), Unfulfilled>),
}

/// How often what happened since the unit was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commands from known nexuses.
    pub commands: u64,
    /// READ commands.
    pub reads: u64,
    /// Commands that write data they bring: WRITE of every kind, WRITE SAME, ORWRITE, and COMPARE AND WRITE.
    pub writes: u64,
    /// Commands refused with RESERVATION CONFLICT.
    pub conflicts: u64,
}

/// Why a command is not begun.
enum Refused {
    /// It is answered with this.
    Gate(Response),
    /// It would change the reservations, and conflicts with them: a host may conclude from that what others have done.
    Conflict,
}

impl<T: Into<Response>> From<T> for Refused {
    fn from(response: T) -> Refused {
        Refused::Gate(response.into())
    }
}

#[derive(Debug)]
struct Nexus {
    /// `None` for a session of the target's own, without an initiator port.
    nexus: Option<Arc<ItNexus>>,
    /// What it may run.
    standing: Standing,
    attentions: Attentions,
    /// What has become of its copies, by LIST IDENTIFIER.
    copies: BTreeMap<u8, CopyStatus>,
    mapping: Mapping,
    /// It may have been told WCE=0 last, and not to be durable at once what it writes.
    told_write_through: bool,
    /// Through how many ports it is attached now.
    attached: usize,
}

/// The state of one logical unit.
#[derive(Debug)]
pub struct LogicalUnit {
    identity: Identity,
    geometry: Geometry,
    provisioning: Provisioning,
    /// What it can do that not every unit can.
    features: Features,
    reservations: Reservations,
    /// How often the reservations have changed.
    edition: u64,
    /// The change that is being stored, which is not in force yet.
    storing: Option<Storing>,
    /// What waits for the change that is being stored.
    awaited: VecDeque<Awaited>,
    reserves: Reserves,
    /// Steps that nobody has taken yet.
    ready: VecDeque<Step>,
    /// The record of the reservations can't be read: only those that ask for it are told who we are.
    fenced: bool,
    power_on: bool,
    /// Who has been told of the power on.
    greeted: HashSet<Arc<ItNexus>>,
    /// WCE, as initiators are told.
    told_write_back: bool,
    /// The mode parameters of a unit for which MODE SELECT has set none.
    default_values: Values,
    state: UnitState,
    /// The target ports that lead here, in order, once all are known.
    served_ports: Option<Vec<(RelativeTargetPort, TargetPort)>>,
    draining: Option<Draining>,
    /// While it is being stored that a flush has failed: the answers that tell of it.
    unstored: Option<Vec<Answer>>,
    context: Context,
    nexuses: Slab<Nexus>,
    ids: HashMap<Option<Arc<ItNexus>>, NexusId>,
    /// Whoever has unit attention conditions pending, and some who had: so that a change need not look at all.
    owed: BTreeSet<usize>,
    tasks: TaskSet,
    parts: Parts,
    /// The other units that copies may be from and to, and the size of their blocks in bytes.
    peers: HashMap<Naa, u32>,
    /// Copies end with their next chunk.
    is_ending: bool,
    counters: Counters,
    refusals: Refusals,
}

impl LogicalUnit {
    /// A logical unit to which nobody is attached yet.
    pub fn new(setup: Setup) -> LogicalUnit {
        let default_values = Values {
            write_cache_enabled: setup.write_back,
            software_write_protect: false,
        };
        let mut unit = LogicalUnit {
            identity: setup.identity,
            geometry: setup.geometry,
            provisioning: setup.provisioning,
            features: setup.geometry.features(setup.provisioning.features()),
            fenced: setup.reservations.is_err(),
            reservations: setup.reservations.unwrap_or_default(),
            edition: 0,
            storing: None,
            awaited: VecDeque::new(),
            reserves: Reserves::default(),
            ready: VecDeque::new(),
            power_on: setup.power_on,
            greeted: HashSet::new(),
            told_write_back: setup.write_back,
            default_values,
            state: setup.state,
            served_ports: None,
            draining: None,
            unstored: None,
            context: setup.context,
            nexuses: Slab::new(),
            ids: HashMap::new(),
            owed: BTreeSet::new(),
            tasks: TaskSet::default(),
            parts: Parts::default(),
            peers: HashMap::new(),
            is_ending: false,
            counters: Counters::default(),
            refusals: Refusals::default(),
        };
        for (nexus, condition) in setup.attentions {
            unit.establish(&nexus, condition);
        }
        unit.told_write_back = unit.wanted_values().write_cache_enabled;
        unit
    }

    /// Lets a nexus in. It keeps the unit attentions that wait for it from earlier.
    ///
    /// `None` is a session of the target's own, without an initiator port: nobody can tell two of them apart, so they
    /// are one nexus, which is never registered.
    pub fn attach(&mut self, nexus: Option<ItNexus>, mapping: Mapping) -> NexusId {
        let nexus = nexus.map(Arc::new);
        if let Some(nexus) = &nexus {
            self.context.nexuses.insert(ItNexus::clone(nexus));
            if self.power_on
                && self.greeted.len() < self.remembered_max()
                && self.greeted.insert(Arc::clone(nexus))
            {
                self.establish(nexus, Sense::power_on_occurred());
            }
        }
        let id = match self.ids.get(&nexus) {
            Some(&id) => id,
            None => self.remember(nexus),
        };
        let entry = &mut self.nexuses[id.0];
        if entry.attached > 0 && entry.mapping != mapping {
            entry.attentions.establish(Sense::mode_parameters_changed());
            self.owed.insert(id.0);
        }
        entry.attached += 1;
        entry.mapping = mapping;
        id
    }

    /// Lets a nexus go. Its registrations and unit attentions stay; what it has sent and nobody has begun is aborted.
    pub fn detach(&mut self, id: NexusId) {
        let entry = &mut self.nexuses[id.0];
        entry.attached -= 1;
        if entry.attached == 0 {
            if let Some(nexus) = &entry.nexus {
                self.context.nexuses.remove(&**nexus);
            }
            self.abort_awaited(|nexus| nexus == id);
        }
        self.forget_unneeded();
    }

    /// The unit serial number.
    pub fn serial(&self) -> &str {
        &self.identity.serial
    }

    /// What a nexus is called in the log.
    pub fn name(&self, id: NexusId) -> &dyn fmt::Display {
        match &self.nexuses[id.0].nexus {
            Some(nexus) => nexus,
            None => &"nobody",
        }
    }

    /// Whether a target port has a relative target port identifier.
    pub fn knows_target_port(&self, port: &TargetPort) -> bool {
        self.context.ports.relative(port).is_some()
    }

    /// Takes note of the unit's target ports and their relative target port identifiers.
    pub fn set_target_ports(&mut self, ports: TargetPorts) {
        self.context.ports = ports;
    }

    /// Takes note of all target ports through which the unit is reached now. Whoever has been told of others learns that.
    pub fn set_served_ports(&mut self, ports: Vec<(RelativeTargetPort, TargetPort)>) {
        let before = self.served_ports.replace(ports);
        if before.is_some() && before != self.served_ports {
            self.tell_all(Sense::inquiry_data_has_changed(), None);
        }
    }

    /// Takes note of the other units that copies may be from and to, and the size of their blocks in bytes.
    pub fn set_peers(&mut self, peers: HashMap<Naa, u32>) {
        self.peers = peers;
    }

    /// Brings to an end what takes long: copies, after the chunk that is being copied.
    pub fn wind_up(&mut self) {
        self.is_ending = true;
    }

    /// Begins a command: checks in the order of SAM-5 whether it may run, and starts it.
    pub fn begin(&mut self, task: Task) -> Step {
        self.counters.commands += 1;
        // Those that change reservations go one after the other, each on what the one before has left.
        if !self.is_settled()
            && commands::find(&task.cdb, self.features).is_ok_and(changes_reservations)
        {
            self.awaited.push_back(Awaited::Command(task));
            return Step::Held;
        }
        self.run(task)
    }

    fn run(&mut self, task: Task) -> Step {
        match self.admit(&task) {
            Ok(row) => self.execute(row, task),
            Err(Refused::Gate(response)) => Step::Answer(task.answer(response)),
            Err(Refused::Conflict) => self.conflict(task),
        }
    }

    /// Goes on when an operation of the store has ended: with the answer to its command, or with more I/O. Answers that
    /// waited for it come from [`LogicalUnit::next_step`].
    pub fn finish(
        &mut self,
        pending: Pending,
        data: Data,
        result: Result<Outcome, Failure>,
    ) -> Step {
        if pending.told == Told::Nobody {
            self.drained(result.map(drop));
            return Step::Held;
        }
        self.end_operation(pending.key);
        if pending.copying.is_some() {
            return self.copied(pending, data, result);
        }
        let response = match (&result, pending.told) {
            (Ok(_), Told::Data(length)) => Response::InPlace(length),
            (Ok(Outcome::Extents(extents)), Told::Extents(allocation_length)) => {
                self.extents_found(extents, allocation_length)
            }
            (Ok(Outcome::Figures(figures)), Told::Figures(asked)) => {
                self.figures_found(figures, &asked)
            }
            (Ok(_), _) => Response::Good,
            (Err(Failure::Miscompare { at }), Told::Difference) => {
                let sense = Sense::miscompare_during_verify_operation();
                sense.with_information(*at).into()
            }
            (Err(failure), _) => self.failed(failure),
        };
        // A failure counts, whoever is told of it.
        let answer = self.end(pending, data, response);
        match &result {
            Err(failure) => self.tell_end(answer, failure),
            Ok(_) => Step::Answer(answer),
        }
    }

    /// Tells of the end of a command that has failed: that a flush has failed, only once that is stored.
    fn tell_end(&mut self, answer: Answer, failure: &Failure) -> Step {
        match failure {
            Failure::Flush(_) => self.tell_failed_flush(answer),
            _ => Step::Answer(answer),
        }
    }

    /// Ends a command in flight.
    fn end(&mut self, pending: Pending, data: Data, response: Response) -> Answer {
        let response = if self.tasks.end(pending.key) {
            Response::Status(Status::TaskAborted)
        } else {
            response
        };
        if let Some(copying) = &pending.copying {
            self.note_end_of_copy(copying, &response);
        }
        pending.answer(data, response)
    }

    /// Takes note of the end of an operation.
    fn end_operation(&mut self, key: TaskKey) {
        let part = self.tasks.end_operation(key);
        self.parts.end(part.as_ref());
        self.go_on();
    }

    /// Begins the operations that waited for others and need not any more.
    fn go_on(&mut self) {
        for (request, pending) in self.parts.go_on(&mut self.tasks) {
            self.ready.push_back(Step::Io(request, pending));
        }
    }

    /// Ends the commands that were aborted while their operations waited for others, and those that are meant.
    fn end_waiting(&mut self, is_meant: impl Fn(Tag) -> bool) {
        let tasks = &self.tasks;
        let taken = self
            .parts
            .take(|pending| is_meant(pending.tag()) || tasks.is_aborted(pending.key));
        for (request, pending) in taken {
            let aborted = Response::Status(Status::TaskAborted);
            let answer = self.end(pending, request.data, aborted);
            self.ready.push_back(Step::Answer(answer));
        }
        self.go_on();
    }

    /// What is registered and reserved.
    pub fn reservations(&self) -> &Reservations {
        &self.reservations
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many commands are in flight.
    pub fn in_flight(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is neither a command in flight nor a change to be stored.
    pub fn is_idle(&self) -> bool {
        self.tasks.len() == 0 && self.is_settled() && self.draining.is_none() && !self.is_in_doubt()
    }

    /// Whether something waits that is given up after some ticks.
    pub fn needs_ticks(&self) -> bool {
        self.is_in_doubt() || self.waiting() != Waiting::default()
    }

    /// The answers that wait until commands in flight have ended.
    pub fn waiting(&self) -> Waiting {
        self.tasks.waiting()
    }

    /// Whether nobody is let in because the record of the reservations can't be read.
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// The format of sense data (D_SENSE): descriptors if a logical block address may need more than 32 bits.
    pub fn sense_format(&self) -> Format {
        self.geometry.sense_format()
    }

    /// Whether a command may run, in the order of SAM-5: unknown commands, unit attentions of the reset group,
    /// reservations, other unit attentions.
    fn admit(&mut self, task: &Task) -> Result<&'static Row, Refused> {
        let found = commands::find(&task.cdb, self.features);
        let row = match found {
            Ok(row) => row,
            Err(sense) => self.row_that_conflicts(task).ok_or(sense)?,
        };
        self.refresh(task.nexus);
        let nexus = &mut self.nexuses[task.nexus.0];
        let reports = row.attention == Attention::Report;
        if let Some(condition) = reports.then(|| nexus.attentions.take_reset()).flatten() {
            return Err(condition.into());
        }
        if self.fenced && reports {
            return Err(Sense::manual_intervention_required().into());
        }
        if !nexus.standing.admits(row.access_of(&task.cdb)) {
            self.refuse(task);
            return Err(Response::Status(Status::ReservationConflict).into());
        }
        if reports && !nexus.attentions.is_empty() {
            // Commands that the gate lets through to rules of their own can still conflict.
            if self.conflicts(row, task) {
                return Err(Refused::Conflict);
            }
            if let Some(condition) = self.nexuses[task.nexus.0].attentions.take() {
                return Err(condition.into());
            }
        }
        Ok(found?)
    }

    /// A row by which a command conflicts that is not served: while a RESERVE exists, PERSISTENT RESERVE IN and OUT
    /// conflict with it whatever their service action is.
    fn row_that_conflicts(&self, task: &Task) -> Option<&'static Row> {
        let row = commands::of_opcode(task.cdb[0]).first()?;
        let persistent = matches!(
            row.access,
            Access::PersistentReserveIn | Access::PersistentReserveOut
        );
        (persistent && self.reservations.spc2().is_some()).then_some(row)
    }

    /// Whether the medium is in a state to serve the command.
    fn check_media(&self, nexus: NexusId, media: Media) -> Result<(), Sense> {
        let writes = media == Media::Write;
        if self.state.flush_failed && (writes || media == Media::Sync) {
            return Err(Sense::internal_target_failure());
        }
        if writes && self.may_only_read(nexus) {
            return Err(Sense::write_protected());
        }
        if writes && self.mode_values().software_write_protect {
            return Err(Sense::logical_unit_software_write_protected());
        }
        Ok(())
    }

    /// Whether this nexus, or nobody, can write.
    fn may_only_read(&self, nexus: NexusId) -> bool {
        self.geometry.is_write_protected() || self.nexuses[nexus.0].mapping == Mapping::ReadOnly
    }

    /// Establishes a unit attention for a nexus, attached or not.
    fn establish(&mut self, nexus: &Arc<ItNexus>, condition: Sense) {
        let known = Some(Arc::clone(nexus));
        let id = match self.ids.get(&known) {
            Some(&id) => id,
            None if self.nexuses.len() < self.remembered_max() => self.remember(known),
            None => return,
        };
        self.nexuses[id.0].attentions.establish(condition);
        self.owed.insert(id.0);
    }

    /// The most I_T nexuses for which unit attention conditions are kept while they are not attached. As many as can be
    /// registered lose their registrations at once; hosts that come and go can bring this about again and again.
    fn remembered_max(&self) -> usize {
        4 * usize::from(self.context.registration_limit.get())
    }

    fn remember(&mut self, nexus: Option<Arc<ItNexus>>) -> NexusId {
        let standing = Standing::new(&self.reservations, self.edition, nexus.as_deref());
        let id = NexusId(self.nexuses.insert(Nexus {
            nexus: nexus.clone(),
            standing,
            attentions: Attentions::default(),
            copies: BTreeMap::new(),
            mapping: Mapping::ReadWrite,
            told_write_through: self.may_have_told_write_through(),
            attached: 0,
        }));
        self.ids.insert(nexus, id);
        id
    }

    /// Works out what a nexus may run, unless that is known already: once per nexus and change.
    fn refresh(&mut self, id: NexusId) {
        let Nexus {
            nexus, standing, ..
        } = &mut self.nexuses[id.0];
        standing.refresh(&self.reservations, self.edition, nexus.as_deref());
    }

    /// Drops what is known of nexuses that are neither attached nor owed anything.
    fn forget_unneeded(&mut self) {
        let used: HashSet<NexusId> = self.tasks.users().chain(self.selecting()).collect();
        let (ids, storing) = (&mut self.ids, &self.storing);
        self.nexuses.retain(|index, nexus| {
            let id = NexusId(index);
            let needed = nexus.attached > 0
                || !nexus.attentions.is_empty()
                || used.contains(&id)
                || storing.as_ref().is_some_and(|storing| storing.is_of(id));
            if !needed {
                ids.remove(&nexus.nexus);
            }
            needed
        });
    }

    /// What an initiator is told of a failure of the store.
    fn failed(&mut self, failure: &Failure) -> Response {
        let serial = self.identity.serial.as_str();
        let (error, of_the_medium) = match failure {
            Failure::Flush(error) => {
                // Of those that were under way, others fail too.
                if !self.state.flush_failed {
                    log::error!(
                        TCMU_PR_UNIT = serial;
                        "unit {serial}: flushing failed: {error}; writes are refused until `tcmu-pr clear-flush-failure`"
                    );
                }
                self.flush_has_failed();
                return Sense::write_error().into();
            }
            Failure::Truncated => {
                log::error!(TCMU_PR_UNIT = serial; "unit {serial}: the backing object has become shorter than it");
                return Sense::internal_target_failure().into();
            }
            // Nobody cancels what is not aborted.
            Failure::Cancelled => return Response::Status(Status::TaskAborted),
            Failure::Miscompare { .. } => {
                return Sense::miscompare_during_verify_operation().into();
            }
            Failure::Read { at, error } => {
                log::warn!(TCMU_PR_UNIT = serial; "unit {serial}: reading at byte {at} of the backing object failed: {error}");
                let lba = self.geometry.block_at(*at);
                (
                    error,
                    Sense::unrecovered_read_error().with_information(lba.0),
                )
            }
            Failure::Write { at, error } => {
                log::warn!(TCMU_PR_UNIT = serial; "unit {serial}: writing at byte {at} of the backing object failed: {error}");
                let lba = self.geometry.block_at(*at);
                (error, Sense::write_error().with_information(lba.0))
            }
            Failure::Io(error) => {
                log::warn!(TCMU_PR_UNIT = serial; "unit {serial}: the backing object can't be used: {error}");
                (error, Sense::internal_target_failure())
            }
        };
        if is_passing(error) {
            Response::Status(Status::Busy)
        } else {
            sense_of(error, of_the_medium).into()
        }
    }
}

/// Whether a command can change what is registered and reserved.
fn changes_reservations(row: &Row) -> bool {
    matches!(row.access, Access::PersistentReserveOut | Access::Reserve)
}

/// Whether the system may be able to do later what it could not do now.
fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN))
}

/// Which condition an error of the system is to an initiator. Hosts act on the sense key: MEDIUM ERROR makes them
/// give up a block, NOT READY and HARDWARE ERROR a path. What failed says which error of the medium it is, if it is one.
fn sense_of(error: &std::io::Error, medium_error: Sense) -> Sense {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Sense::space_allocation_failed_write_protect(),
        Some(libc::EROFS | libc::EPERM | libc::EACCES) => Sense::write_protected(),
        Some(
            libc::ENODEV
            | libc::ENXIO
            | libc::ESTALE
            | libc::ENOLINK
            | libc::ENOTCONN
            | libc::EHOSTDOWN
            | libc::ETIMEDOUT,
        ) => Sense::logical_unit_communication_failure(),
        Some(libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EBADMSG | libc::EUCLEAN) => {
            medium_error
        }
        _ => Sense::internal_target_failure(),
    }
}

/// The answer to a command that came with two data buffers: no command served here has them.
pub fn refuse_bidirectional(tag: Tag, data: Data) -> Answer {
    Answer::without_task(tag, data, Sense::invalid_command_operation_code().into())
}

/// The answer to a command whose I_T nexus is not known. It is retried; a conflict would tell a healthy node
/// that it was fenced.
pub fn busy(tag: Tag, data: Data) -> Answer {
    Answer::without_task(tag, data, Response::Status(Status::Busy))
}

/// The answer to a command that was aborted before it was looked at.
pub fn aborted(tag: Tag, data: Data) -> Answer {
    Answer::without_task(tag, data, Response::Status(Status::TaskAborted))
}

#[cfg(test)]
mod tests;
