//! Mode pages, as MODE SENSE tells them.
//!
//! All I_T nexuses share them, none is saved, and nothing can change them: no bit is changeable, and the
//! default values are the current ones.

use zerocopy::big_endian::U16;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::capacity::Geometry;
use super::cdb::{BlockDescriptor, ModeHeader, ModeSense, PageControl};
use super::flag;
use super::sense::{Field, Format, Sense};

/// What of the mode parameters is not the same for every unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeState {
    /// WCE: a write may be answered before it is durable.
    pub write_cache_enabled: bool,
    /// The unit is read-only, which WP tells.
    pub read_only: bool,
    /// SWP: an initiator has write protected the unit, which WP tells, too.
    pub software_write_protect: bool,
    /// TAS: a command that another I_T nexus has had aborted is answered with TASK ABORTED status.
    pub task_aborted_status: bool,
}

/// What the pages tell of.
struct Unit<'a> {
    state: &'a ModeState,
    geometry: &'a Geometry,
}

/// Makes what follows PAGE CODE and PAGE LENGTH.
type Content = fn(&Unit<'_>) -> Vec<u8>;

/// The mode pages, ascending by page code.
const PAGES: &[(u8, Content)] = &[
    (0x01, read_write_error_recovery),
    (0x08, caching),
    (0x0a, control),
    (0x1c, informational_exceptions_control),
];
/// PAGE CODE for all pages.
const ALL_PAGES: u8 = 0x3f;
/// SUBPAGE CODE for all subpages. There are none but 00h, the pages themselves.
const ALL_SUBPAGES: u8 = 0xff;

/// The answer to MODE SENSE(6) and MODE SENSE(10): header, block descriptor, pages.
///
/// # Errors
/// INVALID FIELD IN CDB, pointing at PAGE CODE or SUBPAGE CODE, if there is no such page.
pub fn sense(asked: &ModeSense, state: &ModeState, geometry: &Geometry) -> Result<Vec<u8>, Sense> {
    let unit = Unit { state, geometry };
    let pages = pages(asked, &unit)?;
    let block_descriptor = block_descriptor(asked.block_descriptor, geometry);
    let header = header(asked, state, block_descriptor.len(), pages.len());
    Ok([header, block_descriptor, pages].concat())
}

/// Mode parameter header(6) (SPC-4).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Header6 {
    /// Counts all that follows it.
    mode_data_length: u8,
    medium_type: u8,
    /// WP in bit 7, DPOFUA in bit 4 (SBC-3).
    device_specific: u8,
    block_descriptor_length: u8,
}

/// Mode parameter header(10) (SPC-4).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Header10 {
    /// Counts all that follows it.
    mode_data_length: U16,
    medium_type: u8,
    /// As in [`Header6`].
    device_specific: u8,
    /// LONGLBA in bit 0.
    long_lba: u8,
    reserved: u8,
    block_descriptor_length: U16,
}

/// The header before so many bytes of block descriptor and pages.
fn header(asked: &ModeSense, state: &ModeState, block_descriptor: usize, pages: usize) -> Vec<u8> {
    const WP: u8 = 0x80;
    const DPOFUA: u8 = 0x10;
    const LONGLBA: u8 = 0x01;
    let block_descriptor_length = u8::try_from(block_descriptor).expect("16 bytes at most");
    let rest = u8::try_from(block_descriptor + pages).expect("16 and 56 bytes at most");
    let protected = state.read_only || state.software_write_protect;
    let device_specific = flag(protected, WP) | DPOFUA;
    match asked.header {
        ModeHeader::Six => Header6 {
            mode_data_length: 3 + rest,
            medium_type: 0x00,
            device_specific,
            block_descriptor_length,
        }
        .as_bytes()
        .to_vec(),
        ModeHeader::Ten => Header10 {
            mode_data_length: (6 + u16::from(rest)).into(),
            medium_type: 0x00,
            device_specific,
            long_lba: flag(asked.block_descriptor == BlockDescriptor::Long, LONGLBA),
            reserved: 0,
            block_descriptor_length: u16::from(block_descriptor_length).into(),
        }
        .as_bytes()
        .to_vec(),
    }
}

