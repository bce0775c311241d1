//! The kernel's side of a TCMU device, in memory: the same ring, mailbox and doorbell, no kernel.
//!
//! It queues entries, hands out ids and data blocks, and takes completions the way Linux does, but checks
//! what Linux trusts: that a completion names a pending command, that the tail stands on a boundary of an
//! entry, that nobody changed an entry's length. A violation is a failed test. For hostile tests it also
//! writes whatever it is told to, wherever.

#![allow(dead_code, reason = "each test crate uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::AsFd;
use tcmu_pr::sys::region::Region;
use tcmu_pr::tcmu::Device;

pub(crate) const RING_OFFSET: u64 = 128;
const HEAD: u64 = 12;
const TAIL: u64 = 64;
pub(crate) const BLOCK: u64 = 4096;
const BLOCK_BYTES: usize = 4096;
/// What the data area holds before a command writes its data-in, unless the test wants something else: another
/// initiator's old data.
pub(crate) const STALE: u8 = 0xa5;

/// The data buffer that a command comes with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Buffer<'a> {
    None,
    Out(&'a [u8]),
    In(usize),
}

/// A command that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Completed {
    pub(crate) id: u16,
    pub(crate) status: u8,
    /// What the initiator gets to see of a data-in buffer.
    pub(crate) data_in: Vec<u8>,
    pub(crate) sense: [u8; 96],
    pub(crate) unknown_op: bool,
}

struct Pending {
    blocks: Vec<u64>,
    length: u64,
    data_in: bool,
}

pub(crate) struct Kernel {
    pub(crate) region: Region,
    memory: File,
    doorbell: File,
    /// The daemon's end of it. The daemon may leave unread what wakes it.
    their_doorbell: File,
    pub(crate) ring_size: u32,
    head: u32,
    /// As far as completions were processed.
    cleaned: u32,
    free_blocks: BTreeSet<u64>,
    pending: BTreeMap<u16, Pending>,
    /// What was written as length and opcode at each offset of the ring.
    entries: BTreeMap<u32, u32>,
    /// Take every other data block, so that buffers come in pieces.
    pub(crate) scatter: bool,
    /// What the data area holds before a command writes its data-in.
    pub(crate) stale: u8,
    completed: Vec<Completed>,
}

