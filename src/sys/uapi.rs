//! The kernel's structures of the TCMU ring (`linux/target_core_user.h`), as they lie in memory.
//!
//! All integers are in host byte order. Only 64-bit kernels are served: the data pieces of an entry have
//! the layout of a 64-bit `struct iovec` ([`super::region::Segment`]).
//!
//! ```text
//! mailbox    0 version u16   2 flags u16    4 cmdr_off u32   8 cmdr_size u32   12 cmd_head u32
//!           64 cmd_tail u32
//! entry      0 len_op u32    4 cmd_id u16   6 kflags u8      7 uflags u8
//!  request   8 iov_cnt u32  12 iov_bidi_cnt u32  16 iov_dif_cnt u32  24 cdb_off u64   48 iov[]
//!  response  8 scsi_status u8               12 read_len u32  16 sense_buffer [u8; 96]
//!  tmr       8 tmr_type u8                  12 cmd_cnt u32   32 cmd_ids [u16]
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::region::Segment;

const _: () = assert!(
    usize::BITS == 64,
    "the ring carries the kernel's own 64-bit iovec"
);
const _: () = assert!(size_of::<Segment>() == size_of::<libc::iovec>());
const _: () = assert!(size_of::<Mailbox>() == 16);
const _: () = assert!(size_of::<Header>() == 8);
const _: () = assert!(size_of::<Request>() == 48);
const _: () = assert!(size_of::<Response>() == 112);
const _: () = assert!(size_of::<TaskManagement>() == 32);

/// The mailbox version this program speaks (`TCMU_MAILBOX_VERSION`).
pub const MAILBOX_VERSION: u16 = 2;
/// Completions may come in any order (`TCMU_MAILBOX_FLAG_CAP_OOOC`).
pub const CAP_OUT_OF_ORDER: u16 = 0x1;
/// The kernel takes a data-in length from us (`TCMU_MAILBOX_FLAG_CAP_READ_LEN`).
pub const CAP_READ_LENGTH: u16 = 0x2;
/// The kernel can announce task management functions (`TCMU_MAILBOX_FLAG_CAP_TMR`).
pub const CAP_TASK_MANAGEMENT: u16 = 0x4;

/// Where `cmd_head` lies in the mailbox.
pub const HEAD_OFFSET: u64 = 12;
/// Where `cmd_tail` lies in the mailbox: a cache line of its own.
pub const TAIL_OFFSET: u64 = 64;
/// Where the mailbox ends; no ring begins before it.
pub const MAILBOX_LENGTH: u64 = 128;

/// Filler up to the end of the ring (`TCMU_OP_PAD`).
pub const OP_PAD: u32 = 0;
/// A SCSI command (`TCMU_OP_CMD`).
pub const OP_COMMAND: u32 = 1;
/// A task management function that the kernel carried out (`TCMU_OP_TMR`).
pub const OP_TASK_MANAGEMENT: u32 = 2;
/// The bits of `len_op` that hold the opcode; the rest is the length.
pub const OP_MASK: u32 = 0x7;

/// We do not know this entry's opcode (`TCMU_UFLAG_UNKNOWN_OP`).
pub const UNKNOWN_OP: u8 = 0x1;
/// `read_len` of the response holds (`TCMU_UFLAG_READ_LEN`).
pub const READ_LENGTH: u8 = 0x2;

/// The part of the mailbox that is read once, at open.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Mailbox {
    /// [`MAILBOX_VERSION`].
    pub version: u16,
    /// `CAP_…` bits.
    pub flags: u16,
    /// Offset of the ring from the start of the mapping.
    pub ring_offset: u32,
    /// Length of the ring in bytes.
    pub ring_size: u32,
    /// The kernel's next entry, as an offset inside the ring; re-read with acquire ordering.
    pub head: u32,
}

/// What every entry begins with (`struct tcmu_cmd_entry_hdr`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Opcode in the low three bits, length in the others.
    pub length_and_op: u32,
    /// The id to answer with; 0 in pads and task management entries.
    pub command_id: u16,
    /// Flags of the kernel's; none today.
    pub kernel_flags: u8,
    /// Our flags.
    pub user_flags: u8,
}

impl Header {
    /// The opcode.
    pub fn op(&self) -> u32 {
        self.length_and_op & OP_MASK
    }

    /// The length of the entry in bytes.
    pub fn length(&self) -> u32 {
        self.length_and_op & !OP_MASK
    }
}

/// A command entry as the kernel writes it, header included; its data pieces follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Request {
    /// The header.
    pub header: Header,
    /// Data pieces.
    pub segments: u32,
    /// Further pieces: the data-in of a bidirectional command.
    pub bidirectional_segments: u32,
    /// Always 0.
    pub protection_segments: u32,
    /// Unused.
    pub padding: u32,
    /// Offset of the CDB from the start of the mapping.
    pub cdb_offset: u64,
    /// Unused.
    pub reserved: [u64; 2],
}

/// A command entry as we answer it, header included.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Response {
    /// The header; its `length_and_op` must stay what the kernel wrote.
    pub header: Header,
    /// SCSI status.
    pub status: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// Bytes of data-in, if [`READ_LENGTH`] is set.
    pub read_length: u32,
    /// Sense data, copied by the kernel with CHECK CONDITION.
    pub sense: [u8; 96],
}

/// A task management entry, header included; the ids of the commands it aborted follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TaskManagement {
    /// The header.
    pub header: Header,
    /// Which function, by the kernel's numbers.
    pub function: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// How many command ids follow.
    pub commands: u32,
    /// Unused.
    pub reserved: [u64; 2],
}
