//! I_T nexuses that come, go, and come back.

use super::*;

const REGISTER_AND_MOVE: u8 = 7;
const READ_KEYS: [u8; 10] = [0x5e, 0, 0, 0, 0, 0, 0, 0, 24, 0];

/// A session of an iSCSI initiator.
fn session(name: &str, isid: u64) -> ItNexus {
    ItNexus {
        initiator_port: TransportId::iscsi(name, Some(isid)).unwrap(),
        target_port: TargetPort {
            protocol: Protocol::Iscsi,
            name: "iqn.2026-11.example:target,t,0x0001".into(),
        },
    }
}

impl Bench {
    /// Logs C's place over to another nexus.
    fn log_in(&mut self, nexus: &ItNexus) {
        self.nexuses[C] = self.unit.attach(Some(nexus.clone()), Mapping::ReadWrite);
    }

    fn log_out(&mut self, nexus: &ItNexus) {
        self.unit.nexus_lost(nexus.clone());
        self.unit.detach(self.nexuses[C]);
        assert!(self.settle().is_empty());
    }
}

#[test]
fn session_that_comes_back_with_its_isid_can_reserve_with_its_old_key() {
    let mut bench = Bench::new(setup());
    let host = session("iqn.2026-11.example:a", 1);
    bench.log_in(&host);
    assert_eq!(bench.change(C, REGISTER, [0, 0xc]), Some(Response::Good));
    bench.log_out(&host);
    bench.log_in(&session("IQN.2026-11.Example:A", 1)); // names have no case
    assert_eq!(bench.change(C, RESERVE, [0xc, 0]), Some(Response::Good));
    assert!(bench.unit.reservations().is_holder(&host));
}

#[test]
fn session_with_another_isid_is_not_registered_and_the_old_registration_is_still_listed() {
    let mut bench = Bench::new(setup());
    bench.log_in(&session("iqn.2026-11.example:a", 1));
    assert_eq!(bench.change(C, REGISTER, [0, 0xc]), Some(Response::Good));
    bench.log_out(&session("iqn.2026-11.example:a", 1));
    bench.log_in(&session("iqn.2026-11.example:a", 2));
    assert_eq!(bench.change(C, RESERVE, [0xc, 0]), Some(CONFLICT));
    let keys = [
        0, 0, 0, 1, // PRGENERATION
        0, 0, 0, 8, // ADDITIONAL LENGTH
        0, 0, 0, 0, 0, 0, 0, 0x0c,
    ];
    assert_eq!(
        bench.answer(C, &READ_KEYS, 24),
        Response::DataIn(keys.to_vec())
    );
}

#[test]
fn reset_leaves_registrations_reservation_and_generation_as_they_are() {
    for kind in [1, 3, 5, 6, 7, 8] {
        let mut bench = Bench::held(kind);
        let before = bench.unit.reservations().clone();
        assert_eq!(before.generation(), 2);
        bench.unit.reset(&[]);
        assert!(bench.settle().is_empty());
        assert_eq!(*bench.unit.reservations(), before);
    }
    let mut bench = Bench::new(setup());
    let step = bench.reserve_6(A);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    bench.unit.reset(&[]);
    assert!(bench.settle().is_empty());
    assert_eq!(*bench.unit.reservations(), Reservations::default());
}

#[test]
fn reset_keeps_unit_attentions_behind_its_own() {
    let mut bench = Bench::reserved();
    bench.change(A, PREEMPT, [KEY_A, KEY_B]);
    bench.unit.reset(&[]);
    assert!(bench.settle().is_empty());
    let reset = Response::Check(Sense::bus_device_reset_function_occurred());
    let preempted = Response::Check(Sense::registrations_preempted());
    assert_eq!(bench.answer(B, &WRITE, 512), reset);
    assert_eq!(bench.answer(B, &WRITE, 512), CONFLICT);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), preempted);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
}

