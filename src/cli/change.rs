//! Changes by the administrator: shown, asked for, then ordered.

use std::io::{BufRead, Write};

use serde::Serialize;

use super::{Clear, ClearFlushFailure, Error, Preempt, Resize, find, json, print, text};
use crate::control::dbus::{self, Bus};
use crate::control::{Administration, RegistrantStatus, ReservationStatus, UnitStatus};

/// Who can be asked whether it is meant.
#[derive(Debug)]
pub struct Person<R> {
    /// Where the answer comes from.
    pub input: R,
    /// Whether somebody is there: a terminal.
    pub is_there: bool,
}

/// A command that changes a unit: what to do, and to which.
#[derive(Debug)]
pub struct Change {
    unit: String,
    action: Administration,
    yes: bool,
    json: bool,
}

impl From<Clear> for Change {
    fn from(options: Clear) -> Change {
        Change {
            unit: options.unit,
            action: Administration::Clear,
            yes: options.yes,
            json: options.json,
        }
    }
}

impl From<Preempt> for Change {
    fn from(options: Preempt) -> Change {
        Change {
            unit: options.unit,
            action: Administration::Preempt { key: options.key },
            yes: options.yes,
            json: options.json,
        }
    }
}

impl From<ClearFlushFailure> for Change {
    fn from(options: ClearFlushFailure) -> Change {
        Change {
            unit: options.unit,
            action: Administration::ClearFlushFailure,
            yes: options.yes,
            json: options.json,
        }
    }
}

impl From<Resize> for Change {
    fn from(options: Resize) -> Change {
        Change {
            unit: options.unit,
            action: Administration::Resize {
                size_bytes: options.size_bytes,
                shrink: options.shrink,
            },
            // What only becomes larger loses nothing.
            yes: options.yes || !options.shrink,
            json: options.json,
        }
    }
}

/// What has been done, for programs.
#[derive(Serialize)]
struct Done<'a> {
    done: &'static str,
    path: &'a str,
    serial: &'a str,
    /// Which registrations are gone, of `clear` and `preempt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<Vec<&'a RegistrantStatus>>,
    /// How large it is now, of `resize`.
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
}

/// Shows what will be removed or lost, asks, and has the daemon on `bus` do it.
pub fn change(
    change: impl Into<Change>,
    bus: &Bus,
    person: Person<impl BufRead>,
    output: &mut impl Write,
) -> Result<(), Error> {
    let change = change.into();
    if !change.yes && (change.json || !person.is_there) {
        return Err(Error::NobodyToAsk);
    }
    let status = dbus::status(bus)?;
    let unit = find(&status, &change.unit)?;
    let concern = concern(unit, change.action)?;
    if !change.yes {
        let head = format!("{}  serial {}", unit.path, unit.serial);
        print(output, &format!("{head}\n{concern}"))?;
        confirm(person, output)?;
    }
    dbus::administer(bus, &unit.serial, change.action)?;
    if change.json {
        return print(output, &json(&done(unit, change.action, bus)?)?);
    }
    print(output, "done\n")
}

fn done<'a>(unit: &'a UnitStatus, action: Administration, bus: &Bus) -> Result<Done<'a>, Error> {
    let removed = |key| removal(&unit.reservations, key).removed;
    let (done, removed, size_bytes) = match action {
        Administration::Clear => ("clear", Some(removed(None)), None),
        Administration::Preempt { key } => ("preempt", Some(removed(Some(key))), None),
        Administration::ClearFlushFailure => ("clear-flush-failure", None, None),
        Administration::Resize { .. } => {
            let size = find(&dbus::status(bus)?, &unit.serial)?.size_bytes;
            ("resize", None, Some(size))
        }
    };
    Ok(Done {
        done,
        path: &unit.path,
        serial: &unit.serial,
        removed,
        size_bytes,
    })
}

