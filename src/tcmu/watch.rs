//! Tells when the target configuration has changed: exports, ACLs, or the settings of a backstore.
//!
//! What changed is not told: look at all of it again. Changes that the kernel makes by itself, such as
//! logins, are not seen; look at those from time to time.

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};

/// Room for a burst of events with the longest names.
const EVENT_BUFFER_BYTES: usize = 64 << 10;

/// Why the target configuration cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel gives us no inotify instance.
    #[error(
        "cannot watch for changes: raise fs.inotify.max_user_instances if there are too many watchers"
    )]
    Start(#[source] io::Error),
    /// A directory cannot be watched.
    #[error("cannot watch {path}{hint}", path = path.display(), hint = hint(source))]
    Add {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The thread cannot be started.
    #[error("cannot start the thread that watches for changes")]
    Thread(#[source] io::Error),
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::NotFound => {
            ": load the target with `modprobe target_core_user`, and mount configfs"
        }
        // inotify's word for too many watches is ENOSPC.
        ErrorKind::StorageFull => ": raise fs.inotify.max_user_watches",
        _ => "",
    }
}

/// Something has changed since the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed;

/// Begins to watch the configuration at `root`: [`super::configfs::ROOT`] outside tests.
///
/// Whatever changes after this returns is announced; what changes while an announcement waits to be
/// received is covered by it. The channel is closed if watching becomes impossible.
pub fn start(root: &Path) -> Result<Receiver<Changed>, Error> {
    let inotify = Inotify::init().map_err(Error::Start)?;
    let mut watched = Watched {
        root: root.to_owned(),
        watches: inotify.watches(),
        directories: HashMap::new(),
    };
    watched.add(root)?;
    if watched.directories.is_empty() {
        return Err(Error::Add {
            path: root.to_owned(),
            source: ErrorKind::NotFound.into(),
        });
    }
    let (sender, receiver) = bounded(1);
    thread::Builder::new()
        .name("watch".into())
        .spawn(move || announce(inotify, watched, &sender))
        .map_err(Error::Thread)?;
    Ok(receiver)
}

fn announce(mut inotify: Inotify, mut watched: Watched, sender: &Sender<Changed>) {
    let mut buffer = vec![0; EVENT_BUFFER_BYTES];
    loop {
        let events = match inotify.read_events_blocking(&mut buffer) {
            Ok(events) => events,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                log::error!("changes of the target configuration are no longer noticed: {error}");
                return;
            }
        };
        for event in events {
            if let Err(error) = watched.follow(&event) {
                log::warn!(
                    "some changes of the target configuration will be noticed late: {error}"
                );
            }
        }
        // New directories are watched by now: what the receiver does not see happens after this.
        if let Err(TrySendError::Disconnected(_)) = sender.try_send(Changed) {
            return;
        }
    }
}

/// The directories that are watched.
struct Watched {
    root: PathBuf,
    watches: Watches,
    directories: HashMap<WatchDescriptor, PathBuf>,
}

