//! The kernel's side of the nexus tap, in memory: its three arrays, and what its programs write into them, byte by
//! byte.
//!
//! A session gets a slot with its first command; the slot is free again, for the last in line, when the session
//! ends. While the kernel queues a command it holds a mutex, which it also needs for whatever else happens to the ring,
//! and for a kick: a note that is late is made before any of that is done.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, send};
use tcmu_pr::nexus::tap::Notes;
use tcmu_pr::sys::region::Region;
use tcmu_pr::tcmu::Device;

use crate::kernel::{Buffer, Kernel};

const DEVICES: usize = 256;
const IDS: usize = 8192;
const SLOTS: u16 = 4096;
const SESSION: usize = 584;

/// When a command is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noting {
    /// Before it can be seen.
    Early,
    /// After that, while the mutex is still held.
    Late,
    /// The programs do not run.
    Never,
}

/// Who a session is, as the kernel spells it.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) fabric: &'static str,
    pub(crate) target: &'static str,
    pub(crate) group: &'static str,
    pub(crate) initiator: String,
    pub(crate) isid: Option<[u8; 6]>,
}

/// A session that is logged in.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Where the kernel has it: no two have the same.
    pub(crate) address: u64,
    pub(crate) who: Who,
    pub(crate) read_only: bool,
}

pub(crate) struct Tap {
    id: u32,
    notes: Arc<Region>,
    devices: Arc<Region>,
    sessions: Arc<Region>,
    /// Slot and generation, by address.
    known: BTreeMap<u64, (u16, u32)>,
    free: VecDeque<u16>,
}

impl Tap {
    pub(crate) fn new() -> Tap {
        Tap::with_slots(SLOTS - 1)
    }

    /// A tap with fewer slots than the kernel's, so that they are used again sooner.
    pub(crate) fn with_slots(slots: u16) -> Tap {
        let region = |length| Arc::new(Region::anonymous(length).unwrap());
        static LAST_ID: AtomicU32 = AtomicU32::new(0);
        Tap {
            id: LAST_ID.fetch_add(1, Ordering::Relaxed) + 1,
            notes: region(DEVICES * IDS * 8),
            devices: region(DEVICES * 24),
            sessions: region(usize::from(SLOTS) * SESSION),
            known: BTreeMap::new(),
            free: (1..=slots).collect(),
        }
    }

    /// What the daemon has mapped.
    pub(crate) fn notes(&self) -> Notes {
        let arrays = [&self.notes, &self.devices, &self.sessions];
        let [notes, devices, sessions] = arrays.map(Arc::clone);
        Notes::new(self.id, notes, devices, sessions).unwrap()
    }

    /// The session ends.
    pub(crate) fn logout(&mut self, session: &Session) {
        if let Some((slot, generation)) = self.known.remove(&session.address) {
            let at = u64::from(slot) * SESSION as u64;
            let next = generation.wrapping_add(1);
            self.sessions.store_release(at, next).unwrap();
            self.free.push_back(slot);
        }
    }

    /// The slot of a session that has sent a command.
    pub(crate) fn slot(&self, session: &Session) -> u16 {
        self.known[&session.address].0
    }

    /// The note of a command of that session, without its number.
    fn word(&mut self, session: &Session) -> u64 {
        let (slot, generation) = match self.known.get(&session.address) {
            Some(&known) => known,
            None => self.learn(session),
        };
        u64::from(slot) << 32
            | u64::from(generation & 0xffff) << 44
            | u64::from(session.read_only) << 60
    }

    fn learn(&mut self, session: &Session) -> (u16, u32) {
        let slot = self.free.pop_front().unwrap();
        let at = u64::from(slot) * SESSION as u64;
        let write = |offset: u64, bytes: &[u8]| self.sessions.copy_in(at + offset, bytes).unwrap();
        let who = &session.who;
        write(4, &[u8::from(who.isid.is_some())]);
        write(5, &who.isid.unwrap_or_default());
        for (offset, text) in [
            (12, who.fabric),
            (44, who.target),
            (300, who.group),
            (328, &who.initiator),
        ] {
            write(offset, text.as_bytes());
            write(offset + text.len() as u64, &[0]);
        }
        let known = (slot, self.sessions.load_acquire(at).unwrap());
        self.known.insert(session.address, known);
        known
    }

    /// Counts a reset of a device's ring: bytes 4-7 of its entry.
    fn count_reset(&self, minor: u32) {
        let at = u64::from(minor) * 24 + 4;
        let resets = self.devices.load_acquire(at).unwrap().wrapping_add(1);
        self.devices.store_release(at, resets).unwrap();
    }

    fn write_note(&self, minor: u32, id: u16, word: u64) {
        let device = u64::from(minor) * 24;
        let number = self.devices.load_acquire(device).unwrap().wrapping_add(1);
        self.devices.store_release(device, number).unwrap();
        let at = (u64::from(minor) * IDS as u64 + u64::from(id)) * 8;
        let note = word | u64::from(number);
        self.notes.copy_in(at, &note.to_le_bytes()).unwrap();
    }
}

