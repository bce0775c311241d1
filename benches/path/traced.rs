//! How many system calls a command costs: counted by strace, of a process of its own that serves so many.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::Plan;
use crate::disk::{File, LOADS};
use crate::node::{self, Running, Unit};
use crate::null::Null;
use crate::promise::Promise;
use crate::stages::LOAD;

/// The word that lets this program serve commands and nothing else, before the name of the way and their number.
pub(crate) const SERVE: &str = "serve";
/// The way without I/O, by turns: what profilers are to look at.
const NULL: &str = "null";
/// The whole way, by turns.
const TURNS: &str = "turns";
/// The whole way, with a thread of its own.
const THREAD: &str = "thread";

const COMMANDS: usize = 20_000;
/// What the kernel's side makes, and nobody else does.
const OF_THE_KERNEL: [&str; 3] = ["poll", "sendto", "recvfrom"];
/// Fewer calls of a kind for each command are not worth a line.
const FEW: f64 = 0.005;

/// Serves so many 4 KiB reads.
pub(crate) fn serve(way: &str, commands: usize) {
    let (_, load) = LOADS[0];
    let file = File::sparse(load.within);
    let backing = node::backing(&file.path, load.within);
    match way {
        NULL => Unit::new(LOAD, 1, |_| Null::new()).serve(commands),
        TURNS => Unit::new(load, 1, |waker| node::store(&backing, waker)).serve(commands),
        THREAD => {
            let mut running = Running::start(load, 1, |waker| node::store(&backing, waker));
            running.serve(commands);
            running.stop();
        }
        way => panic!("{way}: {NULL}, {TURNS} or {THREAD} is meant"),
    }
}

pub(crate) fn run(_: &Plan) -> Vec<Promise> {
    let line = |what: &str, measured| Promise {
        what: format!("4 KiB read, a thread of its own: {what}"),
        measured,
        bound: None,
    };
    let (Some(before), Some(after)) = (calls(0), calls(COMMANDS)) else {
        return vec![line("system calls (strace is missing)", None)];
    };
    let each = after.into_iter().map(|(name, count)| {
        let more = count - before.get(&name).copied().unwrap_or(0.0);
        (name, more / COMMANDS as f64)
    });
    let each: Vec<(String, f64)> = each
        .filter(|(name, _)| !OF_THE_KERNEL.contains(&name.as_str()))
        .collect();
    let sum = each.iter().map(|(_, count)| count).sum();
    let mut lines = vec![line("system calls", Some(sum))];
    for (name, count) in each {
        if count > FEW {
            lines.push(line(&name, Some(count)));
        }
    }
    lines
}

/// How often the process that serves so many commands makes each system call. `None` if there is no strace.
fn calls(commands: usize) -> Option<BTreeMap<String, f64>> {
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("summary");
    let traced = Command::new("strace")
        .args(["--follow-forks", "--summary-only"])
        .arg(format!("--output={}", summary.display()))
        .arg(std::env::current_exe().unwrap())
        .args([SERVE, THREAD, &commands.to_string()])
        .status()
        .ok()?;
    assert!(traced.success(), "strace: {traced}");
    let text = fs::read_to_string(summary).unwrap();
    Some(text.lines().filter_map(call).collect())
}

/// Of a line of the summary: the share of the time, seconds, microseconds a call, calls, perhaps errors, and the name.
fn call(line: &str) -> Option<(String, f64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let name = *words.last()?;
    let calls = words.get(3)?.parse().ok()?;
    (name != "total").then(|| (name.to_owned(), calls))
}
