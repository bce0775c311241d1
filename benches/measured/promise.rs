//! What is promised of what was measured, as a table.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::io::{self, Write};
use std::process::ExitCode;

/// Between what a measured value must lie.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    /// It may be so much.
    AtMost(f64),
    /// It must be so much.
    AtLeast(f64),
}

impl Bound {
    fn holds(self, measured: f64) -> bool {
        match self {
            Bound::AtMost(most) => measured <= most,
            Bound::AtLeast(least) => measured >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Bound::AtMost(most) => format!("<= {most}"),
            Bound::AtLeast(least) => format!(">= {least}"),
        }
    }
}

/// One line of the table.
pub(crate) struct Promise {
    pub(crate) what: String,
    /// `None` if it was not measured.
    pub(crate) measured: Option<f64>,
    /// `None` if nothing is promised.
    pub(crate) bound: Option<Bound>,
}

/// Prints the table, and that text behind it. Fails if something that is promised does not hold.
pub(crate) fn report(promises: &[Promise], behind: &str) -> ExitCode {
    let mut text = format!("\n{:66} {:>10} {:>8}\n", "PROMISE", "MEASURED", "BOUND");
    for promise in promises {
        text += &line(promise);
    }
    text += behind;
    io::stdout()
        .write_all(text.as_bytes())
        .expect("standard output takes the table");
    if promises.iter().any(is_broken) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn line(promise: &Promise) -> String {
    let measured = promise.measured.map(|measured| format!("{measured:.4}"));
    let verdict = match promise.bound {
        _ if promise.measured.is_none() => "not measured",
        None => "",
        Some(_) if is_broken(promise) => "DOES NOT HOLD",
        Some(_) => "holds",
    };
    format!(
        "{:66} {:>10} {:>8}  {verdict}\n",
        promise.what,
        measured.as_deref().unwrap_or("-"),
        promise.bound.map(Bound::text).unwrap_or_default()
    )
}

fn is_broken(promise: &Promise) -> bool {
    let (Some(measured), Some(bound)) = (promise.measured, promise.bound) else {
        return false;
    };
    !bound.holds(measured)
}

/// How many times the one is the other, if both were measured.
pub(crate) fn divided(value: Option<f64>, by: Option<f64>) -> Option<f64> {
    Some(value? / by?)
}
