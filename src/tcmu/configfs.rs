//! The kernel's target configuration, a tree of small files: one backstore's settings, and who it is
//! exported to.
//!
//! ```text
//! core/user_0/lun0-a/{dev_config,enable,action/,attrib/,pr/,wwn/}                  a Backstore
//! iscsi/iqn.2026-11.example:t/tpgt_1/                                              a PortGroup
//!     attrib/generate_node_acls   dynamic_sessions   nexus
//!     lun/lun_0/<any>            -> core/user_0/lun0-a                             its Luns
//!     acls/iqn.2026-11.example:node-a/lun_0/{write_protect, <any> -> lun/lun_0}    its Acls
//! ```
//!
//! The root is a parameter everywhere, [`ROOT`] outside tests. Names read from the tree are data: they are
//! compared and shown, and paths are built from directory entries only.

mod session;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::config::SUBTYPE;
pub use session::Session;

/// Where the kernel has its target configuration.
pub const ROOT: &str = "/sys/kernel/config/target";

/// What went wrong with the target configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read.
    #[error("cannot read {path}{hint}", path = path.display(), hint = hint(path, source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A setting could not be changed.
    #[error("cannot write {value} to {path}{hint}", path = path.display(), hint = hint(path, source))]
    Write {
        /// The file.
        path: PathBuf,
        /// Its intended content.
        value: String,
        /// Why not.
        source: io::Error,
    },
    /// A file says something that it cannot say.
    #[error("{path} says {found:?}, which is no {expected}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A setting is not as we need it.
    #[error(
        "{path} is {found:?} and must be {needed} for reservations to fence: write {needed} to it",
        path = path.display()
    )]
    Setting {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What it must say.
        needed: &'static str,
    },
    /// The kernel still answers PERSISTENT RESERVE itself.
    #[error(
        "{path} is {found:?} and must be \"SPC_PASSTHROUGH\": \
         the kernel does not pass reservations to tcmu-pr for this backstore",
        path = path.display()
    )]
    NotPassedThrough {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A name that would lead out of its directory.
    #[error("{0:?} cannot be the name of a backstore")]
    Name(String),
}

/// What to do about a file that is not there.
fn hint(path: &Path, source: &io::Error) -> &'static str {
    let in_directory = |name| path.parent().is_some_and(|parent| parent.ends_with(name));
    match source.kind() {
        ErrorKind::NotFound if in_directory("attrib") || in_directory("action") => {
            ": tcmu-pr needs Linux 5.9 or later"
        }
        ErrorKind::PermissionDenied => ": run tcmu-pr as root",
        _ => "",
    }
}

/// A backstore's place in the tree; [`super::config::Name::backstore`] finds that of a UIO device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackstoreName {
    /// `user_0`.
    pub hba: String,
    /// `lun0-a`.
    pub name: String,
}

impl fmt::Display for BackstoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            self.hba.escape_debug(),
            self.name.escape_debug()
        )
    }
}

/// One backstore's directory.
#[derive(Clone, Debug)]
pub struct Backstore {
    name: BackstoreName,
    directory: PathBuf,
}

/// What the administrator gives a backstore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The size in bytes.
    pub size_bytes: u64,
    /// The logical block size in bytes.
    pub block_size_bytes: u32,
    /// Whether a volatile write cache is asked for.
    pub write_cache: bool,
    /// After how many seconds the kernel fails a command without telling us; 0 is never. It can't be set to that while
    /// the backstore is exported.
    pub command_timeout_s: u32,
}

impl Backstore {
    /// The backstore `name` below `root`. Nothing is read yet.
    pub fn new(root: &Path, name: BackstoreName) -> Result<Backstore, Error> {
        for part in [&name.hba, &name.name] {
            if part.is_empty() || part == "." || part == ".." || part.contains(['/', '\0']) {
                return Err(Error::Name(part.clone()));
            }
        }
        let directory = root.join("core").join(&name.hba).join(&name.name);
        Ok(Backstore { name, directory })
    }

    /// Which backstore it is.
    pub fn name(&self) -> &BackstoreName {
        &self.name
    }

