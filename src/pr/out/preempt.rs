//! PREEMPT and PREEMPT AND ABORT (SPC-4 r37, Preempting).

use std::sync::Arc;

use super::Command;
use crate::pr::{Change, Holder, Refusal, Reservation, Type};
use crate::scsi::nexus::ItNexus;
use crate::scsi::sense::{Field, Sense};

/// What a PREEMPT aims at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The reservation, and the registrations with the holder's key.
    Reservation,
    /// The reservation of all registrants, and every registration.
    AllRegistrants,
    /// The registrations with that key.
    Registrations,
}

impl Command<'_> {
    /// PREEMPT by a registrant with the right key.
    pub(super) fn preempt(&self, kind: Result<Type, Sense>) -> Result<Change, Refusal> {
        match self.target()? {
            Target::Registrations => self.remove_registrations(),
            target => Ok(self.preempt_reservation(target, kind?)),
        }
    }

    /// PREEMPT AND ABORT: the same, and the commands of all that were registered under that key are aborted.
    pub(super) fn preempt_and_abort(&self, kind: Result<Type, Sense>) -> Result<Change, Refusal> {
        let target = self.target()?;
        let change = self.preempt(kind)?;
        // The issuer is not spared: its other commands are aborted if its own key is preempted.
        let abort = self.aimed_at(target);
        Ok(Change { abort, ..change })
    }

    fn target(&self) -> Result<Target, Refusal> {
        let key = self.request.service_action_key;
        match self.state.reservation.as_ref().map(|held| &held.holder) {
            Some(Holder::AllRegistrants) if key == 0 => Ok(Target::AllRegistrants),
            Some(Holder::Nexus(_)) if key == 0 => {
                Err(Sense::invalid_field_in_parameter_list(Field::parameter(8)).into())
            }
            Some(Holder::Nexus(holder)) if self.state.registrants.key(holder) == Some(key) => {
                Ok(Target::Reservation)
            }
            // Without a reservation, key zero is the key of no registration: a conflict.
            _ => Ok(Target::Registrations),
        }
    }

    /// The registrants that it aims at, in the order of registration.
    fn aimed_at(&self, target: Target) -> Vec<Arc<ItNexus>> {
        let registrants = &self.state.registrants;
        let key = self.request.service_action_key;
        match target {
            Target::AllRegistrants => self.state.others(None),
            Target::Reservation | Target::Registrations => {
                registrants.with_key(key).cloned().collect()
            }
        }
    }

    /// Takes the reservation over, and removes registrations other than the issuer's (SPC-4, Preempting
    /// persistent reservations and registration handling).
    fn preempt_reservation(&self, target: Target, kind: Type) -> Change {
        let mut removed = self.aimed_at(target);
        removed.retain(|nexus| **nexus != *self.issuer);
        let mut next = self.state.counted();
        next.remove(&removed);
        let before = self.state.reservation.as_ref().map(|held| held.kind);
        next.reservation = Some(Reservation::new(kind, self.issuer));
        let told = if before == Some(kind) {
            Vec::new()
        } else {
            next.others(Some(self.issuer))
        };
        Change::to(self.state, next)
            .with_attention(Sense::registrations_preempted(), removed)
            .with_attention(Sense::reservations_released(), told)
    }

    /// Removes registrations; the reservation stays (SPC-4, Removing registrations). It is no error that the issuer
    /// preempts its own key: its registration is removed, and it is not told.
    fn remove_registrations(&self) -> Result<Change, Refusal> {
        let mut removed = self.aimed_at(Target::Registrations);
        if removed.is_empty() {
            return Err(Refusal::Conflict);
        }
        let mut next = self.state.counted();
        next.remove(&removed);
        // A single holder has another key, so the reservation goes only if it was of all registrants and these
        // were all.
        next.drop_unheld();
        removed.retain(|nexus| **nexus != *self.issuer);
        let change = Change::to(self.state, next);
        Ok(change.with_attention(Sense::registrations_preempted(), removed))
    }
}
