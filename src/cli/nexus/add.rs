//! `tcmu-pr nexus add`.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::configured::{self, Group, Known};
use super::plan::{self, Like, Making, Plan};
use super::targetcli::Configure;
use super::{Add, CliError, Error, names, save};
use crate::cli::{find, json, print};
use crate::control::dbus::{self, Bus};
use crate::control::{LinkStatus, Status, UnitStatus};
use crate::tcmu::config::{Label, Options, SUBTYPE};
use crate::tcmu::configfs::port_groups;

/// How long it may take until the daemon serves what was made. It hears of it at once.
const SERVED_WITHIN: Duration = Duration::from_secs(10);
/// How often it is asked meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What is there now, whether it was made or not.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Added {
    done: &'static str,
    path: String,
    serial: String,
    backstore: String,
    label: String,
    initiator: String,
    target: String,
    tpg: u16,
    lun: u64,
    /// Whether it was there before: then nothing was made.
    was_there: bool,
    /// Whether targetcli's configuration is saved.
    saved: bool,
}

pub(super) fn add(
    options: &Add,
    bus: &Bus,
    root: &Path,
    targetcli: &mut impl Configure,
    output: &mut impl Write,
) -> Result<(), CliError> {
    let status = dbus::status(bus)?;
    let unit = served(&status, &options.unit)?;
    let groups = port_groups(root).map_err(Error::Configuration)?;
    let known = unit.map_or(Vec::new(), |unit| configured::known(unit, &groups));
    let there = unit
        .map(|unit| already(options, unit, &known))
        .transpose()?
        .flatten();
    let mut added = match there {
        Some(there) => {
            check_served(&status, &there.backstore)?;
            there
        }
        None => make(options, unit, &known, bus, root, targetcli)?,
    };
    if options.save {
        save(targetcli, "made")?;
        added.saved = true;
    }
    print(
        output,
        &if options.json {
            json(&added)?
        } else {
            text(&added)
        },
    )
}

/// The unit that is meant, if it is served already.
fn served<'a>(status: &'a Status, name: &str) -> Result<Option<&'a UnitStatus>, CliError> {
    let missing = match find(status, name) {
        Ok(unit) => return Ok(Some(unit)),
        Err(error) => error,
    };
    if !matches!(missing, CliError::NoSuchUnit(_)) || !name.starts_with('/') {
        return Err(missing);
    }
    // A file is known by its path without symbolic links.
    let canonical = fs::canonicalize(name).unwrap_or_else(|_| name.into());
    let same = |unit: &&UnitStatus| Path::new(&unit.path) == canonical;
    Ok(status.units.iter().find(same))
}

/// The initiator's nexus with the unit through that portal group, if it is there and as it is wanted.
fn already(options: &Add, unit: &UnitStatus, known: &[Known]) -> Result<Option<Added>, Error> {
    for one in known {
        for way in &one.ways {
            let Some(mapped) = &way.mapped else {
                continue;
            };
            let is_meant = way.fabric == "iscsi"
                && way.target.eq_ignore_ascii_case(&options.target)
                && way.tag == options.tpg
                && mapped.initiator.eq_ignore_ascii_case(&options.initiator);
            if !is_meant {
                continue;
            }
            let other_label = options
                .label
                .as_ref()
                .is_some_and(|label| label.as_str() != one.label);
            if other_label || options.lun.is_some_and(|lun| lun != mapped.lun) {
                return Err(Error::Otherwise {
                    initiator: mapped.initiator.clone(),
                    lun: mapped.lun,
                    label: one.label.clone(),
                });
            }
            return Ok(Some(Added {
                done: "nexus-add",
                path: unit.path.clone(),
                serial: unit.serial.clone(),
                backstore: one.backstore.clone(),
                label: one.label.clone(),
                initiator: mapped.initiator.clone(),
                target: way.target.clone(),
                tpg: way.tag,
                lun: mapped.lun,
                was_there: true,
                saved: false,
            }));
        }
    }
    Ok(None)
}

