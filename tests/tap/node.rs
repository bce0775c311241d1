//! The node: shared ports, the worker, a disk and records, and whoever logs in. The test takes the worker's turns.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tcmu_pr::daemon::recorder::Record;
use tcmu_pr::daemon::worker::{Notice, Order, Parts, Poll, PortId, Report, Rest, Worker};
use tcmu_pr::lu::{LogicalUnit, ToStore};
use tcmu_pr::pr::Reservations;
use tcmu_pr::scsi::nexus::{Protocol, TargetPort, TargetPorts};
use tcmu_pr::sys::wait::EpollWait;
use tcmu_pr::sys::wake::Waker;

use crate::disk::{self, Disk, TestStore};
use crate::kernel::{Buffer, Completed};
use crate::tap::{self, Noting, Port, Session, Tap, Who};
use crate::{GOOD, KEY_A, READ, REGISTER, RESERVE, WRITE};

/// Records that are stored at once.
#[derive(Default)]
struct TestRecorder(VecDeque<bool>);

impl Record for TestRecorder {
    fn submit(&mut self, _to_store: ToStore) {
        self.0.push_back(true);
    }

    fn reap(&mut self) -> Option<bool> {
        self.0.pop_front()
    }
}

pub(crate) struct Node {
    worker: Worker<TestStore, TestRecorder>,
    pub(crate) orders: Sender<Order>,
    pub(crate) notices: Receiver<Notice>,
    pub(crate) disk: Arc<Mutex<Disk>>,
    pub(crate) tap: Tap,
    pub(crate) ports: Vec<Port>,
    /// How many sessions there were.
    sessions: u64,
    logout_patience: Duration,
    /// What was registered and reserved when the daemon was stopped.
    kept: Reservations,
}

/// A daemon's worker for a unit, the end that gives it orders, and what it tells.
fn worker(
    unit: LogicalUnit,
    disk: &Arc<Mutex<Disk>>,
    logout_patience: Duration,
) -> (
    Worker<TestStore, TestRecorder>,
    Sender<Order>,
    Receiver<Notice>,
) {
    let waker = Waker::new().unwrap();
    let (notices_in, notices) = unbounded();
    let parts = Parts {
        unit,
        store: TestStore {
            disk: Arc::clone(disk),
            waker: waker.clone(),
            wait: EpollWait::new().unwrap(),
        },
        medium: None,
        recorder: TestRecorder::default(),
        waker,
        notices: notices_in,
        logout_patience,
        poll: Poll::Off,
    };
    let (orders, to_do) = unbounded();
    let worker = Worker::new(parts, (orders.clone(), to_do)).unwrap();
    (worker, orders, notices)
}

/// The ports of the portal groups 1 and 2, which are the relative target ports 2 and 1.
pub(crate) fn target_ports() -> TargetPorts {
    let mut ports = TargetPorts::default();
    for name in [
        "iqn.2026-11.example:t,t,0x0002",
        "iqn.2026-11.example:t,t,0x0001",
    ] {
        ports.add(&TargetPort {
            protocol: Protocol::Iscsi,
            name: name.into(),
        });
    }
    ports
}

/// A host whose sessions have ISIDs that end with this byte.
pub(crate) fn host(name: &str, isid: u8) -> Who {
    Who {
        fabric: "iscsi",
        target: "iqn.2026-11.example:t",
        group: "tpgt_1",
        initiator: format!("iqn.2026-11.example:{name}"),
        isid: Some([0x00, 0x02, 0x3d, 0x00, 0x00, isid]),
    }
}

pub(crate) fn of_group_2(who: Who) -> Who {
    Who {
        group: "tpgt_2",
        ..who
    }
}

impl Node {
    /// A unit of 64 blocks with two ports that are shared.
    pub(crate) fn new() -> Node {
        Node::with(Tap::new(), Duration::ZERO)
    }

    pub(crate) fn with(tap: Tap, logout_patience: Duration) -> Node {
        let disk = Arc::new(Mutex::new(Disk::new()));
        let (worker, orders, notices) = worker(disk::unit(), &disk, logout_patience);
        let mut node = Node {
            worker,
            orders,
            notices,
            disk,
            tap,
            ports: Vec::new(),
            sessions: 0,
            logout_patience,
            kept: Reservations::default(),
        };
        node.give(Order::ExpectLooks);
        for id in 0..2 {
            // No device has the number of its port.
            let (port, device) = Port::new(7 + u32::try_from(id).unwrap());
            node.ports.push(port);
            node.give(Order::AddPort(PortId(id), device));
            node.tapped(id);
            node.share(id, target_ports());
        }
        node.run();
        node
    }

    /// The daemon ends, and says how it has left its rings.
    pub(crate) fn stop(&mut self) -> Vec<Rest> {
        self.kept = self.report().reservations;
        self.give(Order::Stop);
        self.run();
        self.worker.rests()
    }

    /// Another one is there, which goes on with the rings of the one before, and does not yet. Tells with which it can, as
    /// far as the tap knows.
    pub(crate) fn start_again(&mut self, rests: &[Rest]) -> [bool; 2] {
        self.start_without_ports();
        [0, 1].map(|port| self.go_on(port, rests))
    }

    /// Another one is there, and none of its ports.
    pub(crate) fn start_without_ports(&mut self) {
        let unit = disk::unit_with(self.kept.clone());
        (self.worker, self.orders, self.notices) = worker(unit, &self.disk, self.logout_patience);
        self.give(Order::ExpectLooks);
    }

