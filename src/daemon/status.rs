//! What a worker reports, in the words of the status.

use super::worker::Report;
use crate::control::{Counters, HeldStatus, LinkStatus, RegistrantStatus, ReservationStatus};
use crate::nexus::declared::Resolved;
use crate::pr::Holder;

pub(super) fn link(link: &Result<Resolved, String>) -> LinkStatus {
    match link {
        Ok(resolved) => LinkStatus::Serving {
            initiator: resolved.nexus.initiator_port.to_string(),
            target: resolved.nexus.target_port.name.to_string(),
            read_only: resolved.write_protect,
        },
        Err(reason) => LinkStatus::Waiting {
            reason: reason.clone(),
        },
    }
}

pub(super) fn reservations(report: &Report) -> ReservationStatus {
    let reservations = &report.reservations;
    let registrants = reservations
        .registrants()
        .iter()
        .map(|registrant| RegistrantStatus {
            initiator: registrant.nexus.initiator_port.to_string(),
            target: registrant.nexus.target_port.name.to_string(),
            key: format!("{:#018x}", registrant.key),
        });
    ReservationStatus {
        unreadable: report.fenced,
        generation: reservations.generation(),
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

pub(super) fn counters(report: &Report) -> Counters {
    Counters {
        commands: report.counters.commands + report.unknown_nexus,
        reads: report.counters.reads,
        writes: report.counters.writes,
        conflicts: report.counters.conflicts,
        unknown_nexus: report.unknown_nexus,
    }
}
