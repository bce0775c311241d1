//! What is configured for the node: the command line, and below it the configuration file, which SIGHUP has read anew.
//!
//! A file that is wrong does not keep the daemon from starting, since hosts wait for their disks. What it said when it
//! was read well the last time is kept, and holds then: without it, `force-aptpl` and whatever else makes fencing surer
//! would be lost by a slip of the pen.

use std::path::{Path, PathBuf};

use log::LevelFilter;

use super::worker::Poll;
use super::{Config, chain};
use crate::control::file::{self, Engine, Settings};
use crate::store::engine::Wanted;
use crate::store::saved::{self, Disk};
use crate::tcmu::config::Defaults;

/// Where the file is kept as it was when it was read well the last time.
const KEPT: &str = "configuration.toml";

/// What the command line says instead of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// How much is logged.
    pub log_level: Option<LevelFilter>,
    /// What does I/O that has to wait.
    pub engine: Option<Engine>,
    /// Whether rings are looked at again before their thread sleeps.
    pub poll: Option<file::Poll>,
}

/// What is done for speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effort {
    /// What does I/O that has to wait.
    pub(super) engine: Wanted,
    /// Whether rings are looked at again before their thread sleeps.
    pub(super) poll: Poll,
}

/// What holds for units that are started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) effort: Effort,
    /// What holds where their config strings are silent.
    pub(super) defaults: Defaults,
}

/// The configuration that is in force, and where it comes from.
#[derive(Debug)]
pub(super) struct Configuration {
    path: PathBuf,
    kept: PathBuf,
    flags: Flags,
    set_log_level: fn(LevelFilter),
    settings: Settings,
    /// The text of the file, if that is in force and not kept yet.
    to_keep: Option<String>,
    warning: Option<String>,
}

impl Configuration {
    /// What holds when the daemon starts.
    pub(super) fn start(config: &Config) -> Configuration {
        let mut configuration = Configuration {
            path: config.file.clone(),
            kept: config.state_directory.join(KEPT),
            flags: config.flags,
            set_log_level: config.set_log_level,
            settings: Settings::default(),
            to_keep: None,
            warning: None,
        };
        let read = read(&configuration.path).or_else(|error| {
            let kept = read(&configuration.kept);
            let instead = match &kept {
                Ok((text, _)) if !text.is_empty() => {
                    "what it said when it was last read well holds"
                }
                _ => "none of it holds",
            };
            configuration.warning = Some(warning(&error, instead));
            kept.map(|(_, settings)| (String::new(), settings))
        });
        if let Ok((text, settings)) = read {
            configuration.settings = settings;
            configuration.to_keep = Some(text).filter(|_| configuration.warning.is_none());
        }
        configuration.announce();
        configuration
    }

    /// Reads the file anew. If it is wrong, nothing changes.
    pub(super) fn reload(&mut self) {
        match read(&self.path) {
            Ok((text, settings)) => {
                log::info!("{}: read anew", self.path.display());
                self.settings = settings;
                self.to_keep = Some(text);
                self.warning = None;
            }
            Err(error) => self.warning = Some(warning(&error, "nothing has changed")),
        }
        self.announce();
        self.keep();
    }

    /// Keeps the file for a start at which it is wrong. The folder for that is there now.
    pub(super) fn keep(&mut self) {
        let Some(text) = self.to_keep.take() else {
            return;
        };
        let kept = saved::read(&Disk, &self.kept).ok().flatten();
        if kept.unwrap_or_default() == text.as_bytes() {
            return;
        }
        if let Err(error) = saved::replace(&Disk, &self.kept, text.as_bytes()) {
            log::warn!(
                "{} can't be kept for a start at which it is wrong: {}",
                self.path.display(),
                chain(&error)
            );
        }
    }

    /// What is wrong with the file, if anything.
    pub(super) fn warning(&self) -> Option<String> {
        self.warning.clone()
    }

    /// What holds for units that are started from now on.
    pub(super) fn node(&self) -> Node {
        let engine = match self.flags.engine.unwrap_or(self.settings.engine) {
            Engine::Best => Wanted::Best,
            Engine::Threads => Wanted::Threads,
        };
        let poll = match self.flags.poll.unwrap_or(self.settings.poll) {
            file::Poll::Off => Poll::Off,
            file::Poll::Adaptive => Poll::Adaptive,
            file::Poll::Fixed(time) => Poll::Fixed(time),
        };
        Node {
            effort: Effort { engine, poll },
            defaults: self.settings.backstores,
        }
    }

