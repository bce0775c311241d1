//! The commands that a logical unit serves: one table, one [`Row`] per command, and nothing about a
//! command anywhere else. The decoder, the reservation gate, unit attentions, REPORT SUPPORTED OPERATION
//! CODES, log names and docs/scsi.md read it, so they cannot disagree.
//!
//! A command is looked up with [`find`] before anything of it is judged but its operation code and service
//! action: whether a reservation shuts it out is up to [`Row::access_of`] alone, and RESERVATION CONFLICT goes
//! before what [`Row::decode`] finds wrong in the fields (SAM-5, status precedence).

use std::cmp::Reverse;
use std::fmt::Write;

use super::cdb::block::{self, provisioning};
use super::cdb::{self, Command, copy, primary};
use super::features::{Feature, Features};
use super::sense::{Field, Sense};
use super::{Access, DataDirection};

/// One command: all there is to know about it without its CDB.
#[derive(Debug)]
pub struct Row {
    /// Its name, as T10 writes it.
    pub name: &'static str,
    /// CDB usage data (SPC-4, REPORT SUPPORTED OPERATION CODES, one_command parameter data): byte 0 is the
    /// operation code; the SERVICE ACTION field holds the service action; any other bit is 1 where a bit of
    /// the CDB is evaluated and served. It is as long as the CDB is.
    pub usage: &'static [u8],
    /// Whether bits 4 to 0 of byte 1 hold a service action.
    pub has_service_action: bool,
    /// Fields that must be 0, since they ask for something we would not do. The first that is not is what
    /// the sense data points at. NACA is in no row: every command refuses it.
    pub refuse: &'static [Bits],
    /// What a unit must have to serve it, if not every unit does.
    pub needs: Option<Feature>,
    /// A field of `usage` that only a unit with that feature serves; others refuse it.
    pub optional: Option<(Feature, Bits)>,
    /// Which way its data goes.
    pub direction: DataDirection,
    /// What it asks of a reservation, in every form but `free`.
    pub access: Access,
    /// The form of it that asks nothing of a reservation, if there is one.
    pub free: Option<FreeForm>,
    /// What it does with a pending unit attention condition.
    pub attention: Attention,
    /// What it does to the medium.
    pub media: Media,
    /// RECOMMENDED COMMAND TIMEOUT in seconds; 0 recommends none (SPC-4, command timeouts descriptor).
    pub recommended_timeout_s: u32,
    decode: fn(&[u8]) -> Result<Command, Sense>,
}

/// A field of a CDB, within one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// The byte it is in.
    pub byte: u16,
    /// Its bits.
    pub mask: u8,
}

/// The form of a command that any reservation lets through, although it shuts out the others: a part of one byte
/// has a certain value.
#[derive(Debug)]
pub struct FreeForm {
    /// Which fields make it that, and how, for docs/scsi.md.
    pub name: &'static str,
    /// The part of the byte that tells.
    pub bits: Bits,
    /// What stands in it.
    pub value: u8,
}

/// What a command does with a pending unit attention condition (SPC-4 and SAM-5, unit attention conditions).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// It is not performed: it reports the condition with CHECK CONDITION status, and clears it.
    Report,
    /// It is performed, and leaves the condition as it is.
    PassBy,
    /// It is performed: it reports the condition as its data with GOOD status, and clears it.
    AsData,
}

/// What a command does to the medium, and so which states of it stand in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Nothing.
    None,
    /// Reads it.
    Read,
    /// Changes it: refused when it is write protected.
    Write,
    /// Makes it durable.
    Sync,
}

