//! Changes of the reservations on their way: decided, then stored, then in force, then answered.
//!
//! One change is stored at a time. What would change the reservations meanwhile waits for it, since it has to be
//! decided on what that change leaves behind. Everything else goes on under the reservations as they are: a change
//! that nobody has been told of is not in force.

use std::collections::HashSet;
use std::sync::Arc;

use super::mode::{Alteration, UnitState};
use super::task::{NexusId, Reply, Response, Tag, Task, Ticket};
use super::{LogicalUnit, Step};
use crate::pr::admin::Action;
use crate::pr::event::{Act, Cause};
use crate::pr::{Change, Reservations, Save};
use crate::scsi::nexus::ItNexus;
use crate::scsi::sense::Sense;
use crate::scsi::{Access, Status};

/// For how many ticks an answer waits for commands in flight.
///
/// Hosts give up on PERSISTENT RESERVE OUT after 30 to 60 seconds, and a worker ticks once a second.
pub const FENCE_PATIENCE: u32 = 30;

/// What is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToStore {
    /// The reservations as they will be.
    pub next: Reservations,
    /// Where.
    pub save: Save,
    /// The unit attention conditions that will be pending, those of one I_T nexus in order.
    pub attentions: Vec<(Arc<ItNexus>, Sense)>,
    /// What the unit keeps besides, if that changes.
    pub state: Option<UnitState>,
    /// Whether what stands there can't be read, and is to be set aside before.
    pub set_aside: bool,
    /// What changes the reservations, if anything does.
    pub cause: Option<Cause>,
}

/// Why an order of the administrator's came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfulfilled {
    /// The change could not be stored.
    #[error("the change could not be stored, and nothing has changed: see `journalctl -u tcmu-pr`")]
    NotStored,
    /// There is nothing to preempt.
    #[error("nobody is registered with the key {0:#018x}")]
    NoSuchKey(u64),
    /// Nobody knows who is registered.
    #[error("the record of the reservations can't be read: `tcmu-pr clear` sets it aside")]
    Unreadable,
    /// It is done, but not safe to rely on.
    #[error(
        "the registrations are removed, but commands of those who have lost access are still in flight: they can \
         write until the backing store has ended them (`tcmu-pr status` counts them)"
    )]
    StillInFlight,
}

/// Who is told how a change has ended.
#[derive(Debug)]
pub(super) enum Origin {
    /// The initiator that sent the command.
    Command(Task),
    /// The administrator.
    Administrator(Ticket),
    /// Nobody: a reset, or the loss of an I_T nexus.
    Event,
}

/// Who changes the reservations, and by what.
#[derive(Debug)]
pub(super) struct By {
    act: Act,
    nexus: Option<Arc<ItNexus>>,
}

impl By {
    fn administrator(act: Act) -> By {
        By { act, nexus: None }
    }
}

/// A change that is being stored.
#[derive(Debug)]
pub(super) struct Storing {
    pub(super) what: What,
    pub(super) origin: Origin,
    /// The command has been aborted meanwhile.
    pub(super) aborted: bool,
    /// The record that could not be read is set aside with it.
    pub(super) set_aside: bool,
}

/// What changes.
#[derive(Debug)]
pub(super) enum What {
    /// The reservations.
    Reservations(Change),
    /// What the unit keeps besides.
    Unit(Alteration),
}

impl Storing {
    /// Whether it is a command of that nexus.
    pub(super) fn is_of(&self, id: NexusId) -> bool {
        matches!(&self.origin, Origin::Command(task) if task.nexus == id)
    }
}

impl What {
    /// Whether it is not so unless it is stored. A unit has its new size in any case: its backing object has it already.
    fn must_be_stored(&self) -> bool {
        !matches!(self, What::Unit(Alteration::Resize(_)))
    }
}

/// What waits for the change that is being stored.
#[derive(Debug)]
pub(super) enum Awaited {
    Command(Task),
    Order(Action, Ticket),
    Alteration(Alteration, Origin),
    Reset,
    NexusLoss(ItNexus),
    /// Of the session that has sent the RESERVE of that number.
    SessionLoss(ItNexus, u64),
}

