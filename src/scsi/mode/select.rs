//! MODE SELECT: the parameter list, judged as a whole before anything of it counts (SPC-4).

use super::{PAGES, PS, Page, Unit, Values};
use crate::scsi::capacity::Geometry;
use crate::scsi::cdb::{ModeHeader, ModeSelect};
use crate::scsi::mode::ModeState;
use crate::scsi::sense::{Field, Sense};

/// LONGLBA, byte 4 of the mode parameter header(10).
const LONGLBA: u8 = 0x01;
/// SPF, beside PAGE CODE: the page has the sub_page format.
const SPF: u8 = 0x40;
/// PAGE CODE: bits 5 to 0 of a page's first byte.
const PAGE_CODE: u8 = 0x3f;

/// The values that a MODE SELECT asks for, which is what they are where it says nothing of them.
///
/// `list` is the data-out, at most PARAMETER LIST LENGTH of it.
///
/// # Errors
/// INVALID FIELD IN CDB, PARAMETER LIST LENGTH ERROR or INVALID FIELD IN PARAMETER LIST; the last points at what is wrong.
pub fn select(
    asked: &ModeSelect,
    list: &[u8],
    state: &ModeState,
    geometry: &Geometry,
) -> Result<Values, Sense> {
    if asked.parameter_list_length == 0 {
        return Ok(state.current);
    }
    if !asked.page_format {
        return Err(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4)));
    }
    if list.len() < usize::from(asked.parameter_list_length) {
        return Err(Sense::parameter_list_length_error());
    }
    let parts = Parts::split(asked.header, list).ok_or(Sense::parameter_list_length_error())?;
    if parts.medium_type.1 != 0 {
        return Err(invalid(parts.medium_type.0));
    }
    parts.check_block_descriptor(geometry)?;
    let unit = Unit::current(state, geometry);
    let mut values = state.current;
    for part in &parts.pages {
        let page = part.find()?;
        part.check(page, &unit)?;
        (page.take)(&mut values, part.content);
    }
    Ok(values)
}

fn invalid(at: usize) -> Sense {
    Sense::invalid_field_in_parameter_list(Field::parameter(pointer(at)))
}

fn pointer(at: usize) -> u16 {
    u16::try_from(at).expect("a parameter list has 65,535 bytes at most")
}

/// A parameter list in pieces, each with the byte of the list that it begins at.
struct Parts<'a> {
    medium_type: (usize, u8),
    block_descriptor: (usize, &'a [u8]),
    pages: Vec<PagePart<'a>>,
}

/// A page of a parameter list.
struct PagePart<'a> {
    at: usize,
    /// PS, SPF and PAGE CODE.
    first: u8,
    /// What follows PAGE LENGTH.
    content: &'a [u8],
}

impl<'a> Parts<'a> {
    /// `None` if something is cut short, or there is a block descriptor of a length that none has.
    fn split(header: ModeHeader, list: &'a [u8]) -> Option<Parts<'a>> {
        let (length, medium_type, block_descriptor, long) = match header {
            ModeHeader::Six => {
                let &[_, medium_type, _, length] = list.first_chunk::<4>()?;
                (4, (1, medium_type), usize::from(length), false)
            }
            ModeHeader::Ten => {
                let &[_, _, medium_type, _, long, _, high, low] = list.first_chunk::<8>()?;
                let length = usize::from(u16::from_be_bytes([high, low]));
                (8, (2, medium_type), length, long & LONGLBA != 0)
            }
        };
        if block_descriptor != 0 && block_descriptor != if long { 16 } else { 8 } {
            return None;
        }
        let pages_at = length + block_descriptor;
        Some(Parts {
            medium_type,
            block_descriptor: (length, list.get(length..pages_at)?),
            pages: PagePart::split(pages_at, list.get(pages_at..)?)?,
        })
    }

    /// The size of the unit is not changed so: the fields hold what it is, or for the number of blocks what leaves it as
    /// it is (SBC-3, mode parameter block descriptors).
    fn check_block_descriptor(&self, geometry: &Geometry) -> Result<(), Sense> {
        let (at, descriptor) = self.block_descriptor;
        let (blocks_length, all_ones, block_length_at) = match descriptor.len() {
            0 => return Ok(()),
            8 => (4, u64::from(u32::MAX), 5),
            _ => (8, u64::MAX, 12),
        };
        let blocks = big_endian(&descriptor[..blocks_length]);
        if blocks != 0 && blocks != all_ones && blocks != geometry.blocks().0 {
            return Err(invalid(at));
        }
        if big_endian(&descriptor[block_length_at..]) != u64::from(geometry.block_size()) {
            return Err(invalid(at + block_length_at));
        }
        Ok(())
    }
}

impl<'a> PagePart<'a> {
    /// `None` if a page is cut short.
    fn split(mut at: usize, mut list: &'a [u8]) -> Option<Vec<PagePart<'a>>> {
        let mut pages = Vec::new();
        while let Some(&first) = list.first() {
            let (header, length) = if first & SPF == 0 {
                (2, usize::from(*list.get(1)?))
            } else {
                let length = u16::from_be_bytes([*list.get(2)?, *list.get(3)?]);
                (4, usize::from(length))
            };
            let content = list.get(header..header + length)?;
            pages.push(PagePart { at, first, content });
            at += header + length;
            list = &list[header + length..];
        }
        Some(pages)
    }

    /// The page that it is, of its length.
    fn find(&self) -> Result<&'static Page, Sense> {
        if self.first & PS != 0 {
            return Err(invalid(self.at));
        }
        let code = self.first & PAGE_CODE;
        let page = PAGES.iter().find(|page| page.code == code);
        let page = page.ok_or(invalid(self.at))?;
        if self.first & SPF != 0 {
            // SUBPAGE CODE: none can be changed.
            return Err(invalid(self.at + 1));
        }
        Ok(page)
    }

