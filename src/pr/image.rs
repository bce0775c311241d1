//! Reservations ⇄ text: the record from which they come back after a restart or a loss of power.
//!
//! A record is a TOML document whose first two lines are always these, so that a record of another version
//! or a damaged one is known before anything else of it is looked at:
//!
//! ```toml
//! version = 1
//! checksum = "4a17b156"     # CRC-32C (Castagnoli) of the record without this line, 8 hexadecimal digits
//! unit = "lun0-5f0c"        # serial number of the logical unit: a record is good for no other
//! boot_id = "0b7f…"         # the boot of the node under which it was written: another one means loss of power
//! generation = 7            # PRGENERATION
//! aptpl = true
//! reservation = "write_exclusive_registrants_only"     # left out if there is none
//!
//! [reserve]                 # who holds the unit by RESERVE; left out if nobody does
//! initiator_port = "…"
//! target_port = "…"
//!
//! [[registrant]]            # each, in the order of registration
//! initiator_port = "iscsi:iqn.2026-11.example:node-a,i,0x00023d000001"     # or fc: sbp: srp: sas: and 0x…
//! target_port = "iscsi:iqn.2026-11.example:target,t,0x0001"
//! key = "0x00000000000000a1"
//! holder = true             # on the holder; on nobody if all registrants are
//! ```
//!
//! Comments are ours, not the record's. A record is written by us and read as if by an enemy: what does not
//! add up is an [`Error`], and never an empty set of reservations.

use std::fmt::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;

use super::{Holder, Registrant, Registrants, Reservation, Reservations, Type, Violation};
use crate::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};
use crate::scsi::sense::Sense;

/// The version of the records that this module reads and writes.
pub const VERSION: u32 = 1;

/// The longest record that is read, in bytes: 8,190 registrants with the longest names take under 6 MiB, and
/// [`ATTENTIONS_MAX`] unit attentions about as much.
pub const LENGTH_MAX: usize = 16 << 20;

/// How many pending unit attention conditions a record holds. More are lost when the daemon restarts.
pub const ATTENTIONS_MAX: usize = 16_384;

/// About as long is a record of nobody, in bytes.
const RECORD_LENGTH: usize = 256;

/// About as much longer is a record for each entry, in bytes.
const ENTRY_LENGTH: usize = 256;

/// The reservations of a logical unit, and when and where they were so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The serial number of the logical unit.
    pub unit: String,
    /// The boot id of the node's kernel.
    pub boot_id: String,
    /// What is registered and reserved.
    pub reservations: Reservations,
    /// The unit attention conditions that are pending, those of one I_T nexus in order.
    pub attentions: Vec<(Arc<ItNexus>, Sense)>,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Longer than any record can be.
    #[error("the record has {0} bytes, more than the {LENGTH_MAX} it can have")]
    TooLong(usize),
    /// Empty, torn, or something else.
    #[error("this is no record of tcmu-pr: it does not begin with a version and a checksum")]
    NotARecord,
    /// Written by another version of this program.
    #[error("the record has version {0}, and only version {VERSION} can be read")]
    UnknownVersion(u32),
    /// Damaged, or changed by hand.
    #[error("the record is damaged: its checksum should be {computed:08x} and is {stated:08x}")]
    Checksum {
        /// What the record says.
        stated: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// Not the fields of a record.
    #[error("the record cannot be understood")]
    Syntax(#[source] Box<toml::de::Error>),
    /// Another unit's.
    #[error("the record is of the logical unit {found:?}, not of {expected:?}")]
    OtherUnit {
        /// The serial number in the record.
        found: String,
        /// The serial number of the unit that wants it.
        expected: String,
    },
    /// A port name that is none.
    #[error("{0:?} is not the name of a port")]
    Port(String),
    /// A reservation key that is none.
    #[error("{0:?} is not a reservation key")]
    Key(String),
    /// A unit attention condition that is none.
    #[error("{0:?} is not a unit attention condition")]
    Attention(String),
    /// More unit attention conditions than a record has.
    #[error(
        "the record has {0} unit attention conditions, more than the {ATTENTIONS_MAX} it can have"
    )]
    TooManyAttentions(usize),
    /// Not one registrant marked as holder where one must be.
    #[error("the record marks {0} registrants as the single holder of the persistent reservation")]
    Holders(usize),
    /// What can never be so.
    #[error("the record contradicts itself")]
    Violation(#[from] Violation),
}

