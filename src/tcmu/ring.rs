//! The command ring of one device: entries out, completions in.
//!
//! Owns the daemon's side of the ring. The kernel publishes `cmd_head`, we publish `cmd_tail`; between the
//! two lie the entries it waits for. Three positions, in ring order `tail <= read <= head`:
//!
//! ```text
//!        tail            read            head
//!   ───────┬───────────────┬───────────────┬───────
//!   free   │ taken, not    │ not looked    │ free
//!          │ all answered  │ at yet        │
//! ```
//!
//! Rules that this module keeps, whatever the other side does:
//!
//! - An entry is copied out whole when it is taken. Completions may come in any order, so the slot at `tail`,
//!   into which the next response goes, belongs to some other command that is still running.
//! - We write into no byte at or beyond `read`, never into the head, never into an entry's length.
//! - `cmd_tail` only moves to entry boundaries that were taken: their lengths are remembered here and not
//!   read again from memory that the other side can write.
//! - What does not parse stops the ring with a [`Broken`] error: nothing is guessed.
//!
//! It never performs a command and knows no SCSI beyond "a CDB is bytes".

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::sys::region::{Data, OutOfBounds, Region, Segment};
use crate::sys::uapi;

/// The longest CDB that is copied out of an entry. No command served here is longer than 16 bytes.
pub const CDB_LENGTH_MAX: usize = 32;

/// As many data pieces as an entry can have: one per page of the largest data area the kernel grants.
const SEGMENTS_MAX: u32 = 1 << 20;

/// How many lists of data pieces are kept to be used again, and how long each may be.
const SPARE_LISTS_MAX: usize = 256;
const SPARE_LIST_LENGTH_MAX: usize = 256;

/// Where a word of a command entry lies that nobody uses, and what we write there when we take the entry. The kernel
/// zeroes an entry before it fills it: a slot without the stamp is not the one that was taken.
const STAMP_OFFSET: u64 = 32;
const STAMP: u64 = 0x7463_6d75_2d70_7221;

/// A device whose mailbox we can't work with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The mailbox has another layout.
    #[error("the mailbox has version {0}, this program speaks version {expected}", expected = uapi::MAILBOX_VERSION)]
    Version(u16),
    /// The kernel is too old.
    #[error("the kernel's ring lacks features (flags {0:#x}): Linux 5.9 or later is needed")]
    Flags(u16),
    /// The mailbox describes a ring that does not fit in the mapping.
    #[error(
        "the mailbox describes {size} bytes of ring at offset {offset} in a mapping of {mapping}"
    )]
    Layout {
        /// Where the ring would begin.
        offset: u32,
        /// Its length.
        size: u32,
        /// The length of the mapping.
        mapping: u64,
    },
    /// The mapping is shorter than a mailbox.
    #[error(transparent)]
    OutOfBounds(#[from] OutOfBounds),
}

/// The ring holds something that no kernel writes. The device cannot be served any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The head is no entry boundary inside the ring.
    #[error(
        "the kernel's head is {head:#x} in a ring of {size:#x} bytes, with our read position {read:#x}"
    )]
    Head {
        /// `cmd_head` as it was read.
        head: u32,
        /// Where we are.
        read: u32,
        /// The length of the ring.
        size: u32,
    },
    /// An entry's length is impossible.
    #[error("the entry at {at:#x} has length {length} and opcode {op}")]
    Entry {
        /// Its offset in the ring.
        at: u32,
        /// Its length.
        length: u32,
        /// Its opcode.
        op: u32,
    },
    /// The CDB lies outside its entry.
    #[error("the entry at {at:#x} has its CDB at offset {cdb:#x}, outside of it")]
    Cdb {
        /// The entry's offset in the ring.
        at: u32,
        /// The CDB's offset in the mapping.
        cdb: u64,
    },
    /// Its list of data pieces or ids is longer than the entry.
    #[error("the entry at {at:#x} lists {count} items, more than fit in it")]
    List {
        /// The entry's offset in the ring.
        at: u32,
        /// How many it lists.
        count: u64,
    },
    /// A data piece lies outside the data area.
    #[error("the entry at {at:#x} points outside the data area")]
    Data {
        /// The entry's offset in the ring.
        at: u32,
        /// Where it points.
        #[source]
        source: OutOfBounds,
    },
    /// An id came a second time while its first command is not answered.
    #[error("the entry at {at:#x} repeats command id {id}, which is not answered yet")]
    RepeatedId {
        /// The entry's offset in the ring.
        at: u32,
        /// The id.
        id: u16,
    },
}

