//! Mode pages, as MODE SENSE tells them and MODE SELECT changes them ([`select`](fn@select)).
//!
//! All I_T nexuses share them. Two bits can be changed, which are the [`Values`]; all pages can be saved.

mod select;

use serde::{Deserialize, Serialize};
use zerocopy::big_endian::U16;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::capacity::Geometry;
use super::cdb::{BlockDescriptor, ModeHeader, ModeSense, PageControl};
use super::flag;
use super::sense::{Field, Format, Sense};
pub use select::select;

/// The mode parameters that MODE SELECT can change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// WCE: a write may be answered before it is durable.
    pub write_cache_enabled: bool,
    /// SWP: an initiator has write protected the unit, which WP tells, too.
    pub software_write_protect: bool,
}

/// What of the mode parameters is not the same for every unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeState {
    /// The values in force.
    pub current: Values,
    /// Those of a unit for which nobody has set any.
    pub default: Values,
    /// Those that a loss of power or a reset brings back.
    pub saved: Values,
    /// The unit is read-only, which WP tells.
    pub read_only: bool,
    /// TAS: a command that another I_T nexus has had aborted is answered with TASK ABORTED status.
    pub task_aborted_status: bool,
    /// With how many threshold sets of space left initiators are warned; `None` if never.
    pub soft_threshold: Option<u32>,
}

/// What the pages tell of.
struct Unit<'a> {
    values: Values,
    state: &'a ModeState,
    geometry: &'a Geometry,
}

impl<'a> Unit<'a> {
    fn current(state: &'a ModeState, geometry: &'a Geometry) -> Unit<'a> {
        Unit {
            values: state.current,
            state,
            geometry,
        }
    }
}

