//! What a worker reports, in the words of the status.

use super::devices::Link;
use super::unit::Unit;
use super::worker::Report;
use crate::control::{
    Counters, HeldStatus, LinkStatus, RegistrantStatus, ReservationStatus, SessionStatus,
    WaitingStatus,
};
use crate::lu::Mapping;
use crate::pr::{Holder, Registrant};
use crate::scsi::nexus::TransportId;

pub(super) fn link(link: &Result<Link, String>) -> LinkStatus {
    match link {
        Ok(Link::Shared(through)) => LinkStatus::Shared {
            targets: through.iter().map(ToString::to_string).collect(),
        },
        Ok(Link::One(resolved)) => LinkStatus::Serving {
            initiator: resolved.nexus.initiator_port.to_string(),
            target: resolved.nexus.target_port.name.to_string(),
            read_only: resolved.write_protect,
        },
        Err(reason) => LinkStatus::Waiting {
            reason: reason.clone(),
        },
    }
}

pub(super) fn sessions(report: &Report) -> Vec<SessionStatus> {
    let sessions = report.sessions.iter();
    let mut sessions: Vec<SessionStatus> = sessions
        .map(|(nexus, mapping)| {
            let (initiator, isid) = initiator(&nexus.initiator_port);
            SessionStatus {
                initiator,
                isid,
                target: nexus.target_port.name.to_string(),
                read_only: *mapping == Mapping::ReadOnly,
            }
        })
        .collect();
    sessions.sort();
    sessions
}

pub(super) fn reservations(report: &Report, unit: &Unit) -> ReservationStatus {
    let reservations = &report.reservations;
    let ports = &unit.record.target_ports;
    let registrants = reservations.registrants().iter();
    let registrants = registrants.map(|Registrant { nexus, key }| {
        let (initiator, isid) = initiator(&nexus.initiator_port);
        RegistrantStatus {
            initiator,
            isid,
            target: nexus.target_port.name.to_string(),
            relative_target_port: ports.relative(&nexus.target_port).map(|port| port.0),
            key: format!("{key:#018x}"),
            holder: reservations.is_holder(nexus),
        }
    });
    let unreadable = unit.unreadable.clone().filter(|_| report.fenced);
    ReservationStatus {
        unreadable,
        generation: reservations.generation(),
        aptpl: reservations.aptpl(),
        force_aptpl: unit.options.force_aptpl,
        reservation: reservations.reservation().map(|held| HeldStatus {
            kind: held.kind.to_string(),
            holder: match &held.holder {
                Holder::Nexus(nexus) => Some(nexus.to_string()),
                Holder::AllRegistrants => None,
            },
        }),
        reserve: reservations.spc2().map(ToString::to_string),
        registrants: registrants.collect(),
    }
}

/// The initiator's name, and its ISID if it has one.
fn initiator(port: &TransportId) -> (String, Option<String>) {
    match port {
        TransportId::Iscsi { name, isid } => {
            (name.to_string(), isid.map(|isid| format!("{isid:#014x}")))
        }
        other => (other.to_string(), None),
    }
}

pub(super) fn waiting(report: &Report) -> WaitingStatus {
    WaitingStatus {
        answers: report.waiting.replies as u64,
        seconds: report.waiting.ticks.into(),
    }
}

pub(super) fn counters(report: &Report) -> Counters {
    Counters {
        commands: report.counters.commands + report.unknown_nexus,
        reads: report.counters.reads,
        writes: report.counters.writes,
        conflicts: report.counters.conflicts,
        unknown_nexus: report.unknown_nexus,
        not_noted: report.not_noted,
        noted_late: report.noted_late,
    }
}
