//! What a logical unit must answer: the naive model of the reservations, and around it the rules for unit attentions,
//! commands in flight, aborts, and changes that wait to be stored.
//!
//! Commands that change reservations go one after the other, in the order in which they came; the next is looked at when
//! the one before is stored. All others are judged by the reservations in force when they come. So what is answered is
//! known in advance, but for two things that only the simulated hardware decides, and which are taken from there: when
//! an operation of the disk ends, and whether a record could be stored.

use std::collections::{BTreeMap, VecDeque};

use tcmu_pr::scsi::Access;

use crate::engine::Engine;
use crate::kernel::Completed;
use crate::node::Found;
use crate::rules::{Answer, Command, Effects, State, World, old};

pub(crate) const GOOD: u8 = 0x00;
pub(crate) const CHECK_CONDITION: u8 = 0x02;
pub(crate) const BUSY: u8 = 0x08;
pub(crate) const CONFLICT: u8 = 0x18;
pub(crate) const TASK_ABORTED: u8 = 0x40;

/// Additional sense code and qualifier of a unit attention.
pub(crate) type Attention = (u8, u8);

const POWER_ON: Attention = (0x29, 0x01);
const BUS_DEVICE_RESET: Attention = (0x29, 0x03);

/// What a node can send.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    /// PERSISTENT RESERVE OUT.
    Out(Command),
    /// PERSISTENT RESERVE IN, with a service action and an ALLOCATION LENGTH.
    In(u8, u8),
    /// RESERVE(6), or else RELEASE(6).
    Old {
        reserve: bool,
    },
    Read,
    Write,
    TestUnitReady,
    RequestSense,
    Inquiry,
}

impl Sent {
    fn access(&self) -> Access {
        match self {
            Sent::Out(_) => Access::PersistentReserveOut,
            Sent::In(..) => Access::PersistentReserveIn,
            Sent::Old { .. } => Access::Reserve,
            Sent::Read => Access::Read,
            Sent::Write => Access::Write,
            Sent::TestUnitReady => Access::FreeUnlessReserved,
            Sent::RequestSense | Sent::Inquiry => Access::Free,
        }
    }

    fn changes_reservations(&self) -> bool {
        matches!(self, Sent::Out(_) | Sent::Old { .. }) && !self.is_unknown()
    }

    /// A service action that no command has: nothing else of it is looked at.
    fn is_unknown(&self) -> bool {
        matches!(self, Sent::Out(command) if command.service_action > 7)
    }

    /// INQUIRY and REQUEST SENSE neither report a unit attention with CHECK CONDITION nor are kept from running by one.
    fn reports_attentions(&self) -> bool {
        !matches!(self, Sent::RequestSense | Sent::Inquiry)
    }
}

/// Which command: the nexus, and the kernel's id.
pub(crate) type Name = (usize, u16);

/// An answer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    Good,
    /// GOOD with these bytes.
    Data(Vec<u8>),
    /// GOOD with sense data as data: sense key, additional sense code and qualifier.
    SenseAsData(u8, Attention),
    /// CHECK CONDITION: sense key, additional sense code and qualifier, field pointer.
    Check(u8, Attention, [u8; 3]),
    Status(u8),
}

/// What an answer lets its sender conclude.
#[derive(Debug)]
struct Conclusion {
    /// Who may do what, from the turn `decided` on.
    state: State,
    decided: u64,
    /// Whose commands must have ended too.
    aborted: Vec<usize>,
    /// The command has changed the reservations.
    changed: bool,
}

#[derive(Debug)]
enum Stage {
    /// It waits for a change before it, or for its own change to be stored.
    Waiting,
    /// It is in the disk's hands.
    Disk { read: bool },
    /// Its answer is known, since that turn.
    Decided(Due, u64),
    /// The same, and nothing can abort it any more.
    Final(Due),
}

#[derive(Debug)]
struct Outstanding {
    sent: Sent,
    stage: Stage,
    aborted: bool,
    conclusion: Option<Conclusion>,
}

enum Awaited {
    Command(Name),
    Reset,
}

struct Storing {
    /// `None` if it is a reset that ends a RESERVE.
    command: Option<Name>,
    effects: Effects,
    aborted: bool,
    /// How much of what was told had been told when the record was made.
    told: Vec<usize>,
}

/// How an attempt to store a change has ended.
pub(crate) struct Stored {
    pub(crate) state: State,
    pub(crate) generation: u32,
    /// The unit attentions in the record, by nexus.
    pub(crate) attentions: Vec<(usize, Attention)>,
    pub(crate) success: bool,
}

