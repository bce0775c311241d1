//! Copies between two units, each with its real thread, on real files: what is lent, and what becomes of it when
//! somebody takes access away or goes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "sim/kernel.rs"]
mod kernel;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use kernel::{Buffer, Completed, Kernel};
use nix::fcntl::PosixFadviseAdvice;
use tcmu_pr::daemon::recorder::Recorder;
use tcmu_pr::daemon::records::Keep;
use tcmu_pr::daemon::worker::{self, Handle, Identity, Order, Parts, Peer, Poll, PortId, Report};
use tcmu_pr::lu::{LogicalUnit, Mapping, Setup, ToStore, UnitState};
use tcmu_pr::pr::Reservations;
use tcmu_pr::pr::out::Context;
use tcmu_pr::scsi::capacity::Geometry;
use tcmu_pr::scsi::inquiry;
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TargetPorts, TransportId};
use tcmu_pr::scsi::provisioning::Provisioning;
use tcmu_pr::store::blocking::Blocking;
use tcmu_pr::store::medium::{Clearing, Medium};
use tcmu_pr::store::space::{Deallocation, Figures, Found, Sought};
use tcmu_pr::store::{Backing, saved};
use tcmu_pr::sys::region::Data;
use tcmu_pr::sys::wake::Waker;

const SOON: Duration = Duration::from_secs(20);
const BLOCKS: u64 = 16_384;
const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;

/// A real file, which lets nobody write to it while a test holds it.
#[derive(Debug)]
struct Gated {
    backing: Arc<Backing>,
    gate: Arc<Mutex<()>>,
    /// Told of everybody who is about to write.
    coming: Sender<()>,
}

impl Gated {
    fn pass(&self) {
        let _ = self.coming.send(());
        drop(self.gate.lock().unwrap());
    }
}