/// A device whose commands are noted.
pub(crate) struct Port {
    pub(crate) kernel: Kernel,
    pub(crate) minor: u32,
    /// The daemon's end of the doorbell, and the number that it has there.
    theirs: OwnedFd,
    number: RawFd,
    /// Id and note of the command whose note is late.
    late: Option<(u16, u64)>,
    kicks: usize,
    /// What lies in the doorbell only so that a kick has to wait.
    fill: usize,
}

impl Port {
    pub(crate) fn new(minor: u32) -> (Port, Device) {
        let (kernel, device) = Kernel::new(1 << 14, 64);
        let port = Port {
            kernel,
            minor,
            theirs: device.doorbell().try_clone_to_owned().unwrap(),
            number: device.doorbell().as_raw_fd(),
            late: None,
            kicks: 0,
            fill: 0,
        };
        (port, device)
    }

    /// The device, opened by another daemon.
    pub(crate) fn open_again(&mut self) -> Device {
        let device = self.kernel.open_again();
        self.theirs = device.doorbell().try_clone_to_owned().unwrap();
        self.number = device.doorbell().as_raw_fd();
        device
    }

    /// Queues a command of that session. `None` when the ring or the data area is full.
    pub(crate) fn submit(
        &mut self,
        tap: &mut Tap,
        session: &Session,
        (cdb, buffer): (&[u8], Buffer<'_>),
        noting: Noting,
    ) -> Option<u16> {
        self.note_late(tap);
        match noting {
            Noting::Never => self.kernel.submit(cdb, buffer),
            Noting::Early => {
                let word = tap.word(session);
                let told = |id| tap.write_note(self.minor, id, word);
                self.kernel.submit_after(cdb, buffer, told)
            }
            Noting::Late => {
                let id = self.kernel.submit(cdb, buffer)?;
                self.late = Some((id, tap.word(session)));
                Some(id)
            }
        }
    }

    /// Queues a task management entry, which is not noted.
    pub(crate) fn task_management(&mut self, tap: &Tap, function: u8) {
        self.note_late(tap);
        self.kernel.task_management(function, &[]);
    }

    /// Resets the ring.
    pub(crate) fn reset(&mut self, tap: &Tap) {
        self.note_late(tap);
        self.kernel.reset();
        tap.count_reset(self.minor);
    }

    /// How often the daemon has kicked since the last call.
    pub(crate) fn kicks(&mut self) -> usize {
        self.take_kicks();
        std::mem::take(&mut self.kicks)
    }

    /// Makes the note that is late, if one is.
    pub(crate) fn note_late(&mut self, tap: &Tap) {
        if let Some((id, word)) = self.late.take() {
            tap.write_note(self.minor, id, word);
        }
    }

    fn take_kicks(&mut self) {
        self.kicks += self.kernel.doorbells() - std::mem::take(&mut self.fill);
    }

    /// Makes kicks wait from now on.
    fn hold_mutex(&mut self) {
        self.take_kicks();
        fcntl(&self.theirs, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        loop {
            match send(self.theirs.as_raw_fd(), &[0; 4], MsgFlags::MSG_DONTWAIT) {
                Ok(_) => self.fill += 1,
                Err(Errno::EAGAIN) => break,
                Err(errno) => panic!("{errno}"),
            }
        }
    }

    fn release_mutex(&mut self) {
        fcntl(&self.theirs, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        self.take_kicks();
    }
}

/// Says that it is over, even if what was tried has panicked.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Lets the worker take a turn on this thread. Where a note is late, it is made only once the worker waits for its
/// kick to return.
pub(crate) fn during<T>(tap: &Tap, ports: &mut [Port], turn: impl FnOnce() -> T) -> T {
    let mut held: Vec<&mut Port> = ports.iter_mut().filter(|p| p.late.is_some()).collect();
    if held.is_empty() {
        return turn();
    }
    held.iter_mut().for_each(|port| port.hold_mutex());
    let this = Path::new("/proc").join(fs::read_link("/proc/thread-self").unwrap());
    let over = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let number = waits_to_write(&this);
                match held.iter_mut().find(|port| Some(port.number) == number) {
                    Some(port) => {
                        port.note_late(tap);
                        port.take_kicks();
                    }
                    None => thread::yield_now(),
                }
            }
        });
        turn()
    });
    held.into_iter().for_each(Port::release_mutex);
    result
}

/// The descriptor to which a thread waits to write.
fn waits_to_write(thread: &Path) -> Option<RawFd> {
    // The number of the system call, and what was passed to it; "running" while it does not wait.
    let call = fs::read_to_string(thread.join("syscall")).unwrap();
    let mut words = call.split_ascii_whitespace();
    let write = libc::SYS_write.to_string();
    let descriptor = words
        .next()
        .filter(|&call| call == write)
        .and(words.next())?;
    RawFd::from_str_radix(descriptor.strip_prefix("0x")?, 16).ok()
}
