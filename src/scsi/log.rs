//! Log pages, as LOG SENSE tells them: how much space there is for the blocks of a thin provisioned unit.
//!
//! The parameters are lists of numbers and not counters: PC, which asks for one kind of counter or another, makes no
//! difference (SPC-4, LOG SENSE).

use zerocopy::big_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::cdb::LogSense;
use super::sense::{Field, Sense};

/// A log page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Supported Log Pages.
    Supported,
    /// Logical Block Provisioning (SBC-3).
    Provisioning,
}

/// The log pages and their codes, ascending.
const PAGES: [(u8, Page); 2] = [(0x00, Page::Supported), (0x0c, Page::Provisioning)];

/// LBA mapping resources (SBC-3, Logical Block Provisioning log page), in threshold sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// What is left, for this unit and others.
    pub available: u32,
    /// What this unit takes up.
    pub used: u32,
}

/// Which page is asked for.
///
/// # Errors
/// INVALID FIELD IN CDB, pointing at PAGE CODE, SUBPAGE CODE or PARAMETER POINTER, if there is none from there on.
pub fn find(asked: &LogSense) -> Result<Page, Sense> {
    let refused = |byte| Err(Sense::invalid_field_in_cdb(Field::cdb(byte)));
    let Some((_, page)) = PAGES.into_iter().find(|(code, _)| *code == asked.page) else {
        return refused(2);
    };
    let last_parameter = match page {
        Page::Supported => 0,
        Page::Provisioning => USED,
    };
    if asked.subpage != 0 {
        refused(3)
    } else if asked.parameter_pointer > last_parameter {
        refused(5)
    } else {
        Ok(page)
    }
}

/// Log page header (SPC-4).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    /// DS in bit 7, PAGE CODE in bits 5 to 0.
    page: u8,
    subpage: u8,
    /// Counts all that follows it.
    length: U16,
}

/// Resource count log parameter (SBC-3).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct ResourceCount {
    code: U16,
    /// FORMAT AND LINKING 11b: a list in binary.
    control: u8,
    length: u8,
    count: U32,
    /// 1h: of this unit; 2h: shared with others.
    scope: u8,
    reserved: [u8; 3],
}

/// PARAMETER CODE of the Available LBA Mapping Resource Count.
const AVAILABLE: u16 = 0x0001;
/// PARAMETER CODE of the Used LBA Mapping Resource Count.
const USED: u16 = 0x0002;

/// The Supported Log Pages log page.
pub fn supported_pages() -> Vec<u8> {
    let codes = PAGES.map(|(code, _)| code);
    page(0x00, &codes)
}

/// The Logical Block Provisioning log page, from the parameter on that is asked for. It is not saved: DS=1.
pub fn provisioning(asked: &LogSense, resources: Resources) -> Vec<u8> {
    const DS: u8 = 0x80;
    let parameters = [
        (AVAILABLE, resources.available, 0x02),
        (USED, resources.used, 0x01),
    ];
    let parameters: Vec<u8> = parameters
        .into_iter()
        .filter(|(code, ..)| *code >= asked.parameter_pointer)
        .flat_map(|(code, count, scope)| {
            let parameter = ResourceCount {
                code: code.into(),
                control: 0x03,
                length: 8,
                count: count.into(),
                scope,
                reserved: [0; 3],
            };
            parameter.as_bytes().to_vec()
        })
        .collect();
    page(DS | 0x0c, &parameters)
}

fn page(page: u8, content: &[u8]) -> Vec<u8> {
    let header = Header {
        page,
        subpage: 0,
        length: u16::try_from(content.len())
            .expect("24 bytes at most")
            .into(),
    };
    [header.as_bytes(), content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(page: u8, subpage: u8, parameter_pointer: u16) -> LogSense {
        LogSense {
            page,
            subpage,
            parameter_pointer,
            allocation_length: 255,
        }
    }

    #[test]
    fn supported_pages_are_those_that_are_found() {
        assert_eq!(supported_pages(), [0x00, 0x00, 0x00, 0x02, 0x00, 0x0c]);
        for code in 0..=0x3f {
            let refused = Err(Sense::invalid_field_in_cdb(Field::cdb(2)));
            let expected = match code {
                0x00 => Ok(Page::Supported),
                0x0c => Ok(Page::Provisioning),
                _ => refused,
            };
            assert_eq!(find(&asked(code, 0, 0)), expected);
        }
    }

    #[test]
    fn a_page_that_is_not_there_is_refused_before_its_subpage_and_its_parameter() {
        let refused = |byte| Err(Sense::invalid_field_in_cdb(Field::cdb(byte)));
        assert_eq!(find(&asked(0x0d, 1, 3)), refused(2));
        assert_eq!(find(&asked(0x0c, 1, 3)), refused(3));
        assert_eq!(find(&asked(0x00, 0xff, 0)), refused(3));
        assert_eq!(find(&asked(0x0c, 0, 3)), refused(5));
        assert_eq!(find(&asked(0x00, 0, 1)), refused(5));
        assert_eq!(find(&asked(0x0c, 0, 2)), Ok(Page::Provisioning));
    }

    #[test]
    fn provisioning_tells_what_is_available_to_all_and_used_by_the_unit() {
        let resources = Resources {
            available: 0x0102_0304,
            used: 0x0506_0708,
        };
        let available = [
            0x00, 0x01, // PARAMETER CODE: available
            0x03, // DU=0, TSD=0, FORMAT AND LINKING=11b
            0x08, // PARAMETER LENGTH
            0x01, 0x02, 0x03, 0x04, // RESOURCE COUNT
            0x02, // SCOPE: not of this unit alone
            0x00, 0x00, 0x00,
        ];
        let used = [
            0x00, 0x02, // PARAMETER CODE: used
            0x03, 0x08, // as above
            0x05, 0x06, 0x07, 0x08, // RESOURCE COUNT
            0x01, // SCOPE: of this unit
            0x00, 0x00, 0x00,
        ];
        let whole = [&[0x8c, 0x00, 0x00, 0x18], available.as_slice(), &used].concat();
        let from = |parameter| provisioning(&asked(0x0c, 0, parameter), resources);
        assert_eq!(from(0), whole);
        assert_eq!(from(1), whole);
        let last = [&[0x8c, 0x00, 0x00, 0x0c], used.as_slice()].concat();
        assert_eq!(from(2), last);
    }
}
