//! The command line: what may be said, what it asks of the daemon, and what it prints.

mod change;
mod check;
mod commands;
mod examples;
pub mod exit;
mod history;
mod manual;
mod nexus;
mod performance;
mod text;
mod watch;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use log::LevelFilter;

use crate::control::dbus::{self, Bus};
use crate::control::file::{self, poll};
pub use crate::control::file::{Engine, Poll};
use crate::control::{Status, UnitStatus};
pub use change::{Person, change};
pub use check::{Check, check};
pub use commands::{Commands, commands};
pub use history::{History, history};
pub use manual::{completions, manual};
pub use nexus::{Nexus, nexus};

/// Serves disks of the Linux kernel's SCSI target, with persistent reservations that fence.
///
/// All but `commands` and `completions` need root.
#[derive(Debug, PartialEq, Eq, Parser)]
#[command(version, after_long_help = exit::help())]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `tcmu-pr` can do.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve all backstores of the subtype "pr", until told to stop; systemd starts this
    Serve(Serve),
    /// Show what the running daemon serves, to whom, and who holds reservations
    #[command(after_long_help = examples::STATUS)]
    Status(StatusOptions),
    /// Show who is registered with a logical unit, and who holds its reservation
    #[command(after_long_help = examples::SHOW)]
    Show(Show),
    /// Show who has registered, reserved and preempted whom at a logical unit, when, and whom it has refused
    ///
    /// The newest is last. It goes back over restarts and boots, as far as two files of a megabyte reach.
    ///
    /// Works without the daemon too: as root, for a unit that is named by its path or serial number.
    History(History),
    /// Remove the reservation of a logical unit and every registration
    ///
    /// Where the record of the reservations can't be read, it is set aside, and the unit goes on without registrations.
    /// Those who were registered are told (unit attention RESERVATIONS PREEMPTED).
    #[command(after_long_help = examples::CLEAR)]
    Clear(Clear),
    /// Remove every registration with a key, and the reservation if nobody is left who holds it
    ///
    /// Returns when those who were registered have nothing in flight any more. They are told (unit attention
    /// REGISTRATIONS PREEMPTED).
    #[command(after_long_help = examples::PREEMPT)]
    Preempt(Preempt),
    /// Let writes be served again that are refused since a flush has failed
    ///
    /// What hosts believed to be written before may be lost. Only you can know what of it matters.
    ClearFlushFailure(ClearFlushFailure),
    /// Give a logical unit another size, and tell the kernel and the hosts
    ///
    /// A file is extended if it is smaller. A block device must have been made that large before. Nothing is cut off from
    /// either.
    #[command(after_long_help = examples::RESIZE)]
    Resize(Resize),
    /// Let initiators reach a disk where the kernel can't tell them apart: each by a backstore of its own
    ///
    /// Where `tcmu-pr check` says that one backstore can serve any number of initiators, this is not needed. It is for iSCSI,
    /// and makes with targetcli what can be made with it by hand.
    Nexus(Nexus),
    /// Look whether this node is as it should be: kernel, service, files, access, backstores, speed
    ///
    /// Says of each what is wrong, and what to do: a problem, or a note, where it may be intended. Changes nothing. The
    /// exit status is 1 if there is a problem.
    ///
    /// Needs root, as `serve` does.
    Check(Check),
    /// List the SCSI commands that are served, and what each asks of a reservation
    ///
    /// CDB usage data has a 1 for each bit of the command that is looked at, as REPORT SUPPORTED OPERATION CODES has it.
    #[command(after_long_help = examples::COMMANDS)]
    Commands(Commands),
    /// Print what lets a shell complete the command line
    ///
    /// The packages install it. Where there is none: `source <(tcmu-pr completions bash)`.
    Completions(Completions),
    /// Write the manual pages of all commands into a directory: for those who make packages
    #[command(hide = true)]
    Manual(Manual),
}

impl Command {
    /// Whether it is for root only.
    pub fn needs_root(&self) -> bool {
        !matches!(
            self,
            Command::Commands(_) | Command::Completions(_) | Command::Manual(_)
        )
    }
}

