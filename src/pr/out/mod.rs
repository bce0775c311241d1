//! PERSISTENT RESERVE OUT: who registers, reserves, releases and preempts (SPC-4 r37, PERSISTENT RESERVE OUT).
//!
//! [`Request::parse`] reads what was said, [`decide`] says what it means. Between them they check in the order
//! that SAM-5 asks for, in which RESERVATION CONFLICT stands before other errors:
//!
//! 1. a RESERVE exists: conflict ([`answer`]; the gate has said so already)
//! 2. the service action is unknown, or the length of the parameter list is wrong ([`Request::parse`])
//! 3. the issuer is not registered, its reservation key is wrong, or another holds the reservation: conflict
//! 4. SPEC_I_PT with a service action other than REGISTER
//! 5. SCOPE and TYPE, where they matter
//! 6. the rules of the service action
//! 7. room for registrations
//!
//! So what `parse` finds wrong in a field that comes after the conflicts is no error yet: it is kept in the
//! field's place, as `Err`, for `decide` to come to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Change, Holder, REGISTRANTS_MAX, Refusal, Reservation, Reservations, Type};
use crate::scsi::nexus::{ItNexus, Protocol, TargetPort, TargetPorts, TransportId};
use crate::scsi::sense::{Field, Sense};

mod movement;
mod parse;
mod preempt;
mod register;

pub use parse::{Destination, Listed, PARAMETER_LIST_LENGTH_MAX};

/// A PERSISTENT RESERVE OUT command as it was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// RESERVATION KEY: the issuer's, by which it shows that it is registered.
    pub reservation_key: u64,
    /// SERVICE ACTION RESERVATION KEY: the key to register or to preempt.
    pub service_action_key: u64,
    /// SPEC_I_PT with a service action that does not take it: an error unless there is a conflict.
    pub misplaced_spec_i_pt: bool,
    /// What to do.
    pub action: Action,
}

/// The service action, with the fields that it alone evaluates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// REGISTER (00h).
    Register {
        /// With SPEC_I_PT: the initiator ports to register besides the issuer's.
        listed: Option<Result<Vec<Listed>, Sense>>,
        /// Through every target port, not only the one the command came through.
        all_tg_pt: bool,
        /// Keep everything through a loss of power.
        aptpl: bool,
    },
    /// RESERVE (01h).
    Reserve {
        /// TYPE, or what is wrong with TYPE or SCOPE.
        kind: Result<Type, Sense>,
    },
    /// RELEASE (02h).
    Release {
        /// TYPE as it stands, since one that does not exist is a mismatch like any other; or what is wrong with SCOPE.
        kind: Result<u8, Sense>,
    },
    /// CLEAR (03h).
    Clear,
    /// PREEMPT (04h).
    Preempt {
        /// TYPE, or what is wrong with TYPE or SCOPE: it matters only if the reservation is preempted.
        kind: Result<Type, Sense>,
    },
    /// PREEMPT AND ABORT (05h).
    PreemptAndAbort {
        /// As for PREEMPT.
        kind: Result<Type, Sense>,
    },
    /// REGISTER AND IGNORE EXISTING KEY (06h).
    RegisterAndIgnoreExistingKey {
        /// As for REGISTER.
        all_tg_pt: bool,
        /// As for REGISTER.
        aptpl: bool,
    },
    /// REGISTER AND MOVE (07h).
    RegisterAndMove {
        /// Unregister the issuer.
        unreg: bool,
        /// As for REGISTER.
        aptpl: bool,
        /// The I_T nexus to register and to give the reservation to.
        destination: Result<Destination, Sense>,
    },
}

/// What a decision needs to know of the logical unit besides its reservations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The target ports of the unit: where ALL_TG_PT registers, and what REGISTER AND MOVE names by number. Also those
    /// that are not there now: after a restart they come back one after the other, and with them their initiators.
    pub ports: TargetPorts,
    /// The I_T nexuses that are attached, logged in or only let in by the target's configuration. An iSCSI TransportID
    /// without an ISID names those of its initiator.
    pub nexuses: BTreeSet<ItNexus>,
    /// How many can be registered.
    pub registration_limit: RegistrationLimit,
    /// Take every APTPL bit for one.
    pub force_aptpl: bool,
    /// Let SPEC_I_PT register only initiators that have a nexus that is attached.
    pub spec_i_pt_known_only: bool,
}

