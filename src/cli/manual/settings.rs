//! What can be set besides options of the command line: the config string, and the node's file.

use std::io;

use clap_mangen::roff::{Roff, bold, roman};

use super::{MANUAL, SOURCE, entry, see_also};
use crate::control::file;
use crate::tcmu::config::OPTIONS;

/// The section of files, where the page about the node's file is looked for.
const SECTION: &str = "5";
/// The page about the node's file.
pub(super) const PAGE: (&str, &str) = ("tcmu-pr.toml", SECTION);
/// The file with all keys in it, as it is installed.
const EXAMPLE: &str = include_str!("../../../systemd/tcmu-pr.toml");

/// What can stand in a config string.
pub(super) fn config_string() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["CONFIG STRING"]);
    roff.text([
        roman("What targetcli is given as "),
        bold("cfgstring="),
        roman(
            ": the path of a file or a block device, and options after it, each after a semicolon. All but nexus= are the same \
             for all backstores of a disk. In a shell, put it in quotes.",
        ),
    ]);
    for option in OPTIONS {
        let text = format!("{} [default: {}]", option.what, option.default);
        let name = format!("{}={}", option.name, option.value);
        entry(&mut roff, &name, &text.replace('`', ""));
    }
    roff
}

/// The page about the node's file, and the name of its file. What it says of the keys stands in the example.
pub(super) fn page() -> io::Result<(String, Vec<u8>)> {
    let mut roff = Roff::new();
    let (name, section) = PAGE;
    roff.control("TH", [name, section, "", SOURCE, MANUAL]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(
        "tcmu-pr.toml - settings of a storage node with tcmu-pr",
    )]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([
        bold(file::PATH),
        roman(
            " is written in TOML, and says what holds for the whole node. It need not be there. It must belong to root, and \
             nobody else may be able to write it.",
        ),
    ]);
    roff.control("PP", []);
    roff.text([
        roman("After a change: "),
        bold("systemctl reload tcmu-pr"),
        roman(". What is wrong is in its log, and "),
        bold("tcmu-pr status"),
        roman(" and "),
        bold("tcmu-pr check"),
        roman(" say it too. Below, each key has the value that holds without it."),
    ]);
    keys(&mut roff);
    see_also(
        &mut roff,
        &[
            ("tcmu-pr", "8"),
            ("tcmu-pr-serve", "8"),
            ("tcmu-pr-check", "8"),
        ],
    );
    let mut text = Vec::new();
    roff.to_writer(&mut text)?;
    Ok((format!("{name}.{section}"), text))
}

/// Each key of the example, and what the comment above it says.
fn keys(roff: &mut Roff) {
    roff.control("SH", ["KEYS"]);
    for paragraph in EXAMPLE.split("\n\n") {
        let is_comment = |line: &&str| line.starts_with("# ");
        let (comments, rest): (Vec<&str>, Vec<&str>) = paragraph.lines().partition(is_comment);
        let comment = comments.join("\n").replace("# ", "").replace('\n', " ");
        match rest[..] {
            [setting] if setting.starts_with('[') => {
                roff.control("SH", [format!("KEYS BELOW {setting}").as_str()]);
                roff.text([roman(comment)]);
            }
            [setting] if setting != "#" => {
                let setting = setting.trim_start_matches('#');
                let name = setting.split(' ').next().unwrap_or_default();
                let allowed = file::allowed(name).unwrap_or_default();
                entry(roff, setting, &format!("{comment} It can be {allowed}."));
            }
            // What the example says of itself.
            _ => {}
        }
    }
}