    fn announce(&self) {
        (self.set_log_level)(self.flags.log_level.unwrap_or(self.settings.log_level));
        if let Some(warning) = &self.warning {
            log::error!("{warning}");
        }
    }
}

fn read(path: &Path) -> Result<(String, Settings), file::Error> {
    let text = file::read(path)?;
    let settings = file::parse(path, &text)?;
    Ok((text, settings))
}

fn warning(error: &file::Error, instead: &str) -> String {
    format!(
        "{} ({instead}; when it is mended: systemctl reload tcmu-pr)",
        chain(error)
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::control::dbus::Bus;
    use crate::nexus::tap::Faults;

    /// A node's file, the folder for what is kept, and what the command line says.
    struct Place {
        folder: tempfile::TempDir,
        flags: Flags,
    }

    impl Place {
        fn new() -> Place {
            Place {
                folder: tempfile::tempdir().unwrap(),
                flags: Flags::default(),
            }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("tcmu-pr.toml")
        }

        fn write(&self, text: &str) {
            fs::write(self.path(), text).unwrap();
            fs::set_permissions(self.path(), fs::Permissions::from_mode(0o644)).unwrap();
        }

        fn start(&self) -> Configuration {
            let mut configuration = Configuration::start(&Config {
                run_directory: self.folder.path().to_owned(),
                state_directory: self.folder.path().to_owned(),
                bus: Bus::System,
                file: self.path(),
                flags: self.flags,
                set_log_level: |_| {},
                faults: Faults::default(),
            });
            configuration.keep();
            configuration
        }

        /// The warning about the word `true` for a number, in the first line after the table's.
        fn warning(&self, instead: &str) -> String {
            format!(
                "{}:2:17: registrations can't be true: write a number from 128 to 8190 ({instead}; when it is mended: \
                 systemctl reload tcmu-pr)",
                self.path().display()
            )
        }
    }

    const GOOD: &str = "engine = \"threads\"\npoll = 20\n[backstores]\nforce-aptpl = true\n";
    const BAD: &str = "[backstores]\nregistrations = true\nforce-aptpl = false\n";

    fn good() -> Node {
        Node {
            effort: Effort {
                engine: Wanted::Threads,
                poll: Poll::Fixed(Duration::from_micros(20)),
            },
            defaults: Defaults {
                force_aptpl: true,
                ..Defaults::default()
            },
        }
    }

    #[test]
    fn without_a_file_the_defaults_hold() {
        let configuration = Place::new().start();
        assert_eq!(configuration.node(), Node::default());
        assert_eq!(configuration.warning(), None);
    }

    #[test]
    fn the_file_holds_and_the_command_line_over_it() {
        let mut place = Place::new();
        place.write(GOOD);
        assert_eq!(place.start().node(), good());
        place.flags = Flags {
            log_level: None,
            engine: Some(Engine::Best),
            poll: Some(file::Poll::Off),
        };
        let effort = Effort {
            engine: Wanted::Best,
            poll: Poll::Off,
        };
        let expected = Node { effort, ..good() };
        let mut configuration = place.start();
        assert_eq!(configuration.node(), expected);
        configuration.reload();
        assert_eq!(configuration.node(), expected);
    }

    #[test]
    fn a_reload_changes_what_holds_unless_the_file_is_wrong() {
        let place = Place::new();
        let mut configuration = place.start();
        place.write(GOOD);
        configuration.reload();
        assert_eq!(configuration.node(), good());
        place.write(BAD);
        configuration.reload();
        assert_eq!(configuration.node(), good());
        let warning = place.warning("nothing has changed");
        assert_eq!(configuration.warning(), Some(warning));
        place.write("");
        configuration.reload();
        assert_eq!(configuration.node(), Node::default());
        assert_eq!(configuration.warning(), None);
    }

    #[test]
    fn at_a_start_with_a_wrong_file_the_last_good_one_holds() {
        let place = Place::new();
        place.write(BAD);
        let configuration = place.start();
        assert_eq!(configuration.node(), Node::default());
        assert_eq!(
            configuration.warning(),
            Some(place.warning("none of it holds"))
        );
        place.write(GOOD);
        place.start();
        place.write(BAD);
        // As often as that happens.
        for _ in 0..2 {
            let configuration = place.start();
            assert_eq!(configuration.node(), good());
            let instead = "what it said when it was last read well holds";
            assert_eq!(configuration.warning(), Some(place.warning(instead)));
        }
        // What was taken away on purpose does not come back.
        fs::remove_file(place.path()).unwrap();
        place.start();
        place.write(BAD);
        assert_eq!(place.start().node(), Node::default());
    }
}