impl Watched {
    /// Takes up directories that were made, and forgets those that are gone.
    fn follow(&mut self, event: &inotify::Event<&std::ffi::OsStr>) -> Result<(), Error> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return self.add(&self.root.clone());
        }
        if event.mask.contains(EventMask::IGNORED) {
            self.directories.remove(&event.wd);
        } else if event.mask.contains(EventMask::CREATE | EventMask::ISDIR) {
            let directory = self.directories.get(&event.wd);
            if let Some((directory, name)) = directory.zip(event.name) {
                return self.add(&directory.join(name));
            }
        }
        Ok(())
    }

    /// Watches `directory` and what is in it, as far as it matters. First the watch, then the look: what is
    /// made in between is found by both, and nothing by neither. What is gone already is passed over.
    fn add(&mut self, directory: &Path) -> Result<(), Error> {
        if !matters(directory.strip_prefix(&self.root).unwrap_or(directory)) {
            return Ok(());
        }
        let failed = |source| Error::Add {
            path: directory.to_owned(),
            source,
        };
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::MODIFY
            | WatchMask::ONLYDIR
            | WatchMask::DONT_FOLLOW;
        match self.watches.add(directory, mask) {
            Ok(descriptor) => self.directories.insert(descriptor, directory.to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Whether something in this directory, given from the root, decides who is served. The rest of the tree,
/// statistics above all, would use up the watches of a large node.
fn matters(directory: &Path) -> bool {
    let parts: Vec<_> = directory
        .iter()
        .map(|part| part.to_string_lossy())
        .collect();
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    match parts[..] {
        [] | [_] => true,
        ["core", hba] | ["core", hba, _] | ["core", hba, _, "attrib" | "wwn"] => {
            hba.starts_with("user_")
        }
        ["core", ..] => false,
        [_fabric, _target] => true,
        [_, _, group] | [_, _, group, "attrib" | "lun" | "acls"] => group.starts_with("tpgt_"),
        [_, _, _, "lun", lun] | [_, _, _, "acls", _, lun] => lun.starts_with("lun_"),
        [_, _, _, "acls", _initiator] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tcmu::configfs::tests::Tree;

    const SOON: Duration = Duration::from_secs(10);
    const QUIET: Duration = Duration::from_millis(200);

    /// A target configuration with one exported backstore.
    fn tree() -> (Tree, String) {
        let tree = Tree::new();
        tree.backstore("user_0", "lun0");
        let group = tree.iscsi("iqn.x:t", 1);
        tree.lun(&group, 0, "user_0/lun0")
            .acl(&group, "iqn.x:a", 0, 0);
        (tree, group)
    }

    #[test]
    fn every_change_that_matters_is_announced() {
        type Change = fn(&Tree, &str);
        let changes: [(&str, Change); 10] = [
            ("pgr_support set back", |tree, _| {
                tree.file("core/user_0/lun0/attrib/pgr_support", "1\n");
            }),
            ("a serial number", |tree, _| {
                tree.file("core/user_0/lun0/wwn/vpd_unit_serial", "x\n");
            }),
            ("a new backstore", |tree, _| {
                tree.backstore("user_1", "lun1");
            }),
            ("a new fabric", |tree, _| {
                fs::create_dir(tree.root().join("vhost")).expect("it is new");
            }),
            ("a LUN", |tree, group| {
                tree.lun(group, 1, "user_0/lun0");
            }),
            ("a LUN's link gone", |tree, group| {
                tree.remove(&format!("{group}/lun/lun_0/5e3e7f1c0b"));
            }),
            ("an ACL", |tree, group| {
                tree.acl(group, "iqn.x:b", 0, 0);
            }),
            ("a mapped LUN gone", |tree, group| {
                tree.remove(&format!("{group}/acls/iqn.x:a/lun_0"));
            }),
            ("write_protect", |tree, group| {
                tree.file(&format!("{group}/acls/iqn.x:a/lun_0/write_protect"), "1\n");
            }),
            ("generate_node_acls", |tree, group| {
                tree.file(&format!("{group}/attrib/generate_node_acls"), "1\n");
            }),
        ];
        for (what, change) in changes {
            let (tree, group) = tree();
            let changed = start(tree.root()).expect("the tree is there");
            change(&tree, &group);
            assert_eq!(changed.recv_timeout(SOON), Ok(Changed), "{what}");
        }
    }

    #[test]
    fn what_is_made_later_is_watched_too() {
        let (tree, _) = tree();
        let changed = start(tree.root()).expect("the tree is there");
        let group = tree.iscsi("iqn.x:new", 3);
        tree.lun(&group, 0, "user_0/lun0")
            .acl(&group, "iqn.x:a", 0, 0);
        assert_eq!(changed.recv_timeout(SOON), Ok(Changed));
        while changed.recv_timeout(QUIET).is_ok() {}
        tree.file(&format!("{group}/acls/iqn.x:a/lun_0/write_protect"), "1\n");
        assert_eq!(changed.recv_timeout(SOON), Ok(Changed));
    }

    #[test]
    fn a_directory_made_again_is_watched_again() {
        let (tree, group) = tree();
        let changed = start(tree.root()).expect("the tree is there");
        for _ in 0..3 {
            tree.remove(&format!("{group}/acls/iqn.x:a"));
            tree.acl(&group, "iqn.x:a", 0, 0);
            while changed.recv_timeout(QUIET).is_ok() {}
            tree.file(&format!("{group}/acls/iqn.x:a/lun_0/write_protect"), "1\n");
            assert_eq!(changed.recv_timeout(SOON), Ok(Changed));
        }
    }

    #[test]
    fn a_burst_is_announced_once() {
        let (tree, _) = tree();
        let changed = start(tree.root()).expect("the tree is there");
        for _ in 0..1000 {
            tree.file("core/user_0/lun0/attrib/pgr_support", "1\n");
        }
        assert_eq!(changed.recv_timeout(SOON), Ok(Changed));
        let mut more = 0;
        while changed.recv_timeout(QUIET).is_ok() {
            more += 1;
        }
        assert!(more <= 2, "{more} announcements of one burst");
    }

    #[test]
    fn only_what_matters_uses_a_watch() {
        for (directory, expected) in [
            ("", true),
            ("core", true),
            ("core/user_0", true),
            ("core/user_0/lun0", true),
            ("core/user_0/lun0/attrib", true),
            ("core/user_0/lun0/statistics", false),
            ("core/iblock_0", false),
            ("core/alua", false),
            ("iscsi", true),
            ("iscsi/discovery_auth", true),
            ("iscsi/iqn.x:t/fabric_statistics", false),
            ("iscsi/iqn.x:t/tpgt_1", true),
            ("iscsi/iqn.x:t/tpgt_1/np", false),
            ("iscsi/iqn.x:t/tpgt_1/lun", true),
            ("iscsi/iqn.x:t/tpgt_1/lun/lun_0", true),
            ("iscsi/iqn.x:t/tpgt_1/lun/lun_0/statistics", false),
            ("iscsi/iqn.x:t/tpgt_1/acls/iqn.x:a", true),
            ("iscsi/iqn.x:t/tpgt_1/acls/iqn.x:a/auth", false),
            ("iscsi/iqn.x:t/tpgt_1/acls/iqn.x:a/lun_0", true),
            ("iscsi/iqn.x:t/tpgt_1/acls/iqn.x:a/lun_0/statistics", false),
        ] {
            assert_eq!(matters(Path::new(directory)), expected, "{directory}");
        }
    }

    #[test]
    fn a_missing_root_says_what_to_load() {
        let tree = Tree::new();
        let error = start(&tree.root().join("none"))
            .expect_err("it is not there")
            .to_string();
        assert!(error.contains("modprobe target_core_user"), "{error}");
    }
}
