//! `tcmu-pr nexus remove`.

use std::io::{BufRead, Write};
use std::path::Path;

use serde::Serialize;

use super::configured::{self, Group, Known, Mapped, Way};
use super::targetcli::Configure;
use super::{CliError, Error, Remove, save};
use crate::cli::change::confirm;
use crate::cli::{Person, find, json, print};
use crate::control::dbus::{self, Bus};
use crate::control::{RegistrantStatus, UnitStatus};
use crate::tcmu::configfs::port_groups;

/// What is gone now.
#[derive(Serialize)]
struct Removed<'a> {
    done: &'static str,
    path: &'a str,
    serial: &'a str,
    backstore: &'a str,
    label: &'a str,
    initiator: Option<&'a str>,
    target: Option<&'a str>,
    tpg: Option<u16>,
    lun: Option<u64>,
    /// Whether targetcli's configuration is saved.
    saved: bool,
}

pub(super) fn remove(
    options: &Remove,
    bus: &Bus,
    root: &Path,
    targetcli: &mut impl Configure,
    person: Person<impl BufRead>,
    output: &mut impl Write,
) -> Result<(), CliError> {
    if !options.yes && (options.json || !person.is_there) {
        return Err(CliError::NobodyToAsk);
    }
    let (mut unit, mut nexus) = look(options, bus, root)?;
    if !options.yes {
        let shown = concern(&unit, &nexus);
        print(output, &shown)?;
        confirm(person, output)?;
        // Before the answer came, it may have registered or logged in.
        (unit, nexus) = look(options, bus, root)?;
        if concern(&unit, &nexus) != shown {
            return Err(Error::Changed.into());
        }
    }
    carry_out(&steps(&nexus, root)?, &nexus.label, targetcli)?;
    if options.save {
        save(targetcli, "removed")?;
    }
    print(
        output,
        &if options.json {
            json(&removed(&unit, &nexus, options.save))?
        } else if options.save {
            "done, and saved\n".to_owned()
        } else {
            "done; after a boot it is back, unless `targetcli saveconfig` is run now\n".to_owned()
        },
    )
}

/// The unit and the nexus that are meant, if that may go.
fn look(options: &Remove, bus: &Bus, root: &Path) -> Result<(UnitStatus, Known), CliError> {
    let status = dbus::status(bus)?;
    let unit = find(&status, &options.unit)?;
    let groups = port_groups(root).map_err(Error::Configuration)?;
    let known = configured::known(unit, &groups);
    let nexus = meant(unit, &known, &options.initiator)?;
    may_go(unit, nexus, options.force)?;
    Ok((unit.clone(), nexus.clone()))
}

/// The one that is called so, by its initiator or its label.
fn meant<'a>(unit: &UnitStatus, known: &'a [Known], name: &str) -> Result<&'a Known, Error> {
    let is_initiators = |one: &&Known| {
        let mut mapped = one.ways.iter().filter_map(|way| way.mapped.as_ref());
        mapped.any(|mapped| mapped.initiator.eq_ignore_ascii_case(name))
    };
    let labels = |known: &[&Known]| {
        let labels: Vec<&str> = known.iter().map(|one| one.label.as_str()).collect();
        labels.join(", ")
    };
    if let Some(labelled) = known.iter().find(|one| one.label == name) {
        return Ok(labelled);
    }
    let found: Vec<&Known> = known.iter().filter(is_initiators).collect();
    let path = unit.path.clone();
    let name = name.to_owned();
    match found[..] {
        [one] => Ok(one),
        [] => Err(Error::NoSuchNexus {
            path,
            name,
            there: labels(&known.iter().collect::<Vec<_>>()),
        }),
        _ => Err(Error::SeveralNexuses {
            path,
            name,
            labels: labels(&found),
        }),
    }
}

/// The one way to it, and to whom it is mapped.
fn mapping(nexus: &Known) -> Option<(&Way, Option<&Mapped>)> {
    let way = nexus.ways.first()?;
    Some((way, way.mapped.as_ref()))
}

/// Whether nobody is hurt by its end, and it is no more than what `nexus add` makes.
fn may_go(unit: &UnitStatus, nexus: &Known, force: bool) -> Result<(), Error> {
    if nexus.exports > 1 || nexus.ways.len() > 1 {
        return Err(Error::MappedTwice(nexus.backstore.clone()));
    }
    let Some((way, mapped)) = mapping(nexus) else {
        return Ok(());
    };
    if way.fabric != "iscsi" {
        return Err(Error::OtherFabric(nexus.backstore.clone()));
    }
    let Some(mapped) = mapped else {
        return Ok(());
    };
    let port = format!("{},t,{:#06x}", way.target, way.tag);
    let registered = |registrant: &&RegistrantStatus| {
        registrant.initiator.eq_ignore_ascii_case(&mapped.initiator)
            && registrant.target.eq_ignore_ascii_case(&port)
    };
    if let Some(registrant) = unit.reservations.registrants.iter().find(registered) {
        return Err(Error::Registered {
            initiator: mapped.initiator.clone(),
            serial: unit.serial.clone(),
            key: registrant.key.clone(),
        });
    }
    if mapped.logged_in && !force {
        return Err(Error::LoggedIn(mapped.initiator.clone()));
    }
    Ok(())
}

