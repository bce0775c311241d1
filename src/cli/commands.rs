//! `tcmu-pr commands`: which SCSI commands are served.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::{Error, json, print, text};
use crate::scsi::commands::{COMMANDS, Row};

/// The options of `tcmu-pr commands`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Commands {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// A SCSI command, as a program reads it.
#[derive(Serialize)]
struct Entry {
    name: &'static str,
    opcode: String,
    service_action: Option<String>,
    reservation_class: String,
    /// The form of it that any reservation lets through.
    free_form: Option<&'static str>,
    /// CDB usage data: a bit is 1 where a bit of the CDB is looked at. Byte 0 is the operation code.
    cdb_usage: String,
    recommended_timeout_seconds: u32,
}

impl Entry {
    fn new(row: &'static Row) -> Entry {
        let byte = |byte: u8| format!("{byte:#04x}");
        Entry {
            name: row.name,
            opcode: byte(row.opcode()),
            service_action: row.service_action().map(byte),
            reservation_class: row.access.to_string(),
            free_form: row.free.as_ref().map(|form| form.name),
            cdb_usage: usage(row),
            recommended_timeout_seconds: row.recommended_timeout_s,
        }
    }
}

/// Prints the SCSI commands that are served to `output`.
pub fn commands(options: &Commands, output: &mut impl Write) -> Result<(), Error> {
    if options.json {
        let entries: Vec<Entry> = COMMANDS.iter().map(Entry::new).collect();
        return print(output, &json(&entries)?);
    }
    let titles = [
        "OPCODE",
        "ACTION",
        "COMMAND",
        "RESERVATION CLASS",
        "CDB USAGE",
    ];
    let rows = COMMANDS.iter().map(|row| {
        let [name, opcode, action, class] = row.cells();
        let action = if action.is_empty() {
            "-".to_owned()
        } else {
            action
        };
        [opcode, action, name, class, usage(row)]
    });
    let titles = titles.map(str::to_owned);
    print(output, &text::aligned(std::iter::once(titles).chain(rows)))
}

/// CDB usage data in hexadecimal digits. Where it is longest, a descriptor is cut that says nothing.
fn usage(row: &Row) -> String {
    let bytes: Vec<String> = row.usage.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(json: bool) -> String {
        let mut output = Vec::new();
        commands(&Commands { json }, &mut output).expect("it can be written to");
        String::from_utf8(output).expect("it is text")
    }

    #[test]
    fn a_person_reads_a_table() {
        let text = said(false);
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            words(lines[0]),
            [
                "OPCODE",
                "ACTION",
                "COMMAND",
                "RESERVATION",
                "CLASS",
                "CDB",
                "USAGE"
            ]
        );
        assert_eq!(
            words(lines[1]).join(" "),
            "00h - TEST UNIT READY free unless reserved 00 00 00 00 00 00"
        );
        let line = |name: &str| {
            let found = lines.iter().find(|line| line.contains(name));
            words(found.unwrap_or_else(|| panic!("no {name}: {text}"))).join(" ")
        };
        assert_eq!(
            line("READ(10)"),
            "28h - READ(10) read 28 18 ff ff ff ff 00 ff ff 00"
        );
        assert_eq!(lines.len(), 1 + COMMANDS.len());
    }

    #[test]
    fn a_program_reads_the_same() {
        let entries: serde_json::Value = serde_json::from_str(&said(true)).expect("it is JSON");
        let entries = entries.as_array().expect("it is a list");
        assert_eq!(entries.len(), COMMANDS.len());
        let start_stop = entries
            .iter()
            .find(|entry| entry["name"] == "START STOP UNIT");
        assert_eq!(
            start_stop,
            Some(&serde_json::json!({
                "name": "START STOP UNIT",
                "opcode": "0x1b",
                "service_action": null,
                "reservation_class": "write",
                "free_form": "START=1 and POWER CONDITION=0h",
                "cdb_usage": "1b 01 00 0f f5 00",
                "recommended_timeout_seconds": 60,
            }))
        );
        let reserve = entries
            .iter()
            .find(|entry| entry["opcode"] == "0x5f" && entry["service_action"] == "0x01");
        assert_eq!(
            reserve.expect("it is served")["reservation_class"],
            "persistent reserve out"
        );
    }

    #[test]
    fn the_documentation_has_all_fields() {
        let entries: Vec<Entry> = COMMANDS.iter().map(Entry::new).collect();
        crate::control::fields::check("What `commands` prints", &[entries]);
    }
}