/// Why [`Ring::pop`] and [`Ring::publish`] stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// The administrator reset the ring (`action/reset_ring`): the kernel has answered every command that
    /// was taken. [`Ring::restart`] goes on with what came since.
    #[error("the ring was reset")]
    Reset,
    /// The ring can't be served any more.
    #[error("the ring is broken")]
    Broken(#[from] Broken),
}

impl From<OutOfBounds> for Interrupted {
    fn from(_: OutOfBounds) -> Interrupted {
        unreachable!("Ring::open checked that mailbox and ring lie inside the mapping")
    }
}

/// Which command an answer is for. Ids are reused at once; the epoch tells commands from before a reset of the
/// ring from those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId {
    /// The kernel's id.
    pub id: u16,
    /// How often the ring had been reset when the command was taken.
    pub epoch: u32,
}

/// A command as it was taken from the ring: an owned copy, except for the data, which stays in the data area.
#[derive(Debug)]
pub struct Command {
    /// What to answer to.
    pub id: CommandId,
    /// The CDB, zero-padded. The ring does not carry its length.
    pub cdb: [u8; CDB_LENGTH_MAX],
    /// The data buffer: data-in or data-out, the ring does not say which.
    pub data: Data,
    /// There is a second buffer, for data-in.
    pub bidirectional: bool,
}

/// A task management function that the kernel carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskManagement {
    /// Which one.
    pub function: Function,
    /// The ids of the commands that it aborted and that were not answered.
    pub commands: Vec<u16>,
}

/// Task management functions, by the kernel's numbers (`enum tcmu_tmr_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// ABORT TASK.
    AbortTask,
    /// LOGICAL UNIT RESET.
    LogicalUnitReset,
    /// TARGET WARM RESET or TARGET COLD RESET. Linux 6.12 rejects them before they come here.
    TargetReset,
    /// Any other; none is sent today.
    Other(u8),
}

/// What [`Ring::pop`] gives.
#[derive(Debug)]
pub enum Entry {
    /// A command, to be answered with [`Ring::complete`].
    Command(Command),
    /// Not to be answered.
    TaskManagement(TaskManagement),
}

/// The answer to one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion<'a> {
    /// SCSI status.
    pub status: u8,
    /// How many bytes of the data buffer are data-in, where that is fewer than the buffer holds and not 0
    /// (the kernel takes 0 for "the whole buffer").
    pub data_in_length: Option<u32>,
    /// Sense data; the kernel passes it on with CHECK CONDITION.
    pub sense: &'a [u8],
}

/// What lies between tail and read position.
#[derive(Clone, Copy, Debug)]
struct Slot {
    length: u32,
    /// A response goes here; otherwise the tail just steps over it.
    answerable: bool,
}

/// The ring of one device.
#[derive(Debug)]
pub struct Ring {
    region: Arc<Region>,
    ring_offset: u64,
    ring_size: u32,
    data_area: Range<u64>,
    /// `cmd_tail` as we last stored it.
    published: u32,
    /// What `cmd_tail` becomes with the next [`Ring::publish`].
    tail: u32,
    read: u32,
    /// `cmd_head` as we last loaded it.
    head: u32,
    slots: VecDeque<Slot>,
    /// A slot was found that is not the one that was taken.
    was_reset: bool,
    unanswered: Unanswered,
    epoch: u32,
    /// Lists of data pieces, to be used again.
    spare: Vec<Vec<Segment>>,
}

