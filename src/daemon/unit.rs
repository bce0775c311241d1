//! A logical unit as the main thread knows it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::asked::Asked;
use super::chain;
use super::records::{Records, UnitRecord};
use super::refusal::Refusal;
use super::space::Watch;
use super::worker::{self, Order, PortId};
use crate::nexus::tap::Notes;
use crate::pr::out::{Context, RegistrationLimit};
use crate::scsi::Lba;
use crate::scsi::capacity::Geometry;
use crate::scsi::nexus::{RelativeTargetPort, TargetPort};
use crate::scsi::provisioning::Provisioning;
use crate::store::backing::{Backing, Mode, Topology};
use crate::store::engine;
use crate::store::space;
use crate::tcmu::config::{Defaults, DiskOptions, Label, Options, ReservationOptions};
use crate::tcmu::configfs::Settings;

/// A logical unit: its worker, and what the main thread has to know of it.
pub(super) struct Unit {
    pub(super) worker: worker::Handle,
    /// What that was asked last.
    pub(super) asked: Asked,
    pub(super) engine: engine::Kind,
    pub(super) backing: Arc<Backing>,
    pub(super) record: UnitRecord,
    pub(super) geometry: Geometry,
    pub(super) options: ReservationOptions,
    /// The units among which copies may go, if not only within this one.
    pub(super) copy_domain: Option<Label>,
    /// What its config strings say of the disk.
    pub(super) disk: DiskOptions,
    /// What held where they are silent when it was started. It holds for its further backstores too, whatever the node's
    /// file says by then: they are one disk.
    pub(super) defaults: Defaults,
    /// Warns initiators when little space is left. Dropping it ends that.
    pub(super) _watch: Option<Watch>,
    /// The target ports of which its worker knows that they lead to it.
    pub(super) served_ports: Option<Vec<(RelativeTargetPort, TargetPort)>>,
    /// Why the record of its reservations can't be read, if it could not when the unit was started.
    pub(super) unreadable: Option<String>,
    /// Whether writes may wait in the cache, as its backstores say.
    pub(super) write_cache: bool,
}

impl Unit {
    /// Gives a port the tap's notes of what is sent through it.
    pub(super) fn tap(&self, id: PortId, minor: u32, notes: &Notes) {
        if let Some(notes) = notes.of_device(minor) {
            self.worker.give(Order::Tap(id, notes));
        }
    }

    /// A further port of a unit must be the same disk.
    pub(super) fn check_same(
        &self,
        options: &Options,
        name: &Path,
        ours: &Geometry,
    ) -> Result<(), Refusal> {
        // Its records are found by its path: a restart that met the other name first would take it for another disk.
        if self.backing.path() != name {
            return Err(Refusal::OtherPath {
                path: options.path.clone(),
                served: self.backing.path().to_owned(),
            });
        }
        if options.copy_domain != self.copy_domain {
            return Err(Refusal::OtherDomain {
                path: options.path.clone(),
            });
        }
        let ours = on_medium(*ours, &self.backing.topology(), &options.disk);
        let ours = settings_of(&ours, &options.disk, &options.reservations);
        let theirs = settings_of(&self.geometry, &self.disk, &self.options);
        for ((key, theirs), (_, ours)) in theirs.into_iter().zip(ours) {
            if theirs != ours {
                return Err(Refusal::Differs {
                    path: options.path.clone(),
                    key,
                    theirs,
                    ours,
                });
            }
        }
        Ok(())
    }
}