/// What will happen, and to whom.
fn concern(unit: &UnitStatus, action: Administration) -> Result<String, Error> {
    Ok(match action {
        Administration::Clear => concern_of_clear(&unit.reservations),
        Administration::Preempt { key } => concern_of_preempt(unit, key)?,
        Administration::ClearFlushFailure if unit.flush_failed => {
            "  A flush has failed: what hosts believe to be written may be lost. Writes are served again after this: make \
             sure that the data has been checked or restored.\n"
                .to_owned()
        }
        Administration::ClearFlushFailure => "  no flush has failed\n".to_owned(),
        Administration::Resize { .. } => {
            "  If it becomes smaller, hosts can't reach any more what lies beyond: make sure that none uses it.\n".to_owned()
        }
    })
}

/// Whose registrations go, and what of the reservation.
struct Removal<'a> {
    removed: Vec<&'a RegistrantStatus>,
    /// Whether nobody is left who holds the reservation, if there is one.
    ends: bool,
}

/// What goes with a key, or with all of them.
fn removal(reservations: &ReservationStatus, key: Option<u64>) -> Removal<'_> {
    let key = key.map(|key| format!("{key:#018x}"));
    let goes =
        |registrant: &&RegistrantStatus| key.as_ref().is_none_or(|key| registrant.key == *key);
    let (removed, kept): (Vec<_>, Vec<_>) = reservations.registrants.iter().partition(goes);
    let ends = !kept.iter().any(|registrant| registrant.holder);
    Removal { removed, ends }
}

fn concern_of_clear(reservations: &ReservationStatus) -> String {
    if let Some(reason) = &reservations.unreadable {
        return format!(
            "  {reason}\n  The record is set aside, and all registrations are forgotten. A host that was fenced can \
             write again, and so can one that believes another is: make sure that none is up.\n"
        );
    }
    if let Some(holder) = &reservations.reserve {
        return format!(
            "  The RESERVE of {holder} ends: every initiator can read and write then. It is told so (RESERVATIONS PREEMPTED).\n"
        );
    }
    let Removal { removed, .. } = removal(reservations, None);
    if removed.is_empty() {
        return "  nobody is registered\n".to_owned();
    }
    format!(
        "  These lose their registration, and are told so (RESERVATIONS PREEMPTED):\n{}{}",
        text::registrants(removed),
        fate(reservations, true)
    )
}

fn concern_of_preempt(unit: &UnitStatus, key: u64) -> Result<String, Error> {
    let reservations = &unit.reservations;
    if reservations.unreadable.is_some() {
        // The daemon refuses it, and says what to do.
        return Ok(String::new());
    }
    let Removal { removed, ends } = removal(reservations, Some(key));
    if removed.is_empty() {
        let registrants = reservations.registrants.iter();
        return Err(Error::NoSuchKey {
            key,
            path: unit.path.clone(),
            keys: registrants.map(|one| one.key.clone()).collect(),
        });
    }
    Ok(format!(
        "  These lose their registration, and are told so (REGISTRATIONS PREEMPTED):\n{}{}",
        text::registrants(removed),
        fate(reservations, ends)
    ))
}

/// What becomes of the reservation, and so of those who lose their registration.
fn fate(reservations: &ReservationStatus, ends: bool) -> String {
    let Some(held) = &reservations.reservation else {
        return "  Nothing is reserved: they can read and write as before.\n".to_owned();
    };
    let kind = &held.kind;
    if ends {
        return format!(
            "  The reservation ends ({kind}): every initiator can read and write then.\n"
        );
    }
    let holder = held.holder.as_deref().unwrap_or("all registrants");
    let access = if kind.starts_with("Exclusive Access") {
        "neither read nor write"
    } else {
        "read, but not write"
    };
    format!(
        "  The reservation stays ({kind}, held by {holder}): they can {access}, until they register again or it ends.\n"
    )
}

