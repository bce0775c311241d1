//! `tcmu-pr history`: what has become of the reservations of a logical unit, and who has made it so.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::{SignedDuration, Timestamp, civil};
use serde::Deserialize;

use super::{SERIAL_PREFIX_MIN, find, print, text};
use crate::control::dbus::{self, Bus};
use crate::history::{self, Entry, Found};

/// The options of `tcmu-pr history`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct History {
    /// Its path, its serial number or at least 4 digits of that, or one of its backstores
    #[arg(value_name = "LU")]
    pub unit: String,
    /// Print JSON, for programs: each entry on a line
    #[arg(long)]
    pub json: bool,
    /// Leave out what is older: 30m, 12h or 7d ago, or than 2026-11-30, 2026-11-30T10:00 (UTC) or 2026-11-30T11:00+01:00
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,
    /// Where it is kept
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/var/lib/tcmu-pr",
        hide = true
    )]
    pub state_directory: PathBuf,
}

/// Why there is no history to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is kept of a unit of that name.
    #[error(
        "nothing is kept of a logical unit {name:?} in {}: without the daemon, write its path or its serial number", .directory.display()
    )]
    NoSuchUnit {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// What is kept can't be read by whoever asks.
    #[error("only root may read {}: try again with sudo", .0.display())]
    NotAllowed(PathBuf),
    /// What is kept can't be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why it can't be.
        #[source]
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| match source.kind() {
        ErrorKind::PermissionDenied => Error::NotAllowed(path.to_owned()),
        _ => Error::Read {
            path: path.to_owned(),
            source,
        },
    }
}

/// Prints the history of a logical unit to `output`: as the daemon on `bus` tells it, or from its files if there is none.
pub fn history(options: &History, bus: &Bus, output: &mut impl Write) -> Result<(), super::Error> {
    let found = ask_or_read(options, bus)?;
    let since = options.since.map(|since| format!("{since:.6}"));
    let is_meant = |entry: &&Entry| since.as_ref().is_none_or(|since| entry.time >= *since);
    let entries = found.entries.iter().filter(is_meant);
    if options.json {
        return print(output, &entries.map(Entry::line).collect::<String>());
    }
    print(output, &table(entries, found.unreadable))
}

/// A daemon that does not serve the unit does not know it.
fn ask_or_read(options: &History, bus: &Bus) -> Result<Found, super::Error> {
    let status = match dbus::status(bus) {
        Ok(status) => status,
        Err(dbus::Error::NotRunning | dbus::Error::Connect(_)) => return read(options),
        Err(error) => return Err(error.into()),
    };
    match find(&status, &options.unit) {
        Ok(unit) => Ok(dbus::history(bus, &unit.serial)?),
        Err(super::Error::NoSuchUnit(name)) => match read(options) {
            Err(super::Error::History(Error::NoSuchUnit { .. })) => {
                Err(super::Error::NoSuchUnit(name))
            }
            read => read,
        },
        Err(error) => Err(error),
    }
}

/// What a record of a unit says of who it is.
#[derive(Deserialize)]
struct Identity {
    path: PathBuf,
    serial: String,
}

fn read(options: &History) -> Result<Found, super::Error> {
    let (name, directory) = (&options.unit, &options.state_directory);
    let none = || Error::NoSuchUnit {
        name: name.clone(),
        directory: directory.clone(),
    };
    let records = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(none().into()),
        records => records.map_err(failed(directory))?,
    };
    let mut meant = Vec::new();
    for entry in records {
        let path = entry.map_err(failed(directory))?.path();
        if path.extension().is_none_or(|extension| extension != "unit") {
            continue;
        }
        let record = fs::read_to_string(&path).map_err(failed(&path))?;
        // One that can't be read is some other unit's as long as nobody can tell.
        let Ok(unit) = toml::from_str::<Identity>(&record) else {
            continue;
        };
        let begins_so = name.len() >= SERIAL_PREFIX_MIN && unit.serial.starts_with(name);
        if unit.path == Path::new(name) || begins_so {
            meant.push(unit);
        }
    }
    match &meant[..] {
        [Identity { serial, .. }] => {
            let path = history::path(directory, serial);
            Ok(history::read(&path).map_err(failed(&path))?)
        }
        [] => Err(none().into()),
        several => Err(super::Error::Ambiguous {
            name: name.clone(),
            units: several
                .iter()
                .map(|unit| unit.path.display().to_string())
                .collect(),
        }),
    }
}

