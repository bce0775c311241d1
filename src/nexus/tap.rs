//! The nexus tap: BPF programs in the kernel (`tap.bpf.c`) that note, for every command, which session has sent it.
//!
//! A note is one word for each id of a device, in an array that is mapped here; it names a session by its slot in
//! another array. To read them takes no system call:
//!
//! ```text
//! notes[minor][id]     number 32 │ slot 12 │ generation 16 │ read-only 1 │ 0 3     (bits, from the lowest)
//! sessions[slot]       generation, then who it is: fabric, target, port group, initiator, ISID
//! ```
//!
//! The kernel numbers the notes of a device in the order of the ring's entries, and [`DeviceNotes::take`] gives a note
//! only if its number is the next one. So each is taken once, and a command for which no note was made is never taken
//! for another's. A slot's generation changes when its session ends; what is read of a slot counts only if
//! the generation is the note's, before and after.

mod attach;
mod kept;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

use super::fabric::{Fabric, made_up_port};
use crate::scsi::nexus::ItNexus;
use crate::sys::region::{OutOfBounds, Region};
use crate::tcmu::configfs::{self, PortGroup};
pub use attach::{Faults, Tap, Unavailable, requirements};
pub use kept::{Links, Unfit};

/// The devices for which there is room, by minor number.
pub const DEVICES: u32 = 256;
/// The ids of each device for which there is room.
pub const COMMANDS: u16 = 8192;
/// The sessions for which there is room. Slot 0 is nobody's.
const SESSIONS: u16 = 4096;

const NOTE_LENGTH: u64 = 8;
/// `struct device`: the number of the last note, how often the ring was reset, and what is of use in the kernel only.
const DEVICE_LENGTH: u64 = 24;
const RESETS_OFFSET: u64 = 4;
const SESSION_LENGTH: u64 = size_of::<RawSession>() as u64;

/// How long the array `notes` is.
pub const NOTES_LENGTH: u64 = NOTE_LENGTH * DEVICES as u64 * COMMANDS as u64;
/// How long the array `devices` is.
pub const DEVICES_LENGTH: u64 = DEVICE_LENGTH * DEVICES as u64;
/// How long the array `sessions` is.
pub const SESSIONS_LENGTH: u64 = SESSION_LENGTH * SESSIONS as u64;

/// A session, by its slot and the generation of that. When the session has ended, the number comes back for another only
/// after 65,536 others had the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u16, u16)", into = "(u16, u16)")]
pub struct SessionId {
    slot: u16,
    generation: u16,
}

impl TryFrom<(u16, u16)> for SessionId {
    type Error = String;

    fn try_from((slot, generation): (u16, u16)) -> Result<SessionId, String> {
        match slot {
            1..SESSIONS => Ok(SessionId { slot, generation }),
            _ => Err(format!("no session has the slot {slot}")),
        }
    }
}

impl From<SessionId> for (u16, u16) {
    fn from(id: SessionId) -> (u16, u16) {
        (id.slot, id.generation)
    }
}

impl SessionId {
    /// Its slot, under 4,096.
    pub fn slot(self) -> usize {
        usize::from(self.slot)
    }
}

/// What was noted of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which session has sent it.
    pub session: SessionId,
    /// Whether its initiator may not write to the LUN that it was sent to.
    pub read_only: bool,
}

/// Why there is no note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// None was made, or not yet.
    NotNoted,
    /// One was made, but whose the command is could not be made out.
    Unidentified,
    /// Commands have been noted before it that never came, or the ring was reset.
    OutOfStep,
}

/// How far the notes of a device were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The id of the tap.
    pub tap: u32,
    /// The number of the note that was taken last.
    pub last: u32,
    /// How often the ring had been reset then.
    pub resets: u32,
}

/// What the kernel has written down.
#[derive(Clone, Debug)]
pub struct Notes {
    id: u32,
    notes: Arc<Region>,
    devices: Arc<Region>,
    sessions: Arc<Region>,
}

/// `struct session`.
#[derive(FromBytes)]
#[repr(C)]
struct RawSession {
    generation: u32,
    has_isid: u8,
    isid: [u8; 6],
    _unused: u8,
    fabric: [u8; 32],
    target: [u8; 256],
    group: [u8; 28],
    initiator: [u8; 256],
}

/// Who a session is, as the kernel spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The fabric's directory in the target configuration: `iscsi`.
    pub fabric: String,
    /// The target's directory in that.
    pub target: String,
    /// The port group's directory in that: `tpgt_1`.
    pub group: String,
    /// The initiator's name.
    pub initiator: String,
    /// iSCSI: the initiator session identifier.
    pub isid: Option<u64>,
}

