//! Persistent reservations: a value and functions on it (SPC-4 r37, Reservations).
//!
//! [`Reservations`] is all that a logical unit knows of registrations and reservations. It is never changed
//! in place: a command computes a [`Change`], which holds the next value and what must happen with it, and
//! the logical unit stores the one before it takes it up. A refused command leaves nothing behind, because
//! there was nothing to undo.
//!
//! | module | holds |
//! |---|---|
//! | [`gate`] | may this I_T nexus run a command of this [`Access`](crate::scsi::Access) now? |
//! | [`out`] | PERSISTENT RESERVE OUT: parameter list → [`out::Request`] → [`Change`] |
//! | [`read`] | PERSISTENT RESERVE IN: the four answers |
//! | [`spc2`] | RESERVE and RELEASE, and how they meet registrations |
//! | [`admin`] | what the administrator may do, who is no I_T nexus |
//! | [`event`] | what a change was, for those who want to know later |
//! | [`image`] | reservations ⇄ versioned, checksummed text |
//!
//! Nothing here does I/O, reads a clock, logs, or blocks.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::scsi::nexus::ItNexus;
use crate::scsi::sense::Sense;

pub mod admin;
pub mod event;
pub mod gate;
pub mod image;
pub mod out;
pub mod read;
mod registrants;
pub mod spc2;
#[cfg(test)]
mod testing;

pub use registrants::{Registrant, Registrants};

/// The most registrants a logical unit can have: all that READ KEYS can report in its 65,535 bytes.
pub const REGISTRANTS_MAX: u16 = 8_190;

/// Type of a persistent reservation (SPC-4, persistent reservation type codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Type {
    /// Only the holder writes.
    WriteExclusive = 1,
    /// Only the holder reads and writes.
    ExclusiveAccess = 3,
    /// Only registrants write.
    WriteExclusiveRegistrantsOnly = 5,
    /// Only registrants read and write.
    ExclusiveAccessRegistrantsOnly = 6,
    /// Only registrants write, and each of them is a holder.
    WriteExclusiveAllRegistrants = 7,
    /// Only registrants read and write, and each of them is a holder.
    ExclusiveAccessAllRegistrants = 8,
}

impl Type {
    /// Every type, in the order of their codes.
    pub const ALL: [Type; 6] = [
        Type::WriteExclusive,
        Type::ExclusiveAccess,
        Type::WriteExclusiveRegistrantsOnly,
        Type::ExclusiveAccessRegistrantsOnly,
        Type::WriteExclusiveAllRegistrants,
        Type::ExclusiveAccessAllRegistrants,
    ];

    /// The type with this code of a TYPE field.
    pub fn parse(code: u8) -> Option<Type> {
        Type::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The code of the TYPE field.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether every registrant, not only the holder, has access: types 5 to 8.
    pub const fn admits_registrants(self) -> bool {
        !matches!(self, Type::WriteExclusive | Type::ExclusiveAccess)
    }

    /// Whether every registrant is a holder: types 7 and 8.
    pub const fn is_all_registrants(self) -> bool {
        matches!(
            self,
            Type::WriteExclusiveAllRegistrants | Type::ExclusiveAccessAllRegistrants
        )
    }

    /// Whether those shut out may still read: types 1, 5 and 7.
    pub const fn is_write_exclusive(self) -> bool {
        matches!(
            self,
            Type::WriteExclusive
                | Type::WriteExclusiveRegistrantsOnly
                | Type::WriteExclusiveAllRegistrants
        )
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::WriteExclusive => "Write Exclusive",
            Type::ExclusiveAccess => "Exclusive Access",
            Type::WriteExclusiveRegistrantsOnly => "Write Exclusive, Registrants Only",
            Type::ExclusiveAccessRegistrantsOnly => "Exclusive Access, Registrants Only",
            Type::WriteExclusiveAllRegistrants => "Write Exclusive, All Registrants",
            Type::ExclusiveAccessAllRegistrants => "Exclusive Access, All Registrants",
        })
    }
}

/// Who holds a persistent reservation (SPC-4, persistent reservation holder).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// One registrant: types 1, 3, 5 and 6.
    Nexus(Arc<ItNexus>),
    /// Whoever is registered, also those who register later: types 7 and 8.
    AllRegistrants,
}

/// The persistent reservation of a logical unit. Its scope is the logical unit (LU_SCOPE, 0h).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reservation {
    /// TYPE.
    pub kind: Type,
    /// Who holds it.
    pub holder: Holder,
}

