//! Every sequence of commands in small worlds, against a naive model of SPC-4 r37, Reservations.
//!
//! The model is written rule by rule from the standard's tables and shares nothing with the engine. Both are
//! given the same command in every state that can be reached, whatever the sequence, until no new state comes
//! up; PRGENERATION is compared by how much it grows, so that it does not make the states endless. Compared
//! are the answer down to the field pointer, the next state, unit attentions, commands to abort, what must be
//! stored, the answers of PERSISTENT RESERVE IN, and the gate.

use std::collections::{HashMap, HashSet, VecDeque};

use tcmu_pr::pr::out::{self, Cdb, Context};
use tcmu_pr::pr::{Change, Refusal, Reservations, Save, read, spc2};
use tcmu_pr::scsi::Access;
use tcmu_pr::scsi::nexus::{ItNexus, Protocol, TargetPort, TransportId};
use tcmu_pr::scsi::sense::Format;

/// Which host and which target port each of the I_T nexuses is; the command set is drawn from these.
struct World {
    nexuses: Vec<(u8, u8)>,
    keys: Vec<u8>,
    /// TYPE and SCOPE as CDB byte 2.
    scope_types: Vec<u8>,
}

/// The state of the model; nexuses by their number in the world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    registered: Vec<(usize, u8)>,
    /// TYPE, and the holder or `None` for all registrants.
    held: Option<(u8, Option<usize>)>,
    aptpl: bool,
    spc2: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Conflict,
    /// Sense key, ASC, ASCQ, and the field pointer.
    Check(u8, u8, u8, [u8; 3]),
    Good(Effects),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Effects {
    next: State,
    counted: u32,
    /// Nexus and ASCQ; the ASC is always 2Ah.
    told: Vec<(usize, u8)>,
    aborted: Vec<usize>,
    /// 0 nothing, 1 for the daemon, 2 durable.
    save: u8,
}

/// A command in terms of the model.
#[derive(Clone, Debug, Default)]
struct Command {
    service_action: u8,
    scope_type: u8,
    key: u8,
    new_key: u8,
    spec_i_pt: bool,
    /// The hosts listed with SPEC_I_PT, or none if the list is malformed.
    listed: Option<Vec<u8>>,
    all_tg_pt: bool,
    aptpl: bool,
    unreg: bool,
    /// The destination of REGISTER AND MOVE.
    host: u8,
    port: u16,
    /// PARAMETER LIST LENGTH, if it is not what it should be.
    length: Option<u32>,
}

const NONE: [u8; 3] = [0; 3];
/// Field pointers: SKSV, C/D, BPV and bit; byte.
const SERVICE_ACTION: [u8; 3] = [0xcc, 0, 1];
const SCOPE: [u8; 3] = [0xcf, 0, 2];
const TYPE: [u8; 3] = [0xcb, 0, 2];
const SPEC_I_PT: [u8; 3] = [0x8b, 0, 20];

const fn parameter(byte: u8) -> [u8; 3] {
    [0x80, 0, byte]
}

const WRONG_LENGTH: Answer = Answer::Check(5, 0x1a, 0, NONE);

fn bad_cdb(pointer: [u8; 3]) -> Answer {
    Answer::Check(5, 0x24, 0, pointer)
}

fn bad_list(pointer: [u8; 3]) -> Answer {
    Answer::Check(5, 0x26, 0, pointer)
}

impl State {
    fn key(&self, nexus: usize) -> Option<u8> {
        self.registered
            .iter()
            .find(|entry| entry.0 == nexus)
            .map(|entry| entry.1)
    }

    fn holds(&self, nexus: usize) -> bool {
        match self.held {
            None => false,
            Some((_, Some(holder))) => holder == nexus,
            Some((_, None)) => self.key(nexus).is_some(),
        }
    }

    fn set(&mut self, nexus: usize, key: u8) {
        for entry in &mut self.registered {
            if entry.0 == nexus {
                entry.1 = key;
                return;
            }
        }
        self.registered.push((nexus, key));
    }

