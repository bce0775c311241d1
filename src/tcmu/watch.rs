//! Walks the fabrics whenever the target configuration has changed: exports, ACLs, or the settings of a
//! backstore.
//!
//! All looking is done on a thread of its own, for a look may take long: while a backstore is removed, the kernel
//! holds the directory that it is in, and waits for our answer. So nothing that the kernel waits for may wait
//! for a look. And while a LUN of the loopback fabric is linked, the kernel holds the LUN's directory and sends
//! SCSI commands to the new LUN: that one directory is therefore never listed, neither here nor by the walk.
//!
//! inotify tells of changes that are made through the tree, when they are done. Those that the kernel makes by
//! itself, such as logins, it does not see: hence a walk every now and then, more often while somebody waits for them,
//! and one whenever somebody asks.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::configfs::{self, BackstoreName, PortGroup, State};
use crate::sys::wake::Waker;

/// Room for a burst of events with the longest names.
const EVENT_BUFFER_BYTES: usize = 64 << 10;

/// How often to walk at least while somebody is in a hurry.
const HURRIED_INTERVAL: Duration = Duration::from_secs(1);

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
    /// Changes cannot be waited for.
    #[error("cannot wait for changes")]
    Wait(#[source] io::Error),
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

/// One walk. It says nothing of what was made after it began.
#[derive(Debug)]
pub struct Walk {
    /// When it began.
    pub began: Instant,
    /// The ways to our backstores, or why they are not known: then nobody can be served.
    pub groups: Result<Vec<PortGroup>, configfs::Error>,
    /// The state of every TCMU backstore, ours or another handler's.
    pub backstores: Result<BTreeMap<BackstoreName, State>, configfs::Error>,
}

impl Walk {
    fn of(root: &Path) -> Walk {
        let began = Instant::now();
        // The settings first: whoever is let in by a way that is found must find them right.
        let backstores = configfs::states(root);
        Walk {
            began,
            groups: configfs::port_groups(root),
            backstores,
        }
    }
}

/// Begins to watch the configuration at `root`, [`configfs::ROOT`] outside tests.
///
/// The first walk is sent at once, another one after every change and at least every `interval`. A change of a
/// backstore's settings brings a walk too, which sets ours right again. Changes that come while a
/// walk waits to be received are covered by the next. The channel is closed if watching becomes impossible.
///
/// `before` is done on the watcher's thread before each walk. While it gives true, the next comes within a second.
pub fn start(
    root: &Path,
    interval: Duration,
    mut before: impl FnMut() -> bool + Send + 'static,
) -> Result<(Receiver<Walk>, Again), Error> {
    let again = Again {
        asked: Waker::new().map_err(Error::Start)?,
        hurried: Arc::default(),
    };
    let inotify = Inotify::init().map_err(Error::Start)?;
    let mut watched = Watched {
        root: root.to_owned(),
        watches: inotify.watches(),
        directories: HashMap::new(),
    };
    if !watched.watch(root)? {
        return Err(Error::Add {
            path: root.to_owned(),
            source: ErrorKind::NotFound.into(),
        });
    }
    let (sender, receiver) = bounded(0);
    let mut watcher = Watcher {
        inotify,
        watched,
        again: again.clone(),
        interval: PollTimeout::try_from(interval).unwrap_or(PollTimeout::MAX),
        buffer: vec![0; EVENT_BUFFER_BYTES],
    };
    let work = move || {
        let root = watcher.watched.root.clone();
        let mut hurried = before();
        late(watcher.watched.add(&root));
        // Ends when nobody receives any more.
        while sender.send(Walk::of(&root)).is_ok() {
            if let Err(error) = watcher.wait(hurried) {
                log::error!("changes of the target configuration are no longer noticed: {error}");
                return;
            }
            hurried = before();
        }
    };
    thread::Builder::new()
        .name("watch".into())
        .spawn(work)
        .map_err(Error::Thread)?;
    Ok((receiver, again))
}

/// Asks for another walk, soon.
#[derive(Clone, Debug)]
pub struct Again {
    asked: Waker,
    hurried: Arc<AtomicBool>,
}

impl Again {
    /// Walk once more: something may have changed that has not been announced yet.
    pub fn ask(&self) {
        self.asked.wake();
    }

    /// Walk at least once a second from now on: what nobody announces is waited for.
    pub fn hurry(&self) {
        if !self.hurried.swap(true, Ordering::Relaxed) {
            self.ask();
        }
    }

    /// Nobody is in a hurry any more.
    pub fn calm_down(&self) {
        self.hurried.store(false, Ordering::Relaxed);
    }
}

struct Watcher {
    inotify: Inotify,
    watched: Watched,
    again: Again,
    interval: PollTimeout,
    buffer: Vec<u8>,
}

impl Watcher {
    /// Waits for a change, or for the next walk to be due, and watches the directories that are new. What is
    /// not seen by the walk after this happens after this.
    fn wait(&mut self, hurried: bool) -> Result<(), Error> {
        let mut ready = [
            PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.again.asked.as_fd(), PollFlags::POLLIN),
        ];
        let hurried = hurried || self.again.hurried.load(Ordering::Relaxed);
        let interval = if hurried {
            PollTimeout::try_from(HURRIED_INTERVAL).expect("a second fits")
        } else {
            self.interval
        };
        match poll(&mut ready, interval) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::Wait(errno.into())),
        }
        self.again.asked.acknowledge();
        loop {
            match self.inotify.read_events(&mut self.buffer) {
                Ok(events) => events.for_each(|event| late(self.watched.follow(&event))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Wait(error)),
            }
        }
    }
}