impl Reservation {
    /// The reservation that `nexus` establishes: its own, or all registrants'.
    fn new(kind: Type, nexus: &ItNexus) -> Reservation {
        let holder = if kind.is_all_registrants() {
            Holder::AllRegistrants
        } else {
            Holder::Nexus(Arc::new(nexus.clone()))
        };
        Reservation { kind, holder }
    }

    /// The one nexus that holds it, or `None` if all registrants do.
    pub fn single_holder(&self) -> Option<&ItNexus> {
        match &self.holder {
            Holder::Nexus(nexus) => Some(nexus),
            Holder::AllRegistrants => None,
        }
    }
}

/// Everything that is registered and reserved at one logical unit.
///
/// What can be read from the outside, as opposed to built by this module, has been checked: see
/// [`Reservations::check`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Reservations {
    registrants: Arc<Registrants>,
    reservation: Option<Reservation>,
    generation: u32,
    aptpl: bool,
    spc2: Option<Arc<ItNexus>>,
}

/// [`Reservations`] as they come from elsewhere.
#[derive(Deserialize)]
struct Unchecked {
    registrants: Arc<Registrants>,
    reservation: Option<Reservation>,
    generation: u32,
    aptpl: bool,
    spc2: Option<Arc<ItNexus>>,
}

impl TryFrom<Unchecked> for Reservations {
    type Error = Violation;

    fn try_from(unchecked: Unchecked) -> Result<Reservations, Violation> {
        let checked = Reservations {
            registrants: unchecked.registrants,
            reservation: unchecked.reservation,
            generation: unchecked.generation,
            aptpl: unchecked.aptpl,
            spc2: unchecked.spc2,
        };
        checked.check()?;
        Ok(checked)
    }
}

/// What [`Reservations::check`] found broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A registration with reservation key zero.
    #[error("a registration has the reservation key zero")]
    KeyZero,
    /// Two registrations of one I_T nexus.
    #[error("an I_T nexus is registered twice")]
    RegisteredTwice,
    /// More registrations than can exist.
    #[error("there are more than {REGISTRANTS_MAX} registrations")]
    TooManyRegistrants,
    /// The holder of the reservation is not registered.
    #[error("the holder of the persistent reservation is not registered")]
    HolderNotRegistered,
    /// A reservation of all registrants, of which there are none.
    #[error("there is a persistent reservation, but nobody is registered")]
    NobodyRegistered,
    /// An all registrants type with one holder, or another type with all.
    #[error("the type of the persistent reservation does not fit its holder")]
    HolderUnlikeType,
    /// A RESERVE beside registrations.
    #[error("there is a RESERVE beside registrations")]
    ReserveBesideRegistrants,
}

impl Reservations {
    /// Who is registered, in the order of registration.
    pub fn registrants(&self) -> &Registrants {
        &self.registrants
    }

    /// The persistent reservation.
    pub fn reservation(&self) -> Option<&Reservation> {
        self.reservation.as_ref()
    }

    /// PRGENERATION: counts the commands that changed registrations, modulo 2^32.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether all this outlives a loss of power: APTPL as last set, reported as PTPL_A.
    pub fn aptpl(&self) -> bool {
        self.aptpl
    }

    /// Who holds the logical unit by RESERVE.
    pub fn spc2(&self) -> Option<&ItNexus> {
        self.spc2.as_deref()
    }

    /// Whether `nexus` holds the persistent reservation, alone or as one of all registrants.
    pub fn is_holder(&self, nexus: &ItNexus) -> bool {
        match self.reservation.as_ref().map(|held| &held.holder) {
            None => false,
            Some(Holder::Nexus(holder)) => **holder == *nexus,
            Some(Holder::AllRegistrants) => self.registrants.contains(nexus),
        }
    }

