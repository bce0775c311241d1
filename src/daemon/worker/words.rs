//! What the main thread and the workers tell each other.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::measure;
use super::{Peers, Question};
use crate::control::Undone;
use crate::daemon::records::handover::KnownSession;
use crate::lu::task::Waiting;
use crate::lu::{Alteration, Counters, Lent, LoanId, Mapping, Unfulfilled, Wish};
use crate::nexus::tap::DeviceNotes;
use crate::pr::Reservations;
use crate::pr::admin::Action;
use crate::scsi::mode::Values;
use crate::scsi::nexus::{ItNexus, RelativeTargetPort, TargetPort, TargetPorts};
use crate::tcmu::Device;
use crate::tcmu::ring::Interrupted;

/// A port of a logical unit: one TCMU device, by a number that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub usize);

/// Whose commands come through a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The I_T nexus; `None` for a session of the target's own, without an initiator port.
    pub nexus: Option<ItNexus>,
    /// What it may do.
    pub mapping: Mapping,
}

/// What the main thread tells a worker.
#[derive(Debug)]
pub enum Order {
    /// Serve one more device. Nobody's commands are performed before [`Order::Identify`].
    AddPort(PortId, Device),
    /// Leave on the rings what is there, and what comes, until [`Order::TakeBacklog`].
    LeaveBacklog,
    /// All ports are there and it is said who sends through them: what has come meanwhile is to be begun. Nothing if
    /// it was not left.
    TakeBacklog,
    /// Say who sends through a port; `None`: nobody knows, and every command is answered with BUSY.
    Identify {
        /// The port.
        port: PortId,
        /// Who.
        identity: Option<Identity>,
        /// The target ports of the unit as they are now.
        target_ports: TargetPorts,
    },
    /// These are all target ports through which the unit is reached.
    ServedPorts(Vec<(RelativeTargetPort, TargetPort)>),
    /// These are the nexus tap's notes of who sends through a port, from now on.
    Tap(PortId, DeviceNotes),
    /// The same, from where the last daemon has left off: what lies on the ring was noted. These sessions it has known.
    GoOn(PortId, DeviceNotes, Vec<KnownSession>),
    /// Anybody may send through a port: the tap tells who does. Until then nobody's commands are performed.
    Share {
        /// The port.
        port: PortId,
        /// The target ports of the unit as they are now.
        target_ports: TargetPorts,
    },
    /// Sessions have ended, which the tap's notes show.
    SessionsEnded,
    /// These are the other units that copies may be from and to, from now on.
    Peers(Arc<Peers>),
    /// Lend another unit what a copy needs.
    Lend(Wish, Question),
    /// This is what the unit that was asked has lent, if anything.
    Lent(u64, Option<Lent>),
    /// What was lent is given back.
    GivenBack(LoanId),
    /// Let a device go. The reply comes when it is closed.
    RemovePort(PortId, Sender<()>),
    /// Whether written blocks may wait in the cache, as all backstores say.
    DefaultWriteCache(bool),
    /// The same, and the administrator has just said so: whatever initiators have set.
    WriteCache(bool),
    /// Sessions are looked for from now on: [`Notice::Doubted`] is answered with [`Order::Looked`].
    ExpectLooks,
    /// The session is gone by which the I_T nexus of this port has sent the RESERVE of that number.
    SessionLost(PortId, u64),
    /// The look is done that a [`Notice::Doubted`] has asked for, and [`Order::SessionLost`] has told what was found.
    Looked,
    /// Do what the administrator orders, and say how it ended.
    Administer {
        /// What to do.
        action: Action,
        /// What was wrong and what to do, if it came to nothing.
        reply: Sender<Result<(), Undone>>,
    },
    /// Little space is left where the backing object lies.
    SpaceLow,
    /// Change what the administrator orders, and say how it ended.
    Alter {
        /// What to change.
        alteration: Alteration,
        /// What was wrong and what to do, if it came to nothing.
        reply: Sender<Result<(), Undone>>,
    },
    /// Say how things are.
    Report(Sender<Report>),
    /// Store nothing any more: the administrator has removed the unit.
    PowerOff,
    /// Take no more commands, answer those that were taken, and end.
    Stop,
}

/// What the administrator is told of an order that came to nothing, or that is done and not over.
pub(super) fn undone(why: Unfulfilled) -> Undone {
    match why {
        Unfulfilled::StillInFlight => Undone::NotOver(why.to_string()),
        _ => Undone::Refused(why.to_string()),
    }
}

/// How things are with a logical unit.
#[derive(Clone, Debug)]
pub struct Report {
    /// What is registered and reserved.
    pub reservations: Reservations,
    /// Whether the record of the reservations could not be read, so that nobody is let in.
    pub fenced: bool,
    /// The mode parameters in force that initiators can change.
    pub mode: Values,
    /// Whether writes are refused since a flush has failed.
    pub flush_failed: bool,
    /// What the unit has done.
    pub counters: Counters,
    /// Commands that were answered with BUSY because nobody knew who sent them.
    pub unknown_nexus: u64,
    /// Those of them that the tap has not noted, or not whose they are.
    pub not_noted: u64,
    /// Commands that were noted only after they could be seen, so that the worker had to wait.
    pub noted_late: u64,
    /// The I_T nexuses that the tap has told of and that are logged in, and what each may do.
    pub sessions: Vec<(ItNexus, Mapping)>,
    /// Commands in the store's hands.
    pub in_flight: usize,
    /// Answers that wait until commands in flight have ended.
    pub waiting: Waiting,
    /// How it performs.
    pub measured: measure::Report,
}

/// What a worker tells the main thread.
#[derive(Debug)]
pub enum Notice {
    /// A device can't be served any more, and why.
    Failed(PortId, Interrupted),
    /// A command came through a port of which nobody knows who sends. Told once, until the port is identified.
    WhoSends(PortId),
    /// The I_T nexus of this port has reserved the unit by RESERVE, or has sent another one, with that number. Told again
    /// for each, and when its port comes while the unit is reserved.
    Reserved(PortId, u64, ItNexus),
    /// It has reserved it no more.
    Released(PortId),
    /// Another's RESERVE waits to know whether the session of this port's I_T nexus is still there.
    Doubted(PortId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_never_called_refused() {
        let not_over = undone(Unfulfilled::StillInFlight);
        assert!(matches!(not_over, Undone::NotOver(_)), "{not_over:?}");
        for nothing_changed in [
            Unfulfilled::NotStored,
            Unfulfilled::NoSuchKey(1),
            Unfulfilled::Unreadable,
        ] {
            let refused = undone(nothing_changed);
            assert!(matches!(refused, Undone::Refused(_)), "{refused:?}");
        }
    }
}
