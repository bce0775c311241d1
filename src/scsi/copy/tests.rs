use proptest::prelude::*;

use super::*;

const NAA: [u8; 16] = [
    0x60, 0x01, 0x40, 0x51, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
];

/// An identification descriptor of a unit with blocks of 512 bytes.
fn cscd() -> Vec<u8> {
    let mut descriptor = vec![
        0xe4, 0x00, 0, 0, // identification; NUL=0, direct access block device
        0x01, 0x03, 0, 16, // binary; of the unit, NAA; 16 bytes
    ];
    descriptor.extend(NAA);
    descriptor.extend([0; 4]); // the rest of the designator
    descriptor.extend([0x00, 0x00, 0x02, 0x00]); // PAD=0; blocks of 512 bytes
    descriptor
}

/// 258 blocks from LBA 3 of CSCD 0 to LBA 4 of CSCD 1.
fn block_to_block() -> Vec<u8> {
    vec![
        0x02, 0x00, 0x00, 0x18, // block to block, DC=0; 24 more bytes
        0, 0, 0, 1, // from CSCD 0 to CSCD 1
        0, 0, 0x01, 0x02, // 258 blocks
        0, 0, 0, 0, 0, 0, 0, 3, // from LBA 3
        0, 0, 0, 0, 0, 0, 0, 4, // to LBA 4
    ]
}

/// 1,000 bytes from byte 5 of LBA 3 of CSCD 0 to byte 6 of LBA 4 of CSCD 1.
fn with_offset() -> Vec<u8> {
    vec![
        0x0a, 0x00, 0x00, 0x1c, // block to block with offset; 28 more bytes
        0, 0, 0, 1, // from CSCD 0 to CSCD 1
        0, 0, 0x03, 0xe8, // 1,000 bytes
        0, 0, 0, 0, 0, 0, 0, 3, // from LBA 3
        0, 0, 0, 0, 0, 0, 0, 4, // to LBA 4
        0, 5, 0, 6, // byte offsets
    ]
}

/// A parameter list of these descriptors, without inline data.
fn list(cscds: &[Vec<u8>], segments: &[Vec<u8>]) -> Vec<u8> {
    let (cscds, segments) = (cscds.concat(), segments.concat());
    let cscds_length = u16::try_from(cscds.len()).unwrap().to_be_bytes();
    let segments_length = u32::try_from(segments.len()).unwrap().to_be_bytes();
    let mut list = vec![0x07, 0x38]; // list identifier 7; STR, LIST ID USAGE 11b
    list.extend(cscds_length);
    list.extend([0; 4]);
    list.extend(segments_length);
    list.extend([0; 4]); // no inline data
    [list, cscds, segments].concat()
}

fn parse(list: &[u8]) -> Result<List, Sense> {
    List::parse(list, u32::try_from(list.len()).unwrap())
}

/// The same with a byte changed.
fn with(mut list: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    list[at] = byte;
    list
}

fn invalid(byte: u16) -> Sense {
    Sense::invalid_field_in_parameter_list(Field::parameter(byte))
}

fn invalid_bit(byte: u16, bit: u8) -> Sense {
    Sense::invalid_field_in_parameter_list(Field::parameter_bit(byte, bit))
}

#[test]
fn a_list_names_its_units_and_segments() {
    let named = Cscd {
        naa: Some(NAA),
        block_length: 512,
    };
    let segment = Segment {
        source: 0,
        destination: 1,
        amount: Amount::SourceBlocks(Blocks(258)),
        from: (Lba(3), 0),
        to: (Lba(4), 0),
    };
    let expected = List {
        identifier: None,
        cscds: vec![named, named],
        segments: vec![
            segment,
            Segment {
                amount: Amount::DestinationBlocks(Blocks(258)),
                ..segment
            },
            Segment {
                amount: Amount::Bytes(1000),
                from: (Lba(3), 5),
                to: (Lba(4), 6),
                ..segment
            },
        ],
    };
    let destination_counts = with(block_to_block(), 1, 0x02);
    let segments = [block_to_block(), destination_counts, with_offset()];
    assert_eq!(parse(&list(&[cscd(), cscd()], &segments)), Ok(expected));
}

#[test]
fn a_list_of_nothing_is_good() {
    assert_eq!(parse(&[]), Ok(List::default()));
    assert_eq!(parse(&list(&[], &[])), Ok(List::default()));
}

#[test]
fn what_is_only_about_the_list_makes_no_difference() {
    let plain = list(&[cscd()], &[with_offset()]);
    let expected = parse(&plain);
    assert!(expected.is_ok());
    // LIST IDENTIFIER, since LIST ID USAGE is 11b; STR, PRIORITY; reserved; LU ID TYPE and relative initiator port.
    for (at, byte) in [
        (0, 0xff),
        (1, 0x18),
        (1, 0xff),
        (4, 0xff),
        (17, 0xc0),
        (19, 0xff),
    ] {
        assert_eq!(parse(&with(plain.clone(), at, byte)), expected, "{at}");
    }
}

