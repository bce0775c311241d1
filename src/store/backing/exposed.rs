//! Who besides root could have a hand in a disk that is a file: they would be told, or would change, what reservations
//! keep from them.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;

/// Whoever may write it who is in the folder's group, or is anybody.
const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_ANYBODY: u32 = 0o002;
/// In such a folder nobody removes or renames what is somebody else's.
const STICKY: u32 = 0o1000;

/// What is wrong with who may touch the file at a path that has no symbolic links in it: a sentence with what to do.
pub(super) fn exposure(path: &Path) -> io::Result<Option<String>> {
    let file = fs::metadata(path)?;
    if !is_ours(&file) {
        return Ok(Some(format!(
            "{} belongs to the user with the number {}, who can read and change the disk, whoever is fenced: chown it to \
             root",
            path.display(),
            file.uid()
        )));
    }
    if others_may_write(&file) {
        return Ok(Some(format!(
            "others than root may write {}, whoever is fenced: chmod go-w it",
            path.display()
        )));
    }
    let mut child = file;
    for folder in path.ancestors().skip(1) {
        let metadata = fs::metadata(folder)?;
        let safe = metadata.mode() & STICKY != 0 && is_ours(&child);
        if !is_ours(&metadata) || others_may_write(&metadata) && !safe {
            return Ok(Some(format!(
                "others than root can put another file in the place of {}, since they may write {}: keep disks where only \
                 root may write",
                path.display(),
                folder.display()
            )));
        }
        child = metadata;
    }
    Ok(None)
}

fn is_ours(metadata: &Metadata) -> bool {
    metadata.uid() == 0 || metadata.uid() == geteuid().as_raw()
}

fn others_may_write(metadata: &Metadata) -> bool {
    let group = WRITABLE_BY_GROUP * u32::from(metadata.gid() != 0);
    metadata.mode() & (WRITABLE_BY_ANYBODY | group) != 0
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use nix::unistd::chown;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_is_safe_where_only_root_may_write() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path().canonicalize().unwrap();
        let folder = place.join("folder");
        let file = folder.join("lun.img");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        set_mode(&file, 0o600);
        for (mode, good) in [(0o755, true), (0o1777, true), (0o777, false)] {
            set_mode(&folder, mode);
            let found = exposure(&file).unwrap();
            assert_eq!(found.is_none(), good, "{mode:o}: {found:?}");
        }
        set_mode(&folder, 0o755);
        set_mode(&file, 0o602);
        let found = exposure(&file).unwrap().unwrap();
        assert!(found.starts_with("others than root may write /"), "{found}");
    }

    #[test]
    fn another_owner_is_told_of() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().canonicalize().unwrap().join("lun.img");
        fs::write(&file, "").unwrap();
        // Only root can give it away.
        if !geteuid().is_root() {
            return;
        }
        chown(&file, Some(65534.into()), None).unwrap();
        let found = exposure(&file).unwrap().unwrap();
        assert!(
            found.contains("belongs to the user with the number 65534"),
            "{found}"
        );
    }
}