/// The options of `tcmu-pr serve`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Serve {
    /// The node's configuration file
    ///
    /// What it says of log-level, engine and poll holds where the options below are not given. It need not be there.
    #[arg(long, value_name = "FILE", default_value = file::PATH)]
    pub config: PathBuf,
    /// How much to log [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = log_level())]
    pub log_level: Option<LevelFilter>,
    /// Where reservations are kept that outlive the daemon, but not the machine
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/run/tcmu-pr",
        hide = true
    )]
    pub run_directory: PathBuf,
    /// Where reservations are kept that outlive a power loss
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/var/lib/tcmu-pr",
        hide = true
    )]
    pub state_directory: PathBuf,
    /// What does I/O that has to wait: io_uring, unless it is missing or forbidden, or helper threads in any case [default:
    /// best]
    #[arg(long, value_enum)]
    pub engine: Option<Engine>,
    /// Whether a disk's thread looks for more commands before it sleeps: off, adaptive (for up to 50 microseconds, while
    /// that helps), or for so many microseconds (1 to 1000) [default: adaptive]
    #[arg(long, value_name = "off|adaptive|MICROSECONDS", value_parser = poll)]
    pub poll: Option<Poll>,
    /// For tests: let the nexus tap note commands only after they can be seen, so many steps of a loop later
    #[arg(long, value_name = "STEPS", default_value_t = 0, hide = true)]
    pub fault_late: u32,
    /// For tests: let the nexus tap leave out about one of so many notes
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide = true)]
    pub fault_every: u32,
}

/// The options of `tcmu-pr status`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct StatusOptions {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
    /// Repeat every SECONDS (1 to 3600, 2 if left out) until Ctrl-C; with --json, one line each
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub watch: Option<u64>,
}

/// The options of `tcmu-pr show`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Show {
    /// Its path, its serial number or at least 4 digits of that, or one of its backstores
    #[arg(value_name = "LU")]
    pub unit: String,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// The options of `tcmu-pr clear`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Clear {
    /// Its path, its serial number or at least 4 digits of that, or one of its backstores
    #[arg(value_name = "LU")]
    pub unit: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Print JSON, for programs; needs --yes
    #[arg(long)]
    pub json: bool,
}

/// The options of `tcmu-pr preempt`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Preempt {
    /// Its path, its serial number or at least 4 digits of that, or one of its backstores
    #[arg(value_name = "LU")]
    pub unit: String,
    /// The reservation key: up to 16 hexadecimal digits, with or without 0x
    #[arg(value_name = "KEY", value_parser = key)]
    pub key: u64,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Print JSON, for programs; needs --yes
    #[arg(long)]
    pub json: bool,
}

/// The options of `tcmu-pr clear-flush-failure`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct ClearFlushFailure {
    /// Its path, its serial number or at least 4 digits of that, or one of its backstores
    #[arg(value_name = "LU")]
    pub unit: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Print JSON, for programs; needs --yes
    #[arg(long)]
    pub json: bool,
}

/// The options of `tcmu-pr resize`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Resize {
    /// Its path, its serial number or at least 4 digits of that, or one of its backstores
    #[arg(value_name = "LU")]
    pub unit: String,
    /// How large it is to be: bytes, or with K, M, G or T behind it; what its file or device has now if left out
    #[arg(value_name = "SIZE", value_parser = size)]
    pub size_bytes: Option<u64>,
    /// It may become smaller: no host uses what lies beyond any more
    #[arg(long)]
    pub shrink: bool,
    /// Do not ask, with --shrink
    #[arg(long)]
    pub yes: bool,
    /// Print JSON, for programs; with --shrink, needs --yes
    #[arg(long)]
    pub json: bool,
}

/// The options of `tcmu-pr completions`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// The options of `tcmu-pr manual`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Manual {
    /// Where they go
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
}

/// How much of a serial number it takes: a backstore can be called `a`.
const SERIAL_PREFIX_MIN: usize = 4;

fn key(text: &str) -> Result<u64, String> {
    let digits = text
        .strip_prefix("0x")
        .or(text.strip_prefix("0X"))
        .unwrap_or(text);
    let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let key = u64::from_str_radix(digits, 16).ok().filter(|_| hexadecimal);
    match key {
        None => Err("a key is up to 16 hexadecimal digits, as `tcmu-pr show` prints it".to_owned()),
        Some(0) => Err("nobody can be registered with the key 0".to_owned()),
        Some(key) => Ok(key),
    }
}

fn size(text: &str) -> Result<u64, String> {
    let bad = "a size is a number of bytes, with K, M, G or T behind it if need be: 20G";
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(bad.to_owned()),
    };
    let number: Option<u64> = digits.parse().ok().filter(|&number| number > 0);
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or(bad.to_owned())
}

