//! The command line: what may be said, and what `tcmu-pr status` answers.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use log::LevelFilter;

use crate::control::dbus::{self, Bus};
use crate::control::{LinkStatus, RegistrantStatus, ReservationStatus, Status, UnitStatus};

/// Serves disks of the Linux kernel's SCSI target, with persistent reservations that fence.
///
/// The exit status is 0 if all went well, 1 if it did not, and 2 if the command line is wrong.
#[derive(Debug, PartialEq, Eq, Parser)]
#[command(version)]
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
    Status(StatusOptions),
}

/// The options of `tcmu-pr serve`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Serve {
    /// How much to say on standard error
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = log_level())]
    pub log_level: LevelFilter,
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
}

/// The options of `tcmu-pr status`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct StatusOptions {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

fn log_level() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"]).map(|level| {
        level
            .parse()
            .expect("all of the possible values are levels")
    })
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon could not be asked.
    #[error(transparent)]
    Ask(#[from] dbus::Error),
    /// The answer is not plain data.
    #[error("cannot print the status as JSON")]
    Json(#[source] serde_json::Error),
    /// The answer could not be printed.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

/// Asks the daemon on `bus` how things are, and prints it to `output`.
pub fn status(options: &StatusOptions, bus: &Bus, output: &mut impl Write) -> Result<(), Error> {
    let status = dbus::status(bus)?;
    let text = if options.json {
        serde_json::to_string_pretty(&status).map_err(Error::Json)? + "\n"
    } else {
        table(&status)
    };
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        // Whoever read it has seen enough: `tcmu-pr status | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::Print),
    }
}

/// The status as a person reads it.
fn table(status: &Status) -> String {
    let mut text = String::new();
    for unit in &status.units {
        text += &unit_table(unit);
        text += "\n";
    }
    if status.units.is_empty() {
        text += "no logical units\n\n";
    }
    if !status.refused.is_empty() {
        text += "refused backstores\n";
        let rows = status.refused.iter();
        text += &aligned(rows.map(|refused| [refused.backstore.clone(), refused.reason.clone()]));
        text += "\n";
    }
    let _ = writeln!(text, "tcmu-pr {}", status.version);
    text
}

fn unit_table(unit: &UnitStatus) -> String {
    let head = format!(
        "{}  {}, {}-byte blocks, serial {}\n",
        unit.path,
        size(unit.size_bytes),
        unit.block_size_bytes,
        unit.serial
    );
    let titles = ["BACKSTORE", "DEVICE", "NEXUS", "SERVES"].map(str::to_owned);
    let ports = unit.ports.iter().map(|port| {
        let link = match &port.link {
            LinkStatus::Serving {
                initiator,
                target,
                read_only,
            } => {
                let read_only = if *read_only { ", read only" } else { "" };
                format!("{initiator} -> {target}{read_only}")
            }
            LinkStatus::Waiting { reason } => format!("nobody yet: {reason}"),
        };
        [
            port.backstore.clone(),
            port.uio.clone(),
            port.label.clone(),
            link,
        ]
    });
    let counters = &unit.counters;
    let commands = format!(
        "{} ({} reads, {} writes), {} in flight; refused: {} conflicts, {} of an unknown nexus",
        counters.commands,
        counters.reads,
        counters.writes,
        unit.in_flight,
        counters.conflicts,
        counters.unknown_nexus
    );
    let ReservationStatus {
        unreadable,
        generation,
        reservation,
        reserve,
        registrants,
    } = &unit.reservations;
    let reservation = match (reservation, reserve) {
        _ if *unreadable => {
            "not known, nobody is let in: the record can't be read, see the log".to_owned()
        }
        (Some(held), _) => {
            let holder = held.holder.as_deref().unwrap_or("all registrants");
            format!("{}, held by {holder}", held.kind)
        }
        (None, Some(holder)) => format!("RESERVE, held by {holder}"),
        (None, None) => "none".to_owned(),
    };
    let facts = [
        ("reservation", reservation),
        (
            "registered",
            format!("{}, generation {generation}", registrants.len()),
        ),
        ("commands", commands),
    ];
    head + &aligned(std::iter::once(titles).chain(ports))
        + &aligned(facts.map(|(name, fact)| [name.to_owned(), fact]))
        + &aligned(registrants.iter().map(registrant))
}

fn registrant(registrant: &RegistrantStatus) -> [String; 2] {
    let RegistrantStatus {
        initiator,
        target,
        key,
    } = registrant;
    [format!("  key {key}"), format!("{initiator} -> {target}")]
}

/// Rows in columns, indented; the last column is not filled up.
fn aligned<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "  {cell:width$}");
        }
        text += line.trim_end();
        text += "\n";
    }
    text
}

