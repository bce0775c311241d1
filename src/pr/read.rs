//! PERSISTENT RESERVE IN: who is registered, who holds the reservation, what is supported (SPC-4 r37,
//! PERSISTENT RESERVE IN).
//!
//! Each answer is whole; the caller cuts it to ALLOCATION LENGTH. Its length fields say how long it is, not
//! how much of it was sent.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

use super::{Reservation, Reservations, Type};
use crate::scsi::nexus::TargetPorts;
use crate::scsi::sense::{Field, Sense};

/// What READ KEYS, READ RESERVATION and READ FULL STATUS begin with: 8 bytes.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    /// PRGENERATION: bytes 0–3.
    generation: U32,
    /// ADDITIONAL LENGTH: bytes 4–7.
    additional_length: U32,
}

/// The reservation in READ RESERVATION: 16 bytes, of which the first is byte 8 of the answer.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ReservationDescriptor {
    /// RESERVATION KEY of the holder, zero if all registrants are: bytes 8–15.
    key: U64,
    obsolete: [u8; 4],
    reserved: u8,
    /// SCOPE and TYPE: byte 21.
    scope_type: u8,
    obsolete2: [u8; 2],
}

/// The answer of REPORT CAPABILITIES: 8 bytes.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Capabilities {
    /// LENGTH, this field included: bytes 0–1.
    length: U16,
    /// Byte 2: bit 7 RLR_C, bit 4 CRH, bit 3 SIP_C, bit 2 ATP_C, bit 0 PTPL_C.
    capabilities: u8,
    /// Byte 3: bit 7 TMV, bits 6–4 ALLOW COMMANDS, bit 0 PTPL_A.
    state: u8,
    /// PERSISTENT RESERVATION TYPE MASK: bytes 4–5, one bit per type.
    types: [u8; 2],
    reserved: [u8; 2],
}

/// One registration in READ FULL STATUS: 24 bytes, and the TransportID of the initiator port.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct FullStatusDescriptor {
    /// RESERVATION KEY: bytes 0–7.
    key: U64,
    reserved: [u8; 4],
    /// Byte 12: bit 1 ALL_TG_PT, bit 0 R_HOLDER.
    flags: u8,
    /// SCOPE and TYPE if this is a holder, else zero: byte 13.
    scope_type: u8,
    reserved2: [u8; 4],
    /// RELATIVE TARGET PORT IDENTIFIER: bytes 18–19.
    relative_target_port: U16,
    /// ADDITIONAL DESCRIPTOR LENGTH, the length of the TransportID: bytes 20–23.
    additional_length: U32,
}

/// The whole answer to the PERSISTENT RESERVE IN with this `service_action` (CDB byte 1 bits 4–0).
///
/// # Errors
/// INVALID FIELD IN CDB for a service action that does not exist.
pub fn answer(
    service_action: u8,
    state: &Reservations,
    ports: &TargetPorts,
) -> Result<Vec<u8>, Sense> {
    match service_action {
        0x00 => Ok(keys(state)),
        0x01 => Ok(reservation(state)),
        0x02 => Ok(capabilities(state)),
        0x03 => Ok(full_status(state, ports)),
        _ => Err(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4))),
    }
}

/// READ KEYS (00h): a header and every registrant's key, in the order of registration.
pub fn keys(state: &Reservations) -> Vec<u8> {
    let registrants = state.registrants.iter();
    let keys = registrants.flat_map(|registrant| registrant.key.to_be_bytes());
    with_header(state, &keys.collect::<Vec<u8>>())
}

/// READ RESERVATION (01h): a header and the reservation, if there is one.
pub fn reservation(state: &Reservations) -> Vec<u8> {
    let Some(held) = &state.reservation else {
        return with_header(state, &[]);
    };
    let holder = held.single_holder();
    let key = holder.and_then(|holder| state.registrants.key(holder));
    let descriptor = ReservationDescriptor {
        key: key.unwrap_or(0).into(),
        obsolete: [0; 4],
        reserved: 0,
        scope_type: scope_type(held),
        obsolete2: [0; 2],
    };
    with_header(state, descriptor.as_bytes())
}

/// REPORT CAPABILITIES (02h): 8 bytes.
pub fn capabilities(state: &Reservations) -> Vec<u8> {
    const CRH: u8 = 1 << 4;
    const SIP_C: u8 = 1 << 3;
    const ATP_C: u8 = 1 << 2;
    const PTPL_C: u8 = 1;
    const TMV: u8 = 1 << 7;
    // TEST UNIT READY passes every type; MODE SENSE, READ BUFFER, REPORT SUPPORTED OPERATION CODES, READ
    // DEFECT DATA and their like pass the write exclusive ones.
    const ALLOW_COMMANDS: u8 = 0b100 << 4;
    let types = Type::ALL
        .iter()
        .fold(0_u16, |mask, kind| mask | (1 << kind.code()));
    // Byte 4 holds types 0 to 7, byte 5 those from 8.
    let types = types.to_le_bytes();
    let capabilities = Capabilities {
        length: 8.into(),
        capabilities: CRH | SIP_C | ATP_C | PTPL_C,
        state: TMV | ALLOW_COMMANDS | u8::from(state.aptpl),
        types,
        reserved: [0; 2],
    };
    capabilities.as_bytes().to_vec()
}

/// READ FULL STATUS (03h): a header and a descriptor for every registration, in the order of registration.
///
/// Each I_T nexus has its own descriptor, so ALL_TG_PT is always zero. A registration through a target port
/// that the unit no longer has is reported with the relative target port identifier zero, which no port has.
pub fn full_status(state: &Reservations, ports: &TargetPorts) -> Vec<u8> {
    let mut descriptors = Vec::new();
    for registrant in state.registrants.iter() {
        let transport_id = registrant.nexus.initiator_port.encode();
        let held = state.reservation.as_ref();
        let held = held.filter(|_| state.is_holder(&registrant.nexus));
        let relative = ports.relative(&registrant.nexus.target_port);
        let descriptor = FullStatusDescriptor {
            key: registrant.key.into(),
            reserved: [0; 4],
            flags: u8::from(held.is_some()),
            scope_type: held.map_or(0, scope_type),
            reserved2: [0; 4],
            relative_target_port: relative.map_or(0, |relative| relative.0).into(),
            additional_length: length(&transport_id),
        };
        descriptors.extend_from_slice(descriptor.as_bytes());
        descriptors.extend_from_slice(&transport_id);
    }
    with_header(state, &descriptors)
}

/// Byte 21 of READ RESERVATION, byte 13 of a full status descriptor: LU_SCOPE is zero.
fn scope_type(held: &Reservation) -> u8 {
    held.kind.code()
}

fn with_header(state: &Reservations, rest: &[u8]) -> Vec<u8> {
    let header = Header {
        generation: state.generation.into(),
        additional_length: length(rest),
    };
    [header.as_bytes(), rest].concat()
}

fn length(bytes: &[u8]) -> U32 {
    let length = u32::try_from(bytes.len());
    length
        .expect("8,190 registrations of at most 272 bytes")
        .into()
}

#[cfg(test)]
mod tests;
