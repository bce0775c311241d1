//! Where the time of a 4 KiB read goes in the daemon, the I/O itself left out: stage by stage, and the whole turn.
//!
//! Each stage is done for all commands on the ring before the next begins, with the functions that the worker calls. One
//! turn is one sample, so that few of them have another program in them.

use std::time::{Duration, Instant};

use tcmu_pr::lu::task::{Answer, NexusId, Pending, Tag, Task};
use tcmu_pr::lu::{LogicalUnit, Mapping, Step};
use tcmu_pr::store::{Outcome, Request};
use tcmu_pr::tcmu::Device;
use tcmu_pr::tcmu::ring::{Command, CommandId, Completion, Entry};

use crate::figures::Figures;
use crate::kernel::{Kernel, Load, Way};
use crate::node::{self, Unit};
use crate::null::Null;
use crate::promise::{Bound, Promise};
use crate::{Plan, shown};

pub(crate) const DEPTH: usize = 32;
/// Nanoseconds of the daemon for each command, above the I/O.
const MOST: f64 = 1500.0;

const POP: &str = "ring: take an entry";
const BEGIN: &str = "unit: begin the command";
const FINISH: &str = "unit: finish it";
const DELIVER: &str = "unit: make the answer";
const COMPLETE: &str = "ring: put the answer on it";
const PUBLISH: &str = "ring: publish";
const KICK: &str = "the kick, a system call";
const TURN: &str = "the whole turn of the worker";
const KERNEL: &str = "(the kernel's side of this benchmark)";
const STAGES: [&str; 7] = [POP, BEGIN, FINISH, DELIVER, COMPLETE, PUBLISH, KICK];

pub(crate) const LOAD: Load = Load {
    way: Way::Read,
    length: 4096,
    depth: DEPTH,
    within: 1 << 30,
};

pub(crate) fn run(plan: &Plan) -> Vec<Promise> {
    let figures = Figures::default();
    let mut apart = Apart::new();
    let mut whole = Unit::new(LOAD, 1, |_| Null::new());
    for _ in 0..plan.samples * 64 {
        apart.sample(&figures);
        let turn = whole.turn(DEPTH);
        figures.add(TURN, 0, turn.done as u64, turn.worker);
        figures.add(KERNEL, 0, turn.done as u64, turn.kernel);
    }
    let stages = STAGES.iter().map(|stage| figures.median(stage, 0));
    let sum: f64 = stages.flatten().sum();
    let turn = figures.median(TURN, 0);
    let mut promises: Vec<Promise> = STAGES
        .iter()
        .map(|stage| shown(&figures, stage, 0, "ns"))
        .collect();
    promises.push(Promise {
        what: "the worker itself, ns: the turn without these".to_owned(),
        measured: turn.map(|turn| turn - sum),
        bound: None,
    });
    promises.push(Promise {
        bound: Some(Bound::AtMost(MOST)),
        ..shown(&figures, TURN, 0, "ns")
    });
    promises.push(shown(&figures, KERNEL, 0, "ns"));
    promises
}

/// A ring and a unit without a worker.
struct Apart {
    kernel: Kernel,
    device: Device,
    unit: LogicalUnit,
    nexus: NexusId,
    commands: Vec<Command>,
    begun: Vec<(Request, Pending)>,
    answers: Vec<Answer>,
}

impl Apart {
    fn new() -> Apart {
        let (kernel, device) = Kernel::new(LOAD);
        let mut unit = node::unit(LOAD.within);
        Apart {
            kernel,
            device,
            nexus: unit.attach(Some(node::nexus(0)), Mapping::ReadWrite),
            unit,
            commands: Vec::with_capacity(DEPTH),
            begun: Vec::with_capacity(DEPTH),
            answers: Vec::with_capacity(DEPTH),
        }
    }

    /// Adds one turn of each stage.
    fn sample(&mut self, figures: &Figures) {
        self.kernel.fill(DEPTH);
        let took = self.turn();
        assert_eq!(self.kernel.collect(), DEPTH);
        for (stage, took) in STAGES.iter().zip(took) {
            figures.add(stage, 0, DEPTH as u64, took);
        }
    }

    /// How long each stage took, of one turn.
    fn turn(&mut self) -> [Duration; STAGES.len()] {
        let mut deliveries = Vec::with_capacity(DEPTH);
        let mut clock = Clock(Instant::now());
        while let Some(entry) = self.device.ring.pop().unwrap() {
            let Entry::Command(command) = entry else {
                panic!("only commands are sent: {entry:?}");
            };
            self.commands.push(command);
        }
        let pop = clock.lap();
        for command in self.commands.drain(..) {
            let tag = Tag {
                port: 0,
                command: command.id.id,
                epoch: command.id.epoch,
            };
            let task = Task::new(tag, self.nexus, command.cdb, command.data);
            match self.unit.begin(task) {
                Step::Io(request, pending) => self.begun.push((request, pending)),
                step => panic!("a read is I/O: {step:?}"),
            }
        }
        let begin = clock.lap();
        for (request, pending) in self.begun.drain(..) {
            match self.unit.finish(pending, request.data, Ok(Outcome::Done)) {
                Step::Answer(answer) => self.answers.push(answer),
                step => panic!("a read is over then: {step:?}"),
            }
        }
        let finish = clock.lap();
        for answer in self.answers.drain(..) {
            deliveries.push(answer.deliver(self.unit.sense_format()));
        }
        let deliver = clock.lap();
        for (delivery, data) in deliveries.drain(..) {
            let id = CommandId {
                id: delivery.tag.command,
                epoch: delivery.tag.epoch,
            };
            let completion = Completion {
                status: delivery.status,
                data_in_length: delivery.data_in_length,
                sense: &delivery.sense,
            };
            self.device.ring.complete(id, &completion);
            self.device.ring.reuse(data);
        }
        let complete = clock.lap();
        assert!(self.device.ring.publish().unwrap());
        let publish = clock.lap();
        self.device.kick().unwrap();
        let kick = clock.lap();
        [pop, begin, finish, deliver, complete, publish, kick]
    }
}

struct Clock(Instant);

impl Clock {
    /// The time since the last lap.
    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.0, now)
    }
}
