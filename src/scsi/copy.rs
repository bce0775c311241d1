//! Third-party copies (SPC-4): the parameter list of EXTENDED COPY(LID1), RECEIVE COPY OPERATING PARAMETERS, and what
//! the Third-party Copy VPD page says.
//!
//! The parameter list:
//!
//! | bytes | |
//! |---|---|
//! | 0 | LIST IDENTIFIER |
//! | 1 | STR, LIST ID USAGE, PRIORITY |
//! | 2–3 | CSCD DESCRIPTOR LIST LENGTH |
//! | 8–11 | SEGMENT DESCRIPTOR LIST LENGTH |
//! | 12–15 | INLINE DATA LENGTH |
//! | 16– | CSCD descriptors of 32 bytes, then segment descriptors |
//!
//! A CSCD (copy source, copy destination) is named by its designator. STR and PRIORITY make no difference.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::capacity::Geometry;
use super::inquiry::Naa;
use super::sense::{Field, Sense};
use super::{Blocks, Lba};

/// The most bytes of CSCD and segment descriptors together: MAXIMUM DESCRIPTOR LIST LENGTH.
const DESCRIPTORS_LENGTH_MAX: u32 = 0xffff;

/// The longest parameter list that is looked at; a longer one is refused unread.
pub const PARAMETER_LIST_LENGTH_MAX: u32 = 16 + DESCRIPTORS_LENGTH_MAX;

/// The most CSCD descriptors: MAXIMUM CSCD DESCRIPTOR COUNT.
const CSCDS_MAX: u16 = 16;

/// The most segment descriptors: MAXIMUM SEGMENT DESCRIPTOR COUNT.
const SEGMENTS_MAX: u16 = 64;

/// The most bytes that one segment copies: MAXIMUM SEGMENT LENGTH.
const SEGMENT_BYTES_MAX: u32 = 16 << 20;

/// TOTAL CONCURRENT COPIES and MAXIMUM CONCURRENT COPIES.
const CONCURRENT_COPIES_MAX: u8 = 64;

const HEADER_LENGTH: usize = size_of::<Header>();
const CSCD_LENGTH: usize = 32;
/// The part of a segment descriptor that DESCRIPTOR LENGTH does not count.
const SEGMENT_HEADER_LENGTH: usize = 4;

/// Block device to block device segment descriptor.
const BLOCK_TO_BLOCK: u8 = 0x02;
/// Block device to block device with offset segment descriptor.
const BLOCK_TO_BLOCK_WITH_OFFSET: u8 = 0x0a;
/// Identification descriptor CSCD descriptor.
const IDENTIFICATION: u8 = 0xe4;

/// The descriptors that are served, ascending.
const DESCRIPTORS: [u8; 3] = [BLOCK_TO_BLOCK, BLOCK_TO_BLOCK_WITH_OFFSET, IDENTIFICATION];

/// What an EXTENDED COPY asks for, as far as it can be judged without its CSCDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// By which identifier RECEIVE COPY STATUS(LID1) asks what has become of it. `None` if nobody will ask.
    pub identifier: Option<u8>,
    /// What it copies from and to.
    pub cscds: Vec<Cscd>,
    /// What it copies, in order.
    pub segments: Vec<Segment>,
}

/// A copy source or copy destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cscd {
    /// The NAA designator of the logical unit. `None` if it is named by another, which is too short for a unit of ours.
    pub naa: Option<Naa>,
    /// DISK BLOCK LENGTH: how long the initiator takes its blocks to be, in bytes.
    pub block_length: u32,
}

/// One copy from a block device to a block device. An index may be of no [`Cscd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which of the [`List::cscds`] it copies from.
    pub source: u16,
    /// Which of the [`List::cscds`] it copies to.
    pub destination: u16,
    /// How much it copies.
    pub amount: Amount,
    /// The first block, and the first byte of it, of the source.
    pub from: (Lba, u16),
    /// The first block, and the first byte of it, of the destination.
    pub to: (Lba, u16),
}

