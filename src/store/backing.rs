//! The backing object of a logical unit: opened, locked, and of exactly the size that was asked for.
//!
//! Nothing here ever shortens or overwrites what exists. A file that is not there is created, sparse; one that
//! is there must have the right size already.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg, PosixFadviseAdvice, posix_fadvise};

use super::space::Space;

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
    /// It is no regular file.
    #[error("{path} is {kind}: give the path of a regular file")]
    NotAFile {
        /// The backing object.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Its size is not the one that was asked for.
    #[error(
        "{path} holds {actual} bytes and size= asks for {wanted}: \
         create the backstore with size={actual}B, or give another file"
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
    /// Somebody else serves it.
    #[error("{path} is locked: another process serves it (lsof {path} shows which)")]
    Locked {
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

/// Which object a path leads to: two paths with the same id are the same object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackingId {
    device: u64,
    inode: u64,
}

/// A backing object, opened and locked against any second server.
#[derive(Debug)]
pub struct Backing {
    file: Flock<File>,
    path: PathBuf,
    id: BackingId,
    size: u64,
    block_size: u32,
    pub(super) space: Space,
    /// Why data could not be put on stable storage, once that has happened.
    flush_failed: Mutex<Option<i32>>,
}

impl Backing {
    /// Opens the backing object of a unit of `size` bytes, or creates it.
    pub fn open(path: &Path, size: u64, block_size: u32) -> Result<Backing, Error> {
        if size == 0 || block_size == 0 || size % u64::from(block_size) != 0 {
            return Err(Error::BadSize { size, block_size });
        }
        let fail = |step, source| Error::System {
            step,
            path: path.to_owned(),
            source,
        };
        let file = match look_at(path)? {
            Some(metadata) => {
                check_size(path, metadata.len(), size)?;
                OpenOptions::new().read(true).write(true).open(path)
            }
            .map_err(|source| fail("opening", source))?,
            None => create(path, size)?,
        };
        let file =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(
                |(_, errno)| match errno {
                    nix::Error::EWOULDBLOCK => Error::Locked {
                        path: path.to_owned(),
                    },
                    errno => fail("locking", errno.into()),
                },
            )?;
        // What was opened may not be what was looked at: judge the open file.
        let metadata = file
            .metadata()
            .map_err(|source| fail("reading the size of", source))?;
        check_kind(path, &metadata)?;
        check_size(path, metadata.len(), size)?;
        let canonical = path
            .canonicalize()
            .map_err(|source| fail("resolving", source))?;
        let space = Space::of_file(&file, &metadata)
            .map_err(|source| fail("trying to give back space of", source))?;
        Ok(Backing {
            file,
            path: canonical,
            id: id(&metadata),
            size,
            block_size,
            space,
            flush_failed: Mutex::new(None),
        })
    }

    /// Which object the path leads to, if there is one that can be served. Opens and changes nothing.
    pub fn identify(path: &Path) -> Result<Option<BackingId>, Error> {
        Ok(look_at(path)?.map(|metadata| id(&metadata)))
    }

    /// Whether the path leads to something that could be served, or where it could be created. Changes nothing
    /// and says nothing about the size.
    pub fn probe(path: &Path) -> Result<(), Error> {
        if look_at(path)?.is_some() {
            lock(path, open(path)?)?;
        }
        Ok(())
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts everything that was written before on stable storage.
    ///
    /// The system tells a failure to one caller only and forgets it, although the lost data may be another's. So
    /// one caller flushes at a time, and once one has failed, all later ones do.
    ///
    /// When one hangs, so do all: with a write-through unit every write, whoever sent it, while reads go on as long
    /// as they need no flush. Without the lock it would be the same, since `fdatasync` waits for every page of the file
    /// that is on its way to the medium, whoever wrote it.
    pub fn flush(&self) -> io::Result<()> {
        let mut failed = self
            .flush_failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(errno) = *failed {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.file.sync_data().inspect_err(|error| {
            *failed = Some(error.raw_os_error().unwrap_or(libc::EIO));
        })
    }

    /// Tells the system what will become of a part. Where it does not want to know, nothing is lost.
    pub(super) fn advise(&self, offset: u64, length: u64, advice: PosixFadviseAdvice) {
        let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else {
            return;
        };
        if let Err(error) = posix_fadvise(&*self.file, offset, length, advice) {
            log::debug!("{advice:?} was not taken: {error}");
        }
    }

    /// Where it lies, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which object it is.
    pub fn id(&self) -> BackingId {
        self.id
    }

    /// Bytes in a block of the unit that it is for.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// What lies at the path; `None` if nothing does but it could be created there.
fn look_at(path: &Path) -> Result<Option<fs::Metadata>, Error> {
    match fs::metadata(path) {
        Ok(metadata) => {
            check_kind(path, &metadata)?;
            Ok(Some(metadata))
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            if folder.is_dir() {
                Ok(None)
            } else {
                Err(Error::NoFolder {
                    folder: folder.to_owned(),
                    path: path.to_owned(),
                })
            }
        }
        Err(source) => Err(Error::System {
            step: "looking at",
            path: path.to_owned(),
            source,
        }),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| Error::System {
            step: "opening",
            path: path.to_owned(),
            source,
        })
}

fn lock(path: &Path, file: File) -> Result<Flock<File>, Error> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => Error::Locked {
            path: path.to_owned(),
        },
        errno => Error::System {
            step: "locking",
            path: path.to_owned(),
            source: errno.into(),
        },
    })
}

fn check_kind(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    let file_type = metadata.file_type();
    let kind = if file_type.is_file() {
        return Ok(());
    } else if file_type.is_dir() {
        "a folder"
    } else if file_type.is_block_device() {
        "a block device, which this version does not serve"
    } else {
        "neither a file nor a block device"
    };
    Err(Error::NotAFile {
        path: path.to_owned(),
        kind,
    })
}

fn check_size(path: &Path, actual: u64, wanted: u64) -> Result<(), Error> {
    if actual == wanted {
        return Ok(());
    }
    Err(Error::WrongSize {
        path: path.to_owned(),
        actual,
        wanted,
    })
}

fn id(metadata: &fs::Metadata) -> BackingId {
    BackingId {
        device: metadata.dev(),
        inode: metadata.ino(),
    }
}

/// Creates a sparse file and makes it durable, name and size. A file that could not be made whole is taken away.
fn create(path: &Path, size: u64) -> Result<File, Error> {
    let fail = |step, source| Error::System {
        step,
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| fail("creating", source))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = file
        .set_len(size)
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(folder)?.sync_all());
    match made {
        Ok(()) => Ok(file),
        Err(source) => {
            if let Err(error) = fs::remove_file(path) {
                log::warn!("{} could not be removed again: {error}", path.display());
            }
            Err(fail("giving its size to", source))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn open(path: &Path) -> Result<Backing, Error> {
        Backing::open(path, SIZE, 512)
    }

    #[test]
    fn a_file_that_is_not_there_is_created_sparse() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lun0.img");
        assert_eq!(Backing::identify(&path).unwrap(), None);
        let backing = open(&path).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), SIZE);
        assert_eq!(metadata.blocks(), 0, "no block is allocated");
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert_eq!(Backing::identify(&path).unwrap(), Some(backing.id()));
    }

    #[test]
    fn a_file_of_another_size_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lun0.img");
        for content in [vec![7; 1000], vec![7; (1 << 20) + 512]] {
            fs::write(&path, &content).unwrap();
            let error = open(&path).unwrap_err();
            assert!(
                matches!(error, Error::WrongSize { wanted: SIZE, .. }),
                "{error}"
            );
            assert!(
                error
                    .to_string()
                    .contains(&format!("size={}B", content.len())),
                "{error}"
            );
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_size_that_is_zero_or_no_multiple_of_the_block_size_is_refused_and_nothing_is_created() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lun0.img");
        for size in [0, 511, 513, u64::MAX] {
            let error = Backing::open(&path, size, 512).unwrap_err();
            assert!(matches!(error, Error::BadSize { .. }), "{size}: {error}");
        }
        assert!(!path.exists());
    }

    #[test]
    fn a_size_that_no_file_can_have_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lun0.img");
        let error = Backing::open(&path, 1 << 63, 512).unwrap_err();
        assert!(matches!(error, Error::System { .. }), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("is a folder"), "{error}");
        let error = open(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(error.contains("/dev/null is neither a file"), "{error}");
    }

    #[test]
    fn a_missing_folder_is_named_and_not_created() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("srv");
        let error = open(&missing.join("lun0.img")).unwrap_err();
        assert!(matches!(error, Error::NoFolder { .. }), "{error}");
        assert!(!missing.exists());
    }

    #[test]
    fn a_second_server_is_refused_until_the_first_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lun0.img");
        let first = open(&path).unwrap();
        assert!(matches!(open(&path).unwrap_err(), Error::Locked { .. }));
        drop(first);
        open(&path).unwrap();
    }

    #[test]
    fn two_names_of_one_file_have_one_id() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lun0.img");
        let backing = open(&path).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(Backing::identify(&link).unwrap(), Some(backing.id()));
    }
}
