//! What SPC-4 r37 asks of every PERSISTENT RESERVE OUT, in the order in which a command is checked.

use std::collections::HashSet;
use std::sync::Arc;

use tcmu_pr::pr::gate::Allowed;
use tcmu_pr::pr::out::PARAMETER_LIST_LENGTH_MAX;
use tcmu_pr::pr::{Change, Holder, Refusal, Reservation, Reservations, Save, Type};
use tcmu_pr::scsi::Access;
use tcmu_pr::scsi::nexus::{ItNexus, RelativeTargetPort};
use tcmu_pr::scsi::sense::{Field, Format, Sense};

use super::{Case, LIMIT};

const REGISTER: u8 = 0x00;
const RESERVE: u8 = 0x01;
const RELEASE: u8 = 0x02;
const CLEAR: u8 = 0x03;
const PREEMPT: u8 = 0x04;
const PREEMPT_AND_ABORT: u8 = 0x05;
const REGISTER_AND_IGNORE_EXISTING_KEY: u8 = 0x06;
const REGISTER_AND_MOVE: u8 = 0x07;

/// What a list of at least 24 bytes begins with.
struct Head {
    key: u64,
    new_key: u64,
    spec_i_pt: bool,
    all_tg_pt: bool,
    aptpl: bool,
    unreg: bool,
    relative_target_port: RelativeTargetPort,
}

impl Case {
    fn head(&self) -> Head {
        let list = &self.list;
        let long = |at: usize| {
            let bytes = list[at..].first_chunk().expect("24 bytes");
            u64::from_be_bytes(*bytes)
        };
        let moves = self.cdb.service_action == REGISTER_AND_MOVE;
        Head {
            key: long(0),
            new_key: long(8),
            spec_i_pt: !moves && list[20] & 0x08 != 0,
            all_tg_pt: !moves && list[20] & 0x04 != 0,
            aptpl: list[if moves { 17 } else { 20 }] & 0x01 != 0,
            unreg: moves && list[17] & 0x02 != 0,
            relative_target_port: RelativeTargetPort(u16::from_be_bytes([list[18], list[19]])),
        }
    }

    pub(super) fn check(&self, answer: &Result<Change, Refusal>) {
        if let Some(refusal) = self.early_refusal(&self.list) {
            assert_eq!(answer.as_ref().err(), Some(&refusal));
            return;
        }
        match self.cdb.service_action {
            REGISTER | REGISTER_AND_MOVE => {}
            _ => self.check_late_refusal(answer.as_ref().err()),
        }
        match answer {
            Ok(change) => self.check_change(change),
            Err(refusal) => self.check_refusal(refusal),
        }
    }

