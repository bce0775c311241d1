//! The node: rings, worker, disk and records, in time that is counted in turns.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use fastrand::Rng;
use tcmu_pr::daemon::recorder::Record;
use tcmu_pr::daemon::records::{Keep, Keeper, Records};
use tcmu_pr::daemon::worker::{Identity, Order, Parts, Poll, PortId, Worker};
use tcmu_pr::lu::task::Pending;
use tcmu_pr::lu::{LogicalUnit, Mapping, Setup, ToStore, UnitState};
use tcmu_pr::pr::Reservations;
use tcmu_pr::scsi::Access;
use tcmu_pr::scsi::capacity::Geometry;
use tcmu_pr::scsi::inquiry;
use tcmu_pr::scsi::nexus::ItNexus;
use tcmu_pr::scsi::provisioning::Provisioning;
use tcmu_pr::store::{Done, Failure, Operation, Outcome, Request, Store};
use tcmu_pr::sys::wait::{EpollWait, Wait};
use tcmu_pr::sys::wake::Waker;

use crate::engine::{Engine, bytes};
use crate::files::{RUN, STATE, SimFiles, Trouble};
use crate::kernel::{Buffer, Completed, Kernel};
use crate::oracle::Sent;
use crate::rules::World;

const SERIAL: &str = "0123456789abcdef0123456789abcdef";
const BLOCK: u32 = 512;
/// Each nexus reads and writes blocks of its own, so that the disk knows whose an operation is.
const BLOCKS_EACH: u32 = 16;
const BYTES_EACH: usize = (BLOCKS_EACH * BLOCK) as usize;

/// An operation in the disk's hands.
struct InFlight {
    /// In which turn it came.
    began: u64,
    due: u64,
    nexus: usize,
    is_write: bool,
    /// A command has been answered GOOD that says that this cannot be.
    shut_out: bool,
    request: Request,
    ticket: Pending,
}

/// What the node is made of besides the worker: it stays when the daemon is killed.
pub(crate) struct Outside {
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    nexuses: Vec<ItNexus>,
    in_flight: Vec<InFlight>,
    content: Vec<u8>,
    /// How long operations of the disk take at most.
    pub(crate) slowest: u64,
    /// The reservations in force.
    pub(crate) in_force: Reservations,
    /// What was stored since somebody looked, and what could not be.
    pub(crate) stored: Vec<(ToStore, bool)>,
    /// A job of the recorder's, and when it is done.
    recording: Option<(u64, ToStore)>,
    /// How likely the record fails, and the daemon dies while it is written, in percent.
    pub(crate) failures: u8,
    pub(crate) deaths: u8,
    died: bool,
}

pub(crate) type Shared = Rc<RefCell<Outside>>;

impl Outside {
    pub(crate) fn allows(&self, nexus: usize, access: Access) -> bool {
        self.in_force
            .allowed(Some(&self.nexuses[nexus]))
            .contains(access)
    }

    /// A command was answered that lets its sender conclude who had access after the turn `decided`: what had not must
    /// not be in flight any more.
    pub(crate) fn answered(&mut self, decided: u64, may: impl Fn(usize, Access) -> bool) {
        for operation in &mut self.in_flight {
            let access = if operation.is_write {
                Access::Write
            } else {
                Access::Read
            };
            operation.shut_out |= operation.began <= decided && !may(operation.nexus, access);
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight.is_empty() && self.recording.is_none()
    }

    /// The blocks of a nexus.
    pub(crate) fn blocks_of(&self, nexus: usize) -> &[u8] {
        &self.content[nexus * BYTES_EACH..(nexus + 1) * BYTES_EACH]
    }
}

struct SimStore {
    outside: Shared,
    wait: EpollWait,
}

impl Store<Pending> for SimStore {
    fn submit(&mut self, request: Request, ticket: Pending) {
        let mut outside = self.outside.borrow_mut();
        let slowest = outside.slowest;
        let due = outside.now + 1 + outside.rng.u64(0..slowest);
        let (offset, is_write) = match request.operation {
            Operation::Read { offset, .. } => (offset, false),
            Operation::Write { offset, .. } => (offset, true),
            other => panic!("nobody sends what needs {other:?}"),
        };
        let nexus = usize::try_from(offset).unwrap() / BYTES_EACH;
        let access = if is_write {
            Access::Write
        } else {
            Access::Read
        };
        assert!(
            outside.allows(nexus, access),
            "{access} of nexus {nexus} was let in under {:?}",
            outside.in_force
        );
        let began = outside.now;
        outside.in_flight.push(InFlight {
            began,
            due,
            nexus,
            is_write,
            shut_out: false,
            request,
            ticket,
        });
    }

