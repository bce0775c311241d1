//! What a unit keeps besides its reservations: mode parameters, that a flush has failed, its size. And how MODE SELECT,
//! resets, failed flushes and the administrator change that.
//!
//! An [`Alteration`] takes the way of a change of the reservations: it is stored, then in force, then answered. One that
//! switches the write cache off has a way to go before: from its first moment on writes go through to the medium, and those
//! that were begun before are waited for and flushed. So WCE=0 is never told before it is true. Nobody who was told WCE=0
//! has writes wait in the cache either: what an I_T nexus writes is durable at once until it has been told WCE=1.

use super::change::{Awaited, Origin, Storing, What};
use super::task::{Answer, NexusId, Pending, Reply, Response, Task};
use super::{Failure, LogicalUnit, Step, ToStore};
use crate::pr::Save;
use crate::scsi::capacity::Geometry;
use crate::scsi::cdb;
use crate::scsi::mode::{self, ModeState, Values};
use crate::scsi::sense::Sense;
use crate::scsi::{Access, Status};
use crate::store::{Cancellation, Durability, Lane, Operation, Request};
use crate::sys::region::Data;

/// Where the unit's own operations wait: no I_T nexus has that number.
const OWN_LANE: Lane = Lane(usize::MAX);

/// What of a unit outlives the daemon, besides its reservations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// The mode parameters that MODE SELECT has set since the last reset or loss of power.
    pub selected: Option<Values>,
    /// Those that it has saved, which a reset or a loss of power brings back.
    pub saved: Option<Values>,
    /// Data was lost in a failed flush. Nothing pretends to be clean until the administrator has seen to it.
    pub flush_failed: bool,
}

impl UnitState {
    /// The values to go by, as far as MODE SELECT has set any.
    fn values(&self) -> Option<Values> {
        self.selected.or(self.saved)
    }
}

/// A change of what a unit keeps besides its reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// MODE SELECT sets these values.
    Select {
        /// All of them, as they will be.
        values: Values,
        /// Whether they are saved.
        save: bool,
    },
    /// A reset brings back what was saved.
    Reset,
    /// The administrator sets WCE, whatever MODE SELECT has said.
    WriteCache(bool),
    /// A flush has failed.
    FlushFailed,
    /// The administrator knows that it has.
    ForgetFlushFailure,
    /// The unit has another size.
    Resize(Geometry),
}

/// The write cache is being switched off: writes go through to the medium while this exists.
#[derive(Debug)]
pub(super) struct Draining {
    /// The MODE SELECT that asks for it. Without one, the values say so already.
    select: Option<(Task, Alteration)>,
    /// What was written before is on the medium.
    is_flushed: bool,
}

impl LogicalUnit {
    /// WCE of a unit for which MODE SELECT has set nothing, as all its backstores say.
    pub fn set_default_write_cache(&mut self, write_cache: bool) {
        self.default_values.write_cache_enabled = write_cache;
        self.follow_values();
    }

    /// The administrator has set WCE, in place of what MODE SELECT has set.
    pub fn set_write_cache(&mut self, write_cache: bool) {
        self.default_values.write_cache_enabled = write_cache;
        let differs = |values: Values| values.write_cache_enabled != write_cache;
        if self.state.selected.is_some_and(differs) || self.state.saved.is_some_and(differs) {
            self.await_alteration(Alteration::WriteCache(write_cache), Origin::Event);
        } else {
            self.follow_values();
        }
    }

    /// Changes what the administrator orders. How it ends comes as [`Step::Administered`] with this ticket.
    pub fn alter(&mut self, alteration: Alteration, ticket: super::task::Ticket) {
        self.await_alteration(alteration, Origin::Administrator(ticket));
    }

    /// Whether a flush has failed, and nobody has seen to it.
    pub fn has_flush_failed(&self) -> bool {
        self.state.flush_failed
    }

    /// The values in force.
    pub fn mode_values(&self) -> Values {
        Values {
            write_cache_enabled: self.told_write_back,
            ..self.wanted_values()
        }
    }

