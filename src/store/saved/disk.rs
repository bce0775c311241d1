//! The node's own files, which nobody else may have had a hand in.
//!
//! What a record says decides who is let in. So none is read that another user could have written, nothing is written
//! through a link, and what is no plain file is never waited for.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::geteuid;

use super::Files;

/// More bytes than the longest record has.
const LENGTH_MAX: u64 = 64 << 20;

/// Those who may write a file besides its owner, in its mode.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The node's own files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut options = OpenOptions::new();
        options.read(true);
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let mut file = options.open(path).map_err(explain)?;
        check(&file.metadata()?)?;
        let mut content = Vec::new();
        Read::by_ref(&mut file)
            .take(LENGTH_MAX)
            .read_to_end(&mut content)?;
        Ok(content)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        // What a crash has left, or somebody has put there: it is not written to.
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(path)?;
        file.write_all(content)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, path: &Path, name: &Path) -> io::Result<()> {
        fs::hard_link(path, name)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// Refuses a folder for records into which another user could put some.
pub fn check_folder(folder: &Path) -> io::Result<()> {
    let metadata = fs::metadata(folder)?;
    if !metadata.is_dir() {
        return Err(io::Error::other("it is no folder: move it away"));
    }
    check_owner(&metadata)
}

fn check(metadata: &Metadata) -> io::Result<()> {
    if !metadata.is_file() {
        return Err(io::Error::other(
            "it is no plain file, and none of ours: move it away",
        ));
    }
    if metadata.len() > LENGTH_MAX {
        return Err(io::Error::other(
            "it is longer than any record: move it away",
        ));
    }
    check_owner(metadata)
}

fn check_owner(metadata: &Metadata) -> io::Result<()> {
    let (owner, own) = (metadata.uid(), geteuid().as_raw());
    if owner != own && owner != 0 {
        return Err(io::Error::other(format!(
            "it belongs to the user with the number {owner}, who could have written anything into it: find out who, and \
             then chown it to root, or move it away"
        )));
    }
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(io::Error::other(
            "others than its owner may write it: find out who has, and then chmod go-w it, or move it away",
        ));
    }
    Ok(())
}

fn explain(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ELOOP) => {
            io::Error::other("it is a symbolic link, and none of ours: move it away")
        }
        Some(libc::ENXIO) => {
            io::Error::other("it is no plain file, and none of ours: move it away")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use nix::unistd::{chown, mkfifo};

    use super::*;

    fn refusal(path: &Path) -> String {
        Disk.read(path).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_plain_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        fs::write(path("record"), "x").unwrap();
        symlink(path("record"), path("link")).unwrap();
        assert!(refusal(&path("link")).starts_with("it is a symbolic link"));
        mkfifo(&path("pipe"), Mode::S_IRWXU).unwrap();
        assert!(refusal(&path("pipe")).starts_with("it is no plain file"));
        let _listener = UnixListener::bind(path("socket")).unwrap();
        assert!(refusal(&path("socket")).starts_with("it is no plain file"));
        assert!(refusal(folder.path()).starts_with("it is no plain file"));
        let huge = File::create(path("huge")).unwrap();
        huge.set_len(1 << 40).unwrap();
        assert!(refusal(&path("huge")).starts_with("it is longer than any record"));
        assert_eq!(Disk.read(&path("record")).unwrap(), b"x");
    }

    #[test]
    fn what_others_could_have_written_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        fs::write(&path, "x").unwrap();
        for (mode, good) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(Disk.read(&path).is_ok(), good, "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        // Only root can give a file to somebody else.
        if geteuid().is_root() {
            chown(&path, Some(65534.into()), None).unwrap();
            assert!(refusal(&path).starts_with("it belongs to the user with the number 65534"));
        }
    }

    #[test]
    fn nothing_is_written_through_what_stands_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (
            folder.path().join("record.new"),
            folder.path().join("other"),
        );
        fs::write(&other, "theirs").unwrap();
        symlink(&other, &path).unwrap();
        Disk.write(&path, b"ours").unwrap();
        fs::remove_file(&path).unwrap();
        fs::hard_link(&other, &path).unwrap();
        Disk.write(&path, b"ours").unwrap();
        fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        Disk.write(&path, b"ours").unwrap();
        assert_eq!(Disk.read(&path).unwrap(), b"ours");
        assert_eq!(fs::read(&other).unwrap(), b"theirs");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        check_folder(folder.path()).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(check_folder(folder.path()).is_err());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(check_folder(&file).is_err());
    }
}
