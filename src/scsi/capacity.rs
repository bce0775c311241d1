//! How large a logical unit is: its [`Geometry`], what fits into it, and the READ CAPACITY answers.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::atomic::{AtomicLimits, AtomicWrite};
use super::cdb::Transfer;
use super::features::{Feature, Features};
use super::provisioning::Provisioning;
use super::sense::{Format, Sense};
use super::{Blocks, Lba};

/// The most bytes that one command moves: MAXIMUM TRANSFER LENGTH, in bytes. Some initiators send 2,048 blocks of 4,096
/// bytes whatever the limit is, and the firmware of virtual machines reads 7 MiB at once. Nothing in the kernel asks for
/// less: it does not heed `hw_max_sectors` for us, and the data area of a backstore has 1 GiB unless somebody wants it
/// smaller (`tcmu-pr check` tells if it is too small).
const MAXIMUM_TRANSFER_BYTES: u32 = 8 << 20;

/// The size of a logical unit and of its blocks, and what its medium is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    block_size: u32,
    blocks: u64,
    physical_block_exponent: u8,
    lowest_aligned: u16,
    rotates: bool,
    write_protected: bool,
    atomic_write: Option<AtomicWrite>,
}

impl Geometry {
    /// A unit of `blocks` logical blocks of `block_size` bytes, 2^`physical_block_exponent` of which are one
    /// physical block.
    ///
    /// `None` unless a block is 512, 1,024, 2,048 or 4,096 bytes, there is at least one block, the exponent
    /// fits in its 4 bits and the unit's last byte is within the 2^63 bytes that a file can have.
    pub fn new(block_size: u32, blocks: u64, physical_block_exponent: u8) -> Option<Geometry> {
        let bytes = blocks.checked_mul(u64::from(block_size))?;
        let is_good = block_size.is_power_of_two()
            && (512..=4096).contains(&block_size)
            && blocks > 0
            && physical_block_exponent < 16
            && i64::try_from(bytes).is_ok();
        is_good.then_some(Geometry {
            block_size,
            blocks,
            physical_block_exponent,
            lowest_aligned: 0,
            rotates: false,
            write_protected: false,
            atomic_write: None,
        })
    }

    /// The same with another number of blocks; `None` as with [`Geometry::new`].
    pub fn with_blocks(self, blocks: u64) -> Option<Geometry> {
        let resized = Geometry::new(self.block_size, blocks, self.physical_block_exponent)?;
        let Geometry { blocks, .. } = resized;
        Some(Geometry { blocks, ..self })
    }

    /// The same with physical blocks of `size` bytes, the first of which begins at `lowest_aligned`; `None` unless the size
    /// is that of 2^0 to 2^15 logical blocks, and the address fits in its 14 bits.
    pub fn with_physical_blocks(self, size: u32, lowest_aligned: Lba) -> Option<Geometry> {
        let logical_blocks = size.checked_div(self.block_size)?;
        let exponent = u8::try_from(logical_blocks.checked_ilog2()?).ok()?;
        let lowest_aligned = u16::try_from(lowest_aligned.0).ok()?;
        let is_good =
            size == self.block_size << exponent && exponent < 16 && lowest_aligned < 1 << 14;
        is_good.then_some(Geometry {
            physical_block_exponent: exponent,
            lowest_aligned,
            ..self
        })
    }

    /// The same on a medium that rotates.
    pub fn rotating(self) -> Geometry {
        Geometry {
            rotates: true,
            ..self
        }
    }

    /// The same on a medium that nobody can write.
    pub fn write_protected(self) -> Geometry {
        Geometry {
            write_protected: true,
            ..self
        }
    }

    /// The same on a medium that can write `bytes` atomically, if a command of this unit can ask for that.
    pub fn writing_atomically(self, bytes: u32) -> Geometry {
        let whole_blocks = bytes % self.block_size == 0 && bytes <= MAXIMUM_TRANSFER_BYTES;
        let blocks = bytes / self.block_size;
        Geometry {
            atomic_write: AtomicWrite::new(blocks).filter(|_| whole_blocks),
            ..self
        }
    }

    /// The features of a unit like this, besides others that it has.
    pub const fn features(&self, others: Features) -> Features {
        others.with(Feature::AtomicWrites, self.atomic_write.is_some())
    }

    /// The limits of WRITE ATOMIC in the Block Limits VPD page.
    pub(super) fn atomic_limits(&self) -> AtomicLimits {
        self.atomic_write
            .map_or_else(AtomicLimits::default, AtomicWrite::limits)
    }

