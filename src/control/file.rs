//! The node's configuration file, `/etc/tcmu-pr.toml`: what holds for the whole daemon, and for backstores whose config
//! string is silent.
//!
//! Whoever can write it decides how disks are served, so it must belong to root, and nobody else may write it.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use log::LevelFilter;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::tcmu::config::Defaults;

/// Where it is.
pub const PATH: &str = "/etc/tcmu-pr.toml";

/// The longest one that is read, in bytes.
const LENGTH_MAX: usize = 64 << 10;

/// The longest that a disk's thread may be told to look for more commands, in microseconds.
const POLL_MAX: u64 = 1000;

/// What does I/O that has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// io_uring, and threads where it is missing or forbidden.
    Best,
    /// Helper threads.
    Threads,
}

/// Whether a disk's thread looks for more commands before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// It sleeps at once.
    Off,
    /// As long as it helps.
    Adaptive,
    /// So long.
    Fixed(Duration),
}

impl Poll {
    /// So many microseconds, if that is allowed.
    fn fixed(microseconds: u64) -> Option<Poll> {
        let allowed = (1..=POLL_MAX).contains(&microseconds);
        allowed.then(|| Poll::Fixed(Duration::from_micros(microseconds)))
    }
}

/// Reads what is said about polling: `off`, `adaptive`, or a number of microseconds.
pub fn poll(text: &str) -> Result<Poll, String> {
    let poll = match text {
        "off" => Some(Poll::Off),
        "adaptive" => Some(Poll::Adaptive),
        _ => text.parse().ok().and_then(Poll::fixed),
    };
    poll.ok_or(format!(
        "write off, adaptive, or a number of microseconds from 1 to {POLL_MAX}"
    ))
}

/// What the file says, and the defaults where it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `log-level`: how much is said.
    pub log_level: LevelFilter,
    /// `engine`: what does I/O that has to wait.
    pub engine: Engine,
    /// `poll`: whether a disk's thread looks for more commands before it sleeps.
    pub poll: Poll,
    /// `[backstores]`: what holds where a config string is silent.
    pub backstores: Defaults,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            log_level: LevelFilter::Info,
            engine: Engine::Best,
            poll: Poll::Adaptive,
            backstores: Defaults::default(),
        }
    }
}

/// What is wrong with the file, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be read.
    #[error("{path} can't be read", path = .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It is something else.
    #[error("{path} is no regular file: put one in its place, or nothing", path = .0.display())]
    NotAFile(PathBuf),
    /// Its owner could change it.
    #[error("{path} belongs to the user {owner}, and must belong to root: chown root:root {path}", path = .path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
    },
    /// Others could change it.
    #[error("{path} can be written by others than its owner (mode {mode:04o}): chmod go-w {path}", path = .path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is no configuration file.
    #[error("{path} is longer than {LENGTH_MAX} bytes: shorten it", path = .0.display())]
    TooLong(PathBuf),
    /// It has something in it that it can't have.
    #[error("{path}:{line}:{column}: {what}", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where: the line, from 1 on.
        line: usize,
        /// Where: the character of the line, from 1 on.
        column: usize,
        /// What, and what it can have.
        what: String,
    },
}

/// Reads the text of the file: that of an empty one if there is none.
pub fn read(path: &Path) -> Result<String, Error> {
    let fail = |source| Error::Read(path.to_owned(), source);
    // A pipe has nobody at its other end.
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(fail(error)),
    };
    let metadata = file.metadata().map_err(fail)?;
    if !metadata.is_file() {
        return Err(Error::NotAFile(path.to_owned()));
    }
    // Where tests run, we may be another user, who could change anything of ours anyway.
    let owner = metadata.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(Error::Owner {
            path: path.to_owned(),
            owner,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(Error::Writable {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    let limit = LENGTH_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > LENGTH_MAX {
        return Err(Error::TooLong(path.to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let wrong = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..wrong]);
        let what = "this is no UTF-8: write the file in that".to_owned();
        content(path, &before, wrong, what)
    })
}

/// Reads what the file of that name says.
pub fn parse(path: &Path, text: &str) -> Result<Settings, Error> {
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        content(
            path,
            text,
            at,
            format!("this is no TOML: {}", error.message()),
        )
    })?;
    let mut reading = Reading {
        text,
        settings: Settings::default(),
        wrong: Vec::new(),
    };
    for (name, value) in document.get_ref() {
        match value.get_ref().as_table() {
            _ if name.get_ref() != BACKSTORES => reading.key(&NODE_KEYS, NODE_NAMES, name, value),
            Some(table) => table.iter().for_each(|(name, value)| {
                reading.key(&BACKSTORE_KEYS, BACKSTORE_NAMES, name, value)
            }),
            None => {
                let what = format!(
                    "{BACKSTORES} is a table: write [{BACKSTORES}], and what it holds below that"
                );
                reading.wrong.push((name.span().start, what));
            }
        }
    }
    // What is first in the file, not first by its name.
    match reading.wrong.into_iter().min() {
        None => Ok(reading.settings),
        Some((at, what)) => Err(content(path, text, at, what)),
    }
}

