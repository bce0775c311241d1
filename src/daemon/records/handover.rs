//! Where the next daemon goes on: the rings that one has left in order when it was asked to end.
//!
//! ```toml
//! version = 1
//! checksum = "4a17b156"
//! boot_id = "0b7f…"         # the boot of the node under which it was written
//! ended_ms = 86400123       # when, on the clock that counts since that boot
//!
//! [[ring]]                  # each ring of which all that was taken has been answered
//! minor = 3                 # of its UIO device
//! incarnation = "1c2d"      # which of all the devices that have had that number
//! name = "tcm-user/0/lun0-a/pr//srv/lun0.img;nexus=a"
//! tail = 4480
//! ```
//!
//! It is taken away before anything is served, so that a crash later on never finds it: then nobody knows what is
//! pending on a ring.

use std::path::PathBuf;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{Error, Records, saved};
use crate::pr::image;
use crate::store::saved::Files;
use crate::tcmu::{Uio, UioPaths};

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
}

/// What the last daemon has left to this one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    ended: Duration,
    rings: Vec<RestingRing>,
}

impl RestingRing {
    /// The ring of a device with this tail; `None` if there is no such device.
    pub fn of(uios: &UioPaths, uio: &Uio, tail: u32) -> Option<RestingRing> {
        Some(RestingRing {
            minor: uio.minor,
            incarnation: format!("{:x}", uios.incarnation(uio.minor)?),
            name: uio.name.clone(),
            tail,
        })
    }
}

impl Handover {
    /// Whether a ring is as it was left, so that it can be served from its tail on. `found` is how it is now. After
    /// `command_timeout_s` seconds the kernel fails commands without telling us, never if that is 0: those that came right
    /// after the last daemon's end must not have waited for so long, or a write would be performed that its initiator was
    /// told has failed.
    pub fn has(&self, found: &RestingRing, command_timeout_s: u32, now: Duration) -> bool {
        // Until the first of them is begun, some more time passes.
        let patience = Duration::from_secs(command_timeout_s.into()) / 2;
        let waited = now.saturating_sub(self.ended);
        (command_timeout_s == 0 || waited < patience) && self.rings.contains(found)
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

impl<F: Files> Records<F> {
    /// Leaves rings to the next daemon, which are at rest from now on.
    pub fn hand_over(&self, rings: Vec<RestingRing>, now: Duration) -> Result<(), Error> {
        let record = Record {
            boot_id: self.boot_id.clone(),
            ended_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            rings,
        };
        let mut text = image::unsealed(0);
        text.push_str(&toml::to_string(&record).expect("strings and numbers are TOML"));
        image::seal(&mut text);
        Ok(saved::replace(
            &self.files,
            &self.handover_path(),
            text.as_bytes(),
        )?)
    }

    /// Takes what the last daemon has left: it is there once. Of another boot, or if none was left, that is nothing.
    pub fn take_over(&self) -> Result<Handover, Error> {
        let path = self.handover_path();
        let Some(text) = saved::read(&self.files, &path)? else {
            return Ok(Handover::default());
        };
        saved::remove(&self.files, &path)?;
        let record = image::open(&text)
            .and_then(|text| {
                toml::from_str::<Record>(text)
                    .map_err(|error| image::Error::Syntax(Box::new(error)))
            })
            .map_err(|source| Error::Handover { path, source })?;
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
mod tests {
    use super::super::tests::{BOOT, NEXT_BOOT, Node};
    use super::*;

    const ENDED: Duration = Duration::from_millis(5_000_250);

    fn ring() -> RestingRing {
        RestingRing {
            minor: 3,
            incarnation: "ffffffff00001c2d".to_owned(),
            name: "tcm-user/0/lun0-a/pr//srv/lun0.img;nexus=a".to_owned(),
            tail: 4480,
        }
    }

    fn other() -> RestingRing {
        RestingRing {
            minor: 4,
            tail: 0,
            ..ring()
        }
    }

    fn left() -> Handover {
        let node = Node::new();
        let records = node.records(BOOT);
        records.hand_over(vec![ring(), other()], ENDED).unwrap();
        records.take_over().unwrap()
    }

    #[test]
    fn a_ring_that_is_as_it_was_left_is_found() {
        let left = left();
        for ring in [ring(), other()] {
            assert!(left.has(&ring, 0, ENDED + Duration::from_secs(86_400)));
        }
    }

    #[test]
    fn a_ring_that_differs_in_anything_is_not() {
        let left = left();
        for found in [
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
            assert!(!left.has(&found, 0, ENDED), "{found:?}");
        }
    }

    #[test]
    fn a_ring_on_which_commands_may_have_failed_for_their_age_is_not() {
        let left = left();
        let after = |seconds| left.has(&ring(), 30, ENDED + Duration::from_secs(seconds));
        assert!(after(14));
        assert!(!after(15));
    }

    #[test]
    fn what_was_left_is_taken_once() {
        let node = Node::new();
        let records = node.records(BOOT);
        assert_eq!(records.take_over().unwrap(), Handover::default());
        records.hand_over(vec![ring()], ENDED).unwrap();
        assert!(records.take_over().unwrap().has(&ring(), 0, ENDED));
        assert_eq!(records.take_over().unwrap(), Handover::default());
    }

    #[test]
    fn what_was_left_before_a_boot_is_void() {
        let node = Node::new();
        node.records(BOOT).hand_over(vec![ring()], ENDED).unwrap();
        let records = node.records(NEXT_BOOT);
        assert_eq!(records.take_over().unwrap(), Handover::default());
    }

    #[test]
    fn a_damaged_record_is_an_error_once_and_then_gone() {
        let node = Node::new();
        let records = node.records(BOOT);
        records.hand_over(vec![ring()], ENDED).unwrap();
        let path = records.handover_path();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("4480", "4488")).unwrap();
        let error = records.take_over().unwrap_err();
        assert!(matches!(error, Error::Handover { .. }), "{error}");
        assert_eq!(records.take_over().unwrap(), Handover::default());
    }
}
