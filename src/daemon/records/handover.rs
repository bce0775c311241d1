//! Where the next daemon goes on: the rings that one has left in order when it was asked to end.
//!
//! ```toml
//! version = 1
//! checksum = "4a17b156"
//! boot_id = "0b7f…"         # the boot of the node under which it was written
//! ended_ms = 86400123       # since when nothing was taken, on the clock that counts since that boot
//!
//! [[ring]]                  # each ring of which all that was taken has been answered
//! minor = 3                 # of its UIO device
//! incarnation = "1c2d"      # which of all the devices that have had that number
//! name = "tcm-user/0/lun0-a/pr//srv/lun0.img;nexus=a"
//! tail = 4480
//!
//! [ring.whose]
//! nexus = '{"initiator_port":…}'   # whose commands are on it, in JSON
//!
//! [ring.whose.notes]        # or how far the nexus tap's notes were taken, which tell whose each of them is
//! tap = 17
//! last = 4711
//! resets = 0
//!
//! [[ring.session]]          # each session that has sent commands through it, if initiators share it
//! id = [5, 2]               # its slot and the generation of that, as the tap numbers it
//! nexus = '{"initiator_port":…}'
//! read_only = false
//! ```
//!
//! A record without sessions is read too: earlier versions have left none.
//!
//! It is taken away before anything is served, so that a crash later on never finds it: then nobody knows what is
//! pending on a ring. A daemon that is asked to end before it has served anything leaves again what it has taken.

use std::path::PathBuf;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{Error, Records, saved};
use crate::nexus::tap::{Place, SessionId};
use crate::pr::image;
use crate::scsi::nexus::ItNexus;
use crate::store::saved::Files;
use crate::tcmu::{Uio, UioPaths};

/// Whose commands are on a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// One I_T nexus's.
    Nexus(#[serde(with = "json")] ItNexus),
    /// Those of initiators that share the backstore. The notes of the nexus tap tell, from there on.
    Notes(Place),
}

/// A ring on which nothing is pending but what lies behind its tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestingRing {
    /// The minor number of its UIO device.
    pub minor: u32,
    /// Which of all the devices that have had that number: [`UioPaths::incarnation`], in hexadecimal digits.
    pub incarnation: String,
    /// The name of the device: its backstore and the config string of that.
    pub name: String,
    /// `cmd_tail`.
    pub tail: u32,
    /// Whose commands are on it.
    pub whose: Whose,
    /// The sessions that have sent commands through it, as far as the nexus tap tells.
    #[serde(default, rename = "session", skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<KnownSession>,
}

/// A session of an initiator that shares the backstore with others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownSession {
    /// Which one, as the tap numbers it.
    pub id: SessionId,
    /// The I_T nexus that it is a session of.
    #[serde(with = "json")]
    pub nexus: ItNexus,
    /// Whether its initiator may not write.
    pub read_only: bool,
}

/// What the last daemon has left to this one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    ended: Duration,
    rings: Vec<RestingRing>,
}

impl RestingRing {
    /// Whether its device is there, and not one that was made anew with its number.
    pub fn is_there(&self, uios: &UioPaths) -> bool {
        let there = uios.incarnation(self.minor);
        there.is_some_and(|there| in_digits(there) == self.incarnation)
    }

    /// The ring of a device with this tail; `None` if there is no such device.
    pub fn of(
        uios: &UioPaths,
        uio: &Uio,
        tail: u32,
        whose: Whose,
        sessions: Vec<KnownSession>,
    ) -> Option<RestingRing> {
        Some(RestingRing {
            minor: uio.minor,
            incarnation: incarnation(uios, uio)?,
            name: uio.name.clone(),
            tail,
            whose,
            sessions,
        })
    }

    /// The one I_T nexus that it has served.
    pub fn nexus(self) -> Option<ItNexus> {
        match self.whose {
            Whose::Nexus(nexus) => Some(nexus),
            Whose::Notes(_) => None,
        }
    }
}

fn incarnation(uios: &UioPaths, uio: &Uio) -> Option<String> {
    uios.incarnation(uio.minor).map(in_digits)
}

fn in_digits(incarnation: u64) -> String {
    format!("{incarnation:x}")
}

/// A ring as it is found, with nobody serving it.
#[derive(Clone, Debug)]
pub struct Found {
    minor: u32,
    incarnation: String,
    name: String,
    tail: u32,
    /// After how many seconds the kernel fails a command without telling us; 0 is never.
    command_timeout_s: u32,
}

impl Found {
    /// The ring of a device with this tail, which fails commands after so many seconds; `None` if there is no such device.
    pub fn of(uios: &UioPaths, uio: &Uio, tail: u32, command_timeout_s: u32) -> Option<Found> {
        Some(Found {
            minor: uio.minor,
            incarnation: incarnation(uios, uio)?,
            name: uio.name.clone(),
            tail,
            command_timeout_s,
        })
    }

