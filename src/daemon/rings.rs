//! The rings of devices that were there before us, and work in the kernel's tree that the main thread must not wait
//! for.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::chain;
use super::records::Records;
use super::records::handover::{Handover, RestingRing, now};
use super::refusal::Refusal;
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

/// How long I/O of the last daemon may go on.
const IO_PATIENCE: Duration = Duration::from_secs(10);

/// The same of what is only read, perhaps by others too.
const READERS_PATIENCE: Duration = Duration::from_secs(1);

/// How often to look whether it does.
const IO_INTERVAL: Duration = Duration::from_millis(10);

/// What the last daemon has left in order.
pub(super) struct Left {
    handover: Handover,
    /// Where the backstores of rings are told that are still so.
    resting: Sender<BackstoreName>,
}

impl Left {
    /// Takes what was left: it is there once.
    pub(super) fn take(records: &Records, resting: Sender<BackstoreName>) -> Left {
        let handover = records.take_over().unwrap_or_else(|error| {
            log::error!("{}", chain(&error));
            Handover::default()
        });
        Left { handover, resting }
    }

    /// Whether a ring is as it was left. Then its backstore is told, and the kernel need not end anything. `claim` is its
    /// device, which nobody else has open.
    fn has(
        &self,
        uios: &UioPaths,
        uio: &Uio,
        claim: &File,
        backstore: &Backstore,
    ) -> Result<bool, Refusal> {
        // Where it can't be mapped, it can't be served: whoever wants to do that says why.
        let claim = claim.try_clone().ok();
        let device = claim.and_then(|claim| uios.map(uio.minor, claim).ok());
        let tail = device.and_then(|device| device.ring.at_rest());
        let Some(found) = tail.and_then(|tail| RestingRing::of(uios, uio, tail)) else {
            return Ok(false);
        };
        let command_timeout_s = backstore.settings()?.command_timeout_s;
        let has = self.handover.has(&found, command_timeout_s, now());
        if has {
            // Nobody is there to be told if we have stopped already.
            let _ = self.resting.send(backstore.name().clone());
        }
        Ok(has)
    }
}

/// Ends with BUSY what the last daemon has left on the rings of our devices, and has the kernel answer BUSY until
/// they are [unblocked](unblock). All of them before any is served, since several may be ports of one unit. But rings
/// that it has left in order stay as they are.
///
/// A device that another process has open is left alone, and one whose backing object is: I/O of that process may touch
/// the ring's data. So it may when the process has ended, since the kernel ends io_uring's after it.
///
/// Gives those whose rings could not be emptied: what is on them is no record of what is pending.
pub(super) fn stop_rings(uio: &UioPaths, left: &Left) -> Result<BTreeSet<BackstoreName>, tcmu::Error> {
    let deadline = Instant::now() + IO_PATIENCE;
    let mut unstopped = BTreeSet::new();
    for found in uio.scan()? {
        let Some(backstore) = ours(&found.name) else {
            continue;
        };
        // One that is being made has nothing on its ring, and is about to be announced.
        if !matches!(backstore.is_enabled(), Ok(true)) {
            continue;
        }
        let stop = || -> Result<(), Refusal> {
            let claim = claim(uio, found.minor, deadline)?;
            wait_for_io(&found.name, deadline)?;
            if left.has(uio, &found, &claim, &backstore)? {
                return Ok(());
            }
            backstore.block()?;
            Ok(backstore.reset_ring()?)
        };
        if let Err(error) = stop() {
            log::error!("backstore {}: {}", backstore.name(), chain(&error));
            unstopped.insert(backstore.name().clone());
        }
    }
    Ok(unstopped)
}

/// Opens a device, as soon as the last daemon's io_uring watches it no more.
fn claim(uio: &UioPaths, minor: u32, deadline: Instant) -> Result<File, tcmu::Error> {
    loop {
        match uio.claim(minor) {
            Err(tcmu::Error::Open { source, .. })
                if source.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::sleep(IO_INTERVAL);
            }
            claimed => return claimed,
        }
    }
}

/// Waits until nobody has the backing object of a device any more. Objects that can't be looked at have no I/O.
fn wait_for_io(uio_name: &str, deadline: Instant) -> Result<(), Refusal> {
    let options = Name::parse(uio_name).map(|name| Options::parse(name.handler));
    let Some(Ok(Options { path, disk, .. })) = options else {
        return Ok(());
    };
    let readers_deadline = deadline.min(Instant::now() + READERS_PATIENCE);
    while matches!(Backing::is_free(&path), Ok(false)) {
        if disk.read_only && Instant::now() >= readers_deadline {
            // Others may read it too, which can't be told apart.
            return Ok(());
        } else if Instant::now() < deadline {
            thread::sleep(IO_INTERVAL);
        } else {
            return Err(backing::Error::Locked { path }.into());
        }
    }
    Ok(())
}

/// Lets commands come to us. On a thread of its own: the kernel may hold what is to be written until the main
/// thread has answered.
pub(super) fn unblock(backstores: Vec<Backstore>) {
    if backstores.is_empty() {
        return;
    }
    aside("unblock", move || {
        backstores.iter().try_for_each(Backstore::unblock)
    });
}

pub(super) fn aside(
    what: &str,
    body: impl FnOnce() -> Result<(), configfs::Error> + Send + 'static,
) {
    let body = move || {
        if let Err(error) = body() {
            log::error!("{}", chain(&error));
        }
    };
    if let Err(error) = thread::Builder::new().name(what.to_owned()).spawn(body) {
        log::error!("starting a thread: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_left_alone_while_its_backing_object_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lun0.img");
        let name = format!("tcm-user/0/lun0/pr/{}", path.display());
        let read_only = format!("{name};read_only=1");
        let now = Instant::now();
        assert!(wait_for_io(&name, now).is_ok(), "there is none");

        let backing = Backing::open(&path, 1 << 20, 512).unwrap();
        let refusal = wait_for_io(&name, now).unwrap_err().to_string();
        assert!(refusal.contains("another process serves it"), "{refusal}");
        assert!(wait_for_io(&read_only, now).is_ok());

        let later = now + Duration::from_secs(20);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait_for_io(&name, later));
            drop(backing);
            assert!(waiting.join().unwrap().is_ok());
        });
        assert!(Instant::now() < later);
    }
}