#[test]
fn a_list_shorter_than_it_says_is_a_length_error() {
    let whole = list(&[cscd()], &[block_to_block()]);
    let short = Err(Sense::parameter_list_length_error());
    for length in 1..whole.len() {
        assert_eq!(parse(&whole[..length]), short, "{length}");
    }
    // PARAMETER LIST LENGTH says that it is longer than the data that came.
    let length = u32::try_from(whole.len() + 1).unwrap();
    assert_eq!(List::parse(&whole, length), short);
    // What stands behind it is not looked at.
    assert!(parse(&[whole, vec![0xff; 9]].concat()).is_ok());
}

#[test]
fn a_list_longer_than_any_is_refused_before_it_is_counted() {
    let short = Err(Sense::parameter_list_length_error());
    // 2,048 CSCD descriptors of 32 bytes are one byte more than 65,535.
    let too_long = list(&vec![cscd(); 2047], &vec![block_to_block(); 2]);
    assert_eq!(parse(&too_long), short);
    let longest = list(&vec![cscd(); 2047], &[vec![0; 31]]);
    assert_eq!(parse(&longest), Err(Sense::too_many_target_descriptors()));
    assert!(List::parse(&vec![0; 65_551], 65_551).is_ok());
    assert_eq!(List::parse(&vec![0; 65_552], 65_552), short);
    assert_eq!(List::parse(&[0; 16], u32::MAX), short);
}

#[test]
fn there_is_no_inline_data() {
    let inline = with(list(&[cscd()], &[with_offset()]), 15, 1);
    assert_eq!(parse(&inline), Err(Sense::inline_data_length_exceeded()));
}

#[test]
fn cscd_descriptors_are_of_32_bytes() {
    let broken = list(&[cscd(), vec![0xe4; 31]], &[]);
    assert_eq!(parse(&broken), Err(invalid(2)));
}

#[test]
fn there_are_not_too_many_descriptors() {
    assert!(parse(&list(&vec![cscd(); 16], &vec![with_offset(); 64])).is_ok());
    let cscds = list(&vec![cscd(); 17], &vec![with_offset(); 65]);
    assert_eq!(parse(&cscds), Err(Sense::too_many_target_descriptors()));
    let segments = list(&vec![cscd(); 16], &vec![with_offset(); 65]);
    assert_eq!(parse(&segments), Err(Sense::too_many_segment_descriptors()));
}

#[test]
fn descriptors_of_other_types_are_refused() {
    let image = with(cscd(), 0, 0xe0);
    let unsupported = Err(Sense::unsupported_target_descriptor_type_code());
    assert_eq!(parse(&list(&[cscd(), image], &[])), unsupported);
    let unsupported = Err(Sense::unsupported_segment_descriptor_type_code());
    for descriptor_type in [0x00, 0x01, 0x03, 0x0b, 0xe4] {
        let other = with(with_offset(), 0, descriptor_type);
        let list = list(&[cscd()], &[block_to_block(), other]);
        assert_eq!(parse(&list), unsupported, "{descriptor_type:02x}");
    }
}

#[test]
fn types_are_judged_before_what_is_in_the_descriptors() {
    let null = with(cscd(), 1, 0x20);
    let other = vec![0x03, 0, 0, 1, 0];
    let unsupported = Err(Sense::unsupported_segment_descriptor_type_code());
    assert_eq!(parse(&list(&[null], &[other])), unsupported);
}

#[test]
fn a_cscd_is_a_block_device_named_by_a_designator_of_the_unit() {
    for (at, byte, expected) in [
        (1, 0x20, invalid_bit(49, 5)), // NUL
        (1, 0x05, invalid_bit(49, 4)), // a CD-ROM
        (5, 0x13, invalid_bit(53, 5)), // of the port
        (5, 0x08, invalid_bit(53, 3)), // a SCSI name string
        (5, 0x02, invalid_bit(53, 3)), // EUI-64
        (4, 0x02, invalid_bit(52, 3)), // NAA in ASCII
        (7, 21, invalid(55)),
    ] {
        let list = list(&[cscd(), with(cscd(), at, byte)], &[]);
        assert_eq!(parse(&list), Err(expected), "{at} {byte:02x}");
    }
}

#[test]
fn a_cscd_with_another_name_than_a_unit_of_ours_can_have_is_nobody() {
    let t10 = with(with(cscd(), 4, 0x02), 5, 0x01);
    for other in [with(cscd(), 7, 8), with(cscd(), 7, 20), t10] {
        let list = parse(&list(&[other], &[])).unwrap();
        assert_eq!(list.cscds[0].naa, None);
    }
}

#[test]
fn a_segment_is_as_long_as_its_type_is() {
    for (segment, length) in [(block_to_block(), 0x17), (with_offset(), 0x1d)] {
        let list = list(&[cscd()], &[with_offset(), with(segment, 3, length)]);
        assert_eq!(parse(&list), Err(invalid(82)));
    }
}

