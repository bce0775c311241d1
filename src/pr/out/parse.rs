//! The CDB and the parameter lists (SPC-4 r37, PERSISTENT RESERVE OUT command and parameter lists).
//!
//! Basic parameter list, and that of REGISTER AND MOVE; reserved and obsolete bytes left out:
//!
//! | bytes | basic | REGISTER AND MOVE |
//! |---|---|---|
//! | 0–7 | RESERVATION KEY | RESERVATION KEY |
//! | 8–15 | SERVICE ACTION RESERVATION KEY | SERVICE ACTION RESERVATION KEY |
//! | 17 | | bit 1 UNREG, bit 0 APTPL |
//! | 18–19 | | RELATIVE TARGET PORT IDENTIFIER |
//! | 20 | bit 3 SPEC_I_PT, bit 2 ALL_TG_PT, bit 0 APTPL | |
//! | 20–23 | | TRANSPORTID LENGTH |
//! | 24–27 | with SPEC_I_PT: TRANSPORTID PARAMETER DATA LENGTH | TransportID |
//! | 28– | with SPEC_I_PT: TransportIDs, one after the other | |

use serde::{Deserialize, Serialize};
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Action, Cdb, Request};
use crate::pr::Type;
use crate::scsi::nexus::{ParseError, RelativeTargetPort, TransportId};
use crate::scsi::sense::{Field, Sense};

/// The longest parameter list that is looked at; a longer one is refused unread.
pub const PARAMETER_LIST_LENGTH_MAX: u32 = 28 + 64 * 1024;

/// The least TRANSPORTID LENGTH of REGISTER AND MOVE.
const TRANSPORT_ID_LENGTH_MIN: usize = 24;

/// The 24 bytes with which every parameter list begins, as most service actions see them.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Basic {
    reservation_key: U64,
    service_action_key: U64,
    obsolete: [u8; 4],
    flags: u8,
    reserved: [u8; 3],
}

/// The same 24 bytes as REGISTER AND MOVE sees them.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Move {
    reservation_key: U64,
    service_action_key: U64,
    reserved: u8,
    flags: u8,
    relative_target_port: U16,
    transport_id_length: U32,
}

const SPEC_I_PT: u8 = 1 << 3;
const ALL_TG_PT: u8 = 1 << 2;
const UNREG: u8 = 1 << 1;
const APTPL: u8 = 1;

/// A TransportID that SPEC_I_PT brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The initiator port.
    pub initiator_port: TransportId,
    /// Where in the parameter list it stands, for the field pointer.
    pub offset: u32,
}

impl Listed {
    /// INVALID FIELD IN PARAMETER LIST at this TransportID.
    pub(super) fn refused(&self) -> Sense {
        refused_at(self.offset as usize)
    }
}

/// The I_T nexus that REGISTER AND MOVE names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub relative_target_port: RelativeTargetPort,
    /// TransportID, or what is wrong with it.
    pub initiator_port: Result<TransportId, Sense>,
}

impl Request {
    /// Reads the fields of the CDB and the parameter list, of which `list` was transferred.
    ///
    /// # Errors
    /// INVALID FIELD IN CDB for an unknown service action, PARAMETER LIST LENGTH ERROR for a list that is too
    /// short, too long, or not wholly transferred. Everything else that is wrong is kept in the request.
    pub fn parse(cdb: Cdb, list: &[u8]) -> Result<Request, Sense> {
        let Cdb {
            service_action,
            scope_type,
            parameter_list_length,
        } = cdb;
        if service_action > 0x07 {
            return Err(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4)));
        }
        let wrong_length = Sense::parameter_list_length_error();
        if parameter_list_length > PARAMETER_LIST_LENGTH_MAX {
            return Err(wrong_length);
        }
        let length = usize::try_from(parameter_list_length).map_err(|_| wrong_length)?;
        let list = list.get(..length).ok_or(wrong_length)?;
        if service_action == 0x07 {
            return parse_move(list);
        }
        let (basic, rest) = Basic::ref_from_prefix(list).map_err(|_| wrong_length)?;
        let spec_i_pt = basic.flags & SPEC_I_PT != 0;
        let all_tg_pt = basic.flags & ALL_TG_PT != 0;
        let aptpl = basic.flags & APTPL != 0;
        let takes_more = service_action == 0x00 && spec_i_pt;
        if !takes_more && !rest.is_empty() {
            return Err(wrong_length);
        }
        let action = match service_action {
            0x00 => Action::Register {
                listed: spec_i_pt.then(|| parse_listed(list)),
                all_tg_pt,
                aptpl,
            },
            0x01 => Action::Reserve {
                kind: parse_scope_type(scope_type),
            },
            0x02 => Action::Release {
                kind: parse_scope(scope_type),
            },
            0x03 => Action::Clear,
            0x04 => Action::Preempt {
                kind: parse_scope_type(scope_type),
            },
            0x05 => Action::PreemptAndAbort {
                kind: parse_scope_type(scope_type),
            },
            _ => Action::RegisterAndIgnoreExistingKey { all_tg_pt, aptpl },
        };
        Ok(Request {
            reservation_key: basic.reservation_key.get(),
            service_action_key: basic.service_action_key.get(),
            misplaced_spec_i_pt: spec_i_pt && service_action != 0x00,
            action,
        })
    }
}

