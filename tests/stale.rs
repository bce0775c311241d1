//! The kernel uses the pages of the data area again and again without zeroing them: whatever of a command's data-in we do
//! not write shows an initiator another one's old data.
//!
//! So every command of the table is sent twice, with many CDBs, to two nodes that differ in nothing but what the data area
//! held before. What initiators see must be the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/kernel.rs"]
mod kernel;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::unbounded;
use disk::{BLOCKS, Disk, Memory, TestStore};
use fastrand::Rng;
use kernel::{Buffer, Completed, Kernel};
use tcmu_pr::daemon::recorder::Recorder;
use tcmu_pr::daemon::records::Keep;
use tcmu_pr::daemon::worker::{self, Handle, Identity, Order, Parts, Poll, PortId};
use tcmu_pr::lu::{Mapping, ToStore};
use tcmu_pr::scsi::DataDirection;
use tcmu_pr::scsi::commands::{COMMANDS, Row};
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TargetPorts, TransportId};
use tcmu_pr::store::saved;
use tcmu_pr::sys::wait::EpollWait;
use tcmu_pr::sys::wake::Waker;

/// How many CDBs each command is sent with.
const CDBS: usize = 250;

/// Records that nobody keeps.
struct NoKeeper;

impl Keep for NoKeeper {
    fn save(&mut self, _to_store: &ToStore) -> Result<(), saved::Error> {
        Ok(())
    }
}

struct Node {
    kernel: Kernel,
    handle: Handle,
}

impl Node {
    fn new(stale: u8) -> Node {
        let waker = Waker::new().unwrap();
        let disk = Arc::new(Mutex::new(Disk::new()));
        disk.lock().unwrap().memory = Memory::new(512 * BLOCKS, 0x11);
        let (notices, _) = unbounded();
        let parts = Parts {
            unit: disk::unit(),
            store: TestStore {
                disk,
                waker: waker.clone(),
                wait: EpollWait::new().unwrap(),
            },
            medium: None,
            recorder: Recorder::start(NoKeeper, &waker).unwrap(),
            waker,
            notices,
            logout_patience: Duration::ZERO,
            poll: Poll::Off,
        };
        let handle = worker::start("unit", parts).unwrap();
        let (mut kernel, device) = Kernel::new(1 << 14, 64);
        kernel.scatter = true;
        kernel.stale = stale;
        let target_port = TargetPort {
            protocol: Protocol::Sas,
            name: "naa.1".into(),
        };
        let mut target_ports = TargetPorts::default();
        target_ports.add(&target_port);
        let nexus = ItNexus {
            initiator_port: TransportId::Sas(0x3000_0000_0000_0001),
            target_port,
        };
        handle.give(Order::AddPort(PortId(0), device));
        handle.give(Order::Identify {
            port: PortId(0),
            identity: Some(Identity {
                nexus: Some(nexus),
                mapping: Mapping::ReadWrite,
            }),
            target_ports,
        });
        Node { kernel, handle }
    }

    fn command(&mut self, cdb: &[u8], buffer: Buffer<'_>) -> Completed {
        self.kernel.submit(cdb, buffer).expect("room");
        self.kernel.ring_doorbell();
        self.kernel.wait_for(1).remove(0)
    }
}

/// A CDB of the command: any of the bits set that count, and some that do not; lengths and addresses small enough that
/// something is done, more often than not.
fn some_cdb(row: &Row, rng: &mut Rng) -> Vec<u8> {
    let mut cdb: Vec<u8> = row.usage.iter().map(|usage| usage & rng.u8(..)).collect();
    let is_short = rng.u8(0..4) > 0;
    for (index, byte) in cdb.iter_mut().enumerate().skip(2) {
        let is_last_of_a_field = row.usage.get(index + 1).is_none_or(|next| *next != 0xff);
        if is_short && row.usage[index] == 0xff && !is_last_of_a_field {
            *byte = 0;
        } else if is_short && row.usage[index] == 0xff {
            *byte &= 0x3f;
        }
    }
    cdb[0] = row.opcode();
    if row.has_service_action {
        cdb[1] = row.usage[1];
    }
    cdb
}

#[test]
fn no_command_hands_out_what_it_has_not_written() {
    let mut bytes = 0;
    for row in COMMANDS {
        let mut rng = Rng::with_seed(row.opcode().into());
        let mut nodes = [Node::new(0xa5), Node::new(0x5a)];
        for _ in 0..CDBS {
            let cdb = some_cdb(row, &mut rng);
            let length = [0, 1, 4, 7, 24, 96, 512, 513, 4096, 40_000][rng.usize(0..10)];
            let data_out: Vec<u8> = (0..length).map(|_| rng.u8(..) & 0x03).collect();
            // Of a command that has none to give, a hostile initiator asks for data all the same. What it asks for with one
            // that takes data can't be told from what it sends.
            let is_out = row.direction == DataDirection::Out;
            let [one, other] = nodes.each_mut().map(|node| {
                let buffer = if is_out {
                    Buffer::Out(&data_out)
                } else {
                    Buffer::In(length)
                };
                node.command(&cdb, buffer)
            });
            assert_eq!(one, other, "{}: {cdb:02x?}, {length} bytes", row.name);
            bytes += one.data_in.len();
        }
        for node in nodes {
            assert!(node.handle.stop(Duration::from_secs(20)), "{}", row.name);
        }
    }
    assert!(bytes > 500_000, "{bytes} bytes were handed out");
}