impl Context {
    /// The I_T nexuses of the initiator that `id` is a port of, in order.
    fn of_initiator(&self, id: &TransportId) -> impl Iterator<Item = &ItNexus> {
        // They stand together, since they are sorted by initiator port first. This is the least that there can be.
        let initiator_port = match id {
            TransportId::Iscsi { name, .. } => TransportId::Iscsi {
                name: name.clone(),
                isid: None,
            },
            id => id.clone(),
        };
        let target_port = TargetPort {
            protocol: Protocol::FibreChannel,
            name: "".into(),
        };
        let first = ItNexus {
            initiator_port,
            target_port,
        };
        let following = self.nexuses.range(first..);
        following.take_while(move |nexus| nexus.initiator_port.is_of_same_initiator(id))
    }
}

/// How many I_T nexuses can be registered with a logical unit: 128 to 8,190, unless told 1,024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct RegistrationLimit(u16);

/// A registration limit that is not between 128 and 8,190.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registration limit must be 128 to 8190, not {0}")]
pub struct LimitOutOfRange(u16);

impl RegistrationLimit {
    const MIN: u16 = 128;

    /// The limit as a number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for RegistrationLimit {
    fn default() -> RegistrationLimit {
        RegistrationLimit(1_024)
    }
}

impl TryFrom<u16> for RegistrationLimit {
    type Error = LimitOutOfRange;

    fn try_from(limit: u16) -> Result<RegistrationLimit, LimitOutOfRange> {
        match limit {
            RegistrationLimit::MIN..=REGISTRANTS_MAX => Ok(RegistrationLimit(limit)),
            _ => Err(LimitOutOfRange(limit)),
        }
    }
}

impl From<RegistrationLimit> for u16 {
    fn from(limit: RegistrationLimit) -> u16 {
        limit.0
    }
}

/// The fields of the CDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cdb {
    /// SERVICE ACTION: byte 1, bits 4–0.
    pub service_action: u8,
    /// SCOPE and TYPE: byte 2.
    pub scope_type: u8,
    /// PARAMETER LIST LENGTH in bytes: bytes 5–8.
    pub parameter_list_length: u32,
}

/// Parses and decides: the whole command, from the bytes that were transferred to the change that they make.
///
/// # Errors
/// The status to answer with instead of GOOD; nothing changes then.
pub fn answer(
    state: &Reservations,
    issuer: &ItNexus,
    cdb: Cdb,
    list: &[u8],
    context: &Context,
) -> Result<Change, Refusal> {
    if state.spc2.is_some() {
        return Err(Refusal::Conflict);
    }
    decide(state, issuer, &Request::parse(cdb, list)?, context)
}

/// What `request` changes when it comes from `issuer`.
///
/// # Errors
/// The status to answer with instead of GOOD; nothing changes then.
pub fn decide(
    state: &Reservations,
    issuer: &ItNexus,
    request: &Request,
    context: &Context,
) -> Result<Change, Refusal> {
    let command = Command {
        state,
        issuer,
        request,
        context,
    };
    if command.conflicts() {
        return Err(Refusal::Conflict);
    }
    if request.misplaced_spec_i_pt {
        return Err(spec_i_pt_refused().into());
    }
    match &request.action {
        Action::Register { listed, aptpl, .. } => command.register(listed.as_ref(), *aptpl),
        Action::RegisterAndIgnoreExistingKey { aptpl, .. } => command.register(None, *aptpl),
        Action::Reserve { kind } => command.reserve((*kind)?),
        Action::Release { kind } => command.release((*kind)?),
        Action::Clear => Ok(command.clear()),
        Action::Preempt { kind } => command.preempt(*kind),
        Action::PreemptAndAbort { kind } => command.preempt_and_abort(*kind),
        Action::RegisterAndMove {
            unreg,
            aptpl,
            destination,
        } => command.register_and_move(*unreg, *aptpl, destination.as_ref()),
    }
}

/// One command and all that its outcome depends on.
#[derive(Clone, Copy)]
struct Command<'a> {
    state: &'a Reservations,
    issuer: &'a ItNexus,
    request: &'a Request,
    context: &'a Context,
}