    /// A port comes, whose ring was left so. Tells whether the daemon can go on with it.
    pub(crate) fn go_on(&mut self, port: usize, rests: &[Rest]) -> bool {
        let device = self.ports[port].open_again();
        self.give(Order::LeaveBacklog);
        self.give(Order::AddPort(PortId(port), device));
        let rest = rests.iter().find(|rest| rest.port == PortId(port));
        let minor = self.ports[port].minor;
        let goes_on = rest.and_then(|rest| {
            let notes = self.tap.notes().go_on(minor, rest.noted?)?;
            Some(Order::GoOn(PortId(port), notes, rest.sessions.clone()))
        });
        let is_gone_on = goes_on.is_some();
        match goes_on {
            Some(order) => self.give(order),
            None => self.tapped(port),
        }
        self.share(port, target_ports());
        self.run();
        is_gone_on
    }

    /// What has come meanwhile is begun. Gives the answers to what was sent through a port, by id.
    pub(crate) fn take_backlog(&mut self, port: usize) -> BTreeMap<u16, u8> {
        self.give(Order::TakeBacklog);
        self.run();
        let answers = self.ports[port].kernel.process().into_iter();
        answers.map(|answer| (answer.id, answer.status)).collect()
    }

    pub(crate) fn give(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    pub(crate) fn tapped(&self, port: usize) {
        let notes = self.tap.notes().of_device(self.ports[port].minor).unwrap();
        self.give(Order::Tap(PortId(port), notes));
    }

    pub(crate) fn share(&self, port: usize, target_ports: TargetPorts) {
        self.give(Order::Share {
            port: PortId(port),
            target_ports,
        });
    }

    pub(crate) fn unidentify(&self, port: usize) {
        self.give(Order::Identify {
            port: PortId(port),
            identity: None,
            target_ports: target_ports(),
        });
    }

    pub(crate) fn login(&mut self, who: Who) -> Session {
        self.sessions += 1;
        Session {
            address: 0xffff_8881_0000_0000 + self.sessions * 0x400,
            who,
            read_only: false,
        }
    }

    pub(crate) fn report(&mut self) -> Report {
        let (reply, answer) = bounded(1);
        self.give(Order::Report(reply));
        self.run();
        answer.try_recv().unwrap()
    }

    /// Takes turns until nothing is left to do but what the disk holds.
    pub(crate) fn run(&mut self) {
        // Whatever a turn leaves behind without saying so, comes from stored records: one more is enough for each.
        for _ in 0..8 {
            while tap::during(&self.tap, &mut self.ports, || self.worker.turn()) {}
        }
    }

    /// Queues a command, and gives its id if there is room.
    pub(crate) fn try_send(
        &mut self,
        port: usize,
        session: &Session,
        command: (&[u8], Buffer<'_>),
        noting: Noting,
    ) -> Option<u16> {
        self.ports[port].submit(&mut self.tap, session, command, noting)
    }

    pub(crate) fn send(
        &mut self,
        port: usize,
        session: &Session,
        command: (&[u8], Buffer<'_>),
        noting: Noting,
    ) -> u16 {
        self.try_send(port, session, command, noting).expect("room")
    }

    /// Sends a command and gives its answer.
    pub(crate) fn noted(
        &mut self,
        port: usize,
        session: &Session,
        command: (&[u8], Buffer<'_>),
        noting: Noting,
    ) -> Completed {
        let id = self.send(port, session, command, noting);
        self.run();
        let mut answers = self.ports[port].kernel.process();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0].id, id);
        answers.remove(0)
    }

    pub(crate) fn command(&mut self, session: &Session, command: (&[u8], Buffer<'_>)) -> Completed {
        self.noted(port_of(session), session, command, Noting::Early)
    }

    pub(crate) fn status(&mut self, session: &Session, cdb: &[u8]) -> u8 {
        self.command(session, (cdb, Buffer::None)).status
    }

    pub(crate) fn read(&mut self, session: &Session) -> u8 {
        self.command(session, (&READ, Buffer::In(512))).status
    }

    pub(crate) fn write(&mut self, session: &Session, byte: u8) -> Completed {
        self.command(session, (&WRITE, Buffer::Out(&[byte; 512])))
    }

    pub(crate) fn reserve_out(&mut self, session: &Session, action: u8, keys: [u64; 2]) -> u8 {
        let (cdb, list) = reserve_out(action, keys);
        self.command(session, (&cdb, Buffer::Out(&list))).status
    }

    /// That session registers KEY_A and holds write exclusive, registrants only.
    pub(crate) fn reserved_by(&mut self, session: &Session) {
        assert_eq!(self.reserve_out(session, REGISTER, [0, KEY_A]), GOOD);
        assert_eq!(self.reserve_out(session, RESERVE, [KEY_A, 0]), GOOD);
    }

    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    pub(crate) fn content(&self, block: usize) -> Vec<u8> {
        self.disk().memory.content()[512 * block..512 * (block + 1)].to_vec()
    }

    pub(crate) fn notice(&self) -> String {
        format!("{:?}", self.notices.try_recv().unwrap())
    }
}

/// One block there.
pub(crate) fn write(block: u8) -> [u8; 10] {
    [0x2a, 0, 0, 0, 0, block, 0, 0, 1, 0]
}

/// PERSISTENT RESERVE OUT for write exclusive, registrants only: the reservation key, and the service action's.
pub(crate) fn reserve_out(action: u8, keys: [u64; 2]) -> ([u8; 10], [u8; 24]) {
    let mut list = [0; 24];
    list[..8].copy_from_slice(&keys[0].to_be_bytes());
    list[8..16].copy_from_slice(&keys[1].to_be_bytes());
    ([0x5f, action, 5, 0, 0, 0, 0, 0, 24, 0], list)
}

/// Each portal group has a port.
pub(crate) fn port_of(session: &Session) -> usize {
    usize::from(session.who.group == "tpgt_2")
}
