//! `tcmu-pr nexus list`.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::configured::{self, Known, Mapped};
use super::{CliError, Error, List};
use crate::cli::{json, print, text};
use crate::control::dbus::{self, Bus};
use crate::control::{LinkStatus, PortStatus, Status, UnitStatus};
use crate::tcmu::configfs::{PortGroup, port_groups};

/// A backstore that serves one initiator, as a program reads it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Entry {
    path: String,
    serial: String,
    backstore: String,
    label: String,
    /// Why it serves nobody, if so.
    problem: Option<String>,
    initiator: Option<String>,
    target: Option<String>,
    tpg: Option<u16>,
    lun: Option<u64>,
    logged_in: bool,
}

pub(super) fn list(
    options: &List,
    bus: &Bus,
    root: &Path,
    output: &mut impl Write,
) -> Result<(), CliError> {
    let status = dbus::status(bus)?;
    let groups = port_groups(root).map_err(Error::Configuration)?;
    let entries = entries(&status, &groups);
    if options.json {
        return print(output, &json(&entries)?);
    }
    print(output, &table(&entries))
}

fn entries(status: &Status, groups: &[PortGroup]) -> Vec<Entry> {
    let units = status.units.iter();
    let of_unit = |unit| {
        let known = configured::known(unit, groups);
        let ports = known.into_iter().map(|one| (port(unit, &one), one));
        let entries = ports.map(|(port, one)| entry(unit, port, one));
        entries.collect::<Vec<Entry>>()
    };
    let mut entries: Vec<Entry> = units.flat_map(of_unit).collect();
    // Not by the numbers that the kernel gave the backstores: those are others after a boot.
    entries.sort_by(|one, other| (&one.path, &one.label).cmp(&(&other.path, &other.label)));
    entries
}

fn port<'a>(unit: &'a UnitStatus, known: &Known) -> Option<&'a PortStatus> {
    let mut ports = unit.ports.iter();
    ports.find(|port| port.backstore == known.backstore)
}

fn entry(unit: &UnitStatus, port: Option<&PortStatus>, known: Known) -> Entry {
    let problem = match port.map(|port| &port.link) {
        Some(LinkStatus::Waiting { reason }) => Some(reason.clone()),
        _ => None,
    };
    let way = known.ways.into_iter().next();
    let (target, tpg) = way
        .as_ref()
        .map(|way| (way.target.clone(), way.tag))
        .unzip();
    let (initiator, lun, logged_in) = match way.and_then(|way| way.mapped) {
        Some(Mapped {
            initiator,
            lun,
            logged_in,
        }) => (Some(initiator), Some(lun), logged_in),
        None => (None, None, false),
    };
    Entry {
        path: unit.path.clone(),
        serial: unit.serial.clone(),
        backstore: known.backstore,
        label: known.label,
        problem,
        initiator,
        target,
        tpg,
        lun,
        logged_in,
    }
}

fn table(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "no backstore serves one initiator alone\n".to_owned();
    }
    let titles = ["LU", "LABEL", "BACKSTORE", "LUN", "LOGGED IN", "SERVES"].map(str::to_owned);
    let rows = entries.iter().map(|entry| {
        let lun = entry.lun.map_or("-".to_owned(), |lun| lun.to_string());
        let serves = match (&entry.problem, &entry.initiator, &entry.target, entry.tpg) {
            (Some(problem), ..) => format!("nobody yet: {problem}"),
            (None, Some(initiator), Some(target), Some(tpg)) => {
                format!("{initiator} -> {target}, portal group {tpg}")
            }
            _ => "-".to_owned(),
        };
        [
            entry.path.clone(),
            entry.label.clone(),
            entry.backstore.clone(),
            lun,
            if entry.logged_in { "yes" } else { "-" }.to_owned(),
            serves,
        ]
    });
    text::aligned(std::iter::once(titles).chain(rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fields;
    use crate::control::tests::example;
    use crate::tcmu::configfs::tests::Tree;

    #[test]
    fn each_is_listed_with_whom_it_serves_or_why_nobody() {
        let tree = Tree::new();
        let (t, a) = ("iqn.2026-11.example:t", "iqn.2026-11.example:a");
        let group = tree.iscsi(t, 1);
        tree.lun(&group, 5, "user_0/lun0-a").acl(&group, a, 3, 5);
        let groups = port_groups(tree.root()).expect("the tree is good");
        let mut status = example();
        status.units[0].ports.reverse();
        let mut entries = entries(&status, &groups);
        // What the kernel shows of sessions is for another test.
        entries[0].logged_in = true;
        assert_eq!(
            table(&entries),
            "  LU             LABEL   BACKSTORE      LUN  LOGGED IN  SERVES
  /srv/lun0.img  node-a  user_0/lun0-a  3    yes        iqn.2026-11.example:a -> iqn.2026-11.example:t, portal group 1
  /srv/lun0.img  node-b  user_0/lun0-b  -    -          -
  /srv/lun0.img  node-c  user_0/lun0-c  -    -          nobody yet: it is not exported
"
        );
        assert_eq!(
            serde_json::to_value(&entries[0]).expect("it is plain data"),
            serde_json::json!({
                "path": "/srv/lun0.img",
                "serial": "6001405a",
                "backstore": "user_0/lun0-a",
                "label": "node-a",
                "problem": null,
                "initiator": a,
                "target": t,
                "tpg": 1,
                "lun": 3,
                "logged_in": true,
            })
        );
        assert_eq!(table(&[]), "no backstore serves one initiator alone\n");
    }

    #[test]
    fn the_documentation_has_all_fields() {
        let full = Entry {
            path: "/srv/lun0.img".to_owned(),
            serial: "6001405a".to_owned(),
            backstore: "user_0/lun0-a".to_owned(),
            label: "a".to_owned(),
            problem: Some("it is not exported".to_owned()),
            initiator: Some("iqn.2026-11.example:a".to_owned()),
            target: Some("iqn.2026-11.example:t".to_owned()),
            tpg: Some(1),
            lun: Some(0),
            logged_in: true,
        };
        let mut entries = entries(&example(), &[]);
        assert_eq!(entries[0].target, None);
        entries.push(full);
        fields::check("What `nexus list` prints", &[entries]);
    }
}
