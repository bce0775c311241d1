//! EXTENDED COPY: segments, one after the other, each in chunks.
//!
//! A chunk is one operation of the store. Before each, everything is judged anew that can have changed since the last:
//! whether the command has been aborted, what the reservations say, what is write protected, what is where. So a
//! change of the reservations waits for the chunk that is being copied, and stops the next.
//!
//! What another unit has to do with a chunk, that unit judges ([`lend`](super::lend)): it is asked with
//! [`Step::Ask`], and what it lends is given back with the end of the chunk. Nothing is held back for a copy between
//! units: a chunk that meets a command that must be alone where it works, here or there, ends the copy. So none waits
//! for another while it has something that a third waits for.

use std::ops::Range;

use slab::Slab;

use super::lend::{Lent, Role, Wish};
use super::task::{Pending, Response, Task, Told};
use super::{LogicalUnit, Nexus, NexusId, Step};
use crate::scsi::commands::Row;
use crate::scsi::copy::{self, Amount, CopyState, CopyStatus, List, Segment};
use crate::scsi::inquiry::Naa;
use crate::scsi::sense::{Field, Sense};
use crate::scsi::{Access, Blocks, Lba};
use crate::store::{Cancellation, Failure, Lane, Operation, Outcome, Place, Request};
use crate::sys::region::Data;

/// How much is copied at a time: for so long, whoever takes access away waits.
const CHUNK: u64 = 4 << 20;

/// How far a copy has come.
#[derive(Debug)]
pub(super) struct Copying {
    nexus: NexusId,
    list: List,
    /// The number of the segment that is being processed.
    segment: u16,
    /// How many bytes of it are done.
    done: u64,
    /// How many bytes are done in all.
    bytes: u32,
    /// What is being copied of it.
    chunk: Option<Chunk>,
    /// What has been lent for the chunk: source and destination.
    lent: [Option<Lent>; 2],
}

/// A copy that waits to know what another unit says to its next chunk. [`LogicalUnit::asked`] takes it back.
#[derive(Debug)]
pub struct Asking {
    pending: Pending,
    data: Data,
    role: Role,
}

/// Where a source or a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// In this unit.
    Own,
    /// In the unit of that name.
    Peer(Naa),
}

/// A segment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    source: (Side, u64),
    destination: (Side, u64),
    length: u64,
}

/// A part of a segment.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    run: Run,
    /// The segment is done with it.
    is_last: bool,
}

impl Run {
    /// The next chunk, when `done` bytes have been copied. Where a segment would overwrite what it has not read yet, the
    /// last chunk comes first.
    fn chunk(self, done: u64) -> Chunk {
        let length = CHUNK.min(self.length - done);
        let (from, to) = (self.source.1, self.destination.1);
        let is_within_one = self.source.0 == self.destination.0;
        let backwards = is_within_one && from < to && to - from < self.length;
        let at = if backwards {
            self.length - done - length
        } else {
            done
        };
        Chunk {
            run: Run {
                source: (self.source.0, from + at),
                destination: (self.destination.0, to + at),
                length,
            },
            is_last: done + length == self.length,
        }
    }

    fn place(&self, role: Role) -> (Side, Range<u64>) {
        let (side, at) = match role {
            Role::Source => self.source,
            Role::Destination => self.destination,
        };
        (side, at..at.saturating_add(self.length))
    }
}

impl LogicalUnit {
    pub(super) fn extended_copy(&mut self, row: &Row, task: Task, length: u32) -> Step {
        let list = task.parameter_list(length.min(copy::PARAMETER_LIST_LENGTH_MAX));
        let list = match List::parse(&list, length) {
            Ok(list) => list,
            Err(sense) => return Step::Answer(task.answer(sense.into())),
        };
        let key = self.tasks.begin(task.nexus, row.access_of(&task.cdb));
        self.tasks.make_cancellable(key, task.tag());
        let copying = Copying {
            nexus: task.nexus,
            list,
            segment: 0,
            done: 0,
            bytes: 0,
            chunk: None,
            lent: [None, None],
        };
        let (data, mut pending) = task.suspend(key, Told::Nothing);
        pending.copying = Some(Box::new(copying));
        self.copy_on(pending, data)
    }