impl LogicalUnit {
    /// What can go on now, after [`LogicalUnit::finish`], [`LogicalUnit::stored`] or an event; `None` if nothing can.
    pub fn next_step(&mut self) -> Option<Step> {
        if let Some(step) = self.ready.pop_front() {
            return Some(step);
        }
        if let Some(reply) = self.tasks.released() {
            return Some(self.told(reply));
        }
        if self.storing.is_some() {
            return None;
        }
        if let Some(step) = self.go_on_drained() {
            return Some(step);
        }
        Some(match self.awaited.pop_front()? {
            Awaited::Command(task) => self.run(task),
            Awaited::Order(action, ticket) => self.carry_out(action, ticket),
            Awaited::Alteration(alteration, origin) => self.store_alteration(alteration, origin),
            Awaited::Reset => {
                let by = By {
                    act: Act::Reset,
                    nexus: None,
                };
                self.event(self.reservations.released_by_reset(), by)
            }
            Awaited::NexusLoss(nexus) => self.end_reserve(nexus),
            // It may have sent another while this has waited.
            Awaited::SessionLoss(_, number) if number != self.reserves.number => Step::Held,
            Awaited::SessionLoss(nexus, _) => self.end_reserve(nexus),
        })
    }

    /// Goes on with the change of the last [`Step::Store`]: takes it up if it was stored, refuses it if not.
    pub fn stored(&mut self, stored: bool) -> Step {
        let Storing {
            what,
            origin,
            aborted,
            set_aside,
        } = self.storing.take().expect("a change is being stored");
        match origin {
            Origin::Command(task) if !stored => {
                Step::Answer(task.answer(Sense::internal_target_failure().into()))
            }
            Origin::Administrator(ticket) if !stored && what.must_be_stored() => {
                Step::Administered(ticket, Err(Unfulfilled::NotStored))
            }
            // What nobody has asked for is so in any case. A record that still has a RESERVE errs on the safe side.
            origin => {
                self.fenced &= !set_aside;
                match what {
                    What::Reservations(change) => self.conclude(change, origin, aborted),
                    What::Unit(alteration) => self.alter_now(alteration, origin, aborted),
                }
            }
        }
    }

    /// Lets time pass: one tick. Answers that have waited for [`FENCE_PATIENCE`] ticks are given up, and RESERVEs do not
    /// wait for a look any more after [`super::LOOK_PATIENCE`].
    pub fn tick(&mut self) {
        for reply in self.tasks.tick(FENCE_PATIENCE) {
            self.give_up(reply);
        }
        self.doubt_for_a_tick();
    }

    /// LOGICAL UNIT RESET, which the kernel has carried out for the I_T nexuses of one port. Establishes the unit
    /// attention for all others, aborts what is in flight, ends a RESERVE, and brings saved mode parameters back.
    pub fn reset(&mut self, told_by_the_kernel: &[NexusId]) {
        for (index, nexus) in &mut self.nexuses {
            if !told_by_the_kernel.contains(&NexusId(index)) && nexus.attached > 0 {
                nexus
                    .attentions
                    .establish(Sense::bus_device_reset_function_occurred());
                self.owed.insert(index);
            }
        }
        self.abort(|_| true);
        self.awaited.push_back(Awaited::Reset);
        if self.state.selected.is_some() {
            self.await_alteration(Alteration::Reset, Origin::Event);
        }
    }

    /// ABORT TASK of the commands that are meant, each of which its sender waits for until it has ended. So all that
    /// can go on to its end does; what has changed nothing yet is stopped, and so is a VERIFY, which may take long.
    pub fn abort_task(&mut self, is_meant: impl Fn(Tag) -> bool) {
        self.tasks.abort_cancellable(&is_meant);
        self.end_waiting(is_meant);
    }

    /// The loss of an I_T nexus: logout, a dropped connection, a session reinstated. It ends a RESERVE.
    pub fn nexus_lost(&mut self, nexus: ItNexus) {
        self.awaited.push_back(Awaited::NexusLoss(nexus));
    }

    /// An order of the administrator's about reservations. How it ends comes as [`Step::Administered`] with this ticket.
    pub fn administer(&mut self, action: Action, ticket: Ticket) {
        self.awaited.push_back(Awaited::Order(action, ticket));
    }

    /// How things are, to be stored for the next daemon; `None` if that is not known.
    pub fn last_words(&self) -> Option<ToStore> {
        (!self.fenced).then(|| ToStore {
            next: self.reservations.clone(),
            save: Save::Runtime,
            attentions: self.attentions(),
            state: None,
            set_aside: false,
            cause: None,
        })
    }