/// Why a session belongs to no I_T nexus. Its commands are answered with BUSY.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// A session of the kernel's own.
    #[error("it is a session of the kernel's own, without an initiator")]
    NoInitiator,
    /// The fabric's rules are not known.
    #[error(
        "it comes over {0:?}, which tcmu-pr does not know: use iSCSI, Fibre Channel, SRP, vhost or loopback"
    )]
    UnknownFabric(String),
    /// The ISID can't be read.
    #[error(
        "its ISID is not known: iscsi_target_mod was not loaded, or has no BTF, when the tap was attached"
    )]
    NoIsid,
    /// The port group's directory is none.
    #[error("its port group is {0:?}, which is none")]
    Group(String),
    /// The target's name can't be reported to others.
    #[error(
        "the target name {0:?} has characters that a SCSI port name cannot have: make the target anew"
    )]
    TargetName(String),
    /// The initiator's name can't be reported to others.
    #[error("the initiator name {name:?} is no {expected}")]
    InitiatorName {
        /// The name.
        name: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl Session {
    /// The I_T nexus that it is a session of.
    ///
    /// Where each port group has one initiator port whose name is made up anew whenever the target configuration is
    /// restored, the initiator port is named after the port group instead: a registration must find its owner again.
    pub fn nexus(&self) -> Result<ItNexus, Unidentified> {
        if self.initiator.is_empty() {
            return Err(Unidentified::NoInitiator);
        }
        let fabric = Fabric::parse(&self.fabric)
            .ok_or_else(|| Unidentified::UnknownFabric(self.fabric.clone()))?;
        let tag = self
            .group
            .strip_prefix("tpgt_")
            .and_then(|tag| tag.parse::<u16>().ok())
            // The kernel takes other spellings too, and a leading 0 for octal.
            .filter(|tag| self.group == format!("tpgt_{tag}"));
        let tag = tag.ok_or_else(|| Unidentified::Group(self.group.clone()))?;
        let target_port = fabric.target_port(&self.target, tag);
        let target_port =
            target_port.ok_or_else(|| Unidentified::TargetName(self.target.clone()))?;
        let initiator_port = match fabric {
            Fabric::OneInitiator => {
                made_up_port(&format!("{}/{}/{tag}", self.fabric, target_port.name))
            }
            Fabric::WithAcls(transport) => {
                if transport.has_isid() && self.isid.is_none() {
                    return Err(Unidentified::NoIsid);
                }
                let port = transport.initiator_port(&self.initiator, self.isid);
                port.ok_or_else(|| Unidentified::InitiatorName {
                    name: self.initiator.clone(),
                    expected: transport.spelling(),
                })?
            }
        };
        Ok(ItNexus {
            initiator_port,
            target_port,
        })
    }
}

/// Whether the initiator of an I_T nexus may be logged in, as far as the target configuration shows: for one that the tap
/// has not seen. Which session it has is not asked.
pub fn session_of(groups: &[PortGroup], nexus: &ItNexus) -> configfs::Session {
    let there = groups.iter().any(|group| {
        let Some(fabric) = Fabric::parse(&group.fabric) else {
            return false;
        };
        if fabric.target_port(&group.target, group.tag).as_ref() != Some(&nexus.target_port) {
            return false;
        }
        let Fabric::WithAcls(transport) = fabric else {
            return group.nexus.is_some();
        };
        let is_it = |name: &str| {
            let port = transport.initiator_port(name, None);
            port.is_some_and(|port| port.is_of_same_initiator(&nexus.initiator_port))
        };
        let mut acls = group.acls.iter();
        group.dynamic_sessions.iter().any(|name| is_it(name))
            || acls.any(|acl| is_it(&acl.initiator) && acl.session != configfs::Session::None)
    });
    if there {
        configfs::Session::Unknown
    } else {
        configfs::Session::None
    }
}

impl Notes {
    /// From the arrays `notes`, `devices` and `sessions`: the kernel's, or what a test puts in their place. No two taps
    /// have the same id while the node runs.
    ///
    /// # Errors
    /// If one is shorter than it should be.
    pub fn new(
        id: u32,
        notes: Arc<Region>,
        devices: Arc<Region>,
        sessions: Arc<Region>,
    ) -> Result<Notes, OutOfBounds> {
        for (region, length) in [
            (&notes, NOTES_LENGTH),
            (&devices, DEVICES_LENGTH),
            (&sessions, SESSIONS_LENGTH),
        ] {
            if region.len() < length {
                return Err(OutOfBounds { offset: 0, length });
            }
        }
        Ok(Notes {
            id,
            notes,
            devices,
            sessions,
        })
    }

    /// Whether both are what one and the same tap writes down.
    pub fn is_same(&self, other: &Notes) -> bool {
        Arc::ptr_eq(&self.notes, &other.notes)
    }

    /// The notes of the device with this minor number, from those that come now on. `None` if there is no room for it.
    pub fn of_device(&self, minor: u32) -> Option<DeviceNotes> {
        let mut of_device = (minor < DEVICES).then(|| DeviceNotes {
            notes: self.clone(),
            minor,
            last: 0,
            resets: 0,
        })?;
        of_device.restart();
        Some(of_device)
    }

    /// The notes of the device with this minor number, from where another has left off. `None` if that was not with this
    /// tap, or if the ring was reset since.
    pub fn go_on(&self, minor: u32, place: Place) -> Option<DeviceNotes> {
        let mut of_device = self.of_device(minor)?;
        let goes_on = place.tap == self.id && place.resets == of_device.resets;
        of_device.last = place.last;
        goes_on.then_some(of_device)
    }

    /// Whether a session has not ended.
    pub fn is_live(&self, id: SessionId) -> bool {
        self.generation(id.slot) == id.generation
    }

    /// Who a session is; `None` if it has ended.
    pub fn session(&self, id: SessionId) -> Option<Session> {
        let live = || self.is_live(id).then_some(());
        live()?;
        let raw = self
            .sessions
            .read::<RawSession>(u64::from(id.slot) * SESSION_LENGTH);
        let raw = raw.expect(IN_BOUNDS);
        live()?;
        let isid = raw
            .isid
            .iter()
            .fold(0, |isid, &byte| isid << 8 | u64::from(byte));
        Some(Session {
            fabric: text(&raw.fabric),
            target: text(&raw.target),
            group: text(&raw.group),
            initiator: text(&raw.initiator),
            isid: (raw.has_isid != 0).then_some(isid),
        })
    }

    fn generation(&self, slot: u16) -> u16 {
        let generation = self.sessions.load_acquire(u64::from(slot) * SESSION_LENGTH);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a note has room for the lower half"
        )]
        let lower = generation.expect(IN_BOUNDS) as u16;
        lower
    }
}

