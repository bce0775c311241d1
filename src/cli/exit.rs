//! How a command ends: its exit status, and what a program reads if it fails.

use serde::Serialize;

use super::{Error, history};
use crate::control::dbus;

/// What was asked for could not be done.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// There is no daemon that answers.
pub const NO_DAEMON: u8 = 3;
/// What was named is not there, or is not the only one.
pub const NOT_FOUND: u8 = 4;
/// As things are, it is refused.
pub const REFUSED: u8 = 5;
/// It is done, but what it shuts out is still there.
pub const NOT_OVER: u8 = 6;

/// Every exit status, and what it says: for `--help`, the manual pages, and the documentation.
pub const STATUSES: [(u8, &str); 7] = [
    (0, "it is done"),
    (
        FAILED,
        "it failed, was not confirmed, or needs root; check: there are problems",
    ),
    (USAGE, "the command line is wrong"),
    (
        NO_DAEMON,
        "the daemon does not run, or can't be reached, or does not answer",
    ),
    (
        NOT_FOUND,
        "nothing has that name (disk, key, initiator, target), or several have",
    ),
    (
        REFUSED,
        "it is refused, by the daemon or by targetcli: nothing has changed",
    ),
    (
        NOT_OVER,
        "clear, preempt: it is done, but those who lost access can still write for a while",
    ),
];

/// The exit statuses as `tcmu-pr --help` shows them.
pub(super) fn help() -> String {
    let mut text = "Exit status:\n".to_owned();
    for (status, meaning) in STATUSES {
        text += &format!("  {status}  {meaning}\n");
    }
    text + "\nWith --json, an error is an object on standard error: {\"error\": TEXT, \"exit_status\": NUMBER}"
}

/// An error, as a program reads it.
#[derive(Serialize)]
struct Failure<'a> {
    error: &'a str,
    exit_status: u8,
}

/// The line for standard error that tells of an error: in words, or as JSON.
pub fn told(error: &str, exit_status: u8, json: bool) -> String {
    if json {
        let failure = Failure { error, exit_status };
        serde_json::to_string(&failure).expect("text and a number are JSON")
    } else {
        format!("tcmu-pr: {error}")
    }
}

impl Error {
    /// The exit status: one of [`STATUSES`].
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::NobodyToAsk => USAGE,
            Error::Ask(dbus::Error::NotAllowed) => FAILED,
            Error::Ask(dbus::Error::Refused(_)) => REFUSED,
            Error::Ask(dbus::Error::NotOver(_)) => NOT_OVER,
            Error::Ask(_) => NO_DAEMON,
            Error::NoSuchUnit(_) | Error::Ambiguous { .. } | Error::NoSuchKey { .. } => NOT_FOUND,
            Error::History(history::Error::NoSuchUnit { .. }) => NOT_FOUND,
            Error::Nexus(error) => error.exit_status(),
            _ => FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_in_words_or_as_json() {
        assert_eq!(
            told("it is \"so\"", 4, false),
            "tcmu-pr: it is \"so\"".to_owned()
        );
        assert_eq!(
            told("it is \"so\"", 4, true),
            r#"{"error":"it is \"so\"","exit_status":4}"#
        );
    }

    #[test]
    fn each_kind_of_error_has_its_exit_status() {
        for (error, expected) in [
            (Error::NotRoot, 1),
            (Error::NotConfirmed, 1),
            (Error::Problems(2), 1),
            (Error::NobodyToAsk, 2),
            (Error::Ask(dbus::Error::NotRunning), 3),
            (Error::Ask(dbus::Error::NoPolicy), 3),
            (Error::Ask(dbus::Error::Call("late".to_owned())), 3),
            (Error::Ask(dbus::Error::NotAllowed), 1),
            (Error::NoSuchUnit("x".to_owned()), 4),
            (Error::Ask(dbus::Error::Refused("no".to_owned())), 5),
            (Error::Ask(dbus::Error::NotOver("late".to_owned())), 6),
        ] {
            assert_eq!(error.exit_status(), expected, "{error}");
        }
    }

    #[test]
    fn help_tells_every_exit_status() {
        let text = help();
        for line in [
            "  0  it is done\n",
            "  2  the command line is wrong\n",
            "  3  the daemon does not run, or can't be reached, or does not answer\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