    fn remove(&mut self, nexus: usize) {
        self.registered.retain(|entry| entry.0 != nexus);
    }

    fn others(&self, nexus: usize) -> Vec<usize> {
        let all = self.registered.iter().map(|entry| entry.0);
        all.filter(|&other| other != nexus).collect()
    }

    /// SPC-4 and SBC-3, commands that are allowed in the presence of various reservations.
    fn allows(&self, nexus: Option<usize>, access: Access) -> bool {
        if let Some(holder) = self.spc2 {
            return match access {
                Access::Free | Access::Reserve => true,
                Access::PersistentReserveIn | Access::PersistentReserveOut => false,
                _ => nexus == Some(holder),
            };
        }
        let registered = nexus.is_some_and(|nexus| self.key(nexus).is_some());
        let holds = nexus.is_some_and(|nexus| self.holds(nexus));
        match (self.held.map(|held| held.0), access) {
            (None, _) => true,
            _ if holds => true,
            (Some(1), Access::Read) => true,
            (Some(1 | 3), Access::Read | Access::Write) => false,
            (Some(5 | 7), Access::Read) => true,
            (Some(_), Access::Read | Access::Write) => registered,
            _ => true,
        }
    }
}

impl World {
    fn nexus(&self, host: u8, port: u8) -> Option<usize> {
        self.nexuses.iter().position(|&nexus| nexus == (host, port))
    }

    fn ports(&self) -> u8 {
        self.nexuses.iter().map(|nexus| nexus.1).max().unwrap_or(0)
    }

    /// The nexuses of a host at the port of `issuer`, or at all ports.
    fn nexuses_of(&self, host: u8, issuer: usize, all_tg_pt: bool) -> Vec<usize> {
        let own = self.nexuses[issuer].1;
        let mut ports = vec![own];
        if all_tg_pt {
            ports.extend((1..=self.ports()).filter(|&port| port != own));
        }
        let nexus = |port| self.nexus(host, port).expect("every host is at every port");
        ports.into_iter().map(nexus).collect()
    }

    fn decide(&self, state: &State, issuer: usize, command: &Command) -> Answer {
        if state.spc2.is_some() {
            return Answer::Conflict;
        }
        let service_action = command.service_action;
        if service_action > 7 {
            return bad_cdb(SERVICE_ACTION);
        }
        if command.length.is_some() {
            return WRONG_LENGTH;
        }
        let key = state.key(issuer);
        if ![0x00, 0x06].contains(&service_action) && key != Some(command.key) {
            return Answer::Conflict;
        }
        let own = self.nexuses_of(self.nexuses[issuer].0, issuer, command.all_tg_pt);
        if service_action == 0x00 {
            if key.is_none() && command.key != 0 {
                return Answer::Conflict;
            }
            for &nexus in &own {
                if state.key(nexus).is_some() && state.key(nexus) != Some(command.key) {
                    return Answer::Conflict;
                }
            }
        }
        let exists = state.held.is_some();
        if service_action == 0x01 && exists && !state.holds(issuer) {
            return Answer::Conflict;
        }
        if service_action == 0x07 && exists {
            let all = matches!(state.held, Some((7 | 8, _)));
            if all || !state.holds(issuer) {
                return Answer::Conflict;
            }
        }
        if command.spec_i_pt && (0x01..=0x06).contains(&service_action) {
            return bad_list(SPEC_I_PT);
        }
        match service_action {
            0x00 | 0x06 => self.register(state, issuer, command, &own),
            0x01 => reserve(state, issuer, command),
            0x02 => release(state, issuer, command),
            0x03 => clear(state, issuer),
            0x04 | 0x05 => preempt(state, issuer, command),
            _ => self.register_and_move(state, issuer, command),
        }
    }

