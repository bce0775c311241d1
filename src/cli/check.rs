//! `tcmu-pr check`: whether this node has what the nexus tap needs, and what slows it down.

mod disk;
mod speed;

use std::error::Error as StdError;
use std::io::Write;

use clap::Args;
use log::LevelFilter;
use serde::Serialize;

use super::{Error, json, log_level, print};
use crate::nexus::tap::{self, Faults, Tap};
use speed::Places;

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
    what: String,
    /// What is wrong and what to do about it, if anything.
    problem: Option<String>,
}

impl Finding {
    fn new(what: &str, found: Result<(), impl StdError>) -> Finding {
        let problem = found.err().map(|why| match why.source() {
            Some(source) => format!("{why}: {source}"),
            None => why.to_string(),
        });
        Finding {
            what: what.to_owned(),
            problem,
        }
    }
}

/// Looks at this node, and prints to `output` what is well and what is not.
pub fn check(options: &Check, output: &mut impl Write) -> Result<(), Error> {
    let tap = look_at_tap();
    let speed = speed::look(&Places::default());
    let findings: Vec<&Finding> = tap.iter().chain(&speed).collect();
    let problems = findings
        .iter()
        .filter(|finding| finding.problem.is_some())
        .count();
    if options.json {
        print(output, &json(&findings)?)?;
    } else {
        print(output, &text(&tap, &speed))?;
    }
    if problems > 0 {
        return Err(Error::Problems(problems));
    }
    Ok(())
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
        findings.push(Finding {
            what: "the sessions of iSCSI initiators can be told apart".to_owned(),
            problem: (!iscsi).then(|| {
                "the module iscsi_target_mod is not loaded, or has no BTF: load it before tcmu-pr starts (modprobe \
                 iscsi_target_mod)"
                    .to_owned()
            }),
        });
    }
    findings
}

fn text(tap: &[Finding], speed: &[Finding]) -> String {
    let works = tap.iter().all(|finding| finding.problem.is_none());
    let advice = if works {
        "One backstore can serve any number of initiators: leave ;nexus= out of its config string."
    } else {
        "Until that is mended, give every initiator a backstore of its own, with ;nexus=<label> in its config string."
    };
    format!("{}{advice}\n\n{}", lines(tap), lines(speed))
}

fn lines(findings: &[Finding]) -> String {
    let mut lines = String::new();
    for Finding { what, problem } in findings {
        match problem {
            None => lines += &format!("ok       {what}\n"),
            Some(problem) => lines += &format!("problem  {what}: {problem}\n"),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nexus::tap::Unavailable;

    fn good() -> Finding {
        Finding::new("it is there", Ok::<(), Unavailable>(()))
    }

    #[test]
    fn what_is_well_is_told_with_what_follows_from_it() {
        assert_eq!(
            text(&[good()], &[good()]),
            "ok       it is there\n\
             One backstore can serve any number of initiators: leave ;nexus= out of its config string.\n\
             \n\
             ok       it is there\n"
        );
    }

    #[test]
    fn a_problem_of_the_tap_is_told_with_the_other_way() {
        let bad = Finding::new(
            "it may be looked at",
            Err(Unavailable::NoBtf("target_core_user".to_owned())),
        );
        let problem = text(&[good(), bad], &[]);
        assert!(
            problem
                .contains("problem  it may be looked at: this kernel does not describe its types"),
            "{problem}"
        );
        assert!(problem.contains(";nexus=<label>"), "{problem}");
    }

    #[test]
    fn what_is_slow_says_nothing_of_the_tap() {
        let slow = Finding {
            what: "it is fast".to_owned(),
            problem: Some("it is not: make haste".to_owned()),
        };
        assert_eq!(
            text(&[good()], &[slow]),
            "ok       it is there\n\
             One backstore can serve any number of initiators: leave ;nexus= out of its config string.\n\
             \n\
             problem  it is fast: it is not: make haste\n"
        );
    }
}
