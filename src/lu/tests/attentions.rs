//! Unit attention conditions: to whom they go, and what they wait for.

use std::sync::Arc;

use super::*;

const RELEASE: u8 = 2;
const CLEAR: u8 = 3;

const PREEMPTED: Response = Response::Check(Sense::registrations_preempted());
const RELEASED: Response = Response::Check(Sense::reservations_released());

/// A session of one iSCSI initiator.
fn session(isid: u64) -> ItNexus {
    ItNexus {
        initiator_port: TransportId::iscsi("iqn.2026-11.example:a", Some(isid)).unwrap(),
        target_port: TargetPort {
            protocol: Protocol::Iscsi,
            name: "iqn.2026-11.example:target,t,0x0001".into(),
        },
    }
}

#[test]
fn inquiry_and_report_luns_leave_a_unit_attention_pending() {
    let mut bench = Bench::reserved();
    bench.change(A, PREEMPT, [KEY_A, KEY_B]);
    let Response::DataIn(standard) = bench.answer(B, &INQUIRY, 96) else {
        panic!("GOOD")
    };
    assert_eq!(standard[..3], [0x00, 0x00, 0x06]); // direct access block device, SPC-4
    let Response::DataIn(page) = bench.answer(B, &[0x12, 1, 0x80, 0, 255, 0], 255) else {
        panic!("GOOD")
    };
    assert_eq!(page[..4], [0x00, 0x80, 0x00, 0x06]); // unit serial number, 6 bytes
    // The kernel answers REPORT LUNS. One that came through would at least clear nothing.
    let report_luns = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0];
    let response = bench.answer(B, &report_luns, 16);
    assert_ne!(response, PREEMPTED);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), PREEMPTED);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
}

#[test]
fn two_commands_get_one_unit_attention_each_in_their_order() {
    let mut bench = Bench::reserved();
    bench.change(A, RELEASE, [KEY_A, 0]);
    bench.change(A, PREEMPT, [KEY_A, KEY_B]);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), RELEASED);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), PREEMPTED);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
}

#[test]
fn request_sense_gets_one_unit_attention_each_time_and_then_none() {
    let mut bench = Bench::reserved();
    bench.change(A, RELEASE, [KEY_A, 0]);
    bench.change(A, PREEMPT, [KEY_A, KEY_B]);
    let fixed = |key, code, qualifier| {
        let mut bytes = vec![0; 18];
        (bytes[0], bytes[2], bytes[7]) = (0x70, key, 10); // response code, sense key, additional length
        (bytes[12], bytes[13]) = (code, qualifier);
        Response::DataIn(bytes)
    };
    assert_eq!(bench.answer(B, &REQUEST_SENSE, 18), fixed(0x6, 0x2a, 0x04));
    assert_eq!(bench.answer(B, &REQUEST_SENSE, 18), fixed(0x6, 0x2a, 0x05));
    assert_eq!(bench.answer(B, &REQUEST_SENSE, 18), fixed(0x0, 0x00, 0x00));
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
}

#[test]
fn unit_attention_that_is_pending_is_not_established_again() {
    let mut bench = Bench::reserved();
    for _ in 0..3 {
        bench.change(A, RELEASE, [KEY_A, 0]);
        bench.change(A, RESERVE, [KEY_A, 0]);
    }
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), RELEASED);
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), Response::Good);
}

#[test]
fn clear_is_told_to_every_registrant_but_its_issuer_and_to_nobody_else() {
    let mut bench = Bench::reserved();
    bench.change(B, CLEAR, [KEY_B, 0]);
    let cleared = Response::Check(Sense::reservations_preempted());
    assert_eq!(bench.answer(A, &TEST_UNIT_READY, 0), cleared);
    for from in [A, B, C] {
        assert_eq!(bench.answer(from, &TEST_UNIT_READY, 0), Response::Good);
    }
}

