//! Logical block provisioning (SBC-3): what a unit does about blocks that nobody needs, how it tells of that, and the
//! parameter lists of UNMAP and GET LBA STATUS.
//!
//! Everything that tells of it reads [`Provisioning`], so no two answers disagree: hosts that are promised UNMAP and
//! refused it hang, or never ask again.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::capacity::Geometry;
use super::features::{Feature, Features};
use super::sense::{Field, Sense};
use super::{Blocks, Lba, flag};

/// The most blocks that one UNMAP gives back (SBC-3, Block Limits VPD page, MAXIMUM UNMAP LBA COUNT).
pub const MAXIMUM_UNMAP: Blocks = Blocks(1 << 20);

/// The most descriptors of one UNMAP (MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT).
pub const MAXIMUM_UNMAP_DESCRIPTORS: u32 = 256;

/// The most blocks of one WRITE SAME (MAXIMUM WRITE SAME LENGTH).
pub const MAXIMUM_WRITE_SAME: Blocks = Blocks(0x8000);

/// The most descriptors of one answer to GET LBA STATUS.
pub const MAXIMUM_STATUS_DESCRIPTORS: usize = 256;

/// What a unit does about blocks that nobody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provisioning {
    /// Nothing: it is fully provisioned.
    Full,
    /// It gives them back: it is thin provisioned.
    Thin {
        /// They read as zeros then. Otherwise as anything, and WRITE SAME can't be done by giving them back.
        zeroes: bool,
        /// In which multiples they are best given back, in bytes.
        granularity: u32,
        /// Where the first of these multiples begins, in bytes.
        alignment: u32,
        /// Whether it can be told how much space there is.
        figures: bool,
        /// With how many bytes left initiators are warned; `None` if never.
        soft_threshold: Option<u64>,
    },
}

impl Provisioning {
    /// Whether unneeded blocks are given back: LBPME and LBPU.
    pub const fn is_thin(&self) -> bool {
        matches!(self, Provisioning::Thin { .. })
    }

    /// Whether blocks that were given back read as zeros: LBPRZ, and LBPWS and LBPWS10, which need it.
    pub const fn zeroes(&self) -> bool {
        matches!(self, Provisioning::Thin { zeroes: true, .. })
    }

    /// The features of a unit like this.
    pub const fn features(&self) -> Features {
        Features::NONE
            .with(Feature::Unmap, self.is_thin())
            .with(Feature::UnmapByWriteSame, self.zeroes())
            .with(Feature::SpaceFigures, self.has_figures())
    }

    /// Whether it can be told how much space there is: the Logical Block Provisioning log page, which counts in threshold
    /// sets.
    const fn has_figures(&self) -> bool {
        matches!(self, Provisioning::Thin { figures: true, .. })
    }

    /// With how many threshold sets left initiators are warned; `None` if never.
    pub fn soft_threshold_sets(&self, geometry: &Geometry) -> Option<u32> {
        match *self {
            Provisioning::Thin { soft_threshold, .. } => {
                soft_threshold.map(|bytes| threshold_sets(bytes, geometry))
            }
            Provisioning::Full => None,
        }
    }

    /// The limits of UNMAP in the Block Limits VPD page.
    pub(super) fn unmap_limits(&self, geometry: &Geometry) -> UnmapLimits {
        const UGAVALID: u32 = 1 << 31;
        match *self {
            Provisioning::Full => UnmapLimits::default(),
            Provisioning::Thin {
                granularity,
                alignment,
                ..
            } => UnmapLimits {
                maximum_lba_count: u32::try_from(MAXIMUM_UNMAP.0)
                    .expect("it has 21 bits")
                    .into(),
                maximum_block_descriptor_count: MAXIMUM_UNMAP_DESCRIPTORS.into(),
                optimal_granularity: geometry.blocks_in(granularity).into(),
                granularity_alignment: (UGAVALID | (alignment / geometry.block_size())).into(),
            },
        }
    }

