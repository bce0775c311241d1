//! Sessions that come and go, notes that come early, late or never, rings that are reset, taps that are attached anew,
//! and a disk that ends what it likes.
//!
//! Some hosts are registered, each with a key of its own, which it changes now and then by naming the one it has. The
//! others are shut out. Each writes its own blocks, with its own bytes. So a command that is performed for another
//! than its sender is answered wrongly, or leaves bytes on the disk.

use std::time::Duration;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use fastrand::Rng;
use tcmu_pr::daemon::worker::Order;

use crate::kernel::Buffer;
use crate::node::{Node, host, of_group_2, reserve_out, write};
use crate::tap::{Noting, Session, Tap, Who};
use crate::{BUSY, CONFLICT, GOOD, REGISTER, RESERVE};

const SEEDS: Range<u64> = 0..60;
const STEPS: usize = 250;
const HOSTS: usize = 6;
/// The first of them are registered.
const REGISTERED: usize = 3;
/// One slot more than there can be sessions: they are used again all the time.
const SLOTS: u16 = 7;
const BLOCKS_EACH: u8 = 4;
/// As many commands as a host may have outstanding.
const DEPTH: usize = 6;

struct Host {
    who: Who,
    session: Option<Session>,
    /// 0: it is not registered.
    key: u64,
    /// A change of its key is outstanding.
    changing: bool,
    outstanding: usize,
    /// Which of its blocks a write has been told to be on.
    written: [bool; BLOCKS_EACH as usize],
}

#[derive(Clone, Copy, Debug)]
enum What {
    Write(u8),
    ChangeKey(u64),
}

#[derive(Debug)]
struct Sent {
    host: usize,
    what: What,
    noted: bool,
    /// The worker may have been out of step.
    stray: bool,
}

