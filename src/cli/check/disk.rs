//! The disks that a file or block device is stored on at last, below partitions and device mapper.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::speed::number;

/// A disk with a queue of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Disk {
    /// The kernel's name of it.
    pub(super) name: String,
    /// The I/O scheduler in use.
    pub(super) scheduler: String,
    /// Whether it says that it rotates.
    pub(super) rotates: bool,
}

/// The disks below `path`, as the directory of block devices by their numbers has them. None of what lies on no block device,
/// as in memory or on another machine, or is not there.
pub(super) fn below(path: &Path, block_devices: &Path) -> Vec<Disk> {
    let Ok(metadata) = fs::metadata(path) else {
        return Vec::new();
    };
    let device = if metadata.file_type().is_block_device() {
        metadata.rdev()
    } else {
        metadata.dev()
    };
    let numbers = format!("{}:{}", major(device), minor(device));
    let mut disks = Vec::new();
    if let Ok(directory) = block_devices.join(numbers).canonicalize() {
        collect(&directory, &mut disks);
    }
    disks
}

/// Adds the disks below a block device, whose directory in sysfs this is.
fn collect(device: &Path, disks: &mut Vec<Disk>) {
    let device = match device.parent() {
        Some(whole) if device.join("partition").exists() => whole,
        _ => device,
    };
    let mut parts = Vec::new();
    for part in fs::read_dir(device.join("slaves")).into_iter().flatten() {
        parts.extend(part.and_then(|part| part.path().canonicalize()));
    }
    for part in &parts {
        collect(part, disks);
    }
    if parts.is_empty() {
        disks.extend(disk(device));
    }
}

fn disk(device: &Path) -> Option<Disk> {
    let queue = device.join("queue");
    let schedulers = fs::read_to_string(queue.join("scheduler")).ok()?;
    // The one in use is in brackets, unless there is no other.
    let (_, after) = schedulers.split_once('[').unwrap_or(("", &schedulers));
    let scheduler = after.split(']').next().unwrap_or_default().trim();
    Some(Disk {
        name: device.file_name()?.to_string_lossy().into_owned(),
        scheduler: scheduler.to_owned(),
        rotates: number(&queue.join("rotational")) == Some(1),
    })
}
