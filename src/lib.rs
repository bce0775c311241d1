//! tcmu-pr: a Linux TCMU backstore handler that answers SCSI-3 persistent reservations in user space.
//!
//! # The map
//!
//! The modules in reading order. A module imports from those above it, and of those from the ones named
//! beside it: so nothing ever points back down.
//!
//! | module | holds | imports |
//! |---|---|---|
//! | [`scsi`] | what T10 says: bytes ⇄ values, and the table of commands | |
//! | [`pr`] | persistent reservations: a value, and functions on it | `scsi` |
//! | [`sys`] | the one room for `unsafe`: shared memory, the kernel's structures | |
//! | [`store`] | blocks on a file, records on a disk; knows no SCSI | `sys` |
//! | [`lu`] | a logical unit, where commands, reservations and blocks meet | `pr`, `scsi`, `store`, `sys` |
//! | [`tcmu`] | the kernel's side: rings, devices, messages, the target configuration | `sys` |
//! | [`nexus`] | who sent a command | `scsi`, `sys`, `tcmu` |
//! | [`history`] | the audit trail of the fence, a file for each logical unit | `pr`, `scsi` |
//! | [`control`] | what an operator touches: the bus, systemd, the log, the status, the configuration file | `history`, `tcmu` |
//! | [`daemon`] | the threads: the main loop, and a worker for each logical unit | `control`, `history`, `lu`, `nexus`, `pr`, `scsi`, `store`, `sys`, `tcmu` |
//! | [`cli`] | the command line | `control`, `history`, `nexus`, `scsi`, `tcmu` |
//!
//! `main` puts [`cli`], [`control`] and [`daemon`] together. `tests/tidy.rs` holds the code to this table: an
//! import that it does not name fails, and so does a name that nothing imports any more.
//!
//! `scsi` and `pr` do no I/O at all: bytes and values in, bytes and values out. `lu` and `tcmu` do not know
//! each other; the worker translates, and so a test can stand in for either.
//!
//! # The way of a command
//!
//! Seven steps, all on the one thread that owns the logical unit ([`daemon::worker`]). None calls back to an
//! earlier one.
//!
//! 1. The worker wakes, and [`Ring::pop`](tcmu::ring::Ring::pop) copies an entry out. Filler ends here; an entry
//!    of an unknown kind is answered here.
//! 2. The tap's note tells who sent it, or the port that it came through ([`nexus`]). If nobody knows, the answer is BUSY.
//!    Otherwise the command becomes a [`Task`](lu::task::Task), which is owed an answer.
//! 3. [`LogicalUnit::begin`](lu::LogicalUnit::begin) finds its [`Row`](scsi::commands::Row) and admits it: pending
//!    unit attentions, then the [gate](pr::gate) of the reservations, in SAM's order.
//! 4. [`Row::decode`](scsi::commands::Row::decode) reads the fields; write protection and range are checked.
//! 5. It is executed, and a [`Step`](lu::Step) comes out: an answer, I/O to be done, or a change of the
//!    reservations to be stored.
//! 6. The worker does what the step asks. I/O goes to the [`Store`](store::Store) and comes back to
//!    [`LogicalUnit::finish`](lu::LogicalUnit::finish). A [`Change`](pr::Change) goes to the
//!    [`Recorder`](daemon::recorder::Recorder), and once it is stored, [`LogicalUnit::stored`](lu::LogicalUnit::stored)
//!    puts it in force; its answer waits until nothing is in flight any more that the new reservations refuse, and comes
//!    from [`LogicalUnit::next_step`](lu::LogicalUnit::next_step).
//! 7. [`Ring::complete`](tcmu::ring::Ring::complete) writes the answer; one publication and one kick per ring and
//!    turn of the loop.

pub mod cli;
pub mod control;
pub mod daemon;
pub mod history;
pub mod lu;
pub mod nexus;
pub mod pr;
pub mod scsi;
pub mod store;
pub mod sys;
pub mod tcmu;
