//! I_T nexuses: which initiator port, through which target port (SAM-5, I_T nexus).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod transport_id;

pub use transport_id::{IscsiName, ParseError, TransportId};

/// A relative target port identifier: 1 to 65,535 (SPC-4, RELATIVE TARGET PORT IDENTIFIER field).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelativeTargetPort(pub u16);

/// What carries SCSI between two ports (SPC-4, PROTOCOL IDENTIFIER field).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Protocol {
    /// Fibre Channel Protocol for SCSI.
    FibreChannel = 0x0,
    /// Serial Bus Protocol, over IEEE 1394.
    Sbp = 0x3,
    /// SCSI RDMA Protocol.
    Srp = 0x4,
    /// iSCSI.
    Iscsi = 0x5,
    /// Serial Attached SCSI.
    Sas = 0x6,
}

impl Protocol {
    /// Every protocol whose ports can be named, in the order of their identifiers.
    pub const ALL: [Protocol; 5] = [
        Protocol::FibreChannel,
        Protocol::Sbp,
        Protocol::Srp,
        Protocol::Iscsi,
        Protocol::Sas,
    ];

    /// The protocol with this PROTOCOL IDENTIFIER, if its ports can be named.
    pub fn parse(identifier: u8) -> Option<Protocol> {
        let mut all = Protocol::ALL.into_iter();
        all.find(|protocol| *protocol as u8 == identifier)
    }
}

/// A target port, by the name that outlives restarts (SAM-5, SCSI port name).
///
/// Its relative target port identifier is looked up in [`TargetPorts`], since a number alone can change
/// its meaning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetPort {
    /// What the port speaks.
    pub protocol: Protocol,
    /// iSCSI: `iqn.2026-11.example:target,t,0x0001`; other fabrics: the fabric's name of the port.
    pub name: Arc<str>,
}

/// An I_T nexus: one initiator port and one target port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItNexus {
    /// Who sends.
    pub initiator_port: TransportId,
    /// Through which port of ours.
    pub target_port: TargetPort,
}

/// The target ports of a logical unit in the order in which they were first seen. The first is relative
/// target port 1; a port keeps its number for the life of the unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetPorts(Vec<TargetPort>);

impl TargetPorts {
    /// The relative target port identifier of `port`, if the unit knows it.
    pub fn relative(&self, port: &TargetPort) -> Option<RelativeTargetPort> {
        let index = self.0.iter().position(|known| known == port)?;
        u16::try_from(index + 1).ok().map(RelativeTargetPort)
    }

    /// The port that a relative target port identifier names.
    pub fn port(&self, relative: RelativeTargetPort) -> Option<&TargetPort> {
        self.0.get(usize::from(relative.0).checked_sub(1)?)
    }

    /// Gives `port` a relative target port identifier if it has none yet. `None` when all are in use.
    pub fn add(&mut self, port: &TargetPort) -> Option<RelativeTargetPort> {
        if self.relative(port).is_none() && self.0.len() < usize::from(u16::MAX) {
            self.0.push(port.clone());
        }
        self.relative(port)
    }

    /// Every port, in the order of their relative target port identifiers.
    pub fn iter(&self) -> impl Iterator<Item = &TargetPort> {
        self.0.iter()
    }
}

impl fmt::Display for TargetPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for ItNexus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.initiator_port, self.target_port)
    }
}
