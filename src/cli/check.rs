//! `tcmu-pr check`: whether this node has what the nexus tap needs.

use std::error::Error as _;
use std::io::Write;

use clap::Args;
use log::LevelFilter;
use serde::Serialize;

use super::{Error, json, log_level, print};
use crate::nexus::tap::{self, Faults, Tap, Unavailable};

/// The options of `tcmu-pr check`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Check {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
    /// How much to say on standard error of what the kernel makes of the nexus tap
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_parser = log_level())]
    pub log_level: LevelFilter,
}

/// What was looked at, and what was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    what: &'static str,
    /// What is wrong and what to do about it, if anything.
    problem: Option<String>,
}

impl Finding {
    fn new(what: &'static str, found: Result<(), Unavailable>) -> Finding {
        let problem = found.err().map(|why| match why.source() {
            Some(source) => format!("{why}: {source}"),
            None => why.to_string(),
        });
        Finding { what, problem }
    }
}

/// Looks at this node, and prints to `output` what is well and what is not.
pub fn check(options: &Check, output: &mut impl Write) -> Result<(), Error> {
    let findings = look();
    let problems = findings
        .iter()
        .filter(|finding| finding.problem.is_some())
        .count();
    if options.json {
        print(output, &json(&findings)?)?;
    } else {
        print(output, &text(&findings))?;
    }
    if problems > 0 {
        return Err(Error::Problems(problems));
    }
    Ok(())
}

fn look() -> Vec<Finding> {
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
        findings.push(Finding {
            what: "the sessions of iSCSI initiators can be told apart",
            problem: (!iscsi).then(|| {
                "the module iscsi_target_mod is not loaded, or has no BTF: load it before tcmu-pr starts (modprobe \
                 iscsi_target_mod)"
                    .to_owned()
            }),
        });
    }
    findings
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { what, problem } in findings {
        match problem {
            None => text += &format!("ok       {what}\n"),
            Some(problem) => text += &format!("problem  {what}: {problem}\n"),
        }
    }
    let tap = findings.iter().all(|finding| finding.problem.is_none());
    text += if tap {
        "One backstore can serve any number of initiators: leave ;nexus= out of its config string.\n"
    } else {
        "Until that is mended, give every initiator a backstore of its own, with ;nexus=<label> in its config string.\n"
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_the_other_way() {
        let good = Finding::new("it is there", Ok(()));
        let bad = Finding::new(
            "it may be looked at",
            Err(Unavailable::NoBtf("target_core_user".to_owned())),
        );
        let all_well = text(&[Finding::new("it is there", Ok(()))]);
        assert!(all_well.starts_with("ok       it is there\n"), "{all_well}");
        assert!(all_well.contains("leave ;nexus= out"), "{all_well}");
        let problem = text(&[good, bad]);
        assert!(
            problem
                .contains("problem  it may be looked at: this kernel does not describe its types"),
            "{problem}"
        );
        assert!(problem.contains(";nexus=<label>"), "{problem}");
    }
}