    /// Goes on with a copy whose chunk has ended.
    pub(super) fn copied(
        &mut self,
        mut pending: Pending,
        data: Data,
        result: Result<Outcome, Failure>,
    ) -> Step {
        let copying = copying(&mut pending);
        let chunk = copying.chunk.take().expect("it has been copied");
        match result {
            Ok(_) => {
                let copied = u32::try_from(chunk.run.length).expect("at most CHUNK");
                copying.bytes = copying.bytes.saturating_add(copied);
                copying.done += chunk.run.length;
                if chunk.is_last {
                    copying.segment += 1;
                    copying.done = 0;
                }
                self.copy_on(pending, data)
            }
            Err(failure) => {
                // A flush that has failed stays failed, whoever is told of it; another unit's is that unit's.
                let is_ours = chunk.run.destination.0 == Side::Own;
                if is_ours || !matches!(failure, Failure::Flush(_)) {
                    self.failed(&failure);
                } else {
                    let serial = self.serial();
                    log::error!(TCMU_PR_UNIT = serial; "unit {serial}: what was copied to another can't be flushed: {failure:?}");
                }
                let sense = Sense::copy_target_device_not_reachable().of_segment(copying.segment);
                let answer = self.end(pending, data, sense.into());
                self.tell_end(answer, &failure)
            }
        }
    }

    /// Goes on with a copy that has asked another unit; `None` if that lends nothing.
    pub fn asked(&mut self, asking: Asking, lent: Option<Lent>) -> Step {
        let Asking {
            mut pending,
            data,
            role,
        } = asking;
        if lent.is_none() {
            return self.abort_copy(pending, data, Sense::copy_target_device_not_reachable());
        }
        copying(&mut pending).lent[role as usize] = lent;
        self.copy_on(pending, data)
    }

    fn copy_on(&mut self, mut pending: Pending, data: Data) -> Step {
        let aborted = self.tasks.is_aborted(pending.key);
        let copying = copying(&mut pending);
        let nexus = copying.nexus;
        self.refresh(nexus);
        let chunk = match self.next_chunk(copying) {
            Ok(Some(chunk)) if !aborted => chunk,
            Ok(_) => return Step::Answer(self.end(pending, data, Response::Good)),
            Err(sense) => return self.abort_copy(pending, data, sense),
        };
        copying.chunk = Some(chunk);
        note(&mut self.nexuses, copying, CopyState::InProgress);
        for role in [Role::Source, Role::Destination] {
            let (side, part) = chunk.run.place(role);
            let (Side::Peer(name), None) = (side, &copying.lent[role as usize]) else {
                continue;
            };
            let Some(nexus) = self.nexuses[nexus.0].nexus.clone() else {
                let nobody = Sense::copy_target_device_not_reachable();
                return self.abort_copy(pending, data, nobody);
            };
            let wish = Wish { nexus, role, part };
            let asking = Asking {
                pending,
                data,
                role,
            };
            return Step::Ask(name, wish, asking);
        }
        self.copy_chunk(&chunk.run, pending, data)
    }

    /// Copies a chunk for which everything has been lent that has to be.
    fn copy_chunk(&mut self, run: &Run, mut pending: Pending, data: Data) -> Step {
        let copying = copying(&mut pending);
        let lane = Lane(copying.nexus.0);
        let [source, destination] = std::mem::take(&mut copying.lent);
        let durability = match &destination {
            Some(lent) => lent.durability,
            None => self.durability(copying.nexus, false),
        };
        let is_within_unit = source.is_none() && destination.is_none();
        let place = |(_, offset), lent: Option<Lent>| Place {
            offset,
            loan: lent.map(|lent| lent.loan),
        };
        let operation = Operation::Copy {
            from: place(run.source, source),
            to: place(run.destination, destination),
            length: run.length,
            durability,
        };
        if !is_within_unit && !self.parts.admit(&self.tasks, operation.parts()) {
            let busy = Sense::copy_target_device_not_reachable();
            return self.abort_copy(pending, data, busy);
        }
        let request = Request {
            lane,
            operation,
            data,
            cancellation: Cancellation::default(),
        };
        self.begin_operation(request, pending)
    }

    /// Ends a copy, since the segment that is being processed can't be copied.
    fn abort_copy(&mut self, mut pending: Pending, data: Data, sense: Sense) -> Step {
        let segment = copying(&mut pending).segment;
        Step::Answer(self.end(pending, data, sense.of_segment(segment).into()))
    }

