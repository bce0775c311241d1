use proptest::prelude::*;

use super::*;

const CACHED: Values = Values {
    write_cache_enabled: true,
    software_write_protect: false,
};
const THROUGH: Values = Values {
    write_cache_enabled: false,
    software_write_protect: false,
};
const PROTECTED: Values = Values {
    software_write_protect: true,
    ..CACHED
};
const STATE: ModeState = ModeState {
    current: CACHED,
    default: CACHED,
    saved: CACHED,
    read_only: false,
    task_aborted_status: true,
    soft_threshold: None,
};
const PAGE: ModeSense = ModeSense {
    header: ModeHeader::Six,
    block_descriptor: BlockDescriptor::None,
    page_control: PageControl::Current,
    page: 0x08,
    subpage: 0x00,
    allocation_length: 255,
};

fn small() -> Geometry {
    Geometry::new(512, 0x10_0000, 0).unwrap()
}

fn large() -> Geometry {
    Geometry::new(4096, 0x1_0000_0001, 0).unwrap()
}

/// The one page after the header of MODE SENSE(6).
fn page(page: u8, state: &ModeState, geometry: &Geometry) -> Vec<u8> {
    sense(&ModeSense { page, ..PAGE }, state, geometry)
        .unwrap()
        .split_off(4)
}

#[test]
fn header_of_6_counts_what_follows_its_first_byte() {
    let asked = ModeSense {
        block_descriptor: BlockDescriptor::Short,
        ..PAGE
    };
    let expected = [
        0x1f, 0x00, 0x10, 0x08, // 31 more bytes, DPOFUA, block descriptor of 8 bytes
        0x00, 0x10, 0x00, 0x00, // blocks
        0x00, 0x00, 0x02, 0x00, // 512 bytes each
        0x88, 0x12, // PS, Caching mode page
    ];
    let answer = sense(&asked, &STATE, &small()).unwrap();
    assert_eq!(answer.len(), 32);
    assert_eq!(answer[..14], expected);
}

#[test]
fn header_of_10_counts_what_follows_its_first_two_bytes() {
    let asked = ModeSense {
        header: ModeHeader::Ten,
        block_descriptor: BlockDescriptor::Long,
        ..PAGE
    };
    let expected = [
        0x00, 0x2a, 0x00, 0x10, // 42 more bytes, DPOFUA
        0x01, 0x00, 0x00, 0x10, // LONGLBA, block descriptor of 16 bytes
        0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, // blocks
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, // 4,096 bytes each
        0x88, 0x12, // PS, Caching mode page
    ];
    let answer = sense(&asked, &STATE, &large()).unwrap();
    assert_eq!(answer.len(), 44);
    assert_eq!(answer[..26], expected);
}

#[test]
fn without_block_descriptor_the_page_follows_the_header() {
    let answer = sense(&PAGE, &STATE, &small()).unwrap();
    assert_eq!(answer[..6], [0x17, 0x00, 0x10, 0x00, 0x88, 0x12]);
    let asked = ModeSense {
        header: ModeHeader::Ten,
        ..PAGE
    };
    let answer = sense(&asked, &STATE, &small()).unwrap();
    assert_eq!(
        answer[..10],
        [0x00, 0x1a, 0x00, 0x10, 0, 0, 0x00, 0x00, 0x88, 0x12]
    );
}

#[test]
fn a_short_block_descriptor_says_when_there_are_more_blocks() {
    let asked = ModeSense {
        block_descriptor: BlockDescriptor::Short,
        ..PAGE
    };
    let answer = sense(&asked, &STATE, &large()).unwrap();
    assert_eq!(
        answer[4..12],
        [0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x10, 0x00]
    );
}

#[test]
fn a_read_only_or_protected_unit_says_wp() {
    let device_specific = |state: ModeState| sense(&PAGE, &state, &small()).unwrap()[2];
    assert_eq!(device_specific(STATE), 0x10);
    assert_eq!(
        device_specific(ModeState {
            read_only: true,
            ..STATE
        }),
        0x90
    );
    assert_eq!(
        device_specific(ModeState {
            current: PROTECTED,
            ..STATE
        }),
        0x90
    );
}

