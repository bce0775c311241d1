//! What lies at a path: a regular file or a block device, which one, how large, and what is below it.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::error::{Error, fail};
use crate::sys::block;

/// Where names of block devices are that stay the same, those first that say most about which device they mean.
const STABLE_NAMES: [&str; 3] = ["/dev/mapper", "/dev/disk/by-id", "/dev/disk/by-partuuid"];

/// The largest physical block that initiators are told of unasked: a page, in which the cache and most file systems
/// write.
const PHYSICAL_BLOCK_MAX: u32 = 4096;

/// Which object a path leads to: two paths with the same id are the same object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackingId {
    /// A regular file.
    File {
        /// The file system.
        device: u64,
        /// The file in it.
        inode: u64,
    },
    /// A block device, whichever of its nodes the path leads to.
    BlockDevice {
        /// Major and minor number.
        number: u64,
    },
}

impl BackingId {
    /// The object that has this metadata.
    pub(super) fn of(path: &Path, metadata: &Metadata) -> Result<BackingId, Error> {
        let file_type = metadata.file_type();
        let kind = if file_type.is_file() {
            return Ok(BackingId::File {
                device: metadata.dev(),
                inode: metadata.ino(),
            });
        } else if file_type.is_block_device() {
            return Ok(BackingId::BlockDevice {
                number: metadata.rdev(),
            });
        } else if file_type.is_dir() {
            "a folder"
        } else {
            "neither a file nor a block device"
        };
        Err(Error::NotServed {
            path: path.to_owned(),
            kind,
        })
    }
}

/// What kind of object it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A block device.
    BlockDevice(Discard),
}

/// How a block device discards, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discard {
    /// The most that one request of the kernel's to the device may have; 0 if it discards nothing.
    pub maximum: u64,
    /// What it discards at least; less is ignored.
    pub granularity: u64,
    /// Where the first piece of that size begins.
    pub alignment: u64,
    /// Whether it can be told to make zeros of a part without being sent them: then nothing else is asked of it.
    pub zeroes: bool,
}

/// What is below an object, as far as initiators gain by knowing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// How many bytes are written at once: less than that has to be read first.
    pub physical_block_size: u32,
    /// Where the first physical block begins, in bytes.
    pub first_physical_block: u32,
    /// Whether the medium rotates.
    pub rotates: bool,
    /// How many bytes an atomic write has, if there are atomic writes.
    pub atomic_write: Option<u32>,
}

/// The object at a path; `None` if there is none but a file could be created there.
pub(super) fn look_at(path: &Path) -> Result<Option<BackingId>, Error> {
    let missing = match fs::metadata(path) {
        Ok(metadata) => {
            check_made_up(path)?;
            return BackingId::of(path, &metadata).map(Some);
        }
        Err(error) => error,
    };
    if missing.kind() != io::ErrorKind::NotFound {
        return Err(fail("looking at", path)(missing));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    if holds_devices(path) || folder.canonicalize().is_ok_and(|at| holds_devices(&at)) {
        return Err(Error::NoDevice {
            path: path.to_owned(),
        });
    }
    if folder.is_dir() {
        return Ok(None);
    }
    Err(Error::NoFolder {
        folder: folder.to_owned(),
        path: path.to_owned(),
    })
}

/// Refuses what looks like a file, and is a setting of the kernel's, or its memory.
fn check_made_up(path: &Path) -> Result<(), Error> {
    let place = path.canonicalize().map_err(fail("resolving", path))?;
    if !["/proc", "/sys"].iter().any(|root| place.starts_with(root)) {
        return Ok(());
    }
    Err(Error::NotServed {
        path: path.to_owned(),
        kind: "a file that the kernel makes up",
    })
}

/// Whether a missing name there is that of a missing device.
fn holds_devices(path: &Path) -> bool {
    path.starts_with("/dev") && !path.starts_with("/dev/shm")
}

/// The size in bytes.
pub(super) fn size(file: &File, id: BackingId) -> io::Result<u64> {
    match id {
        BackingId::File { .. } => Ok(file.metadata()?.len()),
        BackingId::BlockDevice { .. } => block::size(file),
    }
}

/// The name under which the object's records are kept. A file's is its path without symbolic links. A block device's is
/// the path as it was written: where the links of `/dev/mapper` and `/dev/disk` lead changes with every boot.
pub(super) fn name(path: &Path, id: BackingId) -> Result<PathBuf, Error> {
    match id {
        BackingId::File { .. } => path.canonicalize().map_err(fail("resolving", path)),
        BackingId::BlockDevice { .. } => Ok(path.to_owned()),
    }
}

/// The name under which the records of a file that is not there are kept.
pub(super) fn name_of_missing(path: &Path) -> Result<PathBuf, Error> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let folder = folder.canonicalize().map_err(fail("resolving", folder))?;
    Ok(folder.join(path.file_name().unwrap_or_default()))
}

