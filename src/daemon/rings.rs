//! The rings of devices that were there before us, and work in the kernel's tree that the main thread must not wait
//! for.

use std::collections::BTreeSet;
use std::thread;

use super::chain;
use super::refusal::Refusal;
use crate::tcmu::config::Name;
use crate::tcmu::configfs::{self, Backstore, BackstoreName};
use crate::tcmu::{self, UioPaths};

/// The backstore behind a UIO name, if it is one of ours.
pub(super) fn ours(uio_name: &str) -> Option<Backstore> {
    Name::parse(uio_name)
        .filter(Name::is_ours)
        .and_then(|name| backstore(&name))
}

pub(super) fn backstore(name: &Name<'_>) -> Option<Backstore> {
    Backstore::new(configfs::ROOT.as_ref(), name.backstore()).ok()
}

/// Ends with BUSY what the last daemon has left on the rings of our devices, and has the kernel answer BUSY until
/// they are [unblocked](unblock). All of them before any is served, since several may be ports of one unit.
///
/// A device that another process has open is left alone: I/O of that process may touch the ring's data.
///
/// Gives those whose rings could not be emptied: what is on them is no record of what is pending.
pub(super) fn stop_rings(uio: &UioPaths) -> Result<BTreeSet<BackstoreName>, tcmu::Error> {
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
            let _claim = uio.claim(found.minor)?;
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
