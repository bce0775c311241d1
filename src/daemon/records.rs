//! What is kept of a logical unit: who it is, and what is registered and reserved.
//!
//! ```text
//! /var/lib/tcmu-pr/<name>.unit          path, serial number, target ports: from creation on, for ever
//! /var/lib/tcmu-pr/<serial>.pr          reservations that outlive a loss of power: while APTPL is on
//! /run/tcmu-pr/<serial>.pr              reservations that outlive the daemon: always
//! /var/lib/tcmu-pr/<serial>.mode        mode parameters that initiators have saved
//! /var/lib/tcmu-pr/<serial>.history     who has changed the reservations when: see [`crate::history`]
//! /run/tcmu-pr/<serial>.mode            those that they have set, and whether a flush has failed: see [`state`]
//! /run/tcmu-pr/handover                 rings at rest, between a daemon's end and the start of the next: see [`handover`]
//! ```
//!
//! `<name>` is the first 16 hexadecimal digits of SHA-256 of the path. The second and third are
//! [`crate::pr::image`] records. A record under `/run` counts as long as the kernel has not been booted anew;
//! after that, what APTPL asked to keep is what the one under `/var/lib` holds.
//!
//! A record that can't be read is never taken for an empty one: it stays where it is, and nobody is let in.

pub mod handover;
mod state;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::recorder::Note;
use crate::history;
use crate::lu::ToStore;
use crate::pr::image::{self, Image};
use crate::pr::{Reservations, Save};
use crate::scsi::nexus::{ItNexus, TargetPorts};
use crate::scsi::sense::Sense;
use crate::store::saved::{self, Disk, Files};

/// What can go wrong with records.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder for records could not be made.
    #[error("creating the folder {folder} for records")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another user could put records there.
    #[error("the folder {folder} can't be trusted with records")]
    Trust {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel does not tell which boot this is.
    #[error("reading {path}")]
    Kernel {
        /// What was read.
        path: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A record could not be read or written.
    #[error("the record could not be reached")]
    Saved(#[from] saved::Error),
    /// The unit's own record is damaged.
    #[error(
        "{path} can't be read: it says who the logical unit is. Restore it, or move it away to have the unit \
         get a new serial number"
    )]
    Unit {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A record of reservations is damaged.
    #[error(
        "{path} can't be read: it says who is registered and reserved. Nobody is let in until it is restored and \
         tcmu-pr is restarted, or `tcmu-pr clear` is told to go on without it"
    )]
    Reservations {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: image::Error,
    },
    /// What the last daemon has left can't be read.
    #[error(
        "{path} could not be read, and is gone: initiators repeat what they have sent since tcmu-pr ended"
    )]
    Handover {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What the last daemon has left can't be taken away.
    #[error(
        "what the last tcmu-pr has left stays there and is not used, so initiators repeat what they have sent since: remove it \
         before tcmu-pr is restarted, or the next one could take it for what this one has left"
    )]
    HandoverStays(#[source] saved::Error),
    /// A record of what is kept besides is damaged.
    #[error(
        "{path} can't be read: it says whether a flush has failed, and which mode parameters were set"
    )]
    State {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: image::Error,
    },
}

/// Who a logical unit is. It stays the same for the life of its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitRecord {
    /// The version of this record: 1.
    version: Version,
    /// The backing object.
    pub path: PathBuf,
    /// Unit serial number: 32 hexadecimal digits.
    pub serial: String,
    /// The target ports, in the order of their relative target port identifiers.
    pub target_ports: TargetPorts,
}

/// The one version of unit records that there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Version;

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(number: u32) -> Result<Version, String> {
        match number {
            1 => Ok(Version),
            _ => Err(format!("version {number} of unit records is not known")),
        }
    }
}

impl From<Version> for u32 {
    fn from(_: Version) -> u32 {
        1
    }
}

/// What was kept of a unit's reservations.
#[derive(Debug)]
pub struct Kept {
    /// What is registered and reserved.
    pub reservations: Reservations,
    /// The unit attention conditions that were pending, as far as a record tells.
    pub attentions: Vec<(Arc<ItNexus>, Sense)>,
    /// Whether this is the first time since the node was booted.
    pub power_on: bool,
}

/// Where records are, and under which boot of the node.
#[derive(Clone, Debug)]
pub struct Records<F = Disk> {
    files: F,
    run: PathBuf,
    state: PathBuf,
    boot_id: String,
}

impl Records {
    /// Records in the folder `run`, which a boot empties, and in `state`, which lasts.
    pub fn open(run: &Path, state: &Path) -> Result<Records, Error> {
        const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
        for folder in [run, state] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|source| Error::Folder {
                    folder: folder.to_owned(),
                    source,
                })?;
            saved::check_folder(folder).map_err(|source| Error::Trust {
                folder: folder.to_owned(),
                source,
            })?;
        }
        let boot_id = fs::read_to_string(BOOT_ID).map_err(|source| Error::Kernel {
            path: BOOT_ID,
            source,
        })?;
        Ok(Records::new(Disk, run, state, boot_id.trim()))
    }
}

