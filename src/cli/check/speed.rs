//! What slows this node down: limits of the kernel, and of the backstores and disks there are.
//!
//! Only what really holds commands up is looked at. `hw_max_sectors` and `hw_queue_depth` of a backstore do not: the kernel
//! heeds neither where a handler in user space answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Finding;
use super::disk::{self, Disk};
use crate::tcmu::config::Options;
use crate::tcmu::configfs::{self, Backstore, BackstoreName, CommandWindow, PortGroup};

/// The most that a command moves, in MiB: MAXIMUM TRANSFER LENGTH of the Block Limits VPD page.
const COMMAND_MIB: u32 = 8;
/// How many commands a Linux host sends a disk over iSCSI at once, unless somebody has changed that. Each moves up to 1 MiB
/// there, which is OPTIMAL TRANSFER LENGTH.
const COMMANDS: u32 = 32;

/// Where things are looked at.
#[derive(Debug)]
pub(super) struct Places {
    /// The target configuration.
    pub(super) target: PathBuf,
    /// The parameters of the module `target_core_user`.
    pub(super) parameters: PathBuf,
    /// The kernel's own settings.
    pub(super) kernel: PathBuf,
    /// The block devices by their numbers.
    pub(super) block_devices: PathBuf,
}

impl Default for Places {
    fn default() -> Places {
        Places {
            target: configfs::ROOT.into(),
            parameters: "/sys/module/target_core_user/parameters".into(),
            kernel: "/proc/sys/kernel".into(),
            block_devices: "/sys/dev/block".into(),
        }
    }
}

/// Looks for what slows this node down.
pub(super) fn look(places: &Places) -> Vec<Finding> {
    let mut findings = vec![io_uring(&places.kernel)];
    match look_at_targets(places) {
        Ok(more) => findings.extend(more),
        Err(error) => findings.push(Finding::new(
            "the target configuration can be read",
            Err(error),
        )),
    }
    findings
}

/// Whether the kernel lets io_uring be used: as far as its settings tell.
fn io_uring(kernel: &Path) -> Finding {
    const LEAST: (u32, u32) = (6, 1);
    let what = "io_uring can be used";
    let release = fs::read_to_string(kernel.join("osrelease")).unwrap_or_default();
    let release = release.trim();
    // Kernels before 6.6 have no such switch.
    let disabled = number(&kernel.join("io_uring_disabled")).unwrap_or(0);
    let (why, remedy) = if version(release).is_none_or(|version| version < LEAST) {
        let why = format!("this is Linux {release}, and that takes 6.1");
        (why, "boot a newer kernel")
    } else if disabled != 0 {
        let why = format!("kernel.io_uring_disabled is {disabled}");
        let remedy =
            "sysctl kernel.io_uring_disabled=0, and a file in /etc/sysctl.d that says the same";
        (why, remedy)
    } else {
        return Finding::ok(what);
    };
    // Disks are served all the same, and engine = "threads" asks for no more.
    Finding::note(
        what,
        format!(
            "{why}, so helper threads do the I/O, which takes longer; if that is not intended: {remedy}"
        ),
    )
}

fn finding(what: &str, problem: Option<String>) -> Finding {
    match problem {
        None => Finding::ok(what),
        Some(reason) => Finding::problem(what, reason),
    }
}

/// The first two numbers of a kernel's release.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

fn look_at_targets(places: &Places) -> Result<Vec<Finding>, configfs::Error> {
    let all = configfs::enabled(&places.target)?;
    let mut findings = Vec::new();
    let mut ours = Vec::new();
    let mut areas_mib = Vec::new();
    for backstore in &all {
        let area_mib = backstore.data_area_mib()?;
        areas_mib.push(area_mib);
        if backstore.is_ours()? {
            findings.push(data_area(backstore.name(), area_mib));
            ours.push(backstore);
        }
    }
    let limit_mib = number(&places.parameters.join("global_max_data_area_mb"));
    if let (false, Some(limit_mib)) = (ours.is_empty(), limit_mib) {
        findings.push(data_areas(&areas_mib, limit_mib));
    }
    for group in configfs::port_groups(&places.target)? {
        let mut luns = group.luns.iter().map(|lun| &lun.backstore);
        if luns.any(|name| ours.iter().any(|backstore| backstore.name() == name)) {
            let windows = configfs::command_windows(&places.target, &group)?;
            findings.extend(command_windows(&group, &windows));
        }
    }
    let disks = disks(&ours, &places.block_devices)?;
    findings.extend(disks.into_iter().map(scheduler));
    Ok(findings)
}

