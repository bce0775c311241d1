//! What is wrong with the node as a whole: told by the log once, and by the status as long as it is so.

use std::path::Path;

use crate::tcmu::neighbour::{self, REMEDY};

/// How many ticks there are between two looks for another handler.
const TICKS: u32 = 12;

/// What is wrong with the node.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    /// What is wrong with the configuration file.
    pub(super) file: Option<String>,
    /// The process of another handler that runs beside us.
    neighbour: Option<u32>,
    /// Somebody has answered the kernel in our place, and was not found.
    unknown_answers: u64,
    ticks: u32,
}

impl Warnings {
    /// A text for each.
    pub(super) fn list(&self) -> Vec<String> {
        let mut list: Vec<String> = self.file.iter().cloned().collect();
        list.extend(self.neighbour.map(beside_us));
        if self.unknown_answers > 0 {
            list.push(format!(
                "{} times the kernel did not wait for our answer: {UNKNOWN}",
                self.unknown_answers
            ));
        }
        list
    }

    /// All of them behind a line.
    pub(super) fn summary(&self) -> String {
        let list = self.list().into_iter();
        list.map(|warning| format!("; WARNING: {warning}"))
            .collect()
    }

    /// Looks now and then whether another handler runs.
    pub(super) fn tick(&mut self) {
        if self.ticks % TICKS == 0 {
            self.neighbour();
        }
        self.ticks = self.ticks.wrapping_add(1);
    }

    /// Looks whether another handler runs, and gives its process.
    pub(super) fn neighbour(&mut self) -> Option<u32> {
        self.look(neighbour::running(Path::new("/proc")));
        self.neighbour
    }

    /// Who has probably answered the kernel in our place, and what to do.
    pub(super) fn answered_by_another(&mut self) -> String {
        match self.neighbour() {
            Some(process) => format!(
                "tcmu-runner (process {process}) has answered, which refuses what it does not know. {REMEDY}"
            ),
            None => {
                self.unknown_answers += 1;
                UNKNOWN.to_owned()
            }
        }
    }

    fn look(&mut self, found: Option<u32>) {
        match (self.neighbour, found) {
            (None, Some(process)) => log::error!("{}", beside_us(process)),
            (Some(process), None) => {
                log::info!("tcmu-runner (process {process}) is gone");
            }
            _ => {}
        }
        self.neighbour = found;
    }
}

const UNKNOWN: &str = "another process has answered, and it is not tcmu-runner, which does not run now: only one handler of TCMU \
                       devices may";

fn beside_us(process: u32) -> String {
    format!(
        "tcmu-runner (process {process}) runs beside tcmu-pr and answers the kernel too: backstores are made or refused at \
         random, and whoever makes one can hang. {REMEDY}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_told_of_as_long_as_it_runs() {
        let mut warnings = Warnings::default();
        assert_eq!(warnings.summary(), "");
        warnings.look(Some(812));
        let expected = "tcmu-runner (process 812) runs beside tcmu-pr and answers the kernel too: backstores are made or \
                        refused at random, and whoever makes one can hang. Stop it, and keep targetcli from starting it \
                        again: systemctl disable --now tcmu-runner; systemctl mask tcmu-runner";
        assert_eq!(warnings.list(), [expected]);
        warnings.file = Some("a: b".to_owned());
        assert_eq!(
            warnings.summary(),
            format!("; WARNING: a: b; WARNING: {expected}")
        );
        warnings.look(None);
        assert_eq!(warnings.list(), ["a: b"]);
    }
}
