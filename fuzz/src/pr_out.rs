//! PERSISTENT RESERVE OUT: any command, from any I_T nexus, in any state.
//!
//! The input is a state, a CDB and what was transferred of the parameter list:
//!
//! | bytes | meaning |
//! |---|---|
//! | 0–6 | bits 1–0: the reservation key of each nexus of the world; 0 is not registered |
//! | 7 | modulo 7: no reservation, or one of the six types |
//! | 8 | which registrant holds it, if one does |
//! | 9 | which nexus sends the command |
//! | 10 | which nexuses are logged in: a bit for each |
//! | 11 | flags: `APTPL` and those after it |
//! | 12 | what reserved bits are compared with |
//! | 13–16 | PRGENERATION |
//! | 17–26 | CDB; its length field counts only with the flag `LENGTH` |
//! | 27– | parameter list |

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::json;
use tcmu_pr::pr::out::{self, Cdb, Context, RegistrationLimit};
use tcmu_pr::pr::{Change, Holder, Refusal, Registrant, Reservation, Reservations, Type};
use tcmu_pr::scsi::cdb::Command;
use tcmu_pr::scsi::commands;
use tcmu_pr::scsi::features::Features;
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};

mod rules;

/// APTPL is on.
const APTPL: u8 = 1 << 0;
/// `force_aptpl` of the context.
const FORCE_APTPL: u8 = 1 << 1;
/// `spec_i_pt_known_only` of the context.
const KNOWN_ONLY: u8 = 1 << 2;
/// The nexus that would be the issuer has the unit by RESERVE, and nobody is registered.
const RESERVED: u8 = 1 << 3;
/// So many others are registered that there is room for four of the world's seven nexuses.
/// Three bits, as it is slow, and shall be rare.
const CROWDED: u8 = 0xd0;
/// PARAMETER LIST LENGTH is what the CDB says, not how long the list is.
const LENGTH: u8 = 1 << 5;

/// How many can be registered.
const LIMIT: u16 = 128;
/// How many others are registered with `CROWDED`.
const CROWD: u64 = 124;

/// One command, and all that its outcome depends on.
#[derive(Debug)]
struct Case {
    before: Reservations,
    issuer: ItNexus,
    cdb: Cdb,
    /// What was transferred.
    list: Vec<u8>,
    context: Context,
}

/// Takes `data` for a state and a command.
pub fn run(data: &[u8]) {
    let Some((head, list)) = data.split_first_chunk::<27>() else {
        return;
    };
    let case = Case::parse(head, list);
    let answer = case.answer();
    case.check(&answer);
    case.check_whole_cdb(head, &answer);
    case.check_reserved_bits(head[12], &answer);
    case.check_other_lengths(head[12], &answer);
}

/// The nexuses of the world: an iSCSI host with three ways in, another with one, and two Fibre Channel ports,
/// of which the first has two.
static WORLD: LazyLock<[ItNexus; 7]> = LazyLock::new(|| {
    let [one, two, three, four] = ports();
    let iscsi = |name, isid, target_port| ItNexus {
        initiator_port: TransportId::iscsi(name, Some(isid)).expect("an iSCSI name"),
        target_port,
    };
    let fc = |name, target_port| ItNexus {
        initiator_port: TransportId::FibreChannel(name),
        target_port,
    };
    [
        iscsi("iqn.a", 1, one.clone()),
        iscsi("iqn.a", 1, two),
        iscsi("iqn.a", 2, one.clone()),
        iscsi("iqn.b", 1, one),
        fc(1, three.clone()),
        fc(1, four),
        fc(2, three),
    ]
});

fn ports() -> [TargetPort; 4] {
    let port = |protocol, name: &str| TargetPort {
        protocol,
        name: name.into(),
    };
    [
        port(Protocol::Iscsi, "iqn.t,t,0x0001"),
        port(Protocol::Iscsi, "iqn.t,t,0x0002"),
        port(Protocol::FibreChannel, "naa.1"),
        port(Protocol::FibreChannel, "naa.2"),
    ]
}