/// Looks up the command of a CDB by its operation code and service action, whatever else is in it, on a unit with
/// those features.
///
/// # Errors
/// INVALID COMMAND OPERATION CODE for one of which nothing is served. INVALID FIELD IN CDB, pointing at
/// SERVICE ACTION, for a service action that is not served of an operation code that is.
pub fn find(cdb: &[u8], features: Features) -> Result<&'static Row, Sense> {
    let &opcode = cdb.first().ok_or(Sense::invalid_command_operation_code())?;
    let mut rows = served(opcode, features).peekable();
    if rows.peek().is_none() {
        return Err(Sense::invalid_command_operation_code());
    }
    let service_action = cdb.get(1).map(|byte| byte & SERVICE_ACTION);
    rows.find(|row| !row.has_service_action || row.service_action() == service_action)
        .ok_or(Sense::invalid_field_in_cdb(Field::cdb_bit(1, 4)))
}

/// The rows of one operation code that a unit with those features serves.
pub fn served(opcode: u8, features: Features) -> impl Iterator<Item = &'static Row> {
    let rows = of_opcode(opcode).iter();
    rows.filter(move |row| row.is_served(features))
}

/// The rows of one operation code; none if no unit serves it.
pub fn of_opcode(opcode: u8) -> &'static [Row] {
    BY_OPCODE[usize::from(opcode)]
}

/// The table as Markdown, for docs/scsi.md.
pub fn markdown() -> String {
    let mut table = String::from(
        "| command | operation code | service action | reservation class |\n|---|---|---|---|\n",
    );
    for row in COMMANDS {
        let [name, opcode, service_action, class] = row.cells();
        writeln!(table, "| {name} | {opcode} | {service_action} | {class} |")
            .expect("a String takes all that is written to it");
    }
    table
}

impl Row {
    /// Operation code.
    pub const fn opcode(&self) -> u8 {
        self.usage[0]
    }

    /// Service action, if the operation code has any.
    pub const fn service_action(&self) -> Option<u8> {
        if self.has_service_action {
            Some(self.usage[1] & SERVICE_ACTION)
        } else {
            None
        }
    }

    /// What a person reads of it: name, operation code, service action if it has one, reservation class.
    pub fn cells(&self) -> [String; 4] {
        let service_action = self.service_action().map(|action| format!("{action:02X}h"));
        let free = self
            .free
            .as_ref()
            .map(|form| format!("; free with {}", form.name));
        [
            self.name.to_owned(),
            format!("{:02X}h", self.opcode()),
            service_action.unwrap_or_default(),
            format!("{}{}", self.access, free.unwrap_or_default()),
        ]
    }

    /// What a CDB that [`find`] has found to be of this row asks of a reservation, whatever is wrong with its fields.
    pub fn access_of(&self, cdb: &[u8]) -> Access {
        match &self.free {
            Some(form) if form.is_of(cdb) => Access::Free,
            _ => self.access,
        }
    }

    /// Whether a unit with those features serves it.
    pub fn is_served(&self, features: Features) -> bool {
        self.needs.is_none_or(|feature| features.has(feature))
    }

    /// CDB usage data on a unit with those features.
    pub fn usage_on(&self, features: Features) -> Vec<u8> {
        let mut usage = self.usage.to_vec();
        if let Some(bits) = self.missing(features) {
            usage[usize::from(bits.byte)] &= !bits.mask;
        }
        usage
    }

    /// The field that a unit with those features does not serve.
    fn missing(&self, features: Features) -> Option<Bits> {
        let (feature, bits) = self.optional?;
        (!features.has(feature)).then_some(bits)
    }

    /// Length of the CDB in bytes, its operation code and CONTROL included.
    pub fn cdb_length(&self) -> u16 {
        u16::try_from(self.usage.len()).expect("the longest CDB has 260 bytes")
    }

    /// Decodes the fields of a CDB that [`find`] has found to be of this row, on a unit with those features. Bytes beyond
    /// the row's length are not looked at.
    ///
    /// # Errors
    /// What is wrong with the first bad field: mostly INVALID FIELD IN CDB, pointing at it. A CDB shorter
    /// than the row's is one that lacks the field at its end.
    pub fn decode(&self, cdb: &[u8], features: Features) -> Result<Command, Sense> {
        let cdb = self.of_length(cdb)?;
        match self.refused(cdb, features) {
            Some(bits) => Err(Sense::invalid_field_in_cdb(bits.field())),
            None => (self.decode)(cdb),
        }
    }