    /// Every unit attention condition that is pending.
    pub(super) fn attentions(&self) -> Vec<(Arc<ItNexus>, Sense)> {
        let mut all = Vec::new();
        let owed = self.owed.iter().filter_map(|&id| self.nexuses.get(id));
        for entry in owed {
            if let Some(nexus) = &entry.nexus {
                let pending = entry.attentions.iter();
                all.extend(pending.map(|condition| (Arc::clone(nexus), *condition)));
            }
        }
        all
    }

    /// Whether no change is being stored or waits to be.
    pub(super) fn is_settled(&self) -> bool {
        self.storing.is_none() && self.awaited.is_empty() && self.ready.is_empty()
    }

    /// Has a change stored, if it is to be, and then takes it up.
    pub(super) fn store(&mut self, change: Change, origin: Origin, by: By) -> Step {
        if change.save == Save::Nothing {
            return self.conclude(change, origin, false);
        }
        self.store_and_set_aside(change, origin, by)
    }

    /// Has the change of a command stored that does `act`, if it is to be, and then takes it up.
    pub(super) fn store_of(&mut self, change: Change, task: Task, act: Act) -> Step {
        let nexus = self.nexuses[task.nexus.0].nexus.clone();
        self.store(change, Origin::Command(task), By { act, nexus })
    }

    /// Holds back a reply that tells, or lets conclude, who has access now, while commands are in flight that were let
    /// in before and would be refused now, or that are aborted.
    pub(super) fn hold_back(&mut self, reply: Reply) -> Step {
        self.hold_back_for(reply, |_| false)
    }

    /// As [`LogicalUnit::hold_back`], and while commands of those kinds are in flight too.
    pub(super) fn hold_back_for(
        &mut self,
        reply: Reply,
        concerns: impl Fn(Access) -> bool,
    ) -> Step {
        let in_flight: Vec<NexusId> = self.tasks.nexuses().collect();
        for id in in_flight {
            self.refresh(id);
        }
        let nexuses = &self.nexuses;
        let released = self.tasks.hold_back(reply, |nexus, access| {
            concerns(access) || !nexuses[nexus.0].standing.admits(access)
        });
        match released {
            Some(reply) => self.told(reply),
            None => Step::Held,
        }
    }

    /// Aborts what those nexuses have sent and nobody has begun.
    pub(super) fn abort_awaited(&mut self, nexuses: impl Fn(NexusId) -> bool) {
        self.abort_select(&nexuses);
        for awaited in std::mem::take(&mut self.awaited) {
            match awaited {
                Awaited::Command(task) if nexuses(task.nexus) => {
                    let answer = task.answer(Response::Status(Status::TaskAborted));
                    self.ready.push_back(Step::Answer(answer));
                }
                other => self.awaited.push_back(other),
            }
        }
        for task in std::mem::take(&mut self.reserves.in_doubt) {
            if nexuses(task.nexus) {
                let answer = task.answer(Response::Status(Status::TaskAborted));
                self.ready.push_back(Step::Answer(answer));
            } else {
                self.reserves.in_doubt.push(task);
            }
        }
    }

    fn store_and_set_aside(&mut self, change: Change, origin: Origin, by: By) -> Step {
        let set_aside = by.act == Act::RecordSetAside;
        let nexuses = &self.nexuses;
        let is_owed = |nexus: &super::Nexus| !nexus.attentions.is_empty();
        self.owed.retain(|&id| nexuses.get(id).is_some_and(is_owed));
        let mut attentions = self.attentions();
        attentions.extend(change.attentions.iter().cloned());
        let to_store = ToStore {
            next: change.next.clone(),
            save: change.save,
            attentions,
            state: None,
            set_aside,
            cause: Some(Cause {
                act: by.act,
                by: by.nexus,
                before: self.reservations.clone(),
            }),
        };
        self.storing = Some(Storing {
            what: What::Reservations(change),
            origin,
            aborted: false,
            set_aside,
        });
        Step::Store(to_store)
    }

    fn event(&mut self, change: Option<Change>, by: By) -> Step {
        change.map_or(Step::Held, |change| self.store(change, Origin::Event, by))
    }

    /// Ends the RESERVE of an I_T nexus that is lost.
    fn end_reserve(&mut self, nexus: ItNexus) -> Step {
        let change = self.reservations.released_by_nexus_loss(&nexus);
        let by = By {
            act: Act::NexusLoss,
            nexus: Some(Arc::new(nexus)),
        };
        self.event(change, by)
    }

