//! The naive model: the rules of SPC-4 r37, Reservations, one after the other, with no thought of speed.

use tcmu_pr::scsi::Access;

/// Which host and which target port each of the I_T nexuses is; the command set is drawn from these.
pub(crate) struct World {
    pub(crate) nexuses: Vec<(u8, u8)>,
    pub(crate) keys: Vec<u8>,
    /// TYPE and SCOPE as CDB byte 2.
    pub(crate) scope_types: Vec<u8>,
}

/// The state of the model; nexuses by their number in the world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) registered: Vec<(usize, u8)>,
    /// TYPE, and the holder or `None` for all registrants.
    pub(crate) held: Option<(u8, Option<usize>)>,
    pub(crate) aptpl: bool,
    pub(crate) spc2: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Conflict,
    /// Sense key, ASC, ASCQ, and the field pointer.
    Check(u8, u8, u8, [u8; 3]),
    Good(Effects),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    pub(crate) next: State,
    pub(crate) counted: u32,
    /// Nexus and ASCQ; the ASC is always 2Ah.
    pub(crate) told: Vec<(usize, u8)>,
    pub(crate) aborted: Vec<usize>,
    /// 0 nothing, 1 for the daemon, 2 durable.
    pub(crate) save: u8,
}

/// A command in terms of the model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Command {
    pub(crate) service_action: u8,
    pub(crate) scope_type: u8,
    pub(crate) key: u8,
    pub(crate) new_key: u8,
    pub(crate) spec_i_pt: bool,
    /// The hosts listed with SPEC_I_PT, or none if the list is malformed.
    pub(crate) listed: Option<Vec<u8>>,
    pub(crate) all_tg_pt: bool,
    pub(crate) aptpl: bool,
    pub(crate) unreg: bool,
    /// The destination of REGISTER AND MOVE.
    pub(crate) host: u8,
    pub(crate) port: u16,
    /// PARAMETER LIST LENGTH, if it is not what it should be.
    pub(crate) length: Option<u32>,
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
    pub(crate) fn key(&self, nexus: usize) -> Option<u8> {
        self.registered
            .iter()
            .find(|entry| entry.0 == nexus)
            .map(|entry| entry.1)
    }

    pub(crate) fn holds(&self, nexus: usize) -> bool {
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
    pub(crate) fn allows(&self, nexus: Option<usize>, access: Access) -> bool {
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

    pub(crate) fn ports(&self) -> u8 {
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

    pub(crate) fn decide(&self, state: &State, issuer: usize, command: &Command) -> Answer {
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
pub(crate) fn old(state: &State, issuer: usize, reserve: bool) -> Answer {
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
