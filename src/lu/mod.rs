//! A logical unit: where commands, reservations and blocks meet.
//!
//! A [`LogicalUnit`] belongs to one thread by `&mut` and so needs no lock: the command that changes a reservation
//! and the command that the reservation refuses pass through here one after the other. It does no I/O. What
//! a command needs done outside comes out as a [`Step`], and goes back in with [`LogicalUnit::finish`],
//! [`LogicalUnit::commit`] or [`LogicalUnit::refuse`].
//!
//! It keeps the fence: a PERSISTENT RESERVE OUT is answered only when no command is in flight any more that the
//! reservations it leaves behind would refuse.

mod attention;
mod execute;
pub mod task;

use std::collections::{HashMap, HashSet};

use slab::Slab;

use crate::pr::gate::Allowed;
use crate::pr::out::Context;
use crate::pr::{Change, Reservations};
use crate::scsi::Status;
use crate::scsi::capacity::Geometry;
use crate::scsi::commands::{self, Attention, Media, Row};
use crate::scsi::inquiry::Identity;
use crate::scsi::nexus::{ItNexus, TargetPorts};
use crate::scsi::sense::{Format, Sense};
use crate::store::{Failure, Request};
use crate::sys::region::Data;
use attention::Attentions;
use task::{Answer, NexusId, Pending, PendingChange, Response, Tag, Task, TaskSet, Transfer};

/// The most I_T nexuses for which unit attention conditions are kept while they are not attached.
const REMEMBERED_MAX: usize = 4 * 8_190;

/// What a logical unit starts from.
#[derive(Debug)]
pub struct Setup {
    /// Who it is.
    pub identity: Identity,
    /// How large it is.
    pub geometry: Geometry,
    /// What is registered and reserved; `Err` if that is not known, and then nobody is let in.
    pub reservations: Result<Reservations, Unknown>,
    /// Whether initiators must be told that there was a power on.
    pub power_on: bool,
    /// Whether written blocks may wait in the cache until the next flush (WCE).
    pub write_back: bool,
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

/// What a command needs done.
#[derive(Debug)]
pub enum Step {
    /// Nothing: here is its answer.
    Answer(Answer),
    /// Nothing, but its answer waits for commands in flight: [`LogicalUnit::released`] gives it.
    Held,
    /// I/O, after which [`LogicalUnit::finish`] gives the answer.
    Io(Request, Pending),
    /// The change must be stored; then [`LogicalUnit::commit`], or [`LogicalUnit::refuse`] if it can't be.
    Change(PendingChange),
}

/// How often what happened since the unit was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commands from known nexuses.
    pub commands: u64,
    /// READ commands.
    pub reads: u64,
    /// WRITE commands.
    pub writes: u64,
    /// Commands refused with RESERVATION CONFLICT.
    pub conflicts: u64,
}

#[derive(Debug)]
struct Nexus {
    nexus: ItNexus,
    allowed: Allowed,
    attentions: Attentions,
    mapping: Mapping,
    /// Through how many ports it is attached now.
    attached: usize,
}

/// The state of one logical unit.
#[derive(Debug)]
pub struct LogicalUnit {
    identity: Identity,
    geometry: Geometry,
    reservations: Reservations,
    /// The record of the reservations can't be read: only those that ask for it are told who we are.
    fenced: bool,
    power_on: bool,
    /// Who has been told of the power on.
    greeted: HashSet<ItNexus>,
    write_back: bool,
    /// Data was lost in a failed flush; nothing pretends to be clean from then on.
    flush_failed: bool,
    context: Context,
    nexuses: Slab<Nexus>,
    ids: HashMap<ItNexus, NexusId>,
    tasks: TaskSet,
    counters: Counters,
}

impl LogicalUnit {
    /// A logical unit to which nobody is attached yet.
    pub fn new(setup: Setup) -> LogicalUnit {
        LogicalUnit {
            identity: setup.identity,
            geometry: setup.geometry,
            fenced: setup.reservations.is_err(),
            reservations: setup.reservations.unwrap_or_default(),
            power_on: setup.power_on,
            greeted: HashSet::new(),
            write_back: setup.write_back,
            flush_failed: false,
            context: Context::default(),
            nexuses: Slab::new(),
            ids: HashMap::new(),
            tasks: TaskSet::default(),
            counters: Counters::default(),
        }
    }

