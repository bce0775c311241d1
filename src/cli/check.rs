//! `tcmu-pr check`: whether this node is as tcmu-pr needs it, and what to do if not.

mod access;
mod backstores;
mod disk;
mod files;
mod kernel;
mod neighbour;
mod node;
mod service;
mod speed;
mod storage;

use std::error::Error as StdError;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use log::LevelFilter;
use serde::Serialize;

use super::{Error, json, log_level, print};
use crate::control::dbus::Bus;
use crate::control::file;
use crate::nexus::tap::{self, Faults, Tap};
use node::Node;
use speed::Places;

/// The options of `tcmu-pr check`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Check {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
    /// The configuration file to be looked at
    #[arg(long, value_name = "FILE", default_value = file::PATH)]
    pub config: PathBuf,
    /// How much to say on standard error of what the kernel makes of the nexus tap
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_parser = log_level())]
    pub log_level: LevelFilter,
}

/// What was looked at, and what was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    what: String,
    #[serde(flatten)]
    found: Found,
}

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Found {
    /// All is well.
    Ok,
    /// Something that is worth knowing, and may be intended.
    Note {
        /// What it is.
        reason: String,
    },
    /// Something is wrong.
    Problem {
        /// What, and what to do about it.
        reason: String,
    },
}

impl Finding {
    fn new(what: &str, found: Result<(), impl StdError>) -> Finding {
        match found {
            Ok(()) => Finding::ok(what),
            Err(why) => Finding::problem(
                what,
                match why.source() {
                    Some(source) => format!("{why}: {source}"),
                    None => why.to_string(),
                },
            ),
        }
    }

    fn ok(what: &str) -> Finding {
        Finding::found(what, Found::Ok)
    }

    fn note(what: &str, reason: String) -> Finding {
        Finding::found(what, Found::Note { reason })
    }

    fn problem(what: &str, reason: String) -> Finding {
        Finding::found(what, Found::Problem { reason })
    }

    fn found(what: &str, found: Found) -> Finding {
        Finding {
            what: what.to_owned(),
            found,
        }
    }

    fn is_problem(&self) -> bool {
        matches!(self.found, Found::Problem { .. })
    }
}

/// What was looked at together.
#[derive(Debug, Serialize)]
struct Group {
    group: &'static str,
    findings: Vec<Finding>,
}

/// Looks at this node, and prints to `output` what is well and what is not.
pub fn check(options: &Check, output: &mut impl Write) -> Result<(), Error> {
    let groups = look(options);
    let all = groups.iter().flat_map(|group| &group.findings);
    let problems = all.filter(|finding| finding.is_problem()).count();
    if options.json {
        print(output, &json(&groups)?)?;
    } else {
        print(output, &text(&groups))?;
    }
    if problems > 0 {
        return Err(Error::Problems(problems));
    }
    Ok(())
}

/// The group that says how initiators are told apart.
const TAP: &str = "Nexus tap";

fn look(options: &Check) -> Vec<Group> {
    let node = &Node::new(Path::new("/"));
    let mut service = service::look(node);
    service.extend(neighbour::look(node));
    service.extend(service::look_at_daemon(&Bus::System));
    let groups = [
        (TAP, look_at_tap()),
        ("Kernel", kernel::look(node)),
        ("Service", service),
        ("Files", files::look(node, &options.config)),
        ("Access", access::look(node)),
        ("Backstores", backstores::look(node)),
        ("Speed", speed::look(&Places::default())),
    ];
    groups
        .map(|(group, findings)| Group { group, findings })
        .into_iter()
        .filter(|group| !group.findings.is_empty())
        .collect()
}