    pub(super) fn mode_state(&self, nexus: NexusId) -> ModeState {
        ModeState {
            current: self.mode_values(),
            default: self.default_values,
            saved: self.state.saved.unwrap_or(self.default_values),
            read_only: self.may_only_read(nexus),
            task_aborted_status: true,
            soft_threshold: self.provisioning.soft_threshold_sets(&self.geometry),
        }
    }

    pub(super) fn mode_sense(&mut self, task: &Task, asked: &cdb::ModeSense) -> Response {
        let answer = mode::sense(asked, &self.mode_state(task.nexus), &self.geometry);
        let length = u32::try_from(task.data.len()).unwrap_or(u32::MAX);
        if answer.is_ok() && mode::tells_write_cache(asked, length.min(asked.allocation_length)) {
            self.nexuses[task.nexus.0].told_write_through = !self.told_write_back;
        }
        answer.map_or_else(Response::from, |bytes| {
            super::execute::data_in(bytes, asked.allocation_length)
        })
    }

    /// When what a nexus writes has to be on stable storage.
    pub(super) fn durability(&self, nexus: NexusId, fua: bool) -> Durability {
        let switches_off = |storing: &Storing| matches!(&storing.what, What::Unit(Alteration::Select { values, .. }) if !values.write_cache_enabled);
        let through = !self.told_write_back
            || self.nexuses[nexus.0].told_write_through
            || self.draining.is_some()
            || self.storing.as_ref().is_some_and(switches_off);
        if fua || through {
            Durability::Now
        } else {
            Durability::Later
        }
    }

    /// Whether a nexus that nobody has seen yet may have been told WCE=0 before WCE was switched on.
    pub(super) fn may_have_told_write_through(&self) -> bool {
        let values = [self.state.selected, self.state.saved];
        values
            .into_iter()
            .flatten()
            .any(|values| values.write_cache_enabled)
    }

    pub(super) fn mode_select(&mut self, task: Task, asked: &cdb::ModeSelect) -> Step {
        if self.storing.is_some() {
            // It is decided on what the change leaves behind that is being stored.
            self.awaited.push_back(Awaited::Command(task));
            return Step::Held;
        }
        if self.selecting().is_some() {
            return Step::Answer(task.answer(Response::Status(Status::Busy)));
        }
        let list = task.parameter_list(asked.parameter_list_length.into());
        let values = match mode::select(asked, &list, &self.mode_state(task.nexus), &self.geometry)
        {
            Ok(values) => values,
            Err(sense) => return Step::Answer(task.answer(sense.into())),
        };
        let current = self.mode_values();
        if values == current && !asked.save {
            return Step::Answer(task.answer(Response::Good));
        }
        let alteration = Alteration::Select {
            values,
            save: asked.save,
        };
        if current.write_cache_enabled && !values.write_cache_enabled {
            self.drain(Some((task, alteration)));
            return Step::Held;
        }
        self.store_alteration(alteration, Origin::Command(task))
    }

    /// The nexus whose MODE SELECT waits until the write cache is empty.
    pub(super) fn selecting(&self) -> Option<NexusId> {
        let (task, _) = self.draining.as_ref()?.select.as_ref()?;
        Some(task.nexus)
    }

    /// Gives up the MODE SELECT that waits until the write cache is empty, if it is of one of those nexuses.
    pub(super) fn abort_select(&mut self, nexuses: impl Fn(NexusId) -> bool) {
        if self.selecting().is_some_and(nexuses) {
            self.answer_select(Response::Status(Status::TaskAborted));
        }
    }

    /// The writes have ended that were begun before the write cache is switched off: what they have written goes to the
    /// medium.
    pub(super) fn flush_cache(&mut self) -> Step {
        let request = Request {
            lane: OWN_LANE,
            operation: Operation::Flush,
            data: Data::none(),
            cancellation: Cancellation::default(),
        };
        Step::Io(request, Pending::own())
    }

    /// Those writes do not end.
    pub(super) fn give_up_draining(&mut self) {
        self.answer_select(Response::Status(Status::Busy));
        self.draining = None;
        self.follow_values();
    }

