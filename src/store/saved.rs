//! Small files that are replaced whole: the old content or the new one, never a mix.
//!
//! [`Files`] is what that takes of a file system, so that a test can stand in for one that fails or loses power.

mod disk;

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

pub use disk::{Disk, check_folder};

/// Which step failed, on which file.
#[derive(Debug, thiserror::Error)]
#[error("{step} {path}")]
pub struct Error {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What is done before anything that stands under a name is touched.
const PREPARING: &str = "writing";

impl Error {
    /// Whether there was no way to write new content, so that the old content stands as it did.
    pub fn has_changed_nothing(&self) -> bool {
        self.step == PREPARING
    }
}

/// The file operations that records need. Each is done when it returns; whether it outlives a loss of power is another
/// question, which the two that sync answer.
pub trait Files: Clone + fmt::Debug {
    /// The content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Makes a file with this content, or overwrites one, and syncs the content.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Gives a file another name, in place of a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name, which is free.
    fn link(&self, path: &Path, name: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Syncs the names in a folder.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// New content for a file, on stable storage beside it: what can fail for want of space has been done.
#[derive(Debug)]
#[must_use]
pub struct Prepared {
    path: PathBuf,
}

/// Writes the new content of `path` beside it, and syncs it.
pub fn prepare(files: &impl Files, path: &Path, content: &[u8]) -> Result<Prepared, Error> {
    let new = beside(path);
    files.write(&new, content).map_err(fail(PREPARING, &new))?;
    Ok(Prepared {
        path: path.to_owned(),
    })
}

impl Prepared {
    /// Puts the new content in the place of the old one, for all to see. A loss of power may still bring the old one back.
    pub fn put(self, files: &impl Files) -> Result<(), Error> {
        files
            .rename(&beside(&self.path), &self.path)
            .map_err(fail("replacing", &self.path))
    }
}

/// Replaces the content of `path`. When this returns, name and content are on stable storage. If it fails, the old
/// content still stands under the name, or the new one does: never a part of either.
pub fn replace(files: &impl Files, path: &Path, content: &[u8]) -> Result<(), Error> {
    prepare(files, path, content)?.put(files)?;
    sync_folder(files, path)
}

/// Removes a file, durably. One that is not there is removed already.
pub fn remove(files: &impl Files, path: &Path) -> Result<(), Error> {
    match files.remove(path) {
        Err(missing) if missing.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(fail("removing", path)(source)),
        Ok(()) => sync_folder(files, path),
    }
}

/// Keeps what stands under `path` under another name as well, since it is about to be replaced or removed, and gives that
/// name: the old one with `.unreadable-1` behind it, or with the first number that is free. `None` if there is no such file.
pub fn set_aside(files: &impl Files, path: &Path) -> Result<Option<PathBuf>, Error> {
    let mut number = 1;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".unreadable-{number}"));
        let name = PathBuf::from(name);
        match files.link(path, &name) {
            Ok(()) => {
                sync_folder(files, path)?;
                return Ok(Some(name));
            }
            Err(taken) if taken.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(fail("setting aside", path)(source)),
        }
    }
}

/// Reads the content; `None` if there is no such file.
pub fn read(files: &impl Files, path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match files.read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(missing) if missing.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(fail("reading", path)(source)),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn sync_folder(files: &impl Files, path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    files.sync_folder(folder).map_err(fail("syncing", folder))
}

fn fail(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error { step, path, source }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_new_content_replaces_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.toml");
        assert_eq!(read(&Disk, &path).unwrap(), None);
        replace(&Disk, &path, b"one and a half").unwrap();
        replace(&Disk, &path, b"two").unwrap();
        assert_eq!(read(&Disk, &path).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_failure_leaves_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.toml");
        replace(&Disk, &path, b"old").unwrap();
        fs::create_dir(folder.path().join("record.toml.new")).unwrap();
        let error = replace(&Disk, &path, b"new").unwrap_err();
        assert!(error.to_string().starts_with("writing "), "{error}");
        assert!(error.has_changed_nothing());
        assert_eq!(read(&Disk, &path).unwrap().as_deref(), Some(&b"old"[..]));
    }

    #[test]
    fn a_torn_new_file_of_a_crash_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.toml");
        fs::write(
            folder.path().join("record.toml.new"),
            "a torn record of a crash, longer",
        )
        .unwrap();
        replace(&Disk, &path, b"whole").unwrap();
        assert_eq!(read(&Disk, &path).unwrap().as_deref(), Some(&b"whole"[..]));
    }

    #[test]
    fn what_is_set_aside_is_kept_whatever_was_set_aside_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.toml");
        assert_eq!(set_aside(&Disk, &path).unwrap(), None);
        for (content, name) in [
            ("one", "record.toml.unreadable-1"),
            ("two", "record.toml.unreadable-2"),
        ] {
            fs::write(&path, content).unwrap();
            let aside = folder.path().join(name);
            assert_eq!(set_aside(&Disk, &path).unwrap(), Some(aside.clone()));
            replace(&Disk, &path, b"new").unwrap();
            assert_eq!(
                read(&Disk, &aside).unwrap().as_deref(),
                Some(content.as_bytes())
            );
        }
    }

    #[test]
    fn removing_is_idempotent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.toml");
        replace(&Disk, &path, b"x").unwrap();
        remove(&Disk, &path).unwrap();
        remove(&Disk, &path).unwrap();
        assert_eq!(read(&Disk, &path).unwrap(), None);
    }
}