/// What was there before may serve nobody all the same.
fn check_served(status: &Status, backstore: &str) -> Result<(), Error> {
    let name = backstore.split_once('/').map_or(backstore, |(_, own)| own);
    match is_served(status, name) {
        Ok(_) => Ok(()),
        Err(reason) => Err(Error::NotServed {
            backstore: backstore.to_owned(),
            reason,
        }),
    }
}

fn make(
    options: &Add,
    unit: Option<&UnitStatus>,
    known: &[Known],
    bus: &Bus,
    root: &Path,
    targetcli: &mut impl Configure,
) -> Result<Added, CliError> {
    let group = Group::find(root, &options.target, options.tpg)?;
    group.check_closed()?;
    let base = base(options, unit, root)?;
    let taken: Vec<String> = known.iter().map(|one| one.label.clone()).collect();
    let label = match &options.label {
        Some(label) if taken.iter().any(|other| other == label.as_str()) => {
            return Err(Error::LabelTaken(label.to_string()).into());
        }
        Some(label) => label.clone(),
        None => names::label(&options.initiator, &taken),
    };
    let plan = plan(options, &base, label, &group, root)?;
    // A new file stays if this fails: the disk has an identity by now, and can be made of it again.
    let made = plan.carry_out(targetcli, || wait_until_served(bus, &plan.backstore));
    let Made {
        path,
        serial,
        backstore,
    } = made?;
    Ok(Added {
        done: "nexus-add",
        path,
        serial,
        backstore,
        label: plan.label.to_string(),
        initiator: plan.initiator,
        target: options.target.clone(),
        tpg: options.tpg,
        lun: plan.lun,
        was_there: false,
        saved: false,
    })
}

/// What the backstore is to have in common with the others of its disk.
struct Base {
    path: std::path::PathBuf,
    /// The config string without the nexus.
    config: String,
    size_bytes: u64,
    like: Option<Like>,
}

fn base(options: &Add, unit: Option<&UnitStatus>, root: &Path) -> Result<Base, Error> {
    let Some(unit) = unit else {
        return first(options);
    };
    let path = &unit.path;
    let port = unit.ports.first();
    if unit.ports.iter().any(|port| port.label.is_none()) {
        return Err(Error::Shared(path.clone()));
    }
    let Some(port) = port else {
        return first(options);
    };
    if let Some(wanted) = options.size.filter(|&size| size != unit.size_bytes) {
        return Err(Error::OtherSize {
            path: path.clone(),
            has: unit.size_bytes,
            wanted,
        });
    }
    let backstore = configured::backstore(root, &port.backstore)?;
    let config = backstore.config().map_err(Error::Configuration)?;
    let config = config.strip_prefix(SUBTYPE).unwrap_or(&config);
    let config = config.strip_prefix('/').unwrap_or(config).to_owned();
    if !options.options.is_empty() && !same_options(&config, &options.options)? {
        return Err(Error::OtherOptions {
            path: path.clone(),
            config,
        });
    }
    let settings = backstore.settings().map_err(Error::Configuration)?;
    let data_area_mib = backstore.data_area_mib().map_err(Error::Configuration)?;
    Ok(Base {
        path: path.into(),
        config,
        size_bytes: unit.size_bytes,
        like: Some(Like {
            block_size_bytes: settings.block_size_bytes,
            data_area_mib,
            write_cache: settings.write_cache,
        }),
    })
}

/// Whether a config string, whatever its label, has these options and no others.
fn same_options(config: &str, wanted: &[String]) -> Result<bool, Error> {
    let has = Options::parse(config)?;
    let wanted = Options::parse(&plan::first_config(&has.path, wanted))?;
    if wanted.nexus.is_some() {
        return Err(Error::LabelAsOption);
    }
    Ok(has.is_same_but_nexus(&wanted))
}