#[test]
fn read_write_error_recovery_is_all_zero() {
    assert_eq!(
        page(0x01, &STATE, &small()),
        [0x81, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
}

#[test]
fn caching_tells_wce() {
    let mut expected = vec![0x88, 0x12, 0x04]; // WCE
    expected.resize(20, 0);
    assert_eq!(page(0x08, &STATE, &small()), expected);
    expected[2] = 0x00;
    let through = ModeState {
        current: THROUGH,
        ..STATE
    };
    assert_eq!(page(0x08, &through, &small()), expected);
}

#[test]
fn control_tells_d_sense_swp_and_tas() {
    let expected = [
        0x8a, 0x0a, // PS, page code, 10 more bytes
        0x02, // TST=000b, D_SENSE=0, GLTSD
        0x10, // unrestricted reordering, QERR=00b
        0x00, // UA_INTLCK_CTRL=00b, SWP=0
        0x40, // TAS
        0x00, 0x00, 0xff, 0xff, // BUSY TIMEOUT PERIOD
        0x00, 0x00,
    ];
    assert_eq!(page(0x0a, &STATE, &small()), expected);
    let other = ModeState {
        current: PROTECTED,
        task_aborted_status: false,
        ..STATE
    };
    assert_eq!(page(0x0a, &other, &large())[2..6], [0x06, 0x10, 0x08, 0x00]);
}

#[test]
fn informational_exceptions_are_off() {
    let expected = [0x9c, 0x0a, 0x08, 0x00, 0, 0, 0, 0, 0, 0, 0, 0]; // DEXCPT, MRIE 0h
    assert_eq!(page(0x1c, &STATE, &small()), expected);
}

#[test]
fn all_pages_ascend_with_or_without_subpages() {
    let expected = [
        page(0x01, &STATE, &small()),
        page(0x08, &STATE, &small()),
        page(0x0a, &STATE, &small()),
        page(0x1c, &STATE, &small()),
    ]
    .concat();
    for subpage in [0x00, 0xff] {
        let asked = ModeSense {
            page: 0x3f,
            subpage,
            ..PAGE
        };
        let answer = sense(&asked, &STATE, &small()).unwrap();
        assert_eq!(answer[..4], [0x3b, 0x00, 0x10, 0x00]); // 59 more bytes
        assert_eq!(answer[4..], expected);
    }
}

/// The four pages with PC as that.
fn values(page_control: PageControl, state: &ModeState) -> Vec<u8> {
    let asked = ModeSense {
        page: 0x3f,
        page_control,
        ..PAGE
    };
    sense(&asked, state, &small()).unwrap().split_off(4)
}

#[test]
fn wce_and_swp_are_changeable_and_nothing_else() {
    let mut expected = vec![0; 56];
    expected[..2].copy_from_slice(&[0x81, 0x0a]);
    expected[12..15].copy_from_slice(&[0x88, 0x12, 0x04]); // WCE
    expected[32..37].copy_from_slice(&[0x8a, 0x0a, 0x00, 0x00, 0x08]); // SWP
    expected[44..46].copy_from_slice(&[0x9c, 0x0a]);
    assert_eq!(values(PageControl::Changeable, &STATE), expected);
}

#[test]
fn current_default_and_saved_values_are_told_apart() {
    let state = ModeState {
        current: PROTECTED,
        default: THROUGH,
        saved: CACHED,
        ..STATE
    };
    for (page_control, wce, swp) in [
        (PageControl::Current, 0x04, 0x08),
        (PageControl::Default, 0x00, 0x00),
        (PageControl::Saved, 0x04, 0x00),
    ] {
        let values = values(page_control, &state);
        assert_eq!((values[14], values[36]), (wce, swp), "{page_control:?}");
        assert_eq!(values[46], 0x08, "DEXCPT whatever is asked for");
    }
}

#[test]
fn wce_is_told_if_the_answer_is_long_enough_for_it() {
    let long = ModeSense {
        header: ModeHeader::Ten,
        block_descriptor: BlockDescriptor::Long,
        page: 0x3f,
        ..PAGE
    };
    for (asked, length) in [(PAGE, 7), (long, 39)] {
        assert!(tells_write_cache(&asked, length));
        assert!(!tells_write_cache(&asked, length - 1));
        let page_control = PageControl::Default;
        let other = ModeSense {
            page_control,
            ..asked
        };
        assert!(!tells_write_cache(&other, 255));
    }
    assert!(!tells_write_cache(&ModeSense { page: 0x0a, ..PAGE }, 255));
}

#[test]
fn an_unknown_page_is_refused_before_an_unknown_subpage() {
    let refused = |page, subpage| {
        sense(
            &ModeSense {
                page,
                subpage,
                ..PAGE
            },
            &STATE,
            &small(),
        )
    };
    let page = Err(Sense::invalid_field_in_cdb(Field::cdb(2)));
    let subpage = Err(Sense::invalid_field_in_cdb(Field::cdb(3)));
    assert_eq!(refused(0x00, 0x00), page);
    assert_eq!(refused(0x02, 0xff), page);
    assert_eq!(refused(0x02, 0x01), page);
    assert_eq!(refused(0x0a, 0x01), subpage);
    assert_eq!(refused(0x3f, 0x01), subpage);
    assert!(refused(0x0a, 0xff).is_ok());
}

proptest! {
    #[test]
    fn no_question_makes_it_panic(
        ten: bool, descriptor in 0..3, control in 0..4, page in 0..0x40_u8, subpage: u8,
        block_size in prop::sample::select(vec![512, 4096]), blocks in 1..1_u64 << 50,
    ) {
        let asked = ModeSense {
            header: if ten { ModeHeader::Ten } else { ModeHeader::Six },
            block_descriptor: match descriptor {
                0 => BlockDescriptor::None,
                1 => BlockDescriptor::Short,
                _ => BlockDescriptor::Long,
            },
            page_control: match control {
                0 => PageControl::Current,
                1 => PageControl::Changeable,
                2 => PageControl::Default,
            _ => PageControl::Saved,
            },
            page,
            subpage,
            allocation_length: 0,
        };
        let geometry = Geometry::new(block_size, blocks, 0).unwrap();
        if let Ok(answer) = sense(&asked, &STATE, &geometry) {
            let told = if ten {
                usize::from(u16::from_be_bytes([answer[0], answer[1]])) + 2
            } else {
                usize::from(answer[0]) + 1
            };
            prop_assert_eq!(answer.len(), told);
        }
    }
}

/// A unit whose initiators are warned.
const WARNING: ModeState = ModeState {
    soft_threshold: Some(0x0102_0304),
    ..STATE
};

#[test]
fn a_threshold_of_space_is_a_subpage_and_lbpere() {
    let threshold = [
        0x5c, 0x02, 0x00, 0x14, // SPF, page and subpage code, 20 more bytes
        0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,    // SITUA=0
        0x80, // ENABLED, THRESHOLD TYPE 000b: soft, THRESHOLD ARMING 000b: decreasing
        0x01, // THRESHOLD RESOURCE: available
        0x00, 0x00, // reserved
        0x01, 0x02, 0x03, 0x04, // THRESHOLD COUNT
    ];
    let asked = |page, subpage, page_control| ModeSense {
        page,
        subpage,
        page_control,
        ..PAGE
    };
    let told = |page, subpage| {
        let asked = asked(page, subpage, PageControl::Current);
        sense(&asked, &WARNING, &small()).unwrap().split_off(4)
    };
    assert_eq!(told(0x1c, 0x02), threshold);
    assert_eq!(told(0x1c, 0x00), page(0x1c, &WARNING, &small()));
    assert_eq!(
        told(0x1c, 0xff),
        [told(0x1c, 0x00), threshold.to_vec()].concat()
    );
    assert_eq!(
        told(0x3f, 0xff),
        [told(0x3f, 0x00), threshold.to_vec()].concat()
    );
    assert_eq!(told(0x08, 0xff), told(0x08, 0x00));
    let recovery = told(0x01, 0x00);
    assert_eq!(recovery[2..], [0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0], "LBPERE");
    let changeable = asked(0x1c, 0x02, PageControl::Changeable);
    let mask = sense(&changeable, &WARNING, &small()).unwrap().split_off(4);
    assert_eq!(mask, [&threshold[..4], &[0; 20]].concat());

    let refused = Err(Sense::invalid_field_in_cdb(Field::cdb(3)));
    for (page, subpage) in [(0x3f, 0x02), (0x01, 0x02), (0x1c, 0x01)] {
        let asked = asked(page, subpage, PageControl::Current);
        assert_eq!(sense(&asked, &WARNING, &small()), refused);
    }
    let without = asked(0x1c, 0x02, PageControl::Current);
    assert_eq!(sense(&without, &STATE, &small()), refused);
}