    /// Decodes the fields as if those that must be 0 were: for what is judged before they are.
    ///
    /// # Errors
    /// As for [`Row::decode`].
    pub fn decode_what_is_served(&self, cdb: &[u8]) -> Result<Command, Sense> {
        (self.decode)(self.of_length(cdb)?)
    }

    fn of_length<'a>(&self, cdb: &'a [u8]) -> Result<&'a [u8], Sense> {
        let length = self.usage.len();
        cdb.get(..length).ok_or_else(|| cdb::too_short(cdb))
    }

    /// The first field of a CDB of the row's length that must be 0 and is not.
    fn refused(&self, cdb: &[u8], features: Features) -> Option<Bits> {
        let naca = Bits::new(self.cdb_length() - 1, NACA);
        if naca.are_set(cdb) {
            return Some(naca);
        }
        let refuse = self.refuse.iter().copied();
        refuse
            .chain(self.missing(features))
            .filter(|bits| bits.are_set(cdb))
            .min_by_key(|bits| (bits.byte, Reverse(bits.mask)))
    }
}

impl Bits {
    const fn new(byte: u16, mask: u8) -> Bits {
        Bits { byte, mask }
    }

    fn are_set(self, cdb: &[u8]) -> bool {
        cdb.get(usize::from(self.byte))
            .is_some_and(|byte| byte & self.mask != 0)
    }

    /// As sense data points at it: by its most significant bit.
    fn field(self) -> Field {
        let bit = self.mask.checked_ilog2().unwrap_or(0);
        Field::cdb_bit(self.byte, u8::try_from(bit).unwrap_or(7))
    }
}

impl FreeForm {
    fn is_of(&self, cdb: &[u8]) -> bool {
        cdb.get(usize::from(self.bits.byte))
            .is_some_and(|byte| byte & self.bits.mask == self.value)
    }
}

/// SERVICE ACTION, in byte 1.
const SERVICE_ACTION: u8 = 0x1f;
/// NACA, in the CONTROL byte: standard INQUIRY data says NORMACA=0.
const NACA: u8 = 0x04;
/// In usage data: every bit of the byte.
const FF: u8 = 0xff;
/// In usage data of READ and WRITE: DPO and FUA.
const DF: u8 = 0x18;
/// In usage data of VERIFY and WRITE AND VERIFY: DPO and BYTCHK.
const DB: u8 = 0x16;

/// RDPROTECT, WRPROTECT and VRPROTECT: there is no protection information.
const PROTECT: Bits = Bits::new(1, 0xe0);
/// ANCHOR of WRITE SAME: no unit keeps blocks that hold no data (ANC_SUP=0).
const ANCHOR: Bits = Bits::new(1, 0x10);
/// UNMAP of WRITE SAME.
const UNMAP_BIT: Bits = Bits::new(1, 0x08);
/// PBDATA and LBDATA of WRITE SAME, obsolete since SBC-3: the blocks would not all be the same.
const PBDATA: Bits = Bits::new(1, 0x04);
/// See [`PBDATA`].
const LBDATA: Bits = Bits::new(1, 0x02);
/// ANCHOR of UNMAP.
const UNMAP_ANCHOR: Bits = Bits::new(1, 0x01);
/// REPORT TYPE of GET LBA STATUS (SBC-4): only blocks of one status.
const REPORT_TYPE: Bits = Bits::new(14, 0xff);
/// SP of LOG SENSE: there is nothing to be saved.
const LOG_SAVE: Bits = Bits::new(1, 0x01);
/// LOEJ of START STOP UNIT: the medium cannot be removed.
const LOEJ: Bits = Bits::new(4, 0x02);
/// SELF-TEST CODE of SEND DIAGNOSTIC: there is no self-test but the default one.
const SELF_TEST_CODE: Bits = Bits::new(1, 0xe0);
/// The bit of PREVENT that is obsolete since SPC-3, in PREVENT ALLOW MEDIUM REMOVAL.
const PREVENT_CHANGER: Bits = Bits::new(4, 0x02);
/// CMDDT of INQUIRY, obsolete since SPC-3: command support data.
const CMDDT: Bits = Bits::new(1, 0x02);
/// 3RDPTY of RESERVE and RELEASE: for somebody else.
const THIRD_PARTY: Bits = Bits::new(1, 0x10);
/// LONGID of RESERVE(10) and RELEASE(10): somebody else's identifier is in the parameter list.
const LONG_ID: Bits = Bits::new(1, 0x02);
/// EXTENT of RESERVE and RELEASE, obsolete since SPC-2: of a part of the unit.
const EXTENT: Bits = Bits::new(1, 0x01);

