//! What the kernel calls a device, and what the administrator wrote into its config string.
//!
//! A backstore's config string (targetcli: `cfgstring=`) names the backing object: `/srv/lun0.img`. Where the kernel
//! can't say who sends a command, it also names the one I_T nexus that the backstore stands for:
//! `/srv/lun0.img;nexus=node-a`. targetcli puts our subtype in front, the kernel puts the backstore's name before that
//! and gives the whole to the UIO device:
//!
//! ```text
//! tcm-user / 0 / lun0-a / pr / /srv/lun0.img;nexus=node-a      (without the spaces)
//! prefix    hba  device  subtype       handler string
//! ```
//!
//! Whether the path exists, and what is there, is not asked here.

mod defaults;
mod words;

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::configfs::BackstoreName;
pub use defaults::Defaults;
pub use words::{OPTIONS, Words};

/// Our subtype: the first part of every config string of ours.
pub const SUBTYPE: &str = "pr";

/// The longest config string we take, subtype included. The kernel cuts longer ones at 255 bytes without a
/// word, so a string of 255 bytes may be the beginning of another.
pub const LENGTH_MAX: usize = 254;

/// What is wrong with a config string, and what to write instead.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The string is for another handler.
    #[error("the config string is for the handler \"{0}\"; tcmu-pr serves \"{SUBTYPE}/<path>\"")]
    Subtype(String),
    /// The kernel would cut the string.
    #[error(
        "the config string is {0} bytes long; the kernel keeps {LENGTH_MAX}: choose a shorter path"
    )]
    TooLong(usize),
    /// A character that targetcli, rtslib or the kernel would stumble over.
    #[error(
        "the config string has the character {0:?}; \
         only letters, digits and ; = _ + / . @ - % ( ) survive targetcli and the kernel: rename the file"
    )]
    Character(char),
    /// There is nothing before the first option.
    #[error("the config string names no backing file or device; write /path/to/file")]
    MissingPath,
    /// The path depends on a working directory.
    #[error("{path} is not an absolute path; write /{path}, or where else from the root it is", path = .0)]
    RelativePath(String),
    /// The path goes up again.
    #[error("{0} has \"..\" in it; write the path without")]
    ParentInPath(String),
    /// The path ends in a slash.
    #[error("{0} names a directory; write the path of a file")]
    Directory(String),
    /// An option we don't know.
    #[error(
        "unknown option \"{0}\"; there are {options}", options = words::list()
    )]
    UnknownOption(String),
    /// A value that the option does not have.
    #[error("{option}={value}: write {option}={allowed}")]
    Value {
        /// The option.
        option: &'static str,
        /// What it was given.
        value: String,
        /// What it can be given.
        allowed: &'static str,
    },
    /// The same option again.
    #[error("the option {0} is given twice; leave one out")]
    DuplicateOption(&'static str),
    /// Whom the backstore is for says nothing of who sends to others.
    #[error(
        "nexus= and copy_domain= do not go together: copies between disks need backstores that all initiators share; \
         leave one of the two out"
    )]
    DomainOfOne,
    /// The label cannot be used.
    #[error(transparent)]
    Label(#[from] LabelError),
}

/// What is wrong with a nexus label, and what to write instead.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LabelError {
    /// Nothing after `nexus=`.
    #[error("the nexus label is empty; write nexus=<label>, for example nexus=node-a")]
    Empty,
    /// Longer than [`Label::LENGTH_MAX`].
    #[error("the nexus label has {0} characters; {max} are allowed", max = Label::LENGTH_MAX)]
    TooLong(usize),
    /// Not a letter, digit, `.`, `_` or `-`.
    #[error(
        "the nexus label has the character {0:?}; only letters, digits, \".\", \"_\" and \"-\" are allowed"
    )]
    Character(char),
}

/// The administrator's name for an I_T nexus: 1 to 64 letters, digits, `.`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Label(Arc<str>);

impl Label {
    /// The longest label, in characters.
    pub const LENGTH_MAX: usize = 64;

    /// The label as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Label, LabelError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match text.chars().find(|&c| !allowed(c)) {
            _ if text.is_empty() => Err(LabelError::Empty),
            Some(c) => Err(LabelError::Character(c)),
            None if text.len() > Label::LENGTH_MAX => Err(LabelError::TooLong(text.len())),
            None => Ok(Label(text.into())),
        }
    }
}