    /// Takes note of how a copy has ended.
    pub(super) fn note_end_of_copy(&mut self, copying: &Copying, response: &Response) {
        let state = match response {
            Response::Good => CopyState::Completed,
            _ => CopyState::Failed,
        };
        note(&mut self.nexuses, copying, state);
    }

    /// Forgets what has become of the copies of a nexus that have ended. Their initiator was told when they had: who asks
    /// once more asks next, and nobody shall take the copy of an earlier session for one of his own.
    pub(super) fn forget_copies(&mut self, nexus: NexusId) {
        let copies = &mut self.nexuses[nexus.0].copies;
        copies.retain(|_, status| status.state == CopyState::InProgress);
    }

    /// RECEIVE COPY STATUS(LID1). What has become of a copy is kept until the next command that does not ask for that.
    pub(super) fn copy_status(&self, nexus: NexusId, identifier: u8) -> Result<Vec<u8>, Sense> {
        let known = self.nexuses[nexus.0].copies.get(&identifier);
        let unknown = Sense::invalid_field_in_cdb(Field::cdb(2));
        known.map(copy::status).ok_or(unknown)
    }

    /// What is to be copied next, if anything is.
    fn next_chunk(&self, copying: &mut Copying) -> Result<Option<Chunk>, Sense> {
        let nexus = copying.nexus;
        while let Some(segment) = copying.list.segments.get(usize::from(copying.segment)) {
            let run = self.run_of(&copying.list, segment)?;
            if self.is_ending || !self.may_copy(&run, nexus) {
                return Err(Sense::copy_target_device_not_reachable());
            }
            if copying.done < run.length {
                return Ok(Some(run.chunk(copying.done)));
            }
            copying.segment += 1;
        }
        Ok(None)
    }

    /// Where a segment lies.
    fn run_of(&self, list: &List, segment: &Segment) -> Result<Run, Sense> {
        let unreachable = Sense::copy_target_device_not_reachable();
        let (source, from) = self.side(list, segment.source).ok_or(unreachable)?;
        let (destination, to) = self.side(list, segment.destination).ok_or(unreachable)?;
        let (length, is_exact) = match segment.amount {
            Amount::SourceBlocks(Blocks(blocks)) => (blocks * from, blocks * from % to == 0),
            Amount::DestinationBlocks(Blocks(blocks)) => (blocks * to, blocks * to % from == 0),
            Amount::Bytes(bytes) => (bytes.into(), true),
        };
        if !is_exact {
            return Err(Sense::unexpected_inexact_segment());
        }
        Ok(Run {
            source: (source, position(segment.from, from).ok_or(unreachable)?),
            destination: (destination, position(segment.to, to).ok_or(unreachable)?),
            length,
        })
    }

    /// Which unit a CSCD descriptor names, and the size of its blocks in bytes. `None` if it can't be copied from or to,
    /// or is not as the initiator takes it to be.
    fn side(&self, list: &List, index: u16) -> Option<(Side, u64)> {
        let cscd = list.cscds.get(usize::from(index))?;
        let name = cscd.naa?;
        let (side, block_size) = if name == self.identity.naa() {
            (Side::Own, self.geometry.block_size())
        } else {
            (Side::Peer(name), *self.peers.get(&name)?)
        };
        (cscd.block_length == block_size).then_some((side, block_size.into()))
    }

    /// Whether the nexus may copy this now, as far as this unit is concerned.
    fn may_copy(&self, run: &Run, nexus: NexusId) -> bool {
        let of_this_unit = |role| match run.place(role) {
            (Side::Own, part) => self.may_use(nexus, role, &part),
            (Side::Peer(_), _) => true,
        };
        self.nexuses[nexus.0].standing.admits(Access::Write)
            && of_this_unit(Role::Source)
            && of_this_unit(Role::Destination)
    }
}

fn note(nexuses: &mut Slab<Nexus>, copying: &Copying, state: CopyState) {
    if let Some(identifier) = copying.list.identifier {
        let status = CopyStatus {
            state,
            segments: copying.segment,
            bytes: copying.bytes,
        };
        nexuses[copying.nexus.0].copies.insert(identifier, status);
    }
}

fn copying(pending: &mut Pending) -> &mut Copying {
    pending.copying.as_mut().expect("it is a copy")
}

/// The byte at which a block, and an offset in it, is.
fn position((Lba(lba), offset): (Lba, u16), block_size: u64) -> Option<u64> {
    lba.checked_mul(block_size)?.checked_add(offset.into())
}