#[test]
fn preempted_session_of_an_initiator_leaves_its_other_session_alone() {
    let mut bench = Bench::reserved();
    let first = bench.nexuses.len();
    for isid in [1, 2] {
        let id = bench.unit.attach(Some(session(isid)), Mapping::ReadWrite);
        bench.nexuses.push(id);
    }
    let second = first + 1;
    bench.change(first, REGISTER, [0, 0xa1]);
    bench.change(second, REGISTER, [0, 0xa2]);
    bench.change(A, PREEMPT, [KEY_A, 0xa1]);
    assert_eq!(bench.answer(second, &TEST_UNIT_READY, 0), Response::Good);
    let write = bench.io(second, &WRITE, 512);
    assert_eq!(bench.end(write), Response::Good);
    assert_eq!(bench.answer(first, &WRITE, 512), CONFLICT);
    assert_eq!(bench.answer(first, &TEST_UNIT_READY, 0), PREEMPTED);
}

#[test]
fn refused_command_stores_nothing_and_leaves_no_trace() {
    let mut bench = Bench::reserved();
    let before = bench.unit.reservations().clone();
    // From whom, service action, keys; B has its key right where it matters.
    for (from, action, keys) in [
        (C, REGISTER, [1, 1]),
        (C, RESERVE, [1, 0]),
        (C, RELEASE, [0, 0]),
        (C, CLEAR, [0, 0]),
        (C, PREEMPT, [0, KEY_A]),
        (A, REGISTER, [KEY_B, 0]),
        (B, RESERVE, [KEY_B, 0]),
        (B, RELEASE, [KEY_A, 0]),
        (B, CLEAR, [KEY_A, 0]),
        (B, PREEMPT, [KEY_A, KEY_A]),
        (B, PREEMPT, [KEY_B, 0xdead]),
        (B, PREEMPT, [KEY_B, 0]),
        (B, PREEMPT_AND_ABORT, [KEY_B, 0]),
        (B, 7, [KEY_B, 0xbb]),
        (A, 7, [KEY_A, 0xaa]),
        (A, 8, [KEY_A, 0]),
    ] {
        match bench.reserve_out(from, action, keys) {
            Step::Answer(answer) => assert_ne!(settle(answer), Response::Good, "{action}"),
            other => panic!("{other:?} of service action {action}"),
        }
        assert_eq!(*bench.unit.reservations(), before);
        let pending = bench.unit.last_words().unwrap().attentions;
        assert!(pending.is_empty());
    }
    assert!(bench.settle().is_empty());
}

#[test]
fn unit_attentions_are_kept_for_four_times_as_many_nexuses_as_can_be_registered() {
    let mut setup = setup();
    setup.context.registration_limit = 128.try_into().unwrap();
    let mut bench = Bench::new(setup);
    let absent = 3..600;
    for index in absent.clone() {
        bench
            .unit
            .establish(&Arc::new(nexus(index)), Sense::registrations_preempted());
    }
    let kept: Vec<ItNexus> = bench
        .unit
        .last_words()
        .unwrap()
        .attentions
        .into_iter()
        .map(|(nexus, _)| ItNexus::clone(&nexus))
        .collect();
    // 4 * 128, three of which are attached and have none.
    let expected: Vec<ItNexus> = absent.take(509).map(nexus).collect();
    assert_eq!(kept, expected);
}

#[test]
fn ports_that_come_and_go_are_told_to_whoever_may_know_of_others() {
    let mut bench = Bench::new(setup());
    let port = |relative, name: &str| {
        let port = TargetPort {
            protocol: Protocol::Iscsi,
            name: name.into(),
        };
        (RelativeTargetPort(relative), port)
    };
    let one = vec![port(1, "iqn.2026-11.example:t,t,0x0001")];
    let both = [one.clone(), vec![port(2, "iqn.2026-11.example:t,t,0x0002")]].concat();
    let scsi_ports = [0x12, 0x01, 0x88, 0, 255, 0];
    let no_such_page = Response::Check(Sense::invalid_field_in_cdb(Field::cdb(2)));
    assert_eq!(bench.answer(A, &scsi_ports, 255), no_such_page);
    bench.unit.set_served_ports(one.clone());
    bench.unit.set_served_ports(one);
    assert_eq!(bench.answer(A, &TEST_UNIT_READY, 0), Response::Good);
    bench.unit.set_served_ports(both);
    let changed = Response::Check(Sense::inquiry_data_has_changed());
    for from in [A, B, C] {
        let Response::DataIn(page) = bench.answer(from, &scsi_ports, 255) else {
            panic!("GOOD")
        };
        assert_eq!(page.len(), 4 + 2 * 48);
        assert_eq!(bench.answer(from, &TEST_UNIT_READY, 0), changed);
    }
}
