//! RESERVE and RELEASE of SPC-2, and how they meet registrations (SPC-4 r37, Exceptions to SPC-2 RESERVE and
//! RELEASE behavior).
//!
//! | state | issuer | RESERVE | RELEASE |
//! |---|---|---|---|
//! | nothing registered nor reserved | any | reserves | does nothing |
//! | reserved | the holder | does nothing | releases |
//! | reserved | another | conflict | does nothing |
//! | persistent reservation | has its access | does nothing | does nothing |
//! | registrations | any other | conflict | conflict |
//!
//! Has its access: is a holder, or is registered and the type admits registrants. A RESERVE does not outlive
//! a reset of the logical unit, nor the loss of the I_T nexus that holds it. No unit attention arises.

use std::sync::Arc;

use super::{Change, Refusal, Reservations, Save};
use crate::scsi::nexus::ItNexus;

/// RESERVE (6) and RESERVE (10) from `issuer`.
///
/// # Errors
/// [`Refusal::Conflict`]; nothing changes then.
pub fn reserve(state: &Reservations, issuer: &ItNexus) -> Result<Change, Refusal> {
    match state.spc2() {
        Some(holder) if holder != issuer => Err(Refusal::Conflict),
        Some(_) => Ok(Change::nothing(state)),
        None if state.registrants.is_empty() => Ok(changed(state, Some(Arc::new(issuer.clone())))),
        None => compatible(state, issuer),
    }
}

/// RELEASE (6) and RELEASE (10) from `issuer`.
///
/// # Errors
/// [`Refusal::Conflict`]; nothing changes then.
pub fn release(state: &Reservations, issuer: &ItNexus) -> Result<Change, Refusal> {
    match state.spc2() {
        Some(holder) if holder == issuer => Ok(changed(state, None)),
        None if !state.registrants.is_empty() => compatible(state, issuer),
        _ => Ok(Change::nothing(state)),
    }
}

impl Reservations {
    /// What LOGICAL UNIT RESET and any other reset changes, if it changes anything.
    pub fn released_by_reset(&self) -> Option<Change> {
        self.spc2.is_some().then(|| changed(self, None))
    }

    /// What the loss of `nexus` changes, if it changes anything: logout, a dropped connection, a session
    /// reinstated.
    pub fn released_by_nexus_loss(&self, nexus: &ItNexus) -> Option<Change> {
        (self.spc2() == Some(nexus)).then(|| changed(self, None))
    }
}

/// RESERVE and RELEASE where registrations exist: they change nothing (compatible reservation handling).
fn compatible(state: &Reservations, issuer: &ItNexus) -> Result<Change, Refusal> {
    let held = state.reservation.as_ref();
    let has_access = held.is_some_and(|held| {
        let admitted = held.kind.admits_registrants() && state.registrants.contains(issuer);
        admitted || state.is_holder(issuer)
    });
    if has_access {
        Ok(Change::nothing(state))
    } else {
        Err(Refusal::Conflict)
    }
}

fn changed(state: &Reservations, spc2: Option<Arc<ItNexus>>) -> Change {
    Change {
        next: Reservations {
            spc2,
            ..state.clone()
        },
        save: Save::Runtime,
        ..Change::nothing(state)
    }
}

#[cfg(test)]
mod tests;