fn table<'a>(entries: impl Iterator<Item = &'a Entry>, unreadable: usize) -> String {
    let rows = entries.map(|entry| {
        let by = entry.by.as_ref().map(ToString::to_string);
        let row = [
            entry.time.clone(),
            entry.kind.to_string(),
            by.unwrap_or_else(|| "-".to_owned()),
            entry.to_string(),
        ];
        // What is in the file may have been put there by anybody who is root.
        row.map(|cell| cell.replace(char::is_control, "?"))
    });
    let titles = ["TIME", "WHAT", "BY", "DETAILS"].map(str::to_owned);
    let mut text = text::aligned(std::iter::once(titles).chain(rows));
    if unreadable > 0 {
        text += &format!("{unreadable} lines can't be read\n");
    }
    text
}

fn since(text: &str) -> Result<Timestamp, String> {
    let bad = "write how long ago, as 30m, 12h or 7d, or a time, as 2026-11-30T10:00 (UTC)";
    let ago = |unit: char, seconds: i64| {
        let number: i64 = text.strip_suffix(unit)?.parse().ok()?;
        let ago = SignedDuration::from_secs(number.checked_mul(seconds)?);
        Timestamp::now().checked_sub(ago).ok()
    };
    let in_utc = || {
        let time: civil::DateTime = text.parse().ok()?;
        time.to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp())
    };
    ago('m', 60)
        .or_else(|| ago('h', 3_600))
        .or_else(|| ago('d', 86_400))
        .or_else(|| text.parse().ok())
        .or_else(in_utc)
        .ok_or_else(|| bad.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Orders;
    use crate::control::dbus::tests::{PrivateBus, daemon};
    use crate::history::{Held, Kind, Ledger, NexusName, Other, RegistrationEntry, State};
    use crate::pr::Type;
    use crate::pr::event::Act;

    const SERIAL: &str = "1cdd8f01d6514cb0a17e88052252d9a5";

    fn options(unit: &str, folder: &Path) -> History {
        History {
            unit: unit.to_owned(),
            json: false,
            since: None,
            state_directory: folder.to_owned(),
        }
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_796_036_400 + second).unwrap()
    }

    /// What is kept of a unit that was started and registered with.
    fn kept() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let record = format!("version = 1\npath = \"/srv/lun0.img\"\nserial = \"{SERIAL}\"\n");
        fs::write(folder.path().join("0123456789abcdef.unit"), record).unwrap();
        let mut ledger = Ledger::new(history::path(folder.path(), SERIAL), history::SIZE_MAX);
        let started = Entry::new(time(0), Kind::Other(Other::Started), State::default());
        let nexus = NexusName {
            initiator: "iqn.2026-11.example:a".to_owned(),
            isid: Some("0x00023d000001".to_owned()),
            target: "iqn.2026-11.example:t,t,0x0001".to_owned(),
        };
        let state = State {
            generation: 1,
            registered: 1,
            ..State::default()
        };
        let mut registered = Entry::new(time(60), Kind::Changed(Act::Register), state);
        registered.by = Some(nexus.clone());
        registered.registrations.push(RegistrationEntry {
            nexus,
            before: None,
            after: Some("0x00000000000000a1".to_owned()),
        });
        ledger.append(&[started, registered]).unwrap();
        folder
    }

    /// Without a daemon.
    fn printed(options: &History) -> Result<String, super::super::Error> {
        let bus = PrivateBus::new();
        let mut output = Vec::new();
        history(options, &bus.bus, &mut output)?;
        Ok(String::from_utf8(output).unwrap())
    }

    fn squeezed(line: &str) -> String {
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn without_the_daemon_the_files_are_read() {
        let folder = kept();
        for name in ["/srv/lun0.img", SERIAL, &SERIAL[..4]] {
            let printed = printed(&options(name, folder.path())).unwrap();
            let lines: Vec<String> = printed.lines().map(squeezed).collect();
            let nexus = "iqn.2026-11.example:a,i,0x00023d000001 -> iqn.2026-11.example:t,t,0x0001";
            let key = "key 0x00000000000000a1 registered; 1 registered, generation 1";
            let expected = [
                "TIME WHAT BY DETAILS".to_owned(),
                "2026-11-30T11:00:00.000000Z started - 0 registered, generation 0".to_owned(),
                format!("2026-11-30T11:01:00.000000Z REGISTER {nexus} {key}"),
            ];
            assert_eq!(lines, expected);
        }
        for name in [&SERIAL[..3], "lun0", "/srv/lun1.img"] {
            let error = printed(&options(name, folder.path())).unwrap_err();
            assert!(error.to_string().contains("write its path"), "{error}");
            assert_eq!(error.exit_status(), 4);
        }
        let nowhere = options("/srv/lun0.img", Path::new("/nonexistent"));
        assert_eq!(printed(&nowhere).unwrap_err().exit_status(), 4);

        let other = format!(
            "version = 1\npath = \"/srv/lun1.img\"\nserial = \"{}ff\"\n",
            &SERIAL[..4]
        );
        fs::write(folder.path().join("fedcba9876543210.unit"), other).unwrap();
        let error = printed(&options(&SERIAL[..4], folder.path())).unwrap_err();
        assert!(error.to_string().contains("/srv/lun1.img"), "{error}");
        assert_eq!(error.exit_status(), 4);
    }

    #[test]
    fn json_is_the_lines_of_the_file() {
        let folder = kept();
        let mut options = options(SERIAL, folder.path());
        options.json = true;
        let text = fs::read_to_string(history::path(folder.path(), SERIAL)).unwrap();
        assert_eq!(printed(&options).unwrap(), text);
        options.since = Some(time(1));
        let last = text.lines().last().unwrap();
        assert_eq!(printed(&options).unwrap(), format!("{last}\n"));
    }

    #[test]
    fn the_daemon_is_asked_if_it_is_there() {
        let folder = kept();
        let bus = PrivateBus::new();
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        let (_service, _lost) = dbus::serve(&bus.bus, &orders).expect("the names are free");
        let asked = |name| {
            let mut output = Vec::new();
            history(&options(name, folder.path()), &bus.bus, &mut output)?;
            Ok::<_, super::super::Error>(String::from_utf8(output).unwrap())
        };
        let told = asked("6001405a").unwrap();
        assert!(told.contains("started"), "{told}");
        assert!(!told.contains("REGISTER"), "{told}");
        // It serves another unit.
        assert!(asked(SERIAL).unwrap().contains("REGISTER"));
        let error = asked("/srv/lun1.img").unwrap_err().to_string();
        assert!(error.contains("there is no logical unit"), "{error}");
    }

    #[test]
    fn times_are_read_in_several_forms() {
        for (text, expected) in [
            ("2026-11-30T11:01:00Z", 60),
            ("2026-11-30T12:01:00+01:00", 60),
            ("2026-11-30T11:01", 60),
            ("2026-11-30 11:01:00", 60),
            ("2026-11-30", -11 * 3_600),
        ] {
            assert_eq!(since(text), Ok(time(expected)), "{text}");
        }
        let ago = Timestamp::now().duration_since(since("2h").unwrap());
        assert!((7_199..7_260).contains(&ago.as_secs()), "{ago:?}");
        for bad in ["", "yesterday", "2", "h", "2w", "2026-13-01"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_control_character_is_printed() {
        let mut entry = Entry::new(time(0), Kind::Other(Other::Gap), State::default());
        entry.why = Some("\u{1b}[2J\n".to_owned());
        let text = table([entry].iter(), 2);
        assert!(text.contains("?[2J?"), "{text}");
        assert!(text.ends_with("2 lines can't be read\n"), "{text}");
    }

    #[test]
    fn the_documentation_has_all_fields() {
        let nexus = |isid: Option<&str>| NexusName {
            initiator: "iqn.2026-11.example:a".to_owned(),
            isid: isid.map(str::to_owned),
            target: "iqn.2026-11.example:t,t,0x0001".to_owned(),
        };
        let of = |nexus: Option<NexusName>, key: Option<&str>| {
            let key = key.map(str::to_owned);
            let held = |holder| Held {
                kind: Type::WriteExclusive,
                holder,
            };
            let state = State {
                reservation: Some(held(nexus.clone())),
                reserve: nexus.clone(),
                ..State::default()
            };
            let registration = nexus.clone().map(|nexus| RegistrationEntry {
                nexus,
                before: key.clone(),
                after: key.clone(),
            });
            Entry {
                by: nexus.clone(),
                operation: Some("WRITE(10)".to_owned()),
                key: Some("0x00000000000000a1".to_owned()),
                count: Some(1),
                why: Some("there was no space".to_owned()),
                registrations: registration.into_iter().collect(),
                more: Some(1),
                reservation_before: Some(held(nexus.clone())),
                reserve_before: nexus,
                ..Entry::new(time(0), Kind::Changed(Act::Preempt), state)
            }
        };
        let entries = [
            of(
                Some(nexus(Some("0x00023d000001"))),
                Some("0x00000000000000a1"),
            ),
            of(Some(nexus(None)), None),
            of(None, None),
            Entry::new(time(0), Kind::Other(Other::Started), State::default()),
        ];
        crate::control::fields::check("What `history` prints", &entries);
    }
}