impl<F: Files> Records<F> {
    /// Records in folders that exist, under the boot with this id.
    pub fn new(files: F, run: &Path, state: &Path, boot_id: &str) -> Records<F> {
        Records {
            files,
            run: run.to_owned(),
            state: state.to_owned(),
            boot_id: boot_id.to_owned(),
        }
    }

    /// Who the unit on a backing object is; a new one gets a random serial number.
    pub fn unit(&self, backing: &Path) -> Result<UnitRecord, Error> {
        let path = self.unit_path(backing);
        if let Some(text) = saved::read(&self.files, &path)? {
            return toml::from_slice(&text).map_err(|source| Error::Unit {
                path,
                source: Box::new(source),
            });
        }
        let record = UnitRecord {
            version: Version,
            path: backing.to_owned(),
            serial: random_serial()?,
            target_ports: TargetPorts::default(),
        };
        self.save_unit(&record)?;
        Ok(record)
    }

    /// The record of a unit on a backing object, if there has been one.
    pub fn known(&self, backing: &Path) -> Result<Option<PathBuf>, Error> {
        let path = self.unit_path(backing);
        Ok(saved::read(&self.files, &path)?.map(|_| path))
    }

    /// Keeps who the unit is, durably.
    pub fn save_unit(&self, record: &UnitRecord) -> Result<(), Error> {
        let text = toml::to_string(record).expect("strings and numbers are TOML");
        Ok(saved::replace(
            &self.files,
            &self.unit_path(&record.path),
            text.as_bytes(),
        )?)
    }

    /// What is registered and reserved at the unit with this serial number.
    pub fn reservations(&self, serial: &str) -> Result<Kept, Error> {
        let read = |folder| {
            let path = reservations_path(folder, serial);
            let Some(text) = saved::read(&self.files, &path)? else {
                return Ok(None);
            };
            match Image::parse(&text, serial) {
                Ok(image) => Ok(Some(image)),
                Err(source) => Err(Error::Reservations { path, source }),
            }
        };
        if let Some(image) = read(&self.run)? {
            if image.boot_id == self.boot_id {
                return Ok(Kept {
                    reservations: image.reservations,
                    attentions: image.attentions,
                    power_on: false,
                });
            }
        }
        let reservations = read(&self.state)?
            .map(|image| image.reservations.after_power_loss())
            .unwrap_or_default();
        Ok(Kept {
            reservations,
            attentions: Vec::new(),
            power_on: true,
        })
    }

    /// Stores what is kept of the unit with this serial number as what is in force from now on: a restart finds that there
    /// was a power on, and a crash between two records is mended.
    ///
    /// Where nothing can be stored that lasts, since the disk is full or can't be written, that is no reason not to serve the
    /// unit if a loss of power would find what it should all the same.
    pub fn begin(&self, serial: &str, kept: &Kept) -> Result<(), Error> {
        let mut to_store = ToStore {
            next: kept.reservations.clone(),
            save: Save::Durable,
            attentions: kept.attentions.clone(),
            state: None,
            set_aside: false,
            cause: None,
        };
        let Err(error) = self.keeper(serial).save(&to_store) else {
            return Ok(());
        };
        if !self.lasts(serial, &kept.reservations) {
            return Err(error.into());
        }
        to_store.save = Save::Runtime;
        self.keeper(serial).save(&to_store)?;
        log::warn!(
            "unit {serial} is served as it was, but what APTPL asks to keep can't be stored, and is refused until it can: {}",
            super::chain(&error)
        );
        Ok(())
    }

    /// Whether a loss of power finds of these reservations what it should.
    fn lasts(&self, serial: &str, reservations: &Reservations) -> bool {
        let path = reservations_path(&self.state, serial);
        let lasting = match saved::read(&self.files, &path) {
            Ok(Some(text)) => Image::parse(&text, serial)
                .ok()
                .map(|image| image.reservations),
            Ok(None) => Some(Reservations::default()),
            Err(_) => None,
        };
        let found = lasting.map(|lasting| lasting.after_power_loss());
        found == Some(reservations.after_power_loss())
    }

    /// Keeps the reservations of the unit with this serial number from now on.
    pub fn keeper(&self, serial: &str) -> Keeper<F> {
        Keeper {
            files: self.files.clone(),
            unsure: false,
            run: self.run.clone(),
            state: self.state.clone(),
            serial: serial.to_owned(),
            boot_id: self.boot_id.clone(),
        }
    }

    /// Forgets what does not outlive a loss of power: the administrator has removed the unit.
    pub fn power_off(&self, serial: &str) -> Result<(), Error> {
        for path in [
            reservations_path(&self.run, serial),
            state::path(&self.run, serial),
        ] {
            saved::remove(&self.files, &path)?;
        }
        Ok(())
    }

    /// Where the history of the unit with this serial number is.
    pub fn history(&self, serial: &str) -> PathBuf {
        history::path(&self.state, serial)
    }