impl TryFrom<String> for Label {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Label, LabelError> {
        text.parse()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a TCMU device, as its UIO device and the kernel's messages spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// The number of the backstore's host bus adapter: n of `user_<n>`.
    pub hba: u32,
    /// The backstore's name: `lun0-a`.
    pub device: &'a str,
    /// Which handler the device is for.
    pub subtype: &'a str,
    /// What the handler is told: [`Options::parse`] reads ours.
    pub handler: &'a str,
}

impl<'a> Name<'a> {
    /// Takes a UIO device's name apart. `None` if it is no TCMU device's.
    pub fn parse(uio_name: &'a str) -> Option<Name<'a>> {
        let rest = without_newline(uio_name).strip_prefix("tcm-user/")?;
        let (hba, rest) = rest.split_once('/')?;
        let (device, config) = rest.split_once('/').unwrap_or((rest, ""));
        let (subtype, handler) = config.split_once('/').unwrap_or((config, ""));
        (!device.is_empty()).then_some(Name {
            hba: hba.parse().ok()?,
            device,
            subtype,
            handler,
        })
    }

    /// The backstore behind the device.
    pub fn backstore(&self) -> BackstoreName {
        BackstoreName {
            hba: format!("user_{}", self.hba),
            name: self.device.to_owned(),
        }
    }

    /// Whether the device is for us.
    pub fn is_ours(&self) -> bool {
        self.subtype == SUBTYPE
    }
}

/// What a config string asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The backing file or device: absolute, without `.`, `..` and doubled slashes.
    pub path: PathBuf,
    /// The I_T nexus that the backstore stands for; `None` if any number of initiators share it.
    pub nexus: Option<Label>,
    /// `copy_domain=`: the units among which EXTENDED COPY may copy, by the administrator's name for them, the same for
    /// all backstores of a unit. `None`: only within the unit.
    pub copy_domain: Option<Label>,
    /// What concerns the disk, the same for all backstores of a unit.
    pub disk: DiskOptions,
    /// What concerns the reservations, the same for all backstores of a unit.
    pub reservations: ReservationOptions,
    /// The options that the config string names: about the others, the node's file may say something.
    said: Vec<&'static str>,
}

/// What a config string says about the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskOptions {
    /// `read_only=1`: nobody writes it.
    pub read_only: bool,
    /// `direct=1`: it is read and written past the page cache.
    pub direct: bool,
    /// `physical_block_size=`: what initiators are told, in bytes, whatever is below the backing object.
    pub physical_block_size: Option<u32>,
    /// `thin_threshold=`: when initiators are warned that little of the file system is left, if at all.
    pub thin_threshold: Option<Threshold>,
}

/// When initiators are warned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// When less than so many percent of the file system are left.
    pub percent: u8,
    /// The config string asks for it: a disk of which nobody can tell how much is left is not served then. The node's file
    /// asks for it where it is possible.
    pub demanded: bool,
}

/// What a config string says about reservations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReservationOptions {
    /// `force_aptpl=1`: every registration outlives a loss of power, whatever the initiator asks for.
    pub force_aptpl: bool,
    /// `registrations=`: how many I_T nexuses can be registered.
    pub registrations: Option<u16>,
    /// `spec_i_pt_known_only=1`: SPEC_I_PT registers only initiators that the target configuration names.
    pub spec_i_pt_known_only: bool,
}

impl Options {
    /// Reads a whole config string, `pr//srv/lun0.img;nexus=node-a`: what targetcli asks about and what
    /// RECONFIG_DEVICE brings.
    pub fn parse_config(config: &str) -> Result<Options, Error> {
        if config.len() > LENGTH_MAX {
            return Err(Error::TooLong(config.len()));
        }
        let (subtype, handler) = config.split_once('/').unwrap_or((config, ""));
        if without_newline(subtype) != SUBTYPE {
            return Err(Error::Subtype(subtype.escape_debug().to_string()));
        }
        Options::parse(handler)
    }

