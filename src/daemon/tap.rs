//! The thread that keeps the nexus tap in the kernel. It alone may load BPF programs.

use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{Error, chain};
use crate::nexus::tap::{Faults, Notes, Tap};
use crate::sys::process;

/// How often to see whether the tap is still in its place.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before it is tried again to attach what could not be attached.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// What happens to the tap.
#[derive(Debug)]
pub(super) enum Event {
    /// It is in its place, with notes that nobody has read yet.
    Attached(Notes),
    /// It is not, and why.
    Missing(String),
    /// Sessions have ended.
    SessionsEnded,
}

/// Starts the thread. The first event comes at once, and says whether there is a tap.
///
/// Threads that the caller starts afterwards can't load BPF programs, and neither can the caller.
pub(super) fn start(faults: Faults) -> Result<Receiver<Event>, Error> {
    let (events, happened) = unbounded();
    super::spawn("tap", move || keep(faults, &events))?;
    if let Err(error) = process::give_up_bpf() {
        log::warn!("the capabilities to load BPF programs can't be given up: {error}");
    }
    Ok(happened)
}

fn keep(faults: Faults, events: &Sender<Event>) {
    if let Err(error) = process::lay_down_bpf() {
        log::warn!("the capabilities to load BPF programs can't be laid down: {error}");
    }
    let mut known = None;
    loop {
        let attached = Tap::attach(faults);
        let why = match &attached {
            Ok(tap) => {
                known = None;
                let told = events.send(Event::Attached(tap.notes().clone()));
                if told.is_err() {
                    return;
                }
                log::info!("nexus tap: attached{}", shortcomings(tap));
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
