//! What is made of the definition of the command line besides `--help`: manual pages, and completions for shells.

mod settings;

use std::fs;
use std::io::{self, Write};

use clap::{Arg, ArgAction, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::{Cli, Completions, Error, Manual, exit, print};

/// The section of administrators' commands, where a daemon's pages are looked for.
const SECTION: &str = "8";
/// What the pages are of.
const SOURCE: &str = concat!("tcmu-pr ", env!("CARGO_PKG_VERSION"));
/// Which manual they belong to.
const MANUAL: &str = "SCSI targets";
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
        "/usr/share/doc/tcmu-pr/docs",
        "how to do what: begin with first-disk.md, and when something is wrong, with troubleshooting.md",
    ),
];
/// What the daemon's environment can say.
const ENVIRONMENT: [(&str, &str); 1] = [(
    "RUST_LOG",
    "how much is logged, whatever --log-level and the configuration file say: error, warn, info, debug or trace. It can say \
     more of a part: tcmu_pr::daemon::worker=trace names every command and who sends it",
)];
/// What the daemon does when it is sent a signal.
const SIGNALS: [(&str, &str); 2] = [
    (
        "SIGTERM, SIGINT",
        "It answers what it has taken, leaves the rest to the next daemon, and ends. Hosts wait meanwhile",
    ),
    (
        "SIGHUP",
        "It reads the configuration file again. Disks that are served keep what they have",
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
    let of_commands = commands.iter().map(page_of);
    of_commands.chain([settings::page()]).collect()
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
fn others<'a>(command: &Command, commands: &[&'a Command]) -> Vec<(&'a str, &'static str)> {
    let own = name(command);
    let (above, _) = own.rsplit_once('-').unwrap_or(("", own));
    let is_near = |other: &str| {
        let below = other.strip_prefix(own);
        other == above || below.is_some_and(|rest| rest.starts_with('-'))
    };
    let names = commands.iter().map(|other| name(other));
    let near = names.filter(|other| is_near(other) || (*other == "tcmu-pr" && own != *other));
    let near = near.map(|other| (other, SECTION));
    near.chain([settings::PAGE, ("targetcli", SECTION)])
        .collect()
}

fn page(command: &Command, others: &[(&str, &str)]) -> io::Result<(String, Vec<u8>)> {
    // Under a heading of their own: they are no options.
    let apart = |argument: Arg| match argument.is_positional() {
        true => argument.help_heading("Arguments"),
        false => argument,
    };
    let man = Man::new(command.clone().mut_args(apart))
        .section(SECTION)
        .source(SOURCE)
        .manual(MANUAL);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis(command).to_writer(&mut text)?;
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
    if name(command) == "tcmu-pr" {
        settings::config_string().to_writer(&mut text)?;
    }
    let mut rest = Roff::new();
    if command.get_name() == "serve" {
        section(&mut rest, "SIGNALS", &SIGNALS);
        section(&mut rest, "ENVIRONMENT", &ENVIRONMENT);
    }
    let statuses = exit::STATUSES.map(|(status, meaning)| (status.to_string(), meaning));
    section(&mut rest, "EXIT STATUS", &statuses);
    examples(&mut rest, command);
    section(&mut rest, "FILES", &FILES);
    see_also(&mut rest, others);
    rest.to_writer(&mut text)?;
    Ok((man.get_filename(), text))
}

/// How a command is called: its options with their values, those first that can be left out, and its arguments.
fn synopsis(command: &Command) -> Roff {
    let called = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut line = vec![bold(called)];
    let is_about_itself = |argument: &&Arg| {
        let action = argument.get_action();
        matches!(action, ArgAction::Help | ArgAction::Version)
    };
    let mut arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && !is_about_itself(argument))
        .collect();
    arguments.sort_by_key(|argument| match argument.is_positional() {
        true => 2,
        false => u8::from(argument.is_required_set()),
    });
    for argument in arguments {
        line.push(roman(" "));
        line.extend(match argument.is_required_set() {
            true => usage(argument),
            false => in_brackets(usage(argument)),
        });
        if matches!(argument.get_action(), ArgAction::Append) {
            line.push(roman("..."));
        }
    }
    if command.has_subcommands() {
        line.extend([roman(" "), italic("COMMAND")]);
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]).text(line);
    roff
}

/// An option and its value, or an argument.
fn usage(argument: &Arg) -> Vec<Inline> {
    let range = argument.get_num_args().unwrap_or_default();
    let value = vec![italic(
        argument.get_value_names().unwrap_or_default().join(" "),
    )];
    let Some(option) = argument.get_long() else {
        return value;
    };
    let mut words = vec![bold(format!("--{option}"))];
    if range.takes_values() {
        words.push(roman(" "));
        words.extend(match range.min_values() {
            0 => in_brackets(value),
            _ => value,
        });
    }
    words
}

/// What can be left out.
fn in_brackets(mut words: Vec<Inline>) -> Vec<Inline> {
    words.insert(0, roman("["));
    words.push(roman("]"));
    words
}

/// A section with something in each entry that is explained.
fn section(roff: &mut Roff, title: &str, entries: &[(impl AsRef<str>, &str)]) {
    roff.control("SH", [title]);
    for (what, text) in entries {
        entry(roff, what.as_ref(), text);
    }
}

fn entry(roff: &mut Roff, what: &str, text: &str) {
    roff.control("TP", []).text([bold(what)]);
    roff.text([roman(text)]);
}