    /// Lets a nexus in. It keeps the unit attentions that wait for it from earlier.
    pub fn attach(&mut self, nexus: ItNexus, mapping: Mapping) -> NexusId {
        self.context.nexuses.insert(nexus.clone());
        if self.power_on
            && self.greeted.len() < REMEMBERED_MAX
            && self.greeted.insert(nexus.clone())
        {
            self.establish(&nexus, Sense::power_on_occurred());
        }
        let id = match self.ids.get(&nexus) {
            Some(&id) => id,
            None => self.remember(nexus),
        };
        let entry = &mut self.nexuses[id.0];
        if entry.attached > 0 && entry.mapping != mapping {
            entry.attentions.establish(Sense::mode_parameters_changed());
        }
        entry.attached += 1;
        entry.mapping = mapping;
        id
    }

    /// Lets a nexus go. Its registrations and unit attentions stay.
    pub fn detach(&mut self, id: NexusId) {
        let entry = &mut self.nexuses[id.0];
        entry.attached -= 1;
        if entry.attached == 0 {
            self.context.nexuses.remove(&entry.nexus);
        }
        self.forget_unneeded();
    }

    /// Takes note of the unit's target ports and their relative target port identifiers.
    pub fn set_target_ports(&mut self, ports: TargetPorts) {
        self.context.ports = ports;
    }

    /// Sets whether written blocks may wait in the cache (WCE), and tells everybody if that is news. What waits is
    /// flushed by the first write that may not.
    pub fn set_write_back(&mut self, write_back: bool) {
        if std::mem::replace(&mut self.write_back, write_back) != write_back {
            for (_, nexus) in &mut self.nexuses {
                nexus.attentions.establish(Sense::mode_parameters_changed());
            }
        }
    }

    /// Begins a command: checks in the order of SAM-5 whether it may run, and starts it.
    pub fn begin(&mut self, task: Task) -> Step {
        self.counters.commands += 1;
        match self.admit(&task) {
            Ok(row) => self.execute(row, task),
            Err(response) => Step::Answer(task.answer(response)),
        }
    }

    /// Ends a command whose I/O is done. Answers that waited for it come from [`LogicalUnit::released`].
    pub fn finish(&mut self, pending: Pending, data: Data, result: Result<(), Failure>) -> Answer {
        let aborted = self.tasks.end(pending.key);
        let response = match (result, pending.transfer) {
            (Ok(()), Transfer::In(length)) => Response::InPlace(length),
            (Ok(()), _) => Response::Good,
            (Err(failure), transfer) => self.failed(&failure, transfer),
        };
        // A failure counts, whoever is told of it.
        let response = if aborted {
            Response::Status(Status::TaskAborted)
        } else {
            response
        };
        pending.answer(data, response)
    }

    /// Takes up a change that has been stored. Its answer is held back while commands are in flight that
    /// the new reservations refuse or that it aborts; [`LogicalUnit::released`] gives it later.
    pub fn commit(&mut self, pending: PendingChange) -> Option<Answer> {
        let (answer, change) = pending.answer(Response::Good);
        self.take_up(change);
        self.hold_back(answer)
    }

    /// Answers a change that could not be stored. Nothing has changed.
    pub fn refuse(&mut self, pending: PendingChange) -> Answer {
        pending.answer(Sense::internal_target_failure().into()).0
    }

    /// An answer that has waited for commands in flight and need not wait any longer.
    pub fn released(&mut self) -> Option<Answer> {
        self.tasks.released()
    }

    /// LOGICAL UNIT RESET, which the kernel has carried out for the I_T nexuses of one port. Establishes the unit
    /// attention for all others, and gives what it changes of the reservations.
    ///
    /// The change is stored and then taken up with [`LogicalUnit::take_up_reset`].
    pub fn reset(&mut self, told_by_the_kernel: Option<NexusId>) -> Option<Change> {
        for (index, nexus) in &mut self.nexuses {
            if told_by_the_kernel != Some(NexusId(index)) && nexus.attached > 0 {
                nexus
                    .attentions
                    .establish(Sense::bus_device_reset_function_occurred());
            }
        }
        self.reservations.released_by_reset()
    }

    /// What the loss of a nexus changes of the reservations, to be stored and taken up like a reset's.
    pub fn nexus_lost(&self, id: NexusId) -> Option<Change> {
        self.reservations
            .released_by_nexus_loss(&self.nexuses[id.0].nexus)
    }