/// What will happen, and to whom.
fn concern(unit: &UnitStatus, nexus: &Known) -> String {
    let mut text = format!("{}  serial {}\n", unit.path, unit.serial);
    if let Some((way, Some(mapped))) = mapping(nexus) {
        let Way { target, tag, .. } = way;
        let Mapped { initiator, lun, .. } = mapped;
        text += &format!("  {initiator} loses LUN {lun} at {target}, portal group {tag}.\n");
        if mapped.logged_in {
            text += "  It is logged in: what it reads and writes fails then.\n";
        }
    }
    text += &format!("  The backstore {} is removed.\n", nexus.backstore);
    if unit.ports.len() == 1 {
        text += "  It is the last of the disk: registrations without APTPL end, and what hosts have set and not saved.\n";
    }
    text + "  The disk stays, and what is on it.\n"
}

/// The commands of targetcli's, from the initiator down to the backstore.
fn steps(nexus: &Known, root: &Path) -> Result<Vec<String>, Error> {
    let mut steps = Vec::new();
    if let Some((way, mapped)) = mapping(nexus) {
        let group = Group::find(root, &way.target, way.tag)?;
        let place = group.path();
        if let Some(Mapped { initiator, lun, .. }) = mapped {
            steps.push(format!("{place}/acls/{initiator} delete mapped_lun={lun}"));
            if group.acl_is_spent(initiator, *lun)? {
                steps.push(format!("{place}/acls delete wwn={initiator}"));
            }
        }
        steps.push(format!("{place}/luns delete lun={}", way.group_lun));
    }
    let name = nexus.backstore.split_once('/').map(|(_, name)| name);
    let name = name.unwrap_or(&nexus.backstore);
    steps.push(format!("/backstores/user:pr delete name={name}"));
    Ok(steps)
}

fn carry_out(steps: &[String], label: &str, targetcli: &mut impl Configure) -> Result<(), Error> {
    for (done, step) in steps.iter().enumerate() {
        match targetcli.run(step) {
            Ok(()) => {}
            Err(error) if done == 0 => return Err(error),
            Err(error) => {
                return Err(Error::HalfRemoved {
                    label: label.to_owned(),
                    removed: steps[..done].join("; "),
                    source: Box::new(error),
                });
            }
        }
    }
    Ok(())
}

