//! What a line of the history says.
//!
//! ```json
//! {"time":"2026-11-30T10:52:05.123456Z","kind":"preempt",
//!  "by":{"initiator":"iqn.2026-11.example:b","isid":"0x00023d000001","target":"iqn.2026-11.example:t,t,0x0001"},
//!  "registrations":[{"initiator":"iqn.2026-11.example:a","isid":null,"target":"iqn.2026-11.example:t,t,0x0001",
//!                    "before":"0x00000000000000a1","after":null}],
//!  "state":{"generation":3,"registered":1,"aptpl":false,"reservation":{"type":"write_exclusive_registrants_only",
//!           "holder":{"initiator":"iqn.2026-11.example:b","isid":null,"target":"..."}},"reserve":null}}
//! ```

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::pr::event::{Act, Event};
use crate::pr::{Holder, Reservation, Reservations, Type};
use crate::scsi::nexus::{ItNexus, TransportId};

/// The most registrations that an entry names. There can be thousands.
const NAMED_MAX: usize = 256;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum Kind {
    /// The reservations have changed.
    Changed(Act),
    /// Anything else.
    Other(Other),
}

/// What happened besides changes by commands and the administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Other {
    /// The daemon has begun to serve the unit.
    Started,
    /// The same, after a loss of power: what APTPL did not ask to keep is gone.
    StartedAfterPowerLoss,
    /// The same, but the record can't be read: nobody is let in.
    RecordUnreadable,
    /// Commands were refused with RESERVATION CONFLICT.
    Refused,
    /// Changes by somebody who makes many, which are not told one by one.
    Withheld,
    /// Something is missing here.
    Gap,
}

/// An I_T nexus in words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NexusName {
    /// The initiator: its name, or its port's.
    pub initiator: String,
    /// The initiator session identifier, where that is known: `0x` and 12 hexadecimal digits. iSCSI only.
    pub isid: Option<String>,
    /// The target port.
    pub target: String,
}

/// A persistent reservation in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Type,
    /// The I_T nexus that holds it; `None` if all registrants do.
    pub holder: Option<NexusName>,
}

/// What has become of a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationEntry {
    /// Whose.
    #[serde(flatten)]
    pub nexus: NexusName,
    /// The reservation key before: `0x` and 16 hexadecimal digits.
    pub before: Option<String>,
    /// The reservation key now.
    pub after: Option<String>,
}

/// What is registered and reserved, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// PRGENERATION.
    pub generation: u32,
    /// How many I_T nexuses are registered.
    pub registered: usize,
    /// Whether all this outlives a loss of power.
    pub aptpl: bool,
    /// The persistent reservation.
    pub reservation: Option<Held>,
    /// Who has reserved the unit by RESERVE(6) or RESERVE(10).
    pub reserve: Option<NexusName>,
}

/// A line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in UTC, with microseconds (RFC 3339).
    pub time: String,
    /// What.
    pub kind: Kind,
    /// The I_T nexus that has acted, or was refused or lost. Without one, it was the administrator, or the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<NexusName>,
    /// The command that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The reservation key that it was refused with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many that were, or how many entries are left out, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Why something is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The registrations that are not what they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registrations: Vec<RegistrationEntry>,
    /// How many more of these there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<usize>,
    /// The persistent reservation before, if it is another now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation_before: Option<Held>,
    /// Who had reserved the unit by RESERVE before, if that is another now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_before: Option<NexusName>,
    /// What is registered and reserved now.
    pub state: State,
}

impl Entry {
    /// An entry that says no more than what has happened when.
    pub fn new(time: Timestamp, kind: Kind, state: State) -> Entry {
        Entry {
            time: format!("{time:.6}"),
            kind,
            by: None,
            operation: None,
            key: None,
            count: None,
            why: None,
            registrations: Vec::new(),
            more: None,
            reservation_before: None,
            reserve_before: None,
            state,
        }
    }

    /// The entry of a change.
    pub fn of(time: Timestamp, event: &Event) -> Entry {
        let after = State::from(&event.after);
        let named = event.registrations.iter().take(NAMED_MAX);
        let reservation_before = event.reservation_before.as_ref().map(Held::from);
        let reserve_before = event.reserve_before.as_deref().map(NexusName::from);
        Entry {
            by: event.by.as_deref().map(NexusName::from),
            registrations: named
                .map(|one| RegistrationEntry {
                    nexus: NexusName::from(&*one.nexus),
                    before: one.before.map(in_hexadecimal),
                    after: one.after.map(in_hexadecimal),
                })
                .collect(),
            more: event
                .registrations
                .len()
                .checked_sub(NAMED_MAX)
                .filter(|&more| more > 0),
            reservation_before: reservation_before
                .filter(|_| event.reservation_before.as_ref() != event.after.reservation()),
            reserve_before: reserve_before
                .filter(|_| event.reserve_before.as_deref() != event.after.spc2()),
            ..Entry::new(time, Kind::Changed(event.act), after)
        }
    }

