//! What is kept of a unit besides its reservations: mode parameters, and that a flush has failed.
//!
//! Two small records, each sealed as that of the reservations is. What outlives the daemon:
//!
//! ```toml
//! version = 1
//! checksum = "4a17b156"
//! unit = "1cdd8f01d6514cb0a17e88052252d9a5"
//! boot_id = "0b7f…"         # the boot of the node under which it was written: another one means loss of power
//! flush_failed = false
//!
//! [values]                  # what MODE SELECT has set; left out if it has set nothing
//! write_cache_enabled = true
//! software_write_protect = false
//! ```
//!
//! What outlives a loss of power has no `boot_id` and no `flush_failed`: the values are those that were saved.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, Keeper, Records, saved};
use crate::lu::UnitState;
use crate::pr::image;
use crate::scsi::mode::Values;
use crate::store::saved::{Files, Prepared};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    unit: String,
    boot_id: Option<String>,
    #[serde(default)]
    flush_failed: bool,
    values: Option<Values>,
}

impl Record {
    fn encode(&self) -> String {
        let mut text = image::unsealed(0);
        text.push_str(&toml::to_string(self).expect("strings and booleans are TOML"));
        image::seal(&mut text);
        text
    }

    fn parse(text: &[u8], unit: &str) -> Result<Record, image::Error> {
        let record: Record = toml::from_str(image::open(text)?)
            .map_err(|error| image::Error::Syntax(Box::new(error)))?;
        if record.unit != unit {
            return Err(image::Error::OtherUnit {
                found: record.unit,
                expected: unit.to_owned(),
            });
        }
        Ok(record)
    }
}

impl<F: Files> Records<F> {
    /// What was kept of the unit with this serial number besides its reservations.
    pub fn state(&self, serial: &str) -> Result<UnitState, Error> {
        let read = |folder| {
            let path = path(folder, serial);
            let Some(text) = saved::read(&self.files, &path)? else {
                return Ok(None);
            };
            Record::parse(&text, serial)
                .map(Some)
                .map_err(|source| Error::State { path, source })
        };
        let run = read(&self.run)?;
        let run = run.filter(|record| record.boot_id.as_ref() == Some(&self.boot_id));
        let saved = read(&self.state)?;
        Ok(UnitState {
            selected: run.as_ref().and_then(|record| record.values),
            saved: saved.and_then(|record| record.values),
            flush_failed: run.is_some_and(|record| record.flush_failed),
        })
    }
}

impl<F: Files> Keeper<F> {
    /// Does what can fail for want of space.
    pub(super) fn prepare_state(&self, state: &UnitState) -> Result<Prepared, saved::Error> {
        let record = Record {
            unit: self.serial.clone(),
            boot_id: Some(self.boot_id.clone()),
            flush_failed: state.flush_failed,
            values: state.selected,
        };
        let text = record.encode();
        saved::prepare(&self.files, &path(&self.run, &self.serial), text.as_bytes())
    }

    /// First what outlives a loss of power, then what was prepared. After an error, what was stored before still is.
    pub(super) fn put_state(
        &self,
        state: &UnitState,
        prepared: Prepared,
    ) -> Result<(), saved::Error> {
        let path = path(&self.state, &self.serial);
        let before = saved::read(&self.files, &path)?;
        let after = state.saved.map(|values| {
            let record = Record {
                unit: self.serial.clone(),
                boot_id: None,
                flush_failed: false,
                values: Some(values),
            };
            record.encode().into_bytes()
        });
        if before == after {
            return prepared.put(&self.files);
        }
        let stored = self
            .write(&path, after.as_deref())
            .and_then(|()| prepared.put(&self.files));
        if stored
            .as_ref()
            .is_err_and(|error| !error.has_changed_nothing())
        {
            self.take_back(&path, before.as_deref());
        }
        stored
    }
}

/// Where the record is in a folder of records.
pub(super) fn path(folder: &Path, serial: &str) -> std::path::PathBuf {
    folder.join(serial).with_extension("mode")
}
