//! `tcmu-pr nexus`: for where the kernel can't tell initiators apart. Each then has a backstore of its own, mapped to it
//! alone, and here that is made, taken away, and listed in one step.

mod add;
mod configured;
mod list;
mod names;
mod plan;
mod remove;
mod targetcli;

use std::io::{BufRead, Write};
use std::path::Path;

use clap::{Args, Subcommand};

use super::{Error as CliError, Person, examples, exit, size};
use crate::control::dbus::Bus;
use crate::tcmu::config::{self, Label};
use crate::tcmu::configfs::{self, ROOT};
use targetcli::{Configure, Targetcli};

/// The options of `tcmu-pr nexus`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Nexus {
    /// What to do.
    #[command(subcommand)]
    pub command: NexusCommand,
}

/// What `tcmu-pr nexus` can do.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum NexusCommand {
    /// Let an initiator reach a disk, through a backstore of its own
    ///
    /// Makes with targetcli what is missing of three things: the backstore, its LUN in the target's portal group, and the
    /// LUN that is mapped to the initiator alone. The target has to be there. If any of it fails, or the disk is not
    /// served then, what was made is removed again. What is there already is left as it is.
    #[command(after_long_help = examples::NEXUS_ADD)]
    Add(Add),
    /// Take away what `nexus add` has made
    ///
    /// The disk itself stays, and what is on it. The initiator's ACL goes if it maps nothing else, and has no CHAP user
    /// of its own.
    #[command(after_long_help = examples::NEXUS_REMOVE)]
    Remove(Remove),
    /// List the backstores that serve one initiator each
    List(List),
}

/// The options of `tcmu-pr nexus add`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Add {
    /// The path of its file or block device; or its serial number, or one of its backstores
    #[arg(value_name = "LU")]
    pub unit: String,
    /// The initiator's name, from its /etc/iscsi/initiatorname.iscsi
    #[arg(long, value_name = "IQN", value_parser = names::iscsi)]
    pub initiator: String,
    /// The iSCSI target
    #[arg(long, value_name = "IQN", value_parser = names::iscsi)]
    pub target: String,
    /// The target's portal group
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub tpg: u16,
    /// As which LUN the initiator finds it (0 to 255); the lowest that it has free if left out
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(0..=255))]
    pub lun: Option<u64>,
    /// Your name for the initiator: letters, digits, ".", "_" and "-"; the end of its own name if left out
    #[arg(long, value_name = "NAME")]
    pub label: Option<Label>,
    /// How large a new file becomes: bytes, or with K, M, G or T behind it
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub size: Option<u64>,
    /// An option of the disk, of those that a config string has; with its first backstore
    #[arg(long = "option", value_name = "NAME=VALUE")]
    pub options: Vec<String>,
    /// Have targetcli save its configuration, so that all of it is there after a boot
    #[arg(long)]
    pub save: bool,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// The options of `tcmu-pr nexus remove`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Remove {
    /// Its path, its serial number or at least 4 digits of that, or one of its backstores
    #[arg(value_name = "LU")]
    pub unit: String,
    /// The initiator's name, or its label
    #[arg(value_name = "INITIATOR")]
    pub initiator: String,
    /// Even if the initiator is logged in: what it reads and writes fails then
    #[arg(long)]
    pub force: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Have targetcli save its configuration, so that it stays away after a boot
    #[arg(long)]
    pub save: bool,
    /// Print JSON, for programs; needs --yes
    #[arg(long)]
    pub json: bool,
}