    /// Sets what we need of the kernel: reservations and asymmetric access are ours, task management is
    /// announced, commands wait for us instead of failing. Writes only what differs, so that a watcher of
    /// the tree comes to rest.
    ///
    /// Can be called while the device is being made, and again at any time after.
    pub fn prepare(&self) -> Result<(), Error> {
        for (attribute, value) in [
            ("pgr_support", "0"),
            ("tmr_notification", "1"),
            ("alua_support", "0"),
            ("qfull_time_out", "5"),
        ] {
            self.set(attribute, value)?;
        }
        match self.set("cmd_time_out", "0") {
            // The kernel's answer while the backstore is exported.
            Err(Error::Write { source, .. }) if source.kind() == ErrorKind::InvalidInput => {}
            outcome => outcome?,
        }
        Ok(())
    }

    /// Sets what we need, makes sure that it holds, and gives what the administrator has set.
    pub fn take(&self) -> Result<Settings, Error> {
        self.prepare()?;
        self.verify()?;
        self.settings()
    }

    /// Asks whether reservations reach us and us only. No command may be carried out before this is `Ok`.
    pub fn verify(&self) -> Result<(), Error> {
        for (attribute, needed) in [
            ("pgr_support", "0"),
            ("emulate_pr", "1"),
            ("tmr_notification", "1"),
        ] {
            let path = self.directory.join("attrib").join(attribute);
            let found = read(&path)?;
            if found != needed {
                return Err(Error::Setting {
                    path,
                    found,
                    needed,
                });
            }
        }
        let path = self.directory.join("pr/res_type");
        match read(&path)? {
            found if found == "SPC_PASSTHROUGH" => Ok(()),
            found => Err(Error::NotPassedThrough { path, found }),
        }
    }

    /// Whether the device is configured. While it is being made, it is not yet.
    pub fn is_enabled(&self) -> Result<bool, Error> {
        Ok(self.number::<u8>("enable")? != 0)
    }

    /// The kernel's number of the device: `device_id` of its messages.
    pub fn device_id(&self) -> Result<u32, Error> {
        self.number("statistics/scsi_dev/indx")
    }

    /// The config string, subtype included.
    pub fn config(&self) -> Result<String, Error> {
        read(&self.directory.join("attrib/dev_config"))
    }

    /// What an attribute says.
    pub fn attribute(&self, name: &str) -> Result<String, Error> {
        read(&self.directory.join("attrib").join(name))
    }

    /// Whether it is for tcmu-pr, and not for another handler.
    pub fn is_ours(&self) -> Result<bool, Error> {
        Ok(self.config()?.split('/').next() == Some(SUBTYPE))
    }

    /// What the administrator gave it.
    pub fn settings(&self) -> Result<Settings, Error> {
        Ok(Settings {
            size_bytes: self.size_bytes()?,
            block_size_bytes: self.block_size_bytes()?,
            write_cache: self.write_cache()?,
            command_timeout_s: self.number("attrib/cmd_time_out")?,
        })
    }

    /// The size in bytes that the administrator gave. The kernel compares it with nothing.
    pub fn size_bytes(&self) -> Result<u64, Error> {
        self.number("attrib/dev_size")
    }

    /// The logical block size in bytes. The kernel takes any number.
    pub fn block_size_bytes(&self) -> Result<u32, Error> {
        self.number("attrib/hw_block_size")
    }

    /// How many MiB of data the commands that are in flight can have together.
    pub fn data_area_mib(&self) -> Result<u32, Error> {
        self.number("attrib/max_data_area_mb")
    }

    /// Whether the kernel waits for the handler's answers about it: if positive. 0 is one that was made while there was no
    /// handler, and whoever makes one can ask for a negative number.
    pub fn reply_supported(&self) -> Result<i32, Error> {
        self.number("attrib/nl_reply_supported")
    }

    /// Whether a volatile write cache is asked for.
    pub fn write_cache(&self) -> Result<bool, Error> {
        Ok(self.number::<u8>("attrib/emulate_write_cache")? != 0)
    }

    /// The unit serial number, once there is one: targetcli sets it after the device was made.
    pub fn serial(&self) -> Result<Option<String>, Error> {
        let text = read(&self.directory.join("wwn/vpd_unit_serial"))?;
        let serial = text
            .split_once(": ")
            .map_or("", |(_, serial)| serial.trim());
        Ok((!serial.is_empty()).then(|| serial.to_owned()))
    }

    /// Lets the kernel answer every new command with BUSY.
    pub fn block(&self) -> Result<(), Error> {
        write(&self.directory.join("action/block_dev"), "1")
    }

    /// Lets commands come to us again.
    pub fn unblock(&self) -> Result<(), Error> {
        write(&self.directory.join("action/block_dev"), "0")
    }