/// How much a segment copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many blocks as long as those of the source (DC=0).
    SourceBlocks(Blocks),
    /// So many blocks as long as those of the destination (DC=1).
    DestinationBlocks(Blocks),
    /// So many bytes.
    Bytes(u32),
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    list_identifier: u8,
    /// STR, LIST ID USAGE, PRIORITY.
    flags: u8,
    cscd_list_length: U16,
    reserved: U32,
    segment_list_length: U32,
    inline_data_length: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Identification {
    descriptor_type: u8,
    /// LU ID TYPE, NUL, PERIPHERAL DEVICE TYPE.
    flags: u8,
    relative_initiator_port: U16,
    /// In bits 3 to 0.
    code_set: u8,
    /// ASSOCIATION, DESIGNATOR TYPE.
    designation: u8,
    reserved: u8,
    designator_length: u8,
    designator: [u8; 20],
    pad: u8,
    block_length: [u8; 3],
}

/// With which every segment descriptor begins.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SegmentHeader {
    descriptor_type: u8,
    /// DC, CAT.
    flags: u8,
    descriptor_length: U16,
    source: U16,
    destination: U16,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BlockToBlock {
    header: SegmentHeader,
    reserved: U16,
    blocks: U16,
    source_lba: U64,
    destination_lba: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BlockToBlockWithOffset {
    header: SegmentHeader,
    bytes: U32,
    source_lba: U64,
    destination_lba: U64,
    source_offset: U16,
    destination_offset: U16,
}

/// LIST ID USAGE, byte 1: 11b says that there is no list identifier.
const LIST_ID_USAGE: u8 = 0x18;
/// NUL of a CSCD descriptor, byte 1.
const NUL: u8 = 0x20;
/// DC of a segment descriptor, byte 1.
const DC: u8 = 0x02;

/// Bytes of the parameter list, and where they begin in it.
#[derive(Clone, Copy)]
struct Part<'a> {
    at: usize,
    bytes: &'a [u8],
}