/// A mode page of page_0 format (SPC-4).
struct Page {
    /// PAGE CODE.
    code: u8,
    /// Makes what follows PAGE CODE and PAGE LENGTH.
    content: fn(&Unit<'_>) -> Vec<u8>,
    /// The byte of the content that can be changed, and its bits.
    changeable: Option<(usize, u8)>,
    /// Sets the values to what the content says.
    take: fn(&mut Values, &[u8]),
}

/// The mode pages, ascending by page code.
const PAGES: &[Page] = &[
    Page {
        code: 0x01,
        content: read_write_error_recovery,
        changeable: None,
        take: |_, _| {},
    },
    Page {
        code: 0x08,
        content: caching,
        changeable: Some((0, WCE)),
        take: |values, content| values.write_cache_enabled = content[0] & WCE != 0,
    },
    Page {
        code: 0x0a,
        content: control,
        changeable: Some((2, SWP)),
        take: |values, content| values.software_write_protect = content[2] & SWP != 0,
    },
    Page {
        code: 0x1c,
        content: informational_exceptions_control,
        changeable: None,
        take: |_, _| {},
    },
];
/// WCE: byte 2 of the Caching mode page, byte 0 of what follows PAGE LENGTH.
const WCE: u8 = 0x04;
/// SWP: byte 4 of the Control mode page, byte 2 of what follows PAGE LENGTH.
const SWP: u8 = 0x08;
/// PS, beside PAGE CODE: the page can be saved.
const PS: u8 = 0x80;
/// PAGE CODE for all pages.
const ALL_PAGES: u8 = 0x3f;
/// SUBPAGE CODE for all subpages: 00h, the pages themselves, and where initiators are warned, the Logical Block
/// Provisioning mode page.
const ALL_SUBPAGES: u8 = 0xff;
/// PAGE CODE and SUBPAGE CODE of the Logical Block Provisioning mode page.
const PROVISIONING: (u8, u8) = (0x1c, 0x02);

/// The answer to MODE SENSE(6) and MODE SENSE(10): header, block descriptor, pages.
///
/// # Errors
/// INVALID FIELD IN CDB, pointing at PAGE CODE or SUBPAGE CODE, if there is no such page.
pub fn sense(asked: &ModeSense, state: &ModeState, geometry: &Geometry) -> Result<Vec<u8>, Sense> {
    let unit = Unit {
        values: match asked.page_control {
            PageControl::Current | PageControl::Changeable => state.current,
            PageControl::Default => state.default,
            PageControl::Saved => state.saved,
        },
        state,
        geometry,
    };
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
    let rest = u8::try_from(block_descriptor + pages).expect("16 and 80 bytes at most");
    let protected = state.read_only || state.current.software_write_protect;
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
        .filter(|page| asked.page == ALL_PAGES || asked.page == page.code)
        .peekable();
    if pages.peek().is_none() {
        return Err(Sense::invalid_field_in_cdb(Field::cdb(2)));
    }
    let provisioning = || provisioning(unit, asked.page_control);
    let with_subpages = asked.subpage == ALL_SUBPAGES;
    if asked.subpage != 0x00 && !with_subpages {
        return provisioning()
            .filter(|_| (asked.page, asked.subpage) == PROVISIONING)
            .ok_or(Sense::invalid_field_in_cdb(Field::cdb(3)));
    }
    let mut bytes: Vec<u8> = pages
        .flat_map(|page| encode(page, unit, asked.page_control))
        .collect();
    if with_subpages && matches!(asked.page, ALL_PAGES | 0x1c) {
        bytes.extend(provisioning().unwrap_or_default());
    }
    Ok(bytes)
}

/// Whether the current value of WCE is in a MODE SENSE's answer that is cut to so many bytes.
pub fn tells_write_cache(asked: &ModeSense, length: u32) -> bool {
    let header = match asked.header {
        ModeHeader::Six => 4,
        ModeHeader::Ten => 8,
    };
    let block_descriptor = match asked.block_descriptor {
        BlockDescriptor::None => 0,
        BlockDescriptor::Short => 8,
        BlockDescriptor::Long => 16,
    };
    let pages_before = match asked.page {
        0x08 => 0,
        ALL_PAGES => 12,
        _ => return false,
    };
    asked.page_control == PageControl::Current
        && length >= header + block_descriptor + pages_before + 3
}

/// Page_0 mode page format (SPC-4): PS and PAGE CODE, PAGE LENGTH, mode parameters.
fn encode(page: &Page, unit: &Unit<'_>, page_control: PageControl) -> Vec<u8> {
    let mut content = (page.content)(unit);
    if page_control == PageControl::Changeable {
        content.fill(0);
        if let Some((byte, bits)) = page.changeable {
            content[byte] = bits;
        }
    }
    let length = u8::try_from(content.len()).expect("the longest page has 18 bytes");
    [&[PS | page.code, length], content.as_slice()].concat()
}

/// Read-Write Error Recovery (SBC-3), of 12 bytes: nothing is asked of the drive. LBPERE if initiators are warned of
/// little space.
fn read_write_error_recovery(unit: &Unit<'_>) -> Vec<u8> {
    let mut content = vec![0; 10];
    content[5] = flag(unit.state.soft_threshold.is_some(), 0x80); // byte 7 of the page: LBPERE
    content
}

/// Caching (SBC-3), of 20 bytes: WCE.
fn caching(unit: &Unit<'_>) -> Vec<u8> {
    let mut content = vec![0; 18];
    content[0] = flag(unit.values.write_cache_enabled, WCE);
    content
}

/// Control (SPC-4), of 12 bytes: a task set for all I_T nexuses, commands in any order.
fn control(unit: &Unit<'_>) -> Vec<u8> {
    const GLTSD: u8 = 0x02;
    const D_SENSE: u8 = 0x04;
    const UNRESTRICTED_REORDERING: u8 = 0x10;
    const TAS: u8 = 0x40;
    let descriptors = unit.geometry.sense_format() == Format::Descriptor;
    vec![
        GLTSD | flag(descriptors, D_SENSE),            // byte 2: TST=000b
        UNRESTRICTED_REORDERING,                       // 3: QERR=00b
        flag(unit.values.software_write_protect, SWP), // 4: UA_INTLCK_CTRL=00b
        flag(unit.state.task_aborted_status, TAS),     // 5
        0x00,                                          // 6, 7: obsolete
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

/// Logical Block Provisioning (SBC-3), of 24 bytes in sub_page format, if initiators are warned of little space: all of
/// them (SITUA=0). PS=0, and nothing can be changed.
fn provisioning(unit: &Unit<'_>, page_control: PageControl) -> Option<Vec<u8>> {
    const SPF: u8 = 0x40;
    const ENABLED: u8 = 0x80;
    const AVAILABLE: u8 = 0x01;
    let threshold = unit.state.soft_threshold?;
    let (code, subpage) = PROVISIONING;
    let mut page = vec![0; 24];
    page[..4].copy_from_slice(&[SPF | code, subpage, 0x00, 0x14]);
    if page_control != PageControl::Changeable {
        // Of what is available (resource 01h), a soft threshold (type 000b) while it decreases (arming 000b).
        page[16..18].copy_from_slice(&[ENABLED, AVAILABLE]);
        page[20..].copy_from_slice(&threshold.to_be_bytes());
    }
    Some(page)
}

#[cfg(test)]
mod tests;