impl Kernel {
    /// A device with a ring of `ring_size` bytes and `blocks` data blocks of 4 KiB, and the kernel to it.
    pub(crate) fn new(ring_size: u32, blocks: u64) -> (Kernel, Device) {
        let data_offset = RING_OFFSET + u64::from(ring_size);
        let length = data_offset + blocks * BLOCK;
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(length).unwrap();
        let map = || Region::map(&memory, usize::try_from(length).unwrap()).unwrap();
        let region = map();
        region.write(0, &2u16).unwrap();
        region.write(2, &0x000fu16).unwrap();
        region.write(4, &128u32).unwrap();
        region.write(8, &ring_size).unwrap();
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::Datagram,
            None,
            SockFlag::SOCK_NONBLOCK,
        )
        .unwrap();
        let kernel = Kernel {
            region,
            memory: memory.try_clone().unwrap(),
            doorbell: File::from(ours),
            their_doorbell: File::from(theirs.try_clone().unwrap()),
            ring_size,
            head: 0,
            cleaned: 0,
            free_blocks: (0..blocks)
                .map(|block| data_offset + block * BLOCK)
                .collect(),
            pending: BTreeMap::new(),
            entries: BTreeMap::new(),
            scatter: false,
            stale: STALE,
            completed: Vec::new(),
        };
        let device = Device::new(File::from(theirs), map()).unwrap();
        (kernel, device)
    }

    /// The device as the next daemon opens it.
    pub(crate) fn open_again(&self) -> Device {
        let length = usize::try_from(self.region.len()).unwrap();
        let map = Region::map(&self.memory, length).unwrap();
        Device::new(self.their_doorbell.try_clone().unwrap(), map).unwrap()
    }

    /// Where the daemon has its tail.
    pub(crate) fn tail(&self) -> u32 {
        self.region.load_acquire(TAIL).unwrap()
    }

    /// Queues a command and rings. `None` when the ring or the data area is full.
    pub(crate) fn submit(&mut self, cdb: &[u8], buffer: Buffer<'_>) -> Option<u16> {
        self.submit_after(cdb, buffer, |_| {})
    }

    /// Queues a command, as [`Kernel::submit`]; its id is told before it can be seen.
    pub(crate) fn submit_after(
        &mut self,
        cdb: &[u8],
        buffer: Buffer<'_>,
        told: impl FnOnce(u16),
    ) -> Option<u16> {
        let (length, data_in) = match buffer {
            Buffer::None => (0, false),
            Buffer::Out(bytes) => (bytes.len(), false),
            Buffer::In(length) => (length, true),
        };
        let blocks = self.take_blocks(length)?;
        let segments = pieces(&blocks, length as u64);
        let base = (48 + 16 * segments.len()).max(112);
        let size = u32::try_from(base + cdb.len().next_multiple_of(8)).unwrap();
        let Some(at) = self.room_for(size) else {
            self.free_blocks.extend(blocks);
            return None;
        };
        if let Buffer::Out(bytes) = buffer {
            for (block, chunk) in blocks.iter().zip(bytes.chunks(BLOCK_BYTES)) {
                self.region.copy_in(*block, chunk).unwrap();
            }
        } else {
            let stale = [self.stale; BLOCK_BYTES];
            blocks
                .iter()
                .for_each(|&block| self.region.copy_in(block, &stale).unwrap());
        }
        let id = (1..=u16::MAX).find(|id| !self.pending.contains_key(id))?;
        let start = RING_OFFSET + u64::from(at);
        self.region.copy_in(start, &vec![0; size as usize]).unwrap();
        self.write_header(at, size | 1, id);
        self.region
            .write(start + 8, &u32::try_from(segments.len()).unwrap())
            .unwrap();
        self.region
            .write(start + 24, &(start + base as u64))
            .unwrap();
        for (index, (offset, length)) in segments.into_iter().enumerate() {
            self.region
                .write(start + 48 + 16 * index as u64, &offset)
                .unwrap();
            self.region
                .write(start + 56 + 16 * index as u64, &length)
                .unwrap();
        }
        self.region.copy_in(start + base as u64, cdb).unwrap();
        self.pending.insert(
            id,
            Pending {
                blocks,
                length: length as u64,
                data_in,
            },
        );
        told(id);
        self.advance(at, size);
        Some(id)
    }

    /// Queues a task management entry: function by the kernel's number, ids of aborted commands.
    pub(crate) fn task_management(&mut self, function: u8, ids: &[u16]) {
        let size = u32::try_from((32 + 2 * ids.len()).next_multiple_of(8)).unwrap();
        let at = self
            .room_for(size)
            .expect("room for a task management entry");
        let start = RING_OFFSET + u64::from(at);
        self.region.copy_in(start, &vec![0; size as usize]).unwrap();
        self.write_header(at, size | 2, 0);
        self.region.write(start + 8, &function).unwrap();
        self.region
            .write(start + 12, &u32::try_from(ids.len()).unwrap())
            .unwrap();
        for (index, id) in ids.iter().enumerate() {
            self.region
                .write(start + 32 + 2 * index as u64, id)
                .unwrap();
        }
        self.advance(at, size);
    }

    /// Queues an entry with an opcode that no kernel uses yet.
    pub(crate) fn unknown_op(&mut self, op: u32) -> u16 {
        let at = self.room_for(120).expect("room");
        let id = (1..=u16::MAX)
            .find(|id| !self.pending.contains_key(id))
            .unwrap();
        self.region
            .copy_in(RING_OFFSET + u64::from(at), &[0; 120])
            .unwrap();
        self.write_header(at, 120 | op, id);
        self.pending.insert(
            id,
            Pending {
                blocks: Vec::new(),
                length: 0,
                data_in: false,
            },
        );
        self.advance(at, 120);
        id
    }

    /// What writing 1 to `action/reset_ring` does: every command ends, head and tail go to 0.
    pub(crate) fn reset(&mut self) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            self.free_blocks.extend(pending.blocks);
        }
        self.entries.clear();
        self.head = 0;
        self.cleaned = 0;
        self.region.store_release(HEAD, 0).unwrap();
        self.region.store_release(TAIL, 0).unwrap();
    }

    /// Wakes the daemon's side up.
    pub(crate) fn ring_doorbell(&mut self) {
        while self.their_doorbell.read(&mut [0; 4]).is_ok() {}
        self.doorbell.write_all(&[0; 4]).unwrap();
    }

    /// How often the daemon's side rang since the last call.
    pub(crate) fn doorbells(&mut self) -> usize {
        let mut count = 0;
        while self.doorbell.read(&mut [0; 4]).is_ok() {
            count += 1;
        }
        count
    }

    /// Takes the completions that were published, as Linux does.
    pub(crate) fn process(&mut self) -> Vec<Completed> {
        let tail = self.region.load_acquire(TAIL).unwrap();
        assert!(tail < self.ring_size, "the tail lies outside the ring");
        while self.cleaned != tail {
            assert_ne!(self.cleaned, self.head, "the tail passed the head");
            let at = self.cleaned;
            let written = *self
                .entries
                .get(&at)
                .expect("the tail stands on an entry's boundary");
            let start = RING_OFFSET + u64::from(at);
            assert_eq!(
                self.region.read::<u32>(start).unwrap(),
                written,
                "somebody changed len_op"
            );
            if !matches!(written & 7, 0 | 2) {
                let completed = self.take_completion(start);
                self.completed.push(completed);
            }
            self.entries.remove(&at);
            self.cleaned = (at + (written & !7)) % self.ring_size;
        }
        std::mem::take(&mut self.completed)
    }

    /// Waits for the daemon's side until `count` completions have come.
    pub(crate) fn wait_for(&mut self, count: usize) -> Vec<Completed> {
        let mut all = self.process();
        while all.len() < count {
            let mut fds = [PollFd::new(self.doorbell.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(Duration::from_secs(20)).unwrap();
            let ready = poll(&mut fds, timeout).unwrap();
            assert_eq!(
                ready,
                1,
                "{} of {count} answers came within 20 s",
                all.len()
            );
            self.doorbells();
            all.extend(self.process());
        }
        all
    }

    /// Whether every command was answered and the tail has caught up with the head.
    pub(crate) fn idle(&self) -> bool {
        self.pending.is_empty() && self.region.load_acquire(TAIL).unwrap() == self.head
    }

    /// The file behind our end of the doorbell; dropping it is what removal of the device looks like.
    pub(crate) fn into_doorbell(self) -> OwnedFd {
        self.doorbell.into()
    }

    fn take_completion(&mut self, start: u64) -> Completed {
        let id: u16 = self.region.read(start + 4).unwrap();
        let flags: u8 = self.region.read(start + 7).unwrap();
        let pending = self.pending.remove(&id).unwrap_or_else(|| {
            panic!("command id {id} was not found: Linux marks the ring as broken")
        });
        let status: u8 = self.region.read(start + 8).unwrap();
        let read_length: u32 = self.region.read(start + 12).unwrap();
        let sense: [u8; 96] = self.region.read(start + 16).unwrap();
        let valid = flags & 2 != 0 && read_length > 0;
        let data_in = match (pending.data_in, valid) {
            (false, _) => Vec::new(),
            (true, true) => self.gather(&pending, u64::from(read_length).min(pending.length)),
            (true, false) if status == 0 => self.gather(&pending, pending.length),
            (true, false) => Vec::new(),
        };
        self.free_blocks.extend(pending.blocks);
        Completed {
            id,
            status,
            data_in,
            sense,
            unknown_op: flags & 1 != 0,
        }
    }

    fn gather(&self, pending: &Pending, length: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &block in &pending.blocks {
            let mut content = [0; 4096];
            self.region.copy_out(block, &mut content).unwrap();
            bytes.extend(content);
        }
        bytes.truncate(usize::try_from(length).unwrap());
        bytes
    }

    fn take_blocks(&mut self, length: usize) -> Option<Vec<u64>> {
        let count = length.div_ceil(BLOCK_BYTES);
        let stride = if self.scatter { 2 } else { 1 };
        let chosen: Vec<u64> = self
            .free_blocks
            .iter()
            .copied()
            .step_by(stride)
            .take(count)
            .collect();
        if chosen.len() < count {
            return None;
        }
        chosen
            .iter()
            .for_each(|block| assert!(self.free_blocks.remove(block)));
        Some(chosen)
    }

    /// Finds room for an entry, with a pad before it where it would not fit before the ring's end.
    fn room_for(&mut self, size: u32) -> Option<u32> {
        let to_end = self.ring_size - self.head;
        let pad = if size > to_end { to_end } else { 0 };
        let used = (self.head + self.ring_size - self.cleaned) % self.ring_size;
        // As Linux does, one byte is kept free, so that a full ring is not taken for an empty one.
        if used + pad + size >= self.ring_size {
            return None;
        }
        if pad > 0 {
            let at = self.head;
            self.write_header(at, pad, 0);
            self.advance(at, pad);
        }
        Some(self.head)
    }

    fn write_header(&mut self, at: u32, length_and_op: u32, id: u16) {
        let start = RING_OFFSET + u64::from(at);
        self.region.write(start, &length_and_op).unwrap();
        self.region.write(start + 4, &id).unwrap();
        self.region.write(start + 6, &0u16).unwrap();
        self.entries.insert(at, length_and_op);
    }

    fn advance(&mut self, at: u32, size: u32) {
        self.head = (at + size) % self.ring_size;
        self.region.store_release(HEAD, self.head).unwrap();
    }
}

/// Blocks as data pieces: neighbours are merged, the last is as long as what is left.
fn pieces(blocks: &[u64], length: u64) -> Vec<(u64, u64)> {
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    let mut left = length;
    for &block in blocks {
        let here = left.min(BLOCK);
        left -= here;
        match pieces.last_mut() {
            Some((offset, length)) if *offset + *length == block => *length += here,
            _ => pieces.push((block, here)),
        }
    }
    pieces
}
