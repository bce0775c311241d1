//! The kernel's side of a backstore: its UIO device and its ring.
//!
//! A [`Device`] is one TCMU device of ours, opened and mapped. It knows how to wait, to take entries and to
//! answer them; what the commands in them mean is not its business.

pub mod config;
pub mod configfs;
pub mod netlink;
pub mod ring;
pub mod watch;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sys::region::Region;
use ring::{OpenError, Ring};

/// What can go wrong with a UIO device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The UIO class could not be read.
    #[error("reading {path}: is target_core_user loaded? (modprobe target_core_user)")]
    Scan {
        /// What was being read.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The attributes of a UIO device make no sense.
    #[error("{path} holds {content:?}, which is no size of a mapping")]
    MapSize {
        /// The attribute.
        path: PathBuf,
        /// What it holds.
        content: String,
    },
    /// The device node could not be opened.
    #[error("opening {path}: another process may have it open")]
    Open {
        /// The device node.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The ring could not be mapped.
    #[error("mapping {length} bytes of {path}")]
    Map {
        /// The device node.
        path: PathBuf,
        /// The length of the mapping.
        length: usize,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The ring is not one we can serve.
    #[error("the ring of {path} cannot be served")]
    Ring {
        /// The device node.
        path: PathBuf,
        /// Why.
        #[source]
        source: OpenError,
    },
}

/// Where the kernel shows UIO devices.
#[derive(Clone, Debug)]
pub struct UioPaths {
    /// `/sys/class/uio`.
    pub class: PathBuf,
    /// `/dev`.
    pub nodes: PathBuf,
}

impl Default for UioPaths {
    fn default() -> UioPaths {
        UioPaths {
            class: PathBuf::from("/sys/class/uio"),
            nodes: PathBuf::from("/dev"),
        }
    }
}

/// A UIO device as sysfs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uio {
    /// The number in `uioN`: the minor of the device.
    pub minor: u32,
    /// Its name: `tcm-user/<hba>/<device>/<config>` for a TCMU device.
    pub name: String,
}

impl UioPaths {
    /// Every UIO device of this machine, by minor.
    pub fn scan(&self) -> Result<Vec<Uio>, Error> {
        let failed = |source| Error::Scan {
            path: self.class.clone(),
            source,
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.class).map_err(failed)? {
            let file_name = entry.map_err(failed)?.file_name();
            let minor = file_name.to_str().and_then(|name| name.strip_prefix("uio"));
            let Some(minor) = minor.and_then(|minor| minor.parse().ok()) else {
                continue;
            };
            match std::fs::read_to_string(self.attribute(minor, "name")) {
                Ok(name) => found.push(Uio {
                    minor,
                    name: name.trim_end_matches('\n').to_owned(),
                }),
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(Error::Scan {
                        path: self.attribute(minor, "name"),
                        source,
                    });
                }
            }
        }
        found.sort_by_key(|uio| uio.minor);
        Ok(found)
    }

    /// Opens and maps a device.
    pub fn open(&self, minor: u32) -> Result<Device, Error> {
        self.map(minor, self.claim(minor)?)
    }

    /// Maps a device that is open.
    pub fn map(&self, minor: u32, file: File) -> Result<Device, Error> {
        let length = self.map_size(minor)?;
        let path = self.node(minor);
        let region = Region::map(&file, length).map_err(|source| Error::Map {
            path: path.clone(),
            length,
            source,
        })?;
        Device::new(file, region).map_err(|source| Error::Ring { path, source })
    }

    /// Opens a device without looking at its ring. While the file is open nobody else can open it.
    pub fn claim(&self, minor: u32) -> Result<File, Error> {
        let path = self.node(minor);
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .map_err(|source| Error::Open { path, source })
    }

    /// What tells a device from any other that had its number, or will have it. `None` if there is none.
    pub fn incarnation(&self, minor: u32) -> Option<u64> {
        let directory = self.class.join(format!("uio{minor}"));
        Some(std::fs::metadata(directory).ok()?.ino())
    }

    fn node(&self, minor: u32) -> PathBuf {
        self.nodes.join(format!("uio{minor}"))
    }

    fn map_size(&self, minor: u32) -> Result<usize, Error> {
        let path = self.attribute(minor, "maps/map0/size");
        let content = std::fs::read_to_string(&path).map_err(|source| Error::Scan {
            path: path.clone(),
            source,
        })?;
        let digits = content.trim().trim_start_matches("0x");
        usize::from_str_radix(digits, 16).map_err(|_| Error::MapSize { path, content })
    }

    fn attribute(&self, minor: u32, name: &str) -> PathBuf {
        self.class.join(format!("uio{minor}")).join(Path::new(name))
    }
}