    /// Refuses a transfer that the medium cannot write atomically.
    ///
    /// # Errors
    /// INVALID FIELD IN CDB, pointing at LOGICAL BLOCK ADDRESS or TRANSFER LENGTH. INVALID COMMAND OPERATION CODE if it
    /// writes nothing atomically.
    pub fn check_atomic_write(&self, transfer: &Transfer) -> Result<(), Sense> {
        self.atomic_write
            .ok_or(Sense::invalid_command_operation_code())?
            .check(transfer)
    }

    /// Whether the medium rotates.
    pub const fn rotates(&self) -> bool {
        self.rotates
    }

    /// Whether nobody can write the medium.
    pub const fn is_write_protected(&self) -> bool {
        self.write_protected
    }

    /// Bytes in a physical block: as many logical ones are written at once.
    pub const fn physical_block_size(&self) -> u32 {
        self.block_size << self.physical_block_exponent
    }

    /// Bytes in a logical block.
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Logical blocks in the unit.
    pub const fn blocks(&self) -> Blocks {
        Blocks(self.blocks)
    }

    /// The last logical block.
    pub const fn last_lba(&self) -> Lba {
        Lba(self.blocks - 1)
    }

    /// The format of the unit's sense data: descriptor format where fixed format, whose INFORMATION has 32
    /// bits, could not tell every LBA.
    pub const fn sense_format(&self) -> Format {
        if self.last_lba().0 > 0xffff_ffff {
            Format::Descriptor
        } else {
            Format::Fixed
        }
    }

    /// The most blocks that one command may move (SBC-3, Block Limits VPD page, MAXIMUM TRANSFER LENGTH).
    pub const fn maximum_transfer(&self) -> Blocks {
        Blocks((MAXIMUM_TRANSFER_BYTES / self.block_size) as u64)
    }

    /// Refuses a transfer that is longer than MAXIMUM TRANSFER LENGTH.
    ///
    /// # Errors
    /// INVALID FIELD IN CDB, pointing at TRANSFER LENGTH.
    pub fn check_transfer_length(&self, transfer: &Transfer) -> Result<(), Sense> {
        match transfer.length_field {
            Some(field) if transfer.blocks > self.maximum_transfer() => {
                Err(Sense::invalid_field_in_cdb(field))
            }
            _ => Ok(()),
        }
    }

    /// Refuses blocks that are not all of the unit. Of no blocks, `lba` must be one of the unit all the same.
    ///
    /// # Errors
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub fn check_range(&self, lba: Lba, blocks: Blocks) -> Result<(), Sense> {
        match self.blocks.checked_sub(lba.0) {
            Some(left) if left > 0 && blocks.0 <= left => Ok(()),
            _ => Err(Sense::logical_block_address_out_of_range()),
        }
    }

    /// Where a block begins in the backing object, in bytes. The largest u64 if it is not of the unit.
    pub const fn byte_offset(&self, lba: Lba) -> u64 {
        lba.0.saturating_mul(self.block_size as u64)
    }

    /// The block that holds a byte of the backing object.
    pub const fn block_at(&self, byte: u64) -> Lba {
        Lba(byte / self.block_size as u64)
    }

    /// How many bytes are in so many blocks. The largest u64 if it has no room for more.
    pub const fn byte_length(&self, blocks: Blocks) -> u64 {
        blocks.0.saturating_mul(self.block_size as u64)
    }

    /// `bytes` in blocks, but at least 1.
    pub(super) fn blocks_in(&self, bytes: u32) -> u32 {
        (bytes / self.block_size).max(1)
    }
}

/// READ CAPACITY(10) parameter data (SBC-3).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct ReadCapacity10 {
    last_lba: U32,
    block_length: U32,
}

/// READ CAPACITY(16) parameter data (SBC-3).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct ReadCapacity16 {
    last_lba: U64,
    block_length: U32,
    /// P_TYPE, PROT_EN: no protection information.
    protection: u8,
    /// P_I_EXPONENT, then LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT in bits 3 to 0.
    exponents: u8,
    /// LBPME in bit 15, LBPRZ in bit 14, LOWEST ALIGNED LOGICAL BLOCK ADDRESS in the rest.
    provisioning: U16,
    reserved: [u8; 16],
}