/// A size in the largest unit that gives a whole number.
fn size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = units
        .iter()
        .find(|(_, shift)| bytes != 0 && bytes % (1 << shift) == 0);
    match whole {
        Some((unit, shift)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Orders;
    use crate::control::dbus::tests::{PrivateBus, daemon};
    use crate::control::tests::example;

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
            log_level: LevelFilter::Info,
            run_directory: "/run/tcmu-pr".into(),
            state_directory: "/var/lib/tcmu-pr".into(),
        };
        let parsed = parse("tcmu-pr serve").expect("it is good").command;
        assert_eq!(parsed, Command::Serve(expected));
        let Command::Serve(debug) = parse("tcmu-pr serve --log-level debug --run-directory /tmp/r")
            .expect("it is good")
            .command
        else {
            panic!("not serve");
        };
        assert_eq!(debug.log_level, LevelFilter::Debug);
        assert_eq!(debug.run_directory, PathBuf::from("/tmp/r"));
    }

    #[test]
    fn a_wrong_command_line_exits_with_2_and_questions_with_0() {
        for line in [
            "tcmu-pr",
            "tcmu-pr srve",
            "tcmu-pr serve --log-level loud",
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
    fn the_table_is_aligned() {
        let expected = "\
/srv/lun0.img  10 GiB, 512-byte blocks, serial 6001405a
  BACKSTORE      DEVICE  NEXUS   SERVES
  user_0/lun0-a  uio0    node-a  iqn.2026-11.example:a -> iqn.2026-11.example:t,t,0x0001
  user_0/lun0-b  uio0    node-b  iqn.2026-11.example:b -> iqn.2026-11.example:t,t,0x0001, read only
  user_0/lun0-c  uio0    node-c  nobody yet: it is not exported
  reservation  Write Exclusive, Registrants Only, held by \
iqn.2026-11.example:a -> iqn.2026-11.example:t,t,0x0001
  registered   1, generation 3
  commands     1234 (1000 reads, 200 writes), 32 in flight; refused: 4 conflicts, 1 of an unknown nexus
    key 0x00000000000000a1  iqn.2026-11.example:a -> iqn.2026-11.example:t,t,0x0001

refused backstores
  user_7/odd  the config string has no nexus label

tcmu-pr 0.1.0
";
        assert_eq!(table(&example()), expected);
    }

    #[test]
    fn an_idle_daemon_has_something_to_say_too() {
        let idle = Status {
            version: "0.1.0".into(),
            ..Status::default()
        };
        assert_eq!(table(&idle), "no logical units\n\ntcmu-pr 0.1.0\n");
    }

    #[test]
    fn sizes_are_whole_numbers() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (513, "513 bytes"),
            (1 << 10, "1 KiB"),
            (1536 << 20, "1536 MiB"),
            (10 << 30, "10 GiB"),
            (1 << 44, "16 TiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn status_asks_the_daemon_and_prints() {
        let bus = PrivateBus::new();
        let ask = |json| {
            let mut output = Vec::new();
            let answer = status(&StatusOptions { json }, &bus.bus, &mut output);
            answer.map(|()| String::from_utf8(output).expect("it is text"))
        };
        let error = ask(false).expect_err("there is no daemon").to_string();
        assert!(error.contains("systemctl start tcmu-pr"), "{error}");
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        let (_service, _lost) = dbus::serve(&bus.bus, &orders).expect("the names are free");
        assert_eq!(ask(false).expect("the daemon is there"), table(&example()));
        let json = ask(true).expect("the daemon is there");
        assert_eq!(
            serde_json::from_str::<Status>(&json).expect("it is JSON"),
            example()
        );
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let bus = PrivateBus::new();
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        let (_service, _lost) = dbus::serve(&bus.bus, &orders).expect("the names are free");
        let options = StatusOptions { json: false };
        status(&options, &bus.bus, &mut Closed).expect("the pipe is closed on purpose");
    }

    #[test]
    fn a_record_that_cannot_be_read_and_a_reserve_are_shown() {
        let mut status = example();
        status.units[0].reservations.reservation = None;
        status.units[0].reservations.reserve = Some("a -> t".to_owned());
        assert!(table(&status).contains("reservation  RESERVE, held by a -> t\n"));
        status.units[0].reservations.unreadable = true;
        assert!(table(&status).contains("reservation  not known, nobody is let in"));
    }
}
