//! The system bus: what targetcli asks of a TCMU handler, and what `tcmu-pr status` asks. Translation only.
//!
//! | bus name | object | interface | members |
//! |---|---|---|---|
//! | `org.kernel.TCMUService1` | `/org/kernel/TCMUService1` | ObjectManager | GetManagedObjects |
//! | | `/org/kernel/TCMUService1/pr` | `org.kernel.TCMUService1` | ConfigDesc, CheckConfig(s) → (b, s) |
//! | `org.tcmupr.Control1` | `/org/tcmupr/Control1` | `org.tcmupr.Control1` | Status() → s (JSON), History(s) → s (JSON), Clear(s), Preempt(s, t), ClearFlushFailure(s), Resize(s, t, b) |
//!
//! All but Status take the unit serial number of a logical unit, Preempt a reservation key too, and Resize the size in bytes
//! (0: that of the backing object) and whether it may become smaller. They answer when what they have changed is stored, and
//! what it shuts out is not in flight any more.
//!
//! targetcli takes every object below the first for a kind of backstore: nothing else may be there.

mod again;

use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use blocking::unblock;
use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::unistd::geteuid;
use serde::Serialize;
use zbus::blocking::connection::Builder;
use zbus::blocking::fdo::DBusProxy;
use zbus::blocking::{Connection, MessageIterator};
use zbus::fdo::{self, ObjectManager, RequestNameFlags};
use zbus::message::{Header, Type};
use zbus::names::WellKnownName;
use zbus::zvariant::DynamicType;
use zbus::{MatchRule, Message, interface};

use super::{Administration, Orders, Status, Undone, caller};
use crate::history::Found;
pub use again::serve_again;

const HANDLER_NAME: &str = "org.kernel.TCMUService1";
const HANDLER_ROOT: &str = "/org/kernel/TCMUService1";
const HANDLER_PATH: &str = "/org/kernel/TCMUService1/pr";
const CONTROL_NAME: &str = "org.tcmupr.Control1";
const CONTROL_PATH: &str = "/org/tcmupr/Control1";

/// More than any unit serial number has. What is longer is not even repeated.
const SERIAL_LENGTH_MAX: usize = 64;

/// How long the bus, or the daemon behind it, may take to answer: longer than the daemon gives itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);

/// What targetcli shows as help for the config string.
const CONFIG_DESCRIPTION: &str = "\
/path/to/file, or /dev/disk/by-id/..., and any of these after it, in quotes in a shell:
;direct=1 ;read_only=1 ;force_aptpl=1 ;registrations=<128 to 8190> ;thin_threshold=<percent>
;physical_block_size=<bytes> ;copy_domain=<name> ;spec_i_pt_known_only=1
One backstore serves all initiators. Only where `tcmu-pr check` says that they can't be told apart, each needs one of its
own, with the same path and size and ;nexus=<your name for the initiator>, mapped to it alone.";

/// Why the bus cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no bus.
    #[error(
        "cannot reach the system bus: start it with `systemctl start dbus` (`apt install dbus` if it is missing)"
    )]
    Connect(#[source] zbus::Error),
    /// The objects could not be set up.
    #[error("cannot offer our objects on the bus")]
    Export(#[source] zbus::Error),
    /// Another handler owns targetcli's name.
    #[error(
        "the bus name {HANDLER_NAME} belongs to {0}, and only one handler of TCMU devices can run: stop it with \
         `systemctl disable --now tcmu-runner` and `systemctl mask tcmu-runner` (targetcli would start it again), \
         then start tcmu-pr"
    )]
    OtherHandler(String),
    /// Another daemon of ours is there.
    #[error(
        "tcmu-pr is running already: the bus name {CONTROL_NAME} belongs to {0}; there can be one only, so stop that first, with \
         `systemctl stop tcmu-pr` if it is the service"
    )]
    AlreadyRunning(String),
    /// The bus's policy is against it.
    #[error(
        "the bus does not let us have the name {0}: run tcmu-pr as root, with the policy file \
         /usr/share/dbus-1/system.d/tcmu-pr-dbus.conf in place, and run `systemctl reload dbus`"
    )]
    Policy(&'static str, #[source] fdo::Error),
    /// A name could not be asked for.
    #[error("cannot get the bus name {0}")]
    Name(&'static str, #[source] fdo::Error),
    /// The thread that watches the bus could not be started.
    #[error("cannot start the thread that watches the bus")]
    Thread(#[source] io::Error),
    /// There is no daemon to ask.
    #[error("tcmu-pr is not running: start it with `systemctl start tcmu-pr`")]
    NotRunning,
    /// We may not ask it.
    #[error("only root may ask tcmu-pr: try again with sudo")]
    NotAllowed,
    /// We are root, and may not ask it all the same.
    #[error(
        "the bus lets nobody ask tcmu-pr: put the policy file /usr/share/dbus-1/system.d/tcmu-pr-dbus.conf in place (it comes \
         with tcmu-pr), and run `systemctl reload dbus`"
    )]
    NoPolicy,
    /// It refused, and says why.
    #[error("{0}")]
    Refused(String),
    /// It has done it, but what that shuts out is still there, and it says so.
    #[error("{0}")]
    NotOver(String),
    /// It did not answer.
    #[error("{0}")]
    Call(String),
    /// Its answer is of another version.
    #[error(
        "tcmu-pr's answer cannot be read: is the running daemon of another version than this program?"
    )]
    Answer(#[source] serde_json::Error),
}