/// The device was removed: it gives no more events and takes no more answers.
#[derive(Debug, thiserror::Error)]
#[error("the device was removed")]
pub struct Removed(#[source] pub io::Error);

/// A UIO device, opened and mapped.
#[derive(Debug)]
pub struct Device {
    doorbell: File,
    /// How often the kernel has woken us.
    wake_ups: u32,
    /// Its ring.
    pub ring: Ring,
}

/// What rings the doorbell. The kernel looks at its length and not at what it says.
pub const KICK: &[u8] = &[0; 4];

/// After how many wake-ups the kernel's count of events is read, which has 32 bits. There may be many events between two
/// wake-ups.
const WAKE_UPS_PER_READ: u32 = 1 << 10;

impl Device {
    /// A device from its parts: the file that wakes us and takes our kicks, four bytes each, and the mapping.
    pub fn new(doorbell: File, region: Region) -> Result<Device, OpenError> {
        Ok(Device {
            doorbell,
            wake_ups: 0,
            ring: Ring::open(Arc::new(region))?,
        })
    }

    /// Readable when the kernel has put entries on the ring since it was read last; takes [`KICK`]s. It does not block.
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    /// Takes note of a wake-up of the kernel's. To be called before the ring is drained, never after.
    ///
    /// What waits for each event needs nothing to be read, which would be a system call for each. But the kernel tells
    /// that there are events by its count being another than when it was read last: so it must not come round.
    pub fn acknowledge(&mut self) -> Result<(), Removed> {
        self.wake_ups = self.wake_ups.wrapping_add(1);
        if self.wake_ups % WAKE_UPS_PER_READ != 0 {
            return Ok(());
        }
        settled(|| self.doorbell.read(&mut [0; 4]))
    }

    /// Tells the kernel to look at the answers that were published.
    pub fn kick(&mut self) -> Result<(), Removed> {
        settled(|| self.doorbell.write(KICK))
    }
}

/// Repeats what a signal interrupted. That there was nothing to do is as good as having done it.
fn settled(mut call: impl FnMut() -> io::Result<usize>) -> Result<(), Removed> {
    loop {
        match call() {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Removed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_gives_names_and_skips_what_is_no_uio_device() {
        let folder = tempfile::tempdir().unwrap();
        for (uio, name) in [
            ("uio10", "tcm-user/1/lun0/pr//srv/a;nexus=n\n"),
            ("uio2", "other\n"),
        ] {
            std::fs::create_dir(folder.path().join(uio)).unwrap();
            std::fs::write(folder.path().join(uio).join("name"), name).unwrap();
        }
        std::fs::create_dir(folder.path().join("uiox")).unwrap();
        let paths = UioPaths {
            class: folder.path().to_owned(),
            ..UioPaths::default()
        };
        let expected = [
            Uio {
                minor: 2,
                name: "other".to_owned(),
            },
            Uio {
                minor: 10,
                name: "tcm-user/1/lun0/pr//srv/a;nexus=n".to_owned(),
            },
        ];
        assert_eq!(paths.scan().unwrap(), expected);
    }

    #[test]
    fn a_map_size_that_is_no_number_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let map = folder.path().join("uio0/maps/map0");
        std::fs::create_dir_all(&map).unwrap();
        std::fs::write(map.join("size"), "0x00000000009000x0\n").unwrap();
        let paths = UioPaths {
            class: folder.path().to_owned(),
            nodes: folder.path().join("nodes"),
        };
        std::fs::create_dir(&paths.nodes).unwrap();
        std::fs::write(paths.node(0), "").unwrap();
        let error = paths.open(0).unwrap_err().to_string();
        assert!(error.contains("uio0/maps/map0/size"), "{error}");
    }
}