/// The record after its first two lines.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
struct Record {
    unit: String,
    boot_id: String,
    generation: u32,
    aptpl: bool,
    reservation: Option<Type>,
    reserve: Option<NexusRecord>,
    #[serde(default)]
    registrant: Vec<RegistrantRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unit_attention: Vec<AttentionRecord>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
struct NexusRecord {
    initiator_port: String,
    target_port: String,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
struct RegistrantRecord {
    initiator_port: String,
    target_port: String,
    key: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    holder: bool,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
struct AttentionRecord {
    initiator_port: String,
    target_port: String,
    /// ADDITIONAL SENSE CODE and its qualifier.
    additional_sense: String,
}

impl Image {
    /// The record.
    pub fn encode(&self) -> String {
        let count = self.reservations.registrants.len() + self.attentions.len();
        let mut writer = Writer {
            record: unsealed(RECORD_LENGTH + count * ENTRY_LENGTH),
            text: String::new(),
        };
        writer.image(self);
        seal(&mut writer.record);
        writer.record
    }

    /// Reads the record of the logical unit whose serial number is `unit`.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub fn parse(record: &[u8], unit: &str) -> Result<Image, Error> {
        let record: Record =
            toml::from_str(open(record)?).map_err(|error| Error::Syntax(Box::new(error)))?;
        if record.unit != unit {
            return Err(Error::OtherUnit {
                found: record.unit,
                expected: unit.to_owned(),
            });
        }
        record.into_image()
    }
}

/// The first line of a record.
const VERSION_LINE: &str = "version = 1\n";
/// The second line of a record that is not [sealed](seal).
const CHECKSUM_LINE: &str = "checksum = \"00000000\"\n";
/// The digits in it, in a record.
const CHECKSUM_DIGITS: Range<usize> = {
    let end = VERSION_LINE.len() + CHECKSUM_LINE.len() - "\"\n".len();
    end - "00000000".len()..end
};

/// The first two lines of a record of this version, with room for so many bytes that follow. When they do, it is to be
/// [sealed](seal).
pub fn unsealed(length: usize) -> String {
    let lines = [VERSION_LINE, CHECKSUM_LINE];
    let mut record = String::with_capacity(lines[0].len() + lines[1].len() + length);
    record.extend(lines);
    record
}

/// Gives a record the checksum that it has to have.
pub fn seal(record: &mut String) {
    let checksum = checksum(
        VERSION_LINE,
        &record[VERSION_LINE.len() + CHECKSUM_LINE.len()..],
    );
    record.replace_range(CHECKSUM_DIGITS, &format!("{checksum:08x}"));
}

/// What follows the first two lines of a record, if it is of this version and as it was written.
///
/// # Errors
/// What is wrong with the record.
pub fn open(record: &[u8]) -> Result<&str, Error> {
    if record.len() > LENGTH_MAX {
        return Err(Error::TooLong(record.len()));
    }
    let record = std::str::from_utf8(record).map_err(|_| Error::NotARecord)?;
    let (version, record) = first_line(record, "version = ", "")?;
    let number = version.parse().map_err(|_| Error::NotARecord)?;
    if number != VERSION {
        return Err(Error::UnknownVersion(number));
    }
    let (stated, rest) = first_line(record, "checksum = \"", "\"")?;
    let stated = u32::from_str_radix(stated, 16).map_err(|_| Error::NotARecord)?;
    let computed = checksum(&format!("version = {version}\n"), rest);
    if stated != computed {
        return Err(Error::Checksum { stated, computed });
    }
    Ok(rest)
}

/// What stands between `before` and `after` in the first line, and the lines that follow it.
fn first_line<'a>(text: &'a str, before: &str, after: &str) -> Result<(&'a str, &'a str), Error> {
    let (line, rest) = text.split_once('\n').ok_or(Error::NotARecord)?;
    let value = line
        .strip_prefix(before)
        .and_then(|line| line.strip_suffix(after));
    Ok((value.ok_or(Error::NotARecord)?, rest))
}

fn checksum(version: &str, rest: &str) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(version.as_bytes()), rest.as_bytes())
}

