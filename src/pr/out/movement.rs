//! REGISTER AND MOVE (SPC-4 r37, Registering and moving the reservation).

use super::{Command, Destination};
use crate::pr::{Change, Refusal, Reservation};
use crate::scsi::nexus::{ItNexus, TransportId};
use crate::scsi::sense::{Field, Sense};

impl Command<'_> {
    /// REGISTER AND MOVE by a registrant with the right key, when no other holds a reservation.
    pub(super) fn register_and_move(
        &self,
        unreg: bool,
        aptpl: bool,
        destination: Result<&Destination, &Sense>,
    ) -> Result<Change, Refusal> {
        let Some(held) = &self.state.reservation else {
            return Err(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4)).into());
        };
        let destination = self.destination(destination.map_err(|&sense| sense)?)?;
        let mut next = self.state.counted();
        next.aptpl = aptpl || self.context.force_aptpl;
        next.registrants_mut()
            .set(&destination, self.request.service_action_key);
        next.reservation = Some(Reservation::new(held.kind, &destination));
        if unreg {
            next.registrants_mut().remove(self.issuer);
        }
        // UNREG has made the room that the destination takes.
        self.check_room(&next)?;
        Ok(Change::to(self.state, next))
    }

    /// The I_T nexus that becomes the holder.
    fn destination(&self, destination: &Destination) -> Result<ItNexus, Sense> {
        if self.request.service_action_key == 0 {
            return Err(refused(8));
        }
        let own = &self.issuer.initiator_port;
        let is_own = |id: &TransportId| {
            id == own || (own.is_whole_initiator() && own.is_of_same_initiator(id))
        };
        if destination.initiator_port.as_ref().is_ok_and(is_own) {
            return Err(refused(24));
        }
        let target_port = self.context.ports.port(destination.relative_target_port);
        let target_port = target_port.ok_or(refused(18))?;
        let id = destination
            .initiator_port
            .as_ref()
            .map_err(|&sense| sense)?;
        if id.protocol() != target_port.protocol {
            return Err(refused(24));
        }
        let mut initiator_ports = self.resolve(id, target_port);
        match (initiator_ports.pop_first(), initiator_ports.is_empty()) {
            (Some(initiator_port), true) if initiator_port != *own => Ok(ItNexus {
                initiator_port,
                target_port: target_port.clone(),
            }),
            _ => Err(refused(24)),
        }
    }
}

/// INVALID FIELD IN PARAMETER LIST at this byte.
fn refused(byte: u16) -> Sense {
    Sense::invalid_field_in_parameter_list(Field::parameter(byte))
}