    /// As a line of the history, which ends with a newline and has no other.
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("text and numbers are JSON");
        line.push('\n');
        line
    }
}

/// A reservation key as the history writes it.
pub fn in_hexadecimal(key: u64) -> String {
    format!("{key:#018x}")
}

impl From<&ItNexus> for NexusName {
    fn from(nexus: &ItNexus) -> NexusName {
        let (initiator, isid) = match &nexus.initiator_port {
            TransportId::Iscsi { name, isid } => {
                (name.to_string(), isid.map(|isid| format!("{isid:#014x}")))
            }
            other => (other.to_string(), None),
        };
        NexusName {
            initiator,
            isid,
            target: nexus.target_port.to_string(),
        }
    }
}

impl fmt::Display for NexusName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NexusName {
            initiator,
            isid,
            target,
        } = self;
        match isid {
            Some(isid) => write!(f, "{initiator},i,{isid} -> {target}"),
            None => write!(f, "{initiator} -> {target}"),
        }
    }
}

impl From<&Reservation> for Held {
    fn from(reservation: &Reservation) -> Held {
        Held {
            kind: reservation.kind,
            holder: match &reservation.holder {
                Holder::Nexus(nexus) => Some(NexusName::from(&**nexus)),
                Holder::AllRegistrants => None,
            },
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            Some(holder) => write!(f, "{}, held by {holder}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

impl From<&Reservations> for State {
    fn from(reservations: &Reservations) -> State {
        State {
            generation: reservations.generation(),
            registered: reservations.registrants().len(),
            aptpl: reservations.aptpl(),
            reservation: reservations.reservation().map(Held::from),
            reserve: reservations.spc2().map(NexusName::from),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Changed(act) => act.fmt(f),
            Kind::Other(other) => f.write_str(match other {
                Other::Started => "started",
                Other::StartedAfterPowerLoss => "started after a loss of power",
                Other::RecordUnreadable => "record unreadable",
                Other::Refused => "refused",
                Other::Withheld => "more changes",
                Other::Gap => "gap",
            }),
        }
    }
}

/// What an entry says besides when, who and what.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for one in &self.registrations {
            let own = self.by.as_ref() == Some(&one.nexus);
            let of = if own {
                String::new()
            } else {
                format!(" of {}", one.nexus)
            };
            parts.push(match (&one.before, &one.after) {
                (None, Some(key)) => format!("key {key}{of} registered"),
                (Some(before), Some(key)) => format!("key {before}{of} now {key}"),
                (Some(before), None) => format!("key {before}{of} removed"),
                (None, None) => continue,
            });
        }
        if let Some(more) = self.more {
            parts.push(format!("and {more} more"));
        }
        let state = &self.state;
        match (&self.kind, &state.reservation) {
            (Kind::Changed(Act::Reserve | Act::Preempt | Act::PreemptAndAbort), Some(held))
            | (Kind::Changed(Act::RegisterAndMove) | Kind::Other(_), Some(held))
                if self.kind != Kind::Other(Other::Refused) =>
            {
                parts.push(held.to_string());
            }
            _ => {}
        }
        if let (Some(before), None) = (&self.reservation_before, &state.reservation) {
            parts.push(format!("{before}: released"));
        }
        if let (Some(before), None) = (&self.reserve_before, &state.reserve) {
            parts.push(format!("the RESERVE of {before} ended"));
        }
        if let Some(operation) = &self.operation {
            let key = self.key.as_ref().map(|key| format!(" with key {key}"));
            let key = key.unwrap_or_default();
            parts.push(match self.count {
                None | Some(1) => format!("{operation}{key}"),
                Some(count) => format!("{operation}{key}, {count} times"),
            });
        } else if let Some(count) = self.count {
            parts.push(match self.kind {
                Kind::Other(Other::Refused) => format!("{count} more commands"),
                Kind::Other(Other::Gap) => format!("{count} entries are missing"),
                _ => format!("{count} of them"),
            });
        }
        parts.extend(self.why.clone());
        if !matches!(self.kind, Kind::Other(Other::Refused)) {
            parts.push(format!(
                "{} registered, generation {}",
                state.registered, state.generation
            ));
        }
        f.write_str(&parts.join("; "))
    }
}
