//! What has come while nobody served, and what was aborted before anybody looked at it.
//!
//! A daemon that was asked to end leaves its rings in order, and the next one goes on with them. What has come meanwhile
//! waits on them until all ports of the unit are there, and is then taken whole before any of it is begun. For an
//! initiator whose ABORT TASK or LOGICAL UNIT RESET has had no answer for long may have sent a command anew, through
//! another port: the first one must not be performed after that. The kernel has put the ids of what was aborted
//! behind it on the ring.

use std::collections::VecDeque;

use super::{PortId, Round, Worker};
use crate::daemon::recorder::Record;
use crate::daemon::records::handover::KnownSession;
use crate::lu::task::Pending;
use crate::nexus::tap::{DeviceNotes, Place};
use crate::store::Store;
use crate::tcmu::ring::{Entry, Function};

/// What becomes of what lies on the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backlog {
    /// It is taken, some of it in each turn.
    None,
    /// It stays where it is.
    Left,
    /// All of it is taken before any of it is begun.
    Whole,
}

/// A ring on which nothing is pending any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Its port.
    pub port: PortId,
    /// `cmd_tail`.
    pub tail: u32,
    /// How far the tap's notes were taken, which are in step with it.
    pub noted: Option<Place>,
    /// The sessions that the tap has told of and that have sent their first commands through it.
    pub sessions: Vec<KnownSession>,
}

/// An entry that was taken from a ring and has not been begun.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) entry: Entry,
    /// The command was aborted meanwhile: it is not to be performed.
    pub(super) aborted: bool,
}

impl Taken {
    pub(super) fn is_reset(&self) -> bool {
        let Entry::TaskManagement(entry) = &self.entry else {
            return false;
        };
        matches!(
            entry.function,
            Function::LogicalUnitReset | Function::TargetReset
        )
    }
}

/// Adds the next entry of a ring to those that were taken from it. What it says was aborted is not performed.
pub(super) fn push(taken: &mut VecDeque<Taken>, entry: Entry) {
    if let Entry::TaskManagement(function) = &entry {
        for before in taken.iter_mut() {
            if let Entry::Command(command) = &before.entry {
                before.aborted |= function.commands.contains(&command.id.id);
            }
        }
    }
    taken.push_back(Taken {
        entry,
        aborted: false,
    });
}

impl<S: Store<Pending>, R: Record> Worker<S, R> {
    /// From now on takes what was left on the rings.
    pub(super) fn take_backlog(&mut self) {
        if self.backlog != Backlog::Left {
            return;
        }
        self.backlog = Backlog::Whole;
        let notes = self.ports.values().find_map(|port| port.notes.as_ref());
        if let Some(notes) = notes {
            let unit = &mut self.parts.unit;
            self.sessions.take_up_expected(unit, notes.notes());
        }
        // The last daemon has published answers, and perhaps nobody has told the kernel.
        for (id, port) in &mut self.ports {
            if let Err(removed) = port.device.kick() {
                log::debug!("port {}: {removed}", id.0);
            }
        }
    }

    /// What was left is taken now, and the rest in turns.
    pub(super) fn backlog_taken(&mut self) {
        if self.backlog == Backlog::Whole {
            self.backlog = Backlog::None;
        }
    }

    /// Whether what lies on the rings is none of our business now.
    pub(super) fn leaves_rings(&self) -> bool {
        self.stopping || self.backlog == Backlog::Left
    }

    /// Takes entries from the rings of these ports. Tells whether some may be left.
    pub(super) fn look_at(&mut self, rounds: &[Round]) -> bool {
        let mut more = false;
        if self.leaves_rings() {
            return more;
        }
        for round in rounds {
            more |= match self.backlog {
                Backlog::Whole => {
                    while self.take_entries_of(round.port) {}
                    false
                }
                Backlog::None | Backlog::Left => self.take_entries_of(round.port),
            };
        }
        more
    }

    /// The rings on which nothing is pending any more.
    pub fn rests(&self) -> Vec<Rest> {
        let live = self.ports.iter().filter(|(_, port)| !port.dead);
        let rests = live.filter_map(|(&id, port)| {
            Some(Rest {
                port: id,
                tail: port.device.ring.at_rest()?,
                noted: port.notes.as_ref().map(DeviceNotes::place),
                sessions: self.sessions.through(id),
            })
        });
        rests.collect()
    }
}