/// What a row holds unless it says otherwise.
const OTHER: Row = Row {
    name: "",
    usage: &[],
    has_service_action: false,
    refuse: &[],
    needs: None,
    optional: None,
    direction: DataDirection::None,
    access: Access::Write, // the class that is refused most
    free: None,
    attention: Attention::Report,
    media: Media::None,
    recommended_timeout_s: 0,
    decode: |_| Err(Sense::invalid_command_operation_code()),
};
const READ: Row = Row {
    refuse: &[PROTECT],
    direction: DataDirection::In,
    access: Access::Read,
    media: Media::Read,
    recommended_timeout_s: 60,
    ..OTHER
};
const WRITE: Row = Row {
    refuse: &[PROTECT],
    direction: DataDirection::Out,
    access: Access::Write,
    media: Media::Write,
    recommended_timeout_s: 60,
    ..OTHER
};
const WRITE_SAME: Row = Row {
    refuse: &[PROTECT, ANCHOR, PBDATA, LBDATA],
    optional: Some((Feature::UnmapByWriteSame, UNMAP_BIT)),
    recommended_timeout_s: 600,
    ..WRITE
};
const SYNCHRONIZE_CACHE: Row = Row {
    access: Access::Write,
    media: Media::Sync,
    recommended_timeout_s: 60,
    ..OTHER
};
const VERIFY: Row = Row {
    refuse: &[PROTECT],
    direction: DataDirection::Out,
    access: Access::Read,
    media: Media::Read,
    recommended_timeout_s: 600,
    ..OTHER
};
const PRE_FETCH: Row = Row {
    access: Access::Read,
    media: Media::Read,
    recommended_timeout_s: 60,
    ..OTHER
};
const RESERVE_RELEASE: Row = Row {
    access: Access::Reserve,
    ..OTHER
};
const PERSISTENT_RESERVE_IN: Row = Row {
    has_service_action: true,
    direction: DataDirection::In,
    access: Access::PersistentReserveIn,
    ..OTHER
};
const PERSISTENT_RESERVE_OUT: Row = Row {
    has_service_action: true,
    direction: DataDirection::Out,
    access: Access::PersistentReserveOut,
    ..OTHER
};
const RECEIVE_COPY: Row = Row {
    has_service_action: true,
    direction: DataDirection::In,
    access: Access::FreeUnlessReserved,
    ..OTHER
};
const MAINTENANCE_IN: Row = Row {
    has_service_action: true,
    direction: DataDirection::In,
    access: Access::Read,
    ..OTHER
};

