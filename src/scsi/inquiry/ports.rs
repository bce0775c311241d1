//! SCSI Ports VPD page (SPC-4): the target ports through which the unit is reached.

use super::{Unit, designator};
use crate::scsi::nexus::{Protocol, RelativeTargetPort, TargetPort};

const BINARY: u8 = 0x1;
const UTF_8: u8 = 0x3;
/// PIV=1: the designator's port has a protocol.
const PIV: u8 = 0x80;
/// ASSOCIATION 01b: the target port.
const OF_PORT: u8 = 0x10;
const EUI_64: u8 = 0x2;
const NAA: u8 = 0x3;
const SCSI_NAME_STRING: u8 = 0x8;

/// The ports of a unit, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ports<'a> {
    /// The one that the command came through.
    pub own: Option<super::Port>,
    /// All of them, ascending by relative target port identifier. There is no page about a part of them.
    pub all: Option<&'a [(RelativeTargetPort, TargetPort)]>,
}

/// A SCSI port designation descriptor for each port: bytes 2 and 3 RELATIVE PORT IDENTIFIER, 6 and 7 the length of an
/// initiator port TransportID, which a target port has none of, 10 and 11 the length of what follows, 12– target port
/// descriptors, which are designators.
pub(super) fn scsi_ports(unit: &Unit<'_>) -> Vec<u8> {
    let ports = unit.ports.all.unwrap_or_default().iter();
    ports
        .flat_map(|(relative, port)| {
            let name = name(port);
            let length = u16::try_from(name.len()).unwrap_or(0);
            let [high, low] = relative.0.to_be_bytes();
            let [length_high, length_low] = length.to_be_bytes();
            let head = [0, 0, high, low, 0, 0, 0, 0, 0, 0, length_high, length_low];
            [&head, name.as_slice()].concat()
        })
        .collect()
}

/// The name of a port as a designator; nothing if it has none that a designator can hold.
fn name(port: &TargetPort) -> Vec<u8> {
    let of_type = |code_set, kind, name: &[u8]| {
        let protocol = (port.protocol as u8) << 4;
        designator(protocol | code_set, PIV | OF_PORT | kind, name)
    };
    if port.protocol == Protocol::Iscsi {
        // Ended with a NUL, and filled up to a multiple of four bytes.
        let mut name = port.name.as_bytes().to_vec();
        name.resize(name.len() / 4 * 4 + 4, 0);
        return of_type(UTF_8, SCSI_NAME_STRING, &name);
    }
    let number = port
        .name
        .trim_start_matches("naa.")
        .trim_start_matches("0x");
    let digits = number.replace([':', '-'], "");
    let number = u128::from_str_radix(&digits, 16).ok();
    match (digits.len(), number) {
        (16, Some(number)) => of_type(BINARY, NAA, &number.to_be_bytes()[8..]),
        (32, Some(number)) => of_type(BINARY, EUI_64, &number.to_be_bytes()),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::capacity::Geometry;
    use crate::scsi::inquiry::{Identity, vital_product_data};
    use crate::scsi::provisioning::Provisioning;

    fn page(code: u8, all: Option<&[(RelativeTargetPort, TargetPort)]>) -> Option<Vec<u8>> {
        let geometry = Geometry::new(512, 1 << 20, 0).unwrap();
        let identity = Identity::new("serial-1");
        let ports = Ports { own: None, all };
        vital_product_data(code, &identity, &geometry, &Provisioning::Full, &ports).ok()
    }

    fn port(relative: u16, protocol: Protocol, name: &str) -> (RelativeTargetPort, TargetPort) {
        let name = name.into();
        (RelativeTargetPort(relative), TargetPort { protocol, name })
    }

    #[test]
    fn an_iscsi_port_is_named_by_a_string() {
        let ports = [port(1, Protocol::Iscsi, "iqn.2026-11.example:t,t,0x0001")];
        let mut expected = vec![
            0x00, 0x88, 0x00, 0x30, // page 88h, 48 more bytes
            0, 0, 0x00, 0x01, // RELATIVE PORT IDENTIFIER
            0, 0, 0x00, 0x00, // no TransportID
            0, 0, 0x00, 0x24, // 36 bytes of target port descriptors
            0x53, 0x98, 0x00,
            0x20, // iSCSI, UTF-8; PIV, target port, SCSI name string; 32 bytes
        ];
        expected.extend(b"iqn.2026-11.example:t,t,0x0001\0\0");
        assert_eq!(page(0x88, Some(&ports)), Some(expected));
    }

    #[test]
    fn a_name_that_fills_its_words_is_ended_with_four_nuls() {
        let ports = [port(2, Protocol::Iscsi, "iqn.2026-11.exampl:t,t,0x001")];
        let page = page(0x88, Some(&ports)).unwrap();
        assert_eq!(page[19], 32, "28 characters");
        assert_eq!(page[44..], *b"x001\0\0\0\0");
    }

    #[test]
    fn other_ports_are_named_by_numbers() {
        let eight = [0x50, 0x01, 0x40, 0x5a, 0, 0, 0, 0x01];
        for (protocol, name, first) in [
            (Protocol::Sas, "naa.5001405a00000001", 0x61),
            (Protocol::FibreChannel, "50:01:40:5a:00:00:00:01", 0x01),
        ] {
            let page = page(0x88, Some(&[port(0x0102, protocol, name)])).unwrap();
            let mut expected = vec![
                0x00, 0x88, 0x00, 0x18, 0, 0, 0x01, 0x02, 0, 0, 0, 0, 0, 0, 0x00, 0x0c,
            ];
            expected.extend([first, 0x93, 0x00, 0x08]); // binary; PIV, target port, NAA; 8 bytes
            expected.extend(eight);
            assert_eq!(page, expected);
        }
        let srp = port(1, Protocol::Srp, "0xfe800000000000000002c90300000001");
        let page = page(0x88, Some(&[srp])).unwrap();
        assert_eq!(page[16..20], [0x41, 0x92, 0x00, 0x10]); // binary; PIV, target port, EUI-64 based
        assert_eq!(page[20..22], [0xfe, 0x80]);
    }

    #[test]
    fn a_port_whose_name_is_no_number_is_listed_without_it() {
        let ports = [
            port(1, Protocol::Sas, "odd"),
            port(3, Protocol::Sas, "naa.5001405a00000001"),
        ];
        let page = page(0x88, Some(&ports)).unwrap();
        assert_eq!(page[4..16], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(page[16..20], [0, 0, 0, 3]);
    }

    #[test]
    fn there_is_no_page_unless_all_ports_are_known() {
        assert_eq!(page(0x88, None), None);
        let listed = |all| page(0x00, all).unwrap().contains(&0x88);
        assert!(!listed(None));
        assert!(listed(Some(&[])));
    }
}