    fn reap(&mut self) -> Option<Done<Pending>> {
        let mut outside = self.outside.borrow_mut();
        let now = outside.now;
        let due = outside
            .in_flight
            .iter()
            .position(|operation| operation.due <= now)?;
        let operation = outside.in_flight.swap_remove(due);
        outside.perform(&operation);
        let result = if outside.rng.u8(0..100) == 0 {
            let error = std::io::Error::from_raw_os_error(libc::EIO);
            let at = (operation.nexus * BYTES_EACH) as u64;
            Err(if operation.is_write {
                Failure::Write { at, error }
            } else {
                Failure::Read { at, error }
            })
        } else {
            Ok(Outcome::Done)
        };
        Some(Done {
            ticket: operation.ticket,
            data: operation.request.data,
            result,
        })
    }

    fn waits(&mut self) -> &mut dyn Wait {
        &mut self.wait
    }
}

impl Outside {
    /// The operation reaches the medium.
    fn perform(&mut self, operation: &InFlight) {
        assert!(
            !operation.shut_out,
            "nexus {} was told to be shut out, and its operation reaches the medium",
            operation.nexus
        );
        let at = |offset: u64, length: u64| {
            let from = usize::try_from(offset).unwrap();
            from..from + usize::try_from(length).unwrap()
        };
        let data = &operation.request.data;
        match operation.request.operation.clone() {
            Operation::Read { offset, length, .. } => {
                data.write_at(0, &self.content[at(offset, length)]);
            }
            Operation::Write { offset, length, .. } => {
                data.read_at(0, &mut self.content[at(offset, length)]);
            }
            other => panic!("nobody sends what needs {other:?}"),
        }
    }
}

struct SimRecorder {
    outside: Shared,
    files: SimFiles,
    keeper: Keeper<SimFiles>,
}

impl Record for SimRecorder {
    fn submit(&mut self, to_store: ToStore) {
        let mut outside = self.outside.borrow_mut();
        let due = outside.now + 1 + outside.rng.u64(0..4);
        let before = outside.recording.replace((due, to_store));
        assert!(before.is_none(), "one at a time");
    }

    fn reap(&mut self) -> Option<bool> {
        let mut outside = self.outside.borrow_mut();
        let now = outside.now;
        if outside.died || outside.recording.as_ref()?.0 > now {
            return None;
        }
        let (due, to_store) = outside.recording.take()?;
        // A RESERVE that a reset or a lost nexus ends is taken up whether it is stored or not, which nobody outside sees.
        let ends_a_reserve = outside.in_force.spc2().is_some();
        let at = outside.rng.usize(0..16);
        let roll = outside.rng.u8(0..100);
        let (failures, deaths) = (outside.failures, outside.deaths);
        let errno = if outside.rng.bool() {
            libc::ENOSPC
        } else {
            libc::EIO
        };
        self.files.trouble(if roll < deaths {
            Trouble::Stop(at)
        } else if roll < deaths + failures && !ends_a_reserve {
            Trouble::Once(at, errno)
        } else {
            Trouble::None
        });
        let stored = self.keeper.save(&to_store).is_ok();
        if roll < deaths && !stored {
            outside.died = true;
            outside.recording = Some((due, to_store));
            return None;
        }
        self.files.trouble(Trouble::None);
        if stored {
            outside.in_force = to_store.next.clone();
        }
        outside.stored.push((to_store, stored));
        Some(stored)
    }
}

/// A node with one logical unit and a port for each I_T nexus.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) outside: Shared,
    files: SimFiles,
    boot: u32,
    daemon: Option<(Worker<SimStore, SimRecorder>, Sender<Order>)>,
}