/// The answer to READ CAPACITY(10), 8 bytes. A last LBA that does not fit is FFFFFFFFh, which sends the
/// initiator to READ CAPACITY(16).
pub fn read_capacity_10(geometry: &Geometry) -> Vec<u8> {
    let last_lba = u32::try_from(geometry.last_lba().0).unwrap_or(u32::MAX);
    let answer = ReadCapacity10 {
        last_lba: last_lba.into(),
        block_length: geometry.block_size.into(),
    };
    answer.as_bytes().to_vec()
}

/// The answer to READ CAPACITY(16), 32 bytes.
pub fn read_capacity_16(geometry: &Geometry, provisioning: &Provisioning) -> Vec<u8> {
    let answer = ReadCapacity16 {
        last_lba: geometry.last_lba().0.into(),
        block_length: geometry.block_size.into(),
        protection: 0,
        exponents: geometry.physical_block_exponent,
        provisioning: (provisioning.read_capacity() | geometry.lowest_aligned).into(),
        reserved: [0; 16],
    };
    answer.as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::sense::Field;

    fn unit(blocks: u64) -> Geometry {
        Geometry::new(512, blocks, 0).unwrap()
    }

    fn transfer(blocks: u64, length_field: Option<Field>) -> Transfer {
        Transfer {
            lba: Lba(0),
            blocks: Blocks(blocks),
            fua: false,
            dpo: false,
            length_field,
        }
    }

    #[test]
    fn a_geometry_is_one_that_hosts_can_use() {
        for block_size in [512, 1024, 2048, 4096] {
            assert!(Geometry::new(block_size, 1, 15).is_some());
        }
        for block_size in [0, 1, 256, 513, 520, 8192, u32::MAX] {
            assert_eq!(Geometry::new(block_size, 1, 0), None);
        }
        assert_eq!(Geometry::new(512, 0, 0), None);
        assert_eq!(Geometry::new(512, 1, 16), None);
        assert!(Geometry::new(512, (1 << 54) - 1, 0).is_some());
        assert_eq!(Geometry::new(512, 1 << 54, 0), None); // 2^63 bytes
        assert_eq!(Geometry::new(512, u64::MAX, 0), None);
    }

    #[test]
    fn a_range_ends_where_the_unit_does() {
        let unit = unit(100);
        let refused = Err(Sense::logical_block_address_out_of_range());
        assert_eq!(unit.check_range(Lba(0), Blocks(100)), Ok(()));
        assert_eq!(unit.check_range(Lba(99), Blocks(1)), Ok(()));
        assert_eq!(unit.check_range(Lba(0), Blocks(101)), refused);
        assert_eq!(unit.check_range(Lba(99), Blocks(2)), refused);
        assert_eq!(unit.check_range(Lba(100), Blocks(1)), refused);
    }

    #[test]
    fn no_blocks_are_within_the_unit_or_refused() {
        let unit = unit(100);
        let refused = Err(Sense::logical_block_address_out_of_range());
        assert_eq!(unit.check_range(Lba(0), Blocks(0)), Ok(()));
        assert_eq!(unit.check_range(Lba(99), Blocks(0)), Ok(()));
        assert_eq!(unit.check_range(Lba(100), Blocks(0)), refused);
        assert_eq!(unit.check_range(Lba(101), Blocks(0)), refused);
    }

    #[test]
    fn a_range_that_wraps_around_is_refused() {
        let refused = Err(Sense::logical_block_address_out_of_range());
        assert_eq!(unit(100).check_range(Lba(u64::MAX), Blocks(2)), refused);
        assert_eq!(unit(100).check_range(Lba(1), Blocks(u64::MAX)), refused);
    }

    #[test]
    fn a_transfer_of_more_than_8_mib_is_refused_at_its_length_field() {
        let field = Field::cdb(10);
        let refused = Err(Sense::invalid_field_in_cdb(field));
        let unit = unit(1 << 20);
        assert_eq!(
            unit.check_transfer_length(&transfer(16_384, Some(field))),
            Ok(())
        );
        assert_eq!(
            unit.check_transfer_length(&transfer(16_385, Some(field))),
            refused
        );
        assert_eq!(unit.check_transfer_length(&transfer(16_385, None)), Ok(()));
        let unit = Geometry::new(4096, 1 << 20, 0).unwrap();
        assert_eq!(
            unit.check_transfer_length(&transfer(2048, Some(field))),
            Ok(())
        );
        assert_eq!(
            unit.check_transfer_length(&transfer(2049, Some(field))),
            refused
        );
    }

    #[test]
    fn sense_data_has_descriptors_once_an_lba_needs_them() {
        assert_eq!(unit(0x1_0000_0000).sense_format(), Format::Fixed); // last LBA FFFFFFFFh
        assert_eq!(unit(0x1_0000_0001).sense_format(), Format::Descriptor);
    }

    #[test]
    fn blocks_are_bytes_in_the_backing_object() {
        let unit = Geometry::new(4096, 100, 0).unwrap();
        assert_eq!(unit.byte_offset(Lba(3)), 12_288);
        assert_eq!(unit.byte_length(Blocks(2)), 8_192);
        assert_eq!(unit.byte_length(Blocks(u64::MAX)), u64::MAX);
    }

    #[test]
    fn read_capacity_10_has_32_bits() {
        let expected = [
            0x00, 0x0f, 0xff, 0xff, // last LBA
            0x00, 0x00, 0x02, 0x00, // 512 bytes a block
        ];
        assert_eq!(read_capacity_10(&unit(0x10_0000)), expected);
        let too_large = [0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x02, 0x00];
        assert_eq!(read_capacity_10(&unit(0x1_0000_0000)), too_large);
        assert_eq!(read_capacity_10(&unit(0x2_0000_0000)), too_large);
        let largest = [0xff, 0xff, 0xff, 0xfe, 0x00, 0x00, 0x02, 0x00];
        assert_eq!(read_capacity_10(&unit(0xffff_ffff)), largest);
    }

    #[test]
    fn read_capacity_16_tells_the_physical_block() {
        let expected = [
            0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, // last LBA
            0x00, 0x00, 0x02, 0x00, // 512 bytes a block
            0x00, // P_TYPE, PROT_EN
            0x03, // 2^3 logical blocks in a physical one
            0x00, 0x00, // LBPME=0, LBPRZ=0, lowest aligned LBA 0
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let unit = Geometry::new(512, 0x2_0000_0001, 3).unwrap();
        assert_eq!(read_capacity_16(&unit, &Provisioning::Full), expected);
        assert_eq!(unit.physical_block_size(), 4096);
    }

    #[test]
    fn physical_blocks_are_some_logical_ones_and_read_capacity_16_tells_where_the_first_begins() {
        let told = |size, lba| {
            let unit = unit(0x10_0000).with_physical_blocks(size, Lba(lba))?;
            Some(read_capacity_16(&unit, &Provisioning::Full)[13..16].to_vec())
        };
        assert_eq!(told(4096, 7), Some(vec![0x03, 0x00, 0x07]));
        assert_eq!(told(512, 0), Some(vec![0x00, 0x00, 0x00]));
        assert_eq!(told(512 << 15, 0x3fff), Some(vec![0x0f, 0x3f, 0xff]));
        for (size, lba) in [
            (256, 0),
            (0, 0),
            (1536, 0),
            (4097, 0),
            (512 << 16, 0),
            (4096, 0x4000),
            (4096, 0x1_0007),
        ] {
            assert_eq!(told(size, lba), None, "{size} {lba}");
        }
    }

    #[test]
    fn more_blocks_are_of_the_same_medium() {
        let before = unit(100).with_physical_blocks(4096, Lba(7)).unwrap();
        let before = before.rotating().write_protected();
        let after = before.with_blocks(200).unwrap();
        assert_eq!(after.blocks(), Blocks(200));
        assert_eq!(after.with_blocks(100), Some(before));
        assert_eq!(before.with_blocks(0), None);
        assert_eq!(before.with_blocks(1 << 54), None);
    }

    #[test]
    fn read_capacity_16_tells_of_thin_provisioning() {
        for (zeroes, expected) in [(true, [0xc0, 0x00]), (false, [0x80, 0x00])] {
            let thin = Provisioning::Thin {
                zeroes,
                granularity: 4096,
                alignment: 0,
                figures: true,
                soft_threshold: None,
            };
            let answer = read_capacity_16(&unit(100), &thin);
            assert_eq!(answer[14..16], expected, "LBPME, LBPRZ");
            assert_eq!(answer.len(), 32);
            let aligned = unit(100).with_physical_blocks(4096, Lba(7)).unwrap();
            let answer = read_capacity_16(&aligned, &thin);
            assert_eq!(
                answer[14..16],
                [expected[0], 0x07],
                "and where blocks are aligned"
            );
        }
    }
}