struct Simulation {
    rng: Rng,
    node: Node,
    hosts: Vec<Host>,
    /// By port and id.
    sent: BTreeMap<(usize, u16), Sent>,
    /// For each port: its ring was reset or its tap is new, and the worker may not be in step again.
    stray: [bool; 2],
    /// Something has been noted since.
    noted: [bool; 2],
    /// For each port: its ring was reset while no daemon ran.
    reset_since: [bool; 2],
    last_key: u64,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut node = Node::with(Tap::with_slots(SLOTS), Duration::ZERO);
        let hosts = (0..HOSTS).map(|index| {
            // 0 and 3 have one name, 1 and 4 are one initiator port, which comes through both target ports.
            let isid = u8::try_from(index).unwrap();
            let who = match index {
                0 | 3 => host("a", isid),
                1 => host("b", 9),
                4 => of_group_2(host("b", 9)),
                _ => of_group_2(host("c", isid)),
            };
            Host {
                who,
                session: None,
                key: 0,
                changing: false,
                outstanding: 0,
                written: [false; BLOCKS_EACH as usize],
            }
        });
        let mut hosts: Vec<Host> = hosts.collect();
        for (key, host) in (1..).zip(&mut hosts[..REGISTERED]) {
            let session = node.login(host.who.clone());
            assert_eq!(node.reserve_out(&session, REGISTER, [0, key]), GOOD);
            if key == 1 {
                assert_eq!(node.reserve_out(&session, RESERVE, [key, 0]), GOOD);
            }
            host.key = key;
            host.session = Some(session);
        }
        node.disk().held = true;
        Simulation {
            rng: Rng::with_seed(seed),
            node,
            hosts,
            sent: BTreeMap::new(),
            stray: [false; 2],
            noted: [false; 2],
            reset_since: [false; 2],
            last_key: 100,
        }
    }

    fn step(&mut self) {
        match self.rng.u8(0..100) {
            0..50 => self.send(),
            50..60 => self.log_out(),
            60..65 => self.node.give(Order::SessionsEnded),
            65..80 => self.run(),
            80..96 => self.end_operation(),
            96..97 => self.reset(),
            97..98 => self.restart(),
            _ => self.attach_anew(),
        }
    }

    fn send(&mut self) {
        let index = self.rng.usize(0..HOSTS);
        let host = &mut self.hosts[index];
        if host.outstanding == DEPTH {
            return;
        }
        if host.session.is_none() {
            host.session = Some(self.node.login(host.who.clone()));
        }
        let session = host.session.clone().unwrap();
        let port = crate::node::port_of(&session);
        let noting = match self.rng.u8(0..10) {
            0..6 => Noting::Early,
            6..9 => Noting::Late,
            _ => Noting::Never,
        };
        let host_byte = u8::try_from(index).unwrap();
        let (what, id) = if host.changing || self.rng.u8(0..3) > 0 {
            let block = self.rng.u8(0..BLOCKS_EACH);
            let cdb = write(host_byte * BLOCKS_EACH + block);
            let data = [0xa0 | host_byte; 512];
            let command = (&cdb[..], Buffer::Out(&data));
            (
                What::Write(block),
                self.node.try_send(port, &session, command, noting),
            )
        } else {
            let key = if host.key == 0 { 0 } else { self.last_key + 1 };
            self.last_key += 1;
            let (cdb, list) = reserve_out(REGISTER, [host.key, key]);
            let command = (&cdb[..], Buffer::Out(&list));
            (
                What::ChangeKey(key),
                self.node.try_send(port, &session, command, noting),
            )
        };
        let Some(id) = id else {
            return;
        };
        self.noted[port] |= noting != Noting::Never;
        host.outstanding += 1;
        host.changing |= matches!(what, What::ChangeKey(_));
        let sent = Sent {
            host: index,
            what,
            noted: noting != Noting::Never,
            stray: self.stray[port],
        };
        let before = self.sent.insert((port, id), sent);
        assert!(before.is_none(), "the kernel draws ids that are free");
    }

    /// A session ends when all its commands have.
    fn log_out(&mut self) {
        let host = &mut self.hosts[self.rng.usize(0..HOSTS)];
        if host.outstanding == 0 {
            if let Some(session) = host.session.take() {
                self.node.tap.logout(&session);
            }
        }
    }

    fn run(&mut self) {
        self.node.run();
        self.look();
        for (stray, noted) in self.stray.iter_mut().zip(self.noted) {
            *stray &= !noted;
        }
    }

    /// Looks at what has been answered.
    fn look(&mut self) {
        for port in 0..2 {
            for answer in self.node.ports[port].kernel.process() {
                let sent = self.sent.remove(&(port, answer.id)).unwrap();
                let host = &mut self.hosts[sent.host];
                host.outstanding -= 1;
                let busy = answer.status == BUSY;
                assert!(!busy || !sent.noted || sent.stray, "{sent:?}: BUSY");
                assert!(busy || sent.noted, "{sent:?} was performed: {answer:?}");
                let right = match sent.what {
                    What::Write(_) if host.key == 0 => CONFLICT,
                    What::Write(_) | What::ChangeKey(_) => GOOD,
                };
                assert!(busy || answer.status == right, "{sent:?}: {answer:?}");
                match sent.what {
                    What::ChangeKey(key) => {
                        host.changing = false;
                        host.key = if busy { host.key } else { key };
                    }
                    What::Write(block) => {
                        host.written[usize::from(block)] |= right == GOOD && !busy
                    }
                }
            }
        }
    }

    fn end_operation(&mut self) {
        let mut disk = self.node.disk();
        let waiting = disk.waiting.len();
        if waiting > 0 {
            let operation = disk.waiting.remove(self.rng.usize(0..waiting)).unwrap();
            disk.perform(operation);
        }
    }

    /// Resets a ring, unless the disk has something of it: that would read what comes next into the buffers.
    fn reset(&mut self) {
        self.run();
        if !self.node.disk().waiting.is_empty() {
            return;
        }
        let more = self.rng.usize(0..4);
        (0..more).for_each(|_| self.send());
        self.reset_port();
    }

    fn reset_port(&mut self) {
        let port = self.rng.usize(0..2);
        self.node.ports[port].reset(&self.node.tap);
        // Those that came since the last turn: nobody has taken them.
        let lost: Vec<(usize, u16)> = self
            .sent
            .range((port, 0)..(port + 1, 0))
            .map(|(&key, _)| key)
            .collect();
        for sent in lost.iter().map(|key| self.sent.remove(key).unwrap()) {
            let host = &mut self.hosts[sent.host];
            host.outstanding -= 1;
            host.changing &= !matches!(sent.what, What::ChangeKey(_));
        }
        self.stray[port] = true;
        self.noted[port] = false;
        self.reset_since[port] = true;
    }

    /// The daemon ends, and another goes on. Meanwhile hosts come, send and go, and rings are reset.
    fn restart(&mut self) {
        self.node.disk().let_go();
        self.run();
        let rests = self.node.stop();
        self.reset_since = [false; 2];
        self.look();
        assert_eq!(rests.len(), 2, "both are at rest");
        for _ in 0..self.rng.usize(0..12) {
            match self.rng.u8(0..20) {
                0..14 => self.send(),
                14..19 => self.log_out(),
                _ => self.reset_port(),
            }
        }
        let goes_on = self.node.start_again(&rests);
        for (port, goes_on) in goes_on.into_iter().enumerate() {
            assert_eq!(goes_on, !self.reset_since[port]);
            if !goes_on {
                let on_it = self.sent.range_mut((port, 0)..(port + 1, 0));
                on_it.for_each(|(_, sent)| sent.stray = true);
                self.stray[port] = true;
                self.noted[port] = false;
            }
        }
        self.node.give(Order::TakeBacklog);
        self.run();
        self.node.disk().held = true;
    }

    /// The tap is attached anew. Its notes come to the ports one after the other.
    fn attach_anew(&mut self) {
        for port in &mut self.node.ports {
            port.note_late(&self.node.tap);
        }
        self.node.tap = Tap::with_slots(SLOTS);
        self.sent.values_mut().for_each(|sent| sent.stray = true);
        self.stray = [true; 2];
        self.noted = [false; 2];
        self.node.tapped(0);
        self.node.tapped(1);
    }

    fn end(mut self) {
        self.node.disk().let_go();
        self.run();
        assert!(self.sent.is_empty(), "not answered: {:?}", self.sent);
        for (index, host) in (0u8..).zip(&self.hosts) {
            for (block, written) in (0u8..).zip(host.written) {
                let content = self.node.content(usize::from(index * BLOCKS_EACH + block));
                let byte = if written { 0xa0 | index } else { 0 };
                assert_eq!(content, [byte; 512], "block {block} of host {index}");
            }
        }
        let reservations = self.node.report().reservations;
        let mut keys: Vec<u64> = reservations
            .registrants()
            .iter()
            .map(|known| known.key)
            .collect();
        keys.sort_unstable();
        let mut expected: Vec<u64> = self.hosts[..REGISTERED]
            .iter()
            .map(|host| host.key)
            .collect();
        expected.sort_unstable();
        assert_eq!(keys, expected);
    }
}

#[test]
fn no_command_is_performed_for_another_than_its_sender() {
    for seed in SEEDS {
        let simulate = || {
            let mut simulation = Simulation::new(seed);
            (0..STEPS).for_each(|_| simulation.step());
            simulation.end();
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(simulate)) {
            eprintln!("this was seed {seed}");
            resume_unwind(panic);
        }
    }
}
