//! A small file that is replaced whole: the old content or the new one, never a mix.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Which step of replacing a file failed. Whatever it was, the old content still stands under the name, or the
/// new one does: never a part of either.
#[derive(Debug, thiserror::Error)]
#[error("{step} {path}")]
pub struct Error {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Replaces the content of `path`. When this returns, name and content are on stable storage.
///
/// Writes a new file beside it, syncs it, renames it over the old one and syncs the folder.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let new = path.with_extension("new");
    let fail = |step, path: &Path| {
        let path = path.to_owned();
        move |source| Error { step, path, source }
    };
    let mut file = File::create(&new).map_err(fail("creating", &new))?;
    file.write_all(content).map_err(fail("writing", &new))?;
    file.sync_all().map_err(fail("syncing", &new))?;
    fs::rename(&new, path).map_err(fail("replacing", path))?;
    sync_folder(path)
}

/// Removes a file, durably. One that is not there is removed already.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error {
            step: "removing",
            path: path.to_owned(),
            source,
        }),
        Ok(()) => sync_folder(path),
    }
}

/// Moves a file out of the way, durably, and gives its new name: the old one with `.unreadable-1` behind it, or with
/// the first number that is free. `None` if there is no such file.
pub fn set_aside(path: &Path) -> Result<Option<PathBuf>, Error> {
    let fail = |source| Error {
        step: "setting aside",
        path: path.to_owned(),
        source,
    };
    let mut number = 1;
    let aside = loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".unreadable-{number}"));
        // A new name for the file, and never the end of another one.
        match fs::hard_link(path, &name) {
            Ok(()) => break PathBuf::from(name),
            Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(fail(source)),
        }
    };
    remove(path)?;
    Ok(Some(aside))
}

/// Reads the content; `None` if there is no such file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error {
            step: "reading",
            path: path.to_owned(),
            source,
        }),
    }
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| Error {
            step: "syncing",
            path: folder.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_content_replaces_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.toml");
        assert_eq!(read(&path).unwrap(), None);
        replace(&path, b"one and a half").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"two"[..]));
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
        replace(&path, b"old").unwrap();
        fs::create_dir(folder.path().join("record.new")).unwrap();
        let error = replace(&path, b"new").unwrap_err();
        assert!(error.to_string().starts_with("creating "), "{error}");
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"old"[..]));
    }

    #[test]
    fn a_torn_new_file_of_a_crash_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.toml");
        fs::write(
            folder.path().join("record.new"),
            "a torn record of a crash, longer",
        )
        .unwrap();
        replace(&path, b"whole").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"whole"[..]));
    }

    #[test]
    fn what_is_set_aside_is_kept_whatever_was_set_aside_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.toml");
        assert_eq!(set_aside(&path).unwrap(), None);
        for (content, name) in [
            ("one", "record.toml.unreadable-1"),
            ("two", "record.toml.unreadable-2"),
        ] {
            fs::write(&path, content).unwrap();
            let aside = folder.path().join(name);
            assert_eq!(set_aside(&path).unwrap(), Some(aside.clone()));
            assert_eq!(read(&path).unwrap(), None);
            assert_eq!(read(&aside).unwrap().as_deref(), Some(content.as_bytes()));
        }
    }

    #[test]
    fn removing_is_idempotent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.toml");
        replace(&path, b"x").unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }
}