    /// What was in the write cache is on the medium, or can't be brought there.
    pub(super) fn drained(&mut self, result: Result<(), Failure>) {
        match result {
            Ok(()) => {
                let draining = self.draining.as_mut();
                draining.expect("nobody else flushes").is_flushed = true;
            }
            Err(failure) => {
                let response = self.failed(&failure);
                self.answer_select(response);
                self.draining = None;
            }
        }
    }

    /// Goes on when the write cache is empty; `None` if it is not, or nobody waits for that.
    pub(super) fn go_on_drained(&mut self) -> Option<Step> {
        let draining = self.draining.take_if(|draining| draining.is_flushed)?;
        if !self.wanted_values().write_cache_enabled {
            self.tell_write_back(false);
        }
        let Some((task, alteration)) = draining.select else {
            return Some(Step::Held);
        };
        // Its nexus may have lost access meanwhile, and been told so.
        let access = Access::Write;
        self.refresh(task.nexus);
        if !self.nexuses[task.nexus.0].standing.admits(access) {
            self.refuse(&task);
            let conflict = Response::Status(Status::ReservationConflict);
            return Some(Step::Answer(task.answer(conflict)));
        }
        Some(self.store_alteration(alteration, Origin::Command(task)))
    }

    /// Takes note of a failed flush, which is stored before anybody is told.
    pub(super) fn flush_has_failed(&mut self) {
        self.state.flush_failed = true;
        if self.unstored.is_none() {
            self.unstored = Some(Vec::new());
            self.await_alteration(Alteration::FlushFailed, Origin::Event);
        }
    }

    /// The answer to a command that a failed flush has failed, once that is stored.
    pub(super) fn tell_failed_flush(&mut self, answer: Answer) -> Step {
        match &mut self.unstored {
            Some(unstored) => {
                unstored.push(answer);
                Step::Held
            }
            None => Step::Answer(answer),
        }
    }

    pub(super) fn await_alteration(&mut self, alteration: Alteration, origin: Origin) {
        self.awaited
            .push_back(Awaited::Alteration(alteration, origin));
    }

    /// Has an alteration stored, and then puts it in force.
    pub(super) fn store_alteration(&mut self, alteration: Alteration, origin: Origin) -> Step {
        if self.fenced {
            // Of a unit whose record can't be read nothing is stored: it would take the place of that.
            return self.alter_now(alteration, origin, false);
        }
        let mut attentions = self.attentions();
        if let Some((condition, but)) = self.news(&alteration, &origin) {
            let told = self.nexuses.iter();
            let told = told.filter(|(index, _)| but != Some(NexusId(*index)));
            attentions
                .extend(told.filter_map(|(_, nexus)| Some((nexus.nexus.clone()?, condition))));
        }
        let to_store = ToStore {
            next: self.reservations.clone(),
            save: Save::Runtime,
            attentions,
            state: Some(self.state_after(&alteration)),
            set_aside: false,
            cause: None,
        };
        self.storing = Some(Storing {
            what: What::Unit(alteration),
            origin,
            aborted: false,
            set_aside: false,
        });
        Step::Store(to_store)
    }

    /// Puts an alteration in force, and tells whoever asked for it, once it is true.
    pub(super) fn alter_now(
        &mut self,
        alteration: Alteration,
        origin: Origin,
        aborted: bool,
    ) -> Step {
        let before = self.mode_values();
        let shrinks = matches!(alteration, Alteration::Resize(next) if next.blocks() < self.geometry.blocks());
        let news = self.news(&alteration, &origin);
        self.state = self.state_after(&alteration);
        match alteration {
            Alteration::Select { values, .. } => {
                self.told_write_back = values.write_cache_enabled;
                if let (Origin::Command(task), true) = (&origin, values.write_cache_enabled) {
                    self.nexuses[task.nexus.0].told_write_through = false;
                }
            }
            // That there was a reset says it.
            Alteration::Reset if self.wanted_values().write_cache_enabled => {
                self.told_write_back = true;
            }
            Alteration::Reset | Alteration::WriteCache(_) | Alteration::ForgetFlushFailure => {
                self.follow_values();
            }
            Alteration::FlushFailed => {
                let answers = self.unstored.take().into_iter().flatten();
                self.ready.extend(answers.map(Step::Answer));
            }
            Alteration::Resize(geometry) => self.geometry = geometry,
        }
        if let Some((condition, but)) = news {
            self.tell_all(condition, but);
        }
        let protects = self.mode_values().software_write_protect && !before.software_write_protect;
        let concerns = move |access| shrinks || protects && access == Access::Write;
        match origin {
            Origin::Command(task) if aborted => {
                Step::Answer(task.answer(Response::Status(Status::TaskAborted)))
            }
            Origin::Command(task) => self.hold_back_for(
                Reply::Command {
                    nexus: task.nexus,
                    answer: task.answer(Response::Good),
                    changed: true,
                },
                concerns,
            ),
            Origin::Administrator(ticket) => {
                self.hold_back_for(Reply::Administrator(ticket), concerns)
            }
            Origin::Event => Step::Held,
        }
    }