    fn carry_out(&mut self, action: Action, ticket: Ticket) -> Step {
        let refused = |why| Step::Administered(ticket, Err(why));
        let (change, act) = match action {
            Action::Clear if self.fenced => return self.start_afresh(ticket),
            Action::Preempt { .. } if self.fenced => return refused(Unfulfilled::Unreadable),
            Action::Clear => (self.reservations.cleared(None), Act::AdministratorClear),
            Action::Preempt { key } => {
                let mut registrants = self.reservations.registrants().iter();
                if !registrants.any(|registrant| registrant.key == key) {
                    return refused(Unfulfilled::NoSuchKey(key));
                }
                (self.reservations.removed(key), Act::AdministratorPreempt)
            }
        };
        self.store(
            change,
            Origin::Administrator(ticket),
            By::administrator(act),
        )
    }

    /// Goes on without the record that can't be read. Whoever may have been registered is told.
    fn start_afresh(&mut self, ticket: Ticket) -> Step {
        let attached = self.nexuses.iter().filter(|(_, nexus)| nexus.attached > 0);
        let told = attached.filter_map(|(_, nexus)| nexus.nexus.clone());
        let change = Change {
            next: Reservations::default(),
            save: Save::Durable,
            attentions: told
                .map(|nexus| (nexus, Sense::reservations_preempted()))
                .collect(),
            abort: Vec::new(),
        };
        let by = By::administrator(Act::RecordSetAside);
        self.store_and_set_aside(change, Origin::Administrator(ticket), by)
    }

    /// Puts a change in force, and tells whoever asked for it, once it is true.
    fn conclude(&mut self, change: Change, origin: Origin, aborted: bool) -> Step {
        let changed = change.save != Save::Nothing;
        self.take_up(change);
        match origin {
            Origin::Command(task) if aborted => {
                Step::Answer(task.answer(Response::Status(Status::TaskAborted)))
            }
            Origin::Command(task) => self.hold_back(Reply::Command {
                nexus: task.nexus,
                answer: task.answer(Response::Good),
                changed,
            }),
            Origin::Administrator(ticket) => self.hold_back(Reply::Administrator(ticket)),
            Origin::Event => Step::Held,
        }
    }

    /// The next reservations are in force when this returns.
    fn take_up(&mut self, change: Change) {
        self.reservations = change.next;
        self.edition += 1;
        for (nexus, condition) in change.attentions {
            self.establish(&nexus, condition);
        }
        let abort = change.abort.into_iter();
        let abort: HashSet<NexusId> = abort
            .filter_map(|nexus| self.ids.get(&Some(nexus)).copied())
            .collect();
        if !abort.is_empty() {
            self.abort(|nexus| abort.contains(&nexus));
        }
    }

    /// Aborts the commands of those nexuses, wherever they are.
    fn abort(&mut self, nexuses: impl Fn(NexusId) -> bool) {
        for answer in self.tasks.abort(&nexuses) {
            self.ready.push_back(Step::Answer(answer));
        }
        self.end_waiting(|_| false);
        if let Some(storing) = &mut self.storing {
            storing.aborted |=
                matches!(&storing.origin, Origin::Command(task) if nexuses(task.nexus));
        }
        self.abort_awaited(nexuses);
    }

    fn told(&mut self, reply: Reply) -> Step {
        match reply {
            Reply::Command { answer, .. } => Step::Answer(answer),
            Reply::Administrator(ticket) => Step::Administered(ticket, Ok(())),
            Reply::Drained => self.flush_cache(),
        }
    }

    /// Tells that it can't be waited for any longer: never that the losers are done.
    ///
    /// A command that has changed something was not refused: its initiator is told that it was aborted, and has to look
    /// what has become of it. Any other can be repeated as if nothing had been.
    fn give_up(&mut self, reply: Reply) {
        let step = match reply {
            Reply::Command {
                answer, changed, ..
            } => {
                let status = if changed {
                    Status::TaskAborted
                } else {
                    Status::Busy
                };
                Step::Answer(answer.instead(Response::Status(status)))
            }
            Reply::Administrator(ticket) => {
                Step::Administered(ticket, Err(Unfulfilled::StillInFlight))
            }
            Reply::Drained => return self.give_up_draining(),
        };
        self.ready.push_back(step);
    }
}