    fn is(&self, left: &RestingRing) -> bool {
        self.minor == left.minor
            && self.incarnation == left.incarnation
            && self.name == left.name
            && self.tail == left.tail
    }
}

impl Handover {
    /// Rings at rest, and when they came to it on the clock of [`now`].
    pub fn new(rings: Vec<RestingRing>, ended: Duration) -> Handover {
        Handover { ended, rings }
    }

    /// How many rings there are.
    pub fn count(&self) -> usize {
        self.rings.len()
    }

    /// What was said of a ring that is as it was left, so that it can be served from its tail on. Commands that came
    /// right after the last daemon's end must not be so old that the kernel may have failed them, or a write would be
    /// performed that its initiator was told has failed.
    pub fn ring(&self, found: &Found, now: Duration) -> Option<&RestingRing> {
        // Until the first of them is begun, some more time passes.
        let patience = Duration::from_secs(found.command_timeout_s.into()) / 2;
        if found.command_timeout_s != 0 && now.saturating_sub(self.ended) >= patience {
            return None;
        }
        self.rings.iter().find(|left| found.is(left))
    }
}

/// Numbers of eight bytes, which names of ports are made of, do not fit into those of TOML.
mod json {
    use serde::{Deserialize, Deserializer, Serializer, de, ser};

    use crate::scsi::nexus::ItNexus;

