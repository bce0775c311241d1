//! The rings of devices that were there before us, and work in the kernel's tree that the main thread must not wait
//! for.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::chain;
use super::devices;
use super::questions::Questions;
use super::records::Records;
use super::records::handover::{Found, Handover, Whose, now};
use crate::nexus::tap::Notes;
use crate::store::backing::{self, Backing};
use crate::tcmu::config::{Name, Options};
use crate::tcmu::configfs::{self, Backstore, BackstoreName};
use crate::tcmu::{self, Uio, UioPaths};

/// The backstore behind a UIO name, if it is one of ours.
pub(super) fn ours(uio_name: &str) -> Option<Backstore> {
    Name::parse(uio_name)
        .filter(Name::is_ours)
        .and_then(|name| backstore(&name))
}

pub(super) fn backstore(name: &Name<'_>) -> Option<Backstore> {
    Backstore::new(configfs::ROOT.as_ref(), name.backstore()).ok()
}

/// How long the first walk waits for I/O of the last daemon. What goes on for longer is waited for from walk to walk,
/// and keeps nobody else from being served.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often to look meanwhile whether it goes on.
const IO_INTERVAL: Duration = Duration::from_millis(10);

/// What the last daemon has left in order.
pub(super) struct Left {
    handover: Handover,
    /// What the tap has noted meanwhile, if it stayed.
    notes: Option<Notes>,
    /// Where rings are told that are still as the last daemon has left them.
    resting: Sender<devices::Found>,
}

impl Left {
    /// Takes what was left: it is there once.
    pub(super) fn take(
        records: &Records,
        notes: Option<Notes>,
        resting: Sender<devices::Found>,
    ) -> Left {
        let handover = records.take_over().unwrap_or_else(|error| {
            log::error!("{}", chain(&error));
            Handover::default()
        });
        Left {
            handover,
            notes,
            resting,
        }
    }

    /// What the last daemon has told of it.
    pub(super) fn handover(&self) -> Handover {
        self.handover.clone()
    }

    /// Whether a ring is as it was left. Then that is told, and the kernel need not end anything. `claim` is its device,
    /// which nobody else has open.
    fn has(
        &self,
        uios: &UioPaths,
        uio: &Uio,
        claim: &File,
        backstore: &Backstore,
    ) -> Result<bool, configfs::Error> {
        // Where it can't be mapped, it can't be served: whoever wants to do that says why.
        let claim = claim.try_clone().ok();
        let device = claim.and_then(|claim| uios.map(uio.minor, claim).ok());
        let Some(tail) = device.and_then(|device| device.ring.at_rest()) else {
            return Ok(false);
        };
        let timeout_s = backstore.settings()?.command_timeout_s;
        let found = Found::of(uios, uio, tail, timeout_s);
        let left = found.and_then(|found| self.handover.ring(&found, now()));
        let left = left.filter(|left| self.can_tell(uio.minor, &left.whose));
        if let Some(left) = left {
            // Nobody is there to be told if we have stopped already.
            let _ = self.resting.send(devices::Found {
                backstore: backstore.clone(),
                left: left.clone(),
            });
        }
        Ok(left.is_some())
    }

    /// Whether each command on the ring of the device with this minor number is known to be of whom it is.
    fn can_tell(&self, minor: u32, whose: &Whose) -> bool {
        match (whose, &self.notes) {
            (Whose::Nexus(_), _) => true,
            (&Whose::Notes(place), Some(notes)) => notes.go_on(minor, place).is_some(),
            (Whose::Notes(_), None) => false,
        }
    }
}

/// Backstores whose rings can't be emptied yet, and what is waited for.
pub(super) type Waiting = BTreeMap<BackstoreName, String>;

/// What is to be done before each walk: [empties](LeftRings::empty) what rings the last daemon has left, and tells who
/// waits whenever that changes, before the walk. Gives whether any is left.
pub(super) fn empty_left_rings(
    uio: UioPaths,
    in_order: Left,
    who_waits: Sender<Waiting>,
) -> impl FnMut() -> bool {
    let mut rings = LeftRings {
        uio,
        in_order,
        // They are looked at again with each walk.
        disks: Questions::new(bounded(0).0),
        left: None,
    };
    let mut told = None;
    move || {
        let waiting = match rings.empty(PATIENCE) {
            Ok(waiting) => waiting,
            Err(error) => {
                log::error!("{}", chain(&error));
                return true;
            }
        };
        let any = !waiting.is_empty();
        if told.as_ref() != Some(&waiting) {
            // Nobody is there to be told if we have stopped already.
            let _ = who_waits.send(waiting.clone());
            told = Some(waiting);
        }
        any
    }
}