/// Asks a person whether it is meant.
pub(super) fn confirm(
    mut person: Person<impl BufRead>,
    output: &mut impl Write,
) -> Result<(), Error> {
    print(output, "Type \"yes\" to go on: ")?;
    let mut answer = String::new();
    person.input.read_line(&mut answer).map_err(Error::Read)?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(Error::NotConfirmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::HeldStatus;
    use crate::control::Orders;
    use crate::control::dbus::tests::{PrivateBus, daemon};
    use crate::control::tests::example;

    fn clear(unit: &str, yes: bool) -> Clear {
        Clear {
            unit: unit.to_owned(),
            yes,
            json: false,
        }
    }

    fn preempt(key: u64) -> Preempt {
        Preempt {
            unit: "/srv/lun0.img".to_owned(),
            key,
            yes: true,
            json: false,
        }
    }

    /// A daemon that lets unit 6001405a be cleared, and refuses everything else.
    fn run(command: impl Into<Change>, said: Option<&str>) -> (Result<(), Error>, String) {
        let bus = PrivateBus::new();
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        let (_service, _lost) = dbus::serve(&bus.bus, &orders).expect("the names are free");
        let person = Person {
            input: said.unwrap_or_default().as_bytes(),
            is_there: said.is_some(),
        };
        let mut output = Vec::new();
        let outcome = change(command, &bus.bus, person, &mut output);
        (outcome, String::from_utf8(output).expect("it is text"))
    }

    #[test]
    fn who_says_yes_has_seen_what_is_removed() {
        let (outcome, output) = run(clear("lun0-a", false), Some("yes\n"));
        outcome.expect("it is meant");
        assert!(
            output.contains("\n  0x00000000000000a1  yes     iqn.2026-11.example:a"),
            "{output}"
        );
        assert!(
            output.ends_with("Type \"yes\" to go on: done\n"),
            "{output}"
        );
    }

    #[test]
    fn anything_but_yes_changes_nothing() {
        for said in ["", "y\n", "no\n", "yes please\n"] {
            let (outcome, output) = run(clear("lun0-a", false), Some(said));
            let error = outcome.expect_err(said);
            assert!(matches!(error, Error::NotConfirmed), "{said}");
            assert_eq!(error.exit_status(), 1);
            assert!(!output.contains("done"), "{output}");
        }
    }

    #[test]
    fn a_script_has_to_say_yes_on_its_command_line() {
        let (outcome, output) = run(clear("lun0-a", false), None);
        let error = outcome.expect_err("nobody is there");
        assert_eq!(error.exit_status(), 2);
        assert!(error.to_string().contains("--yes"), "{error}");
        assert!(output.is_empty());
        let (outcome, output) = run(clear("lun0-a", true), None);
        outcome.expect("it says so");
        assert_eq!(output, "done\n");
    }

    #[test]
    fn a_key_that_nobody_has_is_an_error_that_names_those_there_are() {
        let (outcome, _) = run(preempt(0xdead), None);
        let error = outcome.expect_err("there is none").to_string();
        assert!(error.contains("0x000000000000dead"), "{error}");
        assert!(error.contains("there are: 0x00000000000000a1"), "{error}");
    }

    #[test]
    fn who_forgets_a_failed_flush_is_told_what_that_means() {
        let command = ClearFlushFailure {
            unit: "lun0-a".to_owned(),
            yes: false,
            json: false,
        };
        let (outcome, output) = run(command, Some("yes\n"));
        let error = outcome.expect_err("this daemon refuses it").to_string();
        assert_eq!(error, "6001405a: ClearFlushFailure is not good");
        assert!(output.contains("no flush has failed"), "{output}");
    }

    #[test]
    fn a_resize_asks_only_whether_it_may_become_smaller() {
        let resize = |shrink| Resize {
            unit: "lun0-a".to_owned(),
            size_bytes: Some(1 << 20),
            shrink,
            yes: false,
            json: false,
        };
        let (outcome, output) = run(resize(false), None);
        let error = outcome.expect_err("this daemon refuses it").to_string();
        let order = "Resize { size_bytes: Some(1048576), shrink: false }";
        assert_eq!(error, format!("6001405a: {order} is not good"));
        assert!(output.is_empty());
        let (outcome, _) = run(resize(true), None);
        assert!(matches!(outcome, Err(Error::NobodyToAsk)));
        let (outcome, output) = run(resize(true), Some("no\n"));
        assert!(matches!(outcome, Err(Error::NotConfirmed)));
        assert!(output.contains("what lies beyond"), "{output}");
    }

    #[test]
    fn a_fence_that_waits_for_the_losers_is_not_taken_for_a_refusal() {
        let (outcome, output) = run(preempt(0xa1), None);
        let error = outcome.expect_err("this daemon waits for commands in flight");
        assert_eq!(error.to_string(), "they can still write");
        assert_eq!(error.exit_status(), 6);
        assert!(output.is_empty(), "{output}");
    }

    #[test]
    fn a_clear_tells_that_it_ends_a_reserve() {
        let mut unit = example().units.remove(0);
        unit.reservations.registrants.clear();
        unit.reservations.reservation = None;
        unit.reservations.reserve = Some("a -> t".to_owned());
        let told = concern(&unit, Administration::Clear).expect("it can be told");
        assert!(told.starts_with("  The RESERVE of a -> t ends"), "{told}");
    }

    const REMOVED: &str = "  KEY                 HOLDER  INITIATOR              ISID            PORT  TARGET PORT
  0x00000000000000a1  yes     iqn.2026-11.example:a  0x00023d000001  1     iqn.2026-11.example:t,t,0x0001
";

    #[test]
    fn what_a_clear_does_is_told_before() {
        let unit = example().units.remove(0);
        let told = concern(&unit, Administration::Clear).expect("it can be told");
        let expected = format!(
            "  These lose their registration, and are told so (RESERVATIONS PREEMPTED):\n{REMOVED}  The reservation ends \
             (Write Exclusive, Registrants Only): every initiator can read and write then.\n"
        );
        assert_eq!(told, expected);
    }

    #[test]
    fn what_a_preempt_does_is_told_before() {
        let mut unit = example().units.remove(0);
        let mut other = unit.reservations.registrants[0].clone();
        other.initiator = "iqn.2026-11.example:b".to_owned();
        other.key = "0x00000000000000b2".to_owned();
        other.holder = false;
        unit.reservations.registrants.push(other);
        let told = |unit: &UnitStatus, key| {
            concern(unit, Administration::Preempt { key }).expect("it can be told")
        };
        let text = told(&unit, 0xa1);
        let expected = format!(
            "  These lose their registration, and are told so (REGISTRATIONS PREEMPTED):\n{REMOVED}  The reservation ends \
             (Write Exclusive, Registrants Only): every initiator can read and write then.\n"
        );
        assert_eq!(text, expected);
        let text = told(&unit, 0xb2);
        assert!(
            text.ends_with(
                "  The reservation stays (Write Exclusive, Registrants Only, held by iqn.2026-11.example:a -> \
                 iqn.2026-11.example:t,t,0x0001): they can read, but not write, until they register again or it ends.\n"
            ),
            "{text}"
        );
        unit.reservations.registrants[1].holder = true;
        unit.reservations.reservation = Some(HeldStatus {
            kind: "Exclusive Access, All Registrants".to_owned(),
            holder: None,
        });
        let text = told(&unit, 0xb2);
        assert!(
            text.ends_with(
                "  The reservation stays (Exclusive Access, All Registrants, held by all registrants): they can neither \
                 read nor write, until they register again or it ends.\n"
            ),
            "{text}"
        );
        unit.reservations.reservation = None;
        let text = told(&unit, 0xb2);
        let expected = "  Nothing is reserved: they can read and write as before.\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn a_program_reads_what_was_done() {
        let mut command = clear("lun0-a", true);
        command.json = true;
        let (outcome, output) = run(command, None);
        outcome.expect("it says so");
        let expected = r#"{
  "done": "clear",
  "path": "/srv/lun0.img",
  "serial": "6001405a",
  "removed": [
    {
      "initiator": "iqn.2026-11.example:a",
      "isid": "0x00023d000001",
      "target": "iqn.2026-11.example:t,t,0x0001",
      "relative_target_port": 1,
      "key": "0x00000000000000a1",
      "holder": true
    }
  ]
}
"#;
        assert_eq!(output, expected);
        // It is not asked, whoever is there.
        let mut command = clear("lun0-a", false);
        command.json = true;
        let (outcome, output) = run(command, Some("yes\n"));
        assert!(matches!(outcome, Err(Error::NobodyToAsk)));
        assert!(output.is_empty(), "{output}");
    }
}
