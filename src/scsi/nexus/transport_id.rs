//! TransportIDs: initiator ports by name, bytes ⇄ values (SPC-4 r37, TransportID identifiers).
//!
//! Byte 0 holds TPID FORMAT (bits 7–6) and PROTOCOL IDENTIFIER (bits 3–0). What follows, reserved bytes
//! left out:
//!
//! | protocol | format | length | identity |
//! |---|---|---|---|
//! | Fibre Channel (0h) | 00b | 24 | bytes 8–15: N_Port_Name |
//! | SBP (3h) | 00b | 24 | bytes 8–15: EUI-64 |
//! | SRP (4h) | 00b | 24 | bytes 8–23: initiator port identifier |
//! | iSCSI (5h) | 00b | 4 + n | bytes 2–3: n; bytes 4–: name, NUL-terminated and NUL-padded |
//! | iSCSI (5h) | 01b | 4 + n | the same, with `,i,0x` and the ISID in hexadecimal after the name |
//! | SAS (6h) | 00b | 24 | bytes 4–11: SAS address |
//!
//! n is at least 20 and a multiple of 4. The bytes come from initiators and are taken for hostile.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Protocol;

/// The length of every TransportID but iSCSI's.
const LENGTH: usize = 24;
/// The least ADDITIONAL LENGTH of an iSCSI TransportID.
const ISCSI_ADDITIONAL_LENGTH_MIN: usize = 20;
/// The longest iSCSI name in bytes (RFC 7143, iSCSI names).
const ISCSI_NAME_LENGTH_MAX: usize = 223;
/// What stands between the iSCSI name and the ISID of an initiator port name.
const ISID_SEPARATOR: &str = ",i,0x";

/// An initiator port as its TransportID names it (SPC-4, TransportID identifiers).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportId {
    /// Fibre Channel: N_Port_Name.
    FibreChannel(u64),
    /// SBP: EUI-64.
    Sbp(u64),
    /// SRP: the 16-byte initiator port identifier.
    Srp([u8; 16]),
    /// iSCSI: the initiator's name, and the ISID where it is known.
    Iscsi {
        /// The iSCSI name of the initiator.
        name: IscsiName,
        /// The 48-bit initiator session identifier. A TransportID without one names all ports of the initiator.
        isid: Option<u64>,
    },
    /// SAS: SAS address.
    Sas(u64),
}

/// An iSCSI name: `iqn.`, `eui.` or `naa.`, 1 to 223 bytes, in lower case (RFC 7143, iSCSI names).
///
/// It holds no control character, no white space and no comma: none of these can be in an iSCSI name, and
/// a comma would make it unclear where the ISID begins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IscsiName(Arc<str>);

/// Why bytes or text are no TransportID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The list ends inside the TransportID.
    #[error("the TransportID is cut short")]
    Truncated,
    /// The protocol or the TransportID format is none we know.
    #[error("the TransportID is of an unknown protocol or format")]
    UnknownFormat,
    /// ADDITIONAL LENGTH is under 20 or no multiple of 4, or no NUL ends the name.
    #[error("the iSCSI TransportID has a wrong length")]
    WrongLength,
    /// Not an iSCSI name.
    #[error("not an iSCSI name")]
    NotAnIscsiName,
    /// Not 1 to 12 hexadecimal digits.
    #[error("not an ISID")]
    NotAnIsid,
}

