//! Who the logical unit is: standard INQUIRY data and the vital product data (VPD) pages.
//!
//! The bytes are the same through every target port, but for the port's own designator in the Device
//! Identification page. Only what is served is claimed.

mod ports;

use sha2::{Digest, Sha256};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::atomic::AtomicLimits;
use super::capacity::Geometry;
use super::copy;
use super::nexus::{Protocol, RelativeTargetPort};
use super::provisioning::{MAXIMUM_WRITE_SAME, Provisioning, UnmapLimits};
use super::sense::{Field, Sense};
pub use ports::Ports;

/// The company identifier in the unit's NAA designator, 24 bits (IEEE, OUI).
const COMPANY_ID: u32 = 0x00_1405;

/// The names of a logical unit. Hosts know a disk again by them: they never change while its data lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// T10 VENDOR IDENTIFICATION: the first 8 characters count.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION: the first 16 characters count.
    pub product: String,
    /// PRODUCT REVISION LEVEL: the first 4 characters count.
    pub revision: String,
    /// PRODUCT SERIAL NUMBER: the same for all backstores that are ports of one unit.
    pub serial: String,
}

/// An NAA designator: the name by which hosts know a unit, and copies find it.
pub type Naa = [u8; 16];

/// A target port of the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub relative: RelativeTargetPort,
    /// What it speaks.
    pub protocol: Protocol,
}

impl Identity {
    /// A disk of ours. The vendor is LIO's, by which multipath-tools knows how to treat us, and the revision
    /// stays the same over upgrades, since hosts compare it.
    pub fn new(serial: impl Into<String>) -> Identity {
        Identity {
            vendor: "LIO-ORG".into(),
            product: "TCMU-PR DISK".into(),
            revision: "0001".into(),
            serial: serial.into(),
        }
    }

    /// NAA IEEE Registered Extended designator (SPC-4), from its most significant bit: NAA 6h in 4 bits, company
    /// identifier in 24, and in the 100 that are the vendor's the first of SHA-256("tcmu-pr" and the serial).
    ///
    /// The kernel derives another from the digits of the serial, and looks the unit up by it for copies of
    /// its own that pass by reservations: ours must not be found that way.
    pub fn naa(&self) -> Naa {
        let hash = Sha256::new()
            .chain_update("tcmu-pr")
            .chain_update(&self.serial)
            .finalize();
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        let vendor_specific = u128::from_be_bytes(first) >> 28;
        ((0x6 << 124) | (u128::from(COMPANY_ID) << 100) | vendor_specific).to_be_bytes()
    }
}

/// Standard INQUIRY data (SPC-4).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Standard {
    /// PERIPHERAL QUALIFIER 000b: connected; PERIPHERAL DEVICE TYPE 00h: direct access block device.
    peripheral: u8,
    /// RMB=0: not removable.
    removable: u8,
    /// VERSION: SPC-4.
    version: u8,
    /// NORMACA=0, HISUP=0, RESPONSE DATA FORMAT 2.
    response_data_format: u8,
    additional_length: u8,
    /// SCCS, ACC, TPGS, PROTECT: none. 3PC: third-party copies are served.
    flags5: u8,
    /// MULTIP: there may be several ports.
    flags6: u8,
    /// CMDQUE: full task management model.
    flags7: u8,
    vendor: [u8; 8],
    product: [u8; 16],
    revision: [u8; 4],
    vendor_specific: [u8; 20],
    reserved: [u8; 2],
    version_descriptors: [U16; 8],
    reserved_end: [u8; 22],
}

