//! Commands on their way: what a task is, what it becomes, and which are in flight.
//!
//! A command is owed an answer. A [`Task`] that is dropped before it has become an [`Answer`] is a bug that
//! would leave an initiator waiting for ever, so it panics.

use std::collections::BTreeSet;

use slab::Slab;

use super::copy::Copying;
use super::parts::Part;
use crate::scsi::cdb::LogSense;
use crate::scsi::sense::{Format, SENSE_LENGTH, Sense};
use crate::scsi::{Access, Status};
use crate::store::Cancellation;
use crate::sys::region::Data;

/// Which command of which port an answer belongs to: the worker's words, which nothing here looks into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The port that the command came through.
    pub port: usize,
    /// The kernel's id of the command.
    pub command: u16,
    /// How often the port's ring had been reset when the command came.
    pub epoch: u32,
}

/// An I_T nexus of the logical unit, by a number that is valid as long as the nexus is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NexusId(pub(super) usize);

/// The duty to answer a command.
#[derive(Debug)]
struct Owed {
    tag: Tag,
}

impl Owed {
    fn settle(self) -> Tag {
        let tag = self.tag;
        std::mem::forget(self);
        tag
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        assert!(
            std::thread::panicking(),
            "{:?} was dropped without an answer",
            self.tag
        );
    }
}

/// One command as it came.
#[derive(Debug)]
pub struct Task {
    owed: Owed,
    /// Who sent it.
    pub(super) nexus: NexusId,
    /// The CDB, zero-padded.
    pub(super) cdb: [u8; 32],
    /// Its data buffer, in or out.
    pub(super) data: Data,
    /// A RESERVE: the session that it conflicts with has been looked for.
    pub(super) looked: bool,
}

impl Task {
    /// A command that is owed an answer from now on.
    pub fn new(tag: Tag, nexus: NexusId, cdb: [u8; 32], data: Data) -> Task {
        Task {
            owed: Owed { tag },
            nexus,
            cdb,
            data,
            looked: false,
        }
    }

    /// Answers it.
    pub(super) fn answer(self, response: Response) -> Answer {
        Answer {
            owed: self.owed,
            data: self.data,
            response,
        }
    }

    /// Splits it into what the store needs and what stays until the store is done.
    pub(super) fn suspend(self, key: TaskKey, told: Told) -> (Data, Pending) {
        (
            self.data,
            Pending {
                owed: Some(self.owed),
                key,
                told,
                copying: None,
            },
        )
    }

    /// The first so many bytes of its data-out, or fewer if there are not that many.
    pub(super) fn parameter_list(&self, length: u32) -> Vec<u8> {
        let mut list = vec![0; usize::try_from(length).expect("some 64 KiB")];
        let present = self.data.read_at(0, &mut list);
        list.truncate(present);
        list
    }

    /// Its tag.
    pub fn tag(&self) -> Tag {
        self.owed.tag
    }
}

/// What the initiator gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// GOOD, without data.
    Good,
    /// GOOD, and these bytes of data-in.
    DataIn(Vec<u8>),
    /// GOOD, and so many bytes of data-in, which stand in the data buffer already.
    InPlace(u64),
    /// CHECK CONDITION.
    Check(Sense),
    /// Another status, which carries neither data nor sense.
    Status(Status),
}

impl From<Sense> for Response {
    fn from(sense: Sense) -> Response {
        Response::Check(sense)
    }
}

/// A command with its response, ready to go back.
#[derive(Debug)]
pub struct Answer {
    owed: Owed,
    data: Data,
    response: Response,
}

/// An answer as the ring takes it; data-in stands in the data buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Which command it answers.
    pub tag: Tag,
    /// SCSI status.
    pub status: u8,
    /// How many bytes of the data buffer are data-in, if fewer than all.
    pub data_in_length: Option<u32>,
    /// Sense data; all zero without CHECK CONDITION.
    pub sense: [u8; SENSE_LENGTH],
}

impl Answer {
    /// An answer to a command that never became a task, because nobody knows who sent it or what it is.
    pub fn without_task(tag: Tag, data: Data, response: Response) -> Answer {
        Answer {
            owed: Owed { tag },
            data,
            response,
        }
    }

    /// Another answer to the same command.
    pub(super) fn instead(self, response: Response) -> Answer {
        Answer { response, ..self }
    }

