//! targetcli, as a program: what it makes is in its own configuration, and `saveconfig` keeps it.

use std::fs;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};

use super::Error;

/// What changes the target configuration.
pub(super) trait Configure {
    /// Carries out a command of targetcli's.
    fn run(&mut self, command: &str) -> Result<(), Error>;
}

/// The program. Each command is a process of its own, since one that reads several goes on after an error.
#[derive(Debug)]
pub(super) struct Targetcli {
    program: PathBuf,
    /// Where it finds preferences, and finds none: those of a person may have it done by a daemon that reports no errors.
    preferences: PathBuf,
}

impl Targetcli {
    pub(super) fn new() -> Targetcli {
        Targetcli {
            program: "targetcli".into(),
            preferences: format!("/run/tcmu-pr/targetcli-{}", process::id()).into(),
        }
    }
}

impl Drop for Targetcli {
    fn drop(&mut self) {
        // Its log may have been written there, or nothing at all. What is left in /run goes when the node boots.
        if let Err(error) = fs::remove_dir_all(&self.preferences) {
            log::debug!("{}: {error}", self.preferences.display());
        }
    }
}

impl Configure for Targetcli {
    fn run(&mut self, command: &str) -> Result<(), Error> {
        let ended = Command::new(&self.program)
            .arg(command)
            .env("TARGETCLI_HOME", &self.preferences)
            .stdin(Stdio::null())
            .output()
            .map_err(Error::NoTargetcli)?;
        if ended.status.success() {
            return Ok(());
        }
        let said = [ended.stdout, ended.stderr].concat();
        Err(Error::Targetcli {
            command: command.to_owned(),
            said: sentence(&String::from_utf8_lossy(&said)),
        })
    }
}

/// What it said, in a line, without what it says of its preferences.
fn sentence(said: &str) -> String {
    let lines = said.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.contains("preferences file"));
    let sentence = lines.collect::<Vec<_>>().join(" ");
    if sentence.is_empty() {
        return "it does not say why".to_owned();
    }
    sentence.escape_debug().to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Notes what it is asked, and refuses some of it.
    #[derive(Debug, Default)]
    pub(in super::super) struct Noted {
        pub(in super::super) commands: Vec<String>,
        pub(in super::super) refused: Vec<&'static str>,
    }

    impl Configure for Noted {
        fn run(&mut self, command: &str) -> Result<(), Error> {
            self.commands.push(command.to_owned());
            if self.refused.iter().any(|part| command.contains(part)) {
                return Err(Error::Targetcli {
                    command: command.to_owned(),
                    said: "no".to_owned(),
                });
            }
            Ok(())
        }
    }

    fn program(script: &str) -> (tempfile::TempDir, Targetcli) {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let program = directory.path().join("targetcli");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("it is new");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let preferences = directory.path().join("preferences");
        let targetcli = Targetcli {
            program,
            preferences,
        };
        (directory, targetcli)
    }

    #[test]
    fn a_command_is_one_argument() {
        let (_directory, mut targetcli) = program(
            "test $# = 1 && test \"$1\" = '/x create a=b;c' && test -n \"$TARGETCLI_HOME\"",
        );
        targetcli.run("/x create a=b;c").expect("it gets that");
    }

    #[test]
    fn what_it_says_is_passed_on() {
        let (_directory, mut targetcli) = program(
            "echo 'Warning: Could not load preferences file x.'; echo 'it is'; echo '  taken' >&2; exit 1",
        );
        let error = targetcli
            .run("/x create")
            .expect_err("it fails")
            .to_string();
        assert_eq!(error, "targetcli refuses `/x create`: it is taken");
        let (_directory, mut targetcli) = program("exit 1");
        let error = targetcli.run("/x").expect_err("it fails").to_string();
        assert_eq!(error, "targetcli refuses `/x`: it does not say why");
    }

    #[test]
    fn where_it_is_missing_that_is_told() {
        let mut targetcli = Targetcli {
            program: "/nonexistent/targetcli".into(),
            preferences: "/nonexistent".into(),
        };
        let error = targetcli.run("/").expect_err("it is not there");
        assert!(matches!(error, Error::NoTargetcli(_)));
    }
}