    pub(super) fn serialize<S: Serializer>(nexus: &ItNexus, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&serde_json::to_string(nexus).map_err(ser::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ItNexus, D::Error> {
        serde_json::from_str(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// The time since the node was booted.
pub fn now() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME);
    now.expect("the kernel has this clock").into()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    boot_id: String,
    ended_ms: u64,
    #[serde(default, rename = "ring")]
    rings: Vec<RestingRing>,
}

impl Record {
    fn parse(text: &[u8]) -> Result<Record, image::Error> {
        let text = image::open(text)?;
        toml::from_str(text).map_err(|error| image::Error::Syntax(Box::new(error)))
    }

    fn encode(&self) -> String {
        let mut text = image::unsealed(0);
        text.push_str(&toml::to_string(self).expect("strings and numbers are TOML"));
        image::seal(&mut text);
        text
    }
}

impl<F: Files> Records<F> {
    /// Leaves rings to the next daemon.
    pub fn hand_over(&self, left: &Handover) -> Result<(), Error> {
        let mut record = Record {
            boot_id: self.boot_id.clone(),
            ended_ms: u64::try_from(left.ended.as_millis()).unwrap_or(u64::MAX),
            rings: left.rings.clone(),
        };
        let mut text = record.encode();
        if text.len() > image::LENGTH_MAX {
            // Nobody would read it, and the rings matter more.
            record
                .rings
                .iter_mut()
                .for_each(|ring| ring.sessions.clear());
            text = record.encode();
        }
        Ok(saved::replace(
            &self.files,
            &self.handover_path(),
            text.as_bytes(),
        )?)
    }

    /// Takes what the last daemon has left: it is there once, whether it can be read or not. Of another boot, or if none
    /// was left, that is nothing.
    pub fn take_over(&self) -> Result<Handover, Error> {
        let path = self.handover_path();
        let found = saved::read(&self.files, &path);
        // Whatever it is: what can't be read now must not be found by another, when the rings are no more as they were.
        saved::remove(&self.files, &path).map_err(Error::HandoverStays)?;
        let unreadable = |source| Error::Handover { path, source };
        let text = match found {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(Handover::default()),
            Err(error) => return Err(unreadable(error.into())),
        };
        let record = match Record::parse(&text) {
            Ok(record) => record,
            Err(error) => return Err(unreadable(error.into())),
        };
        if record.boot_id != self.boot_id {
            return Ok(Handover::default());
        }
        Ok(Handover {
            ended: Duration::from_millis(record.ended_ms),
            rings: record.rings,
        })
    }

    fn handover_path(&self) -> PathBuf {
        self.run.join("handover")
    }
}

#[cfg(test)]
impl Handover {
    /// One that is not empty.
    pub(in crate::daemon) fn of_test() -> Handover {
        Handover {
            ended: Duration::from_secs(1),
            rings: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::{BOOT, NEXT_BOOT, Node};
    use super::*;
    use crate::scsi::nexus::{Protocol, TargetPort, TransportId};

    const ENDED: Duration = Duration::from_millis(5_000_250);

    fn nexus(number: u64) -> ItNexus {
        ItNexus {
            initiator_port: TransportId::Sas(number),
            target_port: TargetPort {
                protocol: Protocol::Sas,
                name: "naa.1".into(),
            },
        }
    }

    fn ring() -> RestingRing {
        RestingRing {
            minor: 3,
            incarnation: "ffffffff00001c2d".to_owned(),
            name: "tcm-user/0/lun0-a/pr//srv/lun0.img;nexus=a".to_owned(),
            tail: 4480,
            whose: Whose::Nexus(nexus(u64::MAX)),
            sessions: Vec::new(),
        }
    }

    fn session(id: (u16, u16), initiator: u64, read_only: bool) -> KnownSession {
        KnownSession {
            id: id.try_into().unwrap(),
            nexus: nexus(initiator),
            read_only,
        }
    }

    fn other() -> RestingRing {
        RestingRing {
            minor: 4,
            tail: 0,
            whose: Whose::Notes(Place {
                tap: 17,
                last: u32::MAX,
                resets: 1,
            }),
            sessions: vec![
                session((5, 2), u64::MAX, false),
                session((4095, u16::MAX), 7, true),
            ],
            ..ring()
        }
    }

    fn handover(rings: Vec<RestingRing>) -> Handover {
        Handover::new(rings, ENDED)
    }

    fn found(ring: RestingRing) -> Found {
        Found {
            minor: ring.minor,
            incarnation: ring.incarnation,
            name: ring.name,
            tail: ring.tail,
            command_timeout_s: 0,
        }
    }

    fn left() -> Handover {
        let node = Node::new();
        let records = node.records(BOOT);
        records.hand_over(&handover(vec![ring(), other()])).unwrap();
        records.take_over().unwrap()
    }

    #[test]
    fn a_ring_that_is_as_it_was_left_is_found() {
        let left = left();
        for ring in [ring(), other()] {
            let after_a_day = ENDED + Duration::from_secs(86_400);
            let found = found(ring.clone());
            assert_eq!(left.ring(&found, after_a_day), Some(&ring));
        }
    }

    #[test]
    fn a_ring_that_differs_in_anything_is_not() {
        let left = left();
        for ring in [
            RestingRing { minor: 5, ..ring() },
            RestingRing {
                incarnation: "1c2e".to_owned(),
                ..ring()
            },
            RestingRing {
                name: "tcm-user/0/lun0-a/pr//srv/lun0.img;nexus=b".to_owned(),
                ..ring()
            },
            RestingRing { tail: 0, ..ring() },
            RestingRing {
                tail: 4480,
                ..other()
            },
        ] {
            assert_eq!(left.ring(&found(ring.clone()), ENDED), None, "{ring:?}");
        }
    }

    #[test]
    fn a_ring_on_which_commands_may_have_failed_for_their_age_is_not() {
        let left = left();
        let found = Found {
            command_timeout_s: 30,
            ..found(ring())
        };
        let after = |seconds| left.ring(&found, ENDED + Duration::from_secs(seconds));
        assert!(after(14).is_some());
        assert!(after(15).is_none());
    }

    #[test]
    fn what_was_left_is_taken_once() {
        let node = Node::new();
        let records = node.records(BOOT);
        assert_eq!(records.take_over().unwrap(), Handover::default());
        records.hand_over(&handover(vec![ring()])).unwrap();
        let left = records.take_over().unwrap();
        assert_eq!(left.rings, [ring()]);
        assert_eq!(records.take_over().unwrap(), Handover::default());
    }

    #[test]
    fn what_was_taken_and_not_used_can_be_left_again() {
        let node = Node::new();
        let records = node.records(BOOT);
        let before = handover(vec![ring(), other()]);
        for _ in 0..2 {
            records.hand_over(&before).unwrap();
            // With the time since which nobody has served them.
            assert_eq!(records.take_over().unwrap(), before);
        }
    }

    #[test]
    fn what_was_left_before_a_boot_is_void() {
        let node = Node::new();
        node.records(BOOT)
            .hand_over(&handover(vec![ring()]))
            .unwrap();
        let records = node.records(NEXT_BOOT);
        assert_eq!(records.take_over().unwrap(), Handover::default());
    }

    /// Leaves a record, and changes what stands in it: with a checksum that is right, or without a word of that.
    fn left_with(change: impl FnOnce(&str) -> String, sealed: bool) -> (Node, Records) {
        let node = Node::new();
        let records = node.records(BOOT);
        records.hand_over(&handover(vec![ring()])).unwrap();
        let path = records.handover_path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut changed = change(&text);
        assert_ne!(changed, text);
        if sealed {
            image::seal(&mut changed);
        }
        std::fs::write(&path, changed).unwrap();
        (node, records)
    }

    /// What is said of a record that is not understood: once, then there is none.
    fn refusal((_, records): &(Node, Records)) -> String {
        let error = records.take_over().unwrap_err();
        assert!(matches!(error, Error::Handover { .. }), "{error}");
        assert_eq!(records.take_over().unwrap(), Handover::default());
        crate::daemon::chain(&error)
    }

    #[test]
    fn a_damaged_record_is_an_error_once_and_then_gone() {
        let told = refusal(&left_with(|text| text.replace("4480", "4488"), false));
        assert!(
            told.contains("initiators repeat what they have sent"),
            "{told}"
        );
        assert!(told.contains("its checksum should be"), "{told}");
        let torn = left_with(|text| text[..text.len() / 2].to_owned(), false);
        assert!(refusal(&torn).contains("its checksum should be"));
        let empty = left_with(|_| String::new(), false);
        assert!(refusal(&empty).contains("does not begin with a version"));
    }

    #[test]
    fn a_record_of_another_version_is_an_error_once_and_then_gone() {
        let next = left_with(|text| text.replacen("version = 1", "version = 2", 1), false);
        assert!(refusal(&next).ends_with("version 2, and only version 1 can be read"));
    }

    #[test]
    fn a_record_with_other_fields_is_an_error_once_and_then_gone() {
        let more = |text: &str| text.replacen("tail = ", "head = 7\ntail = ", 1);
        assert!(refusal(&left_with(more, true)).contains("unknown field `head`"));
        let less = |text: &str| text.replacen("tail = 4480\n", "", 1);
        assert!(refusal(&left_with(less, true)).contains("missing field `tail`"));
        // As it was before there was a nexus tap that stays.
        let older = |text: &str| text.replacen("\n[ring.whose]\n", "", 1);
        assert!(refusal(&left_with(older, true)).contains("unknown field `nexus`"));
        let other = |text: &str| text.replacen("\nnexus = ", "\nnobody = ", 1);
        assert!(refusal(&left_with(other, true)).contains("unknown variant `nobody`"));
    }

    #[test]
    fn a_record_that_others_could_have_written_is_an_error_once_and_then_gone() {
        let node = Node::new();
        let records = node.records(BOOT);
        records.hand_over(&handover(vec![ring()])).unwrap();
        let writable = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(records.handover_path(), writable).unwrap();
        assert!(refusal(&(node, records)).contains("others than its owner may write it"));
    }

    #[test]
    fn what_can_not_be_taken_away_is_not_taken() {
        let node = Node::new();
        let records = node.records(BOOT);
        std::fs::create_dir(records.handover_path()).unwrap();
        let error = records.take_over().unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("remove it before tcmu-pr is restarted"),
            "{text}"
        );
    }

    /// What is read of a record that says this of a ring.
    fn read(of_ring: &str) -> Result<Handover, Error> {
        let node = Node::new();
        let records = node.records(BOOT);
        let mut text = image::unsealed(0);
        text.push_str(&format!(
            "boot_id = \"{BOOT}\"\nended_ms = 5000250\n\n[[ring]]\nminor = 4\nincarnation = \"ffffffff00001c2d\"\n\
             name = \"tcm-user/0/lun0-a/pr//srv/lun0.img;nexus=a\"\ntail = 0\n\n[ring.whose.notes]\ntap = 17\n\
             last = 4294967295\nresets = 1\n{of_ring}"
        ));
        image::seal(&mut text);
        std::fs::write(records.handover_path(), text).unwrap();
        records.take_over()
    }

    #[test]
    fn a_record_without_sessions_is_read_too() {
        let without = RestingRing {
            sessions: Vec::new(),
            ..other()
        };
        assert_eq!(read("").unwrap().rings, [without]);
    }

    #[test]
    fn a_session_in_a_slot_that_there_is_not_is_an_error() {
        let with_slot = |slot: u16| {
            let nexus = serde_json::to_string(&nexus(7)).unwrap();
            read(&format!(
                "\n[[ring.session]]\nid = [{slot}, 3]\nnexus = '{nexus}'\nread_only = true\n"
            ))
        };
        for slot in [1, 4095] {
            let sessions = [session((slot, 3), 7, true)];
            assert_eq!(with_slot(slot).unwrap().rings[0].sessions, sessions);
        }
        for slot in [0, 4096, u16::MAX] {
            let error = with_slot(slot).unwrap_err();
            assert!(matches!(error, Error::Handover { .. }), "{error}");
        }
    }

    #[test]
    fn sessions_that_would_make_a_record_too_long_are_left_out() {
        let mut long = other();
        long.sessions[0].nexus.target_port.name = "n".repeat(image::LENGTH_MAX).into();
        let node = Node::new();
        let records = node.records(BOOT);
        records.hand_over(&handover(vec![ring(), long])).unwrap();
        let without = RestingRing {
            sessions: Vec::new(),
            ..other()
        };
        assert_eq!(records.take_over().unwrap().rings, [ring(), without]);
    }
}