/// What a daemon has found when it started.
pub(crate) struct Found {
    pub(crate) reservations: Reservations,
    /// Unit attention conditions by nexus: additional sense code and qualifier.
    pub(crate) attentions: Vec<(usize, (u8, u8))>,
}

impl Node {
    pub(crate) fn new(world: &World, seed: u64) -> Node {
        let engine = Engine::new(world);
        let nexuses = engine.nexuses.clone();
        let content = vec![0; nexuses.len() * BYTES_EACH];
        let mut node = Node {
            engine,
            kernels: Vec::new(),
            outside: Rc::new(RefCell::new(Outside {
                now: 0,
                rng: Rng::with_seed(seed),
                nexuses,
                in_flight: Vec::new(),
                content,
                slowest: 20,
                in_force: Reservations::default(),
                stored: Vec::new(),
                recording: None,
                failures: 0,
                deaths: 0,
                died: false,
            })),
            files: SimFiles::default(),
            boot: 1,
            daemon: None,
        };
        node.start();
        node
    }

    /// Whether the daemon has died while it stored something.
    pub(crate) fn has_died(&self) -> bool {
        self.outside.borrow().died
    }

    /// What the daemon finds when it starts, as the main thread sets it up.
    fn start(&mut self) -> Found {
        let boot_id = format!("boot {}", self.boot);
        let records = Records::new(
            self.files.clone(),
            Path::new(RUN),
            Path::new(STATE),
            &boot_id,
        );
        let kept = records.reservations(SERIAL).expect("no record is torn");
        records
            .begin(SERIAL, &kept)
            .expect("the disk is well when the daemon starts");
        let keeper = records.keeper(SERIAL);
        let attentions = kept.attentions.iter().map(|(nexus, condition)| {
            let number = self.engine.nexuses.iter().position(|one| *one == **nexus);
            (number.unwrap(), condition.additional())
        });
        let attentions = attentions.collect();
        let waker = Waker::new().unwrap();
        let (notices, _) = unbounded();
        let blocks = self.engine.nexuses.len() as u64 * u64::from(BLOCKS_EACH);
        let parts = Parts {
            unit: LogicalUnit::new(Setup {
                identity: inquiry::Identity::new(SERIAL),
                geometry: Geometry::new(BLOCK, blocks, 0).unwrap(),
                provisioning: Provisioning::Full,
                reservations: Ok(kept.reservations.clone()),
                attentions: kept.attentions,
                power_on: kept.power_on,
                write_back: true,
                state: UnitState::default(),
                context: self.engine.context.clone(),
            }),
            store: SimStore {
                outside: Rc::clone(&self.outside),
                wait: EpollWait::new().unwrap(),
            },
            medium: None,
            recorder: SimRecorder {
                outside: Rc::clone(&self.outside),
                files: self.files.clone(),
                keeper,
            },
            waker,
            notices,
            logout_patience: Duration::ZERO,
            poll: Poll::Off,
        };
        let (orders, to_do) = unbounded();
        let worker = Worker::new(parts, (orders.clone(), to_do)).unwrap();
        self.kernels.clear();
        for (port, nexus) in self.engine.nexuses.iter().enumerate() {
            let (kernel, device) = Kernel::new(1 << 14, 64);
            self.kernels.push(kernel);
            orders.send(Order::AddPort(PortId(port), device)).unwrap();
            orders
                .send(Order::Identify {
                    port: PortId(port),
                    identity: Some(Identity {
                        nexus: Some(nexus.clone()),
                        mapping: Mapping::ReadWrite,
                    }),
                    target_ports: self.engine.context.ports.clone(),
                })
                .unwrap();
        }
        self.daemon = Some((worker, orders));
        self.outside.borrow_mut().in_force = kept.reservations.clone();
        Found {
            reservations: kept.reservations,
            attentions,
        }
    }

    /// A turn of the worker's. Gives what was answered: which nexus, and what.
    pub(crate) fn turn(&mut self) -> Vec<(usize, Completed)> {
        self.outside.borrow_mut().now += 1;
        let (worker, _) = self.daemon.as_mut().expect("a daemon runs");
        while worker.turn() {}
        let mut answers = Vec::new();
        for (nexus, kernel) in self.kernels.iter_mut().enumerate() {
            kernel.doorbells();
            answers.extend(kernel.process().into_iter().map(|answer| (nexus, answer)));
        }
        answers
    }