/// Which bus to use.
#[derive(Clone, Debug)]
pub enum Bus {
    /// The system's, or what `DBUS_SYSTEM_BUS_ADDRESS` says.
    System,
    /// The one at a D-Bus address.
    Address(String),
}

impl Bus {
    fn connect(&self) -> Result<Connection, Error> {
        let builder = match self {
            Bus::System => Builder::system(),
            Bus::Address(address) => Builder::address(address.as_str()),
        };
        let builder = builder
            .map_err(Error::Connect)?
            .method_timeout(CALL_TIMEOUT);
        builder.build().map_err(Error::Connect)
    }
}

/// We are on the bus no more: nobody can ask anything until we are back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The connection has ended.
    Bus,
    /// Somebody has taken this name from us.
    Name(String),
}

/// Our place on the bus, held until it is dropped.
#[derive(Debug)]
pub struct Service {
    connection: Connection,
}

impl Drop for Service {
    /// Closes the connection, which others hold too, so that the names are free. A process that can't end, since a disk
    /// hangs below it, would keep them from the next daemon.
    fn drop(&mut self) {
        if let Err(error) = self.connection.clone().close() {
            log::debug!("leaving the bus: {error}");
        }
    }
}

/// Offers everything on the bus. Says so on the channel if that comes to an end.
///
/// We never queue for a name: who waited in the queue would get it unawares when its owner ends, and until
/// then targetcli would not see us.
pub fn serve(bus: &Bus, orders: &Orders) -> Result<(Service, Receiver<Lost>), Error> {
    let service = Service {
        connection: bus.connect()?,
    };
    let connection = &service.connection;
    export(connection, orders).map_err(Error::Export)?;
    let lost = watch(connection)?;
    claim(connection, CONTROL_NAME, Error::AlreadyRunning)?;
    claim(connection, HANDLER_NAME, Error::OtherHandler)?;
    Ok((service, lost))
}

fn export(connection: &Connection, orders: &Orders) -> zbus::Result<()> {
    let server = connection.object_server();
    let handler = Handler {
        orders: orders.clone(),
    };
    let control = Control {
        orders: orders.clone(),
    };
    server.at(HANDLER_PATH, handler)?;
    server.at(HANDLER_ROOT, ObjectManager)?;
    server.at(CONTROL_PATH, control)?;
    Ok(())
}

fn claim(
    connection: &Connection,
    name: &'static str,
    taken: fn(String) -> Error,
) -> Result<(), Error> {
    match connection.request_name_with_flags(name, RequestNameFlags::DoNotQueue.into()) {
        Ok(_) => Ok(()),
        Err(zbus::Error::NameTaken) => Err(taken(owner(connection, name))),
        Err(error) => Err(match fdo::Error::from(error) {
            error @ fdo::Error::AccessDenied(_) => Error::Policy(name, error),
            error => Error::Name(name, error),
        }),
    }
}

