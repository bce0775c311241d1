//! What a person reads.

use std::fmt::Write as _;

use crate::control::{LinkStatus, RegistrantStatus, ReservationStatus, Status, UnitStatus};

/// The status as a person reads it.
pub(super) fn status(status: &Status) -> String {
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
    let waiting = match unit.waiting.answers {
        0 => String::new(),
        answers => format!(
            "; {answers} answers wait for commands of those who lost access, since {} s",
            unit.waiting.seconds
        ),
    };
    let commands = format!(
        "{} ({} reads, {} writes), {} in flight; refused: {} conflicts, {} of an unknown nexus{waiting}",
        counters.commands,
        counters.reads,
        counters.writes,
        unit.in_flight,
        counters.conflicts,
        counters.unknown_nexus
    );
    let ReservationStatus {
        generation,
        registrants,
        ..
    } = &unit.reservations;
    let facts = [
        ("reservation", reservation(&unit.reservations)),
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

/// What is reserved, and by whom.
fn reservation(reservations: &ReservationStatus) -> String {
    let ReservationStatus {
        unreadable,
        reservation,
        reserve,
        ..
    } = reservations;
    match (reservation, reserve) {
        _ if unreadable.is_some() => {
            "not known, nobody is let in: the record can't be read".to_owned()
        }
        (Some(held), _) => {
            let holder = held.holder.as_deref().unwrap_or("all registrants");
            format!("{}, held by {holder}", held.kind)
        }
        (None, Some(holder)) => format!("RESERVE, held by {holder}"),
        (None, None) => "none".to_owned(),
    }
}

fn registrant(registrant: &RegistrantStatus) -> [String; 2] {
    let RegistrantStatus {
        initiator,
        isid,
        target,
        key,
        ..
    } = registrant;
    let isid = isid
        .as_ref()
        .map_or(String::new(), |isid| format!(",i,{isid}"));
    [
        format!("  key {key}"),
        format!("{initiator}{isid} -> {target}"),
    ]
}

/// One logical unit's reservations as a person reads them.
pub(super) fn show(unit: &UnitStatus) -> String {
    let reservations = &unit.reservations;
    let mut text = format!("{}  serial {}\n", unit.path, unit.serial);
    if let Some(reason) = &reservations.unreadable {
        text += &format!(
            "  {reason}\n  To go on without it, make sure that no host believes that it holds a reservation, and run: \
             tcmu-pr clear {}\n",
            unit.serial
        );
        return text;
    }
    let power_loss = match (reservations.aptpl, reservations.force_aptpl) {
        (true, _) => "survives it (APTPL)",
        (false, true) => "not kept yet: the next registration switches APTPL on (force_aptpl)",
        (false, false) => "everything is lost",
    };
    let facts = [
        ("reservation", reservation(reservations)),
        ("generation", reservations.generation.to_string()),
        ("loss of power", power_loss.to_owned()),
    ];
    text += &aligned(facts.map(|(name, fact)| [name.to_owned(), fact]));
    if reservations.registrants.is_empty() {
        return text + "  nobody is registered\n";
    }
    text + &registrants(&reservations.registrants)
}

/// Registrants, as a table.
pub(super) fn registrants<'a>(
    registrants: impl IntoIterator<Item = &'a RegistrantStatus>,
) -> String {
    let titles = ["KEY", "HOLDER", "INITIATOR", "ISID", "PORT", "TARGET PORT"].map(str::to_owned);
    let rows = registrants.into_iter().map(|registrant| {
        let none = || "-".to_owned();
        let port = registrant.relative_target_port;
        [
            registrant.key.clone(),
            if registrant.holder { "yes" } else { "-" }.to_owned(),
            registrant.initiator.clone(),
            registrant.isid.clone().unwrap_or_else(none),
            port.map_or_else(none, |port| port.to_string()),
            registrant.target.clone(),
        ]
    });
    aligned(std::iter::once(titles).chain(rows))
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
    use crate::control::tests::example;

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
    key 0x00000000000000a1  iqn.2026-11.example:a,i,0x00023d000001 -> iqn.2026-11.example:t,t,0x0001

refused backstores
  user_7/odd  the config string has no nexus label

tcmu-pr 0.1.0
";
        assert_eq!(status(&example()), expected);
    }

    #[test]
    fn an_idle_daemon_has_something_to_say_too() {
        let idle = Status {
            version: "0.1.0".into(),
            ..Status::default()
        };
        assert_eq!(status(&idle), "no logical units\n\ntcmu-pr 0.1.0\n");
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
    fn a_record_that_cannot_be_read_and_a_reserve_are_shown() {
        let mut shown = example();
        shown.units[0].reservations.reservation = None;
        shown.units[0].reservations.reserve = Some("a -> t".to_owned());
        assert!(status(&shown).contains("reservation  RESERVE, held by a -> t\n"));
        shown.units[0].reservations.unreadable = Some("torn".to_owned());
        assert!(status(&shown).contains("reservation  not known, nobody is let in"));
    }

    #[test]
    fn one_unit_is_shown_with_all_that_is_registered() {
        let expected = "\
/srv/lun0.img  serial 6001405a
  reservation    Write Exclusive, Registrants Only, held by iqn.2026-11.example:a -> iqn.2026-11.example:t,t,0x0001
  generation     3
  loss of power  survives it (APTPL)
  KEY                 HOLDER  INITIATOR              ISID            PORT  TARGET PORT
  0x00000000000000a1  yes     iqn.2026-11.example:a  0x00023d000001  1     iqn.2026-11.example:t,t,0x0001
";
        assert_eq!(show(&example().units[0]), expected);
        let mut idle = example().units.remove(0);
        idle.reservations = ReservationStatus {
            force_aptpl: true,
            ..ReservationStatus::default()
        };
        let expected = "\
/srv/lun0.img  serial 6001405a
  reservation    none
  generation     0
  loss of power  not kept yet: the next registration switches APTPL on (force_aptpl)
  nobody is registered
";
        assert_eq!(show(&idle), expected);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_shown_with_what_to_do() {
        let mut unit = example().units.remove(0);
        unit.reservations.unreadable = Some("/run/tcmu-pr/6001405a.pr can't be read".to_owned());
        let text = show(&unit);
        assert!(
            text.contains("\n  /run/tcmu-pr/6001405a.pr can't be read\n"),
            "{text}"
        );
        assert!(text.contains("tcmu-pr clear 6001405a\n"), "{text}");
        assert!(!text.contains("KEY"), "{text}");
    }
}
