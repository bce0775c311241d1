//! Sense data: what CHECK CONDITION status means (SPC-4, sense data).
//!
//! One constructor per condition, named as T10 names it, so that a sense key, ASC and ASCQ stand together
//! in one place only.

use serde::{Deserialize, Serialize};

/// The length of an encoded sense data buffer; what is not used is zero. The kernel copies this many bytes.
pub const SENSE_LENGTH: usize = 96;

/// Sense key (SPC-4, sense key values).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum SenseKey {
    /// Nothing to report.
    NoSense = 0x0,
    /// The logical unit cannot be accessed.
    NotReady = 0x2,
    /// An error of the medium.
    MediumError = 0x3,
    /// An error of the device.
    HardwareError = 0x4,
    /// The command or its parameters were wrong.
    IllegalRequest = 0x5,
    /// Something happened that the initiator must know of.
    UnitAttention = 0x6,
    /// The medium is protected.
    DataProtect = 0x7,
    /// A third-party copy ended before its end.
    CopyAborted = 0xa,
    /// A comparison failed.
    Miscompare = 0xe,
}

/// Which field was wrong: the field pointer of sense-key specific data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field {
    part: Part,
    byte: u16,
    bit: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Part {
    Cdb,
    ParameterList,
}

impl Field {
    /// The field of the CDB that begins at `byte`, bit 7 or as a whole.
    pub const fn cdb(byte: u16) -> Field {
        Field {
            part: Part::Cdb,
            byte,
            bit: None,
        }
    }

    /// The field of the CDB whose most significant bit is `bit` of `byte`.
    pub const fn cdb_bit(byte: u16, bit: u8) -> Field {
        Field {
            part: Part::Cdb,
            byte,
            bit: Some(bit),
        }
    }

    /// The field of the parameter list that begins at `byte`.
    pub const fn parameter(byte: u16) -> Field {
        Field {
            part: Part::ParameterList,
            byte,
            bit: None,
        }
    }

    /// The field of the parameter list whose most significant bit is `bit` of `byte`.
    pub const fn parameter_bit(byte: u16, bit: u8) -> Field {
        Field {
            part: Part::ParameterList,
            byte,
            bit: Some(bit),
        }
    }

    /// The three bytes of sense-key specific data: SKSV, C/D, BPV and bit pointer; field pointer.
    fn encode(self) -> [u8; 3] {
        let command = if self.part == Part::Cdb { 0x40 } else { 0 };
        let bit = self.bit.map_or(0, |bit| 0x08 | (bit & 0x07));
        let [high, low] = self.byte.to_be_bytes();
        [0x80 | command | bit, high, low]
    }
}

/// Fixed or descriptor format (D_SENSE of the Control mode page).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Response code 70h.
    Fixed,
    /// Response code 72h.
    Descriptor,
}

/// One condition, ready to be encoded in either format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sense {
    key: SenseKey,
    additional: (u8, u8),
    field: Option<Field>,
    information: Option<u64>,
    command_specific: Option<[u8; 4]>,
}