    /// Establishes a unit attention condition for all nexuses but one.
    pub(super) fn tell_all(&mut self, condition: Sense, but: Option<NexusId>) {
        for (index, nexus) in &mut self.nexuses {
            if but != Some(NexusId(index)) {
                nexus.attentions.establish(condition);
                self.owed.insert(index);
            }
        }
    }

    /// Which condition an alteration establishes for all nexuses, or for all but the one that has asked for it.
    fn news(&self, alteration: &Alteration, origin: &Origin) -> Option<(Sense, Option<NexusId>)> {
        match (alteration, origin) {
            (Alteration::Select { values, .. }, Origin::Command(task))
                if *values != self.mode_values() =>
            {
                Some((Sense::mode_parameters_changed(), Some(task.nexus)))
            }
            (Alteration::Resize(geometry), _) if *geometry != self.geometry => {
                Some((Sense::capacity_data_has_changed(), None))
            }
            _ => None,
        }
    }

    fn state_after(&self, alteration: &Alteration) -> UnitState {
        let before = self.state;
        match *alteration {
            Alteration::Select { values, save } => UnitState {
                selected: Some(values),
                saved: if save { Some(values) } else { before.saved },
                ..before
            },
            Alteration::Reset => UnitState {
                selected: None,
                ..before
            },
            Alteration::WriteCache(write_cache_enabled) => {
                let set = |values| Values {
                    write_cache_enabled,
                    ..values
                };
                UnitState {
                    selected: before.selected.map(set),
                    saved: before.saved.map(set),
                    ..before
                }
            }
            Alteration::FlushFailed => UnitState {
                flush_failed: true,
                ..before
            },
            Alteration::ForgetFlushFailure => UnitState {
                flush_failed: false,
                ..before
            },
            Alteration::Resize(_) => before,
        }
    }

    /// The values as they shall be. WCE may not be so yet.
    pub(super) fn wanted_values(&self) -> Values {
        self.state.values().unwrap_or(self.default_values)
    }

    /// Switches the write cache to what the values say: on at once, off when it is empty.
    pub(super) fn follow_values(&mut self) {
        match (
            self.told_write_back,
            self.wanted_values().write_cache_enabled,
        ) {
            (false, true) => self.tell_write_back(true),
            (true, false) if self.draining.is_none() => self.drain(None),
            _ => {}
        }
    }

    fn tell_write_back(&mut self, write_back: bool) {
        if std::mem::replace(&mut self.told_write_back, write_back) != write_back {
            self.tell_all(Sense::mode_parameters_changed(), None);
        }
    }

    /// Has writes go through to the medium, and what is in the write cache go there.
    fn drain(&mut self, select: Option<(Task, Alteration)>) {
        if let Some(draining) = &mut self.draining {
            draining.select = select;
            return;
        }
        self.draining = Some(Draining {
            select,
            is_flushed: false,
        });
        let waits = self
            .tasks
            .hold_back(Reply::Drained, |_, access| access == Access::Write)
            .is_none();
        if !waits {
            let step = self.flush_cache();
            self.ready.push_back(step);
        }
    }

    fn answer_select(&mut self, response: Response) {
        let select = self
            .draining
            .as_mut()
            .and_then(|draining| draining.select.take());
        if let Some((task, _)) = select {
            let answer = task.answer(response);
            let step = self.tell_failed_flush(answer);
            self.ready.push_back(step);
        }
    }
}
