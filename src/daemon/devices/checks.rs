//! What a config string must fit: the disk that was there, the nexus tap, and the other backstores of its unit.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::disks::check_gone;
use super::{Devices, Port};
use crate::daemon::chain;
use crate::daemon::refusal::Refusal;
use crate::daemon::unit::mode;
use crate::store::backing::BackingId;
use crate::tcmu::config::Options;

/// How long whoever asks whether a backstore could be made waits for its file system. The bus waits 10 s for us, and
/// targetcli 25 s for the bus.
const CHECK_PATIENCE: Duration = Duration::from_secs(5);

/// How many characters of a wrong config string are logged: more than a right one can have.
const CONFIG_SHOWN: usize = 300;

/// Somebody asks whether a backstore could be made.
pub(super) struct Check {
    config: String,
    reply: Sender<Result<(), String>>,
    pub(super) deadline: Instant,
}

impl Devices {
    /// Could a backstore with this config string be made? If not, why not: that is answered when the file system of its path
    /// has answered, and late if it does not.
    pub(in crate::daemon) fn check_config(
        &mut self,
        config: String,
        reply: Sender<Result<(), String>>,
    ) {
        let deadline = Instant::now() + CHECK_PATIENCE;
        self.check(Check {
            config,
            reply,
            deadline,
        });
    }

    /// Answers, unless the file system has not answered yet.
    pub(super) fn check(&mut self, check: Check) {
        let options = Options::parse_config(&check.config).map_err(Refusal::from);
        let options = options.map(|options| options.with(&self.node.defaults));
        let outcome = options.and_then(|options| self.check_options(&options));
        if let Err(Refusal::NoAnswer { path }) = &outcome {
            if Instant::now() < check.deadline {
                return self.checks.push(check);
            }
            self.disks.forget_probe(path);
        }
        let outcome = outcome.map_err(|refusal| {
            let reason = chain(&refusal);
            let shown: String = check.config.chars().take(CONFIG_SHOWN).collect();
            log::warn!("config {}: {reason}", shown.escape_debug());
            reason
        });
        // Whoever asked may have gone.
        let _ = check.reply.send(outcome);
    }

    fn check_options(&self, options: &Options) -> Result<(), Refusal> {
        self.check_tap(options)?;
        let served: HashSet<BackingId> = self.units.keys().copied().collect();
        let is_served = move |id: &BackingId| served.contains(id);
        let look = self
            .disks
            .probe(&options.path, mode(&options.disk), is_served)?;
        match look.id.filter(|id| self.units.contains_key(id)) {
            Some(id) => self.check_label(id, options),
            None => check_gone(&self.records, &options.path, &look),
        }
    }

    /// Whoever shares a backstore must be told apart.
    pub(super) fn check_tap(&self, options: &Options) -> Result<(), Refusal> {
        match (&options.nexus, &self.tap) {
            (None, Err(why)) => Err(Refusal::NoTap {
                path: options.path.clone(),
                why: why.clone(),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn check_label(&self, id: BackingId, options: &Options) -> Result<(), Refusal> {
        let mut of_unit = self.ports.values().filter(|port| port.unit == id);
        let other_way = |port: &&Port| port.label.is_some() != options.nexus.is_some();
        if let Some(port) = of_unit.clone().find(other_way) {
            return Err(Refusal::BothWays {
                path: options.path.clone(),
                other: port.backstore.name().clone(),
            });
        }
        let Some(label) = &options.nexus else {
            return Ok(());
        };
        match of_unit.find(|port| port.label.as_ref() == Some(label)) {
            None => Ok(()),
            Some(port) => Err(Refusal::LabelTwice {
                path: options.path.clone(),
                label: label.clone(),
                other: port.backstore.name().clone(),
            }),
        }
    }
}