impl TransportId {
    /// Reads the TransportID that `bytes` begin with; also yields its length.
    ///
    /// # Errors
    /// [`ParseError::Truncated`] if `bytes` end before it does, otherwise what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<(TransportId, usize), ParseError> {
        let first = *bytes.first().ok_or(ParseError::Truncated)?;
        let protocol = Protocol::parse(first & 0x0f).ok_or(ParseError::UnknownFormat)?;
        let format = first >> 6;
        if protocol == Protocol::Iscsi {
            return parse_iscsi(format, bytes);
        }
        if format != 0 {
            return Err(ParseError::UnknownFormat);
        }
        let bytes: &[u8; LENGTH] = bytes.first_chunk().ok_or(ParseError::Truncated)?;
        let id = match protocol {
            Protocol::FibreChannel => TransportId::FibreChannel(name_at::<8>(bytes)),
            Protocol::Sbp => TransportId::Sbp(name_at::<8>(bytes)),
            Protocol::Srp => TransportId::Srp(*bytes.last_chunk().expect("16 of 24 bytes")),
            Protocol::Sas => TransportId::Sas(name_at::<4>(bytes)),
            Protocol::Iscsi => unreachable!("returned above"),
        };
        Ok((id, LENGTH))
    }

    /// An iSCSI initiator port from its name, in any case, and ISID.
    ///
    /// # Errors
    /// If the name is no iSCSI name or the ISID has more than 48 bits.
    pub fn iscsi(name: &str, isid: Option<u64>) -> Result<TransportId, ParseError> {
        if isid.is_some_and(|isid| isid >> 48 != 0) {
            return Err(ParseError::NotAnIsid);
        }
        let name = IscsiName::parse(name)?;
        Ok(TransportId::Iscsi { name, isid })
    }

    /// An iSCSI initiator port from its SCSI port name: `NAME,i,0xISID`, or `NAME` where the ISID is unknown.
    ///
    /// # Errors
    /// If the name or the ISID is none.
    pub fn from_iscsi_port_name(text: &str) -> Result<TransportId, ParseError> {
        let Some((name, digits)) = text.split_once(ISID_SEPARATOR) else {
            return TransportId::iscsi(text, None);
        };
        let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !(1..=12).contains(&digits.len()) || !hexadecimal {
            return Err(ParseError::NotAnIsid);
        }
        let isid = u64::from_str_radix(digits, 16).map_err(|_| ParseError::NotAnIsid)?;
        TransportId::iscsi(name, Some(isid))
    }

    /// The protocol whose ports this names.
    pub fn protocol(&self) -> Protocol {
        match self {
            TransportId::FibreChannel(_) => Protocol::FibreChannel,
            TransportId::Sbp(_) => Protocol::Sbp,
            TransportId::Srp(_) => Protocol::Srp,
            TransportId::Iscsi { .. } => Protocol::Iscsi,
            TransportId::Sas(_) => Protocol::Sas,
        }
    }

    /// Whether both are ports of one initiator. Only iSCSI's initiators have several with one name.
    pub fn is_of_same_initiator(&self, other: &TransportId) -> bool {
        match (self, other) {
            (TransportId::Iscsi { name, .. }, TransportId::Iscsi { name: other, .. }) => {
                name == other
            }
            _ => self == other,
        }
    }

    /// Whether it is an iSCSI initiator whose ISID is not known: it stands for all ports of the initiator.
    pub fn is_whole_initiator(&self) -> bool {
        matches!(self, TransportId::Iscsi { isid: None, .. })
    }

    /// The TransportID as it goes to initiators: 24 bytes; iSCSI up to 248, with the ISID if it is known.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        bytes[0] = self.protocol() as u8;
        match self {
            TransportId::FibreChannel(name) | TransportId::Sbp(name) => {
                bytes[8..16].copy_from_slice(&name.to_be_bytes());
            }
            TransportId::Srp(port) => bytes[8..24].copy_from_slice(port),
            TransportId::Sas(address) => bytes[4..12].copy_from_slice(&address.to_be_bytes()),
            TransportId::Iscsi { isid, .. } => {
                let text = self.to_string();
                let additional = (text.len() + 1)
                    .next_multiple_of(4)
                    .max(ISCSI_ADDITIONAL_LENGTH_MIN);
                let length = u16::try_from(additional).expect("a name of at most 223 bytes");
                bytes[0] |= if isid.is_some() { 0x40 } else { 0 };
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes.resize(4 + additional, 0);
                bytes[4..4 + text.len()].copy_from_slice(text.as_bytes());
            }
        }
        bytes
    }
}

/// The eight-byte name at byte `AT`.
fn name_at<const AT: usize>(bytes: &[u8; LENGTH]) -> u64 {
    let name = bytes[AT..].first_chunk().expect("8 of 24 bytes");
    u64::from_be_bytes(*name)
}

fn parse_iscsi(format: u8, bytes: &[u8]) -> Result<(TransportId, usize), ParseError> {
    let [_, _, high, low, text @ ..] = bytes else {
        return Err(ParseError::Truncated);
    };
    let additional = usize::from(u16::from_be_bytes([*high, *low]));
    if additional < ISCSI_ADDITIONAL_LENGTH_MIN || additional % 4 != 0 {
        return Err(ParseError::WrongLength);
    }
    let text = text.get(..additional).ok_or(ParseError::Truncated)?;
    let end = text.iter().position(|&byte| byte == 0);
    let text = &text[..end.ok_or(ParseError::WrongLength)?];
    let text = std::str::from_utf8(text).map_err(|_| ParseError::NotAnIscsiName)?;
    let id = match format {
        0b00 => TransportId::iscsi(text, None)?,
        0b01 => match TransportId::from_iscsi_port_name(text)? {
            TransportId::Iscsi { isid: None, .. } => return Err(ParseError::NotAnIsid),
            id => id,
        },
        _ => return Err(ParseError::UnknownFormat),
    };
    Ok((id, 4 + additional))
}

impl IscsiName {
    /// The iSCSI name `text` in lower case.
    ///
    /// # Errors
    /// [`ParseError::NotAnIscsiName`].
    pub fn parse(text: &str) -> Result<IscsiName, ParseError> {
        let name = text.to_lowercase();
        let kind = ["iqn.", "eui.", "naa."]
            .iter()
            .any(|kind| name.starts_with(kind));
        // U+FFFD stands where there was no text.
        let barred = |c: char| c.is_control() || c.is_whitespace() || ",\u{fffd}".contains(c);
        if !kind || name.len() > ISCSI_NAME_LENGTH_MAX || name.contains(barred) {
            return Err(ParseError::NotAnIscsiName);
        }
        Ok(IscsiName(name.into()))
    }

    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IscsiName {
    type Error = ParseError;

    fn try_from(text: String) -> Result<IscsiName, ParseError> {
        IscsiName::parse(&text)
    }
}

impl From<IscsiName> for String {
    fn from(name: IscsiName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for IscsiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TransportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportId::FibreChannel(name) => write!(f, "naa.{name:016x}"),
            TransportId::Sbp(name) => write!(f, "eui.{name:016x}"),
            TransportId::Srp(port) => {
                f.write_str("0x")?;
                port.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            TransportId::Iscsi { name, isid: None } => name.fmt(f),
            TransportId::Iscsi {
                name,
                isid: Some(isid),
            } => write!(f, "{name}{ISID_SEPARATOR}{isid:012x}"),
            TransportId::Sas(address) => write!(f, "naa.{address:016x}"),
        }
    }
}

#[cfg(test)]
mod tests;
