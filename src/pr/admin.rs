//! What the administrator may do: the same effects as an initiator's command, with no initiator to spare.
//!
//! `issuer` is who sent the command, and `None` if it was the administrator.

use std::sync::Arc;

use super::{Change, Reservations};
use crate::scsi::nexus::ItNexus;
use crate::scsi::sense::Sense;

/// What the administrator orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Remove the persistent reservation and every registration: [`Reservations::cleared`].
    Clear,
    /// Remove every registration with this key: [`Reservations::removed`].
    Preempt {
        /// The reservation key.
        key: u64,
    },
}

impl Reservations {
    /// Releases the persistent reservation, if there is one, and keeps the registrations (SPC-4, Releasing).
    ///
    /// Registrants other than `issuer` get RESERVATIONS RELEASED if it was one that admits registrants: type 5 to 8.
    pub fn released(&self, issuer: Option<&ItNexus>) -> Change {
        let Some(held) = &self.reservation else {
            return Change::nothing(self);
        };
        let told = if held.kind.admits_registrants() {
            self.others(issuer)
        } else {
            Vec::new()
        };
        let next = Reservations {
            reservation: None,
            ..self.clone()
        };
        Change::to(self, next).with_attention(Sense::reservations_released(), told)
    }

    /// Removes the persistent reservation and every registration (SPC-4, Clearing). APTPL stays as it is. A RESERVE of
    /// SPC-2 ends too; only the administrator can do that, as it keeps the command CLEAR out.
    ///
    /// Those who had any of these, other than `issuer`, get RESERVATIONS PREEMPTED.
    pub fn cleared(&self, issuer: Option<&ItNexus>) -> Change {
        let mut told = self.others(issuer);
        told.extend(self.spc2.clone());
        let next = Reservations {
            registrants: Arc::default(),
            reservation: None,
            spc2: None,
            ..self.counted()
        };
        Change::to(self, next).with_attention(Sense::reservations_preempted(), told)
    }

    /// Removes every registration with `key`, and the persistent reservation if that leaves it without a holder;
    /// changes nothing if nobody has that key.
    ///
    /// Those removed get REGISTRATIONS PREEMPTED; if the reservation goes, those who stay get RESERVATIONS
    /// RELEASED, as after a PREEMPT that changes the type. Nobody takes the reservation over, since the
    /// administrator is no registrant.
    pub fn removed(&self, key: u64) -> Change {
        let removed: Vec<_> = self.registrants.with_key(key).cloned().collect();
        if removed.is_empty() {
            return Change::nothing(self);
        }
        let mut next = self.counted();
        next.remove(&removed);
        let told = if next.drop_unheld().is_some() {
            next.others(None)
        } else {
            Vec::new()
        };
        Change::to(self, next)
            .with_attention(Sense::registrations_preempted(), removed)
            .with_attention(Sense::reservations_released(), told)
    }
}

#[cfg(test)]
mod tests;