fn look_at_tap() -> Vec<Finding> {
    let mut findings: Vec<Finding> = tap::requirements()
        .into_iter()
        .map(|(what, found)| Finding::new(what, found))
        .collect();
    let attached = Tap::attach(Faults::default());
    let iscsi = attached.as_ref().is_ok_and(Tap::knows_iscsi);
    let could = attached.is_ok();
    findings.push(Finding::new(
        "the nexus tap can be attached",
        attached.map(drop),
    ));
    if could {
        let what = "the sessions of iSCSI initiators can be told apart";
        findings.push(if iscsi {
            Finding::ok(what)
        } else {
            let why = "the module iscsi_target_mod is not loaded, or has no BTF: load it before tcmu-pr starts (modprobe \
                       iscsi_target_mod)";
            Finding::problem(what, why.to_owned())
        });
    }
    findings
}

fn text(groups: &[Group]) -> String {
    let groups: Vec<String> = groups
        .iter()
        .map(|Group { group, findings }| {
            let advice = if *group == TAP { advice(findings) } else { "" };
            format!("{group}\n{}{advice}", lines(findings))
        })
        .collect();
    groups.join("\n")
}

/// What follows from whether the tap works.
fn advice(tap: &[Finding]) -> &'static str {
    if tap.iter().any(Finding::is_problem) {
        "Until that is mended, give every initiator a backstore of its own, with ;nexus=<label> in its config string.\n"
    } else {
        "One backstore can serve any number of initiators: leave ;nexus= out of its config string.\n"
    }
}

fn lines(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|Finding { what, found }| match found {
        Found::Ok => format!("ok       {what}\n"),
        Found::Note { reason } => format!("note     {what}: {reason}\n"),
        Found::Problem { reason } => format!("problem  {what}: {reason}\n"),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nexus::tap::Unavailable;

    /// Findings as they are printed, a line each.
    pub(super) fn found(findings: &[Finding]) -> Vec<String> {
        lines(findings).lines().map(str::to_owned).collect()
    }

    fn good() -> Finding {
        Finding::new("it is there", Ok::<(), Unavailable>(()))
    }

    fn tap(findings: Vec<Finding>) -> Group {
        let group = TAP;
        Group { group, findings }
    }

    #[test]
    fn what_is_well_is_told_with_what_follows_from_it() {
        assert_eq!(
            text(&[tap(vec![good()])]),
            "Nexus tap\n\
             ok       it is there\n\
             One backstore can serve any number of initiators: leave ;nexus= out of its config string.\n"
        );
    }

    #[test]
    fn a_problem_of_the_tap_is_told_with_the_other_way() {
        let bad = Finding::new(
            "it may be looked at",
            Err(Unavailable::NoBtf("target_core_user".to_owned())),
        );
        let problem = text(&[tap(vec![good(), bad])]);
        assert!(
            problem
                .contains("problem  it may be looked at: this kernel does not describe its types"),
            "{problem}"
        );
        assert!(problem.contains(";nexus=<label>"), "{problem}");
    }

    #[test]
    fn what_else_is_wrong_says_nothing_of_the_tap() {
        let speed = Group {
            group: "Speed",
            findings: vec![
                Finding::problem("it is fast", "it is not: make haste".to_owned()),
                Finding::note("it is small", "it is large".to_owned()),
            ],
        };
        assert_eq!(
            text(&[tap(vec![good()]), speed]),
            "Nexus tap\n\
             ok       it is there\n\
             One backstore can serve any number of initiators: leave ;nexus= out of its config string.\n\
             \n\
             Speed\n\
             problem  it is fast: it is not: make haste\n\
             note     it is small: it is large\n"
        );
    }

    #[test]
    fn programs_read_the_same() {
        let group = tap(vec![
            good(),
            Finding::problem("it is fast", "it is not".to_owned()),
        ]);
        assert_eq!(
            serde_json::to_string(&[group]).unwrap(),
            "[{\"group\":\"Nexus tap\",\"findings\":[{\"what\":\"it is there\",\"state\":\"ok\"},\
             {\"what\":\"it is fast\",\"state\":\"problem\",\"reason\":\"it is not\"}]}]"
        );
    }

    #[test]
    fn the_documentation_has_all_fields() {
        let problem = Finding::problem("it is fast", "it is not".to_owned());
        let groups = [tap(vec![good(), problem])];
        crate::control::fields::check("What `check` prints", &[groups]);
    }
}