#[test]
fn reservation_can_be_moved_to_an_initiator_that_has_never_been_seen() {
    for kind in [1, 3, 5, 6] {
        let mut bench = Bench::held(kind);
        let mut ports = TargetPorts::default();
        ports.add(&nexus(A).target_port);
        bench.unit.set_target_ports(ports);
        let list = [
            0, 0, 0, 0, 0, 0, 0, 0x0a, // RESERVATION KEY
            0, 0, 0, 0, 0, 0, 0, 0xdd, // SERVICE ACTION RESERVATION KEY
            0, 2, // UNREG=1, APTPL=0
            0, 1, // RELATIVE TARGET PORT IDENTIFIER
            0, 0, 0, 24, // TRANSPORTID LENGTH
            6, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, // SAS address
        ];
        let data = bench.data(48);
        data.write_at(0, &list);
        let cdb = [0x5f, REGISTER_AND_MOVE, 0, 0, 0, 0, 0, 0, 48, 0];
        let task = bench.task(A, &cdb, data);
        let step = bench.unit.begin(task);
        assert_eq!(bench.conclude(step), Some(Response::Good));
        assert_eq!(bench.unit.reservations().generation(), 3);

        bench.log_in(&nexus(9)); // SAS address 30000000 0000000Ah
        let write = bench.io(C, &WRITE, 512);
        assert_eq!(bench.end(write), Response::Good);
        let expected = [
            0, 0, 0, 3, // PRGENERATION
            0, 0, 0, 16, // ADDITIONAL LENGTH
            0, 0, 0, 0, 0, 0, 0, 0xdd, // RESERVATION KEY
            0, 0, 0, 0, // obsolete
            0, kind, // reserved; SCOPE, TYPE
            0, 0, // obsolete
        ];
        let read_reservation = [0x5e, 1, 0, 0, 0, 0, 0, 0, 24, 0];
        assert_eq!(
            bench.answer(A, &read_reservation, 24),
            Response::DataIn(expected.to_vec())
        );
        assert_eq!(bench.answer(A, &WRITE, 512), CONFLICT);
        assert_eq!(bench.change(A, RESERVE, [KEY_A, 0]), Some(CONFLICT));
    }
}

#[test]
fn session_of_the_target_itself_is_not_registered_and_changes_nothing() {
    let mut bench = Bench::held(1);
    bench.nexuses[C] = bench.unit.attach(None, Mapping::ReadWrite);
    let before = bench.unit.reservations().clone();
    assert_eq!(bench.answer(C, &WRITE, 512), CONFLICT);
    let capacity = [0, 0, 0x03, 0xe7, 0, 0, 0x02, 0x00]; // the last block is 999, of 512 bytes
    let read_capacity = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        bench.answer(C, &read_capacity, 8),
        Response::DataIn(capacity.to_vec())
    );
    let read = bench.io(C, &READ, 512);
    assert_eq!(bench.end(read), Response::InPlace(512));
    let failure = Response::Check(Sense::internal_target_failure());
    for action in 0..=7 {
        for keys in [[0, 0xc], [KEY_A, KEY_B]] {
            match bench.reserve_out(C, action, keys) {
                Step::Answer(answer) => assert_eq!(settle(answer), failure, "{action}"),
                other => panic!("{other:?} of service action {action}"),
            }
        }
    }
    for opcode in [0x16, 0x17] {
        assert_eq!(bench.answer(C, &[opcode, 0, 0, 0, 0, 0], 0), failure);
    }
    assert_eq!(*bench.unit.reservations(), before);
}

#[test]
fn answer_that_waits_is_not_taken_for_that_of_a_nexus_that_came_later() {
    let mut bench = Bench::reserved();
    let write = bench.io(B, &WRITE, 512);
    // B unregisters and leaves; its answer waits for its write. D comes, and is preempted.
    assert_eq!(bench.change(B, REGISTER, [KEY_B, 0]), None);
    bench.unit.detach(bench.nexuses[B]);
    assert_eq!(bench.end(write), Response::Good);
    bench.unit.forget_unneeded();
    bench.nexuses[B] = bench.unit.attach(Some(nexus(9)), Mapping::ReadWrite);
    // What was owed B is B's own, whoever has its place now.
    bench.unit.tasks.abort(|id| id == bench.nexuses[B]);
    assert_eq!(bench.released(), Some(Response::Good));
}