    /// Ends all commands on the ring with BUSY and empties it. No I/O of ours may still touch the ring's
    /// data area when this is called.
    pub fn reset_ring(&self) -> Result<(), Error> {
        write(&self.directory.join("action/reset_ring"), "1")
    }

    /// Sets the size in bytes. The kernel asks the handler about it, and this waits for the handler's answer.
    pub fn set_size(&self, size: u64) -> Result<(), Error> {
        self.set("dev_size", &size.to_string())
    }

    fn set(&self, attribute: &str, value: &str) -> Result<(), Error> {
        let path = self.directory.join("attrib").join(attribute);
        if read(&path)? == value {
            return Ok(());
        }
        write(&path, value)
    }

    fn number<N: std::str::FromStr>(&self, file: &str) -> Result<N, Error> {
        read_number(&self.directory.join(file))
    }
}

/// A target port group: one way into the node, and what can be reached on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortGroup {
    /// The fabric's directory: `iscsi`, `qla2xxx`, `loopback`.
    pub fabric: String,
    /// The target's name, as the fabric spells it.
    pub target: String,
    /// The target port group tag: n of `tpgt_<n>`.
    pub tag: u16,
    /// Whether initiators without an ACL are let in, now or again (`cache_dynamic_acls`). `None` where the fabric has no such setting.
    pub generate_node_acls: Option<bool>,
    /// Initiators that are logged in without an ACL.
    pub dynamic_sessions: Vec<String>,
    /// The initiator port of fabrics that have one for each port group, once it is set.
    pub nexus: Option<String>,
    /// The logical units that are TCMU backstores.
    pub luns: Vec<Lun>,
    /// The initiators that are let in.
    pub acls: Vec<Acl>,
}

impl fmt::Display for PortGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fabric, target) = (self.fabric.escape_debug(), self.target.escape_debug());
        write!(f, "{fabric}/{target}/tpgt_{}", self.tag)
    }
}

/// A LUN of a port group that is a TCMU backstore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lun {
    /// m of `lun_<m>`.
    pub number: u64,
    /// What it is.
    pub backstore: BackstoreName,
}

/// An initiator that is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// Its name, as the fabric spells it.
    pub initiator: String,
    /// What it sees.
    pub luns: Vec<MappedLun>,
    /// Whether it is logged in.
    pub session: Session,
}

/// A logical unit as an initiator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedLun {
    /// The initiator's number of it.
    pub number: u64,
    /// The port group's number of it: [`Lun::number`].
    pub lun: u64,
    /// Whether this initiator may not write.
    pub write_protect: bool,
}

/// Walks all fabrics. Port groups without a TCMU backstore are left out.
///
/// What vanishes while we look is taken as not there. May take as long as the kernel needs to make a link:
/// [`super::watch`] has a thread for that.
pub fn port_groups(root: &Path) -> Result<Vec<PortGroup>, Error> {
    let backstores = backstores(root)?;
    let mut groups = Vec::new();
    for fabric in directories(root)?.filter(|fabric| fabric.name != "core") {
        for target in directories(&fabric.path)? {
            let mut of_target = Vec::new();
            for group in directories(&target.path)? {
                let Some(tag) = group.name.strip_prefix("tpgt_") else {
                    continue;
                };
                let Ok(tag) = tag.parse() else {
                    return Err(group.unexpected("target port group tag"));
                };
                let (fabric, target) = (&fabric.name, &target.name);
                of_target.extend(port_group(fabric, target, tag, &group.path, &backstores)?);
            }
            if !of_target.is_empty() {
                session::look(&fabric.name, &target.path, &mut of_target);
            }
            groups.append(&mut of_target);
        }
    }
    Ok(groups)
}

fn port_group(
    fabric: &str,
    target: &str,
    tag: u16,
    directory: &Path,
    backstores: &BTreeMap<u32, BackstoreName>,
) -> Result<Option<PortGroup>, Error> {
    let luns = luns(&directory.join("lun"), backstores)?;
    if luns.is_empty() {
        return Ok(None);
    }
    let lets_in = |attribute: &str| {
        let value = if_there(read_number::<u8>(&directory.join("attrib").join(attribute)))?;
        Ok::<_, Error>(value.map(|on| on != 0))
    };
    let generate_node_acls = lets_in("generate_node_acls")?;
    // With this, initiators that were let in without an ACL once are let in again.
    let cache_dynamic_acls = lets_in("cache_dynamic_acls")?;
    let dynamic_sessions = if_there(read(&directory.join("dynamic_sessions")))?;
    // Reading it fails with ENODEV as long as it is not set.
    let nexus = if_there(read(&directory.join("nexus")))?;
    Ok(Some(PortGroup {
        fabric: fabric.to_owned(),
        target: target.to_owned(),
        tag,
        generate_node_acls: generate_node_acls.map(|on| on || cache_dynamic_acls == Some(true)),
        dynamic_sessions: dynamic_sessions
            .iter()
            .flat_map(|list| list.split(['\n', '\0']))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        nexus: nexus.filter(|name| !name.is_empty()),
        luns,
        acls: acls(&directory.join("acls"), [target, &format!("tpgt_{tag}")])?,
    }))
}

