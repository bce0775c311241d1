//! Changes by the administrator: shown, asked for, then ordered.

use std::io::{BufRead, Write};

use super::{Clear, ClearFlushFailure, Error, Preempt, Resize, find, print, text};
use crate::control::dbus::{self, Bus};
use crate::control::{Administration, RegistrantStatus, UnitStatus};

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
}

impl From<Clear> for Change {
    fn from(options: Clear) -> Change {
        Change {
            unit: options.unit,
            action: Administration::Clear,
            yes: options.yes,
        }
    }
}

impl From<Preempt> for Change {
    fn from(options: Preempt) -> Change {
        Change {
            unit: options.unit,
            action: Administration::Preempt { key: options.key },
            yes: options.yes,
        }
    }
}

impl From<ClearFlushFailure> for Change {
    fn from(options: ClearFlushFailure) -> Change {
        Change {
            unit: options.unit,
            action: Administration::ClearFlushFailure,
            yes: options.yes,
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
        }
    }
}

/// Shows what will be removed or lost, asks, and has the daemon on `bus` do it.
pub fn change(
    change: impl Into<Change>,
    bus: &Bus,
    person: Person<impl BufRead>,
    output: &mut impl Write,
) -> Result<(), Error> {
    let Change { unit, action, yes } = change.into();
    if !yes && !person.is_there {
        return Err(Error::NobodyToAsk);
    }
    let status = dbus::status(bus)?;
    let unit = find(&status, &unit)?;
    let concern = match action {
        Administration::Clear => concern_of_removal(unit, None)?,
        Administration::Preempt { key } => concern_of_removal(unit, Some(key))?,
        Administration::ClearFlushFailure if unit.flush_failed => {
            "  A flush has failed: what hosts believe to be written may be lost. Writes are served again after this: make \
             sure that the data has been checked or restored.\n"
                .to_owned()
        }
        Administration::ClearFlushFailure => "  no flush has failed\n".to_owned(),
        Administration::Resize { .. } => {
            "  If it becomes smaller, hosts can't reach any more what lies beyond: make sure that none uses it.\n".to_owned()
        }
    };
    let question = format!("{}  serial {}\n{concern}", unit.path, unit.serial);
    if !yes {
        print(output, &format!("{question}Type \"yes\" to go on: "))?;
        confirm(person.input)?;
    }
    dbus::administer(bus, &unit.serial, action)?;
    print(output, "done\n")
}

/// What is removed: all registrations, or those with a key.
fn concern_of_removal(unit: &UnitStatus, key: Option<u64>) -> Result<String, Error> {
    let reservations = &unit.reservations;
    let meant = key.map(|key| (key, format!("{key:#018x}")));
    let is_meant = |registrant: &&RegistrantStatus| {
        meant.as_ref().is_none_or(|(_, key)| registrant.key == *key)
    };
    let removed: Vec<&RegistrantStatus> =
        reservations.registrants.iter().filter(is_meant).collect();
    Ok(if let Some(reason) = &reservations.unreadable {
        format!(
            "  {reason}\n  The record is set aside, and all registrations are forgotten. A host that was fenced can \
             write again, and so can one that believes another is: make sure that none is up.\n"
        )
    } else if let (Some((key, _)), true) = (&meant, removed.is_empty()) {
        return Err(Error::NoSuchKey {
            key: *key,
            path: unit.path.clone(),
            keys: reservations
                .registrants
                .iter()
                .map(|registrant| registrant.key.clone())
                .collect(),
        });
    } else if removed.is_empty() {
        "  nobody is registered\n".to_owned()
    } else {
        let removed = text::registrants(removed);
        format!(
            "  These lose their registration, and the reservation ends if none of its holders is left:\n{removed}"
        )
    })
}

fn confirm(mut input: impl BufRead) -> Result<(), Error> {
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(Error::Read)?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(Error::NotConfirmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Orders;
    use crate::control::dbus::tests::{PrivateBus, daemon};

    fn clear(unit: &str, yes: bool) -> Clear {
        Clear {
            unit: unit.to_owned(),
            yes,
        }
    }

    fn preempt(key: u64) -> Preempt {
        Preempt {
            unit: "/srv/lun0.img".to_owned(),
            key,
            yes: true,
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
    fn what_the_daemon_says_comes_through() {
        let (outcome, _) = run(preempt(0xa1), None);
        let error = outcome.expect_err("this daemon refuses it").to_string();
        assert_eq!(error, "6001405a: Preempt { key: 161 } is not good");
    }
}
