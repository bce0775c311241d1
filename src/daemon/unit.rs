//! A logical unit as the main thread knows it.

use std::sync::Arc;

use super::chain;
use super::records::{Records, UnitRecord};
use super::refusal::Refusal;
use super::worker::{self, Order, PortId};
use crate::nexus::tap::Notes;
use crate::pr::out::{Context, RegistrationLimit};
use crate::scsi::capacity::Geometry;
use crate::scsi::nexus::TargetPort;
use crate::scsi::provisioning::Provisioning;
use crate::store::backing::Backing;
use crate::tcmu::config::{Options, ReservationOptions};
use crate::tcmu::configfs::Settings;

/// A logical unit: its worker, and what the main thread has to know of it.
pub(super) struct Unit {
    pub(super) worker: worker::Handle,
    pub(super) backing: Arc<Backing>,
    pub(super) record: UnitRecord,
    pub(super) geometry: Geometry,
    pub(super) options: ReservationOptions,
    /// Why the record of its reservations can't be read, if it could not when the unit was started.
    pub(super) unreadable: Option<String>,
    /// Whether writes may wait in the cache.
    pub(super) write_back: bool,
}

impl Unit {
    /// Gives a port the tap's notes of what is sent through it.
    pub(super) fn tap(&self, id: PortId, minor: u32, notes: &Notes) {
        if let Some(notes) = notes.of_device(minor) {
            self.worker.give(Order::Tap(id, notes));
        }
    }

    /// A further port of a unit must be the same disk.
    pub(super) fn check_same(&self, options: &Options, ours: &Geometry) -> Result<(), Refusal> {
        // Its records are found by its path: a restart that met the other name first would take it for another disk.
        if options.path.canonicalize().ok().as_deref() != Some(self.backing.path()) {
            return Err(Refusal::OtherPath {
                path: options.path.clone(),
                served: self.backing.path().to_owned(),
            });
        }
        let theirs = &self.geometry;
        let size = |geometry: &Geometry| geometry.byte_length(geometry.blocks());
        let differs = |key, theirs, ours| {
            Err(Refusal::Differs {
                path: options.path.clone(),
                key,
                theirs,
                ours,
            })
        };
        if size(theirs) != size(ours) {
            return differs("size", size(theirs), size(ours));
        }
        if theirs.block_size() != ours.block_size() {
            return differs(
                "hw_block_size",
                theirs.block_size().into(),
                ours.block_size().into(),
            );
        }
        let registrations = |options: &ReservationOptions| limit(options).get().into();
        let (ours, theirs) = (&options.reservations, &self.options);
        for (key, theirs, ours) in [
            ("registrations", registrations(theirs), registrations(ours)),
            (
                "force_aptpl",
                theirs.force_aptpl.into(),
                ours.force_aptpl.into(),
            ),
            (
                "spec_i_pt_known_only",
                theirs.spec_i_pt_known_only.into(),
                ours.spec_i_pt_known_only.into(),
            ),
        ] {
            if theirs != ours {
                return differs(key, theirs, ours);
            }
        }
        Ok(())
    }
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

/// The most that OPTIMAL UNMAP GRANULARITY may be, in bytes, lest VMware's hosts give up on unmapping by themselves.
const UNMAP_GRANULARITY_MAX: u32 = 1 << 20;

/// What a unit on this backing object does about blocks that nobody needs.
pub(super) fn provisioning(backing: &Backing) -> Provisioning {
    let Some(deallocation) = backing.deallocation() else {
        return Provisioning::Full;
    };
    let granularity = u32::try_from(deallocation.granularity).unwrap_or(u32::MAX);
    Provisioning::Thin {
        zeroes: deallocation.zeroes,
        granularity: granularity.min(UNMAP_GRANULARITY_MAX),
        alignment: u32::try_from(deallocation.alignment).unwrap_or(0),
    }
}

pub(super) fn geometry(settings: &Settings) -> Result<Geometry, Refusal> {
    let Settings {
        size_bytes: size,
        block_size_bytes: block_size,
        ..
    } = *settings;
    let blocks = size.checked_div(u64::from(block_size)).unwrap_or(0);
    Geometry::new(block_size, blocks, 0)
        .filter(|geometry| geometry.byte_length(geometry.blocks()) == size)
        .ok_or(Refusal::Geometry { block_size, size })
}
