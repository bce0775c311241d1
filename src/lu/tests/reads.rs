//! PERSISTENT RESERVE IN: how much of its answer is sent.

use super::*;

const READ_KEYS: u8 = 0;
const READ_RESERVATION: u8 = 1;
const REPORT_CAPABILITIES: u8 = 2;
const READ_FULL_STATUS: u8 = 3;

/// READ FULL STATUS of [`Bench::reserved`] at relative target port 1.
const FULL_STATUS: [u8; 104] = [
    0, 0, 0, 2, // PRGENERATION
    0, 0, 0, 96, // ADDITIONAL LENGTH
    0, 0, 0, 0, 0, 0, 0, 0x0a, // A: RESERVATION KEY
    0, 0, 0, 0, // reserved
    1, 5, // R_HOLDER; SCOPE, TYPE
    0, 0, 0, 0, // reserved
    0, 1, // RELATIVE TARGET PORT IDENTIFIER
    0, 0, 0, 24, // ADDITIONAL DESCRIPTOR LENGTH
    6, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // SAS address
    0, 0, 0, 0, 0, 0, 0, 0x0b, // B: RESERVATION KEY
    0, 0, 0, 0, // reserved
    0, 0, // neither holder nor type
    0, 0, 0, 0, // reserved
    0, 1, // RELATIVE TARGET PORT IDENTIFIER
    0, 0, 0, 24, // ADDITIONAL DESCRIPTOR LENGTH
    6, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // SAS address
];

impl Bench {
    /// What C, which is not registered, reads with this ALLOCATION LENGTH into a buffer that is as long.
    fn read(&mut self, service_action: u8, allocation_length: u16) -> Vec<u8> {
        let [high, low] = allocation_length.to_be_bytes();
        let cdb = [0x5e, service_action, 0, 0, 0, 0, 0, high, low, 0];
        match self.answer(C, &cdb, allocation_length.into()) {
            Response::DataIn(bytes) => bytes,
            other => panic!("{other:?} where GOOD was expected"),
        }
    }

    fn with_a_target_port(mut self) -> Bench {
        let mut ports = TargetPorts::default();
        ports.add(&nexus(A).target_port);
        self.unit.set_target_ports(ports);
        self
    }
}

#[test]
fn read_keys_with_room_for_the_header_tells_the_length_of_all_keys() {
    let header = [0, 0, 0, 2, 0, 0, 0, 16]; // PRGENERATION, ADDITIONAL LENGTH of two keys
    assert_eq!(Bench::reserved().read(READ_KEYS, 8), header);
}

#[test]
fn allocation_length_below_the_header_is_no_error() {
    let mut bench = Bench::reserved().with_a_target_port();
    for (service_action, start) in [
        (READ_KEYS, [0, 0, 0, 2, 0, 0, 0]),
        (READ_RESERVATION, [0, 0, 0, 2, 0, 0, 0]),
        (REPORT_CAPABILITIES, [0, 8, 0x1d, 0xc0, 0xea, 0x01, 0]),
        (READ_FULL_STATUS, [0, 0, 0, 2, 0, 0, 0]),
    ] {
        for length in [0, 1, 7] {
            let expected = &start[..usize::from(length)];
            assert_eq!(bench.read(service_action, length), expected);
        }
    }
}

#[test]
fn read_reservation_is_cut_at_the_byte_and_tells_its_whole_length() {
    let whole = [
        0, 0, 0, 2, // PRGENERATION
        0, 0, 0, 16, // ADDITIONAL LENGTH
        0, 0, 0, 0, 0, 0, 0, 0x0a, // RESERVATION KEY
        0, 0, 0, 0, // obsolete
        0, 5, // reserved; SCOPE, TYPE
        0, 0, // obsolete
    ];
    let mut bench = Bench::reserved();
    for length in 8..=30 {
        let expected = &whole[..usize::from(length).min(24)];
        assert_eq!(bench.read(READ_RESERVATION, length), expected, "{length}");
    }
}

#[test]
fn read_full_status_is_cut_at_the_byte_and_tells_its_whole_length() {
    let mut bench = Bench::reserved().with_a_target_port();
    // Inside the header's end, inside the first and the second descriptor, one byte short, exactly, and with room.
    for length in [8, 9, 31, 55, 56, 57, 80, 103, 104, 105, 0xffff] {
        let expected = &FULL_STATUS[..usize::from(length).min(104)];
        assert_eq!(bench.read(READ_FULL_STATUS, length), expected, "{length}");
    }
}

#[test]
fn reading_changes_nothing() {
    let mut bench = Bench::reserved();
    let before = bench.unit.reservations().clone();
    for service_action in 0..4 {
        bench.read(service_action, 0xffff);
    }
    assert_eq!(*bench.unit.reservations(), before);
}

#[test]
fn reserve_keeps_its_own_holder_from_reading_the_persistent_reservation() {
    let mut bench = Bench::new(setup());
    let step = bench.reserve_6(A);
    assert_eq!(bench.conclude(step), Some(Response::Good));
    for service_action in 0..4 {
        let cdb = [0x5e, service_action, 0, 0, 0, 0, 0, 0, 24, 0];
        for from in [A, B] {
            assert_eq!(bench.answer(from, &cdb, 24), CONFLICT);
        }
    }
    // RELEASE(6) of another nexus.
    assert_eq!(bench.answer(B, &[0x17, 0, 0, 0, 0, 0], 0), Response::Good);
    assert_eq!(bench.unit.reservations().spc2(), Some(&nexus(A)));
    assert_eq!(bench.answer(B, &READ, 512), CONFLICT);
    let read = bench.io(A, &READ, 512);
    assert_eq!(bench.end(read), Response::InPlace(512));
}