/// Who owns a name: the program and its process id, as far as the bus tells.
fn owner(connection: &Connection, name: &'static str) -> String {
    let process = || {
        let bus = DBusProxy::new(connection).ok()?;
        let owner = WellKnownName::from_static_str(name).ok()?;
        bus.get_connection_unix_process_id(owner.into()).ok()
    };
    let Some(pid) = process() else {
        return "another process".to_owned();
    };
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(program) => format!("{} (process {pid})", program.trim().escape_debug()),
        Err(_) => format!("process {pid}"),
    }
}

fn watch(connection: &Connection) -> Result<Receiver<Lost>, Error> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")
        .and_then(|rule| rule.member("NameLost"))
        .map_err(Error::Export)?
        .build();
    let signals = MessageIterator::for_match_rule(rule, connection, None).map_err(Error::Export)?;
    let (sender, receiver) = unbounded();
    let report = move || {
        for signal in signals {
            let name = signal.and_then(|signal| signal.body().deserialize::<String>());
            match name {
                Ok(name) if name.starts_with(':') => {}
                Ok(name) => report(&sender, Lost::Name(name)),
                Err(_) => break,
            }
        }
        report(&sender, Lost::Bus);
    };
    thread::Builder::new()
        .name("bus".into())
        .spawn(report)
        .map_err(Error::Thread)?;
    Ok(receiver)
}

/// The daemon may have gone before the bus.
fn report(sender: &Sender<Lost>, lost: Lost) {
    if sender.send(lost).is_err() {
        log::debug!("nobody is left who would care about the bus");
    }
}

/// Who is the handler of TCMU devices for targetcli: the program and its process id, if there is one.
pub fn handler(bus: &Bus) -> Result<Option<String>, Error> {
    let connection = bus.connect()?;
    let asked = || -> zbus::Result<bool> {
        let name = WellKnownName::from_static_str(HANDLER_NAME)?;
        Ok(DBusProxy::new(&connection)?.name_has_owner(name.into())?)
    };
    let is_there = asked().map_err(Error::Connect)?;
    Ok(is_there.then(|| owner(&connection, HANDLER_NAME)))
}

/// Asks a running daemon how things are.
pub fn status(bus: &Bus) -> Result<Status, Error> {
    let text: String = call(bus, "Status", &())?
        .body()
        .deserialize()
        .map_err(call_error)?;
    serde_json::from_str(&text).map_err(Error::Answer)
}

/// Asks a running daemon for the history of the logical unit with this serial number.
pub fn history(bus: &Bus, serial: &str) -> Result<Found, Error> {
    let answer = call(bus, "History", &(serial,))?;
    let text: String = answer.body().deserialize().map_err(call_error)?;
    serde_json::from_str(&text).map_err(Error::Answer)
}

/// Has a running daemon change the logical unit with this serial number.
pub fn administer(bus: &Bus, serial: &str, action: Administration) -> Result<(), Error> {
    match action {
        Administration::Clear => call(bus, "Clear", &(serial,))?,
        Administration::Preempt { key } => call(bus, "Preempt", &(serial, key))?,
        Administration::ClearFlushFailure => call(bus, "ClearFlushFailure", &(serial,))?,
        Administration::Resize { size_bytes, shrink } => {
            call(bus, "Resize", &(serial, size_bytes.unwrap_or(0), shrink))?
        }
    };
    Ok(())
}

fn call(
    bus: &Bus,
    method: &str,
    arguments: &(impl Serialize + DynamicType),
) -> Result<Message, Error> {
    bus.connect()?
        .call_method(
            Some(CONTROL_NAME),
            CONTROL_PATH,
            Some(CONTROL_NAME),
            method,
            arguments,
        )
        .map_err(call_error)
}

fn call_error(error: zbus::Error) -> Error {
    match fdo::Error::from(error) {
        fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) => Error::NotRunning,
        fdo::Error::AccessDenied(_) if geteuid().is_root() => Error::NoPolicy,
        fdo::Error::AccessDenied(_) => Error::NotAllowed,
        fdo::Error::Failed(text) => Error::Refused(text),
        fdo::Error::TimedOut(text) => Error::NotOver(text),
        fdo::Error::NoReply(text) => Error::Call(text),
        other => Error::Call(other.to_string()),
    }
}

