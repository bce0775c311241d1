//! The daemon: start order, the one loop of the main thread, stop order.
//!
//! The main thread owns the table of backstores and takes, one after the other, what the kernel says about
//! devices, what changes in the target configuration, what the bus asks, and what workers report. It never
//! touches what a worker owns: it gives orders. Nor does it ask the file system of a disk anything, which may never
//! answer: threads of their own do that.

mod asked;
mod configuration;
mod devices;
pub mod history;
mod performance;
mod questions;
pub mod recorder;
pub mod records;
mod refusal;
mod rings;
mod sessions;
mod space;
mod status;
mod tap;
mod tapped;
mod unit;
mod warnings;
pub mod worker;

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded, never, select, tick, unbounded};
use log::LevelFilter;
use nix::sys::signal::{SigSet, Signal};

use crate::control::dbus::{self, Bus, Lost, Service};
use crate::control::{Order, Orders, journal, metrics, systemd};
use crate::nexus::tap::Faults;
use crate::sys::process;
use crate::tcmu::netlink::{self, Event, Listener};
use crate::tcmu::{UioPaths, configfs, watch};
use configuration::Configuration;
pub use configuration::Flags;
use devices::{Devices, Resting};
use records::Records;

/// How often the main thread looks at what has waited long enough.
const TICK: Duration = Duration::from_secs(5);

/// How often to walk the target configuration although nobody has announced a change: logins come unannounced.
const WALK_INTERVAL: Duration = Duration::from_secs(10);

/// Where metrics can be asked for, below the run directory.
const METRICS_SOCKET: &str = "metrics.sock";

/// Where things are. The defaults are a node's; tests have their own.
#[derive(Clone, Debug)]
pub struct Config {
    /// Records that a boot forgets.
    pub run_directory: PathBuf,
    /// Records that last.
    pub state_directory: PathBuf,
    /// The bus to be found on.
    pub bus: Bus,
    /// The node's configuration file.
    pub file: PathBuf,
    /// What the command line says instead of it.
    pub flags: Flags,
    /// Sets how much is logged.
    pub set_log_level: fn(LevelFilter),
    /// Faults of the nexus tap, for tests.
    pub faults: Faults,
}

