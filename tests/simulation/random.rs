//! Nodes that send whatever comes to their minds, while disk, records, daemon and power do their worst.

use std::collections::VecDeque;

use tcmu_pr::lu::FENCE_PATIENCE;
use tcmu_pr::scsi::Access;

use crate::node::{Node, send};
use crate::oracle::{Oracle, Sent, Stored};
use crate::rules::{Command, World};
use crate::seeds::for_each_seed;

/// What a node may have outstanding: there is room on the ring for that.
const DEPTH: usize = 12;
const TURNS: usize = 250;

fn worlds() -> [World; 2] {
    let world = |nexuses| World {
        nexuses,
        keys: vec![1, 2],
        scope_types: vec![1, 3, 5, 6, 7, 8, 0, 0x11],
    };
    [
        world(vec![(0, 1), (1, 1), (2, 1)]),
        world(vec![(0, 1), (1, 1), (0, 2), (1, 2)]),
    ]
}

/// What stands on a ring.
enum Event {
    Reset,
    Command(u16, Sent),
}

struct Simulation<'a> {
    world: &'a World,
    node: Node,
    oracle: Oracle<'a>,
    stamp: u32,
    /// How often power is lost or the daemon is killed while nothing is stored, in permille of the turns.
    crashes: u16,
}

impl<'a> Simulation<'a> {
    fn new(world: &'a World, seed: u64) -> Simulation<'a> {
        let node = Node::new(world, seed);
        let crashes = {
            let mut outside = node.outside.borrow_mut();
            outside.slowest = [1, 4, 20, 60][outside.rng.usize(0..4)];
            outside.failures = [0, 10, 30][outside.rng.usize(0..3)];
            outside.deaths = [0, 5, 20][outside.rng.usize(0..3)];
            [0, 5, 20][outside.rng.usize(0..3)]
        };
        Simulation {
            world,
            node,
            oracle: Oracle::new(world),
            stamp: 0,
            crashes,
        }
    }

    fn roll<T>(&self, roll: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        roll(&mut self.node.outside.borrow_mut().rng)
    }

    fn one_of<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.roll(|rng| rng.usize(0..choices.len()))]
    }

    /// PERSISTENT RESERVE OUT, more often right than wrong.
    fn out(&self, nexus: usize) -> Command {
        let one_in = |chance: u32| self.roll(|rng| rng.u32(0..chance) == 0);
        let own = self.oracle.state.key(nexus).unwrap_or(0);
        let held = self.oracle.state.held.map_or(0, |held| held.0);
        let service_action = self.one_of(&[
            0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 4, 4, 4, 5, 5, 5, 6, 6, 7, 7, 8,
        ]);
        let keys = [0, 1, 2];
        let (hosts, ports) = self.hosts_and_ports();
        Command {
            service_action,
            scope_type: if service_action == 2 && !one_in(4) {
                held
            } else {
                self.one_of(&self.world.scope_types)
            },
            key: if one_in(8) { self.one_of(&keys) } else { own },
            // Not to unregister is more interesting.
            new_key: if one_in(8) {
                0
            } else {
                self.one_of(&keys[1..])
            },
            spec_i_pt: if service_action == 0 {
                one_in(4)
            } else {
                one_in(30)
            },
            listed: (!one_in(5)).then(|| match one_in(2) {
                true => vec![self.one_of(&hosts)],
                false => vec![],
            }),
            all_tg_pt: one_in(4),
            aptpl: one_in(2),
            unreg: one_in(2),
            host: self.one_of(&hosts),
            port: self.one_of(&ports),
            length: one_in(40).then_some(23),
        }
    }

    fn hosts_and_ports(&self) -> (Vec<u8>, Vec<u16>) {
        let hosts = self.world.nexuses.iter().map(|nexus| nexus.0).collect();
        // Port zero is no port.
        let ports = (0..=u16::from(self.world.ports())).collect();
        (hosts, ports)
    }

    fn sent(&self, nexus: usize) -> Sent {
        match self.roll(|rng| rng.u32(0..100)) {
            0..30 => Sent::Write,
            30..42 => Sent::Read,
            42..70 => Sent::Out(self.out(nexus)),
            70..82 => {
                let service_action = self.one_of(&[0, 1, 2]);
                Sent::In(service_action, self.one_of(&[7, 8, 20, 24, 255]))
            }
            82..88 => Sent::Old {
                reserve: self.roll(fastrand::Rng::bool),
            },
            88..93 => Sent::TestUnitReady,
            93..97 => Sent::RequestSense,
            _ => Sent::Inquiry,
        }
    }

    /// What a node puts on its ring.
    fn ring(&mut self, nexus: usize) -> VecDeque<Event> {
        let mut ring = VecDeque::new();
        for _ in 0..self.roll(|rng| rng.u32(0..3)) {
            if self.roll(|rng| rng.u32(0..150)) == 0 {
                self.node.kernels[nexus].task_management(5, &[]);
                ring.push_back(Event::Reset);
            } else if self.oracle.outstanding(nexus) + ring.len() < DEPTH {
                let sent = self.sent(nexus);
                self.stamp += 1;
                let id = send(&mut self.node.kernels[nexus], nexus, &sent, self.stamp);
                ring.push_back(Event::Command(id, sent));
            }
        }
        ring
    }

    fn oracle_sees(&mut self, nexus: usize, event: Event) {
        match event {
            Event::Reset => self.oracle.reset(nexus),
            Event::Command(id, sent) => self.oracle.arrive((nexus, id), sent),
        }
    }

    /// The nodes send what they like; the worker takes the rings one after the other.
    fn turn(&mut self, send_more: bool) {
        self.oracle.begin_turn();
        let nexuses = if send_more {
            self.world.nexuses.len()
        } else {
            0
        };
        let mut rings: Vec<VecDeque<Event>> = (0..nexuses).map(|nexus| self.ring(nexus)).collect();
        // A reset comes before whatever waits on other rings.
        for (nexus, ring) in rings.iter_mut().enumerate() {
            let last = ring.iter().rposition(|event| matches!(event, Event::Reset));
            let first = ring.drain(..last.map_or(0, |last| last + 1));
            first.for_each(|event| self.oracle_sees(nexus, event));
        }
        for (nexus, ring) in rings.into_iter().enumerate() {
            ring.into_iter()
                .for_each(|event| self.oracle_sees(nexus, event));
        }
        let answers = self.node.turn();
        self.oracle.check_disk_answers(&answers);
        let stored = std::mem::take(&mut self.node.outside.borrow_mut().stored);
        assert!(stored.len() <= 1, "one at a time");
        let stored = stored.into_iter().next().map(|(to_store, success)| {
            let numbers = |nexus: &_| self.node.engine.nexuses.iter().position(|one| one == nexus);
            let recorded = to_store
                .attentions
                .iter()
                .map(|(nexus, condition)| (numbers(&**nexus).unwrap(), condition.additional()));
            Stored {
                state: self.node.engine.state(&to_store.next),
                generation: to_store.next.generation(),
                attentions: recorded.collect(),
                success,
            }
        });
        self.oracle.stored(stored);
        for (decided, state, aborted) in self.oracle.check_answers(&answers) {
            let may = |nexus, access: Access| {
                state.allows(Some(nexus), access) && !aborted.contains(&nexus)
            };
            self.node.outside.borrow_mut().answered(decided, may);
        }
    }

    fn crash(&mut self, died: bool) {
        let power_loss = self.roll(|rng| rng.u32(0..3) == 0);
        let found = self.node.crash(power_loss);
        self.oracle
            .crash(&self.node.engine, &found, died, power_loss);
    }

    fn run(&mut self) {
        for _ in 0..TURNS {
            self.turn(true);
            if self.node.has_died() {
                self.crash(true);
            } else if self.roll(|rng| rng.u16(0..1000)) < self.crashes {
                self.crash(false);
            } else if self.roll(|rng| rng.u32(0..200)) == 0 {
                for _ in 0..FENCE_PATIENCE {
                    self.node.tick();
                }
                self.oracle.lose_patience();
            }
        }
        for _ in 0..2 * TURNS {
            if self.oracle.is_idle() && self.node.outside.borrow().is_quiet() {
                return;
            }
            self.turn(false);
            if self.node.has_died() {
                self.crash(true);
            }
        }
        panic!("not everything is answered");
    }
}

#[test]
fn every_answer_is_right_whatever_happens() {
    for world in worlds() {
        for_each_seed("every_answer_is_right_whatever_happens", 100, |seed| {
            Simulation::new(&world, seed).run();
        });
    }
}