impl Ring {
    /// Takes the ring of a mapped device, from its tail on.
    pub fn open(region: Arc<Region>) -> Result<Ring, OpenError> {
        let mailbox: uapi::Mailbox = region.read(0)?;
        let tail = region.load_acquire(uapi::TAIL_OFFSET)?;
        let needed = uapi::CAP_OUT_OF_ORDER | uapi::CAP_READ_LENGTH | uapi::CAP_TASK_MANAGEMENT;
        if mailbox.version != uapi::MAILBOX_VERSION {
            return Err(OpenError::Version(mailbox.version));
        }
        if mailbox.flags & needed != needed {
            return Err(OpenError::Flags(mailbox.flags));
        }
        let ring_offset = u64::from(mailbox.ring_offset);
        let ring_end = ring_offset + u64::from(mailbox.ring_size);
        if ring_offset < uapi::MAILBOX_LENGTH
            || ring_offset % 8 != 0
            || mailbox.ring_size == 0
            || mailbox.ring_size % 8 != 0
            || ring_end > region.len()
            || tail >= mailbox.ring_size
            || tail % 8 != 0
        {
            return Err(OpenError::Layout {
                offset: mailbox.ring_offset,
                size: mailbox.ring_size,
                mapping: region.len(),
            });
        }
        let data_area = ring_end..region.len();
        Ok(Ring {
            region,
            ring_offset,
            ring_size: mailbox.ring_size,
            data_area,
            published: tail,
            tail,
            read: tail,
            head: tail,
            slots: VecDeque::new(),
            was_reset: false,
            unanswered: Unanswered::new(),
            epoch: 0,
            spare: Vec::new(),
        })
    }

    /// Takes the next entry, or `None` when there is none.
    ///
    /// Filler ends here, and an entry whose opcode we don't know is answered here.
    pub fn pop(&mut self) -> Result<Option<Entry>, Interrupted> {
        loop {
            if self.read == self.head && !self.look_for_more()? {
                return Ok(None);
            }
            let at = self.read;
            let header: uapi::Header = self.region.read(self.position(at))?;
            self.check_entry(at, header)?;
            let entry = match header.op() {
                uapi::OP_COMMAND => Some(Entry::Command(self.command(at, header)?)),
                uapi::OP_TASK_MANAGEMENT => {
                    Some(Entry::TaskManagement(self.task_management(at, header)?))
                }
                _ => None,
            };
            let answerable = !matches!(header.op(), uapi::OP_PAD | uapi::OP_TASK_MANAGEMENT);
            if answerable {
                self.region
                    .write(self.position(at) + STAMP_OFFSET, &STAMP)?;
            }
            self.read = self.after(at, header.length());
            self.slots.push_back(Slot {
                length: header.length(),
                answerable,
            });
            if entry.is_some() {
                self.step_over_fillers();
                return Ok(entry);
            }
            if answerable {
                self.respond(header.command_id, uapi::UNKNOWN_OP, &Completion::NONE)?;
            }
            self.step_over_fillers();
        }
    }

    /// Whether it is worth a [`Ring::pop`]: a look that takes nothing.
    pub fn has_more(&self) -> bool {
        let head = self.region.load_acquire(uapi::HEAD_OFFSET);
        head != Ok(self.read)
    }

    /// Answers a command. It is seen by the kernel with the next [`Ring::publish`].
    ///
    /// An answer from before a reset of the ring is dropped: the kernel has given one itself.
    pub fn complete(&mut self, command: CommandId, completion: &Completion<'_>) {
        if command.epoch != self.epoch {
            return;
        }
        assert!(
            self.unanswered.remove(command.id),
            "a command is answered once"
        );
        let flags = if completion.data_in_length.is_some() {
            uapi::READ_LENGTH
        } else {
            0
        };
        self.respond(command.id, flags, completion)
            .expect("every slot was checked to hold a response when it was taken");
        self.step_over_fillers();
    }

    /// Takes the buffer of a command that was answered: its memory is used again for others.
    pub fn reuse(&mut self, data: Data) {
        let mut segments = data.into_segments();
        let is_of_use = (1..=SPARE_LIST_LENGTH_MAX).contains(&segments.capacity());
        if is_of_use && self.spare.len() < SPARE_LISTS_MAX {
            segments.clear();
            self.spare.push(segments);
        }
    }

    /// Makes the answers given since the last call visible. Tells whether the kernel should be kicked.
    pub fn publish(&mut self) -> Result<bool, Interrupted> {
        if self.tail == self.published && !self.was_reset {
            return Ok(false);
        }
        self.check_for_reset()?;
        // Release: the kernel may look at the tail at any time, and must find the responses before it.
        self.region.store_release(uapi::TAIL_OFFSET, self.tail)?;
        self.published = self.tail;
        Ok(true)
    }

