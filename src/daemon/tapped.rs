//! The sessions that share the backstores of a unit, as the nexus tap tells them apart.

use std::fmt;

use super::worker::PortId;
use crate::lu::task::NexusId;
use crate::lu::{LogicalUnit, Mapping};
use crate::nexus::tap::{Note, Notes, SessionId};
use crate::scsi::nexus::ItNexus;

/// A session that has sent commands to the unit.
#[derive(Debug)]
struct Known {
    session: SessionId,
    /// `None`: it belongs to no I_T nexus that we could name.
    attached: Option<Attached>,
}

#[derive(Debug)]
struct Attached {
    nexus: ItNexus,
    id: NexusId,
    mapping: Mapping,
    /// The port through which its first command has come.
    port: PortId,
}

/// All of them, by slot.
#[derive(Default)]
pub(super) struct Sessions(Vec<Option<Known>>);

/// Why a session's commands can't be performed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// It belongs to no I_T nexus that we could name, which was logged.
    Unnamed,
    /// Its target port is not known to the unit yet: somebody has to look at the target configuration.
    NewPort,
}

impl Sessions {
    /// The I_T nexus that has sent a command through a port, attached to the unit.
    pub(super) fn nexus(
        &mut self,
        unit: &mut LogicalUnit,
        port: PortId,
        notes: &Notes,
        note: Note,
    ) -> Result<NexusId, Unknown> {
        let mapping = Mapping::new(note.read_only);
        match self.0.get_mut(note.session.slot()) {
            Some(Some(Known { session, attached })) if *session == note.session => {
                let attached = attached.as_mut().ok_or(Unknown::Unnamed)?;
                if attached.mapping != mapping {
                    // In before out, so that what is kept for the nexus is not forgotten.
                    let before = attached.id;
                    attached.id = unit.attach(Some(attached.nexus.clone()), mapping);
                    attached.mapping = mapping;
                    unit.detach(before);
                }
                Ok(attached.id)
            }
            _ => self.attach(unit, port, notes, note.session, mapping),
        }
    }

    fn attach(
        &mut self,
        unit: &mut LogicalUnit,
        port: PortId,
        notes: &Notes,
        session: SessionId,
        mapping: Mapping,
    ) -> Result<NexusId, Unknown> {
        // The one before it in this slot has ended, and perhaps another one of this I_T nexus.
        self.sweep(unit, notes);
        let named = notes.session(session).map(|who| (who.nexus(), who));
        let attached = match named {
            Some((Ok(nexus), _)) if !unit.knows_target_port(&nexus.target_port) => {
                return Err(Unknown::NewPort);
            }
            Some((Ok(nexus), _)) => {
                log::info!("{nexus}: its first command");
                Some(Attached {
                    id: unit.attach(Some(nexus.clone()), mapping),
                    nexus,
                    mapping,
                    port,
                })
            }
            Some((Err(why), who)) => {
                log::warn!(
                    "the session of {:?} with {:?} is answered with BUSY: {why}",
                    who.initiator,
                    who.target
                );
                None
            }
            None => return Err(Unknown::Unnamed),
        };
        let id = attached.as_ref().map(|attached| attached.id);
        if self.0.len() <= session.slot() {
            self.0.resize_with(session.slot() + 1, || None);
        }
        self.0[session.slot()] = Some(Known { session, attached });
        id.ok_or(Unknown::Unnamed)
    }

    /// Lets go of the sessions that have ended. An I_T nexus is lost with its last one.
    pub(super) fn sweep(&mut self, unit: &mut LogicalUnit, notes: &Notes) {
        let is_over = |known: &mut Known| !notes.is_live(known.session);
        let over = self.0.iter_mut().filter_map(|slot| slot.take_if(is_over));
        let over: Vec<Attached> = over.filter_map(|known| known.attached).collect();
        for Attached { nexus, id, .. } in over {
            if !self.attached().any(|other| other.nexus == nexus) {
                log::info!("{nexus}: its session has ended");
                unit.nexus_lost(nexus);
            }
            unit.detach(id);
        }
    }

    /// Lets go of those whose first command came through a port that is removed.
    pub(super) fn leave(&mut self, unit: &mut LogicalUnit, port: PortId) {
        let came_so = |known: &mut Known| {
            let attached = known.attached.as_ref();
            attached.is_some_and(|attached| attached.port == port)
        };
        let gone = self.0.iter_mut().filter_map(|slot| slot.take_if(came_so));
        for attached in gone.filter_map(|known| known.attached) {
            unit.detach(attached.id);
        }
    }

    /// Lets go of all sessions, of which nobody knows any more whether they have ended: what they have reserved stays.
    pub(super) fn clear(&mut self, unit: &mut LogicalUnit) {
        for known in self.0.drain(..).flatten() {
            if let Some(attached) = known.attached {
                unit.detach(attached.id);
            }
        }
    }

    /// Whether an I_T nexus has a session.
    pub(super) fn knows(&self, nexus: &ItNexus) -> bool {
        self.attached().any(|attached| attached.nexus == *nexus)
    }

    /// The I_T nexuses whose commands come through a port.
    pub(super) fn of_port(&self, port: PortId) -> Vec<NexusId> {
        let of_port = self.attached().filter(|attached| attached.port == port);
        of_port.map(|attached| attached.id).collect()
    }

    /// Who is attached, and what it may do.
    pub(super) fn list(&self) -> Vec<(ItNexus, Mapping)> {
        let all = self.attached();
        all.map(|attached| (attached.nexus.clone(), attached.mapping))
            .collect()
    }

    fn attached(&self) -> impl Iterator<Item = &Attached> {
        self.0
            .iter()
            .flatten()
            .filter_map(|known| known.attached.as_ref())
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().flatten()).finish()
    }
}
