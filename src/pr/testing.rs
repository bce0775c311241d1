//! What the tests of this module share: hosts, ports, commands, and a logical unit to send them to.
//!
//! Three hosts at target port 1: A, B and C. A2 is host A at target port 2.

use std::sync::Arc;

use super::out::{Cdb, Context, answer};
use super::{Change, Refusal, Reservations, Type};
use crate::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};
use crate::scsi::sense::{Field, Sense};

pub(super) const KEY_A: u64 = 0xa1;
pub(super) const KEY_B: u64 = 0xb2;
pub(super) const KEY_C: u64 = 0xc3;

pub(super) fn port(number: u16) -> TargetPort {
    TargetPort {
        protocol: Protocol::Iscsi,
        name: format!("iqn.2026-11.example:target,t,0x{number:04x}").into(),
    }
}

pub(super) fn host(name: &str) -> TransportId {
    let name = format!("iqn.2026-11.example:{name}");
    TransportId::iscsi(&name, Some(0x0002_3d00_0001)).expect("an iSCSI name")
}

pub(super) fn nexus(host_name: &str, port_number: u16) -> ItNexus {
    ItNexus {
        initiator_port: host(host_name),
        target_port: port(port_number),
    }
}

pub(super) fn a() -> ItNexus {
    nexus("a", 1)
}

pub(super) fn a2() -> ItNexus {
    nexus("a", 2)
}

pub(super) fn b() -> ItNexus {
    nexus("b", 1)
}

pub(super) fn c() -> ItNexus {
    nexus("c", 1)
}

/// A PERSISTENT RESERVE OUT command, byte for byte.
#[derive(Clone, Debug)]
pub(super) struct Out {
    pub(super) service_action: u8,
    pub(super) scope_type: u8,
    /// PARAMETER LIST LENGTH where it is not the length of `list`.
    pub(super) length: Option<u32>,
    pub(super) list: Vec<u8>,
}

impl Out {
    pub(super) fn new(service_action: u8, key: u64, service_action_key: u64) -> Out {
        let mut list = Vec::from(key.to_be_bytes());
        list.extend(service_action_key.to_be_bytes());
        list.extend([0; 8]);
        Out {
            service_action,
            scope_type: 0,
            length: None,
            list,
        }
    }

    /// REGISTER AND MOVE to `id` at relative target port `relative`.
    pub(super) fn movement(key: u64, new_key: u64, relative: u16, id: &TransportId) -> Out {
        let mut out = Out::new(0x07, key, new_key);
        let id = id.encode();
        out.list[18..20].copy_from_slice(&relative.to_be_bytes());
        out.list[20..24].copy_from_slice(&u32::try_from(id.len()).expect("short").to_be_bytes());
        out.list.extend(id);
        out
    }

    pub(super) fn kind(self, kind: Type) -> Out {
        self.scope_type(kind.code())
    }

    pub(super) fn scope_type(self, scope_type: u8) -> Out {
        Out { scope_type, ..self }
    }

    pub(super) fn length(self, length: u32) -> Out {
        Out {
            length: Some(length),
            ..self
        }
    }

    /// Sets bits of a byte of the list.
    pub(super) fn set(mut self, byte: usize, bits: u8) -> Out {
        self.list[byte] |= bits;
        self
    }

    pub(super) fn spec_i_pt(self) -> Out {
        self.set(20, 0x08)
    }

    pub(super) fn all_tg_pt(self) -> Out {
        self.set(20, 0x04)
    }

    pub(super) fn aptpl(self) -> Out {
        let byte = if self.service_action == 0x07 { 17 } else { 20 };
        self.set(byte, 0x01)
    }

    pub(super) fn unreg(self) -> Out {
        self.set(17, 0x02)
    }

    /// SPEC_I_PT, and these bytes as the TransportIDs.
    pub(super) fn bytes_listed(self, ids: &[u8]) -> Out {
        let mut out = self.spec_i_pt();
        out.list
            .extend(u32::try_from(ids.len()).expect("short").to_be_bytes());
        out.list.extend(ids);
        out
    }

    /// SPEC_I_PT and these TransportIDs.
    pub(super) fn listed(self, ids: &[TransportId]) -> Out {
        let ids: Vec<u8> = ids.iter().flat_map(TransportId::encode).collect();
        self.bytes_listed(&ids)
    }
}

pub(super) fn register(key: u64, new_key: u64) -> Out {
    Out::new(0x00, key, new_key)
}

