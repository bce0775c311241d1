//! A unit that becomes larger or smaller while it is used.

use super::*;

const CHANGED: Response = Response::Check(Sense::capacity_data_has_changed());
const READ_CAPACITY: [u8; 10] = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// One block at LBA 1,000, which is beyond the end before it has grown.
const WRITE_AT_1000: [u8; 10] = [0x2a, 0, 0, 0, 0x03, 0xe8, 0, 0, 1, 0];

impl Bench {
    /// Orders so many blocks; what is stored.
    fn order_size(&mut self, blocks: u64) -> ToStore {
        let geometry = setup().geometry.with_blocks(blocks).unwrap();
        self.unit.alter(Alteration::Resize(geometry), Ticket(7));
        match self.unit.next_step() {
            Some(Step::Store(to_store)) => to_store,
            other => panic!("{other:?} where something was to be stored"),
        }
    }

    /// The last LBA, as READ CAPACITY(10) tells it to that nexus.
    fn last_lba(&mut self, from: usize) -> u32 {
        match self.answer(from, &READ_CAPACITY, 8) {
            Response::DataIn(bytes) => u32::from_be_bytes(bytes[..4].try_into().unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_unit_that_has_grown_tells_everybody() {
    let mut bench = Bench::new(setup());
    let out_of_range = Response::Check(Sense::logical_block_address_out_of_range());
    assert_eq!(bench.answer(A, &WRITE_AT_1000, 512), out_of_range);
    let to_store = bench.order_size(2000);
    let told: Vec<_> = to_store
        .attentions
        .iter()
        .map(|(_, sense)| *sense)
        .collect();
    assert_eq!(told, [Sense::capacity_data_has_changed(); 3]);
    assert_eq!(bench.last_lba(A), 999, "it is not in force yet");
    let step = bench.unit.stored(true);
    assert!(
        matches!(step, Step::Administered(Ticket(7), Ok(()))),
        "{step:?}"
    );
    for from in [A, B, C] {
        assert_eq!(bench.answer(from, &TEST_UNIT_READY, 0), CHANGED);
        assert_eq!(bench.last_lba(from), 1999);
    }
    let write = bench.io(A, &WRITE_AT_1000, 512);
    assert_eq!(bench.end(write), Response::Good);
}

#[test]
fn a_unit_has_its_size_whether_that_is_stored_or_not() {
    let mut bench = Bench::new(setup());
    bench.order_size(2000);
    let step = bench.unit.stored(false);
    assert!(
        matches!(step, Step::Administered(Ticket(7), Ok(()))),
        "{step:?}"
    );
    assert_eq!(bench.answer(B, &TEST_UNIT_READY, 0), CHANGED);
    assert_eq!(bench.last_lba(B), 1999);
}

#[test]
fn growing_waits_for_nobody_and_shrinking_for_all_that_is_in_flight() {
    for (blocks, waits) in [(2000, false), (10, true)] {
        let mut bench = Bench::new(setup());
        let write = bench.io(A, &WRITE, 512);
        let read = bench.io(B, &READ, 512);
        bench.order_size(blocks);
        let step = bench.unit.stored(true);
        assert_eq!(matches!(step, Step::Held), waits, "{step:?}");
        assert_eq!(bench.end(write), Response::Good);
        assert_eq!(bench.end(read), Response::InPlace(512));
        let told = bench.unit.next_step();
        let is_told = matches!(told, Some(Step::Administered(Ticket(7), Ok(()))));
        assert_eq!(is_told, waits, "{told:?}");
    }
}

#[test]
fn nothing_is_served_beyond_the_end_of_a_unit_that_has_shrunk() {
    let mut bench = Bench::new(setup());
    bench.order_size(7);
    bench.unit.stored(true);
    assert_eq!(bench.answer(A, &WRITE, 512), CHANGED);
    let out_of_range = Response::Check(Sense::logical_block_address_out_of_range());
    assert_eq!(bench.answer(A, &WRITE, 512), out_of_range, "LBA 7");
}

#[test]
fn a_size_that_it_has_already_is_news_to_nobody() {
    let mut bench = Bench::new(setup());
    assert!(bench.order_size(1000).attentions.is_empty());
    bench.unit.stored(true);
    assert_eq!(bench.answer(A, &TEST_UNIT_READY, 0), Response::Good);
}

#[test]
fn sense_data_has_descriptors_as_soon_as_an_lba_has_more_than_32_bits() {
    let mut bench = Bench::new(setup());
    assert_eq!(bench.unit.sense_format(), Format::Fixed);
    bench.order_size(0x1_0000_0001);
    bench.unit.stored(true);
    assert_eq!(bench.unit.sense_format(), Format::Descriptor);
    bench.answer(A, &TEST_UNIT_READY, 0);
    let Response::DataIn(bytes) = bench.answer(A, &[0x1a, 0x08, 0x0a, 0, 16, 0], 16) else {
        panic!("GOOD")
    };
    assert_eq!(bytes[6], 0x06, "GLTSD, D_SENSE");
}

#[test]
fn nothing_is_stored_in_place_of_a_record_that_cannot_be_read() {
    let mut bench = Bench::new(Setup {
        reservations: Err(Unknown),
        ..setup()
    });
    let geometry = Geometry::new(512, 2000, 0).unwrap();
    bench.unit.alter(Alteration::Resize(geometry), Ticket(7));
    let step = bench.unit.next_step();
    assert!(
        matches!(step, Some(Step::Administered(Ticket(7), Ok(())))),
        "{step:?}"
    );
    assert!(bench.unit.next_step().is_none());
}