/// A directory that cannot be watched is no reason to give up: there is still a walk every interval.
fn late(outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        log::warn!("some changes of the target configuration will be noticed late: {error}");
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
        let from_root = directory.strip_prefix(&self.root).unwrap_or(directory);
        if !matters(from_root) || !self.watch(directory)? || is_lun(from_root) {
            return Ok(());
        }
        let failed = |source| Error::Add {
            path: directory.to_owned(),
            source,
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

    /// Watches one directory; `false` if it is not there.
    fn watch(&mut self, directory: &Path) -> Result<bool, Error> {
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::MODIFY
            | WatchMask::ONLYDIR
            | WatchMask::DONT_FOLLOW;
        match self.watches.add(directory, mask) {
            Ok(descriptor) => {
                self.directories.insert(descriptor, directory.to_owned());
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::Add {
                path: directory.to_owned(),
                source,
            }),
        }
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

/// Whether this directory, given from the root, is a LUN's: locked while a link is made in it, and without
/// directories that matter.
fn is_lun(directory: &Path) -> bool {
    let mut parts = directory.iter().skip(3);
    parts.next().is_some_and(|part| part == "lun")
        && parts.next().is_some()
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcmu::configfs::tests::Tree;

    const SOON: Duration = Duration::from_secs(10);
    const QUIET: Duration = Duration::from_millis(200);
    const NEVER: Duration = Duration::from_secs(3600);

    /// A target configuration with one exported backstore.
    fn tree() -> (Tree, String) {
        let tree = Tree::new();
        tree.backstore("user_0", "lun0");
        let group = tree.iscsi("iqn.x:t", 1);
        tree.lun(&group, 0, "user_0/lun0")
            .acl(&group, "iqn.x:a", 0, 0);
        (tree, group)
    }

    /// Watches `tree`; the first walk is done and received.
    fn watch(tree: &Tree) -> Receiver<Walk> {
        let (walks, _) = start(tree.root(), NEVER, || false).expect("the tree is there");
        let first = walks.recv_timeout(SOON).expect("there is a first walk");
        assert_eq!(first.groups.expect("it is good").len(), 1);
        walks
    }

    /// Receives walks until one shows what is expected.
    fn await_walk(walks: &Receiver<Walk>, what: &str, expected: impl Fn(&[PortGroup]) -> bool) {
        loop {
            let walk = walks
                .recv_timeout(SOON)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            // A walk may meet a tree that is just being made.
            if walk.groups.is_ok_and(|groups| expected(&groups)) {
                return;
            }
        }
    }

    fn quiesce(walks: &Receiver<Walk>) {
        while walks.recv_timeout(QUIET).is_ok() {}
    }

    #[test]
    fn every_change_of_an_export_is_seen() {
        type Change = fn(&Tree, &str);
        type Expected = fn(&[PortGroup]) -> bool;
        let changes: [(&str, Change, Expected); 6] = [
            (
                "a LUN",
                |tree, group| _ = tree.lun(group, 1, "user_0/lun0"),
                |groups| groups[0].luns.len() == 2,
            ),
            (
                "a LUN's link gone",
                |tree, group| tree.unlink_lun(group, 0),
                |groups| groups.is_empty(),
            ),
            (
                "an ACL",
                |tree, group| _ = tree.acl(group, "iqn.x:b", 0, 0),
                |groups| groups[0].acls.len() == 2,
            ),
            (
                "a mapped LUN gone",
                |tree, group| tree.remove(&format!("{group}/acls/iqn.x:a/lun_0")),
                |groups| groups[0].acls[0].luns.is_empty(),
            ),
            (
                "write_protect",
                |tree, group| {
                    tree.file(&format!("{group}/acls/iqn.x:a/lun_0/write_protect"), "1\n");
                },
                |groups| groups[0].acls[0].luns[0].write_protect,
            ),
            (
                "generate_node_acls",
                |tree, group| {
                    tree.file(&format!("{group}/attrib/generate_node_acls"), "1\n");
                },
                |groups| groups[0].generate_node_acls == Some(true),
            ),
        ];
        for (what, change, expected) in changes {
            let (tree, group) = tree();
            let walks = watch(&tree);
            change(&tree, &group);
            await_walk(&walks, what, expected);
        }
    }

    #[test]
    fn a_changed_setting_of_a_backstore_brings_a_walk() {
        for file in ["attrib/pgr_support", "wwn/vpd_unit_serial"] {
            let (tree, _) = tree();
            let walks = watch(&tree);
            tree.file(&format!("core/user_0/lun0/{file}"), "1\n");
            assert!(walks.recv_timeout(SOON).is_ok(), "{file}");
        }
    }

    #[test]
    fn what_is_made_later_is_watched_too() {
        let (tree, _) = tree();
        let walks = watch(&tree);
        let group = tree.iscsi("iqn.x:new", 3);
        tree.lun(&group, 0, "user_0/lun0")
            .acl(&group, "iqn.x:a", 0, 0);
        await_walk(&walks, "a new target", |groups| groups.len() == 2);
        quiesce(&walks);
        tree.file(&format!("{group}/acls/iqn.x:a/lun_0/write_protect"), "1\n");
        await_walk(&walks, "its ACL", |groups| {
            groups[0].acls[0].luns[0].write_protect
        });
    }

    #[test]
    fn a_directory_made_again_is_watched_again() {
        let (tree, group) = tree();
        let walks = watch(&tree);
        for _ in 0..3 {
            tree.remove(&format!("{group}/acls/iqn.x:a"));
            tree.acl(&group, "iqn.x:a", 0, 0);
            quiesce(&walks);
            tree.file(&format!("{group}/acls/iqn.x:a/lun_0/write_protect"), "1\n");
            await_walk(&walks, "write_protect", |groups| {
                groups[0].acls[0].luns[0].write_protect
            });
        }
    }

    #[test]
    fn a_burst_is_one_walk() {
        let (tree, _) = tree();
        let (walks, _) = start(tree.root(), NEVER, || false).expect("the tree is there");
        for _ in 0..1000 {
            tree.file("core/user_0/lun0/attrib/pgr_support", "1\n");
        }
        let count = std::iter::from_fn(|| walks.recv_timeout(QUIET).ok()).count();
        assert!((1..=3).contains(&count), "{count} walks");
    }

    #[test]
    fn without_a_change_there_is_a_walk_every_interval() {
        let (tree, _) = tree();
        let (walks, _) =
            start(tree.root(), Duration::from_millis(1), || false).expect("the tree is there");
        for _ in 0..3 {
            assert!(walks.recv_timeout(SOON).is_ok());
        }
    }

    #[test]
    fn a_walk_that_fails_is_told() {
        let (tree, group) = tree();
        let walks = watch(&tree);
        tree.file(&format!("{group}/attrib/generate_node_acls"), "maybe\n");
        while walks
            .recv_timeout(SOON)
            .expect("the change is seen")
            .groups
            .is_ok()
        {}
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
        let error = start(&tree.root().join("none"), NEVER, || false).expect_err("it is not there");
        assert!(
            error.to_string().contains("modprobe target_core_user"),
            "{error}"
        );
    }

    #[test]
    fn who_asks_gets_a_walk_that_began_afterwards() {
        let (tree, _) = tree();
        let (walks, again) = start(tree.root(), NEVER, || false).expect("the tree is there");
        walks.recv_timeout(SOON).expect("there is a first walk");
        quiesce(&walks);
        let asked = Instant::now();
        again.ask();
        let walk = walks.recv_timeout(SOON).expect("it was asked for");
        assert!(walk.began >= asked);
        assert!(walks.recv_timeout(QUIET).is_err(), "once");
    }

    #[test]
    fn in_a_hurry_there_is_a_walk_every_second() {
        let (tree, _) = tree();
        let (walks, again) = start(tree.root(), NEVER, || false).expect("the tree is there");
        walks.recv_timeout(SOON).expect("there is a first walk");
        again.hurry();
        for _ in 0..3 {
            walks.recv_timeout(SOON).expect("nobody asked for it");
        }
        again.calm_down();
        // One that was waited for already may come yet.
        let after = std::iter::from_fn(|| walks.recv_timeout(2 * HURRIED_INTERVAL).ok()).count();
        assert!(after <= 1, "{after} walks");
    }

    #[test]
    fn something_is_done_before_each_walk_and_can_be_in_a_hurry() {
        let (tree, _) = tree();
        let (sender, done) = crossbeam_channel::unbounded();
        let mut hurries = [true, true, false].into_iter();
        let before = move || {
            sender.send(Instant::now()).expect("it is received");
            hurries.next().unwrap_or(false)
        };
        let (walks, _) = start(tree.root(), NEVER, before).expect("the tree is there");
        for _ in 0..3 {
            let walk = walks.recv_timeout(SOON).expect("nobody asked for it");
            assert!(done.try_recv().expect("it is done by then") <= walk.began);
        }
        assert!(walks.recv_timeout(2 * HURRIED_INTERVAL).is_err());
        assert!(done.is_empty());
    }

    #[test]
    fn a_luns_directory_is_never_listed() {
        assert!(is_lun(Path::new("loopback/naa.1/tpgt_1/lun/lun_0")));
        assert!(!is_lun(Path::new("loopback/naa.1/tpgt_1/lun")));
        assert!(!is_lun(Path::new(
            "iscsi/iqn.x:t/tpgt_1/acls/iqn.x:a/lun_0"
        )));
    }
}