/// What targetcli talks to.
struct Handler {
    orders: Orders,
}

#[interface(name = "org.kernel.TCMUService1")]
impl Handler {
    #[zbus(property(emits_changed_signal = "const"))]
    fn config_desc(&self) -> &str {
        CONFIG_DESCRIPTION
    }

    /// `config` comes with our subtype in front.
    #[zbus(out_args("ok", "reason"))]
    async fn check_config(
        &self,
        #[zbus(connection)] bus: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
        config: String,
    ) -> fdo::Result<(bool, String)> {
        caller::check(bus, &header).await?;
        let orders = self.orders.clone();
        Ok(match unblock(move || orders.check_config(config)).await {
            Ok(Ok(())) => (true, String::new()),
            Ok(Err(reason)) => (false, reason),
            Err(error) => (false, error.to_string()),
        })
    }
}

/// What the `tcmu-pr` commands talk to.
struct Control {
    orders: Orders,
}

impl Control {
    /// Waits for the daemon beside the thread that serves the bus.
    async fn administer(
        &self,
        bus: &zbus::Connection,
        header: &Header<'_>,
        serial: String,
        action: Administration,
    ) -> fdo::Result<()> {
        caller::check(bus, header).await?;
        if serial.len() > SERIAL_LENGTH_MAX {
            return Err(fdo::Error::InvalidArgs(
                "no logical unit has so long a serial number".to_owned(),
            ));
        }
        let orders = self.orders.clone();
        let outcome = unblock(move || orders.administer(serial, action)).await;
        let outcome = outcome.map_err(|error| {
            fdo::Error::NoReply(format!("{error}. It may still be done: see `tcmu-pr show`"))
        })?;
        outcome.map_err(|why| match why {
            Undone::Refused(text) => fdo::Error::Failed(text),
            Undone::NotOver(text) => fdo::Error::TimedOut(text),
        })
    }
}