    /// What it says.
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// Puts data-in into the buffer and gives the rest, and the buffer.
    ///
    /// The buffer holds old data of other commands, and a GOOD status hands all of it to the initiator unless
    /// a length is told; the kernel takes the length 0 for "all". So the least that can be told is one
    /// byte, which is zeroed. For data-out all this is without effect.
    pub fn deliver(self, format: Format) -> (Delivery, Data) {
        let mut sense = [0; SENSE_LENGTH];
        let (status, written) = match &self.response {
            Response::Good => (Status::Good, Some(0)),
            Response::DataIn(bytes) => (Status::Good, Some(self.data.write_at(0, bytes) as u64)),
            Response::InPlace(length) => (Status::Good, Some(*length)),
            Response::Check(condition) => {
                sense = condition.encode(format).0;
                (Status::CheckCondition, None)
            }
            Response::Status(status) => (*status, None),
        };
        let data_in_length = written
            .filter(|&written| written < self.data.len())
            .map(|written| {
                if written == 0 {
                    self.data.write_at(0, &[0]);
                }
                u32::try_from(written.max(1)).unwrap_or(u32::MAX)
            });
        let delivery = Delivery {
            tag: self.owed.settle(),
            status: status as u8,
            data_in_length,
            sense,
        };
        (delivery, self.data)
    }
}

/// What an initiator is told of a command in the store's hands, beside how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// So many bytes of data.
    Data(u64),
    /// What of it takes up space, cut to so many bytes.
    Extents(u32),
    /// How much space there is, as the page asked for.
    Figures(LogSense),
    /// Where the first byte is that differs, if one does.
    Difference,
    /// Nothing.
    Nothing,
    /// There is nobody: the unit itself has begun the operation.
    Nobody,
}

/// Why there is an answer that is owed.
const A_COMMAND: &str = "it is asked of commands only";

/// A command whose data is in the store's hands. [`super::LogicalUnit::finish`] takes it back.
#[derive(Debug)]
pub struct Pending {
    /// `None` only if nobody is told.
    owed: Option<Owed>,
    pub(super) key: TaskKey,
    pub(super) told: Told,
    /// How far it has come, if it is a copy.
    pub(super) copying: Option<Box<Copying>>,
}

impl Pending {
    /// The unit's own, which nobody has asked for: what is in the write cache goes to the medium.
    pub(super) fn own() -> Pending {
        Pending {
            owed: None,
            key: TaskKey(usize::MAX),
            told: Told::Nobody,
            copying: None,
        }
    }

    /// Which command it is.
    pub fn tag(&self) -> Tag {
        self.owed.as_ref().expect(A_COMMAND).tag
    }

    pub(super) fn answer(self, data: Data, response: Response) -> Answer {
        Answer {
            owed: self.owed.expect(A_COMMAND),
            data,
            response,
        }
    }
}

/// A command in flight, by a number that is valid until it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskKey(usize);

#[derive(Debug)]
struct InFlight {
    nexus: NexusId,
    access: Access,
    aborted: bool,
    /// What it came with, and how its operation is cancelled, if it can be.
    cancellable: Option<(Tag, Cancellation)>,
    /// What its operation reads or changes, once it has begun.
    begun: Option<Part>,
}

impl InFlight {
    fn abort(&mut self) {
        self.aborted = true;
        if let Some((_, cancellation)) = &self.cancellable {
            cancellation.cancel();
        }
    }
}

/// An order of the administrator's, by the worker's number, which nothing here looks into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// What somebody is told once it is true.
#[derive(Debug)]
pub(super) enum Reply {
    /// The answer to a command.
    Command {
        /// Who sent it.
        nexus: NexusId,
        /// What it is told.
        answer: Answer,
        /// Whether the command has changed the reservations.
        changed: bool,
    },
    /// The end of an order.
    Administrator(Ticket),
    /// Nothing: the unit itself waits until what was written before can be flushed.
    Drained,
}

/// A reply that waits until commands in flight have ended.
#[derive(Debug)]
struct Fence {
    waits_for: BTreeSet<TaskKey>,
    reply: Reply,
    /// How long it has waited.
    ticks: u32,
}

/// The replies that wait for commands in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many there are.
    pub replies: usize,
    /// For how many ticks the oldest has waited.
    pub ticks: u32,
}

/// The commands of a logical unit that are in the store's hands, and the replies that wait for them.
#[derive(Debug, Default)]
pub(super) struct TaskSet {
    tasks: Slab<InFlight>,
    fences: Vec<Fence>,
}

impl TaskSet {
    /// Takes up a command.
    pub(super) fn begin(&mut self, nexus: NexusId, access: Access) -> TaskKey {
        TaskKey(self.tasks.insert(InFlight {
            nexus,
            access,
            aborted: false,
            cancellable: None,
            begun: None,
        }))
    }