impl<'a> Part<'a> {
    fn new(at: usize, bytes: &'a [u8]) -> Part<'a> {
        Part { at, bytes }
    }

    fn first(self) -> u8 {
        self.bytes.first().copied().unwrap_or(0)
    }

    fn invalid(self, byte: usize) -> Sense {
        Sense::invalid_field_in_parameter_list(Field::parameter(self.position(byte)))
    }

    fn invalid_bit(self, byte: usize, bit: u8) -> Sense {
        Sense::invalid_field_in_parameter_list(Field::parameter_bit(self.position(byte), bit))
    }

    fn position(self, byte: usize) -> u16 {
        u16::try_from(self.at + byte).unwrap_or(u16::MAX)
    }
}

impl List {
    /// Reads a parameter list of `length` bytes, of which `list` are there. A length of 0 asks for nothing.
    ///
    /// # Errors
    /// What is wrong with it: nothing is copied then.
    pub fn parse(list: &[u8], length: u32) -> Result<List, Sense> {
        if length == 0 {
            return Ok(List::default());
        }
        let too_short = Sense::parameter_list_length_error();
        let list = usize::try_from(length)
            .ok()
            .filter(|_| length <= PARAMETER_LIST_LENGTH_MAX)
            .and_then(|length| list.get(..length))
            .ok_or(too_short)?;
        let (header, descriptors) = Header::ref_from_prefix(list).map_err(|_| too_short)?;
        let cscds_length = usize::from(header.cscd_list_length.get());
        let descriptors_length =
            u64::from(header.cscd_list_length.get()) + u64::from(header.segment_list_length.get());
        let descriptors = usize::try_from(descriptors_length)
            .ok()
            .and_then(|length| descriptors.get(..length))
            .ok_or(too_short)?;
        if header.inline_data_length.get() > 0 {
            return Err(Sense::inline_data_length_exceeded());
        }
        if cscds_length % CSCD_LENGTH > 0 {
            return Err(Part::new(0, list).invalid(2));
        }
        let (cscds, segments) = descriptors.split_at(cscds_length);
        let cscds = cscd_descriptors(Part::new(HEADER_LENGTH, cscds))?;
        let segments = segment_descriptors(Part::new(HEADER_LENGTH + cscds_length, segments))?;
        let cscds: Vec<Cscd> = cscds.map(Cscd::parse).collect::<Result<_, _>>()?;
        let segments = segments.into_iter();
        let is_identified = header.flags & LIST_ID_USAGE != LIST_ID_USAGE;
        Ok(List {
            identifier: is_identified.then_some(header.list_identifier),
            segments: segments
                .map(|part| Segment::parse(part, &cscds))
                .collect::<Result<_, _>>()?,
            cscds,
        })
    }
}

/// Takes the CSCD descriptors apart. How many and of which type they are is judged before anything in them.
fn cscd_descriptors(list: Part<'_>) -> Result<impl Iterator<Item = Part<'_>>, Sense> {
    let parts = list.bytes.chunks_exact(CSCD_LENGTH).enumerate();
    if parts.len() > usize::from(CSCDS_MAX) {
        return Err(Sense::too_many_target_descriptors());
    }
    let parts = parts.map(move |(index, bytes)| Part::new(list.at + index * CSCD_LENGTH, bytes));
    if parts.clone().any(|part| part.first() != IDENTIFICATION) {
        return Err(Sense::unsupported_target_descriptor_type_code());
    }
    Ok(parts)
}

/// Takes the segment descriptors apart, each as long as its type is, or else as it says. How many and of which type they are is judged before
/// anything in them.
fn segment_descriptors(list: Part<'_>) -> Result<Vec<Part<'_>>, Sense> {
    let mut parts = Vec::new();
    let mut rest = list;
    while !rest.bytes.is_empty() {
        if parts.len() == usize::from(SEGMENTS_MAX) {
            return Err(Sense::too_many_segment_descriptors());
        }
        let &[descriptor_type, _, high, low, ..] = rest.bytes else {
            return Err(Sense::parameter_list_length_error());
        };
        let length = match descriptor_type {
            BLOCK_TO_BLOCK => size_of::<BlockToBlock>(),
            BLOCK_TO_BLOCK_WITH_OFFSET => size_of::<BlockToBlockWithOffset>(),
            _ => SEGMENT_HEADER_LENGTH + usize::from(u16::from_be_bytes([high, low])),
        };
        let (part, after) = rest.bytes.split_at(length.min(rest.bytes.len()));
        parts.push(Part::new(rest.at, part));
        rest = Part::new(rest.at + part.len(), after);
    }
    let is_served =
        |part: &Part<'_>| [BLOCK_TO_BLOCK, BLOCK_TO_BLOCK_WITH_OFFSET].contains(&part.first());
    if !parts.iter().all(is_served) {
        return Err(Sense::unsupported_segment_descriptor_type_code());
    }
    Ok(parts)
}

impl Cscd {
    fn parse(part: Part<'_>) -> Result<Cscd, Sense> {
        const T10_VENDOR_ID: u8 = 0x1;
        const NAA: u8 = 0x3;
        const BINARY: u8 = 0x1;

        let descriptor = Identification::ref_from_bytes(part.bytes)
            .map_err(|_| Sense::parameter_list_length_error())?;
        if descriptor.flags & NUL != 0 {
            return Err(part.invalid_bit(1, 5));
        }
        if descriptor.flags & 0x1f != 0 {
            return Err(part.invalid_bit(1, 4)); // not a direct access block device
        }
        if descriptor.designation & 0x30 != 0 {
            return Err(part.invalid_bit(5, 5)); // not of the logical unit
        }
        let kind = descriptor.designation & 0x0f;
        if ![T10_VENDOR_ID, NAA].contains(&kind) {
            return Err(part.invalid_bit(5, 3));
        }
        if kind == NAA && descriptor.code_set & 0x0f != BINARY {
            return Err(part.invalid_bit(4, 3));
        }
        let length = usize::from(descriptor.designator_length);
        let designator = descriptor.designator.get(..length);
        let designator = designator.ok_or(part.invalid(7))?;
        let [high, middle, low] = descriptor.block_length;
        Ok(Cscd {
            naa: designator.try_into().ok().filter(|_| kind == NAA),
            block_length: u32::from_be_bytes([0, high, middle, low]),
        })
    }
}

impl Segment {
    fn parse(part: Part<'_>, cscds: &[Cscd]) -> Result<Segment, Sense> {
        match part.first() {
            BLOCK_TO_BLOCK => {
                let fields: &BlockToBlock = fields(part)?;
                let blocks = Blocks(fields.blocks.get().into());
                let (index, amount) = if fields.header.flags & DC == 0 {
                    (fields.header.source, Amount::SourceBlocks(blocks))
                } else {
                    (fields.header.destination, Amount::DestinationBlocks(blocks))
                };
                // One that is not there fails the segment, once those before it are done.
                let cscd = cscds.get(usize::from(index.get()));
                let block_length = cscd.map_or(0, |cscd| cscd.block_length);
                if blocks.0 * u64::from(block_length) > SEGMENT_BYTES_MAX.into() {
                    return Err(part.invalid(10));
                }
                Ok(Segment {
                    source: fields.header.source.get(),
                    destination: fields.header.destination.get(),
                    amount,
                    from: (Lba(fields.source_lba.get()), 0),
                    to: (Lba(fields.destination_lba.get()), 0),
                })
            }
            _ => {
                let fields: &BlockToBlockWithOffset = fields(part)?;
                let bytes = fields.bytes.get();
                if bytes > SEGMENT_BYTES_MAX {
                    return Err(part.invalid(8));
                }
                Ok(Segment {
                    source: fields.header.source.get(),
                    destination: fields.header.destination.get(),
                    amount: Amount::Bytes(bytes),
                    from: (Lba(fields.source_lba.get()), fields.source_offset.get()),
                    to: (
                        Lba(fields.destination_lba.get()),
                        fields.destination_offset.get(),
                    ),
                })
            }
        }
    }
}

/// The fields of a segment descriptor, whose DESCRIPTOR LENGTH must be that of its type.
fn fields<T: FromBytes + KnownLayout + Immutable + Unaligned>(part: Part<'_>) -> Result<&T, Sense> {
    let length = u16::try_from(size_of::<T>() - SEGMENT_HEADER_LENGTH).expect("some 30 bytes");
    if part.bytes.get(2..SEGMENT_HEADER_LENGTH) != Some(&length.to_be_bytes()) {
        return Err(part.invalid(2));
    }
    T::ref_from_bytes(part.bytes).map_err(|_| Sense::parameter_list_length_error())
}

/// What has become of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyStatus {
    /// How it has ended, if it has.
    pub state: CopyState,
    /// SEGMENTS PROCESSED: how many are done.
    pub segments: u16,
    /// How many bytes have been copied.
    pub bytes: u32,
}

/// COPY MANAGER STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CopyState {
    /// In progress.
    InProgress = 0x00,
    /// Completed without errors.
    Completed = 0x01,
    /// Completed with errors.
    Failed = 0x02,
}

/// The answer to RECEIVE COPY STATUS(LID1), 12 bytes: HDD=0, TRANSFER COUNT in bytes.
pub fn status(status: &CopyStatus) -> Vec<u8> {
    const FOLLOWING: u32 = 8;
    const BYTES: u8 = 0x00;
    let [high, low] = status.segments.to_be_bytes();
    [
        FOLLOWING.to_be_bytes(),
        [status.state as u8, high, low, BYTES],
        status.bytes.to_be_bytes(),
    ]
    .concat()
}

/// RECEIVE COPY OPERATING PARAMETERS parameter data, without its list of descriptors.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct OperatingParameters {
    available_data: U32,
    /// SNLID: LIST ID USAGE may be 11b.
    flags: u8,
    reserved: [u8; 3],
    maximum_cscd_descriptor_count: U16,
    maximum_segment_descriptor_count: U16,
    maximum_descriptor_list_length: U32,
    maximum_segment_length: U32,
    maximum_inline_data_length: U32,
    held_data_limit: U32,
    maximum_stream_device_transfer_size: U32,
    reserved2: U16,
    total_concurrent_copies: U16,
    maximum_concurrent_copies: u8,
    /// As powers of two.
    data_segment_granularity: u8,
    inline_data_granularity: u8,
    held_data_granularity: u8,
    reserved3: [u8; 3],
    implemented_descriptors: u8,
}