#[interface(name = "org.tcmupr.Control1")]
impl Control {
    async fn status(
        &self,
        #[zbus(connection)] bus: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<String> {
        caller::check(bus, &header).await?;
        let orders = self.orders.clone();
        let status = unblock(move || orders.status())
            .await
            .map_err(|error| fdo::Error::NoReply(error.to_string()))?;
        serde_json::to_string(&status).map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    async fn history(
        &self,
        #[zbus(connection)] bus: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
        serial: String,
    ) -> fdo::Result<String> {
        caller::check(bus, &header).await?;
        let orders = self.orders.clone();
        let found = unblock(move || orders.history(serial)).await;
        let found = found
            .map_err(|error| fdo::Error::NoReply(error.to_string()))?
            .map_err(fdo::Error::Failed)?;
        serde_json::to_string(&found).map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    async fn clear(
        &self,
        #[zbus(connection)] bus: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
        serial: String,
    ) -> fdo::Result<()> {
        self.administer(bus, &header, serial, Administration::Clear)
            .await
    }

    async fn preempt(
        &self,
        #[zbus(connection)] bus: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
        serial: String,
        key: u64,
    ) -> fdo::Result<()> {
        self.administer(bus, &header, serial, Administration::Preempt { key })
            .await
    }

    async fn clear_flush_failure(
        &self,
        #[zbus(connection)] bus: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
        serial: String,
    ) -> fdo::Result<()> {
        self.administer(bus, &header, serial, Administration::ClearFlushFailure)
            .await
    }

    async fn resize(
        &self,
        #[zbus(connection)] bus: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
        serial: String,
        size_bytes: u64,
        shrink: bool,
    ) -> fdo::Result<()> {
        let size_bytes = Some(size_bytes).filter(|&size| size > 0);
        let action = Administration::Resize { size_bytes, shrink };
        self.administer(bus, &header, serial, action).await
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use zbus::zvariant::{OwnedObjectPath, OwnedValue};

    use super::*;
    use crate::control::Order;
    use crate::control::tests::example;
    use crate::history::{Entry, Kind, Other, State};
    use crate::tcmu::config::KNOWN;

    pub(crate) const SOON: Duration = Duration::from_secs(10);

    /// A bus of our own, with the policy of the system bus: what is not allowed is forbidden.
    pub(crate) struct PrivateBus {
        daemon: Child,
        directory: tempfile::TempDir,
        pub(crate) bus: Bus,
    }

    impl PrivateBus {
        pub(crate) fn new() -> PrivateBus {
            PrivateBus::with_policy("<allow own=\"*\"/><allow send_destination=\"*\"/>", "")
        }

        fn with_policy(default: &str, more: &str) -> PrivateBus {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let config = directory.path().join("bus.conf");
            let text = format!(
                "<busconfig><type>session</type><listen>unix:path={}/bus</listen>\
                 <policy context=\"default\"><allow user=\"*\"/><deny own=\"*\"/>\
                 <deny send_type=\"method_call\"/><allow send_type=\"signal\"/>\
                 <allow send_requested_reply=\"true\"/><allow receive_type=\"method_call\"/>\
                 <allow receive_type=\"method_return\"/><allow receive_type=\"error\"/>\
                 <allow receive_type=\"signal\"/>\
                 <allow send_destination=\"org.freedesktop.DBus\"/>{default}</policy>{more}</busconfig>",
                directory.path().display()
            );
            fs::write(&config, text).expect("the directory is new");
            let bus = format!("unix:path={}/bus", directory.path().display());
            PrivateBus {
                daemon: run(&config),
                directory,
                bus: Bus::Address(bus),
            }
        }

        /// Starts it again, after its end.
        pub(crate) fn start(&mut self) {
            self.daemon = run(&self.directory.path().join("bus.conf"));
        }

        fn connect(&self) -> Connection {
            self.bus.connect().expect("the bus is there")
        }

        pub(crate) fn end(&mut self) {
            self.daemon.kill().expect("it is our child");
            self.daemon.wait().expect("it is our child");
        }
    }

    /// Starts a bus, and waits until it can be reached.
    fn run(config: &Path) -> Child {
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon is installed (package dbus-daemon)");
        let stdout = daemon.stdout.take().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut String::new())
            .expect("it says its address");
        daemon
    }

    impl Drop for PrivateBus {
        fn drop(&mut self) {
            self.end();
        }
    }

    /// A daemon that takes `/good` only.
    pub(crate) fn daemon(receiver: Receiver<Order>) {
        thread::spawn(move || {
            for order in receiver {
                match order {
                    Order::CheckConfig { config, reply } => {
                        let answer = match config.as_str() {
                            "pr//good;nexus=a" => Ok(()),
                            _ => Err(format!("{config} is not good")),
                        };
                        reply.send(answer).expect("the bus waits");
                    }
                    Order::Status { reply } => reply.send(example()).expect("the bus waits"),
                    Order::History { serial, reply } => {
                        reply.send(history_of(&serial)).expect("the bus waits");
                    }
                    Order::Administer {
                        serial,
                        action,
                        reply,
                    } => {
                        let answer = match (serial.as_str(), action) {
                            ("6001405a", Administration::Clear) => Ok(()),
                            ("6001405a", Administration::Preempt { key: 0xa1 }) => {
                                Err(Undone::NotOver("they can still write".to_owned()))
                            }
                            (_, action) => {
                                Err(Undone::Refused(format!("{serial}: {action:?} is not good")))
                            }
                        };
                        reply.send(answer).expect("the bus waits");
                    }
                }
            }
        });
    }

    /// Unit 6001405a has been started; no other has a history.
    fn history_of(serial: &str) -> Result<Found, String> {
        if serial != "6001405a" {
            return Err(format!("{serial} has no history"));
        }
        let started = Kind::Other(Other::Started);
        let time = jiff::Timestamp::from_second(1_796_036_400).expect("it is in range");
        Ok(Found {
            entries: vec![Entry::new(time, started, State::default())],
            unreadable: 0,
        })
    }

    fn has_owner(connection: &Connection, name: &'static str) -> bool {
        let names = DBusProxy::new(connection).expect("the bus is there");
        let name = WellKnownName::from_static_str(name).expect("it is one");
        names.name_has_owner(name.into()).expect("the bus is there")
    }

    fn check_config(connection: &Connection, config: &str) -> (bool, String) {
        let answer = connection.call_method(
            Some(HANDLER_NAME),
            HANDLER_PATH,
            Some("org.kernel.TCMUService1"),
            "CheckConfig",
            &(config,),
        );
        let answer = answer.expect("the method is there");
        assert_eq!(answer.body().signature().to_string(), "(bs)");
        answer
            .body()
            .deserialize()
            .expect("it is a boolean and a string")
    }

    #[test]
    fn targetcli_finds_one_handler_and_its_help() {
        let bus = PrivateBus::new();
        let (orders, _daemon) = Orders::new();
        let (_service, _lost) = serve(&bus.bus, &orders).expect("the names are free");
        let answer = bus
            .connect()
            .call_method(
                Some("org.kernel.TCMUService1"),
                "/org/kernel/TCMUService1",
                Some("org.freedesktop.DBus.ObjectManager"),
                "GetManagedObjects",
                &(),
            )
            .expect("the method is there");
        type Objects = HashMap<OwnedObjectPath, HashMap<String, HashMap<String, OwnedValue>>>;
        let objects: Objects = answer.body().deserialize().expect("it has objects");
        let paths: Vec<_> = objects.keys().map(|path| path.as_str()).collect();
        assert_eq!(paths, ["/org/kernel/TCMUService1/pr"]);
        let interfaces = objects.values().next().expect("there is one");
        let help = &interfaces["org.kernel.TCMUService1"]["ConfigDesc"];
        let help: &str = help.downcast_ref().expect("it is a string");
        for option in KNOWN {
            assert!(help.contains(&format!(";{option}=")), "{option}: {help}");
        }
    }

    #[test]
    fn targetcli_is_told_whether_a_config_string_is_good() {
        let bus = PrivateBus::new();
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        let (_service, _lost) = serve(&bus.bus, &orders).expect("the names are free");
        let client = bus.connect();
        assert_eq!(
            check_config(&client, "pr//good;nexus=a"),
            (true, String::new())
        );
        let (ok, reason) = check_config(&client, "pr//bad");
        assert_eq!((ok, reason.as_str()), (false, "pr//bad is not good"));
    }

    #[test]
    fn a_daemon_that_stops_is_no_silence() {
        let bus = PrivateBus::new();
        let (orders, receiver) = Orders::new();
        let (_service, _lost) = serve(&bus.bus, &orders).expect("the names are free");
        drop(receiver);
        let (ok, reason) = check_config(&bus.connect(), "pr//good;nexus=a");
        assert_eq!((ok, reason.as_str()), (false, "tcmu-pr is stopping"));
        let error = status(&bus.bus).expect_err("it stops").to_string();
        assert!(error.contains("tcmu-pr is stopping"), "{error}");
    }

    #[test]
    fn status_comes_back_whole() {
        let bus = PrivateBus::new();
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        assert!(matches!(status(&bus.bus), Err(Error::NotRunning)));
        let (_service, _lost) = serve(&bus.bus, &orders).expect("the names are free");
        assert_eq!(status(&bus.bus).expect("the daemon is there"), example());
    }

    #[test]
    fn the_administrators_orders_go_to_the_daemon_and_its_words_come_back() {
        let bus = PrivateBus::new();
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        let (_service, _lost) = serve(&bus.bus, &orders).expect("the names are free");
        administer(&bus.bus, "6001405a", Administration::Clear).expect("it is good");
        let preempt = Administration::Preempt { key: u64::MAX };
        let error = administer(&bus.bus, "6001405a", preempt).expect_err("it is not");
        assert_eq!(
            error.to_string(),
            "6001405a: Preempt { key: 18446744073709551615 } is not good"
        );
    }

    #[test]
    fn a_name_that_another_has_is_an_error_that_says_whose() {
        let bus = PrivateBus::new();
        let other = bus.connect();
        other.request_name(HANDLER_NAME).expect("it is free");
        let (orders, _daemon) = Orders::new();
        let error = serve(&bus.bus, &orders).expect_err("it is taken");
        assert!(matches!(error, Error::OtherHandler(_)), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("systemctl disable --now tcmu-runner"),
            "{text}"
        );
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        // We do not wait in the queue: when the owner goes, nobody has the name.
        other.release_name(HANDLER_NAME).expect("it is ours");
        assert!(!has_owner(&other, HANDLER_NAME));
        // Nor do we keep the other name.
        assert!(!has_owner(&other, CONTROL_NAME));
    }

    #[test]
    fn the_handler_is_known_by_its_program() {
        let bus = PrivateBus::new();
        assert_eq!(handler(&bus.bus).expect("the bus is there"), None);
        let (orders, _daemon) = Orders::new();
        let (_service, _lost) = serve(&bus.bus, &orders).expect("the names are free");
        let found = handler(&bus.bus).expect("the bus is there");
        let own = format!("(process {})", std::process::id());
        assert!(found.is_some_and(|found| found.ends_with(&own)));
    }

    #[test]
    fn two_daemons_cannot_run() {
        let bus = PrivateBus::new();
        let (orders, _daemon) = Orders::new();
        let (_service, _lost) = serve(&bus.bus, &orders).expect("the names are free");
        let second = serve(&bus.bus, &orders);
        assert!(matches!(second, Err(Error::AlreadyRunning(_))));
    }

    #[test]
    fn the_names_are_free_although_the_process_goes_on() {
        let bus = PrivateBus::new();
        let (orders, _daemon) = Orders::new();
        let (service, _lost) = serve(&bus.bus, &orders).expect("the names are free");
        drop(service);
        let other = bus.connect();
        for name in [CONTROL_NAME, HANDLER_NAME] {
            assert!(!has_owner(&other, name), "{name}");
        }
    }

    #[test]
    fn the_end_of_the_bus_is_reported() {
        let mut bus = PrivateBus::new();
        let (orders, _daemon) = Orders::new();
        let (_service, lost) = serve(&bus.bus, &orders).expect("the names are free");
        assert!(lost.try_recv().is_err());
        bus.end();
        assert_eq!(lost.recv_timeout(SOON), Ok(Lost::Bus));
    }

    #[test]
    fn the_loss_of_a_name_is_reported() {
        let bus = PrivateBus::new();
        let (orders, _daemon) = Orders::new();
        let (service, lost) = serve(&bus.bus, &orders).expect("the names are free");
        service
            .connection
            .release_name(HANDLER_NAME)
            .expect("it is ours");
        assert_eq!(lost.recv_timeout(SOON), Ok(Lost::Name(HANDLER_NAME.into())));
    }

    #[test]
    fn a_missing_bus_is_an_error() {
        let nowhere = Bus::Address("unix:path=/nonexistent/bus".into());
        let error = status(&nowhere).expect_err("there is none");
        assert!(matches!(error, Error::Connect(_)));
        assert_eq!(
            error.to_string(),
            "cannot reach the system bus: start it with `systemctl start dbus` (`apt install dbus` if it is missing)"
        );
    }

    #[test]
    fn the_policy_lets_root_serve_and_ask_and_nobody_else() {
        let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/tcmu-pr-dbus.conf");
        let bus = PrivateBus::with_policy("", &format!("<include>{policy}</include>"));
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        let served = serve(&bus.bus, &orders);
        if geteuid().is_root() {
            let _service = served.expect("root may have the names");
            assert_eq!(status(&bus.bus).expect("root may ask"), example());
            assert!(check_config(&bus.connect(), "pr//good;nexus=a").0);
        } else {
            assert!(matches!(served, Err(Error::Policy(..))), "{served:?}");
            assert!(matches!(
                status(&bus.bus),
                Err(Error::NotAllowed | Error::NotRunning)
            ));
        }
        let deny = "<allow own=\"*\"/><deny send_destination=\"org.tcmupr.Control1\"/>";
        let without = PrivateBus::with_policy(deny, "");
        let _deaf = serve(&without.bus, &orders).expect("the names may be had");
        let unheard = status(&without.bus);
        let expected = if geteuid().is_root() {
            matches!(unheard, Err(Error::NoPolicy))
        } else {
            matches!(unheard, Err(Error::NotAllowed))
        };
        assert!(expected, "{unheard:?}");
        let without = PrivateBus::with_policy("", "");
        let refused = serve(&without.bus, &orders);
        assert!(matches!(refused, Err(Error::Policy(..))), "{refused:?}");
    }
}