pub(super) fn reserve(key: u64, kind: Type) -> Out {
    Out::new(0x01, key, 0).kind(kind)
}

pub(super) fn release(key: u64, kind: Type) -> Out {
    Out::new(0x02, key, 0).kind(kind)
}

pub(super) fn clear(key: u64) -> Out {
    Out::new(0x03, key, 0)
}

pub(super) fn preempt(key: u64, preempted: u64, kind: Type) -> Out {
    Out::new(0x04, key, preempted).kind(kind)
}

pub(super) fn preempt_and_abort(key: u64, preempted: u64, kind: Type) -> Out {
    Out::new(0x05, key, preempted).kind(kind)
}

pub(super) fn register_and_ignore(new_key: u64) -> Out {
    Out::new(0x06, 0, new_key)
}

/// The reservations of a logical unit with two target ports, and what happened to it last.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) state: Reservations,
    pub(super) context: Context,
}

impl Unit {
    pub(super) fn new() -> Unit {
        let mut context = Context::default();
        context.ports.add(&port(1));
        context.ports.add(&port(2));
        Unit {
            state: Reservations::default(),
            context,
        }
    }

    /// A, B and C registered under their keys; nothing reserved.
    pub(super) fn with_three() -> Unit {
        let mut unit = Unit::new();
        for (nexus, key) in [(a(), KEY_A), (b(), KEY_B), (c(), KEY_C)] {
            unit.good(&nexus, &register(0, key));
        }
        unit
    }

    /// A, B and C registered, and a reservation held by A, or by all of them.
    pub(super) fn reserved(kind: Type) -> Unit {
        let mut unit = Unit::with_three();
        unit.good(&a(), &reserve(KEY_A, kind));
        unit
    }

    /// Sends a command. What it changes is taken up; a refusal changes nothing.
    pub(super) fn send(&mut self, issuer: &ItNexus, out: &Out) -> Result<Change, Refusal> {
        let cdb = Cdb {
            service_action: out.service_action,
            scope_type: out.scope_type,
            parameter_list_length: out
                .length
                .unwrap_or(u32::try_from(out.list.len()).expect("short")),
        };
        let change = answer(&self.state, issuer, cdb, &out.list, &self.context)?;
        change.next.check().expect("invariants hold");
        assert!(
            change
                .attentions
                .iter()
                .all(|(nexus, _)| **nexus != *issuer)
        );
        self.state = change.next.clone();
        Ok(change)
    }

    /// Sends a command that ends with GOOD.
    pub(super) fn good(&mut self, issuer: &ItNexus, out: &Out) -> Change {
        self.send(issuer, out).expect("GOOD")
    }

    /// Sends a command that ends with RESERVATION CONFLICT.
    pub(super) fn conflict(&mut self, issuer: &ItNexus, out: &Out) {
        assert_eq!(self.send(issuer, out).err(), Some(Refusal::Conflict));
    }

    /// Sends a command that ends with CHECK CONDITION.
    pub(super) fn check(&mut self, issuer: &ItNexus, out: &Out, sense: Sense) {
        assert_eq!(self.send(issuer, out).err(), Some(Refusal::Check(sense)));
    }

    /// Who is registered under which key, in order.
    pub(super) fn registered(&self) -> Vec<(ItNexus, u64)> {
        let registrants = self.state.registrants().iter();
        registrants
            .map(|registrant| ((*registrant.nexus).clone(), registrant.key))
            .collect()
    }

    /// The type of the reservation, and its holder if it is one nexus.
    pub(super) fn reservation(&self) -> Option<(Type, Option<ItNexus>)> {
        let held = self.state.reservation()?;
        Some((held.kind, held.single_holder().cloned()))
    }
}

/// Unit attentions as they stand in a [`Change`].
pub(super) fn told(
    nexuses: impl IntoIterator<Item = ItNexus>,
    sense: Sense,
) -> Vec<(Arc<ItNexus>, Sense)> {
    nexuses
        .into_iter()
        .map(|nexus| (Arc::new(nexus), sense))
        .collect()
}

/// INVALID FIELD IN PARAMETER LIST at this byte.
pub(super) fn bad_byte(byte: u16) -> Sense {
    Sense::invalid_field_in_parameter_list(Field::parameter(byte))
}

/// INVALID FIELD IN CDB at this bit.
pub(super) fn bad_cdb(byte: u16, bit: u8) -> Sense {
    Sense::invalid_field_in_cdb(Field::cdb_bit(byte, bit))
}