/// The answer to RECEIVE COPY OPERATING PARAMETERS.
pub fn operating_parameters(geometry: &Geometry) -> Vec<u8> {
    let following = size_of::<OperatingParameters>() - size_of::<U32>() + DESCRIPTORS.len();
    let parameters = OperatingParameters {
        available_data: u32::try_from(following).expect("some 50 bytes").into(),
        flags: 0x01,
        reserved: [0; 3],
        maximum_cscd_descriptor_count: CSCDS_MAX.into(),
        maximum_segment_descriptor_count: SEGMENTS_MAX.into(),
        maximum_descriptor_list_length: DESCRIPTORS_LENGTH_MAX.into(),
        maximum_segment_length: SEGMENT_BYTES_MAX.into(),
        maximum_inline_data_length: 0.into(),
        held_data_limit: 0.into(),
        maximum_stream_device_transfer_size: 0.into(),
        reserved2: 0.into(),
        total_concurrent_copies: u16::from(CONCURRENT_COPIES_MAX).into(),
        maximum_concurrent_copies: CONCURRENT_COPIES_MAX,
        data_segment_granularity: granularity(geometry),
        inline_data_granularity: 0,
        held_data_granularity: 0,
        reserved3: [0; 3],
        implemented_descriptors: u8::try_from(DESCRIPTORS.len()).expect("some"),
    };
    [parameters.as_bytes(), &DESCRIPTORS].concat()
}

