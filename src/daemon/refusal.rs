//! Why a device is not served.

use std::path::PathBuf;

use nix::errno::Errno;

use super::records;
use crate::nexus::tap::DEVICES;
use crate::store::backing;
use crate::tcmu;
use crate::tcmu::config::{self, Label};
use crate::tcmu::configfs::{self, BackstoreName};

/// Why a device is not served. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Configfs(#[from] configfs::Error),
    #[error(transparent)]
    Device(#[from] tcmu::Error),
    #[error(transparent)]
    Backing(#[from] backing::Error),
    #[error(transparent)]
    Records(#[from] records::Error),
    #[error(
        "a block size of {block_size} bytes does not go with a size of {size} bytes: give hw_block_size 512, 1024, 2048 or 4096, and a multiple of it as size"
    )]
    Geometry { block_size: u32, size: u64 },
    #[error(
        "physical_block_size={physical} is smaller than the block size of {block_size} bytes: give at least \
         physical_block_size={block_size}, or leave it out"
    )]
    PhysicalBlocks { physical: u32, block_size: u32 },
    #[error(
        "{path} is served already with {key}={theirs}, and this backstore has {key}={ours}: backstores with the same \
         path are one disk, give them the same {key}"
    )]
    Differs {
        path: PathBuf,
        key: &'static str,
        theirs: u64,
        ours: u64,
    },
    #[error(
        "{path} has another copy_domain= in its other backstores, or none: backstores with the same path are one disk, give \
         them the same"
    )]
    OtherDomain { path: PathBuf },
    #[error(
        "backstore {other} has the label {label} already: give each backstore of {path} a nexus= of its own"
    )]
    LabelTwice {
        path: PathBuf,
        label: Label,
        other: BackstoreName,
    },
    #[error(
        "{path} has the backstore {other} already, and one of the two has ;nexus=<label> in its config string: either all \
         initiators share a backstore, or each has one of its own"
    )]
    BothWays { path: PathBuf, other: BackstoreName },
    #[error(
        "without ;nexus=<label> in its config string a backstore is shared by all initiators, and nobody can tell them \
         apart here: {why}. Mend that (tcmu-pr check), or give each initiator a backstore of its own: \
         cfgstring={path};nexus=<label>"
    )]
    NoTap { path: PathBuf, why: String },
    #[error(
        "its UIO device has the number {max} or a higher one, and the nexus tap has room for {max}: take away devices \
         that are not needed",
        max = DEVICES
    )]
    TooManyDevices,
    #[error(
        "{path} is another file or device than the one that is served under this path: remove the backstores of that one first"
    )]
    Replaced { path: PathBuf },
    #[error(
        "{path} is not there, and was a disk before: mount its file system, or restore it. If it shall be an empty disk, make \
         the file yourself (truncate --size=)"
    )]
    Gone { path: PathBuf },
    #[error("{path} is {served} under another name: give all backstores of a disk the same path")]
    OtherPath { path: PathBuf, served: PathBuf },
    #[error(
        "nobody can tell how much space is left for {path}, which is a block device or on a file system that takes none \
         back: leave thin_threshold= out"
    )]
    NoThreshold { path: PathBuf },
    #[error(
        "the file system of {path} does not answer: see to its server or its device (`stat {path}` hangs until it is back). A \
         backstore that is there is served as soon as it answers, one that is not can be made then"
    )]
    NoAnswer { path: PathBuf },
    #[error("starting the logical unit on {path}")]
    Start {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl Refusal {
    /// What the kernel is told, and whoever restores a configuration: the nearest that an error number comes to the text.
    pub(super) fn errno(&self) -> Errno {
        match self {
            Refusal::Gone { .. }
            | Refusal::Backing(
                backing::Error::NoFolder { .. }
                | backing::Error::NoDevice { .. }
                | backing::Error::NothingToRead { .. },
            ) => Errno::ENOENT,
            Refusal::Backing(backing::Error::InUse { .. } | backing::Error::Locked { .. }) => {
                Errno::EBUSY
            }
            Refusal::NoAnswer { .. } => Errno::ETIMEDOUT,
            _ => Errno::EINVAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::capacity::Geometry;

    #[test]
    fn the_block_sizes_to_be_given_are_those_there_are() {
        let refusal = Refusal::Geometry {
            block_size: 3,
            size: 9,
        };
        let text = refusal.to_string();
        for size in [256, 512, 1024, 2048, 4096, 8192] {
            let is_told = text.contains(&size.to_string());
            let is_served = Geometry::new(size, 8, 0).is_some();
            assert_eq!(is_told, is_served, "{size}: {text}");
        }
    }
}
