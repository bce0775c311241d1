//! The thread that keeps the nexus tap in the kernel. It alone may load BPF programs.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::{Error, chain};
use crate::control::systemd;
use crate::nexus::tap::{Faults, Links, Notes, Tap};
use crate::sys::{inherited, process};

/// How often to see whether the tap is still in its place.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before it is tried again to attach what could not be attached.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// What happens to the tap.
#[derive(Debug)]
pub(super) enum Event {
    /// It is in its place, with these notes, as long as it has these links.
    Attached(Notes, Weak<Links>),
    /// It is not, and why.
    Missing(String),
    /// Sessions have ended.
    SessionsEnded,
}

/// Starts the thread. The first event comes at once, and says whether there is a tap. If it is the one that the last
/// daemon has attached, its notes are given.
///
/// Threads that the caller starts afterwards can't load BPF programs, and neither can the caller.
pub(super) fn start(faults: Faults) -> Result<(Receiver<Event>, Option<Notes>), Error> {
    let kept = take_kept();
    let (events, happened) = unbounded();
    let (tell_left, left) = bounded(1);
    super::spawn("tap", move || keep(faults, kept, &tell_left, &events))?;
    if let Err(error) = process::give_up_bpf() {
        log::warn!("the capabilities to load BPF programs can't be given up: {error}");
    }
    Ok((happened, left.recv().ok().flatten()))
}

/// Takes what the last daemon has [left](leave), which systemd keeps no longer: each daemon leaves its own.
fn take_kept() -> Vec<(String, OwnedFd)> {
    let kept = inherited::take().unwrap_or_else(|error| {
        log::warn!("what systemd has kept can't be taken: {error}");
        Vec::new()
    });
    let names: BTreeSet<&String> = kept.iter().map(|(name, _)| name).collect();
    names
        .into_iter()
        .for_each(|name| systemd::keep_no_longer(name));
    kept
}

/// Keeps it in the kernel, while the daemon runs, for the one that comes next.
pub(super) fn leave(links: &Weak<Links>) {
    if let Some(links) = links.upgrade() {
        systemd::keep(links.name(), &links.descriptors());
    }
}

/// The tap that the last daemon has left.
fn left(faults: Faults, kept: Vec<(String, OwnedFd)>) -> Option<Tap> {
    if kept.is_empty() {
        return None;
    }
    let left = Tap::go_on(faults, kept);
    left.inspect_err(|why| {
        log::info!(
            "nexus tap: the last one is not gone on with: {}",
            chain(why)
        );
    })
    .ok()
}

fn keep(
    faults: Faults,
    kept: Vec<(String, OwnedFd)>,
    tell_left: &Sender<Option<Notes>>,
    events: &Sender<Event>,
) {
    if let Err(error) = process::lay_down_bpf() {
        log::warn!("the capabilities to load BPF programs can't be laid down: {error}");
    }
    let mut left = left(faults, kept);
    let notes = left.as_ref().map(|tap| tap.notes().clone());
    if tell_left.send(notes).is_err() {
        return;
    }
    let mut known = None;
    loop {
        let (attached, how) = match left.take() {
            Some(tap) => (Ok(tap), "goes on"),
            None => (Tap::attach(faults), "attached"),
        };
        let why = match &attached {
            Ok(tap) => {
                known = None;
                let links = Arc::downgrade(tap.links());
                let told = events.send(Event::Attached(tap.notes().clone(), links));
                if told.is_err() {
                    return;
                }
                log::info!("nexus tap: {how}{}", shortcomings(tap));
                match watch(tap, events) {
                    Some(why) => why,
                    None => return,
                }
            }
            Err(why) => chain(why),
        };
        // The main thread may have ended.
        if known.as_ref() != Some(&why) && events.send(Event::Missing(why.clone())).is_err() {
            return;
        }
        if attached.is_err() {
            known = Some(why);
            thread::sleep(RETRY_INTERVAL);
        }
    }
}

fn shortcomings(tap: &Tap) -> &'static str {
    match (tap.is_early(), tap.knows_iscsi()) {
        (true, true) => "",
        (true, false) => "; iSCSI initiators are not known until iscsi_target_mod is loaded",
        (false, true) => "; notes are made after commands can be seen, which costs time",
        (false, false) => {
            "; iSCSI initiators are not known until iscsi_target_mod is loaded; notes are made after commands can be \
             seen, which costs time"
        }
    }
}

/// Passes on that sessions have ended until the tap has to be attached anew, and tells why; `None` if nobody listens
/// any more.
fn watch(tap: &Tap, events: &Sender<Event>) -> Option<String> {
    loop {
        if tap.wait(LOOK_INTERVAL) {
            events.send(Event::SessionsEnded).ok()?;
        }
        if let Some(why) = tap.lost() {
            return Some(chain(&why));
        }
        if !tap.knows_iscsi() && Tap::could_know_iscsi() {
            let why = "iscsi_target_mod was loaded, and the tap has to be attached anew";
            return Some(why.to_owned());
        }
    }
}
