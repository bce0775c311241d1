//! One run: commands to a logical unit whose store works on the platter, and what the model says of each answer.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use fastrand::Rng;
use tcmu_pr::lu::task::{Answer, NexusId, Pending, Tag, Task};
use tcmu_pr::lu::{LogicalUnit, Mapping, Setup, Step, UnitState};
use tcmu_pr::pr::Reservations;
use tcmu_pr::pr::out::Context;
use tcmu_pr::scsi::capacity::Geometry;
use tcmu_pr::scsi::inquiry::Identity;
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};
use tcmu_pr::scsi::provisioning::Provisioning;
use tcmu_pr::scsi::sense::Format;
use tcmu_pr::store::{Failure, Outcome, Request, perform};
use tcmu_pr::sys::region::{Data, Region, Segment};

use crate::command::{ATOMIC, Action, Command};
use crate::model::{Model, Word};
use crate::platter::{Platter, Trouble, word_of};

/// Logical blocks of the unit.
const CAPACITY: u64 = 64;
/// How many commands are in flight at most.
const DEPTH: usize = 8;
const COMMANDS: u16 = 400;

/// What a command must be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Sense key, additional sense code and qualifier, INFORMATION.
    Check(u8, u8, u8, Option<u32>),
    /// WRITE ERROR, at one of the blocks of the command.
    WriteError,
}

const OUT_OF_RANGE: Verdict = Verdict::Check(0x05, 0x21, 0x00, None);
const TARGET_FAILURE: Verdict = Verdict::Check(0x04, 0x44, 0x00, None);
const FLUSH_FAILED: Verdict = Verdict::Check(0x03, 0x0c, 0x00, None);

/// A command on its way.
struct Sent {
    command: Command,
    region: Arc<Region>,
    /// Known once the command has been performed, or if it never is.
    verdict: Option<Verdict>,
}

pub(crate) struct Run {
    rng: Rng,
    block: usize,
    platter: Platter,
    model: Model,
    /// Never dropped with commands in flight: it would say that they were not answered.
    unit: ManuallyDrop<LogicalUnit>,
    nexus: NexusId,
    write_back: bool,
    /// What the store has been given.
    in_flight: Vec<ManuallyDrop<(Request, Pending)>>,
    sent: HashMap<u16, Sent>,
    next: u16,
    flush_failed: bool,
    /// What may go wrong.
    troubles: bool,
}

impl Run {
    pub(crate) fn new(seed: u64) -> Run {
        let mut rng = Rng::with_seed(seed);
        let block: u32 = if rng.bool() { 512 } else { 4096 };
        let write_back = rng.bool();
        let troubles = rng.u8(0..4) > 0;
        let size = usize::try_from(block).unwrap();
        let platter = Platter::new(size, usize::try_from(CAPACITY).unwrap(), rng.u64(..));
        let (unit, nexus) = unit(size, write_back);
        Run {
            rng,
            block: size,
            platter,
            model: Model::new(usize::try_from(CAPACITY).unwrap()),
            unit: ManuallyDrop::new(unit),
            nexus,
            write_back,
            in_flight: Vec::new(),
            sent: HashMap::new(),
            next: 0,
            flush_failed: false,
            troubles,
        }
    }

    /// Sends all commands, and does what the unit asks for in any order.
    pub(crate) fn run(&mut self) {
        while self.next < COMMANDS || !self.sent.is_empty() {
            if self.next < COMMANDS && self.sent.len() < DEPTH && self.rng.bool() {
                self.send();
            } else if !self.in_flight.is_empty() {
                self.perform();
            }
        }
        self.lose_power();
    }