/// Writes a record as the `toml` crate would, byte for byte, but in a fraction of the time: the initiator that changes one
/// of 8,190 registrations waits for all of them to be written.
struct Writer {
    record: String,
    /// The value that is being written.
    text: String,
}

impl Writer {
    fn image(&mut self, image: &Image) {
        let state = &image.reservations;
        self.string("unit", &image.unit);
        self.string("boot_id", &image.boot_id);
        self.line(format_args!("generation = {}", state.generation));
        self.line(format_args!("aptpl = {}", state.aptpl));
        if let Some(held) = &state.reservation {
            let kind = toml::Value::try_from(held.kind).expect("a word");
            self.line(format_args!("reservation = {kind}"));
        }
        if state.registrants.is_empty() {
            self.record.push_str("registrant = []\n");
        }
        if let Some(nexus) = &state.spc2 {
            self.record.push_str("\n[reserve]\n");
            self.nexus(nexus);
        }
        let held = state.reservation.as_ref();
        let holder = held.and_then(Reservation::single_holder);
        for Registrant { nexus, key } in state.registrants.iter() {
            self.record.push_str("\n[[registrant]]\n");
            self.nexus(nexus);
            self.line(format_args!("key = \"0x{key:016x}\""));
            if holder == Some(&**nexus) {
                self.record.push_str("holder = true\n");
            }
        }
        for (nexus, condition) in image.attentions.iter().take(ATTENTIONS_MAX) {
            self.record.push_str("\n[[unit_attention]]\n");
            self.nexus(nexus);
            self.string("additional_sense", &attention_text(condition));
        }
    }

    fn nexus(&mut self, nexus: &ItNexus) {
        self.port("initiator_port", |text| {
            write_initiator_port(text, &nexus.initiator_port)
        });
        self.port("target_port", |text| {
            write_target_port(text, &nexus.target_port)
        });
    }

    fn port(&mut self, name: &str, write: impl FnOnce(&mut String) -> fmt::Result) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        write(&mut text).expect("a String takes everything");
        self.string(name, &text);
        self.text = text;
    }

    fn string(&mut self, name: &str, value: &str) {
        self.record.push_str(name);
        self.record.push_str(" = ");
        let is_plain = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        // All of them, and not just up to the first that is not: so the compiler takes many bytes at a time.
        if value
            .bytes()
            .fold(true, |plain, byte| plain & is_plain(byte))
        {
            self.record.push('"');
            self.record.push_str(value);
            self.record.push_str("\"\n");
        } else {
            let quoted = toml::Value::String(value.to_owned());
            self.line(format_args!("{quoted}"));
        }
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        writeln!(self.record, "{line}").expect("a String takes everything");
    }
}

impl Record {
    fn into_image(self) -> Result<Image, Error> {
        let mut list = Vec::with_capacity(self.registrant.len());
        let mut holders = Vec::new();
        for record in self.registrant {
            let nexus = Arc::new(parse_nexus(&record.initiator_port, &record.target_port)?);
            let key = parse_key(record.key)?;
            if record.holder {
                holders.push(Arc::clone(&nexus));
            }
            list.push(Registrant { nexus, key });
        }
        let single = self
            .reservation
            .is_some_and(|kind| !kind.is_all_registrants());
        if holders.len() != usize::from(single) {
            return Err(Error::Holders(holders.len()));
        }
        let reservation = self.reservation.map(|kind| Reservation {
            kind,
            holder: holders.pop().map_or(Holder::AllRegistrants, Holder::Nexus),
        });
        let spc2 = self
            .reserve
            .map(|record| parse_nexus(&record.initiator_port, &record.target_port).map(Arc::new));
        let reservations = Reservations {
            registrants: Arc::new(Registrants::from(list)),
            reservation,
            generation: self.generation,
            aptpl: self.aptpl,
            spc2: spc2.transpose()?,
        };
        reservations.check()?;
        if self.unit_attention.len() > ATTENTIONS_MAX {
            return Err(Error::TooManyAttentions(self.unit_attention.len()));
        }
        let attentions = self.unit_attention.into_iter().map(|record| {
            let nexus = parse_nexus(&record.initiator_port, &record.target_port)?;
            let text = record.additional_sense;
            let mut known = Sense::UNIT_ATTENTIONS.into_iter();
            let condition = known.find(|condition| attention_text(condition) == text);
            Ok((Arc::new(nexus), condition.ok_or(Error::Attention(text))?))
        });
        let attentions = attentions.collect::<Result<_, Error>>()?;
        Ok(Image {
            unit: self.unit,
            boot_id: self.boot_id,
            reservations,
            attentions,
        })
    }
}