    /// Goes on after a reset of the ring: what was taken before is forgotten.
    pub fn restart(&mut self) {
        self.published = 0;
        self.tail = 0;
        self.read = 0;
        self.head = 0;
        self.slots.clear();
        self.was_reset = false;
        self.unanswered = Unanswered::new();
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// How many commands were taken and not answered.
    pub fn unanswered(&self) -> usize {
        self.unanswered.count
    }

    /// The tail, if somebody else could go on from there: all that was taken is answered, and the kernel can see it.
    pub fn at_rest(&self) -> Option<u32> {
        let at_rest = self.read == self.tail && self.unanswered.count == 0 && !self.was_reset;
        let seen = self.region.load_acquire(uapi::TAIL_OFFSET);
        (at_rest && self.tail == self.published && seen == Ok(self.tail)).then_some(self.tail)
    }

    /// Loads the head. Tells whether there is an entry to take.
    fn look_for_more(&mut self) -> Result<bool, Interrupted> {
        // Acquire: the entries before the head were written before it. The tail afterwards: a reset stores it first.
        let head = self.region.load_acquire(uapi::HEAD_OFFSET)?;
        self.check_for_reset()?;
        let taken = self.distance(self.tail, self.read);
        // Only a reset brings the head back to the start while entries from there on are taken.
        if head == 0 && self.published == 0 && taken > 0 {
            return Err(Interrupted::Reset);
        }
        if head >= self.ring_size || head % 8 != 0 || self.distance(self.tail, head) < taken {
            return Err(Broken::Head {
                head,
                read: self.read,
                size: self.ring_size,
            }
            .into());
        }
        self.head = head;
        Ok(head != self.read)
    }

    /// Only `reset_ring` makes `cmd_tail` differ from what we stored there, or puts other entries where ours were.
    fn check_for_reset(&self) -> Result<(), Interrupted> {
        let tail = self.region.load_acquire(uapi::TAIL_OFFSET)?;
        if self.was_reset || tail != self.published {
            return Err(Interrupted::Reset);
        }
        Ok(())
    }

    /// The entry lies between read position and head and does not wrap; one to be answered has room for it.
    fn check_entry(&self, at: u32, header: uapi::Header) -> Result<(), Broken> {
        let length = header.length();
        let available = if at < self.head {
            self.head - at
        } else {
            self.ring_size - at
        };
        let least = match header.op() {
            uapi::OP_PAD => 8,
            uapi::OP_TASK_MANAGEMENT => size_of::<uapi::TaskManagement>(),
            _ => size_of::<uapi::Response>(),
        };
        if length % 8 != 0 || (length as usize) < least || length > available {
            return Err(Broken::Entry {
                at,
                length,
                op: header.op(),
            });
        }
        Ok(())
    }

    fn command(&mut self, at: u32, header: uapi::Header) -> Result<Command, Interrupted> {
        let start = self.position(at);
        let end = start + u64::from(header.length());
        let request: uapi::Request = self.region.read(start)?;
        let count = u64::from(request.segments) + u64::from(request.bidirectional_segments);
        let list = start + size_of::<uapi::Request>() as u64;
        let list_end = list + count * size_of::<Segment>() as u64;
        if list_end > end || request.segments > SEGMENTS_MAX {
            return Err(Broken::List { at, count }.into());
        }
        let cdb_at = request.cdb_offset;
        if cdb_at < list_end || cdb_at >= end {
            return Err(Broken::Cdb { at, cdb: cdb_at }.into());
        }
        let mut cdb = [0; CDB_LENGTH_MAX];
        let present =
            usize::try_from(end - cdb_at).map_or(CDB_LENGTH_MAX, |n| n.min(CDB_LENGTH_MAX));
        self.region.copy_out(cdb_at, &mut cdb[..present])?;
        let mut segments = self.spare.pop().unwrap_or_default();
        for index in 0..u64::from(request.segments) {
            let at = list + index * size_of::<Segment>() as u64;
            segments.push(self.region.read(at)?);
        }
        let data = Data::new(&self.region, segments, self.data_area.clone())
            .map_err(|source| Broken::Data { at, source })?;
        if !self.unanswered.insert(header.command_id) {
            return Err(Broken::RepeatedId {
                at,
                id: header.command_id,
            }
            .into());
        }
        Ok(Command {
            id: CommandId {
                id: header.command_id,
                epoch: self.epoch,
            },
            cdb,
            data,
            bidirectional: request.bidirectional_segments != 0,
        })
    }

    fn task_management(
        &self,
        at: u32,
        header: uapi::Header,
    ) -> Result<TaskManagement, Interrupted> {
        let start = self.position(at);
        let entry: uapi::TaskManagement = self.region.read(start)?;
        let list = size_of::<uapi::TaskManagement>() as u64;
        let count = u64::from(entry.commands);
        if list + count * 2 > u64::from(header.length()) {
            return Err(Broken::List { at, count }.into());
        }
        let commands = (0..count)
            .map(|index| self.region.read(start + list + index * 2))
            .collect::<Result<Vec<u16>, OutOfBounds>>()?;
        let function = match entry.function {
            1 => Function::AbortTask,
            5 => Function::LogicalUnitReset,
            6 | 7 => Function::TargetReset,
            other => Function::Other(other),
        };
        Ok(TaskManagement { function, commands })
    }

    /// Writes a response into the slot at the tail, whichever command came in it, and moves the tail on.
    fn respond(
        &mut self,
        id: u16,
        flags: u8,
        completion: &Completion<'_>,
    ) -> Result<(), OutOfBounds> {
        let slot = self
            .slots
            .pop_front()
            .expect("as many slots as unanswered commands");
        debug_assert!(slot.answerable, "fillers are stepped over at once");
        let at = self.position(self.tail);
        self.was_reset |= self.region.read::<u64>(at + STAMP_OFFSET)? != STAMP;
        if self.was_reset {
            return Ok(());
        }
        let header: uapi::Header = self.region.read(at)?;
        let mut response = uapi::Response {
            header: uapi::Header {
                command_id: id,
                user_flags: flags,
                ..header
            },
            status: completion.status,
            padding: [0; 3],
            read_length: completion.data_in_length.unwrap_or(0),
            sense: [0; 96],
        };
        let sense = completion.sense.len().min(response.sense.len());
        response.sense[..sense].copy_from_slice(&completion.sense[..sense]);
        // The entry's length and opcode are the kernel's: the copy begins behind them.
        let bytes = zerocopy::IntoBytes::as_bytes(&response);
        self.region.copy_in(at + 4, &bytes[4..])?;
        self.tail = self.after(self.tail, slot.length);
        Ok(())
    }

    /// Moves the tail over pads and task management entries that were taken: without it head and tail would
    /// never meet.
    fn step_over_fillers(&mut self) {
        while let Some(Slot {
            length,
            answerable: false,
        }) = self.slots.front().copied()
        {
            self.slots.pop_front();
            self.tail = self.after(self.tail, length);
        }
    }

    /// The offset in the mapping of an offset in the ring.
    fn position(&self, at: u32) -> u64 {
        self.ring_offset + u64::from(at)
    }

    fn after(&self, at: u32, length: u32) -> u32 {
        let next = at + length;
        if next == self.ring_size { 0 } else { next }
    }

    /// How far `to` lies ahead of `from` in ring order.
    fn distance(&self, from: u32, to: u32) -> u32 {
        if to >= from {
            to - from
        } else {
            to + (self.ring_size - from)
        }
    }
}

/// The ids of the commands that were taken and not answered: a bit for each of the 65,536.
#[derive(Debug)]
struct Unanswered {
    ids: Vec<u64>,
    count: usize,
}

impl Unanswered {
    fn new() -> Unanswered {
        Unanswered {
            ids: vec![0; (1 << 16) / 64],
            count: 0,
        }
    }

    /// Tells whether the id was not there yet.
    fn insert(&mut self, id: u16) -> bool {
        let (word, bit) = self.place(id);
        let new = *word & bit == 0;
        *word |= bit;
        self.count += usize::from(new);
        new
    }

    /// Tells whether the id was there.
    fn remove(&mut self, id: u16) -> bool {
        let (word, bit) = self.place(id);
        let there = *word & bit != 0;
        *word &= !bit;
        self.count -= usize::from(there);
        there
    }

    fn place(&mut self, id: u16) -> (&mut u64, u64) {
        (&mut self.ids[usize::from(id / 64)], 1 << (id % 64))
    }
}

impl Completion<'_> {
    /// Nothing to say: the answer is in the entry's flags.
    const NONE: Completion<'static> = Completion {
        status: 0,
        data_in_length: None,
        sense: &[],
    };
}