    fn register(&self, state: &State, issuer: usize, command: &Command, own: &[usize]) -> Answer {
        if command.spec_i_pt && state.key(issuer).is_some() {
            return bad_list(SPEC_I_PT);
        }
        let mut next = state.clone();
        let mut told = Vec::new();
        if command.new_key == 0 {
            let removed: Vec<usize> = own
                .iter()
                .copied()
                .filter(|&nexus| state.key(nexus).is_some())
                .collect();
            if removed.is_empty() {
                return Answer::Good(Effects {
                    next,
                    counted: 1,
                    save: 1,
                    ..Effects::default()
                });
            }
            for &nexus in &removed {
                next.remove(nexus);
            }
            match state.held {
                Some((kind, Some(holder))) if removed.contains(&holder) => {
                    next.held = None;
                    if kind == 5 || kind == 6 {
                        told = next
                            .others(issuer)
                            .into_iter()
                            .map(|nexus| (nexus, 4))
                            .collect();
                    }
                }
                _ => {}
            }
            if next.registered.is_empty() {
                next.held = None;
            }
        } else {
            let mut all = own.to_vec();
            if command.spec_i_pt {
                let Some(hosts) = &command.listed else {
                    return bad_list(parameter(28));
                };
                for (number, &host) in (0_u8..).zip(hosts) {
                    for nexus in self.nexuses_of(host, issuer, command.all_tg_pt) {
                        if state.key(nexus).is_some() {
                            return bad_list(parameter(28 + 24 * number));
                        }
                        all.push(nexus);
                    }
                }
            }
            for nexus in all {
                next.set(nexus, command.new_key);
            }
        }
        next.aptpl = command.aptpl;
        good(state, next, 1, told)
    }

    fn register_and_move(&self, state: &State, issuer: usize, command: &Command) -> Answer {
        let Some((kind, _)) = state.held else {
            return bad_cdb(SERVICE_ACTION);
        };
        if command.new_key == 0 {
            return bad_list(parameter(8));
        }
        if command.host == self.nexuses[issuer].0 {
            return bad_list(parameter(24));
        }
        let port = u8::try_from(command.port).unwrap_or(0);
        let Some(destination) = self.nexus(command.host, port) else {
            return bad_list(parameter(18));
        };
        let mut next = state.clone();
        next.set(destination, command.new_key);
        next.held = Some((kind, Some(destination)));
        if command.unreg {
            next.remove(issuer);
        }
        next.aptpl = command.aptpl;
        good(state, next, 1, Vec::new())
    }
}

fn good(before: &State, next: State, counted: u32, told: Vec<(usize, u8)>) -> Answer {
    let save = if before.aptpl || next.aptpl { 2 } else { 1 };
    Answer::Good(Effects {
        next,
        counted,
        told,
        aborted: Vec::new(),
        save,
    })
}

fn nothing(state: &State) -> Answer {
    Answer::Good(Effects {
        next: state.clone(),
        ..Effects::default()
    })
}

fn bad_scope_type(scope_type: u8) -> Option<Answer> {
    if scope_type >> 4 != 0 {
        return Some(bad_cdb(SCOPE));
    }
    (![1, 3, 5, 6, 7, 8].contains(&scope_type)).then(|| bad_cdb(TYPE))
}

fn holder_of(kind: u8, issuer: usize) -> Option<usize> {
    if kind == 7 || kind == 8 {
        None
    } else {
        Some(issuer)
    }
}

fn reserve(state: &State, issuer: usize, command: &Command) -> Answer {
    if let Some(answer) = bad_scope_type(command.scope_type) {
        return answer;
    }
    match state.held {
        Some((kind, _)) if kind == command.scope_type => nothing(state),
        Some(_) => Answer::Conflict,
        None => {
            let mut next = state.clone();
            next.held = Some((command.scope_type, holder_of(command.scope_type, issuer)));
            good(state, next, 0, Vec::new())
        }
    }
}

