//! The gate: may this I_T nexus run a command of this [`Access`] now?
//!
//! The answer depends on the nexus and the reservations only, not on the command, so it is worked out once
//! per nexus and change as a set of [`Access`] classes. Per command it is one test of a bit, with one
//! registrant as with 8,190.
//!
//! | reservation | nexus | may read | may write |
//! |---|---|---|---|
//! | none | any | yes | yes |
//! | any | holder | yes | yes |
//! | write exclusive (1) | other | yes | no |
//! | exclusive access (3) | other | no | no |
//! | registrants only (5, 6) | registered | yes | yes |
//! | write exclusive, registrants only or all registrants (5, 7) | not registered | yes | no |
//! | exclusive access, registrants only or all registrants (6, 8) | not registered | no | no |
//!
//! (SPC-4 r37 and SBC-3, commands that are allowed in the presence of various reservations.) PERSISTENT
//! RESERVE OUT, RESERVE and RELEASE pass a persistent reservation, because [`out`](super::out) and
//! [`spc2`](super::spc2) decide about them. Under a RESERVE the tables of SPC-2 rule.

use serde::{Deserialize, Serialize};

use super::Reservations;
use crate::scsi::Access;
use crate::scsi::nexus::ItNexus;

/// The classes of commands that an I_T nexus may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Allowed(u8);

impl Allowed {
    /// Every command.
    pub const ALL: Allowed = Allowed::of(&Access::ALL);

    /// What any persistent reservation lets through from anybody.
    const PASSES_ANY: Allowed = Allowed::of(&[
        Access::Free,
        Access::FreeUnlessReserved,
        Access::PersistentReserveIn,
        Access::PersistentReserveOut,
        Access::Reserve,
    ]);

    /// What the holder of a RESERVE may run: everything but PERSISTENT RESERVE IN and OUT.
    const RESERVE_HOLDER: Allowed = Allowed::of(&[
        Access::Free,
        Access::FreeUnlessReserved,
        Access::Read,
        Access::Write,
        Access::Reserve,
    ]);

    /// What a RESERVE lets through from others. RESERVE and RELEASE have rules of their own.
    const PASSES_RESERVE: Allowed = Allowed::of(&[Access::Free, Access::Reserve]);

    /// The set of these classes.
    pub const fn of(classes: &[Access]) -> Allowed {
        let mut set = 0;
        let mut i = 0;
        while i < classes.len() {
            set |= bit(classes[i]);
            i += 1;
        }
        Allowed(set)
    }

    /// Whether a command of this class may run.
    pub const fn contains(self, access: Access) -> bool {
        self.0 & bit(access) != 0
    }

    /// The same with `access` allowed too.
    const fn with(self, access: Access) -> Allowed {
        Allowed(self.0 | bit(access))
    }
}

const fn bit(access: Access) -> u8 {
    1 << access as u8
}

/// What an I_T nexus may run under one edition of the reservations: worked out once, asked per command.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    allowed: Allowed,
    edition: u64,
}

impl Standing {
    /// What `nexus` may run under `reservations`, which have changed `edition` times so far.
    pub fn new(reservations: &Reservations, edition: u64, nexus: Option<&ItNexus>) -> Standing {
        Standing {
            allowed: reservations.allowed(nexus),
            edition,
        }
    }

    /// Works it out anew if the reservations have changed since.
    pub fn refresh(&mut self, reservations: &Reservations, edition: u64, nexus: Option<&ItNexus>) {
        if self.edition != edition {
            *self = Standing::new(reservations, edition, nexus);
        }
    }

    /// Whether a command of this class may run.
    pub const fn admits(self, access: Access) -> bool {
        self.allowed.contains(access)
    }
}

impl Reservations {
    /// What `nexus` may run. `None` is a session without an initiator port: it can be neither registered nor
    /// the holder of anything.
    pub fn allowed(&self, nexus: Option<&ItNexus>) -> Allowed {
        if let Some(holder) = &self.spc2 {
            return if nexus == Some(&**holder) {
                Allowed::RESERVE_HOLDER
            } else {
                Allowed::PASSES_RESERVE
            };
        }
        let Some(reservation) = &self.reservation else {
            return Allowed::ALL;
        };
        let kind = reservation.kind;
        let has_access = nexus.is_some_and(|nexus| {
            self.is_holder(nexus) || (kind.admits_registrants() && self.registrants.contains(nexus))
        });
        if has_access {
            Allowed::ALL
        } else if kind.is_write_exclusive() {
            Allowed::PASSES_ANY.with(Access::Read)
        } else {
            Allowed::PASSES_ANY
        }
    }
}

#[cfg(test)]
mod tests;