    /// States what always holds of a value of this type.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self) -> Result<(), Violation> {
        self.registrants.check()?;
        if let Some(Reservation { kind, holder }) = &self.reservation {
            let single = matches!(holder, Holder::Nexus(_));
            if self.registrants.is_empty() {
                return Err(Violation::NobodyRegistered);
            }
            if single == kind.is_all_registrants() {
                return Err(Violation::HolderUnlikeType);
            }
        }
        if self.is_unheld() {
            return Err(Violation::HolderNotRegistered);
        }
        if self.spc2.is_some() && !self.registrants.is_empty() {
            return Err(Violation::ReserveBesideRegistrants);
        }
        Ok(())
    }

    /// What is left after a loss of power: all but the RESERVE if APTPL was on, nothing otherwise
    /// (SPC-4, preserving persistent reservations and registrations through power loss).
    ///
    /// PRGENERATION begins at zero again.
    pub fn after_power_loss(&self) -> Reservations {
        if !self.aptpl {
            return Reservations::default();
        }
        Reservations {
            generation: 0,
            spc2: None,
            ..self.clone()
        }
    }

    /// The same with PRGENERATION one higher.
    fn counted(&self) -> Reservations {
        Reservations {
            generation: self.generation.wrapping_add(1),
            ..self.clone()
        }
    }

    /// Whether there is a reservation, but nobody who holds it is registered.
    fn is_unheld(&self) -> bool {
        match self.reservation.as_ref().map(|held| &held.holder) {
            None => false,
            Some(Holder::Nexus(holder)) => !self.registrants.contains(holder),
            Some(Holder::AllRegistrants) => self.registrants.is_empty(),
        }
    }

    /// Drops the reservation if nobody who holds it is registered any more, and yields its type.
    fn drop_unheld(&mut self) -> Option<Type> {
        let dropped = if self.is_unheld() {
            self.reservation.take()
        } else {
            None
        };
        dropped.map(|dropped| dropped.kind)
    }

    /// Every registrant but `nexus`, in the order of registration.
    fn others(&self, nexus: Option<&ItNexus>) -> Vec<Arc<ItNexus>> {
        let registered = self.registrants.nexuses();
        registered
            .filter(|other| Some(&***other) != nexus)
            .cloned()
            .collect()
    }

    /// Removes these registrations, and nothing else.
    fn remove(&mut self, nexuses: &[Arc<ItNexus>]) {
        let registrants = self.registrants_mut();
        nexuses.iter().for_each(|nexus| registrants.remove(nexus));
    }

    fn registrants_mut(&mut self) -> &mut Registrants {
        Arc::make_mut(&mut self.registrants)
    }
}

/// What a command does, as a value: nothing of it has happened yet.
///
/// The logical unit stores `next` as `save` asks; if that fails, it drops the change and answers INTERNAL
/// TARGET FAILURE. Then it takes up `next`, establishes `attentions`, aborts the commands of `abort`, waits
/// for those in flight that `next` would refuse, and answers GOOD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The reservations from now on.
    pub next: Reservations,
    /// Where `next` must be stored before the command is answered.
    pub save: Save,
    /// Unit attention conditions to establish, in order; never for the I_T nexus that sent the command.
    pub attentions: Vec<(Arc<ItNexus>, Sense)>,
    /// I_T nexuses whose commands are to be aborted: all but the command that asks for it.
    pub abort: Vec<Arc<ItNexus>>,
}

impl Change {
    /// A change that changes nothing.
    fn nothing(before: &Reservations) -> Change {
        Change {
            next: before.clone(),
            save: Save::Nothing,
            attentions: Vec::new(),
            abort: Vec::new(),
        }
    }

    /// A change to `next` of what outlives a loss of power if APTPL is on.
    fn to(before: &Reservations, next: Reservations) -> Change {
        let durable = before.aptpl || next.aptpl;
        Change {
            next,
            save: if durable {
                Save::Durable
            } else {
                Save::Runtime
            },
            attentions: Vec::new(),
            abort: Vec::new(),
        }
    }

    /// The same with `sense` established for each of `nexuses`.
    fn with_attention(
        mut self,
        sense: Sense,
        nexuses: impl IntoIterator<Item = Arc<ItNexus>>,
    ) -> Change {
        let attentions = nexuses.into_iter().map(|nexus| (nexus, sense));
        self.attentions.extend(attentions);
        self
    }
}

/// What must be stored before a command is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Save {
    /// Nothing: nothing changed.
    Nothing,
    /// The record that outlives the daemon.
    Runtime,
    /// Also the record that outlives a loss of power. It becomes `next` if APTPL is on in `next`, and is
    /// erased otherwise.
    Durable,
}

/// Why a command is refused. It has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// RESERVATION CONFLICT status.
    Conflict,
    /// CHECK CONDITION status with this sense data.
    Check(Sense),
}

impl From<Sense> for Refusal {
    fn from(sense: Sense) -> Refusal {
        Refusal::Check(sense)
    }
}

#[cfg(test)]
mod tests;
