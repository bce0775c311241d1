//! I_T nexuses: which initiator port, through which target port (SAM-5, I_T nexus).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A relative target port identifier: 1 to 65,535 (SPC-4, RELATIVE TARGET PORT IDENTIFIER field).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelativeTargetPort(pub u16);

/// An initiator port as its TransportID names it (SPC-4, TransportID identifiers).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportId {
    /// Fibre Channel: N_Port_Name.
    FibreChannel(u64),
    /// SRP: the 16-byte initiator port identifier.
    Srp([u8; 16]),
    /// iSCSI: the initiator's name in lower case, and the ISID where it is known.
    Iscsi {
        /// `iqn.`, `eui.` or `naa.` name, lower case.
        name: String,
        /// The 48-bit initiator session identifier.
        isid: Option<u64>,
    },
    /// SAS: SAS address.
    Sas(u64),
}

/// A target port, by the name that outlives restarts (SAM-5, SCSI port name).
///
/// iSCSI: `iqn.2026-11.example:target,t,0x0001`; other fabrics: the fabric's name of the port. Its relative
/// target port identifier is looked up in [`TargetPorts`], since a number alone can change its meaning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetPort(pub Arc<str>);

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

impl fmt::Display for TransportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportId::FibreChannel(name) => write!(f, "naa.{name:016x}"),
            TransportId::Srp(port) => {
                f.write_str("0x")?;
                port.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            TransportId::Iscsi { name, isid: None } => f.write_str(name),
            TransportId::Iscsi {
                name,
                isid: Some(isid),
            } => write!(f, "{name},i,0x{isid:012x}"),
            TransportId::Sas(address) => write!(f, "naa.{address:016x}"),
        }
    }
}

impl fmt::Display for ItNexus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.initiator_port, self.target_port.0)
    }
}
