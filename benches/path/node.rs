//! Logical units as the daemon has them, with the kernel's side of their ports: the one place that puts a worker and its
//! store together.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, unbounded};
use tcmu_pr::daemon::recorder::Recorder;
use tcmu_pr::daemon::records::Keep;
use tcmu_pr::daemon::worker::{self, Handle, Identity, Order, Parts, Poll, PortId, Worker};
use tcmu_pr::lu::task::Pending;
use tcmu_pr::lu::{LogicalUnit, Mapping, Setup, ToStore, UnitState};
use tcmu_pr::pr::Reservations;
use tcmu_pr::pr::out::Context;
use tcmu_pr::scsi::capacity::Geometry;
use tcmu_pr::scsi::inquiry;
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TargetPorts, TransportId};
use tcmu_pr::scsi::provisioning::Provisioning;
use tcmu_pr::store::backing::Mode;
use tcmu_pr::store::engine::{Engine, Wanted};
use tcmu_pr::store::{Backing, Store, saved};
use tcmu_pr::sys::wake::Waker;

use crate::kernel::{BLOCK, Kernel, Load};

/// How long whatever is waited for may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing changes: all there is to store is what a unit ends with.
struct Nowhere;

impl Keep for Nowhere {
    fn save(&mut self, _: &ToStore) -> Result<(), saved::Error> {
        Ok(())
    }
}

/// The backing object of a unit of so many bytes.
pub(crate) fn backing(path: &Path, size: u64) -> Arc<Backing> {
    backing_with(path, size, false)
}

/// The same, past the page cache or not.
pub(crate) fn backing_with(path: &Path, size: u64, direct: bool) -> Arc<Backing> {
    let block = u32::try_from(BLOCK).unwrap();
    let mode = Mode {
        direct,
        ..Mode::default()
    };
    Arc::new(Backing::open_with(path, size, block, mode).unwrap())
}

/// The store of a unit, as the daemon makes it.
pub(crate) fn store(backing: &Arc<Backing>, waker: &Waker) -> Engine<Pending> {
    Engine::new(backing, waker, Wanted::Best).unwrap().0
}

/// A unit of so many bytes, to which nobody is attached.
pub(crate) fn unit(size: u64) -> LogicalUnit {
    let block = u32::try_from(BLOCK).unwrap();
    LogicalUnit::new(Setup {
        identity: inquiry::Identity::new("serial"),
        geometry: Geometry::new(block, size / u64::from(block), 0).unwrap(),
        provisioning: Provisioning::Full,
        reservations: Ok(Reservations::default()),
        attentions: Vec::new(),
        power_on: false,
        write_back: true,
        state: UnitState::default(),
        context: Context::default(),
    })
}

fn parts<S>(size: u64, poll: Poll, store: impl FnOnce(&Waker) -> S) -> Parts<S, Recorder> {
    let waker = Waker::new().unwrap();
    let (notices, _) = unbounded();
    Parts {
        unit: unit(size),
        store: store(&waker),
        medium: None,
        recorder: Recorder::start(Nowhere, &waker).unwrap(),
        waker,
        notices,
        logout_patience: Duration::ZERO,
        poll,
    }
}

/// Who sends through a port.
pub(crate) fn nexus(port: usize) -> ItNexus {
    ItNexus {
        initiator_port: TransportId::Sas(0x3000_0000_0000_0001 + port as u64),
        target_port: TargetPort {
            protocol: Protocol::Sas,
            name: "naa.1".into(),
        },
    }
}

/// Gives a unit so many ports, through which one I_T nexus each sends.
fn attach(load: Load, ports: usize, give: impl Fn(Order)) -> Vec<Kernel> {
    let attach = |port| {
        let (kernel, device) = Kernel::new(load);
        give(Order::AddPort(PortId(port), device));
        let nexus = nexus(port);
        let mut target_ports = TargetPorts::default();
        target_ports.add(&nexus.target_port);
        give(Order::Identify {
            port: PortId(port),
            identity: Some(Identity {
                nexus: Some(nexus),
                mapping: Mapping::ReadWrite,
            }),
            target_ports,
        });
        kernel
    };
    (0..ports).map(attach).collect()
}