    /// The Logical Block Provisioning VPD page, from byte 4: THRESHOLD EXPONENT; LBPU, LBPWS, LBPWS10, LBPRZ=001b;
    /// PROVISIONING TYPE.
    pub(super) fn vital_product_data(&self, geometry: &Geometry) -> [u8; 4] {
        const LBPU: u8 = 0x80;
        const LBPWS: u8 = 0x40;
        const LBPWS10: u8 = 0x20;
        const LBPRZ: u8 = 0x04;
        const THIN: u8 = 0x02;
        let commands = flag(self.is_thin(), LBPU) | flag(self.zeroes(), LBPWS | LBPWS10 | LBPRZ);
        let exponent = match self.has_figures() {
            true => threshold_exponent(geometry),
            false => 0x00,
        };
        [exponent, commands, flag(self.is_thin(), THIN), 0x00]
    }

    /// What READ CAPACITY(16) tells of it: LBPME in bit 15, LBPRZ in bit 14.
    pub(super) fn read_capacity(&self) -> u16 {
        const LBPME: u8 = 0x80;
        const LBPRZ: u8 = 0x40;
        u16::from(flag(self.is_thin(), LBPME) | flag(self.zeroes(), LBPRZ)) << 8
    }
}

/// A threshold set, in bytes: in such portions space is counted.
const THRESHOLD_SET: u64 = 1 << 20;

/// THRESHOLD EXPONENT: the logarithm of the blocks in a threshold set. They are more if there would be too many sets for
/// 32 bits (SBC-3, Logical Block Provisioning VPD page).
fn threshold_exponent(geometry: &Geometry) -> u8 {
    let blocks_of_set = THRESHOLD_SET / u64::from(geometry.block_size());
    let sets_max = u64::from(u32::MAX);
    let enough = geometry.blocks().0.div_ceil(sets_max).next_power_of_two();
    let exponent = blocks_of_set.max(enough).trailing_zeros();
    u8::try_from(exponent).expect("there are less than 2^63 blocks")
}

/// So many bytes in threshold sets; FFFFFFFFh if they are more.
pub fn threshold_sets(bytes: u64, geometry: &Geometry) -> u32 {
    let sets = (bytes / u64::from(geometry.block_size())) >> threshold_exponent(geometry);
    u32::try_from(sets).unwrap_or(u32::MAX)
}

/// Bytes 20 to 35 of the Block Limits VPD page.
#[derive(Default, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct UnmapLimits {
    maximum_lba_count: U32,
    maximum_block_descriptor_count: U32,
    optimal_granularity: U32,
    /// UGAVALID in bit 31.
    granularity_alignment: U32,
}

/// UNMAP parameter list, before its block descriptors.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct UnmapHeader {
    _data_length: U16,
    block_descriptor_data_length: U16,
    _reserved: [u8; 4],
}

/// UNMAP block descriptor.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct UnmapDescriptor {
    lba: U64,
    count: U32,
    _reserved: [u8; 4],
}

/// Blocks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    /// The first.
    pub lba: Lba,
    /// How many.
    pub blocks: Blocks,
}