fn release(state: &State, issuer: usize, command: &Command) -> Answer {
    if command.scope_type >> 4 != 0 {
        return bad_cdb(SCOPE);
    }
    let Some((kind, _)) = state.held else {
        return nothing(state);
    };
    if !state.holds(issuer) {
        return nothing(state);
    }
    if kind != command.scope_type {
        return Answer::Check(5, 0x26, 4, NONE);
    }
    let mut next = state.clone();
    next.held = None;
    let told = if kind == 1 || kind == 3 {
        Vec::new()
    } else {
        state.others(issuer)
    };
    good(
        state,
        next,
        0,
        told.into_iter().map(|nexus| (nexus, 4)).collect(),
    )
}

fn clear(state: &State, issuer: usize) -> Answer {
    let told = state
        .others(issuer)
        .into_iter()
        .map(|nexus| (nexus, 3))
        .collect();
    let next = State {
        aptpl: state.aptpl,
        ..State::default()
    };
    good(state, next, 1, told)
}

fn preempt(state: &State, issuer: usize, command: &Command) -> Answer {
    let all = matches!(state.held, Some((7 | 8, _)));
    let holder_key = match state.held {
        Some((_, Some(holder))) => state.key(holder),
        _ => None,
    };
    if command.new_key == 0 && state.held.is_some() && !all {
        return bad_list(parameter(8));
    }
    let everybody = all && command.new_key == 0;
    let takes_over = everybody || (command.new_key != 0 && holder_key == Some(command.new_key));
    let mut aimed_at = Vec::new();
    for &(nexus, key) in &state.registered {
        if everybody || key == command.new_key {
            aimed_at.push(nexus);
        }
    }
    let mut next = state.clone();
    let mut told = Vec::new();
    if takes_over {
        if let Some(answer) = bad_scope_type(command.scope_type) {
            return answer;
        }
        for &nexus in aimed_at.iter().filter(|&&nexus| nexus != issuer) {
            next.remove(nexus);
            told.push((nexus, 5));
        }
        let kind = command.scope_type;
        if state.held.map(|held| held.0) != Some(kind) {
            told.extend(next.others(issuer).into_iter().map(|nexus| (nexus, 4)));
        }
        next.held = Some((kind, holder_of(kind, issuer)));
    } else {
        if aimed_at.is_empty() {
            return Answer::Conflict;
        }
        for &nexus in &aimed_at {
            next.remove(nexus);
            if nexus != issuer {
                told.push((nexus, 5));
            }
        }
        if next.registered.is_empty() {
            next.held = None;
        }
    }
    let mut answer = good(state, next, 1, told);
    if let (0x05, Answer::Good(effects)) = (command.service_action, &mut answer) {
        effects.aborted = aimed_at;
    }
    answer
}

/// RESERVE and RELEASE of SPC-2.
fn old(state: &State, issuer: usize, reserve: bool) -> Answer {
    let mut next = state.clone();
    if !state.registered.is_empty() {
        let kind = state.held.map_or(0, |held| held.0);
        let compatible = state.holds(issuer) || (state.key(issuer).is_some() && kind >= 5);
        return if compatible {
            nothing(state)
        } else {
            Answer::Conflict
        };
    }
    match (state.spc2, reserve) {
        (None, true) => next.spc2 = Some(issuer),
        (None, false) => {}
        (Some(holder), true) if holder != issuer => return Answer::Conflict,
        (Some(_), true) => {}
        (Some(holder), false) if holder == issuer => next.spc2 = None,
        (Some(_), false) => {}
    }
    let save = u8::from(next != *state);
    Answer::Good(Effects {
        next,
        save,
        ..Effects::default()
    })
}

// The engine's side.

fn transport_id(host: u8) -> TransportId {
    TransportId::FibreChannel(u64::from(host))
}

fn target_port(port: u8) -> TargetPort {
    TargetPort {
        protocol: Protocol::FibreChannel,
        name: format!("p{port}").into(),
    }
}