    fn send(&mut self) {
        let command = Command::some(&mut self.rng, CAPACITY);
        let out = command.data_out(self.block);
        let length = out.len().max(command.data_in(self.block)) as u64;
        let region =
            Arc::new(Region::anonymous(usize::try_from(length.max(4096)).unwrap()).unwrap());
        // In two pieces, as the kernel may hand them over.
        let first = first_half(out.len().max(command.data_in(self.block))) as u64;
        let segments = [(first, length - first), (0, first)];
        let segments = segments.map(|(offset, length)| Segment { offset, length });
        let data = Data::new(&region, segments.to_vec(), 0..region.len()).unwrap();
        data.write_at(0, &out);
        let tag = Tag {
            port: 0,
            command: self.next,
            epoch: 0,
        };
        let task = Task::new(tag, self.nexus, command.cdb(), data);
        let verdict = self.at_once(&command);
        let sent = Sent {
            command,
            region,
            verdict,
        };
        self.sent.insert(self.next, sent);
        self.next += 1;
        let step = self.unit.begin(task);
        self.step(step);
    }

    /// The answer of a command that is never performed.
    fn at_once(&self, command: &Command) -> Option<Verdict> {
        let fua = matches!(
            command.action,
            Action::Read { fua: true } | Action::Verify { .. }
        );
        let writes = !matches!(command.action, Action::Read { .. } | Action::Verify { .. });
        let end = command.lba + command.blocks;
        let nothing = command.blocks == 0;
        let latched = self.flush_failed && (writes || fua);
        match command.action {
            _ if latched && writes => Some(TARGET_FAILURE),
            _ if end > CAPACITY => Some(OUT_OF_RANGE),
            _ if latched => Some(TARGET_FAILURE),
            Action::SynchronizeCache => None,
            _ if nothing => Some(Verdict::Good),
            _ => None,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Answer(answer) => self.answered(answer),
            Step::Io(request, pending) => {
                self.in_flight.push(ManuallyDrop::new((request, pending)));
            }
            Step::Held => {}
            Step::Store(_) => {
                let step = self.unit.stored(true);
                self.step(step);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Performs one of the operations that the store has been given.
    fn perform(&mut self) {
        let any = self.rng.usize(0..self.in_flight.len());
        let (request, pending) = ManuallyDrop::into_inner(self.in_flight.swap_remove(any));
        let number = pending.tag().command;
        let command = self.sent[&number].command.clone();
        if self.troubles && self.rng.u8(0..12) == 0 {
            let trouble = self.some_trouble(&command);
            self.platter.trouble(trouble);
        }
        let result = perform(&self.platter, &request);
        if std::env::var_os("TRACE").is_some() {
            eprintln!(
                "{number} {command:?} -> {result:?} wb {} power {}",
                self.write_back,
                !self.platter.has_no_power()
            );
        }
        if self.platter.has_no_power() {
            self.may_have_happened(&command);
            self.in_flight.push(ManuallyDrop::new((request, pending)));
            return self.lose_power();
        }
        self.platter.trouble(Trouble::None);
        let verdict = self.judge(&command, number, &result);
        self.sent.get_mut(&number).unwrap().verdict = Some(verdict);
        let step = self.unit.finish(pending, request.data, result);
        self.step(step);
        while let Some(step) = self.unit.next_step() {
            self.step(step);
        }
    }
}

impl Run {
    /// Something that can go wrong with the command.
    fn some_trouble(&mut self, command: &Command) -> Trouble {
        let range = command.range();
        let block = self.rng.usize(range.start..range.end.max(range.start + 1));
        match self.rng.u8(0..5) {
            0 => Trouble::Unreadable(block),
            1 => Trouble::Unwritable(block),
            2 => Trouble::FlushFails,
            3 => Trouble::PowerCut(self.rng.u32(0..6)),
            _ => Trouble::Slow,
        }
    }

    /// What a command that was performed must be answered; and what the disk holds then.
    fn judge(
        &mut self,
        command: &Command,
        number: u16,
        result: &Result<Outcome, Failure>,
    ) -> Verdict {
        match result {
            Ok(_) => {
                self.happened(command, number);
                Verdict::Good
            }
            Err(Failure::Read { at, .. }) => {
                let lba = at / self.block as u64;
                assert!(
                    command.range().contains(&usize::try_from(lba).unwrap()),
                    "{command:?}: {lba}"
                );
                // What can't be read again was written, and flushed.
                if let Action::WriteAndVerify { word, .. } = command.action {
                    self.note_write(command);
                    for block in command.range() {
                        self.model.write(block, vec![word]);
                        self.model.make_durable(block);
                    }
                }
                Verdict::Check(0x03, 0x11, 0x00, u32::try_from(lba).ok())
            }
            Err(Failure::Write { .. }) => {
                self.may_have_happened(command);
                Verdict::WriteError
            }
            Err(Failure::Flush(_)) => {
                self.may_have_happened(command);
                self.flush_failed = true;
                FLUSH_FAILED
            }
            Err(Failure::Miscompare { at }) => self.miscompared(command, *at),
            Err(other) => panic!("{command:?}: {other:?}"),
        }
    }

    /// The command was carried out.
    fn happened(&mut self, command: &Command, number: u16) {
        let durable = command.is_durable(self.write_back);
        let words = self.words(number);
        self.note_write(command);
        for (index, block) in command.range().enumerate() {
            match command.action {
                Action::Read { fua } => {
                    self.model.read(block, words[index]);
                    if fua {
                        self.model.make_durable(block);
                    }
                }
                Action::Verify { word, .. } => {
                    if let Some(word) = word {
                        self.model.read(block, word);
                    }
                    self.model.make_durable(block);
                }
                Action::CompareAndWrite { expected, .. } => self.model.read(block, expected),
                _ => {}
            }
            let written = self.written(command, block);
            if !written.is_empty() {
                self.model.write(block, written);
            }
            if durable {
                self.model.make_durable(block);
            }
        }
        if command.action == Action::SynchronizeCache {
            (0..usize::try_from(CAPACITY).unwrap())
                .for_each(|block| self.model.make_durable(block));
        }
    }

    /// Some of the command may have been carried out.
    fn may_have_happened(&mut self, command: &Command) {
        self.note_write(command);
        for block in command.range() {
            for word in self.written(command, block) {
                self.model.may_have_written(block, word);
            }
        }
    }

    /// Tells the model which blocks an atomic write concerns next, or another write.
    fn note_write(&mut self, command: &Command) {
        match command.action {
            Action::WriteAtomic { word, .. } => self.model.write_atomic(command.range(), word),
            Action::Read { .. } | Action::Verify { .. } | Action::SynchronizeCache => {}
            _ => self.model.written_over(&command.range()),
        }
    }

    /// What the command writes to a block: more than one word if it depends on what nobody knows.
    fn written(&self, command: &Command, block: usize) -> Vec<Word> {
        match command.action {
            Action::Write { word, .. }
            | Action::WriteAtomic { word, .. }
            | Action::WriteAndVerify { word, .. }
            | Action::CompareAndWrite { word, .. } => vec![word],
            Action::WriteSame { word, .. } => vec![word.unwrap_or(0)],
            Action::OrWrite { word, .. } => {
                let before = self.model.possible(block);
                before.iter().map(|before| before | word).collect()
            }
            Action::Unmap => vec![0],
            Action::Read { .. } | Action::Verify { .. } | Action::SynchronizeCache => Vec::new(),
        }
    }

    /// What the data buffer of a command holds of each block that was read.
    fn words(&self, number: u16) -> Vec<Word> {
        let Sent {
            command, region, ..
        } = &self.sent[&number];
        let mut memory = vec![0; command.data_in(self.block)];
        region.copy_out(0, &mut memory).unwrap();
        // The second half of memory is the first of the buffer: see `send`.
        let first = first_half(memory.len());
        memory.rotate_left(first);
        let blocks = memory.chunks(self.block);
        blocks.map(word_of).collect()
    }

    fn miscompared(&mut self, command: &Command, at: u64) -> Verdict {
        let (wanted, tells) = match command.action {
            Action::Verify {
                word: Some(word), ..
            } => (word, false),
            Action::CompareAndWrite { expected, .. } => (expected, true),
            ref other => panic!("{other:?} compares nothing"),
        };
        let certain: Option<Vec<Word>> = command
            .range()
            .map(|block| self.model.certain(block))
            .collect();
        if let Some(words) = certain {
            let bytes = |word: Word| word.to_be_bytes().repeat(self.block / 8);
            let found: Vec<u8> = words.into_iter().flat_map(bytes).collect();
            let wanted: Vec<u8> = command.range().flat_map(|_| bytes(wanted)).collect();
            let first = found
                .iter()
                .zip(&wanted)
                .position(|(found, wanted)| found != wanted);
            assert_eq!(first.map(|first| first as u64), Some(at), "{command:?}");
        }
        let information = tells.then(|| u32::try_from(at).unwrap());
        Verdict::Check(0x0e, 0x1d, 0x00, information)
    }

    fn answered(&mut self, answer: Answer) {
        let (delivery, _) = answer.deliver(Format::Fixed);
        let sent = self
            .sent
            .remove(&delivery.tag.command)
            .expect("answered once");
        let sense = &delivery.sense;
        let information =
            (sense[0] & 0x80 != 0).then(|| u32::from_be_bytes(sense[3..7].try_into().unwrap()));
        let found = match delivery.status {
            0x00 => Verdict::Good,
            0x02 => Verdict::Check(sense[2], sense[12], sense[13], information),
            other => panic!("status {other:02x}: {:?}", sent.command),
        };
        let wanted = sent
            .verdict
            .unwrap_or_else(|| panic!("{found:?}: {:?}", sent.command));
        if wanted == Verdict::WriteError {
            let Verdict::Check(0x03, 0x0c, 0x00, Some(lba)) = found else {
                panic!("{found:?}: {:?}", sent.command)
            };
            assert!(
                sent.command.range().contains(&(lba as usize)),
                "{lba}: {:?}",
                sent.command
            );
        } else {
            assert_eq!(found, wanted, "{:?}", sent.command);
        }
    }

    /// Power goes, and comes again: what was in flight may have happened or not, and the daemon starts anew.
    fn lose_power(&mut self) {
        // What has not begun has done nothing. It is never answered.
        self.in_flight.clear();
        self.sent.clear();
        self.platter.power_on();
        self.model.lose_power();
        for block in 0..usize::try_from(CAPACITY).unwrap() {
            let word = self.platter.word(block);
            self.model.read(block, word);
        }
        self.model.settle();
        self.flush_failed = false;
        let (unit, nexus) = unit(self.block, self.write_back);
        // The old one still has commands that are not answered.
        self.unit = ManuallyDrop::new(unit);
        self.nexus = nexus;
    }
}

/// How much of a buffer lies in its piece that comes first in memory, and last in the buffer.
fn first_half(length: usize) -> usize {
    length / 1024 * 512
}

fn unit(block: usize, write_back: bool) -> (LogicalUnit, NexusId) {
    let mut unit = LogicalUnit::new(Setup {
        identity: Identity::new("serial"),
        geometry: Geometry::new(u32::try_from(block).unwrap(), CAPACITY, 0)
            .unwrap()
            .writing_atomically(u32::try_from(block as u64 * ATOMIC).unwrap()),
        provisioning: Provisioning::Thin {
            zeroes: true,
            granularity: 4096,
            alignment: 0,
            figures: true,
            soft_threshold: None,
        },
        reservations: Ok(Reservations::default()),
        attentions: Vec::new(),
        state: UnitState::default(),
        power_on: false,
        write_back,
        context: Context::default(),
    });
    let nexus = unit.attach(
        Some(ItNexus {
            initiator_port: TransportId::Sas(0x3000_0000_0000_0001),
            target_port: TargetPort {
                protocol: Protocol::Sas,
                name: "naa.1".into(),
            },
        }),
        Mapping::ReadWrite,
    );
    (unit, nexus)
}