/// Refuses a name that the kernel hands out anew at each boot, if the device has one that stays.
///
/// Reservations and the disk's identity are found by the name: those of one disk would be taken for another's.
pub(super) fn check_name(path: &Path, id: BackingId) -> Result<(), Error> {
    let BackingId::BlockDevice { number } = id else {
        return Ok(());
    };
    if path.is_symlink() || path.parent() != Some(Path::new("/dev")) {
        return Ok(());
    }
    match STABLE_NAMES
        .iter()
        .find_map(|folder| name_in(folder, number))
    {
        None => Ok(()),
        Some(stable) => Err(Error::PassingName {
            path: path.to_owned(),
            stable,
        }),
    }
}

/// The first name in a folder that leads to the device with this number. Not one that has to be quoted somewhere.
fn name_in(folder: &str, number: u64) -> Option<PathBuf> {
    let is_plain = |path: &Path| {
        let text = path.to_str().unwrap_or("?");
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || "/-_.+".contains(c))
    };
    let leads_there = |path: &Path| {
        let device = BackingId::BlockDevice { number };
        fs::metadata(path)
            .is_ok_and(|found| BackingId::of(path, &found).is_ok_and(|id| id == device))
    };
    let names = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    names
        .filter(|path| is_plain(path) && leads_there(path))
        .min()
}

/// What kind of object it is.
pub(super) fn kind(id: BackingId) -> Kind {
    match id {
        BackingId::File { .. } => Kind::File,
        BackingId::BlockDevice { number } => Kind::BlockDevice(Discard::of(number)),
    }
}

impl Discard {
    /// What the kernel tells of the device with this number. What it does not tell, the device can't.
    fn of(number: u64) -> Discard {
        let device = PathBuf::from(format!(
            "/sys/dev/block/{}:{}",
            major(number),
            minor(number)
        ));
        let attribute = |path: &str| -> Option<u64> {
            let text = fs::read_to_string(device.join(path)).ok()?;
            text.trim().parse().ok()
        };
        // A partition has the queue of the whole device, and an alignment of its own.
        let queue = |name: &str| {
            attribute(&format!("queue/{name}")).or_else(|| attribute(&format!("../queue/{name}")))
        };
        Discard {
            maximum: queue("discard_max_bytes").unwrap_or(0),
            granularity: queue("discard_granularity").unwrap_or(0),
            alignment: attribute("discard_alignment").unwrap_or(0),
            zeroes: queue("write_zeroes_max_bytes").unwrap_or(0) > 0,
        }
    }
}

impl Topology {
    /// What is below an open object that is served with blocks of `block_size` bytes, and written in multiples of
    /// `written` bytes.
    pub(super) fn of(
        file: &File,
        id: BackingId,
        block_size: u32,
        written: u64,
    ) -> io::Result<Topology> {
        let (physical_block_size, alignment, rotates) = match id {
            BackingId::File { .. } => {
                let preferred = u32::try_from(file.metadata()?.blksize()).unwrap_or(u32::MAX);
                (preferred, Some(0), false)
            }
            BackingId::BlockDevice { .. } => (
                block::physical_block_size(file)?,
                block::alignment_offset(file)?,
                block::is_rotational(file)?,
            ),
        };
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        let physical_block_size = physical_block_size.max(written);
        let blocks = Topology::blocks(block_size, physical_block_size, alignment);
        Ok(Topology { rotates, ..blocks })
    }

