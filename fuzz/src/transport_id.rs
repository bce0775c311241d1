//! TransportIDs: bytes, and text, that name an initiator port or do not.

use tcmu_pr::scsi::nexus::{ParseError, Protocol, TransportId};

/// Takes `data` for a TransportID, and for the name of an iSCSI port.
pub fn run(data: &[u8]) {
    check_bytes(data);
    if let Ok(text) = std::str::from_utf8(data) {
        check_text(text);
    }
}

fn check_bytes(data: &[u8]) {
    let Ok((id, length)) = TransportId::parse(data) else {
        return;
    };
    assert!(length >= 24 && length % 4 == 0 && length <= data.len());
    assert_eq!(id.protocol() as u8, data[0] & 0x0f);
    let (bytes, _beyond) = data.split_at(length);
    assert_eq!(TransportId::parse(bytes), Ok((id.clone(), length)));
    for cut in 0..length {
        assert_eq!(
            TransportId::parse(&bytes[..cut]),
            Err(ParseError::Truncated)
        );
    }
    assert_eq!(
        TransportId::parse(&with_other_reserved_bits(bytes)),
        Ok((id.clone(), length))
    );
    check_id(&id);
}

/// The same TransportID with everything inverted that stands for nothing.
fn with_other_reserved_bits(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let reserved = match bytes[0] & 0x0f {
        // Fibre Channel and SBP
        0x0 | 0x3 => [1..8, 16..24],
        // SRP
        0x4 => [1..8, 0..0],
        // iSCSI: the padding begins with the NUL that ends the text.
        0x5 => {
            let text = bytes[4..].iter().position(|&byte| byte == 0);
            let padding = 4 + text.expect("a NUL ends the text") + 1;
            [1..2, padding..bytes.len()]
        }
        // SAS
        _ => [1..4, 12..24],
    };
    bytes[0] ^= 0x30;
    for byte in reserved.into_iter().flatten() {
        bytes[byte] ^= 0xff;
    }
    bytes
}

fn check_text(text: &str) {
    let Ok(id) = TransportId::from_iscsi_port_name(text) else {
        return;
    };
    check_id(&id);
    // The case of a name does not matter.
    let separator = text.find(",i,0x").unwrap_or(text.len());
    let (name, isid) = text.split_at(separator);
    let name = name.to_ascii_uppercase();
    assert_eq!(
        TransportId::from_iscsi_port_name(&format!("{name}{isid}")),
        Ok(id)
    );
}

/// What holds of every TransportID, wherever it came from.
fn check_id(id: &TransportId) {
    let bytes = id.encode();
    assert!((24..=248).contains(&bytes.len()) && bytes.len() % 4 == 0);
    assert_eq!(TransportId::parse(&bytes), Ok((id.clone(), bytes.len())));
    if id.protocol() == Protocol::Iscsi {
        let text = id.to_string();
        assert_eq!(
            TransportId::from_iscsi_port_name(&text).as_ref(),
            Ok(id),
            "{text}"
        );
    }
    let sent = serde_json::to_string(id).expect("numbers and strings");
    assert_eq!(
        serde_json::from_str::<TransportId>(&sent).ok().as_ref(),
        Some(id)
    );
}