/// The logical unit as it should be.
pub(crate) struct Oracle<'a> {
    world: &'a World,
    pub(crate) state: State,
    pub(crate) generation: u32,
    attentions: Vec<VecDeque<Attention>>,
    /// What was told since the last record was made that could be stored: a daemon that dies may tell it again.
    told: Vec<Vec<Attention>>,
    outstanding: BTreeMap<Name, Outstanding>,
    storing: Option<Storing>,
    awaited: VecDeque<Awaited>,
    /// Answers wait to be given that were not there when the turn began.
    unsettled: bool,
    turn: u64,
}

impl<'a> Oracle<'a> {
    pub(crate) fn new(world: &'a World) -> Oracle<'a> {
        let mut oracle = Oracle {
            world,
            state: State::default(),
            generation: 0,
            attentions: Vec::new(),
            told: Vec::new(),
            outstanding: BTreeMap::new(),
            storing: None,
            awaited: VecDeque::new(),
            unsettled: false,
            turn: 0,
        };
        oracle.power_on();
        oracle
    }

    fn power_on(&mut self) {
        let nexuses = self.world.nexuses.len();
        self.attentions = vec![VecDeque::from([POWER_ON]); nexuses];
        self.told = vec![Vec::new(); nexuses];
    }

    /// How many commands of a nexus have not been answered.
    pub(crate) fn outstanding(&self, nexus: usize) -> usize {
        self.outstanding
            .keys()
            .filter(|name| name.0 == nexus)
            .count()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.outstanding.is_empty() && self.storing.is_none() && self.awaited.is_empty()
    }

    /// A turn begins, in which those commands are taken from the rings.
    pub(crate) fn begin_turn(&mut self) {
        self.turn += 1;
    }

    /// A command comes.
    pub(crate) fn arrive(&mut self, name: Name, sent: Sent) {
        let changes = sent.changes_reservations();
        let outstanding = Outstanding {
            sent,
            stage: Stage::Waiting,
            aborted: false,
            conclusion: None,
        };
        let before = self.outstanding.insert(name, outstanding);
        assert!(before.is_none(), "the kernel gave an id twice");
        let settled = self.storing.is_none() && self.awaited.is_empty() && !self.unsettled;
        if changes && !settled {
            self.awaited.push_back(Awaited::Command(name));
        } else {
            self.run(name);
        }
    }

    /// LOGICAL UNIT RESET, sent by that nexus.
    pub(crate) fn reset(&mut self, issuer: usize) {
        for nexus in 0..self.attentions.len() {
            if nexus != issuer {
                self.establish(nexus, BUS_DEVICE_RESET);
            }
        }
        self.abort(|_| true);
        self.awaited.push_back(Awaited::Reset);
    }

    /// So much time passes that nothing waits for commands in flight any longer.
    pub(crate) fn lose_patience(&mut self) {
        for outstanding in self.outstanding.values_mut() {
            if let Stage::Decided(..) = outstanding.stage {
                // It has changed something or it has not: its sender must not take the one for the other.
                let changed = outstanding
                    .conclusion
                    .take()
                    .is_some_and(|conclusion| conclusion.changed);
                let status = if changed { TASK_ABORTED } else { BUSY };
                outstanding.stage = Stage::Final(Due::Status(status));
                self.unsettled = true;
            }
        }
    }

    /// The operations that the disk has done come first in a turn: what is aborted later in it was too late for them.
    pub(crate) fn check_disk_answers(&mut self, answers: &[(usize, Completed)]) {
        for (nexus, answer) in answers {
            let name = (*nexus, answer.id);
            let of_disk = self.outstanding.get(&name);
            let Some(Outstanding {
                stage: Stage::Disk { read },
                aborted,
                ..
            }) = of_disk
            else {
                continue;
            };
            let medium_error = if *read { (0x11, 0x00) } else { (0x0c, 0x00) };
            match (aborted, answer.status) {
                (true, TASK_ABORTED) | (false, GOOD) => {}
                (false, CHECK_CONDITION) if sense_of(&answer.sense) == (3, medium_error) => {}
                _ => panic!("{name:?} was in the disk's hands, aborted: {aborted}: {answer:?}"),
            }
            self.outstanding.remove(&name);
        }
    }

    /// A change could be stored, or not; then those that waited for it go on.
    pub(crate) fn stored(&mut self, stored: Option<Stored>) {
        self.unsettled = false;
        if let Some(stored) = stored {
            let Storing {
                command,
                effects,
                aborted,
                told: told_before,
            } = self
                .storing
                .take()
                .expect("nobody has asked for that to be stored");
            assert_eq!(stored.state, effects.next, "what was stored");
            let generation = self.generation.wrapping_add(effects.counted);
            assert_eq!(stored.generation, generation);
            let success = stored.success;
            let told = effects
                .told
                .iter()
                .map(|&(nexus, qualifier)| (nexus, (0x2a, qualifier)));
            for attention in told.clone() {
                assert!(
                    stored.attentions.contains(&attention),
                    "{attention:?} is not in the record"
                );
            }
            if success {
                for (all, before) in self.told.iter_mut().zip(told_before) {
                    all.drain(..before);
                }
            }
            // A RESERVE ends with a reset in any case.
            if success || command.is_none() {
                self.state = effects.next.clone();
                self.generation = generation;
                for (nexus, attention) in told {
                    self.establish(nexus, attention);
                }
                let victims = effects.aborted.clone();
                self.abort(|nexus| victims.contains(&nexus));
            }
            if let Some(name) = command {
                let due = match (success, aborted) {
                    (false, _) => Due::Check(4, (0x44, 0x00), [0; 3]),
                    (true, true) => Due::Status(TASK_ABORTED),
                    (true, false) => Due::Good,
                };
                let concludes = due == Due::Good;
                self.decide(name, due);
                if concludes {
                    self.conclude(name, effects.aborted, true);
                }
            }
        }
        while self.storing.is_none() {
            match self.awaited.pop_front() {
                None => break,
                Some(Awaited::Command(name)) => self.run(name),
                Some(Awaited::Reset) if self.state.spc2.is_some() => {
                    let next = State {
                        spc2: None,
                        ..self.state.clone()
                    };
                    let effects = Effects {
                        next,
                        save: 1,
                        ..Effects::default()
                    };
                    self.store(None, effects);
                }
                Some(Awaited::Reset) => {}
            }
        }
    }

    /// All other answers of the turn. Gives what their senders conclude: who may do what, since when.
    pub(crate) fn check_answers(
        &mut self,
        answers: &[(usize, Completed)],
    ) -> Vec<(u64, State, Vec<usize>)> {
        let mut conclusions = Vec::new();
        for (nexus, answer) in answers {
            let name = (*nexus, answer.id);
            let Some(outstanding) = self.outstanding.remove(&name) else {
                continue;
            };
            let Outstanding {
                sent,
                stage,
                aborted,
                conclusion,
            } = outstanding;
            let (due, since) = match stage {
                Stage::Decided(due, since) => (due, Some(since)),
                Stage::Final(due) => (due, None),
                stage => {
                    panic!("{name:?}, {sent:?}, was answered too early, {stage:?}: {answer:?}")
                }
            };
            if aborted && since.is_some() && answer.status == TASK_ABORTED {
                continue;
            }
            // What was answered in the turn in which it was aborted may have been faster.
            let too_late = since.is_none_or(|since| since == self.turn);
            assert!(
                !aborted || too_late,
                "{name:?}, {sent:?}, was aborted: {answer:?}"
            );
            check(
                &due,
                answer,
                &format!("{name:?}, {sent:?}, in {:?}", self.state),
            );
            if let Some(Conclusion {
                state,
                decided,
                aborted,
                ..
            }) = conclusion
            {
                conclusions.push((decided, state, aborted));
            }
        }
        conclusions
    }

    /// The daemon has been killed, and its successor has found this; `died` while it stored something. With a loss of
    /// power, what APTPL does not keep is gone.
    pub(crate) fn crash(&mut self, engine: &Engine, found: &Found, died: bool, power_loss: bool) {
        let state = engine.state(&found.reservations);
        let generation = found.reservations.generation();
        let before = (self.state.clone(), self.generation);
        let storing = self.storing.take();
        let after = storing.as_ref().map(|storing| {
            let counted = storing.effects.counted;
            (
                storing.effects.next.clone(),
                self.generation.wrapping_add(counted),
            )
        });
        let lasting = |(state, generation): (State, u32)| match (power_loss, state.aptpl) {
            (false, _) => (state, generation),
            (true, true) => (
                State {
                    spc2: None,
                    ..state
                },
                0,
            ),
            (true, false) => (State::default(), 0),
        };
        let new = after.map(lasting);
        let old = lasting(before);
        let is_new = died && new.as_ref() == Some(&(state.clone(), generation));
        assert!(
            is_new || old == (state.clone(), generation),
            "neither the old nor the new reservations were found: {state:?}, generation {generation}, \
             old {old:?}, new {new:?} (died while it was stored: {died})"
        );
        self.state = state;
        self.generation = generation;
        self.outstanding.clear();
        self.awaited.clear();
        self.unsettled = false;
        if power_loss {
            assert!(
                found.attentions.is_empty(),
                "a loss of power takes unit attentions with it"
            );
            self.power_on();
            return;
        }
        self.compare_attentions(found, storing.filter(|_| died).as_ref());
    }

    /// None that is about reservations may be lost; none may come up that was never established.
    fn compare_attentions(&mut self, found: &Found, storing: Option<&Storing>) {
        for &(nexus, attention) in &found.attentions {
            let pending = self.attentions[nexus].contains(&attention);
            let told_before = self.told[nexus].contains(&attention);
            let effects = storing.map(|storing| &storing.effects.told);
            let new = effects.is_some_and(|told| told.contains(&(nexus, attention.1)));
            assert!(
                pending || told_before || new,
                "nexus {nexus} never had {attention:?}"
            );
        }
        for (nexus, pending) in self.attentions.iter_mut().enumerate() {
            for &attention in pending.iter().filter(|attention| attention.0 == 0x2a) {
                let kept = found.attentions.contains(&(nexus, attention));
                assert!(kept, "nexus {nexus} has lost {attention:?}");
            }
            pending.clear();
        }
        for &(nexus, attention) in &found.attentions {
            self.establish(nexus, attention);
        }
        self.told = vec![Vec::new(); self.attentions.len()];
    }

    /// Each condition is pending once, in order; those of the reset group stand before the others.
    fn establish(&mut self, nexus: usize, attention: Attention) {
        let pending = &mut self.attentions[nexus];
        if pending.contains(&attention) {
            return;
        }
        let resets = pending.iter().filter(|pending| pending.0 == 0x29).count();
        let place = if attention.0 == 0x29 {
            resets
        } else {
            pending.len()
        };
        pending.insert(place, attention);
    }

    fn tell(&mut self, nexus: usize) -> Option<Attention> {
        let attention = self.attentions[nexus].pop_front()?;
        self.told[nexus].push(attention);
        Some(attention)
    }

    /// A command is looked at (SAM-5: unit attentions of the reset group, then conflicts, then other unit attentions).
    fn run(&mut self, name: Name) {
        let nexus = name.0;
        let sent = self.outstanding[&name].sent.clone();
        let reports = sent.reports_attentions();
        let first = self.attentions[nexus].front().copied();
        // Of a service action that does not exist nothing else is looked at, but that a RESERVE conflicts with it.
        if sent.is_unknown() && self.state.spc2.is_none() {
            return self.decide(name, Due::Check(5, (0x24, 0x00), [0xcc, 0, 1]));
        }
        if reports && first.is_some_and(|attention| attention.0 == 0x29) {
            let attention = self.tell(nexus).expect("it is there");
            return self.decide(name, Due::Check(6, attention, [0; 3]));
        }
        let decided = match &sent {
            Sent::Out(command) => Some(self.world.decide(&self.state, nexus, command)),
            Sent::Old { reserve } => Some(old(&self.state, nexus, *reserve)),
            _ => None,
        };
        let allowed = self.state.allows(Some(nexus), sent.access());
        let conflicts = decided == Some(Answer::Conflict);
        if !allowed {
            return self.decide(name, Due::Status(CONFLICT));
        }
        if reports && first.is_some() {
            if conflicts {
                return self.refuse(name);
            }
            let attention = self.tell(nexus).expect("it is there");
            return self.decide(name, Due::Check(6, attention, [0; 3]));
        }
        match decided {
            None => self.run_other(name, &sent),
            Some(Answer::Conflict) => self.refuse(name),
            Some(Answer::Check(key, code, qualifier, pointer)) => {
                self.decide(name, Due::Check(key, (code, qualifier), pointer));
            }
            Some(Answer::Good(effects)) if effects.save == 0 => {
                self.decide(name, Due::Good);
                self.conclude(name, effects.aborted, false);
            }
            Some(Answer::Good(effects)) => {
                self.store(Some(name), effects);
            }
        }
    }

    /// A host that repeats its PREEMPT may conclude from the conflict that the first has done its work.
    fn refuse(&mut self, name: Name) {
        self.decide(name, Due::Status(CONFLICT));
        self.conclude(name, Vec::new(), false);
    }

    fn store(&mut self, command: Option<Name>, effects: Effects) {
        self.storing = Some(Storing {
            command,
            effects,
            aborted: false,
            told: self.told.iter().map(Vec::len).collect(),
        });
    }

    fn run_other(&mut self, name: Name, sent: &Sent) {
        match *sent {
            Sent::In(service_action, allocation_length) => {
                let mut bytes = self.view(service_action);
                bytes.truncate(usize::from(allocation_length));
                self.decide(name, Due::Data(bytes));
                self.conclude(name, Vec::new(), false);
            }
            Sent::Read | Sent::Write => {
                let read = matches!(sent, Sent::Read);
                self.outstanding.get_mut(&name).expect("it is there").stage = Stage::Disk { read };
            }
            Sent::RequestSense => {
                let due = match self.tell(name.0) {
                    Some(attention) => Due::SenseAsData(6, attention),
                    None => Due::SenseAsData(0, (0, 0)),
                };
                self.decide(name, due);
            }
            _ => self.decide(name, Due::Good),
        }
    }

    /// READ KEYS, READ RESERVATION and REPORT CAPABILITIES (SPC-4 r37, PERSISTENT RESERVE IN).
    fn view(&self, service_action: u8) -> Vec<u8> {
        let mut bytes = self.generation.to_be_bytes().to_vec();
        match service_action {
            0x00 => {
                let length = u32::try_from(8 * self.state.registered.len()).expect("few");
                bytes.extend(length.to_be_bytes());
                for entry in &self.state.registered {
                    bytes.extend([0, 0, 0, 0, 0, 0, 0, entry.1]);
                }
            }
            0x01 => match self.state.held {
                None => bytes.extend([0; 4]),
                Some((kind, holder)) => {
                    let key = holder
                        .and_then(|holder| self.state.key(holder))
                        .unwrap_or(0);
                    bytes.extend([0, 0, 0, 16]);
                    bytes.extend([0, 0, 0, 0, 0, 0, 0, key]);
                    bytes.extend([0, 0, 0, 0, 0, kind, 0, 0]);
                }
            },
            _ => {
                let aptpl = u8::from(self.state.aptpl);
                bytes = vec![0, 8, 0x1d, 0xc0 | aptpl, 0xea, 0x01, 0, 0];
            }
        }
        bytes
    }

    fn decide(&mut self, name: Name, due: Due) {
        let turn = self.turn;
        let outstanding = self.outstanding.get_mut(&name).expect("it is there");
        outstanding.stage = Stage::Decided(due, turn);
    }

    fn conclude(&mut self, name: Name, aborted: Vec<usize>, changed: bool) {
        let conclusion = Conclusion {
            state: self.state.clone(),
            decided: self.turn,
            aborted,
            changed,
        };
        let outstanding = self.outstanding.get_mut(&name).expect("it is there");
        outstanding.conclusion = Some(conclusion);
    }

    /// Aborts everything that those nexuses have sent and that has not been answered.
    fn abort(&mut self, nexuses: impl Fn(usize) -> bool) {
        if let Some(storing) = &mut self.storing {
            storing.aborted |= storing.command.is_some_and(|name| nexuses(name.0));
        }
        let storing = self.storing.as_ref().and_then(|storing| storing.command);
        self.awaited.retain(|awaited| match awaited {
            Awaited::Command(name) => !nexuses(name.0),
            Awaited::Reset => true,
        });
        for (name, outstanding) in &mut self.outstanding {
            if !nexuses(name.0) || Some(*name) == storing {
                continue;
            }
            match outstanding.stage {
                Stage::Waiting => outstanding.stage = Stage::Final(Due::Status(TASK_ABORTED)),
                Stage::Decided(..) | Stage::Disk { .. } => outstanding.aborted = true,
                Stage::Final(_) => {}
            }
        }
    }
}

/// Sense key, additional sense code and qualifier, in fixed format.
fn sense_of(sense: &[u8]) -> (u8, Attention) {
    (sense[2] & 0x0f, (sense[12], sense[13]))
}

fn check(due: &Due, answer: &Completed, what: &dyn std::fmt::Display) {
    let due_status = match due {
        Due::Good | Due::Data(_) | Due::SenseAsData(..) => GOOD,
        Due::Check(..) => CHECK_CONDITION,
        Due::Status(status) => *status,
    };
    assert_eq!(
        answer.status, due_status,
        "{what}: {due:?} is due: {answer:?}"
    );
    match due {
        Due::Data(bytes) => assert_eq!(answer.data_in, *bytes, "{what}"),
        Due::SenseAsData(key, attention) => {
            assert_eq!(sense_of(&answer.data_in), (*key, *attention), "{what}");
        }
        Due::Check(key, additional, pointer) => {
            assert_eq!(sense_of(&answer.sense), (*key, *additional), "{what}");
            assert_eq!(answer.sense[15..18], *pointer, "{what}");
        }
        Due::Good | Due::Status(_) => {}
    }
}