/// Whether the data of as many commands as hosts send finds room in a backstore's data area.
fn data_area(backstore: &BackstoreName, area_mib: u32) -> Finding {
    let remedy = "create the backstore with control=max_data_area_mb=32 or more, or without that";
    let problem = if area_mib < COMMAND_MIB {
        Some(format!(
            "it has {area_mib} MiB, and the kernel fails commands that move more; hosts are told that {COMMAND_MIB} MiB will do: {remedy}"
        ))
    } else if area_mib < COMMANDS {
        Some(format!(
            "it has {area_mib} MiB, and of {COMMANDS} commands of 1 MiB the last wait until the first are answered: {remedy}"
        ))
    } else {
        None
    };
    let what = format!("the data area of {backstore} has room for what hosts send");
    finding(&what, problem)
}

/// Whether all data areas can be full at once, without the kernel beginning to take their pages away.
fn data_areas(areas_mib: &[u32], limit_mib: u64) -> Finding {
    let together_mib: u64 = areas_mib.iter().copied().map(u64::from).sum();
    let what = "the data areas of all backstores fit into the kernel's limit";
    let note = (together_mib > limit_mib).then(|| {
        let share_mib = limit_mib / areas_mib.len().max(1) as u64;
        format!(
            "they can have {together_mib} MiB, and with more than {limit_mib} MiB in use the kernel takes pages away every 5 \
             seconds, to hand them out anew: if there is that much memory, write {together_mib} to \
             /sys/module/target_core_user/parameters/global_max_data_area_mb, and \"options target_core_user \
             global_max_data_area_mb={together_mib}\" to a file in /etc/modprobe.d; or create the {} backstores with \
             control=max_data_area_mb={share_mib}",
            areas_mib.len(),
        )
    });
    // By themselves they have 1 GiB each, and hardly ever fill that.
    note.map_or_else(|| Finding::ok(what), |reason| Finding::note(what, reason))
}

/// Whether the initiators of a port group may send as many commands as they would. Nothing where the fabric does not limit
/// that.
fn command_windows(group: &PortGroup, windows: &[CommandWindow]) -> Option<Finding> {
    let first = windows.iter().min_by_key(|window| window.commands)?;
    let CommandWindow { path, commands } = first;
    let problem = (*commands < COMMANDS).then(|| {
        let path = path.display();
        format!(
            "{path} allows {commands} at a time, and hosts send {COMMANDS}: write 64 to it; an initiator that is logged in \
             is logged out by that, and comes back"
        )
    });
    let what = format!("the initiators of {group} may send enough commands at a time");
    Some(finding(&what, problem))
}

/// The disks below our backstores, each once. What is not there now is left out.
fn disks(
    backstores: &[&Backstore],
    block_devices: &Path,
) -> Result<BTreeSet<Disk>, configfs::Error> {
    let mut found = BTreeSet::new();
    for backstore in backstores {
        if let Ok(options) = Options::parse_config(&backstore.config()?) {
            found.extend(disk::below(&options.path, block_devices));
        }
    }
    Ok(found)
}

/// Whether a disk's I/O scheduler costs little. Of one that rotates nothing is said: there, sorting can be worth its time.
fn scheduler(disk: Disk) -> Finding {
    let slow = disk.scheduler == "bfq" && !disk.rotates;
    let name = disk.name;
    let problem = slow.then(|| {
            format!(
                "it is bfq, made for disks that rotate, and {name} does not: write none or mq-deadline to \
                 /sys/block/{name}/queue/scheduler, and make a udev rule that does the same"
        )
    });
    finding(
        &format!("the I/O scheduler of {name} costs little"),
        problem,
    )
}

/// The number that a file of the kernel's holds, if it is there and holds one.
pub(super) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