/// Standard INQUIRY data, 96 bytes.
pub fn standard(identity: &Identity) -> Vec<u8> {
    const SAM_5: U16 = U16::new(0x00a0);
    const SPC_4: U16 = U16::new(0x0460);
    const SBC_3: U16 = U16::new(0x04c0);
    const NONE: U16 = U16::new(0);
    let answer = Standard {
        peripheral: 0x00,
        removable: 0x00,
        version: 0x06,
        response_data_format: 0x02,
        additional_length: 96 - 5,
        flags5: 0x08,
        flags6: 0x10,
        flags7: 0x02,
        vendor: ascii(&identity.vendor),
        product: ascii(&identity.product),
        revision: ascii(&identity.revision),
        vendor_specific: [0; 20],
        reserved: [0; 2],
        version_descriptors: [SAM_5, SPC_4, SBC_3, NONE, NONE, NONE, NONE, NONE],
        reserved_end: [0; 22],
    };
    answer.as_bytes().to_vec()
}

/// What the pages tell of.
struct Unit<'a> {
    identity: &'a Identity,
    geometry: &'a Geometry,
    provisioning: &'a Provisioning,
    ports: Ports<'a>,
}

/// Makes what follows a page's 4-byte header.
type Content = fn(&Unit<'_>) -> Vec<u8>;

/// The VPD pages, ascending by page code.
const PAGES: &[(u8, Content)] = &[
    (0x00, supported_pages),
    (0x80, unit_serial_number),
    (0x83, device_identification),
    (0x86, extended_inquiry_data),
    (0x87, mode_page_policy),
    (SCSI_PORTS, ports::scsi_ports),
    (0x8f, third_party_copy),
    (0xb0, block_limits),
    (0xb1, block_device_characteristics),
    (0xb2, logical_block_provisioning),
];

/// SCSI Ports, which is there if all ports are known.
const SCSI_PORTS: u8 = 0x88;

/// The pages that there are.
fn pages<'a>(ports: &Ports<'a>) -> impl Iterator<Item = &'static (u8, Content)> + use<'a> {
    let all_known = ports.all.is_some();
    let pages = PAGES.iter();
    pages.filter(move |(code, _)| all_known || *code != SCSI_PORTS)
}

/// A VPD page.
///
/// | byte | |
/// |---|---|
/// | 0 | 00h: connected, direct access block device |
/// | 1 | page code |
/// | 2–3 | length of what follows |
/// | 4– | the page's own |
///
/// # Errors
/// INVALID FIELD IN CDB, pointing at PAGE CODE, for a page that there is not.
pub fn vital_product_data(
    page: u8,
    identity: &Identity,
    geometry: &Geometry,
    provisioning: &Provisioning,
    ports: &Ports<'_>,
) -> Result<Vec<u8>, Sense> {
    let (_, content) = pages(ports)
        .find(|(code, _)| *code == page)
        .ok_or(Sense::invalid_field_in_cdb(Field::cdb(2)))?;
    let unit = Unit {
        identity,
        geometry,
        provisioning,
        ports: *ports,
    };
    let mut content = content(&unit);
    content.truncate(usize::from(u16::MAX));
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    Ok([&[0x00, page], length.to_be_bytes().as_slice(), &content].concat())
}

/// Supported VPD Pages: their codes.
fn supported_pages(unit: &Unit<'_>) -> Vec<u8> {
    pages(&unit.ports).map(|(code, _)| *code).collect()
}

/// Unit Serial Number: without a NUL.
fn unit_serial_number(unit: &Unit<'_>) -> Vec<u8> {
    printable(&unit.identity.serial).collect()
}

