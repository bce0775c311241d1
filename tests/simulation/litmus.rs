//! The fence, as a victim meets it that floods the disk: 32 writes in flight, always, with rising stamps. The moment that
//! GOOD is on the ring, the disk is looked at; nothing of the victim may change it any more.

use tcmu_pr::scsi::Access;

use crate::node::{Node, send};
use crate::oracle::{CHECK_CONDITION, CONFLICT, GOOD, Sent, TASK_ABORTED};
use crate::rules::{Command, World};
use crate::seeds::for_each_seed;

const HOST: usize = 0;
const VICTIM: usize = 1;
const DEPTH: usize = 32;

struct Flood {
    node: Node,
    stamp: u32,
    in_flight: usize,
}

impl Flood {
    fn send(&mut self, nexus: usize, sent: &Sent) -> u16 {
        self.stamp += 1;
        send(&mut self.node.kernels[nexus], nexus, sent, self.stamp)
    }

    fn good(&mut self, nexus: usize, sent: &Sent) {
        let id = self.send(nexus, sent);
        loop {
            for (from, answer) in self.node.turn() {
                if (from, answer.id) == (nexus, id) {
                    assert_eq!(answer.status, GOOD, "{sent:?}");
                    return;
                }
            }
        }
    }

    /// A turn in which the victim keeps its writes coming. Gives what the host is answered.
    fn turn(&mut self) -> Option<u8> {
        while self.in_flight < DEPTH {
            self.send(VICTIM, &Sent::Write);
            self.in_flight += 1;
        }
        let mut answered = None;
        for (from, answer) in self.node.turn() {
            if from == HOST {
                answered = Some(answer.status);
                continue;
            }
            self.in_flight -= 1;
            let expected = [GOOD, CHECK_CONDITION, CONFLICT, TASK_ABORTED];
            assert!(expected.contains(&answer.status), "{answer:?}");
        }
        answered
    }
}

/// What takes the victim's access away, and what comes before it.
struct Fence {
    name: &'static str,
    before: Vec<(usize, Sent)>,
    command: Sent,
}

fn fences() -> Vec<Fence> {
    let register = |key| {
        Sent::Out(Command {
            new_key: key,
            ..Command::default()
        })
    };
    let reserve = |scope_type| {
        Sent::Out(Command {
            service_action: 1,
            scope_type,
            key: 1,
            ..Command::default()
        })
    };
    let preempt = |service_action, scope_type| {
        Sent::Out(Command {
            service_action,
            scope_type,
            key: 1,
            new_key: 2,
            ..Command::default()
        })
    };
    let both = vec![(HOST, register(1)), (VICTIM, register(2))];
    let held = |scope_type| {
        let mut before = both.clone();
        before.push((HOST, reserve(scope_type)));
        before
    };
    let fence = |name, before, command| Fence {
        name,
        before,
        command,
    };
    vec![
        fence("PREEMPT, registrants only", held(5), preempt(4, 5)),
        fence("PREEMPT, all registrants", held(7), preempt(4, 7)),
        fence(
            "PREEMPT AND ABORT, registrants only",
            held(6),
            preempt(5, 6),
        ),
        fence("PREEMPT AND ABORT, all registrants", held(8), preempt(5, 8)),
        fence("RESERVE, write exclusive", both.clone(), reserve(1)),
        fence("RESERVE, exclusive access", both, reserve(3)),
        fence(
            "RESERVE, registrants only",
            vec![(HOST, register(1))],
            reserve(5),
        ),
        fence("RESERVE(6)", vec![], Sent::Old { reserve: true }),
    ]
}

fn round(seed: u64, fence: &Fence) {
    let world = World {
        nexuses: vec![(0, 1), (1, 1)],
        keys: vec![1, 2],
        scope_types: vec![],
    };
    let mut flood = Flood {
        node: Node::new(&world, seed),
        stamp: 0,
        in_flight: 0,
    };
    // Power on: everybody is told once.
    for nexus in [HOST, VICTIM] {
        flood.send(nexus, &Sent::TestUnitReady);
    }
    flood.node.turn();
    for (nexus, sent) in &fence.before {
        flood.good(*nexus, sent);
    }
    let warm_up = flood.node.outside.borrow_mut().rng.u32(1..30);
    for _ in 0..warm_up {
        assert_eq!(flood.turn(), None);
    }
    flood.send(HOST, &fence.command);
    let status = loop {
        if let Some(status) = flood.turn() {
            break status;
        }
    };
    assert_eq!(status, GOOD, "{}", fence.name);
    let snapshot = {
        let outside = flood.node.outside.borrow();
        assert!(!outside.allows(VICTIM, Access::Write));
        outside.blocks_of(VICTIM).to_vec()
    };
    let last = flood.stamp;
    for _ in 0..60 {
        flood.turn();
    }
    assert!(flood.stamp > last + 500, "the victim does not give up");
    while !flood.node.outside.borrow().is_quiet() {
        flood.node.turn();
    }
    assert!(
        flood.node.outside.borrow().blocks_of(VICTIM) == snapshot,
        "{}: the victim has changed the disk after GOOD",
        fence.name
    );
}

#[test]
fn no_write_of_a_victim_reaches_the_disk_after_good() {
    for fence in fences() {
        for_each_seed(
            "no_write_of_a_victim_reaches_the_disk_after_good",
            250,
            |seed| {
                round(seed, &fence);
            },
        );
    }
}