struct Engine {
    nexuses: Vec<ItNexus>,
    numbers: HashMap<ItNexus, usize>,
    context: Context,
}

impl Engine {
    fn new(world: &World) -> Engine {
        let nexus = |&(host, port): &(u8, u8)| ItNexus {
            initiator_port: transport_id(host),
            target_port: target_port(port),
        };
        let nexuses: Vec<ItNexus> = world.nexuses.iter().map(nexus).collect();
        let mut context = Context::default();
        for port in 1..=world.ports() {
            context.ports.add(&target_port(port));
        }
        let numbers = nexuses.iter().cloned().zip(0..).collect();
        Engine {
            nexuses,
            numbers,
            context,
        }
    }

    fn number(&self, nexus: &ItNexus) -> usize {
        self.numbers[nexus]
    }

    fn state(&self, state: &Reservations) -> State {
        let registered = state.registrants().iter();
        let key = |key: u64| u8::try_from(key).expect("small keys");
        State {
            registered: registered
                .map(|one| (self.number(&one.nexus), key(one.key)))
                .collect(),
            held: state.reservation().map(|held| {
                (
                    held.kind.code(),
                    held.single_holder().map(|holder| self.number(holder)),
                )
            }),
            aptpl: state.aptpl(),
            spc2: state.spc2().map(|holder| self.number(holder)),
        }
    }

    fn answer(&self, before: &Reservations, answer: &Result<Change, Refusal>) -> Answer {
        let change = match answer {
            Ok(change) => change,
            Err(Refusal::Conflict) => return Answer::Conflict,
            Err(Refusal::Check(sense)) => {
                let (bytes, _) = sense.encode(Format::Fixed);
                let pointer = [bytes[15], bytes[16], bytes[17]];
                return Answer::Check(bytes[2], bytes[12], bytes[13], pointer);
            }
        };
        change.next.check().expect("the invariants hold");
        let mut told = Vec::new();
        for (nexus, sense) in &change.attentions {
            assert_eq!(sense.additional().0, 0x2a);
            told.push((self.number(nexus), sense.additional().1));
        }
        Answer::Good(Effects {
            next: self.state(&change.next),
            counted: change.next.generation().wrapping_sub(before.generation()),
            told,
            aborted: change
                .abort
                .iter()
                .map(|nexus| self.number(nexus))
                .collect(),
            save: match change.save {
                Save::Nothing => 0,
                Save::Runtime => 1,
                Save::Durable => 2,
            },
        })
    }

    /// PERSISTENT RESERVE IN and the gate, in one state.
    fn compare_views(&self, model: &State, state: &Reservations) {
        let keys: Vec<u8> = model
            .registered
            .iter()
            .flat_map(|entry| u64::from(entry.1).to_be_bytes())
            .collect();
        assert_eq!(read::keys(state)[8..], keys);
        let reservation = read::reservation(state);
        match model.held {
            None => assert_eq!(reservation.len(), 8),
            Some((kind, holder)) => {
                let key = holder.and_then(|holder| model.key(holder)).unwrap_or(0);
                assert_eq!((reservation[15], reservation[21]), (key, kind));
            }
        }
        let full = read::full_status(state, &self.context.ports);
        for (descriptor, &(nexus, key)) in full[8..].chunks(48).zip(&model.registered) {
            let holds = model.holds(nexus);
            let kind = model.held.filter(|_| holds).map_or(0, |held| held.0);
            assert_eq!(descriptor[7], key);
            assert_eq!(descriptor[12..14], [u8::from(holds), kind]);
            assert_eq!(
                descriptor[24..],
                self.nexuses[nexus].initiator_port.encode()
            );
        }
        for access in Access::ALL {
            for (number, nexus) in self.nexuses.iter().enumerate() {
                let expected = model.allows(Some(number), access);
                assert_eq!(
                    state.allowed(Some(nexus)).contains(access),
                    expected,
                    "{model:?}"
                );
            }
            let expected = model.allows(None, access);
            assert_eq!(state.allowed(None).contains(access), expected, "{model:?}");
        }
    }
}