/// The error about what begins at a byte of the text.
fn content(path: &Path, text: &str, at: usize, what: String) -> Error {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Error::Content {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        what,
    }
}

/// The table about backstores.
const BACKSTORES: &str = "backstores";
/// What there is, beside the keys of that.
const NODE_NAMES: &str = "; there are log-level, engine, poll and the table [backstores]";
/// What there is in that.
const BACKSTORE_NAMES: &str = " in [backstores]; there are direct, thin-threshold, force-aptpl, registrations and spec-i-pt-known-only";

/// A key that the file can have.
struct Key {
    name: &'static str,
    /// What it can be given.
    allowed: &'static str,
    set: fn(&mut Settings, &DeValue) -> Option<()>,
}

const NODE_KEYS: [Key; 3] = [
    Key {
        name: "log-level",
        allowed: "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        set: |settings, value| {
            let text = value.as_str()?;
            let known = ["error", "warn", "info", "debug", "trace"].contains(&text);
            settings.log_level = text.parse().ok().filter(|_| known)?;
            Some(())
        },
    },
    Key {
        name: "engine",
        allowed: "\"best\" or \"threads\"",
        set: |settings, value| {
            settings.engine = Engine::from_str(value.as_str()?, false).ok()?;
            Some(())
        },
    },
    Key {
        name: "poll",
        allowed: "\"off\", \"adaptive\", or a number of microseconds from 1 to 1000",
        set: |settings, value| {
            settings.poll = match value.as_str() {
                Some("off") => Poll::Off,
                Some("adaptive") => Poll::Adaptive,
                Some(_) => return None,
                None => Poll::fixed(number(value)?)?,
            };
            Some(())
        },
    },
];

const BACKSTORE_KEYS: [Key; 5] = [
    Key {
        name: "direct",
        allowed: "true or false",
        set: |settings, value| {
            settings.backstores.direct = value.as_bool()?;
            Some(())
        },
    },
    Key {
        name: "thin-threshold",
        allowed: "a number of percent from 1 to 99, or 0 for no warning",
        set: |settings, value| {
            settings.backstores.thin_threshold = match number(value)? {
                0 => None,
                percent => Some(
                    u8::try_from(percent)
                        .ok()
                        .filter(|&percent| percent < 100)?,
                ),
            };
            Some(())
        },
    },
    Key {
        name: "force-aptpl",
        allowed: "true or false",
        set: |settings, value| {
            settings.backstores.force_aptpl = value.as_bool()?;
            Some(())
        },
    },
    Key {
        name: "registrations",
        allowed: "a number from 128 to 8190",
        set: |settings, value| {
            let number = number(value).filter(|number| (128..=8190).contains(number))?;
            settings.backstores.registrations = Some(u16::try_from(number).ok()?);
            Some(())
        },
    },
    Key {
        name: "spec-i-pt-known-only",
        allowed: "true or false",
        set: |settings, value| {
            settings.backstores.spec_i_pt_known_only = value.as_bool()?;
            Some(())
        },
    },
];

/// What a key can be given, if there is one of that name.
pub fn allowed(name: &str) -> Option<&'static str> {
    let mut keys = NODE_KEYS.iter().chain(&BACKSTORE_KEYS);
    keys.find(|key| key.name == name).map(|key| key.allowed)
}

fn number(value: &DeValue) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A file that is being read.
struct Reading<'a> {
    text: &'a str,
    settings: Settings,
    /// What is wrong, and at which byte.
    wrong: Vec<(usize, String)>,
}

impl Reading<'_> {
    /// Takes what is said by one key of these.
    fn key(
        &mut self,
        keys: &[Key],
        names: &str,
        name: &Spanned<DeString>,
        value: &Spanned<DeValue>,
    ) {
        let Some(key) = keys.iter().find(|key| key.name == name.get_ref()) else {
            let name = (
                name.span().start,
                format!("unknown key `{}`{names}", plain(name.get_ref())),
            );
            return self.wrong.push(name);
        };
        if (key.set)(&mut self.settings, value.get_ref()).is_none() {
            let given = self.text.get(value.span()).unwrap_or_default();
            let what = format!(
                "{} can't be {}: write {}",
                key.name,
                plain(given),
                key.allowed
            );
            self.wrong.push((value.span().start, what));
        }
    }
}

/// Something from the file, fit to be shown: a line, not too long, without control characters.
fn plain(text: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    let more = if shown.len() < text.len() { "..." } else { "" };
    format!("{}{more}", shown.replace(char::is_control, "?"))
}

#[cfg(test)]
mod tests;
