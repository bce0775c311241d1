//! The kernel's side of a TCMU device, in memory and fast: the same ring, mailbox and doorbell as Linux's.
//!
//! It keeps so many commands of one kind on the ring, takes their answers, and allocates nothing meanwhile. What
//! `tests/sim/kernel.rs` checks it trusts, but for this: each answer is GOOD, and to a command that waits for one.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use tcmu_pr::sys::region::{Region, Segment};
use tcmu_pr::sys::uapi::{self, Header, Mailbox, Request, Response};
use tcmu_pr::tcmu::Device;
use zerocopy::IntoBytes;

/// As large as Linux makes it: eight mebibytes with the mailbox.
const RING_SIZE: u32 = (8 << 20) - 128;
const RING_OFFSET: u32 = 128;
/// Data lies in pages.
const PAGE: usize = 4096;
/// The blocks of the unit, in bytes.
pub(crate) const BLOCK: usize = 512;
const CDB_LENGTH: usize = 16;
const GOOD: u8 = 0x00;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Read,
    Write,
}

/// The commands of one device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) way: Way,
    /// How many bytes each.
    pub(crate) length: usize,
    /// How many wait for their answers at a time.
    pub(crate) depth: usize,
    /// Anywhere in so many bytes.
    pub(crate) within: u64,
}

pub(crate) struct Kernel {
    load: Load,
    region: Region,
    doorbell: OwnedFd,
    /// The daemon's end of it, from which it reads hardly ever.
    their_doorbell: OwnedFd,
    head: u32,
    /// As far as answers were taken.
    cleaned: u32,
    /// The data buffer of each command id.
    buffers: Vec<Vec<Segment>>,
    waiting: Vec<bool>,
    free: Vec<u16>,
    random: fastrand::Rng,
}

impl Kernel {
    /// A device, and the kernel to it.
    pub(crate) fn new(load: Load) -> (Kernel, Device) {
        let pages = load.length.div_ceil(PAGE);
        let data = (RING_OFFSET + RING_SIZE) as usize;
        // Twice as many pages as are used: every other one is, so that buffers come in pieces.
        let length = data + 2 * load.depth * pages * PAGE;
        let memory = File::from(memfd_create(c"ring", MFdFlags::MFD_CLOEXEC).unwrap());
        memory.set_len(length as u64).unwrap();
        // All of its pages are there before anything is measured, on both sides.
        let map = || {
            let region = Region::map(&memory, length).unwrap();
            let mut pages = (0..length as u64).step_by(PAGE);
            assert!(pages.all(|page| region.write(page, &0u8).is_ok()));
            region
        };
        let (region, theirs) = (map(), map());
        let mailbox = Mailbox {
            version: uapi::MAILBOX_VERSION,
            flags: uapi::CAP_OUT_OF_ORDER | uapi::CAP_READ_LENGTH | uapi::CAP_TASK_MANAGEMENT,
            ring_offset: RING_OFFSET,
            ring_size: RING_SIZE,
            head: 0,
        };
        region.write(0, &mailbox).unwrap();
        let buffer = |id: usize| -> Vec<Segment> {
            let piece = |page: usize| Segment {
                offset: (data + 2 * (id * pages + page) * PAGE) as u64,
                length: PAGE.min(load.length - page * PAGE) as u64,
            };
            (0..pages).map(piece).collect()
        };
        let nonblocking = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let pair = socketpair(AddressFamily::Unix, SockType::Datagram, None, nonblocking);
        let (ours, doorbell) = pair.unwrap();
        let kernel = Kernel {
            load,
            region,
            doorbell: ours,
            their_doorbell: doorbell.try_clone().unwrap(),
            head: 0,
            cleaned: 0,
            buffers: (0..load.depth).map(buffer).collect(),
            waiting: vec![false; load.depth],
            free: (0..load.depth)
                .map(|id| u16::try_from(id).unwrap())
                .collect(),
            random: fastrand::Rng::with_seed(7),
        };
        (kernel, Device::new(File::from(doorbell), theirs).unwrap())
    }