/// Mode parameter block descriptor (SBC-3). Short: number of blocks in bytes 0–3, FFFFFFFFh if there are
/// more, block length in 5–7. Long: number of blocks in bytes 0–7, block length in 12–15.
fn block_descriptor(kind: BlockDescriptor, geometry: &Geometry) -> Vec<u8> {
    let blocks = geometry.blocks().0;
    let block_length = geometry.block_size().to_be_bytes();
    match kind {
        BlockDescriptor::None => Vec::new(),
        BlockDescriptor::Short => {
            let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
            [blocks.to_be_bytes(), block_length].concat()
        }
        BlockDescriptor::Long => [blocks.to_be_bytes().as_slice(), &[0; 4], &block_length].concat(),
    }
}

/// The pages asked for.
fn pages(asked: &ModeSense, unit: &Unit<'_>) -> Result<Vec<u8>, Sense> {
    let mut pages = PAGES
        .iter()
        .filter(|(code, _)| asked.page == ALL_PAGES || asked.page == *code)
        .peekable();
    if pages.peek().is_none() {
        return Err(Sense::invalid_field_in_cdb(Field::cdb(2)));
    }
    if !matches!(asked.subpage, 0x00 | ALL_SUBPAGES) {
        return Err(Sense::invalid_field_in_cdb(Field::cdb(3)));
    }
    Ok(pages
        .flat_map(|(code, content)| page(*code, content(unit), asked.page_control))
        .collect())
}

/// Page_0 mode page format (SPC-4): PS=0 and PAGE CODE, PAGE LENGTH, mode parameters.
fn page(code: u8, mut content: Vec<u8>, page_control: PageControl) -> Vec<u8> {
    if page_control == PageControl::Changeable {
        content.fill(0);
    }
    let length = u8::try_from(content.len()).expect("the longest page has 18 bytes");
    [&[code, length], content.as_slice()].concat()
}

/// Read-Write Error Recovery (SBC-3), of 12 bytes: nothing is asked of the drive.
fn read_write_error_recovery(_unit: &Unit<'_>) -> Vec<u8> {
    vec![0; 10]
}

/// Caching (SBC-3), of 20 bytes: WCE.
fn caching(unit: &Unit<'_>) -> Vec<u8> {
    let mut content = vec![0; 18];
    content[0] = flag(unit.state.write_cache_enabled, 0x04); // byte 2 of the page: WCE
    content
}

/// Control (SPC-4), of 12 bytes: a task set for all I_T nexuses, commands in any order.
fn control(unit: &Unit<'_>) -> Vec<u8> {
    const GLTSD: u8 = 0x02;
    const D_SENSE: u8 = 0x04;
    const UNRESTRICTED_REORDERING: u8 = 0x10;
    const SWP: u8 = 0x08;
    const TAS: u8 = 0x40;
    let descriptors = unit.geometry.sense_format() == Format::Descriptor;
    vec![
        GLTSD | flag(descriptors, D_SENSE),           // byte 2: TST=000b
        UNRESTRICTED_REORDERING,                      // 3: QERR=00b
        flag(unit.state.software_write_protect, SWP), // 4: UA_INTLCK_CTRL=00b
        flag(unit.state.task_aborted_status, TAS),    // 5
        0x00,                                         // 6, 7: obsolete
        0x00,
        0xff, // 8, 9: BUSY TIMEOUT PERIOD: unlimited
        0xff,
        0x00, // 10, 11: EXTENDED SELF-TEST COMPLETION TIME
        0x00,
    ]
}