/// CDB byte 2: SCOPE must be LU_SCOPE. Yields TYPE, whatever it is.
fn parse_scope(scope_type: u8) -> Result<u8, Sense> {
    match scope_type >> 4 {
        0x0 => Ok(scope_type & 0x0f),
        _ => Err(Sense::invalid_field_in_cdb(Field::cdb_bit(2, 7))),
    }
}

/// CDB byte 2: SCOPE must be LU_SCOPE, and TYPE must exist.
fn parse_scope_type(scope_type: u8) -> Result<Type, Sense> {
    let code = parse_scope(scope_type)?;
    Type::parse(code).ok_or(Sense::invalid_field_in_cdb(Field::cdb_bit(2, 3)))
}

fn parse_move(list: &[u8]) -> Result<Request, Sense> {
    let (head, rest) =
        Move::ref_from_prefix(list).map_err(|_| Sense::parameter_list_length_error())?;
    Ok(Request {
        reservation_key: head.reservation_key.get(),
        service_action_key: head.service_action_key.get(),
        misplaced_spec_i_pt: false,
        action: Action::RegisterAndMove {
            unreg: head.flags & UNREG != 0,
            aptpl: head.flags & APTPL != 0,
            destination: parse_destination(head, rest),
        },
    })
}

/// The destination of REGISTER AND MOVE; `rest` begins at byte 24 of the parameter list.
fn parse_destination(head: &Move, rest: &[u8]) -> Result<Destination, Sense> {
    let length = head.transport_id_length.get() as usize;
    if rest.len() < TRANSPORT_ID_LENGTH_MIN || length < TRANSPORT_ID_LENGTH_MIN || length % 4 != 0 {
        return Err(refused_at(20));
    }
    let bytes = rest
        .get(..length)
        .ok_or(Sense::parameter_list_length_error())?;
    let initiator_port = match TransportId::parse(bytes) {
        Ok((id, used)) if used == length => Ok(id),
        _ => Err(refused_at(24)),
    };
    Ok(Destination {
        relative_target_port: RelativeTargetPort(head.relative_target_port.get()),
        initiator_port,
    })
}

/// The TransportIDs that SPEC_I_PT brings, from the whole parameter list. What follows them is ignored.
fn parse_listed(list: &[u8]) -> Result<Vec<Listed>, Sense> {
    let wrong_length = Sense::parameter_list_length_error();
    let (_, rest) = list.split_at_checked(24).ok_or(wrong_length)?;
    let (data_length, rest) = U32::ref_from_prefix(rest).map_err(|_| wrong_length)?;
    let mut bytes = rest.get(..data_length.get() as usize).ok_or(wrong_length)?;
    let mut listed = Vec::new();
    let mut offset = 28;
    while !bytes.is_empty() {
        let (initiator_port, used) = TransportId::parse(bytes).map_err(|error| match error {
            ParseError::Truncated => refused_at(24),
            _ => refused_at(offset),
        })?;
        let at = u32::try_from(offset).map_err(|_| wrong_length)?;
        listed.push(Listed {
            initiator_port,
            offset: at,
        });
        bytes = &bytes[used..];
        offset += used;
    }
    Ok(listed)
}

/// INVALID FIELD IN PARAMETER LIST at this byte. A field pointer has 16 bits; what lies beyond their reach is
/// in the TransportID list, whose length is at byte 24.
fn refused_at(byte: usize) -> Sense {
    Sense::invalid_field_in_parameter_list(Field::parameter(u16::try_from(byte).unwrap_or(24)))
}