/// The rings of our devices as the last daemon has left them.
struct LeftRings {
    uio: UioPaths,
    in_order: Left,
    disks: Disks,
    /// Those that were not emptied yet; `None` before they were looked for.
    left: Option<Vec<LeftRing>>,
}

struct LeftRing {
    uio: Uio,
    incarnation: u64,
    backstore: Backstore,
    io_has_ended: bool,
}

/// Why a ring can't be emptied yet.
#[derive(Debug, thiserror::Error)]
enum Hindrance {
    #[error(transparent)]
    Io(#[from] Io),
    #[error(transparent)]
    Device(#[from] tcmu::Error),
    #[error(transparent)]
    Backstore(#[from] configfs::Error),
}

/// Why the last daemon may still read or write a backing object.
#[derive(Clone, Debug, thiserror::Error)]
enum Io {
    #[error(
        "I/O of the last tcmu-pr goes on in {path}, or another process has locked it (lsof {path} shows which)"
    )]
    GoesOn { path: PathBuf },
    #[error(
        "the file system of {path} does not answer whether I/O of the last tcmu-pr goes on: see to its server or its device \
         (`stat {path}` hangs until it is back)"
    )]
    NoAnswer { path: PathBuf },
    #[error("whether I/O of the last tcmu-pr goes on is not known: {why}")]
    Unknown { why: String },
}

impl LeftRings {
    fn find(&self) -> Result<Vec<LeftRing>, tcmu::Error> {
        let found = self.uio.scan()?.into_iter().filter_map(|uio| {
            let backstore = ours(&uio.name)?;
            // One that is being made has nothing on its ring, and is about to be announced.
            let enabled = matches!(backstore.is_enabled(), Ok(true));
            Some(LeftRing {
                incarnation: self.uio.incarnation(uio.minor).filter(|_| enabled)?,
                uio,
                backstore,
                io_has_ended: false,
            })
        });
        Ok(found.collect())
    }

    /// Ends with BUSY what is on them, and has the kernel answer BUSY until they are [unblocked](unblock). But those that
    /// were left in order stay as they are.
    ///
    /// Waits for I/O of the last daemon, for so long the first time, and gives those that have to wait longer: what is on
    /// them is no record of what is pending. Nor is it later, when other ports of the unit may be served already, for those
    /// that were left in order: an initiator may have sent by another port again what is on them.
    fn empty(&mut self, patience: Duration) -> Result<Waiting, tcmu::Error> {
        let (mut left, patience) = match self.left.take() {
            Some(left) => (left, Duration::ZERO),
            None => (self.find()?, patience),
        };
        let began = Instant::now();
        loop {
            // All are asked first, so that those that hang are waited for together.
            for ring in &left {
                ring.ask(&self.disks);
            }
            let last = began.elapsed() >= patience;
            let mut waiting = Waiting::new();
            let mut looked = Looked::new();
            left.retain_mut(|ring| {
                // One that was made anew under this name, or with this number, is empty.
                if self.uio.incarnation(ring.uio.minor) != Some(ring.incarnation) {
                    return false;
                }
                let Err(hindrance) = ring.empty(&self.uio, &self.in_order, &self.disks, &mut looked) else {
                    return false;
                };
                let why = format!(
                    "its ring has to be emptied before it is served, which is done as soon as it can be: {}",
                    chain(&hindrance)
                );
                waiting.insert(ring.backstore.name().clone(), why);
                true
            });
            if waiting.is_empty() || last {
                self.left = Some(left);
                self.in_order.handover = Handover::default();
                return Ok(waiting);
            }
            thread::sleep(IO_INTERVAL);
        }
    }
}

/// Asks whether nobody has a backing object, which is only read or not.
type Disks = Questions<bool, Result<bool, backing::Error>>;

/// What was found about I/O in backing objects, in one look at all rings: as soon as one of them is served, we have it.
type Looked = BTreeMap<PathBuf, Result<(), Io>>;