fn attention_text(condition: &Sense) -> String {
    let (code, qualifier) = condition.additional();
    format!("0x{code:02x}{qualifier:02x}")
}

fn protocol_text(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::FibreChannel => "fc:",
        Protocol::Sbp => "sbp:",
        Protocol::Srp => "srp:",
        Protocol::Iscsi => "iscsi:",
        Protocol::Sas => "sas:",
    }
}

/// The protocol that `text` begins with, and the name that follows it.
fn parse_protocol(text: &str) -> Option<(Protocol, &str)> {
    let mut named = Protocol::ALL
        .into_iter()
        .map(|protocol| (protocol, protocol_text(protocol)));
    named.find_map(|(protocol, prefix)| Some((protocol, text.strip_prefix(prefix)?)))
}

fn write_target_port(text: &mut String, port: &TargetPort) -> fmt::Result {
    text.push_str(protocol_text(port.protocol));
    text.push_str(&port.name);
    Ok(())
}

fn write_initiator_port(text: &mut String, id: &TransportId) -> fmt::Result {
    text.push_str(protocol_text(id.protocol()));
    match id {
        TransportId::FibreChannel(name) | TransportId::Sbp(name) | TransportId::Sas(name) => {
            write!(text, "0x{name:016x}")
        }
        TransportId::Srp(port) => write!(text, "0x{:032x}", u128::from_be_bytes(*port)),
        TransportId::Iscsi { .. } => write!(text, "{id}"),
    }
}

fn parse_nexus(initiator_port: &str, target_port: &str) -> Result<ItNexus, Error> {
    let error = |text: &str| Error::Port(text.to_owned());
    let (protocol, name) = parse_protocol(target_port).ok_or_else(|| error(target_port))?;
    Ok(ItNexus {
        initiator_port: parse_initiator_port(initiator_port)
            .ok_or_else(|| error(initiator_port))?,
        target_port: TargetPort {
            protocol,
            name: name.into(),
        },
    })
}

fn parse_initiator_port(text: &str) -> Option<TransportId> {
    let (protocol, name) = parse_protocol(text)?;
    match protocol {
        Protocol::FibreChannel => parse_u64(name).map(TransportId::FibreChannel),
        Protocol::Sbp => parse_u64(name).map(TransportId::Sbp),
        Protocol::Sas => parse_u64(name).map(TransportId::Sas),
        Protocol::Srp => {
            let port = u128::from_str_radix(digits::<32>(name)?, 16).ok()?;
            Some(TransportId::Srp(port.to_be_bytes()))
        }
        Protocol::Iscsi => TransportId::from_iscsi_port_name(name).ok(),
    }
}

fn parse_key(text: String) -> Result<u64, Error> {
    parse_u64(&text).ok_or(Error::Key(text))
}

fn parse_u64(text: &str) -> Option<u64> {
    u64::from_str_radix(digits::<16>(text)?, 16).ok()
}

/// The `N` hexadecimal digits after `0x`.
fn digits<const N: usize>(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("0x")?;
    let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    (digits.len() == N && hexadecimal).then_some(digits)
}

#[cfg(test)]
mod tests;