/// What the first backstore of a disk is made of: its file or device, or a new file.
fn first(options: &Add) -> Result<Base, Error> {
    let config = plan::first_config(Path::new(&options.unit), &options.options);
    let parsed = Options::parse(&config)?;
    if parsed.nexus.is_some() {
        return Err(Error::LabelAsOption);
    }
    let path = parsed.path;
    let size_bytes = match (length(&path)?, options.size) {
        (None, None) => return Err(Error::SizeNeeded(options.unit.clone())),
        (Some(has), Some(wanted)) if has != wanted => {
            return Err(Error::OtherSize {
                path: options.unit.clone(),
                has,
                wanted,
            });
        }
        (Some(size), _) | (None, Some(size)) => size,
    };
    Ok(Base {
        path,
        config,
        size_bytes,
        like: None,
    })
}

/// How many bytes a file or a block device has; none if it is not there. What is neither, the daemon refuses.
fn length(path: &Path) -> Result<Option<u64>, Error> {
    let unreadable = |source| Error::Read {
        path: path.display().to_string(),
        source,
    };
    let has_length = |path: &Path| {
        use std::os::unix::fs::FileTypeExt;
        let kind = fs::metadata(path).map(|metadata| metadata.file_type());
        kind.is_ok_and(|kind| kind.is_file() || kind.is_block_device())
    };
    if !has_length(path) {
        return Ok(None);
    }
    let mut file = File::open(path).map_err(unreadable)?;
    file.seek(SeekFrom::End(0)).map(Some).map_err(unreadable)
}

fn plan(
    options: &Add,
    base: &Base,
    label: Label,
    group: &Group,
    root: &Path,
) -> Result<Plan, Error> {
    let config = plan::config_for(&base.config, &label);
    // Before anything is made: with the label it may have become too long.
    Options::parse(&config)?;
    let acl = group.acl(&options.initiator)?;
    let initiator = acl.as_deref().unwrap_or(&options.initiator);
    let lun = group.lun_for(initiator, options.lun)?;
    let making = Making {
        name: names::backstore(&base.path, &label, &configured::backstore_names(root)?),
        label,
        size_bytes: base.size_bytes,
        config: &config,
        like: base.like,
    };
    let initiator = (initiator, acl.is_some());
    Ok(Plan::new(making, group, group.free_lun()?, initiator, lun))
}

/// What the daemon says of a backstore that it serves.
#[derive(Debug)]
struct Made {
    path: String,
    serial: String,
    /// `user_0/lun0-a`.
    backstore: String,
}

fn wait_until_served(bus: &Bus, name: &str) -> Result<Made, CliError> {
    let until = Instant::now() + SERVED_WITHIN;
    loop {
        let reason = match is_served(&dbus::status(bus)?, name) {
            Ok(made) => return Ok(made),
            Err(reason) => reason,
        };
        if Instant::now() >= until {
            let backstore = name.to_owned();
            return Err(Error::NotServed { backstore, reason }.into());
        }
        thread::sleep(ASK_AGAIN);
    }
}

/// The backstore of that name, or why it is not served.
fn is_served(status: &Status, name: &str) -> Result<Made, String> {
    let is_meant = |backstore: &str| {
        backstore
            .split_once('/')
            .is_some_and(|(_, own)| own == name)
    };
    for unit in &status.units {
        let port = unit.ports.iter().find(|port| is_meant(&port.backstore));
        match port.map(|port| (port, &port.link)) {
            None => {}
            Some((port, LinkStatus::Serving { .. })) => {
                return Ok(Made {
                    path: unit.path.clone(),
                    serial: unit.serial.clone(),
                    backstore: port.backstore.clone(),
                });
            }
            Some((_, LinkStatus::Waiting { reason })) => return Err(reason.clone()),
            Some((_, LinkStatus::Shared { .. })) => {
                return Err("it has no nexus label".to_owned());
            }
        }
    }
    let refused = status.refused.iter();
    let refused = refused.filter(|refused| is_meant(&refused.backstore));
    let reason = refused.map(|refused| refused.reason.clone()).next();
    Err(reason.unwrap_or_else(|| "the daemon does not see it".to_owned()))
}