/// How a TCMU backstore is, as a walk finds it.
#[derive(Debug)]
pub struct State {
    /// Whether its device is configured; while it is being made, it is not yet.
    pub enabled: bool,
    /// What the administrator gave it, if what we need of the kernel could be set. `None` for other handlers'
    /// backstores.
    pub prepared: Option<Result<Settings, Error>>,
}

/// Looks at all TCMU backstores, and sets the settings of ours.
///
/// May take as long as the kernel needs to remove one.
pub fn states(root: &Path) -> Result<BTreeMap<BackstoreName, State>, Error> {
    let mut states = BTreeMap::new();
    for name in backstore_names(root)? {
        let backstore = Backstore::new(root, name.clone())?;
        let is_ours = if_there(backstore.is_ours())?;
        let Some(enabled) = if_there(backstore.is_enabled())? else {
            continue;
        };
        let prepared = (is_ours == Some(true)).then(|| backstore.take());
        states.insert(name, State { enabled, prepared });
    }
    Ok(states)
}

/// The TCMU backstores whose devices are configured, of every handler. Nothing is set.
pub fn enabled(root: &Path) -> Result<Vec<Backstore>, Error> {
    let mut found = Vec::new();
    for name in backstore_names(root)? {
        let backstore = Backstore::new(root, name)?;
        if if_there(backstore.is_enabled())? == Some(true) {
            found.push(backstore);
        }
    }
    Ok(found)
}

/// How many commands an initiator may have sent before the first of them is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandWindow {
    /// The file that says so.
    pub path: PathBuf,
    /// The number.
    pub commands: u32,
}

/// The limits that the fabric sets to the initiators of a port group: for each that has an ACL, and for those that are let
/// in without one. Only iSCSI has any.
pub fn command_windows(root: &Path, group: &PortGroup) -> Result<Vec<CommandWindow>, Error> {
    let tag = format!("tpgt_{}", group.tag);
    let directory = root.join(&group.fabric).join(&group.target).join(tag);
    let acls = group.acls.iter();
    let mut paths: Vec<PathBuf> = acls
        .map(|acl| directory.join("acls").join(&acl.initiator))
        .map(|acl| acl.join("cmdsn_depth"))
        .collect();
    if group.generate_node_acls == Some(true) {
        paths.push(directory.join("attrib/default_cmdsn_depth"));
    }
    let mut windows = Vec::new();
    for path in paths {
        if let Some(commands) = if_there(read_number(&path))? {
            windows.push(CommandWindow { path, commands });
        }
    }
    Ok(windows)
}

fn backstore_names(root: &Path) -> Result<Vec<BackstoreName>, Error> {
    let mut names = Vec::new();
    for hba in directories(&root.join("core"))?.filter(|hba| hba.name.starts_with("user_")) {
        for backstore in directories(&hba.path)? {
            names.push(BackstoreName {
                hba: hba.name.clone(),
                name: backstore.name,
            });
        }
    }
    Ok(names)
}

/// The TCMU backstores by the kernel's numbers of their devices.
fn backstores(root: &Path) -> Result<BTreeMap<u32, BackstoreName>, Error> {
    let mut found = BTreeMap::new();
    for name in backstore_names(root)? {
        let backstore = Backstore::new(root, name.clone())?;
        if let Some(number) = if_there(backstore.device_id())? {
            found.insert(number, name);
        }
    }
    Ok(found)
}