/// Every command, ascending by operation code, then by service action.
pub static COMMANDS: &[Row] = &[
    Row {
        name: "TEST UNIT READY",
        usage: &[0x00, 0, 0, 0, 0, 0],
        access: Access::FreeUnlessReserved,
        decode: primary::test_unit_ready,
        ..OTHER
    },
    Row {
        name: "REQUEST SENSE",
        usage: &[0x03, 0x01, 0, 0, FF, 0],
        direction: DataDirection::In,
        access: Access::Free,
        attention: Attention::AsData,
        decode: primary::request_sense,
        ..OTHER
    },
    Row {
        name: "READ(6)",
        usage: &[0x08, 0x1f, FF, FF, FF, 0],
        refuse: &[],
        decode: block::read_6,
        ..READ
    },
    Row {
        name: "WRITE(6)",
        usage: &[0x0a, 0x1f, FF, FF, FF, 0],
        refuse: &[],
        decode: block::write_6,
        ..WRITE
    },
    Row {
        name: "INQUIRY",
        usage: &[0x12, 0x01, FF, FF, FF, 0],
        refuse: &[CMDDT],
        direction: DataDirection::In,
        access: Access::Free,
        attention: Attention::PassBy,
        decode: primary::inquiry,
        ..OTHER
    },
    Row {
        name: "MODE SELECT(6)",
        usage: &[0x15, 0x11, 0, 0, FF, 0],
        direction: DataDirection::Out,
        access: Access::Write,
        recommended_timeout_s: 60,
        decode: primary::mode_select_6,
        ..OTHER
    },
    Row {
        name: "RESERVE(6)",
        usage: &[0x16, 0, 0, 0, 0, 0],
        refuse: &[THIRD_PARTY, EXTENT],
        decode: primary::reserve,
        ..RESERVE_RELEASE
    },
    Row {
        name: "RELEASE(6)",
        usage: &[0x17, 0, 0, 0, 0, 0],
        refuse: &[THIRD_PARTY, EXTENT],
        decode: primary::release,
        ..RESERVE_RELEASE
    },
    Row {
        name: "MODE SENSE(6)",
        usage: &[0x1a, 0x08, FF, FF, FF, 0],
        direction: DataDirection::In,
        access: Access::Read,
        decode: primary::mode_sense_6,
        ..OTHER
    },
    Row {
        name: "START STOP UNIT",
        usage: &[0x1b, 0x01, 0, 0x0f, 0xf5, 0],
        refuse: &[LOEJ],
        access: Access::Write,
        free: Some(FreeForm {
            name: "START=1 and POWER CONDITION=0h",
            bits: Bits::new(4, 0xf1),
            value: 0x01,
        }),
        media: Media::Sync,
        recommended_timeout_s: 60,
        decode: block::start_stop_unit,
        ..OTHER
    },
    Row {
        name: "SEND DIAGNOSTIC",
        usage: &[0x1d, 0x04, 0, 0, 0, 0],
        refuse: &[SELF_TEST_CODE],
        access: Access::Write,
        decode: primary::send_diagnostic,
        ..OTHER
    },
    Row {
        name: "PREVENT ALLOW MEDIUM REMOVAL",
        usage: &[0x1e, 0, 0, 0, 0x01, 0],
        refuse: &[PREVENT_CHANGER],
        access: Access::Write,
        free: Some(FreeForm {
            name: "PREVENT=00b",
            bits: Bits::new(4, 0x03),
            value: 0x00,
        }),
        decode: block::prevent_allow_medium_removal,
        ..OTHER
    },
    Row {
        name: "READ CAPACITY(10)",
        usage: &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        direction: DataDirection::In,
        access: Access::Free,
        decode: block::read_capacity_10,
        ..OTHER
    },
    Row {
        name: "READ(10)",
        usage: &[0x28, DF, FF, FF, FF, FF, 0, FF, FF, 0],
        decode: block::read_10,
        ..READ
    },
    Row {
        name: "WRITE(10)",
        usage: &[0x2a, DF, FF, FF, FF, FF, 0, FF, FF, 0],
        decode: block::write_10,
        ..WRITE
    },
    Row {
        name: "WRITE AND VERIFY(10)",
        usage: &[0x2e, DB, FF, FF, FF, FF, 0, FF, FF, 0],
        decode: block::write_and_verify_10,
        ..WRITE
    },
    Row {
        name: "VERIFY(10)",
        usage: &[0x2f, DB, FF, FF, FF, FF, 0, FF, FF, 0],
        decode: block::verify_10,
        ..VERIFY
    },
    Row {
        name: "PRE-FETCH(10)",
        usage: &[0x34, 0x02, FF, FF, FF, FF, 0, FF, FF, 0],
        decode: block::pre_fetch_10,
        ..PRE_FETCH
    },
    Row {
        name: "SYNCHRONIZE CACHE(10)",
        usage: &[0x35, 0x02, FF, FF, FF, FF, 0, FF, FF, 0],
        decode: block::synchronize_cache_10,
        ..SYNCHRONIZE_CACHE
    },
    Row {
        name: "WRITE SAME(10)",
        usage: &[0x41, 0x08, FF, FF, FF, FF, 0, FF, FF, 0],
        decode: provisioning::write_same_10,
        ..WRITE_SAME
    },
    Row {
        name: "UNMAP",
        usage: &[0x42, 0, 0, 0, 0, 0, 0, FF, FF, 0],
        refuse: &[UNMAP_ANCHOR],
        needs: Some(Feature::Unmap),
        recommended_timeout_s: 600,
        decode: provisioning::unmap,
        ..WRITE
    },
    Row {
        name: "LOG SENSE",
        usage: &[0x4d, 0, 0x3f, FF, 0, FF, FF, FF, FF, 0],
        refuse: &[LOG_SAVE],
        needs: Some(Feature::SpaceFigures),
        direction: DataDirection::In,
        access: Access::Free,
        decode: primary::log_sense,
        ..OTHER
    },
    Row {
        name: "MODE SELECT(10)",
        usage: &[0x55, 0x11, 0, 0, 0, 0, 0, FF, FF, 0],
        direction: DataDirection::Out,
        access: Access::Write,
        recommended_timeout_s: 60,
        decode: primary::mode_select_10,
        ..OTHER
    },
    Row {
        name: "RESERVE(10)",
        usage: &[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        refuse: &[THIRD_PARTY, LONG_ID, EXTENT],
        decode: primary::reserve,
        ..RESERVE_RELEASE
    },
    Row {
        name: "RELEASE(10)",
        usage: &[0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        refuse: &[THIRD_PARTY, LONG_ID, EXTENT],
        decode: primary::release,
        ..RESERVE_RELEASE
    },
    Row {
        name: "MODE SENSE(10)",
        usage: &[0x5a, 0x18, FF, FF, 0, 0, 0, FF, FF, 0],
        direction: DataDirection::In,
        access: Access::Read,
        decode: primary::mode_sense_10,
        ..OTHER
    },
    Row {
        name: "PERSISTENT RESERVE IN, READ KEYS",
        usage: &[0x5e, 0x00, 0, 0, 0, 0, 0, FF, FF, 0],
        decode: primary::persistent_reserve_in,
        ..PERSISTENT_RESERVE_IN
    },
    Row {
        name: "PERSISTENT RESERVE IN, READ RESERVATION",
        usage: &[0x5e, 0x01, 0, 0, 0, 0, 0, FF, FF, 0],
        decode: primary::persistent_reserve_in,
        ..PERSISTENT_RESERVE_IN
    },
    Row {
        name: "PERSISTENT RESERVE IN, REPORT CAPABILITIES",
        usage: &[0x5e, 0x02, 0, 0, 0, 0, 0, FF, FF, 0],
        decode: primary::persistent_reserve_in,
        ..PERSISTENT_RESERVE_IN
    },
    Row {
        name: "PERSISTENT RESERVE IN, READ FULL STATUS",
        usage: &[0x5e, 0x03, 0, 0, 0, 0, 0, FF, FF, 0],
        decode: primary::persistent_reserve_in,
        ..PERSISTENT_RESERVE_IN
    },
    Row {
        name: "PERSISTENT RESERVE OUT, REGISTER",
        usage: &[0x5f, 0x00, 0, 0, 0, FF, FF, FF, FF, 0],
        decode: primary::persistent_reserve_out_unscoped,
        ..PERSISTENT_RESERVE_OUT
    },
    Row {
        name: "PERSISTENT RESERVE OUT, RESERVE",
        usage: &[0x5f, 0x01, FF, 0, 0, FF, FF, FF, FF, 0],
        decode: primary::persistent_reserve_out,
        ..PERSISTENT_RESERVE_OUT
    },
    Row {
        name: "PERSISTENT RESERVE OUT, RELEASE",
        usage: &[0x5f, 0x02, FF, 0, 0, FF, FF, FF, FF, 0],
        decode: primary::persistent_reserve_out,
        ..PERSISTENT_RESERVE_OUT
    },
    Row {
        name: "PERSISTENT RESERVE OUT, CLEAR",
        usage: &[0x5f, 0x03, 0, 0, 0, FF, FF, FF, FF, 0],
        decode: primary::persistent_reserve_out_unscoped,
        ..PERSISTENT_RESERVE_OUT
    },
    Row {
        name: "PERSISTENT RESERVE OUT, PREEMPT",
        usage: &[0x5f, 0x04, FF, 0, 0, FF, FF, FF, FF, 0],
        decode: primary::persistent_reserve_out,
        ..PERSISTENT_RESERVE_OUT
    },
    Row {
        name: "PERSISTENT RESERVE OUT, PREEMPT AND ABORT",
        usage: &[0x5f, 0x05, FF, 0, 0, FF, FF, FF, FF, 0],
        decode: primary::persistent_reserve_out,
        ..PERSISTENT_RESERVE_OUT
    },
    Row {
        name: "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY",
        usage: &[0x5f, 0x06, 0, 0, 0, FF, FF, FF, FF, 0],
        decode: primary::persistent_reserve_out_unscoped,
        ..PERSISTENT_RESERVE_OUT
    },
    Row {
        name: "PERSISTENT RESERVE OUT, REGISTER AND MOVE",
        usage: &[0x5f, 0x07, 0, 0, 0, FF, FF, FF, FF, 0],
        decode: primary::persistent_reserve_out_unscoped,
        ..PERSISTENT_RESERVE_OUT
    },
    Row {
        // What it does to which medium is up to its segments: the state of each is judged with them.
        name: "EXTENDED COPY(LID1)",
        usage: &[0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, FF, FF, FF, FF, 0, 0],
        has_service_action: true,
        direction: DataDirection::Out,
        access: Access::Write,
        recommended_timeout_s: 600,
        decode: copy::extended_copy,
        ..OTHER
    },
    Row {
        name: "RECEIVE COPY STATUS(LID1)",
        usage: &[0x84, 0x00, FF, 0, 0, 0, 0, 0, 0, 0, FF, FF, FF, FF, 0, 0],
        decode: copy::receive_copy_status,
        ..RECEIVE_COPY
    },
    Row {
        name: "RECEIVE COPY OPERATING PARAMETERS",
        usage: &[0x84, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, FF, FF, FF, FF, 0, 0],
        decode: copy::receive_copy_operating_parameters,
        ..RECEIVE_COPY
    },
    Row {
        name: "READ(16)",
        usage: &[
            0x88, DF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0,
        ],
        decode: block::read_16,
        ..READ
    },
    Row {
        name: "COMPARE AND WRITE",
        usage: &[0x89, DF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0, 0, FF, 0, 0],
        decode: block::compare_and_write,
        ..WRITE
    },
    Row {
        name: "WRITE(16)",
        usage: &[
            0x8a, DF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0,
        ],
        decode: block::write_16,
        ..WRITE
    },
    Row {
        name: "ORWRITE(16)",
        usage: &[
            0x8b, DF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0,
        ],
        decode: block::or_write_16,
        ..WRITE
    },
    Row {
        name: "WRITE AND VERIFY(16)",
        usage: &[
            0x8e, DB, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0,
        ],
        decode: block::write_and_verify_16,
        ..WRITE
    },
    Row {
        name: "VERIFY(16)",
        usage: &[
            0x8f, DB, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0,
        ],
        decode: block::verify_16,
        ..VERIFY
    },
    Row {
        name: "PRE-FETCH(16)",
        usage: &[
            0x90, 0x02, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0,
        ],
        decode: block::pre_fetch_16,
        ..PRE_FETCH
    },
    Row {
        name: "SYNCHRONIZE CACHE(16)",
        usage: &[
            0x91, 0x02, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0,
        ],
        decode: block::synchronize_cache_16,
        ..SYNCHRONIZE_CACHE
    },
    Row {
        name: "WRITE SAME(16)",
        usage: &[
            0x93, 0x09, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0,
        ],
        decode: provisioning::write_same_16,
        ..WRITE_SAME
    },
    Row {
        name: "WRITE ATOMIC(16)",
        usage: &[0x9c, DF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0, FF, FF, 0, 0],
        needs: Some(Feature::AtomicWrites),
        decode: block::write_atomic_16,
        ..WRITE
    },
    Row {
        name: "READ CAPACITY(16)",
        usage: &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, FF, FF, FF, FF, 0, 0],
        has_service_action: true,
        direction: DataDirection::In,
        access: Access::Free,
        decode: block::read_capacity_16,
        ..OTHER
    },
    Row {
        name: "GET LBA STATUS",
        usage: &[
            0x9e, 0x12, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0,
        ],
        has_service_action: true,
        refuse: &[REPORT_TYPE],
        decode: provisioning::get_lba_status,
        ..READ
    },
    Row {
        // Answered before it gets here, by who knows the target's other logical units; listed since it is served.
        name: "REPORT LUNS",
        usage: &[0xa0, 0, FF, 0, 0, 0, FF, FF, FF, FF, 0, 0],
        direction: DataDirection::In,
        access: Access::Free,
        attention: Attention::PassBy,
        ..OTHER
    },
    Row {
        name: "REPORT SUPPORTED OPERATION CODES",
        usage: &[0xa3, 0x0c, 0x87, FF, FF, FF, FF, FF, FF, FF, 0, 0],
        decode: primary::report_supported_operation_codes,
        ..MAINTENANCE_IN
    },
    Row {
        name: "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
        usage: &[0xa3, 0x0d, 0x80, 0, 0, 0, FF, FF, FF, FF, 0, 0],
        decode: primary::report_supported_task_management_functions,
        ..MAINTENANCE_IN
    },
    Row {
        name: "READ(12)",
        usage: &[0xa8, DF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0],
        decode: block::read_12,
        ..READ
    },
    Row {
        name: "WRITE(12)",
        usage: &[0xaa, DF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0],
        decode: block::write_12,
        ..WRITE
    },
    Row {
        name: "WRITE AND VERIFY(12)",
        usage: &[0xae, DB, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0],
        decode: block::write_and_verify_12,
        ..WRITE
    },
    Row {
        name: "VERIFY(12)",
        usage: &[0xaf, DB, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0],
        decode: block::verify_12,
        ..VERIFY
    },
];

/// The rows of each operation code.
static BY_OPCODE: [&[Row]; 256] = by_opcode();

const fn by_opcode() -> [&'static [Row]; 256] {
    let mut index: [&[Row]; 256] = [&[]; 256];
    let mut rest = COMMANDS;
    while let [first, ..] = rest {
        let mut count = 1;
        while count < rest.len() && rest[count].opcode() == first.opcode() {
            count += 1;
        }
        let (rows, others) = rest.split_at(count);
        index[first.opcode() as usize] = rows;
        rest = others;
    }
    index
}

#[cfg(test)]
mod tests;