/// The examples of a command's help text, if it has any.
fn examples(roff: &mut Roff, command: &Command) {
    let help = command.get_after_long_help().map(ToString::to_string);
    let help = help.unwrap_or_default();
    let Some(examples) = help.strip_prefix(EXAMPLES) else {
        return;
    };
    roff.control("SH", ["EXAMPLES"]);
    for line in examples.lines() {
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
}

fn see_also(roff: &mut Roff, others: &[(&str, &str)]) {
    roff.control("SH", ["SEE ALSO"]);
    for (at, (other, section)) in others.iter().enumerate() {
        let comma = if at + 1 < others.len() { "," } else { "" };
        roff.text([bold(*other), roman(format!("({section}){comma}"))]);
    }
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
        assert_eq!(written, 2 + COMMANDS.len() + of_nexus.len());
    }

    /// A page, as it would be written.
    fn page_of(file: &str) -> String {
        let pages = pages().expect("they are made in memory");
        let page = pages.into_iter().find(|(name, _)| name == file);
        let (_, text) = page.unwrap_or_else(|| panic!("no {file}"));
        String::from_utf8(text).expect("it is text")
    }

    /// A section of a page, without its title.
    fn section_of<'a>(page: &'a str, title: &str) -> &'a str {
        let after = page.split_once(&format!("\n.SH {title}\n"));
        let (_, after) = after.unwrap_or_else(|| panic!("no {title}: {page}"));
        after.split("\n.SH ").next().unwrap_or_default()
    }

    #[test]
    fn the_synopsis_has_values_and_arguments() {
        for (file, expected) in [
            ("tcmu-pr.8", r"\fBtcmu\-pr\fR \fICOMMAND\fR"),
            (
                "tcmu-pr-status.8",
                r"\fBtcmu\-pr status\fR [\fB\-\-json\fR] [\fB\-\-watch\fR [\fISECONDS\fR]]",
            ),
            (
                "tcmu-pr-resize.8",
                r"\fBtcmu\-pr resize\fR [\fB\-\-shrink\fR] [\fB\-\-yes\fR] [\fB\-\-json\fR] \fILU\fR [\fISIZE\fR]",
            ),
            (
                "tcmu-pr-serve.8",
                r"\fBtcmu\-pr serve\fR [\fB\-\-config\fR \fIFILE\fR] [\fB\-\-log\-level\fR \fILEVEL\fR] [\fB\-\-engine\fR \fIENGINE\fR] [\fB\-\-poll\fR \fIoff|adaptive|MICROSECONDS\fR]",
            ),
        ] {
            let page = page_of(file);
            let line = section_of(&page, "SYNOPSIS").lines().next();
            assert_eq!(line, Some(expected), "{file}");
        }
        let add = page_of("tcmu-pr-nexus-add.8");
        let add = section_of(&add, "SYNOPSIS");
        for part in [
            r" [\fB\-\-option\fR \fINAME=VALUE\fR]...",
            r" \fB\-\-target\fR \fIIQN\fR",
        ] {
            assert!(add.contains(part), "{part}: {add}");
        }
    }

    #[test]
    fn arguments_are_no_options() {
        let page = page_of("tcmu-pr-preempt.8");
        let (options, arguments) = (section_of(&page, "OPTIONS"), section_of(&page, "ARGUMENTS"));
        for argument in [r"\fILU\fR", r"\fIKEY\fR"] {
            assert!(!options.contains(argument), "{options}");
            assert!(arguments.contains(argument), "{arguments}");
        }
    }

    #[test]
    fn the_pages_tell_what_can_be_set_besides_options() {
        let whole = page_of("tcmu-pr.8");
        let options = section_of(&whole, "\"CONFIG STRING\"");
        for option in [
            r"nexus=<label>",
            r"copy_domain=<name>",
            r"read_only=1",
            r"direct=1",
            r"physical_block_size=<bytes>",
            r"thin_threshold=<percent>",
            r"force_aptpl=1",
            r"registrations=<number>",
            r"spec_i_pt_known_only=1",
        ] {
            let entry = format!(".TP\n\\fB{option}\\fR\n");
            assert!(options.contains(&entry), "{option}: {options}");
        }
        let serve = page_of("tcmu-pr-serve.8");
        assert!(section_of(&serve, "ENVIRONMENT").contains("RUST_LOG"));
        assert!(section_of(&serve, "SIGNALS").contains("SIGHUP"));
    }

    #[test]
    fn the_nodes_file_has_a_page() {
        let page = page_of("tcmu-pr.toml.5");
        assert!(page.contains("\n.TH tcmu-pr.toml 5 "), "{page}");
        let node = section_of(&page, "KEYS");
        let backstores = section_of(&page, "\"KEYS BELOW [backstores]\"");
        for (section, key) in [
            (node, r#"log\-level = "info""#),
            (node, r#"engine = "best""#),
            (node, r#"poll = "adaptive""#),
            (backstores, r"direct = false"),
            (backstores, r"thin\-threshold = 0"),
            (backstores, r"force\-aptpl = false"),
            (backstores, r"registrations = 1024"),
            (backstores, r"spec\-i\-pt\-known\-only = false"),
        ] {
            let entry = format!(".TP\n\\fB{key}\\fR\n");
            assert!(section.contains(&entry), "{key}: {section}");
        }
        let registrations = "How many I_T nexuses can be registered with a disk. It can be a number from 128 to 8190.\n";
        assert!(backstores.contains(registrations), "{backstores}");
        assert!(!page.contains("It can be .\n"), "{page}");
    }

    #[test]
    fn the_documents_that_are_named_are_there() {
        let texts = FILES.map(|(_, text)| text).join(" ");
        let words = texts.split([' ', ',']);
        let named: Vec<&str> = words.filter(|word| word.ends_with(".md")).collect();
        assert_eq!(named, ["first-disk.md", "troubleshooting.md"]);
        for name in named {
            let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
            assert!(fs::exists(&path).expect("it can be looked at"), "{path}");
        }
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
