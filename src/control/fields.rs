//! What `--json` prints, held to the documentation: docs/commands.md has the fields of each command in a table.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

/// The commands that are told together, as they have the same fields.
const KINDS: [&str; 4] = ["reads", "writes", "flushes", "others"];

/// Fails unless the table below a heading has the fields of these examples, which show all there are, with their types.
#[track_caller]
pub(crate) fn check(heading: &str, examples: &[impl Serialize]) {
    let mut found = BTreeMap::new();
    for example in examples {
        collect(
            "",
            &serde_json::to_value(example).expect("it is plain data"),
            &mut found,
        );
    }
    // What is in an object or a list tells that there is one.
    found.retain(|_, kinds| {
        ["object", "list"]
            .iter()
            .all(|kind| *kinds != [*kind].into())
    });
    let found: BTreeMap<String, String> = found
        .into_iter()
        .map(|(field, kinds)| (field, words(kinds)))
        .collect();
    assert_eq!(
        documented(heading),
        found,
        "docs/commands.md, {heading}: left is what it has, right what there is"
    );
}

/// The fields of a value, and their types.
fn collect(path: &str, value: &Value, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    found.entry(path.to_owned()).or_default().insert(kind);
    match value {
        Value::Array(items) => {
            for item in items {
                collect(&format!("{path}[]"), item, found);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_kind = KINDS.contains(&name.as_str()) && value.is_object();
                let name = if is_kind { "KIND" } else { name };
                let dot = if path.is_empty() { "" } else { "." };
                collect(&format!("{path}{dot}{name}"), value, found);
            }
        }
        _ => {}
    }
}

/// `string or null`.
fn words(mut kinds: BTreeSet<&'static str>) -> String {
    let null = kinds.remove("null").then_some("null");
    let kinds: Vec<&str> = kinds.into_iter().chain(null).collect();
    kinds.join(" or ")
}

/// The fields of the table below a heading, and their types.
fn documented(heading: &str) -> BTreeMap<String, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");
    let text = std::fs::read_to_string(path).expect("it is there");
    let (_, below) = text
        .split_once(&format!("\n### {heading}\n"))
        .unwrap_or_else(|| panic!("docs/commands.md has no heading {heading}"));
    let lines = below
        .lines()
        .skip_while(|line| !line.starts_with("| `"))
        .take_while(|line| line.starts_with("| `"));
    let mut fields = BTreeMap::new();
    for line in lines {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for field in cells[1].split(", ") {
            fields.insert(field.trim_matches('`').to_owned(), cells[2].to_owned());
        }
    }
    fields
}

mod tests {
    use super::*;
    use crate::control::tests::example;
    use crate::control::{LinkStatus, SessionStatus, Status, TapStatus};

    #[test]
    fn the_documentation_has_all_fields_of_the_status() {
        let bare = |status: Status| Status {
            units: Vec::new(),
            warnings: vec!["it is wrong: mend it".into()],
            ..status
        };
        let mut missing = example();
        missing.tap = TapStatus::Missing {
            reason: "there is none".into(),
        };
        check("What `status` prints", &[bare(example()), bare(missing)]);
    }

    #[test]
    fn the_documentation_has_all_fields_of_a_disk() {
        let full = example().units.remove(0);
        let mut sparse = full.clone();
        sparse.sessions = [Some("0x00023d000001"), None]
            .map(|isid| SessionStatus {
                initiator: "iqn.2026-11.example:a".into(),
                isid: isid.map(str::to_owned),
                target: "iqn.2026-11.example:t,t,0x0001".into(),
                read_only: false,
            })
            .into();
        sparse.ports[0].label = None;
        sparse.ports[0].link = LinkStatus::Shared {
            targets: vec!["iqn.2026-11.example:t,t,0x0001".into()],
        };
        let reservations = &mut sparse.reservations;
        reservations.unreadable = Some("torn".into());
        reservations.reserve = Some("iqn.2026-11.example:a".into());
        reservations
            .reservation
            .as_mut()
            .expect("it has one")
            .holder = None;
        reservations.registrants[0].isid = None;
        reservations.registrants[0].relative_target_port = None;
        sparse.performance.as_mut().expect("it has one").window = None;
        let mut hanging = full.clone();
        hanging.performance = None;
        hanging.reservations.reservation = None;
        check("What `show` prints", &[full, sparse, hanging]);
    }
}