    /// Has an abort cancel the operation of a command too: of one that takes long and may end anywhere.
    pub(super) fn make_cancellable(&mut self, key: TaskKey, tag: Tag) -> Cancellation {
        let cancellation = Cancellation::possible();
        self.tasks[key.0].cancellable = Some((tag, cancellation.clone()));
        cancellation
    }

    /// Aborts those of the commands that can be cancelled.
    pub(super) fn abort_cancellable(&mut self, is_meant: impl Fn(Tag) -> bool) {
        for (_, task) in &mut self.tasks {
            if task
                .cancellable
                .as_ref()
                .is_some_and(|&(tag, _)| is_meant(tag))
            {
                task.abort();
            }
        }
    }

    /// Takes note of what the operation of a command reads or changes from now on.
    pub(super) fn set_begun(&mut self, key: TaskKey, part: Part) {
        self.tasks[key.0].begun = Some(part);
    }

    /// Takes note of the end of the operation of a command that goes on. Tells what it has read or changed.
    pub(super) fn end_operation(&mut self, key: TaskKey) -> Option<Part> {
        self.tasks[key.0].begun.take()
    }

    /// What the operations that have begun read or change.
    pub(super) fn begun(&self) -> impl Iterator<Item = &Part> {
        self.tasks
            .iter()
            .filter_map(|(_, task)| task.begun.as_ref())
    }

    /// Whether a command has been aborted.
    pub(super) fn is_aborted(&self, key: TaskKey) -> bool {
        self.tasks[key.0].aborted
    }

    /// How many are in flight.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// The I_T nexuses of those in flight, with repetitions.
    pub(super) fn nexuses(&self) -> impl Iterator<Item = NexusId> {
        self.tasks.iter().map(|(_, task)| task.nexus)
    }

    /// The I_T nexuses of those in flight and of the answers that wait, with repetitions.
    pub(super) fn users(&self) -> impl Iterator<Item = NexusId> {
        let waiting = self.fences.iter().filter_map(|fence| match fence.reply {
            Reply::Command { nexus, .. } => Some(nexus),
            Reply::Administrator(_) | Reply::Drained => None,
        });
        self.nexuses().chain(waiting)
    }

    /// Marks the commands of those `nexuses` as aborted: however they end, TASK ABORTED is their status. Gives the
    /// answers of theirs that have waited, and need not any more.
    pub(super) fn abort(&mut self, nexuses: impl Fn(NexusId) -> bool) -> Vec<Answer> {
        for (_, task) in &mut self.tasks {
            if nexuses(task.nexus) {
                task.abort();
            }
        }
        let mut aborted = Vec::new();
        for fence in std::mem::take(&mut self.fences) {
            match fence.reply {
                Reply::Command { nexus, answer, .. } if nexuses(nexus) => {
                    aborted.push(answer.instead(Response::Status(Status::TaskAborted)));
                }
                reply => self.fences.push(Fence { reply, ..fence }),
            }
        }
        aborted
    }