/// One turn of both sides of the rings of a unit.
pub(crate) struct Turn {
    /// How many commands were put on the rings.
    pub(crate) begun: usize,
    /// How many were answered.
    pub(crate) done: usize,
    /// How long the worker took.
    pub(crate) worker: Duration,
    /// How long the kernel's side took.
    pub(crate) kernel: Duration,
}

/// A unit whose worker takes its turns when it is told to.
pub(crate) struct Unit<S> {
    kernels: Vec<Kernel>,
    worker: Worker<S, Recorder>,
    // The worker is never told to stop.
    _orders: Sender<Order>,
}

impl<S: Store<Pending>> Unit<S> {
    pub(crate) fn new(load: Load, ports: usize, store: impl FnOnce(&Waker) -> S) -> Unit<S> {
        let parts = parts(load.within, Poll::Off, store);
        let (orders, to_do) = unbounded();
        let mut worker = Worker::new(parts, (orders.clone(), to_do)).unwrap();
        let kernels = attach(load, ports, |order| orders.send(order).unwrap());
        worker.turn();
        Unit {
            kernels,
            worker,
            _orders: orders,
        }
    }

    /// Puts commands on the rings, but at most so many, lets the worker take a turn, and takes the answers.
    pub(crate) fn turn(&mut self, most: usize) -> Turn {
        let begun_at = Instant::now();
        let mut begun = 0;
        for kernel in &mut self.kernels {
            begun += kernel.fill(most - begun);
        }
        let filled = Instant::now();
        self.worker.turn();
        // The kernel is told.
        self.worker.wait(true);
        let turned = Instant::now();
        let done = self.kernels.iter_mut().map(Kernel::collect).sum();
        Turn {
            begun,
            done,
            worker: turned - filled,
            kernel: filled - begun_at + turned.elapsed(),
        }
    }

    /// Has so many commands served.
    pub(crate) fn serve(&mut self, commands: usize) {
        let (mut left, mut waiting) = (commands, 0);
        while left + waiting > 0 {
            let turn = self.turn(left);
            left -= turn.begun;
            waiting = waiting + turn.begun - turn.done;
            if turn.done == 0 {
                self.worker.wait(false);
            }
        }
    }
}

/// A unit whose worker runs in a thread of its own.
pub(crate) struct Running {
    kernels: Vec<Kernel>,
    handle: Handle,
}

impl Running {
    pub(crate) fn start<S>(load: Load, ports: usize, store: impl FnOnce(&Waker) -> S) -> Running
    where
        S: Store<Pending> + Send + 'static,
    {
        Running::start_polling(load, ports, Poll::Off, store)
    }

    pub(crate) fn start_polling<S>(
        load: Load,
        ports: usize,
        poll: Poll,
        store: impl FnOnce(&Waker) -> S,
    ) -> Running
    where
        S: Store<Pending> + Send + 'static,
    {
        let handle = worker::start("unit", parts(load.within, poll, store)).unwrap();
        let running = Running {
            kernels: attach(load, ports, |order| handle.give(order)),
            handle,
        };
        // The answer says that the orders before it were obeyed.
        let (reply, answer) = bounded(1);
        running.handle.give(Order::Report(reply));
        answer.recv_timeout(PATIENCE).unwrap();
        running
    }

    /// Has so many commands served that come through the first port.
    pub(crate) fn serve(&mut self, commands: usize) {
        let kernel = &mut self.kernels[0];
        let (mut left, mut waiting) = (commands, 0);
        while left + waiting > 0 {
            let begun = kernel.fill(left);
            if begun > 0 {
                kernel.ring_doorbell();
            }
            left -= begun;
            waiting += begun;
            let done = kernel.collect();
            waiting -= done;
            if done == 0 {
                kernel.wait();
            }
        }
    }

    pub(crate) fn stop(self) {
        assert!(self.handle.stop(PATIENCE), "the worker ends");
    }
}