/// Device Identification: designators of the unit, then of the port.
///
/// One NAA designator and no more, lest hosts choose differently. Of a serial too long for it, there is no
/// T10 vendor ID based designator: cut, it would not be unique.
fn device_identification(unit: &Unit<'_>) -> Vec<u8> {
    const BINARY: u8 = 0x1;
    const ASCII: u8 = 0x2;
    const OF_UNIT: u8 = 0x00;
    const OF_PORT: u8 = 0x10;
    const PIV: u8 = 0x80;
    const T10_VENDOR_ID: u8 = 0x1;
    const NAA: u8 = 0x3;
    const RELATIVE_TARGET_PORT: u8 = 0x4;

    let identity = unit.identity;
    let mut page = designator(BINARY, OF_UNIT | NAA, &identity.naa());
    let mut named = ascii::<8>(&identity.vendor).to_vec();
    named.extend(ascii::<16>(&identity.product));
    named.extend(printable(&identity.serial));
    page.extend(designator(ASCII, OF_UNIT | T10_VENDOR_ID, &named));
    if let Some(port) = unit.ports.own {
        let protocol = (port.protocol as u8) << 4;
        let [high, low] = port.relative.0.to_be_bytes();
        let designation = PIV | OF_PORT | RELATIVE_TARGET_PORT;
        page.extend(designator(
            protocol | BINARY,
            designation,
            &[0, 0, high, low],
        ));
    }
    page
}

/// A designation descriptor (SPC-4): byte 0 protocol identifier and code set, 1 PIV, association and type, 3
/// length, 4 the designator. Nothing if the designator is longer than 255 bytes.
fn designator(code_set: u8, designation: u8, designator: &[u8]) -> Vec<u8> {
    match u8::try_from(designator.len()) {
        Ok(length) => [&[code_set, designation, 0, length], designator].concat(),
        Err(_) => Vec::new(),
    }
}

/// Extended INQUIRY Data, of 64 bytes: SIMPSUP=1, since SIMPLE is how every command runs; V_SUP=1, since there is
/// a volatile cache.
fn extended_inquiry_data(_unit: &Unit<'_>) -> Vec<u8> {
    let mut content = vec![0; 0x3c];
    content[1] = 0x01; // byte 5 of the page: SIMPSUP
    content[2] = 0x01; // byte 6: V_SUP
    content
}

/// Mode Page Policy: every page and subpage is shared by all I_T nexuses.
fn mode_page_policy(_unit: &Unit<'_>) -> Vec<u8> {
    vec![0x3f, 0xff, 0x00, 0x00]
}

/// Third-party Copy.
fn third_party_copy(unit: &Unit<'_>) -> Vec<u8> {
    copy::vital_product_data(unit.geometry)
}

/// Block Limits (SBC-3), from byte 4 of the page.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct BlockLimits {
    /// WSNZ in bit 0.
    wsnz: u8,
    maximum_compare_and_write_length: u8,
    optimal_transfer_length_granularity: U16,
    maximum_transfer_length: U32,
    optimal_transfer_length: U32,
    maximum_prefetch_length: U32,
    unmap: UnmapLimits,
    maximum_write_same_length: U64,
    atomic: AtomicLimits,
}

/// COMPARE AND WRITE has no limit but that of its field, and of PRE-FETCH none is given.
///
/// OPTIMAL TRANSFER LENGTH is what Linux 6.1 sends at most, unless told otherwise, and half of what it reads ahead. With
/// 64 KiB, the kernel's default for backstores, what is long took two to four times as long. Of 1 MiB, the kernel's data area
/// of 1 GiB has room for 1,024, and each has at most 256 parts of a page, so that one system call moves them. It is a multiple
/// of every physical block there can be, and what partitions are aligned to anyway. Its granularity is that of the page cache.
fn block_limits(unit: &Unit<'_>) -> Vec<u8> {
    const PAGE_CACHE: u32 = 4096;
    const OPTIMAL_TRANSFER: u32 = 1 << 20;
    let geometry = unit.geometry;
    let granularity = geometry.blocks_in(PAGE_CACHE.max(geometry.physical_block_size()));
    let maximum_transfer = geometry.maximum_transfer().0;
    let limits = BlockLimits {
        wsnz: 0x01,
        maximum_compare_and_write_length: 0xff,
        optimal_transfer_length_granularity: u16::try_from(granularity).unwrap_or(0).into(),
        maximum_transfer_length: u32::try_from(maximum_transfer).unwrap_or(0).into(),
        optimal_transfer_length: geometry.blocks_in(OPTIMAL_TRANSFER).into(),
        maximum_prefetch_length: 0.into(),
        unmap: unit.provisioning.unmap_limits(geometry),
        maximum_write_same_length: MAXIMUM_WRITE_SAME.0.into(),
        atomic: geometry.atomic_limits(),
    };
    limits.as_bytes().to_vec()
}