    /// Holds a reply back until every command has ended that is now in flight and was aborted or is one of those.
    /// Gives it back when there is none.
    pub(super) fn hold_back(
        &mut self,
        reply: Reply,
        concerns: impl Fn(NexusId, Access) -> bool,
    ) -> Option<Reply> {
        let waits_for: BTreeSet<TaskKey> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.aborted || concerns(task.nexus, task.access))
            .map(|(key, _)| TaskKey(key))
            .collect();
        if waits_for.is_empty() {
            return Some(reply);
        }
        self.fences.push(Fence {
            waits_for,
            reply,
            ticks: 0,
        });
        None
    }

    /// Ends a command. Tells whether it was aborted.
    pub(super) fn end(&mut self, key: TaskKey) -> bool {
        for fence in &mut self.fences {
            fence.waits_for.remove(&key);
        }
        self.tasks.remove(key.0).aborted
    }

    /// Takes a reply that need not wait any longer.
    pub(super) fn released(&mut self) -> Option<Reply> {
        let free = self
            .fences
            .iter()
            .position(|fence| fence.waits_for.is_empty())?;
        Some(self.fences.remove(free).reply)
    }

    /// Lets a tick pass. Gives the replies that have waited for `patience` ticks: they are not true yet.
    pub(super) fn tick(&mut self, patience: u32) -> Vec<Reply> {
        let mut given_up = Vec::new();
        for mut fence in std::mem::take(&mut self.fences) {
            fence.ticks += 1;
            if fence.ticks < patience {
                self.fences.push(fence);
            } else {
                given_up.push(fence.reply);
            }
        }
        given_up
    }

    /// The replies that wait.
    pub(super) fn waiting(&self) -> Waiting {
        let ticks = self.fences.iter().map(|fence| fence.ticks);
        Waiting {
            replies: self.fences.len(),
            ticks: ticks.max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sys::region::{Region, Segment};

    const TAG: Tag = Tag {
        port: 0,
        command: 7,
        epoch: 0,
    };

    /// A data buffer of eight bytes that holds another command's old data.
    fn stale() -> (Arc<Region>, Data) {
        let region = Arc::new(Region::anonymous(4096).unwrap());
        region.copy_in(0, &[0xa5; 8]).unwrap();
        let data = Data::new(
            &region,
            vec![Segment {
                offset: 0,
                length: 8,
            }],
            0..4096,
        )
        .unwrap();
        (region, data)
    }

    fn deliver(response: Response) -> (Delivery, [u8; 8]) {
        let (region, data) = stale();
        let answer = Answer::without_task(TAG, data, response);
        let (delivery, _) = answer.deliver(Format::Fixed);
        let mut bytes = [0; 8];
        region.copy_out(0, &mut bytes).unwrap();
        (delivery, bytes)
    }

    #[test]
    fn a_short_answer_tells_its_length() {
        let (delivery, bytes) = deliver(Response::DataIn(vec![1, 2, 3]));
        assert_eq!((delivery.status, delivery.data_in_length), (0x00, Some(3)));
        assert_eq!(bytes[..3], [1, 2, 3]);
    }

    #[test]
    fn an_answer_that_fills_the_buffer_or_more_needs_no_length() {
        for length in [8, 9] {
            let (delivery, bytes) = deliver(Response::DataIn(vec![1; length]));
            assert_eq!(delivery.data_in_length, None);
            assert_eq!(bytes, [1; 8]);
        }
        assert_eq!(deliver(Response::InPlace(8)).0.data_in_length, None);
    }

    #[test]
    fn no_answer_hands_out_stale_bytes() {
        for response in [
            Response::Good,
            Response::DataIn(vec![]),
            Response::InPlace(0),
        ] {
            let (delivery, bytes) = deliver(response);
            assert_eq!(
                delivery.data_in_length,
                Some(1),
                "the kernel takes 0 for all"
            );
            assert_eq!(bytes[0], 0);
        }
    }

    #[test]
    fn a_status_other_than_good_carries_no_data() {
        let (delivery, _) = deliver(Response::Status(Status::ReservationConflict));
        assert_eq!((delivery.status, delivery.data_in_length), (0x18, None));
        assert_eq!(delivery.sense, [0; SENSE_LENGTH]);
        let (delivery, _) = deliver(Response::Check(Sense::write_protected()));
        assert_eq!((delivery.status, delivery.data_in_length), (0x02, None));
        assert_eq!(delivery.sense[2], 0x07, "DATA PROTECT");
    }

    #[test]
    #[should_panic(expected = "was dropped without an answer")]
    fn a_command_cannot_be_dropped() {
        let (_region, data) = stale();
        drop(Task::new(TAG, NexusId(0), [0; 32], data));
    }

    #[test]
    fn an_answer_waits_for_the_commands_in_flight_when_it_was_held_back_and_no_others() {
        let mut tasks = TaskSet::default();
        let loser = tasks.begin(NexusId(1), Access::Write);
        let bystander = tasks.begin(NexusId(2), Access::Write);
        let (_region, data) = stale();
        let reply = Reply::Command {
            nexus: NexusId(0),
            answer: Answer::without_task(TAG, data, Response::Good),
            changed: true,
        };
        assert!(
            tasks
                .hold_back(reply, |nexus, _| nexus == NexusId(1))
                .is_none()
        );
        let later = tasks.begin(NexusId(1), Access::Write);
        assert!(!tasks.end(bystander));
        assert!(!tasks.end(later));
        assert!(tasks.released().is_none());
        assert!(!tasks.end(loser));
        let Some(Reply::Command { answer, .. }) = tasks.released() else {
            panic!("there is nothing to wait for")
        };
        answer.deliver(Format::Fixed);
    }

    #[test]
    fn an_aborted_command_says_so_when_it_ends() {
        let mut tasks = TaskSet::default();
        let aborted = tasks.begin(NexusId(1), Access::Write);
        let other = tasks.begin(NexusId(2), Access::Write);
        assert!(tasks.abort(|nexus| nexus == NexusId(1)).is_empty());
        let later = tasks.begin(NexusId(1), Access::Write);
        assert!(tasks.end(aborted));
        assert!(!tasks.end(other));
        assert!(!tasks.end(later), "it came after the abort");
    }
}
