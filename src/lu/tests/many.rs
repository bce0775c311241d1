//! A unit with as many registrants as there can be, half of them under one key.

use super::*;
use crate::pr::image::Image;
use crate::pr::out::RegistrationLimit;

const MOST: usize = 8_190;
const HALF: usize = 4_095;
const SHARED_KEY: u64 = 0x5;
const CLEAR: u8 = 3;
/// ALLOCATION LENGTH is 65,535.
const READ_KEYS: [u8; 10] = [0x5e, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0];

/// Those with odd numbers share a key.
fn key(number: usize) -> u64 {
    match number % 2 {
        0 => 0x1_0000 + number as u64,
        _ => SHARED_KEY,
    }
}

/// 8,190 registrants, and one nexus more that is none.
fn full() -> Bench {
    let mut setup = setup();
    setup.context.registration_limit = RegistrationLimit::try_from(8_190).unwrap();
    let mut bench = Bench::new(setup);
    for number in bench.nexuses.len()..=MOST {
        let id = bench.unit.attach(Some(nexus(number)), Mapping::ReadWrite);
        bench.nexuses.push(id);
    }
    for number in 0..MOST {
        let registered = bench.change(number, REGISTER, [0, key(number)]);
        assert_eq!(registered, Some(Response::Good), "{number}");
    }
    bench
}

fn read_keys(bench: &mut Bench) -> Vec<u8> {
    match bench.answer(A, &READ_KEYS, 65_535) {
        Response::DataIn(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn read_keys_reports_8190_registrants() {
    let bytes = read_keys(&mut full());
    assert_eq!(bytes.len(), 65_528);
    // PRGENERATION: 8,190. ADDITIONAL LENGTH: 65,520.
    assert_eq!(bytes[..8], [0x00, 0x00, 0x1f, 0xfe, 0x00, 0x00, 0xff, 0xf0]);
    assert_eq!(bytes[8..16], [0, 0, 0, 0, 0, 1, 0, 0], "the first");
    assert_eq!(bytes[16..24], [0, 0, 0, 0, 0, 0, 0, 5], "the second");
    // 8,188 is 1ffch.
    assert_eq!(bytes[65_512..65_520], [0, 0, 0, 0, 0, 1, 0x1f, 0xfc]);
    assert_eq!(bytes[65_520..], [0, 0, 0, 0, 0, 0, 0, 5], "the last");
}

#[test]
fn the_8191st_registration_is_refused() {
    let mut bench = full();
    let Some(Response::Check(sense)) = bench.change(MOST, REGISTER, [0, 7]) else {
        panic!("there is no room");
    };
    let (bytes, _) = sense.encode(Format::Fixed);
    // ILLEGAL REQUEST, INSUFFICIENT REGISTRATION RESOURCES.
    assert_eq!((bytes[2], bytes[12], bytes[13]), (0x05, 0x55, 0x04));
    assert_eq!(read_keys(&mut bench).len(), 65_528);
    // One who is registered needs no room, and one who goes makes some.
    assert_eq!(bench.change(B, REGISTER, [5, 9]), Some(Response::Good));
    assert_eq!(bench.change(B, REGISTER, [9, 0]), Some(Response::Good));
    assert_eq!(bench.change(MOST, REGISTER, [0, 7]), Some(Response::Good));
    let bytes = read_keys(&mut bench);
    assert_eq!(bytes.len(), 65_528);
    assert_eq!(bytes[65_520..], [0, 0, 0, 0, 0, 0, 0, 7]);
}

#[test]
fn half_of_8190_registrants_are_preempted_at_once() {
    let mut bench = full();
    let preempted = bench.change(A, PREEMPT, [key(A), SHARED_KEY]);
    assert_eq!(preempted, Some(Response::Good));
    let bytes = read_keys(&mut bench);
    // PRGENERATION: 8,191. ADDITIONAL LENGTH: 8 * 4,095.
    assert_eq!(bytes[..8], [0x00, 0x00, 0x1f, 0xff, 0x00, 0x00, 0x7f, 0xf8]);
    assert_eq!(bytes.len(), 32_768);
    let told = Response::Check(Sense::registrations_preempted());
    for number in 0..MOST {
        if number % 2 == 1 {
            assert_eq!(bench.answer(number, &TEST_UNIT_READY, 0), told, "{number}");
        }
        let good = bench.answer(number, &TEST_UNIT_READY, 0);
        assert_eq!(good, Response::Good, "{number}");
    }
}

#[test]
fn clear_removes_8190_registrants_and_tells_all_but_the_issuer() {
    let mut bench = full();
    assert_eq!(bench.change(A, CLEAR, [key(A), 0]), Some(Response::Good));
    assert_eq!(read_keys(&mut bench), [0, 0, 0x1f, 0xff, 0, 0, 0, 0]);
    let told = Response::Check(Sense::reservations_preempted());
    for number in 1..MOST {
        assert_eq!(bench.answer(number, &TEST_UNIT_READY, 0), told, "{number}");
    }
}

#[test]
fn a_record_of_8190_registrants_comes_back() {
    let mut bench = full();
    let Step::Store(to_store) = bench.reserve_out(A, PREEMPT, [key(A), SHARED_KEY]) else {
        panic!("it is to be stored");
    };
    assert_eq!(to_store.attentions.len(), HALF);
    for reservations in [bench.unit.reservations().clone(), to_store.next] {
        let image = Image {
            unit: "serial".to_owned(),
            boot_id: "boot".to_owned(),
            reservations,
            attentions: to_store.attentions.clone(),
        };
        let found = Image::parse(image.encode().as_bytes(), "serial").unwrap();
        assert_eq!(found, image);
    }
    assert_eq!(bench.unit.reservations().registrants().len(), MOST);
    let step = bench.unit.stored(true);
    assert_eq!(bench.conclude(step), Some(Response::Good));
}

#[test]
fn what_is_pending_is_stored_until_it_is_told() {
    let mut bench = full();
    bench.change(A, PREEMPT, [key(A), SHARED_KEY]);
    for (told, pending) in [(B, HALF), (3, HALF - 1), (5, HALF - 2)] {
        let Step::Store(to_store) = bench.reserve_out(A, REGISTER, [key(A), key(A)]) else {
            panic!("it is to be stored");
        };
        assert_eq!(to_store.attentions.len(), pending);
        let step = bench.unit.stored(true);
        assert_eq!(bench.conclude(step), Some(Response::Good));
        let answer = bench.answer(told, &TEST_UNIT_READY, 0);
        assert_eq!(answer, Response::Check(Sense::registrations_preempted()));
    }
}