/// Reads the parameter list of UNMAP, of which `length` bytes were announced: which blocks nobody needs, in ranges of
/// at least one. What is behind the last whole descriptor is not looked at.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR if the list is shorter than its header, or than announced. INVALID FIELD IN PARAMETER
/// LIST if it holds too many descriptors, pointing at their length, or too many blocks, pointing at the count that
/// makes them too many. LOGICAL BLOCK ADDRESS OUT OF RANGE.
pub fn parse_unmap(
    list: &[u8],
    length: u32,
    geometry: &Geometry,
) -> Result<Vec<BlockRange>, Sense> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length == 0 {
        return Ok(Vec::new());
    }
    let list = list.get(..length);
    let (header, descriptors) = list
        .and_then(|list| UnmapHeader::ref_from_prefix(list).ok())
        .ok_or(Sense::parameter_list_length_error())?;
    let meant = usize::from(header.block_descriptor_data_length.get()).min(descriptors.len());
    let count = meant / size_of::<UnmapDescriptor>();
    if count > MAXIMUM_UNMAP_DESCRIPTORS as usize {
        return Err(Sense::invalid_field_in_parameter_list(Field::parameter(2)));
    }
    let (descriptors, _) = <[UnmapDescriptor]>::ref_from_prefix_with_elems(descriptors, count)
        .map_err(|_| Sense::parameter_list_length_error())?;
    let ranges: Vec<BlockRange> = descriptors
        .iter()
        .map(|descriptor| BlockRange {
            lba: Lba(descriptor.lba.get()),
            blocks: Blocks(descriptor.count.get().into()),
        })
        .collect();
    for range in &ranges {
        // Of no blocks, any place will do, the end of the unit included.
        let last = Lba(range
            .lba
            .0
            .saturating_sub(u64::from(range.blocks == Blocks(0))));
        geometry.check_range(last, range.blocks)?;
    }
    check_sum(&ranges)?;
    Ok(ranges
        .into_iter()
        .filter(|range| range.blocks > Blocks(0))
        .collect())
}

fn check_sum(ranges: &[BlockRange]) -> Result<(), Sense> {
    let mut sum = 0;
    for (range, count) in ranges
        .iter()
        .zip((16..).step_by(size_of::<UnmapDescriptor>()))
    {
        sum += range.blocks.0; // 256 numbers of 32 bits
        if sum > MAXIMUM_UNMAP.0 {
            return Err(Sense::invalid_field_in_parameter_list(Field::parameter(
                count,
            )));
        }
    }
    Ok(())
}

/// Blocks in a row, and whether they take up space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbaStatus {
    /// Which blocks.
    pub range: BlockRange,
    /// Mapped, or else deallocated. Anchored is none.
    pub is_mapped: bool,
}

/// GET LBA STATUS parameter data, before its descriptors.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct LbaStatusHeader {
    /// Counts all that follows it.
    parameter_data_length: U32,
    reserved: [u8; 4],
}

/// LBA status descriptor.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct LbaStatusDescriptor {
    lba: U64,
    count: U32,
    /// PROVISIONING STATUS in bits 3 to 0: 0h mapped, 1h deallocated.
    status: u8,
    reserved: [u8; 3],
}

/// How many descriptors of GET LBA STATUS an initiator has room for: at least the one that it must be told.
pub fn status_descriptors(allocation_length: u32) -> usize {
    let room = usize::try_from(allocation_length).unwrap_or(usize::MAX);
    let descriptors = room.saturating_sub(size_of::<LbaStatusHeader>());
    (descriptors / size_of::<LbaStatusDescriptor>()).clamp(1, MAXIMUM_STATUS_DESCRIPTORS)
}

/// The answer to GET LBA STATUS. It ends with the first descriptor whose blocks are more than its 32 bits can count: the
/// initiator asks on where it ends.
pub fn lba_status(ranges: &[LbaStatus]) -> Vec<u8> {
    let countable = ranges
        .iter()
        .take_while(|status| u32::try_from(status.range.blocks.0).is_ok())
        .count();
    let descriptors: Vec<u8> = ranges
        .iter()
        .take(countable + 1)
        .flat_map(|status| {
            LbaStatusDescriptor {
                lba: status.range.lba.0.into(),
                count: u32::try_from(status.range.blocks.0)
                    .unwrap_or(u32::MAX)
                    .into(),
                status: flag(!status.is_mapped, 0x01),
                reserved: [0; 3],
            }
            .as_bytes()
            .to_vec()
        })
        .collect();
    let reserved = 4;
    let header = LbaStatusHeader {
        parameter_data_length: u32::try_from(reserved + descriptors.len())
            .unwrap_or(u32::MAX)
            .into(),
        reserved: [0; 4],
    };
    [header.as_bytes(), &descriptors].concat()
}

#[cfg(test)]
mod tests;
