//! The whole logical unit, with its blocks in memory: any commands, from several I_T nexuses, with any data.
//!
//! The input is one command after the other, each with what happens before it:
//!
//! | bytes | meaning |
//! |---|---|
//! | 0 | bits 1–0: which nexus sends it; then flags: [`DEFER`] and those after it |
//! | 1 | length of the data buffer in units of 8 bytes |
//! | 2–17 | CDB |
//! | 18– | what the data buffer holds, as far as the input goes; the rest is zero |
//!
//! Whatever they are: nothing panics, every command is answered once, and nothing is left when nothing is in flight.

#[path = "../../tests/sim/memory.rs"]
#[allow(dead_code, reason = "others use all of it")]
mod memory;

use std::sync::Arc;

use memory::Memory;
use tcmu_pr::lu::task::{Answer, NexusId, Pending, Tag, Task};
use tcmu_pr::lu::{FENCE_PATIENCE, LogicalUnit, Mapping, Setup, Step, UnitState};
use tcmu_pr::pr::Reservations;
use tcmu_pr::pr::out::Context;
use tcmu_pr::scsi::capacity::Geometry;
use tcmu_pr::scsi::inquiry::Identity;
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};
use tcmu_pr::scsi::provisioning::Provisioning;
use tcmu_pr::scsi::sense::Format;
use tcmu_pr::store::{Request, perform};
use tcmu_pr::sys::region::{Data, Region, Segment};

/// What is with the store stays there; otherwise it is done before the command comes.
const DEFER: u8 = 1 << 2;
/// What is to be stored from here on can't be.
const FAIL: u8 = 1 << 3;
/// LOGICAL UNIT RESET comes before.
const RESET: u8 = 1 << 4;
/// ABORT TASK of all that this nexus has sent comes before.
const ABORT: u8 = 1 << 5;
/// A flush fails from here on.
const FLUSH_FAILS: u8 = 1 << 6;

const HEADER: usize = 18;
/// Blocks of the unit, of 512 bytes.
const BLOCKS: u64 = 256;
const NEXUSES: u64 = 4;

struct Case {
    unit: LogicalUnit,
    nexuses: Vec<NexusId>,
    memory: Memory,
    /// What is with the store.
    in_flight: Vec<(Request, Pending)>,
    storing_fails: bool,
    asked: usize,
    answered: usize,
}

/// Runs the commands of an input.
pub fn run(input: &[u8]) {
    let mut case = Case::new();
    let mut rest = input;
    while let Some((header, after)) = rest.split_at_checked(HEADER) {
        let length = usize::from(header[1]) * 8;
        let (content, after) = after.split_at(length.min(after.len()));
        rest = after;
        case.command(header, length, content);
    }
    case.end();
}

impl Case {
    fn new() -> Case {
        let mut unit = LogicalUnit::new(Setup {
            identity: Identity::new("serial"),
            geometry: Geometry::new(512, BLOCKS, 0).expect("it is a small disk"),
            provisioning: Provisioning::Thin {
                zeroes: true,
                granularity: 4096,
                alignment: 0,
                figures: true,
                soft_threshold: Some(1 << 29),
            },
            reservations: Ok(Reservations::default()),
            attentions: Vec::new(),
            power_on: false,
            write_back: true,
            state: UnitState::default(),
            context: Context::default(),
        });
        let nexus = |number| ItNexus {
            initiator_port: TransportId::Sas(0x3000_0000_0000_0001 + number),
            target_port: TargetPort {
                protocol: Protocol::Sas,
                name: "naa.1".into(),
            },
        };
        let nexuses = (0..NEXUSES).map(|number| {
            let mapping = Mapping::new(number == 3);
            unit.attach(Some(nexus(number)), mapping)
        });
        Case {
            nexuses: nexuses.collect(),
            unit,
            memory: Memory::new(usize::try_from(BLOCKS * 512).expect("it is small"), 0x5a),
            in_flight: Vec::new(),
            storing_fails: false,
            asked: 0,
            answered: 0,
        }
    }

    fn command(&mut self, header: &[u8], length: usize, content: &[u8]) {
        let (flags, nexus) = (header[0], usize::from(header[0] & 0x03));
        self.storing_fails |= flags & FAIL != 0;
        if flags & FLUSH_FAILS != 0 {
            self.memory.fail_flushes();
        }
        if flags & RESET != 0 {
            let told = self.nexuses[nexus];
            self.unit.reset(&[told]);
        }
        if flags & ABORT != 0 {
            self.unit.abort_task(|tag| tag.port == nexus);
        }
        if flags & DEFER == 0 {
            self.work();
        }
        let region = Region::anonymous(length.max(4096)).expect("there is memory");
        let segment = Segment {
            offset: 0,
            length: length as u64,
        };
        let within = 0..region.len();
        let data = Data::new(&Arc::new(region), vec![segment], within).expect("it lies within");
        data.write_at(0, content);
        let mut cdb = [0; 32];
        cdb[..16].copy_from_slice(&header[2..HEADER]);
        let tag = Tag {
            port: nexus,
            command: u16::try_from(self.asked % 0x1_0000).expect("it has 16 bits"),
            epoch: 0,
        };
        self.asked += 1;
        let step = self
            .unit
            .begin(Task::new(tag, self.nexuses[nexus], cdb, data));
        self.step(step);
        self.go_on();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Answer(answer) => self.answer(answer),
            Step::Io(request, pending) => self.in_flight.push((request, pending)),
            Step::Store(_) => {
                let step = self.unit.stored(!self.storing_fails);
                self.step(step);
            }
            Step::Held => {}
            other => panic!("nobody has asked for {other:?}"),
        }
    }

    fn answer(&mut self, answer: Answer) {
        answer.deliver(Format::Fixed);
        self.answered += 1;
        assert!(self.answered <= self.asked, "one was answered twice");
    }

    fn go_on(&mut self) {
        while let Some(step) = self.unit.next_step() {
            self.step(step);
        }
    }

    /// Does what is with the store, the last first, and what follows from it.
    fn work(&mut self) {
        while let Some((request, pending)) = self.in_flight.pop() {
            let result = perform(&self.memory, &request);
            let step = self.unit.finish(pending, request.data, result);
            self.step(step);
            self.go_on();
        }
    }

    /// Everything comes to its end.
    fn end(mut self) {
        for _ in 0..=FENCE_PATIENCE {
            self.work();
            self.unit.tick();
            self.go_on();
        }
        self.work();
        assert_eq!(self.answered, self.asked, "some were not answered");
        assert!(self.unit.is_idle(), "something is left in flight");
    }
}
