//! `tcmu-pr status --watch`: the same again and again.

use std::io::{ErrorKind, Write};

use super::{Error, text};
use crate::control::Status;
use crate::control::dbus;

/// How the status is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// On a terminal, each in the place of the one before.
    Screen,
    /// As text, one after the other.
    Text,
    /// As JSON, each a line.
    Json,
}

/// Shows the status, and again after each `pause`, until whoever reads it has gone. That the daemon can't be asked is an
/// error only the first time. `pause` tells whether to go on.
pub(super) fn watch(
    form: Form,
    mut ask: impl FnMut() -> Result<Status, dbus::Error>,
    output: &mut impl Write,
    mut pause: impl FnMut() -> bool,
) -> Result<(), Error> {
    let mut status = ask()?;
    let mut words = String::new();
    loop {
        let text = words + &shown(form, &status)?;
        if !write(output, &text)? {
            return Ok(());
        }
        let started = status.started_unix_s;
        let mut is_silent = false;
        status = loop {
            if !pause() {
                return Ok(());
            }
            match ask() {
                Ok(status) => break status,
                Err(error) if !is_silent => {
                    is_silent = true;
                    if !tell(form, output, &format!("waiting for tcmu-pr: {error}"))? {
                        return Ok(());
                    }
                }
                Err(_) => {}
            }
        };
        words = String::new();
        if status.started_unix_s != started {
            let restarted = "tcmu-pr was restarted: its counters begin again";
            if form == Form::Json {
                tell(form, output, restarted)?;
            } else {
                words = format!("{restarted}\n\n");
            }
        }
    }
}

fn shown(form: Form, status: &Status) -> Result<String, Error> {
    match form {
        Form::Json => Ok(serde_json::to_string(status).map_err(Error::Json)? + "\n"),
        Form::Text => Ok(text::status(status) + "\n"),
        Form::Screen => {
            // To the upper left corner, each line to its end, and what is below.
            let lines = text::status(status).replace('\n', "\x1b[K\n");
            Ok(format!("\x1b[H{lines}\x1b[J"))
        }
    }
}

/// Says what is no status. Where programs read it, that goes to standard error. Tells whether somebody reads.
fn tell(form: Form, output: &mut impl Write, words: &str) -> Result<bool, Error> {
    if form == Form::Json {
        eprintln!("tcmu-pr: {words}");
        return Ok(true);
    }
    write(output, &format!("{words}\n"))
}

/// Tells whether somebody reads.
fn write(output: &mut impl Write, text: &str) -> Result<bool, Error> {
    let written = output.write_all(text.as_bytes());
    match written.and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::Print(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::Closed;
    use crate::control::tests::example;

    /// What is shown of these answers.
    fn shown(form: Form, answers: Vec<Result<Status, dbus::Error>>) -> String {
        let mut output = Vec::new();
        let mut left = answers.len();
        let mut answers = answers.into_iter();
        let pause = || {
            left -= 1;
            left > 0
        };
        let ask = || answers.next().expect("it was paused as often");
        watch(form, ask, &mut output, pause).expect("the first is an answer");
        String::from_utf8(output).expect("it is text")
    }

    #[test]
    fn each_form_is_what_it_is_for() {
        let times = |number| (0..number).map(|_| Ok(example())).collect();
        let text = text::status(&example());
        assert_eq!(shown(Form::Text, times(2)), format!("{text}\n{text}\n"));
        let screen = shown(Form::Screen, times(2));
        assert_eq!(screen.matches("\x1b[H/srv/lun0.img").count(), 2);
        assert!(screen.ends_with("nexus tap attached\x1b[K\n\x1b[J"));
        let json = shown(Form::Json, times(3));
        let lines: Vec<&str> = json.lines().collect();
        assert_eq!(lines.len(), 3);
        for line in lines {
            let status: Status = serde_json::from_str(line).expect("it is JSON");
            assert_eq!(status, example());
        }
    }

    #[test]
    fn a_restart_is_told_and_survived() {
        let later = Status {
            started_unix_s: example().started_unix_s + 1,
            ..example()
        };
        let answers = || {
            vec![
                Ok(example()),
                Err(dbus::Error::NotRunning),
                Err(dbus::Error::NotRunning),
                Ok(later.clone()),
                Ok(later.clone()),
            ]
        };
        let text = text::status(&example());
        let expected = format!(
            "{text}\n\
             waiting for tcmu-pr: {}\n\
             tcmu-pr was restarted: its counters begin again\n\n\
             {text}\n{text}\n",
            dbus::Error::NotRunning
        );
        assert_eq!(shown(Form::Text, answers()), expected);
        // Where programs read, there is nothing else.
        let json = shown(Form::Json, answers());
        assert!(json.lines().all(|line| line.starts_with('{')), "{json}");
        assert_eq!(json.lines().count(), 3);
    }

    #[test]
    fn it_ends_when_nobody_reads_any_more() {
        let nobody = || Err(dbus::Error::NotRunning);
        let asked = watch(Form::Text, nobody, &mut Closed, || true);
        assert!(matches!(asked, Err(Error::Ask(dbus::Error::NotRunning))));
        let forever = || panic!("it has ended");
        let asked = watch(Form::Json, || Ok(example()), &mut Closed, forever);
        asked.expect("the pipe is closed on purpose");
    }
}
