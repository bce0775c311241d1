//! The backing object of a logical unit: a file or a block device, opened, claimed, and of exactly the size that was
//! asked for.
//!
//! Nothing here ever shortens or overwrites what exists. A file that is not there is created, sparse; what is there must
//! have the right size already. A block device is claimed against mounts and whoever else claims devices.

mod direct;
mod error;
mod exposed;
mod flushes;
mod object;
mod readers;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{Flock, FlockArg, PosixFadviseAdvice, posix_fadvise};

use super::space::Space;
use crate::sys::region::Data;
use crate::sys::vectored::Patience;
use crate::sys::{block, vectored};
use direct::{Direct, Held};
pub use error::Error;
use error::fail;
pub(super) use flushes::{Flushes, Turn};
pub use object::{BackingId, Discard, Kind, Topology};

/// How a backing object is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// It is only read.
    pub read_only: bool,
    /// It is read and written past the page cache.
    pub direct: bool,
}

/// What was found at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Which object; `None` if there is none but a file could be created there.
    pub id: Option<BackingId>,
    /// The name by which its records are found, or would be: see [`Backing::path`].
    pub name: PathBuf,
}

/// A backing object, opened and locked against any second server.
#[derive(Debug)]
pub struct Backing {
    file: Flock<File>,
    path: PathBuf,
    id: BackingId,
    mode: Mode,
    kind: Kind,
    topology: Topology,
    block_size: u32,
    size: AtomicU64,
    pub(super) space: Space,
    direct: Option<Direct>,
    flushes: Flushes,
}

impl Backing {
    /// Opens the backing object of a unit of `size` bytes for reading and writing, or creates it.
    pub fn open(path: &Path, size: u64, block_size: u32) -> Result<Backing, Error> {
        Backing::open_with(path, size, block_size, Mode::default())
    }

    /// Opens the backing object of a unit of `size` bytes, or creates it if it is to be written.
    pub fn open_with(
        path: &Path,
        size: u64,
        block_size: u32,
        mode: Mode,
    ) -> Result<Backing, Error> {
        check_multiple(size, block_size)?;
        if let Some(id) = object::look_at(path)? {
            return Backing::open_what_is_there(path, id, size, block_size, mode);
        }
        if mode.read_only {
            return Err(Error::NothingToRead {
                path: path.to_owned(),
            });
        }
        let id = create(path, size)?;
        Backing::open_what_is_there(path, id, size, block_size, mode).inspect_err(|_| {
            take_away(path);
        })
    }

    fn open_what_is_there(
        path: &Path,
        id: BackingId,
        size: u64,
        block_size: u32,
        mode: Mode,
    ) -> Result<Backing, Error> {
        let file = open(path, id, mode)?;
        let actual = object::size(&file, id).map_err(fail("reading the size of", path))?;
        if actual != size {
            return Err(Error::WrongSize {
                path: path.to_owned(),
                actual,
                wanted: size,
            });
        }
        if let BackingId::BlockDevice { .. } = id {
            let device = block::logical_block_size(&file)
                .map_err(fail("reading the block size of", path))?;
            if device > block_size {
                return Err(Error::SmallBlocks {
                    path: path.to_owned(),
                    device,
                });
            }
        }
        let direct = match mode.direct {
            true => Some(direct_io(path, &file, id, block_size)?),
            false => None,
        };
        let alignment = direct.as_ref().map_or(1, Direct::alignment);
        check_aligned(path, size, alignment)?;
        let kind = object::kind(id);
        let topology = Topology::of(&file, id, block_size, alignment)
            .map_err(fail("reading the properties of", path))?;
        // Of what is only read, nothing is written.
        let writing = direct.as_ref().filter(|_| !mode.read_only);
        let path = object::name(path, id)?;
        if kind == Kind::File {
            warn_if_exposed(&path);
        }
        Ok(Backing {
            id,
            mode,
            kind,
            space: Space::of(&file, kind, mode)
                .map_err(fail("trying to give back space of", &path))?,
            path,
            topology: Topology {
                atomic_write: writing.and_then(Direct::atomic_write),
                ..topology
            },
            block_size,
            direct,
            size: AtomicU64::new(size),
            flushes: Flushes::default(),
            file,
        })
    }