impl Medium for Gated {
    fn read(&self, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64> {
        Medium::read(&*self.backing, offset, data, range)
    }

    fn write(&self, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64> {
        self.pass();
        Medium::write(&*self.backing, offset, data, range)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        Medium::read_at(&*self.backing, bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.pass();
        Medium::write_at(&*self.backing, bytes, offset)
    }

    fn flush(&self) -> io::Result<()> {
        Medium::flush(&*self.backing)
    }

    fn advise(&self, _offset: u64, _length: u64, _advice: PosixFadviseAdvice) {}

    fn deallocation(&self) -> Option<Deallocation> {
        Medium::deallocation(&*self.backing)
    }

    fn clear(&self, clearing: Clearing, part: &Range<u64>) -> io::Result<bool> {
        Medium::clear(&*self.backing, clearing, part)
    }

    fn seek(&self, at: u64, sought: Sought) -> io::Result<Found> {
        Medium::seek(&*self.backing, at, sought)
    }

    fn figures(&self) -> io::Result<Figures> {
        Medium::figures(&*self.backing)
    }

    fn file(&self) -> Option<&File> {
        None
    }

    fn block_size(&self) -> u32 {
        Medium::block_size(&*self.backing)
    }

    fn size(&self) -> u64 {
        Medium::size(&*self.backing)
    }

    fn actual_size(&self) -> io::Result<u64> {
        Medium::actual_size(&*self.backing)
    }
}

struct NoKeeper;

impl Keep for NoKeeper {
    fn save(&mut self, _to_store: &ToStore) -> Result<(), saved::Error> {
        Ok(())
    }
}

/// A unit through whose ports two initiators send.
struct Unit {
    serial: &'static str,
    kernels: Vec<Kernel>,
    handle: Handle,
    backing: Arc<Backing>,
    gate: Arc<Mutex<()>>,
    coming: Receiver<()>,
}

impl Unit {
    fn new(folder: &std::path::Path, serial: &'static str) -> Unit {
        let waker = Waker::new().unwrap();
        let backing = Backing::open(&folder.join(serial), 512 * BLOCKS, 512).unwrap();
        let backing = Arc::new(backing);
        let (notices, _) = unbounded();
        let (told, coming) = unbounded();
        let gate = Arc::new(Mutex::new(()));
        let parts = Parts {
            unit: LogicalUnit::new(Setup {
                identity: inquiry::Identity::new(serial),
                geometry: Geometry::new(512, BLOCKS, 0).unwrap(),
                provisioning: Provisioning::Full,
                reservations: Ok(Reservations::default()),
                attentions: Vec::new(),
                power_on: false,
                write_back: true,
                state: UnitState::default(),
                context: Context::default(),
            }),
            store: Blocking::new(&backing, &waker).unwrap(),
            medium: Some(Arc::new(Gated {
                backing: Arc::clone(&backing),
                gate: Arc::clone(&gate),
                coming: told,
            })),
            recorder: Recorder::start(NoKeeper, &waker).unwrap(),
            waker,
            notices,
            logout_patience: Duration::ZERO,
            poll: Poll::Off,
        };
        let handle = worker::start("unit", parts).unwrap();
        let mut kernels = Vec::new();
        for index in 0..2 {
            let (kernel, device) = Kernel::new(1 << 14, 64);
            handle.give(Order::AddPort(PortId(index), device));
            let target_port = TargetPort {
                protocol: Protocol::Sas,
                name: "naa.1".into(),
            };
            let mut target_ports = TargetPorts::default();
            target_ports.add(&target_port);
            let nexus = ItNexus {
                initiator_port: TransportId::Sas(0x3000_0000_0000_0001 + index as u64),
                target_port,
            };
            handle.give(Order::Identify {
                port: PortId(index),
                identity: Some(Identity {
                    nexus: Some(nexus),
                    mapping: Mapping::ReadWrite,
                }),
                target_ports,
            });
            kernels.push(kernel);
        }
        Unit {
            serial,
            kernels,
            handle,
            backing,
            gate,
            coming,
        }
    }

    fn peer(&self) -> ([u8; 16], Peer) {
        let peer = Peer {
            block_size: 512,
            orders: self.handle.orders(),
        };
        (inquiry::Identity::new(self.serial).naa(), peer)
    }

    /// Fills the unit so that no two blocks are alike, nor one with one of another unit.
    fn fill(&self, mark: u8) -> Vec<u8> {
        let content: Vec<u8> = (0..u32::try_from(BLOCKS).unwrap())
            .flat_map(|block| (block << 8 | u32::from(mark)).to_be_bytes().repeat(128))
            .collect();
        self.backing.file().write_all_at(&content, 0).unwrap();
        content
    }

    fn content(&self) -> Vec<u8> {
        let mut content = vec![0; usize::try_from(512 * BLOCKS).unwrap()];
        self.backing.file().read_exact_at(&mut content, 0).unwrap();
        content
    }

    fn send(&mut self, from: usize, cdb: &[u8], buffer: Buffer<'_>) {
        self.kernels[from].submit(cdb, buffer).expect("room");
        self.kernels[from].ring_doorbell();
    }

    fn answer(&mut self, from: usize) -> Completed {
        self.kernels[from].wait_for(1).remove(0)
    }

    /// Has the first initiator copy these segments from one unit to another.
    fn send_copy(&mut self, from: &str, to: &str, segments: &[[u64; 3]]) {
        let list = list(from, to, segments);
        let mut cdb = [0; 16];
        cdb[0] = 0x83;
        cdb[10..14].copy_from_slice(&u32::try_from(list.len()).unwrap().to_be_bytes());
        self.send(0, &cdb, Buffer::Out(&list));
    }

    fn send_reserve_out(&mut self, action: u8, keys: [u64; 2]) {
        let mut list = [0; 24];
        list[..8].copy_from_slice(&keys[0].to_be_bytes());
        list[8..16].copy_from_slice(&keys[1].to_be_bytes());
        // Exclusive access, registrants only.
        let cdb = [0x5f, action, 6, 0, 0, 0, 0, 0, 24, 0];
        self.send(1, &cdb, Buffer::Out(&list));
    }

    fn report(&self) -> Report {
        let (reply, answer) = bounded(1);
        self.handle.give(Order::Report(reply));
        answer.recv_timeout(SOON).unwrap()
    }

    fn wait_for(&self, wanted: impl Fn(&Report) -> bool) {
        let deadline = Instant::now() + SOON;
        while !wanted(&self.report()) {
            assert!(Instant::now() < deadline, "it does not come");
        }
    }
}

/// The parameter list of EXTENDED COPY: segments of so many blocks, from an LBA to an LBA.
fn list(from: &str, to: &str, segments: &[[u64; 3]]) -> Vec<u8> {
    let mut list = vec![0, 0, 0, 64, 0, 0, 0, 0];
    list.extend(u32::try_from(28 * segments.len()).unwrap().to_be_bytes());
    list.extend([0; 4]);
    for serial in [from, to] {
        list.extend([0xe4, 0, 0, 0, 0x01, 0x03, 0, 16]); // identification descriptor, NAA
        list.extend(inquiry::Identity::new(serial).naa());
        list.extend([0, 0, 0, 0, 0, 0, 0x02, 0]); // blocks of 512 bytes
    }
    for [blocks, from, to] in segments {
        list.extend([0x02, 0, 0, 0x18, 0, 0, 0, 1, 0, 0]); // block to block, from CSCD 0 to CSCD 1
        list.extend(u16::try_from(*blocks).unwrap().to_be_bytes());
        list.extend(from.to_be_bytes());
        list.extend(to.to_be_bytes());
    }
    list
}

/// Two units that know each other.
fn two() -> (Unit, Unit, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let one = Unit::new(folder.path(), "one");
    let other = Unit::new(folder.path(), "other");
    let peers = Arc::new([one.peer(), other.peer()].into());
    for unit in [&one, &other] {
        unit.handle.give(Order::Peers(Arc::clone(&peers)));
        unit.report();
    }
    (one, other, folder)
}

/// COPY ABORTED, COPY TARGET DEVICE NOT REACHABLE in that segment.
fn assert_aborted(answer: &Completed, segment: u8) {
    let sense = &answer.sense;
    let found = (answer.status, sense[2], sense[12], sense[13], sense[11]);
    assert_eq!(found, (CHECK_CONDITION, 0x0a, 0x0d, 0x02, segment));
}

#[test]
fn a_copy_goes_from_one_unit_to_the_other_whichever_is_told() {
    let (mut one, mut other, _folder) = two();
    let (from, mut to) = (one.fill(1), other.fill(2));
    // 5 MiB, and 3 blocks.
    let segments = [[10_240, 5, 100], [3, 0, 16_381]];
    to[51_200..51_200 + (5 << 20)].copy_from_slice(&from[2560..2560 + (5 << 20)]);
    to[512 * 16_381..].copy_from_slice(&from[..1536]);
    one.send_copy("one", "other", &segments);
    assert_eq!(one.answer(0).status, GOOD);
    assert!(other.content() == to);
    // And back, by the source.
    other.send_copy("other", "one", &[[16_384, 0, 0]]);
    assert_eq!(other.answer(0).status, GOOD);
    assert!(one.content() == to);
    for unit in [one, other] {
        assert_eq!(unit.report().in_flight, 0);
        assert!(unit.handle.stop(SOON));
    }
}

#[test]
fn a_reservation_of_the_other_unit_waits_for_the_chunk_and_stops_the_next() {
    let (mut one, mut other, _folder) = two();
    let from = one.fill(1);
    other.send_reserve_out(0, [0, 0xb]);
    assert_eq!(other.answer(1).status, GOOD);
    let gate = Arc::clone(&other.gate);
    let held = gate.lock().unwrap();
    one.send_copy("one", "other", &[[8, 8, 8], [8, 8, 16]]);
    other.coming.recv_timeout(SOON).unwrap();
    other.send_reserve_out(1, [0xb, 0]);
    other.wait_for(|report| report.reservations.reservation().is_some());
    assert_eq!(other.report().waiting.replies, 1);
    assert!(other.kernels[1].process().is_empty());
    drop(held);
    assert_eq!(other.answer(1).status, GOOD);
    // What is written now was not written before it was answered.
    let copied = other.content();
    assert_aborted(&one.answer(0), 1);
    assert!(copied[4096..8192] == from[4096..8192]);
    assert!(other.content() == copied);
}

#[test]
fn a_unit_that_has_gone_lends_nothing() {
    let (mut one, other, _folder) = two();
    one.fill(1);
    assert!(other.handle.stop(SOON));
    one.send_copy("one", "other", &[[1, 0, 0]]);
    assert_aborted(&one.answer(0), 0);
    // One that has been taken out of the domain is not even asked.
    one.handle.give(Order::Peers(Arc::default()));
    one.send_copy("one", "other", &[[1, 0, 0]]);
    assert_aborted(&one.answer(0), 0);
    assert!(one.handle.stop(SOON));
}

#[test]
fn a_unit_that_is_to_go_waits_for_what_it_has_lent_and_lends_no_more() {
    let (mut one, other, _folder) = two();
    let from = one.fill(1);
    let gate = Arc::clone(&other.gate);
    let held = gate.lock().unwrap();
    one.send_copy("one", "other", &[[8, 8, 8], [8, 8, 16]]);
    other.coming.recv_timeout(SOON).unwrap();
    other.handle.give(Order::Stop);
    assert_eq!(other.report().in_flight, 1, "it is still there");
    drop(held);
    assert_aborted(&one.answer(0), 1);
    let backing = Arc::clone(&other.backing);
    assert!(other.handle.stop(SOON));
    let mut copied = vec![0; 4096];
    backing.file().read_exact_at(&mut copied, 4096).unwrap();
    assert!(copied == from[4096..8192]);
    assert!(one.handle.stop(SOON));
}

#[test]
fn a_unit_that_is_to_end_answers_the_copy_that_it_has_begun() {
    let (mut one, other, _folder) = two();
    one.fill(1);
    let gate = Arc::clone(&other.gate);
    let held = gate.lock().unwrap();
    one.send_copy("one", "other", &[[8, 8, 8], [8, 8, 16]]);
    other.coming.recv_timeout(SOON).unwrap();
    one.handle.give(Order::Stop);
    one.report();
    drop(held);
    assert_aborted(&one.answer(0), 1);
    assert!(one.handle.stop(SOON));
    other.wait_for(|report| report.in_flight == 0);
    assert!(other.handle.stop(SOON));
}

#[test]
fn units_that_copy_to_each_other_while_others_must_be_alone_all_get_their_answers() {
    let (mut one, mut other, _folder) = two();
    one.fill(1);
    other.fill(2);
    let segments = [[64, 0, 64], [64, 64, 0], [16, 8, 16]];
    for round in 0..100 {
        one.send_copy("one", "other", &segments);
        other.send_copy("other", "one", &segments);
        one.send_copy("other", "one", &segments);
        other.send_copy("one", "other", &segments);
        for unit in [&mut one, &mut other] {
            for lba in [0, 70, 20] {
                // COMPARE AND WRITE, which will find something else.
                let cdb = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, 1, 0, 0];
                unit.send(1, &cdb, Buffer::Out(&[0xee; 1024]));
            }
        }
        for unit in [&mut one, &mut other] {
            let copies = unit.kernels[0].wait_for(2);
            for copy in copies {
                let is_aborted = (copy.status, copy.sense[2]) == (CHECK_CONDITION, 0x0a);
                assert!(copy.status == GOOD || is_aborted, "{round}: {copy:?}");
            }
            for alone in unit.kernels[1].wait_for(3) {
                assert_eq!((alone.status, alone.sense[2]), (CHECK_CONDITION, 0x0e));
            }
        }
    }
    for unit in [one, other] {
        unit.wait_for(|report| report.in_flight == 0);
        assert!(unit.handle.stop(SOON));
    }
}