/// The LUNs that are TCMU backstores.
///
/// Not by their links: while a link is being made, its directory is locked and does not show it yet, but
/// loopback already sends the commands with which its initiator looks for disks.
fn luns(directory: &Path, backstores: &BTreeMap<u32, BackstoreName>) -> Result<Vec<Lun>, Error> {
    let mut luns = Vec::new();
    for lun in directories(directory)? {
        let number = lun.number()?;
        let device = read_number(&lun.path.join("statistics/scsi_port/dev"));
        let backstore = if_there(device)?.and_then(|device: u32| backstores.get(&device));
        luns.extend(backstore.map(|backstore| Lun {
            number,
            backstore: backstore.clone(),
        }));
    }
    Ok(luns)
}

fn acls(directory: &Path, group: [&str; 2]) -> Result<Vec<Acl>, Error> {
    let mut acls = Vec::new();
    for initiator in directories(directory)? {
        let mut luns = Vec::new();
        for mapped in directories(&initiator.path)? {
            // Beside its LUNs, an ACL has directories of settings.
            if !mapped.name.starts_with("lun_") {
                continue;
            }
            let number = mapped.number()?;
            for link in links(&mapped.path)? {
                let [.., target, tpgt, _, lun] = link.target.as_slice() else {
                    continue;
                };
                let lun = Entry {
                    name: lun.clone(),
                    path: link.path,
                };
                if [target.as_str(), tpgt.as_str()] != group {
                    return Err(lun.unexpected("LUN of the same target port group"));
                }
                let write_protect = read_number::<u8>(&mapped.path.join("write_protect"));
                let Some(write_protect) = if_there(write_protect)? else {
                    continue;
                };
                luns.push(MappedLun {
                    number,
                    lun: lun.number()?,
                    write_protect: write_protect != 0,
                });
            }
        }
        acls.push(Acl {
            initiator: initiator.name,
            luns,
            session: Session::Unknown,
        });
    }
    Ok(acls)
}

/// A directory entry, its name as text. Names that are no text get U+FFFD in it, which no checked name has.
struct Entry {
    name: String,
    path: PathBuf,
}

impl Entry {
    /// n of `lun_<n>`.
    fn number(&self) -> Result<u64, Error> {
        let number = self
            .name
            .strip_prefix("lun_")
            .and_then(|number| number.parse().ok());
        number.ok_or_else(|| self.unexpected("LUN"))
    }

    fn unexpected(&self, expected: &'static str) -> Error {
        Error::Content {
            path: self.path.clone(),
            found: self.name.clone(),
            expected,
        }
    }
}

/// The directories in `directory`, sorted by name; none if it is not there.
fn directories(directory: &Path) -> Result<impl Iterator<Item = Entry> + use<>, Error> {
    let entries = entries(directory, fs::FileType::is_dir)?;
    Ok(entries.into_iter().map(|(name, path)| Entry { name, path }))
}

/// A symbolic link, and the parts of what it leads to.
struct Link {
    path: PathBuf,
    target: Vec<String>,
}

/// The symbolic links in `directory`.
fn links(directory: &Path) -> Result<Vec<Link>, Error> {
    let mut links = Vec::new();
    for (_, path) in entries(directory, fs::FileType::is_symlink)? {
        let failed = |source| Error::Read {
            path: path.clone(),
            source,
        };
        if let Some(target) = if_there(fs::read_link(&path).map_err(failed))? {
            let target = target.iter().map(text).collect();
            links.push(Link { path, target });
        }
    }
    Ok(links)
}

fn entries(
    directory: &Path,
    wanted: fn(&fs::FileType) -> bool,
) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = |source| Error::Read {
        path: directory.to_owned(),
        source,
    };
    let Some(list) = if_there(fs::read_dir(directory).map_err(failed))? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in list {
        let entry = entry.map_err(failed)?;
        let kind = if_there(entry.file_type().map_err(failed))?;
        if kind.is_some_and(|kind| wanted(&kind)) {
            found.push((text(&entry.file_name()), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn text(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

/// What is not there, not set or just being removed is `None`.
fn if_there<T>(outcome: Result<T, Error>) -> Result<Option<T>, Error> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Error::Read { source, .. })
            if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A file's content without the space around it.
fn read(path: &Path) -> Result<String, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn read_number<N: std::str::FromStr>(path: &Path) -> Result<N, Error> {
    let text = read(path)?;
    text.parse().map_err(|_| Error::Content {
        path: path.to_owned(),
        found: text,
        expected: "number in range",
    })
}

/// Writes a setting, as `echo` does: what is not there is not made.
fn write(path: &Path, value: &str) -> Result<(), Error> {
    let file = OpenOptions::new().write(true).truncate(true).open(path);
    let written = file.and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|source| Error::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

#[cfg(test)]
pub(crate) mod tests;
