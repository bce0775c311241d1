//! The engine's answers in terms of the model.

use std::collections::HashMap;

use tcmu_pr::pr::out::{Cdb, Context};
use tcmu_pr::pr::{Change, Refusal, Reservations, Save, read};
use tcmu_pr::scsi::Access;
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};
use tcmu_pr::scsi::sense::Format;

use crate::rules::{Answer, Command, Effects, State, World};

fn transport_id(host: u8) -> TransportId {
    TransportId::FibreChannel(u64::from(host))
}

fn target_port(port: u8) -> TargetPort {
    TargetPort {
        protocol: Protocol::FibreChannel,
        name: format!("p{port}").into(),
    }
}

pub(crate) struct Engine {
    pub(crate) nexuses: Vec<ItNexus>,
    numbers: HashMap<ItNexus, usize>,
    pub(crate) context: Context,
}

impl Engine {
    pub(crate) fn new(world: &World) -> Engine {
        let nexus = |&(host, port): &(u8, u8)| ItNexus {
            initiator_port: transport_id(host),
            target_port: target_port(port),
        };
        let nexuses: Vec<ItNexus> = world.nexuses.iter().map(nexus).collect();
        let mut context = Context::default();
        for port in 1..=world.ports() {
            context.ports.add(&target_port(port));
        }
        let numbers = nexuses.iter().cloned().zip(0..).collect();
        Engine {
            nexuses,
            numbers,
            context,
        }
    }

    fn number(&self, nexus: &ItNexus) -> usize {
        self.numbers[nexus]
    }

    pub(crate) fn state(&self, state: &Reservations) -> State {
        let registered = state.registrants().iter();
        let key = |key: u64| u8::try_from(key).expect("small keys");
        State {
            registered: registered
                .map(|one| (self.number(&one.nexus), key(one.key)))
                .collect(),
            held: state.reservation().map(|held| {
                (
                    held.kind.code(),
                    held.single_holder().map(|holder| self.number(holder)),
                )
            }),
            aptpl: state.aptpl(),
            spc2: state.spc2().map(|holder| self.number(holder)),
        }
    }

    pub(crate) fn answer(&self, before: &Reservations, answer: &Result<Change, Refusal>) -> Answer {
        let change = match answer {
            Ok(change) => change,
            Err(Refusal::Conflict) => return Answer::Conflict,
            Err(Refusal::Check(sense)) => {
                let (bytes, _) = sense.encode(Format::Fixed);
                let pointer = [bytes[15], bytes[16], bytes[17]];
                return Answer::Check(bytes[2], bytes[12], bytes[13], pointer);
            }
        };
        change.next.check().expect("the invariants hold");
        let mut told = Vec::new();
        for (nexus, sense) in &change.attentions {
            assert_eq!(sense.additional().0, 0x2a);
            told.push((self.number(nexus), sense.additional().1));
        }
        Answer::Good(Effects {
            next: self.state(&change.next),
            counted: change.next.generation().wrapping_sub(before.generation()),
            told,
            aborted: change
                .abort
                .iter()
                .map(|nexus| self.number(nexus))
                .collect(),
            save: match change.save {
                Save::Nothing => 0,
                Save::Runtime => 1,
                Save::Durable => 2,
            },
        })
    }

    /// PERSISTENT RESERVE IN and the gate, in one state.
    pub(crate) fn compare_views(&self, model: &State, state: &Reservations) {
        let keys: Vec<u8> = model
            .registered
            .iter()
            .flat_map(|entry| u64::from(entry.1).to_be_bytes())
            .collect();
        assert_eq!(read::keys(state)[8..], keys);
        let reservation = read::reservation(state);
        match model.held {
            None => assert_eq!((reservation.len(), reservation[7]), (8, 0)),
            Some((kind, holder)) => {
                assert_eq!((reservation.len(), reservation[7]), (24, 16));
                let key = holder.and_then(|holder| model.key(holder)).unwrap_or(0);
                assert_eq!((reservation[15], reservation[21]), (key, kind));
            }
        }
        let full = read::full_status(state, &self.context.ports);
        let length = 48 * model.registered.len();
        assert_eq!(full.len(), 8 + length);
        assert_eq!(
            full[4..8],
            u32::try_from(length).expect("few").to_be_bytes()
        );
        assert_eq!(full[..4], state.generation().to_be_bytes());
        for (descriptor, &(nexus, key)) in full[8..].chunks(48).zip(&model.registered) {
            let holds = model.holds(nexus);
            let kind = model.held.filter(|_| holds).map_or(0, |held| held.0);
            assert_eq!(descriptor[7], key);
            assert_eq!(descriptor[12..14], [u8::from(holds), kind]);
            let port = self
                .context
                .ports
                .relative(&self.nexuses[nexus].target_port);
            let port = port.expect("the port is one of the unit's").0;
            assert_eq!(descriptor[18..20], port.to_be_bytes());
            assert_eq!(descriptor[20..24], [0, 0, 0, 24]);
            assert_eq!(
                descriptor[24..],
                self.nexuses[nexus].initiator_port.encode()
            );
        }
        for access in Access::ALL {
            for (number, nexus) in self.nexuses.iter().enumerate() {
                let expected = model.allows(Some(number), access);
                assert_eq!(
                    state.allowed(Some(nexus)).contains(access),
                    expected,
                    "{model:?}"
                );
            }
            let expected = model.allows(None, access);
            assert_eq!(state.allowed(None).contains(access), expected, "{model:?}");
        }
    }
}

/// The bytes of a command.
pub(crate) fn bytes(command: &Command) -> (Cdb, Vec<u8>) {
    let mut list = vec![0; 24];
    list[7] = command.key;
    list[15] = command.new_key;
    if command.service_action == 0x07 {
        let id = transport_id(command.host).encode();
        list[17] = (u8::from(command.unreg) << 1) | u8::from(command.aptpl);
        list[18..20].copy_from_slice(&command.port.to_be_bytes());
        list[23] = 24;
        list.extend(id);
    } else {
        list[20] = (u8::from(command.spec_i_pt) << 3)
            | (u8::from(command.all_tg_pt) << 2)
            | u8::from(command.aptpl);
    }
    if command.spec_i_pt && command.service_action == 0x00 {
        let ids: Vec<u8> = match &command.listed {
            Some(hosts) => hosts
                .iter()
                .flat_map(|&host| transport_id(host).encode())
                .collect(),
            None => vec![0xff; 24],
        };
        list.extend(u32::try_from(ids.len()).expect("short").to_be_bytes());
        list.extend(ids);
    }
    let length = u32::try_from(list.len()).expect("short");
    let cdb = Cdb {
        service_action: command.service_action,
        scope_type: command.scope_type,
        parameter_list_length: command.length.unwrap_or(length),
    };
    list.resize(128, 0);
    (cdb, list)
}