const IN_BOUNDS: &str = "slots and ids are checked, and the arrays have their sizes";

/// A text that ends with a 0; U+FFFD stands for one that was too long or is none.
fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .filter(|&end| end + 1 < bytes.len());
    let text = end.and_then(|end| std::str::from_utf8(&bytes[..end]).ok());
    text.unwrap_or("\u{fffd}").to_owned()
}

/// The notes of one device.
#[derive(Debug)]
pub struct DeviceNotes {
    notes: Notes,
    minor: u32,
    /// The number of the note that was taken last.
    last: u32,
    /// How often the ring had been reset then.
    resets: u32,
}

impl DeviceNotes {
    /// Takes the note of the next command on the ring, whose id this is. To be called once for each entry, in the ring's
    /// order; again for the same entry only after [`Missing::NotNoted`].
    pub fn take(&mut self, id: u16) -> Result<Note, Missing> {
        if id >= COMMANDS {
            return Err(Missing::NotNoted);
        }
        if self.resets() != self.resets {
            self.restart();
            return Err(Missing::OutOfStep);
        }
        let index = u64::from(self.minor) * u64::from(COMMANDS) + u64::from(id);
        let word = self
            .notes
            .notes
            .load_acquire_u64(index * NOTE_LENGTH)
            .expect(IN_BOUNDS);
        let [n0, n1, n2, n3, ..] = word.to_le_bytes();
        let number = u32::from_le_bytes([n0, n1, n2, n3]);
        match number.wrapping_sub(self.last) {
            1 => self.last = number,
            0 | 0x8000_0000.. => return Err(Missing::NotNoted),
            _ => {
                self.last = number;
                return Err(Missing::OutOfStep);
            }
        }
        let slot = (word >> 32 & 0xfff) as u16;
        if slot == 0 {
            return Err(Missing::Unidentified);
        }
        Ok(Note {
            session: SessionId {
                slot,
                generation: (word >> 44 & 0xffff) as u16,
            },
            read_only: word >> 60 & 1 != 0,
        })
    }

    /// Goes on with the commands that are put on the ring from now on: the ring was emptied.
    pub fn restart(&mut self) {
        self.resets = self.resets();
        self.last = self.of_device(0);
    }

    /// How far they were taken.
    pub fn place(&self) -> Place {
        Place {
            tap: self.notes.id,
            last: self.last,
            resets: self.resets,
        }
    }

    fn resets(&self) -> u32 {
        self.of_device(RESETS_OFFSET)
    }

    fn of_device(&self, offset: u64) -> u32 {
        let at = u64::from(self.minor) * DEVICE_LENGTH + offset;
        self.notes.devices.load_acquire(at).expect(IN_BOUNDS)
    }

    /// Who has sent what, and is still there.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }
}

#[cfg(test)]
mod tests;