/// Why the daemon could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Records can't be kept.
    #[error(transparent)]
    Records(#[from] records::Error),
    /// The bus can't be used.
    #[error(transparent)]
    Bus(#[from] dbus::Error),
    /// The kernel's messages can't be heard.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The target configuration can't be watched.
    #[error(transparent)]
    Watch(#[from] watch::Error),
    /// The devices can't be found.
    #[error(transparent)]
    Devices(#[from] crate::tcmu::Error),
    /// A thread could not be started.
    #[error("starting the thread for {what}")]
    Thread {
        /// What it was for.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Something the daemon can't be without has ended.
    #[error("{0}")]
    Lost(String),
}

/// An error with all its causes, in a line. Some errors tell their cause themselves: then it is not told again.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}

/// Serves until it is told to stop by SIGTERM or SIGINT, or can't any more.
pub fn run(config: &Config) -> Result<(), Error> {
    let started = Instant::now();
    let awaited = block_signals()?;
    let mut configuration = Configuration::start(config);
    // While there is no other thread that could load programs into the kernel.
    let (happened, left_notes) = tap::start(config.faults)?;
    let signals = signals(awaited)?;
    journal::in_background().map_err(|source| Error::Thread {
        what: "the log",
        source,
    })?;
    // A disk of this node may be one of ours: to free memory by writing to it must not need memory of us.
    if let Err(error) = process::become_io_flusher() {
        log::warn!("memory can run out under a disk that this node itself uses: {error}");
    }
    let records = Records::open(&config.run_directory, &config.state_directory)?;
    configuration.keep();
    let (orders, asked) = Orders::new();
    // First the names: while another handler has them, the kernel's messages are none of our business.
    let (mut service, mut lost) = dbus::serve(&config.bus, &orders)?;
    let mut back_on_bus = never();
    // Without metrics, disks are served all the same.
    let socket = config.run_directory.join(METRICS_SOCKET);
    if let Err(error) = metrics::serve(&socket, orders.clone()) {
        log::error!("no metrics at {}: {error}", socket.display());
    }
    let (listener, replier) = netlink::open(netlink::PARAMETERS.as_ref())?;
    let (waiting, who_waits) = unbounded();
    let (resting, found_resting) = unbounded();
    let left = rings::Left::take(&records, left_notes, resting);
    let resting = Resting::new(found_resting, left.handover());
    let empty_rings = rings::empty_left_rings(UioPaths::default(), left, waiting);
    let (found, again) = watch::start(configfs::ROOT.as_ref(), WALK_INTERVAL, empty_rings)?;
    let (notices, noticed) = unbounded();
    let mut devices = Devices::new(
        records.clone(),
        replier,
        notices,
        again,
        started,
        who_waits,
        resting,
    );
    devices.configure(configuration.node());
    devices.warn_of_file(configuration.warning());
    let growing = devices.growing();
    let late = devices.late();
    let readers = history::Readers::default();
    // Whether there is a tap decides which backstores can be served: until that is known, the kernel waits. To load one can
    // take minutes.
    let mut of_kernel = Some((listener, found));
    let (mut events, mut walks) = (never(), never());
    let mut ready = false;
    let clock = tick(TICK);

    let watchdog = systemd::alive_interval().map_or_else(never, tick);
    let ended = loop {
        select! {
            recv(signals) -> signal => match signal {
                Ok(Signal::SIGHUP) => reload(&mut configuration, &mut devices, ready),
                Ok(signal) => {
                    log::info!("{signal}: stopping");
                    break Ok(());
                }
                Err(_) => break Ok(()),
            },
            recv(events) -> event => match event {
                Ok(Ok(event)) => heard(&mut devices, event),
                Ok(Err(error)) => log::error!("{}", chain(&error)),
                Err(_) => break Err(Error::Lost("the kernel's messages can't be heard any more".into())),
            },
            recv(walks) -> walk => match walk {
                Ok(walk) => {
                    devices.walked(walk);
                    // The first walk brings the devices that were there before us.
                    if !std::mem::replace(&mut ready, true) {
                        systemd::ready(&devices.summary());
                        log::info!("ready: {}", devices.summary());
                    }
                }
                Err(_) => {
                    break Err(Error::Lost("the target configuration can't be watched any more".into()));
                }
            },
            recv(asked) -> order => match order {
                Ok(Order::CheckConfig { config, reply }) => {
                    devices.check_config(config, reply);
                }
                Ok(Order::Administer { serial, action, reply }) => {
                    devices.administer(&serial, action, reply);
                }
                Ok(Order::History { serial, reply }) => readers.answer(&records, serial, reply),
                Ok(Order::Status { reply }) => {
                    let _ = reply.send(devices.status());
                }
                Err(_) => break Err(Error::Lost("nobody can ask anything any more".into())),
            },
            recv(noticed) -> notice => if let Ok(notice) = notice {
                devices.notice(notice);
            },
            recv(growing) -> grown => if let Ok(grown) = grown {
                devices.grown(grown);
            },
            recv(late) -> _ => devices.go_on(),
            recv(devices.due()) -> _ => devices.go_on(),
            recv(happened) -> event => match event {
                Ok(event) => {
                    devices.tapped(event);
                    if let Some((listener, found)) = of_kernel.take() {
                        walks = found;
                        match listen(listener) {
                            Ok(heard) => events = heard,
                            Err(error) => break Err(error),
                        }
                    }
                }
                Err(_) => break Err(Error::Lost("nobody looks after the nexus tap any more".into())),
            },
            recv(lost) -> how => match how {
                Ok(Lost::Name(name)) => {
                    break Err(Error::Lost(format!("the bus name {name} was taken from us")));
                }
                Ok(Lost::Bus) | Err(_) => {
                    log::error!(
                        "the system bus has gone: disks are served, but targetcli and tcmu-pr status can't reach us \
                         until it is back"
                    );
                    lost = never();
                    back_on_bus = return_to_bus(config.bus.clone(), orders.clone());
                }
            },
            recv(back_on_bus) -> served => {
                back_on_bus = never();
                if let Ok(served) = served {
                    (service, lost) = served;
                    log::info!("on the system bus again");
                }
            },
            recv(watchdog) -> _ => systemd::alive(),
            recv(clock) -> _ => devices.tick(Instant::now()),
        }
    };
    systemd::stopping();
    // Whoever asks now is told that we stop. The names are ours until the rings are left: another daemon must find them so.
    drop(asked);
    // A tap that was gone on with is left to the next daemon, also if nobody has heard of it yet.
    happened.try_iter().for_each(|event| devices.tapped(event));
    devices.stop();
    drop(service);
    ended
}

/// Now, in seconds since 1970.
fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Reads the node's configuration file anew.
fn reload(configuration: &mut Configuration, devices: &mut Devices, ready: bool) {
    // Until it is ready, nobody waits for the end of this.
    if ready {
        systemd::reloading();
    }
    configuration.reload();
    devices.configure(configuration.node());
    devices.warn_of_file(configuration.warning());
    if ready {
        systemd::ready(&devices.summary());
    }
}

fn heard(devices: &mut Devices, event: Event) {
    match event {
        Event::Device(event) => devices.event(event, Instant::now()),
        Event::Overrun => devices.overrun(),
    }
    systemd::status(&devices.summary());
}

/// Blocks SIGTERM, SIGINT and SIGHUP for this thread and those it starts. To be called while there is one thread only.
fn block_signals() -> Result<SigSet, Error> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.add(Signal::SIGHUP);
    set.thread_block().map_err(|errno| Error::Thread {
        what: "signals",
        source: errno.into(),
    })?;
    Ok(set)
}

/// A channel on which those signals come.
fn signals(set: SigSet) -> Result<Receiver<Signal>, Error> {
    let (sender, receiver) = bounded(1);
    spawn("signals", move || {
        while let Ok(signal) = set.wait() {
            if sender.send(signal).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

fn listen(mut listener: Listener) -> Result<Receiver<Result<Event, netlink::Error>>, Error> {
    let (sender, receiver): (Sender<_>, _) = unbounded();
    spawn("netlink", move || {
        loop {
            let event = listener.next_event();
            let deaf = matches!(event, Err(netlink::Error::Receive(_)));
            if sender.send(event).is_err() || deaf {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// Offers everything on the bus when there is one again, on a channel.
fn return_to_bus(bus: Bus, orders: Orders) -> Receiver<(Service, Receiver<Lost>)> {
    let (sender, receiver) = bounded(1);
    let started = spawn("bus again", move || {
        // The daemon may have ended before.
        let _ = sender.send(dbus::serve_again(&bus, &orders));
    });
    if let Err(error) = started {
        log::error!("until tcmu-pr is restarted: {}", chain(&error));
    }
    receiver
}

fn spawn(what: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let builder = thread::Builder::new().name(what.to_owned());
    builder
        .spawn(body)
        .map_err(|source| Error::Thread { what, source })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Example {
        #[error("the bus is not there")]
        Silent(#[source] Box<Example>),
        #[error("I/O error: {0}")]
        Telling(#[source] Box<Example>),
        #[error("no such file")]
        Cause,
    }

    #[test]
    fn each_cause_is_told_once() {
        let telling = Example::Telling(Example::Cause.into());
        assert_eq!(chain(&telling), "I/O error: no such file");
        let error = Example::Silent(telling.into());
        assert_eq!(
            chain(&error),
            "the bus is not there: I/O error: no such file"
        );
        let error = Example::Silent(Example::Silent(Example::Cause.into()).into());
        assert_eq!(chain(&error), "the bus is not there: no such file");
    }
}