impl LeftRing {
    /// Empties it, unless another process has the device or its backing object: I/O of that process may touch the ring's
    /// data. So it may when the process has ended, since the kernel ends io_uring's after it.
    fn empty(
        &mut self,
        uio: &UioPaths,
        in_order: &Left,
        disks: &Disks,
        looked: &mut Looked,
    ) -> Result<(), Hindrance> {
        if let Some((path, read_only)) = self.where_io_may_be() {
            let look = || look_for_io(&path, read_only, disks);
            looked.entry(path.clone()).or_insert_with(look).clone()?;
            self.io_has_ended = true;
        }
        let claim = uio.claim(self.uio.minor)?;
        if in_order.has(uio, &self.uio, &claim, &self.backstore)? {
            return Ok(());
        }
        self.backstore.block()?;
        Ok(self.backstore.reset_ring()?)
    }

    /// Asks whether somebody has the backing object.
    fn ask(&self, disks: &Disks) {
        if let Some((path, read_only)) = self.where_io_may_be() {
            let own = path.clone();
            disks.ask(&path, read_only, move || Backing::is_free(&own, read_only));
        }
    }

    /// The backing object, and whether it is only read, unless it is known that no I/O goes on in it. Later it may be we
    /// who have it, for another port of its unit.
    fn where_io_may_be(&self) -> Option<(PathBuf, bool)> {
        let options = Options::parse(Name::parse(&self.uio.name)?.handler).ok()?;
        (!self.io_has_ended).then_some((options.path, options.disk.read_only))
    }
}

/// Whether somebody has the backing object. What is not there has no I/O.
fn look_for_io(path: &Path, read_only: bool, disks: &Disks) -> Result<(), Io> {
    let path = path.to_owned();
    match disks.take(&path, &read_only, PATIENCE) {
        None => Err(Io::NoAnswer { path }),
        Some(Ok(false)) => Err(Io::GoesOn { path }),
        Some(Err(error @ backing::Error::System { .. })) => Err(Io::Unknown { why: chain(&error) }),
        Some(Ok(true) | Err(_)) => Ok(()),
    }
}

/// Lets commands come to us. On a thread of its own: the kernel may hold what is to be written until the main
/// thread has answered.
pub(super) fn unblock(backstores: Vec<Backstore>) {
    if backstores.is_empty() {
        return;
    }
    aside("unblock", move || {
        for backstore in backstores {
            if let Err(error) = backstore.unblock() {
                log::error!(TCMU_PR_BACKSTORE:% = backstore.name(); "backstore {}: {}", backstore.name(), chain(&error));
            }
        }
        Ok(())
    });
}

