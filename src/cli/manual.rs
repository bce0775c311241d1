//! What is made of the definition of the command line besides `--help`: manual pages, and completions for shells.

use std::fs;
use std::io::{self, Write};
use std::iter;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, Completions, Error, Manual, print};

/// The section of administrators' commands, where a daemon's pages are looked for.
const SECTION: &str = "8";
/// What the daemon keeps, and where.
const FILES: [(&str, &str); 3] = [
    (
        "/var/lib/tcmu-pr",
        "which disk is which, the reservations that outlive a loss of power, and the history of all: keep it with the disks",
    ),
    (
        "/run/tcmu-pr",
        "all reservations, and the mode parameters that hosts have set, until the node boots",
    ),
    (
        "/usr/share/doc/tcmu-pr/README.md",
        "how to export a disk, and what to do when something is wrong",
    ),
];

/// Prints the completions for a shell to `output`.
pub fn completions(options: &Completions, output: &mut impl Write) -> Result<(), Error> {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut shown(), "tcmu-pr", &mut text);
    print(output, &String::from_utf8_lossy(&text))
}

/// The command line without the commands that are hidden.
fn shown() -> Command {
    let whole = Cli::command();
    let commands = whole.get_subcommands().filter(|one| !one.is_hide_set());
    Command::new("tcmu-pr")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(commands.cloned())
}

/// Writes a manual page for `tcmu-pr`, and one for each of its commands.
pub fn manual(options: &Manual) -> Result<(), Error> {
    let directory = &options.directory;
    let write = |(name, page): (String, Vec<u8>)| fs::write(directory.join(name), page);
    let written = pages().and_then(|pages| pages.into_iter().try_for_each(write));
    written.map_err(|source| Error::WriteManual {
        directory: directory.clone(),
        source,
    })
}

/// The pages and the names of their files.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut whole = Cli::command().disable_help_subcommand(true);
    whole.build();
    let commands = whole.get_subcommands().filter(|one| !one.is_hide_set());
    iter::once(&whole).chain(commands).map(page).collect()
}

fn page(command: &Command) -> io::Result<(String, Vec<u8>)> {
    let man = Man::new(command.clone())
        .section(SECTION)
        .source(concat!("tcmu-pr ", env!("CARGO_PKG_VERSION")))
        .manual("SCSI targets");
    let mut text = Vec::new();
    man.render(&mut text)?;
    if command.has_subcommands() {
        files().to_writer(&mut text)?;
    }
    see_also(command).to_writer(&mut text)?;
    Ok((man.get_filename(), text))
}

fn files() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["FILES"]);
    for (path, holds) in FILES {
        roff.control("TP", []).text([bold(path)]);
        roff.text([roman(holds)]);
    }
    roff
}

fn see_also(command: &Command) -> Roff {
    let other = if command.has_subcommands() {
        "targetcli"
    } else {
        "tcmu-pr"
    };
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold(other), roman(format!("({SECTION})"))]);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap_complete::Shell;

    /// What `tcmu-pr` can be asked to do, by hand: each has a page and is completed.
    const COMMANDS: [&str; 10] = [
        "serve",
        "status",
        "show",
        "history",
        "clear",
        "preempt",
        "clear-flush-failure",
        "resize",
        "check",
        "completions",
    ];

    #[test]
    fn every_command_is_known_here() {
        let whole = Cli::command();
        let shown = whole.get_subcommands().filter(|one| !one.is_hide_set());
        let names: Vec<&str> = shown.map(Command::get_name).collect();
        assert_eq!(names, COMMANDS);
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let options = Manual {
            directory: directory.path().to_owned(),
        };
        manual(&options).expect("it can be written to");
        let page = |name: &str| {
            let text = fs::read_to_string(directory.path().join(name));
            text.unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        assert!(page("tcmu-pr.8").contains(".SH FILES\n"));
        for command in COMMANDS {
            let page = page(&format!("tcmu-pr-{command}.8"));
            assert!(page.contains(&format!(".TH tcmu-pr-{command} 8")), "{page}");
            assert!(page.contains(".SH SYNOPSIS\n"), "{page}");
        }
        let written = fs::read_dir(directory.path()).expect("it is there").count();
        assert_eq!(written, 1 + COMMANDS.len());
    }

    #[test]
    fn pages_that_cannot_be_written_are_an_error() {
        let options = Manual {
            directory: "/nonexistent".into(),
        };
        let error = manual(&options).expect_err("there is no such directory");
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }

    #[test]
    fn every_command_is_completed_and_nothing_that_is_hidden() {
        for (shell, before, after) in [
            (Shell::Bash, "tcmu__pr,", ")"),
            (Shell::Zsh, "(", ")\n"),
            (Shell::Fish, "needs_command\" -f -a \"", "\" -d"),
        ] {
            let mut output = Vec::new();
            completions(&Completions { shell }, &mut output).expect("it can be written to");
            let text = String::from_utf8(output).expect("it is text");
            for command in COMMANDS {
                let wanted = format!("{before}{command}{after}");
                assert!(text.contains(&wanted), "{shell}: no {command}");
            }
            assert!(text.contains("log-level"), "{shell}: no options");
            assert!(!text.contains("manual"), "{shell}");
        }
    }
}
