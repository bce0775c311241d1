//! Commands that take long: a worker tells the log once, and once that it is over. Time is the test's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/kernel.rs"]
mod kernel;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use disk::{Disk, TestStore};
use kernel::{Buffer, Kernel};
use log::kv::Key;
use log::{Level, LevelFilter, Log, Metadata, Record};
use tcmu_pr::control::journal::MessageId;
use tcmu_pr::daemon::recorder::Recorder;
use tcmu_pr::daemon::records::Keep;
use tcmu_pr::daemon::worker::{Identity, Order, Parts, Poll, PortId, Worker};
use tcmu_pr::lu::{Mapping, ToStore};
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TargetPorts, TransportId};
use tcmu_pr::store::saved;
use tcmu_pr::sys::wait::EpollWait;
use tcmu_pr::sys::wake::Waker;

/// One block.
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 3, 0, 0, 1, 0];

static PASSED_S: AtomicU64 = AtomicU64::new(0);

/// The test's clock.
fn clock() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    start + Duration::from_secs(PASSED_S.load(Ordering::Relaxed))
}

/// What the log was told of slow commands.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct SlowLines;

impl Log for SlowLines {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let id = record.key_values().get(Key::from("MESSAGE_ID"));
        if id.is_some_and(|id| id.to_string() == MessageId::Slow.as_str()) {
            assert_eq!(record.level(), Level::Warn);
            LINES.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

struct NoKeeper;

impl Keep for NoKeeper {
    fn save(&mut self, _: &ToStore) -> Result<(), saved::Error> {
        Ok(())
    }
}

fn identify() -> Order {
    let target_port = TargetPort {
        protocol: Protocol::Sas,
        name: "naa.1".into(),
    };
    let mut target_ports = TargetPorts::default();
    target_ports.add(&target_port);
    Order::Identify {
        port: PortId(0),
        identity: Some(Identity {
            nexus: Some(ItNexus {
                initiator_port: TransportId::Sas(0x3000_0000_0000_0001),
                target_port,
            }),
            mapping: Mapping::ReadWrite,
        }),
        target_ports,
    }
}

#[test]
fn a_command_that_takes_long_is_told_once_and_its_end_once() {
    log::set_logger(&SlowLines).unwrap();
    log::set_max_level(LevelFilter::Info);
    let waker = Waker::new().unwrap();
    let disk = Arc::new(Mutex::new(Disk::new()));
    let (orders, to_do) = unbounded();
    let parts = Parts {
        unit: disk::unit(),
        store: TestStore {
            disk: Arc::clone(&disk),
            waker: waker.clone(),
            wait: EpollWait::new().unwrap(),
        },
        medium: None,
        recorder: Recorder::start(NoKeeper, &waker).unwrap(),
        waker,
        notices: unbounded().0,
        logout_patience: Duration::ZERO,
        poll: Poll::Off,
    };
    let mut worker = Worker::new(parts, (orders.clone(), to_do)).unwrap();
    worker.set_clock(clock);
    let (mut kernel, device) = Kernel::new(1 << 14, 64);
    orders.send(Order::AddPort(PortId(0), device)).unwrap();
    orders.send(identify()).unwrap();
    // A turn at each of these seconds.
    let mut turns = |seconds: std::ops::RangeInclusive<u64>| -> Vec<String> {
        for second in seconds {
            PASSED_S.store(second, Ordering::Relaxed);
            worker.turn();
        }
        std::mem::take(&mut *LINES.lock().unwrap())
    };

    disk.lock().unwrap().held = true;
    kernel.submit(&WRITE, Buffer::Out(&[7; 512])).unwrap();
    assert_eq!(turns(0..=10), [""; 0]);
    assert_eq!(
        turns(11..=11),
        [
            "unit serial: slow I/O: 1 commands have waited longer than 10 s for their answer, the oldest, WRITE(10), for 11 s: \
             is the backing store slow?"
        ]
    );
    assert_eq!(turns(12..=40), [""; 0]);
    disk.lock().unwrap().let_go();
    assert_eq!(turns(41..=50), [""; 0]);
    assert_eq!(kernel.process()[0].status, 0x00);
    assert_eq!(
        turns(51..=51),
        ["unit serial: slow I/O has ended: 1 commands took longer than 10 s, the longest 41 s"]
    );
    // One that takes as long as it may is not slow.
    disk.lock().unwrap().held = true;
    kernel.submit(&WRITE, Buffer::Out(&[7; 512])).unwrap();
    assert_eq!(turns(60..=70), [""; 0]);
    disk.lock().unwrap().let_go();
    assert_eq!(turns(70..=100), [""; 0]);
    assert_eq!(kernel.process()[0].status, 0x00);
}