fn removed<'a>(unit: &'a UnitStatus, nexus: &'a Known, saved: bool) -> Removed<'a> {
    let mapping = mapping(nexus);
    let way = mapping.map(|(way, _)| way);
    let mapped = mapping.and_then(|(_, mapped)| mapped);
    Removed {
        done: "nexus-remove",
        path: &unit.path,
        serial: &unit.serial,
        backstore: &nexus.backstore,
        label: &nexus.label,
        initiator: mapped.map(|mapped| mapped.initiator.as_str()),
        target: way.map(|way| way.target.as_str()),
        tpg: way.map(|way| way.tag),
        lun: mapped.map(|mapped| mapped.lun),
        saved,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::super::targetcli::tests::Noted;
    use super::*;
    use crate::control::Orders;
    use crate::control::dbus::tests::{PrivateBus, daemon};
    use crate::control::tests::example;
    use crate::tcmu::configfs::tests::Tree;

    const T: &str = "iqn.2026-11.example:t";
    const A: &str = "iqn.2026-11.example:a";

    fn nexus(label: &str, initiator: &str, logged_in: bool) -> Known {
        Known {
            backstore: format!("user_0/lun0-{label}"),
            label: label.to_owned(),
            ways: vec![Way {
                fabric: "iscsi".to_owned(),
                target: T.to_owned(),
                tag: 1,
                group_lun: 4,
                mapped: Some(Mapped {
                    initiator: initiator.to_owned(),
                    lun: 7,
                    logged_in,
                }),
            }],
            exports: 1,
        }
    }

    #[test]
    fn a_nexus_is_found_by_its_initiator_or_its_label() {
        let unit = example().units.remove(0);
        let known = [
            nexus("a", A, false),
            nexus("b", "iqn.2026-11.example:b", false),
            nexus("b-2", "iqn.2026-11.example:b", false),
        ];
        let found = |name: &str| meant(&unit, &known, name).map(|one| one.label.as_str());
        assert_eq!(found(A).expect("it is there"), "a");
        assert_eq!(found("IQN.2026-11.example:A").expect("it is there"), "a");
        assert_eq!(found("b-2").expect("it is there"), "b-2");
        let error = found("iqn.2026-11.example:b").expect_err("there are two");
        assert_eq!(
            error.to_string(),
            "iqn.2026-11.example:b has several backstores of /srv/lun0.img: write one of their labels, b, b-2"
        );
        let error = found("c").expect_err("there is none");
        assert_eq!(
            error.to_string(),
            "/srv/lun0.img has no backstore for c; there are: a, b, b-2"
        );
        assert_eq!(error.exit_status(), 4);
    }

    #[test]
    fn who_is_registered_or_logged_in_keeps_it() {
        let mut unit = example().units.remove(0);
        let error = may_go(&unit, &nexus("a", A, true), true).expect_err("it is registered");
        assert_eq!(
            error.to_string(),
            format!(
                "{A} is registered: let it unregister, or remove its registration with `tcmu-pr preempt 6001405a \
                 0x00000000000000a1`, and try again"
            )
        );
        unit.reservations.registrants.clear();
        let error = may_go(&unit, &nexus("a", A, true), false).expect_err("it is logged in");
        assert!(matches!(error, Error::LoggedIn(_)));
        assert_eq!(error.exit_status(), 5);
        assert!(may_go(&unit, &nexus("a", A, true), true).is_ok());
        assert!(may_go(&unit, &nexus("a", A, false), false).is_ok());
        let mut twice = nexus("a", A, false);
        twice.exports = 2;
        assert!(matches!(
            may_go(&unit, &twice, true),
            Err(Error::MappedTwice(_))
        ));
        twice.exports = 1;
        twice.ways[0].fabric = "loopback".to_owned();
        assert!(matches!(
            may_go(&unit, &twice, true),
            Err(Error::OtherFabric(_))
        ));
    }

    #[test]
    fn what_happens_is_told_before() {
        let mut unit = example().units.remove(0);
        let expected = format!(
            "/srv/lun0.img  serial 6001405a\n  {A} loses LUN 7 at {T}, portal group 1.\n  It is logged in: what it reads \
             and writes fails then.\n  The backstore user_0/lun0-a is removed.\n  The disk stays, and what is on it.\n"
        );
        assert_eq!(concern(&unit, &nexus("a", A, true)), expected);
        unit.ports.truncate(1);
        let last = concern(&unit, &nexus("a", A, false));
        assert!(last.contains("  It is the last of the disk: "), "{last}");
    }

    #[test]
    fn it_is_removed_from_the_initiator_down() {
        let tree = Tree::new();
        let group = tree.iscsi(T, 1);
        tree.lun(&group, 4, "user_0/lun0-a").acl(&group, A, 7, 4);
        // It can be removed although whoever comes is let in by now.
        tree.file(&format!("{group}/attrib/generate_node_acls"), "1\n");
        let steps = steps(&nexus("a", A, false), tree.root()).expect("it can be seen");
        let expected = [
            "/iscsi/iqn.2026-11.example:t/tpg1/acls/iqn.2026-11.example:a delete mapped_lun=7",
            "/iscsi/iqn.2026-11.example:t/tpg1/acls delete wwn=iqn.2026-11.example:a",
            "/iscsi/iqn.2026-11.example:t/tpg1/luns delete lun=4",
            "/backstores/user:pr delete name=lun0-a",
        ];
        assert_eq!(steps, expected);
        let mut targetcli = Noted {
            refused: vec!["luns delete"],
            ..Noted::default()
        };
        let error = carry_out(&steps, "a", &mut targetcli).expect_err("it is refused");
        assert_eq!(targetcli.commands, expected[..3]);
        assert_eq!(
            error.to_string(),
            format!(
                "not all of it could be removed; try again, with its label a. Removed before that: {}; {}",
                expected[0], expected[1]
            )
        );
        assert_eq!(error.exit_status(), 1);
    }

    /// Somebody who says yes, after something has happened.
    struct SaysYes<F>(F);

    impl<F: FnMut()> Read for SaysYes<F> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0();
            Read::read(&mut &b"yes\n"[..], buffer)
        }
    }

    #[test]
    fn what_has_changed_before_the_answer_is_not_removed() {
        let bus = PrivateBus::new();
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        let (_service, _lost) = dbus::serve(&bus.bus, &orders).expect("the names are free");
        let b = "iqn.2026-11.example:b";
        let removed = |force: bool, meanwhile: fn(&Tree, &str)| {
            let tree = Tree::new();
            let group = tree.iscsi(T, 1);
            tree.lun(&group, 4, "user_0/lun0-b").acl(&group, b, 7, 4);
            let options = Remove {
                unit: "/srv/lun0.img".to_owned(),
                initiator: b.to_owned(),
                force,
                yes: false,
                save: false,
                json: false,
            };
            let person = Person {
                input: BufReader::new(SaysYes(|| meanwhile(&tree, &group))),
                is_there: true,
            };
            let mut targetcli = Noted::default();
            let (root, mut output) = (tree.root(), Vec::new());
            let outcome = remove(
                &options,
                &bus.bus,
                root,
                &mut targetcli,
                person,
                &mut output,
            );
            (outcome, targetcli.commands.len())
        };
        let logs_in = |tree: &Tree, group: &str| {
            tree.file(&format!("{group}/acls/iqn.2026-11.example:b/info"), "?\n");
        };
        let (outcome, steps) = removed(false, |_, _| {});
        assert!(outcome.is_ok() && steps == 4, "{outcome:?}, {steps}");
        for (force, expected) in [(false, "is logged in"), (true, "not as it was")] {
            let (outcome, steps) = removed(force, logs_in);
            let error = outcome.expect_err("it has logged in").to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(steps, 0);
        }
    }
}