    /// A tick of the worker's clock.
    pub(crate) fn tick(&mut self) {
        let (worker, _) = self.daemon.as_mut().expect("a daemon runs");
        worker.tick();
    }

    /// The daemon is killed, and another starts; with `power_loss`, the whole node is. What was in flight may have reached
    /// the medium or not. Gives what the new one has found.
    pub(crate) fn crash(&mut self, power_loss: bool) -> Found {
        let in_flight = {
            let mut outside = self.outside.borrow_mut();
            outside.died = false;
            let in_flight = std::mem::take(&mut outside.in_flight);
            for operation in &in_flight {
                if outside.rng.bool() {
                    outside.perform(operation);
                }
            }
            outside.recording = None;
            in_flight
        };
        let daemon = self.daemon.take();
        // Commands that are dropped without an answer are a bug, unless the whole process ends.
        let dead = catch_unwind(AssertUnwindSafe(|| {
            let _gone = (daemon, in_flight);
            resume_unwind(Box::new("killed"));
        }));
        assert!(dead.is_err());
        if power_loss {
            self.boot += 1;
            let outcomes = self.files.after_power_loss();
            let which = self.outside.borrow_mut().rng.usize(0..outcomes.len());
            self.files = outcomes.into_iter().nth(which).unwrap();
        } else {
            self.files = self.files.after_kill();
        }
        self.start()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() && self.daemon.is_some() {
            assert!(
                self.outside.borrow().is_quiet(),
                "the test leaves commands behind"
            );
        }
    }
}

/// Puts a command of that nexus on its ring, where there is always room. What is written is the stamp, and its block
/// follows from that.
pub(crate) fn send(kernel: &mut Kernel, nexus: usize, sent: &Sent, stamp: u32) -> u16 {
    let mut data = [0; BLOCK as usize];
    data[..4].copy_from_slice(&stamp.to_be_bytes());
    let list;
    let (cdb, buffer): (Vec<u8>, Buffer<'_>) = match sent {
        Sent::Out(command) => {
            let (cdb, bytes) = bytes(command);
            let length = cdb.parameter_list_length;
            let [a, b, c, d] = length.to_be_bytes();
            list = bytes[..usize::try_from(length).unwrap()].to_vec();
            let (action, scope_type) = (cdb.service_action, cdb.scope_type);
            let cdb = [0x5f, action, scope_type, 0, 0, a, b, c, d, 0];
            (cdb.into(), Buffer::Out(&list))
        }
        &Sent::In(service_action, length) => {
            let cdb = [0x5e, service_action, 0, 0, 0, 0, 0, 0, length, 0];
            (cdb.into(), Buffer::In(usize::from(length)))
        }
        Sent::Old { reserve: true } => (vec![0x16, 0, 0, 0, 0, 0], Buffer::None),
        Sent::Old { reserve: false } => (vec![0x17, 0, 0, 0, 0, 0], Buffer::None),
        Sent::Read => (transfer(0x28, nexus, stamp), Buffer::In(data.len())),
        Sent::Write => (transfer(0x2a, nexus, stamp), Buffer::Out(&data)),
        Sent::TestUnitReady => (vec![0; 6], Buffer::None),
        Sent::RequestSense => (vec![0x03, 0, 0, 0, 18, 0], Buffer::In(18)),
        Sent::Inquiry => (vec![0x12, 0, 0, 0, 36, 0], Buffer::In(36)),
    };
    kernel.submit(&cdb, buffer).expect("room on the ring")
}

/// READ(10) or WRITE(10) of one of the nexus's own blocks.
fn transfer(opcode: u8, nexus: usize, stamp: u32) -> Vec<u8> {
    let lba = u32::try_from(nexus).unwrap() * BLOCKS_EACH + stamp % BLOCKS_EACH;
    let [a, b, c, d] = lba.to_be_bytes();
    vec![opcode, 0, a, b, c, d, 0, 0, 1, 0]
}