/// Does something on a thread of its own. Tells whether it has begun.
pub(super) fn aside(
    what: &str,
    body: impl FnOnce() -> Result<(), configfs::Error> + Send + 'static,
) -> bool {
    let body = move || {
        if let Err(error) = body() {
            log::error!("{}", chain(&error));
        }
    };
    let started = thread::Builder::new().name(what.to_owned()).spawn(body);
    if let Err(error) = &started {
        log::error!("starting a thread: {error}");
    }
    started.is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::fcntl::{Flock, FlockArg};

    use super::*;
    use crate::store::backing::Mode;
    use crate::tcmu::configfs::tests::Tree;

    /// A device of the last daemon's, on a ring that nobody has emptied yet.
    struct Node {
        tree: Tree,
        rings: LeftRings,
        path: PathBuf,
    }

    fn nothing() -> Left {
        Left {
            handover: Handover::default(),
            notes: None,
            resting: crossbeam_channel::unbounded().0,
        }
    }

    const ACTIONS: &str = "core/user_0/lun0/action";

    impl Node {
        fn new(more_options: &str) -> Node {
            let tree = Tree::new();
            let path = tree.root().join("lun0.img");
            let name = format!("tcm-user/0/lun0/pr/{}{more_options}", path.display());
            tree.file("class/uio0/name", &name).file("dev/uio0", "");
            let uio = UioPaths {
                class: tree.root().join("class"),
                nodes: tree.root().join("dev"),
            };
            let ring = LeftRing {
                uio: Uio { minor: 0, name },
                incarnation: uio.incarnation(0).unwrap(),
                backstore: tree.backstore("user_0", "lun0"),
                io_has_ended: false,
            };
            Node {
                rings: LeftRings {
                    uio,
                    in_order: nothing(),
                    disks: Questions::new(bounded(0).0),
                    left: Some(vec![ring]),
                },
                path,
                tree,
            }
        }

        fn what_is_waited_for(&mut self) -> Option<String> {
            let waiting = self.rings.empty(Duration::ZERO).unwrap();
            let left = self.rings.left.as_ref().map(Vec::len);
            assert_eq!(left, Some(waiting.len()));
            waiting.into_values().next()
        }

        fn is_emptied(&self) -> bool {
            let [blocked, reset] = ["block_dev", "reset_ring"]
                .map(|file| self.tree.content(&format!("{ACTIONS}/{file}")));
            assert_eq!(blocked == "1", reset == "1");
            reset == "1"
        }
    }

    #[test]
    fn a_ring_is_emptied_at_once_where_no_io_goes_on() {
        let mut node = Node::new("");
        assert_eq!(node.what_is_waited_for(), None);
        assert!(node.is_emptied());
    }

    #[test]
    fn a_ring_is_left_alone_while_its_backing_object_is_in_use() {
        let mut node = Node::new("");
        let backing = Backing::open(&node.path, 1 << 20, 512).unwrap();
        for _ in 0..2 {
            let why = node.what_is_waited_for().unwrap();
            assert!(why.contains("I/O of the last tcmu-pr goes on in"), "{why}");
            assert!(!node.is_emptied());
        }
        drop(backing);
        assert_eq!(node.what_is_waited_for(), None);
        assert!(node.is_emptied());
    }

    #[test]
    fn io_that_ends_soon_is_waited_for() {
        let mut node = Node::new("");
        let mut ring = node.rings.left.take().unwrap().remove(0);
        let backing = Backing::open(&node.path, 1 << 20, 512).unwrap();
        let disks = &node.rings.disks;
        let mut empty = || {
            ring.ask(disks);
            ring.empty(&node.rings.uio, &nothing(), disks, &mut Looked::new())
        };
        assert!(empty().is_err());
        drop(backing);
        assert!(empty().is_ok());
        assert!(node.is_emptied());
    }

    #[test]
    fn readers_are_waited_for_if_they_are_ours() {
        let mut node = Node::new(";read_only=1");
        let read_only = Mode {
            read_only: true,
            ..Mode::default()
        };
        fs::write(&node.path, [0; 4096]).unwrap();
        let ours = Backing::open_with(&node.path, 4096, 512, read_only).unwrap();
        let why = node.what_is_waited_for().unwrap();
        assert!(why.contains("I/O of the last tcmu-pr goes on in"), "{why}");
        drop(ours);
        let file = File::open(&node.path).unwrap();
        let _stranger = Flock::lock(file, FlockArg::LockShared).unwrap();
        assert_eq!(node.what_is_waited_for(), None);
        assert!(node.is_emptied());
    }

    #[test]
    fn a_file_system_that_does_not_answer_costs_its_own_ring_until_it_does() {
        let mut node = Node::new("");
        let other = node.tree.root().join("lun1.img");
        let name = format!("tcm-user/0/lun1/pr/{}", other.display());
        node.tree
            .file("class/uio1/name", &name)
            .file("dev/uio1", "");
        let ring = LeftRing {
            incarnation: node.rings.uio.incarnation(1).unwrap(),
            uio: Uio { minor: 1, name },
            backstore: node.tree.backstore("user_0", "lun1"),
            io_has_ended: false,
        };
        node.rings.left.as_mut().unwrap().push(ring);
        // As the question of a file system that hangs.
        let (answer, to_come) = bounded(1);
        let hangs = move || to_come.recv().unwrap();
        node.rings.disks.ask(&node.path, false, hangs);
        for _ in 0..2 {
            let why = node.what_is_waited_for().unwrap();
            assert!(why.contains("does not answer whether I/O"), "{why}");
            assert!(!node.is_emptied());
            let reset = "core/user_0/lun1/action/reset_ring";
            assert_eq!(node.tree.content(reset), "1");
        }
        answer.send(Ok(true)).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while node.what_is_waited_for().is_some() && Instant::now() < until {
            thread::yield_now();
        }
        assert!(node.is_emptied());
    }

    #[test]
    fn a_file_system_that_only_fails_tells_nothing_of_io() {
        let mut node = Node::new("");
        std::os::unix::fs::symlink("lun0.img", &node.path).unwrap();
        let why = node.what_is_waited_for().unwrap();
        assert!(why.contains("Too many levels of symbolic links"), "{why}");
        assert!(!node.is_emptied());
    }

    #[test]
    fn io_that_has_ended_once_is_not_looked_for_again() {
        let mut node = Node::new("");
        node.tree.remove("dev/uio0");
        let why = node.what_is_waited_for().unwrap();
        assert!(
            why.contains("dev/uio0: another process may have it open"),
            "{why}"
        );
        // It is served through another port.
        let _backing = Backing::open(&node.path, 1 << 20, 512).unwrap();
        node.tree.file("dev/uio0", "");
        assert_eq!(node.what_is_waited_for(), None);
        assert!(node.is_emptied());
    }

    #[test]
    fn a_device_that_is_gone_or_made_anew_is_not_waited_for() {
        for is_made_anew in [false, true] {
            let mut node = Node::new("");
            let _backing = Backing::open(&node.path, 1 << 20, 512).unwrap();
            assert!(node.what_is_waited_for().is_some());
            let name = node.tree.content("class/uio0/name");
            // Renamed, so that its inode is not given out again.
            let old = node.tree.root().join("class/uio0");
            fs::rename(&old, node.tree.root().join("class/old")).unwrap();
            if is_made_anew {
                node.tree.file("class/uio0/name", &name);
            }
            assert_eq!(node.what_is_waited_for(), None);
            assert!(!node.is_emptied());
        }
    }

    #[test]
    fn who_waits_is_told_when_that_changes() {
        let tree = Tree::new();
        let (sender, told) = crossbeam_channel::unbounded();
        let nowhere = UioPaths {
            class: tree.root().join("class"),
            nodes: tree.root().join("dev"),
        };
        let mut before_walk = empty_left_rings(nowhere, nothing(), sender);
        assert!(before_walk(), "there is nothing to look at");
        assert!(told.is_empty());
        fs::create_dir(tree.root().join("class")).unwrap();
        assert!(!before_walk());
        assert!(!before_walk());
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [Waiting::new()]);
    }

    #[test]
    fn all_ports_of_a_unit_are_looked_at_before_any_is_served() {
        let mut node = Node::new(";nexus=a");
        let path = node.path.display().to_string();
        let name = format!("tcm-user/0/lun1/pr/{path};nexus=b");
        node.tree.file("class/uio1/name", &name);
        let second = LeftRing {
            incarnation: node.rings.uio.incarnation(1).unwrap(),
            uio: Uio { minor: 1, name },
            backstore: node.tree.backstore("user_0", "lun1"),
            io_has_ended: false,
        };
        node.rings.left.as_mut().unwrap().push(second);
        // The second has no device to be opened, but the first is emptied, and served.
        let waiting = node.rings.empty(Duration::ZERO).unwrap();
        assert!(waiting.into_values().next().unwrap().contains("uio1"));
        let _backing = Backing::open(&node.path, 1 << 20, 512).unwrap();
        node.tree.file("dev/uio1", "");
        assert_eq!(node.what_is_waited_for(), None);
    }

    #[test]
    fn what_was_left_in_order_is_so_before_the_first_walk_only() {
        let mut node = Node::new("");
        let before = Handover::of_test();
        node.rings.in_order.handover = before.clone();
        let _backing = Backing::open(&node.path, 1 << 20, 512).unwrap();
        assert_eq!(node.rings.in_order.handover, before);
        assert!(node.what_is_waited_for().is_some());
        assert_eq!(node.rings.in_order.handover, Handover::default());
    }

    #[test]
    fn what_was_left_and_is_not_understood_keeps_nobody_from_starting() {
        let mut node = Node::new("");
        let (run, state) = (node.tree.root().join("run"), node.tree.root().join("state"));
        let records = Records::open(&run, &state).unwrap();
        let path = run.join("handover");
        for text in [
            "version = 2\nchecksum = \"00000000\"\n",
            "version = 1\n",
            "\0",
        ] {
            fs::write(&path, text).unwrap();
            let left = Left::take(&records, None, crossbeam_channel::unbounded().0);
            assert_eq!(left.handover, Handover::default(), "{text:?}");
            assert!(!path.exists(), "{text:?}");
            node.rings.in_order = left;
        }
        assert_eq!(node.what_is_waited_for(), None);
        assert!(node.is_emptied());
    }
}
