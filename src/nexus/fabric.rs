//! The fabrics of the kernel's target: how each names its ports.

use sha2::{Digest, Sha256};

use crate::scsi::nexus::{IscsiName, Protocol, TargetPort, TransportId};

/// How a fabric tells initiators apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fabric {
    /// By ACLs.
    WithAcls(Transport),
    /// Each port group has one initiator port. Its name is made up anew at every restart, so that something that
    /// stays takes its place: see [`made_up_port`].
    OneInitiator,
}

/// How a fabric with ACLs spells the names of its initiators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Iscsi,
    /// Some Fibre Channel fabrics let in anybody who has no ACL, others cannot.
    FibreChannel {
        can_generate_acls: bool,
    },
    Srp,
}

impl Fabric {
    /// The fabric of this name in the target configuration, if we know it.
    pub(super) fn parse(name: &str) -> Option<Fabric> {
        Some(match name {
            "iscsi" => Fabric::WithAcls(Transport::Iscsi),
            "qla2xxx" | "qla2xxx_npiv" => Fabric::WithAcls(Transport::FibreChannel {
                can_generate_acls: true,
            }),
            "fc" => Fabric::WithAcls(Transport::FibreChannel {
                can_generate_acls: false,
            }),
            "srpt" => Fabric::WithAcls(Transport::Srp),
            "loopback" | "vhost" | "xen-pvscsi" => Fabric::OneInitiator,
            _ => return None,
        })
    }

    /// The port (SAM-5, SCSI port name) of a target and the tag of one of its port groups: for iSCSI with the tag, four
    /// hexadecimal digits. `None` if the name is none.
    pub(super) fn target_port(self, target: &str, tag: u16) -> Option<TargetPort> {
        let name = target.to_ascii_lowercase();
        let iscsi = self == Fabric::WithAcls(Transport::Iscsi);
        let good = if iscsi {
            IscsiName::parse(&name).is_ok()
        } else {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        good.then(|| TargetPort {
            protocol: match self {
                Fabric::WithAcls(Transport::Iscsi) => Protocol::Iscsi,
                Fabric::WithAcls(Transport::FibreChannel { .. }) => Protocol::FibreChannel,
                Fabric::WithAcls(Transport::Srp) => Protocol::Srp,
                Fabric::OneInitiator => Protocol::Sas,
            },
            name: if iscsi {
                format!("{name},t,0x{tag:04x}").into()
            } else {
                name.into()
            },
        })
    }
}

impl Transport {
    /// Whether the port group must say that it lets in nobody without an ACL, for us to believe it.
    pub(super) fn can_generate_acls(self) -> bool {
        match self {
            Transport::Iscsi => true,
            Transport::FibreChannel { can_generate_acls } => can_generate_acls,
            Transport::Srp => false,
        }
    }

    /// Whether an initiator has several ports, told apart by ISIDs.
    pub(super) fn has_isid(self) -> bool {
        self == Transport::Iscsi
    }

    /// The initiator port of this name; for iSCSI, with this ISID. `None` if the name is none.
    pub(super) fn initiator_port(self, name: &str, isid: Option<u64>) -> Option<TransportId> {
        match self {
            Transport::Iscsi => TransportId::iscsi(name, isid).ok(),
            Transport::FibreChannel { .. } => fibre_channel(name).map(TransportId::FibreChannel),
            Transport::Srp => srp(name).map(TransportId::Srp),
        }
    }

    /// What names look like.
    pub(super) fn spelling(self) -> &'static str {
        match self {
            Transport::Iscsi => "iSCSI name (iqn., eui. or naa.)",
            Transport::FibreChannel { .. } => "port name (21:00:00:24:ff:31:4c:48)",
            Transport::Srp => "initiator port identifier (0x and 32 hexadecimal digits)",
        }
    }
}

/// An initiator port for one that has no name that lasts: a SAS address that is always the same for the same text. NAA
/// 3h, locally assigned.
pub(super) fn made_up_port(text: &str) -> TransportId {
    let digest: [u8; 32] = Sha256::digest(text).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    TransportId::Sas(u64::from_be_bytes([0x30 | (a & 0x0f), b, c, d, e, f, g, h]))
}

/// An N_Port_Name: eight bytes with colons between.
fn fibre_channel(name: &str) -> Option<u64> {
    let well_spelt = name.len() == 23 && name.split(':').all(|byte| byte.len() == 2);
    well_spelt
        .then(|| hexadecimal(&name.replace(':', "")))?
        .and_then(|n| u64::try_from(n).ok())
}

/// An SRP initiator port identifier: up to 32 hexadecimal digits, filled up with zeros from the left as the
/// kernel does.
fn srp(name: &str) -> Option<[u8; 16]> {
    let digits = name.strip_prefix("0x").unwrap_or(name);
    (digits.len() % 2 == 0)
        .then(|| hexadecimal(digits))?
        .map(u128::to_be_bytes)
}

fn hexadecimal(digits: &str) -> Option<u128> {
    // from_str_radix would take a sign.
    let good = (1..=32).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| u128::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_none_are_refused() {
        let fibre_channel = Transport::FibreChannel {
            can_generate_acls: false,
        };
        for name in [
            "21:00:00:24:ff:31:4c:4",
            "21:00:00:24:ff:31:4c:4g",
            "21:00:00:24:ff:31:4c:+8",
            "2100:00:24:ff:31:4c:48:",
            "210000:24:ff:31:4c:48::",
            "21000024ff314c48",
        ] {
            assert_eq!(fibre_channel.initiator_port(name, None), None, "{name}");
        }
        let srp_long = format!("0x{}", "0".repeat(34));
        for name in ["0x", "", "0x123", "0x+1", "0xfe80:0000", &srp_long] {
            assert_eq!(Transport::Srp.initiator_port(name, None), None, "{name}");
        }
    }
}
