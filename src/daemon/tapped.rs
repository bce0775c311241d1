//! The sessions that share the backstores of a unit, as the nexus tap tells them apart.

use std::fmt;

use super::records::handover::KnownSession;
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

/// All of them.
#[derive(Default)]
pub(super) struct Sessions {
    by_slot: Vec<Option<Known>>,
    /// Those that the last daemon has known, and the ports that it has known them by, until all ports are there.
    expected: Vec<(PortId, KnownSession)>,
}

/// The RESERVE that the last daemon has left has this number, since none was granted yet.
const LEFT_RESERVE: u64 = 0;

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
        match self.by_slot.get_mut(note.session.slot()) {
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
        self.put(Known { session, attached });
        id.ok_or(Unknown::Unnamed)
    }

    fn put(&mut self, known: Known) {
        let slot = known.session.slot();
        if self.by_slot.len() <= slot {
            self.by_slot.resize_with(slot + 1, || None);
        }
        self.by_slot[slot] = Some(known);
    }

    /// Takes note of sessions that the last daemon has known by a port, until [`Sessions::take_up_expected`].
    pub(super) fn expect(&mut self, port: PortId, sessions: Vec<KnownSession>) {
        let sessions = sessions.into_iter();
        self.expected.extend(sessions.map(|known| (port, known)));
    }

    /// Goes on with the sessions that the last daemon has known and that are still there, before they send anything. An
    /// I_T nexus has been lost meanwhile if none of them is its own, even if it has another by now.
    pub(super) fn take_up_expected(&mut self, unit: &mut LogicalUnit, notes: &Notes) {
        let expected = std::mem::take(&mut self.expected).into_iter();
        let (live, over): (Vec<_>, Vec<_>) =
            expected.partition(|(_, known)| notes.is_live(known.id));
        for (port, known) in live {
            self.take_up(unit, port, known);
        }
        for (_, KnownSession { nexus, .. }) in over {
            if !self.knows(&nexus) {
                log::info!("{nexus}: its session has ended while nobody ran");
                unit.session_lost(&nexus, LEFT_RESERVE);
            }
        }
    }

    fn take_up(&mut self, unit: &mut LogicalUnit, port: PortId, known: KnownSession) {
        let session = known.id;
        // It may have sent something through another port by now, and nobody else can have its slot.
        if self
            .by_slot
            .get(session.slot())
            .is_some_and(Option::is_some)
        {
            return;
        }
        let mapping = Mapping::new(known.read_only);
        let attached = Some(Attached {
            id: unit.attach(Some(known.nexus.clone()), mapping),
            nexus: known.nexus,
            mapping,
            port,
        });
        self.put(Known { session, attached });
    }

    /// The sessions that are known by a port, for the next daemon.
    pub(super) fn through(&self, port: PortId) -> Vec<KnownSession> {
        let known = self.by_slot.iter().flatten().filter_map(|known| {
            let attached = known.attached.as_ref()?;
            (attached.port == port).then(|| KnownSession {
                id: known.session,
                nexus: attached.nexus.clone(),
                read_only: attached.mapping == Mapping::ReadOnly,
            })
        });
        let expected = self.expected.iter().filter(|(by, _)| *by == port);
        known
            .chain(expected.map(|(_, known)| known.clone()))
            .collect()
    }

    /// Lets go of the sessions that have ended. An I_T nexus is lost with its last one.
    pub(super) fn sweep(&mut self, unit: &mut LogicalUnit, notes: &Notes) {
        let is_over = |known: &mut Known| !notes.is_live(known.session);
        let slots = self.by_slot.iter_mut();
        let over = slots.filter_map(|slot| slot.take_if(is_over));
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
        self.expected.retain(|(by, _)| *by != port);
        let slots = self.by_slot.iter_mut();
        let gone = slots.filter_map(|slot| slot.take_if(came_so));
        for attached in gone.filter_map(|known| known.attached) {
            unit.detach(attached.id);
        }
    }

    /// Lets go of all sessions, of which nobody knows any more whether they have ended: what they have reserved stays.
    pub(super) fn clear(&mut self, unit: &mut LogicalUnit) {
        self.expected.clear();
        for known in self.by_slot.drain(..).flatten() {
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
        self.by_slot
            .iter()
            .flatten()
            .filter_map(|known| known.attached.as_ref())
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.by_slot.iter().flatten())
            .finish()
    }
}