/// Informational Exceptions Control (SPC-4), of 12 bytes: DEXCPT=1, MRIE 0h: none is reported.
fn informational_exceptions_control(_unit: &Unit<'_>) -> Vec<u8> {
    let mut content = vec![0; 10];
    content[0] = 0x08; // byte 2 of the page: DEXCPT
    content
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATE: ModeState = ModeState {
        write_cache_enabled: true,
        read_only: false,
        software_write_protect: false,
        task_aborted_status: true,
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
            0x08, 0x12, // Caching mode page
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
            0x08, 0x12, // Caching mode page
        ];
        let answer = sense(&asked, &STATE, &large()).unwrap();
        assert_eq!(answer.len(), 44);
        assert_eq!(answer[..26], expected);
    }

    #[test]
    fn without_block_descriptor_the_page_follows_the_header() {
        let answer = sense(&PAGE, &STATE, &small()).unwrap();
        assert_eq!(answer[..6], [0x17, 0x00, 0x10, 0x00, 0x08, 0x12]);
        let asked = ModeSense {
            header: ModeHeader::Ten,
            ..PAGE
        };
        let answer = sense(&asked, &STATE, &small()).unwrap();
        assert_eq!(
            answer[..10],
            [0x00, 0x1a, 0x00, 0x10, 0, 0, 0x00, 0x00, 0x08, 0x12]
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
                software_write_protect: true,
                ..STATE
            }),
            0x90
        );
    }

    #[test]
    fn read_write_error_recovery_is_all_zero() {
        assert_eq!(
            page(0x01, &STATE, &small()),
            [0x01, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn caching_tells_wce() {
        let mut expected = vec![0x08, 0x12, 0x04]; // WCE
        expected.resize(20, 0);
        assert_eq!(page(0x08, &STATE, &small()), expected);
        expected[2] = 0x00;
        let through = ModeState {
            write_cache_enabled: false,
            ..STATE
        };
        assert_eq!(page(0x08, &through, &small()), expected);
    }

    #[test]
    fn control_tells_d_sense_swp_and_tas() {
        let expected = [
            0x0a, 0x0a, // page code, 10 more bytes
            0x02, // TST=000b, D_SENSE=0, GLTSD
            0x10, // unrestricted reordering, QERR=00b
            0x00, // UA_INTLCK_CTRL=00b, SWP=0
            0x40, // TAS
            0x00, 0x00, 0xff, 0xff, // BUSY TIMEOUT PERIOD
            0x00, 0x00,
        ];
        assert_eq!(page(0x0a, &STATE, &small()), expected);
        let other = ModeState {
            software_write_protect: true,
            task_aborted_status: false,
            ..STATE
        };
        assert_eq!(page(0x0a, &other, &large())[2..6], [0x06, 0x10, 0x08, 0x00]);
    }

    #[test]
    fn informational_exceptions_are_off() {
        let expected = [0x1c, 0x0a, 0x08, 0x00, 0, 0, 0, 0, 0, 0, 0, 0]; // DEXCPT, MRIE 0h
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

    #[test]
    fn default_values_are_current_and_none_is_changeable() {
        let values = |page_control| {
            let asked = ModeSense {
                page: 0x3f,
                page_control,
                ..PAGE
            };
            sense(&asked, &STATE, &small()).unwrap().split_off(4)
        };
        assert_eq!(values(PageControl::Default), values(PageControl::Current));
        let mut expected = vec![0; 56];
        expected[..2].copy_from_slice(&[0x01, 0x0a]);
        expected[12..14].copy_from_slice(&[0x08, 0x12]);
        expected[32..34].copy_from_slice(&[0x0a, 0x0a]);
        expected[44..46].copy_from_slice(&[0x1c, 0x0a]);
        assert_eq!(values(PageControl::Changeable), expected);
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
            ten: bool, descriptor in 0..3, control in 0..3, page in 0..0x40_u8, subpage: u8,
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
                    _ => PageControl::Default,
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
}
