//! What is made of the definition of the command line besides `--help`: manual pages, and completions for shells.

use std::fs;
use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, Completions, Error, Manual, exit, print};

/// The section of administrators' commands, where a daemon's pages are looked for.
const SECTION: &str = "8";
/// What a help text has before the examples, which have a section of their own in the manual.
const EXAMPLES: &str = "Examples:\n";
/// What the daemon keeps, and where.
const FILES: [(&str, &str); 5] = [
    ("/etc/tcmu-pr.toml", "settings of the node, if there is one"),
    (
        "/var/lib/tcmu-pr",
        "which disk is which, the reservations that outlive a loss of power, and the history of all: keep it with the disks",
    ),
    (
        "/run/tcmu-pr",
        "all reservations, and the mode parameters that hosts have set, until the node boots",
    ),
    (
        "/run/tcmu-pr/metrics.sock",
        "metrics for Prometheus, over HTTP",
    ),
    (
        "/usr/share/doc/tcmu-pr/README.md",
        "how to export a disk, and what to do when something is wrong",
    ),
];

/// Prints the completions for a shell to `output`.
pub fn completions(options: &Completions, output: &mut impl Write) -> Result<(), Error> {
    let mut text = Vec::new();
    let mut command = shown(&Cli::command()).version(env!("CARGO_PKG_VERSION"));
    clap_complete::generate(options.shell, &mut command, "tcmu-pr", &mut text);
    print(output, &String::from_utf8_lossy(&text))
}

/// A command without the commands and options in it that are hidden.
fn shown(whole: &Command) -> Command {
    let commands = whole.get_subcommands().filter(|one| !one.is_hide_set());
    let options = whole.get_arguments().filter(|one| !one.is_hide_set());
    Command::new(whole.get_name().to_owned())
        .about(whole.get_about().cloned().unwrap_or_default())
        .args(options.cloned())
        .subcommands(commands.map(shown))
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
    let mut commands = Vec::new();
    collect(&whole, &mut commands);
    let page_of = |command: &&Command| page(command, &others(command, &commands));
    commands.iter().map(page_of).collect()
}

/// A command, and those below it.
fn collect<'a>(command: &'a Command, commands: &mut Vec<&'a Command>) {
    commands.push(command);
    for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        collect(one, commands);
    }
}

/// The name of a command's page: `tcmu-pr-nexus-add`.
fn name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

/// Where else to look: above the command, and below it.
fn others(command: &Command, commands: &[&Command]) -> Vec<String> {
    let own = name(command);
    let (above, _) = own.rsplit_once('-').unwrap_or(("", own));
    let is_near = |other: &str| {
        let below = other.strip_prefix(own);
        other == above || below.is_some_and(|rest| rest.starts_with('-'))
    };
    let names = commands.iter().map(|other| name(other));
    let near = names.filter(|other| is_near(other) || (*other == "tcmu-pr" && own != *other));
    near.map(str::to_owned).collect()
}

fn page(command: &Command, others: &[String]) -> io::Result<(String, Vec<u8>)> {
    let man = Man::new(command.clone())
        .section(SECTION)
        .source(concat!("tcmu-pr ", env!("CARGO_PKG_VERSION")))
        .manual("SCSI targets");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command
        .get_arguments()
        .any(|argument| !argument.is_hide_set())
    {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    exit_status().to_writer(&mut text)?;
    if let Some(examples) = examples(command) {
        examples.to_writer(&mut text)?;
    }
    files().to_writer(&mut text)?;
    see_also(others).to_writer(&mut text)?;
    Ok((man.get_filename(), text))
}

fn exit_status() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in exit::STATUSES {
        roff.control("TP", []).text([bold(status.to_string())]);
        roff.text([roman(meaning)]);
    }
    roff
}

/// The examples of a command's help text, if it has any.
fn examples(command: &Command) -> Option<Roff> {
    let help = command.get_after_long_help()?.to_string();
    let lines = help.strip_prefix(EXAMPLES)?.lines();
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    for line in lines {
        match line.strip_prefix("    ") {
            Some(example) => {
                roff.control("PP", []).control("RS", ["4"]);
                roff.control("nf", []).text([bold(example)]);
                roff.control("fi", []).control("RE", []);
            }
            None => {
                roff.control("PP", []).text([roman(line.trim())]);
            }
        }
    }
    Some(roff)
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

fn see_also(others: &[String]) -> Roff {
    let targetcli = "targetcli".to_owned();
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    for (at, other) in others.iter().chain([&targetcli]).enumerate() {
        let comma = if at < others.len() { "," } else { "" };
        roff.text([bold(other.as_str()), roman(format!("({SECTION}){comma}"))]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap_complete::Shell;

    /// What `tcmu-pr` can be asked to do, by hand: each has a page and is completed.
    const COMMANDS: [&str; 12] = [
        "serve",
        "status",
        "show",
        "history",
        "clear",
        "preempt",
        "clear-flush-failure",
        "resize",
        "nexus",
        "check",
        "commands",
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
        let of_nexus = ["nexus-add", "nexus-remove", "nexus-list"];
        for command in COMMANDS.into_iter().chain(of_nexus) {
            let page = page(&format!("tcmu-pr-{command}.8"));
            assert!(page.contains(&format!(".TH tcmu-pr-{command} 8")), "{page}");
            for section in ["SYNOPSIS", "EXIT STATUS", "FILES", "SEE ALSO"] {
                let section = section.replace(' ', "\\ ");
                let found = page.contains(&format!(".SH {section}\n"))
                    || page.contains(&format!(".SH \"{}\"\n", section.replace("\\ ", " ")));
                assert!(found, "{section}: {page}");
            }
            assert!(page.contains("\\fBtcmu\\-pr\\fR(8),\n"), "{page}");
        }
        let add = page("tcmu-pr-nexus-add.8");
        assert!(add.contains(".SH EXAMPLES\n"), "{add}");
        assert!(add.contains("\\fBtcmu\\-pr\\-nexus\\fR(8),\n"), "{add}");
        let written = fs::read_dir(directory.path()).expect("it is there").count();
        assert_eq!(written, 1 + COMMANDS.len() + of_nexus.len());
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
            assert!(
                text.contains("initiator"),
                "{shell}: no options of nexus add"
            );
            for hidden in ["manual", "fault-late", "fault-every", "run-directory"] {
                assert!(!text.contains(hidden), "{shell}: {hidden}");
            }
        }
    }
}
