//! REGISTER, and REGISTER AND IGNORE EXISTING KEY (SPC-4 r37, Registering).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Command, Listed, spec_i_pt_refused};
use crate::pr::{Change, Refusal, Reservations, Save};
use crate::scsi::nexus::{ItNexus, TransportId};
use crate::scsi::sense::Sense;

impl Command<'_> {
    /// Whether ALL_TG_PT takes in another target port at which the initiator is registered under another key.
    ///
    /// The command then acts as one from each of these ports at once, and one conflict is a conflict of the
    /// whole. (SPC-4 says nothing of ports that differ. A refusal loses nobody's registration.)
    pub(super) fn differs_at_another_port(&self, key: u64) -> bool {
        let nexuses = self.nexuses();
        let mut keys = nexuses
            .iter()
            .filter_map(|nexus| self.state.registrants.key(nexus));
        keys.any(|registered| registered != key)
    }

    /// The I_T nexuses of the issuer's initiator port that the command acts on, its own first.
    fn nexuses(&self) -> Vec<ItNexus> {
        let nexus = |port: &_| ItNexus {
            initiator_port: self.issuer.initiator_port.clone(),
            target_port: Clone::clone(port),
        };
        self.target_ports().into_iter().map(nexus).collect()
    }

    /// Either REGISTER, once it is clear that nothing conflicts.
    pub(super) fn register(
        &self,
        listed: Option<&Result<Vec<Listed>, Sense>>,
        aptpl: bool,
    ) -> Result<Change, Refusal> {
        if listed.is_some() && self.state.registrants.contains(self.issuer) {
            return Err(spec_i_pt_refused().into());
        }
        let aptpl = aptpl || self.context.force_aptpl;
        if self.request.service_action_key == 0 {
            return Ok(self.unregister(aptpl));
        }
        let mut nexuses = self.nexuses();
        if let Some(listed) = listed {
            let listed = listed.as_ref().map_err(|&sense| sense)?;
            // What is listed twice counts once, and is not looked up twice either.
            let mut seen = BTreeSet::new();
            for id in listed {
                if seen.insert(&id.initiator_port) {
                    nexuses.extend(self.listed_nexuses(id)?);
                }
            }
        }
        let mut next = self.state.counted();
        next.aptpl = aptpl;
        for nexus in &nexuses {
            next.registrants_mut()
                .set(nexus, self.request.service_action_key);
        }
        self.check_room(&next)?;
        Ok(Change::to(self.state, next))
    }

    /// The I_T nexuses that a TransportID of the list stands for, none of which may be registered: with one that
    /// is, the table of REGISTER behaviors has no row to go by, and its key must not change unseen.
    fn listed_nexuses(&self, listed: &Listed) -> Result<Vec<ItNexus>, Sense> {
        let port = &self.issuer.target_port;
        if listed.initiator_port.protocol() != port.protocol {
            return Err(listed.refused());
        }
        let initiator_ports = self.resolve(&listed.initiator_port, port);
        let unknown = |id: &TransportId| self.context.of_initiator(id).next().is_none();
        let refused = self.context.spec_i_pt_known_only && initiator_ports.iter().any(unknown);
        if initiator_ports.is_empty() || refused {
            return Err(listed.refused());
        }
        let mut nexuses = Vec::new();
        for initiator_port in initiator_ports {
            for target_port in self.target_ports() {
                let nexus = ItNexus {
                    initiator_port: initiator_port.clone(),
                    target_port: target_port.clone(),
                };
                if self.state.registrants.contains(&nexus) {
                    return Err(listed.refused());
                }
                nexuses.push(nexus);
            }
        }
        Ok(nexuses)
    }

    /// REGISTER with a SERVICE ACTION RESERVATION KEY of zero.
    fn unregister(&self, aptpl: bool) -> Change {
        let nexuses: BTreeSet<ItNexus> = self.nexuses().into_iter().collect();
        let mut next = self.state.counted();
        if !nexuses
            .iter()
            .any(|nexus| self.state.registrants.contains(nexus))
        {
            // Nobody to unregister. PRGENERATION counts the command all the same, but APTPL stays, lest an
            // initiator that is not even registered switch it off.
            return Change {
                next,
                save: Save::Runtime,
                ..Change::nothing(self.state)
            };
        }
        next.aptpl = aptpl;
        let released = next.unregister(&nexuses);
        let change = Change::to(self.state, next);
        change.with_attention(Sense::reservations_released(), released)
    }
}

impl Reservations {
    /// Removes these registrations, and the reservation if no holder is left (SPC-4, Unregistering).
    ///
    /// Yields whom to tell that the reservation was released: if it was for registrants only, those who are
    /// still registered.
    pub(super) fn unregister(&mut self, nexuses: &BTreeSet<ItNexus>) -> Vec<Arc<ItNexus>> {
        let registrants = self.registrants_mut();
        nexuses.iter().for_each(|nexus| registrants.remove(nexus));
        match self.drop_unheld() {
            Some(kind) if kind.admits_registrants() => self.others(None),
            _ => Vec::new(),
        }
    }
}