fn text(added: &Added) -> String {
    let Added {
        path,
        serial,
        backstore,
        label,
        initiator,
        target,
        tpg,
        lun,
        was_there,
        saved,
        ..
    } = added;
    let was = if *was_there {
        "  It was there already: nothing was made.\n"
    } else {
        ""
    };
    let saved = if *saved {
        "  It is saved, and will be there after a boot.\n"
    } else {
        "  It stays until the node boots: `targetcli saveconfig` keeps it, and so does --save.\n"
    };
    format!(
        "{path}  serial {serial}\n  {initiator} finds it as LUN {lun} at {target}, portal group {tpg} (backstore \
         {backstore}, label {label}).\n{was}{saved}"
    )
}

#[cfg(test)]
mod tests {
    use super::super::configured::{Mapped, Way};
    use super::super::targetcli::tests::Noted;
    use super::*;
    use crate::control::Orders;
    use crate::control::dbus::tests::{PrivateBus, daemon};
    use crate::control::tests::example;
    use crate::tcmu::configfs::tests::Tree;

    const T: &str = "iqn.2026-11.com.example:t";
    const A: &str = "iqn.2026-11.com.example:a";

    fn options(unit: &str) -> Add {
        Add {
            unit: unit.to_owned(),
            initiator: A.to_owned(),
            target: T.to_owned(),
            tpg: 1,
            lun: None,
            label: None,
            size: None,
            options: Vec::new(),
            save: false,
            json: false,
        }
    }

    fn known() -> Known {
        Known {
            backstore: "user_0/lun0-a".to_owned(),
            label: "node-a".to_owned(),
            ways: vec![Way {
                fabric: "iscsi".to_owned(),
                target: T.to_owned(),
                tag: 1,
                group_lun: 4,
                mapped: Some(Mapped {
                    initiator: A.to_owned(),
                    lun: 7,
                    logged_in: false,
                }),
            }],
            exports: 1,
        }
    }

    #[test]
    fn what_is_there_is_told_and_not_made_again() {
        let unit = example().units.remove(0);
        let found = |options: &Add| already(options, &unit, &[known()]);
        let mut same = options("/srv/lun0.img");
        same.initiator = A.to_uppercase();
        let there = found(&same).expect("it is as wanted").expect("it is there");
        assert_eq!(
            text(&there),
            format!(
                "/srv/lun0.img  serial 6001405a\n  {A} finds it as LUN 7 at {T}, portal group 1 (backstore user_0/lun0-a, \
                 label node-a).\n  It was there already: nothing was made.\n  It stays until the node boots: `targetcli \
                 saveconfig` keeps it, and so does --save.\n"
            )
        );
        same.lun = Some(7);
        same.label = Some("node-a".parse().expect("it is a label"));
        assert!(found(&same).expect("it is as wanted").is_some());
        same.lun = Some(6);
        let error = found(&same).expect_err("it has another number");
        assert_eq!(
            error.to_string(),
            format!(
                "{A} has it already, as LUN 7, with the label node-a: remove that first, or leave --lun and --label out"
            )
        );
        let mut other = options("/srv/lun0.img");
        other.tpg = 2;
        assert_eq!(found(&other).expect("it can be made"), None);
    }