impl Case {
    fn parse(head: &[u8; 27], list: &[u8]) -> Case {
        let world = &*WORLD;
        let flag = |flag: u8| head[11] & flag == flag;
        let issuer = world[usize::from(head[9]) % world.len()].clone();
        let mut registrants: Vec<Registrant> = Vec::new();
        for (nexus, byte) in world.iter().zip(head) {
            let nexus = Arc::new(nexus.clone());
            let key = u64::from(byte & 3);
            registrants.extend((key != 0).then_some(Registrant { nexus, key }));
        }
        if flag(CROWDED) {
            registrants.extend((0..CROWD).map(|number| Registrant {
                nexus: Arc::new(ItNexus {
                    initiator_port: TransportId::FibreChannel(1_000 + number),
                    target_port: world[4].target_port.clone(),
                }),
                key: 3,
            }));
        }
        let spc2 = flag(RESERVED).then(|| Arc::new(issuer.clone()));
        if spc2.is_some() {
            registrants.clear();
        }
        let kind = usize::from(head[7] % 7).checked_sub(1);
        let kind = kind.filter(|_| !registrants.is_empty());
        let reservation = kind.map(|index| {
            let kind = Type::ALL[index];
            let holder = if kind.is_all_registrants() {
                Holder::AllRegistrants
            } else {
                let index = usize::from(head[8]) % registrants.len();
                Holder::Nexus(Arc::clone(&registrants[index].nexus))
            };
            Reservation { kind, holder }
        });
        let generation = u32::from_be_bytes([head[13], head[14], head[15], head[16]]);
        let before = json!({
            "registrants": registrants,
            "reservation": reservation,
            "generation": generation,
            "aptpl": flag(APTPL),
            "spc2": spc2,
        });
        let mut context = Context {
            registration_limit: RegistrationLimit::try_from(LIMIT)
                .expect("the least that can be set"),
            force_aptpl: flag(FORCE_APTPL),
            spec_i_pt_known_only: flag(KNOWN_ONLY),
            ..Context::default()
        };
        for port in ports() {
            context.ports.add(&port);
        }
        let logged_in = |index: &usize| head[10] & (1 << index) != 0;
        let logged_in = (0..world.len()).filter(logged_in);
        context.nexuses = logged_in.map(|index| world[index].clone()).collect();
        let length = u32::from_be_bytes([head[22], head[23], head[24], head[25]]);
        let transferred = u32::try_from(list.len()).unwrap_or(u32::MAX);
        Case {
            before: serde_json::from_value(before).expect("a state that can be"),
            issuer,
            cdb: Cdb {
                service_action: head[18] & 0x1f,
                scope_type: head[19],
                parameter_list_length: if flag(LENGTH) { length } else { transferred },
            },
            list: list.to_vec(),
            context,
        }
    }

    fn answer(&self) -> Result<Change, Refusal> {
        self.answer_to(self.cdb, &self.list)
    }

    fn answer_to(&self, cdb: Cdb, list: &[u8]) -> Result<Change, Refusal> {
        out::answer(&self.before, &self.issuer, cdb, list, &self.context)
    }

    /// The command as the table of commands decodes it: SCOPE and TYPE where they do not matter, and
    /// reserved bits of the CDB, make no difference.
    fn check_whole_cdb(&self, head: &[u8; 27], answer: &Result<Change, Refusal>) {
        let mut bytes: [u8; 10] = *head.last_chunk().expect("10 of 27 bytes");
        bytes[0] = 0x5f;
        bytes[5..9].copy_from_slice(&self.cdb.parameter_list_length.to_be_bytes());
        // Without NACA, which is refused.
        bytes[9] &= !0x04;
        let Ok(row) = commands::find(&bytes, Features::ALL) else {
            assert!(self.cdb.service_action > 0x07);
            return;
        };
        let Ok(Command::PersistentReserveOut {
            service_action,
            scope_and_type,
            parameter_list_length,
        }) = row.decode(&bytes, Features::ALL)
        else {
            panic!("{bytes:02x?} is no PERSISTENT RESERVE OUT");
        };
        let cdb = Cdb {
            service_action,
            scope_type: scope_and_type,
            parameter_list_length,
        };
        assert_eq!(self.answer_to(cdb, &self.list), *answer);
    }

    /// Reserved and obsolete bits of the parameter list do not matter.
    fn check_reserved_bits(&self, noise: u8, answer: &Result<Change, Refusal>) {
        let mut list = self.list.clone();
        let Some(head) = list.first_chunk_mut::<24>() else {
            return;
        };
        let reserved: &[(usize, u8)] = if self.cdb.service_action == 0x07 {
            &[(16, 0xff), (17, 0xfc)]
        } else {
            &[
                (16, 0xff),
                (17, 0xff),
                (18, 0xff),
                (19, 0xff),
                (20, 0xf2),
                (21, 0xff),
                (22, 0xff),
                (23, 0xff),
            ]
        };
        for &(byte, mask) in reserved {
            head[byte] = (head[byte] & !mask) | (noise & mask);
        }
        assert_eq!(self.answer_to(self.cdb, &list), *answer);
    }

    /// What was transferred beyond PARAMETER LIST LENGTH does not matter, and a list that is cut short is
    /// refused.
    fn check_other_lengths(&self, noise: u8, answer: &Result<Change, Refusal>) {
        let Ok(length) = usize::try_from(self.cdb.parameter_list_length) else {
            return;
        };
        if length > self.list.len() {
            return;
        }
        let mut list = self.list[..length].to_vec();
        list.extend([noise; 5]);
        assert_eq!(self.answer_to(self.cdb, &list), *answer);
        if let Some(cut) = length.checked_sub(1 + usize::from(noise) % 32) {
            let cut = &self.list[..cut];
            let cut_short = self.early_refusal(cut);
            assert!(cut_short.is_some());
            assert_eq!(self.answer_to(self.cdb, cut).err(), cut_short);
        }
    }

    /// The nexuses of the world, and who else is registered before or after.
    fn concerned<'a>(&'a self, next: &'a Reservations) -> BTreeSet<&'a ItNexus> {
        let registrants = [&self.before, next].map(Reservations::registrants);
        let nexuses = registrants.into_iter().flat_map(|some| some.nexuses());
        nexuses.map(AsRef::as_ref).chain(&*WORLD).collect()
    }
}