/// The Third-party Copy VPD page, from byte 4: its third-party copy descriptors, each of which is padded to a multiple
/// of 4 bytes.
pub fn vital_product_data(geometry: &Geometry) -> Vec<u8> {
    const SUPPORTED_COMMANDS: u16 = 0x0001;
    const PARAMETER_DATA: u16 = 0x0004;
    const SUPPORTED_DESCRIPTORS: u16 = 0x0008;
    const GENERAL_COPY_OPERATIONS: u16 = 0x8001;

    let commands = [0x83, 1, 0x00, 0x84, 2, 0x00, 0x03]; // operation code, how many service actions, these
    let mut parameters = [0; 28];
    parameters[4..6].copy_from_slice(&CSCDS_MAX.to_be_bytes());
    parameters[6..8].copy_from_slice(&SEGMENTS_MAX.to_be_bytes());
    parameters[8..12].copy_from_slice(&DESCRIPTORS_LENGTH_MAX.to_be_bytes());
    let mut operations = [0; 32];
    operations[..4].copy_from_slice(&u32::from(CONCURRENT_COPIES_MAX).to_be_bytes());
    operations[4..8].copy_from_slice(&u32::from(CONCURRENT_COPIES_MAX).to_be_bytes());
    operations[8..12].copy_from_slice(&SEGMENT_BYTES_MAX.to_be_bytes());
    operations[12] = granularity(geometry);
    [
        third_party_copy_descriptor(SUPPORTED_COMMANDS, &counted(&commands)),
        third_party_copy_descriptor(PARAMETER_DATA, &parameters),
        third_party_copy_descriptor(SUPPORTED_DESCRIPTORS, &counted(&DESCRIPTORS)),
        third_party_copy_descriptor(GENERAL_COPY_OPERATIONS, &operations),
    ]
    .concat()
}

fn third_party_copy_descriptor(descriptor_type: u16, content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    content.resize(content.len().next_multiple_of(4), 0);
    let length = u16::try_from(content.len()).expect("some 30 bytes");
    [
        &descriptor_type.to_be_bytes()[..],
        &length.to_be_bytes(),
        &content,
    ]
    .concat()
}

/// A list after its length in one byte.
fn counted(list: &[u8]) -> Vec<u8> {
    let length = u8::try_from(list.len()).expect("some bytes");
    [&[length], list].concat()
}

/// DATA SEGMENT GRANULARITY: a block, as a power of two.
fn granularity(geometry: &Geometry) -> u8 {
    u8::try_from(geometry.block_size().ilog2()).expect("at most 12")
}

#[cfg(test)]
mod tests;