fn log_level() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"]).map(|level| {
        level
            .parse()
            .expect("all of the possible values are levels")
    })
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon could not be asked, or said no.
    #[error(transparent)]
    Ask(#[from] dbus::Error),
    /// The answer is not plain data.
    #[error("cannot print the status as JSON")]
    Json(#[source] serde_json::Error),
    /// The answer could not be printed.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
    /// The manual pages could not be written.
    #[error("cannot write the manual pages into {}", .directory.display())]
    WriteManual {
        /// Where they should go.
        directory: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No unit of that name.
    #[error("there is no logical unit {0:?}; `tcmu-pr status` lists those there are")]
    NoSuchUnit(String),
    /// Several units of that name.
    #[error("{name:?} can be {}: write the path, or more of the serial number", .units.join(" or "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The paths of the units.
        units: Vec<String>,
    },
    /// Nothing to preempt.
    #[error("nobody is registered with the key {key:#018x} at {path}; there are: {}", .keys.join(", "))]
    NoSuchKey {
        /// What was asked for.
        key: u64,
        /// The unit.
        path: String,
        /// The keys that there are.
        keys: Vec<String>,
    },
    /// The history could not be read.
    #[error(transparent)]
    History(#[from] history::Error),
    /// Another user.
    #[error("this needs root: try again with sudo")]
    NotRoot,
    /// Nobody who could be asked.
    #[error(
        "nobody can be asked, as standard input is no terminal, or --json is given: give --yes if you are sure"
    )]
    NobodyToAsk,
    /// The answer could not be read.
    #[error("cannot read the answer")]
    Read(#[source] io::Error),
    /// A nexus was not made, or not removed.
    #[error(transparent)]
    Nexus(#[from] nexus::Error),
    /// Not all is well on this node.
    #[error("{0} of these are not as they should be")]
    Problems(usize),
    /// Somebody has thought better of it.
    #[error("that was not \"yes\": nothing has changed")]
    NotConfirmed,
}

/// Asks the daemon on `bus` how things are, and prints it to `output`.
pub fn status(options: &StatusOptions, bus: &Bus, output: &mut impl Write) -> Result<(), Error> {
    if let Some(seconds) = options.watch {
        let form = match options.json {
            true => watch::Form::Json,
            false if io::stdout().is_terminal() => watch::Form::Screen,
            false => watch::Form::Text,
        };
        return watch::watch(
            form,
            || dbus::status(bus),
            output,
            || {
                thread::sleep(Duration::from_secs(seconds));
                true
            },
        );
    }
    let status = dbus::status(bus)?;
    if options.json {
        return print(output, &json(&status)?);
    }
    print(output, &text::status(&status))
}

/// Asks the daemon on `bus` about one logical unit, and prints that to `output`.
pub fn show(options: &Show, bus: &Bus, output: &mut impl Write) -> Result<(), Error> {
    let status = dbus::status(bus)?;
    let unit = find(&status, &options.unit)?;
    if options.json {
        return print(output, &json(unit)?);
    }
    print(output, &text::show(unit))
}

/// The logical unit that is meant.
fn find<'a>(status: &'a Status, name: &str) -> Result<&'a UnitStatus, Error> {
    let is_backstore = |unit: &UnitStatus| {
        unit.ports.iter().any(|port| {
            let own = port.backstore.split_once('/').map(|(_, own)| own);
            port.backstore == name || own == Some(name)
        })
    };
    let begins_so =
        |unit: &UnitStatus| name.len() >= SERIAL_PREFIX_MIN && unit.serial.starts_with(name);
    let exact = |unit: &&UnitStatus| unit.path == name || unit.serial == name;
    let units = || status.units.iter();
    if let Some(unit) = units().find(exact) {
        return Ok(unit);
    }
    let found: Vec<&UnitStatus> = units()
        .filter(|unit| is_backstore(unit) || begins_so(unit))
        .collect();
    match found[..] {
        [] => Err(Error::NoSuchUnit(name.to_owned())),
        [unit] => Ok(unit),
        _ => Err(Error::Ambiguous {
            name: name.to_owned(),
            units: found.iter().map(|unit| unit.path.clone()).collect(),
        }),
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    Ok(serde_json::to_string_pretty(value).map_err(Error::Json)? + "\n")
}

fn print(output: &mut impl Write, text: &str) -> Result<(), Error> {
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        // Whoever read it has seen enough: `tcmu-pr status | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::Print),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::Orders;
    use crate::control::dbus::tests::{PrivateBus, daemon};
    use crate::control::tests::example;

    /// Where nobody reads any more.
    pub(super) struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_flags_are_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_has_sensible_defaults() {
        let expected = Serve {
            config: "/etc/tcmu-pr.toml".into(),
            log_level: None,
            run_directory: "/run/tcmu-pr".into(),
            state_directory: "/var/lib/tcmu-pr".into(),
            engine: None,
            poll: None,
            fault_late: 0,
            fault_every: 0,
        };
        let parsed = parse("tcmu-pr serve").expect("it is good").command;
        assert_eq!(parsed, Command::Serve(expected));
        let Command::Serve(debug) = parse("tcmu-pr serve --log-level debug --run-directory /tmp/r")
            .expect("it is good")
            .command
        else {
            panic!("not serve");
        };
        assert_eq!(debug.log_level, Some(LevelFilter::Debug));
        for (text, expected) in [
            ("off", Poll::Off),
            ("adaptive", Poll::Adaptive),
            ("20", Poll::Fixed(Duration::from_micros(20))),
            ("1000", Poll::Fixed(Duration::from_millis(1))),
        ] {
            assert_eq!(poll(text), Ok(expected));
        }
        assert_eq!(debug.run_directory, PathBuf::from("/tmp/r"));
    }

    #[test]
    fn a_wrong_command_line_exits_with_2_and_questions_with_0() {
        for line in [
            "tcmu-pr",
            "tcmu-pr srve",
            "tcmu-pr serve --log-level loud",
            "tcmu-pr serve --engine steam",
            "tcmu-pr serve --poll 0",
            "tcmu-pr serve --poll 1001",
            "tcmu-pr serve --poll on",
            "tcmu-pr status x",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
        for line in [
            "tcmu-pr --version",
            "tcmu-pr --help",
            "tcmu-pr status --help",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 0, "{line}");
        }
    }

    #[test]
    fn status_asks_the_daemon_and_prints() {
        let bus = PrivateBus::new();
        let ask = |json| {
            let mut output = Vec::new();
            let options = StatusOptions { json, watch: None };
            let answer = status(&options, &bus.bus, &mut output);
            answer.map(|()| String::from_utf8(output).expect("it is text"))
        };
        let error = ask(false).expect_err("there is no daemon").to_string();
        assert!(error.contains("systemctl start tcmu-pr"), "{error}");
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        let (_service, _lost) = dbus::serve(&bus.bus, &orders).expect("the names are free");
        assert_eq!(
            ask(false).expect("the daemon is there"),
            text::status(&example())
        );
        let json = ask(true).expect("the daemon is there");
        assert_eq!(
            serde_json::from_str::<Status>(&json).expect("it is JSON"),
            example()
        );
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_error() {
        let bus = PrivateBus::new();
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        let (_service, _lost) = dbus::serve(&bus.bus, &orders).expect("the names are free");
        let options = StatusOptions {
            json: false,
            watch: None,
        };
        status(&options, &bus.bus, &mut Closed).expect("the pipe is closed on purpose");
    }

    #[test]
    fn a_key_is_hexadecimal_and_not_zero() {
        for (text, expected) in [
            ("a1", 0xa1),
            ("0xA1", 0xa1),
            ("0x00000000000000a1", 0xa1),
            ("ffffffffffffffff", u64::MAX),
        ] {
            assert_eq!(key(text), Ok(expected), "{text}");
        }
        for text in ["", "0x", "+1", "0x10000000000000000", "node-a", "0", "0x0"] {
            assert!(key(text).is_err(), "{text}");
        }
        let line = "tcmu-pr preempt /srv/lun0.img node-a";
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.to_string().contains("16 hexadecimal digits"),
            "{error}"
        );
    }

    #[test]
    fn a_size_is_bytes_or_more() {
        for (text, expected) in [
            ("512", 512),
            ("1000B", 1000),
            ("4K", 4 << 10),
            ("3M", 3 << 20),
            ("20G", 20 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "G",
            "0",
            "-1",
            "1.5G",
            "20g",
            "20GB",
            "18446744073709551615K",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_unit_is_found_by_what_it_is_called() {
        let mut status = example();
        let mut other = status.units[0].clone();
        other.path = "/srv/lun1.img".to_owned();
        other.serial = "600140ff".to_owned();
        other.ports.truncate(1);
        other.ports[0].backstore = "user_3/lun1".to_owned();
        status.units.push(other);
        for (name, expected) in [
            ("/srv/lun0.img", "/srv/lun0.img"),
            ("6001405a", "/srv/lun0.img"),
            ("600140f", "/srv/lun1.img"),
            ("user_0/lun0-b", "/srv/lun0.img"),
            ("lun0-b", "/srv/lun0.img"),
            ("lun1", "/srv/lun1.img"),
        ] {
            assert_eq!(find(&status, name).expect(name).path, expected);
        }
        for name in ["", "/srv/lun", "user_0", "lun0", "600", "405a"] {
            assert!(
                matches!(find(&status, name), Err(Error::NoSuchUnit(_))),
                "{name}"
            );
        }
        let error = find(&status, "600140").expect_err("both").to_string();
        assert!(error.contains("/srv/lun0.img or /srv/lun1.img"), "{error}");
    }
}
