//! EXTENDED COPY: segments, one after the other, each in chunks.
//!
//! A chunk is one operation of the store. Before each, everything is judged anew that can have changed since the last:
//! whether the command has been aborted, what the reservations say, what is write protected, what is where. So a
//! change of the reservations waits for the chunk that is being copied, and stops the next.

use slab::Slab;

use super::task::{Pending, Response, Task, Told};
use super::{LogicalUnit, Nexus, NexusId, Step};
use crate::scsi::commands::{Media, Row};
use crate::scsi::copy::{self, Amount, CopyState, CopyStatus, List, Segment};
use crate::scsi::sense::{Field, Sense};
use crate::scsi::{Access, Blocks, Lba};
use crate::store::{Cancellation, Failure, Lane, Operation, Outcome, Request};
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
    /// What is being copied of it, and whether that is the rest of it.
    chunk: Run,
    is_last_chunk: bool,
}

impl Copying {
    fn go_to_next_segment(&mut self) {
        self.segment += 1;
        self.done = 0;
    }
}

/// A segment or a chunk of it, in bytes of the backing object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    from: u64,
    to: u64,
    length: u64,
}

impl Run {
    /// The next chunk, when `done` bytes have been copied. Where a segment would overwrite what it has not read yet, the
    /// last chunk comes first.
    fn chunk(self, done: u64) -> Run {
        let length = CHUNK.min(self.length - done);
        let backwards = self.from < self.to && self.to - self.from < self.length;
        let at = if backwards {
            self.length - done - length
        } else {
            done
        };
        Run {
            from: self.from + at,
            to: self.to + at,
            length,
        }
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
            chunk: Run::default(),
            is_last_chunk: false,
        };
        let (data, mut pending) = task.suspend(key, Told::Nothing);
        pending.copying = Some(Box::new(copying));
        self.copy_on(pending, data)
    }

    /// Goes on with a copy whose last chunk has ended.
    pub(super) fn copied(
        &mut self,
        mut pending: Pending,
        data: Data,
        result: Result<Outcome, Failure>,
    ) -> Step {
        let copying = copying(&mut pending);
        match result {
            Ok(_) => {
                let copied = u32::try_from(copying.chunk.length).expect("a chunk has 4 MiB");
                copying.done += copying.chunk.length;
                copying.bytes = copying.bytes.saturating_add(copied);
                if copying.is_last_chunk {
                    copying.go_to_next_segment();
                }
                self.copy_on(pending, data)
            }
            Err(failure) => {
                let segment = copying.segment;
                // A flush that has failed stays failed, whoever is told of it.
                self.failed(&failure);
                let sense = Sense::copy_target_device_not_reachable().of_segment(segment);
                let answer = self.end(pending, data, sense.into());
                self.tell_end(answer, &failure)
            }
        }
    }

    fn copy_on(&mut self, mut pending: Pending, data: Data) -> Step {
        let aborted = self.tasks.is_aborted(pending.key);
        let copying = copying(&mut pending);
        let nexus = copying.nexus;
        self.refresh(nexus);
        let chunk = match self.next_chunk(copying) {
            Ok(Some(chunk)) if !aborted => chunk,
            Ok(_) => return Step::Answer(self.end(pending, data, Response::Good)),
            Err(sense) => {
                let sense = sense.of_segment(copying.segment);
                return Step::Answer(self.end(pending, data, sense.into()));
            }
        };
        note(&mut self.nexuses, copying, CopyState::InProgress);
        let request = Request {
            lane: Lane(nexus.0),
            operation: Operation::Copy {
                from: chunk.from,
                to: chunk.to,
                length: chunk.length,
                durability: self.durability(nexus, false),
            },
            data,
            cancellation: Cancellation::default(),
        };
        self.begin_operation(request, pending)
    }

    /// Takes note of how a copy has ended.
    pub(super) fn note_end_of_copy(&mut self, copying: &Copying, response: &Response) {
        let state = match response {
            Response::Good => CopyState::Completed,
            _ => CopyState::Failed,
        };
        note(&mut self.nexuses, copying, state);
    }

    /// RECEIVE COPY STATUS(LID1). What has become of a copy is kept until the initiator takes the same identifier for
    /// another.
    pub(super) fn copy_status(&self, nexus: NexusId, identifier: u8) -> Result<Vec<u8>, Sense> {
        let known = self.nexuses[nexus.0].copies.get(&identifier);
        let unknown = Sense::invalid_field_in_cdb(Field::cdb(2));
        known.map(copy::status).ok_or(unknown)
    }

    /// What is to be copied next, if anything is.
    fn next_chunk(&self, copying: &mut Copying) -> Result<Option<Run>, Sense> {
        let nexus = copying.nexus;
        while let Some(segment) = copying.list.segments.get(usize::from(copying.segment)) {
            let run = self.run_of(&copying.list, segment, nexus)?;
            if copying.done < run.length {
                let chunk = run.chunk(copying.done);
                copying.chunk = chunk;
                copying.is_last_chunk = copying.done + chunk.length == run.length;
                return Ok(Some(chunk));
            }
            copying.go_to_next_segment();
        }
        Ok(None)
    }

    /// Where a segment lies, if this nexus may copy it now.
    fn run_of(&self, list: &List, segment: &Segment, nexus: NexusId) -> Result<Run, Sense> {
        let unreachable = Sense::copy_target_device_not_reachable();
        let source = self.block_size_of(list, segment.source);
        let destination = self.block_size_of(list, segment.destination);
        let (source, destination) = (source.ok_or(unreachable)?, destination.ok_or(unreachable)?);
        let length = match segment.amount {
            Amount::SourceBlocks(Blocks(blocks)) => blocks * source,
            Amount::DestinationBlocks(Blocks(blocks)) => blocks * destination,
            Amount::Bytes(bytes) => bytes.into(),
        };
        let run = Run {
            from: position(segment.from, source).ok_or(unreachable)?,
            to: position(segment.to, destination).ok_or(unreachable)?,
            length,
        };
        let may = self.nexuses[nexus.0].standing.admits(Access::Write)
            && self.check_media(nexus, Media::Read).is_ok()
            && self.check_media(nexus, Media::Write).is_ok();
        let size = self.geometry.byte_length(self.geometry.blocks());
        let is_inside = |at: u64| at.checked_add(length).is_some_and(|end| end <= size);
        if may && is_inside(run.from) && is_inside(run.to) {
            Ok(run)
        } else {
            Err(unreachable)
        }
    }

    /// The block size of what a CSCD descriptor names, in bytes. `None` if that is not this unit, or not as the initiator
    /// takes it to be.
    fn block_size_of(&self, list: &List, index: u16) -> Option<u64> {
        let cscd = list.cscds.get(usize::from(index))?;
        let is_this = cscd.naa == Some(self.identity.naa())
            && cscd.block_length == self.geometry.block_size();
        is_this.then(|| self.geometry.block_size().into())
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