    /// Reads the handler string, `/srv/lun0.img;nexus=node-a`: what [`Name::handler`] holds.
    pub fn parse(handler: &str) -> Result<Options, Error> {
        let handler = without_newline(handler);
        let length = SUBTYPE.len() + 1 + handler.len();
        if length > LENGTH_MAX {
            return Err(Error::TooLong(length));
        }
        if let Some(c) = handler.chars().find(|&c| !survives(c)) {
            return Err(Error::Character(c));
        }
        let mut parts = handler.split(';');
        let path = parse_path(parts.next().unwrap_or_default())?;
        let mut nexus = None;
        let mut copy_domain = None;
        let mut disk = DiskOptions::default();
        let mut reservations = ReservationOptions::default();
        let mut said = Vec::new();
        for option in parts {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let Some(name) = KNOWN.into_iter().find(|known| *known == name) else {
                return Err(Error::UnknownOption(option.to_owned()));
            };
            if said.contains(&name) {
                return Err(Error::DuplicateOption(name));
            }
            said.push(name);
            match name {
                COPY_DOMAIN => copy_domain = Some(parse_domain(value)?),
                FORCE_APTPL => reservations.force_aptpl = parse_switch(name, value)?,
                SPEC_I_PT_KNOWN_ONLY => {
                    reservations.spec_i_pt_known_only = parse_switch(name, value)?;
                }
                REGISTRATIONS => reservations.registrations = Some(parse_registrations(value)?),
                DIRECT => disk.direct = parse_switch(name, value)?,
                READ_ONLY => disk.read_only = parse_switch(name, value)?,
                THIN_THRESHOLD => disk.thin_threshold = parse_threshold(value)?.map(demanded),
                PHYSICAL_BLOCK_SIZE => disk.physical_block_size = Some(parse_block_size(value)?),
                _ => nexus = Some(value.parse()?),
            }
        }
        if nexus.is_some() && copy_domain.is_some() {
            return Err(Error::DomainOfOne);
        }
        Ok(Options {
            path,
            nexus,
            copy_domain,
            disk,
            reservations,
            said,
        })
    }

    /// Whether both are of the same disk and ask for the same, for whatever initiator.
    pub fn is_same_but_nexus(&self, other: &Options) -> bool {
        let without = |options: &Options| {
            let mut options = options.clone();
            options.nexus = None;
            options.said.retain(|name| *name != NEXUS);
            options.said.sort_unstable();
            options
        };
        without(self) == without(other)
    }
}

/// The options there are.
pub(crate) const KNOWN: [&str; 9] = [
    NEXUS,
    COPY_DOMAIN,
    READ_ONLY,
    DIRECT,
    PHYSICAL_BLOCK_SIZE,
    THIN_THRESHOLD,
    FORCE_APTPL,
    REGISTRATIONS,
    SPEC_I_PT_KNOWN_ONLY,
];
const NEXUS: &str = "nexus";
const COPY_DOMAIN: &str = "copy_domain";
const READ_ONLY: &str = "read_only";
const DIRECT: &str = "direct";
const PHYSICAL_BLOCK_SIZE: &str = "physical_block_size";
const THIN_THRESHOLD: &str = "thin_threshold";
const FORCE_APTPL: &str = "force_aptpl";
const REGISTRATIONS: &str = "registrations";
const SPEC_I_PT_KNOWN_ONLY: &str = "spec_i_pt_known_only";

fn parse_switch(option: &'static str, value: &str) -> Result<bool, Error> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(Error::Value {
            option,
            value: value.to_owned(),
            allowed: "1 or 0",
        }),
    }
}

fn parse_domain(value: &str) -> Result<Label, Error> {
    value.parse().map_err(|_| Error::Value {
        option: COPY_DOMAIN,
        value: value.to_owned(),
        allowed: "a name of 1 to 64 letters, digits, \".\", \"_\" and \"-\"",
    })
}

fn parse_registrations(value: &str) -> Result<u16, Error> {
    number(value)
        .filter(|number| (128..=8_190).contains(number))
        .ok_or_else(|| Error::Value {
            option: REGISTRATIONS,
            value: value.to_owned(),
            allowed: "a number from 128 to 8190",
        })
}

fn parse_block_size(value: &str) -> Result<u32, Error> {
    number(value)
        .filter(|size: &u32| size.is_power_of_two() && (512..=65_536).contains(size))
        .ok_or_else(|| Error::Value {
            option: PHYSICAL_BLOCK_SIZE,
            value: value.to_owned(),
            allowed: "a power of two from 512 to 65536",
        })
}