    /// Puts commands on the ring until as many wait as are to, but at most so many. Gives their number.
    pub(crate) fn fill(&mut self, most: usize) -> usize {
        let count = self.free.len().min(most);
        for _ in 0..count {
            self.submit();
        }
        self.region
            .store_release(uapi::HEAD_OFFSET, self.head)
            .unwrap();
        count
    }

    fn submit(&mut self) {
        let id = self.free.pop().unwrap();
        self.waiting[usize::from(id)] = true;
        let segments = &self.buffers[usize::from(id)];
        let base =
            (size_of::<Request>() + size_of_val(segments.as_slice())).max(size_of::<Response>());
        let length = u32::try_from(base + CDB_LENGTH).unwrap();
        if RING_SIZE - self.head < length {
            let pad = header(RING_SIZE - self.head, uapi::OP_PAD, 0);
            self.region.write(self.position(), &pad).unwrap();
            self.head = 0;
        }
        let at = self.position();
        let request = Request {
            header: header(length, uapi::OP_COMMAND, id),
            segments: u32::try_from(segments.len()).unwrap(),
            bidirectional_segments: 0,
            protection_segments: 0,
            padding: 0,
            cdb_offset: at + base as u64,
            reserved: [0; 2],
        };
        self.region.write(at, &request).unwrap();
        self.region
            .copy_in(at + size_of::<Request>() as u64, segments.as_bytes())
            .unwrap();
        let cdb = cdb(&self.load, &mut self.random);
        self.region.write(request.cdb_offset, &cdb).unwrap();
        self.head = (self.head + length) % RING_SIZE;
    }

    /// Takes the answers that were published. Gives their number.
    pub(crate) fn collect(&mut self) -> usize {
        let tail = self.region.load_acquire(uapi::TAIL_OFFSET).unwrap();
        let mut count = 0;
        while self.cleaned != tail {
            let at = u64::from(RING_OFFSET + self.cleaned);
            let header: Header = self.region.read(at).unwrap();
            if header.op() == uapi::OP_COMMAND {
                let id = usize::from(header.command_id);
                let status: u8 = self.region.read(at + size_of::<Header>() as u64).unwrap();
                assert_eq!(status, GOOD, "the status of command {id}");
                assert!(self.waiting[id], "command {id} was answered already");
                self.waiting[id] = false;
                self.free.push(header.command_id);
                count += 1;
            }
            self.cleaned = (self.cleaned + header.length()) % RING_SIZE;
        }
        count
    }

    /// Wakes the daemon's side.
    pub(crate) fn ring_doorbell(&mut self) {
        let ring = || send(self.doorbell.as_raw_fd(), &[0; 4], MsgFlags::empty());
        if ring() == Err(Errno::EAGAIN) {
            drain(&self.their_doorbell);
            ring().unwrap();
        }
    }

    /// Waits until the daemon's side rings.
    pub(crate) fn wait(&mut self) {
        let mut fds = [PollFd::new(self.doorbell.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(PATIENCE).unwrap();
        assert_eq!(poll(&mut fds, timeout).unwrap(), 1, "no answer comes");
        // What comes in between rings once more.
        drain(&self.doorbell);
    }

    fn position(&self) -> u64 {
        u64::from(RING_OFFSET + self.head)
    }
}

fn header(length: u32, op: u32, command_id: u16) -> Header {
    Header {
        length_and_op: length | op,
        command_id,
        kernel_flags: 0,
        user_flags: 0,
    }
}

/// READ(16) or WRITE(16) of some part that begins at a multiple of its length.
fn cdb(load: &Load, random: &mut fastrand::Rng) -> [u8; CDB_LENGTH] {
    let blocks = load.length / BLOCK;
    let block = random.u64(0..load.within / load.length as u64) * blocks as u64;
    let mut cdb = [0; CDB_LENGTH];
    cdb[0] = match load.way {
        Way::Read => 0x88,
        Way::Write => 0x8a,
    };
    cdb[2..10].copy_from_slice(&block.to_be_bytes());
    cdb[10..14].copy_from_slice(&u32::try_from(blocks).unwrap().to_be_bytes());
    cdb
}

fn drain(doorbell: &OwnedFd) {
    while recv(doorbell.as_raw_fd(), &mut [0; 4], MsgFlags::empty()).is_ok() {}
}