    /// The refusal for what is checked before the fields of the service action are: a RESERVE, the service action,
    /// the length of the list, and conflicts of the issuer's key and of the holder.
    pub(super) fn early_refusal(&self, list: &[u8]) -> Option<Refusal> {
        let service_action = self.cdb.service_action;
        let length = self.cdb.parameter_list_length;
        if self.before.spc2().is_some() {
            return Some(Refusal::Conflict);
        }
        if service_action > REGISTER_AND_MOVE {
            return Some(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4)).into());
        }
        let wrong_length = Some(Sense::parameter_list_length_error().into());
        let transferred = usize::try_from(length).is_ok_and(|length| length <= list.len());
        if !transferred || !(24..=PARAMETER_LIST_LENGTH_MAX).contains(&length) {
            return wrong_length;
        }
        let head = self.head();
        let takes_more = match service_action {
            REGISTER => head.spec_i_pt,
            _ => service_action == REGISTER_AND_MOVE,
        };
        if length != 24 && !takes_more {
            return wrong_length;
        }
        let registered = self.before.registrants().key(&self.issuer);
        let reservation = self.before.reservation();
        let held_by_another = reservation.is_some() && !self.before.is_holder(&self.issuer);
        let all = reservation.is_some_and(|held| held.kind.is_all_registrants());
        let conflict = match service_action {
            REGISTER => head.key != registered.unwrap_or(0),
            REGISTER_AND_IGNORE_EXISTING_KEY => false,
            RESERVE => registered != Some(head.key) || held_by_another,
            REGISTER_AND_MOVE => registered != Some(head.key) || held_by_another || all,
            _ => registered != Some(head.key),
        };
        conflict.then_some(Refusal::Conflict)
    }

    /// Whether a command that came so far is refused, and with what; of REGISTER and REGISTER AND MOVE this takes
    /// more to say.
    fn check_late_refusal(&self, refused: Option<&Refusal>) {
        let head = self.head();
        let scope = self.cdb.scope_type >> 4;
        let kind = Type::parse(self.cdb.scope_type & 0x0f);
        let bad_scope = (scope != 0).then(|| Sense::invalid_field_in_cdb(Field::cdb_bit(2, 7)));
        let bad_kind = kind
            .is_none()
            .then(|| Sense::invalid_field_in_cdb(Field::cdb_bit(2, 3)));
        let bad_scope_or_kind = bad_scope.or(bad_kind).map(Refusal::Check);
        let reservation = self.before.reservation();
        let expected = if head.spec_i_pt {
            let spec_i_pt = Field::parameter_bit(20, 3);
            Some(Sense::invalid_field_in_parameter_list(spec_i_pt).into())
        } else {
            match self.cdb.service_action {
                RESERVE => bad_scope_or_kind.or_else(|| {
                    let another = reservation.is_some_and(|held| Some(held.kind) != kind);
                    another.then_some(Refusal::Conflict)
                }),
                RELEASE => bad_scope.map(Refusal::Check).or_else(|| {
                    let held = self.before.is_holder(&self.issuer);
                    let mismatch = held && reservation.map(|held| held.kind) != kind;
                    mismatch.then(|| Sense::invalid_release_of_persistent_reservation().into())
                }),
                PREEMPT | PREEMPT_AND_ABORT => {
                    let mut registrants = self.before.registrants().iter();
                    if self.preempts_reservation() {
                        bad_scope_or_kind
                    } else if head.new_key == 0 && self.is_held_by_one() {
                        let key = Field::parameter(8);
                        Some(Sense::invalid_field_in_parameter_list(key).into())
                    } else if registrants.all(|registrant| registrant.key != head.new_key) {
                        Some(Refusal::Conflict)
                    } else {
                        None
                    }
                }
                REGISTER_AND_IGNORE_EXISTING_KEY => {
                    // How many target ports ALL_TG_PT adds is not counted here.
                    let full = Refusal::Check(Sense::insufficient_registration_resources());
                    (refused == Some(&full)).then_some(full)
                }
                _ => None,
            }
        };
        assert_eq!(refused, expected.as_ref());
    }

    fn is_held_by_one(&self) -> bool {
        let reservation = self.before.reservation();
        reservation.is_some_and(|held| !held.kind.is_all_registrants())
    }

    /// Whether a PREEMPT aims at the reservation, and not at registrations alone.
    fn preempts_reservation(&self) -> bool {
        let new_key = self.head().new_key;
        match self.before.reservation().map(|held| &held.holder) {
            None => false,
            Some(Holder::AllRegistrants) => new_key == 0,
            Some(Holder::Nexus(holder)) => self.before.registrants().key(holder) == Some(new_key),
        }
    }

    /// Every refusal is one that the standard knows, and points into what was sent.
    fn check_refusal(&self, refusal: &Refusal) {
        let Refusal::Check(sense) = refusal else {
            return;
        };
        let (bytes, _) = sense.encode(Format::Fixed);
        let known = [
            (0x1a, 0x00),
            (0x24, 0x00),
            (0x26, 0x00),
            (0x26, 0x04),
            (0x55, 0x04),
        ];
        assert!(bytes[2] == 0x05 && known.contains(&(bytes[12], bytes[13])));
        let at = u32::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        if bytes[15] & 0x80 != 0 {
            let in_cdb = bytes[15] & 0x40 != 0;
            let length = if in_cdb {
                10
            } else {
                self.cdb.parameter_list_length
            };
            assert!(at < length);
        }
        if sense.additional() == (0x55, 0x04) {
            let room = usize::from(LIMIT).saturating_sub(self.before.registrants().len());
            assert!(room < 4 || self.list.len() > 28);
        }
    }

    fn check_change(&self, change: &Change) {
        let (before, next) = (&self.before, &change.next);
        let service_action = self.cdb.service_action;
        let head = self.head();
        assert_eq!(next.check(), Ok(()));
        assert_eq!(next.spc2(), None);

        let counts = !matches!(service_action, RESERVE | RELEASE);
        let generation = before.generation().wrapping_add(u32::from(counts));
        assert_eq!(next.generation(), generation);

        let grew = next.registrants().len() > before.registrants().len();
        assert!(!grew || next.registrants().len() <= usize::from(LIMIT));
        self.check_registrations(next);
        let reservation = self.reservation(next);
        assert_eq!(next.reservation(), reservation.as_ref());

        let registers = matches!(service_action, REGISTER | REGISTER_AND_IGNORE_EXISTING_KEY);
        let unregisters_nobody =
            registers && head.new_key == 0 && next.registrants() == before.registrants();
        let carries_aptpl = registers || service_action == REGISTER_AND_MOVE;
        let aptpl = if carries_aptpl && !unregisters_nobody {
            head.aptpl || self.context.force_aptpl
        } else {
            before.aptpl()
        };
        assert_eq!(next.aptpl(), aptpl);
        let save = if next == before {
            Save::Nothing
        } else if (before.aptpl() || aptpl) && !unregisters_nobody {
            Save::Durable
        } else {
            Save::Runtime
        };
        assert_eq!(change.save, save);

        self.check_attentions(change);
        self.check_abort(change);
        self.check_gate(change);
    }

    /// Whose registration is another now, and in what order they stand.
    fn check_registrations(&self, next: &Reservations) {
        let head = self.head();
        let service_action = self.cdb.service_action;
        let (old, new) = (self.before.registrants(), next.registrants());
        let kept: Vec<_> = old.nexuses().filter(|nexus| new.contains(nexus)).collect();
        assert!(new.nexuses().take(kept.len()).eq(kept));

        let registered = Some(head.new_key).filter(|&key| key != 0);
        let mut destinations = 0;
        for nexus in self.concerned(next) {
            let (old_key, new_key) = (old.key(nexus), new.key(nexus));
            let is_issuer = *nexus == self.issuer;
            let is_own = nexus.initiator_port == self.issuer.initiator_port;
            let is_aimed_at = old_key.is_some() && old_key == registered;
            let expected = match service_action {
                REGISTER | REGISTER_AND_IGNORE_EXISTING_KEY if is_issuer => registered,
                REGISTER | REGISTER_AND_IGNORE_EXISTING_KEY if is_own && head.all_tg_pt => {
                    registered
                }
                // A nexus that SPEC_I_PT lists, and that is not registered yet.
                REGISTER if head.spec_i_pt && old_key.is_none() && new_key.is_some() => registered,
                CLEAR => None,
                PREEMPT | PREEMPT_AND_ABORT if self.preempts_reservation() => {
                    let removed = !is_issuer && (is_aimed_at || registered.is_none());
                    old_key.filter(|_| !removed)
                }
                PREEMPT | PREEMPT_AND_ABORT => old_key.filter(|_| !is_aimed_at),
                REGISTER_AND_MOVE if is_issuer => old_key.filter(|_| !head.unreg),
                REGISTER_AND_MOVE if next.is_holder(nexus) => {
                    destinations += 1;
                    registered
                }
                _ => old_key,
            };
            assert_eq!(new_key, expected, "{nexus}");
        }
        assert_eq!(destinations == 1, service_action == REGISTER_AND_MOVE);
    }

    /// The reservation after a command that left the registrants of `next`.
    fn reservation(&self, next: &Reservations) -> Option<Reservation> {
        let before = self.before.reservation().cloned();
        let issued = || {
            let kind = Type::parse(self.cdb.scope_type).expect("a type");
            Some(reservation(kind, &self.issuer))
        };
        match self.cdb.service_action {
            RESERVE => before.or_else(issued),
            RELEASE => before.filter(|_| !self.before.is_holder(&self.issuer)),
            CLEAR => None,
            PREEMPT | PREEMPT_AND_ABORT if self.preempts_reservation() => issued(),
            REGISTER_AND_MOVE => {
                let held = before.expect("there is a reservation to move");
                let holder = next.reservation().and_then(Reservation::single_holder);
                let holder = holder.expect("a holder");
                let port = self.context.ports.port(self.head().relative_target_port);
                assert_eq!(Some(&holder.target_port), port);
                assert_ne!(holder.initiator_port, self.issuer.initiator_port);
                Some(reservation(held.kind, holder))
            }
            _ => before.filter(|held| match &held.holder {
                Holder::Nexus(holder) => next.registrants().contains(holder),
                Holder::AllRegistrants => !next.registrants().is_empty(),
            }),
        }
    }

    fn check_attentions(&self, change: &Change) {
        let (before, next) = (&self.before, &change.next);
        let others = |state: &Reservations| -> Vec<Arc<ItNexus>> {
            let nexuses = state.registrants().nexuses();
            nexuses
                .filter(|&nexus| **nexus != self.issuer)
                .cloned()
                .collect()
        };
        let kind = |state: &Reservations| state.reservation().map(|held| held.kind);
        let mut expected = HashSet::new();
        let mut tell = |nexuses: Vec<_>, sense: Sense| {
            expected.extend(nexuses.into_iter().map(|nexus| (nexus, sense)));
        };
        match self.cdb.service_action {
            RELEASE | REGISTER | REGISTER_AND_IGNORE_EXISTING_KEY => {
                let released = kind(before).filter(|_| kind(next).is_none());
                if released.is_some_and(Type::admits_registrants) {
                    tell(others(next), Sense::reservations_released());
                }
            }
            CLEAR => tell(others(before), Sense::reservations_preempted()),
            PREEMPT | PREEMPT_AND_ABORT => {
                let mut removed = others(before);
                removed.retain(|nexus| !next.registrants().contains(nexus));
                tell(removed, Sense::registrations_preempted());
                if self.preempts_reservation() && kind(before) != kind(next) {
                    tell(others(next), Sense::reservations_released());
                }
            }
            _ => {}
        }
        assert_eq!(change.attentions.len(), expected.len(), "none twice");
        let established: HashSet<_> = change.attentions.iter().cloned().collect();
        assert_eq!(established, expected);
    }

    fn check_abort(&self, change: &Change) {
        let head = self.head();
        let all = head.new_key == 0;
        let aborts = self.cdb.service_action == PREEMPT_AND_ABORT;
        let registrants = self.before.registrants().iter();
        let aimed_at =
            registrants.filter(|registrant| aborts && (all || registrant.key == head.new_key));
        let expected: HashSet<_> = aimed_at.map(|registrant| &registrant.nexus).collect();
        assert_eq!(change.abort.len(), expected.len(), "none twice");
        assert_eq!(change.abort.iter().collect::<HashSet<_>>(), expected);
    }

    /// The fence: whoever the reservation shuts out cannot write, and whoever it does not shut out can.
    fn check_gate(&self, change: &Change) {
        let next = &change.next;
        for nexus in self.concerned(next) {
            let allowed = next.allowed(Some(nexus));
            let Some(Reservation { kind, holder }) = next.reservation() else {
                assert_eq!(allowed, Allowed::ALL);
                continue;
            };
            let registered = next.registrants().contains(nexus);
            let has_access = match holder {
                Holder::Nexus(holder) => {
                    **holder == *nexus || (registered && kind.admits_registrants())
                }
                Holder::AllRegistrants => registered,
            };
            assert_eq!(allowed.contains(Access::Write), has_access);
            let reads = has_access || kind.is_write_exclusive();
            assert_eq!(allowed.contains(Access::Read), reads);
        }
    }
}

fn reservation(kind: Type, nexus: &ItNexus) -> Reservation {
    let holder = if kind.is_all_registrants() {
        Holder::AllRegistrants
    } else {
        Holder::Nexus(Arc::new(nexus.clone()))
    };
    Reservation { kind, holder }
}