/// What all backstores of a unit must have in common.
fn settings_of(
    geometry: &Geometry,
    disk: &DiskOptions,
    reservations: &ReservationOptions,
) -> [(&'static str, u64); 9] {
    [
        ("size", geometry.byte_length(geometry.blocks())),
        ("hw_block_size", geometry.block_size().into()),
        ("physical_block_size", geometry.physical_block_size().into()),
        ("read_only", disk.read_only.into()),
        ("direct", disk.direct.into()),
        ("thin_threshold", percent(disk).into()),
        ("registrations", limit(reservations).get().into()),
        ("force_aptpl", reservations.force_aptpl.into()),
        (
            "spec_i_pt_known_only",
            reservations.spec_i_pt_known_only.into(),
        ),
    ]
}

/// When initiators are to be warned; 0 for never.
fn percent(disk: &DiskOptions) -> u8 {
    disk.thin_threshold.map_or(0, |threshold| threshold.percent)
}

/// Makes sure that the target port has a relative target port identifier that lasts.
pub(super) fn know_port(
    records: &Records,
    record: &mut UnitRecord,
    port: &TargetPort,
) -> Result<(), String> {
    if record.target_ports.relative(port).is_some() {
        return Ok(());
    }
    let mut next = record.clone();
    if next.target_ports.add(port).is_none() {
        return Err(
            "the unit has had 65,535 target ports: no number is left for another".to_owned(),
        );
    }
    records.save_unit(&next).map_err(|error| chain(&error))?;
    *record = next;
    Ok(())
}

/// What PERSISTENT RESERVE OUT has to know of the administrator's wishes.
pub(super) fn context(options: &ReservationOptions) -> Context {
    Context {
        registration_limit: limit(options),
        force_aptpl: options.force_aptpl,
        spec_i_pt_known_only: options.spec_i_pt_known_only,
        ..Context::default()
    }
}

fn limit(options: &ReservationOptions) -> RegistrationLimit {
    let limit = options.registrations.map(RegistrationLimit::try_from);
    limit.and_then(Result::ok).unwrap_or_default()
}

/// How the backing object is used.
pub(super) fn mode(disk: &DiskOptions) -> Mode {
    Mode {
        read_only: disk.read_only,
        direct: disk.direct,
    }
}

/// The most that OPTIMAL UNMAP GRANULARITY may be, in bytes, lest VMware's hosts give up on unmapping by themselves.
const UNMAP_GRANULARITY_MAX: u32 = 1 << 20;

/// What a unit on this backing object does about blocks that nobody needs.
pub(super) fn provisioning(backing: &Backing, disk: &DiskOptions) -> Result<Provisioning, Refusal> {
    let soft_threshold = disk
        .thin_threshold
        .filter(|threshold| threshold.demanded || backing.has_figures())
        .map(|threshold| soft_threshold(backing, threshold.percent))
        .transpose()?;
    let Some(deallocation) = backing.deallocation() else {
        return Ok(Provisioning::Full);
    };
    let granularity = u32::try_from(deallocation.granularity).unwrap_or(u32::MAX);
    Ok(Provisioning::Thin {
        zeroes: deallocation.zeroes,
        granularity: granularity.min(UNMAP_GRANULARITY_MAX),
        alignment: u32::try_from(deallocation.alignment).unwrap_or(0),
        figures: backing.has_figures(),
        soft_threshold,
    })
}

/// So many percent of the file system that the backing object lies in, in bytes.
fn soft_threshold(backing: &Backing, percent: u8) -> Result<u64, Refusal> {
    let path = backing.path().to_owned();
    if !backing.has_figures() {
        return Err(Refusal::NoThreshold { path });
    }
    match space::figures_at(&path) {
        Ok(figures) => Ok(figures.total / 100 * u64::from(percent)),
        Err(source) => Err(Refusal::Start { path, source }),
    }
}

/// Has initiators warned when little space is left, if they are to be.
pub(super) fn watch(
    backing: &Backing,
    provisioning: &Provisioning,
    worker: &worker::Handle,
) -> io::Result<Option<Watch>> {
    let Provisioning::Thin {
        soft_threshold: Some(available),
        ..
    } = *provisioning
    else {
        return Ok(None);
    };
    let orders = worker.orders();
    let warn = move || orders.give(Order::SpaceLow);
    Watch::start(backing.path().to_owned(), available, warn).map(Some)
}

/// What the kernel's settings and the config string say of a unit.
pub(super) fn geometry(settings: &Settings, disk: &DiskOptions) -> Result<Geometry, Refusal> {
    let Settings {
        size_bytes: size,
        block_size_bytes: block_size,
        ..
    } = *settings;
    let blocks = size.checked_div(u64::from(block_size)).unwrap_or(0);
    let mut geometry = Geometry::new(block_size, blocks, 0)
        .filter(|geometry| geometry.byte_length(geometry.blocks()) == size)
        .ok_or(Refusal::Geometry { block_size, size })?;
    if let Some(physical) = disk.physical_block_size {
        geometry =
            geometry
                .with_physical_blocks(physical, Lba(0))
                .ok_or(Refusal::PhysicalBlocks {
                    physical,
                    block_size,
                })?;
    }
    if disk.read_only {
        geometry = geometry.write_protected();
    }
    Ok(geometry)
}

/// The same on this medium, of which initiators are told what the config string does not say otherwise.
pub(super) fn on_medium(geometry: Geometry, medium: &Topology, disk: &DiskOptions) -> Geometry {
    let own = geometry.with_physical_blocks(
        medium.physical_block_size,
        Lba((medium.first_physical_block / geometry.block_size()).into()),
    );
    let told = match disk.physical_block_size {
        None => own.unwrap_or(geometry),
        Some(_) => geometry,
    };
    let told = match medium.atomic_write {
        Some(bytes) => told.writing_atomically(bytes),
        None => told,
    };
    if medium.rotates {
        told.rotating()
    } else {
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::capacity::read_capacity_16;

    const SETTINGS: Settings = Settings {
        size_bytes: 1 << 20,
        block_size_bytes: 512,
        write_cache: false,
        command_timeout_s: 0,
    };

    fn disk(text: &str) -> DiskOptions {
        let options = Options::parse(&format!("/srv/lun0.img{text}"));
        options.expect("it is good").disk
    }

    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT, and LOWEST ALIGNED LOGICAL BLOCK ADDRESS.
    fn told(geometry: &Geometry) -> [u8; 3] {
        let capacity = read_capacity_16(geometry, &Provisioning::Full);
        [capacity[13], capacity[14], capacity[15]]
    }

    #[test]
    fn what_the_medium_says_is_told_unless_the_administrator_says_otherwise() {
        let medium = Topology {
            physical_block_size: 4096,
            first_physical_block: 3584,
            rotates: true,
            atomic_write: None,
        };
        for (text, expected) in [
            ("", [0x03, 0x00, 0x07]),
            (";physical_block_size=512", [0x00, 0x00, 0x00]),
            (";physical_block_size=4096", [0x03, 0x00, 0x00]),
            (";physical_block_size=65536", [0x07, 0x00, 0x00]),
        ] {
            let disk = disk(text);
            let by_settings = geometry(&SETTINGS, &disk).unwrap();
            let geometry = on_medium(by_settings, &medium, &disk);
            assert_eq!(told(&geometry), expected, "{text}");
            assert!(geometry.rotates());
            assert_eq!(geometry.blocks(), by_settings.blocks());
        }
    }

    #[test]
    fn a_physical_block_smaller_than_a_logical_one_is_refused() {
        let settings = Settings {
            block_size_bytes: 4096,
            ..SETTINGS
        };
        let refusal = geometry(&settings, &disk(";physical_block_size=2048")).unwrap_err();
        let expected = "give at least physical_block_size=4096";
        assert!(refusal.to_string().contains(expected), "{refusal}");
    }

    #[test]
    fn a_threshold_is_of_the_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let backing = Backing::open(&folder.path().join("lun0.img"), 1 << 20, 512).unwrap();
        let total = space::figures_at(backing.path()).unwrap().total;
        for (text, expected) in [("", None), (";thin_threshold=50", Some(total / 2))] {
            let Provisioning::Thin { soft_threshold, .. } =
                provisioning(&backing, &disk(text)).unwrap()
            else {
                panic!("it gives space back")
            };
            let differs_by = |found: u64| found.abs_diff(expected.unwrap_or(0));
            assert_eq!(soft_threshold.is_some(), expected.is_some());
            assert!(soft_threshold.is_none_or(|found| differs_by(found) < 100));
        }
    }

    #[test]
    fn a_read_only_disk_is_write_protected() {
        for (text, expected) in [("", false), (";read_only=1", true)] {
            let geometry = geometry(&SETTINGS, &disk(text)).unwrap();
            assert_eq!(geometry.is_write_protected(), expected);
        }
    }

    #[test]
    fn backstores_of_a_unit_differ_in_nothing_that_concerns_the_disk() {
        let settings = |text: &str, settings: Settings| {
            let options = Options::parse(&format!("/srv/lun0.img{text}")).unwrap();
            let geometry = geometry(&settings, &options.disk).unwrap();
            settings_of(&geometry, &options.disk, &options.reservations)
        };
        let ours = settings("", SETTINGS);
        let larger = Settings {
            size_bytes: 2 << 20,
            ..SETTINGS
        };
        let coarser = Settings {
            block_size_bytes: 4096,
            ..SETTINGS
        };
        for (key, theirs) in [
            ("size", settings("", larger)),
            ("hw_block_size", settings("", coarser)),
            (
                "physical_block_size",
                settings(";physical_block_size=1024", SETTINGS),
            ),
            ("read_only", settings(";read_only=1", SETTINGS)),
            ("direct", settings(";direct=1", SETTINGS)),
            ("thin_threshold", settings(";thin_threshold=5", SETTINGS)),
            ("registrations", settings(";registrations=128", SETTINGS)),
            ("force_aptpl", settings(";force_aptpl=1", SETTINGS)),
            (
                "spec_i_pt_known_only",
                settings(";spec_i_pt_known_only=1", SETTINGS),
            ),
        ] {
            let differing = ours
                .iter()
                .zip(theirs)
                .find(|(ours, theirs)| *ours != theirs);
            assert_eq!(differing.map(|(ours, _)| ours.0), Some(key));
        }
        assert_eq!(ours, settings(";nexus=a", SETTINGS));
    }
}