/// The options of `tcmu-pr nexus list`.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct List {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Why a nexus is not made, or not removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's configuration can't be read.
    #[error("cannot see how the kernel's targets are configured")]
    Configuration(#[source] configfs::Error),
    /// A file below it can't be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// There would be no such config string.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The label has an option of its own.
    #[error("nexus= is no option of the disk: give the label with --label")]
    LabelAsOption,
    /// A new disk, and nobody says how large.
    #[error("{0} is not there: say how large it is to become, with --size")]
    SizeNeeded(String),
    /// It has another size already.
    #[error(
        "{path} has {has} bytes, and not {wanted}: leave --size out; `tcmu-pr resize` can change it"
    )]
    OtherSize {
        /// The disk.
        path: String,
        /// What it has.
        has: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// It has other options already.
    #[error(
        "the backstores of {path} have the config string {config}, and all are to have the same options: leave --option out"
    )]
    OtherOptions {
        /// The disk.
        path: String,
        /// What one of its backstores has.
        config: String,
    },
    /// Initiators share a backstore.
    #[error(
        "{0} has a backstore that all initiators share: map that to the initiator with targetcli, or remove it first; a \
         disk is of one kind"
    )]
    Shared(String),
    /// No such target.
    #[error("there is no iSCSI target {0}: make it first, with `targetcli /iscsi create {0}`")]
    NoTarget(String),
    /// No such portal group.
    #[error(
        "the target {target} has no portal group {tag}: make it first, with `targetcli /iscsi/{target} create {tag}`"
    )]
    NoGroup {
        /// The target.
        target: String,
        /// The portal group's number.
        tag: u16,
    },
    /// Whoever comes is let in.
    #[error(
        "portal group {tag} of {target} lets in initiators that have no ACL: change that first, with `targetcli \
         /iscsi/{target}/tpg{tag} set attribute generate_node_acls=0 cache_dynamic_acls=0`"
    )]
    OpenToAll {
        /// The target.
        target: String,
        /// The portal group's number.
        tag: u16,
    },
    /// It is there in another way.
    #[error(
        "{initiator} has it already, as LUN {lun}, with the label {label}: remove that first, or leave --lun and --label out"
    )]
    Otherwise {
        /// Who.
        initiator: String,
        /// As which LUN.
        lun: u64,
        /// By which label.
        label: String,
    },
    /// Another initiator is called so.
    #[error(
        "the label {0} is another backstore's of the same disk: choose another with --label, or leave it out"
    )]
    LabelTaken(String),
    /// The initiator has another disk there.
    #[error(
        "{initiator} has something else as LUN {lun}: choose another with --lun, or leave it out"
    )]
    LunTaken {
        /// Who.
        initiator: String,
        /// As which LUN.
        lun: u64,
    },
    /// The initiator or the portal group has no number left.
    #[error("there is no LUN left: 256 are in use")]
    NoLunLeft,
    /// targetcli could not be run.
    #[error("cannot run targetcli: install it first (`apt install targetcli-fb`)")]
    NoTargetcli(#[source] std::io::Error),
    /// targetcli said no.
    #[error("targetcli refuses `{command}`: {said}")]
    Targetcli {
        /// What it was asked.
        command: String,
        /// What it answered.
        said: String,
    },
    /// All is there, and is of no use.
    #[error("{backstore} serves nobody: {reason}")]
    NotServed {
        /// The backstore.
        backstore: String,
        /// Why not, as `tcmu-pr status` has it.
        reason: String,
    },
    /// It came to nothing, and what was made is removed again as far as that goes.
    #[error("{outcome}")]
    RolledBack {
        /// What became of what was made.
        outcome: String,
        /// Whether all of it is gone.
        whole: bool,
        /// Why.
        #[source]
        cause: Box<CliError>,
    },
    /// Not all could be removed.
    #[error(
        "not all of it could be removed; try again, with its label {label}. Removed before that: {removed}"
    )]
    HalfRemoved {
        /// What it is still found by: its ACL may be gone.
        label: String,
        /// What is removed.
        removed: String,
        /// What failed.
        #[source]
        source: Box<Error>,
    },
    /// What is done is not kept over a boot.
    #[error("it is {done}, but not saved: when that is mended, run `targetcli saveconfig`")]
    NotSaved {
        /// What is done: made, or removed.
        done: &'static str,
        /// What failed.
        #[source]
        source: Box<Error>,
    },
    /// No such nexus.
    #[error("{path} has no backstore for {name}; there are: {there}")]
    NoSuchNexus {
        /// The disk.
        path: String,
        /// What was asked for.
        name: String,
        /// The labels there are.
        there: String,
    },
    /// Several of them.
    #[error("{name} has several backstores of {path}: write one of their labels, {labels}")]
    SeveralNexuses {
        /// The disk.
        path: String,
        /// What was asked for.
        name: String,
        /// Their labels.
        labels: String,
    },
    /// More than `nexus add` makes.
    #[error("{0} is exported or mapped more than once: take the others away with targetcli first")]
    MappedTwice(String),
    /// Somebody else's fabric.
    #[error("{0} is not exported over iSCSI: remove it with targetcli")]
    OtherFabric(String),
    /// What was shown and agreed to is not what would be done.
    #[error("it is not as it was when you were asked, and nothing was removed: try again")]
    Changed,
    /// It is registered.
    #[error(
        "{initiator} is registered: let it unregister, or remove its registration with `tcmu-pr preempt {serial} {key}`, and try again"
    )]
    Registered {
        /// Who.
        initiator: String,
        /// The unit.
        serial: String,
        /// Its key.
        key: String,
    },
    /// It is logged in.
    #[error(
        "{0} is logged in: let it log out first (`iscsiadm --mode node --logout` there), or give --force: what it reads \
         and writes fails then"
    )]
    LoggedIn(String),
}

impl Error {
    /// The exit status: one of [`exit::STATUSES`].
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Configuration(_) | Error::Read { .. } | Error::NoTargetcli(_) => exit::FAILED,
            Error::HalfRemoved { .. } | Error::NotSaved { .. } => exit::FAILED,
            Error::Config(_) | Error::LabelAsOption | Error::SizeNeeded(_) => exit::USAGE,
            Error::NoTarget(_) | Error::NoGroup { .. } => exit::NOT_FOUND,
            Error::NoSuchNexus { .. } | Error::SeveralNexuses { .. } => exit::NOT_FOUND,
            Error::RolledBack { cause, whole, .. } if *whole => cause.exit_status(),
            Error::RolledBack { .. } => exit::FAILED,
            _ => exit::REFUSED,
        }
    }
}

/// Has targetcli keep over a boot what is done.
fn save(targetcli: &mut impl Configure, done: &'static str) -> Result<(), Error> {
    targetcli
        .run("/ saveconfig")
        .map_err(|error| Error::NotSaved {
            done,
            source: Box::new(error),
        })
}

/// Makes, takes away or lists backstores that serve one initiator each, with targetcli and the daemon on `bus`.
pub fn nexus(
    options: Nexus,
    bus: &Bus,
    person: Person<impl BufRead>,
    output: &mut impl Write,
) -> Result<(), CliError> {
    let root = Path::new(ROOT);
    match options.command {
        NexusCommand::Add(options) => add::add(&options, bus, root, &mut Targetcli::new(), output),
        NexusCommand::Remove(options) => {
            remove::remove(&options, bus, root, &mut Targetcli::new(), person, output)
        }
        NexusCommand::List(options) => list::list(&options, bus, root, output),
    }
}