    fn unit_path(&self, backing: &Path) -> PathBuf {
        let digest: [u8; 32] = Sha256::digest(backing.as_os_str().as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        let name = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        self.state
            .join(format!("{name:016x}"))
            .with_extension("unit")
    }
}

fn reservations_path(folder: &Path, serial: &str) -> PathBuf {
    folder.join(serial).with_extension("pr")
}

/// A UUID of the kernel's, without its dashes.
fn random_serial() -> Result<String, Error> {
    const UUID: &str = "/proc/sys/kernel/random/uuid";
    let uuid = fs::read_to_string(UUID).map_err(|source| Error::Kernel { path: UUID, source })?;
    Ok(uuid.chars().filter(char::is_ascii_hexdigit).collect())
}

/// Keeps the records of one logical unit.
pub trait Keep {
    /// Stores what is to be stored. After an error, what was stored before still is.
    fn save(&mut self, to_store: &ToStore) -> Result<(), saved::Error>;

    /// Takes note of what has happened, once whoever waits for it has been told. Never waits.
    fn take_note(&mut self, _note: Note) {}
}

/// Keeps them in files.
#[derive(Clone, Debug)]
pub struct Keeper<F = Disk> {
    files: F,
    /// The folder of records that a boot empties.
    run: PathBuf,
    /// The folder of those that last.
    state: PathBuf,
    serial: String,
    boot_id: String,
    /// A change that failed could not be taken back from `state`: the next one has to be stored there, whatever it asks
    /// for.
    unsure: bool,
}

impl<F: Files> Keep for Keeper<F> {
    /// First what can fail for want of space, for both records; then the one that outlives a loss of power takes its
    /// place, then the one that rules while the node is up. So a crash of the daemon in between leaves the old
    /// reservations in force, and a loss of power leaves the old ones or the new ones.
    fn save(&mut self, to_store: &ToStore) -> Result<(), saved::Error> {
        let Some(state) = &to_store.state else {
            return self.save_reservations(to_store);
        };
        let prepared = self.prepare_state(state)?;
        self.save_reservations(to_store)?;
        self.put_state(state, prepared)
    }
}

impl<F: Files> Keeper<F> {
    fn save_reservations(&mut self, to_store: &ToStore) -> Result<(), saved::Error> {
        let files = &self.files;
        if to_store.save == Save::Nothing {
            return Ok(());
        }
        let record = self.image(to_store, &to_store.attentions);
        let run = saved::prepare(files, &self.reservations_in(&self.run), record.as_bytes())?;
        if to_store.set_aside {
            self.set_aside()?;
        }
        if to_store.save == Save::Runtime && !self.unsure {
            return run.put(files);
        }
        let path = self.reservations_in(&self.state);
        let before = saved::read(files, &path)?;
        let stored = self
            .save_state(to_store, record)
            .and_then(|()| run.put(files));
        self.unsure = match &stored {
            Ok(()) => false,
            Err(error) if error.has_changed_nothing() => self.unsure,
            Err(_) => !self.take_back(&path, before.as_deref()),
        };
        stored
    }

    fn reservations_in(&self, folder: &Path) -> PathBuf {
        reservations_path(folder, &self.serial)
    }

    /// Stores what outlives a loss of power, or erases it. `run` is the record that outlives the daemon.
    fn save_state(&self, to_store: &ToStore, run: String) -> Result<(), saved::Error> {
        // A loss of power takes the unit attentions with it.
        let state = to_store
            .next
            .aptpl()
            .then(|| match to_store.attentions[..] {
                [] => run,
                _ => self.image(to_store, &[]),
            });
        let path = self.reservations_in(&self.state);
        self.write(&path, state.as_ref().map(String::as_bytes))
    }

    /// Writes a record durably; `None` removes it.
    fn write(&self, path: &Path, record: Option<&[u8]>) -> Result<(), saved::Error> {
        match record {
            Some(record) => saved::replace(&self.files, path, record),
            None => saved::remove(&self.files, path),
        }
    }

    /// The command that was to change the record fails: a boot must not find the change. Tells whether that is sure.
    fn take_back(&self, path: &Path, before: Option<&[u8]>) -> bool {
        let restored = self.write(path, before);
        if let Err(error) = &restored {
            log::error!(
                "a change that failed could not be taken back, and may be found after a loss of power: {}",
                super::chain(error)
            );
        }
        restored.is_ok()
    }

    fn image(&self, to_store: &ToStore, attentions: &[(Arc<ItNexus>, Sense)]) -> String {
        let image = Image {
            unit: self.serial.clone(),
            boot_id: self.boot_id.clone(),
            reservations: to_store.next.clone(),
            attentions: attentions.to_vec(),
        };
        image.encode()
    }

    /// Keeps records that can't be read, under other names.
    fn set_aside(&self) -> Result<(), saved::Error> {
        for folder in [&self.run, &self.state] {
            let path = self.reservations_in(folder);
            if let Some(aside) = saved::set_aside(&self.files, &path)? {
                log::warn!("{} is kept as {}", path.display(), aside.display());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