/// Block Device Characteristics (SBC-3), of 64 bytes: MEDIUM ROTATION RATE 1, no rotation, or 0, which says nothing of a
/// medium whose rate nobody knows; FUAB=1, since FUA and SYNCHRONIZE CACHE mean the medium itself; VBULS=1, since VERIFY of
/// blocks that were given back is as good as of others.
fn block_device_characteristics(unit: &Unit<'_>) -> Vec<u8> {
    let mut content = vec![0; 0x3c];
    content[1] = u8::from(!unit.geometry.rotates()); // bytes 4 and 5 of the page: MEDIUM ROTATION RATE
    content[4] = 0x03; // byte 8: FUAB, VBULS
    content
}

/// Logical Block Provisioning (SBC-3), of 8 bytes.
fn logical_block_provisioning(unit: &Unit<'_>) -> Vec<u8> {
    unit.provisioning.vital_product_data(unit.geometry).to_vec()
}

/// ASCII data (SPC-4): the text, left-aligned, cut or filled up with spaces.
fn ascii<const LENGTH: usize>(text: &str) -> [u8; LENGTH] {
    let mut field = [b' '; LENGTH];
    for (byte, character) in field.iter_mut().zip(printable(text)) {
        *byte = character;
    }
    field
}

/// The text with anything that ASCII data must not hold (SPC-4: 20h to 7Eh only) made a question mark.
fn printable(text: &str) -> impl Iterator<Item = u8> + '_ {
    text.chars().map(|character| match character {
        ' '..='~' => u8::try_from(character).unwrap_or(b'?'),
        _ => b'?',
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scsi::Lba;

    /// A command that came through this port.
    fn of_port(own: Option<Port>) -> Ports<'static> {
        Ports { own, all: None }
    }

    fn page(code: u8) -> Vec<u8> {
        page_of(code, &Identity::new("serial-1"), None)
    }

    fn page_of(code: u8, identity: &Identity, port: Option<Port>) -> Vec<u8> {
        let geometry = Geometry::new(512, 1 << 20, 3).unwrap();
        vital_product_data(
            code,
            identity,
            &geometry,
            &Provisioning::Full,
            &of_port(port),
        )
        .unwrap()
    }

    /// A page of a unit of blocks of that size, from which space can be given back.
    fn page_of_thin(code: u8, block_size: u32, zeroes: bool) -> Vec<u8> {
        let geometry = Geometry::new(block_size, 1 << 20, 0).unwrap();
        let thin = Provisioning::Thin {
            zeroes,
            granularity: 65_536,
            alignment: 4096,
            figures: true,
            soft_threshold: None,
        };
        vital_product_data(
            code,
            &Identity::new("serial-1"),
            &geometry,
            &thin,
            &Ports::default(),
        )
        .unwrap()
    }

    /// A page of a fully provisioned disk of this geometry.
    fn page_of_disk(code: u8, geometry: &Geometry) -> Vec<u8> {
        let (identity, full) = (Identity::new("x"), Provisioning::Full);
        vital_product_data(code, &identity, geometry, &full, &Ports::default()).unwrap()
    }

    #[test]
    fn standard_data_names_the_disk_and_its_standards() {
        let mut expected = vec![
            0x00, 0x00, 0x06, 0x02, // connected disk, not removable, SPC-4, format 2
            0x5b, 0x08, 0x10, 0x02, // 91 more bytes; 3PC; MULTIP; CMDQUE
        ];
        expected.extend(b"LIO-ORG TCMU-PR DISK    0001");
        expected.extend([0; 22]); // vendor specific, reserved
        expected.extend([0x00, 0xa0, 0x04, 0x60, 0x04, 0xc0]); // SAM-5, SPC-4, SBC-3
        expected.resize(96, 0);
        assert_eq!(standard(&Identity::new("serial-1")), expected);
    }

    #[test]
    fn names_are_cut_and_only_ascii() {
        let identity = Identity {
            vendor: "A long vendor".into(),
            product: "Pröduct\n".into(),
            revision: String::new(),
            serial: String::new(),
        };
        assert_eq!(standard(&identity)[8..36], *b"A long vPr?duct?            ");
    }

    #[test]
    fn supported_pages_are_those_that_answer() {
        let expected = [
            0x00, 0x00, 0x00, 0x09, // page 00h, 9 more bytes
            0x00, 0x80, 0x83, 0x86, 0x87, 0x8f, 0xb0, 0xb1, 0xb2,
        ];
        assert_eq!(page(0x00), expected);
        let geometry = Geometry::new(512, 1, 0).unwrap();
        let refused = Err(Sense::invalid_field_in_cdb(Field::cdb(2)));
        for code in 0..=0xff {
            let answer = vital_product_data(
                code,
                &Identity::new("x"),
                &geometry,
                &Provisioning::Full,
                &Ports::default(),
            );
            match expected[4..].contains(&code) {
                true => assert_eq!(answer.unwrap()[1], code),
                false => assert_eq!(answer, refused),
            }
        }
    }

    #[test]
    fn serial_number_has_no_nul() {
        assert_eq!(page(0x80), *b"\x00\x80\x00\x08serial-1");
    }

    #[test]
    fn naa_is_made_of_company_and_hashed_serial() {
        // SHA-256("tcmu-prserial-1") begins a365713340ed8227ca24f9b635
        let expected = [
            0x60, 0x01, 0x40, 0x5a, 0x36, 0x57, 0x13, 0x34, 0x0e, 0xd8, 0x22, 0x7c, 0xa2, 0x4f,
            0x9b, 0x63,
        ];
        assert_eq!(Identity::new("serial-1").naa(), expected);
        assert_ne!(Identity::new("serial-2").naa(), expected);
    }

    #[test]
    fn device_identification_has_naa_then_t10_vendor() {
        let mut expected = vec![
            0x00, 0x83, 0x00, 0x38, // page 83h, 56 more bytes
            0x01, 0x03, 0x00, 0x10, // binary, unit, NAA, 16 bytes
        ];
        expected.extend(Identity::new("serial-1").naa());
        expected.extend([0x02, 0x01, 0x00, 0x20]); // ASCII, unit, T10 vendor ID, 32 bytes
        expected.extend(b"LIO-ORG TCMU-PR DISK    serial-1");
        assert_eq!(page(0x83), expected);
    }

    #[test]
    fn device_identification_names_the_port_that_is_known() {
        let port = Port {
            relative: RelativeTargetPort(0x0102),
            protocol: Protocol::Iscsi,
        };
        let identity = Identity::new("serial-1");
        let page = page_of(0x83, &identity, Some(port));
        let (unit, port) = page.split_at(60);
        assert_eq!(unit[2..4], [0x00, 0x40]); // 64 more bytes
        assert_eq!(unit[4..], page_of(0x83, &identity, None)[4..]);
        let expected = [
            0x51, 0x94, 0x00, 0x04, // iSCSI, binary; PIV, port, relative target port; 4 bytes
            0x00, 0x00, 0x01, 0x02, // port 258
        ];
        assert_eq!(port, expected);
    }

    #[test]
    fn a_serial_too_long_for_the_t10_vendor_designator_is_left_out() {
        let longest = page_of(0x83, &Identity::new("x".repeat(231)), None);
        assert_eq!(longest[24..28], [0x02, 0x01, 0x00, 0xff]);
        let longer = page_of(0x83, &Identity::new("x".repeat(232)), None);
        assert_eq!(longer.len(), 4 + 20);
        assert_eq!(longer[2..4], [0x00, 0x14]);
    }

    #[test]
    fn extended_inquiry_data_claims_simple_and_a_volatile_cache() {
        let mut expected = vec![
            0x00, 0x86, 0x00, 0x3c, // page 86h, 60 more bytes
            0x00, 0x01, 0x01, 0x00, // no protection; SIMPSUP; V_SUP
        ];
        expected.resize(64, 0);
        assert_eq!(page(0x86), expected);
    }

    #[test]
    fn mode_pages_are_shared() {
        assert_eq!(page(0x87), [0x00, 0x87, 0x00, 0x04, 0x3f, 0xff, 0x00, 0x00]);
    }

    #[test]
    fn block_limits_are_in_blocks() {
        let mut expected = vec![
            0x00, 0xb0, 0x00, 0x3c, // page B0h, 60 more bytes
            0x01, 0xff, // WSNZ; COMPARE AND WRITE of up to 255 blocks
            0x00, 0x08, // OPTIMAL TRANSFER LENGTH GRANULARITY: 4 KiB
            0x00, 0x00, 0x40, 0x00, // MAXIMUM TRANSFER LENGTH: 8 MiB
            0x00, 0x00, 0x08, 0x00, // OPTIMAL TRANSFER LENGTH: 1 MiB
        ];
        expected.resize(36, 0); // no PRE-FETCH, UNMAP
        expected.extend([0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x00]); // WRITE SAME
        expected.resize(64, 0); // no WRITE ATOMIC
        assert_eq!(page(0xb0), expected);

        let large = page_of_thin(0xb0, 4096, true);
        let expected = [
            0x00, 0x01, // granularity
            0x00, 0x00, 0x08, 0x00, // maximum
            0x00, 0x00, 0x01, 0x00, // optimal
        ];
        assert_eq!(large[6..16], expected);
    }

    #[test]
    fn no_less_than_a_physical_block_is_best() {
        let geometry = Geometry::new(512, 1 << 20, 0).unwrap();
        for (physical, expected) in [(512, [0x00, 0x08]), (65_536, [0x00, 0x80])] {
            let geometry = geometry.with_physical_blocks(physical, Lba(0)).unwrap();
            let page = page_of_disk(0xb0, &geometry);
            assert_eq!(page[6..8], expected);
        }
    }

    #[test]
    fn block_limits_tell_how_to_unmap_where_that_is_served() {
        for zeroes in [true, false] {
            let expected = [
                0x00, 0x10, 0x00, 0x00, // MAXIMUM UNMAP LBA COUNT: 1 Mi blocks
                0x00, 0x00, 0x01, 0x00, // MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT: 256
                0x00, 0x00, 0x00, 0x80, // OPTIMAL UNMAP GRANULARITY: 64 KiB
                0x80, 0x00, 0x00, 0x08, // UGAVALID, UNMAP GRANULARITY ALIGNMENT: 4 KiB
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x00, // MAXIMUM WRITE SAME LENGTH
            ];
            assert_eq!(page_of_thin(0xb0, 512, zeroes)[20..44], expected);
        }
        let expected = [
            0x00, 0x10, 0x00, 0x00, // as many, if larger, blocks
            0x00, 0x00, 0x01, 0x00, // as many descriptors
            0x00, 0x00, 0x00, 0x10, // 64 KiB
            0x80, 0x00, 0x00, 0x01, // UGAVALID, 4 KiB
        ];
        assert_eq!(page_of_thin(0xb0, 4096, true)[20..36], expected);
    }

    #[test]
    fn block_limits_tell_how_to_write_atomically_where_that_is_served() {
        let geometry = Geometry::new(512, 1 << 20, 0).unwrap();
        let geometry = geometry.writing_atomically(16_384);
        let page = page_of_disk(0xb0, &geometry);
        let mut expected = vec![
            0x00, 0x00, 0x00, 0x20, // MAXIMUM ATOMIC TRANSFER LENGTH: 16 KiB
            0x00, 0x00, 0x00, 0x20, // ATOMIC ALIGNMENT
            0x00, 0x00, 0x00, 0x20, // ATOMIC TRANSFER LENGTH GRANULARITY
        ];
        expected.resize(20, 0); // no boundary
        assert_eq!(page[44..], expected);
    }

    #[test]
    fn a_thin_unit_tells_what_gives_blocks_back() {
        let expected = [
            0x00, 0xb2, 0x00, 0x04, // page B2h, 4 more bytes
            0x0b, // THRESHOLD EXPONENT: sets of 2,048 blocks
            0xe4, // LBPU, LBPWS, LBPWS10, LBPRZ=001b, ANC_SUP=0, DP=0
            0x02, // PROVISIONING TYPE: thin
            0x00,
        ];
        assert_eq!(page_of_thin(0xb2, 512, true), expected);
        // LBPU alone, where what is given back may read as anything.
        assert_eq!(
            page_of_thin(0xb2, 512, false)[4..],
            [0x0b, 0x80, 0x02, 0x00]
        );
    }

    #[test]
    fn the_medium_does_not_rotate() {
        let mut expected = vec![
            0x00, 0xb1, 0x00, 0x3c, // page B1h, 60 more bytes
            0x00, 0x01, 0x00, 0x00, // MEDIUM ROTATION RATE: none; form factor not reported
            0x03, // FUAB, VBULS
        ];
        expected.resize(64, 0);
        assert_eq!(page(0xb1), expected);
    }

    #[test]
    fn of_a_medium_that_rotates_no_rate_is_told() {
        let geometry = Geometry::new(512, 1 << 20, 0).unwrap().rotating();
        let page = page_of_disk(0xb1, &geometry);
        assert_eq!(page[4..6], [0x00, 0x00]); // MEDIUM ROTATION RATE: not reported
        assert_eq!(page[8], 0x03); // FUAB, VBULS
    }

    #[test]
    fn the_unit_is_fully_provisioned() {
        let expected = [
            0x00, 0xb2, 0x00, 0x04, // page B2h, 4 more bytes
            0x00, 0x00, 0x00,
            0x00, // no threshold; LBPU, LBPWS, LBPWS10 = 0; PROVISIONING TYPE 0
        ];
        assert_eq!(page(0xb2), expected);
    }

    proptest! {
        #[test]
        fn no_identity_makes_it_panic(
            names in any::<[String; 4]>(), code: u8, relative in any::<Option<u16>>(),
        ) {
            let [vendor, product, revision, serial] = names;
            let identity = Identity { vendor, product, revision, serial };
            prop_assert_eq!(standard(&identity).len(), 96);
            let port = relative.map(|relative| Port {
                relative: RelativeTargetPort(relative),
                protocol: Protocol::Srp,
            });
            let geometry = Geometry::new(4096, 1, 0).unwrap();
            let thin = Provisioning::Thin { zeroes: true, granularity: 4096, alignment: 0, figures: true, soft_threshold: None };
            if let Ok(page) = vital_product_data(code, &identity, &geometry, &thin, &of_port(port)) {
                let length = usize::from(u16::from_be_bytes([page[2], page[3]]));
                prop_assert_eq!(page.len(), 4 + length);
            }
        }
    }

    #[test]
    fn an_endless_serial_is_cut_where_the_page_length_ends() {
        let page = page_of(0x80, &Identity::new("x".repeat(70_000)), None);
        assert_eq!(page.len(), 4 + 0xffff);
        assert_eq!(page[2..4], [0xff, 0xff]);
    }
}