    /// Takes up what a reset or the loss of a nexus changes of the reservations.
    pub fn take_up_reset(&mut self, change: Change) {
        self.take_up(change);
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
    fn admit(&mut self, task: &Task) -> Result<&'static Row, Response> {
        let row = commands::find(&task.cdb)?;
        let nexus = &mut self.nexuses[task.nexus.0];
        let reports = row.attention == Attention::Report;
        if let Some(condition) = reports.then(|| nexus.attentions.take_reset()).flatten() {
            return Err(condition.into());
        }
        if self.fenced && reports {
            return Err(Sense::manual_intervention_required().into());
        }
        if !nexus.allowed.contains(row.access) {
            self.counters.conflicts += 1;
            return Err(Response::Status(Status::ReservationConflict));
        }
        if reports && !nexus.attentions.is_empty() {
            // Commands that the gate lets through to rules of their own can still conflict.
            if self.conflicts(row, task) {
                self.counters.conflicts += 1;
                return Err(Response::Status(Status::ReservationConflict));
            }
            if let Some(condition) = self.nexuses[task.nexus.0].attentions.take() {
                return Err(condition.into());
            }
        }
        Ok(row)
    }

    /// Whether the medium is in a state to serve the command.
    fn check_media(&self, nexus: NexusId, media: Media) -> Result<(), Sense> {
        let writes = media == Media::Write;
        if self.flush_failed && (writes || media == Media::Sync) {
            return Err(Sense::internal_target_failure());
        }
        if writes && self.nexuses[nexus.0].mapping == Mapping::ReadOnly {
            return Err(Sense::write_protected());
        }
        Ok(())
    }

    /// Holds back an answer that tells, or lets conclude, who has access now, while commands are in flight that were
    /// let in before and would be refused now, or that are aborted.
    fn hold_back(&mut self, answer: Answer) -> Option<Answer> {
        let nexuses = &self.nexuses;
        self.tasks.hold_back(answer, |nexus, access| {
            !nexuses[nexus.0].allowed.contains(access)
        })
    }

    /// The next reservations are in force when this returns.
    fn take_up(&mut self, change: Change) {
        self.reservations = change.next;
        for (_, nexus) in &mut self.nexuses {
            nexus.allowed = self.reservations.allowed(Some(&nexus.nexus));
        }
        for (nexus, condition) in change.attentions {
            self.establish(&nexus, condition);
        }
        for nexus in change.abort {
            if let Some(&id) = self.ids.get(&*nexus) {
                self.tasks.abort(id);
            }
        }
    }

    /// Establishes a unit attention for a nexus, attached or not.
    fn establish(&mut self, nexus: &ItNexus, condition: Sense) {
        let id = match self.ids.get(nexus) {
            Some(&id) => id,
            None if self.nexuses.len() < REMEMBERED_MAX => self.remember(nexus.clone()),
            None => return,
        };
        self.nexuses[id.0].attentions.establish(condition);
    }

    fn remember(&mut self, nexus: ItNexus) -> NexusId {
        let allowed = self.reservations.allowed(Some(&nexus));
        let id = NexusId(self.nexuses.insert(Nexus {
            nexus: nexus.clone(),
            allowed,
            attentions: Attentions::default(),
            mapping: Mapping::ReadWrite,
            attached: 0,
        }));
        self.ids.insert(nexus, id);
        id
    }

    /// Drops what is known of nexuses that are neither attached nor owed a unit attention.
    fn forget_unneeded(&mut self) {
        let (tasks, ids) = (&self.tasks, &mut self.ids);
        self.nexuses.retain(|index, nexus| {
            let needed = nexus.attached > 0
                || !nexus.attentions.is_empty()
                || tasks.is_used_by(NexusId(index));
            if !needed {
                ids.remove(&nexus.nexus);
            }
            needed
        });
    }

    /// What an initiator is told of a failure of the store.
    fn failed(&mut self, failure: &Failure, transfer: Transfer) -> Response {
        match failure {
            Failure::Flush(error) => {
                log::error!("flushing failed: {error}; writes are refused from now on");
                self.flush_failed = true;
                Sense::write_error().into()
            }
            Failure::Truncated => {
                log::error!("the backing object has become shorter than the unit");
                Sense::internal_target_failure().into()
            }
            Failure::Io(error) if is_passing(error) => Response::Status(Status::Busy),
            Failure::Io(error) => {
                log::warn!("I/O on the backing object failed: {error}");
                sense_of(error, transfer).into()
            }
        }
    }
}

/// Whether the system may be able to do later what it could not do now.
fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN))
}

/// Which condition an error of the system is to an initiator. Hosts act on the sense key: MEDIUM ERROR makes them
/// give up a block, NOT READY and HARDWARE ERROR a path.
fn sense_of(error: &std::io::Error, transfer: Transfer) -> Sense {
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
            match transfer {
                Transfer::In(_) => Sense::unrecovered_read_error(),
                Transfer::Out | Transfer::Flush => Sense::write_error(),
            }
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

#[cfg(test)]
mod tests;