fn bytes(command: &Command) -> (Cdb, Vec<u8>) {
    let mut list = vec![0; 24];
    list[7] = command.key;
    list[15] = command.new_key;
    if command.service_action == 0x07 {
        let id = transport_id(command.host).encode();
        list[17] = u8::from(command.unreg) << 1 | u8::from(command.aptpl);
        list[18..20].copy_from_slice(&command.port.to_be_bytes());
        list[23] = 24;
        list.extend(id);
    } else {
        list[20] = u8::from(command.spec_i_pt) << 3
            | u8::from(command.all_tg_pt) << 2
            | u8::from(command.aptpl);
    }
    if command.spec_i_pt && command.service_action == 0x00 {
        let ids: Vec<u8> = match &command.listed {
            Some(hosts) => hosts
                .iter()
                .flat_map(|&host| transport_id(host).encode())
                .collect(),
            None => vec![0xff; 24],
        };
        list.extend(u32::try_from(ids.len()).expect("short").to_be_bytes());
        list.extend(ids);
    }
    let length = u32::try_from(list.len()).expect("short");
    let cdb = Cdb {
        service_action: command.service_action,
        scope_type: command.scope_type,
        parameter_list_length: command.length.unwrap_or(length),
    };
    list.resize(128, 0);
    (cdb, list)
}

/// Every command that can be told apart from others in this world.
fn commands(world: &World) -> Vec<Command> {
    let mut all = Vec::new();
    let keys = || std::iter::once(0).chain(world.keys.iter().copied());
    let hosts = world.nexuses.iter().map(|nexus| nexus.0).max().unwrap_or(0);
    let mut lists: Vec<Option<Option<Vec<u8>>>> = vec![None, Some(None), Some(Some(vec![]))];
    for one in 0..=hosts {
        lists.push(Some(Some(vec![one])));
        for two in 0..one {
            lists.push(Some(Some(vec![one, two])));
        }
    }
    let bits = [false, true];
    for service_action in 0x00..=0x08 {
        for key in keys() {
            let basic = Command {
                service_action,
                key,
                ..Command::default()
            };
            all.push(Command {
                length: Some(23),
                ..basic.clone()
            });
            for new_key in keys() {
                let basic = Command {
                    new_key,
                    ..basic.clone()
                };
                match service_action {
                    0x00 | 0x06 => {
                        for (all_tg_pt, aptpl) in bits.map(|a| bits.map(|b| (a, b))).concat() {
                            for list in &lists {
                                let listed = list.clone().flatten();
                                let spec_i_pt = list.is_some();
                                if service_action == 0x00 || listed.is_none() {
                                    let basic = basic.clone();
                                    let spec_i_pt = Command {
                                        spec_i_pt,
                                        listed,
                                        ..basic
                                    };
                                    all.push(Command {
                                        all_tg_pt,
                                        aptpl,
                                        ..spec_i_pt
                                    });
                                }
                            }
                        }
                    }
                    0x07 => {
                        for (unreg, aptpl) in bits.map(|a| bits.map(|b| (a, b))).concat() {
                            for host in 0..=hosts {
                                for port in 0..=u16::from(world.ports()) {
                                    let basic = basic.clone();
                                    all.push(Command {
                                        unreg,
                                        aptpl,
                                        host,
                                        port,
                                        ..basic
                                    });
                                }
                            }
                        }
                    }
                    _ => {
                        let many = (0x01..=0x05).contains(&service_action);
                        if many && (new_key == 0 || service_action >= 0x04) {
                            for &scope_type in &world.scope_types {
                                all.push(Command {
                                    scope_type,
                                    ..basic.clone()
                                });
                            }
                        }
                        all.push(Command {
                            spec_i_pt: true,
                            ..basic
                        });
                    }
                }
            }
        }
    }
    all
}