impl Command<'_> {
    /// Whether the answer is RESERVATION CONFLICT, whatever else may be wrong.
    fn conflicts(&self) -> bool {
        if self.state.spc2.is_some() {
            return true;
        }
        let registered = self.state.registrants.key(self.issuer);
        let key = self.request.reservation_key;
        let shown = registered == Some(key);
        match &self.request.action {
            // A nexus that is not registered shows key zero.
            Action::Register { .. } => {
                registered.unwrap_or(0) != key || self.differs_at_another_port(key)
            }
            Action::RegisterAndIgnoreExistingKey { .. } => false,
            Action::Release { .. }
            | Action::Clear
            | Action::Preempt { .. }
            | Action::PreemptAndAbort { .. } => !shown,
            Action::Reserve { .. } => !shown || self.is_held_by_another(),
            Action::RegisterAndMove { .. } => {
                let all = self.state.reservation.as_ref();
                let all = all.is_some_and(|held| held.holder == Holder::AllRegistrants);
                !shown || all || self.is_held_by_another()
            }
        }
    }

    /// Whether there is a reservation that the issuer does not hold.
    fn is_held_by_another(&self) -> bool {
        self.state.reservation.is_some() && !self.state.is_holder(self.issuer)
    }

    /// RESERVE by a registrant with the right key, when no other holds a reservation.
    fn reserve(&self, kind: Type) -> Result<Change, Refusal> {
        match &self.state.reservation {
            // A holder changes the type by preempting itself, not by reserving again.
            Some(held) if held.kind != kind => Err(Refusal::Conflict),
            Some(_) => Ok(Change::nothing(self.state)),
            None => {
                let mut next = self.state.clone();
                next.reservation = Some(Reservation::new(kind, self.issuer));
                Ok(Change::to(self.state, next))
            }
        }
    }

    /// RELEASE by a registrant with the right key.
    fn release(&self, kind: u8) -> Result<Change, Refusal> {
        let Some(held) = &self.state.reservation else {
            return Ok(Change::nothing(self.state));
        };
        if !self.state.is_holder(self.issuer) {
            return Ok(Change::nothing(self.state));
        }
        if held.kind.code() != kind {
            return Err(Sense::invalid_release_of_persistent_reservation().into());
        }
        Ok(self.state.released(Some(self.issuer)))
    }

    /// CLEAR by a registrant with the right key.
    fn clear(&self) -> Change {
        self.state.cleared(Some(self.issuer))
    }

    /// Refuses `next` if registrations were added and there is no room for them.
    fn check_room(&self, next: &Reservations) -> Result<(), Refusal> {
        let limit = usize::from(self.context.registration_limit.get());
        let grew = next.registrants.len() > self.state.registrants.len();
        if grew && next.registrants.len() > limit {
            return Err(Sense::insufficient_registration_resources().into());
        }
        Ok(())
    }

    /// The initiator ports that `id` names at `port`: itself; but without an ISID, every known port of the iSCSI
    /// initiator, logged in or registered.
    ///
    /// Where nobody can tell the sessions of an initiator apart, all of them are one port, which has no ISID. That port is
    /// meant whatever ISID is named, or the registration would be of a port that no command ever comes from.
    fn resolve(&self, id: &TransportId, port: &TargetPort) -> BTreeSet<TransportId> {
        let TransportId::Iscsi { name, isid } = id else {
            return BTreeSet::from([id.clone()]);
        };
        if isid.is_some() {
            let whole = ItNexus {
                initiator_port: TransportId::Iscsi {
                    name: name.clone(),
                    isid: None,
                },
                target_port: port.clone(),
            };
            let is_whole = self.issuer.initiator_port.is_whole_initiator()
                || self.context.nexuses.contains(&whole)
                || self.state.registrants.contains(&whole);
            let named = if is_whole {
                whole.initiator_port
            } else {
                id.clone()
            };
            return BTreeSet::from([named]);
        }
        let registered = self.state.registrants.with_name(name).map(AsRef::as_ref);
        let known = self.context.of_initiator(id).chain(registered);
        let at_port = known.filter(|nexus| nexus.target_port == *port);
        at_port.map(|nexus| nexus.initiator_port.clone()).collect()
    }

    /// The target ports that the command acts on: the one that it came through, and with ALL_TG_PT all of the
    /// same protocol.
    fn target_ports(&self) -> Vec<&TargetPort> {
        let own = &self.issuer.target_port;
        let (Action::Register { all_tg_pt, .. }
        | Action::RegisterAndIgnoreExistingKey { all_tg_pt, .. }) = self.request.action
        else {
            return vec![own];
        };
        let others = self.context.ports.iter().filter(|port| *port != own);
        let others = others.filter(|port| all_tg_pt && port.protocol == own.protocol);
        std::iter::once(own).chain(others).collect()
    }
}

/// INVALID FIELD IN PARAMETER LIST at the SPEC_I_PT bit.
fn spec_i_pt_refused() -> Sense {
    Sense::invalid_field_in_parameter_list(Field::parameter_bit(20, 3))
}

#[cfg(test)]
mod tests;