/// `None` for no warning.
fn parse_threshold(value: &str) -> Result<Option<u8>, Error> {
    match number(value) {
        Some(0) => Ok(None),
        Some(percent @ 1..100) => Ok(Some(percent)),
        _ => Err(Error::Value {
            option: THIN_THRESHOLD,
            value: value.to_owned(),
            allowed: "a number of percent from 1 to 99, or 0 for no warning",
        }),
    }
}

fn demanded(percent: u8) -> Threshold {
    Threshold {
        percent,
        demanded: true,
    }
}

/// A number in digits and nothing else.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Whether targetcli, rtslib and the kernel all pass `c` on as it is.
fn survives(c: char) -> bool {
    c.is_ascii_alphanumeric() || ";=_+/.@-%()".contains(c)
}

fn parse_path(text: &str) -> Result<PathBuf, Error> {
    let path = Path::new(text);
    if text.is_empty() {
        return Err(Error::MissingPath);
    }
    if !path.is_absolute() {
        return Err(Error::RelativePath(text.to_owned()));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Error::ParentInPath(text.to_owned()));
    }
    if text.ends_with('/') || text.ends_with("/.") {
        return Err(Error::Directory(text.to_owned()));
    }
    Ok(path.components().collect())
}

/// A shell's `echo` into the config string leaves its newline in it.
fn without_newline(text: &str) -> &str {
    text.strip_suffix('\n').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backstores_of_one_disk_differ_in_their_nexus_only() {
        let options = |text| Options::parse(text).unwrap();
        let first = options("/srv/a;nexus=a;direct=1;read_only=1");
        assert!(first.is_same_but_nexus(&options("/srv/a;read_only=1;direct=1;nexus=b")));
        assert!(first.is_same_but_nexus(&options("/srv/a;read_only=1;direct=1")));
        for other in [
            "/srv/b;nexus=a;direct=1;read_only=1",
            "/srv/a;nexus=a;direct=1",
            "/srv/a;nexus=a;direct=1;read_only=1;force_aptpl=0",
        ] {
            assert!(!first.is_same_but_nexus(&options(other)), "{other}");
        }
    }

    #[test]
    fn a_name_is_split_on_the_first_three_slashes() {
        let name = Name::parse("tcm-user/0/lun0-a/pr//srv/lun0.img;nexus=node-a\n");
        let expected = Name {
            hba: 0,
            device: "lun0-a",
            subtype: "pr",
            handler: "/srv/lun0.img;nexus=node-a",
        };
        assert_eq!(name, Some(expected));
        assert!(expected.is_ours());
        assert_eq!(expected.backstore().to_string(), "user_0/lun0-a");
    }

    #[test]
    fn names_of_others_are_recognised() {
        let table = [
            ("tcm-user/1/a/file//srv/x", Some(("file", "/srv/x"))),
            ("tcm-user/1/a/p/x", Some(("p", "x"))),
            ("tcm-user/1/a/prx/x", Some(("prx", "x"))),
            ("tcm-user/1/a/PR/x", Some(("PR", "x"))),
            ("tcm-user/1/a/file/pr/x", Some(("file", "pr/x"))),
            ("tcm-user/1/a", Some(("", ""))),
            ("tcm-user/1/a/", Some(("", ""))),
            ("tcm-user/1", None),
            ("tcm-user/1/", None),
            ("tcm-user//a/pr/x", None),
            ("tcm-user/user_1/a/pr/x", None),
            ("tcm-user/-1/a/pr/x", None),
            ("tcm-userx/user_1/a/pr/x", None),
            ("tcm-user", None),
            ("uio_pci_generic", None),
            ("", None),
        ];
        for (text, expected) in table {
            let name = Name::parse(text);
            assert_eq!(name.map(|n| (n.subtype, n.handler)), expected, "{text}");
            assert!(!name.is_some_and(|n| n.is_ours()), "{text}");
        }
        assert!(Name::parse("tcm-user/1/a/pr").is_some_and(|n| n.is_ours()));
    }

    #[test]
    fn options_hold_path_and_label() {
        let table = [
            ("/srv/lun0.img;nexus=node-a", "/srv/lun0.img"),
            ("/srv/lun0.img;nexus=node-a\n", "/srv/lun0.img"),
            ("//srv/./lun0.img;nexus=node-a", "/srv/lun0.img"),
            ("/srv/a=b+c@d%(1).img;nexus=node-a", "/srv/a=b+c@d%(1).img"),
            ("/srv/..lun;nexus=node-a", "/srv/..lun"),
            ("/dev/mapper/vg-lun;nexus=node-a", "/dev/mapper/vg-lun"),
        ];
        for (text, path) in table {
            let options = Options::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            // As text: Path's own comparison takes "/a//b" and "/a/b" for the same.
            assert_eq!(options.path.to_str(), Some(path), "{text}");
            assert_eq!(
                options.nexus.as_ref().map(Label::as_str),
                Some("node-a"),
                "{text}"
            );
        }
    }

    #[test]
    fn bad_config_strings_are_refused_with_what_to_write() {
        let long = format!("/{};nexus=a", "x".repeat(243));
        let table = [
            ("", "write /path/to/file"),
            ("\n", "write /path/to/file"),
            (";nexus=node-a", "write /path/to/file"),
            ("srv/lun0;nexus=a", "write /srv/lun0"),
            ("nexus=node-a", "is not an absolute path"),
            ("/srv/../etc/passwd;nexus=a", "has \"..\" in it"),
            ("/srv/lun0/..;nexus=a", "has \"..\" in it"),
            ("/srv/;nexus=a", "/srv/ names a directory"),
            ("/srv/.;nexus=a", "/srv/. names a directory"),
            ("/;nexus=a", "/ names a directory"),
            ("/srv/lun0.img;nexus=", "the nexus label is empty"),
            ("/srv/lun0.img;nexus", "the nexus label is empty"),
            ("/srv/lun0.img;nexus=a;nexus=a", "nexus is given twice"),
            ("/srv/lun0.img;nexus=a=b", "character '='"),
            ("/srv/lun0.img;nexus=a/b", "character '/'"),
            ("/srv/lun0.img;nexus=a;turbo", "unknown option \"turbo\""),
            ("/srv/lun0.img;nexsu=a", "unknown option \"nexsu=a\""),
            ("/srv/lun0.img;nexus=a;", "unknown option \"\""),
            ("/srv/lun0.img;Nexus=a", "unknown option \"Nexus=a\""),
            ("/srv/my disk;nexus=a", "character ' '"),
            ("/srv/a:b;nexus=a", "character ':'"),
            ("/srv/a,b;nexus=a", "character ','"),
            ("/srv/lün;nexus=a", "character 'ü'"),
            ("/srv/\u{1b}[2J;nexus=a", "character '\\u{1b}'"),
            ("/srv/a\nb;nexus=a", "character '\\n'"),
            ("/srv/a;nexus=a\n\n", "character '\\n'"),
            (&long, "is 255 bytes long"),
        ];
        for (text, expected) in table {
            let error = Options::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn options_about_reservations_can_stand_before_and_behind_the_label() {
        let options = |text: &str| Options::parse(text).expect(text).reservations;
        let none = ReservationOptions::default();
        assert_eq!(options("/srv/x;nexus=a"), none);
        assert_eq!(
            options("/srv/x;force_aptpl=0;nexus=a;spec_i_pt_known_only=0"),
            none
        );
        let all = ReservationOptions {
            force_aptpl: true,
            registrations: Some(8190),
            spec_i_pt_known_only: true,
        };
        let text = "/srv/x;registrations=8190;nexus=a;force_aptpl=1;spec_i_pt_known_only=1";
        assert_eq!(options(text), all);
        for (text, expected) in [
            ("force_aptpl", "force_aptpl=: write force_aptpl=1 or 0"),
            (
                "force_aptpl=yes",
                "force_aptpl=yes: write force_aptpl=1 or 0",
            ),
            ("registrations=127", "a number from 128 to 8190"),
            ("registrations=8191", "a number from 128 to 8190"),
            ("registrations=+200", "a number from 128 to 8190"),
            ("registrations=", "a number from 128 to 8190"),
            ("force_aptpl=1;force_aptpl=1", "force_aptpl is given twice"),
        ] {
            let error = Options::parse(&format!("/srv/x;nexus=a;{text}"));
            let error = error.expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_copy_domain_is_a_name_and_goes_with_shared_backstores_only() {
        let options = Options::parse("/srv/x;copy_domain=vm-disks.1");
        assert_eq!(
            options.unwrap().copy_domain,
            Some("vm-disks.1".parse().unwrap())
        );
        let wrong = |value: &str| Error::Value {
            option: "copy_domain",
            value: value.to_owned(),
            allowed: "a name of 1 to 64 letters, digits, \".\", \"_\" and \"-\"",
        };
        for (text, expected) in [
            ("/srv/x;copy_domain=", wrong("")),
            ("/srv/x;copy_domain=a(b)", wrong("a(b)")),
            ("/srv/x;copy_domain=a;nexus=node-a", Error::DomainOfOne),
            ("/srv/x;nexus=node-a;copy_domain=a", Error::DomainOfOne),
        ] {
            assert_eq!(Options::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn options_about_the_disk_are_read() {
        let options = |text: &str| Options::parse(text).expect(text).disk;
        assert_eq!(options("/dev/mapper/vg-lun"), DiskOptions::default());
        let all = DiskOptions {
            read_only: true,
            direct: true,
            physical_block_size: Some(65_536),
            thin_threshold: Some(demanded(99)),
        };
        let text = "/dev/mapper/vg-lun;physical_block_size=65536;nexus=a;read_only=1;direct=1;thin_threshold=99";
        assert_eq!(options(text), all);
        for (text, expected) in [
            (
                "thin_threshold=-1",
                "thin_threshold=-1: write thin_threshold=a number of percent from 1 to 99, or 0 for no warning",
            ),
            ("thin_threshold=100", "a number of percent from 1 to 99"),
            ("thin_threshold=5%", "a number of percent from 1 to 99"),
            ("read_only=on", "read_only=on: write read_only=1 or 0"),
            (
                "physical_block_size=256",
                "a power of two from 512 to 65536",
            ),
            (
                "physical_block_size=131072",
                "a power of two from 512 to 65536",
            ),
            (
                "physical_block_size=3072",
                "a power of two from 512 to 65536",
            ),
            ("physical_block_size=4k", "a power of two from 512 to 65536"),
            (
                "physical_block_size=+512",
                "a power of two from 512 to 65536",
            ),
            ("direct", "direct=: write direct=1 or 0"),
            ("read_only=1;read_only=1", "read_only is given twice"),
        ] {
            let error = Options::parse(&format!("/srv/x;{text}"));
            let error = error.expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_documentation_has_every_option() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, options) = text.split_once("\n## The config string\n").unwrap();
        let (options, _) = options.split_once("\n## ").unwrap();
        let mut documented: Vec<&str> = options
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('=').next())
            .collect();
        let mut known = KNOWN.to_vec();
        documented.sort_unstable();
        known.sort_unstable();
        assert_eq!(documented, known);
        let unknown = Options::parse("/srv/x;turbo").unwrap_err().to_string();
        assert!(
            known
                .iter()
                .all(|name| unknown.contains(&format!("{name}=")))
        );
    }

    #[test]
    fn the_longest_config_string_is_one_that_the_kernel_cannot_have_cut() {
        let longest = format!("/{};nexus=a", "x".repeat(242));
        assert_eq!("pr/".len() + longest.len(), 254);
        assert!(Options::parse(&longest).is_ok());
    }

    #[test]
    fn labels_are_1_to_64_letters_digits_and_a_few_signs() {
        assert!("a".repeat(64).parse::<Label>().is_ok());
        assert_eq!(
            "a".repeat(65).parse::<Label>(),
            Err(LabelError::TooLong(65))
        );
        assert!("Node_1.rack-2".parse::<Label>().is_ok());
        assert_eq!("é".parse::<Label>(), Err(LabelError::Character('é')));
        assert_eq!("".parse::<Label>(), Err(LabelError::Empty));
    }

    #[test]
    fn a_whole_config_string_begins_with_our_subtype() {
        let options = Options::parse_config("pr//srv/lun0.img;nexus=node-a\n").expect("it is good");
        assert_eq!(options.path.to_str(), Some("/srv/lun0.img"));
        assert_eq!(Options::parse_config("pr\n"), Err(Error::MissingPath));
        assert_eq!(Options::parse_config("pr"), Err(Error::MissingPath));
        let other = Options::parse_config("file//srv/x;nexus=a");
        assert_eq!(other, Err(Error::Subtype("file".into())));
        assert!(Options::parse_config("").is_err());
    }
}
