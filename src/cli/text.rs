//! What a person reads.

use std::fmt::Write as _;

use super::performance;

use crate::control::{
    LinkStatus, RegistrantStatus, ReservationStatus, SessionStatus, Status, TapStatus, UnitStatus,
};

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
    let tap = match &status.tap {
        TapStatus::Attached => "nexus tap attached".to_owned(),
        TapStatus::Missing { reason } => format!("no nexus tap: {reason}"),
    };
    let _ = writeln!(text, "tcmu-pr {}, {tap}", status.version);
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
            LinkStatus::Shared { targets } => {
                format!("all initiators -> {}", targets.join(" "))
            }
            LinkStatus::Waiting { reason } => format!("nobody yet: {reason}"),
        };
        [
            port.backstore.clone(),
            port.uio.clone(),
            port.label.clone().unwrap_or_else(|| "-".to_owned()),
            link,
        ]
    });
    let counters = &unit.counters;
    let not_noted = match counters.not_noted {
        0 => String::new(),
        number => format!(" ({number} that the nexus tap has not noted)"),
    };
    let waiting = match unit.waiting.answers {
        0 => String::new(),
        answers => format!(
            "; {answers} answers wait for commands of those who lost access, since {} s",
            unit.waiting.seconds
        ),
    };
    let commands = format!(
        "{} ({} reads, {} writes), {} in flight; refused: {} conflicts, {} of an unknown nexus{not_noted}{waiting}",
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
    let mut facts = vec![
        ("reservation", reservation(&unit.reservations)),
        (
            "registered",
            format!("{}, generation {generation}", registrants.len()),
        ),
        ("commands", commands),
        ("engine", unit.engine.clone()),
    ];
    facts.extend(performance::facts(unit.performance.as_ref()));
    facts.extend(state(unit).map(|state| ("writes", state)));
    head + &aligned(std::iter::once(titles).chain(ports))
        + &aligned(
            facts
                .into_iter()
                .map(|(name, fact)| [name.to_owned(), fact]),
        )
        + &aligned(unit.sessions.iter().map(session))
        + &aligned(registrants.iter().map(registrant))
}

fn session(session: &SessionStatus) -> [String; 2] {
    let SessionStatus {
        initiator,
        isid,
        target,
        read_only,
    } = session;
    let read_only = if *read_only { ", read only" } else { "" };
    [
        "  session".to_owned(),
        format!("{} -> {target}{read_only}", port_name(initiator, isid)),
    ]
}

/// The name of an initiator port.
fn port_name(initiator: &str, isid: &Option<String>) -> String {
    match isid {
        Some(isid) => format!("{initiator},i,{isid}"),
        None => initiator.to_owned(),
    }
}

/// Why writes are refused to everybody, if they are.
fn state(unit: &UnitStatus) -> Option<String> {
    if unit.flush_failed {
        let serial = &unit.serial;
        return Some(format!(
            "refused since a flush has failed, and data may be lost: when that is seen to, tcmu-pr clear-flush-failure {serial}"
        ));
    }
    let protected = "refused, since an initiator has write protected the disk (SWP)";
    unit.software_write_protect.then(|| protected.to_owned())
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
    [
        format!("  key {key}"),
        format!("{} -> {target}", port_name(initiator, isid)),
    ]
}

/// One logical unit's reservations as a person reads them.
pub(super) fn show(unit: &UnitStatus) -> String {
    let reservations = &unit.reservations;
    let mut text = format!("{}  serial {}\n", unit.path, unit.serial);
    if let Some(state) = state(unit) {
        text += &format!("  writes are {state}\n");
    }
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
  engine       io_uring
  queue        32 commands, 64 at most; 5 answered with BUSY, 2 slower than 10 s
  read         1200 IOPS, 56.7 MB/s, latency p50 120 us, p99 800 us, p99.9 2100 us, greatest 15 ms
  write        3 IOPS, 0.0 MB/s, latency p50 9999 us, p99 10 ms, p99.9 1234 ms, greatest 12 s
    key 0x00000000000000a1  iqn.2026-11.example:a,i,0x00023d000001 -> iqn.2026-11.example:t,t,0x0001

refused backstores
  user_7/odd  the config string has no nexus label

tcmu-pr 0.1.0, nexus tap attached
";
        assert_eq!(status(&example()), expected);
    }

    #[test]
    fn those_who_share_a_backstore_are_listed() {
        let mut shared = example();
        shared.tap = TapStatus::Missing {
            reason: "it was taken out".into(),
        };
        shared.refused.clear();
        let unit = &mut shared.units[0];
        unit.ports.truncate(1);
        unit.ports[0].label = None;
        unit.ports[0].link = LinkStatus::Shared {
            targets: vec!["iqn.x:t,t,0x0001".into(), "iqn.x:t,t,0x0002".into()],
        };
        unit.sessions = [
            ("iqn.x:a", Some("0x00023d000001"), false),
            ("naa.3", None, true),
        ]
        .map(|(initiator, isid, read_only)| SessionStatus {
            initiator: initiator.into(),
            isid: isid.map(str::to_owned),
            target: "iqn.x:t,t,0x0001".into(),
            read_only,
        })
        .to_vec();
        unit.reservations = ReservationStatus::default();
        unit.counters.not_noted = 1;
        unit.performance = None;
        let expected = "\
/srv/lun0.img  10 GiB, 512-byte blocks, serial 6001405a
  BACKSTORE      DEVICE  NEXUS  SERVES
  user_0/lun0-a  uio0    -      all initiators -> iqn.x:t,t,0x0001 iqn.x:t,t,0x0002
  reservation  none
  registered   0, generation 0
  commands     1234 (1000 reads, 200 writes), 32 in flight; refused: 4 conflicts, 1 of an unknown nexus \
(1 that the nexus tap has not noted)
  engine       io_uring
  queue        not known: its thread does not answer
    session  iqn.x:a,i,0x00023d000001 -> iqn.x:t,t,0x0001
    session  naa.3 -> iqn.x:t,t,0x0001, read only

tcmu-pr 0.1.0, no nexus tap: it was taken out
";
        assert_eq!(status(&shared), expected);
    }

    #[test]
    fn an_idle_daemon_has_something_to_say_too() {
        let idle = Status {
            version: "0.1.0".into(),
            ..Status::default()
        };
        assert_eq!(
            status(&idle),
            "no logical units\n\ntcmu-pr 0.1.0, no nexus tap: \n"
        );
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
    fn why_writes_are_refused_is_shown() {
        let mut shown = example();
        assert!(!status(&shown).contains("  writes "));
        shown.units[0].software_write_protect = true;
        let protected = "refused, since an initiator has write protected the disk (SWP)\n";
        assert!(status(&shown).contains(&format!("  writes       {protected}")));
        shown.units[0].flush_failed = true;
        let failed = "refused since a flush has failed, and data may be lost: when that is seen to, tcmu-pr \
                      clear-flush-failure 6001405a\n";
        assert!(status(&shown).contains(&format!("  writes       {failed}")));
        assert!(show(&shown.units[0]).contains(&format!("\n  writes are {failed}")));
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