    /// Physical blocks of this size, the first of which begins at `alignment`: none larger than the logical ones are told
    /// of if they don't begin where logical blocks do.
    fn blocks(block_size: u32, physical_block_size: u32, alignment: Option<u32>) -> Topology {
        let physical = physical_block_size.min(PHYSICAL_BLOCK_MAX);
        let larger = physical.is_power_of_two() && physical > block_size;
        let first = alignment.map(|at| at % physical.max(1));
        match first.filter(|at| larger && at % block_size == 0) {
            Some(first) => Topology {
                physical_block_size: physical,
                first_physical_block: first,
                rotates: false,
                atomic_write: None,
            },
            None => Topology {
                physical_block_size: block_size,
                first_physical_block: 0,
                rotates: false,
                atomic_write: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::{Mode, SFlag, makedev, mknod};

    use super::*;

    #[test]
    fn physical_blocks_are_told_of_where_logical_blocks_begin() {
        for (block_size, physical, alignment, expected) in [
            (512, 4096, Some(0), (4096, 0)),
            (512, 4096, Some(3584), (4096, 3584)),
            (512, 512, Some(0), (512, 0)),
            (4096, 4096, Some(0), (4096, 0)),
            (4096, 512, Some(0), (4096, 0)),
            // No more than a page: a file on NFS says 1 MiB.
            (512, 1 << 20, Some(0), (4096, 0)),
            // The alignment can be that of a stripe.
            (512, 4096, Some(65536 + 512), (4096, 512)),
            // Where they begin can't be told.
            (2048, 4096, Some(512), (2048, 0)),
            (512, 4096, None, (512, 0)),
            (512, 0, Some(0), (512, 0)),
            (512, 3000, Some(0), (512, 0)),
        ] {
            let topology = Topology::blocks(block_size, physical, alignment);
            let told = (topology.physical_block_size, topology.first_physical_block);
            assert_eq!(told, expected, "{block_size} {physical} {alignment:?}");
        }
    }

    #[test]
    fn a_name_that_stays_is_found_by_the_device() {
        let folder = tempfile::tempdir().unwrap();
        let names = folder.path().to_str().unwrap();
        let (number, other) = (makedev(7, 1000), makedev(7, 1001));
        for (name, number) in [("other", other), ("b", number), ("with space", number)] {
            let block = SFlag::S_IFBLK;
            // Only root may.
            if mknod(&folder.path().join(name), block, Mode::S_IRWXU, number).is_err() {
                return;
            }
        }
        fs::write(folder.path().join("a"), "").unwrap();
        assert_eq!(name_in(names, number), Some(folder.path().join("b")));
        symlink("b", folder.path().join("a-link")).unwrap();
        assert_eq!(name_in(names, number), Some(folder.path().join("a-link")));
        assert_eq!(name_in(names, makedev(7, 1002)), None);
        assert_eq!(name_in("/there/is/no/such/folder", number), None);
    }

    #[test]
    fn a_missing_file_has_the_name_that_it_would_have() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap();
        let link = place.join("link");
        symlink(&place, &link).unwrap();
        let path = link.join("lun0.img");
        let missing = name_of_missing(&path).unwrap();
        assert_eq!(missing, place.join("lun0.img"));
        fs::write(&path, "").unwrap();
        let id = look_at(&path).unwrap().unwrap();
        assert_eq!(name(&path, id).unwrap(), missing);
    }

    #[test]
    fn what_the_kernel_makes_up_is_no_disk() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("/proc/self/comm", &link).unwrap();
        for path in [Path::new("/proc/self/comm"), &link] {
            let error = look_at(path).unwrap_err().to_string();
            assert!(
                error.contains("is a file that the kernel makes up"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_missing_name_is_a_devices_below_dev_and_not_below_its_memory() {
        assert!(holds_devices(Path::new("/dev/sdx")));
        assert!(holds_devices(Path::new("/dev/disk/by-id/x")));
        assert!(!holds_devices(Path::new("/dev/shm/lun0.img")));
        assert!(!holds_devices(Path::new("/devices/lun0.img")));
        assert!(!holds_devices(Path::new("/srv/lun0.img")));
    }
}
