//! Atomic writes (SBC-4): after a loss of power all of one is there, or nothing, and nobody ever reads a part of it.
//!
//! What the Block Limits VPD page tells and what WRITE ATOMIC is judged by are made from one length, so they cannot
//! disagree.

use zerocopy::big_endian::U32;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::cdb::Transfer;
use super::sense::{Field, Sense};
use super::{Blocks, Lba};

/// The length of an atomic write, in blocks: there is only one.
///
/// What SCSI can tell promises that every multiple of a granularity up to a maximum is written, wherever an aligned block
/// is. The system writes only powers of two, each at a multiple of itself. With a granularity of less than half the
/// maximum, three times the granularity would be promised and could not be kept; with half of it, either the alignment is
/// the maximum, and Linux's initiators make nothing of an alignment above the granularity, or twice the granularity is
/// promised where the system does not write it. So alignment, granularity and maximum are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AtomicWrite(u32);

impl AtomicWrite {
    /// Of so many blocks; `None` unless they are at least one, and a power of two.
    pub(super) const fn new(blocks: u32) -> Option<AtomicWrite> {
        if blocks.is_power_of_two() {
            Some(AtomicWrite(blocks))
        } else {
            None
        }
    }

    /// What the Block Limits VPD page tells.
    pub(super) fn limits(self) -> AtomicLimits {
        let AtomicWrite(blocks) = self;
        AtomicLimits {
            maximum_transfer_length: blocks.into(),
            alignment: blocks.into(),
            transfer_length_granularity: blocks.into(),
            ..AtomicLimits::default()
        }
    }

    /// Refuses what cannot be written atomically. To write nothing, anywhere where something could be, is no error.
    ///
    /// # Errors
    /// INVALID FIELD IN CDB, pointing at LOGICAL BLOCK ADDRESS or TRANSFER LENGTH.
    pub(super) fn check(self, transfer: &Transfer) -> Result<(), Sense> {
        const LOGICAL_BLOCK_ADDRESS: Field = Field::cdb(2);
        const TRANSFER_LENGTH: Field = Field::cdb(12);
        let AtomicWrite(blocks) = self;
        let (Lba(lba), Blocks(length)) = (transfer.lba, transfer.blocks);
        if lba % u64::from(blocks) != 0 {
            return Err(Sense::invalid_field_in_cdb(LOGICAL_BLOCK_ADDRESS));
        }
        if length != 0 && length != u64::from(blocks) {
            return Err(Sense::invalid_field_in_cdb(TRANSFER_LENGTH));
        }
        Ok(())
    }
}

/// Bytes 44 to 63 of the Block Limits VPD page (SBC-4), in blocks. There is no atomic boundary.
#[derive(Default, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct AtomicLimits {
    maximum_transfer_length: U32,
    alignment: U32,
    transfer_length_granularity: U32,
    maximum_transfer_length_with_boundary: U32,
    maximum_boundary_size: U32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(lba: u64, blocks: u64) -> Transfer {
        Transfer {
            lba: Lba(lba),
            blocks: Blocks(blocks),
            fua: false,
            dpo: false,
            length_field: None,
        }
    }

    #[test]
    fn what_is_told_is_what_is_written() {
        let eight = AtomicWrite::new(8).unwrap();
        let told = [
            0, 0, 0, 8, // MAXIMUM ATOMIC TRANSFER LENGTH
            0, 0, 0, 8, // ATOMIC ALIGNMENT
            0, 0, 0, 8, // ATOMIC TRANSFER LENGTH GRANULARITY
            0, 0, 0, 0, // MAXIMUM ATOMIC TRANSFER LENGTH WITH ATOMIC BOUNDARY
            0, 0, 0, 0, // MAXIMUM ATOMIC BOUNDARY SIZE
        ];
        assert_eq!(eight.limits().as_bytes(), told);
        let refused = |byte| Err(Sense::invalid_field_in_cdb(Field::cdb(byte)));
        for (lba, blocks, expected) in [
            (0, 8, Ok(())),
            (16, 8, Ok(())),
            (16, 0, Ok(())),
            (4, 8, refused(2)),
            (4, 0, refused(2)),
            (1, 7, refused(2)),
            (8, 1, refused(12)),
            (8, 4, refused(12)),
            (8, 16, refused(12)),
            (8, 65_535, refused(12)),
        ] {
            let checked = eight.check(&transfer(lba, blocks));
            assert_eq!(checked, expected, "{blocks} blocks at {lba}");
        }
    }

    #[test]
    fn a_length_is_a_power_of_two() {
        for blocks in [0, 3, 6, u32::MAX] {
            assert_eq!(AtomicWrite::new(blocks), None);
        }
        assert!(AtomicWrite::new(1).is_some());
    }
}