    #[test]
    fn a_new_disk_needs_a_size_and_an_old_one_keeps_its_own() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("lun0.img");
        let mut options = options(path.to_str().expect("it is text"));
        assert!(matches!(first(&options), Err(Error::SizeNeeded(_))));
        options.size = Some(4096);
        options.options = vec!["direct=1".to_owned()];
        let base = first(&options).expect("it can be made");
        assert_eq!(base.size_bytes, 4096);
        assert_eq!(base.config, format!("{};direct=1", path.display()));
        fs::write(&path, [0; 8192]).expect("it is new");
        let error = first(&options).err().expect("it has another").to_string();
        assert!(error.contains("has 8192 bytes, and not 4096"), "{error}");
        options.size = None;
        assert_eq!(first(&options).expect("it is there").size_bytes, 8192);
    }

    #[test]
    fn hostile_paths_and_options_are_refused_before_anything_is_done() {
        for path in [
            "/srv/a b",
            "/srv/a\nsaveconfig",
            "/srv/../etc/passwd",
            "/srv/$(reboot)",
            "/srv/a:b",
        ] {
            let mut options = options(path);
            options.size = Some(4096);
            let error = first(&options).err().expect(path);
            assert!(matches!(error, Error::Config(_)), "{path}: {error}");
            assert_eq!(error.exit_status(), 2);
        }
        for option in ["turbo=1", "direct=1 wwn=x", "nexus=b", "direct=1;nexus=b"] {
            let mut options = options("/srv/new");
            options.size = Some(4096);
            options.options = vec![option.to_owned()];
            let error = first(&options).err().expect(option);
            assert_eq!(error.exit_status(), 2, "{option}: {error}");
        }
    }

    #[test]
    fn a_further_backstore_takes_over_what_the_first_has() {
        let tree = Tree::new();
        tree.backstore("user_0", "lun0-a");
        tree.file(
            "core/user_0/lun0-a/attrib/dev_config",
            "pr//srv/lun0.img;direct=1;nexus=node-a\n",
        );
        tree.file("core/user_0/lun0-a/attrib/hw_block_size", "4096\n");
        let mut unit = example().units.remove(0);
        let mut options = options("/srv/lun0.img");
        let found = base(&options, Some(&unit), tree.root()).expect("it can be made");
        assert_eq!(found.config, "/srv/lun0.img;direct=1;nexus=node-a");
        assert_eq!(found.size_bytes, 10 << 30);
        let like = Like {
            block_size_bytes: 4096,
            data_area_mib: 1024,
            write_cache: false,
        };
        assert_eq!(found.like, Some(like));
        options.options = vec!["direct=1".to_owned()];
        assert!(base(&options, Some(&unit), tree.root()).is_ok());
        options.options = vec!["direct=0".to_owned()];
        let other = base(&options, Some(&unit), tree.root());
        assert!(matches!(other, Err(Error::OtherOptions { .. })));
        options.options.clear();
        options.size = Some(1 << 30);
        let other = base(&options, Some(&unit), tree.root());
        assert!(matches!(other, Err(Error::OtherSize { .. })));
        options.size = None;
        unit.ports[1].label = None;
        let shared = base(&options, Some(&unit), tree.root());
        assert!(matches!(shared, Err(Error::Shared(_))));
    }

    #[test]
    fn what_is_there_and_serves_nobody_is_an_error() {
        let bus = PrivateBus::new();
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        let (_service, _lost) = dbus::serve(&bus.bus, &orders).expect("the names are free");
        let tree = Tree::new();
        let group = tree.iscsi(T, 1);
        let mut targetcli = Noted::default();
        let mut added = |label: &str, number| {
            let initiator = format!("iqn.2026-11.com.example:{label}");
            tree.lun(&group, number, &format!("user_0/lun0-{label}"))
                .acl(&group, &initiator, 7, number);
            let options = Add {
                initiator,
                ..options("/srv/lun0.img")
            };
            let mut output = Vec::new();
            add(&options, &bus.bus, tree.root(), &mut targetcli, &mut output)
        };
        added("a", 1).expect("it is served");
        let error = added("c", 2).expect_err("it is not");
        assert_eq!(
            error.to_string(),
            "user_0/lun0-c serves nobody: it is not exported"
        );
        assert_eq!(error.exit_status(), 5);
        assert_eq!(targetcli.commands, [""; 0]);
    }

    #[test]
    fn whether_it_is_served_is_what_the_daemon_says() {
        let status = example();
        let made = is_served(&status, "lun0-a").expect("it is served");
        assert_eq!(
            (made.backstore.as_str(), made.serial.as_str()),
            ("user_0/lun0-a", "6001405a")
        );
        for (name, reason) in [
            ("lun0-c", "it is not exported"),
            ("odd", "the config string has no nexus label"),
            ("lun0", "the daemon does not see it"),
        ] {
            assert_eq!(is_served(&status, name).err().as_deref(), Some(reason));
        }
    }
}
