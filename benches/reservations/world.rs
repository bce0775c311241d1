//! Initiators, and a logical unit with as many of them as is wanted.

use std::sync::Arc;

use tcmu_pr::lu::task::{Answer, NexusId, Tag, Task};
use tcmu_pr::lu::{LogicalUnit, Mapping, Setup, Step, UnitState};
use tcmu_pr::pr::Reservations;
use tcmu_pr::pr::out::{self, Cdb, Context, RegistrationLimit};
use tcmu_pr::scsi::capacity::Geometry;
use tcmu_pr::scsi::inquiry::Identity;
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};
use tcmu_pr::scsi::provisioning::Provisioning;
use tcmu_pr::sys::region::{Data, Region, Segment};

/// As many registrants as there can be.
pub(crate) const MOST: usize = 8_190;

pub(crate) const REGISTER: u8 = 0x00;
pub(crate) const RESERVE: u8 = 0x01;
pub(crate) const CLEAR: u8 = 0x03;
pub(crate) const PREEMPT: u8 = 0x04;
pub(crate) const REGISTER_AND_IGNORE: u8 = 0x06;

/// TYPE of write exclusive, registrants only.
const REGISTRANTS_ONLY: u8 = 5;
/// The least that a PERSISTENT RESERVE OUT parameter list has.
const LIST_LENGTH: usize = 24;

pub(crate) fn name(number: usize) -> String {
    format!("iqn.2026-11.com.example:node-{number:04}")
}

pub(crate) fn nexus(number: usize) -> ItNexus {
    let isid = 0x0002_3d00_0000 + number as u64;
    ItNexus {
        initiator_port: TransportId::iscsi(&name(number), Some(isid)).unwrap(),
        target_port: TargetPort {
            protocol: Protocol::Iscsi,
            name: "iqn.2026-11.com.example:target,t,0x0001".into(),
        },
    }
}

/// The key of an initiator that has one for itself.
pub(crate) fn key(number: usize) -> u64 {
    0xa000_0000 + number as u64
}

/// A parameter list without TransportIDs.
pub(crate) fn list(keys: [u64; 2]) -> Vec<u8> {
    let mut list = vec![0; LIST_LENGTH];
    list[..8].copy_from_slice(&keys[0].to_be_bytes());
    list[8..16].copy_from_slice(&keys[1].to_be_bytes());
    list
}

pub(crate) fn context() -> Context {
    Context {
        registration_limit: RegistrationLimit::try_from(8_190).unwrap(),
        ..Context::default()
    }
}

/// What the reservations are after a command that ends with GOOD.
pub(crate) fn after(state: &Reservations, issuer: usize, action: u8, list: &[u8]) -> Reservations {
    let cdb = Cdb {
        service_action: action,
        scope_type: REGISTRANTS_ONLY,
        parameter_list_length: u32::try_from(list.len()).unwrap(),
    };
    out::answer(state, &nexus(issuer), cdb, list, &context())
        .unwrap()
        .next
}

/// So many registrants, each under the key that `key` gives it.
pub(crate) fn registered(count: usize, key: impl Fn(usize) -> u64) -> Reservations {
    (0..count).fold(Reservations::default(), |state, number| {
        after(&state, number, REGISTER, &list([0, key(number)]))
    })
}

/// So many registrants, the first of which holds write exclusive, registrants only.
pub(crate) fn reserved(count: usize, key: impl Fn(usize) -> u64) -> Reservations {
    let state = registered(count, &key);
    after(&state, 0, RESERVE, &list([key(0), 0]))
}

pub(crate) fn setup(reservations: Reservations) -> Setup {
    Setup {
        identity: Identity::new("serial"),
        geometry: Geometry::new(512, 1 << 20, 0).unwrap(),
        provisioning: Provisioning::Full,
        reservations: Ok(reservations),
        attentions: Vec::new(),
        power_on: false,
        write_back: true,
        state: UnitState::default(),
        context: context(),
    }
}

/// A logical unit, whose changes count as stored at once.
pub(crate) struct Unit {
    unit: LogicalUnit,
    region: Arc<Region>,
    ids: Vec<NexusId>,
}

impl Unit {
    /// A unit with so many initiators attached.
    pub(crate) fn new(reservations: Reservations, attached: usize) -> Unit {
        let mut unit = LogicalUnit::new(setup(reservations));
        let ids = (0..attached)
            .map(|number| unit.attach(Some(nexus(number)), Mapping::ReadWrite))
            .collect();
        Unit {
            unit,
            region: Arc::new(Region::anonymous(1 << 16).unwrap()),
            ids,
        }
    }

    pub(crate) fn registrants(&self) -> usize {
        self.unit.reservations().registrants().len()
    }

    /// PERSISTENT RESERVE OUT, from the entry of the ring to the answer, and GOOD is its answer.
    pub(crate) fn reserve_out(&mut self, from: usize, action: u8, list: &[u8]) {
        let mut cdb = [0; 32];
        cdb[..3].copy_from_slice(&[0x5f, action, REGISTRANTS_ONLY]);
        cdb[5..9].copy_from_slice(&u32::try_from(list.len()).unwrap().to_be_bytes());
        self.region.copy_in(0, list).unwrap();
        assert_eq!(self.command(from, cdb, list.len() as u64), 0x00, "GOOD");
    }

    /// Takes the unit attentions of an initiator.
    pub(crate) fn take_attentions(&mut self, from: usize) {
        while self.command(from, [0; 32], 0) != 0x00 {}
    }

    fn command(&mut self, from: usize, cdb: [u8; 32], length: u64) -> u8 {
        let segments = vec![Segment { offset: 0, length }];
        let data = Data::new(&self.region, segments, 0..1 << 16).unwrap();
        let tag = Tag {
            port: 0,
            command: 1,
            epoch: 0,
        };
        let step = self.unit.begin(Task::new(tag, self.ids[from], cdb, data));
        let answer = match step {
            Step::Store(_) => answered(self.unit.stored(true)),
            step => answered(step),
        };
        answer.deliver(self.unit.sense_format()).0.status
    }
}

fn answered(step: Step) -> Answer {
    match step {
        Step::Answer(answer) => answer,
        step => panic!("nothing is in flight: {step:?}"),
    }
}
