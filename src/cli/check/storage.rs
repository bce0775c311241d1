//! Whether what a disk lies on will do: it is there, can be written, flushed and given back, and has room.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::Finding;
use super::node::Node;
use crate::tcmu::config::Options;

/// Where the service may not write (ProtectSystem=full in its unit).
const FORBIDDEN: [&str; 4] = ["/usr", "/boot", "/efi", "/etc"];

/// What there is to be said of the file or device that a config string names.
pub(super) fn look(node: &Node, options: &Options) -> Vec<Finding> {
    let path = &options.path;
    let shown = path.display();
    let what = format!("{shown} is there");
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            let why = format!("{error}: is its file system mounted, its device there?");
            return vec![Finding::problem(&what, why)];
        }
    };
    if metadata.file_type().is_block_device() {
        return vec![Finding::ok(&what)];
    }
    let mut findings = vec![Finding::ok(&what)];
    findings.push(writable(path, options.disk.read_only));
    findings.extend(room(path, &metadata));
    let root = fs::metadata(node.at("/"));
    if root.is_ok_and(|root| root.dev() == metadata.dev()) {
        let why = "a disk that grows there takes the node's own space: give the disks a file system of their own";
        findings.push(Finding::note(
            &format!("{shown} is not on the root file system"),
            why.to_owned(),
        ));
    }
    if statfs(path).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC) {
        let why = "it lies in memory: a boot forgets it".to_owned();
        findings.push(Finding::note(&format!("{shown} outlives a boot"), why));
    }
    findings
}

/// Whether its file system takes writes, flushes and holes: tried with a file that has no name.
fn writable(path: &Path, read_only: bool) -> Finding {
    let shown = path.display();
    if read_only {
        return Finding::ok(&format!("{shown} is only read"));
    }
    if let Some(forbidden) = forbidden(path) {
        let why = format!(
            "it is below {forbidden}, where the service may not write: move it, to /srv for instance"
        );
        return Finding::problem(&format!("{shown} can be written"), why);
    }
    let what = format!("the file system of {shown} can be written");
    let folder = path.parent().unwrap_or(Path::new("/"));
    if statvfs(path).is_ok_and(|system| system.flags().contains(FsFlags::ST_RDONLY)) {
        let why = "it is mounted read-only: mount -o remount,rw, when you know why it is so, or read_only=1 in the config string";
        return Finding::problem(&what, why.to_owned());
    }
    match try_out(folder) {
        Ok(()) => Finding::ok(&what),
        Err((Step::Hole, error)) => Finding::note(
            &what,
            format!("it takes no space back ({error}): what hosts unmap stays in use"),
        ),
        // Some have no files without a name.
        Err((Step::Open, error)) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Finding::ok(&what)
        }
        Err((step, error)) => Finding::problem(&what, format!("{} fails: {error}", step.name())),
    }
}

/// The folder below which the service may not write, if the file is there.
fn forbidden(path: &Path) -> Option<&'static str> {
    let path = fs::canonicalize(path).ok()?;
    FORBIDDEN
        .into_iter()
        .find(|folder| path.starts_with(folder))
}

enum Step {
    Open,
    Write,
    Hole,
    Flush,
}

impl Step {
    fn name(&self) -> &'static str {
        match self {
            Step::Open => "a new file",
            Step::Write => "a write",
            Step::Hole => "a hole",
            Step::Flush => "a flush",
        }
    }
}

fn try_out(folder: &Path) -> Result<(), (Step, io::Error)> {
    let opened: io::Result<File> = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(folder);
    let mut file = opened.map_err(|error| (Step::Open, error))?;
    let written = file.write_all(&[0xa5; 64 << 10]);
    written.map_err(|error| (Step::Write, error))?;
    file.sync_all().map_err(|error| (Step::Flush, error))?;
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let holed = fallocate(&file, flags, 0, 64 << 10);
    holed.map_err(|errno| (Step::Hole, errno.into()))
}

/// Whether a file can be filled up.
fn room(path: &Path, metadata: &Metadata) -> Option<Finding> {
    let system = statvfs(path).ok()?;
    let available = system.blocks_available() * system.fragment_size();
    Some(enough(
        &path.display().to_string(),
        lacking(metadata),
        available,
    ))
}

/// What a file may still take of its file system.
fn lacking(metadata: &Metadata) -> u64 {
    metadata.len().saturating_sub(metadata.blocks() * 512)
}

fn enough(shown: &str, lacking: u64, available: u64) -> Finding {
    let what = format!("there is room for all of {shown}");
    if lacking <= available {
        return Finding::ok(&what);
    }
    let why = format!(
        "it may take {} MiB more, and its file system has {} MiB left: when that is full, writes fail; make room, or have hosts \
         warned (thin_threshold=)",
        lacking >> 20,
        available >> 20
    );
    Finding::note(&what, why)
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;
    use crate::tcmu::configfs::tests::Tree;

    fn all(text: &str, root: &Path) -> Vec<String> {
        found(&look(&Node::new(root), &Options::parse(text).unwrap()))
    }

    #[test]
    fn a_file_is_looked_at_with_its_file_system() {
        let tree = Tree::new();
        tree.file("lun0.img", "x");
        let shown = tree.root().join("lun0.img").display().to_string();
        let lines = all(&shown, Path::new("/proc"));
        let expected = [
            format!("ok       {shown} is there"),
            format!("ok       the file system of {shown} can be written"),
            format!("ok       there is room for all of {shown}"),
        ];
        assert_eq!(lines[..3], expected);
        let note = format!(
            "note     {shown} is not on the root file system: a disk that grows there takes the node's own space: give the \
             disks a file system of their own"
        );
        assert!(all(&shown, tree.root()).contains(&note));
        assert!(!lines.contains(&note), "it is not the one of processes");
        let read_only = all(&format!("{shown};read_only=1"), Path::new("/proc"));
        assert_eq!(read_only[1], format!("ok       {shown} is only read"));
        assert_eq!(
            fs::read_dir(tree.root()).unwrap().count(),
            1,
            "nothing is left there"
        );
    }

    #[test]
    fn one_where_the_service_may_not_write_is_told() {
        let tree = Tree::new();
        let link = tree.root().join("lun0.img");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let shown = link.display().to_string();
        let expected = format!(
            "problem  {shown} can be written: it is below /etc, where the service may not write: move it, to /srv for instance"
        );
        assert_eq!(all(&shown, Path::new("/proc"))[1], expected);
        let read_only = all(&format!("{shown};read_only=1"), Path::new("/proc"));
        assert_eq!(read_only[1], format!("ok       {shown} is only read"));
    }

    #[test]
    fn one_that_is_not_there_is_told() {
        let expected = "problem  /nonexistent/lun0.img is there: No such file or directory (os error 2): is its file system \
                        mounted, its device there?";
        assert_eq!(all("/nonexistent/lun0.img", Path::new("/")), [expected]);
    }

    #[test]
    fn one_that_can_outgrow_its_file_system_is_told() {
        assert_eq!(
            found(&[enough("/srv/a", 5 << 20, 5 << 20)]),
            ["ok       there is room for all of /srv/a"]
        );
        let expected = "note     there is room for all of /srv/a: it may take 6 MiB more, and its file system has 5 MiB left: \
                        when that is full, writes fail; make room, or have hosts warned (thin_threshold=)";
        assert_eq!(found(&[enough("/srv/a", 6 << 20, 5 << 20)]), [expected]);
    }
}
