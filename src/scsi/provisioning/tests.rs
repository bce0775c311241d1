use proptest::prelude::*;

use super::*;

/// 4 Mi blocks.
fn geometry() -> Geometry {
    Geometry::new(512, 1 << 22, 0).unwrap()
}

/// A parameter list that tells its length rightly.
fn list(descriptors: &[(u64, u32)]) -> Vec<u8> {
    let length = u16::try_from(16 * descriptors.len()).unwrap();
    let mut list = [
        (length + 6).to_be_bytes(),
        length.to_be_bytes(),
        [0; 2],
        [0; 2],
    ]
    .concat();
    for (lba, count) in descriptors {
        list.extend(lba.to_be_bytes());
        list.extend(count.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

/// The whole of a list.
fn parse(list: &[u8]) -> Result<Vec<BlockRange>, Sense> {
    parse_unmap(list, u32::try_from(list.len()).unwrap(), &geometry())
}

fn range(lba: u64, blocks: u64) -> BlockRange {
    BlockRange {
        lba: Lba(lba),
        blocks: Blocks(blocks),
    }
}

#[test]
fn a_parameter_list_holds_ranges() {
    let list = [
        0x00, 0x26, // UNMAP DATA LENGTH: 38 more bytes
        0x00, 0x20, // UNMAP BLOCK DESCRIPTOR DATA LENGTH: two
        0x00, 0x00, 0x00, 0x00, // reserved
        0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x03, // LBA
        0x00, 0x00, 0x10, 0x00, // NUMBER OF LOGICAL BLOCKS
        0xff, 0xff, 0xff, 0xff, // reserved
        0x00, 0x00, 0x00, 0x00, 0x00, 0x3f, 0xff, 0xff, // the last LBA
        0x00, 0x00, 0x00, 0x01, // one block
        0x00, 0x00, 0x00, 0x00, // reserved
    ];
    assert_eq!(
        parse(&list),
        Ok(vec![range(0x10203, 0x1000), range(0x3f_ffff, 1)])
    );
}

#[test]
fn no_list_and_no_descriptors_are_nothing_to_do() {
    assert_eq!(parse(&[]), Ok(vec![]));
    assert_eq!(parse(&list(&[])), Ok(vec![]));
    assert_eq!(parse_unmap(&[0xff; 8], 0, &geometry()), Ok(vec![]));
}

#[test]
fn a_list_shorter_than_its_header_or_than_announced_is_an_error_of_length() {
    let refused = Err(Sense::parameter_list_length_error());
    for length in 1..8 {
        assert_eq!(parse(&vec![0; length]), refused, "{length}");
    }
    let list = list(&[(0, 1)]);
    assert_eq!(parse_unmap(&list, 25, &geometry()), refused);
    assert_eq!(parse_unmap(&[], 8, &geometry()), refused);
    assert_eq!(parse_unmap(&list, u32::MAX, &geometry()), refused);
}

#[test]
fn a_broken_descriptor_at_the_end_is_not_looked_at() {
    let whole = list(&[(1, 1), (2, 1)]);
    let first = Ok(vec![range(1, 1)]);
    // The list ends within the second, although the header announces both.
    assert_eq!(parse(&whole[..39]), first);
    // The length of the list is announced to end within it.
    assert_eq!(parse_unmap(&whole, 39, &geometry()), first);
    // The header announces one and a part.
    let mut short = whole;
    short[2..4].copy_from_slice(&[0x00, 0x1f]);
    assert_eq!(parse(&short), first);
}

#[test]
fn more_than_256_descriptors_are_refused_at_their_length() {
    let most = list(&[(0, 1); 256]);
    assert_eq!(parse(&most), Ok(vec![range(0, 1); 256]));
    let refused = Err(Sense::invalid_field_in_parameter_list(Field::parameter(2)));
    assert_eq!(parse(&list(&[(0, 1); 257])), refused);
    assert_eq!(parse(&list(&[(u64::MAX, 1); 257])), refused);
}

#[test]
fn a_range_that_is_not_all_of_the_unit_is_out_of_range() {
    let refused = Err(Sense::logical_block_address_out_of_range());
    let end = 1 << 22;
    for descriptor in [
        (end - 1, 2),
        (end, 1),
        (u64::MAX, 1),
        (u64::MAX, 0),
        (end + 1, 0),
    ] {
        assert_eq!(
            parse(&list(&[(0, 1), descriptor])),
            refused,
            "{descriptor:?}"
        );
    }
    for lba in [0, 7, end] {
        assert_eq!(parse(&list(&[(lba, 0)])), Ok(vec![]), "no blocks are none");
    }
    // Before the sum is judged.
    assert_eq!(parse(&list(&[(0, 0x10_0001), (end, 1)])), refused);
}

#[test]
fn more_than_a_mi_of_blocks_is_refused_at_the_count_that_makes_it_more() {
    let refused = |byte| {
        Err(Sense::invalid_field_in_parameter_list(Field::parameter(
            byte,
        )))
    };
    assert_eq!(
        parse(&list(&[(0, 0x10_0000)])),
        Ok(vec![range(0, 0x10_0000)])
    );
    assert_eq!(parse(&list(&[(0, 0x10_0001)])), refused(16));
    assert_eq!(
        parse(&list(&[(0, 0x8_0000), (0, 0x8_0000)])).map(|ranges| ranges.len()),
        Ok(2)
    );
    assert_eq!(
        parse(&list(&[(0, 0x8_0000), (9, 0), (0, 0x8_0001), (0, 1)])),
        refused(48)
    );
}

#[test]
fn status_descriptors_are_as_many_as_there_is_room_for() {
    for (allocation_length, expected) in [
        (0, 1),
        (24, 1),
        (39, 1),
        (40, 2),
        (8 + 16 * 256, 256),
        (u32::MAX, 256),
    ] {
        assert_eq!(status_descriptors(allocation_length), expected);
    }
}

#[test]
fn lba_status_tells_what_is_mapped() {
    let status = |lba, blocks, is_mapped| LbaStatus {
        range: range(lba, blocks),
        is_mapped,
    };
    let expected = [
        0x00, 0x00, 0x00, 0x24, // PARAMETER DATA LENGTH: 36 more bytes
        0x00, 0x00, 0x00, 0x00, // reserved
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, // LBA
        0x00, 0x00, 0x00, 0x02, // NUMBER OF LOGICAL BLOCKS
        0x00, // mapped
        0x00, 0x00, 0x00, // reserved
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, // LBA
        0x00, 0x00, 0x01, 0x00, // NUMBER OF LOGICAL BLOCKS
        0x01, // deallocated
        0x00, 0x00, 0x00, // reserved
    ];
    let told = [status(7, 2, true), status(9, 256, false)];
    assert_eq!(lba_status(&told), expected);
    // After a part that cannot be counted there is nothing: what follows would not follow it.
    let told = [
        status(0, 0x1_0000_0000, false),
        status(0x1_0000_0000, 1, true),
    ];
    let answer = lba_status(&told);
    assert_eq!(answer[..4], [0x00, 0x00, 0x00, 0x14]);
    assert_eq!(answer[16..], [0xff, 0xff, 0xff, 0xff, 0x01, 0, 0, 0]);
}

#[test]
fn threshold_sets_are_a_mib_or_more_if_they_would_be_too_many() {
    let exponent =
        |block_size, blocks| threshold_exponent(&Geometry::new(block_size, blocks, 0).unwrap());
    assert_eq!(exponent(512, 1), 11);
    assert_eq!(exponent(4096, 1), 8);
    // 2^32 - 1 sets of 2,048 blocks, and one block more.
    assert_eq!(exponent(512, 0xffff_ffff << 11), 11);
    assert_eq!(exponent(512, (0xffff_ffff << 11) + 1), 12);
    assert_eq!(exponent(512, (1 << 54) - 1), 23);
    let small = geometry();
    assert_eq!(threshold_sets((5 << 20) - 1, &small), 4);
    assert_eq!(threshold_sets(5 << 20, &small), 5);
    assert_eq!(threshold_sets(u64::MAX, &small), 0xffff_ffff);
}

proptest! {
    #[test]
    fn no_list_makes_it_panic(
        list in prop::collection::vec(any::<u8>(), 0..6000), length in 0..70_000_u32,
        header in 0..5000_u16,
    ) {
        let mut list = list;
        if let Some(bytes) = list.get_mut(2..4) {
            bytes.copy_from_slice(&header.to_be_bytes());
        }
        if let Ok(ranges) = parse_unmap(&list, length, &geometry()) {
            prop_assert!(ranges.len() <= 256);
            prop_assert!(ranges.iter().all(|range| range.blocks.0 > 0));
        }
    }

    #[test]
    fn what_is_good_comes_back_as_it_was_and_in_order(
        descriptors in prop::collection::vec((0..1_u64 << 21, 0..4000_u32), 0..=256),
    ) {
        let expected: Vec<BlockRange> = descriptors
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|&(lba, count)| range(lba, count.into()))
            .collect();
        prop_assert_eq!(parse(&list(&descriptors)), Ok(expected));
    }
}