    /// What the path leads to that can be served, or could be created. Opens and changes nothing.
    pub fn look(path: &Path) -> Result<Look, Error> {
        let id = object::look_at(path)?;
        let name = match id {
            Some(id) => object::name(path, id)?,
            None => object::name_of_missing(path)?,
        };
        Ok(Look { id, name })
    }

    /// Whether the path leads to something that could be served, or where it could be created. Changes nothing
    /// and says nothing about the size.
    pub fn probe(path: &Path, mode: Mode) -> Result<(), Error> {
        match object::look_at(path)? {
            Some(id) => {
                let file = open(path, id, mode)?;
                if mode.direct {
                    direct_io(path, &file, id, 512)?;
                }
                Ok(())
            }
            None if mode.read_only => Err(Error::NothingToRead {
                path: path.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Whether nobody on this node serves the object that the path leads to. A server that has ended serves it as long as
    /// I/O of its goes on: with io_uring, that can be after its process has gone.
    ///
    /// What is only read, others may read too.
    pub fn is_free(path: &Path, read_only: bool) -> Result<bool, Error> {
        let Some(id) = object::look_at(path)? else {
            return Ok(true);
        };
        // Network file systems lock only what is open for writing; block devices tell everybody that they were.
        let writable = !read_only && matches!(id, BackingId::File { .. });
        let file = OpenOptions::new().read(true).write(writable).open(path);
        let file = file
            .or_else(|_| File::open(path))
            .map_err(fail("opening", path))?;
        let mode = Mode {
            read_only,
            ..Mode::default()
        };
        match lock(path, file, mode) {
            Ok(file) if read_only => {
                let is_marked = readers::is_marked(&file).map_err(fail("locking", path))?;
                Ok(!is_marked)
            }
            Ok(_) => Ok(true),
            Err(Error::Locked { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Reads from byte `offset` into a range of the buffer. Gives the number of bytes that were read, which may be fewer
    /// than asked for: 0 at the end of the object.
    pub(super) fn read(&self, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64> {
        match &self.direct {
            Some(direct) => direct.read(&self.file, offset, data, range),
            None => vectored::read(&self.file, offset, data, range, Patience::Any),
        }
    }

    /// Writes a range of the buffer from byte `offset` on. Gives the number of bytes that were written, which may be fewer
    /// than asked for.
    pub(super) fn write(&self, offset: u64, data: &Data, range: Range<u64>) -> io::Result<u64> {
        match &self.direct {
            Some(direct) => direct.write(&self.file, offset, data, range),
            None => vectored::write(&self.file, offset, data, range),
        }
    }

    /// Writes the first `length` bytes of the buffer from byte `offset` on: all of them, even if power is lost, or none.
    pub(super) fn write_atomic(&self, offset: u64, data: &Data, length: u64) -> io::Result<()> {
        match &self.direct {
            Some(direct) => direct.write_atomic(&self.file, offset, data, length),
            // The page cache writes back what it wants to.
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether a write changes nothing but what it writes.
    pub(super) fn is_written_alone(&self) -> bool {
        self.direct.as_ref().is_none_or(Direct::writes_alone)
    }

    /// Whether a range of the buffer can be moved from or to byte `offset` on by one system call on the open file.
    pub(super) fn goes_as_it_is(&self, offset: u64, data: &Data, range: &Range<u64>) -> bool {
        let direct = self.direct.as_ref();
        direct.is_none_or(|direct| direct.goes_as_it_is(offset, data, range))
    }

    /// Reads from byte `offset` into memory, as [`Backing::read`] does.
    pub(super) fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.direct {
            Some(direct) => direct.read_at(&self.file, bytes, offset),
            None => self.file.read_at(bytes, offset),
        }
    }

    /// Writes memory from byte `offset` on, as [`Backing::write`] does.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match &self.direct {
            Some(direct) => direct.write_at(&self.file, bytes, offset),
            None => self.file.write_at(bytes, offset),
        }
    }

    /// Keeps those from a part meanwhile who write more than they are asked to. To be held by whoever changes a part in
    /// another way than by [`Backing::write`].
    pub(super) fn hold(&self, part: &Range<u64>) -> Option<Held<'_>> {
        self.direct.as_ref()?.hold(part.clone())
    }

    /// Puts everything that was written before on stable storage.
    ///
    /// The system tells a failure to one caller only and forgets it, although the lost data may be another's. So
    /// one caller flushes at a time, and once one has failed, all later ones do.
    ///
    /// When one hangs, so do all: with a write-through unit every write, whoever sent it, while reads go on as long
    /// as they need no flush. It would be the same if they did not wait for each other, since `fdatasync` waits for every
    /// page of the file that is on its way to the medium, whoever wrote it.
    pub fn flush(&self) -> io::Result<()> {
        // What is only read has nothing to be put there.
        if self.mode.read_only {
            return Ok(());
        }
        self.sync(File::sync_data)
    }

    fn sync(&self, sync: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        self.flushes.wait_and_begin()?;
        self.flushes.end(sync(&self.file))
    }

    /// What a flush that the caller does itself has to mind.
    pub(super) fn flushes(&self) -> &Flushes {
        &self.flushes
    }

    /// Makes the object larger, durably, or takes note that it is. A file is extended, sparse. A block device must have
    /// been made as large already. Blocks until that is done.
    pub fn grow(&self, size: u64) -> Result<(), Error> {
        let served = self.size();
        let path = self.path.clone();
        if size < served {
            return Err(Error::Shrink {
                path,
                served,
                wanted: size,
            });
        }
        check_multiple(size, self.block_size)?;
        let alignment = self.direct.as_ref().map_or(1, Direct::alignment);
        check_aligned(&path, size, alignment)?;
        let actual = self
            .actual_size()
            .map_err(fail("reading the size of", &self.path))?;
        if actual < served {
            return Err(Error::Cut {
                path,
                actual,
                served,
            });
        }
        if actual < size && self.kind == Kind::File && !self.mode.read_only {
            self.extend(actual, size)?;
        } else if actual != size {
            return Err(Error::NotGrown {
                path,
                actual,
                wanted: size,
            });
        }
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    fn extend(&self, from: u64, to: u64) -> Result<(), Error> {
        let extended = self.file.set_len(to);
        // Not past the latch of `flush`: this sync may be the one that is told of lost data.
        let extended = extended.and_then(|()| self.sync(File::sync_all));
        extended.map_err(|source| {
            if let Err(error) = self.file.set_len(from) {
                log::warn!(
                    "{} could not be cut back to {from} bytes: {error}",
                    self.path.display()
                );
            }
            fail("extending", &self.path)(source)
        })
    }

    /// Tells the system what will become of a part. Where it does not want to know, nothing is lost.
    pub(super) fn advise(&self, offset: u64, length: u64, advice: PosixFadviseAdvice) {
        // Of what goes past the page cache, it keeps nothing.
        if self.mode.direct {
            return;
        }
        let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else {
            return;
        };
        if let Err(error) = posix_fadvise(&*self.file, offset, length, advice) {
            log::debug!("{advice:?} was not taken: {error}");
        }
    }

    /// The name by which its records are found: a file's path without symbolic links, a block device's as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which object it is.
    pub fn id(&self) -> BackingId {
        self.id
    }

    /// What kind of object it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How it is used.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What is below it.
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// Bytes in a block of the unit that it is for.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// The size in bytes with which it is served.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Takes note that the unit has become smaller. What lies beyond stays where it is.
    pub fn serve_no_more_than(&self, size: u64) {
        self.size.fetch_min(size, Ordering::AcqRel);
    }

    /// The administrator knows that a flush has failed, and what that may have lost.
    pub fn forget_flush_failure(&self) {
        self.flushes.forget_failure();
    }

    /// The size in bytes that it has now, whoever changed it.
    pub fn actual_size(&self) -> io::Result<u64> {
        object::size(&self.file, self.id)
    }
}

/// It is the administrator's choice, and one that he may not have known of.
fn warn_if_exposed(path: &Path) {
    match exposed::exposure(path) {
        Ok(None) => {}
        Ok(Some(sentence)) => log::warn!("{sentence}"),
        Err(error) => log::warn!("{}: who may touch it is not known: {error}", path.display()),
    }
}

fn check_multiple(size: u64, block_size: u32) -> Result<(), Error> {
    match size.checked_rem(block_size.into()) {
        Some(0) if size > 0 => Ok(()),
        _ => Err(Error::BadSize { size, block_size }),
    }
}

/// A direct write changes a whole multiple of its alignment: it must not reach past the end.
fn check_aligned(path: &Path, size: u64, alignment: u64) -> Result<(), Error> {
    if size % alignment == 0 {
        return Ok(());
    }
    Err(Error::NotAligned {
        path: path.to_owned(),
        size,
        alignment,
    })
}

fn direct_io(path: &Path, file: &File, id: BackingId, block_size: u32) -> Result<Direct, Error> {
    Direct::of(file, id, block_size)
        .map_err(fail("asking for direct I/O on", path))?
        .ok_or_else(|| no_direct_io(path))
}

fn no_direct_io(path: &Path) -> Error {
    Error::NoDirectIo {
        path: path.to_owned(),
    }
}

/// Opens the object and keeps others from it: any second server by a lock, and from a block device whoever mounts or
/// claims it.
fn open(path: &Path, id: BackingId, mode: Mode) -> Result<Flock<File>, Error> {
    let is_device = matches!(id, BackingId::BlockDevice { .. });
    object::check_name(path, id)?;
    let read_only = |source| Error::ReadOnly {
        path: path.to_owned(),
        source,
    };
    let mut options = OpenOptions::new();
    options.read(true).write(!mode.read_only);
    let claim = if is_device { libc::O_EXCL } else { 0 };
    let direct = if mode.direct { libc::O_DIRECT } else { 0 };
    options.custom_flags(claim | direct);
    let file = options
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) if mode.direct => no_direct_io(path),
            Some(libc::EBUSY) if is_device => Error::InUse {
                path: path.to_owned(),
            },
            Some(libc::EROFS | libc::EACCES | libc::EPERM) if !mode.read_only => {
                read_only(Some(error))
            }
            _ => fail("opening", path)(error),
        })?;
    // What was opened may not be what was looked at: judge the open file.
    let metadata = file.metadata().map_err(fail("looking at", path))?;
    if BackingId::of(path, &metadata)? != id {
        return Err(Error::Replaced {
            path: path.to_owned(),
        });
    }
    // Some drivers only say so when they are written.
    if is_device && !mode.read_only && block::is_read_only(&file).map_err(fail("asking", path))? {
        return Err(read_only(None));
    }
    let file = lock(path, file, mode)?;
    if mode.read_only {
        readers::mark(&file).map_err(fail("locking", path))?;
    }
    Ok(file)
}

fn lock(path: &Path, file: File, mode: Mode) -> Result<Flock<File>, Error> {
    // On NFS, what is only read can't be locked against other readers.
    let lock = if mode.read_only {
        FlockArg::LockSharedNonblock
    } else {
        FlockArg::LockExclusiveNonblock
    };
    Flock::lock(file, lock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => Error::Locked {
            path: path.to_owned(),
        },
        errno => fail("locking", path)(errno.into()),
    })
}

/// Creates a sparse file and makes it durable, name and size. A file that could not be made whole is taken away.
fn create(path: &Path, size: u64) -> Result<BackingId, Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(fail("creating", path))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = file
        .set_len(size)
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(folder)?.sync_all())
        .and_then(|()| file.metadata())
        .map_err(fail("giving its size to", path))
        .and_then(|metadata| BackingId::of(path, &metadata));
    made.inspect_err(|_| take_away(path))
}

fn take_away(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        log::warn!("{} could not be removed again: {error}", path.display());
    }
}

#[cfg(test)]
mod tests;