    /// What can't be changed has to be what it is.
    fn check(&self, page: &Page, unit: &Unit<'_>) -> Result<(), Sense> {
        let current = (page.content)(unit);
        if self.content.len() != current.len() {
            return Err(invalid(self.at + 1));
        }
        for (byte, (asked, current)) in self.content.iter().zip(&current).enumerate() {
            let changeable = match page.changeable {
                Some((changeable, bits)) if changeable == byte => bits,
                _ => 0,
            };
            if let Some(bit) = ((asked ^ current) & !changeable).checked_ilog2() {
                let bit = u8::try_from(bit).expect("a byte has eight");
                let at = pointer(self.at + 2 + byte);
                return Err(Sense::invalid_field_in_parameter_list(
                    Field::parameter_bit(at, bit),
                ));
            }
        }
        Ok(())
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATE: ModeState = ModeState {
        current: Values {
            write_cache_enabled: true,
            software_write_protect: false,
        },
        default: Values {
            write_cache_enabled: true,
            software_write_protect: false,
        },
        saved: Values {
            write_cache_enabled: true,
            software_write_protect: false,
        },
        read_only: false,
        task_aborted_status: true,
        soft_threshold: None,
    };
    const HEADER_6: [u8; 4] = [0; 4];
    const HEADER_10: [u8; 8] = [0; 8];
    /// WCE=0.
    const THROUGH: [u8; 20] = [
        0x08, 0x12, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    /// SWP=1: GLTSD, unrestricted reordering, SWP, TAS, BUSY TIMEOUT PERIOD FFFFh.
    const PROTECTED: [u8; 12] = [0x0a, 0x0a, 0x02, 0x10, 0x08, 0x40, 0, 0, 0xff, 0xff, 0, 0];

    /// 2^20 blocks of 512 bytes.
    fn geometry() -> Geometry {
        Geometry::new(512, 0x10_0000, 0).unwrap()
    }

    fn asked(header: ModeHeader, length: usize) -> ModeSelect {
        ModeSelect {
            header,
            page_format: true,
            save: false,
            parameter_list_length: u16::try_from(length).unwrap(),
        }
    }

    fn six(parts: &[&[u8]]) -> Result<Values, Sense> {
        let list = parts.concat();
        select(
            &asked(ModeHeader::Six, list.len()),
            &list,
            &STATE,
            &geometry(),
        )
    }

    fn ten(parts: &[&[u8]]) -> Result<Values, Sense> {
        let list = parts.concat();
        select(
            &asked(ModeHeader::Ten, list.len()),
            &list,
            &STATE,
            &geometry(),
        )
    }

    fn values(write_cache_enabled: bool, software_write_protect: bool) -> Result<Values, Sense> {
        Ok(Values {
            write_cache_enabled,
            software_write_protect,
        })
    }

    fn at(byte: u16) -> Result<Values, Sense> {
        Err(Sense::invalid_field_in_parameter_list(Field::parameter(
            byte,
        )))
    }

    fn at_bit(byte: u16, bit: u8) -> Result<Values, Sense> {
        Err(Sense::invalid_field_in_parameter_list(
            Field::parameter_bit(byte, bit),
        ))
    }

    const LENGTH: Result<Values, Sense> = Err(Sense::parameter_list_length_error());

    #[test]
    fn wce_and_swp_are_what_the_pages_say() {
        assert_eq!(six(&[&HEADER_6, &THROUGH]), values(false, false));
        assert_eq!(six(&[&HEADER_6, &PROTECTED]), values(true, true));
        assert_eq!(
            ten(&[&HEADER_10, &THROUGH, &PROTECTED]),
            values(false, true)
        );
        assert_eq!(
            ten(&[&HEADER_10, &PROTECTED, &THROUGH]),
            values(false, true)
        );
    }

    #[test]
    fn the_last_of_two_pages_of_one_code_counts() {
        let mut cached = THROUGH;
        cached[2] = 0x04; // WCE
        assert_eq!(six(&[&HEADER_6, &THROUGH, &cached]), values(true, false));
        assert_eq!(six(&[&HEADER_6, &cached, &THROUGH]), values(false, false));
    }

    #[test]
    fn pages_that_change_nothing_are_taken() {
        let recovery = [0x01, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let exceptions = [0x1c, 0x0a, 0x08, 0x00, 0, 0, 0, 0, 0, 0, 0, 0]; // DEXCPT
        assert_eq!(
            six(&[&HEADER_6, &recovery, &exceptions]),
            values(true, false)
        );
        assert_eq!(six(&[&HEADER_6]), values(true, false), "no page at all");
    }

    #[test]
    fn no_parameter_list_changes_nothing_whatever_pf_says() {
        let nothing = ModeSelect {
            page_format: false,
            ..asked(ModeHeader::Six, 0)
        };
        assert_eq!(
            select(&nothing, &[], &STATE, &geometry()),
            values(true, false)
        );
    }

    #[test]
    fn a_list_without_page_format_is_refused() {
        let vendor = ModeSelect {
            page_format: false,
            ..asked(ModeHeader::Six, 4)
        };
        assert_eq!(
            select(&vendor, &HEADER_6, &STATE, &geometry()),
            Err(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4)))
        );
    }

    #[test]
    fn whatever_is_cut_short_is_a_length_error() {
        for length in 1..4 {
            assert_eq!(six(&[&HEADER_6[..length]]), LENGTH, "header of 6");
        }
        for length in 1..8 {
            assert_eq!(ten(&[&HEADER_10[..length]]), LENGTH, "header of 10");
        }
        for length in 1..20 {
            assert_eq!(six(&[&HEADER_6, &THROUGH[..length]]), LENGTH, "page");
        }
        let short = select(&asked(ModeHeader::Six, 24), &[0; 23], &STATE, &geometry());
        assert_eq!(short, LENGTH, "less data than the CDB says");
        for length in [1, 7, 9, 16] {
            let header = [0, 0, 0, length];
            assert_eq!(six(&[&header, &[0; 32]]), LENGTH, "descriptor of {length}");
        }
        for (long_lba, length) in [(0, 16), (1, 8)] {
            let header = [0, 0, 0, 0, long_lba, 0, 0, length];
            assert_eq!(ten(&[&header, &[0; 16]]), LENGTH, "descriptor of {length}");
        }
        assert_eq!(six(&[&[0, 0, 0, 8], &[0; 7]]), LENGTH, "descriptor");
        let subpage = [0x4a, 0x01, 0x00, 0x1c];
        assert_eq!(six(&[&HEADER_6, &subpage, &[0; 27]]), LENGTH, "subpage");
        for length in 1..4 {
            assert_eq!(six(&[&HEADER_6, &subpage[..length]]), LENGTH, "its header");
        }
    }

    #[test]
    fn a_length_goes_before_what_is_wrong_with_the_content() {
        let header = [0, 0x01, 0, 0];
        assert_eq!(six(&[&header, &THROUGH[..19]]), LENGTH);
    }

    #[test]
    fn mode_data_length_and_device_specific_parameter_are_not_looked_at() {
        assert_eq!(six(&[&[0xff, 0, 0x90, 0], &THROUGH]), values(false, false));
        let header = [0xff, 0xff, 0, 0x90, 0, 0, 0, 0];
        assert_eq!(ten(&[&header, &THROUGH]), values(false, false));
    }

    #[test]
    fn a_medium_type_is_refused() {
        assert_eq!(six(&[&[0, 0x01, 0, 0], &THROUGH]), at(1));
        assert_eq!(ten(&[&[0, 0, 0x01, 0, 0, 0, 0, 0], &THROUGH]), at(2));
    }

    #[test]
    fn a_block_descriptor_has_to_say_how_it_is() {
        let short = |blocks: u32, block_length: u32| {
            let descriptor = [blocks.to_be_bytes(), block_length.to_be_bytes()].concat();
            six(&[&[0, 0, 0, 8], &descriptor, &THROUGH])
        };
        for blocks in [0, 0x10_0000, u32::MAX] {
            assert_eq!(short(blocks, 512), values(false, false));
        }
        assert_eq!(short(0x0f_ffff, 512), at(4));
        assert_eq!(short(0, 4096), at(9));
        assert_eq!(short(0, 0), at(9));
        let long = |blocks: u64, block_length: u32| {
            let header = [0, 0, 0, 0, 0x01, 0, 0, 16];
            let block_length = block_length.to_be_bytes();
            ten(&[
                &header,
                &blocks.to_be_bytes(),
                &[0; 4],
                &block_length,
                &THROUGH,
            ])
        };
        for blocks in [0, 0x10_0000, u64::MAX] {
            assert_eq!(long(blocks, 512), values(false, false));
        }
        assert_eq!(long(u64::from(u32::MAX), 512), at(8));
        assert_eq!(long(0, 1024), at(20));
    }

    #[test]
    fn what_is_no_page_of_ours_is_pointed_at() {
        let mut page = THROUGH;
        page[0] = 0x88; // PS
        assert_eq!(six(&[&HEADER_6, &page]), at(4));
        page[0] = 0x07; // Verify Error Recovery
        assert_eq!(six(&[&HEADER_6, &page]), at(4));
        assert_eq!(six(&[&HEADER_6, &[0x3f, 0x00]]), at(4), "all pages");
        let extension = [&[0x4a, 0x01, 0x00, 0x1c][..], &[0; 28]].concat();
        assert_eq!(six(&[&HEADER_6, &extension]), at(5), "SUBPAGE CODE");
        let mut short = THROUGH;
        short[1] = 0x0a; // as long as it was in SBC
        assert_eq!(six(&[&HEADER_6, &short[..12]]), at(5));
        let second = [&THROUGH[..], &[0x07, 0x00]].concat();
        assert_eq!(six(&[&HEADER_6, &second]), at(24));
    }

    #[test]
    fn a_bit_that_cannot_be_changed_is_pointed_at_by_the_first_of_the_byte() {
        let mut page = THROUGH;
        page[2] = 0x01 | 0x10; // RCD, DISC: not changeable
        page[3] = 0xff;
        assert_eq!(six(&[&HEADER_6, &page]), at_bit(6, 4));
        let mut page = PROTECTED;
        page[5] = 0x00; // TAS=0
        assert_eq!(six(&[&HEADER_6, &page]), at_bit(9, 6));
        let mut page = PROTECTED;
        page[2] = 0x06; // D_SENSE=1
        assert_eq!(ten(&[&HEADER_10, &page]), at_bit(10, 2));
    }

    #[test]
    fn nothing_counts_of_a_list_of_which_something_is_wrong() {
        let second = [0x07, 0x00];
        assert_eq!(six(&[&HEADER_6, &THROUGH, &second]), at(24));
    }

    proptest! {
        #[test]
        fn no_parameter_list_makes_it_panic(
            is_ten: bool, list in prop::collection::vec(any::<u8>(), 0..80), short in 0..3_usize,
        ) {
            let header = if is_ten { ModeHeader::Ten } else { ModeHeader::Six };
            let _ = select(&asked(header, list.len() + short), &list, &STATE, &geometry());
        }

        #[test]
        fn what_mode_sense_tells_can_be_sent_back(
            is_ten: bool, wce: bool, swp: bool, pages in prop::collection::vec(0..PAGES.len(), 0..6),
        ) {
            let current = Values { write_cache_enabled: wce, software_write_protect: swp };
            let state = ModeState { current, ..STATE };
            let geometry = geometry();
            let unit = Unit::current(&state, &geometry);
            let mut list = if is_ten { HEADER_10.to_vec() } else { HEADER_6.to_vec() };
            for index in pages {
                let content = (PAGES[index].content)(&unit);
                list.push(PAGES[index].code);
                list.push(u8::try_from(content.len()).unwrap());
                list.extend(content);
            }
            let header = if is_ten { ModeHeader::Ten } else { ModeHeader::Six };
            prop_assert_eq!(select(&asked(header, list.len()), &list, &state, &geometry), Ok(current));
        }

        #[test]
        fn one_bit_more_or_less_is_taken_or_pointed_at(byte in 2..12_usize, bit in 0..8_u8) {
            let mut page = PROTECTED;
            page[byte] ^= 1 << bit;
            let expected = match (byte, bit) {
                (4, 3) => values(true, false),
                _ => at_bit(u16::try_from(4 + byte).unwrap(), bit),
            };
            prop_assert_eq!(six(&[&HEADER_6, &page]), expected);
        }
    }
}