/// Runs every command in every state that can be reached. Yields how many states there are.
fn explore(world: &World) -> usize {
    let engine = Engine::new(world);
    let commands: Vec<(Command, Cdb, Vec<u8>)> = commands(world)
        .into_iter()
        .map(|command| {
            let (cdb, list) = bytes(&command);
            (command, cdb, list)
        })
        .collect();
    let mut seen = HashSet::from([State::default()]);
    let mut queue = VecDeque::from([(State::default(), Reservations::default())]);
    while let Some((model, state)) = queue.pop_front() {
        engine.compare_views(&model, &state);
        let mut reached =
            |expected: Answer, answer: Result<Change, Refusal>, what: &dyn Fn() -> String| {
                assert_eq!(
                    engine.answer(&state, &answer),
                    expected,
                    "{} in {model:?}",
                    what()
                );
                if let (Answer::Good(effects), Ok(change)) = (expected, answer) {
                    if seen.insert(effects.next.clone()) {
                        queue.push_back((effects.next, change.next));
                    }
                }
            };
        for (issuer, nexus) in engine.nexuses.iter().enumerate() {
            for (command, cdb, list) in &commands {
                let expected = world.decide(&model, issuer, command);
                let answer = out::answer(&state, nexus, *cdb, list, &engine.context);
                reached(expected, answer, &|| format!("{command:?} by {issuer}"));
            }
            let answer = spc2::reserve(&state, nexus);
            reached(old(&model, issuer, true), answer, &|| {
                format!("RESERVE by {issuer}")
            });
            let answer = spc2::release(&state, nexus);
            reached(old(&model, issuer, false), answer, &|| {
                format!("RELEASE by {issuer}")
            });
            let lost = state.released_by_nexus_loss(nexus);
            assert_eq!(lost.is_some(), model.spc2 == Some(issuer));
        }
        assert_eq!(state.released_by_reset().is_some(), model.spc2.is_some());
        let after = engine.state(&state.after_power_loss());
        let kept = if model.aptpl {
            State {
                spc2: None,
                ..model
            }
        } else {
            State::default()
        };
        assert_eq!(after, kept);
    }
    seen.len()
}

/// How many states a world has: every order in which some of `nexuses` registered under one of `keys`, each with
/// no reservation, one of four types and a holder, or one of two types; times APTPL; and those with a RESERVE.
fn states(nexuses: usize, keys: usize) -> usize {
    let mut orders = 1;
    let mut states = 1;
    for registered in 1..=nexuses {
        orders *= (nexuses - registered + 1) * keys;
        states += orders * (1 + 4 * registered + 2);
    }
    2 * (states + nexuses)
}

const ALL_SCOPE_TYPES: [u8; 9] = [1, 3, 5, 6, 7, 8, 0, 2, 0x11];

#[test]
fn three_hosts_at_one_target_port() {
    let world = World {
        nexuses: vec![(0, 1), (1, 1), (2, 1)],
        keys: vec![1, 2],
        scope_types: ALL_SCOPE_TYPES.to_vec(),
    };
    assert_eq!(explore(&world), states(3, 2));
}

#[test]
fn one_host_at_three_target_ports() {
    let world = World {
        nexuses: vec![(0, 1), (0, 2), (0, 3)],
        keys: vec![1, 2],
        scope_types: ALL_SCOPE_TYPES.to_vec(),
    };
    // A reservation of one host cannot be moved to itself, but all the same states can be reached.
    assert_eq!(explore(&world), states(3, 2));
}

#[test]
fn two_hosts_at_two_target_ports() {
    let world = World {
        nexuses: vec![(0, 1), (0, 2), (1, 1), (1, 2)],
        keys: vec![1],
        scope_types: vec![1, 5, 7],
    };
    assert!(explore(&world) > 1_000);
}
