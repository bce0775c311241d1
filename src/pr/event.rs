//! What a change of the reservations was: who made it by which command, and what became of whom.
//!
//! An [`Event`] is worked out from the reservations before, the [`Cause`], and the reservations after. It is for
//! those who want to know later what has happened: nothing is decided by it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Reservation, Reservations};
use crate::scsi::nexus::ItNexus;

/// What changes reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// PERSISTENT RESERVE OUT, REGISTER.
    Register,
    /// PERSISTENT RESERVE OUT, RESERVE.
    Reserve,
    /// PERSISTENT RESERVE OUT, RELEASE.
    Release,
    /// PERSISTENT RESERVE OUT, CLEAR.
    Clear,
    /// PERSISTENT RESERVE OUT, PREEMPT.
    Preempt,
    /// PERSISTENT RESERVE OUT, PREEMPT AND ABORT.
    PreemptAndAbort,
    /// PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY.
    RegisterAndIgnoreExistingKey,
    /// PERSISTENT RESERVE OUT, REGISTER AND MOVE.
    RegisterAndMove,
    /// RESERVE(6) or RESERVE(10).
    Spc2Reserve,
    /// RELEASE(6) or RELEASE(10).
    Spc2Release,
    /// The administrator removes all.
    AdministratorClear,
    /// The administrator removes those with a key.
    AdministratorPreempt,
    /// The administrator has a record set aside that can't be read.
    RecordSetAside,
    /// A reset ends a RESERVE.
    Reset,
    /// The loss of the I_T nexus ends its RESERVE.
    NexusLoss,
}

/// PERSISTENT RESERVE OUT by service action.
const PERSISTENT: [Act; 8] = [
    Act::Register,
    Act::Reserve,
    Act::Release,
    Act::Clear,
    Act::Preempt,
    Act::PreemptAndAbort,
    Act::RegisterAndIgnoreExistingKey,
    Act::RegisterAndMove,
];

impl Act {
    /// That of a PERSISTENT RESERVE OUT with this SERVICE ACTION, if there is one.
    pub fn of_service_action(service_action: u8) -> Option<Act> {
        PERSISTENT.get(usize::from(service_action)).copied()
    }

    /// What a CDB asks for, if that can change reservations.
    pub fn of_cdb(cdb: &[u8]) -> Option<Act> {
        match cdb {
            [0x5f, service_action, ..] => Act::of_service_action(service_action & 0x1f),
            [0x16 | 0x56, ..] => Some(Act::Spc2Reserve),
            [0x17 | 0x57, ..] => Some(Act::Spc2Release),
            _ => None,
        }
    }

    /// Whether it takes effect at once, and can't be refused.
    pub fn is_incident(self) -> bool {
        matches!(self, Act::Reset | Act::NexusLoss)
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Act::Register => "REGISTER",
            Act::Reserve => "RESERVE",
            Act::Release => "RELEASE",
            Act::Clear => "CLEAR",
            Act::Preempt => "PREEMPT",
            Act::PreemptAndAbort => "PREEMPT AND ABORT",
            Act::RegisterAndIgnoreExistingKey => "REGISTER AND IGNORE EXISTING KEY",
            Act::RegisterAndMove => "REGISTER AND MOVE",
            Act::Spc2Reserve => "RESERVE (6 or 10)",
            Act::Spc2Release => "RELEASE (6 or 10)",
            Act::AdministratorClear => "tcmu-pr clear",
            Act::AdministratorPreempt => "tcmu-pr preempt",
            Act::RecordSetAside => "record set aside",
            Act::Reset => "reset",
            Act::NexusLoss => "nexus lost",
        })
    }
}

/// Who changes reservations and how, and what they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What.
    pub act: Act,
    /// The I_T nexus, if it is one that acts, or whose loss it is.
    pub by: Option<Arc<ItNexus>>,
    /// The reservations before.
    pub before: Reservations,
}

/// What has become of the registration of an I_T nexus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Whose.
    pub nexus: Arc<ItNexus>,
    /// The reservation key before; `None`: it was not registered.
    pub before: Option<u64>,
    /// The reservation key now; `None`: it is not registered any more.
    pub after: Option<u64>,
}

/// A change of the reservations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What has made it.
    pub act: Act,
    /// Who: `None` is the administrator, or nobody.
    pub by: Option<Arc<ItNexus>>,
    /// The registrations that are not what they were, in the order of registration.
    pub registrations: Vec<Registration>,
    /// The persistent reservation before.
    pub reservation_before: Option<Reservation>,
    /// Who had reserved the unit by RESERVE before.
    pub reserve_before: Option<Arc<ItNexus>>,
    /// What is registered and reserved now.
    pub after: Reservations,
}

impl Event {
    /// What has come of `cause`, if `after` is in force now.
    pub fn new(cause: Cause, after: &Reservations) -> Event {
        let Cause { act, by, before } = cause;
        Event {
            act,
            by,
            registrations: before.registrants.differences(&after.registrants),
            reservation_before: before.reservation,
            reserve_before: before.spc2,
            after: after.clone(),
        }
    }

    /// The registrations that another than their own initiator has removed.
    pub fn fenced(&self) -> impl Iterator<Item = &Registration> {
        let removed = self.registrations.iter();
        let removed = removed.filter(|one| one.after.is_none());
        removed.filter(|one| {
            let own = |by: &Arc<ItNexus>| {
                let port = &by.initiator_port;
                port.is_of_same_initiator(&one.nexus.initiator_port)
            };
            !self.by.as_ref().is_some_and(own)
        })
    }
}

#[cfg(test)]
mod tests;
