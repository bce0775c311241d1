//! Why a backing object cannot be served.

use std::io;
use std::path::{Path, PathBuf};

/// Why a backing object cannot be served. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder that should hold it is not there.
    #[error("the folder {folder} does not exist: create it, or correct the path {path}")]
    NoFolder {
        /// The folder.
        folder: PathBuf,
        /// The backing object.
        path: PathBuf,
    },
    /// There is no such device, and no file takes its place.
    #[error(
        "{path} does not exist, and no file is created where devices are: attach the device, or correct the path"
    )]
    NoDevice {
        /// The backing object.
        path: PathBuf,
    },
    /// It can only be read, and is not there.
    #[error("{path} does not exist, and read_only=1 creates nothing: correct the path")]
    NothingToRead {
        /// The backing object.
        path: PathBuf,
    },
    /// It is neither a regular file nor a block device.
    #[error("{path} is {kind}: give the path of a regular file or of a block device")]
    NotServed {
        /// The backing object.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The next boot may give its name to another device.
    #[error(
        "{path} is a name that may be another device's after the next boot: write {stable}, which stays"
    )]
    PassingName {
        /// The backing object.
        path: PathBuf,
        /// Its name that stays.
        stable: PathBuf,
    },
    /// Its size is not the one that was asked for.
    #[error(
        "{path} holds {actual} bytes and size= asks for {wanted}: \
         create the backstore with size={actual}B, or give another path"
    )]
    WrongSize {
        /// The backing object.
        path: PathBuf,
        /// Its size in bytes.
        actual: u64,
        /// The size that was asked for, in bytes.
        wanted: u64,
    },
    /// The size can't be the size of a logical unit.
    #[error(
        "size {size} is no multiple of the block size {block_size}, or zero: give a larger or rounder size="
    )]
    BadSize {
        /// The size that was asked for, in bytes.
        size: u64,
        /// The block size in bytes.
        block_size: u32,
    },
    /// The device can't write so little.
    #[error(
        "{path} has blocks of {device} bytes: create the backstore with control=hw_block_size={device}"
    )]
    SmallBlocks {
        /// The backing object.
        path: PathBuf,
        /// The device's logical block size in bytes.
        device: u32,
    },
    /// There is no direct I/O on it.
    #[error("{path} cannot be read and written past the page cache: leave out direct=1")]
    NoDirectIo {
        /// The backing object.
        path: PathBuf,
    },
    /// Its size is not one for direct I/O.
    #[error(
        "with direct=1, {path} is written in multiples of {alignment} bytes, and {size} bytes are none: give a rounder size=, \
         or leave out direct=1"
    )]
    NotAligned {
        /// The backing object.
        path: PathBuf,
        /// The size that was asked for, in bytes.
        size: u64,
        /// Of what it should be a multiple, in bytes.
        alignment: u64,
    },
    /// It was to become smaller.
    #[error(
        "{path} is served with {served} bytes: it can't become smaller, and {wanted} bytes are"
    )]
    Shrink {
        /// The backing object.
        path: PathBuf,
        /// Its size up to now, in bytes.
        served: u64,
        /// The size that was asked for, in bytes.
        wanted: u64,
    },
    /// It is not as large as it is to become, and can't be made so from here.
    #[error(
        "{path} holds {actual} bytes and is to be served with {wanted}: make it that large first, or set dev_size={actual}"
    )]
    NotGrown {
        /// The backing object.
        path: PathBuf,
        /// Its size in bytes.
        actual: u64,
        /// The size that was asked for, in bytes.
        wanted: u64,
    },
    /// Somebody has made it shorter than what is served.
    #[error(
        "{path} is served with {served} bytes, and somebody has cut it to {actual}: restore it"
    )]
    Cut {
        /// The backing object.
        path: PathBuf,
        /// Its size in bytes.
        actual: u64,
        /// Its size as it is served, in bytes.
        served: u64,
    },
    /// Somebody else serves it.
    #[error("{path} is locked: another process serves it (lsof {path} shows which)")]
    Locked {
        /// The backing object.
        path: PathBuf,
    },
    /// Somebody else has claimed the device.
    #[error(
        "{path} is in use: a file system on it is mounted, it is part of another device, or another process has claimed it \
         (lsblk {path} and lsof {path} show what)"
    )]
    InUse {
        /// The backing object.
        path: PathBuf,
    },
    /// It can't be written.
    #[error("{path} can't be written: make it writable, or add ;read_only=1 to the config string")]
    ReadOnly {
        /// The backing object.
        path: PathBuf,
        /// How it was found.
        #[source]
        source: Option<io::Error>,
    },
    /// It was another one a moment ago.
    #[error("{path} was replaced while it was opened: try again")]
    Replaced {
        /// The backing object.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{step} {path}")]
    System {
        /// What was being done.
        step: &'static str,
        /// The backing object.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Makes an error of the system's one of this module.
pub(super) fn fail(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::System { step, path, source }
}