macro_rules! conditions {
    ($($(#[$doc:meta])+ $name:ident = $key:ident, $asc:literal, $ascq:literal;)+) => {
        impl Sense {
            $($(#[$doc])+
            pub const fn $name() -> Sense {
                Sense::new(SenseKey::$key, $asc, $ascq)
            })+
        }
    };
}

conditions! {
    /// NO ADDITIONAL SENSE INFORMATION.
    no_additional_sense_information = NoSense, 0x00, 0x00;
    /// LOGICAL UNIT IS IN PROCESS OF BECOMING READY.
    becoming_ready = NotReady, 0x04, 0x01;
    /// LOGICAL UNIT NOT READY, MANUAL INTERVENTION REQUIRED.
    manual_intervention_required = NotReady, 0x04, 0x03;
    /// LOGICAL UNIT COMMUNICATION FAILURE: the backing object cannot be reached; hosts try another path.
    logical_unit_communication_failure = NotReady, 0x08, 0x00;
    /// WRITE ERROR.
    write_error = MediumError, 0x0c, 0x00;
    /// UNRECOVERED READ ERROR.
    unrecovered_read_error = MediumError, 0x11, 0x00;
    /// INTERNAL TARGET FAILURE.
    internal_target_failure = HardwareError, 0x44, 0x00;
    /// INVALID FIELD IN COMMAND INFORMATION UNIT: the data-out does not have the length that the CDB asks for.
    invalid_field_in_command_information_unit = IllegalRequest, 0x0e, 0x03;
    /// PARAMETER LIST LENGTH ERROR.
    parameter_list_length_error = IllegalRequest, 0x1a, 0x00;
    /// INVALID COMMAND OPERATION CODE.
    invalid_command_operation_code = IllegalRequest, 0x20, 0x00;
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    logical_block_address_out_of_range = IllegalRequest, 0x21, 0x00;
    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    invalid_release_of_persistent_reservation = IllegalRequest, 0x26, 0x04;
    /// TOO MANY TARGET DESCRIPTORS, which are CSCD descriptors by now.
    too_many_target_descriptors = IllegalRequest, 0x26, 0x06;
    /// UNSUPPORTED TARGET DESCRIPTOR TYPE CODE.
    unsupported_target_descriptor_type_code = IllegalRequest, 0x26, 0x07;
    /// TOO MANY SEGMENT DESCRIPTORS.
    too_many_segment_descriptors = IllegalRequest, 0x26, 0x08;
    /// UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE.
    unsupported_segment_descriptor_type_code = IllegalRequest, 0x26, 0x09;
    /// INLINE DATA LENGTH EXCEEDED.
    inline_data_length_exceeded = IllegalRequest, 0x26, 0x0b;
    /// INSUFFICIENT REGISTRATION RESOURCES.
    insufficient_registration_resources = IllegalRequest, 0x55, 0x04;
    /// POWER ON OCCURRED.
    power_on_occurred = UnitAttention, 0x29, 0x01;
    /// BUS DEVICE RESET FUNCTION OCCURRED: what LOGICAL UNIT RESET establishes.
    bus_device_reset_function_occurred = UnitAttention, 0x29, 0x03;
    /// MODE PARAMETERS CHANGED.
    mode_parameters_changed = UnitAttention, 0x2a, 0x01;
    /// RESERVATIONS PREEMPTED.
    reservations_preempted = UnitAttention, 0x2a, 0x03;
    /// RESERVATIONS RELEASED.
    reservations_released = UnitAttention, 0x2a, 0x04;
    /// REGISTRATIONS PREEMPTED.
    registrations_preempted = UnitAttention, 0x2a, 0x05;
    /// CAPACITY DATA HAS CHANGED.
    capacity_data_has_changed = UnitAttention, 0x2a, 0x09;
    /// INQUIRY DATA HAS CHANGED.
    inquiry_data_has_changed = UnitAttention, 0x3f, 0x03;
    /// WRITE PROTECTED.
    write_protected = DataProtect, 0x27, 0x00;
    /// LOGICAL UNIT SOFTWARE WRITE PROTECTED.
    logical_unit_software_write_protected = DataProtect, 0x27, 0x02;
    /// SPACE ALLOCATION FAILED WRITE PROTECT.
    space_allocation_failed_write_protect = DataProtect, 0x27, 0x07;
    /// COPY TARGET DEVICE NOT REACHABLE: what a segment names can't be copied from or to.
    copy_target_device_not_reachable = CopyAborted, 0x0d, 0x02;
    /// UNEXPECTED INEXACT SEGMENT: what a segment moves is no whole number of blocks.
    unexpected_inexact_segment = CopyAborted, 0x26, 0x0a;
    /// MISCOMPARE DURING VERIFY OPERATION.
    miscompare_during_verify_operation = Miscompare, 0x1d, 0x00;
}

impl Sense {
    /// Every unit attention condition that there is here.
    pub const UNIT_ATTENTIONS: [Sense; 9] = [
        Sense::power_on_occurred(),
        Sense::bus_device_reset_function_occurred(),
        Sense::mode_parameters_changed(),
        Sense::reservations_preempted(),
        Sense::reservations_released(),
        Sense::registrations_preempted(),
        Sense::capacity_data_has_changed(),
        Sense::thin_provisioning_soft_threshold_reached(),
        Sense::inquiry_data_has_changed(),
    ];

    const fn new(key: SenseKey, asc: u8, ascq: u8) -> Sense {
        Sense {
            key,
            additional: (asc, ascq),
            field: None,
            information: None,
            command_specific: None,
        }
    }

    /// THIN PROVISIONING SOFT THRESHOLD REACHED. INFORMATION is where the threshold stands in the Logical Block Provisioning
    /// mode page (SBC-4).
    pub const fn thin_provisioning_soft_threshold_reached() -> Sense {
        Sense::new(SenseKey::UnitAttention, 0x38, 0x07).with_information(16)
    }

    /// INVALID FIELD IN CDB, pointing at the field.
    pub const fn invalid_field_in_cdb(field: Field) -> Sense {
        Sense {
            field: Some(field),
            ..Sense::new(SenseKey::IllegalRequest, 0x24, 0x00)
        }
    }

    /// INVALID FIELD IN PARAMETER LIST, pointing at the field.
    pub const fn invalid_field_in_parameter_list(field: Field) -> Sense {
        Sense {
            field: Some(field),
            ..Sense::new(SenseKey::IllegalRequest, 0x26, 0x00)
        }
    }

    /// The same condition with its INFORMATION field set, e.g. to the first bad logical block address.
    pub const fn with_information(self, information: u64) -> Sense {
        Sense {
            information: Some(information),
            ..self
        }
    }

    /// The same condition of a third-party copy, with its COMMAND-SPECIFIC INFORMATION field set: the third and fourth
    /// byte hold the number of the segment that was being processed (SPC-4, errors while segments are processed).
    pub const fn of_segment(self, number: u16) -> Sense {
        let [high, low] = number.to_be_bytes();
        Sense {
            command_specific: Some([0, 0, high, low]),
            ..self
        }
    }

    /// The sense key.
    pub const fn key(&self) -> SenseKey {
        self.key
    }

    /// ASC and ASCQ.
    pub const fn additional(&self) -> (u8, u8) {
        self.additional
    }

    /// The sense data as it goes to the initiator, and how many of its bytes are meant.
    ///
    /// Fixed format is 18 bytes, descriptor format 8 and its descriptors. INFORMATION is left out of the
    /// fixed format when it does not fit in its 32 bits.
    pub fn encode(&self, format: Format) -> ([u8; SENSE_LENGTH], usize) {
        let mut bytes = [0; SENSE_LENGTH];
        let length = match format {
            Format::Fixed => self.encode_fixed(&mut bytes),
            Format::Descriptor => self.encode_descriptors(&mut bytes),
        };
        (bytes, length)
    }

    fn encode_fixed(&self, bytes: &mut [u8; SENSE_LENGTH]) -> usize {
        bytes[0] = 0x70;
        bytes[2] = self.key as u8;
        if let Some(information) = self.information.and_then(|value| u32::try_from(value).ok()) {
            bytes[0] |= 0x80;
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        bytes[7] = 10;
        if let Some(command_specific) = self.command_specific {
            bytes[8..12].copy_from_slice(&command_specific);
        }
        (bytes[12], bytes[13]) = self.additional;
        if let Some(field) = self.field {
            bytes[15..18].copy_from_slice(&field.encode());
        }
        18
    }

    fn encode_descriptors(&self, bytes: &mut [u8; SENSE_LENGTH]) -> usize {
        bytes[0] = 0x72;
        bytes[1] = self.key as u8;
        (bytes[2], bytes[3]) = self.additional;
        let mut end = 8;
        if let Some(information) = self.information {
            bytes[end..end + 4].copy_from_slice(&[0x00, 0x0a, 0x80, 0x00]);
            bytes[end + 4..end + 12].copy_from_slice(&information.to_be_bytes());
            end += 12;
        }
        if let Some(command_specific) = self.command_specific {
            bytes[end..end + 4].copy_from_slice(&[0x01, 0x0a, 0x00, 0x00]);
            bytes[end + 4..end + 8].copy_from_slice(&command_specific);
            end += 12;
        }
        if let Some(field) = self.field {
            bytes[end..end + 4].copy_from_slice(&[0x02, 0x06, 0x00, 0x00]);
            bytes[end + 4..end + 7].copy_from_slice(&field.encode());
            end += 8;
        }
        bytes[7] = u8::try_from(end - 8).expect("three descriptors are 32 bytes");
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_format_points_at_the_wrong_field_of_the_cdb() {
        let (bytes, length) =
            Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4)).encode(Format::Fixed);
        let expected = [
            0x70, 0, 0x05, 0, 0, 0, 0, 0x0a, // current, ILLEGAL REQUEST, 10 more bytes
            0, 0, 0, 0, 0x24, 0x00, 0, // INVALID FIELD IN CDB
            0xcc, 0x00, 0x01, // SKSV, C/D, BPV, bit 4; byte 1
        ];
        assert_eq!(length, 18);
        assert_eq!(bytes[..18], expected);
        assert!(bytes[18..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn descriptor_format_points_at_the_wrong_field_of_the_parameter_list() {
        let (bytes, length) =
            Sense::invalid_field_in_parameter_list(Field::parameter(8)).encode(Format::Descriptor);
        let expected = [
            0x72, 0x05, 0x26, 0x00, 0, 0, 0, 8, // current, ILLEGAL REQUEST, one descriptor
            0x02, 0x06, 0, 0, 0x80, 0x00, 0x08, 0, // SKSV; byte 8
        ];
        assert_eq!(length, 16);
        assert_eq!(bytes[..16], expected);
    }

    #[test]
    fn information_is_valid_in_fixed_format_only_if_it_fits() {
        let fits = Sense::unrecovered_read_error().with_information(0x1234_5678);
        assert_eq!(
            fits.encode(Format::Fixed).0[..8],
            [0xf0, 0, 0x03, 0x12, 0x34, 0x56, 0x78, 0x0a]
        );
        let large = Sense::unrecovered_read_error().with_information(0x1_0000_0000);
        assert_eq!(
            large.encode(Format::Fixed).0[..8],
            [0x70, 0, 0x03, 0, 0, 0, 0, 0x0a]
        );
        let expected = [
            0x72, 0x03, 0x11, 0x00, 0, 0, 0, 12, // MEDIUM ERROR, UNRECOVERED READ ERROR
            0x00, 0x0a, 0x80, 0x00, 0, 0, 0, 1, 0, 0, 0, 0, // INFORMATION
        ];
        assert_eq!(large.encode(Format::Descriptor).0[..20], expected);
    }

    #[test]
    fn a_failed_segment_is_told_in_command_specific_information() {
        let sense = Sense::copy_target_device_not_reachable().of_segment(0x0102);
        let expected = [
            0x70, 0, 0x0a, 0, 0, 0, 0, 0x0a, // current, COPY ABORTED, 10 more bytes
            0, 0, 0x01, 0x02, 0x0d, 0x02, // segment 258; COPY TARGET DEVICE NOT REACHABLE
        ];
        assert_eq!(sense.encode(Format::Fixed).0[..14], expected);
        let expected = [
            0x72, 0x0a, 0x0d, 0x02, 0, 0, 0, 12, // current, one descriptor
            0x01, 0x0a, 0, 0, 0, 0, 0x01, 0x02, 0, 0, 0, 0, // COMMAND-SPECIFIC INFORMATION
        ];
        assert_eq!(sense.encode(Format::Descriptor).0[..20], expected);
    }
}