#[test]
fn a_segment_copies_no_more_than_16_mib() {
    let bytes = |bytes: u32| {
        let mut segment = with_offset();
        segment[8..12].copy_from_slice(&bytes.to_be_bytes());
        parse(&list(&[cscd(), cscd()], &[segment]))
    };
    assert!(bytes(0x0100_0000).is_ok());
    assert_eq!(bytes(0x0100_0001), Err(invalid(88)));
    // The blocks of CSCD 1 have 4,096 bytes: 4,097 of them are too many, and as many of CSCD 0 are not.
    let large = with(cscd(), 30, 0x10);
    let blocks = |dc, blocks: u16| {
        let mut segment = with(block_to_block(), 1, dc);
        segment[10..12].copy_from_slice(&blocks.to_be_bytes());
        parse(&list(&[cscd(), large.clone()], &[segment]))
    };
    assert!(blocks(0x00, 4097).is_ok());
    assert_eq!(blocks(0x00, 0x8001), Err(invalid(90)));
    assert!(blocks(0x02, 4096).is_ok());
    assert_eq!(blocks(0x02, 4097), Err(invalid(90)));
}

#[test]
fn a_segment_of_a_cscd_that_is_not_there_is_left_to_its_turn() {
    let mut segment = block_to_block();
    segment[4..8].copy_from_slice(&[0x01, 0x00, 0xff, 0xff]);
    let list = parse(&list(&[cscd()], &[segment])).unwrap();
    let segment = list.segments[0];
    assert_eq!((segment.source, segment.destination), (256, 65_535));
}

#[test]
fn a_list_has_an_identifier_unless_it_says_that_it_has_none() {
    for (usage, expected) in [
        (0x00, Some(7)),
        (0x08, Some(7)),
        (0x10, Some(7)),
        (0x18, None),
    ] {
        let list = with(list(&[cscd()], &[]), 1, usage);
        assert_eq!(parse(&list).unwrap().identifier, expected, "{usage:02x}");
    }
}

#[test]
fn a_status_tells_how_far_it_has_come() {
    let failed = CopyStatus {
        state: CopyState::Failed,
        segments: 0x0102,
        bytes: 0x0304_0506,
    };
    let expected = [
        0, 0, 0, 8, // 8 more bytes
        0x02, 0x01, 0x02, // HDD=0, completed with errors; 258 segments
        0x00, 0x03, 0x04, 0x05, 0x06, // in bytes: 0x03040506 of them
    ];
    assert_eq!(status(&failed), expected);
}

#[test]
fn operating_parameters_tell_the_limits() {
    let geometry = Geometry::new(4096, 1 << 20, 0).unwrap();
    let expected = [
        0, 0, 0, 43, 0x01, 0, 0, 0, // 43 more bytes; SNLID
        0, 16, 0, 64, 0, 0, 0xff, 0xff, // 16 CSCDs, 64 segments, 65,535 bytes of descriptors
        0x01, 0, 0, 0, 0, 0, 0, 0, // segments of 16 MiB, no inline data
        0, 0, 0, 0, 0, 0, 0, 0, // no held data, no stream devices
        0, 0, 0, 64, 64, 12, 0, 0, // 64 copies; granularity 2^12 bytes
        0, 0, 0, 3, 0x02, 0x0a, 0xe4, // three descriptor types
    ];
    assert_eq!(operating_parameters(&geometry), expected);
}

#[test]
fn the_vpd_page_tells_the_same() {
    let geometry = Geometry::new(512, 1 << 20, 0).unwrap();
    let expected = [
        0x00, 0x01, 0, 8, 7, 0x83, 1, 0x00, 0x84, 2, 0x00, 0x03, // supported commands
        0x00, 0x04, 0, 28, 0, 0, 0, 0, // parameter data
        0, 16, 0, 64, 0, 0, 0xff, 0xff, // 16 CSCDs, 64 segments, 65,535 bytes of descriptors
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // no inline data
        0x00, 0x08, 0, 4, 3, 0x02, 0x0a, 0xe4, // supported descriptors
        0x80, 0x01, 0, 32, 0, 0, 0, 64, 0, 0, 0, 64, // general copy operations: 64 copies
        0x01, 0, 0, 0, 9, 0, 0, 0, // segments of 16 MiB, granularity 2^9 bytes
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(vital_product_data(&geometry), expected);
}

proptest! {
    #[test]
    fn no_list_makes_us_panic(
        list in prop::collection::vec(any::<u8>(), 0..300),
        length in prop_oneof![0u32..300, any::<u32>()],
    ) {
        let _ = List::parse(&list, length);
    }

    #[test]
    fn no_list_that_is_nearly_good_makes_us_panic(
        cscds in 0..4usize,
        segments in prop::collection::vec(any::<bool>(), 0..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        behind in 0..3u32,
    ) {
        let segments: Vec<_> = segments
            .into_iter()
            .map(|offset| if offset { with_offset() } else { block_to_block() })
            .collect();
        let mut list = list(&vec![cscd(); cscds], &segments);
        for (at, byte) in changes {
            let at = at.index(list.len());
            list[at] = byte;
        }
        let length = u32::try_from(list.len()).unwrap() + behind;
        if let Ok(parsed) = List::parse(&list, length) {
            prop_assert!(parsed.cscds.len() <= 16 && parsed.segments.len() <= 64);
        }
    }
}
